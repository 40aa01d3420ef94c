r"""Regions of the real line: inequalities, intervals, unions and set-builder notation, compared as the sets that they are."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import sympy

from reasoning_ext.verifier.algebra import X, equal_trees, fraction, to_sympy
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
_APPLIED = re.compile(r"(?<![A-Za-z\\])[fghFG]\([a-z]\)")  # a function's value, as one letter


class Piece(NamedTuple):
    """One interval, set or chain of inequalities, as it was written.

    Attributes:
        kind: `interval` with two ends, `set` with its elements, `point` of `x = 5`, `chain` with its sides, `all` or `none`.
        trees: the ends, elements or sides; None for an end at infinity, with its sign in `signs`.
        signs: the brackets, or the signs of the chain.
        without: the piece that is taken out, behind a backslash or minus.
    """

    kind: str
    trees: tuple[Any, ...] = ()
    signs: tuple[str, ...] = ()
    without: Any = None


def equal_regions(gold: str, answer: str) -> bool | None:
    """Tell whether two texts describe the same set of real numbers; None where one describes none.

    Letters in the ends of an interval are parameters: the regions are compared for two values of each.
    """
    regions = [read_region(text) for text in (gold, answer)]
    if regions[0] is None or regions[1] is None:
        return None
    kinds = [{piece.kind for part in region for piece in part} for region in regions if region]
    names = [_names(region) for region in regions]
    chained = ["chain" in kind for kind in kinds]
    if not any(chained) and all(kind <= {"set"} for kind in kinds):
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
    same = _same_ends(regions[0], regions[1], main)
    if same is not None:
        return same
    parameters = sorted((names[0] | names[1]) - {main})
    for shift in (Fraction(17, 13), Fraction(-29, 7)):
        at = {name: sympy.Rational(*(shift * (i + 1)).as_integer_ratio()) for i, name in enumerate(parameters)}
        found = [_as_set(region, main, at) for region in regions if region]
        if None in found:
            return None
        if found[0] != found[1] and not found[0].symmetric_difference(found[1]).is_empty:
            return False
    return True


def _same_ends(left: Any, right: Any, main: str) -> bool | None:
    """Compare regions that are intervals, one by one, by their ends; None where it takes more than that."""
    if len(left) != len(right) or any(len(part) != 1 for part in (*left, *right)):
        return None
    pairs: list[Any] = [[_as_interval(part[0], main) for part in pair] for pair in zip(left, right, strict=True)]
    if any(None in pair for pair in pairs):
        return None
    same = all(g.signs == a.signs and all(map(_equal_ends, g.trees, a.trees)) for g, a in pairs)
    return True if same else False if len(left) == 1 else None


def _equal_ends(left: Tree, right: Tree) -> bool:
    return left == right or (not any(holds(side, {"oo", "-oo"}) for side in (left, right)) and equal_trees(left, right))


def _as_interval(piece: Piece, main: str) -> Piece | None:
    """Write `a < x`, `a < x <= b` as the interval that it is; None where the letter does not stand alone."""
    if piece.without or piece.kind not in ("interval", "chain"):
        return None
    if piece.kind == "interval":
        return piece if _in_order(piece) else None
    letter, trees, signs = ("letter", main), list(piece.trees), list(piece.signs)
    if any(sign in (">", r"\ge") for sign in signs):
        trees, signs = trees[::-1], [{">": "<", r"\ge": r"\le"}.get(sign, sign + "!") for sign in signs[::-1]]
    if not {*signs} <= {"<", r"\le"} or len(trees) > 3 or (trees[1] if len(trees) == 3 else letter) != letter:
        return None
    if len(trees) == 2:
        if letter not in trees or any(main in letters(tree) for tree in trees if tree != letter):
            return None
        low = ("constant", "-oo") if trees[0] == letter else trees[0]
        high = ("constant", "oo") if trees[1] == letter else trees[1]
        signs = ["<", signs[0]] if trees[0] == letter else [signs[0], "<"]
        trees = [low, letter, high]
    if main in letters(trees[0]) | letters(trees[2]):
        return None
    found = Piece("interval", (trees[0], trees[2]), ("(" if signs[0] == "<" else "[", ")" if signs[1] == "<" else "]"))
    return found if _in_order(found) else None


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
    signs = tuple(sign for sign in _SIGN.findall(text))
    if signs == ("=",):
        ends = [read(side.strip()) for side in cut(text, _SIGN)]
        return Piece("point", (ends[1],)) if ends[1] and ends[0] and ends[0][0] == "letter" else None
    if signs:
        found = [read(side.strip()) or _end(side.strip()) for side in cut(text, _SIGN)]
        if len(found) != len(signs) + 1 or None in found:
            return None
        return Piece("chain", tuple(found), signs)
    items = split_items(text)
    if items is None:
        return None
    found = [read(item) or _end(item) for item in items.items]
    if None in found:
        return None
    if items.opening == r"\{":
        return Piece("set", tuple(found))
    if len(found) == 2 and items.opening in ("(", "[") and items.closing in (")", "]"):
        piece = Piece("interval", tuple(found), (items.opening, items.closing))
        return piece if _in_order(piece) else None  # (5, 2) is a point
    return None


def _end(text: str) -> Tree | None:
    """Read an end at infinity as a letter that no formula has."""
    infinite = re.fullmatch(r"([-+]?)\s*+(?:\\infty|oo|inf|infinity)", text)
    return ("constant", f"{infinite[1].replace('+', '')}oo") if infinite else None


def _as_set(region: Any, main: str, at: dict[str, Any]) -> Any:
    """Write a region as a set of sympy's."""
    names = {**at, main: X}
    parts = [[_piece_as_set(piece, names) for piece in part] for part in region]
    if any(piece is None for part in parts for piece in part):
        return None
    return sympy.Union(*(sympy.Intersection(*part) for part in parts))


def _piece_as_set(piece: Piece, names: dict[str, Any]) -> Any:
    if piece.without:
        base, out = (_piece_as_set(one, names) for one in (piece._replace(without=None), piece.without))
        return None if base is None or out is None else base - out
    if piece.kind in ("all", "none"):
        return sympy.S.Reals if piece.kind == "all" else sympy.S.EmptySet
    ends = [_limit(tree, names) for tree in piece.trees]
    if piece.kind in ("set", "point"):
        return sympy.FiniteSet(*ends)
    if piece.kind == "interval":
        if any(not end.is_extended_real for end in ends):
            return None
        return sympy.Interval(*ends, piece.signs[0] == "(", piece.signs[1] == ")")
    relations = {"<": sympy.Lt, ">": sympy.Gt, r"\le": sympy.Le, r"\ge": sympy.Ge, "=": sympy.Eq, r"\neq": sympy.Ne}
    sets = []
    for left, right, sign in zip(ends, ends[1:], piece.signs, strict=False):
        relation = relations[sign](left, right)
        if relation in (True, False) or not hasattr(relation, "as_set"):
            sets.append(sympy.S.Reals if relation == True else sympy.S.EmptySet)  # noqa: E712
            continue
        try:
            sets.append(relation.as_set())
        except (NotImplementedError, TypeError, ValueError, AttributeError):
            return None
    return sympy.Intersection(*sets)


def _limit(tree: Tree, names: dict[str, Any]) -> Any:
    if tree in (("constant", "oo"), ("constant", "-oo")):
        return sympy.oo if tree[1] == "oo" else -sympy.oo
    return to_sympy(tree, names)
