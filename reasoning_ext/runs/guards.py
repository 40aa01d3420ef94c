"""What a run forgot: `guard.json` of a training, and the group `general` of `eval.json`, as tables read them."""

from pathlib import Path
from typing import Any

from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.values import is_interval, is_number

GUARD, GUARD_ANSWERS, BEFORE, AFTER = "guard.json", "guard.jsonl", "before", "after"


def forgotten(run: Path) -> dict[str, dict[str, Any]]:
    """Return `{ability: {before, after, difference, p}}` of a run's guard, `all` first; what is damaged is left out.

    All but `p`, a number, are `[value, low, high]`; a training from scratch has `after` alone. Empty without a guard.
    """
    rows = read_object(run / GUARD).get("general")
    found: dict[str, dict[str, Any]] = {}
    for name, row in rows.items() if isinstance(rows, dict) else ():
        if isinstance(row, dict) and is_interval(row.get(AFTER)):
            found[str(name)] = {k: v for k, v in row.items() if is_interval(v) or (k == "p" and is_number(v))}
    return found
