"""The figures of an evaluation, against values worked out by hand or by counting."""

import itertools
import math
import random

import pytest

from reasoning_ext.data import DataError
from reasoning_ext.evaluate import interval, majority_right, metrics, pass_at_k
from reasoning_ext.think import vote


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    for n, right, k in itertools.product([4, 6], [0, 1, 3, 4], [1, 2, 4]):
        outcomes = [True] * right + [False] * (n - right)
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_interval_of_single_trials_is_wilsons():
    low, high = 0.7273, 0.9238  # Wilson, 95 %, 51 of 60
    assert interval([1.0] * 51 + [0.0] * 9) == [0.85, pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02)]
    assert interval([1.0] * 60)[1] < 0.95 and interval([1.0] * 60)[2] == 1.0
    assert interval([0.0] * 60)[0] == 0.0 and interval([0.0] * 60)[2] > 0.05


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = random.Random(0), 0
    for _ in range(300):
        chances = [rng.betavariate(2, 1) for _ in range(100)]
        _, low, high = interval([sum(rng.random() < c for _ in range(4)) / 4 for c in chances], trials=400)
        covered += low <= 2 / 3 <= high
    assert 0.91 < covered / 300 < 0.99


def test_completions_of_one_problem_do_not_count_as_problems():
    wide = interval([1.0, 0.0] * 20, trials=160)
    narrow = interval([0.5] * 40, trials=160)
    assert math.isclose(wide[2] - 0.5, 0.15, abs_tol=0.02) and math.isclose(narrow[2] - 0.5, 0.077, abs_tol=0.005)
    assert interval([0.1] * 10, trials=20)[1] < 0.05 < 0.2 < interval([0.1] * 10, trials=20)[2]


def test_votes_go_by_the_answer_and_not_by_the_thought():
    assert vote("<think>a</think> 42 ") == vote(r"<think>b</think>so \boxed{42}.") == "42"
    rows = [{"completion": f"<think>{i}</think>{a}", "right": a == 7} for i, a in enumerate([7, 7, 8, 9])]
    assert majority_right(rows) == 1.0
    assert majority_right(rows[1:]) == pytest.approx(1 / 3)


def answers(rewards, sample_index=0, completion="<think>a</think>7"):
    return [
        {
            "prompt_index": i, "sample_index": sample_index, "completion": completion, "tokens": 4 + i, "finished": True,
            "rewards": {"right": reward},
        }
        for i, reward in enumerate(rewards)
    ]  # fmt: skip


def test_metrics_of_a_model():
    rows = answers([1.0, 0.0, None], -1) + answers([1.0, 0.0, None]) + answers([1.0, 1.0, None], 1, "<think></think>7")
    figures = metrics(rows, "right")
    assert figures["problems"] == 2 and figures["not judged"] == 3
    assert figures["greedy"][0] == 0.5 and figures["pass@1"][0] == 0.75 and figures["pass@2"][0] == 1.0
    assert figures["thinks"][0] == 0.5 and figures["mean tokens"] == 4.5 and figures["truncated"] == 0


def test_nothing_to_judge_is_an_error():
    with pytest.raises(DataError, match="no completion could be judged by right: 2 of them"):
        metrics(answers([None], -1) + answers([None]), "right")
