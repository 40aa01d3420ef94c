"""Rewards replayed over saved completions."""

import json

import pyarrow
import pyarrow.parquet


def write_parquet(path):
    completions = [[{"role": "assistant", "content": c}] for c in ("<think>a</think>7", "<think></think>8", "9")]
    table = {"step": [1] * 3, "prompt": ["?"] * 3, "completion": completions, "answer": ["7", "8", "7"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def test_a_runs_completions(cli, tmp_path):
    write_parquet(tmp_path / "run" / "completions" / "completions_00001.parquet")
    result = cli("score", "run", "--reward", "math_answer", "--reward", "think_format")
    assert result.code == 0 and "torch" not in result.heavy
    first, second = result.out.strip().splitlines()
    assert first.split() == [
        "math_answer",
        "3",
        "completions",
        "mean",
        "0.6667",
        "std",
        "0.4714",
        "min",
        "0",
        "max",
        "1",
        "not",
        "applicable",
        "0",
    ]
    assert "mean 0.3333" in second


def test_a_jsonl_file_with_a_recipes_rewards(cli, tmp_path, write_recipe):
    write_recipe("stage: sample\nreward_funcs: [length_penalty: {max_tokens: 10}]\n")
    rows = [{"prompt": "?", "completion": "x", "tokens": n} for n in (5, 10)]
    (tmp_path / "samples.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + '\n{"torn')
    result = cli("score", "samples.jsonl", "--recipe", "r.yaml")
    assert result.code == 0 and "2 completions  mean -0.7500" in result.out


def test_what_is_missing_is_said(cli, tmp_path):
    assert cli("score", "nowhere", "--reward", "math_answer").err == (
        "error: score: found no completions in nowhere, allowed: parquet, JSONL, a run's folder\n"
    )
    (tmp_path / "x.jsonl").write_text('{"completion": "7"}\n')
    result = cli("score", "x.jsonl", "--reward", "math_answer")
    assert result.code == 2 and result.err == (
        "error: score: the reward math_answer needs the column answer; after formatting there are completion\n"
    )
    assert cli("score", "x.jsonl").err.startswith("error: score: found no reward")
