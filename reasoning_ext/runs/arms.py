"""Runs of one stage beside one another: which are seeds of one recipe, and what the recipes differ by at the end."""

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from scipy import stats

from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.runs.drawing import number
from reasoning_ext.runs.figures import all_curves, title
from reasoning_ext.runs.identity import by_recipe, essence
from reasoning_ext.runs.outcomes import PLAIN, stacked
from reasoning_ext.runs.paired import paired
from reasoning_ext.runs.read import Run, made_by
from reasoning_ext.runs.verdicts import held_out_outcomes

# keys that choose which problems are held out
ROWS = re.compile(r"datasets?(_\w+)?|seed|data_seed|eval_problems|\w+_kwargs|test_size|decontaminate")


class Arm(NamedTuple):
    """One recipe: its runs, which differ in their seeds alone, and what they are called together."""

    label: str
    runs: list[Run]


class Difference(NamedTuple):
    """What an arm differs by from the first: of a metric, its values at the end, and how certain the difference is."""

    title: str
    first: str
    second: str
    difference: str
    p: float | None = None


def arms(runs: Sequence[Run], made: dict[str, Run]) -> dict[str, list[Arm]]:
    """Group the trainings that logged something, and evaluations, by stage, and those of a stage by recipe, in order.

    Args:
        runs: all of them.
        made: as `read.made_by` has it.
    """

    def essence_of(run: Run) -> tuple[str, list[Any]]:
        return essence(run, lambda one: one.recipe, other) if run.recipe else (str(run.path), [])

    def other(run: Run, name: str) -> tuple[Run, str] | None:
        found = made_by(made, name)
        return None if found is None or found[0] is run else found

    stages: dict[str, list[Run]] = {}
    for run in runs:
        if run.results or (run.stage in TRAINED and (run.metrics or run.held_out)):
            stages.setdefault("eval" if run.results else run.stage, []).append(run)
    return {
        stage: [Arm(_label(group), group) for group in by_recipe(some, essence_of)] for stage, some in stages.items()
    }


def _label(group: Sequence[Run]) -> str:
    """Call runs what their names share, `2_grpo` of `2_grpo/seed_0` and `2_grpo/seed_1`, and one by its name."""
    if len(group) == 1:
        return group[0].name
    letters = zip(*(run.name for run in group), strict=False)
    same = "".join(first for first, *_ in takewhile(lambda column: len({*column}) == 1, letters))
    shared = same.rstrip("_-/ ").removesuffix("seed").rstrip("_-/ ")
    return f"{shared or group[0].path.resolve().parent.name}, {len(group)} seeds"


def differences(group: Sequence[Arm], most: int = 40) -> list[tuple[Arm, list[Difference]]]:
    """Say what each arm of a stage but the first differs by from it: on held-out problems, then in other metrics."""
    first, *others = group
    known = [_finals(first), *map(_finals, others)]
    found = []
    for arm, finals in zip(others, known[1:], strict=True):
        rows = [*_held_out(first, arm)]
        shared = [key for key in known[0] if key in finals][:most]
        rows += [_difference(key, known[0][key], finals[key]) for key in shared]
        found.append((arm, rows))
    return found


def _finals(arm: Arm) -> dict[str, list[float]]:
    """Return the values at the end of what is looked at first, one a run, where every run has it."""
    found: dict[str, list[float]] = {}
    for run in arm.runs:
        for curve in all_curves(run)[0]:
            found.setdefault(curve.key, []).append(curve.final)
    return {key: values for key, values in found.items() if len(values) == len(arm.runs)}


def _difference(key: str, first: list[float], second: list[float]) -> Difference:
    """Return the difference of means over seeds, with Welch's interval where both have several."""
    apart = stats.tmean(second) - stats.tmean(first)
    apart *= abs(apart) > 1e-9 * max(map(abs, (*first, *second)))  # what is left of rounding is no difference
    said = f"{apart:+.4g}"
    p = None
    if min(len(first), len(second)) > 1 and len({*first}) + len({*second}) > 2:
        test: Any = stats.ttest_ind(second, first, equal_var=False)
        low, high = test.confidence_interval()
        said, p = f"{said} [{low:+.4g}, {high:+.4g}]", float(test.pvalue)
    return Difference(title(key), _mean(first), _mean(second), said, p)


def _mean(values: list[float]) -> str:
    mean = number(float(stats.tmean(values)))
    return mean if len(values) == 1 else f"{mean} ({number(min(values))} to {number(max(values))})"


def _held_out(first: Arm, second: Arm) -> Iterable[Difference]:
    """Compare the last measurements of two arms on the held-out problems that both had, seed by seed in their order."""
    pairs = [(one, other) for one, other in zip(first.runs, second.runs, strict=False) if _rows(one) == _rows(other)]
    for figure in PLAIN:
        sides = [
            [steps[-1][1] for steps in ([*held_out_outcomes(run, figure).items()] for run in runs) if steps]
            for runs in zip(*pairs, strict=True)
        ]
        if len(sides) == 2 and len(sides[0]) == len(sides[1]) == len(pairs):
            begun, ended = stacked(sides)
            if begun.size:
                test = paired(begun, ended)
                low, high = test.interval
                said = f"{100 * test.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
                before, after = (f"{100 * share:.1f} %" for share in (test.first, test.second))
                seeds = f", {test.seeds} seeds" if test.seeds > 1 else ""
                called = f"{figure} on {test.problems} held-out problems{seeds}, paired"
                yield Difference(called, before, after, said, test.p)


def _rows(run: Run) -> dict[str, Any]:
    """Return what of a recipe decides which problems are held out."""
    return {key: value for key, value in run.recipe.items() if ROWS.fullmatch(key)}
