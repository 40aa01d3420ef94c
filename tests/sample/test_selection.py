"""What is accepted, what is kept, which pairs are made: rules on small tables of completions."""

import pytest

from reasoning_ext.sample.outputs import make_pairs
from reasoning_ext.sample.selection import (
    CUT_OFF,
    FAILED,
    FORCED,
    RIGHT,
    UNJUDGED,
    WRONG,
    Drawn,
    Rules,
    agreeing,
    different,
    way,
)

JUDGED = [
    # rules, rewards (math_answer 1, think_format 0.5), the rest of the line, state
    ({}, (1.0, 1.0), {}, RIGHT),
    ({}, (0.0, 1.0), {}, WRONG),
    ({}, (0.5, 1.0), {}, WRONG),
    ({}, (None, 1.0), {}, UNJUDGED),
    ({}, (1.0, 1.0), {"finished": False}, CUT_OFF),
    ({}, (1.0, 1.0), {"finished": False, "error": "time-out"}, FAILED),
    ({}, (1.0, 1.0), {"finished": False, "error": "empty"}, CUT_OFF),  # it would be empty again
    ({}, (1.0, 1.0), {"forced": 2}, FORCED),
    ({}, (0.0, 1.0), {"forced": 2}, WRONG),
    ({"keep_forced": True}, (1.0, 1.0), {"forced": 2}, RIGHT),
    ({"min_reward": 1.5}, (1.0, 1.0), {}, RIGHT),
    ({"min_reward": 1.5}, (1.0, None), {}, WRONG),
    ({"min_reward": 0.1 + 0.2}, (0.3, 0.0), {}, RIGHT),
    ({"min_reward": 0.4}, (None, 1.0), {}, RIGHT),
    ({"min_reward": -1.0}, (None, None), {}, UNJUDGED),
    ({"min_agreement": 0.5}, (1.0, 1.0), {}, RIGHT),  # has a gold
    ({"min_agreement": 0.5}, (1.0, 1.0), {"answer": None}, UNJUDGED),
    ({"min_agreement": 0.5}, (1.0, 1.0), {"answer": " "}, UNJUDGED),
    ({"min_agreement": 0.5}, (1.0, 1.0), {"answer": None, "finished": False}, CUT_OFF),
]


@pytest.mark.parametrize(("rules", "rewards", "more", "state"), JUDGED)
def test_what_a_completion_comes_to(rules, rewards, more, state):
    line = {
        "answer": "3",
        "finished": True,
        "rewards": dict(zip(("math_answer", "think_format"), rewards, strict=True)),
    }
    assert Rules({"math_answer": 1.0, "think_format": 0.5}, **rules).judge(line | more)[0] == state


TEXTS = [
    ("<think>3+4=7</think>7", 9, 1.0),
    ("<think>4+3=7</think>7", 5, 1.5),
    ("<think>3+4=7</think>7", 9, 1.0),
    ("<think>I count: 3, 4, 5, 6, 7</think>7", 12, 2.0),
    ("<think>3 + 4 = 7.</think>7", 7, 0.5),
]


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
    drawn = [Drawn(i, text, tokens, {}, total=total) for i, (text, tokens, total) in enumerate(TEXTS)]
    assert [one.sample for one in Rules({}, **rules).kept(drawn)] == kept


def test_near_duplicates_count_once():
    words = "first we add the three apples and the four apples which gives the seven apples that were asked for".split()
    texts = [" ".join(words), " ".join([*words[:-1], "about"]), "Counting on from three: four, five, six, seven."]
    assert way(texts[0]) != way(texts[1])
    assert different([Drawn(i, text, 1, {}) for i, text in enumerate(texts)], 3) == [0, 2]


AGREEMENTS = [
    (["7", "7", "8"], 0.6, [0, 1]),
    (["7", "7", "8"], 0.7, []),
    (["7", "8"], 0.5, []),  # a tie
    (["The answer is 42.", r"\boxed{42}", "x = 42", "41", "41"], 0.6, [0, 1, 2]),
    (["41", "41", "$x(x+1)$", "$x^2+x$", r"\boxed{x+x^2}"], 0.6, [2, 3, 4]),
    (["x = 7", "7", "8", r"\boxed{8}"], 0.5, []),  # a tie in other words
    (["<think>8</think>7", "<think>7</think>8", "<think>7</think>7"], 0.5, [0, 2]),
    (["<think>never closed 7", "7", "7"], 0.6, [1, 2]),
    (["<think>never closed 7", "7"], 0.5, []),  # one vote agrees with nobody
    (["7"] * 14 + [str(i) for i in range(100, 136)], 0.28, [*range(14)]),  # 14 of 50 is 0.28
    ([], 0.5, []),
]


@pytest.mark.parametrize(("completions", "least", "agree"), AGREEMENTS)
def test_agreement(completions, least, agree):
    assert [i for i, agrees in enumerate(agreeing(completions, least)) if agrees] == agree


PAIRS = {
    # pairs of each kind at most; right ones as (text, tokens, share of steps that hold), of which the first is kept; wrong ones
    "the wrong one nearest in length": ({"right_wrong": 1}, "r 10 1", "w1 3, w2 11, w3 12", ["r w2"]),
    "the kept one first, then the others, none twice": (
        {"right_wrong": 9}, "r1 10 1, r2 3 1, r1 10 1, r3 9 1", "w1 3, w2 11, w2 11", ["r1 w2", "r2 w1"],
    ),
    "nothing without a wrong one": ({"right_wrong": 1}, "r 10 1", "", []),
    "nothing without a right one": ({"right_wrong": 1}, "", "w 3", []),
    "short against long": ({"short_long": 2}, "a 10 1, b 40 1, c 12 1, d 17 1", "", ["a b"]),
    "nothing where all are as long": ({"short_long": 2}, "a 10 1, b 14 1", "", []),
    "the worst steps first": ({"steps": 2}, "a 1 .5, b 1 1, c 1 0, d 1 -, e 1 1, f 1 1", "", ["b c", "e a"]),
    "no steps that were judged": ({"steps": 2}, "a 1 -, b 1 1", "", []),
    "every kind by its own count": (
        {"right_wrong": 0, "short_long": 1, "steps": 1}, "a 10 1, b 40 0", "w 1", ["a b", "a b"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name):
    most, *texts, expected = PAIRS[name]
    right, wrong = ([one.split() for one in text.split(", ") if one] for text in texts)
    shares = [None if share == "-" else float(share) for _, _, share in right]
    right = [Drawn(i, text, int(n), {"step_check": shares[i]}) for i, (text, n, _) in enumerate(right)]
    wrong = [Drawn(50 + i, text, int(n), {}) for i, (text, n) in enumerate(wrong)]
    made = list(make_pairs(right[:1], right, wrong, most))
    assert [f"{chosen.completion} {rejected.completion}" for _, chosen, rejected in made] == expected
    assert {kind for kind, _, _ in made} <= {kind for kind, count in most.items() if count}
