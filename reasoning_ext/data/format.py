"""Rows of a data set -> TRL's columns: one format function a row, of ours or of a user, and one type a column."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.columns import SIDES, DataError, columns_of
from reasoning_ext.data.formats._chat import read_chat
from reasoning_ext.recipe.plugins import Plugin, find_plugin, plugin_names
from reasoning_ext.recipe.user_code import where

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = "reasoning_ext.data.formats"
BATCH = 200


class NoRowFits(DataError):
    """A format drops every row that it was given."""


def find_format(name: str | None, folder: Path) -> Plugin:
    """Find a format by its spelling in a recipe; None is plain columns.

    Raises:
        LookupError: there is none of that name, or it is a function that does not take a row.
    """
    plugin = find_plugin(name or "prompt_completion", [FORMATS], folder)
    if len(plugin.required) != 1 and not plugin.unread:
        problem = (
            f"{plugin.function} in {plugin.file} is no format: a format has one parameter without a default, the row"
        )
        raise LookupError(f"{problem}; it has {', '.join(plugin.required) or 'none'}")
    return plugin


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

    Returns:
        rows with `prompt` and, where the format gives them, `completion`, `chosen` and `rejected`, `answer` and others.

    Raises:
        DataError: a row does not fit the format; the message names the row and the column.
    """
    _check_rename(rename or {}, columns_of(rows))
    rows = _as_text(rows.rename_columns(rename) if rename else rows, "answer")
    dropped = [] if dropped is None else dropped
    convert = _converter(plugin, system_prompt, options or {}, turns)
    columns = _first_columns(rows, convert, plugin)

    def convert_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        new: list[dict[str, Any]] = []
        for index, values in zip(indices, zip(*batch.values(), strict=True), strict=True):
            made = convert(dict(zip(batch, values, strict=True)), index)
            if not made:
                dropped.append(index)
            for row in made:
                _check_same(columns, row, index, plugin)
            new += made
        return {name: [row.get(name) for row in new] for name in columns}

    arguments: dict[str, Any] = {"with_indices": True, "batched": True, "batch_size": BATCH}
    arguments["remove_columns"] = columns_of(rows)
    if not hasattr(rows, "num_rows"):
        return rows.map(convert_batch, **arguments)
    # Not from the cache: it knows a function by its name, so that an edited format would give the old rows.
    arguments |= {"desc": f"Formatting as {plugin.name}", "load_from_cache_file": False}
    for whole in (False, True):
        dropped.clear()
        features = _features(rows, convert, plugin, whole)
        try:
            return rows.map(convert_batch, features=features, **arguments)
        except DataError:
            raise
        except (ValueError, TypeError, NotImplementedError) as error:
            if whole:
                raise _mixed(plugin, str(error)) from error
    raise AssertionError


def _first_columns(rows: Dataset, convert: Callable[[dict[str, Any], int], list], plugin: Plugin) -> list[str]:
    first = next((made[0] for i, row in enumerate(rows) if (made := convert(row, i))), None)
    if first is None:
        read = rows.num_rows if hasattr(rows, "num_rows") else sum(1 for _ in rows)
        raise NoRowFits("dataset_format", f"{plugin.name} drops every row: {read} read, none fits")
    return list(first)


def _converter(
    plugin: Plugin, system_prompt: str | None, options: dict[str, Any], turns: str
) -> Callable[[dict[str, Any], int], list[dict[str, Any]]]:
    """Return a function from a raw row and its number to the rows that it becomes."""
    try:
        function = functools.partial(plugin.load(), **_format_options(plugin, options))
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError("dataset_format", f"{where(plugin.file, error)} failed: {_one_line(error)}") from error

    def convert(row: dict[str, Any], index: int) -> list[dict[str, Any]]:
        try:
            made = function({name: _decoded(value, name) for name, value in row.items()})
            return [] if made is None else _in_messages(dict(made), system_prompt, turns)
        except KeyError as error:
            problem = f"{plugin.name} needs the column {error.args[0]}; the data set has {', '.join(row)}"
            raise DataError("dataset_format", problem, code="missing_column") from error
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise DataError("dataset_format", f"row {index} does not fit {plugin.name}: {error}") from error
        except (Exception, SystemExit) as error:
            raise DataError("dataset_format", f"row {index}: {plugin.name} failed: {_one_line(error)}") from error

    return convert


def _in_messages(row: dict[str, Any], system_prompt: str | None, turns: str) -> list[dict[str, Any]]:
    """Return the rows that become of what a format made of one, all in messages."""
    if think.without_nulls(row.get("tools")) not in (None, "", "[]", "null", "{}", [], {}, [None]):
        problem = f"the column tools holds {row['tools']!r:.60}; rows with tools are not supported, leave them out"
        raise ValueError(f"{problem}, or rename the column with rename_columns if it says something else")
    row["prompt"] = _messages(row["prompt"], "prompt", "user")
    if row.get("completion") is not None:
        said = _messages(row["completion"], "completion", "assistant")
        if said[-1]["role"] != "assistant":
            raise ValueError("the column completion does not end with an assistant's message")
        row["prompt"], row["completion"] = row["prompt"] + said[:-1], said[-1:]
    for side in SIDES if {*SIDES} <= row.keys() else ():  # other data sets may have a column of such a name
        is_chat = isinstance(row[side], list) and row[side] and isinstance(row[side][0], dict)
        if is_chat or isinstance(row[side], str | int | float):
            row[side] = _messages(row[side], side, "assistant")
    if system_prompt and row["prompt"][0]["role"] != "system":
        row["prompt"] = [{"role": "system", "content": system_prompt}, *row["prompt"]]
    if turns != "all":
        return [row]
    # a row of every assistant message that follows a user's, with what stands before it as its prompt
    chat = [*row["prompt"], *(row.get("completion") or [])]
    asked = next((i for i, message in enumerate(chat) if message["role"] == "user"), len(chat))
    ends = [i for i, message in enumerate(chat) if message["role"] == "assistant" and i > asked]
    return [{**row, "prompt": chat[:i], "completion": [chat[i]]} for i in ends]


def _features(rows: Dataset, convert: Callable[[dict[str, Any], int], list], plugin: Plugin, whole: bool) -> Any:
    """Return the columns' types as the format makes them; what `map` finds by itself depends on the first batch alone.

    Without `whole` no further rows are looked at once every column has a value. What no row fills is text.
    """
    import pyarrow as pa
    from datasets import Features

    found: Any = None
    for start in range(0, rows.num_rows, BATCH):
        batch = rows.select(range(start, min(start + BATCH, rows.num_rows)))
        made = [new for i, row in enumerate(batch, start) for new in convert(row, i)]
        if not made:
            continue
        try:
            schema = pa.Table.from_pylist(made).schema
            found = schema if found is None else pa.unify_schemas([found, schema], promote_options="permissive")
        except (ValueError, TypeError, NotImplementedError, OverflowError) as error:  # Arrow's own are among them
            raise _mixed(plugin, odd_column(made, found) or str(error)) from error
        if not whole and not any(pa.types.is_null(kind) for kind in found.types):
            break
    return Features.from_arrow_schema(pa.schema([(field.name, filled(field.type)) for field in found]))


def filled(kind: Any) -> Any:
    """Return an Arrow type with text in the place of what has no type yet."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, filled(field.type)) for field in kind])
    return pa.list_(filled(kind.value_type)) if pa.types.is_list(kind) else kind


def odd_column(rows: list[dict[str, Any]], earlier: Any = None) -> str:
    """Name the column whose values are of different kinds, or none that a column holds, and what Arrow says."""
    import pyarrow as pa

    for name in rows[0]:
        try:
            kind = pa.Table.from_pylist([{name: row.get(name)} for row in rows]).schema
            if earlier is not None:
                pa.unify_schemas([pa.schema([earlier.field(name)]), kind], promote_options="permissive")
        except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
            return f"{name}: {error}"
    return ""


def _mixed(plugin: Plugin, reason: str) -> DataError:
    problem = f"{plugin.name} gives values of different kinds in one column: {' '.join(reason.split())[:200]}"
    return DataError("dataset_format", problem)


def _check_same(columns: list[str], row: dict[str, Any], index: int, plugin: Plugin) -> None:
    """Refuse a row with a column that the first row does not have: it would be lost."""
    if new := [name for name in row if name not in columns]:
        problem = f"row {index}: {plugin.name} gives the column {new[0]}, which earlier rows do not have; give all rows"
        raise DataError("dataset_format", f"{problem} the same columns, None where there is nothing")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _format_options(plugin: Plugin, given: dict[str, Any]) -> dict[str, Any]:
    """Check what a recipe sets of a format's keyword arguments; a `seed` that the format does not have is left out."""
    unknown = [key for key in given if key not in plugin.options and key != "seed"]
    if unknown:
        has = ", ".join(plugin.options) or "none"
        raise DataError("format_kwargs", f"{plugin.name} has no option {unknown[0]}; it has {has}")
    return {key: value for key, value in given.items() if key in plugin.options}


def _check_rename(rename: dict[str, str], columns: list[str]) -> None:
    """Refuse to rename a column that is not there, or onto one that is or will be."""
    for old, new in rename.items():
        if not isinstance(new, str) or not new:
            raise DataError("rename_columns", f"found {old}: {new!r}, allowed: a name")
        if list(rename.values()).count(new) > 1:
            raise DataError("rename_columns", f"found two columns renamed to {new}, allowed: one")
        if old not in columns:
            raise DataError("rename_columns", f"found {old}, but the data set has the columns {', '.join(columns)}")
        if new in columns and new not in rename:
            raise DataError("rename_columns", f"found {old}: {new}, but there is a column {new} already")


def _messages(value: Any, column: str, role: str) -> list[dict[str, Any]]:
    """Return a conversation as `read_chat` reads it, and a text or a number as one message of a role."""
    if isinstance(value, list) or value is None or isinstance(value, dict | bool | bytes):
        return read_chat(value, column)
    return [{"role": role, "content": str(value)}]


def _decoded(value: Any, column: str) -> Any:
    """Return a value with its bytes, which Arrow has for binary columns, as the text that they are."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            if column != "answer":
                return value  # an image, perhaps; refused where a text is needed
            raise ValueError(f"the column {column} holds bytes that are no UTF-8: {value!r:.60}") from error
    if isinstance(value, dict):
        return {name: _decoded(part, column) for name, part in value.items()}
    return [_decoded(part, column) for part in value] if isinstance(value, list) else value


def _as_text(rows: Dataset, column: str) -> Dataset:
    """Read a column of numbers as text, because `map` would turn what a format writes back into the column's own type."""
    import pyarrow as pa
    from datasets import ClassLabel, Value

    feature = (rows.features or {}).get(column)
    if isinstance(feature, ClassLabel):
        rows, feature = rows.cast_column(column, Value("int64")), Value("int64")
    if not isinstance(feature, Value) or feature.dtype in ("string", "binary", "large_binary"):  # bytes: `_decoded`
        return rows
    if feature.dtype.startswith(("time", "duration")):
        problem = f"the column {column} holds {feature.dtype}, allowed: text or numbers; write it to the file as text"
        raise DataError("dataset_name", problem)
    if feature.dtype.startswith("float"):  # what is no number is no gold

        def finite(row: dict[str, Any]) -> dict[str, Any]:
            value = row[column]
            return {column: value if value is not None and math.isfinite(value) else None}

        rows = rows.map(finite, features=rows.features)
    try:
        return rows.cast_column(column, Value("string"))
    except pa.ArrowException as error:
        raise DataError("dataset_name", f"the column {column} holds {feature.dtype}, allowed: text: {error}") from error
