"""What formulas are made of: tokens, the names of functions, and the parts of a tree that stand for them."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]

FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot asin acos atan acot sinh cosh tanh coth sech csch arsinh arcosh artanh "
    "asinh acosh atanh ln log lg exp sqrt cbrt abs floor ceil sgn sign gcd lcm max min mod binomial factorial "
    "ceiling signum root Re Im conjugate realpart imagpart".split()
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon phi "
    "varphi chi "
    "psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell hbar".split()
)
SAME = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arsinh": "asinh", "arcosh": "acosh",
    "artanh": "atanh", "sign": "sgn", "Abs": "abs", "ceiling": "ceil", "signum": "sgn", "realpart": "Re", "imagpart": "Im",
    "lceil": "ceil", "lfloor": "floor", "Rational": "/",
}  # fmt: skip
INVERSE = {name: f"a{name}" for name in "sin cos tan cot sinh cosh tanh".split()}
SEVERAL = frozenset("gcd lcm max min mod binomial / root".split())
NAMES = FUNCTIONS | {"Abs", "Rational"}
_ASCII = NAMES | GREEK | {"pi"}
_TOKEN = re.compile(
    r"""(?P<number>(?:[1-9]\d{0,2}(?:,\d{3})++(?![\d,])|\d++)(?:\.\d*+)?|\.\d++)(?:[eE](?P<power>[-+]?\d{1,4})(?![\w.]))?
      | \\(?P<command>[A-Za-z]++|[{}|%]) | %(?P<maxima>pi|e|i)(?![A-Za-z])
      | (?P<letters>[A-Za-z]++) | (?P<sign>\*\*|\S) | \s++""",
    re.VERBOSE,
)


class Unreadable(Exception):
    """This text is no formula of the kind that is read here."""


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """Take a text apart into `(kind, value)`: number, name (a function), letter, command, sign."""
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            raise Unreadable
        end = match.end()
        kind = match.lastgroup
        if kind in ("number", "power"):
            value = match["number"].replace(",", "")
            yield ("number", f"{value}e{match['power']}" if match["power"] else value)
        elif kind == "maxima":
            yield ("command" if match["maxima"] == "pi" else "letter", match["maxima"])
        elif kind == "letters":
            yield from _names(match["letters"], "*" in text)
        elif kind:
            yield (kind, match[kind])
    if end != len(text):
        raise Unreadable


def _names(run: str, long: bool) -> Iterator[tuple[str, str]]:
    """Take a run of letters apart: a known name, a function's name and its argument (`sinx`), or single letters.

    Where products are written with asterisks, a long run is one letter's name.
    """
    if not run:
        return
    if run in _ASCII:
        yield ("command", run)
        return
    known = next((run[:n] for n in range(min(len(run), 9), 1, -1) if run[:n] in FUNCTIONS), None)
    if known:
        yield ("command", known)
        yield from _names(run[len(known) :], long)
    elif len(run) > 3 and long:
        yield ("letter", run)
    elif len(run) > 3:
        raise Unreadable  # a word
    else:
        yield from (("letter", letter) for letter in run)


def as_number(text: str) -> Tree:
    """Read a number's token."""
    mantissa, _, power = text.partition("e")
    whole, _, places = mantissa.partition(".")
    value = Fraction(int(whole + places or "0"), 10 ** len(places))
    return ("number", value * Fraction(10) ** int(power) if power else value)


def called(name: str, arguments: list[Tree], index: Tree | None) -> Tree:
    """Write roots, exponentials and logarithms with what they stand for."""
    first = arguments[0]
    if name in ("log", "lg"):
        base = index or (arguments[1] if len(arguments) == 2 else ("number", Fraction(10)) if name == "lg" else None)
        return ("log", first) if base is None else ("log", first, base)
    if name in ("sqrt", "cbrt"):
        degree = ("number", Fraction(3)) if name == "cbrt" else index or ("number", Fraction(2))
        return ("root", first, degree)
    return ("^", ("constant", "e"), first) if name == "exp" else (name, *arguments)
