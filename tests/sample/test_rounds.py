"""Which completions are asked for: all at once, or in rounds that depend on what earlier rounds came to and on nothing else."""

import numpy as np
import pytest

from reasoning_ext.sample.rounds import Budget, rounds
from reasoning_ext.sample.selection import CUT_OFF, FAILED, MISSING, RIGHT, UNJUDGED, WRONG


def play(budget, outcome, prompts, whole=(), done=(), order=list):
    """Draw every round with `outcome(prompt, sample)`; return how many each prompt got, the states and the rounds' keys."""
    states, asked = np.zeros((prompts, budget.cap), dtype=np.uint8), []
    for key in done:
        states[key] = outcome(*key)

    def count(planned):
        return ((states == RIGHT) & (np.arange(budget.cap) < planned[:, None])).sum(1)

    for keys in rounds(budget, states, count, np.isin(np.arange(prompts), whole)):
        asked.append(keys)
        assert len(set(keys)) == len(keys) and all(states[key] == MISSING for key in keys)
        for key in order(keys):
            states[key] = outcome(*key)
    return (states != MISSING).sum(1).tolist(), states, asked


def right_from(*first):
    """Each prompt p is right from its sample `first[p]` on, or never."""
    return lambda p, g: RIGHT if first[p] is not None and g >= first[p] else WRONG


def test_without_adaptive_there_is_one_round_of_all():
    _, _, asked = play(Budget(each=3), right_from(0, None), 2)
    assert asked == [[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]]


CASES = {
    # budget, first right sample of each prompt, completions drawn of each
    "enough at once": (Budget(8, True, enough=2, most=32), [0, 0], [2, 2]),
    "one more is asked for, then two": (Budget(8, True, enough=1, most=8), [0, 1, 2, 3], [1, 2, 4, 4]),
    "what is saved goes to the one without": (Budget(4, True, enough=1, most=16), [0, 0, 0, None], [1, 1, 1, 13]),
    "up to the cap": (Budget(4, True, enough=1, most=6), [0, 0, 0, None], [1, 1, 1, 6]),
    "and stops there once one is found": (Budget(4, True, enough=1, most=16), [0, 0, 0, 5], [1, 1, 1, 8]),
    "shared by several": (Budget(4, True, enough=1, most=16), [0, 0, None, None], [1, 1, 7, 7]),
    "fewer than one each go to the first ones": (
        Budget(2, True, enough=1, most=8),
        [0, None, None, None],
        [1, 3, 2, 2],
    ),
    "nothing saved, nothing to spend": (Budget(4, True, enough=1, most=16), [None, None], [4, 4]),
    "a first round of its own size": (Budget(8, True, enough=1, first=4, most=32), [0, 3], [4, 4]),
    "no more than N in the first round": (Budget(2, True, enough=1, first=4, most=8), [0, 0], [2, 2]),
    "the cap is at least N": (Budget(4, True, enough=4, most=1), [0, None], [4, 4]),
}


@pytest.mark.parametrize("name", CASES)
def test_adaptive_rounds_spend_the_budget_where_it_is_needed(name):
    budget, first, drawn = CASES[name]
    assert play(budget, right_from(*first), len(first))[0] == drawn


def test_prompts_that_nobody_can_judge_get_no_more_after_the_first_round():
    budget = Budget(4, True, enough=1, most=8)
    assert play(budget, lambda p, g: UNJUDGED if p else WRONG, 2)[0] == [7, 1]
    for state in (CUT_OFF, FAILED):  # too long, or a server's fault: the next one may do
        assert play(budget, lambda p, g, state=state: state if g < 3 else RIGHT, 2)[0] == [4, 4]
    # a prompt that breaks the server is given up
    assert play(Budget(16, True, enough=1, most=64), lambda p, g: FAILED if p else RIGHT, 2)[0] == [1, 4]


def test_prompts_that_are_judged_together_are_drawn_together_and_get_nothing_that_is_saved():
    drawn, _, asked = play(Budget(4, True, enough=1, most=32), lambda p, g: RIGHT if p else CUT_OFF, 8, whole=[0])
    assert [key for key in asked[0] if key[0] == 0] == [(0, g) for g in range(4)] and drawn == [4] + [1] * 7


@pytest.mark.parametrize("seed", range(10))
def test_a_run_that_was_cut_off_anywhere_asks_for_the_same_keys(seed):
    rng = np.random.default_rng(seed)
    verdicts = rng.choice([RIGHT, WRONG, CUT_OFF, UNJUDGED], (30, 24), p=[0.2, 0.6, 0.1, 0.1])
    ours = (Budget(6, True, enough=2, first=3, most=24), lambda p, g: verdicts[p, g], 30)
    _, straight, asked = play(*ours)
    keys = [key for one in asked for key in one]
    done = keys[: rng.integers(len(keys))]
    _, again, rest = play(*ours, done=done, order=lambda keys: [keys[i] for i in rng.permutation(len(keys))])
    assert (again == straight).all() and {key for one in rest for key in one} == {*keys} - {*done}
