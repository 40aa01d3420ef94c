r"""Formulas and equations, compared by value.

What `formula` reads is compared by `values`, without sympy. What it does not read (sums, integrals, limits, sets of sets) is
parsed and compared by math-verify, with the tolerance of its numbers tightened from 6 to 20 digits (1/2004! is not 1/2006!,
huggingface/Math-Verify#14).
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import permutations
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from latex2sympy2_extended.math_normalization import normalize_latex
from math_verify import LatexExtractionConfig, verify
from math_verify.parser import should_treat_as_complex

from reasoning_ext.verifier.exact import key, sides
from reasoning_ext.verifier.formula import Tree, holds, letters, read, renamed, replaced
from reasoning_ext.verifier.numbers import Number, number, same
from reasoning_ext.verifier.rational import exact, folded
from reasoning_ext.verifier.values import equal_expressions, equal_numbers, is_huge, numeric, ratio

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
_NORMALISED = replace(LatexExtractionConfig().normalization_config, units=False, boxed="none")
_COUNTED = frozenset("knmlNKM")  # what the free parameter of a family of solutions is called
_STEPS = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Derivative, sympy.Limit)
_CONSTANT = re.compile("[CcKk]|[ABCDck]_[0-9]|[ABD]")  # what constants of integration are called
X = sympy.Symbol("x", real=True)


def equal_formulas(gold: str, answer: str) -> bool:
    """Tell whether two formulas have the same value, whatever the values of their letters.

    Raises:
        TooLarge: there is no telling in reasonable time.
    """
    found = trees(gold, answer)
    if None in found:
        return _by_library(gold, answer)
    left, right = found
    if not letters(left) and letters(right) and exact(left) == 0:
        return False  # 0x is no answer to 0
    if letters(left) and not letters(right) <= letters(left):
        return any(equal_trees(g, a) for g, a in _readings(left, right) if letters(a) <= letters(g))
    shown = [number(text) for text in (gold, answer)]
    if any(shown) and not letters(left) and not letters(right):
        return any(_equal_decimals(g, a, shown) for g, a in _readings(left, right))
    return any(equal_trees(g, a) for g, a in _readings(left, right))


def trees(gold: str, answer: str) -> tuple[Any, Any]:
    """Read two formulas; capitals and small letters are one where no side uses both."""
    found = [read(text) for text in (gold, answer)]
    if _mixes_cases("".join(name[0] for name in letters(tree) if name[0] != "\\") for tree in found if tree):
        return found[0], found[1]
    small = [tree and replaced(tree, _small) for tree in found]
    return small[0], small[1]


def _mixes_cases(sides: Iterable[str]) -> bool:
    """Tell whether a side has both capitals and small letters, so that R is not r."""
    return any(names not in (names.lower(), names.upper()) for names in sides)


def _small(part: Tree) -> Tree | None:
    return ("letter", part[1].lower()) if part[0] == "letter" and part[1][0] != "\\" else None


def _readings(left: Tree, right: Tree) -> Iterator[tuple[Tree, Tree]]:
    """Yield what a pair may mean: log to base e or 10; degrees beside a multiple of pi; a parameter by another name."""
    if holds(left, {"degrees"}) == holds(right, {"degrees"}) or not (holds(left, {"pi"}) and holds(right, {"pi"})):
        yield left, right

    def common(part: Tree) -> Tree | None:
        bare = part[0] == "log" and len(part) == 2
        return ("log", replaced(part[1], common), ("number", Fraction(10))) if bare else None

    def in_radians(part: Tree) -> Tree | None:
        return ("*", part[1], ("/", ("constant", "pi"), ("number", Fraction(180)))) if part[0] == "degrees" else None

    if any(holds(side, {"log"}) for side in (left, right)):
        yield replaced(left, common), replaced(right, common)
    if holds(left, {"degrees"}) != holds(right, {"degrees"}) and holds(left, {"pi"}) != holds(right, {"pi"}):
        yield replaced(left, in_radians), replaced(right, in_radians)
    gone, new = letters(left) - letters(right), letters(right) - letters(left)
    if not 0 < len(gone) == len(new) < 4:
        return
    if _are_constants(gone, new, letters(left) - gone) or _is_free(gone | new, left, right):
        for order in permutations(sorted(new)):
            yield left, renamed(right, dict(zip(order, sorted(gone), strict=True)))


def _are_constants(gone: frozenset[str], new: frozenset[str], others: frozenset[str]) -> bool:
    """Tell whether these are constants of integration, beside a variable: `x^2 + C`, not `CH_4`."""
    named_so = all(map(_CONSTANT.fullmatch, gone | new)) and any(name[0] in "CcKk" for name in gone | new)
    return named_so and any(name in "xyztrsuvnw" or name[0] == "\\" for name in others)


def _is_free(names: frozenset[str], *trees: Tree) -> bool:
    """Tell whether these are one parameter of a family of angles under two names, `k\\pi` and `n\\pi`."""
    return len(names) == 2 and names <= _COUNTED and all(holds(tree, {"pi", "degrees"}) for tree in trees)


def equal_trees(left: Tree, right: Tree) -> bool:
    """Tell whether two formulas have the same value, as one reading of them has it."""
    if letters(left) or letters(right):
        return equal_expressions(left, right)
    return equal_numbers(left, right)


def _equal_decimals(left: Tree, right: Tree, shown: list[Number | None]) -> bool:
    """Compare two numbers of which one is written as a plain number, a decimal perhaps, by the rules of `numbers`."""
    if any(is_huge(folded(tree)) for tree in (left, right)):
        return equal_numbers(left, right)
    found = []
    for tree, plain in zip((left, right), shown, strict=True):
        close = None if plain else fraction(tree)
        if not plain and close is None:
            return False
        found.append(plain or Number(close or Fraction(0)))
    exactly = [exact(folded(tree)) for tree in (left, right)]
    decimal = None not in exactly or any(n.unit for n in found)
    return same(found[0], found[1]) if decimal else equal_numbers(left, right)


def fraction(tree: Tree) -> Fraction | None:
    """Return a real value as a fraction: exactly, or to 60 digits."""
    tree = folded(tree)
    if tree[0] == "number":
        value: Fraction = tree[1]
        return value
    (close,), _ = numeric((tree,))
    if close is None or close.imag:
        return None
    sign, mantissa, exponent, _ = close.real._mpf_
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** int(exponent)


def fraction_of(text: str) -> Fraction | None:
    """Return the value of a text without letters as a fraction, None where it has none."""
    plain, tree = number(text), read(text)
    if plain or tree is None or letters(tree):
        return plain and plain.value
    return fraction(tree)


def is_unsolved(text: str) -> bool:
    """Tell whether a text is a linear expression in one letter, and not the letter itself: `2x`, `x + 3`."""
    tree = read(text)
    names = letters(tree) if tree else frozenset()
    if tree is None or tree[0] == "letter" or len(names) != 1 or any("(" in name for name in names):
        return False
    name = next(iter(names))
    values = [exact(tree, {name: Fraction(n)}) for n in (1, 2, 4)]
    return None not in values and 2 * (values[1] - values[0]) == values[2] - values[1]  # type: ignore[operator]


def is_number(text: str) -> bool:
    """Tell whether a text is a number, or arithmetic that comes to one."""
    tree = read(text)
    return tree is not None and not letters(tree)


@lru_cache(maxsize=4096)
def is_readable(text: str) -> bool:
    """Tell whether a text is a formula, an equation or anything else that math-verify reads."""
    return read(text) is not None or _parsed(text, True) is not None


@lru_cache(maxsize=4096)
def _parsed(text: str, lowercase: bool) -> Any:
    """Parse with math-verify's grammar; None where that fails."""
    text = normalize_latex(text, config=_NORMALISED)
    try:
        found = latex2sympy(
            text,
            is_real=not should_treat_as_complex(text),
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=lowercase),
        )
    except Exception:  # the grammar's own, sympy's, recursion: it is no formula
        return None
    if isinstance(found, sympy.Expr) and found.has(*_STEPS):
        found = found.doit()
    if isinstance(found, sympy.Expr):
        found = found.subs({symbol: sympy.I for symbol in found.free_symbols if symbol.name == "i"})
    return found


def _by_library(gold: str, answer: str) -> bool:
    """Parse and compare with math-verify."""
    lowercase = not _mixes_cases(re.sub(r"\\[A-Za-z]++|[^A-Za-z]", "", side) for side in (gold, answer))
    if "=" in gold and answer.count("=") > gold.count("="):
        chain = sides(answer)  # of which math-verify takes the last part, `x = 5 + 6 = 11`
        if key(chain[0]) != key(sides(gold)[0]) or any(read(part) is None for part in chain[1:]):
            return False
    left, right = (_parsed(side, lowercase) for side in (gold, answer))
    if left is None or right is None:
        return False
    return bool(
        verify(
            [left], [right], float_rounding=20, numeric_precision=40, timeout_seconds=None, allow_set_relation_comp=True
        )
    )


def equal_equations(gold: list[str], answer: list[str]) -> bool | None:
    """Tell whether two equations, each as its two sides, say the same; None where one cannot be read.

    They do where the differences of their sides are proportional, or their numerators are: `xy = 1` and `y = 1/x`.
    """
    left, right = trees("({})-({})".format(*gold), "({})-({})".format(*answer))
    if left is None or right is None:
        return None
    if not letters(left) and not letters(right):
        return equal_trees(left, right)
    return any(_same_equation(g, a) for g, a in _readings(left, right) if letters(g) == letters(a))


def _same_equation(left: Tree, right: Tree) -> bool:
    if ratio(left, right):
        return True
    tops = [sympy.fraction(sympy.together(to_sympy(side))) for side in (left, right)]
    if all(bottom.is_number for _, bottom in tops):
        return False
    quotient = sympy.cancel(tops[0][0] / tops[1][0]) if tops[1][0] != 0 else sympy.nan
    return bool(quotient.is_number and quotient.is_finite and quotient != 0)


def are_solutions(equation: list[str], roots: list[str]) -> bool | None:
    """Tell whether these are the real solutions of an equation in one letter; None where they cannot be found."""
    found = [tree for text in (*equation, *roots) if (tree := read(text)) is not None]
    if len(found) < 2 + len(roots) or any(letters(root) for root in found[2:]):
        return None
    names = letters(found[0]) | letters(found[1])
    if len(names) != 1:
        return None
    at = {next(iter(names)): X}
    solutions = sympy.solveset(to_sympy(found[0], at) - to_sympy(found[1], at), X, sympy.S.Reals)
    if not isinstance(solutions, sympy.FiniteSet):
        return None
    given = {to_sympy(root) for root in found[2:]}
    return len(given) == len(solutions) and all(any((one - root).equals(0) for root in given) for one in solutions)


_SYMPY = {
    "Re": "re", "Im": "im", "abs": "Abs", "ceil": "ceiling", "sgn": "sign", "max": "Max", "min": "Min", "mod": "Mod", "ln": "log",
}  # fmt: skip
_WITH_TWO: dict[str, Callable[..., Any]] = {
    "+": lambda *parts: sympy.Add(*parts), "-": lambda a: -a, "*": lambda *parts: sympy.Mul(*parts),
    "/": lambda a, b: a / b, "^": lambda a, b: a**b,
    "root": lambda a, b: a ** (1 / b), "degrees": lambda a: a,
}  # fmt: skip


def to_sympy(tree: Tree, at: dict[str, Any] | None = None) -> Any:
    """Write a tree as an expression of sympy's, its letters real symbols or what `at` says."""
    kind: str = tree[0]
    if kind == "number":
        return sympy.Rational(tree[1].numerator, tree[1].denominator)
    if kind == "letter":
        return (at or {}).get(tree[1], sympy.Symbol(tree[1], real=True))
    if kind == "constant":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}[tree[1]]
    parts = [to_sympy(part, at) for part in tree[1:]]
    if kind.startswith("apply "):
        return sympy.Function(kind.partition(" ")[2])(*parts)
    return _WITH_TWO[kind](*parts) if kind in _WITH_TWO else getattr(sympy, _SYMPY.get(kind, kind))(*parts)
