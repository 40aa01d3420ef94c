"""Each reward: its documented example, and a table of cases."""

import asyncio
import doctest
import importlib
import threading
from pathlib import Path

import pytest
from reasoning_ext.rewards.math_answer import math_answer

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


def test_right_answers_are_paid_wrong_ones_are_not_and_bad_golds_are_errors():
    for rows, reward in ((RIGHT, 1.0), (WRONG, 0.0)):
        golds, texts = zip(*rows, strict=True)
        assert math_answer([*texts], [*golds]) == [reward] * len(rows)
    golds = ["forty two", "", "Answer is forty two.", float("nan"), {"value": 42}, [None], None]
    assert math_answer([r"\boxed{42}"] * 10, [42, 42.0, ["42"], *golds]) == [1.0] * 3 + [None] * 7


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
