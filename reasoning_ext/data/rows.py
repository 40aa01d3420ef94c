"""Rows as a stage uses them: read, formatted, mixed, filtered, without duplicates and without evaluation problems.

Every step that drops rows says how many, and the run's folder keeps the counts (`data.json`), and the duplicates, the
problems of an evaluation set, and the first few that each filter dropped (`removed.jsonl`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.calls import RESULT, TOOLS, has_calls, need_tool_turns, texts
from reasoning_ext.data.columns import ROW_COLUMNS, SIDES, DataError, check_columns, columns_of
from reasoning_ext.data.format import NoRowFits, find_format, format_rows
from reasoning_ext.data.held_out import parted_by
from reasoning_ext.data.mixture import mix
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import TEST, TRAIN, RowOptions, Source
from reasoning_ext.data.sources import check_split, first_rows, has_one_split, load_rows
from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.scoring.spec import NOT_COLUMNS, RewardSpec, needed_columns

if TYPE_CHECKING:
    from datasets import Dataset

PASS_RATE = "pass_rate"  # the column of prompts that a sample stage has rated
NEED_ALL = ("trace_filters", "deduplicate", "decontaminate")
Row = dict[str, Any]


def prepare(
    options: RowOptions,
    split: str = TRAIN,
    count: Callable[[str], int] | None = None,
    specs: Sequence[RewardSpec] = (),
    look: int | None = None,
) -> Prepared:
    """Do everything to a recipe's rows that it asks for; of what is evaluated or held out no row is judged.

    Args:
        count: counts the tokens of a text, for filters by length; None: no tokenizer is at hand yet.
        specs: the rewards; rows without a gold that one of them would judge are dropped.
        look: read so many rows of each data set at the most, and drop those alone that say nothing.

    Raises:
        DataError: the rows cannot be read or do not fit, or none is left; its key may be a path into the recipe.
    """
    prepared = Prepared()
    rows = prepared.rows = read_rows(options, split, look, prepared)
    evaluated = options.stage == "eval"
    whole, streams = (evaluated or split == TRAIN) and look is None, not hasattr(rows, "num_rows")
    wanted = [key for key in NEED_ALL if whole and getattr(options, key)]
    if wanted and streams:
        raise DataError(wanted[0], "found with dataset_streaming: true", "on a data set that is read as a whole")
    if whole and options.difficulty is not None:
        _keep_difficulty(prepared, *options.difficulty)
    if not options.agrees and not evaluated:
        _keep_judged(prepared, specs)
    if options.stage == "sft":
        _keep(prepared, ["completion"], lambda row: bool(_said(row["completion"])), "without a completion")
    if options.stage == "dpo":
        _keep(prepared, [*SIDES], has_sides, "without a chosen or a rejected answer")
        _keep(prepared, [*SIDES], _differs, "with the same answer chosen and rejected")
    for key in wanted:
        STEPS[key](options, prepared, count)
    if look is None and getattr(prepared.rows, "num_rows", 1) == 0:
        raise DataError(options.key, f"no row is left after {'; '.join(prepared.lines())}")
    if whole and not streams and not evaluated:
        _check_when(options, prepared.rows, specs)
    return prepared


def read_rows(
    options: RowOptions, split: str = TRAIN, limit: int | None = None, prepared: Prepared | None = None
) -> Dataset:
    """Read, format and mix the rows that a recipe names.

    `limit` reads so many rows of each data set at the most, in their own proportions; `prepared` gets the counts.

    Raises:
        DataError: they cannot be read or do not fit.
    """
    prepared = prepared or Prepared()
    if options.key == "dataset_name":
        return _read_source(options.sources[0], split, limit, prepared)
    parts, sources = [], options.sources
    for source in sources:
        try:
            parts.append(_read_source(source, split, limit, prepared))
        except KeyProblem as error:
            said = error.problem
            raise DataError(source.at(error.key), said.found, said.allowed, said.hint, said.code) from error
    if limit is not None or split != TRAIN:  # counts and weights are those of the rows to train on
        sources = tuple(replace(source, weight=None, num_rows=None) for source in sources)
    rows = mix(parts, sources, options.seed)
    if options.max_samples is not None and limit is None:
        rows = first_rows(rows, options.max_samples)
    prepared.note("mixture", rows, 0)
    return rows


def _read_source(source: Source, split: str, limit: int | None, prepared: Prepared) -> Dataset:
    """Read and format one data set; of a mixture, with its own columns."""
    trained = source.splits[TRAIN] if source.stage in TRAINED and split == TEST else ""
    asked = source.splits[split] if trained or split in source.named else None
    check_split(source.path, split, asked, source.test_size, trained)
    more: Row = {}
    try:
        rows = _formatted(source, split, limit, more)
    except DataError as error:
        if error.key == "dataset_format" and "dataset_format" not in source.named:
            hint = "say how its rows are read with dataset_format or rename_columns"
            raise DataError("dataset_name", error.problem.found, hint=hint, code=error.problem.code) from error
        raise
    if source.index is not None and source.stage in ROW_COLUMNS:
        check_columns(columns_of(rows), ROW_COLUMNS[source.stage])
    if source.extra:
        fresh = {"load_from_cache_file": False} if hasattr(rows, "num_rows") else {}
        rows = rows.map(lambda row: source.extra, **fresh)
    if source.test_size is not None:
        whole = "; of whole rows, since no column is known as the problem: name it, rename_columns: {COLUMN: question}"
        more["test_size"] = f"{source.test_size:g}{whole}" if more.pop("whole", False) else source.test_size
    elif split == TEST and split not in source.named and has_one_split(source.path):
        more["split"] = "train, the only one"
    if source.stage not in ROW_COLUMNS:
        rows = _without_tools(rows, source)
    prepared.note(source.name, rows, more.pop("dropped"), **more)
    if source.stage not in ROW_COLUMNS and (names := [name for name in columns_of(rows) if name in NOT_COLUMNS]):
        rows = rows.remove_columns(names)
        prepared.note(f"without {', '.join(names)}, names of TRL's that rewards cannot read", rows, 0)
    return rows


def _without_tools(rows: Dataset, source: Source) -> Dataset:
    """Leave out a column that tells of no tools; refuse rows with tools where the recipe has none that could be called."""
    if not source.tooled and need_tool_turns(rows):
        found = f"the rows tell of tools or call them, and stage {source.stage} has none"
        raise DataError("dataset_name", found, hint="write them into the recipe, under tools")
    return rows.remove_columns(TOOLS) if TOOLS in columns_of(rows) else rows


def _formatted(source: Source, split: str, limit: int | None, counts: Row) -> Dataset:
    """Return a data set's formatted rows, and enter how many were read and dropped."""
    plugin, own = find_format(source.format, source.folder), source.max_samples
    least = min((n for n in (limit, own) if n is not None), default=None)
    for most in dict.fromkeys((least, own)):
        raw = load_rows(source.path, source.folder, source.splits[split], max_samples=most, **source.reading)
        dropped: list[int] = []
        try:
            rows = format_rows(raw, plugin, dropped=dropped, **source.formatting)
            break
        except NoRowFits:
            if most == own:  # else: the first rows are no sample of the others
                raise
    read = getattr(raw, "num_rows", None)
    names = columns_of(raw)
    if source.test_size is not None and len(names) > 1:
        counts["whole"] = parted_by(names, source.reading.get("renamed")) == names
    counts |= ({"read": read} if dropped else {}) | {"dropped": len(dropped)}
    return rows if most == least else first_rows(rows, limit or 0)


def stage_columns(options: RowOptions, specs: Sequence[RewardSpec]) -> dict[str, str]:
    """Return the columns that a stage's rows must have, `{column: who needs it}`."""
    needed = ROW_COLUMNS.get(options.stage) or {"prompt": f"stage {options.stage}"} | needed_columns([*specs])
    return {column: who for column, who in needed.items() if not (options.agrees and column == "answer")}


def has_gold(answer: Any) -> bool:
    """Tell whether an answer is one that a completion could be compared with."""
    is_empty = isinstance(answer, list) and not answer
    return answer is not None and not is_empty and answer == answer and bool(str(answer).strip())  # NaN is not NaN


def has_sides(row: Row) -> bool:
    """Tell whether both sides of a pair say something.

    Raises:
        DataError: a side is not one message of the assistant, nor its turns with results; what is more would be lost.
    """
    for messages in (row[side] for side in SIDES if row[side]):
        roles = [isinstance(m, dict) and m.get("role") for m in messages] if isinstance(messages, list) else []
        if roles != ["assistant"] and not (has_calls(messages) and {*roles} <= {"assistant", RESULT}):
            found = f"found {messages!r:.60} in chosen or rejected"
            hint = "write dataset_format: preferences for whole conversations"
            raise DataError("dataset_name", found, "text, or one message of the assistant", hint)
    return all(_said(row[side]) for side in SIDES)


def _differs(row: Row) -> bool:
    return texts(row["chosen"], results=True) != texts(row["rejected"], results=True)


def _said(completion: Any) -> str:
    return think.content(completion).strip() if completion else ""


def _keep_difficulty(prepared: Prepared, low: float, high: float) -> None:
    """Keep the prompts whose pass rate lies between two bounds, both included; those without one are dropped."""
    if PASS_RATE not in columns_of(prepared.rows):
        hint = "name the output_dir of a sample stage, or its prompts.jsonl"
        raise DataError("difficulty", f"found {[low, high]}, but the rows have no column {PASS_RATE}", hint=hint)

    def stays(row: Row) -> bool:
        return row[PASS_RATE] is not None and low <= float(row[PASS_RATE]) <= high

    _keep(prepared, [PASS_RATE], stays, f"difficulty {low:g} to {high:g}")


def _keep_judged(prepared: Prepared, specs: Sequence[RewardSpec]) -> None:
    """Drop the rows whose gold is missing where a reward would ask for it."""
    judges = [spec for spec in specs if "answer" in spec.columns]

    def stays(row: Row) -> bool:
        judged = any(all(row[column] in allowed for column, allowed in spec.when.items()) for spec in judges)
        return has_gold(row["answer"]) or not judged

    if judges:
        others = {column for spec in judges for column in spec.when} - {"answer"}
        _keep(prepared, ["answer", *others], stays, "without a gold")


def _keep(prepared: Prepared, columns: list[str], stays: Callable[[Row], bool], step: str) -> None:
    """Keep the rows of which `stays`, a function of the columns, is true; record how many were dropped, if any."""
    rows = prepared.rows
    if not {*columns} <= {*columns_of(rows)}:
        return  # refused where the columns are checked
    if not hasattr(rows, "num_rows"):
        prepared.rows = rows.filter(stays)
        return
    kept = [i for i, row in enumerate(rows.select_columns(columns)) if stays(row)]
    if len(kept) < rows.num_rows:
        prepared.rows = rows.select(kept)
        prepared.note(step, len(kept), rows.num_rows - len(kept))


def _check_when(options: RowOptions, rows: Dataset, specs: Sequence[RewardSpec]) -> None:
    """Refuse a value of a reward's `when` that no row has: the reward would never count, and nobody would see it."""
    for i, spec in enumerate(specs):
        for column, allowed in spec.when.items():
            if column not in rows.column_names:
                continue  # refused where the columns are checked
            there = [*{json.dumps(value): value for value in rows[column]}.values()]
            if missing := [value for value in allowed if value not in there]:
                place: Any = ("reward_funcs", i, options.rewards[i], "when", column)
                shown = ", ".join(map(repr, there[:8]))
                raise DataError(place, f"found {missing[0]!r}, which no row has; the column {column} holds {shown}")


def _filter(options: RowOptions, prepared: Prepared, count: Callable[[str], int] | None) -> None:
    from reasoning_ext.data.filters import TraceFilters, filter_traces

    rows, filters = prepared.rows, options.trace_filters or TraceFilters()
    filters = filters if count else replace(filters, min_tokens=None, max_tokens=None)
    prepared.rows, records = filter_traces(rows, filters, count or len)
    for record in records:
        step, dropped = f"trace_filters.{record.pop('filter')}", record.pop("dropped")
        prepared.note(step, record.pop("before") - dropped, dropped, **record)
        prepared.remove(step, rows, [{"row": row} for row in record["examples"]])


def _deduplicate(options: RowOptions, prepared: Prepared, count: Any) -> None:
    from reasoning_ext.data.duplicates import deduplicate

    rows, by = prepared.rows, "row" if options.stage in FROM_DATA else "prompt"
    prepared.rows, removed = deduplicate(rows, str(options.deduplicate), by=by)
    prepared.note(f"deduplicate {options.deduplicate}", prepared.rows, len(removed))
    prepared.remove("deduplicate", rows, removed)


def _decontaminate(options: RowOptions, prepared: Prepared, count: Any) -> None:
    from reasoning_ext.data.contamination import decontaminate, evaluation_questions

    rows, sets = prepared.rows, evaluation_questions(options)
    prepared.rows, removed = decontaminate(rows, sets)
    prepared.note("decontaminate", prepared.rows, len(removed), questions=sum(map(len, sets.values())))
    prepared.remove("decontaminate", rows, removed)


STEPS = {"trace_filters": _filter, "deduplicate": _deduplicate, "decontaminate": _decontaminate}
