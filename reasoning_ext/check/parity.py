"""`check --parity`: what a recipe uses to answer and to train, held against plain transformers on its own rows."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from reasoning_ext.check.keys import Checked, outputs
from reasoning_ext.errors import UserError
from reasoning_ext.models.weights import CONFIGS
from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.train.parity import LOOKED_AT, compare_engines, nothing_to_compare


def check_parity(checked: Checked, earlier: list[Recipe]) -> None:
    """Compare a recipe's engine with transformers, of several models the first; add figures, and errors beyond limits.

    `earlier` are the recipes that count as run before it.
    """
    recipe, inspected = checked.recipe, checked.inspection
    if checked.errors:
        return
    name = next(iter(eval_models(recipe).values()), None) or recipe.get("model_name_or_path")
    rows = inspected.rows[:LOOKED_AT] if inspected else []
    local = Path(recipe.local(name))
    why = nothing_to_compare(recipe) or ("" if rows else f"no rows: {checked.unread or 'there are none'}")
    if local.resolve() in {path.resolve() for path in outputs(earlier)} and not any(
        (local / f).is_file() for f in CONFIGS
    ):
        why = f"{name} is made by an earlier recipe, and is not there yet"
    if why:
        checked.note("", f"parity not compared: {why}", code="not_compared")
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = compare_engines(recipe, [row["prompt"] for row in rows], name, Path(folder))
    except UserError as error:
        key = error.problem.key
        if key == "model_name_or_path" and recipe.values.get("models"):
            key = "models"
        if key == "engine" and key not in recipe.keys:
            key = "use_vllm"
        checked.add([replace(error.problem, key=key)])
        return
    checked.facts["parity"] = found.as_dict()
    checked.parity = found.line()
    checked.add(found.problems())
