"""Rewards of length, ours and TRL's own as recipes name them: finite, monotone, and padding a completion never pays."""

import itertools
import math
import pickle
from pathlib import Path

import pytest
from reasoning_ext.rewards.length_penalty import length_penalty

from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.spec import EntryError, parse_rewards

MAX = 32
LENGTHS = range(3 * MAX + 1)
COSINE = {"max_len": MAX, "min_value_wrong": -0.9, "max_value_wrong": -0.1}
COSINE |= {"min_value_correct": 0.2, "max_value_correct": 0.8}


def built(name, **parameters):
    """Build a reward as a recipe names it, sent through pickle as to a worker."""
    [reward] = build_rewards(parse_rewards([{name: {"weight": 0.5, **parameters}}], Path()))
    return pickle.loads(pickle.dumps(reward))


def of_lengths(reward, lengths, **columns):
    ids = [list(range(n)) for n in lengths]
    return reward(completions=["x"] * len(ids), completion_ids=ids, prompts=[""] * len(ids), **columns)


@pytest.mark.parametrize("min_tokens", [0, 1, MAX // 2, MAX - 1])
def test_length_penalty_is_monotone_and_finite_up_to_three_times_the_maximum(min_tokens):
    rewards = of_lengths(built("length_penalty", min_tokens=min_tokens, max_tokens=MAX), LENGTHS)
    assert all(math.isfinite(r) and -1.0 <= r <= 0.0 for r in rewards)
    assert all(shorter >= longer for shorter, longer in itertools.pairwise(rewards))
    assert all(r == 0.0 and math.copysign(1, r) == 1 for r in rewards[: min_tokens + 1])
    assert all(r == -1.0 for r in rewards[MAX:]) and rewards[MAX - 1] > -1.0


def test_padding_a_completion_never_pays_and_characters_do_not_count():
    for padding in (1, 5, 500):
        bare = [length_penalty([[1] * n], min_tokens=8, max_tokens=MAX)[0] for n in LENGTHS]
        padded = length_penalty([[1] * n + [0] * padding for n in LENGTHS], min_tokens=8, max_tokens=MAX)
        assert all(more <= less for more, less in zip(padded, bare, strict=True))
    assert length_penalty([[5], [5] * 20], max_tokens=MAX, completions=[" " * 10_000, "x"]) == [-1 / MAX, -20 / MAX]


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_tokens": math.inf}, {"max_tokens": math.nan}, {"min_tokens": -math.inf}, {"min_tokens": math.nan},
        {"max_tokens": 0}, {"max_tokens": -5}, {"min_tokens": 9, "max_tokens": 8}, {"max_tokens": True},
        {"min_tokens": 0.5}, {"min_tokens": -1}, {"max_tokens": "1024"}, {"max_tokens": None},
    ],
)  # fmt: skip
def test_bounds_that_make_no_line_are_refused(bounds):
    with pytest.raises(ValueError, match=r"found min_tokens=.*allowed: whole numbers, 0 <= min < max"):
        length_penalty([[1]], **bounds)


def test_huge_bounds_stay_finite_and_a_recipe_with_a_wrong_one_is_refused_before_anything_runs():
    assert length_penalty([[1] * 5], min_tokens=10**400, max_tokens=10**400 + 1) == [0.0]
    for value in (math.inf, "many", True, None, 10.5):
        with pytest.raises(EntryError, match="allowed: int"):
            parse_rewards([{"length_penalty": {"max_tokens": value}}], Path())


@pytest.mark.parametrize("cache", [0, 8])
def test_trl_soft_overlong_punishment_is_monotone_and_padding_never_pays(cache):
    reward = built("get_soft_overlong_punishment", max_completion_len=MAX, soft_punish_cache=cache)
    rewards = of_lengths(reward, LENGTHS)
    assert all(math.isfinite(r) and -1.0 <= r <= 0.0 for r in rewards)
    assert all(shorter >= longer for shorter, longer in itertools.pairwise(rewards))
    assert rewards[MAX - cache] == 0.0 and set(rewards[MAX + 1 :]) == {-1.0}


@pytest.mark.parametrize("parameters", [{}, {"ngram_size": 2, "max_penalty": -0.5}])
def test_trl_repetition_penalty_punishes_repeated_tokens_alone(parameters):
    reward = built("get_repetition_penalty_reward", **parameters)
    floor = parameters.get("max_penalty", -1.0)
    assert of_lengths(reward, LENGTHS) == [0.0] * len(LENGTHS)  # distinct tokens
    repeated = reward(completions=["x"] * len(LENGTHS), completion_ids=[[5] * n for n in LENGTHS])
    assert all(math.isfinite(r) and floor <= r <= 0.0 for r in repeated)
    assert all(shorter >= longer for shorter, longer in itertools.pairwise(repeated)) and repeated[-1] < 0.9 * floor


def test_trl_cosine_scaled_reward_is_finite_and_keeps_right_above_wrong():
    reward = built("get_cosine_scaled_reward", **COSINE)
    lengths = range(0, 3 * MAX + 1, MAX // 4)

    def scored(text, gold="42"):
        completions = [[{"role": "assistant", "content": text}]] * len(lengths)
        return reward(completions=completions, completion_ids=[[1] * n for n in lengths], answer=[gold] * len(lengths))

    right, wrong = scored(r"\boxed{42}"), scored(r"\boxed{41}")
    assert all(math.isfinite(r) for r in right + wrong) and min(right) > max(wrong)
    assert all(shorter >= longer for shorter, longer in itertools.pairwise(right))
    assert all(shorter <= longer for shorter, longer in itertools.pairwise(wrong))
    assert right[0] == pytest.approx(0.8) and right[-1] == right[4] == pytest.approx(0.2)
    assert wrong[0] == pytest.approx(-0.9) and wrong[-1] == wrong[4] == pytest.approx(-0.1)
    assert scored(r"\boxed{42}", gold="") == [None] * len(lengths)


WRONG = [
    ("get_cosine_scaled_reward", {}, "the parameter max_len is missing"),
    ("get_cosine_scaled_reward", {"max_len": 9, "min_value_wrong": "low"}, "allowed: float"),
    ("get_repetition_penalty_reward", {"ngram_size": 2.5}, "allowed: int"),
    ("get_repetition_penalty_reward", {"ngram": 2}, "the nearest is ngram_size"),
]


@pytest.mark.parametrize(("name", "parameters", "problem"), WRONG)
def test_wrong_parameters_of_trl_rewards_are_refused(name, parameters, problem):
    with pytest.raises(EntryError, match=problem):
        parse_rewards([{name: parameters}], Path())
