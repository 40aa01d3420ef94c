"""`held_out.jsonl`: how a training did on held-out problems as it went; has it fallen, and which checkpoint is best.

A line is a measurement: `step`, `seconds`, `figures` (`{name: [share, low, high]}`) and `right` (`{name: a value a
problem}`). Measurements are compared by the greedy answers to the same problems, with McNemar's exact test: they are
right or wrong, and nothing in them is drawn. One of many is the highest by luck, too, so every test here counts those
that could have been it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.runs.folder import HELD_OUT
from reasoning_ext.runs.paired import ALPHA, holm, mcnemar, p_text
from reasoning_ext.runs.stored import MOST_LINES, read_lines, readable

FIGURES = ("greedy", "pass@1", "thinks")
Line = dict[str, Any]


def read_held_out(folder: Path) -> list[Line]:
    """Return the measurements of a run in the order of their steps; what is damaged is left out."""
    return readable(read_lines(folder / HELD_OUT, MOST_LINES).rows)


@dataclass(frozen=True)
class Change:
    """Two measurements on the problems that both could judge: their steps, shares and p."""

    earlier: float
    later: float
    before: float
    after: float
    p: float


def change(earlier: Line, later: Line) -> Change:
    """Compare two measurements; p is two-sided, and of this pair alone."""
    rights = zip(earlier["right"]["greedy"], later["right"]["greedy"], strict=False)
    pairs = [(a, b) for a, b in rights if a is not None and b is not None]
    lost, won = sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)
    before, after = (sum(side) / max(1, len(pairs)) for side in zip(*pairs or [(0, 0)], strict=True))
    return Change(earlier["step"], later["step"], before, after, mcnemar(lost, won))


def best(lines: Iterable[Line]) -> Line | None:
    """Return the measurement with the highest share of right greedy answers, of equal ones the first."""
    return max(lines, key=lambda line: _share(line), default=None)


def fall(lines: Sequence[Line], planned: int) -> Change | None:
    """Return how the last measurement has fallen from the best one before it, or None where that is not certain.

    Its p is multiplied with the pairs that `planned` measurements make (Bonferroni): of 100 trainings that never fall,
    fewer than 5 are told to have fallen at any of their measurements.
    """
    if len(lines) < 2 or (highest := best(lines[:-1])) is None:
        return None
    found = change(highest, lines[-1])
    p = min(1.0, found.p * planned * (planned - 1) / 2)
    return Change(**vars(found) | {"p": p}) if p < ALPHA and found.after < found.before else None


def choose(lines: Sequence[Line], last: int, saved: Iterable[int]) -> tuple[int, str]:
    """Return the step whose weights a finished training is to save, and why, with figures.

    Those of the last step, unless a checkpoint was better for certain: on the same problems, with a p below 5 % by Holm
    over all steps that were measured, since the best one is among the `saved` because it was the best of them all. Of
    several such the highest is taken, of equal ones the first.
    """
    end = next((line for line in lines if line["step"] == last), None)
    measured = [line for line in lines if line["step"] not in (0, last)]
    others = [line for line in measured if line["step"] in {*saved}]
    if end is None or not others:
        why = "which is the only checkpoint that was measured" if end else "where nothing was measured"
        return last, f"saved the weights of the last step, {last}, {why}"
    changes = {line["step"]: change(line, end) for line in measured}
    ps = dict(zip(changes, holm([one.p for one in changes.values()]), strict=True))
    better = [line for line in others if (one := changes[line["step"]]).before > one.after and ps[one.earlier] < ALPHA]
    highest = best(better or others) or end
    shares = f"{100 * _share(highest):.1f} against {100 * _share(end):.1f} at the end, {p_text(ps[highest['step']])}"
    said = f"kept checkpoint-{highest['step']}: {shares}" if better else ""
    shares = f"the highest, step {highest['step']}: {shares}"
    said = said or f"saved the weights of the last step, {last}: no checkpoint is better for certain ({shares})"
    if (start := lines[0])["step"] == 0:
        since = change(start, highest if better else end)
        said += f"; {100 * since.before:.1f} at the start, {p_text(since.p)}"
    return int(highest["step"]) if better else last, said


def _share(line: Line) -> float:
    judged = [one for one in line["right"]["greedy"] if one is not None]
    return sum(judged) / max(1, len(judged))
