"""Rows as a stage trains on them: read, formatted, mixed, filtered, without duplicates and without evaluation problems.

Every step that drops rows says how many, and the run's folder keeps the counts (`data.json`), the rows that were removed as
duplicates or as problems of an evaluation set, and the first few that each filter dropped (`removed.jsonl`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data import ROW_COLUMNS, SIDES, DataError, columns_of, find_format, format_rows
from reasoning_ext.formats._chat import read_chat
from reasoning_ext.held_out import QUESTIONS
from reasoning_ext.own_keys import FROM_DATA, QUESTION_KEYS
from reasoning_ext.reading import Prepared, recipe_rows
from reasoning_ext.recipe import Recipe
from reasoning_ext.reward_loading import RewardSpec, needed_columns
from reasoning_ext.sources import is_generator, load_rows, refuse_split

if TYPE_CHECKING:
    from datasets import Dataset

PASS_RATE = "pass_rate"  # the column of prompts that a sample stage has rated


def prepare(
    recipe: Recipe,
    split_key: str = "dataset_train_split",
    count: Callable[[str], int] | None = None,
    specs: list[RewardSpec] | None = None,
) -> Prepared:
    """Do everything to a recipe's rows that it asks for.

    Args:
        recipe: of a stage that trains or samples.
        split_key: as in `recipe_rows`.
        count: counts the tokens of a text, for filters by length.
        specs: the rewards; rows without a gold that one of them would judge are dropped.

    Raises:
        UserError: as `recipe_rows`; no row is left.
    """
    prepared = Prepared()
    rows = recipe_rows(recipe, split_key, prepared=prepared)
    streamed = not hasattr(rows, "num_rows")
    keys = [key for key in ("trace_filters", "deduplicate", "decontaminate") if key in recipe.keys]
    training = split_key == "dataset_train_split"  # what is held out is measured as it is
    wanted = [key for key in keys if training and recipe.get(key) not in (None, "none", {}, [])]
    if streamed and wanted:
        raise DataError(wanted[0], "found with dataset_streaming: true, allowed: on a data set that is read as a whole")
    if training and "difficulty" in recipe.keys and recipe.get("difficulty") is not None:
        rows = _of_difficulty(rows, recipe.get("difficulty"), prepared)
    agrees = "min_agreement" in recipe.keys and recipe.get("min_agreement") is not None
    rows = rows if agrees else _with_gold(rows, specs or [], prepared)
    rows = _with_completion(rows, prepared) if recipe.stage == "sft" else rows
    rows = _with_pairs(rows, prepared) if recipe.stage == "dpo" else rows
    if "trace_filters" in wanted:
        rows = _filtered(recipe, rows, count, prepared)
    if "deduplicate" in wanted:
        from reasoning_ext.deduplication import deduplicate

        by = "row" if recipe.stage in FROM_DATA else "prompt"
        left, removed = deduplicate(rows, recipe.get("deduplicate"), by=by)  # type: ignore[arg-type]
        prepared.note(f"deduplicate {recipe.get('deduplicate')}", left, len(removed))
        prepared.remove("deduplicate", rows, removed)
        rows = left
    if "decontaminate" in wanted:
        from reasoning_ext.decontamination import decontaminate

        sets = evaluation_questions(recipe)
        left, removed = decontaminate(rows, sets)
        prepared.note("decontaminate", left, len(removed), questions=sum(map(len, sets.values())))
        prepared.remove("decontaminate", rows, removed)
        rows = left
    if not streamed and rows.num_rows == 0:
        key = "datasets" if recipe.get("datasets") else "dataset_name"
        raise DataError(key, f"no row is left after {'; '.join(prepared.lines())}")
    if not streamed and training:
        _check_when(recipe, rows, specs or [])
    prepared.rows = rows
    return prepared


def evaluation_questions(recipe: Recipe) -> dict[str, list[str]]:
    """Read the questions that must not be trained on.

    Returns:
        `{name of the set: its questions}` for each entry of `decontaminate`: a name, a file, or a mapping.

    Raises:
        UserError: one of them cannot be read.
    """
    sets: dict[str, list[str]] = {}
    for i, entry in enumerate(recipe.get("decontaminate") or []):
        place = ("decontaminate", i)
        values = {"dataset_name": entry} if isinstance(entry, str) else entry
        name = values.get("dataset_name") if isinstance(values, dict) else None
        if not isinstance(name, str):
            raise recipe.error(place, f"found {entry!r}, allowed: a name, a file, or a mapping with dataset_name")
        for key, value in values.items():
            if key not in QUESTION_KEYS:
                allowed = ", ".join(QUESTION_KEYS)
                raise recipe.error((*place, key), f"unknown key (found {key}), allowed: {allowed}")
            if not isinstance(value, str):
                raise recipe.error((*place, key), f"found {value!r}, allowed: text; write it in quotes")
        try:
            split, config = values.get("dataset_test_split", "test"), values.get("dataset_config")
            source = name if is_generator(name) else recipe.local(name)
            refuse_split(source, "dataset_test_split", values.get("dataset_test_split"))
            rows = load_rows(source, recipe.folder, split=split, config=config, stage="eval")
            if "dataset_format" in values:
                rows = format_rows(rows, find_format(values["dataset_format"], recipe.folder))
            called = f"{name}/{config}:{split}" if config else f"{name}:{split}"
            sets[called] = sets.get(called, []) + _questions(rows)
        except LookupError as error:
            raise recipe.error((*place, "dataset_format"), str(error.args[0])) from error
        except DataError as error:
            raise recipe.error(place, str(error)) from error
    return sets


def _questions(rows: Dataset) -> list[str]:
    """Return the questions of an evaluation set that have words."""
    from reasoning_ext.decontamination import split_words
    from reasoning_ext.deduplication import prompt_text

    column = next((name for name in QUESTIONS if name in rows.column_names), None)
    if column is None:
        raise DataError(
            "decontaminate", f"found the columns {', '.join(rows.column_names)}; write dataset_format for it"
        )
    try:
        values = [read_chat(value, column) if isinstance(value, list) else value for value in rows[column]]
        texts = [prompt_text(value, ("user",)) for value in values if value is not None]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError("decontaminate", f"the column {column} holds no text; write dataset_format for it") from error
    questions = [text for text in texts if split_words(text)]
    if not questions:
        raise DataError("decontaminate", f"found no question with words in the column {column}")
    return questions


def stage_columns(recipe: Recipe, specs: list[RewardSpec]) -> dict[str, str]:
    """Return the columns that a recipe's rows must have, `{column: who needs it}`."""
    needed = ROW_COLUMNS.get(recipe.stage) or {"prompt": f"stage {recipe.stage}"} | needed_columns(specs)
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


def stays(recipe: Recipe, row: dict[str, Any]) -> bool:
    """Tell whether `prepare` would keep a row: those that say nothing, or nothing to choose from, and those without a gold go."""
    if recipe.stage == "sft":
        return has_completion(row)
    if recipe.stage == "dpo":
        return has_sides(row) and differs(row)
    return recipe.stage == "eval" or "answer" not in row or has_gold(row["answer"])


def _with_gold(rows: Dataset, specs: list[RewardSpec], prepared: Prepared) -> Dataset:
    """Drop the rows whose gold is missing where a reward would ask for it."""
    judges = [spec for spec in specs if "answer" in spec.columns]
    names = columns_of(rows)
    asked = {column for spec in judges for column in spec.when}
    if not judges or "answer" not in names or not asked <= {*names}:
        return rows  # refused where the columns are checked

    def stays(row: dict[str, Any]) -> bool:
        return has_gold(row["answer"]) or not any(
            all(row[column] in allowed for column, allowed in spec.when.items()) for spec in judges
        )

    return _kept(rows, ["answer", *sorted(asked - {"answer"})], stays, "without a gold", prepared)


def _with_completion(rows: Dataset, prepared: Prepared) -> Dataset:
    """Drop the rows whose completion says nothing: a model would learn from them to stop at once."""
    if "completion" not in columns_of(rows):
        return rows  # refused where the columns are checked

    return _kept(rows, ["completion"], has_completion, "without a completion", prepared)


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


def _with_pairs(rows: Dataset, prepared: Prepared) -> Dataset:
    """Drop the pairs of which a side says nothing, and those whose sides are the same: nothing is preferred in them."""
    if not {*SIDES} <= {*columns_of(rows)}:
        return rows  # refused where the columns are checked

    rows = _kept(rows, [*SIDES], has_sides, "without a chosen or a rejected answer", prepared)
    return _kept(rows, [*SIDES], differs, "with the same answer chosen and rejected", prepared)


def _kept(rows: Dataset, columns: list[str], stays: Callable[[dict], bool], step: str, prepared: Prepared) -> Dataset:
    """Keep the rows of which `stays`, a function of the columns, is true; record how many were dropped, if any."""
    if not hasattr(rows, "num_rows"):
        return rows.filter(stays)
    kept = [i for i, row in enumerate(rows.select_columns(columns)) if stays(row)]
    if len(kept) == rows.num_rows:
        return rows
    prepared.note(step, rows.select(kept), rows.num_rows - len(kept))
    return rows.select(kept)


def _check_when(recipe: Recipe, rows: Dataset, specs: list[RewardSpec]) -> None:
    """Refuse a value of a reward's `when` that no row has: the reward would never count there, and nobody would see it."""
    for i, spec in enumerate(specs):
        for column, allowed in spec.when.items():
            if column not in rows.column_names:
                continue  # refused where the columns are checked
            there = {json.dumps(value): value for value in rows[column]}
            missing = [value for value in allowed if value not in there.values()]
            if missing:
                listed = recipe.get("reward_funcs")
                entry = listed[i] if isinstance(listed, list) else {listed: {}}
                shown = ", ".join([repr(value) for value in there.values()][:8]) + (" ..." if len(there) > 8 else "")
                place = ("reward_funcs", i, next(iter(entry)), "when", column)
                raise recipe.error(place, f"found {missing[0]!r}, which no row has; the column {column} holds {shown}")


def _filtered(recipe: Recipe, rows: Dataset, count: Callable[[str], int] | None, prepared: Prepared) -> Dataset:
    from reasoning_ext.trace_filters import TraceFilters, filter_traces

    before = rows
    filters = TraceFilters(**recipe.get("trace_filters"))
    if count is None:  # no tokenizer is at hand yet
        filters = replace(filters, min_tokens=None, max_tokens=None)
    rows, records = filter_traces(rows, filters, count)
    left = before.num_rows
    for record in records:
        left -= record["dropped"]
        more = {name: value for name, value in record.items() if name not in ("filter", "before", "dropped")}
        prepared.steps.append(
            {"step": f"trace_filters.{record['filter']}", "rows": left, "dropped": record["dropped"], **more}
        )
        prepared.remove(f"trace_filters.{record['filter']}", before, [{"row": row} for row in record["examples"]])
    return rows
