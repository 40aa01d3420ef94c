"""Health rules while a training goes on: said once, stopped where nothing mends it, and no broken weights saved."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from transformers import TrainerControl, TrainerState

from reasoning_ext.check import Look
from reasoning_ext.errors import UserError
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.runs.health import alarms
from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.train.callbacks import RunRecorder
from reasoning_ext.train.health import HealthError, HealthWatch

CUT = {"completions/clipped_ratio": 0.9}


def watched(tmp_path, rows=(), **recipe):
    """A watch over a training of 80 steps that goes on behind some rows, its state, and a way to log."""
    model = torch.nn.Linear(2, 2)
    state = TrainerState(max_steps=80, global_step=len(rows), log_history=list(rows))
    control = TrainerControl()
    trainer = SimpleNamespace(model=model, control=control)
    watch = HealthWatch(trainer, RunDir(tmp_path, False, None), {"stage": "grpo", **recipe})
    watch.on_train_begin(None, state, control)

    def log(**values):
        state.global_step += 1
        state.log_history.append({"step": state.global_step, **values})
        watch.on_log(None, state, control)
        return control.should_training_stop

    return watch, state, control, log


def test_most_cut_off_is_said_at_step_10_and_stops_at_20_with_the_last_checkpoint_kept(tmp_path, capsys):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "COMPLETE").touch()
    watch, state, control, log = watched(tmp_path)
    assert not any(log(**CUT) for _ in range(9)) and not watch.alarms
    assert [log(**CUT) for _ in range(11)] == [False] * 10 + [True]
    assert [(alarm.rule.name, alarm.step) for alarm in watch.alarms] == [("cut_off", 10)]
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["health", "cut_off"]]
    with pytest.raises(HealthError, match="checkpoint-5 is kept") as stopped:
        watch.on_train_end(None, state, control)
    assert stopped.value.path == ("max_completion_length",) and "health: {cut_off: off}" in str(stopped.value)


@pytest.mark.parametrize(("flat", "stops"), [(1.0, 10), (0.9, 20)])
def test_all_cut_off_without_a_difference_to_learn_from_stops_at_step_10(tmp_path, flat, stops):
    _, _, _, log = watched(tmp_path)
    row = {"completions/clipped_ratio": 1.0, "frac_reward_zero_std": flat, "reward": 0.0, "reward_std": 1 - flat}
    assert [log(**row) for _ in range(stops)] == [False] * (stops - 1) + [True]


LEARNS = {  # what a model that is cut off at first does later
    "ends its answers once the warm-up is over": lambda step: {
        "learning_rate": min(1.0, step / 15), "completions/clipped_ratio": 0.95 - 0.01 * max(0, step - 15)
    },
    "earns more of what it ends": lambda step: {"reward": 0.1 + 0.002 * step, **CUT},
    "ends them slowly from the first step on": lambda step: {"completions/clipped_ratio": 0.95 - 0.004 * step},
}  # fmt: skip


@pytest.mark.parametrize("learns", LEARNS.values(), ids=LEARNS)
def test_a_model_that_learns_to_end_its_answers_is_not_stopped(tmp_path, learns):
    watch, _, _, log = watched(tmp_path)
    assert not any(log(**learns(step)) for step in range(1, 60))
    assert [alarm.rule.name for alarm in watch.alarms] == ["cut_off"]


def test_off_goes_on_and_another_threshold_counts(tmp_path, capsys):
    for chosen in ("off", False, 0.95):
        _, _, _, log = watched(tmp_path, health={"cut_off": chosen})
        assert not any(log(**CUT) for _ in range(40))
    assert capsys.readouterr().out == ""


def test_what_held_at_a_checkpoint_is_not_said_again_and_stops_only_where_it_goes_on(tmp_path, capsys):
    rows = [{"step": step, **CUT, "kl": 3.0} for step in range(1, 21)]
    assert {alarm.rule.name for alarm in alarms(rows, {"stage": "grpo"})} == {"cut_off", "kl_high"}
    _, _, _, log = watched(tmp_path, rows)
    assert not any(log(**{"completions/clipped_ratio": 0.0}, kl=3.0) for _ in range(15))
    _, _, _, log = watched(tmp_path, rows)
    assert [log(**CUT, kl=3.0) for _ in range(20)] == [False] * 19 + [True]
    assert capsys.readouterr().out == ""


def test_nothing_stops_at_the_last_step(tmp_path):
    watch, state, control, log = watched(tmp_path)
    state.max_steps = 20
    assert not any(log(**CUT) for _ in range(20))
    assert watch.on_train_end(None, state, control) is None


def test_nan_logs_stop_after_several(tmp_path):
    watch, _, _, log = watched(tmp_path)
    assert [log(grad_norm=math.nan) for _ in range(20)] == [False] * 19 + [True]
    assert [(alarm.rule.name, alarm.step) for alarm in watch.alarms] == [("nan", 5)]


def test_broken_weights_are_never_saved_and_end_a_training_at_once(tmp_path, monkeypatch):
    watch, state, control, log = watched(tmp_path)

    def base_log(trainer, logs):
        state.log_history.append({"step": state.global_step, **logs})
        watch.on_log(None, state, control)
        control.should_log = False  # as transformers does

    monkeypatch.setattr("reasoning_ext.train.health.Trainer.log", base_log)
    interrupt = Interrupt()
    recorder = RunRecorder(watch.run, "grpo", watch.trainer, interrupt, watch)
    log(grad_norm=0.1)
    control.should_save = True
    for callback in (watch, recorder):
        callback.on_step_end(None, state, control)
    assert control.should_save and not control.should_training_stop
    with torch.no_grad():
        watch.trainer.model.weight[0, 0] = math.nan
    interrupt.requested = control.should_log = True
    for callback in (watch, recorder):
        callback.on_step_end(None, state, control)
    assert not control.should_save and control.should_training_stop and control.should_log
    control.should_save = True
    recorder.on_epoch_end(None, state, control)
    assert not control.should_save
    with pytest.raises(HealthError, match="no checkpoint is kept"):
        watch.on_train_end(None, state, control)


RECIPE = f"""\
stage: grpo
model_name_or_path: {TINY}/model
from_scratch: true
dataset_name: {TINY}/last_digit.py
gen_kwargs: {{num_rows: 32, num_steps: 5}}
reward_funcs: [exact_answer]
audit: [math_answer, ./mine.py, ./mine.py:fails]
num_generations: 2
per_device_train_batch_size: 4
max_completion_length: 2
bf16: false
gradient_checkpointing: false
use_cpu: true
logging_steps: 1
save_steps: 4
output_dir: out
"""
MINE = """\
def mine(completions, answer, **kwargs):
    return [0.25 for _ in answer]

def fails(completions, **kwargs):
    raise ValueError("cannot")
"""


@pytest.mark.slow
def test_a_training_that_cuts_everything_off_is_stopped_and_audited_until_then(
    write_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Look, "look", lambda self: None)
    (tmp_path / "mine.py").write_text(MINE)
    write_recipe(RECIPE + "max_steps: 24\ntemperature: 0.01\n")
    with pytest.raises(UserError) as stopped:
        run_recipes(load_recipes(["r.yaml"]))
    problem, said = stopped.value.problem, capsys.readouterr()
    assert (problem.code, problem.key, problem.line) == ("unhealthy", "max_completion_length", 10)
    assert said.out.count("\nhealth  cut_off at step ") == 1
    assert said.err.count("audit fails: ") == 1 and "ValueError: cannot" in said.err
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    logs = [row for row in rows if "reward" in row]
    assert len(logs) == 10 and (tmp_path / "out" / "checkpoint-8" / "COMPLETE").is_file()
    for row in logs:
        assert row["audit/mine/mean"] == 0.25 and row["audit/mine/gap"] == row["reward"] - 0.25
        assert row["audit/math_answer/mean"] >= row["reward"] and row["audit/fails/errors"] == 4.0
        assert row["completions/thinks"] == row["completions/repetition"] == 0.0
    assert not (tmp_path / "out" / "DONE").exists() and not [*(tmp_path / "out").glob("*.safetensors")]
