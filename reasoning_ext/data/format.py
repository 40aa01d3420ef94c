"""Rows of a data set -> TRL's columns: one format function a row, of ours or of a user, and one type a column."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.calls import ARGUMENTS, TOOLS, each_answer, packed, read_tools, split_chat
from reasoning_ext.data.columns import SIDES, DataError, columns_of
from reasoning_ext.data.values import gold_text, read_chat
from reasoning_ext.errors import one_line
from reasoning_ext.recipe.plugins import Plugin, find_plugin, plugin_names
from reasoning_ext.recipe.user_code import where

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = "reasoning_ext.data.formats"
BATCH = 200
Convert = Callable[[dict[str, Any], int], list[dict[str, Any]]]  # a raw row and its number -> the rows that it becomes


class NoRowFits(DataError):
    """A format drops every row that it was given."""


def find_format(name: str | None, folder: Path) -> Plugin:
    """Find a format, a function of a row, by its spelling in a recipe; None is plain columns.

    Raises:
        LookupError: there is none of that name.
    """
    return find_plugin(name or "prompt_completion", [FORMATS], folder)


def format_names() -> list[str]:
    """List the formats that a recipe can name."""
    return plugin_names([FORMATS])


def format_rows(
    rows: Dataset,
    plugin: Plugin,
    system_prompt: str | None = None,
    rename: dict[str, str] | None = None,
    options: dict[str, Any] | None = None,
    turns: str = "last",
    dropped: list[int] | None = None,
) -> Dataset:
    """Bring raw rows into TRL's conversational prompt-completion columns.

    Args:
        rows: the raw rows.
        plugin: the format.
        system_prompt: put in front of every prompt that has no system message of its own.
        rename: `{column of the data set: name the format expects}`.
        options: keyword arguments for the format.
        turns: "last", or "all": every assistant message of a conversation becomes a row that is trained on.
        dropped: gets the numbers of the rows for which the format returned None.

    Raises:
        DataError: a row does not fit the format; the message names the row and the column.
    """
    columns, rename = columns_of(rows), rename or {}
    for old, new in rename.items():
        taken = list(rename.values()).count(new) > 1 or (new in columns and new not in rename)
        if old not in columns or not isinstance(new, str) or not new or taken:
            found = f"found {old}: {new!r}, but the data set has the columns {', '.join(columns)}"
            raise DataError("rename_columns", found, "one of these, and a name that no other column has")
    rows = rows.rename_columns(rename) if rename else rows
    columns = [rename.get(name, name) for name in columns]
    convert = _converter(
        plugin, system_prompt, options or {}, turns, getattr((rows.features or {}).get("answer"), "dtype", "")
    )
    raw = (
        dict(zip(batch, row, strict=True)) for batch in rows.iter(BATCH) for row in zip(*batch.values(), strict=True)
    )
    made, more = (row for i, one in enumerate(raw) for row in convert(one, i)), {}
    if hasattr(rows, "num_rows"):
        try:
            more = {"features": features_of(made), "desc": f"Formatting as {plugin.name}"}
        except OddColumn as error:
            found = f"{plugin.name} gives values of different kinds in one column: {error}"
            raise DataError("dataset_format", found) from error
        more["load_from_cache_file"] = False  # that knows a function by its name, and an edited format has the same
    names = list(more["features"] if more else next(made, {}))
    if not names:
        raise NoRowFits("dataset_format", f"{plugin.name} drops every row that was read")
    dropped = [] if dropped is None else dropped

    def convert_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        new: list[dict[str, Any]] = []
        for index, values in zip(indices, zip(*batch.values(), strict=True), strict=True):
            found = convert(dict(zip(batch, values, strict=True)), index)
            if late := [name for row in found for name in row if name not in names]:  # of a stream
                problem = f"row {index}: {plugin.name} gives the column {late[0]}, which the first row does not have"
                raise DataError("dataset_format", problem)
            dropped.extend([] if found else [index])
            new += found
        return {name: [row.get(name) for row in new] for name in names}

    return rows.map(convert_batch, with_indices=True, batched=True, batch_size=BATCH, remove_columns=columns, **more)


class OddColumn(TypeError):
    """The values of a column are of different kinds, or none that a column holds."""

    def __init__(self, column: str, reason: str):
        super().__init__(f"{column}: {reason}")
        self.column = column


def features_of(rows: Iterable[dict[str, Any]]) -> Any:
    """Return the columns' types, seen in all rows: what `datasets` finds by itself depends on the first ones alone.

    Raises:
        OddColumn: the values of a column are of different kinds, or none that a column holds.
    """
    import pyarrow as pa
    from datasets import Features

    found: dict[str, Any] = {}
    rows = iter(rows)
    while batch := [*islice(rows, BATCH)]:
        for name in dict.fromkeys(name for row in batch for name in row):
            try:
                kinds = [found.get(name, pa.null()), pa.array([row.get(name) for row in batch]).type]
                both = pa.unify_schemas([pa.schema([(name, kind)]) for kind in kinds], promote_options="permissive")
            except (ValueError, TypeError, NotImplementedError, OverflowError) as error:  # Arrow's own are among them
                raise OddColumn(name, " ".join(str(error).split())[:200]) from error
            found[name] = both.field(name).type
    return Features.from_arrow_schema(pa.schema([*found.items()]))


def _converter(
    plugin: Plugin, system_prompt: str | None, options: dict[str, Any], turns: str, gold_type: str
) -> Convert:
    """Load a format; a `seed` that it does not have is left out of its options."""
    import numpy as np

    narrow = {"float16": np.float16, "float32": np.float32}.get(gold_type)  # whose 0.1 is Python's 0.10000000149
    if unknown := [key for key in options if key not in plugin.options and key != "seed"]:
        has = ", ".join(plugin.options) or "none"
        raise DataError("format_kwargs", f"{plugin.name} has no option {unknown[0]}; it has {has}")
    options = {key: value for key, value in options.items() if key in plugin.options}
    try:
        function = functools.partial(plugin.load(), **options)
    except (Exception, SystemExit) as error:
        raise DataError("dataset_format", f"{where(plugin.file, error)} failed: {one_line(error)}") from error

    def convert(row: dict[str, Any], index: int) -> list[dict[str, Any]]:
        if narrow and isinstance(row["answer"], float):
            row = row | {"answer": float(str(narrow(row["answer"])))}
        try:
            made = function({name: _read(value, name) for name, value in row.items()})
            return [] if made is None else list(_in_messages(dict(made), system_prompt, turns))
        except KeyError as error:
            problem = f"{plugin.name} needs the column {error.args[0]}; the data set has {', '.join(row)}"
            raise DataError("dataset_format", problem, code="missing_column") from error
        except (Exception, SystemExit) as error:
            said = str(error) if isinstance(error, ValueError) else one_line(error)
            raise DataError("dataset_format", f"row {index} does not fit {plugin.name}: {said}") from error

    return convert


def _in_messages(row: dict[str, Any], system_prompt: str | None, turns: str) -> Iterator[dict[str, Any]]:
    """Yield the rows that become of what a format made of one, all in messages."""
    if TOOLS in row:
        tools = read_tools(row[TOOLS])
        row[TOOLS] = json.dumps(tools, ensure_ascii=False) if tools else None
    row["prompt"] = _messages(row["prompt"], "prompt", "user")
    if row.get("completion") is not None:
        said = _messages(row["completion"], "completion", "assistant")
        if said[-1]["role"] != "assistant":
            raise ValueError("the column completion does not end with an assistant's message")
        given, row["completion"] = split_chat(said, "completion")
        row["prompt"] = row["prompt"] + given
    for side in SIDES if {*SIDES} <= row.keys() else ():  # other data sets may have a column of such a name
        if _is_chat(row[side]) or isinstance(row[side], str | int | float):
            row[side] = _messages(row[side], side, "assistant")
    if system_prompt and row["prompt"][0]["role"] != "system":
        row["prompt"] = [{"role": "system", "content": system_prompt}, *row["prompt"]]
    if turns == "all":
        parts = each_answer([*row["prompt"], *(row.get("completion") or [])], "messages")
        made = [row | {"prompt": prompt, "completion": said} for prompt, said in parts]
    else:
        made = [row]
    for one in made:
        yield one | {name: packed(one[name]) for name in ("prompt", "completion", *SIDES) if _is_chat(one.get(name))}


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _messages(value: Any, column: str, role: str) -> list[dict[str, Any]]:
    """Return a conversation as `read_chat` reads it, and a text or a number as one message of a role."""
    if isinstance(value, list) or value is None or isinstance(value, dict | bool | bytes):
        return read_chat(value, column)
    return [{"role": role, "content": str(value)}]


def _read(value: Any, column: str) -> Any:
    """Return a value with its bytes, which Arrow has for binary columns, as text, and a gold as text.

    Of arguments and schemas that are no JSON text Arrow's nulls are left out, for names that other rows have.
    """
    if column in (ARGUMENTS, TOOLS) and isinstance(value, dict | list):
        return think.without_nulls(value)
    if isinstance(value, dict):
        return {name: _read(part, name if name == ARGUMENTS else "") for name, part in value.items()}
    if isinstance(value, list):
        return [_read(part, column if isinstance(part, bytes) else "") for part in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            if column != "answer":
                return value  # an image, perhaps; refused where a text is needed
    if column != "answer":
        return value
    if isinstance(value, bytes | datetime.datetime | datetime.time | datetime.timedelta):
        raise ValueError(f"the column {column} holds {value!r:.60}, allowed: text or numbers")
    if type(value) is float and value.is_integer():
        return str(int(value))
    return gold_text(value) if isinstance(value, int | float | datetime.date | Decimal) else value
