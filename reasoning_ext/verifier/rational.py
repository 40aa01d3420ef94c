"""Exact rational arithmetic on formulas, up to a size of the numbers."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from reasoning_ext.verifier.formula import Tree, holds, letters, replaced

BITS, MORE_BITS = 1 << 16, 1 << 18  # in the process that trains, and in a worker


class NotRational(Exception):
    """The value is irrational, undefined, or too large for the limit."""


def exact(tree: Tree, at: Mapping[str, Fraction] | None = None, bits: int = BITS) -> Fraction | None:
    """Evaluate a tree by exact rational arithmetic.

    Args:
        tree: from `formula.read`.
        at: values of its letters.
        bits: the most binary digits that a numerator or denominator may have.

    Returns:
        the value, or None where it is no rational number, undefined, or too large.
    """
    try:
        return _exact(tree, at or {}, bits)
    except (NotRational, ZeroDivisionError, RecursionError):
        return None


def _exact(tree: Tree, at: Mapping[str, Fraction], bits: int) -> Fraction:
    kind = tree[0]
    if kind == "number":
        value: Fraction = tree[1]
    elif kind == "letter" and tree[1] in at:
        value = at[tree[1]]
    elif kind in _EXACT:
        value = _EXACT[kind]([_exact(part, at, bits) for part in tree[1:]], bits)
    elif kind == "degrees":
        value = _exact(tree[1], at, bits)
    elif kind.startswith("apply "):
        value = applied(kind, [_exact(part, at, bits) for part in tree[1:]])
    else:
        raise NotRational
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > bits:
        raise NotRational
    return value


def applied(kind: str, parts: Sequence[Any]) -> Any:
    """Evaluate a function that nobody knows: some rational function, another one for each name."""
    seed = sum(map(ord, kind))
    x = sum(part * (i + 1) for i, part in enumerate(parts))
    return (x * x * x + seed * x + 7) / (x * x + seed + 3)


def _power(parts: list[Fraction], bits: int) -> Fraction:
    base, exponent = parts
    if exponent.denominator > 1:
        return _power([_root([base, Fraction(exponent.denominator)], bits), Fraction(exponent.numerator)], bits)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base not in (0, 1, -1) and size * abs(exponent.numerator) > 2 * bits:
        raise NotRational
    if base in (1, -1):
        return base if exponent % 2 else Fraction(1)
    return base**exponent.numerator


def _root(parts: list[Fraction], bits: int) -> Fraction:
    value, degree = parts
    if degree.denominator > 1 or not 0 < degree < 64 or (value < 0 and degree % 2 == 0):
        raise NotRational
    tops = [_integer_root(abs(n), degree.numerator) for n in (value.numerator, value.denominator)]
    if None in tops:
        raise NotRational
    return Fraction(tops[0] or 0, tops[1] or 1) * (-1 if value < 0 else 1)


def _integer_root(n: int, degree: int) -> int | None:
    """Return the exact root of an integer, by Newton's method from above."""
    if n < 2:
        return n
    root = math.isqrt(n) if degree == 2 else 1 << -(-n.bit_length() // degree)
    while degree > 2:
        lower = ((degree - 1) * root + n // root ** (degree - 1)) // degree
        if lower >= root:
            break
        root = lower
    return root if root**degree == n else None


def _logarithm(parts: list[Fraction], bits: int) -> Fraction:
    """Return log_b x where it is rational with a small denominator: log_4 8 is 3/2."""
    if len(parts) < 2 or min(parts) <= 0 or parts[1] == 1:
        raise NotRational
    x, b = parts
    logs = [math.log(n.numerator) - math.log(n.denominator) for n in (x, b)]
    found = Fraction(logs[0] / logs[1]).limit_denominator(12)
    if _power([x, Fraction(found.denominator)], bits) != _power([b, Fraction(found.numerator)], bits):
        raise NotRational
    return found


def _whole(value: Fraction, most: int) -> int:
    if value.denominator > 1 or not 0 <= value <= most:
        raise NotRational
    return value.numerator


def _binomial(parts: list[Fraction], bits: int) -> Fraction:
    n, k = (_whole(part, 4 * bits) for part in parts)
    if min(k, n - k) * max(1, n).bit_length() > 4 * bits:
        raise NotRational
    return Fraction(math.comb(n, k))


def _factorial(parts: list[Fraction], bits: int) -> Fraction:
    n = _whole(parts[0], bits)
    if n * n.bit_length() > 2 * bits:
        raise NotRational
    return Fraction(math.factorial(n))


def _integers(function: Callable[..., int]) -> Callable[[list[Fraction], int], Fraction]:
    def call(parts: list[Fraction], bits: int) -> Fraction:
        if any(part.denominator > 1 for part in parts):
            raise NotRational
        return Fraction(function(*(part.numerator for part in parts)))

    return call


def _gathered(operation: Callable[[Fraction, Fraction], Fraction]) -> Callable[[list[Fraction], int], Fraction]:
    def call(parts: list[Fraction], bits: int) -> Fraction:
        found = parts[0]
        for part in parts[1:]:
            found = operation(found, part)
            if max(found.numerator.bit_length(), found.denominator.bit_length()) > bits:
                raise NotRational
        return found

    return call


_EXACT: dict[str, Callable[[list[Fraction], int], Fraction]] = {
    "+": _gathered(operator.add),
    "-": lambda parts, bits: -parts[0],
    "*": _gathered(operator.mul),
    "/": lambda parts, bits: parts[0] / parts[1],
    "^": _power, "root": _root, "log": _logarithm, "binomial": _binomial, "factorial": _factorial,
    "factorial2": lambda parts, bits: Fraction(math.prod(range(_whole(parts[0], 2_000), 0, -2))),
    "abs": lambda parts, bits: abs(parts[0]),
    "floor": lambda parts, bits: Fraction(math.floor(parts[0])),
    "ceil": lambda parts, bits: Fraction(math.ceil(parts[0])),
    "sgn": lambda parts, bits: Fraction((parts[0] > 0) - (parts[0] < 0)),
    "max": lambda parts, bits: max(parts), "min": lambda parts, bits: min(parts),
    "mod": lambda parts, bits: parts[0] % parts[1],
    "gcd": _integers(math.gcd), "lcm": _integers(math.lcm),
}  # fmt: skip


def folded(tree: Tree) -> Tree:
    """Write every part that is a rational number as that number."""

    def fold(part: Tree) -> Tree | None:
        if part[0] in ("number", "letter", "constant") or letters(part) or holds(part, {"degrees"}):
            return None
        value = exact(part, bits=MORE_BITS)
        return None if value is None else ("number", value)

    return replaced(tree, fold)
