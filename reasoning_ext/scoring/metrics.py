"""The figures of an evaluation, each with its certainty.

pass@k is the unbiased estimator of Chen et al. 2021 (arXiv:2107.03374); maj@k is self-consistency (arXiv:2203.11171). Intervals
are Wilson's, with the number of problems that the spread between problems is worth, so that several completions of one problem
do not count as several problems, and a share of 1.0 still has an interval.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import fmean, variance
from typing import Any

from reasoning_ext import think
from reasoning_ext.errors import KeyProblem
from reasoning_ext.runs.outcomes import is_right
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.traces import as_one
from reasoning_ext.scoring.votes import same_answers

Z = 1.959964  # two-sided 95 %


def metrics(
    answers: list[dict[str, Any]], decides: str, more: Callable[[Iterable[int]], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return a model's figures, `[value, low, high]` for shares between 0 and 1, and plain numbers for lengths and counts.

    Thoughts, lengths and what was cut off are of the sampled completions; where none was asked for, of the greedy ones.

    Args:
        answers: rows as `scored_rows` makes them; what could not be judged is left out and counted.
        decides: the reward that says what is right.
        more: further figures of the problems that were judged, by their numbers.

    Raises:
        KeyProblem: nothing could be judged.
    """
    judged = [{**row, "right": right} for row in answers if (right := is_right(row, decides)) is not None]
    judged.sort(key=lambda row: row["sample_index"])  # not in the order in which they came
    greedy = [row for row in judged if row["sample_index"] == GREEDY]
    sampled = [row for row in judged if row["sample_index"] != GREEDY]
    unjudged, alone = len(answers) - len(judged), all(row["sample_index"] == GREEDY for row in answers)
    if not greedy or not (sampled or alone):
        problem = f"no completion could be judged by {decides}: {unjudged} of them have no gold that parses"
        raise KeyProblem("dataset_name", problem, code="unusable_data")
    shown, problems = sampled or greedy, defaultdict[int, list[dict]](list)
    for row in shown:
        problems[row["prompt_index"]].append(row)

    def share(of: Any, trials: int | None = None) -> list[float]:
        return interval([of(rows) for rows in problems.values()], trials)

    n = min(map(len, problems.values()))
    figures: dict[str, Any] = {"problems": len(problems), **(more(problems) if more else {})}
    figures["greedy"] = interval([float(row["right"]) for row in greedy])
    if sampled:
        figures["pass@1"] = share(lambda rows: fmean(row["right"] for row in rows), len(sampled))
    for k in [2**i for i in range(1, 11) if 2**i <= n]:
        figures[f"pass@{k}"] = share(lambda rows, k=k: pass_at_k(len(rows), sum(row["right"] for row in rows), k))
    if n > 2:
        figures[f"maj@{n}"] = share(lambda rows: majority_right(rows[:n]))
    figures["thinks"] = share(lambda rows: fmean(think.well_formed(as_one(row)) for row in rows), len(shown))
    figures["mean tokens"] = round(fmean(row["tokens"] for row in shown), 2)
    figures["truncated"] = round(fmean(not row["finished"] for row in shown), 4)
    return figures | ({"not judged": unjudged} if unjudged else {})


def pass_at_k(n: int, right: int, k: int) -> float:
    """Estimate the chance that one of k completions is right, from `right` of n (Chen et al. 2021, equation 1)."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority_right(rows: list[dict[str, Any]]) -> float:
    """Return the share of right completions among those that give the most common answer; ties share the vote.

    What gives no answer has no vote; where none gives one that the verifier can read, equal texts vote for the same.
    """
    votes = voters([row["completion"] for row in rows])
    return fmean(fmean(rows[i]["right"] for i in group) for group in votes if len(group) == len(votes[0]))


def voters(completions: list[str]) -> list[list[int]]:
    """Return which completions vote for the same, the largest group first, as `majority_right` says."""
    if votes := same_answers(completions):
        return votes
    texts: dict[str, list[int]] = defaultdict(list)
    for i, completion in enumerate(completions):
        texts["".join((think.answer(completion) or "").split())].append(i)
    return sorted([group for text, group in texts.items() if text] or [*texts.values()], key=len, reverse=True)


def interval(values: list[float], trials: int | None = None) -> list[float]:
    """Return mean and 95 % interval of a share over problems: Wilson's, at the effective number of them, at most `trials`."""
    mean, most = fmean(values), float(trials or len(values))
    spread = variance(values) / len(values) if len(values) > 1 else 0.0
    effective = min(most, mean * (1 - mean) / spread) if spread > 1e-12 else most
    centre = (mean + Z * Z / (2 * effective)) / (1 + Z * Z / effective)
    half = Z / (1 + Z * Z / effective) * math.sqrt(mean * (1 - mean) / effective + Z * Z / (4 * effective**2))
    return [round(mean, 4), round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)]
