"""What a file or a data set of the hub holds, seen before any recipe: columns, golds, traces, lengths, duplicates."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.check.golds import decimal_commas
from reasoning_ext.check.network import hub_problem
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.duplicates import deduplicate
from reasoning_ext.data.format import NoRowFits, find_format, format_rows
from reasoning_ext.data.gym import is_gym
from reasoning_ext.data.row_options import is_hub_name
from reasoning_ext.data.rows import has_gold
from reasoning_ext.data.sources import is_generator, load_rows
from reasoning_ext.errors import UserError, one_line
from reasoning_ext.init.reading import FILE, Reading, Table, reading_of, wrapped
from reasoning_ext.init.roles import MOST, SHORT, roles
from reasoning_ext.verifier import kind, unreadable

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE = 2000  # rows that columns and golds are read from, and that are read of the hub
LEAST = 10  # rows that can be parted and trained on
CHARACTERS = 2.5  # a token, where no tokenizer is at hand; English has 4, digits and other scripts fewer


@dataclass(frozen=True)
class Seen:
    """What was seen of a data set.

    Attributes:
        name, config, test_split: as a recipe names it; the last two are the hub's alone.
        rows, repeated: how many there are, None where the hub has more; how many repeat an earlier problem.
        columns: of the data.
        reading: how a row is read.
        golds: numbers, letters, words, code, rubric, prose or none.
        traces: whether completions think before they answer.
        problems, completions: tokens of the longest, and of the completion that 95 % are no longer than.
        longest: tokens of the longest problem with its completion.
        counted: whether the model's tokenizer counted; else characters were divided by `CHARACTERS`.
        left_out: how many rows cannot be read, and the first one's fault, or "".
        points: whether decimal commas of golds become points.
    """

    name: str
    config: str | None
    test_split: str | None
    rows: int | None
    repeated: int
    columns: tuple[str, ...]
    reading: Reading
    golds: str
    traces: bool
    problems: int
    completions: int
    longest: int
    counted: bool
    left_out: str
    points: bool


def look(name: str, model: str) -> Seen:
    """Look at a data set.

    Args:
        name: a file or folder, or a data set of the hub.
        model: whose tokenizer counts tokens, where it is on this machine.

    Raises:
        UserError: it cannot be read, or has no problems in it; one line.
    """
    if is_generator(name) or is_gym(name):
        raise UserError(f"{name} makes rows by itself, allowed: a data file, a folder of them, or a name of the hub")
    config, test_split, raw = _on_hub(name) if is_hub_name(name) else (None, None, load_rows(name, Path.cwd()))
    if raw.num_rows < LEAST:
        raise UserError(f"{name}: found {raw.num_rows} rows, allowed: {LEAST} or more, to part and to train on")
    step = max(1, raw.num_rows // SAMPLE)
    sample = list(raw.select(range(0, raw.num_rows, step)))
    file = re.sub(r"[^\w .,()-]", "_", Path(name).name)  # as a docstring can hold it
    table = Table(file, sample, raw.column_names, roles(sample, raw.column_names))
    reading, rows, left_out = _fitting(raw, reading_of(table), file)
    points = "answer" in rows.column_names and bool(decimal_commas(rows["answer"]))
    if points:
        reading = wrapped(reading_of(table), file, points)
        rows = _formatted(raw, reading)
    count, counted = _counter(model)
    taken = rows.select(range(0, rows.num_rows, max(1, rows.num_rows // SAMPLE)))
    completions = [_text(value) for value in taken["completion"]] if "completion" in taken.column_names else []
    asked = [count(_text(value)) for value in taken["prompt"]]
    told = [count(text) for text in completions] or [0] * len(asked)
    return Seen(
        name=name if is_hub_name(name) else from_here(name),
        config=config,
        test_split=test_split,
        rows=None if config and raw.num_rows == SAMPLE else raw.num_rows,
        repeated=len(deduplicate(rows, "exact")[1]),
        columns=tuple(raw.column_names),
        reading=reading,
        golds=reading.golds or _golds(taken),
        traces=sum(think.CLOSE in text for text in completions) > MOST * taken.num_rows,
        problems=max(asked),
        completions=sorted(told)[int(0.95 * (len(told) - 1))],
        longest=max(map(sum, zip(asked, told, strict=True))),
        counted=counted,
        left_out=left_out,
        points=points,
    )


def from_here(path: str) -> str:
    """Write a path so that a recipe finds it from the current folder: in it without `./`, elsewhere absolute."""
    near = os.path.relpath(os.path.expanduser(path))
    return os.path.abspath(os.path.expanduser(path)) if near.startswith("..") else near


def _on_hub(name: str) -> tuple[str | None, str | None, Dataset]:
    """Return the config, the split to test on, and the first rows of a data set of the hub."""
    import datasets

    if problem := hub_problem():
        raise UserError(f"{name} is no file or folder here, and {problem}")
    try:
        configs = datasets.get_dataset_config_names(name)
        splits = datasets.get_dataset_split_names(name, configs[0])
        if "train" not in splits:
            raise UserError(
                f"{name} has only {', '.join(splits)}, allowed: a data set with a split train; save its rows, "
                "datasets.load_dataset(...).to_json('rows.jsonl'), and name that file: a part is held out then"
            )
        rows = load_rows(name, Path.cwd(), "train", configs[0], max_samples=SAMPLE, streaming=True)
        test = next((split for split in ("test", "validation") if split in splits), None)
        return configs[0], test, datasets.Dataset.from_list(list(rows))
    except UserError:
        raise
    except Exception as error:  # whatever datasets and the hub make of it: scripts, rights, mixed types, a cut line
        raise UserError(f"cannot read {name}: {one_line(error)}") from error


def _fitting(raw: Dataset, reading: Reading, file: str) -> tuple[Reading, Dataset, str]:
    """Read all rows; where few of them do not fit, leave these out, and say how many and why the first does not."""
    try:
        return reading, _formatted(raw, reading), ""
    except DataError as error:
        reading = wrapped(reading, file, False)
        with contextlib.suppress(NoRowFits):
            if (rows := _formatted(raw, reading)).num_rows > MOST * raw.num_rows:
                lost = raw.num_rows - rows.num_rows
                return reading, rows, f"{lost} of {raw.num_rows} rows; {error.problem.found}"
        raise


def _formatted(raw: Dataset, reading: Reading) -> Dataset:
    """Read all rows as a recipe would, which shows that its format fits them."""
    with tempfile.TemporaryDirectory() as folder:
        if reading.code:
            (Path(folder) / FILE).write_text(reading.code, encoding="utf-8")
        return format_rows(raw, find_format(reading.format, Path(folder)), rename=reading.rename)


def _text(value: Any) -> str:
    return "\n".join(str(message["content"]) for message in value) if isinstance(value, list) else str(value or "")


def _counter(model: str) -> tuple[Callable[[str], int], bool]:
    """Return what counts tokens, and whether it is the model's tokenizer."""
    from reasoning_ext.think.render import count_tokens

    try:
        tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError):
        return lambda text: int(len(text) / CHARACTERS) + 1, False
    return lambda text: count_tokens(tokenizer, text), True


def _golds(rows: Dataset) -> str:
    """Tell what the answers of formatted rows are."""
    golds = [gold for gold in (rows["answer"] if "answer" in rows.column_names else []) if has_gold(gold)]
    texts = [gold if isinstance(gold, str) else str(gold[0]) for gold in golds]
    if len(golds) < rows.num_rows / 2:
        return "none"
    if sum(map(len, texts)) > SHORT * len(texts):
        return "prose"
    if not all(isinstance(gold, str) for gold in golds):  # alternatives, which exact_answer takes
        return "words"
    if all(len(text.strip(" ().")) == 1 and text.strip(" ().").isalpha() for text in texts):
        return "letters"
    kinds = Counter(map(kind, texts))
    read = kinds["number"] + kinds["formula"] > len(texts) / 2 and len(unreadable(texts)) <= 0.01 * len(texts)
    return "numbers" if read else "words"
