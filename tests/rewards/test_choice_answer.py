"""choice_answer: the usual phrasings are paid, hedging and prose are not, and no text takes long; see `choices.txt`."""

from pathlib import Path

import pytest
from reasoning_ext.rewards.choice_answer import choice_answer

from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.spec import needed_columns, parse_rewards
from tests.rewards.tables import tables
from tests.timing import seconds, slowness

CITIES = ["London", "Paris", "Rome", "Berlin"]
SAYS = tables("choices.txt")
SAYS_B = SAYS["B"] + SAYS["B in other languages"]


@pytest.mark.parametrize(
    "choices", [None, CITIES, {"text": CITIES, "label": [*"ABCD"]}], ids=["none", "listed", "with labels"]
)
def test_usual_phrasings_are_paid(choices):
    columns = {"choices": [choices] * len(SAYS_B)}
    found = zip(SAYS_B, choice_answer(SAYS_B, ["B"] * len(SAYS_B), **columns), strict=True)
    assert [text for text, reward in found if reward != 1.0] == [] and len(SAYS_B) > 100
    messages = [[{"role": "assistant", "content": text}] for text in SAYS_B]
    assert not any(choice_answer(messages, ["A"] * len(SAYS_B), **columns))


def test_an_option_may_be_said_by_its_text():
    for text in SAYS["Paris"]:
        assert choice_answer([text] * 3, ["B", "Paris", "C"], choices=[CITIES] * 3) == [1.0, 1.0, 0.0], text


def test_other_answers_hedges_and_words_of_one_letter_are_not_paid():
    for text in ["", *SAYS["not B"]]:
        assert choice_answer([text], ["B"], choices=[CITIES]) == [0.0], text
    for text in SAYS["nothing"]:
        assert choice_answer([text] * 4, [*"ABCD"], choices=[CITIES] * 4) == [0.0] * 4, text
    for text in "It is a city~A city.~I think so~I am not sure~A tale of two~The answer is a city~It's a".split("~"):
        assert choice_answer([text] * 2, ["A", "I"]) == [0.0, 0.0], text


@pytest.mark.parametrize(
    ("gold", "choices", "right"),
    [
        ("B", None, "B"), ("b", None, "B"), ("(B)", None, "B"), ("B. Paris", None, "B"), (r"\boxed{B}", None, "B"),
        ("Rome", CITIES, "C"), ("rome.", CITIES, "C"), ("C) Rome", CITIES, "C"), ("3", ["1", "2", "3"], "C"),
        ("D", ["D", "C"], None), ("A. Lincoln", ["G. Washington", "A. Lincoln"], "B"), ("B", ["B", "A"], "B"),
        ("Rome", None, None), ("Oslo", CITIES, None), ("E", CITIES, None), ("", CITIES, None), ("1", CITIES, None),
        (1, None, None), (None, None, None), ("A, B", None, None), (None, ["None", "All"], None),
        (float("nan"), ["a", "nan"], None), ({"a": 1}, None, None), ("1914–18", ["1914-18", "1939"], "A"),
        ("B", float("nan"), "B"), ("", ["", "x"], None), ("北", ["东", "北"], "B"), ("（B）", None, "B"),
    ],
)  # fmt: skip
def test_golds(gold, choices, right):
    for letter in "ABCDE":
        expected = None if right is None else float(letter == right)
        assert choice_answer([rf"\boxed{{{letter}}}"], [gold], choices=[choices]) == [expected]


@pytest.mark.parametrize(
    ("text", "choices", "letter"),
    [
        ("The answer is 3.", ["1", "2", "3", "4"], "C"), ("-3", ["3", "-3"], "B"), ("30", ["1", "3"], None),
        ("3.5", ["1", "3"], None), ("Both A and B", ["x y", "z w", "Both A and B"], "C"), ("\ue001", CITIES, None),
        ("It cannot be told because x is free", ["four", "It cannot be told because x is free"], "B"),
        (r"\boxed{\frac12}", [r"$\frac13$", r"\(\frac12\)"], "B"),
        ("increases, then falls", ["increases", "increases, then falls"], "B"),
        ("答案是北京。", ["上海", "北京"], "B"), ("不是上海，而是北京", ["上海", "北京"], "B"),
        ("北京或上海", ["上海", "北京"], None),
        ("正解は東京です", ["大阪", "東京"], "B"), ("答案是北京大学", ["北京", "北京大学"], "B"),
    ],
)  # fmt: skip
def test_texts_of_options_that_look_like_something_else_or_stand_between_letters(text, choices, letter):
    letters = "ABCD"[: len(choices)]
    found = choice_answer([text] * len(letters), [*letters], choices=[choices] * len(letters))
    assert found == [float(letter == one) for one in letters]


def test_a_recipe_needs_the_gold_and_not_the_choices():
    specs = parse_rewards(["choice_answer"], Path())
    assert needed_columns(specs) == {"answer": "the reward choice_answer"}
    [reward] = build_rewards(specs)
    assert reward(completions=["B", "Paris"], answer=["B", "B"], choices=[CITIES] * 2, prompts=["", ""]) == [1.0, 1.0]


FLOODS = "answer is A ~answer:,~\\boxed{~\\boxed{A}~\\text{~(~A ~A,~ ~\n~B is correct ~not ~} ~-~if ~ﷺ~选B~是正确的~错~not A, ~"
FLOODS += "\\boxed{A} or ~<answer>~La respuesta es "


def test_no_flood_takes_long():
    for unit in FLOODS.split("~"):
        text = (unit * 200_000)[:200_000]
        took = seconds(lambda text=text: choice_answer([text, text + "$"], ["B"] * 2, choices=[CITIES] * 2), repeat=2)
        assert took < 0.1 * slowness(), unit  # 50 ms each
