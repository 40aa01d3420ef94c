"""A run's folder: what was asked for, what it was made of, how far it came, and whether it is done.

    recipe.yaml     the resolved recipe            metrics.jsonl   one line a logging step
    versions.json   packages, Python, device       completions/    the completions, as TRL writes them
    lineage.json    hashes of recipe and inputs    checkpoint-*    each with COMPLETE, written last
    DONE            written last of all            the model, or samples and tables
    recipe_path     where the recipe's file lies, for what it names with ./

Every file is written whole or not at all. A folder belongs to one recipe: another recipe with the same `output_dir` is
refused, the same one goes on from its last complete checkpoint, or is skipped when it is done. `own_keys.KINDS` tells what a key
decides: what only watches or hastens a run may change at any time. Stage `sample` may change what it keeps of its completions,
and ask for more of them: those that were drawn stay, and are chosen among anew. A training may be made longer.
"""

import hashlib
import json
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.checkpoints import last_checkpoint
from reasoning_ext.errors import UserError
from reasoning_ext.files import fast_hash, size_problem, write_whole
from reasoning_ext.own_keys import KINDS, TRAINED
from reasoning_ext.shown import print, without_secrets

RECIPE, LINEAGE, VERSIONS, METRICS, DONE, RECIPE_PATH = (
    "recipe.yaml", "lineage.json", "versions.json", "metrics.jsonl", "DONE", "recipe_path",
)  # fmt: skip
PACKAGES = (
    "reasoning-ext", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "math-verify",
    "unsloth", "vllm",
)  # fmt: skip
# what of a finished run others read, and is therefore whole before DONE is written
KEPT = ("*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer.json", "*.jsonl")


class RunDirError(UserError):
    """The folder cannot be used for this recipe; the message says what to do."""

    code = "other_folder"


@dataclass(frozen=True)
class RunDir:
    """An opened run folder.

    Attributes:
        path: the folder.
        done: the stage has finished with this recipe and these inputs.
        checkpoint: the last complete checkpoint to go on from, or None.
    """

    path: Path
    done: bool
    checkpoint: Path | None


def open_run(path: Path, recipe: dict[str, Any], inputs: dict[str, str], recipe_path: Path | None = None) -> RunDir:
    """Open a run's folder for a recipe: new, to be continued, or done.

    Args:
        path: the recipe's `output_dir`.
        recipe: the resolved recipe.
        inputs: `{what: fingerprint}` of model, data and rewards, as `fingerprint` makes them.
        recipe_path: the recipe's file, noted for `written_recipe`; it is no part of what identifies a run.

    Raises:
        RunDirError: the folder belongs to a different recipe or was made from different inputs, or holds something else.
    """
    refuse_other_recipe(path, recipe)
    lineage = {"recipe": _recipe_hash(recipe), "inputs": inputs}
    if not is_run(path) or not has_begun(path):
        path.mkdir(parents=True, exist_ok=True)
        write_whole(path / RECIPE, yaml.safe_dump(without_secrets(recipe), sort_keys=False, allow_unicode=True))
        write_whole(path / VERSIONS, json.dumps(versions(), indent=1))
        write_whole(path / LINEAGE, json.dumps(lineage, indent=1))
        _note(path, recipe_path)
        return RunDir(path, False, None)
    known = _lineage(path)
    if (before := _as_now(known["inputs"], inputs)) != inputs:
        changed = _difference(before, inputs)
        raise RunDirError(
            f"found {path}, made from other inputs ({changed}); choose another output_dir or remove the folder to make it again"
        )
    _note(path, recipe_path)  # it may have been moved
    done = is_done(path, recipe)
    if not done:  # what is no part of a run may have changed, or what is chosen of its completions
        (path / DONE).unlink(missing_ok=True)
        write_whole(path / RECIPE, yaml.safe_dump(without_secrets(recipe), sort_keys=False, allow_unicode=True))
        if known != lineage:
            write_whole(path / LINEAGE, json.dumps(lineage, indent=1))
    return RunDir(path, done, last_checkpoint(path))


def is_done(path: Path, recipe: dict[str, Any]) -> bool:
    """Tell whether a folder holds all that a recipe asks for, which is known not to be refused."""
    return is_run(path) and (path / DONE).is_file() and _is_of(path, recipe)


def unfinished(path: Path, name: str) -> str:
    """Say that what a recipe names by that name is a run which is not done, or nothing."""
    if not is_run(path) or (path / DONE).is_file():
        return damage(path, name)
    return f"found {name}, a run that has not finished; run its recipe again, it will go on"


def damage(path: Path, name: str) -> str:
    """Say what of a finished run's files is lost or cut off, or nothing; a config may have been edited.

    Args:
        path: a folder.
        name: how a user calls it.
    """
    if not (path / DONE).is_file():
        return ""
    try:
        files = dict(json.loads((path / DONE).read_bytes()).get("files", {}))
    except (ValueError, TypeError, AttributeError):
        return f"found {name}, whose {DONE} is damaged; remove that file and run its recipe again"
    for file, size in files.items():
        edited = file.endswith("config.json") and (path / file).is_file() and (path / file).stat().st_size > 0
        if not edited and (problem := size_problem(path / file, size)):
            return (
                f"found {name}, done, but its {file} {problem}; put it back, or remove {DONE} and run its recipe again"
            )
    return ""


def other_choice(path: Path, recipe: dict[str, Any]) -> str:
    """Say what a recipe, which is known not to be refused, asks for otherwise than the folder's, or nothing."""
    if not is_run(path) or not has_begun(path) or _is_of(path, recipe):
        return ""
    changed = _difference(_identity(_written(path)), _identity(recipe))
    if recipe.get("stage") not in TRAINED:
        return f"with what was drawn, otherwise than before: {changed}"
    kind = recipe.get("lr_scheduler_type", "linear")
    if kind == "constant" or (kind == "constant_with_warmup" and recipe.get("warmup_steps", 0) >= 1):
        return f"longer than before: {changed}"
    return f"longer than before: {changed}; its steps so far followed the {kind} schedule of the shorter run"


def _note(path: Path, recipe_path: Path | None) -> None:
    if recipe_path is not None and written_recipe(path) != recipe_path.absolute():
        write_whole(path / RECIPE_PATH, str(recipe_path.absolute()) + "\n")


def written_recipe(path: Path) -> Path | None:
    """Return the recipe's file as a run noted it; it may be gone by now. None where the run noted none."""
    note = path / RECIPE_PATH
    return Path(note.read_text(encoding="utf-8").removesuffix("\n")) if note.is_file() else None


def refuse_other_recipe(path: Path, recipe: dict[str, Any]) -> None:
    """Refuse a folder that belongs to a different recipe, or that holds files of no run.

    Raises:
        RunDirError: it does; the message names the keys that differ. Or a file of it is damaged.
    """
    if not is_run(path):
        if has_begun(path):
            raise _damaged(path / LINEAGE)
        if path.is_dir() and not (path / RECIPE).is_file() and any(f.name[0] != "." for f in path.iterdir()):
            raise RunDirError(f"found {path}, which holds files but no run; use an empty or new folder")
        return
    if not has_begun(path):
        return
    if problem := damage(path, str(path)):
        raise RunDirError(problem)
    if _is_of(path, recipe):
        return
    before, now = _drawing(_written(path)), _drawing(recipe)
    longer = dict.fromkeys(TRAINED, KINDS["length"]) | {"sample": {"num_generations"}}
    for key in longer.get(str(recipe.get("stage")), ()):
        few, more = before.get(key), now.get(key)
        if isinstance(few, int | float) and isinstance(more, int | float) and 0 < few < more:
            before[key] = more
    if changed := _difference(before, now):
        raise RunDirError(
            f"found {path}, made by a different recipe ({changed}); choose another output_dir or remove the folder"
        )
    if recipe.get("stage") in TRAINED and (path / DONE).is_file() and last_checkpoint(path) is None:
        changed = _difference(_identity(_written(path)), now)
        raise RunDirError(
            f"found {path}, done, without a checkpoint to go on from ({changed}); choose another output_dir or remove the folder"
        )


def _is_of(path: Path, recipe: dict[str, Any]) -> bool:
    """Tell whether a run's folder was last opened for this very recipe."""
    return _recipe_hash(_written(path)) == _recipe_hash(recipe)


def _written(path: Path) -> dict[str, Any]:
    """Return the recipe that a folder holds."""
    try:
        recipe = yaml.safe_load((path / RECIPE).read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _damaged(path / RECIPE) from error
    if not isinstance(recipe, dict):
        raise _damaged(path / RECIPE)
    return recipe


def _lineage(path: Path) -> dict[str, Any]:
    """Return what a folder was made of."""
    try:
        known = json.loads((path / LINEAGE).read_bytes())
        return {"recipe": str(known["recipe"]), "inputs": dict(known["inputs"])}
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path / LINEAGE) from error


def _damaged(file: Path) -> RunDirError:
    return RunDirError(f"found {file}, which is damaged; put it back, choose another output_dir or remove the folder")


def finish(path: Path, seconds: float) -> None:
    """Mark a run as done; the last file that a stage writes. What it leaves is on the disk by then, and its sizes are noted."""
    files = sorted({file for pattern in KEPT for file in path.glob(pattern) if file.name != METRICS})
    for file in [*files, path]:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    done = {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": round(seconds, 1)}
    write_whole(path / DONE, json.dumps(done | {"files": {file.name: file.stat().st_size for file in files}}))


def is_run(path: Path) -> bool:
    """Tell whether a folder is a run's."""
    return (path / LINEAGE).is_file()


def has_begun(path: Path) -> bool:
    """Tell whether a run has made anything yet; one that was refused before that may be given another recipe."""
    made = (DONE, METRICS, "samples.jsonl", "answers.jsonl")
    return any((path / name).is_file() for name in made) or any(path.glob("checkpoint-*"))


def fingerprint(source: str) -> str:
    """Identify an input: a finished run by its own lineage, a file by its content, a folder by its files, a name by itself.

    Args:
        source: a run's folder, a file, a folder, or a hub name.
    """
    path = Path(source)
    if is_run(path):
        return "run:" + _hash((path / LINEAGE).read_text())
    if path.is_file():
        with path.open("rb") as file:
            return "file:" + hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
        listing = [(str(f.relative_to(path)), fast_hash(f)) for f in files]
        return "files:" + _hash(json.dumps(listing))
    return "name:" + source


def _as_now(known: dict[str, str], inputs: dict[str, str]) -> dict[str, str]:
    """Return what a run was made of; a folder that an earlier version read the beginnings of counts as the one of today."""
    old = {what for what, mark in known.items() if mark.startswith("folder:")}
    return {what: inputs[what] if what in old and what in inputs else mark for what, mark in known.items()}


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part, of Python and of the system."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "platform": platform.platform()}


def is_main() -> bool:
    """Tell whether this is the first process of `accelerate launch`, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Print a line, in the first process only."""
    if is_main():
        print(line, flush=True)


def world_size() -> int:
    """Return how many processes `accelerate launch` started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _recipe_hash(recipe: dict[str, Any]) -> str:
    return _hash(json.dumps(_identity(recipe), sort_keys=True, default=str))


def _identity(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what of a recipe decides what a run makes: a run that is cut off may go on with the rest changed."""
    free = KINDS["watching"] | KINDS["speed"]
    if recipe.get("load_best_model_at_end"):  # the best is chosen among those that were saved
        free -= {"save_strategy", "save_steps"}
    if recipe.get("dataset_streaming"):  # workers take turns
        free -= {"dataloader_num_workers"}
    kept = {k: v for k, v in without_secrets(recipe).items() if k not in free}
    if isinstance(options := kept.get("engine_kwargs"), dict):
        kept["engine_kwargs"] = {k: v for k, v in _identity(options).items() if k not in KINDS["transport"]}
    return {k: v for k, v in kept.items() if k != "engine_kwargs" or v}


def _drawing(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what decides which completions stage `sample` draws and what they say; of other stages all that decides anything."""
    kept = _identity(recipe)
    if recipe.get("stage") != "sample":
        return kept
    agrees = {"min_agreement": "set"} if kept.get("min_agreement") is not None else {}  # rows without a gold take part
    return {key: value for key, value in kept.items() if key not in KINDS["choice"]} | agrees


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first keys whose values differ: `learning_rate 1e-05 -> 2e-05`."""
    keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
    shown = [f"{k} {before.get(k, 'not set')} -> {now.get(k, 'not set')}" for k in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
