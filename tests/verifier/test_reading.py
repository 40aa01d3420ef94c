r"""What is read of a text: trees of formulas, exact values, units, words; `read.txt` has the cases.

Trees are written in brackets there, `(+ 1 (* 2 x))`; constants, `<pi>`, are not letters.
"""

import math
import random
from fractions import Fraction
from pathlib import Path

import pytest

from reasoning_ext.verifier.answers import final_answer
from reasoning_ext.verifier.formula import MAX_LENGTH, letters, read, renamed
from reasoning_ext.verifier.question import asks_for_percent, base_of, names_base
from reasoning_ext.verifier.rational import MORE_BITS, exact, folded
from reasoning_ext.verifier.units import unit_key
from reasoning_ext.verifier.values import TooLarge, equal_numbers, numeric, ratio
from reasoning_ext.verifier.words import is_words
from reasoning_ext.verifier.worked_out import is_worked_out

TABLES = {}
for part in Path(__file__).with_name("read.txt").read_text(encoding="utf-8").split("# ")[1:]:
    head, *lines = part.rstrip("\n").split("\n")
    TABLES[head.partition(":")[0]] = [tuple(line.split(" || ")) for line in lines]


def tree(text):
    """Write a formula's tree in brackets."""

    def written(tree):
        if tree[0] == "number":
            return str(tree[1])
        if tree[0] in ("letter", "constant"):
            return tree[1] if tree[0] == "letter" else f"<{tree[1]}>"
        return f"({' '.join([tree[0], *map(written, tree[1:])])})"

    found = read(text)
    return "none" if found is None else written(found)


def value(text):
    found = exact(read(text))
    return "none" if found is None else str(found)


READERS = {
    "tree": tree,
    "value": value,
    "worked out": lambda text: "yes" if is_worked_out(text, "7") else "no",
    "unit": unit_key,
    "words": lambda text: "yes" if is_words(text) else "no",
    "per cent": lambda text: "yes" if asks_for_percent(text) else "no",
    "base": lambda text: "yes" if names_base(text) else "no",
    "base of": lambda text: str(base_of(text)),
}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_read(kind):
    assert [row for row in TABLES[kind] if READERS[kind](row[0]) != row[1]] == [] and TABLES[kind]
    assert TABLES.keys() == READERS.keys()


@pytest.mark.parametrize("text", ["", "x+" * MAX_LENGTH + "x", "2^" * 2000 + "2", "(" * 500 + "x" + ")" * 500])
def test_what_is_too_long_or_too_deep_is_no_formula(text):
    assert read(text) is None and not is_words(text)


def test_letters_are_names_and_not_constants():
    assert letters(read(r"e^{i\pi}+x_1+\theta+f(t)")) == {"x_1", r"\theta", "t", "f()"}
    assert renamed(read("x+y"), {"x": "y", "y": "z"}) == read("y+z")
    assert not is_worked_out("17*23", "7") and is_worked_out("17*23", "2^{100}")


def test_boxes_that_belong_together_are_one_list_where_many_are_wanted():
    apart = r"First \boxed{1}, and after a long while of thinking about it, in which nothing happened at all, \boxed{2}"
    assert final_answer(r"\boxed{1}, \boxed{2}", many=True) == final_answer(r"\boxed{1} or \boxed{2}") == "1, 2"
    assert final_answer(apart, many=True) == final_answer(apart) == "2"
    assert final_answer(r"$x = \boxed{1}$ and also $y = \boxed{2}$", many=True) == "1, 2"


def test_the_limit_is_the_one_that_is_asked_for():
    assert exact(read("2^{140000}"), bits=MORE_BITS) == 2**140000 and exact(read("2^{140000}")) is None
    assert exact(read("2^{150}"), bits=100) is None and exact(read("2^{90}*2^{90}"), bits=100) is None
    assert exact(read(r"\frac{x^2-1}{y}"), {"x": Fraction(3), "y": Fraction(2, 5)}) == 20


def formula(rng, depth):
    """Return a random formula and its value, worked out beside it by Python."""
    if depth == 0:
        n, m = rng.randrange(1, 30), rng.randrange(1, 12)
        return rng.choice([(str(n), n), (rf"\frac{{{n}}}{{{m}}}", Fraction(n, m)), (f"{n}.25", n + Fraction(1, 4))])
    (left, a), (right, b) = formula(rng, depth - 1), formula(rng, depth - 1)
    n = rng.randrange(2, 4)
    choices = [
        (f"({left})+({right})", a + b),
        (f"({left})-({right})", a - b),
        (rf"({left}) \cdot ({right})", a * b),
        (f"-({left})", -a),
        (f"({left})^{n}", a**n),
        (rf"\lfloor {left} \rfloor", math.floor(a)),
        (rf"\max({left}, {right})", max(a, b)),
        (rf"\sqrt{{({left})^2}}", abs(a)),
    ]
    if b:
        choices += [(rf"\frac{{{left}}}{{{right}}}", Fraction(a) / b), (f"({right})^{{-{n}}}", Fraction(b) ** -n)]
    return rng.choice(choices)


def test_random_formulas_are_worth_what_python_says():
    rng = random.Random(7)
    made = [formula(rng, rng.randrange(1, 5)) for _ in range(200)]
    assert [(text, exact(read(text))) for text, _ in made] == made


def test_what_is_rational_in_a_formula_is_folded():
    assert folded(read("x+2^3")) == ("+", ("letter", "x"), ("number", Fraction(8)))
    assert folded(read(r"\sqrt{2+2}\sqrt{2}")) == folded(read(r"2\sqrt{2}"))
    at = {"x": Fraction(3, 7)}  # a function that nobody knows has one value at a point
    values = [exact(read(text), at) for text in ("f(x+1)", "f(1+x)", "f(x)", "g(x+1)", "f(x, 1)", "f(1, x)")]
    assert values[0] == values[1] and None not in values and len({*values}) == 5


@pytest.mark.parametrize("pair", [("3^{9^{9^{9}}}", r"\pi"), (r"9999999!+\pi", "9999999!"), ("e^{e^{e^{10}}}", "e")])
def test_towers_are_too_large(pair):
    with pytest.raises(TooLarge, match="too large"):
        equal_numbers(*map(read, pair))


def test_values_come_with_what_they_may_differ_by():
    (root, undefined), tolerance = numeric([read(r"\sqrt{2}"), read(r"\frac{1}{0}")])
    assert undefined is None and abs(root**2 - 2) < tolerance < 1e-40
    assert isinstance(numeric([read(r"e^{i\pi}")])[0][0], type(root))  # rounding is no imaginary part


PROPORTIONAL = [("x-2y", "4y-2x"), (r"\sin x", r"\pi\sin x"), ("x-1", r"\sqrt2 x-\sqrt2")]
NOT_PROPORTIONAL = [("x-1", "x+1"), ("x-2y", "2x-y"), ("x", "0x"), ("x^2-1", "x-1"), ("x", "|x|")]


def test_equations_are_equal_up_to_a_factor():
    assert all(ratio(read(left), read(right)) for left, right in PROPORTIONAL)
    assert not any(ratio(read(left), read(right)) for left, right in NOT_PROPORTIONAL)
