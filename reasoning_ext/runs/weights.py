"""What a reward weighs at a step of a training, read off a stored recipe, which may be damaged."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.runs.values import is_number


def scheduled(schedule: Any, step: float, weight: float) -> float:
    """Return a schedule's weight at a step, or the weight given where there is none that can be read."""
    for kind, points in schedule.items() if isinstance(schedule, dict) else ():
        if isinstance(points, dict) and points and all(isinstance(n, int | float) for n in (*points, *points.values())):
            places = sorted(points)
            if kind == "steps":
                return float(points[next((place for place in reversed(places) if place <= step), places[0])])
            import numpy  # which a check of keys has no use for

            return float(numpy.interp(step, places, [points[place] for place in places]))
    return weight


def weights_of(recipe: dict[str, Any], step: float = math.inf) -> dict[str, float]:
    """Read the weights off a recipe's `reward_funcs`, under the names that metrics have, as they are at a step.

    >>> weights_of({"reward_funcs": ["a", {"./b.py:c": {"schedule": {"linear": {0: 0.0, 100: 1.0}}}}]}, 25)
    {'a': 1.0, 'c': 0.25}
    """
    entries = recipe.get("reward_funcs") or []
    weights: dict[str, float] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        spelling, options = next(iter(entry.items())) if isinstance(entry, dict) and entry else (entry, None)
        last = str(spelling).rsplit(":", 1)[-1]
        name = Path(last).stem if last.endswith(".py") else last.rsplit(".", 1)[-1]
        options = options if isinstance(options, dict) else {}
        weight = options.get("weight", 1.0)
        weights[name] = scheduled(options.get("schedule"), step, float(weight) if is_number(weight) else 1.0)
    own = recipe.get("reward_weights")
    if isinstance(own, list) and len(own) == len(weights) and all(map(is_number, own)):
        weights = dict(zip(weights, map(float, own), strict=True))
    return weights


def rewards_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the rewards of a sample, None where one does not apply or is no number."""
    given = row["rewards"] if isinstance(row.get("rewards"), dict) else {}
    return {str(name): float(value) if is_number(value) else None for name, value in given.items()}


def totals(recipe: dict[str, Any]) -> Callable[[Mapping[str, Any]], float | None]:
    """Return what tells of a sample its total reward, by the weights at its step; None where no reward judged it."""
    weights_at = cache(lambda step: weights_of(recipe, step))

    def total(row: Mapping[str, Any]) -> float | None:
        judged = {name: value for name, value in rewards_of(row).items() if value is not None}
        weights = weights_at(step if is_number(step := row.get("step")) else math.inf)
        found = sum(weights.get(name, 1.0) * value for name, value in judged.items())
        return found if judged and is_number(found) else None

    return total
