"""Paired tests of two models: false alarms and power by simulation, seeds as clusters, and values worked out by hand."""

import math
import tracemalloc

import numpy
import pytest

from reasoning_ext.runs.paired import (
    ALPHA,
    bootstrap_interval,
    earliest_as_good,
    flip_test,
    holm,
    mcnemar,
    paired,
    problems_needed,
)

PAIRS = 2_000  # made-up pairs of models


def made_up(pairs, seeds, problems, samples, spread=0.0, effect=0.0, name=0):
    """Differences `(pairs, S, P)` of two models' pass@1 on problems of all difficulties.

    `effect` is what the second is better by, and `spread` the standard deviation of what a seed does to a model, in logits.
    """
    rng = numpy.random.default_rng(name)
    difficulty = rng.normal(0, 1.5, (pairs, 1, problems))
    drawn = []
    for better in (0.0, effect):
        chance = 1 / (1 + numpy.exp(-(difficulty + better + rng.normal(0, spread, (pairs, seeds, 1)))))
        drawn.append(rng.binomial(samples, chance) / samples)
    return drawn[1] - drawn[0]


def rate(differences, draws=999):
    """The share of pairs that are told apart, without holding all flips of all pairs at once."""
    parts = numpy.array_split(differences, 4)
    return float(numpy.concatenate([flip_test(part, draws) < ALPHA for part in parts]).mean())


@pytest.mark.parametrize(("problems", "samples"), [(30, 4), (200, 4), (400, 2)])
def test_equal_models_are_told_apart_five_times_of_a_hundred(problems, samples):
    assert 0.035 <= rate(made_up(PAIRS, 1, problems, samples)) <= 0.065


def test_mcnemar_errs_on_the_safe_side():
    rng = numpy.random.default_rng(0)
    for problems, apart in ((30, 0.3), (200, 0.1), (400, 0.4)):
        counts = rng.multinomial(problems, [apart / 2, apart / 2, 1 - apart], PAIRS)
        assert numpy.mean([mcnemar(int(a), int(b)) < ALPHA for a, b, _ in counts]) <= 0.065


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_that_differ_are_no_difference_of_recipes(seeds, spread):
    differences = made_up(400, seeds, 100, 1, spread, name=seeds)
    assert rate(differences) <= 0.065
    as_problems = differences.reshape(400, 1, -1)
    assert spread == 0 or rate(as_problems) > 0.1, "what is simulated would fool a test of single answers"


def test_seeds_that_agree_tell_a_difference():
    assert rate(made_up(200, 3, 200, 1, spread=0.1, effect=1.0)) > 0.7


@pytest.mark.parametrize(("difference", "apart"), [(0.02, 0.1), (0.05, 0.2), (0.1, 0.3)])
def test_so_many_problems_tell_a_difference_four_times_of_five(difference, apart):
    problems, rng = problems_needed(difference, apart), numpy.random.default_rng(0)
    shares = [(apart - difference) / 2, (apart + difference) / 2, 1 - apart]
    told = numpy.mean([mcnemar(int(a), int(b)) < ALPHA for a, b, _ in rng.multinomial(problems, shares, PAIRS)])
    assert 0.76 <= told <= 0.84
    half = rng.multinomial(problems // 2, shares, PAIRS)
    assert numpy.mean([mcnemar(int(a), int(b)) < ALPHA for a, b, _ in half]) < 0.6


def test_power_holds_for_shares_of_several_answers():
    sample = made_up(200, 1, 1000, 4, effect=0.3)
    difference, apart = sample.mean(), (sample**2).mean()
    problems = problems_needed(float(difference), float(apart))
    assert 0.7 <= rate(made_up(400, 1, problems, 4, effect=0.3, name=1)) <= 0.9


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, covered = numpy.random.default_rng(0), 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.choice([-1.0, 0.0, 1.0], (1, 40), p=[0.1, 0.6, 0.3]), 500)
        covered += low <= 0.2 <= high
    assert 0.91 <= covered / 300 <= 0.98
    seeds = numpy.array([[0.1] * 40, [0.3] * 40, [0.2] * 40])  # problems agree, seeds do not: t with 2 degrees, 4.30
    low, high = bootstrap_interval(seeds)
    assert high - 0.2 == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=0.1)
    assert 0.2 - low == pytest.approx(high - 0.2, rel=0.1)


def test_mcnemar_is_the_test_of_flipped_signs():
    d = numpy.array([[-1.0] * 3 + [1.0] * 12 + [0.0] * 50])
    assert flip_test(d, 20_000) == pytest.approx(mcnemar(3, 12), abs=0.006)
    found = paired(numpy.maximum(-d, 0), numpy.maximum(d, 0))
    assert found.exact and found.p == mcnemar(3, 12) == pytest.approx(0.03515625)
    assert (found.both, found.only_first, found.only_second, found.none) == (0, 3, 12, 50)
    assert (found.problems, found.seeds, found.difference) == (65, 1, pytest.approx(9 / 65))
    assert found.discordance == pytest.approx(15 / 65) and found.interval[0] < found.difference < found.interval[1]


def test_many_problems_are_not_held_with_all_their_flips():
    tracemalloc.start()
    flip_test(numpy.ones((1, 4_000)), 999)  # 32 MB of signs
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6


def test_a_comparison_is_the_same_whenever_it_is_made():
    shares = numpy.random.default_rng(3).random((2, 1, 50))
    assert paired(*shares) == paired(*shares) and not paired(*shares).exact
    mirrored = paired(*shares[::-1])
    assert mirrored.difference == -paired(*shares).difference
    assert mirrored.p == pytest.approx(paired(*shares).p, abs=0.02)


def test_one_seed_of_the_first_is_held_against_each_of_the_others():
    base, better = numpy.zeros((1, 60)), numpy.repeat([[1.0] * 40 + [0.0] * 20], 3, axis=0)
    found = paired(base, better)
    assert (found.seeds, found.problems, found.only_second) == (3, 60, 120) and found.p < 0.001


@pytest.mark.parametrize(
    ("ps", "adjusted"), [([0.04], [0.04]), ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]), ([0.5, 0.9], [1.0, 1.0]), ([], [])]
)
def test_holm(ps, adjusted):
    assert holm(ps) == pytest.approx(adjusted)


def test_the_earliest_checkpoint_that_is_as_good_as_the_highest():
    def solves(count):
        return numpy.array([[1.0] * count + [0.0] * (100 - count)])

    steps = {"10": solves(20), "20": solves(78), "30": solves(80), "40": solves(79)}
    assert earliest_as_good(steps) == ("20", "30")
    assert earliest_as_good({"10": solves(20), "20": solves(80)}) == ("20", "20")
    assert earliest_as_good({"10": solves(80), "20": solves(80)}) == ("10", "10")
