"""What a run says while it trains: TRL's names, the time left, a GRPO run that learns nothing; and the card that it leaves."""

import json
import math
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
from reasoning_ext.train.callbacks import FlatGroups, MostCutOff, NoneRight, RunRecorder

MIXED = [1.0] * 20 + [0.5] + [1.0] * 19
CASES = {  # shares of flat groups by log, mean rewards, max_steps -> the logs that warn, what the end says
    "none differs": ([1.0] * 40, None, 40, [9], "mean 0)"),
    "a short run": ([1.0] * 4, None, 4, [1], "mean 0)"),
    "all are right": ([1.0] * 4, [1.0] * 4, 4, [1], "mean 1)"),
    "one differs early": ([0.99] + [1.0] * 39, None, 40, [], ""),
    "one differs late": (MIXED, None, 40, [9], ""),
    "no reward at all": ([0.0] * 4, [math.nan, None, None, math.nan], 4, [1], "none of them had any"),
    "a reward at last": ([0.0] * 4, [None, None, None, 0.5], 4, [1], ""),
}


@pytest.mark.parametrize(("flat", "rewards", "steps", "warned", "end"), CASES.values(), ids=CASES)
def test_a_run_without_a_difference_in_any_group_is_warned_of(capsys, flat, rewards, steps, warned, end):
    callback, state, found = FlatGroups(), TrainerState(max_steps=steps, logging_steps=1), []
    for i, share in enumerate(flat):
        state.global_step += 1
        state.log_history.append({"frac_reward_zero_std": share, "reward": rewards[i] if rewards else 0.0})
        callback.on_log(None, state, TrainerControl())
        found += [i] * capsys.readouterr().out.count("warning")
    callback.on_train_end(None, state, TrainerControl())
    said = capsys.readouterr().out
    assert found == warned and said.count("warning") == bool(end) and end in said


@pytest.mark.parametrize(
    ("shares", "warned"), [([0.9] * 40, [9]), ([0.5] * 40, []), ([0.0] * 10 + [1.0] * 30, []), ([1.0] * 9, [])]
)
def test_a_run_whose_completions_are_mostly_cut_off_is_warned_of_once(capsys, shares, warned):
    state, found = TrainerState(max_steps=40, logging_steps=1), []
    for i, share in enumerate(shares):
        state.log_history += [{"completions/clipped_ratio": share}, {"eval_loss": 1.0}]
        MostCutOff().on_log(SimpleNamespace(max_completion_length=64), state, TrainerControl())
        del state.log_history[-1]
        MostCutOff().on_log(SimpleNamespace(max_completion_length=64), state, TrainerControl())
        found += [i] * capsys.readouterr().out.count("max_completion_length: 64")
    assert found == warned


NONE_RIGHT = {  # mean of the judge's reward, shares of flat groups -> the logs that warn
    "form alone is paid": ([0.0] * 40, [0.5] * 40, [9]),
    "one is right": ([0.0] * 9 + [0.1] + [0.0] * 30, [0.5] * 40, []),
    "no group differs": ([0.0] * 40, [1.0] * 40, []),
    "nothing is judged": ([math.nan] * 40, [0.5] * 40, []),
}


@pytest.mark.parametrize(("means", "flat", "warned"), NONE_RIGHT.values(), ids=NONE_RIGHT)
def test_a_run_in_which_nothing_is_right_and_form_is_paid_is_warned_of_once(capsys, means, flat, warned):
    state, found = TrainerState(max_steps=40, logging_steps=1), []
    for i, (mean, share) in enumerate(zip(means, flat, strict=True)):
        state.log_history.append({"rewards/math_answer/mean": mean, "frac_reward_zero_std": share})
        NoneRight("math_answer").on_log(None, state, TrainerControl())
        found += [i] * capsys.readouterr().out.count("warning: math_answer")
    assert found == warned


def test_a_line_has_trl_s_names_and_the_time_left(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 10.0, 30.0, 40.0])  # at the start, then once a log
    monkeypatch.setattr("reasoning_ext.train.callbacks.time.monotonic", lambda: next(clock))
    recorder = RunRecorder(RunDir(tmp_path, False, None), "sft", None, Interrupt())
    arguments, state = TrainingArguments(output_dir=str(tmp_path)), TrainerState(max_steps=20)
    for step in (1, 3, 20):
        state.global_step = step
        recorder.on_log(arguments, state, TrainerControl(), {"loss": 1.5, "num_tokens": 100 * step})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "sft  step 1/20  loss 1.5  10 tokens/s  0:03:10 left"
    assert second.endswith("  10 tokens/s  0:02:50 left") and last.endswith("loss 1.5  170 tokens/s")


def test_slow_steps_and_batches_are_told_of_between_logs(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 20.0, 35.0, 40.0, 70.0])  # at the start, after two batches, at the ends of two steps
    monkeypatch.setattr("reasoning_ext.train.callbacks.time.monotonic", lambda: next(clock))
    recorder = RunRecorder(RunDir(tmp_path, False, None), "sft", None, Interrupt())
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
    recorder = RunRecorder(RunDir(tmp_path, False, tmp_path / "checkpoint-4"), "sft", trainer, Interrupt())
    arguments, state = TrainingArguments(output_dir=str(tmp_path)), TrainerState(max_steps=20, global_step=5)
    for tokens in (100, 200):
        recorder.on_log(arguments, state, TrainerControl(), {"loss": 1.5, "num_tokens": tokens})
    assert ["tokens/s" in line for line in capsys.readouterr().out.splitlines()] == [False, True]


def test_a_flat_run_leaves_its_own_card_and_two_warnings(write_recipe, tmp_path, monkeypatch, capsys):
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
    assert out.count("warning: in none of the") == 2 and "frac_reward_zero_std 1 " in out
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
