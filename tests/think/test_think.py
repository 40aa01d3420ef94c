"""The think contract on TRL's own chat templates, without any download."""

import doctest
from pathlib import Path

import pytest

from reasoning_ext import think
from reasoning_ext.think.template import decoder, find_contract
from tests.templates import build
from tests.timing import seconds, slowness


@pytest.mark.parametrize("conversational", [True, False])
def test_a_format_reward_behind_a_prefilling_template_is_right(conversational):
    from reasoning_ext.scoring.call import build_rewards, decode_with
    from reasoning_ext.scoring.spec import parse_rewards

    texts = ["3+4=7\n</think>\n\n7", "3+4=7", "</think>7"]
    completions = [[{"role": "assistant", "content": t}] for t in texts] if conversational else texts
    tokenizer = build("deepseek_r1_distill")
    ids = [[*tokenizer(t, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for t in texts]
    [reward] = build_rewards(parse_rewards(["think_format"], Path()))
    decode_with([reward], decoder(tokenizer, find_contract(tokenizer)))
    logged = {}
    values = reward(completions=completions, completion_ids=ids, log_extra=logged.__setitem__)
    assert values == [1.0, 0.0, 0.0] and logged.pop("tokens") == [*map(len, ids)]
    assert logged == {"whole": ["<think>\n" + t for t in texts]}
    assert completions[0] == ([{"role": "assistant", "content": texts[0]}] if conversational else texts[0])
    [bare] = build_rewards(parse_rewards(["think_format"], Path()))
    assert bare(completions=completions) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>a</think>b", ("a", "b")),
        ("a</think>b", ("a", "b")),
        ("b", (None, "b")),
        ("<think>a", (None, None)),
        ("<think>a</think>b<think>c", ("a", None)),
        ("<think>a</think>b</think>c", ("a</think>b", "c")),
        ("<think></think>b", ("", "b")),
    ],
)
def test_split(text, parts):
    assert think.split(text) == parts


def test_a_flood_of_tags_costs_linear_time():
    for text in ("<think>" * 28_000, "</think>" * 25_000, "<think></think>" * 13_000, "<think>" + "<" * 200_000):
        assert not think.well_formed(text)
        assert seconds(lambda text=text: (think.well_formed(text), think.split(text))) < 0.05 * slowness()


def test_examples_in_docstrings():
    assert doctest.testmod(think).attempted > 0 and doctest.testmod(think).failed == 0
