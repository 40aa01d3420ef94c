"""Formats on rows in the public schema, and what each says about rows that do not fit."""

from pathlib import Path

import datasets
import pytest
from reasoning_ext.rewards.math_answer import math_answer

from reasoning_ext import think
from reasoning_ext.data.columns import DataError, check_columns
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.sources import load_rows

DATA = Path(__file__).parents[1] / "fixtures"
RENAME = {"question": "prompt", "response": "completion", "target": "answer"}
SFT = ["prompt", "completion", "answer"]
FORMATS = [  # file, format, renamed columns, columns that come out
    ("gsm8k.jsonl", "gsm8k", None, SFT),
    ("math.jsonl", "math", None, SFT),
    ("messages.jsonl", "messages", None, ["prompt", "completion", "source"]),
    ("plain.csv", None, RENAME, SFT),
    ("plain.parquet", None, None, SFT),
]
WITH_GOLD = [row[:3] for row in FORMATS if "answer" in row[3]]
every_file = pytest.mark.parametrize(("file", "format_name", "rename", "columns"), FORMATS, ids=[r[0] for r in FORMATS])
every_file_with_a_gold = pytest.mark.parametrize(
    ("file", "format_name", "rename"), WITH_GOLD, ids=[row[0] for row in WITH_GOLD]
)
GSM8K_ROW = {"question": "What is 6 * 7?", "answer": "6*7=42\n#### 42"}
MATH_ROW = {"problem": "What is 6 * 7?", "solution": r"It is \boxed{42}."}
CHAT_ROW = {"messages": [{"role": "user", "content": "6 * 7?"}, {"role": "assistant", "content": "42"}]}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """Keep what `datasets` caches out of the user's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def formatted(name, format_name=None, rename=None, system_prompt=None, **options):
    rows = load_rows(str(name), DATA, **options)
    return format_rows(rows, find_format(format_name, DATA), system_prompt, rename)


def made_of(format_name, *rows, **options):
    """Format rows that are given as dictionaries."""
    return list(format_rows(datasets.Dataset.from_list(list(rows)), find_format(format_name, DATA), **options))


@every_file
def test_every_row_comes_out_in_trls_columns(file, format_name, rename, columns):
    rows = formatted(DATA / file, format_name, rename)
    assert len(rows) >= 20
    assert sorted(rows.column_names) == sorted(columns)
    for row in rows:
        assert [message["role"] for message in row["prompt"]][-1] == "user"
        assert [message["role"] for message in row["completion"]] == ["assistant"]
        assert all(message["content"].strip() for message in row["prompt"] + row["completion"])


@every_file_with_a_gold
def test_the_gold_scores_one_against_its_own_completion(file, format_name, rename):
    rows = formatted(DATA / file, format_name, rename)
    assert all(think.well_formed(think.content(row["completion"])) for row in rows)
    scores = math_answer([row["completion"] for row in rows], answer=[row["answer"] for row in rows])
    assert scores == [1.0] * len(rows) and all(isinstance(row["answer"], str) for row in rows)


def test_math_gold_is_the_last_balanced_box():
    golds = [row["answer"] for row in formatted(DATA / "math.jsonl", "math")]
    wanted = {r"\frac{3}{8}", r"\{2, 3\}", r"(-\infty, 3)", "[-2, 2]", r"\frac{\sqrt{2}}{2}", r"\frac{1}{2^{3}}"}
    assert wanted <= set(golds)


def test_messages_train_the_last_turn_and_keep_the_turns_before_it():
    rows = formatted(DATA / "messages.jsonl", "messages")
    assert {len(row["prompt"]) for row in rows} >= {1, 2, 3}
    assert {row["source"] for row in rows} == {"arithmetic", "facts", "numbers", "chat", "fractions"}
    assert any(think.well_formed(think.content(row["completion"])) for row in rows)
    assert any(think.split(think.content(row["completion"])).thought is None for row in rows)


def test_system_prompt_stands_in_front_once():
    before = list(formatted(DATA / "messages.jsonl", "messages"))
    after = list(formatted(DATA / "messages.jsonl", "messages", system_prompt="Think first."))
    own = 0
    for plain, row in zip(before, after, strict=True):
        assert [message["role"] for message in row["prompt"]].count("system") == 1
        if plain["prompt"][0]["role"] == "system":
            own += 1
            assert row["prompt"] == plain["prompt"]
        else:
            assert row["prompt"] == [{"role": "system", "content": "Think first."}, *plain["prompt"]]
    assert 0 < own < len(after)


MISFITS = [  # format, a row that fits, what makes it a misfit, what is said
    ("gsm8k", GSM8K_ROW, {"answer": "It is 42."}, "no '#### ' before"),
    ("math", MATH_ROW, {"solution": "It is 42."}, "no \\boxed{}"),
    ("messages", CHAT_ROW, {"messages": CHAT_ROW["messages"][:1]}, "the last of the column messages"),
    ("messages", CHAT_ROW, {"messages": CHAT_ROW["messages"][1:]}, "no prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("format_name", "good", "change", "said"), MISFITS)
def test_a_row_that_does_not_fit_and_a_missing_column_are_named(format_name, good, change, said):
    with pytest.raises(DataError) as error:
        made_of(format_name, good, good, good | change)
    assert str(error.value).startswith(f"row 2 does not fit {format_name}: ") and said in str(error.value)
    with pytest.raises(DataError, match=f"{format_name} needs the column .*; the data set has text"):
        made_of(format_name, {"text": "6 * 7"})


def test_a_column_that_is_not_there_cannot_be_renamed():
    with pytest.raises(DataError) as error:
        formatted(DATA / "plain.csv", rename={"quest": "prompt"})
    assert str(error.value) == "found quest, but the data set has the columns question, response, target"
    assert error.value.key == "rename_columns"


def test_a_column_that_a_stage_or_a_reward_needs_is_named():
    columns = formatted(DATA / "messages.jsonl", "messages").column_names
    said = "the reward math_answer needs the column answer; after formatting there are source, prompt, completion"
    with pytest.raises(DataError) as error:
        check_columns(columns, {"prompt": "stage grpo", "answer": "the reward math_answer"})
    assert str(error.value) == said


def test_an_edited_format_gives_new_rows_and_may_return_plain_text(tmp_path):
    rows = datasets.Dataset.from_list([{"prompt": "0+1", "answer": "1"}])
    for end in (" = ?", "?!"):
        (tmp_path / f"a{len(end)}").mkdir()  # another file, as a process that starts later sees an edited one
        (tmp_path / f"a{len(end)}" / "fmt.py").write_text(
            f"def fmt(row):\n    return {{'prompt': row['prompt'] + {end!r}}}\n"
        )
        [row] = format_rows(rows, find_format("./fmt.py", tmp_path / f"a{len(end)}"), "Think.")
        assert row["prompt"] == [{"role": "system", "content": "Think."}, {"role": "user", "content": f"0+1{end}"}]
