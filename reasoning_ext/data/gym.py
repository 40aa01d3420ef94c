"""Rows of the tasks of the library reasoning-gym, `dataset_name: reasoning_gym:TASK`; `rewards/_gym.py` scores the answers."""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from typing import Any

from reasoning_ext.data.columns import DataError
from reasoning_ext.rewards._gym import INSTALL, is_installed, plain

PREFIX = "reasoning_gym:"
SPLITS = ("train", "validation", "test")
# Row i of the library comes from a generator seeded with seed + i, below 2**32; each split and seed has a range of its own.
MOST_ROWS = 2**20
MOST_SEED = 2**32 // MOST_ROWS // len(SPLITS) - 1
# Where there are many right answers, `answer` is empty, and one of them stands in the metadata.
_EXAMPLES = ("possible_answer", "example_correct_answer", "example_answer")


def is_gym(name: str) -> bool:
    """Tell whether a data set's name asks for a task of reasoning-gym."""
    return name.startswith(PREFIX)


def gym_rows(name: str, split: str, gen_kwargs: dict[str, Any]) -> list[dict[str, Any]]:
    """Make the rows of a task.

    Args:
        name: `reasoning_gym:TASK`.
        split: "train", "validation" or "test"; they never share a seed of the library's generator. A task with few
            questions may still ask the same one in two of them.
        gen_kwargs: `num_rows` (1000), `seed` (0), and the settings of the task's own configuration.

    Returns:
        rows with `prompt` (the question), `answer` ("" where the library has none), `task`, and `gym_entry`, the whole
        entry as JSON text for the reward `reasoning_gym`.

    Raises:
        DataError: the library is missing, has no such task or setting, or refuses a value.
    """
    settings = {**gen_kwargs}
    num_rows = _whole(settings.pop("num_rows", 1000), "num_rows", 1, MOST_ROWS)
    seed = _whole(settings.pop("seed", 0), "seed", 0, MOST_SEED)
    if split not in SPLITS:
        raise DataError("dataset_name", f"found the split {split}, allowed for {name}: {', '.join(SPLITS)}")
    if not is_installed():
        raise DataError("dataset_name", INSTALL)
    from reasoning_gym.factory import DATASETS, create_dataset

    task = name.removeprefix(PREFIX)
    if task == "composite":
        made_of = "found composite, which has no rows of its own, allowed: one of the tasks it is made of"
        raise DataError("dataset_name", made_of)
    if task not in DATASETS:
        near = _near(task, sorted({*DATASETS} - {"composite"}), "there are")
        raise DataError("dataset_name", f"reasoning_gym has no task {task or '(nothing)'}; {near}")
    own = [field.name for field in fields(DATASETS[task][1]) if field.name not in ("seed", "size")]
    for key in settings:
        if key not in own:
            near = _near(str(key), ["num_rows", "seed", *own], "it has")
            raise DataError("gen_kwargs", f"reasoning_gym:{task} has no setting {key}; {near}")
    first = (seed * len(SPLITS) + SPLITS.index(split)) * MOST_ROWS
    try:
        entries = create_dataset(task, **settings, seed=first, size=num_rows)
        return [_row(task, settings, entries[i]) for i in range(num_rows)]
    except Exception as error:
        raise DataError("gen_kwargs", f"reasoning_gym:{task} failed: {type(error).__name__}: {error}") from error


def _row(task: str, settings: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    metadata = entry["metadata"]
    gold = entry["answer"]
    if gold is None:
        gold = next((metadata[key] for key in _EXAMPLES if metadata.get(key) is not None), "")
    gold = gold if isinstance(gold, str) else json.dumps(gold)
    text = json.dumps({"task": task, "config": settings, "entry": plain(entry)}, ensure_ascii=False)
    return {"prompt": entry["question"], "answer": gold, "task": task, "gym_entry": text}


def _near(name: str, known: list[str], there: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"the nearest is {near[0]}" if near else f"{there} {', '.join(known)}"


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise DataError("gen_kwargs", f"found {name}: {value!r}, allowed: whole numbers from {low} to {high}")
    return value
