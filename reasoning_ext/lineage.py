"""The runs that a model comes from, and their recipes as they were run: how it was asked, and what it was trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoning_ext.findings import Finding
from reasoning_ext.generation_checks import asks_server
from reasoning_ext.mixtures import entries
from reasoning_ext.named_inputs import eval_models
from reasoning_ext.own_keys import TRAINED
from reasoning_ext.recipe import Recipe, RecipeError, load_recipe
from reasoning_ext.run_dir import RECIPE, is_run, written_recipe

INSIDE = ("checkpoint-*", "export/*")  # folders with a run's own weights
PROMPT_KEYS = ("system_prompt", "chat_template_kwargs", "think_tags")


def run_of(name: str | Path) -> Path | None:
    """Return the run whose weights or rows a folder holds: itself, that of a checkpoint, that of an export in it; or None."""
    path = Path(name)
    if is_run(path):
        return path
    inside = [path.resolve().parents[pattern.count("/")] for pattern in INSIDE if path.resolve().match(pattern)]
    return next((run for run in inside if is_run(run)), None)


def run_recipe(run: Path, errors: list[RecipeError] | None = None) -> Recipe:
    """Load a run's recipe, in the folder that its names with ./ belong to, where that is still there.

    Args:
        run: the folder.
        errors: as in `recipe.load_recipe`.
    """
    recipe, written = load_recipe(run / RECIPE, errors=errors), written_recipe(run)
    return replace(recipe, path=written) if written is not None and written.parent.is_dir() else recipe


def prompt_settings(recipe: Recipe) -> list[tuple[str | None, dict[str, Any]]]:
    """List what a recipe's prompts are written with, once each: the system prompt, and the arguments of the chat template.

    Rows that a sample run kept have the system prompt of that run.
    """
    found: list[tuple[str | None, dict[str, Any]]] = []
    of_all = recipe.get("chat_template_kwargs") or {}
    for entry in entries(recipe):
        system = entry.get("system_prompt")
        if not system and (source := maker_of(entry, entry.get("dataset_name") or "")):
            system = prompt_settings(source)[0][0]
        own = entry.values.get("chat_template_kwargs") or {}
        if (setting := (system or None, {**of_all, **own})) not in found:
            found.append(setting)
    return found


def maker_of(recipe: Recipe, name: str, earlier: Iterable[Recipe] = ()) -> Recipe | None:
    """Return the recipe that makes what another one names: one that runs before it, or that of a run's folder; or None."""
    place = Path(recipe.local(name))
    made = [other for other in earlier if other is not recipe and other.output_dir.resolve() == place.resolve()]
    if made or (run := run_of(place)) is None:
        return made[-1] if made else None
    with contextlib.suppress(RecipeError):  # a damaged folder is refused elsewhere
        return run_recipe(run, [])
    return None


def forgotten(recipe: Recipe, earlier: Iterable[Recipe] = ()) -> list[Finding]:
    """Say what the models of a recipe were trained with and it leaves out, so that they would read other prompts.

    Args:
        recipe: the recipe; a key that it sets itself, be it to null, is its choice.
        earlier: the recipes that run before it.
    """
    found: dict[str, Finding] = {}
    listed = recipe.get("datasets") or []
    written = {*recipe.values, *(key for entry in listed if isinstance(entry, dict) for key in entry)}
    named = [*eval_models(recipe).values(), recipe.values.get("model_name_or_path")]
    own = {key: value for key, value in _shaping(recipe).items() if value} if {*PROMPT_KEYS} - written else {}
    for name in dict.fromkeys(name for name in named if isinstance(name, str) and not asks_server(recipe)):
        maker = maker_of(recipe, name, earlier)
        for key, value in _shaping(maker).items() if maker is not None and maker.stage in TRAINED else ():
            if value and key not in written and key not in own:
                text = f"left out, but {name} was trained with {value!r}; write the same, or null to ask it without"
                found.setdefault(key, Finding("warning", key, text))
    return list(found.values())


def _shaping(recipe: Recipe) -> dict[str, Any]:
    """Return what shapes all prompts of a recipe in the same way, by key."""
    settings = prompt_settings(recipe)
    values = dict(zip(PROMPT_KEYS, settings[0], strict=False)) if len(settings) == 1 else {}
    return values | {"think_tags": recipe.get("think_tags")}
