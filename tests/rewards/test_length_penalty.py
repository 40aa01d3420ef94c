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


TRLS = [
    ("get_soft_overlong_punishment", {"max_completion_len": MAX, "soft_punish_cache": 8}),
    ("get_repetition_penalty_reward", {"ngram_size": 2, "max_penalty": -0.5}),
    ("get_cosine_scaled_reward", COSINE),
]


@pytest.mark.parametrize(("name", "parameters"), TRLS)
def test_trl_rewards_of_length_are_finite_and_padding_never_pays(name, parameters):
    reward, lengths = built(name, **parameters), range(0, 3 * MAX + 1, 8)
    texts = [[{"role": "assistant", "content": r"\boxed{42}"}]] * len(lengths)
    found = reward(completions=texts, completion_ids=[[5] * n for n in lengths], answer=["42"] * len(lengths))
    assert all(math.isfinite(r) for r in found) and found[0] > found[-1]
    assert all(shorter >= longer for shorter, longer in itertools.pairwise(found))


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
