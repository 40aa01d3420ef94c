"""A run's folder: what was asked for, what it was made of, how far it came, and whether it is done.

    recipe.yaml     the resolved recipe            metrics.jsonl   one line a logging step
    versions.json   packages, Python, device       completions/    the completions, as TRL writes them
    lineage.json    hashes of recipe and inputs    checkpoint-*    each with COMPLETE, written last
    DONE            written last of all            the model, or samples and tables
    recipe_path     where the recipe's file lies, for what it names with ./

With `--seeds 0 1 2` each of the folders `seed_0` ... in the recipe's `output_dir` is such a folder.

Every file is written whole or not at all. A folder belongs to one recipe: another recipe with the same `output_dir` is
refused, the same one goes on from its last complete checkpoint, or is skipped when it is done. `KINDS` of `recipe.keys` tells
what a key decides: what only watches or hastens a run may change at any time. Stage `sample` may change what it keeps of its
completions, and ask for more of them: those that were drawn stay, and are chosen among anew. A training may be made longer.
"""

import contextlib
import errno
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.runs.checkpoints import last_checkpoint
from reasoning_ext.runs.files import changed, fast_hash, in_index, read_object, write_whole
from reasoning_ext.runs.identity import difference, identity, recipe_hash, refused_change, text_hash
from reasoning_ext.runs.process import versions
from reasoning_ext.shown import print, without_secrets

RECIPE, LINEAGE, VERSIONS, METRICS = "recipe.yaml", "lineage.json", "versions.json", "metrics.jsonl"
DONE, RECIPE_PATH, LOCK, SEED = "DONE", "recipe_path", ".lock", "seed_"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # some network disks have none
ANSWERS, RESULTS, HELD_OUT = "answers.jsonl", "eval.json", "held_out.jsonl"  # of stage eval, and of a training
MADE = (DONE, METRICS, "samples.jsonl", ANSWERS, RESULTS)  # and checkpoints: what a run makes
SCORER, SHOTS = "scorer ", "examples "  # inputs that the ways of answers tell by themselves
# what of a finished run others read, and is therefore whole before DONE is written
KEPT = ("*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer.json", "*.jsonl")
ANEW = "choose another output_dir or remove the folder"


class RunDirError(UserError):
    """The folder cannot be used for this recipe; the message says what to do."""

    code = "other_folder"


@dataclass(frozen=True)
class RunDir:
    """An opened run folder: whether its stage is done, and the last complete checkpoint, if there is one."""

    path: Path
    done: bool
    checkpoint: Path | None


def open_run(path: Path, recipe: dict[str, Any], inputs: dict[str, str], recipe_path: Path | None = None) -> RunDir:
    """Open a run's folder for a resolved recipe: new, to be continued, or done.

    Args:
        path: the recipe's `output_dir`.
        recipe: the resolved recipe.
        inputs: `{what: fingerprint}` of model, data and rewards; others than before are a `RunDirError`, but for those
            with which an evaluation goes on, see `other_inputs`.
        recipe_path: the recipe's file, noted for `written_recipe`; it is no part of what identifies a run.
    """
    refuse_other_recipe(path, recipe)
    new = not has_begun(path)
    known = inputs if new else _read(path / LINEAGE, json.loads).get("inputs")
    if not isinstance(known, dict):
        raise _damaged(path / LINEAGE)
    if changed := other_inputs(known, inputs):
        raise RunDirError(f"found {path}, made from other inputs ({changed}); {ANEW}")
    done = not new and known == inputs and is_done(path, recipe)
    if not done:  # what is no part of a run may have changed, or what is chosen of its completions
        path.mkdir(parents=True, exist_ok=True)
        (path / DONE).unlink(missing_ok=True)
        write_whole(path / RECIPE, yaml.safe_dump(without_secrets(recipe), sort_keys=False, allow_unicode=True))
        if new:
            write_whole(path / VERSIONS, json.dumps(versions(), indent=1))
        write_whole(path / LINEAGE, json.dumps({"recipe": recipe_hash(recipe), "inputs": inputs}, indent=1))
    if recipe_path is not None and written_recipe(path) != recipe_path.absolute():  # it may have been moved
        write_whole(path / RECIPE_PATH, str(recipe_path.absolute()) + "\n")
    return RunDir(path, done, last_checkpoint(path))


def refuse_other_recipe(path: Path, recipe: dict[str, Any]) -> None:
    """Refuse, with a `RunDirError`, a folder of a different recipe, of files of no run, or with damaged files."""
    if not has_begun(path):
        if path.is_dir() and not (path / RECIPE).is_file() and any(f.name[0] != "." for f in path.iterdir()):
            held = "runs of --seeds" if seed_runs(path) else "files but no run"
            raise RunDirError(f"found {path}, which holds {held}; use an empty or new folder")
        return
    if not is_run(path):
        raise _damaged(path / LINEAGE)
    if problem := damage(path, str(path)):
        raise RunDirError(problem)
    before = _written(path)
    if changed := refused_change(before, recipe):
        raise RunDirError(f"found {path}, made by a different recipe ({changed}); {ANEW}")
    longer = difference(identity(before), identity(recipe)) if recipe.get("stage") in TRAINED else ""
    if longer and (path / DONE).is_file() and last_checkpoint(path) is None:
        raise RunDirError(f"found {path}, done, without a checkpoint to go on from ({longer}); {ANEW}")


def other_inputs(before: dict[str, str], now: dict[str, str]) -> str:
    """Name the inputs that make a folder another run's, or nothing.

    An evaluation keeps its answers by model, way and problem: it goes on with more models, as a pattern of checkpoints
    finds them, and with another scorer or other examples, of which the ways tell.
    """
    free = {what for what in {**before, **now} if what.startswith((SCORER, SHOTS))}
    free |= {what for what in now if what.startswith("model ") and what not in before}
    return difference(*({what: one for what, one in of.items() if what not in free} for of in (before, now)))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run's folder until this process dies, however it dies; no child of it holds on.

    Another holder is a `RunDirError`. The file stays behind and means nothing; it names the last holder's process.
    """
    from filelock import FileLock, Timeout

    path.mkdir(parents=True, exist_ok=True)
    file = path / LOCK
    lock = FileLock(file, timeout=0, fallback_to_soft=False)  # a soft one outlives who is killed
    try:
        lock.acquire()
        file.write_text(f"{os.getpid()}\n")
    except Timeout as error:
        problem = f"found {path}, which process {file.read_text().strip() or 'unknown'} is writing to"
        raise RunDirError(f"{problem}; wait for it, stop it, or choose another output_dir") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"warning: {path} cannot be locked ({error}); see that no other run writes there", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()


def is_run(path: Path) -> bool:
    """Tell whether a folder is a run's."""
    return os.path.isfile(path / LINEAGE)  # False for what is no name of a file, such as a long prompt


def seed_folder(path: Path, seed: int) -> Path:
    """Return where `--seeds` puts one seed's run of a recipe with that output_dir."""
    return path / f"{SEED}{seed}"


def seed_of(run: Path) -> int | None:
    """Return the seed of such a run's folder; None of any other folder."""
    number = run.name.removeprefix(SEED)
    return int(number) if run.name.startswith(SEED) and number.isdecimal() else None


def seed_runs(path: Path) -> dict[int, Path]:
    """Return the runs that `--seeds` made in an output_dir, `{seed: folder}` in order; none in any other folder."""
    runs = [] if is_run(path) else [run for run in path.glob(f"{SEED}*") if is_run(run)]
    return dict(sorted((seed, run) for run in runs if (seed := seed_of(run)) is not None))


def has_begun(path: Path) -> bool:
    """Tell whether a run has made anything yet; one that was refused before that may be given another recipe."""
    return any((path / name).is_file() for name in MADE) or any(path.glob("checkpoint-*"))


def is_done(path: Path, recipe: dict[str, Any]) -> bool:
    """Tell whether a folder holds all that a recipe asks for, which is known not to be refused."""
    return is_run(path) and (path / DONE).is_file() and recipe_hash(_written(path)) == recipe_hash(recipe)


def other_choice(path: Path, recipe: dict[str, Any], inputs: dict[str, str] | None = None) -> str:
    """Say what a recipe, which is known not to be refused, asks for otherwise than the folder's, or nothing."""
    begun = is_run(path) and has_begun(path)
    changed = difference(identity(_written(path)), identity(recipe)) if begun else ""
    if recipe.get("stage") not in TRAINED:
        if begun and inputs is not None:
            changed = changed or difference(read_object(path / LINEAGE).get("inputs") or {}, inputs)
        return changed and f"with what was drawn, otherwise than before: {changed}"
    kind = recipe.get("lr_scheduler_type", "linear")
    same = kind == "constant" or (kind == "constant_with_warmup" and recipe.get("warmup_steps", 0) >= 1)
    followed = "" if same else f"; its steps so far followed the {kind} schedule of the shorter run"
    return changed and f"longer than before: {changed}{followed}"


def unfinished(path: Path, name: str) -> str:
    """Say that what a recipe names by that name is a run which is not done, or nothing."""
    if is_run(path) and not (path / DONE).is_file():
        return f"found {name}, a run that has not finished; run its recipe again, it will go on"
    return damage(path, name)


def damage(path: Path, name: str) -> str:
    """Say what of a finished run's files is lost or cut off, or nothing; configs may be edited. `name`: the user's.

    A folder of seeds, where one run is meant, is told by the name of its first.
    """
    if runs := seed_runs(path):
        return f"found {name}, which holds {len(runs)} seeds, allowed: one of them, {name}/{min(runs.values()).name}"
    if not (path / DONE).is_file():
        return ""
    try:
        files = dict(json.loads((path / DONE).read_bytes()).get("files", {}))
    except (ValueError, TypeError, AttributeError):
        return f"found {name}, whose {DONE} is damaged; remove that file and run its recipe again"
    edited = {file for file in files if file.endswith("config.json") and (path / file).is_file()}
    whole = {file for file in edited if (path / file).stat().st_size}
    problem = changed(path, {file: size for file, size in files.items() if file not in whole})
    return problem and f"found {name}, done, but its {problem}; put it back, or remove {DONE} and run its recipe again"


def written_recipe(path: Path) -> Path | None:
    """Return the recipe's file as a run noted it; it may be gone by now. None where the run noted none."""
    note = path / RECIPE_PATH
    return Path(note.read_text(encoding="utf-8").removesuffix("\n")) if note.is_file() else None


def _written(path: Path) -> dict[str, Any]:
    return _read(path / RECIPE, yaml.safe_load)


def _read(file: Path, load: Callable[[bytes], Any]) -> dict[str, Any]:
    try:
        found = load(file.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _damaged(file) from error
    if not isinstance(found, dict):
        raise _damaged(file)
    return found


def _damaged(file: Path) -> RunDirError:
    return RunDirError(f"found {file}, which is damaged; put it back, {ANEW}")


def finish(path: Path, seconds: float) -> None:
    """Mark a run as done; the last file of a stage. What it leaves is on the disk by then, and its sizes are noted."""
    files = sorted({file for pattern in KEPT for file in path.glob(pattern) if file.name != METRICS})
    os.sync()
    done = {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": round(seconds, 1)}
    write_whole(path / DONE, json.dumps(done | {"files": {file.name: file.stat().st_size for file in files}}))


def fingerprint(source: str) -> str:
    """Identify an input: a run by its lineage, a file by its content, a folder by its files, a hub name by itself."""
    path = Path(source)
    if is_run(path):
        return "run:" + text_hash((path / LINEAGE).read_text())
    if path.is_file():
        with path.open("rb") as file:
            return f"file:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    if path.is_dir():
        inside = sorted(f.relative_to(path) for f in path.rglob("*") if f.is_file())
        files = [f for f in inside if "__pycache__" not in f.parts and not in_index(f)]
        listing = [(str(f), fast_hash(path / f)) for f in files]
        return "files:" + text_hash(json.dumps(listing))
    return "name:" + source


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
