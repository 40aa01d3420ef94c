"""The record of what became of a recipe's rows: how many each step left, and which ones it removed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_ext.runs.files import write_whole

COUNTS, REMOVED = "data.json", "removed.jsonl"
SHOWN = 160  # characters of a removed row's question


@dataclass
class Prepared:
    """Rows that are ready, and what became of the others.

    Attributes:
        steps: one mapping a step, `step`, `rows` after it and `dropped` by it, further counts.
        removed: the rows that were dropped as duplicates or as evaluation problems, and examples of filtered ones: the
            step, the row's number as the step was given it, why, and how its question begins.
    """

    rows: Any = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)

    def note(self, step: str, rows: Any, dropped: int, **more: Any) -> None:
        """Record a step; `rows` are those that it left, or their number."""
        count = rows if isinstance(rows, int) else getattr(rows, "num_rows", None)
        self.steps.append({"step": step, "rows": count, "dropped": dropped, **more})

    def remove(self, step: str, rows: Any, found: list[dict[str, Any]]) -> None:
        """Record rows that a step removed; `rows` are those that it was given, and `found` has a `row` each."""
        from reasoning_ext.data.duplicates import prompt_text

        prompts = rows.select([one["row"] for one in found])["prompt"] if found else []
        for one, prompt in zip(found, prompts, strict=True):
            text = " ".join(prompt_text(prompt, ("user",)).split())
            self.removed.append({"step": step, **one, "text": text[:SHOWN] + (" ..." if len(text) > SHOWN else "")})

    def lines(self) -> list[str]:
        """Return the steps as lines for people."""
        return [_line(**step) for step in self.steps]

    def write(self, folder: Path) -> None:
        """Keep the counts and the removed rows in a run's folder."""
        write_whole(folder / COUNTS, json.dumps(self.steps, indent=1, ensure_ascii=False))
        if self.removed:
            write_whole(folder / REMOVED, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.removed))


def _line(step: str, rows: int | None, dropped: int, examples: Any = None, **more: Any) -> str:
    counts = ({"dropped": dropped} if dropped else {}) | more
    told = [f"{value} {name}" if name == "dropped" else f"{name} {value}" for name, value in counts.items()]
    return ", ".join([f"{step}: {'streamed' if rows is None else rows} rows", *told])
