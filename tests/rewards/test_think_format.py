"""think_format against strings made to earn it without the form, and against floods of tags."""

import json
from itertools import pairwise

import pytest
from reasoning_ext.rewards.think_format import think_format

from reasoning_ext import think
from tests.rewards.tables import tables
from tests.timing import seconds, slowness

TEXTS = {head: [*map(json.loads, lines)] for head, lines in tables("formats.txt").items()}
WELL_FORMED, MALFORMED = TEXTS["well-formed"], TEXTS["malformed"]
MALFORMED += ["<think>a</think>b" * 100, "<think>" * 100 + "a</think>b", "<think>a" + "</think>" * 100 + "b"]
MALFORMED += ["<think>a</think>" + "<answer>b</answer>" * 100]
RISING = [
    "42~<think>6 x 7~<think>6 x 7</think>~<think>6 x 7</think>42",
    "42~</think>42~<think></think>42~<think>6 x 7</think>42",
    "42~x</think>42~x<think>6 x 7</think>42~<think>6 x 7</think>42",
    "<think>a</think>~<think>a</think><answer>b~<think>a</think><answer>b</answer>",
]


def test_what_is_well_formed_is_paid_in_full():
    texts = WELL_FORMED
    for mode in ("strict", "graded"):
        assert think_format(texts, mode=mode) == [1.0] * len(texts) and all(map(think.well_formed, texts))
    assert think_format([[{"role": "assistant", "content": text}] for text in texts]) == [1.0] * len(texts)


def test_what_is_malformed_is_never_paid_in_full():
    rewards = zip(MALFORMED, think_format(MALFORMED), think_format(MALFORMED, mode="graded"), strict=True)
    assert [text for text, strict, graded in rewards if strict != 0.0 or not 0.0 <= graded < 1.0] == []
    assert len({*MALFORMED}) > 75


def test_graded_rises_with_every_condition_met():
    for steps in RISING:
        rewards = think_format(steps.split("~"), mode="graded")
        assert all(worse < better for worse, better in pairwise(rewards)) and rewards[-1] == 1.0
    assert think_format(["</think>a<think>b"], mode="graded") == [pytest.approx(2 / 6)]
    bare = ["", "42", "The answer is 42.", "<answer>42</answer>", "<THINK>a</THINK>b", "&lt;think&gt;"]
    assert think_format(bare, mode="graded") == [0.0] * 6


@pytest.mark.parametrize("tag", ["<think>", "</think>", "<THINK>", "</think >", "< think x>"])
def test_graded_pays_nothing_for_repeated_tags(tag):
    for text in ("<think>a</think>b", "<think>a", "a</think>b", "<think></think>b"):
        assert think_format([text], mode="graded")[0] > 0.0
        texts = [text + tag * 2, tag * 2 + text, text + tag * 50, tag * 50 + text]
        assert think_format(texts, mode="graded") == [0.0] * 4
    assert think_format(["<think>a</think>b" + tag], mode="graded")[0] < 1.0


def test_an_unknown_mode_is_refused():
    for mode in ("loose", "", "STRICT", None):
        with pytest.raises(ValueError, match="allowed: strict, graded"):
            think_format(["<think>a</think>b"], mode=mode)


FLOODS = "<think>~</think>~<think></think>~<think>a</think>b~</think><think>~<~<think~< ~</ ~<answer>~"
FLOODS += "</answer><answer>~＜think＞~<THINK>~ ~\u200b~<think>\n~a"


@pytest.mark.parametrize("frame", ["{}", "<think>a</think>{}", "<think>{}</think>b", "<{}"])
def test_a_flood_costs_little(frame):
    for unit in FLOODS.split("~"):
        text = frame.format((unit * 200_000)[:200_000])
        took = seconds(lambda text=text: think_format([text]), repeat=2)
        assert took < 0.05 * slowness(), unit
