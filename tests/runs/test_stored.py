"""Samples of a store: all of a small one, evenly chosen ones of a large one, whatever the lengths of its lines."""

import json
import random
from statistics import fmean

import pyarrow
import pyarrow.parquet
import pytest

from reasoning_ext.runs import stored
from reasoning_ext.runs.stored import read_lines, read_tables


def write(path, rows, end=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
    return path


@pytest.fixture
def small(monkeypatch):
    """Windows so small that a file of some kilobytes is a long one."""
    monkeypatch.setattr(stored, "WINDOWS", 50)
    monkeypatch.setattr(stored, "LOOK", 64)


def test_a_short_store_is_read_whole_and_its_torn_line_is_told(tmp_path, small):
    rows = [{"i": i, "completion": "x" * (i % 7) * 100} for i in range(40)]
    found = read_lines(write(tmp_path / "s.jsonl", rows, '[1]\n{"i": 41, "comp'), 100)
    assert (found.rows, found.of, found.counted) == (rows, 40, True)
    assert found.problems == ("s.jsonl has 2 damaged lines",)
    assert read_lines(tmp_path / "none.jsonl", 100) == stored.Stored([], 0)


def test_of_a_counted_store_rows_are_chosen_at_even_distances(tmp_path):
    found = read_lines(write(tmp_path / "s.jsonl", [{"i": i} for i in range(1000)]), 4)
    assert [row["i"] for row in found.rows] == [249, 499, 749, 999] and (found.of, found.counted) == (1000, True)


def test_of_a_long_store_lines_are_chosen_evenly_whatever_their_length(tmp_path, small):
    drawn = random.Random(0)
    long = [i < 20_000 and drawn.random() < 0.5 for i in range(40_000)]  # hard problems come first, with long thoughts
    path = write(tmp_path / "s.jsonl", [{"i": i, "text": "x" * (2_000 if one else 5)} for i, one in enumerate(long)])
    found = read_lines(path, 4_000)
    assert len(found.rows) == pytest.approx(4_000, rel=0.1) and not found.counted
    assert found.of == pytest.approx(40_000, rel=0.4), "reckoned from 50 places of 64 bytes"
    assert fmean(long[row["i"]] for row in found.rows) == pytest.approx(fmean(long), abs=0.05)
    assert len({row["i"] for row in found.rows}) == len(found.rows), "none twice"


def test_what_is_read_of_a_store_is_bounded(tmp_path, small, monkeypatch):
    monkeypatch.setattr(stored, "MOST_BYTES", 20_000)
    monkeypatch.setattr(stored, "LONGEST_LINE", 1_000)
    path = write(tmp_path / "s.jsonl", [{"i": i, "text": "x" * 500} for i in range(2_000)], "x" * 10**6)
    found = read_lines(path, 10**6)
    assert 10 <= len(found.rows) < 100 and not found.counted
    assert len(found.problems) <= 1, "a line without an end is one damaged line at most"


def tables(folder, steps, each=4):
    folder.mkdir()
    for step in steps:
        rows = {
            "step": [step] * each,
            "completion": [f"{step} {i}" for i in range(each)],
            "r": [0.5] * each,
            "x": [1] * each,
        }
        pyarrow.parquet.write_table(pyarrow.table(rows), folder / f"completions_{step:05d}.parquet")
    return folder


def test_tables_are_read_whole_and_evenly_to_the_last(tmp_path):
    folder = tables(tmp_path / "completions", [*range(2, 27, 3), 20_000, 100_001])
    found = read_tables(folder, 12, ("step", "completion", "r"))
    assert [row["step"] for row in found.rows] == [8] * 4 + [20] * 4 + [100_001] * 4 and found.of == 44
    assert found.counted and {*found.rows[0]} == {"step", "completion", "r"}
    assert len(read_tables(folder, 10**6, ("step",)).rows) == 44
    assert len(read_tables(folder, 3, ("step",)).rows) == 3, "a part of the last one"


def test_tables_that_cannot_be_read_are_told_and_the_others_read(tmp_path, monkeypatch):
    folder = tables(tmp_path / "completions", range(8))
    for step in range(4):
        (folder / f"completions_{step:05d}.parquet").write_bytes(b"PAR1 torn")
    found = read_tables(folder, 100, ("step",))
    assert {row["step"] for row in found.rows} == {4, 5, 6, 7} and found.of == 16
    [said] = found.problems
    assert said.endswith("completions_00002.parquet and 1 more cannot be read")
    monkeypatch.setattr(stored, "WINDOWS", 2)
    found = read_tables(folder, 100, ("step",))
    assert found.of == 16 and not found.counted
