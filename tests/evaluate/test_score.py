"""Rewards replayed over saved completions."""

import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import TINY

from reasoning_ext import think
from reasoning_ext.data.held_out import read_problems
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate import replay as score
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs import report
from reasoning_ext.runs.read import read_run


def write_parquet(path):
    completions = [[{"role": "assistant", "content": c}] for c in ("<think>a</think>7", "<think></think>8", "9")]
    table = {"step": [1] * 3, "prompt": ["?"] * 3, "completion": completions, "answer": ["7", "8", "7"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def test_a_runs_completions(cli, tmp_path):
    write_parquet(tmp_path / "run" / "completions" / "completions_00001.parquet")
    result = cli("score", "run", "--reward", "math_answer", "--reward", "think_format")
    assert result.code == 0 and "torch" not in result.heavy
    lines = result.out.splitlines()
    assert lines[0] == "3 completions of 1 prompts"
    start = "math_answer x 1              mean 0.6667  std 0.4714  min 0  max 1  not applicable 0  groups without variance 0%"
    assert lines[1].startswith(start) and lines[1].endswith(" ms each")
    assert "mean 0.3333" in lines[2] and lines[3].startswith("total ") and "mean 1.0000" in lines[3]
    assert lines[4] == "correlation: math_answer ~ think_format +0.50"
    assert "highest 2 (row 0): <think>a</think>7" in result.out and "lowest 0 (row 2): 9" in result.out


@pytest.fixture
def replay(tmp_path, monkeypatch, capsys):
    """Score rows, or what a path holds, in this process and return what is printed."""
    monkeypatch.chdir(tmp_path)

    def call(rows, *rewards, recipe=None):
        if not isinstance(rows, str):
            (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = Path(rows if isinstance(rows, str) else "x.jsonl")
        score.score_and_print(path, recipe and Path(recipe), [*rewards])
        return capsys.readouterr().out

    return call


def test_what_training_logged_is_compared_with(replay):
    rows = [("?", "7", 1.0), ("?", "8", -1.0), ("?", "9", 0.5), ("?", "7", 0.0)]
    rows += [("!", "8", 1.0), ("!", "7", -1.0), ("...", "7", 1.0), ("...", "8", -1.0)]
    out = replay([{"prompt": p, "completion": c, "answer": "7", "advantage": a} for p, c, a in rows], "math_answer")
    assert "; another completion is best in 1 of 3 groups" in out
    nan = [{"prompt": "?", "completion": c, "advantage": float("nan"), "prompts": "x"} for c in "ab"]
    assert "logged rewards" not in replay(nan, "think_format")


def test_an_opening_tag_that_a_template_wrote_is_put_back_and_whole_completions_count(replay):
    rows = [{"completion": f"because</think>{n}"} for n in (7, 8)]
    assert "mean 1.0000" in replay(rows, "think_format")
    assert "mean 0.5000" in replay(rows + [{"completion": "<think>because</think>9"}] * 2, "think_format")
    completion = [{"role": "assistant", "content": "a</think>7"}]
    wholes = ("<think>a</think>7", "<think></think>7", "7")
    out = replay([{"completion": completion, "whole": whole} for whole in wholes], "think_format")
    assert "mean 0.3333" in out and "(row 0): <think>a</think>7" in out


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "thinking", "thinking": "3+4"}, {"type": "text", "text": "7"}]},
        {"content": "7", "reasoning_content": "3+4", "tool_calls": None},
        {"content": "<think>3+4</think>7", "reasoning_content": None},
    ],
)
def test_messages_are_read_as_those_of_data(replay, message):
    row = {"prompt": "?", "completion": [{"role": "assistant", **message}], "answer": "7"}
    assert "total                        mean 2.0000" in replay([row], "math_answer", "think_format")


@pytest.mark.parametrize(
    "lines",
    ['{\n{"completion": "a"}', '{"completion": 3}', '{"completion": []}', '{"completion": "a"}\n{"b": 1}', "[1]", ""],
)
def test_what_cannot_be_read_is_said(replay, tmp_path, lines, wording):
    (tmp_path / "x.jsonl").write_text(lines + "\n")
    with pytest.raises(UserError) as caught:
        replay("x.jsonl", "think_format")
    wording(caught.value)


def test_a_recipes_reward_weights_count(replay, write_recipe):
    write_recipe("stage: grpo\nreward_funcs: [think_format, language]\nreward_weights: [2.0, 0.5]\n")
    out = replay([{"prompt": "?", "completion": "<think>a</think>b"}], recipe="r.yaml")
    assert "think_format x 2 " in out and "language x 0.5 " in out and "highest 2.5" in out


def test_a_runs_own_tokenizer_counts_tokens(replay, tmp_path):
    write_parquet(tmp_path / "run" / "completions" / "completions_00001.parquet")
    with pytest.raises(UserError, match="needs completion_ids or tokens, or a run's folder"):
        replay("run", "length_penalty")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "run" / name).write_bytes((TINY / "model" / name).read_bytes())
    assert "mean -0.0" in replay("run", "length_penalty")


def test_a_jsonl_file_with_a_recipes_rewards(replay, tmp_path, write_recipe):
    write_recipe("stage: sample\nreward_funcs: [length_penalty: {max_tokens: 10}]\n")
    failed = {"prompt": "?", "completion": "", "error": "time-out"}  # no completion, so nothing to score
    cut = failed | {"completion": "some", "sample_index": 1, "tokens": 99}  # by the server, for a reason of its own
    rows = [failed, cut, *({"prompt": "?", "completion": "x", "tokens": n} for n in (5, 10))]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
    assert "mean -0.7500" in replay("samples.jsonl", recipe="r.yaml")


def test_what_is_missing_is_said(replay):
    for rows, rewards, said in (
        ("nowhere", ["math_answer"], "found no completions in nowhere"),
        ([{"completion": "7"}], ["math_answer"], "the reward math_answer needs the column answer"),
        ([{"completion": "7"}], [], "found no reward"),
    ):
        with pytest.raises(UserError, match=f"score: {said}"):
            replay(rows, *rewards)


REWARD = """\
def near(completions, answer=None, **kwargs):
    levels = kwargs["level"]
    texts = [c[0]["content"] for c in completions]
    return [None if a is None else float(len(t) % 5 + int(a) + 10 * n) for t, a, n in zip(texts, answer, levels)]
"""


@pytest.mark.parametrize("stage", ["grpo", "sample", "eval"])
def test_a_run_is_scored_with_its_own_recipe_as_it_was(tmp_path, monkeypatch, capsys, stage):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near.py").write_text(REWARD)
    rows = [{"prompt": f"{a}+1", "answer": str(a + 1), "level": a % 3, "task": "ab"[a % 2]} for a in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "stage": stage, "model_name_or_path": str(TINY / "model"), "from_scratch": True, "dataset_name": "./rows.jsonl",
        "reward_funcs": ["./near.py", {"length_penalty": {"max_tokens": 8, "when": {"task": "a"}, "weight": 0.5}}],
        "num_generations": 2, "max_completion_length": 8, "use_cpu": True, "output_dir": "out",
    }  # fmt: skip
    values |= {"max_steps": 2, "logging_steps": 1, "gradient_checkpointing": False} if stage == "grpo" else {}
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    assert run_recipes(load_recipes(["r.yaml"])) == 0
    capsys.readouterr()
    assert (stage == "grpo") == ((found := read_problems(tmp_path / "out")) is not None and len(found) == 8)
    score.score_and_print(tmp_path / "out", None, [])
    out = capsys.readouterr().out
    near, length = out.splitlines()[1:3]
    assert near.startswith("near x 1 ") and "not applicable 0" in near and length.startswith("length_penalty x 0.5 ")
    for row in (found := score.read_completions(tmp_path / "out")):
        asked = re.search(r"\d(?=\+1)", str(row["prompt"]))[0]  # TRL 1.14 logs the rendered text
        assert {name: row[name] for name in ("answer", "level", "task")} == {
            name: value for name, value in rows[int(asked)].items() if name != "prompt"
        }
        logged = row.get("rewards") or row
        text = think.content(row["completion"])
        assert logged["near"] == len(text) % 5 + int(row["answer"]) + 10 * row["level"]
    page = report.render([run := read_run(tmp_path / "out")])
    assert len(found) >= 8 and all(sample["answer"] for sample in run.samples or run.answers)
    assert page.count('"gold":"') >= 8


ACTING = """\
def called(completions, completion_ids, **kwargs):
    calls = [sum(len(m.get("tool_calls", [])) for m in c) for c in completions]
    assert all(m["tool_calls"][0]["function"]["arguments"] == {"a": 1} for c in completions for m in c if "tool_calls" in m)
    return [10.0 * n + len(ids) for n, ids in zip(calls, completion_ids)]

def won(completions, environments, **kwargs):
    return [1.0] * len(completions)
"""


def test_rows_with_turns_are_scored_whole_and_environments_are_not_replayed(replay, tmp_path):
    (tmp_path / "acting.py").write_text(ACTING)
    calls = [{"type": "function", "function": {"name": "x", "arguments": {"a": 1}}}]
    called = {"role": "assistant", "content": "", "tool_calls": calls}
    turns = [called, {"role": "tool", "name": "x", "content": "2\x1b[31m"}]
    rows = [
        {"prompt": "?", "completion": "2", "turns": turns, "tokens": 3, "tool_tokens": 4, "answer": "2"},
        {"prompt": "?", "completion": "3", "tokens": 5, "answer": "2"},
    ]
    out = replay(rows, "acting.py:called", "acting.py:won", "math_answer")
    assert "min 5  max 17" in out and "left out: won" in out and "won x" not in out and "mean 0.5" in out
    assert "\x1b" not in out and "→ x" in out
    pyarrow.parquet.write_table(
        pyarrow.table({"prompt": ["?"], "completion": [[{"role": "assistant", "content": "2"}]], "answer": ["2"],
                       "turns": [json.dumps(turns)], "tokens": [3], "tool_tokens": [4]}), tmp_path / "t.parquet"
    )  # fmt: skip
    assert "min 17  max 17" in replay("t.parquet", "acting.py:called")
    (tmp_path / "r.yaml").write_text(
        "stage: grpo\nmodel_name_or_path: x\ndataset_name: y\noutput_dir: z\n"
        "reward_funcs: [math_answer, ./acting.py:won, {length_penalty: {gate: won}}]\n"
    )
    assert "left out: length_penalty, won" in replay(rows, recipe="r.yaml")
    with pytest.raises(UserError, match="environments"):
        replay(rows, "acting.py:won")
