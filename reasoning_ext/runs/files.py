"""Files that a crash, a kill or a full disk leaves whole, and a look at the space that is left for them."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

from reasoning_ext.errors import UserError

_INDEX = re.compile(r".+\.index-[0-9a-f]{16}(\.lock|\.part)?")


class DiskError(UserError):
    """The disk has no room; the message says how much there is, and that nothing is lost."""

    code = "disk_full"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one; a full disk is a `DiskError`."""
    with whole_file(path) as file:
        file.write(text)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """Open a file to be written piece by piece, which gets its name when all of it is on the disk, or is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # of processes that were killed
        if left.suffix[1:].isdigit() and not _lives(int(left.suffix[1:])):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _full_disk(path):
            with temporary.open("w", encoding="utf-8", errors="replace") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to, which gets its name in the end, or is removed when anything goes wrong."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            file.chmod(part.stat().st_mode & (0o777 if file.is_dir() else 0o666))  # safetensors' are the owner's alone
        os.sync()
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def append_lines(path: Path, rows: list[dict[str, Any]]) -> list[int]:
    """Append rows to a JSONL file in one write and one fsync; a torn last line from a crash is cut off first.

    Returns:
        how many bytes each row takes, its newline included.

    Raises:
        DiskError: the disk is full; none of the rows is left in the file then.
    """
    mend(path)
    lines = [json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n" for row in rows]
    text = b"".join(lines)
    with _full_disk(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            written = 0
            while written < len(text):  # a disk that fills up takes a part
                written += file.write(text[written:])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise
    return [len(line) for line in lines]


def mend(path: Path) -> None:
    """Cut a torn last line off a JSONL file, reading its end alone."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            end = view.rfind(b"\n") + 1
        file.truncate(end)


def rows_until(path: Path, step: float, drop: bool = False) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file whose `step` is not beyond one, without what is torn or damaged.

    `drop` takes the others out of the file: steps that will be done again.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []
    kept = [(line, row) for line in lines if (row := _row_of_step(line)) is not None and row["step"] <= step]
    if drop and len(kept) < len(lines):
        write_whole(path, "".join(line for line, _ in kept))
    return [row for _, row in kept]


def _row_of_step(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int | float) and line.endswith("\n")
    return row if whole else None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; nothing where there is no such file, or it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def changed(folder: Path, files: dict[str, Any]) -> str:
    """Say which file of a folder is gone or not as it was written, or nothing.

    Args:
        folder: the folder.
        files: `{name: size}`, or `{name: [size, hash]}` with what `fast_hash` made of it.
    """
    for name, noted in files.items():
        size, digest = noted if isinstance(noted, list) and len(noted) == 2 else (noted, None)
        if not (file := folder / name).is_file():
            return f"{name} is missing"
        if (now := file.stat().st_size) != size:
            return f"{name} has {now} bytes and had {size}"
        if digest is not None and fast_hash(file) != digest:
            return f"{name} has another content than was written"
    return ""


def in_index(file: Path) -> bool:
    """Tell whether a file belongs to an index that the tool `search` keeps beside a corpus: `NAME.index-HASH/`, its lock."""
    return any(_INDEX.fullmatch(part) for part in file.parts)


def fast_hash(file: Path) -> str:
    """Hash a file whole, to tell damage, not attacks; once in a process, as long as size and time of change stay."""
    now = file.stat()
    return _hashed(file, now.st_size, now.st_mtime_ns)


@cache
def _hashed(file: Path, size: int, changed: int) -> str:
    import xxhash  # datasets brings it

    with file.open("rb") as content:
        return hashlib.file_digest(content, xxhash.xxh3_128).hexdigest()


def check_space(path: Path, needed: int) -> None:
    """Refuse, with a `DiskError`, to start where the disk that a folder lies on cannot hold so many bytes."""
    existing = next(p for p in [path, *path.resolve().parents] if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DiskError(f"found {_size(free)} free for {path}, needed: {_size(needed)}; free some space")


@contextlib.contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Say in one line that the disk is full; any other error stays what it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        problem = f"found no space left for {path} ({_size(shutil.disk_usage(path.parent).free)} free)"
        hint = "what was written before is kept: free some space and run the same command again"
        raise DiskError(f"{problem}; {hint}") from error


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 0.1 * 2**30 else f"{count / 2**20:.1f} MiB"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # somebody else's, but there
    return True
