"""The verifier: two tables of answers, floods and bombs, the same verdicts from everywhere, and what a gold is."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reasoning_ext import verifier
from reasoning_ext.verifier import NO_GOLD, judge, judge_all, read_gold, unreadable
from reasoning_ext.verifier.answers import final_answer
from reasoning_ext.verifier.compare import compare
from reasoning_ext.verifier.exact import decide
from tests.timing import seconds, slowness

HERE = Path(__file__).parent


def table(name):
    """Read `gold || answer` lines; `\\n` in an answer stands for a new line."""
    lines = (HERE / f"answers_{name}.txt").read_text(encoding="utf-8").splitlines()
    return [
        (gold.strip(), answer.strip().replace(r"\n$", "\n$")) for gold, _, answer in (s.partition("||") for s in lines)
    ]


RIGHT, WRONG = table("right"), table("wrong")
PAIRS = [*RIGHT, *WRONG]


@pytest.fixture(scope="module")
def verdicts():
    return judge_all([gold for gold, _ in PAIRS], [answer for _, answer in PAIRS])


def test_right_answers_are_right(verdicts):
    found = [pair for pair, verdict in zip(RIGHT, verdicts, strict=False) if verdict.right is not True]
    assert found == [] and len(RIGHT) > 300


def test_wrong_answers_are_wrong(verdicts):
    found = [pair for pair, verdict in zip(WRONG, verdicts[len(RIGHT) :], strict=True) if verdict.right is not False]
    assert found == [] and len(WRONG) > 150


def test_what_is_decided_without_algebra_is_what_algebra_decides(monkeypatch):
    decided = []
    for gold, answer in PAIRS:
        wanted = read_gold(gold)
        given = final_answer(answer, wanted.many)
        if given is not None and decide(wanted.text, given) is not None:
            decided.append((wanted.text, given, decide(wanted.text, given)))
    monkeypatch.setattr("reasoning_ext.verifier.compare.decide", lambda gold, answer: None)
    numbers = [(g, a, v) for g, a, v in decided if v and g != a and g.lstrip("-").isdigit() and a.lstrip("-").isdigit()]
    assert len(decided) > 150 and all(compare((g, a)) is v for g, a, v in numbers)


@pytest.mark.parametrize("gold", ["forty two", "", "Answer is forty two.", "The stock falls each day", "   "])
def test_a_gold_in_prose_judges_nobody(gold):
    assert judge(gold, "42") == (None, NO_GOLD) and judge(gold, gold) == (None, NO_GOLD)


@pytest.mark.parametrize(
    "text",
    [
        "Answer:\n\\[\n12\n\\]", "**Final Answer:**\n\n\\[\n12\n\\]", "So the answer is\n\\[\nx = 12.\n\\]",
        "**Answer:**\n\n$$12$$\n", "So we have\n\\[\\boxed{12}\\]\n\nLet me know if you need more!", "Final Answer:\n\n12",
        "1. First 3.\n2. Then 4.\n\nTogether that makes 12.", "<answer>\n12\n</answer>", "It is \\boxed{\n12\n}.",
    ],
)  # fmt: skip
def test_answers_over_several_lines(text):
    assert judge("12", text).right is True and judge("13", text).right is False


@pytest.mark.parametrize(
    "gold",
    [
        "ae^{2x}", "|xy|", "dy/dx = 2x", "sinh(x)", "ax + by = c", "kx", "all integers n > 3", "Friday, June 5",
        "2 hours 30 minutes", "Rational(1, 2)", "Matrix([[1, 2], [3, 4]])", r"\text{no solution}",
    ],
)  # fmt: skip
def test_a_bare_gold_is_kept_whole(gold):
    digits = [c for c in gold if c.isdigit()]
    assert [c for c in read_gold(gold).text if c.isdigit()] == digits and judge(
        gold, rf"\boxed{{{gold}}}"
    ).right is True


def test_no_answer_is_wrong():
    assert judge_all(["42", "42", "42"], [None, "", "   "]) == [(False, "")] * 3


BOMBS = [r"2^{2^{2^{59}}}", r"\binom{900000}{400000}", r"9999999!", r"3^{9^{9^{9}}}", "(1," * 300 + "2" + ")" * 300]


def test_a_bomb_costs_its_deadline_and_the_next_pair_is_right():
    judge("x+1", "1+x")
    for bomb in BOMBS:
        start = time.monotonic()
        assert judge("1", rf"\boxed{{{bomb}}}").right is not True
        assert time.monotonic() - start < 3
        assert judge("2x", "x+x").right is True


def test_a_bomb_among_others_is_the_only_one_without_a_verdict():
    verdicts = judge_all(
        ["x+1"] * 40, [r"\boxed{1+x}" if i != 17 else rf"\boxed{{{BOMBS[1]}}}" for i in range(40)], 1.0
    )
    assert [i for i, v in enumerate(verdicts) if v.right is not True] == [17]
    assert verdicts[17] == (None, "time-out after 1 s")


FLOODS = [
    r"\[", "$", r"\(", r"\boxed{", r"\boxed{1}", "answer is ", "1", "1,", "1/", "(1", "{", "}", "\\", r"\frac{1}{", " ",
    "\n", "*", "<|a", "#", "1 or ", "=", r"= \frac a", r"\text{", "$1$ and ", r"\boxed{1} final answer ", "\u200b",
]  # fmt: skip


@pytest.mark.parametrize("piece", FLOODS)
def test_a_flood_is_read_in_linear_time(piece):
    text = piece * (200_000 // len(piece))
    took = seconds(lambda: (final_answer(text), final_answer(text, many=True)), repeat=2)
    assert took < 2 * slowness()


def test_verdicts_are_the_same_from_a_thread_asyncio_and_a_child_process(verdicts):
    golds, answers = [g for g, _ in PAIRS], [a for _, a in PAIRS]
    box = {}
    thread = threading.Thread(target=lambda: box.update(found=judge_all(golds, answers)))
    thread.start()
    thread.join()

    async def call():
        return judge_all(golds, answers)

    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps([golds, answers]), capture_output=True, text=True, check=True
    )
    assert box["found"] == verdicts == asyncio.run(call())
    assert json.loads(child.stdout) == [v.right for v in verdicts]
    assert len(PAIRS) >= 200


CHILD = """
import json, multiprocessing, sys
from reasoning_ext.verifier import judge_all, judge

def child(pairs, queue):
    queue.put([v.right for v in judge_all(*pairs)])

judge("x+1", "1+x")  # the parent has workers, which a forked child must not touch
pairs = json.load(sys.stdin)
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(pairs, queue), daemon=True)
process.start()
found = queue.get(timeout=120)
process.join()
assert judge("2x", "x+x").right
print(json.dumps(found))
"""


def test_golds_that_cannot_be_read_are_found_before_training():
    golds = ["42", r"\frac{1}{2}", "forty two", r"x^2+1", r"\frac{1}{", "", "Evelyn"]
    assert [i for i, _ in unreadable(golds)] == [2, 4, 5]


def test_the_parent_never_imports_sympy():
    code = (
        "import sys; from reasoning_ext.verifier import judge; assert judge('x+1', '1+x').right;"
        "print([m for m in ('sympy', 'math_verify') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_equal_pairs_are_judged_once(monkeypatch):
    asked = []
    monkeypatch.setattr(verifier._pool, "map", lambda items, seconds: asked.extend(items) or [True] * len(items))
    assert judge_all(["y+17"] * 8, ["17+y"] * 8) == [(True, "")] * 8
    judge_all(["y+17"] * 8, ["17+y"] * 8)
    judge_all(["y+17"], ["It is $17+y$, " + "as we have seen " * 100 + "$17+y$"])
    assert asked == [("y+17", "17+y")]


def test_an_error_in_a_worker_gives_none_and_is_counted(monkeypatch):
    from reasoning_ext.rewards.math_answer import math_answer

    from reasoning_ext.verifier.pool import Failure

    monkeypatch.setattr(verifier._pool, "map", lambda items, seconds: [Failure("ValueError: injected")] * len(items))
    metrics, table = {}, {}
    completions = [r"\boxed{z + 31}", r"\boxed{5}"]
    rewards = math_answer(
        completions, ["31 + z", "5"], log_metric=metrics.__setitem__, log_extra=table.__setitem__, prompts=["?", "?"]
    )
    assert rewards == [None, 1.0] and metrics == {"math_answer/errors": 1.0}
    assert table["math_answer_error"] == ["ValueError: injected", ""]
    monkeypatch.undo()
    assert math_answer(completions, ["31 + z", "5"]) == [1.0, 1.0]  # an error is not remembered
