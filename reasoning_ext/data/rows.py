"""Rows as a stage uses them: read, formatted, mixed, filtered, without duplicates and without evaluation problems.

Every step that drops rows says how many, and the run's folder keeps the counts (`data.json`), the rows that were removed as
duplicates or as problems of an evaluation set, and the first few that each filter dropped (`removed.jsonl`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.columns import ROW_COLUMNS, SIDES, DataError, check_columns, columns_of
from reasoning_ext.data.format import NoRowFits, find_format, format_rows
from reasoning_ext.data.mixture import mix
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import TEST, TRAIN, RowOptions, Source
from reasoning_ext.data.sources import has_one_split, load_rows, refuse_split
from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.spec import NOT_COLUMNS, RewardSpec, needed_columns

if TYPE_CHECKING:
    from datasets import Dataset

PASS_RATE = "pass_rate"  # the column of prompts that a sample stage has rated


def prepare(
    options: RowOptions,
    split: str = TRAIN,
    count: Callable[[str], int] | None = None,
    specs: Sequence[RewardSpec] = (),
    look: int | None = None,
) -> Prepared:
    """Do everything to a recipe's rows that it asks for; those of an evaluation are used as they are.

    Args:
        options: of the recipe.
        split: TRAIN or TEST; what is held out is measured as it is.
        count: counts the tokens of a text, for filters by length; None: no tokenizer is at hand yet.
        specs: the rewards; rows without a gold that one of them would judge are dropped.
        look: read so many rows of each data set at the most, and drop those alone that say nothing.

    Raises:
        DataError: the rows cannot be read or do not fit, or none is left; its key may be a path into the recipe.
    """
    prepared = Prepared()
    rows = read_rows(options, split, look, prepared)
    if options.stage != "eval":
        rows = _prepared_rows(options, rows, split == TRAIN and look is None, count, specs, prepared)
        if look is None and getattr(rows, "num_rows", 1) == 0:
            raise DataError(options.key, f"no row is left after {'; '.join(prepared.lines())}")
        if look is None and split == TRAIN and hasattr(rows, "num_rows"):
            _check_when(options, rows, specs)
    prepared.rows = rows
    return prepared


def _prepared_rows(
    options: RowOptions,
    rows: Dataset,
    whole: bool,
    count: Callable[[str], int] | None,
    specs: Sequence[RewardSpec],
    prepared: Prepared,
) -> Dataset:
    wanted = [key for key in ("trace_filters", "deduplicate", "decontaminate") if whole and getattr(options, key)]
    if wanted and not hasattr(rows, "num_rows"):
        raise DataError(wanted[0], "found with dataset_streaming: true, allowed: on a data set that is read as a whole")
    if whole and options.difficulty is not None:
        rows = _of_difficulty(rows, options.difficulty, prepared)
    rows = rows if options.agrees else _with_gold(rows, specs, prepared)
    if options.stage == "sft":
        rows = _kept(rows, ["completion"], has_completion, "without a completion", prepared)
    if options.stage == "dpo":
        rows = _kept(rows, [*SIDES], has_sides, "without a chosen or a rejected answer", prepared)
        rows = _kept(rows, [*SIDES], differs, "with the same answer chosen and rejected", prepared)
    if "trace_filters" in wanted:
        rows = _filtered(options, rows, count, prepared)
    if "deduplicate" in wanted:
        from reasoning_ext.data.duplicates import deduplicate

        by = "row" if options.stage in FROM_DATA else "prompt"
        left, removed = deduplicate(rows, str(options.deduplicate), by=by)
        prepared.note(f"deduplicate {options.deduplicate}", left, len(removed))
        prepared.remove("deduplicate", rows, removed)
        rows = left
    if "decontaminate" in wanted:
        from reasoning_ext.data.contamination import decontaminate, evaluation_questions

        sets = evaluation_questions(options)
        left, removed = decontaminate(rows, sets)
        prepared.note("decontaminate", left, len(removed), questions=sum(map(len, sets.values())))
        prepared.remove("decontaminate", rows, removed)
        rows = left
    return rows


def read_rows(
    options: RowOptions, split: str = TRAIN, limit: int | None = None, prepared: Prepared | None = None
) -> Dataset:
    """Read, format and mix the rows that a recipe names.

    Args:
        options: of the recipe.
        split: TRAIN or TEST.
        limit: read so many rows of each data set at the most, in the proportions in which they lie there.
        prepared: gets the counts.

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
        rows = rows.take(_at_most(options.max_samples, rows))
    prepared.note("mixture", rows, 0)
    return rows


def _read_source(source: Source, split: str, limit: int | None, prepared: Prepared) -> Dataset:
    """Read and format one data set; of a mixture, with its own columns."""
    _check_split(source, split)
    try:
        rows, read, dropped = _first_rows(source, split, limit)
    except DataError as error:
        if error.key == "dataset_format" and "dataset_format" not in source.named:
            hint = "say how its rows are read with dataset_format or rename_columns"
            raise DataError("dataset_name", error.problem.found, hint=hint, code=error.problem.code) from error
        raise
    if source.index is not None and source.stage in ROW_COLUMNS:
        check_columns(columns_of(rows), ROW_COLUMNS[source.stage])
    if source.extra:
        fresh = {"load_from_cache_file": False} if read is not None else {}
        rows = rows.map(lambda row: source.extra, **fresh)
    more: dict[str, Any] = {"read": read} if dropped else {}
    if source.test_size is not None:
        more["test_size"] = source.test_size
    elif split == TEST and split not in source.named and has_one_split(source.path):
        more["split"] = "train, the only one"
    prepared.note(source.name, rows, dropped, **more)
    if source.stage not in ROW_COLUMNS and (names := [name for name in columns_of(rows) if name in NOT_COLUMNS]):
        rows = rows.remove_columns(names)
        prepared.note(f"without {', '.join(names)}, names of TRL's that rewards cannot read", rows, 0)
    return rows


def _first_rows(source: Source, split: str, limit: int | None) -> tuple[Dataset, int | None, int]:
    """Return formatted rows, how many were read, None where they stream, and how many of them the format dropped."""
    own = source.max_samples
    try:
        return _formatted(source, split, min((n for n in (limit, own) if n is not None), default=None))
    except NoRowFits:
        if limit is None or (own is not None and own <= limit):
            raise
    rows, read, dropped = _formatted(source, split, own)  # the first rows are no sample of the others
    return rows.take(_at_most(limit, rows)), read, dropped


def _formatted(source: Source, split: str, limit: int | None) -> tuple[Dataset, int | None, int]:
    rows = load_rows(source.path, source.folder, source.splits[split], max_samples=limit, **source.reading)
    read = rows.num_rows if hasattr(rows, "num_rows") else None
    dropped: list[int] = []
    rows = format_rows(rows, find_format(source.format, source.folder), dropped=dropped, **source.formatting)
    return rows, read, len(dropped)


def _at_most(count: int, rows: Any) -> int:
    """Return how many rows can be taken: datasets 4 takes no more than there are."""
    return min(count, rows.num_rows) if hasattr(rows, "num_rows") else count


def _check_split(source: Source, split: str) -> None:
    """Refuse a split that a file does not have, and to call the rows that a stage trains on held out."""
    refuse_split(source.path, split, source.splits[split] if split in source.named else None, source.test_size)
    if source.stage not in TRAINED or split != TEST or source.test_size is not None:
        return
    train, test = source.splits[TRAIN], source.splits[TEST]
    if has_one_split(source.path) and "[" not in train + test:
        hint = "write test_size: 0.1 to hold rows out, or train[:90%] and train[90%:] for the two keys"
        raise DataError(TEST, f"found {test}, but {Path(source.path).name} has one split; {hint}")


def stage_columns(recipe: Recipe, specs: Sequence[RewardSpec]) -> dict[str, str]:
    """Return the columns that a recipe's rows must have, `{column: who needs it}`."""
    needed = ROW_COLUMNS.get(recipe.stage) or {"prompt": f"stage {recipe.stage}"} | needed_columns([*specs])
    agrees = recipe.stage == "sample" and recipe.get("min_agreement") is not None
    return {column: who for column, who in needed.items() if not (agrees and column == "answer")}


def has_gold(answer: Any) -> bool:
    """Tell whether an answer is one that a completion could be compared with."""
    is_empty = isinstance(answer, list) and not answer
    return answer is not None and not is_empty and answer == answer and bool(str(answer).strip())  # NaN is not NaN


def has_completion(row: dict[str, Any]) -> bool:
    """Tell whether a row's completion says anything."""
    return bool(row["completion"]) and bool(think.content(row["completion"]).strip())


def _of_difficulty(rows: Dataset, bounds: list[float], prepared: Prepared) -> Dataset:
    """Keep the prompts whose pass rate lies between two bounds, both included; those without one are dropped."""
    low, high = bounds
    if PASS_RATE not in columns_of(rows):
        problem = f"found {[low, high]}, but the rows have no column {PASS_RATE}; name the output_dir of a sample stage"
        raise DataError("difficulty", f"{problem}, or its prompts.jsonl")

    def stays(row: dict[str, Any]) -> bool:
        return row[PASS_RATE] is not None and low <= float(row[PASS_RATE]) <= high

    return _kept(rows, [PASS_RATE], stays, f"difficulty {low:g} to {high:g}", prepared)


def _with_gold(rows: Dataset, specs: Sequence[RewardSpec], prepared: Prepared) -> Dataset:
    """Drop the rows whose gold is missing where a reward would ask for it."""
    judges = [spec for spec in specs if "answer" in spec.columns]
    asked = {column for spec in judges for column in spec.when}
    if not judges:
        return rows

    def stays(row: dict[str, Any]) -> bool:
        return has_gold(row["answer"]) or not any(
            all(row[column] in allowed for column, allowed in spec.when.items()) for spec in judges
        )

    return _kept(rows, ["answer", *sorted(asked - {"answer"})], stays, "without a gold", prepared)


def has_sides(row: dict[str, Any]) -> bool:
    """Tell whether both sides of a pair say something.

    Raises:
        DataError: a side is not one message of the assistant; what stands before that would be lost.
    """
    for side in SIDES:
        messages = row[side]
        if messages and (
            not isinstance(messages, list) or [isinstance(m, dict) and m.get("role") for m in messages] != ["assistant"]
        ):
            problem = f"the column {side} holds {messages!r:.60}, allowed: text, or one message of the assistant"
            raise DataError("dataset_name", f"{problem}; write dataset_format: preferences for whole conversations")
    return all(row[side] and think.content(row[side]).strip() for side in SIDES)


def differs(row: dict[str, Any]) -> bool:
    """Tell whether the sides of a pair say different things."""
    return think.content(row["chosen"]) != think.content(row["rejected"])


def _kept(rows: Dataset, columns: list[str], stays: Callable[[dict], bool], step: str, prepared: Prepared) -> Dataset:
    """Keep the rows of which `stays`, a function of the columns, is true; record how many were dropped, if any."""
    if not {*columns} <= {*columns_of(rows)}:
        return rows  # refused where the columns are checked
    if not hasattr(rows, "num_rows"):
        return rows.filter(stays)
    kept = [i for i, row in enumerate(rows.select_columns(columns)) if stays(row)]
    if len(kept) == rows.num_rows:
        return rows
    prepared.note(step, rows.select(kept), rows.num_rows - len(kept))
    return rows.select(kept)


def _check_when(options: RowOptions, rows: Dataset, specs: Sequence[RewardSpec]) -> None:
    """Refuse a value of a reward's `when` that no row has: the reward would never count there, and nobody would see it."""
    for i, spec in enumerate(specs):
        for column, allowed in spec.when.items():
            if column not in rows.column_names:
                continue  # refused where the columns are checked
            there = {json.dumps(value): value for value in rows[column]}
            missing = [value for value in allowed if value not in there.values()]
            if missing:
                shown = ", ".join([repr(value) for value in there.values()][:8]) + (" ..." if len(there) > 8 else "")
                place: Any = ("reward_funcs", i, options.rewards[i], "when", column)
                raise DataError(place, f"found {missing[0]!r}, which no row has; the column {column} holds {shown}")


def _filtered(options: RowOptions, rows: Dataset, count: Callable[[str], int] | None, prepared: Prepared) -> Dataset:
    from reasoning_ext.data.filters import TraceFilters, filter_traces

    filters = options.trace_filters or TraceFilters()
    filters = filters if count else replace(filters, min_tokens=None, max_tokens=None)
    kept, records = filter_traces(rows, filters, count or len)
    left = rows.num_rows
    for record in records:
        step, left = f"trace_filters.{record['filter']}", left - record["dropped"]
        more = {name: value for name, value in record.items() if name not in ("filter", "before", "dropped")}
        prepared.steps.append({"step": step, "rows": left, "dropped": record["dropped"], **more})
        prepared.remove(step, rows, [{"row": row} for row in record["examples"]])
    return kept
