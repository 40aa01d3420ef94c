"""The data sets of a recipe: one, or a mixture of several with weights or row counts, each with its own format and task.

    datasets:
      - {dataset_name: open-r1/Mixture-of-Thoughts, dataset_format: open_r1, num_rows: 600000, task: reasoning}
      - {dataset_name: allenai/tulu-3-sft-mixture, dataset_format: messages, num_rows: 200000, task: chat}

An entry has the recipe's own keys for a data set, and takes what it leaves out from the recipe. `num_rows` takes so many rows;
with `weight` in every entry, the mixture is as large as it can be in these proportions without a row twice. `task` becomes a
column, which `when` of a reward asks for.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.errors import Problem
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import dataclass_keys

ENTRY_KEYS = (
    "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "test_size", "dataset_streaming",
    "dataset_format", "format_kwargs", "rename_columns", "gen_kwargs", "system_prompt", "chat_template_kwargs",
)  # fmt: skip
OF_ONE = ("dataset_name", "dataset_config", "rename_columns", "gen_kwargs", "format_kwargs")
TASK = "task"


@dataclass
class MixtureEntry:
    """What an entry of `datasets` has beside the recipe's own keys for a data set."""

    weight: float | None = None
    num_rows: int | None = None
    task: str | None = None


@dataclass
class Entry(Recipe):
    """An entry of `datasets` as a recipe of its own.

    Attributes:
        index: its place in the list, from 0.
        own: the keys that the entry sets itself.
    """

    index: int = 0
    own: tuple[str, ...] = ()

    def problem(self, path: str | tuple, *told: Any, **more: Any) -> Problem:
        """Say what is wrong with a key: within the entry, unless the recipe set it for all entries."""
        path = (path,) if isinstance(path, str) else path
        of_all = path[0] not in self.own and path[0] in self.values
        return super().problem(path if of_all else ("datasets", self.index, *path), *told, **more)


def entries(recipe: Recipe) -> list[Recipe]:
    """Return one recipe a data set: the recipe itself, or one for each entry of `datasets`.

    Raises:
        UserError: an entry has an unknown key or a wrong value, or the entries do not go together.
    """
    listed = recipe.get("datasets")
    if listed is None:
        return [recipe]
    if not listed:
        raise recipe.error("datasets", "found an empty list", "one mapping a data set")
    for key in OF_ONE:
        if key in recipe.values:
            raise recipe.error(key, "found beside datasets", "within its entries")
    found: list[Recipe] = [_entry(recipe, i, entry) for i, entry in enumerate(listed)]
    weights = [entry.values.get("weight") for entry in found]
    if any(weights) and not all(weights):
        place = ("datasets", weights.index(None))
        raise recipe.error(place, "found no weight, but other entries have one", "all or none")
    return found


def _entry(recipe: Recipe, index: int, values: Any) -> Entry:
    if not isinstance(values, dict):
        raise recipe.error(("datasets", index), f"found {values!r}", "a mapping with dataset_name")
    own = dataclass_keys(MixtureEntry)
    known = {name: recipe.keys[name] for name in ENTRY_KEYS if name in recipe.keys} | own
    outer = {k: v for k, v in recipe.values.items() if k not in ("datasets", "max_samples", "chat_template_kwargs")}
    entry = Entry(recipe.path, recipe.stage, outer | values, recipe.keys | own, recipe.lines, index, tuple(values))
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1, cutoff=0.0)[0]
            found, hint = f"unknown key (found {key}: {value!r})", f"the nearest key of an entry is {near}"
            raise entry.error((key,), found, hint=hint, code="unknown_key")
        if misfit := known[key].misfit(value):
            raise entry.error((key,), *misfit)
        if key in ("weight", "num_rows") and value is not None and not (value > 0 and math.isfinite(value)):
            raise entry.error((key,), f"found {value}", "above 0")
        if key == "chat_template_kwargs" and recipe.stage not in FROM_DATA:
            hint = f"stage {recipe.stage} has one for all rows"
            raise entry.error((key,), "found in an entry", f"in an entry of stage {' or '.join(FROM_DATA)}", hint=hint)
    if not values.get("dataset_name"):
        raise recipe.error(("datasets", index), "the key dataset_name is missing")
    if values.get("weight") and values.get("num_rows"):
        raise entry.error("num_rows", "found beside weight", "one of the two")
    return entry


def eval_models(recipe: Recipe) -> dict[str, str]:
    """Return the models that `stage: eval` compares, `{label: name}`; empty for other stages."""
    return dict(listed_models(recipe))


def listed_models(recipe: Recipe) -> list[tuple[Any, Any]]:
    """Return `(label, name)` of each model as `stage: eval` lists them; a pattern gives one a folder, by their numbers.

    A pattern that nothing fits, so far, stands for the run that the folders will lie in: its model is made as they are.
    """
    found: list[tuple[Any, Any]] = []
    for _, label, name in model_entries(recipe):
        if not is_pattern(name):
            found.append((Path(str(name)).name if label is None else label, name))
            continue
        folder, _, last = name.rpartition("/")
        inside = {one: f"{folder}/{one}" for one in matches(recipe, name)} or {last: folder}
        found += [(one if label is None else f"{label} {one}", place) for one, place in inside.items()]
    return found


def model_entries(recipe: Recipe) -> list[tuple[tuple, Any, Any]]:
    """Return the path, the label, None where there is none, and the name of each entry of `models` in `stage: eval`."""
    if recipe.stage != "eval":
        return []
    models = recipe.get("models") or recipe.values.get("model_name_or_path")
    if isinstance(models, dict):
        return [(("models", label), label, name) for label, name in models.items()]
    listed = models if isinstance(models, list) else [models]
    return [(("models", i) if isinstance(models, list) else ("models",), None, m) for i, m in enumerate(listed) if m]


def is_pattern(name: Any) -> bool:
    """Tell whether a model's name is a pattern of folders in one folder, `runs/grpo/checkpoint-*`."""
    folder, slash, last = str(name).rpartition("/")
    return bool(slash) and "*" in last and "*" not in folder


def matches(recipe: Recipe, pattern: str) -> list[str]:
    """List the names of the folders that fit a pattern, `checkpoint-9` before `checkpoint-10`."""
    place = Path(recipe.local(pattern))
    found = [path.name for path in place.parent.glob(place.name) if path.is_dir()]
    return sorted(found, key=lambda name: ([int(number) for number in re.findall(r"\d+", name)], name))


def asks_server(recipe: Recipe) -> bool:
    """Tell whether a server answers the recipe's prompts, so that neither model nor tokenizer is here."""
    return "engine" in recipe.keys and recipe.get("engine") == "server"
