"""The raw rows of a data set, wherever they are: the hub, files and folders, sample runs, generators."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.calls import held
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import OddColumn, features_of
from reasoning_ext.data.held_out import SPLITS, split_off
from reasoning_ext.data.tables import ALLOWED, kind_of, table
from reasoning_ext.errors import one_line
from reasoning_ext.recipe.plugins import Plugin, find_plugin
from reasoning_ext.recipe.user_code import where
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import unfinished

if TYPE_CHECKING:
    from datasets import Dataset

HERE = "where the hub cannot be asked, or asks for a token (HF_TOKEN), name a file with its rows"
SAMPLES, SUMMARY = "samples.jsonl", "summary.json"  # in the folder of every run of `stage: sample`
# what a run of `stage: sample` hands to another stage
KEPT_ROWS = dict.fromkeys(("grpo", "sample", "eval"), "prompts.jsonl") | {"sft": "sft.jsonl", "dpo": "pairs.jsonl"}


def is_generator(name: str) -> bool:
    """Tell whether a data set's name is a Python file that makes its rows."""
    return name.partition(":")[0].endswith(".py")


def find_generator(name: str, folder: Path) -> Plugin:
    """Find the function that makes a data set's rows; LookupError where there is none."""
    return find_plugin(name, [], folder)


def local_source(name: str) -> Path | None:
    """Return the path of a data set that is a local file or folder, or None for a hub name.

    A name is local when it starts with `.`, `/` or `~`, has a data file's suffix, has two slashes or more, or exists.
    """
    path = Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or kind_of(path) is not None or name.count("/") > 1
    return path if looks_local or path.exists() else None


def is_sampled(source: Path) -> bool:
    """Tell whether a folder is that of a run of `stage: sample`."""
    return any((source / name).is_file() for name in (SAMPLES, KEPT_ROWS["sft"]))


def nothing_accepted(counts: dict[str, Any]) -> str:
    """Say what became of completions of which none was accepted, by `summary.json`, and what to change."""
    anew = "in the recipe that samples, and remove its output_dir"
    todo = {
        "cut off": f"raise max_completion_length {anew}",
        "wrong": f"lower min_reward, where one is set; or take easier problems or a stronger model {anew}",
        "unjudged": "no reward could judge them: see the golds, or write min_agreement",
        "other ends": f"mend what samples.jsonl has as their error {anew}",
        "failed": "see to the server",
        "forced": "write keep_forced: true to keep what has forced tokens",
    }
    wrong = counts.get("finished", 0) - counts.get("unjudged", 0) - counts.get("forced", 0)
    found = {name: wrong if name == "wrong" else counts.get(name, 0) for name in todo}
    said = ", ".join(f"{count} {name}" for name, count in found.items() if count)
    ends = ", ".join(f"{count} {name}" for name, count in counts.get("errors", {}).items())
    mend = f"{todo[max(found, key=lambda name: found[name])]}{f' ({ends})' if ends else ''}"
    return f"nothing was accepted of {counts.get('sampled', 0)} completions ({said}); {mend}"


def has_one_split(name: str) -> bool:
    """Tell whether a data set is a file, a sample run, or saved without splits; its rows are the split `train`."""
    source = None if is_generator(name) else local_source(name)
    if source is None:
        return False
    return kind_of(source) is not None or (source / "dataset_info.json").is_file() or is_sampled(source)


def check_split(name: str, key: str, split: str | None, test_size: float | None = None, trained: str = "") -> None:
    """Refuse a split, None if a recipe asks for none, that a data set cannot have, or that holds the rows of `trained`.

    Raises:
        DataError: there is no such split.
    """
    if test_size is not None and split not in (None, *SPLITS):
        raise DataError(key, f"found {split} with test_size", f"{' and '.join(SPLITS)}, the two parts")
    base, is_part, _ = f"{split or 'train'}".partition("[")
    if (
        test_size is None
        and (base != "train" or (trained and not is_part and "[" not in trained))
        and has_one_split(name)
    ):
        hint = "write test_size: 0.1 to hold rows out, or name parts of it, train[:90%] and train[90%:]"
        raise DataError(key, f"found {split}, but {Path(name).name} has one split, train", hint=hint)


def load_rows(
    name: str,
    folder: Path,
    split: str = "train",
    config: str | None = None,
    gen_kwargs: dict[str, Any] | None = None,
    max_samples: int | None = None,
    streaming: bool = False,
    stage: str = "sft",
    test_size: float | None = None,
    renamed: dict[str, str] | None = None,
) -> Dataset:
    """Read the raw rows of a data set; it streams where `streaming` is true and the source is the hub or files.

    Args:
        name: a hub name; a local JSON, JSONL, CSV, TSV or parquet file, or a folder of such files; a folder from
            `save_to_disk`; the output_dir of a `sample` stage, of which the file for `stage` is read;
            `file.py:function`, a generator called as `function(split=..., **gen_kwargs)`; or `reasoning_gym:TASK`.
        folder: the recipe's folder, which `file.py` is relative to.
        split: the split, or a slice of it as `datasets` writes it, `train[:100]`; a local file has `train` alone.
        test_size, renamed: the split `train` is parted in two, `train` and `test`, by `held_out.split_off`.

    Raises:
        DataError: there is no such data set or split, or it has no rows.
    """
    import datasets

    from reasoning_ext.data.gym import gym_rows, is_gym

    wanted, source = "train" if test_size is not None else split, local_source(name)
    try:
        if is_generator(name):
            rows = _generate(name, folder, wanted, gen_kwargs or {}, max_samples)
        elif is_gym(name):
            rows = datasets.Dataset.from_list(gym_rows(name, wanted, gen_kwargs or {}, max_samples))
        elif source is None:
            rows = datasets.load_dataset(name, config, split=wanted, streaming=streaming)
        else:
            rows = _read_local(name, source, wanted, streaming, stage)
        rows = rows if test_size is None else split_off(rows, test_size, split, renamed)
        rows = rows if max_samples is None else first_rows(rows, max_samples)
        columns = rows.column_names or next(iter(rows), None)
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        hint = "" if source or is_generator(name) or is_gym(name) else HERE
        raise DataError("dataset_name", f"cannot read {name}, split {split}: {one_line(cause)}", hint=hint) from error
    if not columns or getattr(rows, "num_rows", 1) == 0:
        raise DataError("dataset_name", f"{name} has no rows in split {split}")
    return rows


def first_rows(rows: Dataset, count: int) -> Dataset:
    """Return the first so many rows, or all: datasets 4 takes no more than there are."""
    return rows.take(min(count, rows.num_rows) if hasattr(rows, "num_rows") else count)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file; a torn last line, which a crash leaves, is left out."""
    rows = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError:
            if line.endswith(b"\n"):
                raise
    return rows


def _read_local(name: str, source: Path, split: str, streaming: bool, stage: str) -> Dataset:
    """Read a data file, a folder of data files, what a sample run kept, or a folder from `save_to_disk`."""
    import datasets

    saved = any((source / file).is_file() for file in ("dataset_info.json", "dataset_dict.json"))
    if streaming or saved:
        _refuse_slice(name, split)
    if saved:
        rows = datasets.load_from_disk(str(source))
        if isinstance(rows, dict) and split not in rows:
            raise DataError("dataset_name", f"found the split {split}, allowed for {source}: {', '.join(rows)}")
        return rows[split] if isinstance(rows, dict) else rows
    if is_sampled(source):
        if problem := unfinished(source, str(source)):
            raise DataError("dataset_name", problem)
        source /= KEPT_ROWS[stage]
        if source.is_file() and not source.stat().st_size:
            found = read_object(source.with_name(SUMMARY))
            none = (
                nothing_accepted(found) if not found.get("accepted") else "no prompt has a right and a wrong completion"
            )
            raise DataError("dataset_name", f"{source} is empty: {none}")
    if not source.exists():
        raise DataError("dataset_name", f"no file or folder {source}")
    if source.is_dir():
        return _read_folder(source, split, streaming)
    if kind_of(source) is None:
        raise DataError("dataset_name", f"found {source}", f"{ALLOWED}, a saved data set, a sample run")
    return _read_files([str(source)], split, streaming)


def _read_folder(folder: Path, split: str, streaming: bool) -> Dataset:
    """Read a folder of data files of one kind, of which `datasets` tells the splits by the files' names."""
    from datasets.data_files import DataFilesDict, get_data_patterns

    folder = folder.absolute()  # as `datasets` names what it finds there
    files = sorted(f for f in folder.rglob("*") if kind_of(f) and not f.name.startswith("."))
    kinds = {kind_of(f) for f in files}
    if len(kinds) != 1:
        raise DataError("dataset_name", f"found data files of {len(kinds)} kinds in {folder}", f"one kind of {ALLOWED}")
    splits = DataFilesDict.from_patterns(get_data_patterns(str(folder)), str(folder))
    name = split.partition("[")[0]
    named = [file for file in splits.get(name, []) if Path(file) in files]
    if not named:
        raise DataError("dataset_name", f"found the split {name}, allowed for {folder}: {', '.join(map(str, splits))}")
    return _read_files(named, split, streaming)


def _read_files(files: list[str], split: str, streaming: bool) -> Dataset:
    """Read files of one kind, as they stand there; parquet has types of its own. Their rows are the split `train`."""
    import datasets
    import pyarrow.parquet as pq

    split = "train" + "".join(split.partition("[")[1:])
    if kind_of(Path(files[0])) == "parquet":
        if not sum(pq.read_metadata(file).num_rows for file in files):
            raise DataError("dataset_name", f"{files[0]} is empty: there are no rows")
        return datasets.load_dataset("parquet", data_files={"train": files}, split=split, streaming=streaming)
    rows = table(files)
    if split != "train":
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({"train": rows.num_rows})
        rows = rows.select([i for part in parts for i in range(part.from_, part.to)])
    return rows.to_iterable_dataset() if streaming else rows


def _refuse_slice(name: str, split: str) -> None:
    if "[" in split:
        found = f"found the split {split}, allowed for {name}: a name without a slice"
        raise DataError("dataset_name", found, hint="use max_samples")


def _generate(name: str, folder: Path, split: str, gen_kwargs: dict[str, Any], max_samples: int | None) -> Dataset:
    from datasets import Dataset

    _refuse_slice(name, split)
    try:
        plugin = find_generator(name, folder)
    except LookupError as error:
        raise DataError("dataset_name", str(error.args[0])) from error
    known = {*plugin.options, *plugin.required} - {"split"}
    if unknown := [key for key in gen_kwargs if key not in known and key != "seed"]:
        has = ", ".join(sorted(known)) or "none"
        raise DataError("gen_kwargs", f"{plugin.name} has no parameter {unknown[0]}; it has {has}")
    if max_samples is not None and "num_rows" in known and type(gen_kwargs.get("num_rows", max_samples)) is int:
        gen_kwargs = gen_kwargs | {"num_rows": min(max_samples, gen_kwargs.get("num_rows", max_samples))}
    try:
        made = plugin.load()(split=split, **{key: value for key, value in gen_kwargs.items() if key in known})
        made = [held(dict(row)) for row in islice(made, max_samples)]
    except (Exception, SystemExit) as error:
        reason = one_line(error)
        raise DataError("dataset_name", f"{where(plugin.file, error)} failed: {reason}") from error
    try:
        features = features_of(made)
    except OddColumn as error:
        raise DataError("dataset_name", f"{plugin.name} gives what no column holds: {error}") from error
    return Dataset.from_list([{name: row.get(name) for name in features} for row in made], features=features)
