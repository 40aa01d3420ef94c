"""What a recipe's keys and its adapter tell about the model together, without torch.

Nothing is said of a model that an earlier recipe has yet to make; it is asked again before that model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_ext.errors import Problem
from reasoning_ext.models.adapter import ADAPTER, LORA_KEYS, is_adapter
from reasoning_ext.models.unsloth import BY_ITSELF, IN_MODEL_VLLM, TAKEN, starts_vllm
from reasoning_ext.models.weights import CONFIGS
from reasoning_ext.recipe.entries import is_pattern, matches, model_entries
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import MODEL_CONFIG, class_keys
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import DONE, is_run


def unmatched_pattern(recipe: Recipe) -> Iterator[Problem]:
    """A pattern among the models that no folder fits, where what would make one has been run."""
    for place, _, name in model_entries(recipe):
        folder = Path(recipe.local(str(name))).parent
        made = (folder / DONE).is_file() if is_run(folder) else any((folder / file).is_file() for file in CONFIGS)
        if made and is_pattern(name) and not matches(recipe, name):
            hint = f"see {folder} for what was saved; save_strategy, save_steps and save_total_limit say what is kept"
            yield recipe.problem(place, f"found {name}, which no folder fits", "a pattern of folders with models", hint)


def unfit_adapter(recipe: Recipe) -> Iterator[Problem]:
    """What is said of a new adapter where one is continued, or of merging where there is none."""
    written = recipe.values.get("model_name_or_path")
    if "merge_adapter" not in recipe.keys or not written:
        return
    name, merge, use_peft = recipe.local(written), recipe.get("merge_adapter"), recipe.get("use_peft")
    if merge and not use_peft:
        found = "found true without use_peft: true, where an adapter is merged anyway"
        yield recipe.problem("merge_adapter", found, hint="leave it out")
    elif merge and not is_adapter(name) and (Path(name) / "config.json").is_file():
        yield recipe.problem("merge_adapter", f"found true, but {written} is no adapter", hint="leave it out")
    elif use_peft and not merge and (adapter := read_object(Path(name) / ADAPTER)):
        for key, own in LORA_KEYS.items():
            wanted, has = recipe.values.get(key), adapter.get(own)
            # names only the model knows
            if key in recipe.values and _plain(wanted) not in (_plain(has), ["all-linear"]):
                found = f"found {wanted}, but the adapter {written} has {own} {has} and is trained further"
                yield recipe.problem(key, found, hint="leave it out, or write merge_adapter: true")


def _plain(value: Any) -> Any:
    """Bring the spellings of one setting together: a list in any order, one name alone, nothing and false."""
    return sorted(value) if isinstance(value, list) and value else [value] if isinstance(value, str) else value or None


def reference_below_adapter(recipe: Recipe) -> Iterator[Problem]:
    """All weights are trained after an adapter is merged, and the reference would be the model below it."""
    name = recipe.local(recipe.values.get("model_name_or_path") or "")
    if recipe.stage not in ("grpo", "dpo") or recipe.get("use_peft") or not is_adapter(name):
        return
    below = f"whose reference would be the model below the adapter {name}; write use_peft: true"
    if recipe.stage == "grpo" and recipe.get("beta"):
        yield recipe.problem("beta", f"found a KL term, {below} or 0")
    elif recipe.stage == "dpo" and recipe.get("backend") == "trl" and not recipe.get("precompute_ref_log_probs"):
        yield recipe.problem("use_peft", f"found false, {below}, or precompute_ref_log_probs: true")


def unknown_to_unsloth(recipe: Recipe) -> Iterator[Problem]:
    """A key that Unsloth cannot take; the fields of `unsloth_config` are looked up where a run builds TRL's config."""
    if recipe.get("backend") != "unsloth":
        if recipe.values.get("unsloth_config"):
            yield recipe.problem(
                "unsloth_config", "found with backend: trl, which does not know it", hint="leave it out"
            )
        return
    for key in (*class_keys(*MODEL_CONFIG), *(IN_MODEL_VLLM if starts_vllm(recipe.values) else ())):
        value = recipe.values.get(key)
        if value is not None and key not in TAKEN and value != BY_ITSELF.get(key):
            own = f"write {json.dumps(BY_ITSELF[key])}, which it does by itself" if key in BY_ITSELF else "leave it out"
            found = f"found {value!r}, but Unsloth has no argument for it"
            yield recipe.problem(key, found, hint=f"{own}, or write backend: trl")
