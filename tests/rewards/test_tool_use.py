"""tool_use: what was called, what it answered, and whether the answer hangs on it; other rewards on several turns."""

import pytest
from reasoning_ext.rewards.language import language
from reasoning_ext.rewards.length_penalty import length_penalty
from reasoning_ext.rewards.math_answer import math_answer
from reasoning_ext.rewards.step_check import step_check
from reasoning_ext.rewards.think_format import think_format
from reasoning_ext.rewards.tool_use import tool_use

from tests.timing import seconds


def call(expression="17*23", name="calculator"):
    return {"type": "function", "function": {"name": name, "arguments": {"of": expression}}}


def turns(*texts, called=None):
    """What the assistant wrote and, at every second place, what a tool answered."""
    said = [
        {"role": "tool", "content": t} if i % 2 else {"role": "assistant", "content": t} for i, t in enumerate(texts)
    ]
    for turn in said[:-1:2]:
        turn["tool_calls"] = [called or call()]
    return said


DEPENDS = {
    "the result is the answer": turns("<think>17*23?</think>", "391", "<think>so</think>It is 391."),
    "in another form": turns("", "1,234.50", r"\boxed{1234.5}"),
    "rounded": turns("", "3.33333333", "It is 3.33."),
    "gone on with": turns("", "391", "<think>391 + 9 = 400</think>400"),
    "a word": turns("", "The capital of Florin is Qwzet.", "It is Qwzet, I read.", called=call("capital of Florin")),
    "a short answer in words": turns("", "the code is QW", r"\boxed{QW}", called=call("code")),
    "after an error": turns("", "error: no such name", "", "391", "391"),
    "the second result, from the first": turns("", "391", "391 and now", "396", "396", called=call("9")),
}
IGNORED = {
    "another answer": turns("", "391", "It is 390."),
    "known before": turns("<think>It is 391, I think</think>", "391", "It is 391."),
    "known in the call": turns("", "391", "391", called=call("391")),
    "an error": turns("", "error: 391 is too large", "391"),
    "an error as TRL writes it": turns("", "{'error': 'no 391'}", "391"),
    "no answer": turns("", "391", "<think>391, and then"),
    "cut off": turns("", "391", "x")[:-1],
    "words that everybody says": turns("", "there is a cat", "It is a dog."),
    "never called": [{"role": "assistant", "content": "391"}],
    "a string": "391",
    "never answered": [{"role": "assistant", "content": "391", "tool_calls": [call()]}],
}


def test_what_hangs_on_a_result_is_paid_and_nothing_else_is():
    assert dict(zip(DEPENDS, tool_use([*DEPENDS.values()]), strict=True)) == dict.fromkeys(DEPENDS, 1.0)
    assert dict(zip(IGNORED, tool_use([*IGNORED.values()]), strict=True)) == dict.fromkeys(IGNORED, 0.0)


def test_calls_cost_and_where_none_is_needed_not_calling_is_paid():
    logged = {}
    rows = [DEPENDS["the result is the answer"], DEPENDS["after an error"], "391", IGNORED["another answer"]]
    found = tool_use(rows, penalty=0.1, needs_tool=[True, False, False, None], log_metric=logged.__setitem__)
    assert found == pytest.approx([0.9, -0.2, 1.0, -0.1])
    assert logged == {"tool_use/calls": 1.0, "tool_use/needless": 0.25, "tool_use/ignored": 0.25}
    for penalty in (-1, float("nan"), "much"):
        with pytest.raises(ValueError):
            tool_use(["391"], penalty=penalty)


def test_words_of_the_prompt_are_no_news_and_its_numbers_may_be_chosen_from():
    row = turns("", "the capital of Florin", "Florin", called=call("?"))
    assert tool_use([row], prompts=["Which country?"]) == [1.0]
    chosen = DEPENDS["the result is the answer"]
    assert tool_use([chosen], prompts=[[{"role": "user", "content": "390 or 391?"}]]) == [1.0]
    known = turns("", "about Florin: its capital", "Which Florin?", called=call("?"))
    assert tool_use([known] * 2, prompts=["", "Tell me of Florin"]) == [1.0, 0.0]


def test_floods_take_no_time():
    floods = [
        turns("", text * 20_000, text * 20_000) for text in ("1", "1,", "9.", "error", "{'", "a ", "\\boxed{", "é")
    ]
    assert seconds(lambda: tool_use(floods)) < 5


def test_every_turn_has_a_form_and_the_worst_is_paid():
    good = turns("<think>17*23</think>", "391", "<think>so</think>391")
    assert think_format([good, good[:-1], turns("<think>17*23", "391", "<think>so</think>391")]) == [1.0, 0.0, 0.0]
    assert think_format([turns("17*23", "391", "<think>so</think>391")], mode="graded")[0] < 0.5
    assert think_format([turns("<think>a</think>", "<think></think>" * 9, "<think>so</think>391")]) == [1.0]


def test_results_are_nothing_that_a_model_said():
    row = turns("<think>2+2 = 4</think>", "слово 2+2 = 5", "<think>3+3 = 6</think>word")
    assert step_check([row], min_equations=2) == [1.0] and language([row]) == [1.0]
    assert math_answer([turns("", "391", "x")[:-1]], ["391"]) == [0.0]  # cut off behind a result


def test_results_are_no_part_of_a_length():
    row = turns("a" * 40, "b" * 1000, "c" * 10)
    ids = [[1] * 100]
    [own], [all_of_it] = (length_penalty(ids, completions=given, max_tokens=100) for given in ([row], None))
    assert all_of_it == -1.0 and -0.12 < own < -0.04
