"""Did it learn: models against those that they were trained from, a training on held-out problems, by paired tests."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from reasoning_ext.runs import read
from reasoning_ext.runs.held_out import Change, best, change, fall
from reasoning_ext.runs.outcomes import PLAIN, Outcomes, outcomes, stacked
from reasoning_ext.runs.paired import Paired, holm, paired, verdict
from reasoning_ext.runs.values import is_interval


class Figure(NamedTuple):
    """A figure of a model beside that of the model before it, `[value, low, high]` each.

    Of several `seeds` it is their mean, the lowest and the highest. `test` compares the two on the same problems, as
    `compare` does, and `p` is its p after Holm; None where there are no answers for it.
    """

    name: str
    before: list[float] | None
    after: list[float]
    test: Paired | None = None
    p: float = 1.0
    seeds: int = 1

    @property
    def word(self) -> str:
        """`better`, `worse`, or "" where neither is told; without a test, by intervals that do not overlap."""
        if self.test is not None or self.seeds > 1:
            return verdict(self.test, self.p) if self.test else ""
        low, high = (self.before[1], self.before[2]) if self.before else (0.0, 1.0)
        return "better" if self.after[1] > high else "worse" if self.after[2] < low else ""


def verdicts(seeds: Sequence[read.Run], made: dict[str, read.Run]) -> list[dict[str, Any]]:
    """Say what training did: each evaluated model beside the evaluated one that it was trained from, if there is one.

    Args:
        seeds: the evaluation, or those of one recipe that differ in seeds alone.
        made: as `read.made_by` has it.

    Returns:
        a dictionary a model: its `label`, `before` (a label or None), `word`, what `compare` says, and `figures`, each
        a `Figure`; comparisons come first, and a model that one begins with has no entry.
    """
    models, results = seeds[0].models, [run.results for run in seeds]
    labels = [label for label in results[0] if all(label in of for of in results)]
    evaluated = {read.key_of(name): label for label, name in models.items() if label in labels and read.key_of(name)}
    rows: list[dict[str, Any]] = []
    for label in labels:
        before, name = None, models.get(label, "./")
        for _ in made:  # a chain of models is no longer than the runs, and a recipe may name itself
            maker = read.made_by(made, name)
            name = str(maker[0].recipe.get("model_name_or_path", "./")) if maker else "./"
            before = before or (other if (other := evaluated.get(read.key_of(name))) != label else None)
        figures = []
        for figure in PLAIN:
            old, new = ([of.get(one, {}).get(figure) for of in results] for one in (before or "", label))
            figures += [Figure(figure, _over(old), of_seeds, seeds=len(seeds))] if (of_seeds := _over(new)) else []
        rows.append({"label": label, "before": before, "figures": figures})
    for name in PLAIN:
        _test(rows, name, [outcomes(name, run.answers) for run in seeds])
    begun = {row["before"] for row in rows}
    rows = [row | {"word": compare(row["figures"])} for row in rows if row["before"] or row["label"] not in begun]
    return sorted(rows, key=lambda row: row["before"] is None)


def _over(shares: Sequence[Any]) -> list[float] | None:
    """Return a figure of one seed as it is, of several mean, lowest and highest; None where one has none."""
    if not all(map(is_interval, shares)):
        return None
    values = [share[0] for share in shares]
    return shares[0] if len(shares) == 1 else [fmean(values), min(values), max(values)]


def _test(rows: list[dict[str, Any]], name: str, solved: list[Outcomes]) -> None:
    """Put the paired test of one figure into the rows of `verdicts`, where both models have answers, of every seed."""
    found: list[tuple[dict[str, Any], int, Paired]] = []
    for row in rows:
        for i, figure in enumerate(row["figures"]):
            if figure.name == name and figure.before and all({row["before"], row["label"]} <= {*of} for of in solved):
                first, second = stacked([[of[row[side]] for of in solved] for side in ("before", "label")])
                found += [(row, i, paired(first, second))] if first.size else []
    for (row, i, test), p in zip(found, holm([test.p for *_, test in found]), strict=True):
        row["figures"][i] = row["figures"][i]._replace(test=test, p=p)


def compare(figures: list[Figure]) -> str:
    """Say in words how figures differ from those before: `better than`, `worse (greedy) than`, `not told apart from`.

    >>> low, high = [0.1, 0.0, 0.2], [0.9, 0.8, 1.0]
    >>> compare([Figure("greedy", low, high), Figure("pass@1", low, low)])
    'better (greedy) than'
    """
    compared, words = [figure for figure in figures if figure.before], []
    for word in ("better", "worse"):
        if which := [figure.name for figure in compared if figure.word == word]:
            words.append(word if len(which) == len(figures) else f"{word} ({', '.join(which)})")
    return " and ".join(words) + " than" if words else "not told apart from"


def held_out_outcomes(run: read.Run, figure: str) -> dict[float, dict[int, float]]:
    """Return `{step: {problem: between 0 and 1}}` of what a training measured on held-out problems, in order."""
    found = {row["step"]: enumerate(row["right"].get(figure, ())) for row in run.held_out}
    judged = {step: {i: float(value) for i, value in right if value is not None} for step, right in found.items()}
    return {step: solved for step, solved in judged.items() if solved}


class Learnt(NamedTuple):
    """What held-out problems say of a training, or of its seeds: the last measurement that all have beside the first.

    Of a single one also the `highest` of its greedy answers beside the first, where that is neither the first nor the
    last, and how it `fell` from there, where that is certain. Their p counts every measurement that could have been it.
    """

    name: str
    problems: int
    first: float
    last: float
    figures: list[Figure]
    highest: Change | None
    fell: Change | None
    keeps: bool

    @property
    def word(self) -> str:
        """As `compare` says it."""
        return compare(self.figures)


def learnt(name: str, seeds: Sequence[read.Run]) -> Learnt | None:
    """Compare a training's last measurement on held-out problems with its first; None where there are not two."""
    figures, found = list[Figure](), None
    for figure in PLAIN:
        measured = [held_out_outcomes(run, figure) for run in seeds]
        steps = [step for step in measured[0] if all(step in of for of in measured)]
        if len(steps) < 2:
            continue
        first, last = stacked([[of[steps[i]] for of in measured] for i in (0, -1)])
        if not first.size:
            continue
        test = paired(first, last)
        before, after = (_over([_share(run, steps[i], figure) for run in seeds]) for i in (0, -1))
        figures.append(Figure(figure, before, after or [], test, test.p, len(seeds)))
        found = found or (test.problems, steps[0], steps[-1])
    if not found:
        return None
    lines = seeds[0].held_out if len(seeds) == 1 else []
    rose, top = None, best(lines)
    if top and top["step"] not in (lines[0]["step"], lines[-1]["step"]):
        rose = change(lines[0], top)
        rose = replace(rose, p=min(1.0, rose.p * (len(lines) - 1)))
    fell = fall(lines, len(lines)) if rose else None
    return Learnt(name, *found, figures, rose, fell, seeds[0].recipe.get("keep") == "best")


def _share(run: read.Run, step: float, name: str) -> list[float]:
    """Return a measurement with its interval, or without one where that cannot be read."""
    figure = next(row["figures"].get(name) for row in run.held_out if row["step"] == step)
    return figure if is_interval(figure) else [fmean(held_out_outcomes(run, name)[step].values())] * 3
