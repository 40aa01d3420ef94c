"""Files as they stand there: texts stay texts, and what is no row is refused with its line."""

import datetime
import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.rows import has_gold
from reasoning_ext.data.sources import load_rows

ROW = '{"prompt": "1+4?", "answer": "5"}\n'


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def put(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / name)


def golds(file, folder, streaming=False):
    rows = format_rows(load_rows(file, folder, streaming=streaming), find_format(None, folder))
    return [row["answer"] for row in rows]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_csv_is_text(tmp_path, streaming):
    texts = "007 1,000 +5 1.10 2024-01-02 true NA None null -0 123456789012345678901 12:30".split()
    file = put(tmp_path, "rows.csv", "prompt,answer\n" + "".join(f'p,"{text}"\n' for text in texts))
    assert golds(file, tmp_path, streaming) == texts
    rows = load_rows(put(tmp_path, "gap.csv", "prompt,answer\np,\n"), tmp_path, streaming=streaming)
    assert next(iter(rows)) == {"prompt": "p", "answer": None}


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_and_numbers_of_json_stay_as_they_are_written(tmp_path, streaming):
    def read(*written):
        lines = "".join(f'{{"prompt": "p", "answer": {one}}}\n' for one in written)
        return golds(put(tmp_path, "rows.jsonl", lines), tmp_path, streaming)

    assert read('"2024-01-02"', '"2024-01-03"') == ["2024-01-02", "2024-01-03"]
    many = ["1.10", "5.0", "1e400", "3.14159265358979323846", "12345678901234567890"]
    assert read(*many) == many
    assert read('"x"', "7", "6.10") == ["x", "7", "6.10"]
    assert read("true", "false") == ["true", "false"]
    assert read('["2024-01-02", null]', "[7]", "[]") == [["2024-01-02"], ["7"], []]


@pytest.mark.parametrize("streaming", [False, True])
def test_numbers_among_texts_leave_the_texts_alone(tmp_path, streaming):
    chat = [{"role": "user", "content": "3+4"}, {"role": "assistant", "content": 7}, {"role": "user", "content": "so?"}]
    rows = [{"prompt": chat, "answer": ["1", 2]}, {"prompt": "and 1+1?", "answer": ["x"]}]
    texts = [{"prompt": "p", "answer": ["x", 2]}, {"prompt": "q", "answer": ["y"]}]
    file = put(tmp_path, "texts.jsonl", "".join(json.dumps(row) + "\n" for row in texts))
    assert golds(file, tmp_path, streaming) == [["x", "2"], ["y"]]
    file = put(tmp_path, "chats.jsonl", json.dumps({**rows[0]}) + "\n")
    [row] = format_rows(load_rows(file, tmp_path, streaming=streaming), find_format(None, tmp_path))
    assert [message["content"] for message in row["prompt"]] == ["3+4", "7", "so?"]


def test_a_stream_has_the_columns_of_its_first_rows(tmp_path):
    rows = [{"question": "1+4?", "answer": "#### 5"}, {"question": "1+5?", "answer": "#### 6", "level": 2}]
    file = put(tmp_path, "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    read = load_rows(file, tmp_path, streaming=True)
    assert [row["level"] for row in read] == [None, 2]
    made = list(format_rows(read, find_format("gsm8k", tmp_path)))
    assert [sorted(row) for row in made] == [["answer", "completion", "prompt"]] * 2
    late = put(tmp_path, "late.jsonl", (json.dumps(rows[0]) + "\n") * 300 + json.dumps(rows[1]) + "\n")
    with pytest.raises(DataError, match=r"late\.jsonl:301: .*level"):
        list(load_rows(late, tmp_path, streaming=True))


def test_numbers_of_json_are_numbers(tmp_path):
    lines = (
        '{"step": 1, "share": 0.5, "at": {"on": "2024-01-02"}}\n{"step": 9007199254740993, "share": 2, "at": null}\n'
    )
    rows = load_rows(put(tmp_path, "rows.jsonl", lines), tmp_path)
    assert rows["step"][:] == [1, 9007199254740993] and rows["share"][:] == [0.5, 2.0]
    assert rows["at"][:] == [{"on": "2024-01-02"}, None]
    rows = load_rows(put(tmp_path, "long.jsonl", '{"x": 9007199254740993}\n{"x": 0.5}\n'), tmp_path)
    assert rows["x"][:] == ["9007199254740993", "0.5"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_mapping_and_nan_are_no_golds(tmp_path, streaming):
    mappings = put(tmp_path, "m.jsonl", '{"prompt": "p", "answer": {"value": "7"}}\n')
    odd = "".join(f'{{"prompt": "p", "answer": {gold}}}\n' for gold in ("NaN", "Infinity", "2.5"))
    assert golds(mappings, tmp_path, streaming) == [None]
    assert golds(put(tmp_path, "n.jsonl", odd), tmp_path, streaming) == [None, None, "2.5"]
    pq.write_table(pa.table({"prompt": ["a", "b"], "answer": [1.0, float("nan")]}), tmp_path / "f.parquet")
    assert [has_gold(gold) for gold in golds(str(tmp_path / "f.parquet"), tmp_path, streaming)] == [True, False]
    assert not has_gold(float("nan"))


def test_parquet_dates_are_text_and_times_are_refused(tmp_path):
    file = tmp_path / "f.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "answer": [datetime.date(2024, 1, 2)]}), file)
    assert golds(str(file), tmp_path) == ["2024-01-02"]
    for number, value in enumerate((datetime.datetime(2024, 1, 2), datetime.time(12, 30), b"\xff")):
        pq.write_table(pa.table({"prompt": ["a"], "answer": [value]}), file := tmp_path / f"{number}.parquet")
        with pytest.raises(DataError, match="the column answer holds"):
            golds(str(file), tmp_path)


def test_kinds_that_do_not_go_together_are_refused_with_column_and_lines(tmp_path):
    for value, column in (("true", "answer"), ('["6"]', "answer"), ('"5", "x": [1, {}]', r"x\[\]")):
        file = put(tmp_path, "rows.jsonl", ROW + f'{{"prompt": "p", "answer": {value}}}\n')
        with pytest.raises(DataError, match=rf"rows\.jsonl:2: the column {column} holds"):
            load_rows(file, tmp_path)


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.json.bz2", "a.tsv", "a.csv.gz"])
def test_kinds_of_files(tmp_path, name):
    table = "prompt\tanswer\n1+4?\t5\n"
    text = ROW if "json" in name else table if "tsv" in name else table.replace("\t", ",")
    with pa.output_stream(str(tmp_path / name), compression="detect") as out:
        out.write(text.encode())
    assert golds(str(tmp_path / name), tmp_path) == golds(str(tmp_path), tmp_path) == ["5"]
    assert golds(str(tmp_path / name), tmp_path, streaming=True) == ["5"]


def test_ways_to_write_rows(tmp_path):
    row = json.loads(ROW)
    ways = {
        "list.jsonl": json.dumps([row]), "pretty.jsonl": json.dumps(row, indent=1), "ends.jsonl": ROW.replace("\n", "\r\n"),
        "mark.csv": b"\xef\xbb\xbfprompt,answer\r\n1+4?,5\r\n", "members.jsonl.gz": gzip.compress(ROW.encode()),
        "pair.jsonl": '{"prompt": "\\ud83d\\ude00", "answer": "5"}', "lines.csv": 'prompt,answer\n"1\n+4?",5\n',
    }  # fmt: skip
    assert [golds(put(tmp_path, name, text), tmp_path) for name, text in ways.items()] == [["5"]] * len(ways)


def test_a_row_of_one_list_is_a_row_and_not_what_holds_the_rows(tmp_path):
    chat = {"conversations": [{"from": "human", "value": "1+4?"}, {"from": "gpt", "value": "5"}]}
    pairs = {"pairs": [{"left": "1", "right": "2"}]}
    for name, row, count in (("one.jsonl", chat, 1), ("chats.jsonl", chat, 2), ("pairs.jsonl", pairs, 3)):
        file = put(tmp_path, name, (json.dumps(row) + "\n") * count)
        for streaming in (False, True):
            assert [*load_rows(file, tmp_path, streaming=streaming)] == [row] * count


FAULTS = [
    ("null.jsonl", "null\nnull\n", 1), ("number.jsonl", "1\n", 1), ("list.jsonl", ROW + "[1]\n", 2),
    ("object.jsonl", "{}\n", 1), ("latin1.jsonl", ROW.encode() + b'{"prompt": "caf\xe9"}\n', 2),
    ("utf16.jsonl", ROW.encode("utf-16"), 1), ("half.jsonl", ROW + '{"prompt": "\\ud83d"}\n', 2),
    ("deep.jsonl", ROW + '{"prompt": ' + "[" * 200 + "]" * 200 + "}\n", 2),
    ("deeper.jsonl", ROW + '{"prompt": ' + "[" * 99999 + "]" * 99999 + "}\n", 2),
    ("nul.jsonl", ROW + '{"prompt": "\0"}\n', 2), ("digits.jsonl", ROW + '{"prompt": ' + "9" * 6000 + "}\n", 2),
    ("twice.jsonl", ROW + '{"prompt": "1", "prompt": "2"}\n', 2), ("page.jsonl", "<!DOCTYPE html>\n<html>", 1),
    ("zip.jsonl", b"PK\x03\x04\xff", 1), ("packed.jsonl", gzip.compress(ROW.encode()), 1),
    ("held.json", json.dumps({"version": 1, "data": [json.loads(ROW)]}), 1), ("cut.json", '[\n{"prompt": "1"},\n{"pro', 3),
    ("nul.csv", "prompt,answer\n1\0,2\n", 2), ("twice.csv", "prompt,answer,answer\n1,2,3\n", 1),
    ("short.csv", "prompt,answer\n1,2\n3\n", 3), ("quotes.csv", 'prompt,answer\n1,2\n"3,4\n5,6\n', 3),
    ("latin1.csv", b"prompt,answer\ncaf\xe9,2\n", 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "line"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_what_is_no_row_is_refused_with_its_line(tmp_path, name, content, line):
    file = put(tmp_path, name, content)
    for streaming in (False, True):
        with pytest.raises(DataError) as error:
            list(load_rows(file, tmp_path, streaming=streaming))
        said = str(error.value)
        assert said.startswith(f"{file}:{line}: found ") and "allowed: " in said
        assert said.isprintable() and len(said) < len(file) + 250


@pytest.mark.parametrize(
    "name", ["cut.jsonl.gz", "cut.jsonl.zst", "cut.parquet", "rows.parquet", "rows.json", "rows.csv"]
)
def test_a_file_that_is_cut_off_or_has_no_rows_is_one_line(tmp_path, name, capfd):
    file = tmp_path / name
    if name.startswith("rows"):
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), file)
        file.write_bytes({".json": b"[]", ".csv": b"prompt,answer\n"}.get(file.suffix, file.read_bytes()))
    elif file.suffix == ".parquet":
        pq.write_table(pa.table({"prompt": ["a"]}), file)
    else:
        with pa.output_stream(str(file), compression="detect") as out:
            out.write("".join(f'{{"prompt": "{i}"}}\n' for i in range(3000)).encode())
    if name.startswith("cut"):
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"^{file}.*(has|cannot be read)") as error:
        load_rows(str(file), tmp_path)
    assert "\n" not in str(error.value) and not any(capfd.readouterr())


def test_an_edited_file_is_read_again(tmp_path):
    file = put(tmp_path, "rows.jsonl", ROW)
    assert golds(file, tmp_path) == ["5"]
    assert golds(put(tmp_path, "rows.jsonl", ROW * 2), tmp_path) == ["5", "5"]
