"""Formats of plain columns and chats: messages in whatever form they stand, and rows that do not fit."""

import logging

import pytest
from datasets import fingerprint
from reasoning_ext.rewards.math_answer import math_answer

from reasoning_ext import think
from reasoning_ext.data.columns import DataError, check_columns
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.rows import has_sides
from reasoning_ext.data.sources import load_rows
from reasoning_ext.think.template import Contract
from tests.rows import FIXTURES, made_of, put

RENAME = {"question": "prompt", "response": "completion", "target": "answer"}
SFT = ["answer", "completion", "prompt"]
ASKED = [{"role": "user", "content": "3+4"}]
WHOLE = "<think>\n3+4=7\n</think>\n\n7"


def formatted(name, format_name=None, rename=None, system_prompt=None):
    return format_rows(load_rows(str(FIXTURES / name), None), find_format(format_name, None), system_prompt, rename)


def says(**fields):
    return [{"role": "assistant", **fields}]


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def in_one_form(chat):
    """Write all contents in parts where one is, as Arrow wants them."""
    mixed = any(isinstance(message["content"], list) for message in chat)
    return [m | {"content": parts(m["content"])} if mixed and isinstance(m["content"], str) else m for m in chat]


FILES = [("gsm8k.jsonl", "gsm8k", None, SFT), ("math.jsonl", "math", None, SFT), ("plain.csv", None, RENAME, SFT)]
FILES += [("plain.parquet", None, None, SFT), ("messages.jsonl", "messages", None, ["completion", "prompt", "source"])]


def test_what_makes_rows_is_hashed_by_datasets_without_a_warning(caplog):
    with caplog.at_level("WARNING", logger="datasets.fingerprint"):
        logging.getLogger("datasets").addHandler(caplog.handler)  # which hands nothing on
        fingerprint.fingerprint_warnings.clear()
        formatted("gsm8k.jsonl", "gsm8k")
    logging.getLogger("datasets").removeHandler(caplog.handler)
    assert caplog.records == []


@pytest.mark.parametrize(("file", "format_name", "rename", "columns"), FILES, ids=[row[0] for row in FILES])
def test_every_row_comes_out_in_trls_columns_and_its_gold_scores_one(file, format_name, rename, columns):
    rows = formatted(file, format_name, rename)
    assert len(rows) >= 20 and sorted(rows.column_names) == columns
    for row in rows:
        assert row["prompt"][-1]["role"] == "user" and [message["role"] for message in row["completion"]] == [
            "assistant"
        ]
        assert all(message["content"].strip() for message in row["prompt"] + row["completion"])
    if "answer" in columns:
        assert all(think.well_formed(think.content(row["completion"])) for row in rows)
        assert math_answer(rows["completion"][:], answer=rows["answer"][:]) == [1.0] * len(rows)


def test_math_gold_is_the_last_balanced_box():
    wanted = {r"\frac{3}{8}", r"\{2, 3\}", r"(-\infty, 3)", "[-2, 2]", r"\frac{\sqrt{2}}{2}", r"\frac{1}{2^{3}}"}
    assert wanted <= set(formatted("math.jsonl", "math")["answer"])


def test_system_prompt_stands_in_front_once():
    before, after = (list(formatted("messages.jsonl", "messages", None, text)) for text in (None, "Think first."))
    own = [row["prompt"][0]["role"] == "system" for row in before]
    assert 0 < sum(own) < len(own) and {len(row["prompt"]) for row in before} >= {1, 2, 3}
    for plain, row, has_one in zip(before, after, own, strict=True):
        front = [] if has_one else [{"role": "system", "content": "Think first."}]
        assert row["prompt"] == [*front, *plain["prompt"]]


CHAT = [*ASKED, *says(content="7")]
MISFITS = [  # format, a row that fits, what makes it a misfit, what is said
    ("gsm8k", {"question": "6 * 7?", "answer": "6*7=42\n#### 42"}, {"answer": "It is 42."}, "####"),
    ("gsm8k", {"question": "6 * 7?", "answer": "6*7=42\n#### 42"}, {"answer": "42 ####"}, "####"),
    ("math", {"problem": "6 * 7?", "solution": r"It is \boxed{42}."}, {"solution": "It is 42."}, "boxed"),
    ("messages", {"messages": CHAT}, {"messages": CHAT[:1]}, "assistant"),
    ("messages", {"messages": CHAT}, {"messages": CHAT[1:]}, "prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("format_name", "good", "change", "said"), MISFITS)
def test_a_row_that_does_not_fit_and_a_missing_column_are_named(format_name, good, change, said):
    with pytest.raises(DataError, match=rf"row 2 .*{format_name}.*{said}") as error:
        made_of(good, good, good | change, format_name=format_name)
    assert error.value.key == "dataset_format"
    with pytest.raises(DataError, match=f"{format_name} needs the column .*text") as error:
        made_of({"text": "6 * 7"}, format_name=format_name)
    assert error.value.problem.code == "missing_column"


@pytest.mark.parametrize(
    "rename", [{"quest": "prompt"}, {"question": "target"}, {"question": "x", "target": "x"}, {"target": 5}]
)
def test_a_column_that_is_not_there_or_taken_cannot_be_renamed(rename):
    with pytest.raises(DataError, match="question, response, target") as error:
        formatted("plain.csv", rename=rename)
    assert error.value.key == "rename_columns"


def test_a_column_that_a_stage_or_a_reward_needs_is_named():
    with pytest.raises(DataError, match=r"the reward math_answer needs the column answer; .*prompt, completion"):
        check_columns(["prompt", "completion"], {"prompt": "stage grpo", "answer": "the reward math_answer"})
    check_columns(["prompt", "solution"], {"answer": "the reward math_answer"})


def test_an_edited_format_gives_new_rows_and_may_return_plain_text(tmp_path):
    rows = load_rows(str(put(tmp_path / "rows.jsonl", [{"prompt": "0+1", "answer": "1"}])), tmp_path)
    for end in (" = ?", "?!"):  # another file, as a process that starts later sees an edited one
        file = tmp_path / f"a{len(end)}" / "fmt.py"
        put(file, f"def fmt(row):\n    return {{'prompt': row['prompt'] + {end!r}}}\n")
        [row] = format_rows(rows, find_format("./fmt.py", file.parent), "Think.")
        assert row["prompt"] == [{"role": "system", "content": "Think."}, {"role": "user", "content": f"0+1{end}"}]


THOUGHTS = [
    {"content": "7", "reasoning_content": "3+4=7"},
    {"content": "7", "thinking": "3+4=7"},
    {"content": parts("7"), "reasoning": "3+4=7"},
    {"content": [{"type": "thinking", "thinking": "3+4=7"}, *parts("7")]},
    {"content": [{"type": "thinking", "thinking": parts("3+4", "=7")}, *parts("7")]},
    {"content": [{"type": "reasoning", "text": "3+4=7"}, *parts("7")]},
    {"content": WHOLE, "thinking": "3+4=7"},
]


@pytest.mark.parametrize("fields", THOUGHTS)
def test_a_thought_in_its_own_place_is_in_think_tags_in_every_format(fields):
    side, chat = says(**fields), in_one_form(ASKED + says(**fields))
    [row] = made_of({"prompt": ASKED, "completion": side})
    assert row["completion"] == says(content=WHOLE)
    [row] = made_of({"prompt": ASKED, "chosen": side, "rejected": says(content="8")})
    assert row["chosen"] == says(content=WHOLE) and row["rejected"] == says(content="8")
    [row] = made_of({"messages": chat}, format_name="messages")
    assert row["completion"] == says(content=WHOLE)
    [row] = made_of({"chosen": chat, "rejected": ASKED + says(content="8")}, format_name="preferences")
    assert row["chosen"] == says(content=WHOLE)
    [row] = made_of({"prompt": in_one_form([*ASKED, *side, *ASKED]), "answer": "7"})
    assert row["prompt"] == [*ASKED, *says(content=WHOLE), *ASKED]


def test_a_thought_in_a_column_or_a_turn_of_its_own_is_in_think_tags():
    [row] = made_of({"prompt": "3+4", "completion": "7", "reasoning_content": "3+4=7"})
    assert row["completion"] == says(content=WHOLE)
    turns = [{"from": "human", "value": "3+4"}, {"from": "gpt", "value": "7", "thinking": "3+4=7"}]
    [row] = made_of({"conversations": turns}, format_name="sharegpt")
    assert row["completion"] == says(content=WHOLE)


def test_of_a_completion_of_several_messages_the_earlier_ones_are_the_prompt():
    completion = [*says(content="7"), {"role": "user", "content": "1+1"}, *says(content="2")]
    [row] = made_of({"prompt": ASKED, "completion": completion})
    assert row["prompt"] == ASKED + completion[:2] and row["completion"] == completion[2:]
    rows = made_of({"prompt": ASKED, "completion": completion}, turns="all")
    assert [row["completion"][0]["content"] for row in rows] == ["7", "2"]


def test_parts_bytes_and_numbers_are_their_text():
    system = {"role": "system", "content": parts("Be brief.")}
    [row] = made_of({"prompt": [system, {"role": "user", "content": parts("3", "+4")}], "answer": "7"})
    assert row["prompt"] == [{"role": "system", "content": "Be brief."}, *ASKED]
    [row] = made_of({"prompt": b"3+4", "completion": b"7", "answer": b"7"})
    assert (row["prompt"], row["completion"], row["answer"]) == (ASKED, says(content="7"), "7")
    [row] = made_of({"prompt": [{"role": b"user", "content": b"3+4"}], "completion": "7"})
    assert row["prompt"] == ASKED
    for column in ("prompt", "completion", "answer"):
        with pytest.raises(DataError, match=f"row 0 .*{column}"):
            made_of({"prompt": b"3", "completion": b"7", "answer": b"7", column: b"\xff\xfe"})
    [row] = made_of({"prompt": 5, "chosen": 7, "rejected": 8})
    assert row["prompt"][0]["content"] == "5" and row["chosen"] == says(content="7")


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
REFUSED = [  # a row that no stage can use, what is said of it
    ({"prompt": ASKED, "completion": [CALL]}, "completion"), ({"prompt": [*ASKED, CALL], "completion": "7"}, "prompt"),
    ({"prompt": [*ASKED, {"role": "tool", "content": "7"}], "completion": "7"}, "prompt"),
    ({"prompt": "3+4", "completion": "7", "tools": [{"title": "f"}]}, "tools"),
    ({"prompt": ASKED, "completion": says(content="7", thinking="3", reasoning="4")}, "completion"),
    ({"prompt": ASKED, "completion": says(content=WHOLE, thinking="other")}, "completion"),
    ({"prompt": [{"role": "user", "content": [{"type": "image", "image": "x"}]}], "completion": "7"}, "prompt"),
    ({"prompt": ASKED, "completion": ASKED}, "completion"), ({"prompt": None, "completion": "7"}, "prompt"),
    ({"prompt": ASKED, "completion": says(content=[*parts("7"), {"type": "thinking", "thinking": "!"}])}, "completion"),
    ({"prompt": [{"role": "user", "content": "3+4", "thinking": "?"}], "completion": "7"}, "prompt"),
    ({"prompt": [{"role": "human", "content": "3+4"}], "completion": "7"}, "human, allowed: user"),
    ({"prompt": [{"role": "User", "content": "3+4"}], "completion": "7"}, "User, allowed: user"),
    ({"prompt": "3+4", "completion": "7", "thinking": ["3", "+4"]}, "completion"),
    ({"prompt": "3+4", "completion": "7", "reasoning": {"steps": "3+4"}}, "reasoning"),
    ({"prompt": "3+4", "chosen": "7", "rejected": "8", "reasoning_content": "3+4=7"}, "reasoning_content"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), REFUSED)
def test_what_no_stage_would_see_is_refused_with_row_and_column(row, said):
    with pytest.raises(DataError, match=f"row 0 .*{said}"):
        made_of(row)


def test_empty_tools_are_no_tools_and_a_side_that_is_no_message_is_refused():
    rows = [
        {"prompt": "1", "completion": says(content="2", tool_calls=[]), "tools": tools} for tools in (None, "", "[]")
    ]
    assert [row["completion"] for row in made_of(*rows)] == [says(content="2")] * 3
    with pytest.raises(DataError, match="chosen"):
        has_sides({"chosen": ["7"], "rejected": ["8"]})


def test_a_template_sees_no_nulls_of_arrow():
    message = {"role": "user", "content": "3+4", "name": None, "more": {"a": None, "b": [{"c": None}]}}
    assert Contract().messages([message]) == [{"role": "user", "content": "3+4", "more": {"b": [{}]}}]
