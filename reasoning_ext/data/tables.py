"""Rows of JSON and CSV files as they stand there: no text becomes a date, a number or nothing, and every fault has its line.

`datasets` and pyarrow guess types from texts (`2024-01-02`, `007`, `NA`) and round what their types do not hold; here a text
stays a text, as `value_kinds` tells. All of a CSV is text, and an empty field is None.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.value_kinds import Kind, WrittenFloat, as_text

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
COMPRESSED = (".gz", ".zst", ".bz2")  # JSON, CSV and TSV alone
ALLOWED = f"{', '.join(SUFFIXES)}, all but the last also with {', '.join(COMPRESSED)}"
DEPTH = 64  # of objects and lists in each other; those who read the rows recurse
CONSTANTS = {"Infinity": math.inf, "-Infinity": -math.inf}  # and NaN, with which some writers say that there is nothing
FIRST = 200  # rows of a stream that tell its columns
_LINES = "allowed: one JSON object a line, or a file that is one list of objects"
_OTHER = {
    b"PK\x03\x04": "a zip file", b"\x1f\x8b": "gzip without .gz", b"PAR1": "parquet", b"\x28\xb5\x2f\xfd": "zstd without .zst",
    b"BZh": "bzip2 without .bz2", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


class _Fault(ValueError):
    """What is wrong with a line of a file; `torn` where it may go on in the next one."""

    def __init__(self, line: int, problem: str, torn: bool = False):
        super().__init__(problem)
        self.line, self.torn = line, torn


def kind_of(path: Path) -> str | None:
    """Tell how a file is read by the end of its name: json, csv, tsv, parquet; None for what is no data file."""
    packed = path.suffix in COMPRESSED
    kind = SUFFIXES.get(Path(path.stem).suffix if packed else path.suffix)
    return None if packed and kind == "parquet" else kind


def stream_of(files: list[str]) -> Iterator[dict[str, Any]]:
    """Read the rows of files as they go, each with the columns of all that come first.

    Raises:
        DataError: as `table`; a later row has a column that those have not.
    """
    rows = _numbered(files)
    first = [*islice(rows, FIRST)]
    names = dict.fromkeys(name for _, row in first for name in row)
    for place, row in chain(first, rows):
        if new := [name for name in row if name not in names]:
            problem = f"{place}: found the column {new[0]}, which the first {FIRST} rows do not have, allowed with"
            raise DataError("dataset_name", f"{problem} dataset_streaming: true: {', '.join(names)}")
        yield {name: row.get(name) for name in names}


def table(files: list[str]) -> Dataset:
    """Read JSON and CSV files as one data set, which lies in the cache of `datasets` and not in memory.

    Raises:
        DataError: a line is no row, there is none, or values of a column are of different kinds; with file and line.
    """
    import pyarrow as pa
    from datasets import Dataset, Features

    whole = Kind()
    for place, row in _numbered(files):
        whole.add(row, place)
    if not whole.fields:
        found = "a header and no rows" if kind_of(Path(files[0])) in ("csv", "tsv") else "no rows"
        raise DataError("dataset_name", f"{files[0]} has {found}")
    schema = pa.schema([(name, kind.arrow(name)) for name, kind in whole.fields.items()])
    stamps = tuple((Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files)
    arguments = {"files": files, "stamps": stamps, "schema": schema.serialize().to_pybytes()}
    return Dataset.from_generator(_as_they_are, features=Features.from_arrow_schema(schema), gen_kwargs=arguments)


def _as_they_are(files: list[str], stamps: Any, schema: bytes) -> Iterator[dict[str, Any]]:
    """Yield rows whose numbers are text where their columns are; `stamps` tell an edited file from one in a cache."""
    import pyarrow as pa

    kinds = {field.name: field.type for field in pa.ipc.read_schema(pa.py_buffer(schema))}
    for _, row in _numbered(files):
        yield {name: as_text(value, kinds[name]) for name, value in row.items()}


def _numbered(files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read rows with their places, `file:line`."""
    import pyarrow as pa

    for file in files:
        kind = kind_of(Path(file))
        number: int | str = 0
        try:
            with io.BufferedReader(pa.input_stream(file)) as opened:
                begin = opened.peek(4)[:4]
                if other := next((what for mark, what in _OTHER.items() if begin.startswith(mark)), None):
                    allowed = "UTF-8" if other == "UTF-16" else ALLOWED
                    raise _Fault(1, f"found {other}, allowed: {allowed}")
                rows = _json(opened) if kind == "json" else _csv(opened, "\t" if kind == "tsv" else ",")
                for number, row in rows:
                    yield f"{file}:{number}", row
        except _Fault as fault:
            raise DataError("dataset_name", f"{file}:{fault.line}: {fault}") from fault
        except (OSError, EOFError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError("dataset_name", f"{file}: cannot be read after line {number}: {reason}") from error


def _json(opened: BinaryIO) -> Iterator[tuple[int | str, dict[str, Any]]]:
    """Read the objects of a JSON file: one a line, a list of them, or a single one over several lines."""
    first, held = True, None
    for line, raw in enumerate(opened, 1):
        raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
        if not raw.strip():
            continue
        try:
            value = _parsed(raw, line)
        except _Fault as fault:
            if not (first and fault.torn):
                raise
            value = _parsed(raw + opened.read(), line)
        if first and isinstance(value, list) and not opened.read().strip():
            for number, row in enumerate(value):
                yield f"{line}: row {number}", _row(row, line, f"row {number} of the list: ")
        elif first and isinstance(value, dict) and (name := _holder(value)):
            held = line, value, name  # a row, if others follow
        else:
            if held:
                yield held[0], _row(held[1], held[0])
            yield line, _row(value, line)
            held = None
        first = False
    if held:
        raise _Fault(held[0], f"found an object that holds the rows as {held[2]}, {_LINES}")


def _holder(value: dict[str, Any]) -> str | None:
    """Return the key under which an object holds a whole data set, if it does."""
    for name, part in value.items():
        rows = part if isinstance(part, list) and (name == "data" or len(value) == 1) else []
        if rows and all(isinstance(row, dict) and not {"role", "from"} & row.keys() for row in rows):
            return name
    return None


def _parsed(raw: bytes, line: int) -> Any:
    """Read JSON that begins in a line.

    Raises:
        _Fault: it is none, or holds what no row can.
    """
    try:
        text = raw.decode()
        value = json.loads(text, parse_float=WrittenFloat, parse_constant=CONSTANTS.get, object_pairs_hook=_object)
        if text.count("[") + text.count("{") > DEPTH and (depth := _depth(value)) > DEPTH:
            raise _Fault(line, f"found objects and lists {depth} deep in each other, allowed: {DEPTH}")
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _Fault(line + raw.count(b"\n", 0, error.start), _not_utf8(error)) from error
    except UnicodeEncodeError as error:
        problem = f"found {error.object[error.start]!a}, half of a character, allowed: whole ones"
        raise _Fault(line, problem) from error
    except RecursionError as error:
        raise _Fault(line, f"found objects and lists too deep in each other, allowed: {DEPTH}") from error
    except json.JSONDecodeError as error:
        begin = error.doc.split("\n")[error.lineno - 1].strip()
        problem = f"found {begin[:40]!r}, which is no JSON ({error.msg}, column {error.colno}), {_LINES}"
        raise _Fault(line + error.lineno - 1, problem, torn=error.pos >= len(error.doc.rstrip())) from error
    except _Fault:
        raise
    except ValueError as error:  # a number of thousands of digits, a key twice
        raise _Fault(line, f"found {error}, {_LINES}") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of an object's keys and values.

    Raises:
        ValueError: a key stands there twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return made


def _depth(value: Any) -> int:
    """Count how deep objects and lists lie in each other."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return depth


def _row(value: Any, line: int, where: str = "") -> dict[str, Any]:
    """Return a row, which is an object with keys.

    Raises:
        _Fault: it is something else.
    """
    if not isinstance(value, dict):
        raise _Fault(line, f"{where}found {json.dumps(value):.40}, {_LINES}")
    if not value:
        raise _Fault(line, f"{where}found an object without keys, {_LINES}")
    return value


def _csv(opened: BinaryIO, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the rows of a CSV file, each with its first line; an empty field is None."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(_lines(opened), delimiter=delimiter, strict=True)
    names: list[str] = []
    line = 1
    try:
        for fields in reader:
            if not names:
                names = [name or f"Unnamed: {i}" for i, name in enumerate(fields)]
                if twice := next((name for name in names if names.count(name) > 1), None):
                    raise _Fault(line, f"found the column {twice} twice, allowed: once")
            elif fields:
                if len(fields) != len(names):
                    raise _Fault(line, f"found {len(fields)} fields, allowed: {len(names)}, as in the header")
                yield line, {name: field or None for name, field in zip(names, fields, strict=True)}
            line = reader.line_num + 1
    except csv.Error as error:
        raise _Fault(
            line, f"found a row that is no CSV ({error}), allowed: lines that end with a line feed, and pairs of quotes"
        ) from error


def _lines(opened: BinaryIO) -> Iterator[str]:
    """Read a file's lines as text."""
    for line, raw in enumerate(opened, 1):
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _Fault(line, _not_utf8(error)) from error
        if "\0" in text:
            raise _Fault(line, "found a NUL character, allowed: text")
        yield text


def _not_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"found the byte {byte:#04x}, which is no UTF-8, allowed: UTF-8 (iconv -f latin1 -t utf-8 converts Latin-1)"
