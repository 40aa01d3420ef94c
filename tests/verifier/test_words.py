"""Answers in words: what is one, and which are the same."""

import pytest

from reasoning_ext.verifier.words import is_number_in_words, is_words, plain, same_words

WORDS = [
    "no solution", "New York", "ABC", "no", "yes", "True", "Evelyn", "O'Brien", "north-east", "does not exist",
    r"\text{no solution}", r"\text{East}", "Dr. Smith", "isosceles", "Friday", "infinitely many", '"Paris"',
    "the larger box", "São Paulo", "Ответ", "cat", "sky", "DNA", "right triangle",
]  # fmt: skip
NO_WORDS = [
    "", "  ", "x", "C", "xy", "abc", "kx", "sin", "pi", "infinity", "forty two", "forty-two", "seven", "a dozen", "2 apples",
    "x + 1", "x and y", "red or blue", "red, blue", "a set of many longer words", r"\frac{a}{b}", "xY", "42", "...",
    "twenty apples", "a b c",
]  # fmt: skip


@pytest.mark.parametrize(("expected", "texts"), [(True, WORDS), (False, NO_WORDS)])
def test_an_answer_in_words(expected, texts):
    assert [text for text in texts if is_words(text) is not expected] == []


def test_a_number_in_words():
    numbers = ["forty two", "one hundred and five", "Twelve", "minus three", "a half", "three point five", "forty-two"]
    assert all(map(is_number_in_words, numbers))
    assert not any(map(is_number_in_words, ["", "no", "a", "and", "forty 2", "two apples", "someone", "x"]))


SAME = [
    ("no solution", "No solutions."), ("no solution", r"\emptyset"), ("no solution", "there is no solution"),
    ("no solution", "no real solutions"), ("no solution", "∅"), ("no solution", "The empty set"), ("no solution", r"\{\}"),
    ("New York", r"\text{new york}"), ("the cat", "cat"), ("yes", "Yes"), ("ABC", "abc"),
    ("all real numbers", r"\mathbb{R}"), ("all real numbers", r"(-\infty, \infty)"), ("all real numbers", "all reals"),
    ("infinity", r"\infty"), ("does not exist", "DNE"), ("does not exist", "The limit does not exist."),
    ("diverges", "the series diverges"), ("north-east", "north east"), ("O'Brien", "o’brien"),
    ("is increasing", "f is increasing"), ("True", '"true"'), ("all integers", r"\mathbb{Z}"),
    ("infinitely many", "infinitely many solutions"), ("exists", "it exists"),
]  # fmt: skip
OTHER = [
    ("no", "on"), ("ABC", "ACB"), ("yes", "no"), ("no solution", "solution"), ("exists", "the limit does not exist"),
    ("exists", "the limit never exists"), ("True", "not true"), ("New York", "York"), ("cat", "cats and dogs"),
    ("Paris", "not Paris"), ("increasing", "decreasing"), ("no solution", "infinitely many"), ("no solution", "0"),
    ("diverges", "it never diverges"), ("yes", ""), ("", ""), ("east", "north-east"),
    ("all real numbers", "no real numbers"), ("Friday", "Friday or Monday"),
]  # fmt: skip


@pytest.mark.parametrize(("same", "pairs"), [(True, SAME), (False, OTHER)])
def test_the_same_words(same, pairs):
    assert [pair for pair in pairs if same_words(*pair) is not same] == []


def test_markup_quotes_and_spaces_say_nothing():
    assert plain('  \\text{No}  \\ "solution". ') == 'No "solution'
    assert plain(r"\mathrm{New~York}!") == plain("New\nYork") == "New York"
