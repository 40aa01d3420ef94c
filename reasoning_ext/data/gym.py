"""Rows of the tasks of the library reasoning-gym, `reasoning_gym:TASK`; `rewards/_gym.py` scores the answers."""

from __future__ import annotations

import json
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from reasoning_ext.data.columns import DataError
from reasoning_ext.rewards._gym import INSTALL, is_installed, plain

PREFIX = "reasoning_gym:"
SPLITS = ("train", "validation", "test")
# The library seeds row i with seed + i, below 2**32; each split and seed has a range of its own.
MOST_ROWS = 2**20
MOST_SEED = 2**32 // MOST_ROWS // len(SPLITS) - 1
# Where there are many right answers, `answer` is empty, and one of them stands in the metadata.
_EXAMPLES = ("possible_answer", "example_correct_answer", "example_answer")


def is_gym(name: str) -> bool:
    """Tell whether a data set's name asks for a task of reasoning-gym."""
    return name.startswith(PREFIX)


def gym_rows(name: str, split: str, gen_kwargs: dict[str, Any], most: int | None = None) -> list[dict[str, Any]]:
    """Make the rows of a task, of which `most` are wanted.

    The splits, "train", "validation" and "test", never share a seed of the library's; a task with few questions may
    still ask the same one in two of them. `gen_kwargs` has `num_rows` (1000), `seed` (0), and the task's settings.

    Returns:
        rows with `prompt` (the question), `answer` ("" where the library has none), `task`, and `gym_entry`, the whole
        entry as JSON text for the reward `reasoning_gym`.

    Raises:
        DataError: the library is missing, has no such task or setting, or refuses a value.
    """
    settings = {"num_rows": 1000, "seed": 0, **gen_kwargs}
    num_rows, seed = settings.pop("num_rows"), settings.pop("seed")
    for key, value, low, high in (("num_rows", num_rows, 1, MOST_ROWS), ("seed", seed, 0, MOST_SEED)):
        if type(value) is not int or not low <= value <= high:
            raise DataError("gen_kwargs", f"found {key}: {value!r}", f"whole numbers from {low} to {high}")
    if split not in SPLITS:
        raise DataError("dataset_name", f"found the split {split}, allowed for {name}: {', '.join(SPLITS)}")
    if not is_installed():
        raise DataError("dataset_name", INSTALL)
    from reasoning_gym.factory import DATASETS, create_dataset

    task, known = name.removeprefix(PREFIX), {*DATASETS} - {"composite"}  # which has no rows of its own
    _check_known("dataset_name", "reasoning_gym has no task", task, known)
    own = {field.name for field in fields(DATASETS[task][1])} - {"size"} | {"num_rows", "seed"}
    for key in settings:
        _check_known("gen_kwargs", f"{name} has no setting", str(key), own)
    num_rows = num_rows if most is None else min(num_rows, most)
    first = (seed * len(SPLITS) + SPLITS.index(split)) * MOST_ROWS
    try:
        entries = create_dataset(task, **settings, seed=first, size=num_rows)
        return [_row(task, settings, entries[i]) for i in range(num_rows)]
    except Exception as error:
        raise DataError("gen_kwargs", f"reasoning_gym:{task} failed: {type(error).__name__}: {error}") from error


def _row(task: str, settings: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    metadata, gold = entry["metadata"], entry["answer"]
    if gold is None:
        gold = next((metadata[key] for key in _EXAMPLES if metadata.get(key) is not None), "")
    gold = gold if isinstance(gold, str) else json.dumps(gold)
    text = json.dumps({"task": task, "config": settings, "entry": plain(entry)}, ensure_ascii=False)
    return {"prompt": entry["question"], "answer": gold, "task": task, "gym_entry": text}


def _check_known(key: str, problem: str, name: str, known: set[str]) -> None:
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(sorted(known))}"
        raise DataError(key, f"{problem} {name or '(nothing)'}", hint=hint)
