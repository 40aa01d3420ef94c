"""Each reward: its documented example, and a table of cases."""

import asyncio
import doctest
import importlib
import itertools
import threading
from pathlib import Path

import pytest
from reasoning_ext.rewards.length_penalty import length_penalty
from reasoning_ext.rewards.math_answer import math_answer
from reasoning_ext.rewards.think_format import think_format

from reasoning_ext.recipe.plugins import plugin_names

NAMES = plugin_names(["reasoning_ext.rewards"])


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_is_one_file_with_an_example_that_runs(name):
    if name == "reasoning_gym":
        pytest.importorskip("reasoning_gym")
    module = importlib.import_module(f"reasoning_ext.rewards.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
    assert callable(getattr(module, name))


def test_every_file_in_rewards_is_found():
    files = {f.stem for f in (Path(__file__).parents[2] / "rewards").glob("[!_]*.py")}
    assert files == set(NAMES) and len(files) >= 3


RIGHT = [
    ("42", r"<think>6 x 7</think>The answer is \boxed{42}."),
    ("42", "<think>6 x 7</think>42"),
    ("42", "42"),
    ("-7", "<think>x</think>-7"),
    (r"\frac{1}{2}", r"<think>x</think>$\frac{1}{2}$"),
    (r"\frac{1}{2}", r"<think>x</think>\boxed{0.5}"),
    ("1/2", r"<think>x</think>\boxed{\frac12}"),
    (r"$\{1, 2\}$", r"<think>x</think>\boxed{\{2, 1\}}"),
    ("1000", r"<think>x</think>\boxed{1,000}"),
]
WRONG = [
    ("42", r"<think>\boxed{42}</think>I do not know"),
    ("42", r"<think>the answer is \boxed{42}"),
    ("42", r"<think>x</think>\boxed{41}"),
    ("42", ""),
    ("42", "<think>x</think>"),
    ("42", "<think>x</think>42<think>"),
    (r"\frac{1}{2}", r"<think>x</think>\frac{1}{3}"),
]


@pytest.mark.parametrize(("gold", "completion"), RIGHT)
def test_right_answers_are_paid(gold, completion):
    assert math_answer([completion], [gold]) == [1.0]


@pytest.mark.parametrize(("gold", "completion"), WRONG)
def test_wrong_answers_are_not(gold, completion):
    assert math_answer([completion], [gold]) == [0.0]


@pytest.mark.parametrize("gold", ["forty two", "", "Answer is forty two."])
def test_a_gold_that_does_not_parse_says_nothing_about_the_answer(gold):
    assert math_answer([r"\boxed{42}", gold], [gold, gold]) == [None, None]


def test_per_cent_counts_for_a_bare_gold_where_the_prompt_asks_for_it():
    prompts = [[{"role": "user", "content": "What percent of them?"}], "How many of them?", "What percentage?"]
    texts = [r"\boxed{60\%}", r"\boxed{60\%}", "The answer is 60 percent."]
    assert math_answer(texts, ["60"] * 3, prompts=prompts) == [1.0, 0.0, 1.0]
    assert math_answer(texts[:1], ["61"], prompts=prompts[:1]) == [0.0]


def test_the_question_is_the_last_message_of_the_user():
    asks, tells = ({"role": "user", "content": text} for text in ("What percent?", "How many?"))
    reply = {"role": "assistant", "content": "What percent?"}
    prompts = [[asks], [tells, reply, asks], [asks, reply, tells], [tells, reply], None, ""]
    assert math_answer([r"\boxed{60\%}"] * 6, ["60"] * 6, prompts=prompts) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert math_answer([r"\boxed{60\%}"], ["60"]) == [0.0]


def test_an_expression_that_is_left_to_be_worked_out_is_paid_unless_it_is_asked_for_a_value():
    texts = [r"\boxed{17 \times 23}", "17 * 23", r"\boxed{17 \times 23 = 391}", r"\boxed{391}"]
    assert math_answer(texts, ["391"] * 4) == [1.0] * 4
    assert math_answer(texts, ["391"] * 4, evaluated=True) == [0.0, 0.0, 1.0, 1.0]


def test_a_base_may_be_omitted_where_that_is_allowed_and_the_prompt_names_it():
    prompts = ["Write it in base 5.", "Write it."]
    assert math_answer([r"\boxed{204}"] * 2, ["204_5"] * 2, prompts=prompts) == [0.0, 0.0]
    assert math_answer([r"\boxed{204}"] * 2, ["204_5"] * 2, prompts=prompts, base_may_be_omitted=True) == [1.0, 0.0]


def test_golds_of_other_types_are_read_or_are_none():
    golds = [42, 42.0, ["42"], float("nan"), {"value": 42}, [None], None]
    assert math_answer([r"\boxed{42}"] * 7, golds) == [1.0, 1.0, 1.0, None, None, None, None]


def test_verdicts_are_the_same_from_a_thread_and_from_asyncio():
    golds, texts = zip(*RIGHT, *WRONG, strict=True)
    expected = math_answer(list(texts), list(golds))
    box = {}
    thread = threading.Thread(target=lambda: box.update(found=math_answer(list(texts), list(golds))))
    thread.start()
    thread.join()
    assert box["found"] == expected and 1.0 in expected and 0.0 in expected

    async def call():
        return math_answer(list(texts), list(golds))

    assert asyncio.run(call()) == expected


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think>b", 1.0), ("\n<think>a</think>b", 1.0), ("<think>\n\n</think>b", 0.0), ("<think>a</think>", 0.0),
        ("<think>a</think> \n", 0.0), ("<think>a<think>b</think>c", 0.0), ("<think>a</think>b</think>c", 0.0),
        ("x<think>a</think>b", 0.0), ("</think>a<think>b", 0.0), ("<THINK>a</THINK>b", 0.0), ("", 0.0), ("b", 0.0),
        ("<think>a</think>b<think>c</think>", 0.0), ("<think a</think>b", 0.0), ("< think>a</think>b", 0.0),
    ],
)  # fmt: skip
def test_think_format(text, reward):
    assert think_format([text]) == [reward]
    assert think_format([[{"role": "assistant", "content": text}]]) == [reward]


def test_length_penalty_never_pays_and_never_falls_back():
    rewards = length_penalty([[1] * n for n in range(0, 97)], min_tokens=8, max_tokens=32)
    assert all(-1.0 <= r <= 0.0 for r in rewards)
    assert all(a >= b for a, b in itertools.pairwise(rewards))
    assert rewards[8] == 0.0 and rewards[20] == -0.5 and rewards[32] == rewards[96] == -1.0


@pytest.mark.parametrize("bounds", [{"min_tokens": 5, "max_tokens": 5}, {"min_tokens": -1}])
def test_length_penalty_refuses_bounds_that_make_no_line(bounds):
    with pytest.raises(ValueError, match="0 <= min < max"):
        length_penalty([[1]], **bounds)
