r"""Formulas as trees: LaTeX and plain ASCII (`sqrt(3)/2`, `x**2`, `%pi`) read in one pass, without evaluating anything.

A tree is a tuple: `("number", Fraction)`, `("letter", name)`, `("constant", "pi" | "e" | "i")`, `("degrees", tree)`,
`("apply f", tree)`, or the name of an operator or function with its operands: `("+", a, b, ...)`, `("/", a, b)`, `("sin", a)`.
What is not read gives None and is math-verify's: sums, integrals, limits, matrices, sets, words. Where LaTeX leaves it open:

    \sin x \cos x     sin(x) cos(x): an argument without brackets ends at an operator and at the next function
    1/2x, a/bc        (1/2)x, but a/(bc): only a number ends a denominator
    2^10, x^-2        as plain text means them, not as TeX would set them
    3\frac17          3 + 1/7
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from reasoning_ext.verifier.reader import Reader
from reasoning_ext.verifier.tokens import Tree, Unreadable, tokens

MAX_LENGTH, MAX_DEPTH = 2_000, 60
_PAIR = re.compile(r"[(\[]\s*+\d{1,3}(?:,\d{3})++\s*+[)\]]")  # (1,234) is a point


@lru_cache(maxsize=16384)
def read(text: str) -> Tree | None:
    r"""Read one formula, None where it is none or holds what is not read here."""
    if len(text) > MAX_LENGTH or not text or text.isspace() or _PAIR.search(text):
        return None
    try:
        reader = Reader(list(tokens(text)))
        tree = reader.sum()
        return tree if reader.at == len(reader.tokens) and not _is_deep(tree) else None
    except (Unreadable, IndexError, RecursionError):
        return None


def _is_deep(tree: Tree) -> bool:
    """Tell whether a tree is so deep that what walks it might not come back."""
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [part for one in level for part in one[1:] if isinstance(part, tuple)]
    return bool(level)


def letters(tree: Tree) -> frozenset[str]:
    """Return the names of the letters in a tree, and of functions that nobody knows, `f()`."""
    if tree[0] == "letter":
        return frozenset((tree[1],))
    function = frozenset((tree[0][6:] + "()",)) if tree[0].startswith("apply ") else frozenset()
    return function.union(*(letters(part) for part in tree[1:] if isinstance(part, tuple)))


def holds(tree: Tree, names: frozenset[str] | set[str]) -> bool:
    """Tell whether a tree holds one of some operators, or a constant of such a name."""
    if tree[0] in names or (tree[0] == "constant" and tree[1] in names):
        return True
    return any(holds(part, names) for part in tree[1:] if isinstance(part, tuple))


def renamed(tree: Tree, names: Mapping[str, str]) -> Tree:
    """Return a tree with other names for its letters."""
    return replaced(tree, lambda part: ("letter", names.get(part[1], part[1])) if part[0] == "letter" else None)


def replaced(tree: Tree, change: Callable[[Tree], Tree | None]) -> Tree:
    """Return a tree in which `change` has replaced the parts for which it returns one."""
    new = change(tree)
    if new is not None:
        return new
    return (tree[0], *(replaced(part, change) if isinstance(part, tuple) else part for part in tree[1:]))
