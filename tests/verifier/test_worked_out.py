r"""Values, and expressions that still have to be worked out."""

import pytest

from reasoning_ext.verifier import Rules, judge
from reasoning_ext.verifier.worked_out import is_worked_out

VALUES = [
    "391", "-391", "1,000", "3.5", "12%", "1.5e3", r"\frac{3}{7}", r"-\frac{3}{7}", r"\frac{-3}{7}", "3/7", r"2\frac12",
    r"0.\overline{3}", r"\sqrt{2}", r"2\sqrt{3}", r"\frac{\sqrt{3}}{2}", r"3\pi", r"\frac{\pi}{6}", "1+\\sqrt{2}", "3+4i",
    "2x+1", "x^2-2x+4", "n(n+1)", "e^2", "x = 391", "391 apples", r"17 \times 23 = 391", "x = 17 + 23 = 40", "(3, -4)",
    r"\{1, \frac12\}", "30^\\circ", "xy", r"\ln 2", "a/b", r"\sqrt{x+1}", "no solution", r"\frac{n!}{2}",
]  # fmt: skip
LEFT = [
    r"17 \times 23", "17*23", "17 + 23", "40 - 1", "2^{10}", r"\frac{782}{2}", "782/2", r"\frac{4}{6}", r"\frac{5}{1}",
    r"\sqrt{16}", "5!", r"\binom{5}{2}", "(1+2)x", "x+1+2", r"2 \cdot 3\pi", r"\sqrt{2+1}", r"\frac{1+2}{7}", r"\log_2 8",
    "|-3|", "-(2+3)", "391 = 17 \\times 23", "x = 17 + 23", "(1+2, 4)", r"\{1, \frac24\}", "(1+2) apples", "2 + 3i + 4",
    r"\gcd(4, 6)", r"\lfloor 2.5 \rfloor", "e^{1+1}",
]  # fmt: skip


@pytest.mark.parametrize(("worked_out", "answers"), [(True, VALUES), (False, LEFT)])
def test_an_answer_is_a_value_or_has_arithmetic_left(worked_out, answers):
    assert [answer for answer in answers if is_worked_out(answer, "7") is not worked_out] == []


@pytest.mark.parametrize("gold", ["2^{100}", r"\frac{4}{6}", "5!", "(1+2, 4)", r"17 \times 23"])
def test_a_gold_with_arithmetic_asks_for_no_more(gold):
    assert all(is_worked_out(answer, gold) for answer in LEFT)


WRONG = [r"\boxed{392}"]


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("391", r"\boxed{391}", True), ("391", r"\boxed{17 \times 23}", False), ("391", r"\boxed{17 \times 23 = 391}", True),
        ("391", r"\boxed{392}", False), (r"\frac12", r"\boxed{0.5}", True), (r"\frac12", r"\boxed{\frac24}", False),
        ("2^{100}", r"\boxed{4^{50}}", True), ("x+3", r"\boxed{x+1+2}", False), ("yes", r"\boxed{yes}", True),
        ("forty two", r"\boxed{42}", None),
    ],
)  # fmt: skip
def test_an_answer_that_must_be_a_value(gold, answer, right):
    assert judge(gold, answer, rules=Rules(evaluated=True)).right is right
    assert judge(gold, answer).right is (answer not in WRONG if right is not None else None)
