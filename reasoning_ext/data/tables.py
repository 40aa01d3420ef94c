"""Rows of JSON and CSV files as they stand there: no text becomes a date or a number, and every fault has its line.

`datasets` and pyarrow guess types from texts (`2024-01-02`, `007`, `NA`). Here a text stays a text, and so do numbers
of `answer`, or of a column with texts or numbers beyond 64 bits. All of a CSV is text, and an empty field is None.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reasoning_ext.data.calls import held
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import OddColumn, features_of
from reasoning_ext.errors import one_line

if TYPE_CHECKING:
    from datasets import Dataset

TEXTS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv"}
COMPRESSED = (".gz", ".zst", ".bz2")
ALLOWED = f"{', '.join(TEXTS)}, also with {', '.join(COMPRESSED)}; .parquet"
DEPTH = 64  # of objects and lists in each other; those who read the rows recurse
_LINES = "allowed: one JSON object a line, or a file that is one list of objects"


class _Fault(ValueError):
    """What is wrong with a line of a file; `torn` where it may go on in the next one."""

    def __init__(self, line: int, problem: str, torn: bool = False):
        super().__init__(problem)
        self.line, self.torn = line, torn


def kind_of(path: Path) -> str | None:
    """Tell how a file is read by the end of its name: json, csv, tsv, parquet; None for what is no data file."""
    if path.suffix == ".parquet":
        return "parquet"
    return TEXTS.get(Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix)


def table(files: list[str]) -> Dataset:
    """Read JSON and CSV files as one data set, which lies in the cache of `datasets` and not in memory.

    Raises:
        DataError: a line is no row, there is none, or values of a column are of different kinds; with file and line.
    """
    from datasets import Dataset

    texts: tuple[str, ...] = ("answer",)  # columns whose numbers are read as they are written
    features, seen = None, [f"{files[0]}:1"]

    def rows() -> Iterator[dict[str, Any]]:
        for seen[0], row in _numbered(files, texts):
            yield row

    while features is None:
        try:
            features = features_of(rows())
        except OddColumn as error:
            if error.column in texts:
                found = f"{seen[0]}: here or shortly before, values of other kinds than in earlier rows in the column {error}"
                raise DataError("dataset_name", found, hint="write all as text, or leave the column out") from error
            texts = (*texts, error.column)  # texts beside numbers, or a number that 64 bits do not hold
    if not features:
        raise DataError("dataset_name", f"{files[0]} is empty: there are no rows")
    stamps = tuple((Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files)
    return Dataset.from_generator(
        _rows, features=features, gen_kwargs={"files": files, "stamps": stamps, "texts": texts}
    )


def _rows(files: list[str], stamps: Any, texts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield rows; `stamps` tell an edited file from one in a cache."""
    return (row for _, row in _numbered(files, texts))


def _numbered(files: list[str], texts: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read rows with their places, `file:line`."""
    import pyarrow as pa

    for file in files:
        number: int | str = 0
        try:
            with io.BufferedReader(pa.input_stream(file)) as opened:
                kind = kind_of(Path(file))
                for number, row in _json(opened, texts) if kind == "json" else _csv(opened, kind == "tsv"):
                    yield f"{file}:{number}", row
        except _Fault as fault:
            raise DataError("dataset_name", f"{file}:{fault.line}: {fault}") from fault
        except (OSError, EOFError, pa.ArrowException) as error:
            raise DataError("dataset_name", f"{file}: cannot be read after line {number}: {one_line(error)}") from error


def _json(opened: BinaryIO, texts: tuple[str, ...]) -> Iterator[tuple[int | str, dict[str, Any]]]:
    """Read the objects of a JSON file: one a line, a list of them, or a single one over several lines."""
    first = True
    for line, raw in enumerate(opened, 1):
        raw = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
        if not raw.strip():
            continue
        try:
            value = _parsed(raw, line, texts)
        except _Fault as fault:
            if not (first and fault.torn):
                raise
            value = _parsed(raw + opened.read(), line, texts)
        rows = enumerate(value) if first and isinstance(value, list) else [(None, value)]
        for number, row in rows:
            if not isinstance(row, dict) or not row:
                raise _Fault(line, f"found {json.dumps(row):.40}, {_LINES}")
            yield line if number is None else f"{line}: row {number}", row
        first = False


def _parsed(raw: bytes, line: int, texts: tuple[str, ...]) -> Any:
    """Read JSON that begins in a line.

    Raises:
        _Fault: it is none, or holds what no row can.
    """
    try:
        text = raw.decode()
        value = json.loads(text, object_pairs_hook=_object)
        if text.count("[") + text.count("{") > DEPTH:
            _check_depth(value, 0)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
        if '"arguments"' in text or '"tools"' in text:
            value = held(value)
        if _has_numbers(value, texts):
            written = json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda name: None)
            _write_numbers(value, written, texts)
    except UnicodeDecodeError as error:
        raise _Fault(line + raw.count(b"\n", 0, error.start), _not_utf8(error)) from error
    except UnicodeEncodeError as error:
        raise _Fault(line, f"found {error.object[error.start]!a}, half of a character, allowed: whole ones") from error
    except RecursionError as error:
        raise _Fault(line, f"found objects and lists too deep in each other, allowed: {DEPTH}") from error
    except json.JSONDecodeError as error:
        begin = error.doc.split("\n")[error.lineno - 1].strip()
        problem = f"found {begin[:40]!r}, which is no JSON ({error.msg}, column {error.colno}), {_LINES}"
        raise _Fault(line + error.lineno - 1, problem, torn=error.pos >= len(error.doc.rstrip())) from error
    except ValueError as error:  # a number of thousands of digits, a key twice
        raise _Fault(line, f"found {error}, {_LINES}") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of an object's keys and values, none of which may stand there twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return made


def _has_numbers(value: Any, texts: tuple[str, ...]) -> bool:
    """Tell whether some columns of JSON hold anything that numbers are in; what is all text is not read once more."""
    rows = [row for row in (value if isinstance(value, list) else [value]) if isinstance(row, dict)]
    return any(not isinstance(row.get(name), str | dict | None) for row in rows for name in texts)


def _write_numbers(value: Any, written: Any, texts: tuple[str, ...]) -> None:
    """Take over some columns of JSON in which all numbers are text, but for what holds fields."""
    for row, other in zip(*(one if isinstance(one, list) else [one] for one in (value, written)), strict=True):
        for name in texts if isinstance(row, dict) else ():
            if not isinstance(row.get(name, {}), dict):
                row[name] = other[name]


def _check_depth(value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise RecursionError
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, depth + 1)


def _csv(opened: BinaryIO, tabs: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the rows of a CSV file, each with its first line; an empty field is None.

    What parts the header in most fields is the delimiter: semicolons where 3,5 is a number, or tabs or bars.
    """
    csv.field_size_limit(sys.maxsize)
    lines, line, names = _lines(opened), 1, []
    try:
        head = next(lines, "")
        parts = {mark: len(next(csv.reader([head], delimiter=mark), [])) for mark in ("\t" if tabs else ",;\t|")}
        delimiter = max(parts, key=lambda mark: parts[mark])  # of equally many the first
        reader = csv.reader(itertools.chain([head] if head else [], lines), delimiter=delimiter, strict=True)
        names = [name or f"Unnamed: {i}" for i, name in enumerate(next(reader, []))]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise _Fault(line, f"found the column {twice} twice, allowed: once")
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(names):
                raise _Fault(line, f"found {len(fields)} fields, allowed: {len(names)}, as in the header")
            if fields:
                yield line, {name: field or None for name, field in zip(names, fields, strict=True)}
            line = reader.line_num + 1
    except csv.Error as error:
        allowed = "allowed: lines that end with a line feed, and pairs of quotes"
        raise _Fault(line, f"found a row that is no CSV ({error}), {allowed}") from error


def _lines(opened: BinaryIO) -> Iterator[str]:
    """Read a file's lines as text."""
    for line, raw in enumerate(opened, 1):
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _Fault(line, _not_utf8(error)) from error
        if "\0" in text:  # csv reads it like a letter
            raise _Fault(line, "found the byte 0x00, which is no text, allowed: UTF-8")
        yield text


def _not_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "found UTF-16, allowed: UTF-8 (iconv -f utf-16 -t utf-8 converts it)"
    return f"found the byte {byte:#04x}, which is no UTF-8, allowed: UTF-8 (iconv -f latin1 -t utf-8 converts Latin-1)"
