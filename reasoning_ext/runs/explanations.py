"""`explained.json`: what the thoughts of a run's models do for their answers, as the report and the card show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.values import is_interval, is_number

EXPLAINED = "explained.json"
COUNTS, SHARES = ("problems", "without a thought"), ("decorative", "faithful", "same without thought")
FIGURES = (*COUNTS, "steps", *SHARES, "known after")
OVER_STEPS = (*SHARES, "known after")  # is drawn over checkpoints


def explanations_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of each model in a run's `explained.json`, `{label: {figure: value}}`, where they can be read.

    Counts and means are numbers, shares `[value, low, high]`; a model whose thoughts were none has the counts alone.
    """
    found = {}
    for label, row in read_object(folder / EXPLAINED).items():
        given = row if isinstance(row, dict) else {}
        read = {name: given[name] for name in FIGURES if _fits(name, given.get(name))}
        if all(name in read for name in COUNTS):
            found[str(label)] = read
    return found


def _fits(name: str, value: Any) -> bool:
    if name in SHARES:
        return is_interval(value) and all(0 <= part <= 1 for part in value)
    return is_number(value) and value >= 0 and (name != "known after" or value <= 1)
