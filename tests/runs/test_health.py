"""Health rules on rows of metrics: each fault is told of within 20 steps of its cause, and a healthy run of nothing."""

import math
import random

import pytest

from reasoning_ext.runs.health import RULES, alarms, thresholds
from reasoning_ext.runs.past import Past

NAN, GONE, CAUSE = math.nan, object(), 21  # the first step of a fault that begins in the middle


def grpo(steps, seed=0, fault=lambda step: {}):
    """Rows of a run that learns, as TRL writes them, with noise; `fault` gives what is otherwise at a step."""
    dice, rows = random.Random(seed), []

    def share(p, of=128):
        return sum(dice.random() < p for _ in range(of)) / of

    for step in range(1, steps + 1):
        known = 0.9 - 0.5 * math.exp(-max(0, step - 5) / 10)
        right = share(known)
        row = {
            "loss": dice.gauss(0, 0.1),
            "grad_norm": abs(dice.gauss(0.25, 0.1)) + 0.01,
            "learning_rate": 2e-4 * min(1, (step - 1) / 5),
            "completions/mean_length": dice.gauss(16 + 20 * known, 1),
            "completions/clipped_ratio": share(0.01),
            "rewards/math_answer/mean": right,
            "rewards/think_format/mean": share(known),
            "reward": right,
            "reward_std": math.sqrt(right * (1 - right)),
            "frac_reward_zero_std": share(0.7 * (known - 0.4), 16),
            "entropy": dice.gauss(0.16, 0.01) * (1 - known) + 0.01,
            "kl": abs(dice.gauss(0.1, 0.05)),
            "clip_ratio/region_mean": abs(dice.gauss(0, 0.02)),
            "sampling/sampling_logp_difference/mean": 0.01,
            "sampling/importance_sampling_ratio/mean": dice.gauss(0.6, 0.1),
            "completions/thinks": share(known, 32),
            "completions/repetition": 0.0,
            "audit/exact/mean": share(known, 32),
            "tools/call_frequency": dice.gauss(1, 0.1),
            "tools/failure_frequency": 0.0,
            "tools/calculator/calls": 128.0,
            "tools/calculator/errors": dice.gauss(80, 5) * (1 - known) / 0.6,
            "tools/calculator/timeouts": 0.0,
        }
        rows.append({"step": step, **row, **fault(step)})
    return [*rows, {"step": steps, "train_runtime": 1.0}]


def taught(steps, seed=0, fault=lambda step: {}):
    """Rows of an SFT or DPO that learns."""
    dice, rows = random.Random(seed), []
    for step in range(1, steps + 1):
        loss = max(0.01, 0.5 + math.exp(-step / 15) + dice.gauss(0, 0.1))
        row = {"loss": loss, "grad_norm": abs(dice.gauss(1, 0.3)) + 0.1}
        row["learning_rate"] = 1e-3 * min((step - 1) / 5, (steps - step) / (steps - 5))
        rows.append({"step": step, **row, **fault(step)})
        if step % 10 == 0:
            rows.append({"step": step, "eval_loss": 0.6 + math.exp(-step / 15)} | fault(step))
    return [*rows, {"step": steps, "train_runtime": 1.0}]


def every(rows, count):
    """The same run with `logging_steps: count`: TRL's means, but gradient and rate of the last step alone."""
    logs = [row for row in rows if "grad_norm" in row]
    means = []
    for i in range(count, len(logs) + 1, count):
        part = logs[i - count : i]
        mean = {key: sum(row[key] for row in part) / count for key in part[0]}
        means.append(mean | {key: part[-1][key] for key in ("step", "grad_norm", "learning_rate")})
    return [*means, rows[-1]]


def late(**values):
    return lambda step: values if step >= CAUSE else {}


def cut(step):
    return (
        {"completions/clipped_ratio": 0.4 + 0.02 * (step - CAUSE), "completions/mean_length": 55}
        if step >= CAUSE
        else {}
    )


def hacked(step):
    rises = {"reward": 0.5 + 0.02 * step, "rewards/math_answer/mean": 0.4}
    return rises | {"audit/exact/mean": max(0.0, 0.7 - 0.06 * (step - CAUSE))} if step >= CAUSE else {}


FLAT = {
    "frac_reward_zero_std": 1.0,
    "reward_std": 0.0,
    "reward": 0.0,
    "rewards/math_answer/mean": 0.0,
    "grad_norm": 0.0,
}
FLAT |= {"rewards/think_format/mean": 0.0, "completions/thinks": 0.0}
CASES = {  # the rule -> where it begins, the fault, how the rows come about
    "reward_flat": (1, lambda step: {"reward": 0.4, "learning_rate": 1e-9}, grpo),
    "none_right": (1, lambda step: {"rewards/math_answer/mean": 0.0}, grpo),
    "flat_groups": (1, lambda step: FLAT, grpo),
    "entropy_low": (CAUSE, late(entropy=0.004), grpo),
    "entropy_high": (CAUSE, late(entropy=1.5), grpo),
    "kl_high": (CAUSE, late(kl=3.0), grpo),
    "grad_norm_high": (CAUSE, late(grad_norm=40.0), grpo),
    "grad_norm_low": (CAUSE, late(grad_norm=1e-5), grpo),
    "clip_ratio_high": (CAUSE, late(**{"clip_ratio/region_mean": 0.4}), grpo),
    "cut_off": (CAUSE, late(**{"completions/clipped_ratio": 0.97, "completions/mean_length": 30}), grpo),
    "length_limit": (CAUSE, cut, grpo),
    "length_collapse": (CAUSE, late(**{"completions/mean_length": 4.0}), grpo),
    "learning_rate_zero": (CAUSE, late(learning_rate=0.0), grpo),
    "sampling_mismatch": (CAUSE, late(**{"sampling/sampling_logp_difference/mean": 0.2}), grpo),
    "importance_ratio_low": (CAUSE, late(**{"sampling/importance_sampling_ratio/mean": 0.02}), grpo),
    "nan": (CAUSE, late(grad_norm=NAN), grpo),
    "hacking": (CAUSE, hacked, grpo),
    "thoughts_lost": (CAUSE, late(**{"completions/thinks": 0.05}), grpo),
    "repetition": (CAUSE, late(**{"completions/repetition": 0.4}), grpo),
    "tool_failures": (CAUSE, late(**{"tools/calculator/errors": 70.0, "tools/calculator/timeouts": 20.0}), grpo),
    "tools_unused": (CAUSE, late(**{"tools/call_frequency": 0.0, "tools/calculator/calls": 0.0}), grpo),
    "loss_flat": (6, lambda step: {"loss": 1.0 + 0.01 * (step % 7)}, taught),
    "overfit": (31, lambda step: {"eval_loss": 0.7 + 0.01 * step} if step >= 31 and step % 10 == 0 else {}, taught),
}
BESIDE = {"length_limit": {"cut_off"}, "flat_groups": {"reward_flat", "thoughts_lost"}, "hacking": {"thoughts_lost"}}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_told_of_within_20_steps_and_nothing_else(name):
    cause, fault, make = CASES[name]
    rows = make(cause + 29, 0, fault)
    found = {alarm.rule.name: alarm for alarm in alarms(rows, {"stage": "grpo" if make is grpo else "sft"})}
    assert cause < found[name].step < cause + 21
    assert found.keys() - BESIDE.get(name, set()) == {name}


def test_a_reward_for_manner_alone_does_not_say_what_is_right():
    form = {"rewards/think_format/mean": 0.0, "rewards/step_check/mean": 0.0}

    def first(row):
        return {"step": row["step"], **form} | {key: value for key, value in row.items() if key not in form}

    for fault, found in ((lambda step: {}, []), (lambda step: {"rewards/math_answer/mean": 0.0}, ["none_right"])):
        rows = [first(row) if "reward" in row else row for row in grpo(40, 0, fault)]
        assert [alarm.rule.name for alarm in alarms(rows, {"stage": "grpo"})] == found


def test_there_is_a_case_of_each_rule():
    assert [rule.name for rule in RULES] == [*CASES]


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_is_told_nothing(seed):
    for rows in (grpo(200, seed), every(grpo(200, seed), 10)):
        assert alarms(rows, {"stage": "grpo"}) == []
    for stage in ("sft", "dpo"):
        rows = taught(200, seed)
        assert alarms(rows, {"stage": stage}) == alarms(every(rows, 10), {"stage": stage}) == []


@pytest.mark.parametrize(
    "name", ["flat_groups", "cut_off", "none_right", "entropy_low", "learning_rate_zero", "thoughts_lost"]
)
def test_a_log_of_ten_steps_counts_as_ten(name):
    cause, fault, make = CASES[name]
    found = {alarm.rule.name: alarm.step for alarm in alarms(every(make(120, 0, fault), 10), {"stage": "grpo"})}
    assert found[name] <= cause + 29


def test_what_is_said_at_a_step_does_not_change_with_the_steps_behind_it():
    rows = grpo(60, 1, lambda step: hacked(step) | late(entropy=0.001)(step))
    whole = alarms(rows, {"stage": "grpo"})
    for end in range(1, len(rows)):
        step = rows[end - 1]["step"]
        assert alarms(rows[:end], {"stage": "grpo"}) == [alarm for alarm in whole if alarm.step <= step]


NONE_DIFFERS = {"grad_norm": 0.0, "frac_reward_zero_std": 1.0}
HARMLESS = {
    "the ends of a schedule": lambda step: {"learning_rate": 0.0} if step in (1, 2, 59, 60) else {},
    "a spike of the gradient": lambda step: {"grad_norm": 500.0} if step % 9 == 0 else {},
    "now and then a step without a difference": lambda step: {} if step % 4 else NONE_DIFFERS,
    "two NaN steps": lambda step: {"grad_norm": NAN} if step in (30, 31) else {},
    "mastered": lambda step: {"entropy": 0.005, "reward": 0.99, "reward_std": 0.1} if step > 30 else {},
    "cut off at first, and ever less": lambda step: {"completions/clipped_ratio": max(0.0, 0.95 - 0.03 * step)},
    "learns to end what was cut off": lambda step: {
        "completions/clipped_ratio": max(0.0, 0.95 - 0.05 * step),
        "completions/mean_length": max(10.0, 55 - 5 * step),
    },
    "half are cut off": lambda step: {"completions/clipped_ratio": 0.5},
    "nothing to judge": lambda step: {"rewards/math_answer/mean": None},
    "the first is penalised at last": lambda step: {"rewards/math_answer/mean": 0.0 if step < 9 else -0.1},
    "calls fail at first, and ever less": lambda step: {"tools/calculator/errors": max(0.0, 128 - 5.0 * step)},
    "now and then all calls fail": lambda step: {"tools/failure_frequency": 1.0} if step % 3 == 0 else {},
    "a penalty that leaves calls where they are needed": lambda step: {"tools/call_frequency": max(0.1, 1 - step / 20)},
    "steps without a generation": lambda step: {"frac_reward_zero_std": GONE, "reward": GONE} if step % 2 else {},
}


@pytest.mark.parametrize("fault", HARMLESS.values(), ids=HARMLESS)
def test_what_looks_like_a_fault_and_is_none(fault):
    rows = [{key: value for key, value in row.items() if value is not GONE} for row in grpo(60, 0, fault)]
    assert [alarm.text for alarm in alarms(rows, {"stage": "grpo"})] == []


def test_a_short_run_without_a_difference_is_told_so_at_its_end():
    for reward in (0.0, None):  # TRL calls groups without any reward different
        rows = [{"step": i, "frac_reward_zero_std": float(reward is not None), "reward": reward} for i in range(1, 5)]
        assert alarms(rows, {"stage": "grpo"}) == []
        [alarm] = alarms([*rows, {"step": 4, "train_runtime": 1.0}], {"stage": "grpo"})
        assert (alarm.rule.name, alarm.step, alarm.value) == ("flat_groups", 4, 1.0)
    rows = [
        row | {"reward": 0.8667, "reward_std": 6e-8, "frac_reward_zero_std": 0.0, "grad_norm": 2e-6} for row in rows * 4
    ]
    rows = [
        row | {"step": i, "loss": 0.1} for i, row in enumerate(rows, 1)
    ]  # TRL calls equal rewards of 0.8667 different
    assert {alarm.rule.name for alarm in alarms(rows, {"stage": "grpo"})} == {"flat_groups"}
    rows = [row | {"reward": 0.5, "reward_std": 0.1, "frac_reward_zero_std": 0.0} for row in rows[:4]]
    assert alarms([*rows, {"step": 4, "train_runtime": 1.0}], {"stage": "grpo"}) == []


def test_a_recipe_changes_and_silences_rules():
    rows = grpo(60, 0, late(entropy=0.015, kl=3.0))
    assert [alarm.rule.name for alarm in alarms(rows, {"stage": "grpo"})] == ["kl_high"]
    for off in (False, "off"):
        recipe = {"stage": "grpo", "health": {"entropy_low": 0.02, "kl_high": off}}
        [alarm] = alarms(rows, recipe)
        assert alarm.rule.name == "entropy_low" and "below 0.02" in alarm.text
        assert "kl_high" not in {rule.name for rule in thresholds(recipe)}
    assert {rule.name: least for rule, least in thresholds({"stage": "grpo", "health": {"kl_high": 0}}).items()}[
        "kl_high"
    ] == 0
    assert alarms(rows, {"stage": "eval"}) == alarms([], {"stage": "grpo"}) == []


def test_rows_that_are_damaged_are_read_as_far_as_possible():
    odd = [{}, {"step": "x"}, {"step": NAN}, {"step": 3, "reward": "a", "entropy": None, "loss": [], "kl": True}]
    rows = grpo(60, 0, late(kl=3.0))
    assert [alarm.rule.name for alarm in alarms([*odd, *rows[:30], *odd[:3], *rows[30:]], {"stage": "grpo"})] == [
        "kl_high"
    ]


def test_weights_that_are_no_numbers_need_no_second_log():
    [alarm] = alarms([*grpo(30)[:-1], {"step": 31, "weights/not_finite": 1.0}], {"stage": "grpo"})
    assert (alarm.rule.name, alarm.step) == ("nan", 31)


def held_out(shares, seed, problems=100):
    """Rows of a run whose reward rises, measured every ten steps with these shares of right answers."""
    dice, rows = random.Random(seed), []
    for i, share in enumerate(shares):
        rows.append({"step": 10 * i, "held_out/greedy": sum(dice.random() < share for _ in range(problems)) / problems})
        rows += [{"step": 10 * i + j, "reward": 0.3 + 0.04 * i + dice.gauss(0, 0.05)} for j in range(1, 11)]
    return rows


def test_a_held_out_figure_that_falls_is_told_and_one_that_varies_is_not():
    def hacked(shares, seed):
        return {alarm.rule.name: alarm.step for alarm in alarms(held_out(shares, seed), {"stage": "grpo"})}.get(
            "hacking"
        )

    assert sum(hacked([0.6] * 15, seed) is not None for seed in range(100)) <= 2
    assert sum(hacked([0.3, 0.5, 0.6, 0.7, 0.7, 0.5, 0.3, 0.1], seed) in (60, 70) for seed in range(10)) >= 9
    assert sum(hacked([0.6, 0.6, 0.6, 0.1, 0.1, 0.1], seed) is not None for seed in range(10)) >= 8


def test_what_was_measured_before_the_first_step_is_a_start():
    rows = [{"step": 10 * i, "held_out/thinks": share} for i, share in enumerate((0.9, 0.3, 0.3))]
    [alarm] = alarms(rows, {"stage": "sft"})
    assert (alarm.rule.name, alarm.step) == ("thoughts_lost", 20)


class Counted(list):
    """Rows that count how many of them are read."""

    reads = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.reads += len(found) if isinstance(key, slice) else 1
        return found

    def __iter__(self):
        for row in super().__iter__():
            self.reads += 1
            yield row


def test_a_log_late_in_a_training_takes_no_more_reading_than_an_early_one():
    reads = []
    for steps in (500, 3000):
        rows = Counted(grpo(steps)[:-1])
        for rule, least in thresholds({"stage": "grpo"}).items():
            rule.holds(Past(rows, steps), least)
        reads.append(rows.reads)
    assert reads[0] <= reads[1] < 1.05 * reads[0]
