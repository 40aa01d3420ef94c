"""Every kind of source: what is read from it, and what is said about one that cannot be read."""

import datasets
import pytest
from conftest import TINY

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.sources import KEPT_ROWS, load_rows, read_jsonl
from tests.rows import put

ROWS = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(12)]


def refused(name, folder, **options):
    """Return the error about a source, which is one line."""
    with pytest.raises(DataError) as error:
        load_rows(str(name), folder, **options)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_files_are_read_whole_and_streamed(tmp_path, name, streaming):
    rows = load_rows(str(put(tmp_path / name, ROWS)), tmp_path, streaming=streaming)
    assert hasattr(rows, "num_rows") is not streaming
    assert [(row["prompt"], str(row["answer"])) for row in rows] == [(row["prompt"], row["answer"]) for row in ROWS]
    sizes = [len(list(load_rows(str(tmp_path / name), tmp_path, max_samples=n, streaming=streaming))) for n in (5, 50)]
    assert sizes == [5, 12]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_is_all_its_files_and_splits_are_told_by_names(tmp_path, streaming, monkeypatch):
    put(tmp_path / "several" / "x.jsonl", ROWS[:5]), put(tmp_path / "several" / "y.jsonl", ROWS[5:])
    put(tmp_path / "several" / "README.md", "no data")
    put(tmp_path / "named" / "train.jsonl", ROWS[:8]), put(tmp_path / "named" / "test.jsonl", ROWS[8:])

    def size(name, split="train"):
        return len(list(load_rows(str(name), tmp_path, split=split, streaming=streaming)))

    named = tmp_path / "named"
    assert (size(tmp_path / "several"), size(named), size(named, "test")) == (12, 8, 4)
    assert "dev" in str(refused(named, tmp_path, split="dev", streaming=streaming))
    monkeypatch.chdir(tmp_path)
    assert size(f"../{tmp_path.name}/several") == size("several") == 12


def test_what_is_no_source_is_named(tmp_path, monkeypatch):
    put(tmp_path / "rows.txt", "prompt"), put(tmp_path / "two" / "x.jsonl", ROWS), put(tmp_path / "two" / "y.csv", ROWS)
    (tmp_path / "none").mkdir()
    for name in ("none.jsonl", "rows.txt", "two", "none"):
        error = refused(tmp_path / name, tmp_path)
        assert str(tmp_path / name) in str(error) and error.key == "dataset_name"
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "some/thing" in str(refused("some/thing", tmp_path)) and refused("some/thing", tmp_path, streaming=True)


def test_saved_data_sets_and_sample_runs_are_read(tmp_path):
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.take(1)}).save_to_disk(tmp_path / "several")
    assert len(load_rows(str(tmp_path / "one"), tmp_path)) == len(load_rows(str(tmp_path / "several"), tmp_path)) == 12
    assert len(load_rows(str(tmp_path / "several"), tmp_path, split="test")) == 1
    assert len(load_rows(str(tmp_path / "several"), tmp_path, max_samples=99, streaming=True)) == 12
    assert str(refused(tmp_path / "several", tmp_path, split="dev")).endswith("train, test")
    put(tmp_path / "run" / "samples.jsonl", ROWS), put(tmp_path / "run" / KEPT_ROWS["sft"], ROWS[:2])
    assert load_rows(str(tmp_path / "run"), tmp_path)["prompt"][:] == ["0+1?", "1+1?"]


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

def plain(rows):
    return []

def kinds(split, gold):
    other = {'text': 'x', 'long': 10**30, 'half': chr(0xd83d), 'list': [7]}[gold]
    return [dict(prompt='p', answer=7), dict(prompt='p', answer=other)]
"""


def test_a_generator_file_is_called_with_its_parameters(tmp_path):
    put(tmp_path / "sums.py", GENERATORS)
    rows = load_rows("sums.py", tmp_path, split="test", gen_kwargs={"seed": 3, "start": 7})
    assert rows[0] == {"prompt": "test 7+1", "answer": "8"} and len(rows) == 5
    assert len(load_rows("sums.py", tmp_path, max_samples=2)) == 2
    assert len(load_rows("sums.py", tmp_path, gen_kwargs={"num_rows": 3}, max_samples=20)) == 3
    assert load_rows("sums.py:late", tmp_path)["answer"][:] == [None, "1"]


BROKEN = [  # function, its parameters, the key to blame, what is said
    ("sums", {"stop": 9}, "gen_kwargs", "num_rows, start"), ("sums", {"split": "x"}, "gen_kwargs", "split"),
    ("sums", {"num_rows": "x"}, "dataset_name", "TypeError"), ("boom", {}, "dataset_name", "sums.py:9"),
    ("none", {}, "dataset_name", "no rows"), ("numbers", {}, "dataset_name", "TypeError"), ("x", {}, "dataset_name", "x"),
    ("plain", {}, "dataset_name", "split"), *(("kinds", {"gold": gold}, "dataset_name", "answer") for gold in ("text", "long")),
    *(("kinds", {"gold": gold}, "dataset_name", "answer") for gold in ("half", "list")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "key", "said"), BROKEN)
def test_a_generator_that_fails_is_named(tmp_path, name, given, key, said):
    put(tmp_path / "sums.py", GENERATORS)
    error = refused(f"sums.py:{name}", tmp_path, gen_kwargs=given)
    assert error.key == key and said in str(error)


def test_a_part_of_a_file_is_read_and_a_slice_of_what_has_none_is_refused(tmp_path):
    file = str(put(tmp_path / "rows.jsonl", ROWS))
    assert load_rows(file, tmp_path, split="test[2:4]")["prompt"][:] == ["2+1?", "3+1?"]
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    for name, streaming in ((TINY / "last_digit.py", False), (tmp_path / "saved", False), (file, True)):
        assert "max_samples" in str(refused(name, tmp_path, split="test[:50]", streaming=streaming))
    assert refused(file, tmp_path, split="train[:x]").key == "dataset_name"


def test_a_torn_last_line_is_left_out_of_our_own_files(tmp_path):
    file = put(tmp_path / "rows.jsonl", ROWS[:2])
    whole = file.read_text()
    for text in (whole + '{"prompt": "2+', whole.rstrip("\n")):
        assert read_jsonl(put(file, text)) == ROWS[:2]
