"""`reasoning-ext compare`: models of finished evaluations on the same problems, one against another.

What is compared is read here, from `answers.jsonl`, `strategies.jsonl` and `recipe.yaml`; `runs.paired` has the
statistics and says how seeds are pooled, and `compare_table` prints it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.data.lineage import run_of
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.errors import UserError
from reasoning_ext.runs.folder import ANSWERS, RECIPE, is_run, unfinished, written_recipe
from reasoning_ext.runs.identity import by_recipe, essence
from reasoning_ext.runs.outcomes import STRATEGIES, Outcomes, Rows, figures, is_plain, outcomes, stacked
from reasoning_ext.runs.paired import Paired, holm, paired
from reasoning_ext.runs.read import plain_answers
from reasoning_ext.runs.texts import text
from reasoning_ext.runs.values import is_number

SHOWN = 60  # characters of a prompt that differs


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A finished run of stage eval: its folder, its resolved recipe, the lines of its answers and of its strategies."""

    path: Path
    recipe: dict[str, Any]
    answers: Rows
    strategies: Rows

    @cached_property
    def essence(self) -> tuple[str, list[Any]]:
        """What runs of one recipe share, and the seeds that they differ in: see `essence`."""
        return essence(self.path, lambda run: self.recipe if run == self.path else _recipe(run), _made_by)

    @property
    def seed(self) -> str:
        """The seeds of the recipe and of those that made its models, each once."""
        return "/".join(dict.fromkeys(str(seed) for seed in self.essence[1] if seed is not None))


@dataclass(frozen=True, eq=False)
class Model:
    """One model, or one recipe's models of several seeds.

    Attributes:
        label: what it is called in `runs`.
        runs: one evaluation a seed.
        name: what it is called here: its label, with the number of its runs before it where others have that label.
    """

    label: str
    runs: list[Evaluation]
    name: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """The second model against the first: p after Holm, and a pair of outcomes `{problem: share}` for each seed."""

    first: Model
    second: Model
    found: Paired
    p: float
    solved: list[tuple[dict[int, float], dict[int, float]]]


def read_evaluation(path: Path) -> Evaluation:
    """Read a finished run of stage eval."""
    if not is_run(path):
        raise UserError(f"compare: found {path}, which is no run, allowed: folders of finished runs of stage eval")
    if problem := unfinished(path, str(path)):
        raise UserError(f"compare: {problem}")
    recipe = _recipe(path)
    if recipe.get("stage") != "eval":
        raise UserError(f"compare: found {path}, a run of stage {recipe.get('stage')}, allowed: stage eval")
    if not (path / ANSWERS).is_file():
        raise UserError(f"compare: found {path} without {ANSWERS}, which lm_eval:TASK leaves where it has texts drawn")
    lines = path / STRATEGIES
    answers = plain_answers(_rows(path / ANSWERS), recipe)
    return Evaluation(path, recipe, answers, _rows(lines) if lines.is_file() else [])


def _rows(path: Path) -> Rows:
    """Read lines that say of which problem they are."""
    try:
        rows = read_jsonl(path)
    except ValueError as error:
        raise UserError(f"compare: found {path}, which cannot be read: {error}") from error
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("prompt_index"), int) or is_number(row.get("rewards")):
            raise UserError(f"compare: found {path}, whose row {i} stage eval has not written")
    return rows


def _recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load((path / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"compare: found {path}, whose {RECIPE} cannot be read") from error
    return recipe if isinstance(recipe, dict) else {}


def refuse_other_problems(runs: list[Evaluation]) -> None:
    """Refuse runs whose problems are not those of the first, naming the first one that differs."""
    first, *others = [{r["prompt_index"]: r for r in run.answers if is_plain(r)} for run in runs]
    for run, other in zip(runs[1:], others, strict=True):
        for i in sorted(first | other):
            if (found := _difference(first.get(i), other.get(i))) is not None:
                places = f"in {runs[0].path} and {run.path}"
                raise UserError(
                    f"compare: found problem {i} different {places}: {found}; compare runs of the same rows"
                )


def _difference(one: dict[str, Any] | None, other: dict[str, Any] | None) -> str | None:
    if one is None or other is None:
        return f"it is only in the {'second' if one is None else 'first'}"
    a, b = text(one.get("prompt")), text(other.get("prompt"))
    if one.get("prompt") != other.get("prompt"):
        at = next((i for i, (x, y) in enumerate(itertools.zip_longest(a, b)) if x != y), 0)
        begin = max(0, at - SHOWN // 2)
        return f"prompts {a[begin : begin + SHOWN]!r} and {b[begin : begin + SHOWN]!r}"
    if one.get("answer") != other.get("answer"):
        return f"golds {one.get('answer')!r} and {other.get('answer')!r}"
    judges = [next(iter(row.get("rewards") or ["none"])) for row in (one, other)]
    return None if judges[0] == judges[1] else f"judged by {judges[0]} and {judges[1]}"


def pool(runs: list[Evaluation]) -> list[Model]:
    """Return the models of runs, in their order; those of runs of one recipe that differ in the seed are one."""
    groups = by_recipe(runs, lambda run: run.essence)
    found = [(n, label, group) for n, group in enumerate(groups, 1) for label in _labels(group)]
    labels = [label for _, label, _ in found]
    return [Model(label, group, label if labels.count(label) == 1 else f"{n}:{label}") for n, label, group in found]


def _made_by(run: Path, name: str) -> tuple[Path, str] | None:
    """Return the run that a name in a run's recipe stands for, and which of its checkpoints."""
    home = (written_recipe(run) or run).parent
    place = home / name if name.startswith(("./", "../")) else Path(name)
    made_by = run_of(place) if "/" in name else None
    if made_by is None or not (made_by / RECIPE).is_file():
        return None
    return made_by, "" if made_by == place else place.name


def _labels(group: list[Evaluation]) -> list[str]:
    """List the models that every run of a group has answers of."""
    first, *others = [dict.fromkeys(str(row.get("model")) for row in run.answers) for run in group]
    return [label for label in first if all(label in other for other in others)]


def choose(models: list[Model], names: tuple[str, str] | None) -> list[tuple[Model, Model]]:
    """Return the pairs to compare: the two that are named, else those of one label, else each with the first model."""
    known = {model.name: model for model in models}
    for name in names or ():
        if name not in known:
            raise UserError(f"compare: found the model {name}, allowed: {', '.join(known)}")
    if names and names[0] != names[1]:
        return [(known[names[0]], known[names[1]])]
    if names or len(models) < 2:
        raise UserError(f"compare: found one model, {next(iter(known))}, allowed: two or more of {', '.join(known)}")
    first = {model.label: model for model in models if model.runs is models[0].runs}
    later = [model for model in models if model.runs is not models[0].runs] or models[1:]
    return [(first[one.label] if first.get(one.label, one) is not one else models[0], one) for one in later]


def solved(model: Model, figure: str) -> list[dict[int, float]]:
    """Return a model's outcomes, `{problem: share of right answers}` a seed."""
    found: list[Outcomes] = [outcomes(figure, run.answers, run.strategies) for run in model.runs]
    for run, one in zip(model.runs, found, strict=True):
        if model.label not in one:
            there = figures(_of(run.answers, model.label), _of(run.strategies, model.label))
            raise UserError(f"compare: found no {figure} of {model.label} in {run.path}, allowed: {', '.join(there)}")
    return [one[model.label] for one in found]


def _of(rows: Rows, label: str) -> Iterator[dict[str, Any]]:
    return (row for row in rows if str(row.get("model")) == label)


def compare_models(pairs: list[tuple[Model, Model]], figure: str) -> list[Comparison]:
    """Compare pairs of models; their seeds are paired in order, and one seed of one model with each of the other's."""
    tests = []
    for first, second in pairs:
        begun, ended = solved(first, figure), solved(second, figure)
        seeds = max(len(begun), len(ended))
        if {len(begun), len(ended)} - {1, seeds}:
            found = f"{len(begun)} seeds of {first.name} and {len(ended)} of {second.name}"
            raise UserError(f"compare: found {found}, allowed: as many of each, or one")
        both = list(zip(begun * (seeds // len(begun)), ended * (seeds // len(ended)), strict=True))
        sides = stacked([[one for one, _ in both], [other for _, other in both]])
        if not sides[0].size:
            raise UserError(f"compare: found no problem that was judged for both {first.name} and {second.name}")
        tests.append((paired(*sides), both))
    ps = holm([found.p for found, _ in tests])
    return [Comparison(*pair, found, p, both) for pair, (found, both), p in zip(pairs, tests, ps, strict=True)]
