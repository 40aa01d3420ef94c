r"""Whether an answer is a value, or an expression that still has to be worked out: `391`, but not `17 \times 23`."""

import re
from fractions import Fraction

from reasoning_ext.verifier.exact import INEQUALITY, cut, named, sides, split_items
from reasoning_ext.verifier.formula import Tree, letters, read
from reasoning_ext.verifier.numbers import number, split_unit
from reasoning_ext.verifier.rational import MORE_BITS, exact


def is_worked_out(answer: str, gold: str) -> bool:
    r"""Tell whether nothing in an answer is left to be worked out.

    Arithmetic on rational numbers is, and so are sums, integrals, limits, determinants, a sine, logarithm or binomial
    coefficient of numbers, and inequalities that are not solved; a fraction in lowest terms, a root, a multiple of pi,
    a formula in letters are not. Of a chain the last part counts. A gold that is such an expression itself, `2^{100}`,
    asks for no more.
    """
    return all(map(_is_value, _parts(answer))) or not all(map(_is_value, _parts(gold)))


def _parts(text: str) -> list[str]:
    """List the elements of an answer, without names and units."""
    items = split_items(named(text)[1])
    found = items.items if items and len(items.items) > 1 else (text,)
    return [split_unit(sides(named(part)[1])[-1])[0] for part in found]


_STEPS = re.compile(
    r"\\(?:int|sum|prod|lim|frac\s*+\{d\}|begin\s*+\{vmatrix\}|det"
    r"|[dt]?binom|log|lg|lceil|lfloor|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?)(?![a-z])"
)


def _is_value(text: str) -> bool:
    plain, tree = number(text), read(text)
    if _STEPS.search(text):
        return False
    if INEQUALITY.search(text):  # solved is `x < 2`, and not `|x - 1| < 2`
        return any(len(side.strip()) == 1 and side.strip().isalpha() for side in cut(text, INEQUALITY))
    if plain is not None and "10" in text and not Fraction(1, 10**4) < abs(plain.value) < 10**6:
        return True  # in scientific notation
    if plain is not None and r"\frac" not in text and "/" not in text and "^" not in text:
        return True
    return tree is None or not _has_arithmetic(tree)


def _has_arithmetic(tree: Tree) -> bool:
    """Tell whether rational numbers are still added, multiplied, raised or reduced somewhere in a tree."""
    kind = tree[0]
    parts = [part for part in tree[1:] if isinstance(part, tuple)]
    if kind in ("+", "*"):
        rational = [part for part in _operands(tree, kind) if _is_rational(part)]
        return len(rational) > 1 or any(_has_arithmetic(part) for part in _operands(tree, kind))
    if kind == "/" and all(_whole(part) is not None for part in parts):
        above, below = (_whole(part) or 0 for part in parts)
        return below in (0, 1) or Fraction(above, below).denominator != below
    if kind in ("number", "letter", "constant"):
        return False
    if kind in ("-", "degrees"):
        return _has_arithmetic(parts[0])
    return _is_rational(tree) or any(_has_arithmetic(part) for part in parts)


def _operands(tree: Tree, kind: str) -> list[Tree]:
    """List the operands of a sum or product, those of the same operation inside it among them."""
    return [one for part in tree[1:] for one in (_operands(part, kind) if part[0] == kind else [part])]


def _is_rational(tree: Tree) -> bool:
    return not letters(tree) and exact(tree, bits=MORE_BITS) is not None


def _whole(tree: Tree) -> int | None:
    """Return an integer as it is written, with or without a minus sign."""
    if tree[0] == "-":
        inside = _whole(tree[1])
        return None if inside is None else -inside
    return int(tree[1]) if tree[0] == "number" and tree[1].denominator == 1 else None
