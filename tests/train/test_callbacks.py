"""What a run says while it trains: TRL's names, the time left, a GRPO run that learns nothing; and the card that it leaves."""

import json
from types import SimpleNamespace

import pytest
from conftest import TINY
from transformers import TrainerControl, TrainerState, TrainingArguments

from reasoning_ext.check import Look
from reasoning_ext.errors import UserError
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.train.callbacks import RunRecorder

WATCH = SimpleNamespace(broken=False)


def test_a_line_has_trl_s_names_and_the_time_left(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 10.0, 30.0, 40.0])  # at the start, then once a log
    monkeypatch.setattr("reasoning_ext.train.callbacks.time.monotonic", lambda: next(clock))
    recorder = RunRecorder(RunDir(tmp_path, False, None), "sft", None, Interrupt(), WATCH)
    arguments, state = TrainingArguments(output_dir=str(tmp_path)), TrainerState(max_steps=20)
    for step in (1, 3, 20):
        state.global_step = step
        recorder.on_log(arguments, state, TrainerControl(), {"loss": 1.5, "num_tokens": 100 * step})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "sft  step 1/20  loss 1.5  10 tokens/s  0:03:10 left"
    assert second.endswith("  10 tokens/s  0:02:50 left") and last.endswith("loss 1.5  170 tokens/s")


def test_a_measurement_is_no_part_of_the_pace_and_those_to_come_are_of_the_time_left(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 1000.0, 1010.0, 2010.0, 2030.0])  # two measurements of 1000 s, 10 s a step
    monkeypatch.setattr("reasoning_ext.train.callbacks.time.monotonic", lambda: next(clock))
    recorder = RunRecorder(RunDir(tmp_path, False, None), "sft", None, Interrupt(), WATCH)
    arguments = TrainingArguments(output_dir=str(tmp_path), eval_steps=2)
    state, control = TrainerState(max_steps=6, eval_steps=2), TrainerControl()
    for state.global_step in range(4):
        if state.global_step in (0, 2):
            recorder.on_log(arguments, state, control, {"held_out/seconds": 1000.0})
        if state.global_step in (1, 3):
            recorder.on_log(arguments, state, control, {"loss": 1.5, "num_tokens": 100 * state.global_step})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith("10 tokens/s  0:50:50 left") and lines[-1].endswith("10 tokens/s  0:33:50 left")


def test_slow_steps_and_batches_are_told_of_between_logs(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 20.0, 35.0, 40.0, 70.0])  # at the start, after two batches, at the ends of two steps
    monkeypatch.setattr("reasoning_ext.train.callbacks.time.monotonic", lambda: next(clock))
    recorder = RunRecorder(RunDir(tmp_path, False, None), "sft", None, Interrupt(), WATCH)
    arguments = TrainingArguments(output_dir=str(tmp_path), gradient_accumulation_steps=4)
    state, control = TrainerState(max_steps=20), TrainerControl()
    for _ in range(2):
        recorder.on_substep_end(arguments, state, control)
    for state.global_step in (1, 2):
        recorder.on_step_end(arguments, state, control)
    recorder.on_step_end(arguments, state, TrainerControl(should_log=True))  # a log has its own line
    batches, step = capsys.readouterr().out.splitlines()
    assert "step 0/20" in batches and "batch 2/4" in batches and step == "sft  step 2/20  0:10:30 left"


def test_the_first_line_of_a_run_that_goes_on_has_no_pace(tmp_path, capsys):
    (tmp_path / "checkpoint-4").mkdir()
    trainer = SimpleNamespace()
    recorder = RunRecorder(RunDir(tmp_path, False, tmp_path / "checkpoint-4"), "sft", trainer, Interrupt(), WATCH)
    arguments, state = TrainingArguments(output_dir=str(tmp_path)), TrainerState(max_steps=20, global_step=5)
    for tokens in (100, 200):
        recorder.on_log(arguments, state, TrainerControl(), {"loss": 1.5, "num_tokens": tokens})
    assert ["tokens/s" in line for line in capsys.readouterr().out.splitlines()] == [False, True]


def test_a_flat_run_leaves_its_own_card_and_is_told_of_once(write_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
    write_recipe(
        f"stage: grpo\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\ndataset_name: {TINY / 'last_digit.py'}\n"
        "gen_kwargs: {num_rows: 32, num_steps: 5}\nreward_funcs: [exact_answer]\nnum_generations: 2\n"
        "per_device_train_batch_size: 4\nmax_completion_length: 4\nmax_steps: 4\nbf16: false\nuse_cpu: true\n"
        "logging_steps: 1\noutput_dir: out\n"
    )
    assert run_recipes(load_recipes(["r.yaml"])) == 0
    out = capsys.readouterr().out
    assert out.count("\nhealth  flat_groups at step 4") == 1 and "frac_reward_zero_std 1 " in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "exact\\_answer" in card and "max_steps: 4" in card and "None" not in card
    assert json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])["frac_reward_zero_std"] == 1.0


def test_a_run_on_a_cpu_says_what_it_takes_and_a_stage_that_fails_says_how_to_go_on(
    write_recipe, rows_file, tmp_path, monkeypatch, capsys
):
    def look(self):
        self.checked.cost = "cost: 2 steps"
        self.checked.memory = SimpleNamespace(plan=SimpleNamespace(setup=SimpleNamespace(host=True)))

    def fail(*_):
        raise UserError("sft.jsonl is empty")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Look, "look", look)
    monkeypatch.setattr("reasoning_ext.pipeline._run_stage", fail)
    base = f"dataset_name: {rows_file}\nuse_cpu: true\n"
    write_recipe(f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nbf16: false\noutput_dir: a\n{base}", "1_sft.yaml")
    models = f"models: {{base: {TINY / 'model'}, mine: a}}\nfrom_scratch: true\n"
    write_recipe(f"stage: eval\n{models}reward_funcs: [exact_answer]\noutput_dir: b\n{base}", "2_eval.yaml")
    with pytest.raises(UserError, match="is empty"):
        run_recipes(load_recipes(["1_sft.yaml", "2_eval.yaml"]))
    said = capsys.readouterr().out
    assert "1_sft: cost: 2 steps" in said and "2_eval: not run, since 1_sft failed; leave mine out" in said
