r"""What formulas are worth: equal pairs and near misses, at any size, with letters and without."""

import pytest

from reasoning_ext.verifier.formula import read
from reasoning_ext.verifier.values import TooLarge, equal_expressions, equal_numbers, numeric, ratio

LONG = "7" * 990

SAME_NUMBER = [
    (LONG, LONG), (f"({LONG}+1)/{LONG}-1", f"1/{LONG}"), (r"2^{1000}\sqrt{2}", r"2^{999}\sqrt{8}"),
    (r"\sqrt{8}", r"2\sqrt{2}"), (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"), (r"\sqrt[3]{2+\sqrt{5}}+\sqrt[3]{2-\sqrt{5}}", "1"),
    (r"\sqrt{5+2\sqrt{6}}", r"\sqrt2+\sqrt3"), (r"\frac{1}{\sqrt{5}-2}", r"\sqrt{5}+2"),
    (r"\sin 60^\circ", r"\frac{\sqrt{3}}{2}"), (r"\cos\frac{\pi}{5}", r"\frac{1+\sqrt{5}}{4}"),
    (r"4\arctan\frac15-\arctan\frac{1}{239}", r"\frac{\pi}{4}"), (r"\tan 15^\circ", r"2-\sqrt{3}"),
    (r"\arccos(-\frac12)", r"\frac{2\pi}{3}"), (r"\ln 8", r"3\ln 2"), (r"\log_2 3 \cdot \log_3 4", "2"),
    (r"\frac{\ln 9}{\ln 3}", "2"), (r"e^{\ln 5}", "5"), (r"e^{i\pi}", "-1"), ("(1+i)^8", "16"), ("|3+4i|", "5"),
    (r"\overline{3+4i}", "3-4i"), (r"\sqrt{-4}", "2i"), (r"10^{-300}\sqrt{2}", r"\frac{\sqrt{8}}{2 \cdot 10^{300}}"),
    (r"\frac{2026!}{2024!}", r"2026 \cdot 2025"), (r"\cosh^2 1-\sinh^2 1", "1"), (r"\lfloor 10\pi \rfloor", "31"),
    (r"(\frac12)^{100}", "2^{-100}"),
]  # fmt: skip
OTHER_NUMBER = [
    (LONG, LONG[:-1] + "8"), (f"{LONG}/3", f"{LONG[:-1]}8/3"), (r"2^{100}\sqrt{2}+1", r"2^{100}\sqrt{2}"),
    ("e^{200}+1", "e^{200}"), (r"\pi^{500}", r"\pi^{500}+10^{-40}"), (r"10^{-300}\sqrt{2}", r"10^{-300}\sqrt{3}"),
    (r"10^{-300}\sqrt{2}", "0"), (r"\sqrt{2}", "-\\sqrt{2}"), (r"\sqrt{3+2\sqrt{2}}", r"\sqrt{2}-1"),
    (r"\sin 60^\circ", r"\frac12"), (r"\sin 1", r"\sin 1^\circ"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\sqrt{10}", r"\pi"), (r"e^{\pi\sqrt{163}}", "640320^3+744"), (r"\frac{355}{113}", r"\pi"), ("3+4i", "3-4i"),
    (r"\ln 6", r"\ln 2 \ln 3"), (r"\log_2 3", r"\log_3 2"), (r"\frac{1}{0}", r"\frac{2}{0}"), (r"\ln 0", r"\sqrt{2}"),
    (r"\lfloor 10\pi \rfloor", "32"), (r"2^{\sqrt2}", r"3^{\sqrt2}"),
]  # fmt: skip

SAME_FUNCTION = [
    ("(x+1)^2", "x^2+2x+1"), (r"\frac{x^2-1}{x-1}", "x+1"), (r"\frac1x+\frac1y", r"\frac{x+y}{xy}"),
    (r"\sin^2 x+\cos^2 x", "1+0x"), (r"\sin 2x", r"2\sin x\cos x"), (r"\tan x", r"\frac{\sin x}{\cos x}"),
    (r"\cosh^2 x-\sinh^2 x", "1+0x"), (r"1+\tan^2 x", r"\sec^2 x"), (r"\sqrt{x^2}", "|x|"), ("|x-100|", "|100-x|"),
    (r"\ln(x^2)", r"2\ln|x|"), (r"\ln x+\ln y", r"\ln(xy)"), (r"\log_2 x", r"\frac{\ln x}{\ln 2}"), ("e^{2x}", "(e^x)^2"),
    ("x^{-2}", r"\frac{1}{x^2}"), (r"\sqrt{x}\sqrt{x}", "x"), ("(-1)^n", r"\cos(n\pi)"), ("(-1)^{n+2}", "(-1)^n"),
    (r"\frac{(n+2)!}{n!}", "(n+1)(n+2)"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    (r"\lfloor x+1 \rfloor", r"\lfloor x \rfloor+1"), ("x^{100}y-y", "y(x^{50}-1)(x^{50}+1)"), ("f(x)+f(x)", "2f(x)"),
    (r"x_1+x_2", "x_2+x_1"), ("Aa", "aA"), (r"\arctan x+\arctan\frac1x", r"\frac{\pi}{2}\text{sgn}(x)"),
    (r"\frac{a^3-b^3}{a-b}", "a^2+ab+b^2"), (r"2^{n+1}-2^n", "2^n"), (r"\sqrt[3]{x^3}", "x"), ("x%", r"\frac{x}{100}"),
]  # fmt: skip
OTHER_FUNCTION = [
    ("(x+1)^2", "x^2+1"), ("|x-100|", "100-x"), ("|x-100|", "x-100"), (r"\sqrt{x^2}", "x"), (r"\sqrt{x^2}", "-x"),
    ("x^{100}", "x^{102}"), (r"\lfloor x \rfloor", "x"), (r"\lfloor x \rfloor", r"\lceil x \rceil"),
    (r"\ln(x+y)", r"\ln x+\ln y"), (r"\sin 2x", r"2\sin x"), (r"\sin^2 x-\cos^2 x", "1+0x"),
    (r"\cosh^2 x+\sinh^2 x", "1+0x"), ("(-1)^n", "(-1)^{n+1}"), ("(-1)^n", "1+0n"), ("(-1)^n", r"\sin(n\pi)"),
    (r"\frac{(n+2)!}{n!}", "n(n+1)"), ("x+10^{-9}", "x"), ("x^2+10^{-30}", "x^2"), ("f(x)", "g(x)"), ("f(x)", "f(x+1)"),
    ("fx", "f(x)"), ("A", "a"), ("Aa", "a^2"), (r"\max(x, 0)", "x"), (r"\max(x, y)", "x"), ("|x+y|", "|x|+|y|"),
    ("x-y", "y-x"), (r"\frac xy", r"\frac yx"), ("2^n", "n^2"), (r"\sqrt{x+y}", r"\sqrt x+\sqrt y"),
    ("x^{1/3}y", "x^{1/2}y"), (r"x_1+x_2", "x_1+x_3"), (r"\ln x", r"\log_{10} x"),
]  # fmt: skip


@pytest.mark.parametrize(("equal", "pairs"), [(True, SAME_NUMBER), (False, OTHER_NUMBER)])
def test_numbers(equal, pairs):
    assert [pair for pair in pairs if equal_numbers(*map(read, pair)) is not equal] == []
    assert [pair for pair in pairs if equal_numbers(*map(read, pair[::-1])) is not equal] == []


@pytest.mark.parametrize(("equal", "pairs"), [(True, SAME_FUNCTION), (False, OTHER_FUNCTION)])
def test_functions(equal, pairs):
    assert [pair for pair in pairs if equal_expressions(*map(read, pair)) is not equal] == []
    assert [pair for pair in pairs if equal_expressions(*map(read, pair[::-1])) is not equal] == []


@pytest.mark.parametrize(
    "pair",
    [
        ("3^{9^{9^{9}}}", "\\pi"),
        ("2^{2^{2^{59}}}", r"\sqrt{2}"),
        ("9999999!+\\pi", "9999999!"),
        (r"e^{e^{e^{10}}}", "e"),
    ],
)
def test_towers_are_too_large(pair):
    with pytest.raises(TooLarge, match="too large"):
        equal_numbers(*map(read, pair))


def test_values_come_with_what_they_may_differ_by():
    (root, undefined), tolerance = numeric([read(r"\sqrt{2}"), read(r"\frac{1}{0}")])
    assert undefined is None and abs(root**2 - 2) < tolerance < 1e-40
    assert numeric([read("xy")], {"x": 3, "y": 4})[0] == [12]
    assert isinstance(numeric([read(r"e^{i\pi}")])[0][0], type(root))  # rounding is no imaginary part


@pytest.mark.parametrize(
    ("left", "right", "proportional"),
    [
        ("x-2y", "4y-2x", True), ("x^2+y^2-1", "3x^2+3y^2-3", True), (r"\sin x", r"\pi\sin x", True),
        ("x-1", r"\sqrt2 x-\sqrt2", True), ("x-1", "x+1", False), ("x-2y", "2x-y", False), ("xy-1", r"y-\frac1x", False),
        ("x", "0x", False), ("x^2-1", "x-1", False), (r"\sin x", r"\cos x", False), ("x", "|x|", False),
    ],
)  # fmt: skip
def test_equations_are_equal_up_to_a_factor(left, right, proportional):
    assert ratio(read(left), read(right)) is proportional
