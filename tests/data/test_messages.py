"""Messages of the data as every stage takes them: text and thoughts wherever they stand, no tools, no nulls of Arrow."""

import datasets
import pytest

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.rows import has_sides
from reasoning_ext.think.template import Contract

ASKED = [{"role": "user", "content": "3+4"}]
WHOLE = "<think>\n3+4=7\n</think>\n\n7"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def made_of(*rows, format_name=None, **options):
    return list(format_rows(datasets.Dataset.from_list(list(rows)), find_format(format_name, None), **options))


def says(**fields):
    return [{"role": "assistant", **fields}]


def in_one_form(chat):
    """Write all contents in parts where one is, as Arrow wants them."""
    mixed = any(isinstance(message["content"], list) for message in chat)
    return [m | {"content": parts(m["content"])} if mixed and isinstance(m["content"], str) else m for m in chat]


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


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
    side = says(**fields)
    [row] = made_of({"prompt": ASKED, "completion": side})
    assert row["completion"] == says(content=WHOLE)
    [row] = made_of({"prompt": ASKED, "chosen": side, "rejected": says(content="8")})
    assert row["chosen"] == says(content=WHOLE) and row["rejected"] == says(content="8")
    [row] = made_of({"messages": in_one_form(ASKED + side)}, format_name="messages")
    assert row["completion"] == says(content=WHOLE)
    [row] = made_of(
        {"chosen": in_one_form(ASKED + side), "rejected": ASKED + says(content="8")}, format_name="preferences"
    )
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


def test_contents_in_parts_are_their_text():
    system = {"role": "system", "content": parts("Be brief.")}
    [row] = made_of({"prompt": [system, {"role": "user", "content": parts("3", "+4")}], "answer": "7"})
    assert row["prompt"] == [{"role": "system", "content": "Be brief."}, *ASKED]


def test_bytes_are_the_text_that_they_are():
    [row] = made_of({"prompt": b"3+4", "completion": b"7", "answer": b"7"})
    assert (row["prompt"], row["completion"], row["answer"]) == (ASKED, says(content="7"), "7")
    for column in ("prompt", "completion", "answer"):
        with pytest.raises(DataError, match=f"row 0 .*{column}"):
            made_of({"prompt": b"3", "completion": b"7", "answer": b"7", column: b"\xff\xfe"})


CALL = [{"type": "function", "function": {"name": "add", "arguments": {"a": 3}}}]
REFUSED = [
    ({"prompt": ASKED, "completion": says(content="", tool_calls=CALL)}, "completion"),
    ({"prompt": [*ASKED, {"role": "tool", "content": "7"}], "completion": "7"}, "prompt"),
    ({"prompt": ASKED, "completion": "7", "tools": [{"type": "function"}]}, "tools"),
    ({"prompt": ASKED, "completion": "7", "tools": '[{"name": "add"}]'}, "tools"),
    ({"prompt": [{"role": "user", "content": [{"type": "image", "image": "x"}]}], "completion": "7"}, "prompt"),
    ({"prompt": ASKED, "completion": ASKED}, "completion"),
    ({"prompt": ASKED, "completion": says(content=[*parts("7"), {"type": "thinking", "thinking": "!"}])}, "completion"),
    ({"prompt": [{"role": "user", "content": "3+4", "thinking": "?"}], "completion": "7"}, "prompt"),
    ({"prompt": [{"role": "human", "content": "3+4"}], "completion": "7"}, "human, allowed: user"),
    ({"prompt": [{"role": "User", "content": "3+4"}], "completion": "7"}, "User, allowed: user"),
    ({"prompt": "3+4", "completion": "7", "thinking": ["3", "+4"]}, "completion"),
    ({"prompt": "3+4", "completion": "7", "reasoning": {"steps": "3+4"}}, "reasoning"),
    ({"prompt": "3+4", "chosen": "7", "rejected": "8", "reasoning_content": "3+4=7"}, "reasoning_content"),
]


@pytest.mark.parametrize(("row", "column"), REFUSED)
def test_what_no_stage_would_see_is_refused_with_row_and_column(row, column):
    with pytest.raises(DataError, match=f"row 0 .*{column}"):
        made_of(row)


def test_empty_tools_are_no_tools():
    rows = [
        {"prompt": "1", "completion": says(content="2", tool_calls=[]), "tools": tools} for tools in (None, "", "[]")
    ]
    made = made_of(*rows)
    assert [row["completion"] for row in made] == [says(content="2")] * 3
    assert made_of({"prompt": "1", "completion": "2", "tools": []})


def test_a_side_that_is_no_message_is_refused():
    with pytest.raises(DataError, match="chosen"):
        has_sides({"chosen": ["7"], "rejected": ["8"]})


def test_a_template_sees_no_nulls_of_arrow():
    message = {"role": "user", "content": "3+4", "name": None, "more": {"a": None, "b": [{"c": None}]}}
    assert Contract().messages([message]) == [{"role": "user", "content": "3+4", "more": {"b": [{}]}}]
