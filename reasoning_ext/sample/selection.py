"""What a completion comes to, what is accepted of the completions, and what is kept of the accepted ones.

Accepted is a completion that ended by itself and is right: by the recipe's first reward, as in stage `eval`, or by its total
where the recipe sets `min_reward`, or, where a prompt has no gold, by agreeing with most others (arXiv:2203.11171, 2210.11610).
Kept are the first, the shortest or the best rewarded, none twice; or `diverse` ones, whose ways differ (arXiv:2308.01825).
What has tokens that a thinking budget put there is judged as any other, but kept only where `keep_forced` says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.duplicates import jaccard, normalise, shingles
from reasoning_ext.data.rows import has_gold
from reasoning_ext.engines.base import is_fault
from reasoning_ext.scoring.votes import same_answers

MISSING, UNJUDGED, WRONG, RIGHT, CUT_OFF, FAILED, FORCED = range(7)  # what a completion came to; FORCED is right too
NEAR = 0.8  # pairs of neighbouring words in common from which two solutions count as one


@dataclass
class Drawn:
    """A completion as it was written, `MISSING`, ... `FORCED`, and its weighted reward."""

    sample: int
    completion: str
    tokens: int
    rewards: dict[str, float | None]
    answer: Any = None
    error: str = ""
    forced: int = 0  # tokens that were put there
    state: int = RIGHT
    total: float = 0.0
    turns: tuple[dict[str, Any], ...] = ()  # calls of tools and their results, before the completion
    observed: str = ""  # what an environment put behind the prompt

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the whole trace."""
        return [*self.turns, {"role": "assistant", "content": self.completion}]

    @property
    def trace(self) -> str:
        """Return what no other completion is the same as."""
        return trace(self.completion, self.turns)


@dataclass(frozen=True)
class Rules:
    """A recipe's rules."""

    weights: dict[str, float]  # of the rewards; the first one says what is right
    min_reward: float | None = None  # accept from this total reward on, in the place of what the first reward says
    keep: int = 1  # at most so many a prompt
    select: str = "first"  # or `shortest`, `highest_reward`
    diverse: bool = False  # keep solutions that differ in their way
    min_agreement: float | None = None  # the share that the commonest answer of a prompt without a gold needs
    keep_forced: bool = False  # keep completions with tokens that were put there

    def judge(self, row: dict[str, Any]) -> tuple[int, float]:
        """Return what a line of `samples.jsonl` came to, and its total reward."""
        rewards = row["rewards"]
        total = sum(self.weights[name] * value for name, value in rewards.items() if value is not None)
        if row.get("error"):  # what is no fault of a server's would be the same another time
            return (FAILED if is_fault(row["error"]) else CUT_OFF), 0.0
        if not row["finished"]:
            return CUT_OFF, total
        if self.min_agreement is not None and not has_gold(row.get("answer")):
            return UNJUDGED, total
        decides = rewards.get(next(iter(self.weights))) if self.min_reward is None else total
        if decides is None or all(value is None for value in rewards.values()):
            return UNJUDGED, total
        least = 0.5 if self.min_reward is None else self.min_reward
        right = decides > least or (self.min_reward is not None and math.isclose(decides, least))
        return (self.right(row.get("forced", 0)) if right else WRONG), total

    def right(self, forced: int) -> int:
        """Return what a right completion with so many forced tokens came to."""
        return FORCED if forced and not self.keep_forced else RIGHT

    def what(self, completion: str, turns: Sequence[dict[str, Any]] = ()) -> str:
        """Return what makes a right completion another one than the next: its text, or its way."""
        return way(completion, turns) if self.diverse else trace(completion, turns)

    def judge_together(self, drawn: list[Drawn]) -> None:
        """Judge the completions of a prompt without a gold by its commonest answer, in place; others are judged already."""
        finished = [one for one in drawn if one.state == UNJUDGED]
        if self.min_agreement is None or not finished or has_gold(finished[0].answer):
            return
        agree = agreeing([one.completion for one in finished], self.min_agreement)
        for one, agrees in zip(finished, agree, strict=True):
            one.state = self.right(one.forced) if agrees else WRONG if any(agree) else UNJUDGED

    def kept(self, right: list[Drawn]) -> list[Drawn]:
        """Choose among one prompt's accepted completions, which stand in the order of their samples; the best is the first."""
        if self.select == "shortest":
            right = sorted(right, key=lambda one: one.tokens)
        elif self.select == "highest_reward":
            right = sorted(right, key=lambda one: -one.total)
        first = {one.trace: one for one in reversed(right)}
        once = [one for one in right if first[one.trace] is one]
        if not self.diverse:
            return once[: self.keep]
        return [once[i] for i in different(once, self.keep)]


def trace(completion: str, turns: Sequence[dict[str, Any]] = ()) -> str:
    """Return a text of all turns; a completion without others is its own."""
    return json.dumps([*turns, completion], ensure_ascii=False) if turns else completion


def way(completion: str, turns: Sequence[dict[str, Any]] = ()) -> str:
    """Return what makes a solution another one than the next: its equations in their order, or its words where it has none.

    With turns the equations are those of all of them, and what was called is a part of the way.
    """
    from reasoning_ext.rewards.step_check import equations

    said = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    called = [json.dumps(call["function"], sort_keys=True) for turn in turns for call in turn.get("tool_calls") or ()]
    text = "\n".join([*said, completion]) if turns else think.split(completion).thought or completion
    return ";".join([*equations(text), *called]) or normalise(completion)


def different(drawn: Sequence[Drawn], most: int) -> list[int]:
    """Return the places of solutions that differ in their way: the first, then each time the one farthest from the chosen."""
    first_of_way = {way(one.completion, one.turns): i for i, one in reversed(list(enumerate(drawn)))}
    nearest = dict.fromkeys(sorted(first_of_way.values()), 0.0)
    words = {i: shingles(drawn[i].trace) for i in nearest}
    chosen: list[int] = []
    while nearest and len(chosen) < most:
        best = min(nearest, key=lambda i: (nearest[i], i))
        if nearest.pop(best) >= NEAR:
            break
        chosen.append(best)
        nearest = {i: max(near, jaccard(words[i], words[best])) for i, near in nearest.items()}
    return chosen


def agreeing(completions: Sequence[str], min_agreement: float) -> list[bool]:
    """Tell which completions give the answer that most give; none where two are equally common, or it was given once."""
    groups: list[list[int]] = [*same_answers(completions), [], []]
    commonest, second = groups[:2]
    share = len(commonest) / max(1, len(completions))
    enough = share >= min_agreement or math.isclose(share, min_agreement)
    agreed = enough and len(commonest) > max(1, len(second))
    return [agreed and i in commonest for i in range(len(completions))]
