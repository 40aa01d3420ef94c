"""The raw rows of a data set, wherever they are: the hub, files and folders, saved data sets, a sample run, a generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import odd_column
from reasoning_ext.data.held_out import SPLITS, split_off
from reasoning_ext.data.tables import ALLOWED, kind_of, stream_of, table
from reasoning_ext.recipe.plugins import Plugin, find_plugin
from reasoning_ext.recipe.user_code import where
from reasoning_ext.runs.folder import unfinished

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLES = "samples.jsonl"  # in the folder of every run of `stage: sample`
# what a run of `stage: sample` hands to another stage
KEPT_ROWS = {
    "sft": "sft.jsonl",
    "dpo": "pairs.jsonl",
    "grpo": "prompts.jsonl",
    "sample": "prompts.jsonl",
    "eval": "prompts.jsonl",
}


def is_generator(name: str) -> bool:
    """Tell whether a data set's name is a Python file that makes its rows."""
    return name.partition(":")[0].endswith(".py")


def find_generator(name: str, folder: Path) -> Plugin:
    """Find the function that makes a data set's rows.

    Raises:
        LookupError: there is none of that name, or it takes no `split`.
    """
    plugin = find_plugin(name, [], folder)
    if "split" not in plugin.takes and not plugin.takes_any and not plugin.unread:
        raise LookupError(f"{plugin.function} in {plugin.file} has no parameter split; it is called with split=...")
    return plugin


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


def has_one_split(name: str) -> bool:
    """Tell whether a data set is a file, what a sample run kept, or saved without splits; its rows are the split `train`."""
    source = None if is_generator(name) else local_source(name)
    if source is None:
        return False
    return kind_of(source) is not None or (source / "dataset_info.json").is_file() or is_sampled(source)


def refuse_split(name: str, key: str, split: str | None, test_size: float | None = None) -> None:
    """Refuse a split that a recipe asks for and a data set cannot have; None: it asks for none.

    Raises:
        DataError: there is no such split.
    """
    asked = (split or "").partition("[")[0]
    if test_size is not None and split not in (None, *SPLITS):
        raise DataError(key, f"found {split} with test_size, allowed: {' and '.join(SPLITS)}, the two parts")
    if test_size is None and asked not in ("", "train") and has_one_split(name):
        hint = f"{Path(name).name} has one split, train; write that, or test_size: 0.1 to hold rows out"
        raise DataError(key, f"found {split}, but {hint}")


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
    """Read the raw rows of a data set.

    Args:
        name: a hub name; a local JSON, JSONL, CSV, TSV or parquet file, or a folder of such files; a folder from `save_to_disk`;
            the output_dir of a `sample` stage, of which the file for `stage` is read; `file.py:function`, a generator called
            as `function(split=..., **gen_kwargs)`; or `reasoning_gym:TASK`.
        folder: the recipe's folder, which `file.py` is relative to.
        split: the split, or a slice of it as `datasets` writes it, `train[:100]`; a local file has `train` alone.
        config: the hub data set's configuration.
        gen_kwargs: a generator's parameters; `seed` is left out for one that has none.
        max_samples: take the first so many rows.
        streaming: read a hub data set, or files, as it goes.
        stage: what the rows are for.
        test_size: the split `train` is parted in two, `train` and `test`, as `held_out.split_off` does it.
        renamed: names that the recipe gives to columns, for that.

    Returns:
        the rows; a data set that streams where `streaming` is true and the source is the hub or files.

    Raises:
        DataError: there is no such data set or split, or it has no rows.
    """
    import datasets

    from reasoning_ext.data.gym import gym_rows, is_gym

    failures = (OSError, KeyError, ValueError, TypeError, datasets.exceptions.DatasetGenerationError)
    gen_kwargs, wanted = gen_kwargs or {}, "train" if test_size is not None else split
    try:
        if is_generator(name):
            rows = _generate(name, folder, wanted, gen_kwargs, max_samples)
        elif is_gym(name):
            rows = datasets.Dataset.from_list(gym_rows(name, wanted, _at_most(max_samples, gen_kwargs)))
        elif (source := local_source(name)) is None:
            rows = datasets.load_dataset(name, config, split=wanted, streaming=streaming)
        else:
            rows = _read_local(name, source, wanted, streaming, stage)
        rows = rows if test_size is None else split_off(rows, test_size, split, renamed)
        is_whole = hasattr(rows, "num_rows")
        if max_samples is not None:
            # datasets 4 takes no more rows than there are
            rows = rows.take(min(max_samples, rows.num_rows) if is_whole else max_samples)
        columns = rows.column_names if is_whole else next(iter(rows), None)
    except DataError:
        raise
    except failures as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise DataError("dataset_name", f"cannot read {name}, split {split}: {reason}") from error
    if not columns or (is_whole and rows.num_rows == 0):
        raise DataError("dataset_name", f"{name} has no rows in split {split}")
    return rows


def _at_most(max_samples: int | None, gen_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a generator's parameters with no more `num_rows` than will be taken."""
    asked = gen_kwargs.get("num_rows", max_samples)
    if max_samples is None or not isinstance(asked, int):
        return gen_kwargs  # the generator says what is wrong with it
    return {**gen_kwargs, "num_rows": min(max_samples, asked)}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file; a torn last line, which a crash leaves, is left out, and a whole one without its newline is not."""
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

    if streaming:
        _refuse_slice(name, split)
    if not source.exists():
        raise DataError("dataset_name", f"no file or folder {source}")
    if (source / "dataset_info.json").is_file() or (source / "dataset_dict.json").is_file():
        _refuse_slice(str(source), split)
        rows = datasets.load_from_disk(str(source))
        if isinstance(rows, dict) and split not in rows:
            raise DataError("dataset_name", f"found the split {split}, allowed for {source}: {', '.join(rows)}")
        return rows[split] if isinstance(rows, dict) else rows
    if source.is_dir() and not is_sampled(source):
        return _read_folder(source, split, streaming)
    file = _kept_rows(source, stage) if source.is_dir() else source
    kind = kind_of(file)
    if not file.is_file() or kind is None:
        raise DataError("dataset_name", f"found {file}, allowed: {ALLOWED}, a saved data set, a sample run")
    if file.stat().st_size < 2**16 and not file.read_bytes().strip():
        raise DataError("dataset_name", f"{file} is empty")
    return _read_files(kind, [str(file)], _local_split(split), streaming)


def _read_folder(folder: Path, split: str, streaming: bool) -> Dataset:
    """Read a folder of data files of one kind, of which `datasets` tells the splits by the files' names."""
    from datasets.data_files import DataFilesDict, get_data_patterns

    folder = folder.absolute()  # as `datasets` names what it finds there
    files = sorted(f for f in folder.rglob("*") if kind_of(f) and not f.name.startswith("."))
    kinds = {kind_of(f) for f in files}
    if len(kinds) != 1:
        found = f"files of {len(kinds)} kinds" if kinds else "no data files"
        allowed = f"allowed: one kind of {ALLOWED}, or a saved data set"
        raise DataError("dataset_name", f"found {found} in {folder}, {allowed}")
    splits = DataFilesDict.from_patterns(get_data_patterns(str(folder)), str(folder))
    name = split.partition("[")[0]
    named = [file for file in splits.get(name, []) if Path(file) in files]
    if not named:
        raise DataError("dataset_name", f"found the split {name}, allowed for {folder}: {', '.join(map(str, splits))}")
    return _read_files(kinds.pop(), named, _local_split(split), streaming)


def _read_files(kind: str | None, files: list[str], split: str, streaming: bool) -> Dataset:
    """Read files of one kind, as they stand there; parquet has types of its own."""
    import datasets

    if kind == "parquet":
        _check_parquet(files)
        return datasets.load_dataset(kind, data_files={"train": files}, split=split, streaming=streaming)
    if streaming:
        return datasets.IterableDataset.from_generator(stream_of, gen_kwargs={"files": files})
    rows = table(files)
    if split == "train":
        return rows
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({"train": rows.num_rows})
    return rows.select([i for part in parts for i in range(part.from_, part.to)])


def _check_parquet(files: list[str]) -> None:
    """Refuse parquet files that are none, or that hold no rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    for file in files:
        try:
            rows += pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError("dataset_name", f"{file}: cannot be read as parquet: {reason}") from error
    if not rows:
        raise DataError("dataset_name", f"{files[0]} has no rows")


def _kept_rows(run: Path, stage: str) -> Path:
    """Return the file of a sample run that is for a stage."""
    file = run / KEPT_ROWS[stage]
    if problem := unfinished(run, str(run)):
        raise DataError("dataset_name", problem)
    if not file.is_file():
        found = f"found the sample run {run} without {file.name}, which stage {stage} reads"
        raise DataError("dataset_name", f"{found}; make it again with a new output_dir")
    return file


def _refuse_slice(name: str, split: str) -> None:
    if "[" in split:
        found = f"found the split {split}, allowed for {name}"
        raise DataError("dataset_name", f"{found}: a name without a slice; use max_samples")


def _generate(name: str, folder: Path, split: str, gen_kwargs: dict[str, Any], max_samples: int | None) -> Dataset:
    from datasets import Dataset

    _refuse_slice(name, split)
    try:
        plugin = find_generator(name, folder)
    except LookupError as error:
        raise DataError("dataset_name", str(error.args[0])) from error
    known = {*plugin.options, *plugin.required} - {"split"}
    unknown = [key for key in gen_kwargs if key not in known and key != "seed"]
    if unknown:
        has = ", ".join(sorted(known)) or "none"
        raise DataError("gen_kwargs", f"{plugin.name} has no parameter {unknown[0]}; it has {has}")
    gen_kwargs = {key: value for key, value in gen_kwargs.items() if key in known}
    if "num_rows" in known:
        gen_kwargs = _at_most(max_samples, gen_kwargs)
    try:
        made = list(plugin.load()(split=split, **gen_kwargs))
        columns = dict.fromkeys(name for row in made for name in row)  # from_list looks at the first row alone
        made = [{name: row.get(name) for name in columns} for row in made]
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError("dataset_name", f"{where(plugin.file, error)} failed: {reason}") from error
    try:
        return Dataset.from_list(made)
    except (ValueError, TypeError, OverflowError) as error:
        problem = f"{plugin.name} gives what no column holds: {odd_column(made) or error}"
        raise DataError("dataset_name", " ".join(problem.split())[:300]) from error


def _local_split(split: str) -> str:
    """A local file has one split, whatever the recipe calls it; a slice is kept."""
    _, bracket, part = split.partition("[")
    return "train" + bracket + part
