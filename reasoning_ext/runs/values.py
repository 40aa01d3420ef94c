"""Figures of a stored run: whether they are numbers, which a damaged file may not have, and how they are written."""

import sys
from collections.abc import Iterable
from typing import Any, TypeGuard

# rewards that say nothing of whether an answer is right; of a training's others the first that applies says it
OF_MANNER = ("step_check", "think_format", "length_penalty", "language", "tool_use")


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a number that can be drawn, which an integer of 400 digits is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_interval(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a figure of `eval.json` is a value with its interval, `[value, low, high]`."""
    return isinstance(value, list) and len(value) == 3 and all(map(is_number, value))


def cell(value: Any) -> str:
    """Write a figure of `eval.json` for a table: a share in per cent with its interval, a number, nothing for None."""
    if is_interval(value):
        return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * share for share in value))
    return "" if value is None else f"{value:g}" if is_number(value) else str(value)


def deciding(names: Iterable[str]) -> str:
    """Return which of a training's rewards says what is right, or ""."""
    return next((name for name in names if name not in OF_MANNER), "")
