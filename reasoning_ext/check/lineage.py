"""What a recipe's models come from: the prompts that they were trained with, and the problems that they were trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reasoning_ext.data.lineage import maker_of, overlap_lines, overlaps, prompt_settings
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import read_rows
from reasoning_ext.errors import KeyProblem, Level, Problem, UserError
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.recipe.entries import asks_server, eval_models
from reasoning_ext.recipe.held_out import eval_problems, evaluates
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe

PROMPT_KEYS = ("system_prompt", "chat_template_kwargs", "think_tags")


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


def adapter_without_peft(recipe: Recipe, earlier: Iterable[Recipe] = ()) -> list[Problem]:
    """Say that use_peft is left out where the model is an adapter, or will be one once `earlier` recipes have run."""
    name = recipe.values.get("model_name_or_path")
    if recipe.stage not in TRAINED or "use_peft" in recipe.values or not isinstance(name, str):
        return []
    place = recipe.local(name)
    makers = [other for other in earlier if other.output_dir.resolve() == Path(place).resolve()]
    if not is_adapter(place) and not any(other.get("use_peft") for other in makers[-1:] if other.stage in TRAINED):
        return []
    text = f"left out, where {name} is an adapter: it is merged onto its base, and all weights are trained"
    hint = "write use_peft: true to train it further, or false"
    return [Problem(code="surprising_value", level="warning", key="use_peft", found=text, hint=hint)]


def _shaping(recipe: Recipe) -> dict[str, Any]:
    """Return what shapes all prompts of a recipe in the same way, by key."""
    settings = prompt_settings(recipe)
    values = dict(zip(PROMPT_KEYS, settings[0], strict=False)) if len(settings) == 1 else {}
    return values | {"think_tags": recipe.get("think_tags"), "tools": recipe.values.get("tools")}


def overlap_findings(
    recipe: Recipe, rows: Any, earlier: Iterable[Recipe], hub: bool
) -> tuple[dict[str, int | None], list[Problem]]:
    """Count how many problems of an evaluation, or of what a training holds out, are trained on, and warn of them.

    Returns:
        `({label of the model: problems, None where that is not known}, what to say)`; nothing for other stages.
        `rows` are what the recipe trains or evaluates on, prepared.
    """
    held, own, key = rows, None, "dataset_name"
    if recipe.stage != "eval":
        if not evaluates(recipe):
            return {}, []
        own, key = rows, "dataset_test_split"
        try:
            held = read_rows(row_options(recipe), TEST, asked.n if (asked := eval_problems(recipe)) else None)
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
        none_left = eval_problems(recipe) and any(len(one.numbers) == held.num_rows for one in found.values())
        level: Level = "error" if none_left else "warning"
        findings.append(Problem(code="overlap", level=level, key=key, found=said, hint=hint))
    return {label: None if one.unknown else len(one.numbers) for label, one in found.items()}, findings
