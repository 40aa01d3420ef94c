"""The runs that a model comes from, and their recipes as they were run: how it was asked, what it was trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reasoning_ext.data.held_out import digests_of, read_problems, trained_digests
from reasoning_ext.data.row_options import on_hub, reads_earlier, row_options
from reasoning_ext.errors import Problem, UserError
from reasoning_ext.recipe.entries import asks_server, entries, eval_models
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe, load_recipe
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import LINEAGE, RECIPE, is_run, written_recipe
from reasoning_ext.runs.read import IN_TRAINING, in_training

INSIDE = ("checkpoint-*", "export/*")  # folders with a run's own weights
EXPORT = "export.json"  # in the folder of every export


def run_of(name: str | Path) -> Path | None:
    """Return the run whose weights or rows a folder holds: itself, that of a checkpoint or an export in it; or None."""
    path = Path(name)
    if is_run(path):
        return path
    inside = [path.resolve().parents[pattern.count("/")] for pattern in INSIDE if path.resolve().match(pattern)]
    return next((run for run in inside if is_run(run)), None)


def run_recipe(run: Path, problems: list[Problem] | None = None) -> Recipe:
    """Load a run's recipe, in the folder that its names with ./ belong to, where that is still there.

    `problems` is as in `recipe.load_recipe`.
    """
    recipe, written = load_recipe(run / RECIPE, problems=problems), written_recipe(run)
    return replace(recipe, path=written) if written is not None and written.parent.is_dir() else recipe


def prompt_settings(recipe: Recipe) -> list[tuple[str | None, dict[str, Any]]]:
    """List what a recipe's prompts are written with, once each: the system prompt, and the template's arguments.

    Rows that a sample run kept have the system prompt of that run.
    """
    found: list[tuple[str | None, dict[str, Any]]] = []
    of_all = recipe.get("chat_template_kwargs") or {}
    for entry in entries(recipe):
        system = entry.get("system_prompt")
        if not system and (source := maker_of(entry, entry.get("dataset_name") or "")):
            system = prompt_settings(source)[0][0]
        setting = system or None, {**of_all, **(entry.values.get("chat_template_kwargs") or {})}
        found += [setting] if setting not in found else []
    return found


def maker_of(recipe: Recipe, name: str, earlier: Iterable[Recipe] = ()) -> Recipe | None:
    """Return the recipe that makes what another one names: one that runs before it, that of a run's folder; or None."""
    place = Path(recipe.local(name))
    made = [other for other in earlier if other is not recipe and other.output_dir.resolve() == place.resolve()]
    if made or (run := run_of(place)) is None:
        return made[-1] if made else None
    with contextlib.suppress(UserError):  # a damaged folder is refused elsewhere
        return run_recipe(run, [])
    return None


@dataclass
class Overlap:
    """Which problems stand in the training data of a model, as far as its lineage is known.

    Attributes:
        numbers: those problems, by their place in the evaluation.
        unknown: why some run of the lineage could not be compared with, a line each.
    """

    numbers: set[int] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)

    def figure(self, problems: Iterable[int]) -> dict[str, int]:
        """Return the figure of `eval.json` for some problems; nothing where it could be too low to be true."""
        count = len(self.numbers.intersection(problems))
        return {IN_TRAINING: count} if count or not self.unknown else {}


def overlap_lines(found: dict[str, Overlap], problems: int) -> tuple[str, list[str]]:
    """Say which problems were trained on, or "", and what could not be compared, a line each."""
    figures = {label: {"problems": problems} | one.figure(range(problems)) for label, one in found.items()}
    unknown = dict.fromkeys(line for one in found.values() for line in one.unknown)
    return in_training(figures), [f"not compared with training data: {line}" for line in unknown]


def overlaps(
    recipe: Recipe, prompts: Iterable[Any], earlier: Iterable[Recipe] = (), hub: bool = True, rows: Any = None
) -> dict[str, Overlap]:
    """Compare the prompts that a recipe evaluates on with what its models were trained on: `{label: what was found}`.

    Args:
        earlier: the recipes that run before it, whose data are read; with `hub` from the hub too.
        rows: what the recipe itself trains on, where it evaluates as it goes.
    """
    asked, own = digests_of(prompts), trained_digests(rows) or set()
    known: dict[Path, set[str] | None] = {}
    found = {}
    for label, name in (eval_models(recipe) or {"this run": recipe.get("model_name_or_path")}).items():
        found[label] = overlap = Overlap({i for i, digest in enumerate(asked) if digest in own})
        if asks_server(recipe):
            overlap.unknown.append(f"what a server calls {name}")
            continue
        for folder, maker in training_runs(recipe, str(name), earlier):
            if folder not in known:
                known[folder] = _trained_on(folder, maker, hub, earlier)
            if (trained := known[folder]) is None:
                overlap.unknown.append(f"what {folder.name} was trained on is not known here")
            overlap.numbers |= {i for i, digest in enumerate(asked) if digest in (trained or ())}
    return found


def training_runs(recipe: Recipe, name: str, earlier: Iterable[Recipe] = ()) -> Iterator[tuple[Path, Recipe | None]]:
    """Yield the runs that trained a model, the last one first: the folder, and the recipe, None where it is lost."""
    seen: set[Path] = set()
    was_run = False
    while maker := maker_of(recipe, name, earlier):
        folder = (run_of(recipe.local(name)) or maker.output_dir).resolve()
        if folder in seen or maker.stage not in TRAINED:
            return
        seen.add(folder)
        yield folder, maker
        inputs = read_object(folder / LINEAGE).get("inputs") or {}  # of another run, wherever that is now
        recipe, name, was_run = maker, str(maker.values.get("model_name_or_path")), "run:" in str(inputs.get("model"))
    place = Path(recipe.local(name))
    if was_run or run_of(place) is not None or (place / EXPORT).is_file():
        yield place, None


def _trained_on(folder: Path, recipe: Recipe | None, hub: bool, earlier: Iterable[Recipe]) -> set[str] | None:
    """Return the digests of the problems that a run was trained on, or that a listed recipe will be; or None."""
    from reasoning_ext.data.rows import prepare

    if (kept := read_problems(folder)) is not None or recipe is None:
        return kept
    made = [other.output_dir for other in earlier]
    if not any(recipe is other for other in earlier) or reads_earlier(recipe, made) or (on_hub(recipe) and not hub):
        return None
    with contextlib.suppress(UserError):  # which is said of that recipe
        return trained_digests(prepare(row_options(recipe)).rows)
    return None
