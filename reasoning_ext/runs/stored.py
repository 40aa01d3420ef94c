"""The samples that a run has stored, or some of them, evenly chosen, where it has millions: in bounded time and memory.

A long file of lines is read in windows at even distances. The lines that begin in a window are taken, so that long ones are no
likelier to be chosen than short ones, and what a file of 100 GB costs is what its windows cost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from reasoning_ext.runs.values import is_number

Rows = list[dict[str, Any]]
Item = TypeVar("Item")
WINDOWS = 1_000  # places in a file that are read, or tables
LOOK = 2**16  # bytes at each place in which the lines of a longer file are counted
MOST_BYTES = 2**28  # that are read of a store
LONGEST_LINE = 2**24
MOST_LINES = 200_000  # that are read of any file but samples


class Stored(NamedTuple):
    """What was read of a store: `of` is how many samples it has, reckoned from a part of it where not `counted`."""

    rows: Rows
    of: int
    counted: bool = True
    problems: tuple[str, ...] = ()


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Choose at most so many, at even distances, the last among them.

    >>> evenly("abcdefgh", 3)
    ['b', 'e', 'h']
    """
    count = min(most, len(items))
    return [items[(i + 1) * len(items) // count - 1] for i in range(count)]


def read_lines(path: Path, most: int) -> Stored:
    """Read at most so many lines, each an object; a crash leaves a torn last one."""
    rows: Rows = []
    size = path.stat().st_size if path.is_file() else 0
    if not size:
        return Stored(rows, 0)
    damaged, ends = 0, [size * i // WINDOWS for i in range(WINDOWS + 1)]
    places = [(begin, end) for begin, end in pairwise(ends) if begin < end]
    with path.open("rb") as file:
        count = most if size <= WINDOWS * LOOK else _reckoned(file, places)
        share = min(1.0, most / count, MOST_BYTES / size)
        for begin, end in places:
            for line in _begun(file, begin, begin + math.ceil((end - begin) * share)):
                row = _object(line)
                rows += [row] if row is not None else []
                damaged += row is None
    said = (f"{path.name} has {damaged} damaged line{'s' * (damaged > 1)}",) if damaged else ()
    return Stored(evenly(rows, most), len(rows) if share == 1 else count, share == 1, said)


def _reckoned(file: BufferedReader, places: list[tuple[int, int]]) -> int:
    """Reckon how many lines a file has from those that end near the beginning of each place."""
    ends = 0
    for begin, _ in places:
        file.seek(begin)
        ends += file.read(LOOK).count(b"\n")
    return max(1, round(ends * places[-1][1] / (len(places) * LOOK)))


def _begun(file: BufferedReader, begin: int, end: int) -> Iterator[bytes]:
    """Yield the lines that begin from one place on before another one; what is left of the line before is passed over."""
    file.seek(max(begin - 1, 0))
    if begin and not file.readline(end - begin + 1).endswith(b"\n"):
        return
    while file.tell() < end and (line := file.readline(LONGEST_LINE)):
        yield line
        if not line.endswith(b"\n"):  # longer than anything that a model writes, or the last one
            return


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_tables(folder: Path, most: int, columns: Sequence[str]) -> Stored:
    """Read at most so many rows of the tables that TRL writes into `completions/`, whole tables, with columns of these.

    The last table is among them.
    """
    tables = sorted(folder.glob("*.parquet"), key=lambda table: (len(table.name), table.name))
    if not tables:
        return Stored([], 0)
    import pyarrow
    import pyarrow.parquet

    rows: Rows = []
    damaged, seen = list[str](), list[tuple[Path, int, int]]()
    for table in evenly(tables, WINDOWS):
        try:
            about = pyarrow.parquet.read_metadata(table)
            seen.append(
                (table, about.num_rows, sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)))
            )
        except (OSError, pyarrow.ArrowException):
            damaged.append(table.name)
    count, size = sum(number for _, number, _ in seen), sum(bytes_ for *_, bytes_ in seen)
    chosen = evenly(seen, max(1, int(len(seen) * min(1.0, most / max(count, 1), MOST_BYTES / max(size, 1)))))
    each = most if count <= most else most // len(chosen)
    for table, *_ in chosen:
        try:
            rows += _rows(table, each, columns)
        except (OSError, pyarrow.ArrowException):
            damaged.append(table.name)
    more = f" and {len(damaged) - 3} more" * (len(damaged) > 3)
    said = (f"{folder.name}/{', '.join(damaged[:3])}{more} cannot be read",) if damaged else ()
    looked = min(WINDOWS, len(tables))
    return Stored(rows, round(count * len(tables) / looked), looked == len(tables), said)


def _rows(table: Path, most: int, columns: Sequence[str]) -> Rows:
    import pyarrow.parquet

    rows: Rows = []
    with pyarrow.parquet.ParquetFile(table) as file:
        there = [name for name in file.schema_arrow.names if name in columns]
        for batch in file.iter_batches(batch_size=256, columns=there):
            rows += batch.to_pylist()
            if len(rows) >= most:
                break
    return rows[:most]


def readable(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what can be read of the measurements in `held_out.jsonl`, one a step, in the order of their steps."""
    found = {}
    for row in rows:
        right, figures = row.get("right"), row.get("figures")
        if is_number(row.get("step")) and isinstance(right, dict) and isinstance(right.get("greedy"), list):
            known = {
                name: [one if _is_share(one) else None for one in of]
                for name, of in right.items()
                if isinstance(of, list)
            }
            found[row["step"]] = row | {"right": known, "figures": figures if isinstance(figures, dict) else {}}
    return [found[step] for step in sorted(found)]


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1
