"""`errors.json`: why a run's answers are wrong, as the report and the card show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.texts import shortened, text
from reasoning_ext.runs.values import cell, is_interval, is_number

ERRORS = "errors.json"


class Cause(NamedTuple):
    """Answers with one cause: how many, their share of the wrong ones, what they would give back, an example."""

    name: str
    answers: int
    share: str
    gives_back: str
    meaning: str
    edit: str
    example: Mapping[str, Any]


class Causes(NamedTuple):
    """The wrong answers of one model, `looked_at` of which have causes."""

    label: str
    of: int
    wrong: int
    looked_at: int
    causes: list[Cause]


def causes_of(folder: Path) -> list[Causes]:
    """Return what a run's `errors.json` says of each model, as far as it can be read."""
    found = []
    for label, row in read_object(folder / ERRORS).items():
        given = row if isinstance(row, dict) else {}
        counts = [int(value) for name in ("of", "wrong", "looked_at") if is_number(value := given.get(name))]
        if len(counts) == 3 and isinstance(causes := given.get("causes"), dict):
            read = [_cause(name, one) for name, one in causes.items() if isinstance(one, dict)]
            of, wrong, looked_at = counts
            found.append(Causes(str(label), of, wrong, looked_at, [one for one in read if one]))
    return found


def _cause(name: str, row: Mapping[str, Any]) -> Cause | None:
    count, share, gives_back, given = (row.get(key) for key in ("count", "share", "gives_back", "example"))
    if not (is_number(count) and is_interval(share) and is_interval(gives_back)):
        return None
    example = given if isinstance(given, dict) else {}
    keys = [key for key in ("question", "completion", "text", "better") if key in example]
    shown: dict[str, Any] = {key: shortened(text(example[key])) for key in keys}
    shown |= {"prompt": shown.get("question", ""), "answer": example.get("answer")}
    if is_number(step := example.get("step")) and is_number(steps := example.get("steps")):
        shown["place"] = f"step {step:g} of {steps:g}" if step <= steps else f"the answer, behind {steps:g} true steps"
    return Cause(
        str(name), int(count), cell(share), cell(gives_back), str(row.get("meaning")), str(row.get("edit")), shown
    )
