"""Rows with calls of tools: whatever form they stand in, one comes out, nothing is added or lost, and misfits are said."""

import json

import datasets
import pytest

from reasoning_ext.data.calls import need_tool_turns
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.duplicates import deduplicate
from reasoning_ext.data.filters import TraceFilters, filter_traces
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.sources import load_rows
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.think.messages import as_objects
from tests.rows import made_of, put

ASKED = {"role": "user", "content": "3*4?"}
ANSWER = {"role": "assistant", "content": "12"}


def call(arguments, name="calculator", **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calls(*made, content=""):
    return {"role": "assistant", "content": content, "tool_calls": [*made]}


def result(content="12", name="calculator", **more):
    return {"role": "tool", "name": name, "content": content, **more}


def answer(text):
    return {"role": "assistant", "content": text}


TRACE = [calls(call({"expression": "3*4"})), result(), ANSWER]
OLD = answer(None) | {"function_call": {"name": "calculator", "arguments": '{"expression": "3*4"}'}}
FORMS = {
    "mapping": TRACE,
    "text": [calls(call('{"expression": "3*4"}')), result(), ANSWER],
    "flat": [calls({"name": "calculator", "arguments": {"expression": "3*4"}}), result(), ANSWER],
    "ids": [calls(call({"expression": "3*4"}, id="a")), {"role": "tool", "tool_call_id": "a", "content": "12"}, ANSWER],
    "function": [OLD, {"role": "function", "name": "calculator", "content": "12"}, ANSWER],
    "ipython": [TRACE[0], {"role": "ipython", "content": "12"}, ANSWER],
}


def in_file(folder, *rows, format_name="messages", **options):
    """Return rows as they come out of a JSON file and a format, the completions' calls as they are in memory."""
    raw = load_rows(str(put(folder / "rows.jsonl", [*rows])), None)
    return list(format_rows(raw, find_format(format_name, None), **options))


def bare(chat):
    found = [{name: value for name, value in one.items() if value is not None} for one in chat]
    return [one | {"tool_calls": as_objects(one["tool_calls"])} if "tool_calls" in one else one for one in found]


@pytest.mark.parametrize("form", FORMS)
def test_calls_and_results_come_out_in_one_form(form, tmp_path):
    [row] = in_file(tmp_path, {"messages": [ASKED, *FORMS[form]]})
    assert bare(row["prompt"]) == [ASKED] and bare(row["completion"]) == TRACE
    [row] = made_of({"prompt": "3*4?", "completion": FORMS[form]})
    assert bare(row["prompt"]) == [ASKED] and bare(row["completion"]) == TRACE


def test_turns_of_sharegpt_are_the_same():
    said = {"name": "calculator", "arguments": {"expression": "3*4"}}
    asks = ("function_call", f"<think>a</think>{json.dumps(said)}")
    turns = [{"from": a, "value": b} for a, b in (("human", "3*4?"), asks, ("observation", "12"), ("gpt", "12"))]
    [row] = made_of({"conversations": turns}, format_name="sharegpt")
    assert bare(row["completion"]) == [calls(*TRACE[0]["tool_calls"], content="<think>a</think>"), *TRACE[1:]]


def test_arguments_of_other_names_nulls_and_nests_stay_as_they_are(tmp_path):
    deep = {"b": None, "c": [1, "two", None, {"d": {}}]}
    made = [{"a": None, "n": 1}, {}, {"a": "x", "deep": deep}, {"n": "one", "e": 0.5}]
    rows = [{"messages": [ASKED, calls(call(one)), result(), ANSWER]} for one in made]
    found = [bare(row["completion"]) for row in in_file(tmp_path, *rows, {"messages": [ASKED, ANSWER]})]
    assert [chat[0]["tool_calls"][0]["function"]["arguments"] for chat in found[:-1]] == made
    assert found[-1] == [ANSWER]
    rows = [{"messages": [ASKED, *TRACE]}, {"messages": [ASKED, calls(call({"z": 1})), *TRACE[1:]]}]
    parquet = load_rows(str(put(tmp_path / "rows.parquet", rows)), None)
    found = [bare(row["completion"])[0]["tool_calls"] for row in format_rows(parquet, find_format("messages", None))]
    assert found == [[call({"expression": "3*4"})], [call({"z": 1})]]


def test_results_stand_in_the_order_of_their_calls():
    both = calls(call({}, "a", id="1"), call({}, "b", id="2"))
    answered = [{"role": "tool", "tool_call_id": i, "content": i} for i in ("2", "1")]
    [row] = made_of({"messages": [ASKED, both, *answered, ANSWER]}, format_name="messages")
    assert bare(row["completion"])[1:3] == [result("1", "a"), result("2", "b")]


def test_a_call_that_could_not_be_read_has_a_result_all_the_same():
    chat = [answer("<tool_call>{"), result("error: no JSON", "error"), ANSWER]
    [row] = made_of({"messages": [ASKED, *chat]}, format_name="messages")
    assert bare(row["completion"]) == chat


@pytest.mark.parametrize(("chat", "said"), [
    ([TRACE[0]], "assistant|without a result"), ([TRACE[0], ANSWER], "calculator without a result"),
    ([result(), ANSWER], "without a call"), ([*TRACE[:2], result(), ANSWER], "without a call"), (TRACE[:2], "assistant"),
    ([*TRACE[:2], answer(" ")], "answer"), ([calls(call("{3")), *TRACE[1:]], "no JSON"),
    ([calls(call("[3]")), *TRACE[1:]], "JSON text of one"), ([TRACE[0], result(name="other"), ANSWER], "other"),
    ([calls({"id": "1"}), *TRACE[1:]], "a name"), ([*TRACE, ANSWER], "two turns"),
    ([calls(call({}, id="1")), {"role": "tool", "content": "2", "tool_call_id": "3"}, ANSWER], "id 3"),
])  # fmt: skip
def test_what_is_no_trace_is_refused_with_its_row(chat, said, tmp_path):
    with pytest.raises(DataError, match=f"row 1 does not fit messages: .*({said})"):
        in_file(tmp_path, {"messages": [ASKED, *TRACE]}, {"messages": [ASKED, *chat]})


def test_a_row_each_users_turn_holds_all_turns_behind_it():
    chat = [ASKED, *TRACE, {"role": "user", "content": "5?"}, ANSWER, ANSWER, {"role": "user", "content": "6?"}, *TRACE]
    rows = made_of({"messages": chat}, format_name="messages", turns="all")
    found = [(len(row["prompt"]), bare(row["completion"])) for row in rows]
    assert found == [(1, TRACE), (5, [ANSWER]), (6, [ANSWER]), (8, TRACE)]
    [row] = made_of({"messages": chat[:6]}, format_name="messages")
    assert bare(row["prompt"]) == chat[:5] and bare(row["completion"]) == [ANSWER]


PARAMETERS = {"type": "object", "properties": {"x": {"default": None}}}
TOLD = {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}


@pytest.mark.parametrize("tools", [[TOLD], json.dumps([TOLD]), [json.dumps(TOLD)], [TOLD["function"]]])
def test_a_column_of_tools_is_told_as_it_stands(tools, tmp_path):
    row = {"prompt": "1", "completion": "2"}
    rows = in_file(tmp_path, row | {"tools": tools}, row, format_name=None)
    assert json.loads(rows[0]["tools"]) == [TOLD] and rows[1]["tools"] is None
    assert [need_tool_turns(datasets.Dataset.from_list(some)) for some in (rows, rows[1:])] == [True, False]


@pytest.mark.parametrize("tools", ["a hammer", ["saw"], [{"description": "saw"}], 3])
def test_a_column_that_tells_no_tools_is_refused(tools):
    with pytest.raises(DataError, match=r"row 0 .*tools holds .*rename_columns"):
        made_of({"prompt": "1", "completion": "2", "tools": tools})


def test_pairs_have_turns_on_both_sides(tmp_path):
    wrong = [calls(call({"expression": "3+4"})), result("7"), answer("7")]
    [row] = made_of({"chosen": [ASKED, *TRACE], "rejected": [ASKED, *wrong]}, format_name="preferences")
    assert (bare(row["prompt"]), bare(row["chosen"]), bare(row["rejected"])) == ([ASKED], TRACE, wrong)
    rows = [{"prompt": "3*4?", "chosen": TRACE, "rejected": said} for said in (wrong, [ANSWER], TRACE)]
    put(tmp_path / "pairs.jsonl", rows)
    put(tmp_path / "dpo.yaml", "stage: dpo\nmodel_name_or_path: x\noutput_dir: o\ndataset_name: ./pairs.jsonl\n")
    kept = prepare(row_options(load_recipe(tmp_path / "dpo.yaml"))).rows
    assert [bare(row["rejected"]) for row in kept] == [wrong, [ANSWER]]  # the last side is the same as the other


def test_filters_and_duplicates_take_all_turns_for_the_trace():
    long = [calls(call({"expression": "3*4"}), content="<think>3*4=12</think>"), result("word " * 50), ANSWER]
    wrong = [calls(call({"expression": "1+1"}), content="<think>1+1=3</think>"), result("3"), answer("3")]
    rows = [{"prompt": "3*4?", "completion": said, "answer": "12"} for said in (TRACE, long, wrong)]
    rows = datasets.Dataset.from_list(made_of(*rows))
    kept = lambda **filters: len(filter_traces(rows, TraceFilters(**filters), lambda text: len(text.split()))[0])  # noqa: E731
    assert (kept(max_tokens=20), kept(require_thought=True), kept(correct=True), kept(min_steps=1.0)) == (2, 2, 2, 2)
    assert len(deduplicate(rows, "exact", by="row")[0]) == 3  # the first two end with the same answer


def test_prompts_with_tools_need_tools_in_the_recipe(tmp_path):
    put(tmp_path / "rows.jsonl", [{"prompt": [ASKED, *TRACE, ASKED], "answer": "12"}])
    keys = "dataset_name: ./rows.jsonl\nreward_funcs: math_answer\n"
    recipe = put(tmp_path / "sample.yaml", f"stage: sample\nmodel_name_or_path: x\noutput_dir: o\n{keys}")
    with pytest.raises(DataError, match="under tools"):
        prepare(row_options(load_recipe(recipe)))
    recipe.write_text(recipe.read_text() + "tools: [calculator]\n")
    assert prepare(row_options(load_recipe(recipe))).rows.num_rows == 1


def test_rows_with_and_without_tools_are_mixed(tmp_path):
    put(tmp_path / "a.jsonl", [{"prompt": "3*4?", "completion": TRACE, "tools": [TOLD]}])
    put(tmp_path / "b.jsonl", [{"prompt": "3*4?", "completion": "12"}])
    entries = "datasets: [{dataset_name: ./a.jsonl}, {dataset_name: ./b.jsonl}]\n"
    put(tmp_path / "sft.yaml", f"stage: sft\nmodel_name_or_path: x\noutput_dir: o\n{entries}")
    rows = prepare(row_options(load_recipe(tmp_path / "sft.yaml"))).rows
    assert {(bare(row["completion"]) == TRACE, bool(row["tools"])) for row in rows} == {(False, False), (True, True)}
