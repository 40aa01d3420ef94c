"""Which completions are drawn next: all of them at once, or in rounds that stop where enough is there.

A round depends on what the rounds before it came to and on nothing else, so that a run that was cut off asks for the very keys
that it would have asked for. Adaptive rounds leave a prompt alone once enough of its completions are accepted, and spend what
that saves on the prompts that have none, up to a cap a prompt. How many a prompt gets next is what its share of accepted ones
lets expect, at most as many as it has had.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from reasoning_ext.engines.base import Key
from reasoning_ext.sample.selection import CUT_OFF, FAILED, FORCED, MISSING, RIGHT, WRONG

MOST_FAILED = 4  # completions of a prompt that may fail before it is given up, if nothing else came of it


@dataclass(frozen=True)
class Budget:
    """How many completions may be drawn."""

    each: int  # N, completions a prompt; with `adaptive`, on average
    adaptive: bool = False  # stop where enough is there
    enough: int = 1  # accepted completions after which a prompt is left alone
    first: int = 1  # completions of every prompt in the first round
    most: int = 1  # the most completions of one prompt

    @property
    def cap(self) -> int:
        """The most completions that a prompt can get."""
        return max(self.each, self.most) if self.adaptive else self.each


def rounds(
    budget: Budget, states_PS: np.ndarray, count: Callable[[np.ndarray], np.ndarray], whole_P: np.ndarray
) -> Iterator[list[Key]]:
    """Yield the keys of each round that are still missing, all prompts' first samples first; the caller draws them.

    Args:
        budget: how many may be drawn.
        states_PS: what has been drawn came to, looked at anew in every round.
        count: from how many samples of each prompt count, (P,), to how many of those are accepted, (P,).
        whole_P: prompts that get their N completions at once, because these are judged by comparing them.
    """
    first = min(budget.each, max(budget.first, budget.enough)) if budget.adaptive else budget.each
    wanted = np.where(whole_P, budget.each, first)
    planned = np.zeros(len(states_PS), dtype=np.int64)
    while wanted.any():
        planned = planned + wanted
        drawn_PS = np.arange(states_PS.shape[1]) < planned[:, None]
        samples, prompts = np.nonzero((drawn_PS & (states_PS == MISSING)).T)
        if len(prompts):
            yield list(zip(prompts.tolist(), samples.tolist(), strict=True))
        if not budget.adaptive:
            return
        # more of what nobody can judge would not help, nor of a prompt of which all fails
        judged_P = (np.isin(states_PS, (RIGHT, FORCED, WRONG, CUT_OFF)) & drawn_PS).any(axis=1)
        failed_P = ((states_PS == FAILED) & drawn_PS).sum(axis=1)
        open_P = (judged_P | ((failed_P > 0) & (failed_P < MOST_FAILED))) & ~whole_P
        wanted = _next(budget, planned, count(planned), open_P)


def _next(budget: Budget, planned: np.ndarray, accepted: np.ndarray, open_P: np.ndarray) -> np.ndarray:
    """Return how many more completions each prompt gets, (P,), of those for which more may help."""
    lacking = (accepted < budget.enough) & (planned < budget.each) & open_P
    if lacking.any():
        expected = np.ceil((budget.enough - accepted) * (planned + 2) / (accepted + 1)).astype(np.int64)
        return np.where(lacking, np.clip(expected, 1, np.minimum(planned, budget.each - planned)), 0)
    left = budget.each * len(planned) - planned.sum()
    without = (accepted == 0) & (planned < budget.cap) & open_P
    if left <= 0 or not without.any():
        return np.zeros_like(planned)
    wanted = np.where(without, np.minimum(planned, budget.cap - planned), 0)
    if wanted.sum() > left:
        share = int(left // without.sum())
        wanted = np.minimum(wanted, share) if share else (without & (np.cumsum(without) <= left)).astype(np.int64)
    return wanted
