"""What of a recipe decides what a run makes: the rest may change while it goes on, and does not make it another run."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from reasoning_ext.recipe.keys import KINDS, TRAINED
from reasoning_ext.shown import without_secrets

Run = TypeVar("Run")
DRAWING = ("sample", "eval")  # what they have drawn stays
LONGER = dict.fromkeys(TRAINED, KINDS["length"]) | {stage: {"num_generations"} for stage in DRAWING}  # these may grow


def text_hash(text: str) -> str:
    """Return a digest of a text, short enough to be read."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recipe_hash(recipe: dict[str, Any]) -> str:
    """Return the digest of what decides what a run makes."""
    return text_hash(json.dumps(identity(recipe), sort_keys=True, default=str))


def identity(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what of a recipe decides what a run makes: a run that is cut off may go on with the rest changed."""
    free = KINDS["watching"] | KINDS["speed"]
    if recipe.get("load_best_model_at_end"):  # the best is chosen among those that were saved
        free -= {"save_strategy", "save_steps"}
    if recipe.get("dataset_streaming"):  # workers take turns
        free -= {"dataloader_num_workers"}
    kept = {k: v for k, v in without_secrets(recipe).items() if k not in free}
    if isinstance(options := kept.pop("engine_kwargs", None), dict):
        options = {k: v for k, v in identity(options).items() if k not in KINDS["transport"]}
    return kept | ({"engine_kwargs": options} if options else {})


def essence(
    run: Run,
    recipe_of: Callable[[Run], dict[str, Any]],
    made_by: Callable[[Run, str], tuple[Run, str] | None],
    depth: int = 8,
) -> tuple[str, list[Any]]:
    """Write what recipes share that differ in seeds alone, and the seeds; so in turn of the runs that they name.

    Args:
        run: whose recipe `recipe_of` returns.
        made_by: returns the run that a name in a run's recipe stands for, and which of its checkpoints, or None.
    """
    seeds = [recipe_of(run).get("seed")]

    def written(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): written(part) for key, part in value.items()}
        if isinstance(value, list):
            return [*map(written, value)]
        if not isinstance(value, str) or depth == 0 or (found := made_by(run, value)) is None:
            return value
        of, below = essence(found[0], recipe_of, made_by, depth - 1)
        seeds.extend(below)
        return of, found[1]

    kept = {key: value for key, value in identity(recipe_of(run)).items() if key not in ("seed", "output_dir")}
    return repr(sorted(written(kept).items())), seeds


def by_recipe(runs: Iterable[Run], essence_of: Callable[[Run], tuple[str, list[Any]]]) -> list[list[Run]]:
    """Group runs of one recipe that differ in seeds alone, in their order.

    A second run with the same recipe and seed begins another group: it is compared with the first, not pooled.
    """
    groups, again = dict[tuple[str, int], list[Run]](), Counter[str]()
    for run in runs:
        of, seeds = essence_of(run)
        groups.setdefault((of, again[repr((of, seeds))]), []).append(run)
        again[repr((of, seeds))] += 1
    return [*groups.values()]


def refused_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name what makes a recipe another run's, or nothing; a training may be longer, what is drawn more."""
    before, now = _drawing(before), _drawing(now)
    for key in LONGER.get(str(now.get("stage")), ()):
        few, more = before.get(key), now.get(key)
        if isinstance(few, int | float) and isinstance(more, int | float) and 0 <= few < more:
            before[key] = more
    return difference(before, now)


def _drawing(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what decides which completions are drawn, where those stay; of other stages all that decides anything."""
    kept = identity(recipe)
    if recipe.get("stage") not in DRAWING:
        return kept
    agrees = {"min_agreement": "set"} if kept.get("min_agreement") is not None else {}  # rows without a gold take part
    return {key: value for key, value in kept.items() if key not in KINDS["choice"]} | agrees


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first keys whose values differ: `learning_rate 1e-05 -> 2e-05`."""
    keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
    shown = [f"{k} {before.get(k, 'not set')} -> {now.get(k, 'not set')}" for k in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
