"""The columns of a data set: which a stage needs, which there are, and the error about a data set that does not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasoning_ext.errors import KeyProblem

if TYPE_CHECKING:
    from datasets import Dataset

SIDES = ("chosen", "rejected")
ROW_COLUMNS = {"sft": dict.fromkeys(("prompt", "completion"), "stage sft")}  # they train on completions of the data
ROW_COLUMNS["dpo"] = dict.fromkeys(("prompt", *SIDES), "stage dpo")


class DataError(KeyProblem):
    """A data set cannot be read or does not fit its format; `key` is the recipe's key that is to blame."""

    code = "unusable_data"


def too_few(count: int | None, needed: int, what: str) -> str:
    """Say that there are fewer rows than one batch or one generation takes, or nothing; None is a stream's count."""
    text = f"found {count} rows, but one {what} takes {needed}; use more rows or smaller batches"
    return text if count is not None and count < needed else ""


def columns_of(rows: Dataset) -> list[str]:
    """Return the names of a data set's columns; a stream that does not say is asked for its first row."""
    names = rows.column_names or next(iter(rows), None)
    if names is None:
        raise DataError("dataset_name", "no row of the stream is left: each lacks its gold, its completion or its pair")
    return list(names)


def check_columns(columns: list[str], needed: dict[str, str]) -> None:
    """Refuse a data set whose columns, after formatting, lack one of `needed`, `{column: who needs it}`.

    Raises:
        DataError: the first column that is missing, who needs it, and which there are.
    """
    there = {*columns, *(["answer"] if "solution" in columns else [])}  # rewards get the gold under both names
    for column, who in needed.items():
        if column not in there:
            found = f"{who} needs the column {column}; after formatting there are {', '.join(columns)}"
            raise DataError("dataset_name", found, code="missing_column")
