"""Exact rational arithmetic: against Python's fractions on random formulas, roots and logarithms, and its limits."""

import math
import random
from fractions import Fraction

import pytest

from reasoning_ext.verifier.formula import read
from reasoning_ext.verifier.rational import MORE_BITS, exact, folded

VALUES = {
    "2^{-1}": "1/2", "2^3^2": 512, r"(-\frac23)^3": "-8/27", "(-1)^{10^{100}}": 1, "(-1)^{10^{100}+1}": -1,
    "0.1+0.2": "3/10", "4^{1/2}": 2, "8^{2/3}": 4, "8^{-2/3}": "1/4", "(-8)^{1/3}": -2, r"\sqrt{\frac{9}{16}}": "3/4",
    r"\sqrt[3]{-27}": -3, r"\sqrt[5]{32^3}": 8, r"\sqrt{10^{400}}": 10**200, "cbrt(343)": 7, r"(\sqrt{2})^0+1": None,
    r"\log_4 8": "3/2", r"\log_2 \frac18": -3, r"\log_{27} 9": "2/3", r"\log_{1/2} 8": -3, r"\lg 1000": 3, "5!": 120,
    "0!": 1, "7!!": 105, "6!!": 48, r"\binom{52}{5}": 2598960, r"\binom{3}{0}": 1, "gcd(12, 18)": 6, "lcm(4, 6, 10)": 60,
    r"\lfloor -2.5 \rfloor": -3, r"\lceil -2.5 \rceil": -2, "|3-5|": 2, "sgn(-7)": -1, r"17 \bmod 5": 2,
    r"\max(1, \frac32, -4)": "3/2", "min(2, -2)": -2, r"3\frac17+1": "29/7", r"0.\overline{142857}": "1/7",
    r"\frac{7!}{2!2!}": 1260, "12%": "3/25",
    # irrational, undefined, or with a letter
    r"\sqrt2": None, "2^{1/2}": None, r"\pi": None, "x": None, "1/0": None, "0^{-1}": None, r"\sqrt{-4}": None,
    "(-4)^{1/2}": None, r"\log_2 3": None, r"\log_1 5": None, r"\log_2(-4)": None, r"\ln 2": None, r"\log_{10} 0": None,
    "2.5!": None, "(-3)!": None, "gcd(1/2, 2)": None, r"5 \bmod 0": None, r"\binom{1/2}{2}": None,
    # too large for the limit
    "2^{140000}": None, "9^{9^{9}}": None, "2^{-140000}": None, "100000!": None, r"\binom{10^9}{10^8}": None,
    "10^{10^{100}}": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_the_value_of_a_formula(text, value):
    assert exact(read(text)) == (None if value is None else Fraction(value))


def test_the_limit_is_the_one_that_is_asked_for():
    assert exact(read("2^{140000}"), bits=MORE_BITS) == 2**140000
    assert exact(read("2^{150}"), bits=100) is None and exact(read("2^{90}*2^{90}"), bits=100) is None
    assert exact(read(r"\frac{x^2-1}{y}"), {"x": Fraction(3), "y": Fraction(2, 5)}) == 20


def formula(rng, depth):
    """Return a random formula and its value, worked out beside it by Python."""
    if depth == 0:
        n, m = rng.randrange(1, 30), rng.randrange(1, 12)
        return rng.choice(
            [(str(n), Fraction(n)), (rf"\frac{{{n}}}{{{m}}}", Fraction(n, m)), (f"{n}.25", n + Fraction(1, 4))]
        )
    (left, a), (right, b) = formula(rng, depth - 1), formula(rng, depth - 1)
    n = rng.randrange(2, 4)
    choices = [
        (f"({left})+({right})", a + b), (f"({left})-{right}" if depth == 1 else f"({left})-({right})", a - b),
        (rf"({left}) \cdot ({right})", a * b), (f"({left})({right})", a * b), (f"-({left})", -a), (f"({left})^{n}", a**n),
        (f"|{left}|" if depth == 1 else f"abs({left})", abs(a)), (rf"\lfloor {left} \rfloor", Fraction(math.floor(a))),
        (rf"\max({left}, {right})", max(a, b)), (rf"\sqrt{{({left})^2}}", abs(a)),
        (rf"\binom{{{n + 3}}}{{{n}}}", Fraction(math.comb(n + 3, n))),
    ]  # fmt: skip
    if b:
        choices += [
            (rf"\frac{{{left}}}{{{right}}}", a / b),
            (f"({left})/({right})", a / b),
            (f"({right})^{{-{n}}}", b**-n),
        ]
    return rng.choice(choices)


def test_random_formulas_are_worth_what_python_says():
    rng = random.Random(7)
    made = [formula(rng, rng.randrange(1, 5)) for _ in range(200)]
    assert [(text, exact(read(text))) for text, _ in made] == made
    assert len(dict(made)) > 180 and sum(value.denominator > 1 for _, value in made) > 60


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("x+2^3", "x+8"), (r"\sin(1+1)", r"\sin 2"), (r"\sqrt{2+2}\sqrt{2}", r"2\sqrt{2}"),
        (r"\frac{4}{6}x", r"0.\overline{6}x"), ("x^{1+1}", "x^2"), (r"\sqrt 2", r"\sqrt 2"),
        (r"\sin (10+20)^\circ", r"\sin (10+20)^\circ"),
    ],
)  # fmt: skip
def test_what_is_rational_in_a_formula_is_folded(text, same):
    assert folded(read(text)) == folded(read(same))


def test_numbers_stay_apart_in_a_folded_formula():
    assert folded(read("x+2^3")) == ("+", ("letter", "x"), ("number", Fraction(8)))


def test_a_function_that_nobody_knows_has_one_value_at_a_point():
    at = {"x": Fraction(3, 7)}
    values = [exact(read(text), at) for text in ("f(x+1)", "f(1+x)", "f(x)", "g(x+1)", "f(x, 1)", "f(1, x)")]
    assert values[0] == values[1] and None not in values and len({*values}) == 5
