"""think_format against strings made to earn it without the form, and against floods of tags."""

from itertools import pairwise

import pytest
from reasoning_ext.rewards.think_format import think_format

from reasoning_ext import think
from tests.timing import seconds, slowness

# Texts are parted by `~`.
WELL_FORMED = (
    "<think>6 x 7</think>42~\n <think>\n6 x 7\n</think>\n\n42\n~<think>a</think><answer>42</answer>~"
    "<think>a</think>So:\n<answer>\n42\n</answer>\n~<think>if a<b and b > c, <b>bold</b> <some tag></think>a < c~"
    "<think>first\n\n```python\nx = 1\n```\nthen</think>```x```~<think>考える</think>四十二~<think>a</think>∞~"
    "<think>a</think>&lt;think&gt; is an entity~<think>I am rethinking and re-think it</think>The <thinker> sits"
)
MALFORMED = (
    "~42~<think>a~a</think>b~<think>a</think>~<think>a</think> \n\t~<think></think>b~<think> \n </think>b~"
    "<think>\u200b\u200d\ufeff</think>b~<think>a</think>\u200b\u2060~<think>\x00\x07\x1b</think>b~"
    "<think>\xa0\u3000\u2003</think>b~<think>\u3164\u115f\uffa0</think>b~<think>a</think>\u2800~"
    "<think>\u0301\u0301</think>b~<think>...</think>b~<think>---</think>b~<think><!-- --></think>b~<think>🤔</think>b~"
    "<think>a</think>...~<think>a<think>b</think>c</think>d~<think>a<think>b</think>c~<think><think>a</think>b~"
    "<think>a</think></think>b~<think>a</think>b</think>c~<think>a</think>b<think>c</think>d~"
    "<think>a</think><think>b</think>c~<think>a</think>b<think>~<think>a</think>b<think>c~</think>a<think>b~"
    "</think><think>a</think>b~<think>a<think>b~a</think>b</think>c~Sure! <think>a</think>b~\u200b<think>a</think>b~"
    '<THINK>a</THINK>b~<Think>a</think>b~<think>a</THINK>b~<think id="1">a</think>b~< think >a</think>b~'
    "<think>a< / think >b~<think>a</think >b~<think\n>a</think>b~<thi\nnk>a</think>b~<think>a</\nthink>b~"
    "<th\u200bink>a</think>b~<think/>a</think>b~<think a</think>b~<think>a<\\think>b~&lt;think&gt;a&lt;/think&gt;b~"
    "＜think＞a＜/think＞b~[think]a[/think]b~<thinking>a</thinking>b~<thіnk>a</thіnk>b~<!-- <think>a</think> -->b~"
    "```\n<think>a</think>\n```\nb~<think>a<THINK>b</think>c~<think>a</think>b< think >c</ think >~"
    "<think>a</think>b</THINK>c~<think>a</think>b＜/think＞c~<think>a</think><think x>b~<think>a</think>b<thin\u212a>~"
    "<think>a</think><answer>b~<think>a</think>b</answer>~<think>a</think><answer> </answer>~"
    "<think>a</think>b<answer></answer>c~<think>a</think><answer>b</answer><answer>c</answer>~"
    "<think>a</think><answer>b</answer></answer>~<think>a</think>b< think>~<think>a</think>b< / think>~"
    "<think>a</think><answer>b</answer><Answer>~<think>a</think><answer><answer>b</answer></answer>~"
    "<think>a</think></answer>b<answer>~<think>a<answer>b</answer></think>c~<think>a<answer>b</think>c</answer>~"
    "<answer><think>a</think>b</answer>~<think>a</think><ANSWER>b</ANSWER>~<think>a</think><answer x>b</answer>~"
    "<answer>b</answer><think>a</think>c~<think>a</answer><answer>b</think>"
)
MALFORMED = [*MALFORMED.split("~"), "<think>a</think>b" * 100, "<think>" * 100 + "a</think>b"]
MALFORMED += ["<think>a" + "</think>" * 100 + "b", "<think>a</think>" + "<answer>b</answer>" * 100]
RISING = [
    "42~<think>6 x 7~<think>6 x 7</think>~<think>6 x 7</think>42",
    "42~</think>42~<think></think>42~<think>6 x 7</think>42",
    "42~x</think>42~x<think>6 x 7</think>42~<think>6 x 7</think>42",
    "<think>a</think>~<think>a</think><answer>b~<think>a</think><answer>b</answer>",
]


def test_what_is_well_formed_is_paid_in_full():
    texts = WELL_FORMED.split("~")
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
