"""What of a recipe decides what a run makes: the rest may change while it goes on, and does not make it another run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from reasoning_ext.recipe.keys import KINDS, TRAINED
from reasoning_ext.shown import without_secrets

OWN = ":ours"  # behind the mark of a file of this package
PACKAGE = (Path(__file__).parents[1], Path(__file__).parents[2] / "rewards")  # in the repository rewards lie beside it


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
    if isinstance(options := kept.get("engine_kwargs"), dict):
        kept["engine_kwargs"] = {k: v for k, v in identity(options).items() if k not in KINDS["transport"]}
    return {k: v for k, v in kept.items() if k != "engine_kwargs" or v}


def drawing(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what decides which completions stage `sample` draws and what they say; of other stages all that decides anything."""
    kept = identity(recipe)
    if recipe.get("stage") != "sample":
        return kept
    agrees = {"min_agreement": "set"} if kept.get("min_agreement") is not None else {}  # rows without a gold take part
    return {key: value for key, value in kept.items() if key not in KINDS["choice"]} | agrees


def refused_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name what makes a recipe another run's than it was, or nothing; a training may be made longer, a sampling draw more."""
    before, now = drawing(before), drawing(now)
    longer = dict.fromkeys(TRAINED, KINDS["length"]) | {"sample": {"num_generations"}}
    for key in longer.get(str(now.get("stage")), ()):
        few, more = before.get(key), now.get(key)
        if isinstance(few, int | float) and isinstance(more, int | float) and 0 < few < more:
            before[key] = more
    return difference(before, now)


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first keys whose values differ: `learning_rate 1e-05 -> 2e-05`."""
    keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
    shown = [f"{k} {before.get(k, 'not set')} -> {now.get(k, 'not set')}" for k in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def text_hash(text: str) -> str:
    """Return a digest of a text, short enough to be read."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_mark(path: Path) -> str:
    """Identify a file by its content, and say whether it is one of this package's."""
    own = OWN if any(map(path.resolve().is_relative_to, PACKAGE)) else ""
    with path.open("rb") as file:
        return f"file:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}{own}"


def older(mark: str, now: str) -> bool:
    """Tell whether an earlier version made a mark otherwise: it read the beginnings of folders, and moved its own files."""
    return mark.startswith("folder:") or (now.endswith(OWN) and mark.startswith("file:") and not mark.endswith(OWN))
