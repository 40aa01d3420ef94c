"""The calculator: exact, as people write, and nothing large is worked out."""

import sys
import time

import pytest

from reasoning_ext.tools.library import ToolError
from reasoning_ext.tools.library.calculator import calculator

RIGHT = {
    "1+2": "3", "1/3": "1/3 = 0.333333333333333...", "0.1 + 0.2": "3/10 = 0.3", "2^10": "1024", "-7 % 3": "2", "7//2": "3",
    "1,234,567 × 2 =": "2469134", "gcd(100,200)": "100", "max(1,000, 5)": "1000", "sqrt(1,000,000)": "1000",
    "12 ÷ 8": "3/2 = 1.5", "sqrt(16/9)": "4/3 = 1.33333333333333...", "factorial(20)": "2432902008176640000",
    "comb(10**40, 2) % 7": "6",
    "lcm(4, 6)": "12", "round(2.567, 2)": "257/100 = 2.57", "(-1)**(10**30+1)": "-1", "0**(10**30)": "0", "2**-3": "1/8 = 0.125",
    "123 * 456": "56088", "abs(−3) + min(1, 2)": "4", "987654321987654321 * 10**50 // 10**50": "987654321987654321",
}  # fmt: skip
REFUSED = {
    "9**9**9": "digits", "factorial(10**9)": "digits", "comb(10**9, 10**8)": "digits", "10**5000": "digits", "1e999999": "digits",
    "(1/2)**(10**9)": "digits", "1e999999999999": "digits", "2**0.5": "whole number", "sqrt(2)": "about 1.414",
    "sqrt(-1)": "real",
    "1/0": "zero", "0**-1": "zero", "5 % 0": "zero", "x + 1": "allowed: numbers", "__import__('os')": "allowed: numbers",
    "'a' * 10**9": "allowed: numbers", "True": "allowed: numbers", "": "cannot read", "(" * 1000 + ")" * 1000: "cannot read",
    "-" * 1900 + "1": "cannot read", "1" * 2001: "characters", "gcd(12)": "2 or more", "round(1/3, 10**9)": "digits",
    "(lambda: 1)()": "allowed: numbers", "[x for x in (1,)]": "allowed: numbers",
}  # fmt: skip


def test_results_are_exact():
    assert {expression: calculator(expression) for expression in RIGHT} == RIGHT


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_too_large_or_no_arithmetic_is_refused_at_once(expression):
    began = time.process_time()
    with pytest.raises(ToolError, match=REFUSED[expression]):
        calculator(expression)
    assert time.process_time() - began < 0.5


def test_how_deep_an_expression_may_be_is_not_the_processs_to_say():
    deep, before = "-" * 1900 + "1", sys.getrecursionlimit()
    try:
        for limit in (1200, 20_000):
            sys.setrecursionlimit(limit)
            with pytest.raises(ToolError):
                calculator(deep)
            assert calculator("+".join("1" * 700)) == "700"
    finally:
        sys.setrecursionlimit(before)
