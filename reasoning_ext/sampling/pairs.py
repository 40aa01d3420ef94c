"""Preference pairs out of the completions of one prompt, for `stage: dpo`.

    right_wrong   a right completion against a wrong one of nearly the same length (iterative RPO, arXiv:2404.19733)
    short_long    a short right one against a long right one (long-to-short DPO, Kimi k1.5, arXiv:2501.12599)
    steps         right by steps that all hold against right by steps that do not: the paths are ranked, not the answers

Both sides have ended by themselves. Wrong ones are taken by length, because DPO learns that longer is better, or worse, wherever
the pairs say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

KINDS = ("right_wrong", "short_long", "steps")
LONGER = 1.5  # a long right answer has so many times the tokens of the short one
STEPS = "step_check"


@dataclass(frozen=True)
class Solved:
    """One prompt's completions, lines of `samples.jsonl`, as they were judged.

    Attributes:
        kept: the accepted ones that selection has chosen, the best first.
        right: all accepted ones.
        wrong: those that ended and were judged wrong.
    """

    kept: list[dict[str, Any]]
    right: list[dict[str, Any]]
    wrong: list[dict[str, Any]]


def make_pairs(solved: Solved, most: dict[str, int]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield `(kind, chosen, rejected)`, no completion twice within a kind.

    Args:
        solved: one prompt's completions.
        most: pairs of each kind at most; a kind that is not named gives none.
    """
    makers = {"right_wrong": _right_wrong, "short_long": _short_long, "steps": _steps}
    for kind, count in most.items():
        for number, (chosen, rejected) in enumerate(makers[kind](solved)):
            if number == count:
                break
            yield kind, chosen, rejected


def _right_wrong(solved: Solved) -> Iterator[tuple[dict, dict]]:
    wrong = _once(solved.wrong)
    others = [
        row for row in _once(solved.right) if row["completion"] not in {kept["completion"] for kept in solved.kept}
    ]
    for chosen in [*solved.kept, *others]:
        if not wrong:
            return
        rejected = min(wrong, key=lambda row: (abs(row["tokens"] - chosen["tokens"]), row["sample_index"]))
        wrong.remove(rejected)
        yield chosen, rejected


def _short_long(solved: Solved) -> Iterator[tuple[dict, dict]]:
    right = sorted(_once(solved.right), key=lambda row: (row["tokens"], row["sample_index"]))
    for short, long in zip(right[: len(right) // 2], reversed(right), strict=False):
        if long["tokens"] < LONGER * short["tokens"]:
            return
        yield short, long


def _steps(solved: Solved) -> Iterator[tuple[dict, dict]]:
    shares = [(row["rewards"].get(STEPS), row) for row in _once(solved.right)]
    judged = [(share, row) for share, row in shares if share is not None]
    holding = [row for share, row in judged if share == 1.0]
    failing = [row for share, row in sorted(judged, key=lambda pair: (pair[0], pair[1]["sample_index"])) if share < 1.0]
    yield from zip(holding, failing, strict=False)


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with different completions."""
    return list({row["completion"]: row for row in reversed(rows)}.values())[::-1]
