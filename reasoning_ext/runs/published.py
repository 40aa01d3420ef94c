"""What others have measured on a run's benchmark, to stand beside its own figures."""

from pathlib import Path
from typing import Any, NamedTuple

from reasoning_ext.recipe.benchmarks import BENCHMARKS, Published, changed
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.recipe.load import Recipe


class Known(NamedTuple):
    """A benchmark's name, the keys that the recipe sets otherwise than it, and figures of others."""

    name: str
    changed: list[str]
    rows: tuple[Published, ...]


def published(values: dict[str, Any]) -> Known | None:
    """Return what is known of the benchmark that a recipe's values name; None where they name none of ours."""
    name = values.get("benchmark")
    if not isinstance(name, str) or name not in BENCHMARKS:
        return None
    return Known(name, changed(Recipe(Path(), "eval", values, stage_keys("eval"), {})), BENCHMARKS[name].published)
