"""The samples of some runs as the page's browser has them: JSON that nothing interprets, and of a size that opens.

What models wrote is shown as elsewhere in a report: characters that command a terminal or turn words about by their numbers, and
of long texts the beginning and the end. Which of a completion's behaviours are true of it is said by a function that is given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from reasoning_ext.runs import traces
from reasoning_ext.runs.outcomes import is_plain, is_right
from reasoning_ext.runs.read import GREEDY, MOST_SAMPLES, Rows, Run
from reasoning_ext.runs.stored import evenly
from reasoning_ext.runs.texts import LONGEST, shortened, split_text, text
from reasoning_ext.runs.values import deciding, is_number
from reasoning_ext.runs.weights import rewards_of, totals
from reasoning_ext.shown import visible

MOST_TEXT = 2**26  # characters of all prompts and completions in a page
LONGEST_GOLD = 500
LONGEST_READ = 2**17  # characters of a completion whose behaviours are told
CALLED, FAILED = "called a tool", "a call failed"
Label = Callable[[Rows], list[dict[str, bool]]]


def no_labels(rows: Rows) -> list[dict[str, bool]]:
    """Tell nothing of any row."""
    return [{} for _ in rows]


def data(runs: Sequence[Run], label: Label = no_labels, most: int = MOST_SAMPLES) -> dict[str, Any]:
    """Return what the browser shows of runs that have been read.

    Args:
        runs: as `read_run` has read them.
        label: tells of rows with `completion`, a text, of several turns as `traces.as_one` has it, and `prompt` what is true
            of each, `{behaviour: whether}`, without what does not apply to it.
        most: samples in the page.

    Returns:
        `rows`, and the lists into which their numbers point: `runs` (`name`, `stage`, how many are `shown` and how many
        `stored`, and whether these were `counted`), `models` (`run`, `label`), `prompts`, `behaviours`; and `rewards`.
        A row has no key for what it does not have; `turns` are the pieces before its last turn, see `traces.Part`. Its `has`
        and `can` are sums of `1 << i` of the behaviours, at most 30,
        that are true of it, and that apply to it.
    """
    stores = [_whole(run) for run in runs]
    rooms = _rooms(list(map(len, stores)), most)
    chosen = [_groups(store, room) for store, room in zip(stores, rooms, strict=True)]
    length = _length([row for rows in chosen for row in rows])
    if length > MOST_TEXT:
        chosen = [_groups(rows, len(rows) * MOST_TEXT // length) for rows in chosen]
    found: dict[str, Any] = {"runs": [], "rows": []}
    models, prompts = dict[tuple[int, str], int](), dict[str, int]()
    told = list[dict[str, bool]]()
    for i, (run, rows, store) in enumerate(zip(runs, chosen, stores, strict=True)):
        stored = max(run.stored, len(store)) if run.stage != "eval" else len(store)
        named = {"name": visible(run.name), "stage": visible(run.stage), "shown": len(rows), "stored": stored}
        found["runs"].append(named | {"counted": run.counted or run.stage == "eval"})
        told += _told(rows, label, bool(run.recipe.get("tools") or run.recipe.get("environment")))
        total = totals(run.recipe)
        for row in rows:
            shown = {"run": i, "prompt": prompts.setdefault(text(row.get("prompt", "")), len(prompts))}
            if run.stage == "eval":
                shown["model"] = models.setdefault((i, visible(str(row.get("model")))), len(models))
            found["rows"].append(shown | _row(row, total(row), run.stage))
    found["models"] = [{"run": run, "label": name} for run, name in models]
    found["prompts"] = [visible(shortened(prompt)) for prompt in prompts]
    found["rewards"] = list(dict.fromkeys(name for row in found["rows"] for name in row["rewards"]))
    found["behaviours"] = names = list(dict.fromkeys(name for one in told for name in one))
    for row, one in zip(found["rows"], told, strict=True):
        row["has"] = sum(1 << names.index(name) for name, holds in one.items() if holds)
        row["can"] = sum(1 << names.index(name) for name in one)
    return found


def as_json(found: dict[str, Any]) -> Markup:
    """Write `data` as JSON for a script element: no tag, entity or line separator of JavaScript is in it."""
    written = htmlsafe_json_dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(written.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _whole(run: Run) -> Rows:
    """Return a run's samples, or an evaluation's plain answers, which have a completion."""
    rows = [row for row in run.answers if is_plain(row)] if run.stage == "eval" else run.samples
    return [row for row in rows if (row.get("completion") or row.get(traces.TURNS)) and not row.get("error")]


def _rooms(counts: list[int], most: int) -> list[int]:
    """Divide a number among runs: what one does not need is for the others.

    >>> _rooms([5, 1000, 1000], 105)
    [5, 50, 50]
    """
    rooms, left = [0] * len(counts), most
    for nth, i in enumerate(sorted(range(len(counts)), key=lambda i: counts[i])):
        rooms[i] = min(counts[i], left // (len(counts) - nth))
        left -= rooms[i]
    return rooms


def _groups(rows: Rows, most: int) -> Rows:
    """Choose rows at even distances, all of a prompt at a step or none: they are there to be compared."""
    if len(rows) <= most:
        return rows
    groups = defaultdict[str, Rows](list)
    for row in rows:
        groups[str((row.get("step"), row.get("prompt_index", row.get("prompt"))))].append(row)
    chosen = evenly(list(groups.values()), max(1, most * len(groups) // len(rows)))
    return [row for group in chosen for row in group][:most]


def _length(rows: Rows) -> int:
    """Return the characters that rows put into a page; a prompt stands there once."""
    prompts = {text(row.get("prompt", "")) for row in rows}
    parts = sum(len(part) for row in rows for part in split_text(row["completion"]) if part)
    turns = sum(traces.length(traces.turns_of(row)) for row in rows if traces.TURNS in row)
    return parts + turns + sum(min(len(prompt), LONGEST) for prompt in prompts)


def _told(rows: Rows, label: Label, tools: bool) -> Iterator[dict[str, bool]]:
    """Yield what is told of each row, of those that say so whether they were cut off, and what came of calls."""
    texts = [text(traces.as_one(row)) for row in rows]
    read = [i for i, whole in enumerate(texts) if len(whole) <= LONGEST_READ]
    labels = label([{"completion": texts[i], "prompt": text(rows[i].get("prompt", ""))} for i in read])
    told = dict(zip(read, labels, strict=True))
    tools = tools or any(traces.TURNS in row for row in rows)
    for i, row in enumerate(rows):
        cut_off = {"cut off": row["finished"] is False} if "finished" in row else {}
        calls, failed = traces.used(traces.turns_of(row))
        called = ({CALLED: calls > 0} if tools else {}) | ({FAILED: failed > 0} if calls or failed else {})
        yield {visible(name): bool(holds) for name, holds in told.get(i, {}).items()} | cut_off | called


def _row(row: dict[str, Any], total: float | None, stage: str) -> dict[str, Any]:
    """Return what a sample says of itself; in an evaluation the first reward says whether it is right."""
    values = rewards_of(row)
    decides = None if stage == "eval" else deciding(name for name, value in values.items() if value is not None)
    turns, parts = traces.turns_of(row), split_text(row["completion"])
    said = [text(row["completion"]), *(turn["content"] for turn in turns if turn["role"] == "assistant")]
    shown: dict[str, Any] = {
        "rewards": {visible(name): value for name, value in values.items()},
        "total": total,
        "right": is_right(row, decides),
        "thought": None if parts.thought is None else visible(parts.thought),
        "answer": None if parts.answer is None else visible(parts.answer),
        "gold": None if row.get("answer") is None else visible(shortened(str(row["answer"]), LONGEST_GOLD)),
        "length": sum(map(len, said)),
        "turns": [[visible(piece) for piece in part] for part in traces.parts(turns)] or None,
        "greedy": row.get("sample_index") == GREEDY or None,
    }
    numbers = {name: row.get(name) for name in ("step", "tokens", "advantage")} | {"problem": row.get("prompt_index")}
    shown |= {name: value for name, value in numbers.items() if is_number(value)}
    return {name: value for name, value in shown.items() if value is not None}
