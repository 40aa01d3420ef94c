"""What is held out of a file, and which problems a run was trained on: both know a problem by its text.

A file with `test_size` has the splits `train` and `test`. A row's side is decided by its problem alone, whatever the
recipe, its seed and its format: each stage that names the file with the same `test_size` sees the same two parts, and
a problem that stands in several rows is on one side with all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.values import digest
from reasoning_ext.runs.files import whole_file
from reasoning_ext.runs.folder import is_main

if TYPE_CHECKING:
    from datasets import Dataset

PROBLEMS = "problems.txt"  # in a run's folder: a digest a line of each problem in its training data
QUESTIONS = ("problem", "question", "prompt", "Problem", "Question", "query", "instruction")
# alpaca, SVAMP: what is asked, in two
PARTS = {"instruction": ("instruction", "input"), "Question": ("Body", "Question")}
TURNS = ("messages", "conversations")
SPLITS = ("train", "test")


def split_off(rows: Dataset, test_size: float, split: str, renamed: dict[str, str] | None = None) -> Dataset:
    """Return one of the two parts of raw rows, `train` or `test`, in their order.

    Args:
        test_size: rows held out, a share below 1 or a number; a few more where the last problem has several rows.
        renamed: `{column: the name that a recipe gives it}`, by which the problem is known.

    Raises:
        DataError: one of the parts would be empty.
    """
    wanted = math.ceil(test_size * rows.num_rows) if test_size < 1 else int(test_size)
    digests = [digest(key) for key in _keys(rows, renamed or {})]
    ordered = sorted(digests)
    held = {one for one in ordered if wanted and one <= ordered[min(wanted, len(ordered)) - 1]}
    chosen = [i for i, one in enumerate(digests) if (one in held) == (split == "test")]
    if not 0 < len(chosen) < rows.num_rows:
        found = f"found {test_size:g} for {rows.num_rows} rows of {len({*digests})} problems"
        raise DataError("test_size", found, "what leaves rows to train on")
    return rows.select(chosen)


def question_columns(columns: list[str], renamed: dict[str, str] | None = None) -> list[str]:
    """Return the columns that say what a row asks: one, or two of `PARTS`; none where no name is known.

    `renamed` is `{column: the name that a recipe gives it}`.
    """
    named = {name: column for column, name in (renamed or {}).items()}
    found = next((column for name in QUESTIONS if (column := named.get(name, name)) in columns), None)
    return [column for column in PARTS.get(str(found), (found,)) if column in columns]


def parted_by(columns: list[str], renamed: dict[str, str] | None = None) -> list[str]:
    """Return the columns by which rows are told apart: the question's, or that of the turns of a chat; else all."""
    named = {name: column for column, name in (renamed or {}).items()}
    chats = [column for name in TURNS if (column := named.get(name, name)) in columns][:1]
    return question_columns(columns, renamed) or chats or columns


def _keys(rows: Dataset, renamed: dict[str, str]) -> Iterator[str]:
    """Yield what each row asks: the text of its question, or of its first turns of the user; else the whole row."""
    columns = parted_by(rows.column_names, renamed)
    for row in rows.select_columns(columns):
        [value] = row.values() if len(columns) == 1 else [row]
        if isinstance(value, list):
            turns = [turn for turn in value if isinstance(turn, dict)]
            users = [turn for turn in turns if (turn.get("role") or turn.get("from")) in ("user", "human")]
            value = [turn.get("content") or turn.get("value") for turn in users] or value
        yield " ".join(str(value).casefold().split())


def digests_of(prompts: Iterable[Any]) -> list[str]:
    """Return a digest of each prompt's problem, the same for what is only spelt otherwise, without system prompts."""
    from reasoning_ext.data.duplicates import normalise, prompt_text

    return [digest(normalise(prompt_text(prompt, ("user",)))).hex() for prompt in prompts]


def trained_digests(rows: Any) -> set[str] | None:
    """Return the digests of the problems in rows, each turn of a chat by itself too; None of a stream."""
    if not hasattr(rows, "num_rows") or "prompt" not in rows.column_names:
        return None
    found: set[str] = set()
    for batch in rows.select_columns(["prompt"]).iter(1000):
        chats = [prompt for prompt in batch["prompt"] if not isinstance(prompt, str)]
        found.update(digests_of(batch["prompt"]))
        found.update(digests_of([message] for chat in chats for message in chat if message["role"] == "user"))
    return found


def write_problems(folder: Path, rows: Any) -> None:
    """Keep in a run's folder which problems it is trained on, where its rows do not stream."""
    if is_main() and (found := trained_digests(rows)) is not None:
        with whole_file(folder / PROBLEMS) as file:
            file.writelines(f"{one}\n" for one in sorted(found))


def read_problems(folder: Path) -> set[str] | None:
    """Return the digests of the problems that a run was trained on; None where it has not kept them."""
    file = folder / PROBLEMS
    return set(file.read_text(encoding="utf-8").split()) if file.is_file() else None
