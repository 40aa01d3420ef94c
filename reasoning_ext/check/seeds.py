"""`run RECIPE... --seeds 0 1 2`: recipes once a seed, as one result, each seed's run in `OUTPUT_DIR/seed_N`.

What a recipe names of another one's output_dir is meant of the same seed, so that nothing crosses from one to another;
so is what earlier commands have run with that seed. All else stays as it is, and so do the problems of an evaluation:
rows that are made or shuffled by a seed have the recipe's own there: only equal problems can be compared and pooled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoning_ext.data.gym import is_gym
from reasoning_ext.data.sources import is_generator
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs import folder

INPUTS = ("model_name_or_path", "models", "dataset_name", "decontaminate", "chat_template_path")  # they may name a run
MOST = 2**32 - 1
_SEEDS = re.compile(r"-?\d{1,12}(?:,-?\d{1,12})*")


def split_seeds(arguments: list[str]) -> tuple[list[str], list[int]]:
    """Take `--seeds 0 1 2`, or `--seeds 0,1,2`, out of what stands behind a command; return the rest, and the seeds.

    Raises:
        UserError: there is no seed, one is no seed or stands there twice, or `--seed` is there, too.
    """
    at = next((i for i, argument in enumerate(arguments) if argument.partition("=")[0] == "--seeds"), None)
    if at is None:
        return arguments, []
    _, equals, value = arguments[at].partition("=")
    end = at + 1
    while not equals and end < len(arguments) and _SEEDS.fullmatch(arguments[end]):
        end += 1
    given, rest = [value] if equals else arguments[at + 1 : end], [*arguments[:at], *arguments[end:]]
    if not given or not all(map(_SEEDS.fullmatch, given)):
        raise UserError(f"--seeds: found {value or 'no seed'}, allowed: --seeds 0 1 2 or --seeds 0,1,2")
    seeds = [int(seed) for text in given for seed in text.split(",")]
    if wrong := [seed for seed in seeds if not 0 <= seed <= MOST]:
        raise UserError(f"--seeds: found {wrong[0]}, allowed: 0 to {MOST}")
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise UserError(f"--seeds: found {twice[0]} twice, allowed: once")
    for name in ("--seed", "--seeds"):
        if name in [argument.partition("=")[0] for argument in rest]:
            raise UserError(f"{name}: found beside --seeds, allowed: --seeds alone, once")
    return rest, seeds


def by_seed(recipes: list[Recipe], seeds: Sequence[int]) -> list[list[Recipe]]:
    """Return the recipes of each of some seeds.

    Raises:
        UserError: an output_dir is a run without --seeds, or has seeds of another recipe, asked for now or not; or all
            would be pushed to one place.
    """
    for i, recipe in enumerate(recipes):
        path = Path(recipe.values.get("output_dir") or os.devnull)  # that it is missing is said elsewhere
        if folder.is_run(path):
            code = folder.RunDirError.code
            raise recipe.error("output_dir", f"found {path}, a run without --seeds", hint=folder.ANEW, code=code)
        if recipe.values.get("push_to_hub"):
            found = "found with --seeds, whose models would take each other's place there"
            raise recipe.error("push_to_hub", found, hint="leave it out, and use reasoning-ext export")
        for seed in sorted({*seeds, *folder.seed_runs(path)}):
            try:
                folder.refuse_other_recipe(folder.seed_folder(path, seed), of_seed(recipes, seed)[i].values)
            except folder.RunDirError as error:
                raise recipe.error("output_dir", str(error), code=error.code) from error
    return [of_seed(recipes, seed) for seed in seeds]


def of_seed(recipes: list[Recipe], seed: int) -> list[Recipe]:
    """Return recipes as they are run with one seed: seed, output_dir, run_name, and what they name of each other's."""
    made = {os.path.abspath(recipe.output_dir) for recipe in recipes if recipe.values.get("output_dir")}
    found = []
    for recipe in recipes:
        values = {key: _inside(recipe, made, seed, key, value) for key, value in recipe.values.items()}
        if recipe.values.get("output_dir"):
            values["output_dir"] = str(folder.seed_folder(recipe.output_dir, seed))
        if recipe.values.get("run_name"):  # a tracker may know a run by it
            values["run_name"] += f"-{folder.SEED}{seed}"
        values |= _kept_problems(recipe) | {"seed": seed}
        found.append(replace(recipe, values=values, lines=recipe.lines | {("seed",): 0}))
    return found


def _inside(recipe: Recipe, made: set[str], seed: int, key: str, value: Any) -> Any:
    """Return a value in which names of runs, and of what lies in them, are those of one seed."""
    if isinstance(value, dict):
        return {k: _inside(recipe, made, seed, key if key == "models" else k, part) for k, part in value.items()}
    if isinstance(value, list):
        return [_inside(recipe, made, seed, key, part) for part in value]
    if key not in INPUTS or not isinstance(value, str) or not value:
        return value
    place = Path(recipe.local(value))
    for run in (place, *place.parents):
        if os.path.abspath(run) in made or folder.is_run(folder.seed_folder(run, seed)):
            return str(folder.seed_folder(run, seed) / place.relative_to(run))
    return value


def _kept_problems(recipe: Recipe) -> dict[str, Any]:
    """Return what keeps the problems of an evaluation those of the recipe's own seed."""
    name = recipe.values.get("dataset_name")
    if recipe.stage != "eval" or not isinstance(name, str) or lm_eval_task(recipe):
        return {}
    made = is_generator(name) or is_gym(name)
    keys = ("gen_kwargs", "format_kwargs") if made else ("format_kwargs",)
    return {key: {"seed": recipe.get("seed")} | (recipe.values.get(key) or {}) for key in keys}
