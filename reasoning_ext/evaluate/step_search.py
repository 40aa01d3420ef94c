"""Where a thought goes wrong: the first step behind which the right answer is out of reach, found by drawing from cuts.

Behind the true steps of a wrong thought a model still finds the answer, and behind a wrong step it does not: steps are
judged by completions from them as in Math-Shepherd (arXiv:2312.08935), and only as many as it takes to close in on the
first wrong one, as in OmegaPRM (arXiv:2406.06592), with several cuts a round, so that few batches are drawn.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from reasoning_ext import think
from reasoning_ext.engines.base import EngineError, SamplingSettings
from reasoning_ext.evaluate.answers import Answers, Line, Request
from reasoning_ext.evaluate.interventions import Thought
from reasoning_ext.runs.outcomes import is_right

CUTS = 3  # a round
TRIES = 4  # completions from a cut, where most of those from the start are right


@dataclass
class Search:
    """A wrong thought, and between which of its S steps the first wrong one lies.

    Attributes:
        problem: its number.
        thought: its parts.
        start: the share of completions from the very start that are right.
        k: how many of those there are.
        low: steps behind which the answer is known to be in reach; None where it is not in reach from the start.
        high: steps behind which it is out of reach; S + 1 is the whole thought with its wrong answer.
        right: of the cuts that were tried, how many completions were right.
    """

    problem: int
    thought: Thought
    start: float
    k: int = 8
    low: int | None = None
    high: int = 0
    right: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.low, self.high = 0 if self.start > 0 else None, len(self.thought.steps) + 1

    @property
    def cuts(self) -> list[int]:
        """The numbers of steps to cut behind next: evenly between `low` and `high`; none where the search is over."""
        low = self.low or 0
        between = self.high - low
        return sorted({low + round(between * i / (CUTS + 1)) for i in range(1, CUTS + 1)} - {low, self.high})

    @property
    def tries(self) -> int:
        """Completions from each cut: rare answers take as many as from the start to be told from none."""
        return TRIES if self.start > 0.5 else self.k

    def begun(self, cut: int) -> str:
        """Return the completion's beginning with so many steps, up to where the next one begins, or the answer."""
        return self.thought.begun(self.thought.steps[:cut], closed=cut == len(self.thought.steps))

    @property
    def step(self) -> int | None:
        """The first wrong step, from 1 to S; S + 1 where all are true and the answer is not theirs; None for none."""
        return self.high if self.low is not None and self.high - self.low == 1 else None

    def narrow(self, right: dict[int, int]) -> None:
        """Take what a round found: of cuts, how many completions were right.

        In reach is an answer that comes at least half as often as from the start, rounded down, and once at least.
        """
        self.right |= right
        least = max(1, math.floor(self.tries * self.start / 2))
        reached = [cut for cut, count in right.items() if count >= least]
        self.low = max(reached, default=self.low)
        self.high = min([cut for cut in right if cut > (self.low or 0)], default=self.high)


def find_steps(answers: Answers, searches: Sequence[Search], settings: SamplingSettings, decides: str) -> None:
    """Close in on the first wrong step of each thought, all of them a round at a time; what is drawn already is read.

    Raises:
        EngineError: the engine does not go on from a completion's beginning.
    """
    while open_ones := [search for search in searches if search.cuts]:
        by_cut = defaultdict[int, list[Search]](list)
        for search in open_ones:
            for cut in search.cuts:
                by_cut[cut].append(search)
        drawn = answers.draw(*(_request(cut, of, settings) for cut, of in by_cut.items()))
        right = defaultdict[int, dict[int, int]](dict)
        for (cut, of), lines in zip(by_cut.items(), drawn, strict=True):
            _refuse_restarts(cut, of, lines)
            rest = iter(lines)
            for search in of:
                own = itertools.islice(rest, search.tries)
                right[search.problem][cut] = sum(is_right(line, decides) is True for line in own)
        for search in open_ones:
            search.narrow(right[search.problem])


def _request(cut: int, searches: Sequence[Search], settings: SamplingSettings) -> Request:
    begun = {(search.problem, g): search.begun(cut) for search in searches for g in range(search.tries)}
    return Request([*begun], settings, f"behind {cut} steps", begun=begun)


def _refuse_restarts(cut: int, searches: Sequence[Search], lines: Sequence[Line]) -> None:
    """Refuse an engine whose completions all begin with a thought of their own, in the middle of another one."""
    tags = {search.problem: search.begun(cut).count(think.OPEN) for search in searches}
    if all(line["completion"].count(think.OPEN) > tags[line["prompt_index"]] for line in lines):
        found = "found an engine that begins anew in the place of going on from a completion's beginning"
        raise EngineError("engine", f"{found}; use transformers or vllm, or leave steps out with --no-steps")
