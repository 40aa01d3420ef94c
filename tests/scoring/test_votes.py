r"""Which completions vote for the same answer, and how `ask` says it."""

import doctest
import itertools

import pytest

from reasoning_ext.evaluate import choice, streaming
from reasoning_ext.scoring import votes
from reasoning_ext.scoring.votes import same_answers

PROSE = "we went on and on through the old woods " * 9


@pytest.mark.parametrize("module", [choice, streaming, votes])
def test_the_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


def test_groups_come_with_the_commonest_first_and_without_what_says_nothing():
    texts = ["8", "0.5", "<think>a</think>1/2", PROSE, "<think>0.5", "", r"<think>8</think>\boxed{\frac12}", "x = 9"]
    assert same_answers(texts) == [[1, 2, 6], [0], [7]]
    assert same_answers([]) == same_answers([PROSE, "<think>7"]) == []


@pytest.mark.parametrize(
    "texts",
    [
        ["x = 42", "The answer is 42.", "41", "<think>a", r"\boxed{42.0}"],
        ["5 km", "5", "5 cm", "7"],
        ["A", "(A) 12", "12"],
    ],
)
def test_the_order_of_the_completions_does_not_matter(texts):
    found = set()  # 5 is equal to two that are not equal
    for order in itertools.permutations(texts):
        found.add(tuple(sorted(tuple(sorted(order[i] for i in group)) for group in same_answers(order))))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("completions", "line"),
    [
        (["x = 42", "The answer is 42.", "41", r"\boxed{42}"], "vote: 42 (3 of 4), 41 (1 of 4)"),
        (["0.5", r"\boxed{1/2}", "1/2", "2"], "vote: 1/2 (3 of 4), 2 (1 of 4)"),
        (["<think>a", "<think>b", PROSE, "7"], "vote: 7 (1 of 4), (no answer) (3 of 4)"),
        (["The answer is **Paris**.", "Paris", "Rome"], "vote: Paris (2 of 3), Rome (1 of 3)"),
        (["<think>a", ""], "vote: (no answer) (2 of 2)"),
    ],
)
def test_the_vote_in_words(completions, line):
    assert choice.vote_line(completions) == line
