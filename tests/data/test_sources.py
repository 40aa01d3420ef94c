"""Every kind of source: what is read from it, and what is said about one that cannot be read."""

import json

import datasets
import pytest
from conftest import TINY

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.sources import KEPT_ROWS, load_rows, read_jsonl

ROWS = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(12)]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Keep what `datasets` caches out of the user's folder, and names relative to a recipe's."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def put(path, rows=ROWS):
    """Write rows in the kind of file that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        made = datasets.Dataset.from_list(rows)
        made.to_parquet(path) if path.suffix == ".parquet" else made.to_csv(path)
    return path


def refused(name, folder, **options):
    """Return the error about a source, which is one line."""
    with pytest.raises(DataError) as error:
        load_rows(str(name), folder, **options)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_files_are_read_whole_and_streamed(tmp_path, name, streaming):
    rows = load_rows(str(put(tmp_path / name)), tmp_path, streaming=streaming)
    assert hasattr(rows, "num_rows") is not streaming
    assert [(row["prompt"], str(row["answer"])) for row in rows] == [(row["prompt"], row["answer"]) for row in ROWS]
    assert len(list(load_rows(str(tmp_path / name), tmp_path, max_samples=5, streaming=streaming))) == 5
    assert len(list(load_rows(str(tmp_path / name), tmp_path, max_samples=50, streaming=streaming))) == 12


def test_one_object_and_blank_lines_and_a_mark_of_byte_order_are_read(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(ROWS[0]))
    (tmp_path / "blank.jsonl").write_text("\n\n" + put(tmp_path / "a.jsonl").read_text() + "\n\n")
    (tmp_path / "mark.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.jsonl").read_bytes())
    sizes = [len(load_rows(str(tmp_path / name), tmp_path)) for name in ("one.json", "blank.jsonl", "mark.jsonl")]
    assert sizes == [1, 12, 12]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_is_all_its_files_and_splits_are_told_by_names(tmp_path, streaming, monkeypatch):
    put(tmp_path / "several" / "x.jsonl", ROWS[:5]), put(tmp_path / "several" / "y.jsonl", ROWS[5:])
    (tmp_path / "several" / "README.md").write_text("no data")
    put(tmp_path / "named" / "train.jsonl", ROWS[:8]), put(tmp_path / "named" / "test.jsonl", ROWS[8:])

    def size(name, split="train"):
        return len(list(load_rows(str(tmp_path / name), tmp_path, split=split, streaming=streaming)))

    assert (size("several"), size("named"), size("named", "test")) == (12, 8, 4)
    assert "dev" in str(refused(tmp_path / "named", tmp_path, split="dev", streaming=streaming))
    monkeypatch.chdir(tmp_path)
    assert len(list(load_rows("../" + tmp_path.name + "/several", tmp_path, streaming=streaming))) == 12
    assert len(list(load_rows("several", tmp_path, streaming=streaming))) == 12


BROKEN = [("none.jsonl", None, "no file or folder "), ("rows.txt", "prompt", "found "), ("empty.csv", "", "")]


@pytest.mark.parametrize(("name", "text", "said"), BROKEN)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, text, said, streaming):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    error = refused(file, tmp_path, streaming=streaming)
    assert f"{said}{file}" in str(error) and error.key == "dataset_name"


def test_a_folder_without_data_or_of_two_kinds_is_refused(tmp_path):
    put(tmp_path / "two" / "x.jsonl"), put(tmp_path / "two" / "y.csv")
    (tmp_path / "none").mkdir()
    assert "found files of 2 kinds in" in str(refused(tmp_path / "two", tmp_path))
    assert "found no data files in" in str(refused(tmp_path / "none", tmp_path))


def test_saved_data_sets_are_read(tmp_path):
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.take(1)}).save_to_disk(tmp_path / "several")
    assert len(load_rows(str(tmp_path / "one"), tmp_path)) == 12
    assert len(load_rows(str(tmp_path / "several"), tmp_path)) == 12
    assert len(load_rows(str(tmp_path / "several"), tmp_path, split="test")) == 1
    assert len(load_rows(str(tmp_path / "several"), tmp_path, max_samples=99, streaming=True)) == 12
    assert "found the split dev, allowed for" in str(refused(tmp_path / "several", tmp_path, split="dev"))
    assert str(refused(tmp_path / "several", tmp_path, split="dev")).endswith(": train, test")


def test_the_output_of_a_sample_stage_is_read(tmp_path):
    row = {"prompt": "6 * 7?", "completion": "<think>6*7=42</think>42", "answer": "42"}
    (tmp_path / KEPT_ROWS["sft"]).write_text(json.dumps(row) + "\n")
    put(tmp_path / "samples.jsonl")
    assert load_rows(str(tmp_path), tmp_path)[:] == {name: [value] for name, value in row.items()}


GENERATORS = """\
def sums(split, num_rows=5, start=0):
    for i in range(start, start + num_rows):
        yield {'prompt': f'{split} {i}+1', 'answer': str(i + 1)}

def late(split):
    return [{'prompt': 'a'}, {'prompt': 'b', 'answer': '1'}]

def boom(split):
    raise SystemError('two\\nlines')

def none(split):
    return []

def numbers(split):
    return [1, 2]
"""


def test_a_generator_file_is_called_with_its_parameters(tmp_path):
    (tmp_path / "sums.py").write_text(GENERATORS)
    rows = load_rows("sums.py", tmp_path, split="test", gen_kwargs={"seed": 3, "start": 7})
    assert rows[0] == {"prompt": "test 7+1", "answer": "8"} and len(rows) == 5
    assert len(load_rows("sums.py", tmp_path, max_samples=2)) == 2
    assert len(load_rows("sums.py", tmp_path, gen_kwargs={"num_rows": 3}, max_samples=20)) == 3
    assert load_rows("sums.py:late", tmp_path)["answer"][:] == [None, "1"]
    for wrong in ({"stop": 9}, {"split": "x"}):
        error = refused("sums.py", tmp_path, gen_kwargs=wrong)
        assert str(error) == f"sums has no parameter {next(iter(wrong))}; it has num_rows, start"
        assert error.key == "gen_kwargs"
    assert "failed: TypeError" in str(refused("sums.py", tmp_path, gen_kwargs={"num_rows": "x"}, max_samples=2))


@pytest.mark.parametrize(
    ("name", "said"),
    [("boom", "sums.py:9 failed: SystemError: two lines"), ("none", "has no rows"), ("numbers", "TypeError"), ("x", "has no")],
)  # fmt: skip
def test_a_generator_that_fails_is_named(tmp_path, name, said):
    (tmp_path / "sums.py").write_text(GENERATORS)
    assert said in str(refused(f"sums.py:{name}", tmp_path))


def test_a_part_of_a_file_is_read_and_a_slice_of_what_has_none_is_refused(tmp_path):
    file = str(put(tmp_path / "rows.jsonl"))
    assert load_rows(file, tmp_path, split="test[2:4]")["prompt"][:] == ["2+1?", "3+1?"]
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    for name, streaming in ((TINY / "last_digit.py", False), (tmp_path / "saved", False), (file, True)):
        error = refused(name, tmp_path, split="test[:50]", streaming=streaming)
        assert "a name without a slice; use max_samples" in str(error)
    assert "cannot read" in str(refused(file, tmp_path, split="train[:x]"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_name_without_a_network_is_one_line(tmp_path, monkeypatch, streaming):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "cannot read some/thing, split train: " in str(refused("some/thing", tmp_path, streaming=streaming))


def test_a_torn_last_line_is_left_out_of_our_own_files(tmp_path):
    file = put(tmp_path / "rows.jsonl", ROWS[:2])
    file.write_text(file.read_text() + '{"prompt": "2+')
    assert read_jsonl(file) == ROWS[:2]
    file.write_text("\n".join(map(json.dumps, ROWS[:2])))
    assert read_jsonl(file) == ROWS[:2]  # whole, without its newline


@pytest.mark.parametrize("gold", ["'x'", "10**30", "'\\ud83d'", "[7, 'x']"])
def test_what_no_column_holds_of_a_generator_is_refused_with_the_column(tmp_path, gold):
    (tmp_path / "odd.py").write_text(
        f"def odd(split):\n    return [dict(prompt='p', answer=7), dict(prompt='p', answer={gold})]\n"
    )
    assert "answer" in str(refused("odd.py", tmp_path))
