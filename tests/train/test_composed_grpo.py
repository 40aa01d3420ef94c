"""Composed rewards inside a real GRPO run, and our rewards in plain TRL."""

import json
import subprocess
import sys

import pyarrow.parquet
import pytest
from conftest import ROOT, TINY

from reasoning_ext.runs.report import write_report

pytestmark = pytest.mark.slow
MINE = """\
calls = []

def one(completions, **kwargs):
    return [1.0 for _ in completions]

def flaky(completions, **kwargs):
    calls.append(1)
    if len(calls) == 3:  # the first call is the trial before training
        raise ValueError("the second batch")
    return [0.5 for _ in completions]

def half(completions, **kwargs):
    return [float(i % 2) for i in range(len(completions))]

async def later(completions, **kwargs):
    return [0.25 for _ in completions]
"""
RECIPE = f"""\
stage: grpo
model_name_or_path: {TINY}/model
from_scratch: true
dataset_name: {TINY}/last_digit.py
gen_kwargs: {{num_rows: 16, num_steps: 2}}
reward_funcs:
  - ./mine.py:one: {{schedule: {{linear: {{0: 0.0, 2: 2.0}}}}}}
  - math_answer: {{weight: 0.0}}
  - ./mine.py:flaky: {{weight: 0.0}}
  - ./mine.py:half: {{weight: 0.0, isolate: true, timeout: 30}}
  - think_format: {{weight: 0.0, gate: half, mode: graded}}
  - ./mine.py:later: {{weight: 0.0, gate: half}}
num_generations: 4
per_device_train_batch_size: 16
max_completion_length: 12
max_steps: 4
learning_rate: 1.0e-4
beta: 0.0
bf16: false
gradient_checkpointing: false
use_cpu: true
logging_steps: 1
seed: 0
output_dir: run
"""


def test_gates_schedules_isolation_and_failures_in_a_training(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "grpo.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "reasoning_ext", "run", "grpo.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("reward flaky: 16 completions without a reward: ValueError: the second batch") == 1
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in metrics if "reward" in row]
    assert [row["reward"] for row in steps] == pytest.approx([0, 1, 2, 2])  # `one` is 1, so this is its weight
    assert [row["rewards/one/mean"] for row in steps] == [1] * 4 and steps[1]["flaky/errors"] == 16
    assert all(row["math_answer/errors"] == 0 for row in steps)
    table = pyarrow.parquet.read_table(sorted((tmp_path / "run" / "completions").glob("*.parquet"))[-1]).to_pylist()
    assert [row["half"] for row in table] == [0.0, 1.0] * 8
    assert [row["later"] == 0.25 for row in table] == [row["half"] > 0 for row in table]
    gated = [row["think_format"] is None or row["think_format"] != row["think_format"] for row in table]
    assert gated == [row["half"] == 0 for row in table]
    write_report([tmp_path / "run"], tmp_path / "report.html")
    assert "flaky: not judged" in (tmp_path / "report.html").read_text()


def test_the_example_of_plain_trl_runs(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "plain_trl.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'rewards/math_answer/mean': " in done.stdout and "'math_answer/errors': 0.0" in done.stdout
