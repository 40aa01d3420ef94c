"""The rows of `metrics.jsonl` up to a log, and means of them over steps; nothing behind that log is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from reasoning_ext.runs.values import is_number

RATE = "learning_rate"
Row = Mapping[str, Any]
Rows = Sequence[Row]
Of = str | Callable[[Row], Any]  # a metric, or what is made of a row


def number(value: Any) -> float | None:
    """Return a finite number as a float, and None for anything else."""
    return float(value) if is_number(value) else None


def read(row: Row, of: Of) -> float | None:
    """Return what a row has of a metric, where that is a finite number."""
    return number(row.get(of) if isinstance(of, str) else of(row))


@dataclass(frozen=True)
class Past:
    """The rows up to `rows[end - 1]`, which is now; `origin` is the step that the first of them comes behind."""

    rows: Rows
    end: int
    origin: float = 0.0

    @property
    def now(self) -> Row:
        """The row that has just been logged."""
        return self.rows[self.end - 1]

    @property
    def over(self) -> bool:
        """Whether this is the row that TRL writes behind the last step."""
        return "train_runtime" in self.now

    def back(self, of: Of) -> Iterator[tuple[float, float]]:
        """Yield step and value of each log, the last one first."""
        for i in range(self.end - 1, -1, -1):
            if (value := read(self.rows[i], of)) is not None:
                yield self.rows[i]["step"], value

    def last(self, of: Of, steps: float, least: int = 1) -> list[float]:
        """Return the values of the last logs that cover so many steps, `least` of them; none where there are not yet.

        Of a run that is over they may be fewer, from two on.
        """
        found, newest = list[float](), self.now["step"]
        for step, value in self.back(of):
            if len(found) >= least and newest - step >= steps:
                return found
            found.append(value)
        whole = len(found) >= least and newest - self.origin >= steps
        return found if whole or (self.over and len(found) > 1) else []

    def first(self, of: Of, steps: float) -> list[float]:
        """Return the values of the first logs, up to so many steps, at least one."""
        found: list[float] = []
        for row in islice(self.rows, self.end):
            if (value := read(row, of)) is not None:
                if found and row["step"] - self.origin > steps:
                    break
                found.append(value)
        return found

    def settled(self, steps: float) -> bool:
        """Tell whether the learning rate has not risen for so many steps: the warm-up is over."""
        newest, after = self.now["step"], (math.inf, -math.inf)
        for step, rate in self.back(RATE):
            if rate < after[1]:
                return bool(newest - after[0] >= steps)
            if newest - step >= steps:
                return True
            after = (step, rate)
        return bool(newest - self.origin >= steps)
