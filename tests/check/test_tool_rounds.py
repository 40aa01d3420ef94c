"""A round is played and tools are tried before a model is loaded, and what they take of a prompt is counted."""

import json
import shutil
import signal

import pytest
from conftest import TINY

from reasoning_ext.check import check as check_all
from reasoning_ext.check import tools
from reasoning_ext.check.show import check_and_print, document
from reasoning_ext.recipe import user_code
from reasoning_ext.recipe.load import load_recipe

EVAL = """\
stage: eval
model_name_or_path: ./model
from_scratch: true
dataset_name: ./rows.jsonl
max_completion_length: 56
output_dir: out
tools: [calculator, ./mine.py:lookup: {seconds: 2, memory_mb: 64}]
"""
MINE = '''\
def lookup(name: str) -> str:
    """Look a name up.

    Args:
        name: whose.
    """
    return name
'''
ENV = '''\
class Env:
    """A game that cannot be begun."""

    def __init__(self):
        raise OSError("no board")

    def reset(self, **row) -> None:
        """Begin."""

    def move(self, number: int) -> str:
        """Move.

        Args:
            number: how far.
        """
        return ""
'''


@pytest.fixture
def check(tmp_path, monkeypatch, rows_file):
    """Check a recipe over a copy of the tiny model, the bounds of tools not tried; returns what was found."""
    shutil.copytree(TINY / "model", tmp_path / "model")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "env.py").write_text(ENV)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tools, "unheld", lambda: "")

    def call(text=EVAL, run=False):
        (tmp_path / "r.yaml").write_text(text)
        return next(check_all([load_recipe(tmp_path / "r.yaml")], run, offline=True))

    return call


def test_this_machine_holds_what_hangs_raises_swells_and_floods(monkeypatch):
    assert tools.unheld.__wrapped__() == ""
    monkeypatch.setattr(tools, "TRIALS", {"raises": ("timeout", "is not late"), "hangs": ("timeout", "")})
    assert "raises" in tools.unheld.__wrapped__() and "hangs" not in tools.unheld.__wrapped__()


def test_what_may_be_called_is_shown_with_its_bounds_and_counted(check, capsys, tmp_path):
    found = check()
    assert found.errors == []
    facts = document(found)["facts"]
    assert [(one["name"], one["seconds"], one["memory_mb"]) for one in facts["tools"]] == [
        ("calculator", 5.0, 512), ("lookup", 2, 64),
    ]  # fmt: skip
    assert facts["own_tool_turns"] and facts["tools_tokens"] > 100
    without = check(EVAL.partition("tools:")[0])
    lengths = document(without)["facts"]["lengths"]["longest"]
    assert facts["lengths"]["longest"] == lengths + facts["tools_tokens"] and "tools" not in document(without)["facts"]
    (tmp_path / "r.yaml").write_text(EVAL)
    check_and_print([load_recipe(tmp_path / "r.yaml")], [], True, 0, False)
    out = capsys.readouterr().out
    assert "tool ./mine.py:lookup (mine.py)" in out and "lookup (2 s, 64 MB)" in out and "what tools take" in out


def test_a_prompt_that_has_no_room_beside_tools_is_one_error(check):
    sample = EVAL.replace("eval", "sample", 1) + "reward_funcs: [math_answer]\nmax_prompt_length: 60\n"
    assert [(one.key, one.code) for one in check(sample).errors] == [("max_prompt_length", "too_long")]


def test_a_tool_that_cannot_begin_is_one_error_before_a_run(check):
    found = check(
        EVAL.replace("tools: [calculator, ./mine.py:lookup: {seconds: 2, memory_mb: 64}]", "environment: ./env.py:Env"),
        run=True,
    )
    [one] = found.errors
    assert (one.key, one.code) == ("environment", "wrong_tool")
    assert "env.py:5: OSError: no board" in one.text


def test_an_environment_that_cannot_be_reset_with_the_first_row_is_an_error(check, tmp_path):
    env = ENV.replace("self):", "self):\n        return\n", 1).replace('"""Begin."""', 'raise OSError("no piece")')
    (tmp_path / "other.py").write_text(env)
    [one] = check(EVAL[: EVAL.index("tools:")] + "environment: ./other.py:Env\n").errors
    assert (one.key, one.code) == ("environment", "wrong_tool")
    assert "with the first row, reset failed: OSError: no piece" in one.text


def test_a_file_that_hangs_where_it_is_imported_is_one_error_and_soon(check, tmp_path, monkeypatch):
    monkeypatch.setattr(user_code, "IMPORT_SECONDS", 0.3)
    (tmp_path / "mine.py").write_text("import time\ntime.sleep(1000)\n" + MINE)
    [one] = check().errors
    assert (one.key, one.code) == ("tools.1", "wrong_tool")
    assert "mine.py:2: TimeoutError: still not imported after 0.3 s" in one.text
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_bounds_that_do_not_hold_and_a_round_that_is_lost_are_errors(check, monkeypatch):
    monkeypatch.setattr(tools, "unheld", lambda: "a tool that hangs was not stopped")
    monkeypatch.setattr("reasoning_ext.think.calls.play", lambda *_: "the result or the answer is left out")
    codes = [("model_name_or_path", "unplayable_round"), ("tools", "unheld_tool")]
    assert [(one.key, one.code) for one in check().errors] == codes


def test_rows_that_are_trained_on_with_calls_get_tool_turns_without_a_word_in_the_recipe(check, tmp_path, capsys):
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "2+2"}}}
    turns = [{"role": "assistant", "content": "<think>2+2</think>", "tool_calls": [call]}]
    turns += [
        {"role": "tool", "name": "calculator", "content": "4"},
        {"role": "assistant", "content": "<think>so</think>4"},
    ]
    rows = [{"messages": [{"role": "user", "content": f"{i}?"}, *turns]} for i in range(8)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = "stage: sft\nmodel_name_or_path: ./model\nfrom_scratch: true\noutput_dir: out\n"
    found = check(sft + "dataset_name: ./chats.jsonl\ndataset_format: messages\n")
    assert found.errors == [] and found.inspection.contract.calls is not None
    assert 0.1 < found.facts["trained_share"] < 0.9

    rejected = [{"role": "assistant", "content": "5"}]
    pairs = [{"prompt": [rows[0]["messages"][0]], "chosen": turns, "rejected": rejected}]
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pairs[0]) + "\n")
    (tmp_path / "d.yaml").write_text(
        "stage: dpo\nmodel_name_or_path: ./model\ndataset_name: ./pairs.jsonl\noutput_dir: out\n"
    )
    check_and_print([load_recipe(tmp_path / "d.yaml")], [], True, 1, False)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    parts = [line.partition(" (")[0] for line in shown if " (made " in line or " (not trained on)" in line]
    assert parts == ["prompt", "chosen", "result", "chosen", "rejected"]
    [result] = [line for line in shown if line.startswith("result (not trained on): ")]
    assert "4" in result and "2+2" not in result
