"""Held-out problems answered in a training: the training is the same, the series goes on, falls are acted on."""

import json
import shutil

import pyarrow.parquet
import pytest
import yaml
from conftest import TINY
from safetensors.torch import load_file

from reasoning_ext import pipeline
from reasoning_ext.check import Look
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import DONE
from reasoning_ext.runs.held_out import read_held_out
from reasoning_ext.train.held_out import HeldOut

SFT = {
    "stage": "sft", "model_name_or_path": f"{TINY}/model", "from_scratch": True, "dataset_name": f"{TINY}/last_digit.py",
    "gen_kwargs": {"num_rows": 48, "num_steps": 2}, "per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 1e-3,
    "logging_steps": 1, "save_steps": 2, "bf16": False, "use_cpu": True, "seed": 0, "max_length": 40,
    "gradient_checkpointing": True,
}  # fmt: skip
GRPO = {k: v for k, v in SFT.items() if k != "max_length"} | {
    "stage": "grpo", "reward_funcs": ["./mine.py:ones"], "num_generations": 4, "max_completion_length": 8, "beta": 0.0,
}  # fmt: skip
MINE = """\
import random

import numpy
import torch


def ones(completions, **kwargs):
    return [len(completion[-1]["content"]) % 3 / 2 for completion in completions]


def noisy(completions, answer, trainer_state, **kwargs):
    if random.random() + numpy.random.rand() + float(torch.rand(())) < 0:
        raise ValueError
    calls.append(len(completions))
    if len(calls) == 3:  # the first of the second measurement
        raise ValueError("the second measurement")
    return [float(len(completion[-1]["content"]) % 2) for completion in completions]


calls = []
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train by a recipe in a folder, and return the rows of its metrics, without what clocks say."""
    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)

    def run(name, values, **more):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values | {"output_dir": name} | more))
        assert pipeline.run_recipes([load_recipe(tmp_path / f"{name}.yaml")]) == 0
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [{key: row[key] for key in row if not key.startswith(CLOCKS)} for row in rows]

    return run


CLOCKS = ("seconds", "step_time", "train_", "held_out/seconds")


def parted(rows):
    """Return the rows of the training itself, and those of measurements."""
    held = [row for row in rows if any(key.startswith("held_out/") for key in row)]
    return [row for row in rows if row not in held], held


@pytest.mark.parametrize("values", [SFT, GRPO], ids=["sft", "grpo"])
def test_a_training_is_the_same_to_the_digit_and_goes_on_where_a_measurement_fails(train, tmp_path, capsys, values):
    asked = {"n": 5, "samples": 1, "reward_funcs": ["./mine.py:noisy"]}
    plain = train("plain", values)
    capsys.readouterr()
    rows, held = parted(train("held", values, eval_problems=asked, eval_steps=2))
    assert rows == plain and sum("loss" in row for row in rows) == 4
    assert [row["step"] for row in held] == [0, 4] == [line["step"] for line in read_held_out(tmp_path / "held")]
    said = capsys.readouterr().out
    assert said.count("not measured at step 2: RewardError") == 1 and "the second measurement" in said
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("plain", "held")]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
    tables = [sorted((tmp_path / name / "completions").glob("*.parquet")) for name in ("plain", "held")]
    assert [file.name for file in tables[0]] == [file.name for file in tables[1]]
    for first, second in zip(*tables, strict=True):
        assert pyarrow.parquet.read_table(first).equals(pyarrow.parquet.read_table(second))


def test_a_series_goes_on_and_is_that_of_a_run_in_one_piece(train, tmp_path, monkeypatch):
    wanted = {"eval_problems": 5, "eval_steps": 1, "keep": "best", "save_steps": 1, "save_total_limit": 1}
    whole = train("run", SFT, **wanted)
    lines, run = read_held_out(tmp_path / "run"), tmp_path / "run"
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    for line in lines:
        assert {*line["right"]} == {"greedy", "pass@1"} and all(len(right) == 5 for right in line["right"].values())
        assert all(low <= share <= high for share, low, high in line["figures"].values())
    left = sorted(path.name for path in run.glob("checkpoint-*"))
    assert left == ["checkpoint-1", "checkpoint-4"]  # all are equal, so that the first is the best
    (run / DONE).unlink()
    shutil.rmtree(run / "checkpoint-4")
    (run / "model.safetensors").unlink()
    asked = []
    monkeypatch.setattr(HeldOut, "_answers", lambda self, *_, real=HeldOut._answers: asked.append(1) or real(self, *_))
    again = train("run", SFT, **wanted)
    assert len(asked) == 3 and [row for row in again if "loss" in row] == [row for row in whole if "loss" in row]
    series = read_held_out(run)
    assert series[:2] == lines[:2] and [one["right"] for one in series] == [one["right"] for one in lines]
    assert [row["step"] for row in parted(again)[1]] == [0, 1, 2, 3, 4]


def test_a_signal_in_the_last_measurement_leaves_it_to_the_next_command(train, tmp_path, monkeypatch):
    def cut_off(self, *shares, real=HeldOut._answers):
        if self.trainer.state.global_step == 4 and not (tmp_path / "run" / "checkpoint-4").is_dir():
            self.interrupt.requested = True
            return None
        return real(self, *shares)

    monkeypatch.setattr(HeldOut, "_answers", cut_off)
    values = SFT | {"eval_problems": 4, "eval_steps": 2, "keep": "best", "save_steps": 2, "output_dir": "run"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    assert pipeline.run_recipes([load_recipe(tmp_path / "run.yaml")]) == 130
    assert not (tmp_path / "run" / DONE).exists()
    rows = train("run", values)
    assert [line["step"] for line in read_held_out(tmp_path / "run")] == [0, 2, 4]
    assert (tmp_path / "run" / DONE).is_file() and sum("loss" in row for row in rows) == 4


def test_a_fall_ends_the_run_with_its_best_checkpoint(train, tmp_path, monkeypatch, capsys):
    shares = {0: 0.0, 2: 0.9, 4: 0.8, 6: 0.1, 8: 0.0}  # by step

    def answers(self, process, processes):
        right = shares[self.trainer.state.global_step] * 20
        line = {"prompt": [], "completion": "<think>1</think>2", "tokens": 4, "finished": True, "answer": "2"}
        return [
            line | {"prompt_index": p, "sample_index": g, "rewards": {"math_answer": float(p < right)}}
            for p in range(20)
            for g in (-1, 0)
        ]

    monkeypatch.setattr(HeldOut, "_answers", answers)
    wanted = {"eval_problems": 20, "eval_steps": 2, "max_steps": 8, "save_total_limit": 1}
    rows = train("stops", SFT, on_fall="stop", **wanted)
    said = capsys.readouterr().out
    assert max(row["step"] for row in rows) == 6 and said.count("fallen for certain: 10.0 after 90.0 at step 2") == 1
    kept, best = (load_file(tmp_path / "stops" / folder / "model.safetensors") for folder in (".", "checkpoint-2"))
    assert all((kept[key] == best[key]).all() for key in kept) and "kept checkpoint-2: 90.0 against 10.0" in said
    rows = train("goes_on", SFT, **wanted)
    assert max(row["step"] for row in rows) == 8 and capsys.readouterr().out.count("fallen for certain") == 2


def test_problems_that_are_trained_on_are_left_out(train, tmp_path, capsys):
    rows = [{"prompt": f"{a}+1", "completion": f"<think>x</think>{a + 1}", "answer": str(a + 1)} for a in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = SFT | {"dataset_name": "./rows.jsonl", "dataset_train_split": "train[:6]", "max_steps": 1}
    del values["gen_kwargs"]
    train("some", values, dataset_test_split="train[4:]", eval_problems=4)
    assert "2 of 4 problems are left out" in capsys.readouterr().out
    assert [len(line["right"]["greedy"]) for line in read_held_out(tmp_path / "some")] == [2, 2]
    with pytest.raises(UserError, match="eval_problems"):
        train("none", values, dataset_test_split="train[:2]", eval_problems=4)
