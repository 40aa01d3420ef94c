"""The runs that a model comes from, and their recipes as they were run: how it was asked, what it was trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reasoning_ext.data.held_out import digests_of, read_problems, trained_digests
from reasoning_ext.data.row_options import TEST, on_hub, reads_earlier, row_options
from reasoning_ext.errors import KeyProblem, Problem, UserError
from reasoning_ext.recipe.entries import asks_server, entries, eval_models
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe, load_recipe
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import LINEAGE, RECIPE, is_run, written_recipe
from reasoning_ext.runs.read import IN_TRAINING, in_training

INSIDE = ("checkpoint-*", "export/*")  # folders with a run's own weights
EXPORT = "export.json"  # in the folder of every export
PROMPT_KEYS = ("system_prompt", "chat_template_kwargs", "think_tags")


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


def forgotten(recipe: Recipe, earlier: Iterable[Recipe] = ()) -> list[Problem]:
    """Say what the models of a recipe were trained with and it leaves out, so that they would read other prompts.

    A key that the recipe sets itself, be it to null, is its choice; `earlier` are the recipes that run before it.
    """
    if asks_server(recipe):
        return []
    listed = [entry for entry in recipe.get("datasets") or [] if isinstance(entry, dict)]
    written = {key for values in (recipe.values, *listed) for key in values}
    shaped = written | (
        {key for key, value in _shaping(recipe).items() if value} if {*PROMPT_KEYS} - written else set()
    )
    found: dict[str, Problem] = {}
    for name in [*eval_models(recipe).values(), recipe.values.get("model_name_or_path")]:
        maker = maker_of(recipe, name, earlier) if isinstance(name, str) else None
        for key, value in _shaping(maker).items() if maker is not None and maker.stage in TRAINED else ():
            if value and key not in shaped:
                text = f"left out, but {name} was trained with {value!r}; write the same, or null to ask it without"
                found.setdefault(key, Problem(code="forgotten_prompt", level="warning", key=key, found=text))
    return list(found.values())


def _shaping(recipe: Recipe) -> dict[str, Any]:
    """Return what shapes all prompts of a recipe in the same way, by key."""
    settings = prompt_settings(recipe)
    values = dict(zip(PROMPT_KEYS, settings[0], strict=False)) if len(settings) == 1 else {}
    return values | {"think_tags": recipe.get("think_tags")}


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


def overlap_findings(
    recipe: Recipe, rows: Any, earlier: Iterable[Recipe], hub: bool
) -> tuple[dict[str, int | None], list[Problem]]:
    """Count how many problems of an evaluation, or of what a training holds out, are trained on, and warn of them.

    Returns:
        `({label of the model: problems, None where that is not known}, what to say)`; nothing for other stages.
        `rows` are what the recipe trains or evaluates on, prepared.
    """
    from reasoning_ext.data.rows import read_rows

    held, own, key = rows, None, "dataset_name"
    if recipe.stage != "eval":
        if recipe.stage not in TRAINED or recipe.get("eval_strategy") in (None, "no"):
            return {}, []
        own, key = rows, "dataset_test_split"
        try:
            held = read_rows(row_options(recipe), TEST)
        except KeyProblem as error:
            raise UserError(recipe.placed(error)) from error
    if not hasattr(held, "num_rows") or "prompt" not in held.column_names:
        return {}, []
    found = overlaps(recipe, held["prompt"], earlier, hub, own)
    said, unknown = overlap_lines(found, held.num_rows)
    findings = [Problem(code="overlap", level="note", found=line) for line in unknown]
    if said:
        hint = "hold rows out with test_size in each recipe, or name other rows"
        key = "datasets" if recipe.get("datasets") else key
        findings.append(Problem(code="overlap", level="warning", key=key, found=said, hint=hint))
    return {label: None if one.unknown else len(one.numbers) for label, one in found.items()}, findings


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
