"""The rows that a recipe names, read, formatted and mixed, and the record of what became of the others.

What is done to them after that is in `preparation`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.data import ROW_COLUMNS, DataError, NoRowFits, check_columns, columns_of, find_format, format_rows
from reasoning_ext.errors import UserError
from reasoning_ext.files import write_whole
from reasoning_ext.mixtures import TASK, entries, mix
from reasoning_ext.own_keys import TRAINED
from reasoning_ext.recipe import Recipe
from reasoning_ext.reward_loading import NOT_COLUMNS
from reasoning_ext.sources import has_one_split, is_generator, load_rows, refuse_split

if TYPE_CHECKING:
    from datasets import Dataset

COUNTS, REMOVED = "data.json", "removed.jsonl"
SHOWN = 160  # characters of a removed row's question


@dataclass
class Prepared:
    """Rows that are ready, and what became of the others.

    Attributes:
        rows: what a stage uses.
        steps: one mapping a step, `step`, `rows` after it and `dropped` by it, further counts.
        removed: the rows that were dropped as duplicates or as evaluation problems, and examples of filtered ones: the
            step, the row's number as the step was given it, why, and how its question begins.
    """

    rows: Any = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)

    def note(self, step: str, rows: Any, dropped: int, **more: Any) -> None:
        """Record a step."""
        count = rows.num_rows if hasattr(rows, "num_rows") else None
        self.steps.append({"step": step, "rows": count, "dropped": dropped, **more})

    def remove(self, step: str, rows: Any, found: list[dict[str, Any]]) -> None:
        """Record rows that a step removed; `rows` are those that it was given, and `found` has a `row` each."""
        from reasoning_ext.deduplication import prompt_text

        prompts = rows.select([one["row"] for one in found])["prompt"] if found else []
        for one, prompt in zip(found, prompts, strict=True):
            text = " ".join(prompt_text(prompt, ("user",)).split())
            self.removed.append({"step": step, **one, "text": text[:SHOWN] + (" ..." if len(text) > SHOWN else "")})

    def lines(self) -> list[str]:
        """Return the steps that dropped rows, or read some, as lines for people."""
        return [
            f"{step['step']}: {step['rows'] if step['rows'] is not None else 'streamed'} rows"
            + (f", {step['dropped']} dropped" if step["dropped"] else "")
            + "".join(
                f", {name} {value}"
                for name, value in step.items()
                if name not in ("step", "rows", "dropped", "examples")
            )
            for step in self.steps
        ]

    def write(self, folder: Path) -> None:
        """Keep the counts and the removed rows in a run's folder."""
        write_whole(folder / COUNTS, json.dumps(self.steps, indent=1, ensure_ascii=False))
        if self.removed:
            write_whole(folder / REMOVED, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.removed))


def recipe_rows(
    recipe: Recipe,
    split_key: str = "dataset_train_split",
    max_samples: int | None = None,
    prepared: Prepared | None = None,
) -> Dataset:
    """Read, format and mix the rows that a recipe names.

    Args:
        recipe: the recipe.
        split_key: `dataset_train_split` or `dataset_test_split`.
        max_samples: read so many rows of each data set at the most, in the proportions in which they lie there.
        prepared: gets the counts.

    Raises:
        DataError: they cannot be read or do not fit.
        UserError: an entry of `datasets` is wrong.
    """
    prepared = prepared or Prepared()
    limit = recipe.get("max_samples")
    if limit is not None and limit < 1:
        raise DataError("max_samples", f"found {limit}, allowed: 1 or more")
    if recipe.get("datasets") is None:
        return _entry_rows(recipe, split_key, max_samples, prepared)
    parts, listed = [], entries(recipe)
    for entry in listed:
        try:
            parts.append(_entry_rows(entry, split_key, max_samples, prepared))
        except DataError as error:
            raise UserError(entry.placed(error)) from error
    if max_samples is not None or split_key != "dataset_train_split":
        listed = [_plain(entry) for entry in listed]  # counts and weights are those of the rows to train on
    rows = mix(parts, listed, recipe.get("seed"))
    if limit is not None and max_samples is None:
        rows = rows.take(min(limit, rows.num_rows) if hasattr(rows, "num_rows") else limit)
    prepared.note("mixture", rows, 0)
    return rows


def _entry_rows(entry: Recipe, split_key: str, max_samples: int | None, prepared: Prepared) -> Dataset:
    """Read and format one data set; of a mixture, with its own columns."""
    _check_held_out(entry, split_key)
    rows, read, dropped = _formatted(entry, split_key, max_samples)
    if TASK in entry.keys:  # an entry of a mixture
        if entry.stage in ROW_COLUMNS:
            check_columns(columns_of(rows), ROW_COLUMNS[entry.stage])
        extra = {name: entry.values[name] for name in (TASK, "chat_template_kwargs") if entry.values.get(name)}
        fresh = {"load_from_cache_file": False} if read is not None else {}
        rows = rows.map(lambda row: extra, **fresh) if extra else rows
    more: dict[str, Any] = {"read": read} if dropped else {}
    if entry.get("test_size") is not None:
        more["test_size"] = entry.get("test_size")
    elif split_key == "dataset_test_split" and split_key not in entry.values and has_one_split(_source(entry)):
        more["split"] = "train, the only one"
    prepared.note(entry.get("dataset_name"), rows, dropped, **more)
    if entry.stage not in ROW_COLUMNS and (names := [name for name in columns_of(rows) if name in NOT_COLUMNS]):
        rows = rows.remove_columns(names)
        prepared.note(f"without {', '.join(names)}, names of TRL's that rewards cannot read", rows, 0)
    return rows


def _formatted(entry: Recipe, split_key: str, max_samples: int | None) -> tuple[Dataset, int | None, int]:
    """Return formatted rows, how many were read, None where they stream, and how many of them the format dropped."""
    own = entry.get("max_samples")
    limits = [limit for limit in (max_samples, own) if limit is not None]
    try:
        try:
            return _format(entry, split_key, min(limits) if limits else None)
        except NoRowFits:
            if max_samples is None or (own is not None and own <= max_samples):
                raise
        rows, read, dropped = _format(entry, split_key, own)  # the first rows are no sample of the others
    except DataError as error:
        if error.key == "dataset_format" and "dataset_format" not in entry.values:
            hint = "say how its rows are read with dataset_format or rename_columns"
            raise DataError("dataset_name", error.problem.found, hint=hint, code=error.problem.code) from error
        raise
    return rows.take(max_samples if read is None else min(max_samples, rows.num_rows)), read, dropped


def _format(entry: Recipe, split_key: str, limit: int | None) -> tuple[Dataset, int | None, int]:
    rows = load_rows(
        _source(entry),
        entry.folder,
        split=entry.get(split_key),
        config=entry.get("dataset_config"),
        gen_kwargs={"seed": entry.get("seed")} | (entry.get("gen_kwargs") or {}),
        max_samples=limit,
        streaming=entry.get("dataset_streaming"),
        stage=entry.stage,
        test_size=entry.get("test_size"),
        renamed=entry.get("rename_columns"),
    )
    read = rows.num_rows if hasattr(rows, "num_rows") else None
    dropped: list[int] = []
    rows = format_rows(
        rows,
        find_format(entry.get("dataset_format"), entry.folder),
        entry.get("system_prompt"),
        entry.get("rename_columns"),
        {"seed": entry.get("seed")} | (entry.get("format_kwargs") or {}),
        entry.get("assistant_turns") if "assistant_turns" in entry.keys else "last",
        dropped,
    )
    return rows, read, len(dropped)


def _plain(entry: Recipe) -> Recipe:
    """Return an entry without its share, for a look at the first rows of each."""
    return replace(entry, values={k: v for k, v in entry.values.items() if k not in ("weight", "num_rows")})


def _check_held_out(recipe: Recipe, split_key: str) -> None:
    """Refuse a split that a file does not have, and to call the rows that a stage trains on held out."""
    source, test_size = _source(recipe), recipe.get("test_size")
    refuse_split(source, split_key, recipe.values.get(split_key), test_size)
    if recipe.stage not in TRAINED or split_key != "dataset_test_split" or test_size is not None:
        return
    train, test = recipe.get("dataset_train_split"), recipe.get("dataset_test_split")
    if has_one_split(source) and "[" not in train + test:
        hint = "write test_size: 0.1 to hold rows out, or train[:90%] and train[90%:] for the two keys"
        raise DataError("dataset_test_split", f"found {test}, but {Path(source).name} has one split; {hint}")


def _source(entry: Recipe) -> str:
    """Return where a recipe's data set is: a path, or a name."""
    name = entry.get("dataset_name")
    return name if is_generator(name) else entry.local(name)
