"""Formulas taken apart into tokens: numbers, names of functions, letters, commands, signs."""

import re
from collections.abc import Iterator

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
