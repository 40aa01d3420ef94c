"""Checkpoints: whole or put aside, rotated by their steps after they are whole, and gone on from at their very end."""

import json
import os
import signal

import pytest
from conftest import TINY

from reasoning_ext.runs.checkpoints import COMPLETE, checkpoints, last_checkpoint, mark_complete, rotate, settle
from reasoning_ext.runs.interrupt import Interrupt, Terminated, handle_signals, stop_at_once

RECIPE = """\
stage: {stage}
model_name_or_path: {model}
from_scratch: true
dataset_name: ./rows.jsonl
max_steps: 4
per_device_train_batch_size: 4
learning_rate: 1.0e-3
lr_scheduler_type: constant
bf16: false
use_cpu: true
logging_steps: 1
save_steps: 2
output_dir: out
"""
GRPO = "reward_funcs: [exact_answer]\nnum_generations: 2\nmax_completion_length: 4\n"


def make(path, step, whole=True):
    folder = path / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (folder / name).write_text(f"{name} of {step}")
    if whole:
        mark_complete(folder)
    return folder


def test_what_is_damaged_is_put_aside_and_what_is_torn_goes(tmp_path):
    for step in (9, 10, 20, 100, 105):
        make(tmp_path, step)
    torn = make(tmp_path, 110, whole=False)
    (tmp_path / ".tmpAb12").write_text("half a model")
    (tmp_path / "checkpoint-105" / COMPLETE).write_text('{"files": [1]}')
    (tmp_path / "checkpoint-100" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-20" / "model.safetensors").write_text("x")
    (tmp_path / "checkpoint-10" / "scheduler.pt").write_text("scheduler.pt of 11")  # of the same size
    told = settle(tmp_path)
    named = [COMPLETE, "optimizer.pt", "model.safetensors", "scheduler.pt"]
    assert [line.split("(")[1].split()[0] for line in told] == named
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9" and not torn.exists()
    assert (tmp_path / "damaged-checkpoint-100").is_dir() and not (tmp_path / ".tmpAb12").exists()
    assert settle(tmp_path) == []


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [9, 10, 100, 200]), (3, None, [10, 100, 200]), (1, None, [200]), (2, 9, [9, 200]), (1, 9, [9, 200]),
    ],
)  # fmt: skip
def test_the_oldest_go_by_step_whatever_the_clock_said_and_the_best_stays(tmp_path, limit, best, left):
    for i, step in enumerate((9, 10, 100, 200)):
        os.utime(make(tmp_path, step), (1e9 - i * 1e6, 1e9 - i * 1e6))
    rotate(tmp_path, limit, best and str(tmp_path / f"checkpoint-{best}"))
    assert [int(c.name[11:]) for c in checkpoints(tmp_path)] == left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_remembered_and_the_second_stops(number):
    before = handle_signals(stop_at_once)
    try:
        with Interrupt("stopping") as interrupt:
            os.kill(os.getpid(), number)
            assert interrupt.requested and interrupt.code == 128 + number
            with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Terminated):
                os.kill(os.getpid(), number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_run_cut_off_before_done_trains_no_further_step_and_goes_round_damage(
    stage, tmp_path, rows_file, write_recipe, monkeypatch, capsys
):
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    def run(**overrides):
        assert run_recipes(load_recipes(["r.yaml"], overrides)) == 0
        text = (out / "metrics.jsonl").read_text()
        return (
            capsys.readouterr().out,
            text,
            [n for row in map(json.loads, text.splitlines()) if (n := row.get("num_tokens"))],
        )

    monkeypatch.chdir(tmp_path)
    more = GRPO if stage == "grpo" else "max_length: 64\n"
    write_recipe(RECIPE.format(stage=stage, model=TINY / "model") + more + "save_total_limit: 1\n")
    out = tmp_path / "out"
    _, metrics, tokens = run()
    assert [c.name for c in checkpoints(out)] == ["checkpoint-4"]
    weights = (out / "model.safetensors").read_bytes()
    (out / "DONE").unlink()
    (out / "model.safetensors").unlink()
    said, again, _ = run()
    assert "step 5/4" not in said and "goes on from out/checkpoint-4" in said
    assert (out / "model.safetensors").read_bytes() == weights and again == metrics
    said, _, counted = run(max_steps="6")
    assert "step 6/6" in said and "step 4/6" not in said
    assert counted == sorted(counted) and counted[: len(tokens)] == tokens
