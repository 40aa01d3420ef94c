r"""Regions of the real line: inequalities, intervals, unions and set-builder notation, compared as the sets that they are."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

import sympy

from reasoning_ext.verifier.algebra import X, fraction, to_sympy
from reasoning_ext.verifier.exact import INEQUALITY, cut, split_items
from reasoning_ext.verifier.formula import Tree, holds, letters, read

_OR = re.compile(
    r"\\text\s*+\{\s*+(?:,\s*+)?or\s*+\}|\\lor(?![a-z])|(?<![A-Za-z])or(?![A-Za-z])|\\cup(?![a-z])|(?<=\))\s*+U\s*+(?=\()"
)
_AND = re.compile(
    r"\\text\s*+\{\s*+(?:,\s*+)?and\s*+\}|\\land(?![a-z])|(?<![A-Za-z])and(?![A-Za-z])|\\cap(?![a-z])|,(?=[^,<>\\]*+[<>\\])"
)
_WITHOUT = re.compile(r"\\(?:setminus|backslash|smallsetminus)(?![a-z])|(?<=\})\s*+-\s*+(?=\\\{)|\\(?=\s*\\\{)")
_SIGN = re.compile(r"[<>]|\\(?:le|ge|neq)(?![a-z])|(?<![<>])=")
_BUILT = re.compile(
    r"\\?\{\s*+([A-Za-z])\s*+(?:\\in\s*+\\mathbb\s*+\{?\s*+R\s*+\}?)?\s*+(?:\\mid|\||:)(.*)\\?\}", re.DOTALL
)
_ALL = re.compile(
    r"(?:[a-z]\s*+\\in\s*+)?(?:\\mathbb\s*+\{?\s*+R\s*+\}?|(?:\\text\s*+\{)?\s*+all real(?: numbers)?(?:\s*+[a-z])?\s*+\}?)",
    re.IGNORECASE,
)
_INFINITE = {("oo",): sympy.oo, ("-oo",): -sympy.oo}
_RELATIONS = {"<": sympy.Lt, ">": sympy.Gt, r"\le": sympy.Le, r"\ge": sympy.Ge, "=": sympy.Eq, r"\neq": sympy.Ne}
_APPLIED = re.compile(r"(?<![A-Za-z\\])[fghFG]\([a-z]\)")  # a function's value, as one letter


class Piece(NamedTuple):
    """One interval, set or chain of inequalities, as it was written."""

    kind: str  # interval, set, point of `x = 5`, chain, all, none
    trees: tuple[Any, ...] = ()  # the ends, elements or sides
    signs: tuple[str, ...] = ()  # the brackets, or the signs of the chain
    without: Any = None  # the piece that is taken out, behind a backslash or minus


def equal_regions(gold: str, answer: str) -> bool | None:
    """Tell whether two texts describe the same set of real numbers; None where one describes none.

    Letters in the ends of an interval are parameters: the regions are compared for two values of each.
    """
    regions = [region for text in (gold, answer) if (region := read_region(text))]
    if len(regions) < 2:
        return None
    kinds = [{piece.kind for part in region for piece in part} for region in regions]
    names = [_names(region) for region in regions]
    chained = ["chain" in kind for kind in kinds]
    if all(kind <= {"set"} for kind in kinds):
        return None
    if all(chained):
        if names[0] != names[1]:
            return False
        main = min(names[0], key=lambda name: (name != "x", name), default="x")
    else:
        rest = (names[0] - names[1]) if chained[0] else (names[1] - names[0])
        if any(chained) and len(rest) != 1:
            return False
        main = next(iter(rest), "x" if not any(names) else "")
    parameters = sorted((names[0] | names[1]) - {main})
    for shift in (sympy.Rational(17, 13), sympy.Rational(-29, 7)):
        at = {name: shift * (i + 1) for i, name in enumerate(parameters)} | {main: X}
        left, right = (_union(region, at) for region in regions)
        if left is None or right is None:
            return None
        if left != right and not left.symmetric_difference(right).is_empty:
            return False
    return True


def _in_order(piece: Piece) -> bool:
    """Tell whether an interval is certain to hold more than a point, so that its ends say all."""
    low, high = piece.trees
    if low == ("constant", "-oo") or high == ("constant", "oo") or letters(low) or letters(high):
        return True
    ends = [fraction(end) for end in (low, high) if not holds(end, {"oo", "-oo"})]
    return len(ends) == 2 and ends[0] is not None and ends[1] is not None and ends[0] < ends[1]


def _names(region: Any) -> frozenset[str]:
    pieces = [piece for part in region for piece in part]
    inside = [_names([[piece.without]]) for piece in pieces if piece.without]
    return frozenset().union(*inside, *(letters(tree) for piece in pieces for tree in piece.trees if tree))


@lru_cache(maxsize=4096)
def read_region(text: str) -> Any:
    r"""Read a union of intersections of pieces, None where it is something else.

    `x < 1 \text{ or } x > 3`, `3 > x \ge 2`, `\{x \mid 0 \le x \le 1\}`, `\mathbb{R} \setminus \{3\}`, sets and intervals.
    """
    if built := _BUILT.fullmatch(text.strip()):
        text = built[2].strip()
        text = text.removesuffix("\\").strip()
    elif text.startswith(r"\{") and text.endswith(r"\}") and INEQUALITY.search(text):
        text = text[2:-2]
    text = _APPLIED.sub("y", text)
    parts = [[_piece(piece.strip()) for piece in cut(part, _AND) if piece.strip()] for part in cut(text, _OR)]
    known = all(part and all(piece is not None for piece in part) for part in parts)
    if known and all(piece.kind == "point" for part in parts for piece in part if piece):
        return None  # an equation
    return tuple(tuple(part) for part in parts) if known else None


def _piece(text: str) -> Piece | None:
    taken = cut(text, _WITHOUT)
    if len(taken) == 2 and taken[0].strip():
        base, out = (_piece(part.strip()) for part in taken)
        return base and out and base._replace(without=out)
    if _ALL.fullmatch(text):
        return Piece("all")
    if text in (r"\emptyset", r"\{\}", r"\{ \}"):
        return Piece("none")
    text = re.sub(r"^\s*+[A-Za-z]\s*+\\in(?![a-z])\s*+", "", text)
    signs = tuple(_SIGN.findall(text))
    items = None if signs else split_items(text)
    parts = cut(text, _SIGN) if signs else items.items if items else ()
    found: tuple[Any, ...] = tuple(read(part.strip()) or _end(part.strip()) for part in parts)
    if not found or None in found:
        return None
    if signs == ("=",):
        return Piece("point", found[1:]) if found[0][0] == "letter" else None
    if items is None:
        return Piece("chain", found, signs) if len(found) == len(signs) + 1 else None
    if items.opening == r"\{":
        return Piece("set", found)
    if len(found) == 2 and items.opening in ("(", "[") and items.closing in (")", "]"):
        piece = Piece("interval", found, (items.opening, items.closing))
        return piece if _in_order(piece) else None  # (5, 2) is a point
    return None


def _end(text: str) -> Tree | None:
    """Read an end at infinity as a letter that no formula has."""
    infinite = re.fullmatch(r"([-+]?)\s*+(?:\\infty|oo|inf|infinity)", text)
    return ("constant", f"{infinite[1].replace('+', '')}oo") if infinite else None


def _union(region: Any, at: dict[str, Any]) -> Any:
    """Write a region as a set of sympy's, None where it cannot."""
    parts = [[_as_set(piece, at) for piece in part] for part in region]
    if any(piece is None for part in parts for piece in part):
        return None
    return sympy.Union(*(sympy.Intersection(*part) for part in parts))


def _as_set(piece: Piece, at: dict[str, Any]) -> Any:
    if piece.without:
        base, out = _as_set(piece._replace(without=None), at), _as_set(piece.without, at)
        return None if base is None or out is None else base - out
    if piece.kind in ("all", "none"):
        return sympy.S.Reals if piece.kind == "all" else sympy.S.EmptySet
    ends = [_INFINITE.get(tree[1:]) or to_sympy(tree, at) for tree in piece.trees]
    if piece.kind in ("set", "point"):
        return sympy.FiniteSet(*ends)
    if piece.kind == "interval":
        real = all(end.is_extended_real for end in ends)
        return sympy.Interval(*ends, piece.signs[0] == "(", piece.signs[1] == ")") if real else None
    sets = []
    for left, right, sign in zip(ends, ends[1:], piece.signs, strict=False):
        relation = _RELATIONS[sign](left, right)
        if not hasattr(relation, "as_set") or relation in (True, False):
            sets.append(sympy.S.Reals if relation == True else sympy.S.EmptySet)  # noqa: E712
            continue
        try:
            sets.append(relation.as_set())
        except (NotImplementedError, TypeError, ValueError, AttributeError):
            return None
    return sympy.Intersection(*sets)
