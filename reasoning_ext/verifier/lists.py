r"""Rules for what is made of parts: lists, sets, tuples, matrices, ratios, both signs of a root, answers in parts.

A rule takes two clean texts and `same`, which compares parts of them, and returns True, False, or None: not my kind.
"""

import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from reasoning_ext.verifier import algebra
from reasoning_ext.verifier.exact import COLON, COMMA, cut, is_ordered, named, same_brackets, split_items
from reasoning_ext.verifier.numbers import number, value

Verdict = bool | None
Same = Callable[[str, str], bool]
APPROX = re.compile(r"\\approx(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\s*+\{pmatrix\}((?:[^\\]|\\(?!end\b))*+)\\end\s*+\{pmatrix\}")
SIGNS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_PART = re.compile(r"(?:\\text\s*+\{\s*+)?+(?:\(([a-h]|i{1,3}|iv|[1-6])\)|\b([a-h])\))\s*+\}?+\s*+(?:\\quad)?+")
_LABELS = ("abcdefgh", ("i", "ii", "iii", "iv"), "123456")
MANY = 20  # elements of a list that is no answer to a single value
_OR = re.compile(r"\bor\b")


def matrices(gold: str, answer: str, same: Same) -> Verdict:
    """Matrices entry by entry; a column or row is also the tuple of its entries."""
    rows: list[Any] = [_rows(side) for side in (gold, answer)]
    if rows == [None, None]:
        return None
    if None in rows:
        bare = rows.index(None)
        vector, other = rows[1 - bare], split_items((gold, answer)[bare])
        flat = [entry for row in vector for entry in row]
        is_vector = min(len(vector), len(vector[0])) == 1
        if other is None or other.opening not in ("(", "[") or len(flat) != len(other.items) or not is_vector:
            return None
        rows[bare], rows[1 - bare] = [other.items], [flat]
    left, right = rows
    return len(left) == len(right) and all(in_order(g, a, same) for g, a in zip(left, right, strict=True))


def in_order(gold: Sequence[str], answer: Sequence[str], same: Same) -> bool:
    """Compare one by one."""
    return len(gold) == len(answer) and all(same(g, a) for g, a in zip(gold, answer, strict=True))


def _rows(text: str) -> list[list[str]] | None:
    """Read `\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}` or `Matrix([[1, 2], [3, 4]])` as rows of entries."""
    if match := _MATRIX.fullmatch(text):
        return [[entry.strip() for entry in row.split("&")] for row in match[1].split(r"\\") if row.strip()]
    if match := re.fullmatch(r"(?i:matrix)\s*+\((.*)\)", text, re.DOTALL):
        inside = match[1].strip()
        inside = inside[1:-1] if inside.startswith("[[") else inside
        lists = [split_items(row) for row in cut(inside, COMMA)]
        return [list(row.items) for row in lists if row] if all(lists) else None
    return None


def labelled_parts(gold: str, answer: str, same: Same) -> Verdict:
    """`(a) 3 (b) 5` part by part."""
    parts: list[Any] = [_parts(side) for side in (gold, answer)]
    if parts == [None, None]:
        return None
    if None in parts:
        bare = parts.index(None)
        other = split_items((gold, answer)[bare])
        if other is None or len(other.items) != len(parts[1 - bare]):
            return None
        parts[bare] = other.items
    return in_order(parts[0], parts[1], same)


def _parts(text: str) -> list[str] | None:
    """List the parts behind `(a)`, `(b)` or `(i)`, `(ii)` or `(1)`, `(2)`."""
    found = list(_PART.finditer(text))
    labels = [match[1] or match[2] for match in found]
    if len(found) < 2 or found[0].start() or not any(labels == list(kind[: len(labels)]) for kind in _LABELS):
        return None
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [text[match.end() : end].strip(" ,;.") for match, end in zip(found, ends, strict=True)]


def signs(gold: str, answer: str, same: Same) -> Verdict:
    """`a \\pm b` stands for both values."""
    if not any(SIGNS.search(side) for side in (gold, answer)):
        return None
    left, right = (both_signs(side) for side in (gold, answer))
    return None if left is None or right is None else same_elements(left, right, same)


def both_signs(text: str) -> list[str] | None:
    """List the values of a text with \\pm: all choices of signs, opposite ones for \\mp."""
    rest = named(text)[1]
    items = split_items(rest)
    if items and items.opening in ("(", "["):
        return None
    parts = items.items if items and len(items.items) > 1 else (rest,)
    found = [_with_signs(named(part)[1]) for part in parts]
    return None if None in found else [value for values in found for value in values or ()]


def _with_signs(text: str) -> list[str] | None:
    """Write a text with both signs: one choice for `\\pm` and `\\mp` together, else one for each; None where there are many."""
    kinds = [match[1] for match in SIGNS.finditer(text)]
    if len(kinds) > 3:
        return None
    if "mp" in kinds or len(kinds) < 2:
        choices = [tuple(sign if kind == "pm" else other for kind in kinds) for sign, other in ("+-", "-+")]
        choices = choices if kinds else choices[:1]
    else:
        choices = list(product("+-", repeat=len(kinds)))
    pieces = SIGNS.split(text)[::2]
    return ["".join(a + b for a, b in zip(pieces, (*choice, ""), strict=True)) for choice in choices]


def sequences(gold: str, answer: str, same: Same) -> Verdict:
    """`1, 2, \\ldots, n` part by part."""
    if r"\ldots" not in gold:
        endless = r"\ldots" in answer and number(answer) is None and "=" not in answer and not APPROX.search(answer)
        return False if endless else None
    left, right = ([part.strip() for part in cut(side, COMMA) if part.strip()] for side in (gold, answer))
    if len(left) < 2:
        return None
    return in_order(left, right, lambda g, a: g == a if r"\ldots" in g + a else same(g, a))


def ratios(gold: str, answer: str, same: Same) -> Verdict:
    """Ratios are equal up to a factor; a:b is also the number a/b; with a zero in front it is a time, and equal as written."""
    if ":" not in gold and ":" not in answer:
        return None
    gold, answer = (named(side)[1] if "=" in side else side for side in (gold, answer))
    left, right = ([part.strip() for part in cut(side, COLON)] for side in (gold, answer))
    if any(part[:1] == "0" and part != "0" and "." not in part for part in left + right):
        return in_order(left, right, same)
    if len(left) + len(right) == 3 and all(algebra.is_number(part) for part in left + right):
        pair, single = (left, answer) if len(left) == 2 else (right, gold)
        quotient = rf"\frac{{{pair[0]}}}{{{pair[1]}}}"
        return same(quotient, single) if pair is left else same(single, quotient)
    if any(all((found := value(part)) and not found.value for part in side) for side in (left, right)):
        return False  # 0:0
    if len(left) != len(right) or len(left) < 2:
        return None if len(left) == len(right) else False
    ours, theirs = ([rf"({part})({other[0]})" for part in side[1:]] for side, other in ((left, right), (right, left)))
    return in_order(ours, theirs, same) or in_order(left, right, same)


def in_brackets(gold: str, answer: str, same: Same) -> Verdict:
    """Lists element by element: in order where a side has round or square brackets, else in any."""
    left, right = split_items(gold), split_items(answer)
    if left is None and right is not None and not right.opening and _OR.search(answer):
        return all(same(gold, item) for item in right.items)  # the same said twice
    if left is None and right is not None and len(right.items) > MANY:
        return False
    if left is None or right is None:
        return None
    if max(len(left.items), len(right.items)) < 2:
        alone = left[:2] == right[:2] and left.opening in (r"\{", "[") and left.items and right.items
        return same(left.items[0], right.items[0]) if alone else None
    if not same_brackets(left, right):
        return False
    ours, theirs = (_without_name(side.items) for side in (left, right))
    if is_ordered(left, right):
        return in_order(ours, theirs, same)
    is_set = r"\{" in (left.opening, right.opening) or ours[0].startswith("(")
    return same_elements(ours, theirs, same, is_set)


def _without_name(items: tuple[str, ...]) -> list[str]:
    names = {named(item)[0] for item in items} - {""}
    return [named(item)[1] if len(names) == 1 else item for item in items]


def same_elements(gold: list[str], answer: list[str], same: Same, is_set: bool = False) -> bool:
    """Match elements one to one; in a set, an element that stands twice counts once."""
    if len(gold) != len(answer) and not is_set:
        return False
    rest = list(answer)
    matched: list[str] = []
    for g in gold:
        found = next((i for i, a in enumerate(rest) if same(g, a)), None)
        if found is not None:
            matched.append(rest.pop(found))
        elif not is_set or not any(same(g, a) for a in matched):
            return False
    return not rest or (is_set and all(any(same(m, a) for m in matched) for a in rest))
