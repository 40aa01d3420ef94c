r"""What is accepted, what is kept, which pairs are made: rules on small tables of completions."""

import pytest

from reasoning_ext.sample.outputs import make_pairs
from reasoning_ext.sample.selection import Rules, agreeing, different, way
from reasoning_ext.sample.store import CUT_OFF, FAILED, RIGHT, UNJUDGED, WRONG, Drawn

WEIGHTS = {"math_answer": 1.0, "think_format": 0.5}


def row(text="3", tokens=1, finished=True, sample=0, **more):
    rewards = more.pop("rewards", {"math_answer": 1.0, "think_format": 1.0})
    return {"sample_index": sample, "completion": text, "tokens": tokens, "finished": finished, "rewards": rewards,
            "answer": "3"} | more  # fmt: skip


JUDGED = [
    # rules, line, state
    ({}, row(), RIGHT),
    ({}, row(rewards={"math_answer": 0.0, "think_format": 1.0}), WRONG),
    ({}, row(rewards={"math_answer": 0.5, "think_format": 1.0}), WRONG),
    ({}, row(rewards={"math_answer": None, "think_format": 1.0}), UNJUDGED),
    ({}, row(finished=False), CUT_OFF),
    ({}, row(finished=False, error="time-out"), FAILED),
    ({}, row(finished=False, error="empty"), CUT_OFF),  # it would be empty again
    ({"min_reward": 1.5}, row(), RIGHT),
    ({"min_reward": 1.5}, row(rewards={"math_answer": 1.0, "think_format": None}), WRONG),
    ({"min_reward": 0.1 + 0.2}, row(rewards={"math_answer": 0.3, "think_format": 0.0}), RIGHT),
    ({"min_reward": 0.4}, row(rewards={"math_answer": None, "think_format": 1.0}), RIGHT),
    ({"min_reward": -1.0}, row(rewards={"math_answer": None, "think_format": None}), UNJUDGED),
    ({"min_agreement": 0.5}, row(), RIGHT),  # has a gold
    ({"min_agreement": 0.5}, row(answer=None), UNJUDGED),
    ({"min_agreement": 0.5}, row(answer=" "), UNJUDGED),
    ({"min_agreement": 0.5}, row(answer=None, finished=False), CUT_OFF),
]


@pytest.mark.parametrize(("rules", "line", "state"), JUDGED)
def test_what_a_completion_comes_to(rules, line, state):
    assert Rules(WEIGHTS, **rules).judge(line)[0] == state


TEXTS = [
    ("<think>3+4=7</think>7", 9, 1.0),
    ("<think>4+3=7</think>7", 5, 1.5),
    ("<think>3+4=7</think>7", 9, 1.0),
    ("<think>I count: 3, 4, 5, 6, 7</think>7", 12, 2.0),
    ("<think>3 + 4 = 7.</think>7", 7, 0.5),
]
ROWS = [Drawn(i, text, tokens, {}, total=total) for i, (text, tokens, total) in enumerate(TEXTS)]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"keep": 1}, [0]),
        ({"keep": 9}, [0, 1, 3, 4]),  # the third is the first again
        ({"keep": 2, "select": "shortest"}, [1, 4]),
        ({"keep": 2, "select": "highest_reward"}, [3, 1]),
        ({"keep": 9, "select": "shortest"}, [1, 4, 0, 3]),
        ({"keep": 2, "diverse": True}, [0, 3]),  # the one that is farthest from the first
        ({"keep": 9, "diverse": True}, [0, 3, 1]),  # 3 + 4 = 7. is the first one's way
        ({"keep": 1, "diverse": True, "select": "shortest"}, [1]),
    ],
)
def test_what_is_kept(rules, kept):
    assert [one.sample for one in Rules(WEIGHTS, **rules).kept(ROWS)] == kept


def test_near_duplicates_count_once():
    words = "first we add the three apples and the four apples which gives the seven apples that were asked for".split()
    near = [*words[:-1], "about"]
    texts = [" ".join(words), " ".join(near), "Counting on from three: four, five, six, seven."]
    assert way(texts[0]) != way(texts[1])
    assert different(texts, 3) == [0, 2]


def test_equal_texts_and_equal_ways_have_one_number():
    lines = [row(text) for text, *_ in TEXTS]
    assert Rules(WEIGHTS, diverse=True).judge(lines[0])[2] == Rules(WEIGHTS, diverse=True).judge(lines[4])[2] != 0
    assert len({Rules(WEIGHTS).judge(line)[2] for line in lines}) == 4
    assert Rules(WEIGHTS).judge(row(rewards={"math_answer": 0.0}))[2] == 0


AGREEMENTS = [
    (["7", "7", "8"], 0.6, [True, True, False]),
    (["7", "7", "8"], 0.7, [False] * 3),
    (["7", "8"], 0.5, [False] * 2),  # a tie
    ([r"\boxed{1/2}", "0.5", "The answer is $\\frac{1}{2}$.", "3"], 0.75, [True, True, True, False]),
    (["The answer is 42.", r"\boxed{42}", "x = 42", "41", "41"], 0.6, [True, True, True, False, False]),
    (["41", "41", "$x(x+1)$", "$x^2+x$", r"\boxed{x+x^2}"], 0.6, [False, False, True, True, True]),
    (["x = 7", "7", "8", r"\boxed{8}"], 0.5, [False] * 4),  # a tie in other words
    (["The answer is **New York**.", "Answer: New York", "Boston"], 0.6, [True, True, False]),
    (["<think>8</think>7", "<think>7</think>8", "<think>7</think>7"], 0.5, [True, False, True]),
    (["<think>never closed 7", "7", "7"], 0.6, [False, True, True]),
    (["<think>never closed 7", "7"], 0.5, [False] * 2),  # one vote agrees with nobody
    (["7"], 0.5, [False]),
    (["7"] * 14 + [str(i) for i in range(100, 136)], 0.28, [True] * 14 + [False] * 36),  # 14 of 50 is 0.28
    ([], 0.5, []),
    (["<think>a", "<think>b"], 0.5, [False] * 2),
]


@pytest.mark.parametrize(("completions", "least", "agree"), AGREEMENTS)
def test_agreement(completions, least, agree):
    assert agreeing(completions, least) == agree


def solved(right, wrong=(), kept=1):
    right = [Drawn(i, text, tokens, {"step_check": share}) for i, (text, tokens, share) in enumerate(right)]
    return right[:kept], right, [Drawn(50 + i, text, tokens, {}) for i, (text, tokens) in enumerate(wrong)]


PAIRS = {
    "the wrong one nearest in length": (
        {"right_wrong": 1}, solved([("r", 10, 1.0)], [("w1", 3), ("w2", 11), ("w3", 12)]), [("right_wrong", "r", "w2")],
    ),
    "the kept one first, then the others, none twice": (
        {"right_wrong": 9},
        solved([("r1", 10, 1.0), ("r2", 3, 1.0), ("r1", 10, 1.0), ("r3", 9, 1.0)], [("w1", 3), ("w2", 11), ("w2", 11)]),
        [("right_wrong", "r1", "w2"), ("right_wrong", "r2", "w1")],
    ),
    "nothing without a wrong one": ({"right_wrong": 1}, solved([("r", 10, 1.0)]), []),
    "nothing without a right one": ({"right_wrong": 1}, solved([], [("w", 3)]), []),
    "short against long": (
        {"short_long": 2}, solved([("a", 10, 1.0), ("b", 40, 1.0), ("c", 12, 1.0), ("d", 17, 1.0)]), [("short_long", "a", "b")],
    ),
    "nothing where all are as long": ({"short_long": 2}, solved([("a", 10, 1.0), ("b", 14, 1.0)]), []),
    "the worst steps first": (
        {"steps": 2},
        solved([("a", 1, 0.5), ("b", 1, 1.0), ("c", 1, 0.0), ("d", 1, None), ("e", 1, 1.0), ("f", 1, 1.0)]),
        [("steps", "b", "c"), ("steps", "e", "a")],
    ),
    "no steps that were judged": ({"steps": 2}, solved([("a", 1, None), ("b", 1, 1.0)]), []),
    "every kind by its own count": (
        {"right_wrong": 0, "short_long": 1, "steps": 1},
        solved([("a", 10, 1.0), ("b", 40, 0.0)], [("w", 1)]),
        [("short_long", "a", "b"), ("steps", "a", "b")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    most, case, expected = PAIRS[name]
    made = [(kind, chosen.completion, rejected.completion) for kind, chosen, rejected in make_pairs(*case, most)]
    assert made == expected
