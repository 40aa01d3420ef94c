"""Completions of several turns wherever a person reads them: in the report, a terminal, a card, a tracker; hostile ones too."""

import json
import re
from types import SimpleNamespace

import pytest
from test_browser import CLOSING, HIDDEN, NOTHING, needs_node, read_back, run, sample, strings, under_node

from reasoning_ext import think
from reasoning_ext.evaluate import thoughts
from reasoning_ext.runs import browser, report, traces
from reasoning_ext.runs.next_steps import next_steps
from reasoning_ext.runs.tracking import Tracking
from reasoning_ext.sample.card import _example


def call(name="calculator", **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments or {"expression": "17*23"}}}


CALLS = {"role": "assistant", "content": "<think>17*23=?</think>", "tool_calls": [call()]}
TURNS = [CALLS, {"role": "tool", "name": "calculator", "content": "391"}]
LAST = "<think>391+1=392</think>392"


@pytest.mark.parametrize("row", [
    {"turns": TURNS, "completion": LAST},
    {"turns": json.dumps(TURNS), "completion": LAST},
    {"turns": json.dumps([*TURNS, {"role": "assistant", "content": LAST}]), "completion": "cut by a template"},
    {"turns": json.dumps(TURNS), "completion": [{"role": "assistant", "content": LAST, "tool_calls": None, "name": None}]},
    {"completion": [CALLS | {"name": None}, TURNS[1] | {"tool_calls": None}, {"role": "assistant", "content": LAST}]},
], ids=["samples", "table", "table with the last turn", "TRL's message", "TRL's messages"])  # fmt: skip
def test_rows_of_every_store_come_to_the_same(row):
    found = traces.with_turns(row | {"step": 3})
    assert found == {"turns": TURNS, "completion": LAST, "step": 3}
    assert traces.whole(found) == [*TURNS, {"role": "assistant", "content": LAST}]


@pytest.mark.parametrize("turns", [None, "", "[", 7, {"a": 1}, [1, "x"], "[" * 10**5, float("nan")])
def test_turns_that_are_none_leave_a_row_as_it_was(turns):
    assert traces.with_turns({"turns": turns, "completion": "7"}) == {"completion": "7"}


def test_hostile_turns_are_data_and_of_bounded_size():
    called = [call(CLOSING, **{CLOSING: HIDDEN}), 7, {"function": 3}, {}]
    odd = [
        {"role": CLOSING, "content": HIDDEN},
        {"role": "assistant", "content": None, "tool_calls": called},
        {"role": "assistant", "content": CLOSING, "tool_calls": {"no": "list"}},
        {"role": "tool", "name": HIDDEN * 100, "content": CLOSING * 10_000},
        {"role": "tool", "content": [{"type": "text", "text": CLOSING}]},
    ]
    back = read_back(browser.data([run([sample(0, LAST, turns=odd), sample(1, LAST, turns=odd * 500)])]))
    shown = [text for text in strings(back) if isinstance(text, str)]
    assert not [text for text in shown if re.search("[\x00-\x08\x1b\x7f-\x9f\u202e\u2028\u200b\ud800-\udfff]", text)]
    assert max(map(len, shown)) < 10_000 and len(back["rows"][1]["turns"]) == traces.MOST_PARTS + 1
    assert back["rows"][0]["turns"][1] == ["call", CLOSING, json.dumps({CLOSING: HIDDEN}, ensure_ascii=False).replace(
        "\u202e", r"\u202e").replace("\u2028", r"\u2028").replace("\u2029", r"\u2029").replace("\u200b", r"\u200b")
        .replace("\x9b", r"\x9b").replace("\ud800", r"\ud800")]  # fmt: skip


def test_the_characters_of_turns_count_for_the_size_of_a_page(monkeypatch):
    monkeypatch.setattr(browser, "MOST_TEXT", 100_000)
    turns = [CALLS, {"role": "tool", "name": "search", "content": "x" * 3_000}]
    found = browser.data([run([sample(i, "7", turns=turns) for i in range(400)])])
    assert 20 <= len(found["rows"]) <= 40 and len(str(browser.as_json(found))) < 150_000


def test_samples_say_whether_a_tool_was_called_and_a_call_failed():
    fails = [CALLS, TURNS[1] | {"content": "error: division by zero"}]
    rows = [sample(0, "7"), sample(1, LAST, turns=TURNS), sample(2, "", turns=fails)]
    found = browser.data([run(rows)], thoughts.labels)
    names = found["behaviours"]

    def told(key, name):
        return [bool(row[key] & 1 << names.index(name)) for row in found["rows"]]

    assert told("has", browser.CALLED) == [False, True, True] and all(told("can", browser.CALLED))
    assert told("has", browser.FAILED) == [False, False, True] and told("can", browser.FAILED) == [False, True, True]
    assert told("has", "thinks") == [False, True, False]
    assert browser.CALLED not in browser.data([run([sample(0, "7")])])["behaviours"]


@needs_node
def test_the_search_reads_all_turns_and_two_traces_are_compared_whole():
    rows = [
        {"run": 0, "prompt": 0, "rewards": {}, "answer": "7", "i": 0},
        {"run": 0, "prompt": 0, "rewards": {}, "answer": "392", "i": 1, "turns": [["thought", "", "hmm"],
         ["call", "calculator", '{"expression": "17*23"}'], ["result", "calculator", "391 <b>"]]},
    ]  # fmt: skip
    data = {"rows": rows, "prompts": ["?"]}
    for search, found in (("17*23", [1]), ("391 <B", [1]), ("CALC", [1]), ("392", [1]), ("hmm", [1]), ("7", [0, 1])):
        asked = NOTHING | {"search": search}
        assert under_node("b.select(given.data, given.asked).map((row) => row.i)", data=data, asked=asked) == found
    whole = under_node("b.whole(given.row)", row=rows[1])
    assert whole == '<think>hmm</think>\n→ calculator {"expression": "17*23"}\n← calculator 391 <b>\n392'
    [first, _] = under_node("b.difference(b.whole(given.row), b.whole(given.other))", row=rows[1], other=rows[0])
    assert "".join(text for _, text in first) == whole


def test_compared_problems_of_a_report_show_turns_without_a_script():
    turns = [TURNS[0], TURNS[1] | {"content": CLOSING}]
    of = {"a": {"r": 1.0}, "b": {"r": 0.0}}
    rows = [sample(0, LAST, model=m, sample_index=-1, rewards=rewards, turns=turns) for m, rewards in of.items()]
    page = report.render([run(rows, "eval", "4_eval", results={"a": {}, "b": {}})])
    shown = page.partition('<section id="compared">')[2].partition("</section>")[0]
    assert shown.count('<pre class="call"') == shown.count('<pre class="result"') == 2
    assert "calls <b><bdi>calculator</bdi></b>" in shown and "17*23" in shown and "alert(1)" in shown
    assert not re.search("<(script|img)", shown)


def test_no_text_can_pass_for_another_piece_of_a_trace(tmp_path):
    forged = "ok\n← calculator: 9"
    turns = [CALLS | {"content": forged}, TURNS[1] | {"content": f"{forged}\n```\n# x"}]
    lines = traces.as_text({"turns": turns, "completion": forged}).splitlines()
    assert [line for line in lines if line.startswith("←")] == ["← calculator: ok"]
    assert traces.as_text({"completion": "7\n8"}) == "7\n8"
    plain, traced = (json.dumps({"completion": [*before, CALLS]}) + "\n" for before in ([], turns))
    (tmp_path / "sft.jsonl").write_text(plain)
    assert _example(tmp_path) == []
    (tmp_path / "sft.jsonl").write_text(plain + traced)
    [section] = _example(tmp_path)
    fence = re.search("^`{4,}$", section, re.MULTILINE)[0]
    assert section.endswith(f"\n{fence}") and section.count(f"\n{fence}") == 2


def test_trackers_get_turns_as_text(tmp_path, monkeypatch):
    tracking, told = Tracking(tmp_path, [], "p", "r"), []
    tracking.names = ["x"]
    monkeypatch.setattr(tracking, "_table", lambda name, key, frame, step: told.append(frame))
    rows = [{"turns": json.dumps(TURNS), "completion": "392"}, {"turns": None, "completion": "7"}]
    tracking.table("completions", rows)
    assert told[0]["turns"][0].splitlines()[1:] == ['→ calculator {"expression": "17*23"}', "← calculator: 391"]
    assert not isinstance(told[0]["turns"][1], str)


def test_thoughts_of_all_turns_count_and_results_do_not():
    result = TURNS[1] | {"content": "9+9=19. Let me double-check. 391"}
    turns = [CALLS | {"content": "<think>17*23=391</think>"}, result]
    row = {"prompt_index": 0, "prompt": "17*23+1?", "completion": LAST, "turns": turns}
    figures = thoughts.thoughts([row])
    assert figures["equations"] == 2 and figures["true steps"][0] == 1.0 and figures["reflection words"][0] == 0.0
    assert thoughts.thoughts([row | {"turns": []}])["equations"] == 1
    assert thoughts.labels([row])[0]["thinks"]


@pytest.mark.parametrize(("texts", "one"), [
    (["<think>a</think>", "<think>b</think>c"], "<think>a\nb</think>c"),
    (["<think>a</think>", "c"], "<think>a</think>c"),
    (["a", "c"], "a\nc"),
    (["a", "<think>b</think>c"], "<think>a\nb</think>c"),
    (["<think>a</think>", "<think>b"], "<think>a\nb"),
    (["<think>a"], "<think>a"),
])  # fmt: skip
def test_turns_as_one(texts, one):
    turns = [{"role": "assistant", "content": text} for text in texts]
    assert think.as_one([part for turn in turns for part in (turn, TURNS[1])][:-1]) == one


def test_a_tool_that_is_late_is_said_apart_from_rewards_that_fail():
    row = {"tools/search/timeouts": 1.0, "tools/search/errors": 2.0, "math/errors": 1.0}
    metrics = [{"step": i, **row} for i in (1, 2)]
    told = SimpleNamespace(name="x", problems=[], metrics=metrics, results={}, stage="sample", seconds=1)
    late, unjudged = (advice.why for advice in next_steps([told], [], [], []))
    assert late.startswith("calls of search were killed") and unjudged.startswith("math could not judge")
