"""A run's checkpoints: which are whole, which is gone on from, and which are removed when there are too many.

A checkpoint counts once its COMPLETE is written, after all processes have written their part and the disk has it. COMPLETE
names every file with its size and hash, so that a later damage is found before anything is loaded.
"""

import json
import os
import shutil
from pathlib import Path

from reasoning_ext.runs.files import changed, fast_hash, read_object, write_whole

COMPLETE = "COMPLETE"
ASIDE = "damaged-"  # put before the name of a checkpoint that does not fit its COMPLETE


def step_of(checkpoint: Path) -> int:
    """Return the step of a folder `checkpoint-STEP`."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def checkpoints(path: Path) -> list[Path]:
    """List the checkpoints of a run, whole or not, by their steps; the clock may have been wrong."""
    return sorted((c for c in path.glob("checkpoint-*") if c.is_dir() and c.name[11:].isdigit()), key=step_of)


def last_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint with the highest step that was written to its end, or None; its content is not read."""
    return next((c for c in reversed(checkpoints(path)) if (c / COMPLETE).is_file()), None)


def mark_complete(checkpoint: Path) -> None:
    """Write COMPLETE over a checkpoint that has been written."""
    os.sync()
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != COMPLETE)
    listed = {str(file.relative_to(checkpoint)): [file.stat().st_size, fast_hash(file)] for file in files}
    write_whole(checkpoint / COMPLETE, json.dumps({"files": listed}))


def settle(path: Path) -> list[str]:
    """Leave a run none but whole checkpoints: what a kill left half written goes, what is damaged is put aside.

    Only the last checkpoints are read, until one is whole. Returns a line for each that was put aside.
    """
    for left in path.glob(".tmp*"):  # of a model that was being saved; safetensors writes so
        if left.is_file():
            left.unlink()
    told = []
    for checkpoint in reversed(checkpoints(path)):
        if not (checkpoint / COMPLETE).is_file():
            shutil.rmtree(checkpoint, ignore_errors=True)
            continue
        files = read_object(checkpoint / COMPLETE).get("files")
        problem = changed(checkpoint, files) if isinstance(files, dict) else f"{COMPLETE} cannot be read"
        if not problem:
            break
        aside = checkpoint.with_name(ASIDE + checkpoint.name)
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
        told.append(f"{checkpoint} is damaged ({problem}); put aside as {aside.name}")
    return told


def rotate(path: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints, so that `limit` are left; the last one and the best one stay."""
    found = checkpoints(path)
    others = [checkpoint for checkpoint in found[:-1] if checkpoint.name != Path(best or "").name]
    for checkpoint in others[: max(len(found) - limit, 0) if limit else 0]:
        (checkpoint / COMPLETE).unlink(missing_ok=True)  # first, so that a kill leaves nothing that looks whole
        shutil.rmtree(checkpoint, ignore_errors=True)
