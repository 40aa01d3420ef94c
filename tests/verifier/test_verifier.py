r"""The verifier as a whole: a table of answers, floods and bombs, golds and questions, the same verdicts everywhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from reasoning_ext.rewards.math_answer import math_answer

from reasoning_ext import think
from reasoning_ext.verifier import AS_TEXT, NO_GOLD, Rules, alike, judge, judge_all, kind, said, unreadable
from reasoning_ext.verifier.answers import final_answer
from reasoning_ext.verifier.pool import Failure, Pool
from tests.timing import seconds, slowness

VERDICTS = {"1": True, "0": False, "None": None}


def judged():
    """Read `gold || answer || 1, 0 or None` lines by rule; golds may hold control characters, answers thoughts."""
    rules = {}
    for line in Path(__file__).with_name("judged.txt").read_text(encoding="utf-8").split("\n"):
        if line.startswith("# "):
            rows = rules.setdefault(line[2:], [])
        elif line:
            gold, answer, verdict = line.split(" || ")
            rows.append((gold, think.answer(re.sub(r"\\n(?![a-z])", "\n", answer)), VERDICTS[verdict]))
    return rules


RULES = judged()
PAIRS = [(gold, answer) for rows in RULES.values() for gold, answer, _ in rows]


def rights(golds, texts, **asked):
    return [verdict.right for verdict in judge_all(golds, texts, **asked)]


@pytest.mark.parametrize("rule", RULES)
def test_judged_by_rule(rule):
    golds, answers, _ = zip(*RULES[rule], strict=True)
    found = zip(RULES[rule], judge_all(golds, answers), strict=True)
    assert [(row, verdict) for row, verdict in found if verdict.right is not row[2]] == []


def test_the_table_of_rules_is_large():
    verdicts = [verdict for rows in RULES.values() for *_, verdict in rows]
    assert verdicts.count(True) > 900 and verdicts.count(False) > 700 and len(RULES) > 40


def test_no_answer_is_wrong_and_no_gold_is_an_error():
    assert judge_all(["42", "42", "42"], [None, "", "   "]) == [(False, "")] * 3
    for gold in ["forty two", "", "Answer is forty two.", "The stock falls each day", "   "]:
        assert judge(gold, "42") == (None, NO_GOLD) and judge(gold, gold) == (None, NO_GOLD)
    assert rights(["6 * 7 = 42\n#### 42"], ["42"]) == [True]


SLOW = r"\int_0^1 x^{x^{x^x}}\,dx"
DEEP = ["2^" * 300 + "2", "(1," * 300 + "2" + ")" * 300, r"\sqrt{" * 240 + "2" + "}" * 240]
BOMBS = [
    r"2^{2^{2^{59}}}", r"3^{9^{9^{9}}}", "e^{e^{e^{e^{9}}}}", "10^{-10^{10}}", r"10^{10^{10}}\pi", "1e999999",
    "(x+1)^{99999}", "7" * 3000, "0." + "1" * 1900, r"\binom{900000}{400000}", r"\binom{10^{12}}{10^{11}}", "9999999!",
    "1000000!!", r"7^{7^{7}} \bmod 10", r"\sin(10^{10^{10}})", r"\log_2(2^{2^{100}})", r"\lfloor e^{10^6} \rfloor",
    r"x^{123456789}+1=0", r"\frac{1}{" * 250 + "2" + "}" * 250, "{" * 900 + "}" * 900, "1," * 900 + "1", r"\pm 1" * 300,
    "1" + r"\pm 2" * 20, "1=1=" * 400 + "2", "x<" * 600 + "1", r"\{1\} \cup " * 30 + r"\{2\}", "3:4:" * 400 + "1",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BOMBS + DEEP)))
def test_a_bomb_is_never_right_and_the_next_pair_is(number):
    bomb = [*BOMBS, *DEEP][number]
    for gold, answer in [(f"{number}17", bomb), (bomb, f"{number}17")][: 1 + (bomb in BOMBS)]:
        right, reason = judge(gold, rf"\boxed{{{answer}}}", 0.5)
        assert right is not True
        assert reason in ("", "time-out after 0.5 s", NO_GOLD) or "too large" in reason
    assert judge(f"{number + 2}x", f"x+{number + 1}x") == (True, "")


def test_a_bomb_among_others_is_the_only_one_without_a_verdict():
    answers = [rf"\boxed{{{SLOW}}}" if i == 17 else f"{i}+x" for i in range(40)]
    verdicts = judge_all([f"x+{i}" for i in range(40)], answers, 1.0)
    assert [i for i, v in enumerate(verdicts) if v.right is not True] == [17]
    assert verdicts[17] == (None, "time-out after 1 s")


FLOODS = [
    r"\[", "$", r"\(", r"\boxed{", r"\boxed{1}", "answer is ", "1", "1,", "1/", "(1", "{", "}", "\\", r"\frac{1}{", " ",
    "\n", "*", "<|a", "#", "1 or ", "=", r"= \frac a", r"\text{", "$1$ and ", r"\boxed{1} final answer ", "\u200b",
    "<answer>", "**a", "is ", "minus ", "５", "é 1 ",
]  # fmt: skip


def test_a_flood_is_read_in_linear_time():
    for piece in FLOODS:
        text = piece * (200_000 // len(piece))
        took = seconds(lambda text=text: (final_answer(text), final_answer(text, many=True)), repeat=1)
        assert took < 2 * slowness(), piece


@pytest.mark.parametrize("way", ["in_thread", "in_loop", "in_fork"])
def test_verdicts_are_the_same_from_a_thread_asyncio_and_a_child_process(way):
    call = f"print(json.dumps([v.right for v in {way}(*json.load(sys.stdin))]))"
    pairs = json.dumps([*zip(*PAIRS[::9], strict=True)])
    done = subprocess.run([sys.executable, "-c", WAYS + call], input=pairs, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == rights(*zip(*PAIRS[::9], strict=True))


WAYS = """
import asyncio, json, multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
from reasoning_ext.verifier import judge, judge_all

judge("x+1", "1+x")  # there are workers already, which a forked child must not touch

def in_thread(*pairs):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(judge_all, *pairs).result()

def in_loop(*pairs):
    async def call():
        return judge_all(*pairs)
    return asyncio.run(call())

def in_fork(*pairs):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=lambda: queue.put(judge_all(*pairs)), daemon=True)
    process.start()
    found = queue.get(timeout=120)
    process.join()
    assert judge("2x", "x+x").right
    return found

"""


def test_the_parent_never_imports_sympy():
    code = (
        "import sys; from reasoning_ext.verifier import judge; assert judge('x+1', '1+x').right;"
        "print([m for m in ('sympy', 'math_verify', 'mpmath') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


KINDS = {
    "number": [
        42, 42.0, 0.5, 10**30, ["42"], [42], ("42",), "42", "1/2", r"\frac12", "50%", "2^{10}", r"\boxed{42}", "1,000"
    ], "formula": [r"\sqrt2", "x+1", "1, 2", "(1, 2)", "5 km", "C", "x < 3", r"2\pi", "12_7", "3:4", ["x+1"]],
    "words": ["yes", "New York", "no solution", r"\text{Evelyn}", True, ["yes"]],
    "none": [
        float("nan"), float("inf"), {"value": 42}, [None], [], ["1", "2"], None, b"42", "forty two", "", "  ", "NaN", "null",
        "none", "\x0crac{1}{2}", "\x08oxed{3}"
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_of_a_gold(name):
    assert [gold for gold in KINDS[name] if kind(gold) != name] == []


def test_a_gold_of_another_type_is_its_value_or_none():
    golds = [42, 42.0, ["42"], (42,), float("nan"), {"value": 42}, [None], ["42", "42"], None, "\x0crac{1}{2}"]
    assert rights(golds, [r"\boxed{42}"] * 10) == [True] * 4 + [None] * 6
    assert rights(golds, [r"\boxed{43}"] * 10) == [False] * 4 + [None] * 6


READABLE = [
    "42", r"\frac{1}{2}", "x^2+1", "Evelyn", 42, ["42"], "1, 2", "x<3", "5 km", "3:4",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\sum_{k=1}^n k", "C",
]  # fmt: skip
NO_GOLDS = [
    "forty two", "", None, [None], "\x0crac{1}{2}", "3\times 4", "\theta", "\rho", "\neq 2", "x \to 2", "\right)",
]  # fmt: skip
TEXTS_ONLY = [r"\frac{1}{", "(((", "x = = 3"]


def test_golds_that_cannot_be_read_are_found_before_training():
    found = unreadable([*READABLE, *NO_GOLDS, *TEXTS_ONLY])
    reasons = [NO_GOLD] * len(NO_GOLDS) + [AS_TEXT] * len(TEXTS_ONLY)
    assert found == [*enumerate(reasons, len(READABLE))]
    assert judge(TEXTS_ONLY[0], TEXTS_ONLY[0]).right is True


def test_a_question_asks_for_per_cent_or_names_a_base_that_may_be_omitted_where_that_is_allowed():
    golds, texts = (
        ["60"] * 4 + ["0.6"],
        [r"\boxed{60\%}", r"\boxed{60}", r"\boxed{61\%}", r"\boxed{0.6}", r"\boxed{60\%}"],
    )
    assert rights(golds, texts, questions=["What percentage?"] * 5) == [True, True, False, False, True]
    assert rights(golds, texts, questions=["It rises by 20%."] * 5) == [False, True, False, False, True]
    texts, free = ["204", "205", "54", "204_5", "204_6"], Rules(base_may_be_omitted=True)
    assert rights(["204_5"] * 5, texts, questions=["in base 5?"] * 5, rules=free) == [True, False, False, True, False]
    for asked in ({"questions": ["in base 5?"] * 5}, {"questions": ["?"] * 5, "rules": free}):
        assert rights(["204_5"] * 5, texts, **asked) == [False, False, False, True, False]


def test_an_expression_is_no_value():
    texts = ["17*23", "391", "17*23 = 391", r"\frac{782}{2}", "390"]
    assert rights(["391"] * 5, texts) == [True, True, True, True, False]
    assert rights(["391"] * 5, texts, rules=Rules(evaluated=True)) == [False, True, True, False, False]


def test_answers_that_are_alike_have_the_same_leader():
    texts = [
        "It is 0.5", r"\boxed{\frac12}", "I cannot tell.", r"\boxed{2}", "x+1", "1+x", None, "Paris", "It is Paris.", "",
    ]  # fmt: skip
    assert alike([*texts, "2.0", "$(x+1)^2$", "$x^2+2x+1$"]) == [0, 0, None, 3, 4, 4, None, 7, 7, None, 3, 11, 11]
    assert alike(["all reals", "none", "all real numbers"]) == [0, 1, 0]
    assert alike([]) == [] and alike(["<|im_end|>", "I think so."]) == [None, None]


def test_what_a_text_says_whatever_its_gold_is():
    says = {
        r"So it is \boxed{42}.": "42",
        "The capital is Paris.": "Paris",
        "The answer is $x+1$.": "x+1",
        "Yes": "Yes",
    }
    says |= dict.fromkeys(["", "I do not know.", "Sorry, no.", "We cannot find it", "It is 1 or 2."])
    assert {text: said(text) for text in says} == says


def test_equal_pairs_are_judged_once(monkeypatch):
    asked = []
    monkeypatch.setattr(Pool, "map", lambda self, items, seconds: asked.extend(items) or [True] * len(items))
    texts = ["17+y"] * 4 + ["It is $17+y$."] * 4
    assert judge_all(["y+17"] * 8, texts) == judge_all(["y+17"] * 8, texts) == [(True, "")] * 8
    assert asked == [("y+17", "17+y")]


def test_an_error_in_a_worker_gives_none_is_counted_and_is_not_remembered(monkeypatch):
    monkeypatch.setattr(Pool, "map", lambda self, items, seconds: [Failure("ValueError: injected")] * len(items))
    metrics, table = {}, {}
    completions = [r"\boxed{z + 31}", r"\boxed{5}"]
    logs = {"log_metric": metrics.__setitem__, "log_extra": table.__setitem__}
    rewards = math_answer(completions, ["31 + z", "5"], prompts=["?", "?"], **logs)
    assert rewards == [None, 1.0] and metrics == {"math_answer/errors": 1.0}
    assert table["math_answer_error"] == ["ValueError: injected", ""]
    monkeypatch.undo()
    assert math_answer(completions, ["31 + z", "5"]) == [1.0, 1.0]
