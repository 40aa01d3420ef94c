"""Which Arrow type holds the values of a JSON file's column, so that no text and no digit is changed.

A column that holds texts beside numbers, or a number that no 64 bits hold, is text as a whole, each number as it is written;
so are golds with a point, in a column `answer`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from reasoning_ext.data.columns import DataError

DIGITS = 17  # a double's own; more are meant
NAMES: dict[type, str] = {str: "texts", dict: "objects", list: "lists", bool: "booleans"}


class WrittenFloat(float):
    """A number with a point or an exponent, which keeps how it is written."""

    __slots__ = ("written",)
    written: str

    def __new__(cls, written: str) -> WrittenFloat:
        made = super().__new__(cls, written)
        made.written = written
        return made

    def __str__(self) -> str:
        return self.written

    def is_changed(self) -> bool:
        """Tell whether a double loses digits that are meant, or all of the number."""
        if self and abs(self) < math.inf:
            digits = self.written.lower().partition("e")[0].lstrip("-0.").replace(".", "")
            return len(digits) > DIGITS and Decimal(self.written) != Decimal(repr(float(self)))
        return any(digit in "123456789" for digit in self.written.lower().partition("e")[0])


class Kind:
    """What the values in one place of the rows are: kinds of scalars, and the kinds of items and fields."""

    __slots__ = ("fields", "items", "seen")

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}  # each kind, and the file and line where it came first
        self.items: Kind | None = None
        self.fields: dict[str, Kind] = {}

    def add(self, value: Any, place: str) -> None:
        """Note a value."""
        if value is None:
            return
        kind = _name(value)
        if kind not in self.seen:
            self.seen[kind] = place
        if kind == "objects":
            for name, part in value.items():
                if name not in self.fields:
                    self.fields[name] = Kind()
                self.fields[name].add(part, place)
        elif kind == "lists":
            self.items = self.items or Kind()
            for part in value:
                self.items.add(part, place)

    def arrow(self, column: str) -> Any:
        """Return the Arrow type that holds all of it.

        Raises:
            DataError: there is none; with the column and the lines.
        """
        import pyarrow as pa

        kinds = {*self.seen}
        numbers = kinds & {"integers", "long integers", "numbers", "exact numbers"}
        if len(kinds - numbers) + bool(numbers) > 1 and kinds - numbers != {"texts"}:
            (one, first), (two, second) = [*self.seen.items()][:2]
            found = f"{second}: the column {column} holds {two} here and {one} at {first}"
            raise DataError("dataset_name", f"{found}, allowed: one kind; write all as text, or leave the column out")
        if "objects" in kinds:
            return pa.struct([(name, part.arrow(f"{column}.{name}")) for name, part in self.fields.items()])
        if "lists" in kinds:
            return pa.list_(self.items.arrow(f"{column}[]") if self.items else pa.string())
        if kinds == {"booleans"}:
            return pa.bool_()
        exact = kinds & {"texts", "exact numbers"} or {"long integers", "numbers"} <= kinds
        if not numbers or exact or (column == "answer" and "numbers" in kinds):  # a gold of 1.10 is not 1.1
            return pa.string()
        return pa.float64() if "numbers" in kinds else pa.int64()


def as_text(value: Any, kind: Any) -> Any:
    """Write the numbers of a value as text where its Arrow type says text; infinity is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [as_text(part, kind.value_type) for part in value]
    if isinstance(value, dict):
        return {name: as_text(part, kind.field(name).type) for name, part in value.items()}
    if str(kind) != "string":
        return value
    return str(value) if isinstance(value, int | WrittenFloat) else None


def _name(value: Any) -> str:
    """Name what a value that is not null is."""
    if type(value) is int:
        size = value.bit_length()
        return "integers" if size <= 53 else "long integers" if size <= 63 else "exact numbers"
    is_exact = isinstance(value, WrittenFloat) and value.is_changed()
    return NAMES.get(type(value), "exact numbers" if is_exact else "numbers")
