"""Which completions are drawn next: all of them at once, or in rounds that stop where enough is there.

A round depends on what the rounds before it came to and on nothing else, neither on the time nor on the order in which
completions arrived. So a run that was cut off, wherever that was, asks for the very keys that it would have asked for.

Adaptive rounds spend the budget of P x N completions otherwise than evenly: a prompt is left alone once enough of its
completions are accepted, and what that saves goes to the prompts that have none, up to a cap a prompt. How many a prompt gets
next is what its share of accepted ones lets expect, at most as many as it has had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasoning_ext.engines.base import Key
from reasoning_ext.sample.store import CUT_OFF, FAILED, MISSING, RIGHT, WRONG

MOST_FAILED = 4  # completions of a prompt that may fail before it is given up, if nothing else came of it


@dataclass(frozen=True)
class Budget:
    """How many completions may be drawn.

    Attributes:
        each: N, completions a prompt; with `adaptive`, on average.
        adaptive: stop where enough is there.
        enough: accepted completions after which a prompt is left alone.
        first: completions of every prompt in the first round.
        most: the most completions of one prompt.
    """

    each: int
    adaptive: bool = False
    enough: int = 1
    first: int = 1
    most: int = 1

    @property
    def cap(self) -> int:
        """The most completions that a prompt can get."""
        return max(self.each, self.most) if self.adaptive else self.each


class Keys(Sequence[Key]):
    """Keys in 8 bytes each, where a list of pairs would take a hundred.

    Args:
        array_K2: prompt and sample of each key, int32, (K, 2).
    """

    def __init__(self, array_K2: np.ndarray):
        self.array_K2 = array_K2

    def __len__(self) -> int:
        return len(self.array_K2)

    def __getitem__(self, place: Any) -> Any:
        found = self.array_K2[place].tolist()
        return [(p, g) for p, g in found] if isinstance(place, slice) else tuple(found)


def rounds(
    budget: Budget,
    states_PS: np.ndarray,
    count: Callable[[np.ndarray], np.ndarray],
    whole_P: np.ndarray,
) -> Iterator[Keys]:
    """Yield the keys of each round that are still missing; the caller draws them before it asks for the next round.

    Args:
        budget: how many may be drawn.
        states_PS: what has been drawn came to, looked at anew in every round.
        count: from how many samples of each prompt count, (P,), to how many of those are accepted, (P,).
        whole_P: prompts that get their N completions at once, because they are judged by comparing these with one another.

    Yields:
        `(prompt, sample)` pairs, of all prompts' first samples first; empty rounds are left out.
    """
    planned = np.zeros(len(states_PS), dtype=np.int64)
    while True:
        wanted = _next(budget, planned, states_PS, count, whole_P)
        if not wanted.any():
            return
        planned = planned + wanted
        prompts, samples = np.nonzero((np.arange(states_PS.shape[1]) < planned[:, None]) & (states_PS == MISSING))
        if len(prompts):
            order = np.lexsort((prompts, samples))
            yield Keys(np.stack([prompts[order], samples[order]], 1).astype(np.int32))


def _next(
    budget: Budget,
    planned: np.ndarray,
    states_PS: np.ndarray,
    count: Callable[[np.ndarray], np.ndarray],
    whole_P: np.ndarray,
) -> np.ndarray:
    """Return how many more completions each prompt gets, (P,)."""
    if not planned.any():
        first = min(budget.each, max(budget.first, budget.enough)) if budget.adaptive else budget.each
        return np.where(whole_P, budget.each, first)
    if not budget.adaptive:
        return np.zeros_like(planned)
    accepted, open_P = count(planned), _judged(planned, states_PS)
    open_P &= ~whole_P
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


def _judged(planned: np.ndarray, states_PS: np.ndarray) -> np.ndarray:
    """Tell which prompts have a completion that could be judged, or failed a few times; more of others would not help, (P,)."""
    drawn_PS = np.arange(states_PS.shape[1]) < planned[:, None]
    judged_P = (np.isin(states_PS, (RIGHT, WRONG, CUT_OFF)) & drawn_PS).any(axis=1)
    failed_P = ((states_PS == FAILED) & drawn_PS).sum(axis=1)
    return np.asarray(judged_P | ((failed_P > 0) & (failed_P < MOST_FAILED)))
