"""A run's folder: what was asked for, what it was made of, how far it came, and whether it is done.

    recipe.yaml     the resolved recipe            metrics.jsonl   one line a logging step
    versions.json   packages, Python, device       completions/    the completions, as TRL writes them
    lineage.json    hashes of recipe and inputs    checkpoint-*    each with COMPLETE, written last
    DONE            written last of all            the model, or samples and tables
    recipe_path     where the recipe's file lies, for what it names with ./

Every file is written whole or not at all. A folder belongs to one recipe: another recipe with the same `output_dir` is
refused, the same one goes on from its last complete checkpoint, or is skipped when it is done.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import yaml

from reasoning_ext.errors import UserError

RECIPE, LINEAGE, VERSIONS, METRICS, DONE, COMPLETE, RECIPE_PATH = (
    "recipe.yaml", "lineage.json", "versions.json", "metrics.jsonl", "DONE", "COMPLETE", "recipe_path",
)  # fmt: skip
PACKAGES = (
    "reasoning-ext", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "math-verify",
    "unsloth", "vllm",
)  # fmt: skip
TAIL = 2**16  # bytes read at once from a file's end
NOT_PART_OF_A_RUN = {"output_dir", "report_to", "run_name", "disable_tqdm", "log_level", "per_device_eval_batch_size"}
# options of engines that decide how fast and from where completions come, and not which; see `engines.options`
TRANSPORT = {
    "base_url", "max_concurrency", "max_retries", "request_timeout", "give_up_seconds", "api_key_env", "num_workers",
    "num_gpus", "num_cpus", "batch_size", "address", "max_num_seqs", "enforce_eager",
}  # fmt: skip


class RunDirError(UserError):
    """The folder cannot be used for this recipe; the message says what to do."""


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
        write_whole(path / RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        write_whole(path / VERSIONS, json.dumps(versions(), indent=1))
        write_whole(path / LINEAGE, json.dumps(lineage, indent=1))
        _note(path, recipe_path)
        return RunDir(path, False, None)
    changed = _difference(json.loads((path / LINEAGE).read_text())["inputs"], inputs)
    if changed:
        raise RunDirError(
            f"found {path}, made from other inputs ({changed}); choose another output_dir or remove the folder to make it again"
        )
    _note(path, recipe_path)  # it may have been moved
    if not (path / DONE).is_file():  # what is no part of a run may have changed
        write_whole(path / RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return RunDir(path, (path / DONE).is_file(), last_checkpoint(path))


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
        RunDirError: it does; the message names the keys that differ.
    """
    if not is_run(path):
        if path.is_dir() and not (path / RECIPE).is_file() and any(f.name[0] != "." for f in path.iterdir()):
            raise RunDirError(f"found {path}, which holds files but no run; use an empty or new folder")
        return
    if not has_begun(path):
        return
    if json.loads((path / LINEAGE).read_text())["recipe"] != _recipe_hash(recipe):
        changed = _difference(yaml.safe_load((path / RECIPE).read_text()) or {}, recipe)
        raise RunDirError(
            f"found {path}, made by a different recipe ({changed}); choose another output_dir or remove the folder"
        )


def finish(path: Path, seconds: float) -> None:
    """Mark a run as done; the last file that a stage writes."""
    write_whole(
        path / DONE, json.dumps({"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": round(seconds, 1)})
    )


def last_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint with the highest step that was written to its end, or None."""
    found = [c for c in path.glob("checkpoint-*") if (c / COMPLETE).is_file() and c.name[11:].isdigit()]
    return max(found, key=lambda c: int(c.name[11:]), default=None)


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
        listing = [(str(f.relative_to(path)), f.stat().st_size, _small_hash(f)) for f in files]
        return "folder:" + _hash(json.dumps(listing))
    return "name:" + source


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part, of Python and of the system."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version(), "platform": platform.platform()}


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one: temporary file, fsync, rename.

    Raises:
        RunDirError: the disk is full.
    """
    with whole_file(path) as file:
        file.write(text)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """Open a file to be written piece by piece, which gets its name when all of it is on the disk.

    Raises:
        RunDirError: the disk is full; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # of processes that were killed
        if left.suffix[1:].isdigit() and not lives(int(left.suffix[1:])):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", errors="replace") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def append_lines(path: Path, rows: list[dict[str, Any]]) -> list[int]:
    """Append rows to a JSONL file in one write and one fsync; a torn last line from a crash is cut off first.

    Returns:
        how many bytes each row takes, its newline included.

    Raises:
        RunDirError: the disk is full; none of the rows is left in the file then.
    """
    mend(path)
    lines = [json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows]
    text = b"".join(lines)
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                written = 0
                while written < len(text):  # a disk that fills up takes a part
                    written += file.write(text[written:])
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise _disk_error(path, error) from error
    return [len(line) for line in lines]


def _disk_error(path: Path, error: OSError) -> Exception:
    """Say in one line that the disk is full; any other error stays what it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    free = shutil.disk_usage(path.parent).free
    problem = f"found no space left for {path} ({_size(free)} free)"
    return RunDirError(f"{problem}; what was written before is kept: free some space and run the same command again")


def lives(process: int) -> bool:
    """Tell whether a process of this number is there."""
    with contextlib.suppress(PermissionError):  # somebody else's, but there
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def mend(path: Path) -> None:
    """Cut a torn last line off a JSONL file, reading its end alone."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - TAIL)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < path.stat().st_size:
            file.truncate(end)


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


def check_space(path: Path, needed: int) -> None:
    """Refuse to start where the disk cannot hold what will be written.

    Raises:
        RunDirError: fewer than `needed` bytes are free where the folder lies.
    """
    existing = next(p for p in [path, *path.resolve().parents] if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise RunDirError(f"found {_size(free)} free for {path}, needed: {_size(needed)}; free some space")


def _size(count: int) -> str:
    """Write a number of bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 0.1 * 2**30 else f"{count / 2**20:.1f} MiB"


def _recipe_hash(recipe: dict[str, Any]) -> str:
    return _hash(json.dumps(_identity(recipe), sort_keys=True, default=str))


def _identity(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what of a recipe decides what a run makes: a run that is cut off may go on with the rest changed."""
    kept = {k: v for k, v in recipe.items() if k not in NOT_PART_OF_A_RUN}
    if isinstance(options := kept.get("engine_kwargs"), dict):
        kept["engine_kwargs"] = {k: v for k, v in _identity(options).items() if k not in TRANSPORT}
    return {k: v for k, v in kept.items() if k != "engine_kwargs" or v}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first keys whose values differ: `learning_rate 1e-05 -> 2e-05`."""
    before, now = _identity(before), _identity(now)
    keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
    shown = [f"{k} {before.get(k, 'not set')} -> {now.get(k, 'not set')}" for k in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _small_hash(file: Path) -> str:
    """Hash a small file by its content and a large one, weights say, by its head and size."""
    with file.open("rb") as f:
        return hashlib.sha256(f.read(2**20)).hexdigest()[:16]
