"""What a run says while it trains: TRL's names, the pace, a GRPO run that learns nothing; and the card that it leaves."""

import json
import math

import pytest
from conftest import TINY
from transformers import TrainerControl, TrainerState, TrainingArguments

from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.train.callbacks import FlatGroups, RunRecorder


def warnings(flat, capsys, max_steps=40, logging_steps=1, rewards=None):
    """Return how many warnings had been printed after each log of a run with these shares of flat groups, and at its end."""
    callback, state = FlatGroups(), TrainerState(max_steps=max_steps, logging_steps=logging_steps)
    counts = []
    for i, share in enumerate(flat):
        state.global_step += logging_steps
        reward = 0.0 if rewards is None else rewards[i]
        state.log_history.append({"frac_reward_zero_std": share, "reward": reward, "step": state.global_step})
        callback.on_log(None, state, TrainerControl())
        counts.append(capsys.readouterr().out.count("warning"))
    callback.on_train_end(None, state, TrainerControl())
    return counts, capsys.readouterr().out


def test_a_run_without_a_difference_in_any_group_is_warned_of_once_early_and_once_at_its_end(capsys):
    counts, end = warnings([1.0] * 40, capsys)
    assert sum(counts) == 1 and counts.index(1) == 9 and end.count("warning") == 1
    counts, end = warnings([1.0] * 4, capsys, max_steps=4)
    assert sum(counts) == 1 and end.count("warning") == 1
    counts, end = warnings([1.0] * 4, capsys, logging_steps=10)
    assert sum(counts) == 1 and end.count("warning") == 1


def test_one_group_with_two_rewards_is_enough_for_silence(capsys):
    counts, end = warnings([0.99] + [1.0] * 39, capsys)
    assert sum(counts) == 0 and end == ""
    counts, end = warnings([1.0] * 20 + [0.5] + [1.0] * 19, capsys)
    assert sum(counts) == 1 and end == ""


@pytest.mark.parametrize("reward", [math.nan, None])
def test_a_run_without_any_reward_is_warned_of_too(capsys, reward):
    counts, end = warnings([0.0] * 4, capsys, max_steps=4, rewards=[reward] * 4)
    assert sum(counts) == 1 and "applies to these" in end
    counts, end = warnings([0.0] * 4, capsys, rewards=[reward] * 3 + [0.5])
    assert end == ""


def test_what_to_do_depends_on_whether_all_is_wrong_or_all_is_right(capsys):
    assert "easier problems" in warnings([1.0] * 4, capsys)[1]
    assert "harder problems" in warnings([1.0] * 4, capsys, rewards=[1.0] * 4)[1]


def test_a_line_has_trl_s_names_the_tokens_a_second_and_the_time_left(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 10.0, 10.0, 30.0, 30.0, 40.0, 40.0])  # at the start, then twice a log
    monkeypatch.setattr("reasoning_ext.train.callbacks.time.monotonic", lambda: next(clock))
    recorder, arguments = RunRecorder(tmp_path, "sft", 0, Interrupt()), TrainingArguments(output_dir=str(tmp_path))
    state = TrainerState(max_steps=20)
    for step, tokens in ((1, 1000.0), (3, 5000.0), (20, 6000.0)):
        state.global_step = step
        recorder.on_log(arguments, state, TrainerControl(), {"loss": 1.5, "learning_rate": 1e-5, "num_tokens": tokens})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("sft  step 1/20  loss 1.5  learning_rate 1e-05  ")
    assert first.endswith("  100 tokens/s  3 min left") and second.endswith("  200 tokens/s  3 min left")
    assert last.endswith("  100 tokens/s")


@pytest.mark.slow
def test_a_flat_run_leaves_its_own_card_and_two_warnings(cli, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"stage: grpo\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\ndataset_name: {TINY / 'last_digit.py'}\n"
        "gen_kwargs: {num_rows: 32, num_steps: 5}\nreward_funcs: [exact_answer]\nnum_generations: 2\n"
        "per_device_train_batch_size: 4\nmax_completion_length: 4\nmax_steps: 4\nbf16: false\nuse_cpu: true\n"
        "logging_steps: 1\noutput_dir: out\n"
    )
    result = cli("run", recipe)
    assert result.code == 0 and result.out.count("warning: in none of the") == 2
    assert "frac_reward_zero_std 1 " in result.out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "exact\\_answer" in card and "max_steps: 4" in card and "None" not in card
    assert json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])["frac_reward_zero_std"] == 1.0
