"""What is accepted of the completions, and what is kept of the accepted ones.

Accepted is a completion that ended by itself and is right: by the recipe's first reward, as in stage `eval`, or by its total
reward where the recipe sets `min_reward`, or, where a prompt has no gold, by agreeing with most others (self-consistency,
arXiv:2203.11171; as training data, arXiv:2210.11610). Kept are the first, the shortest or the best rewarded, at most so many
a prompt, none twice; or `diverse` ones, whose ways to the answer differ (rejection-sampling fine-tuning, arXiv:2308.01825).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.duplicates import jaccard, normalise, shingles
from reasoning_ext.data.rows import has_gold
from reasoning_ext.engines.base import is_fault
from reasoning_ext.sample.store import CUT_OFF, FAILED, RIGHT, UNJUDGED, WRONG, Drawn, number_of
from reasoning_ext.scoring.votes import same_answers

NEAR = 0.8  # pairs of neighbouring words in common from which two solutions count as one


@dataclass(frozen=True)
class Rules:
    """A recipe's rules.

    Attributes:
        weights: of the rewards; the first one says what is right.
        min_reward: accept from this total reward on, in the place of what the first reward says.
        keep: at most so many a prompt.
        select: `first`, `shortest` or `highest_reward`.
        diverse: keep solutions that differ in their way.
        min_agreement: of the finished completions of a prompt without a gold, the share that the commonest answer needs.
    """

    weights: dict[str, float]
    min_reward: float | None = None
    keep: int = 1
    select: str = "first"
    diverse: bool = False
    min_agreement: float | None = None

    def judge(self, row: dict[str, Any]) -> tuple[int, float, int]:
        """Return what a line of `samples.jsonl` came to, its total reward, and, if it is right, a number for its text or way."""
        rewards = row["rewards"]
        total = sum(self.weights[name] * value for name, value in rewards.items() if value is not None)
        if row.get("error"):  # what is no fault of a server's would be the same another time
            return (FAILED if is_fault(row["error"]) else CUT_OFF), 0.0, 0
        if not row["finished"]:
            return CUT_OFF, total, 0
        if self.min_agreement is not None and not has_gold(row.get("answer")):
            return UNJUDGED, total, 0
        decides = rewards.get(next(iter(self.weights))) if self.min_reward is None else total
        if decides is None or all(value is None for value in rewards.values()):
            return UNJUDGED, total, 0
        least = 0.5 if self.min_reward is None else self.min_reward
        right = decides > least or (self.min_reward is not None and math.isclose(decides, least))
        if not right:
            return WRONG, total, 0
        return RIGHT, total, number_of(way(row["completion"]) if self.diverse else row["completion"])

    def judge_together(self, drawn: list[Drawn]) -> None:
        """Judge the completions of a prompt without a gold by its commonest answer, in place; others are judged already."""
        finished = [one for one in drawn if one.state == UNJUDGED]
        if self.min_agreement is None or not finished or has_gold(finished[0].answer):
            return
        agree = agreeing([one.completion for one in finished], self.min_agreement)
        for one, agrees in zip(finished, agree, strict=True):
            one.state = RIGHT if agrees else WRONG if any(agree) else UNJUDGED

    def kept(self, right: list[Drawn]) -> list[Drawn]:
        """Choose among one prompt's accepted completions, which stand in the order of their samples; the best is the first."""
        if self.select == "shortest":
            right = sorted(right, key=lambda one: one.tokens)
        elif self.select == "highest_reward":
            right = sorted(right, key=lambda one: -one.total)
        first = {one.completion: one for one in reversed(right)}
        once = [one for one in right if first[one.completion] is one]
        if not self.diverse:
            return once[: self.keep]
        return [once[i] for i in different([one.completion for one in once], self.keep)]


def way(completion: str) -> str:
    """Return what makes a solution another one than the next: its equations in their order, or its words where it has none.

    >>> way("<think>First 3 + 4 = 7, then 7*2=14.</think>14") == way("<think>3+4=7; 7 * 2 = 14</think>So 14")
    True
    """
    from reasoning_ext.rewards.step_check import equations

    return ";".join(equations(think.split(completion).thought or completion)) or normalise(completion)


def different(texts: Sequence[str], most: int) -> list[int]:
    """Choose solutions that differ in their way and are no near duplicates, each time the one farthest from the chosen.

    Args:
        texts: completions, the best first.
        most: how many are wanted.

    Returns:
        the places of the chosen ones, the first text's in front.
    """
    first_of_way = {way(text): i for i, text in reversed(list(enumerate(texts)))}
    left = sorted(first_of_way.values())
    words = {i: shingles(texts[i]) for i in left}
    chosen: list[int] = []
    nearest = dict.fromkeys(left, 0.0)
    while left and len(chosen) < most:
        best = min(left, key=lambda i: (nearest[i], i))
        if nearest[best] >= NEAR:
            break
        chosen.append(best)
        left.remove(best)
        for i in left:
            nearest[i] = max(nearest[i], jaccard(words[i], words[best]))
    return chosen


def agreeing(completions: Sequence[str], min_agreement: float) -> list[bool]:
    """Tell which completions of a prompt without a gold give the answer that most give.

    Args:
        completions: all finished completions of one prompt.
        min_agreement: the share of them that must give it, or none counts.

    Returns:
        one truth value each; all False where two answers are equally common, or the commonest was given once.
    """
    groups: list[list[int]] = [*same_answers(completions), [], []]
    commonest, second = groups[:2]
    share = len(commonest) / max(1, len(completions))
    enough = share >= min_agreement or math.isclose(share, min_agreement)
    agreed = enough and len(commonest) > max(1, len(second))
    return [agreed and i in commonest for i in range(len(completions))]
