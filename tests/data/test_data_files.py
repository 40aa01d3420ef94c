"""Files as they stand there: texts stay texts, and what is no row is refused with its line."""

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.rows import has_gold
from reasoning_ext.data.sources import load_rows
from tests.rows import put

ROW = '{"prompt": "1+4?", "answer": "5"}\n'


def golds(file, streaming=False):
    return [
        row["answer"] for row in format_rows(load_rows(str(file), None, streaming=streaming), find_format(None, None))
    ]


TEXTS = "007 1,000 +5 1.10 2024-01-02 true NA None null -0 123456789012345678901 12:30".split()
NUMBERS = ["1.10", "5.0", "1e400", "3.14159265358979323846", "12345678901234567890"]
WRITTEN = [  # golds as JSON writes them, and as they are read
    (['"2024-01-02"', '"2024-01-03"', '"007"'], ["2024-01-02", "2024-01-03", "007"]), (NUMBERS, NUMBERS),
    (['"x"', "7", "6.10"], ["x", "7", "6.10"]), (["true", "false"], ["true", "false"]),
    (['["2024-01-02", null]', "[7]", '["x", 2]', "[]"], [["2024-01-02"], ["7"], ["x", "2"], []]),
    (['{"value": "7"}'], [None]), (["NaN", "Infinity", "2.5"], [None, None, "2.5"]),
]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
def test_golds_are_text_as_they_are_written(tmp_path, streaming):
    assert golds(put(tmp_path / "a.csv", "prompt,answer\n" + "".join(f'p,"{t}"\n' for t in TEXTS)), streaming) == TEXTS
    for written, read in WRITTEN:
        lines = "".join(f'{{"prompt": "p", "answer": {one}}}\n' for one in written)
        assert golds(put(tmp_path / "rows.jsonl", lines), streaming) == read


def test_other_columns_keep_their_types(tmp_path):
    lines = '{"step": 1, "share": 0.5, "on": "2024-01-02"}\n{"step": 9007199254740993, "share": 2, "on": null, "late": "x"}\n'
    rows = load_rows(str(put(tmp_path / "rows.jsonl", lines)), tmp_path)
    assert rows["step"][:] == [1, 9007199254740993] and rows["share"][:] == [0.5, 2.0]
    assert rows["on"][:] == ["2024-01-02", None] and rows["late"][:] == [None, "x"]
    assert load_rows(str(put(tmp_path / "gap.csv", "prompt,answer\np,\n")), tmp_path)[0] == {
        "prompt": "p",
        "answer": None,
    }


def test_a_column_of_texts_and_numbers_is_text_as_it_is_written(tmp_path):
    lines = (
        '{"gold": 2.50, "id": 18446744073709551615}\n{"gold": "3", "id": 7}\n{"gold": 123456789012345678901, "id": 8}\n'
    )
    rows = load_rows(str(put(tmp_path / "rows.jsonl", lines)), tmp_path)
    assert rows["gold"][:] == ["2.50", "3", "123456789012345678901"]
    assert rows["id"][:] == ["18446744073709551615", "7", "8"]


def test_golds_of_parquet(tmp_path):
    for values, read in (
        ([1.0, 2.5], ["1", "2.5"]),
        (pa.array([0.1, 2.5], pa.float32()), ["0.1", "2.5"]),
        ([7, None], ["7", None]),
        ([datetime.date(2024, 1, 2)], ["2024-01-02"]),
    ):
        pq.write_table(pa.table({"prompt": ["a"] * len(values), "answer": values}), tmp_path / "f.parquet")
        assert golds(tmp_path / "f.parquet") == golds(tmp_path / "f.parquet", True) == read
    pq.write_table(pa.table({"prompt": ["a"], "answer": [float("nan")]}), tmp_path / "f.parquet")
    assert not has_gold(golds(tmp_path / "f.parquet")[0]) and not has_gold(float("nan"))
    for value in (datetime.datetime(2024, 1, 2), datetime.time(12, 30), b"\xff"):
        pq.write_table(pa.table({"prompt": ["a"], "answer": [value]}), tmp_path / "f.parquet")
        with pytest.raises(DataError, match="column answer"):
            golds(tmp_path / "f.parquet")


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.json.bz2", "a.tsv", "a.csv.gz"])
def test_kinds_of_files(tmp_path, name):
    table = "prompt\tanswer\n1+4?\t5\n"
    text = ROW if "json" in name else table if "tsv" in name else table.replace("\t", ",")
    with pa.output_stream(str(tmp_path / name), compression="detect") as out:
        out.write(text.encode())
    assert golds(tmp_path / name) == golds(tmp_path) == golds(tmp_path / name, streaming=True) == ["5"]


WAYS = {
    "list.jsonl": json.dumps([json.loads(ROW)]), "pretty.json": json.dumps(json.loads(ROW), indent=1),
    "ends.jsonl": ROW.replace("\n", "\r\n"), "mark.csv": b"\xef\xbb\xbfprompt,answer\r\n1+4?,5\r\n",
    "mark.jsonl": b"\xef\xbb\xbf" + ROW.encode(), "blank.jsonl": f"\n\n{ROW}\n", "members.jsonl.gz": gzip.compress(ROW.encode()),
    "pair.jsonl": '{"prompt": "\\ud83d\\ude00", "answer": "5"}', "lines.csv": 'prompt,answer\n"1\n+4?",5\n',
    "semicolons.csv": 'prompt;answer\n"1,0 + 4;?";5\n', "bars.csv": "prompt|answer\n1+4?|5\n",
    "tabs.csv": "prompt\tanswer\n1;\t5\n",
    "commas.csv": "prompt,answer,a;b\n1+4?,5,6;7\n", "comma.csv": 'prompt;answer;"a, b"\n1;5;2\n',
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_ways_to_write_rows(tmp_path, name):
    assert golds(put(tmp_path / name, WAYS[name])) == ["5"]


FAULTS = [
    ("null.jsonl", "null\nnull\n", 1), ("list.jsonl", ROW + "[1]\n", 2), ("object.jsonl", "{}\n", 1),
    ("latin1.jsonl", ROW.encode() + b'{"prompt": "caf\xe9"}\n', 2), ("utf16.jsonl", ROW.encode("utf-16"), 1),
    ("half.jsonl", ROW + '{"prompt": "\\ud83d"}\n', 2), ("nul.jsonl", ROW + '{"prompt": "\0"}\n', 2),
    ("deep.jsonl", ROW + '{"prompt": ' + "[" * 200 + "]" * 200 + "}\n", 2),
    ("deeper.jsonl", ROW + '{"prompt": ' + "[" * 99999 + "]" * 99999 + "}\n", 2),
    ("digits.jsonl", ROW + '{"prompt": ' + "9" * 6000 + "}\n", 2), ("twice.jsonl", ROW + '{"x": "1", "x": "2"}\n', 2),
    ("page.jsonl", "<!DOCTYPE html>\n<html>", 1), ("zip.jsonl", b"PK\x03\x04\xff", 1),
    ("packed.jsonl", gzip.compress(ROW.encode()), 1), ("cut.json", '[\n{"prompt": "1"},\n{"pro', 3),
    ("twice.csv", "prompt,answer,answer\n1,2,3\n", 1), ("short.csv", "prompt,answer\n1,2\n3\n", 3),
    ("quotes.csv", 'prompt,answer\n1,2\n"3,4\n5,6\n', 3), ("latin1.csv", b"prompt,answer\ncaf\xe9,2\n", 2),
    ("nul.csv", "prompt,answer\n1,2\na\0b,3\n", 3), ("utf16.csv", "prompt,answer\n1,2\n".encode("utf-16"), 1),
    ("kinds.jsonl", ROW + '{"prompt": "p", "answer": true}\n', 2), ("list_or_text.jsonl", ROW + '{"prompt": ["p"]}\n', 2),
    ("inner.jsonl", ROW + '{"x": [1, {}]}\n', 2),
]  # fmt: skip


BYTES = ("latin1.jsonl", "latin1.csv", "zip.jsonl", "packed.jsonl")


@pytest.mark.parametrize(("name", "content", "line"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_what_is_no_row_is_refused_with_its_line(tmp_path, name, content, line):
    file = put(tmp_path / name, content)
    for streaming in (False, True):
        with pytest.raises(DataError) as error:
            list(load_rows(str(file), tmp_path, streaming=streaming))
        said = str(error.value)
        assert ("iconv -f utf-16" in said, "iconv -f latin1" in said) == (name.startswith("utf16"), name in BYTES)
        assert said.startswith(f"{file}:{line}: ") and said.isprintable() and len(said) < len(str(file)) + 300


@pytest.mark.parametrize("name", ["cut.jsonl.gz", "cut.parquet", "rows.parquet", "rows.json", "rows.csv", "empty.csv"])
def test_a_file_that_is_cut_off_or_has_no_rows_is_one_line(tmp_path, name, capfd):
    file = tmp_path / name
    texts = {"rows.json": b"[]", "rows.csv": b"prompt,answer\n", "empty.csv": b""}
    if file.suffix == ".parquet":
        pq.write_table(pa.table({"prompt": ["a"] if name == "cut.parquet" else pa.array([], pa.string())}), file)
    else:
        put(file, texts.get(name) or gzip.compress("".join(f'{{"prompt": "{i}"}}\n' for i in range(3000)).encode()))
        file.write_bytes(texts.get(name, file.read_bytes()))
    if name.startswith("cut"):
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{file}.*(no rows|cannot be read|Parquet)") as error:
        load_rows(str(file), tmp_path)
    assert "\n" not in str(error.value) and not any(capfd.readouterr())


def test_an_edited_file_is_read_again(tmp_path):
    assert [golds(put(tmp_path / "rows.jsonl", ROW * count)) for count in (1, 2)] == [["5"], ["5", "5"]]
