r"""Compare two clean answers as far as exact arithmetic goes: no sympy, no floating point, no tolerance by feel.

`decide` answers True, False, or None where algebra is needed. Equal texts, numbers (by the rules of `quantities`), and lists of
them element by element, in order where the gold has brackets; `[0, 1)` is not `(0, 1)`.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from reasoning_ext.verifier.numbers import number, same, same_in_base, same_measure

_INTEGER = re.compile(r"(-?)0*((?!0)\d{1,3}(?:,\d{3})+|\d+?)(?:\.0*)?")  # 1,000 and 1000.0 are 1000
_NAME = re.compile(r"(?:\\?[A-Za-z]+|[_^'|(){},:\s]|\\[{}]|(?:(?<=_)|(?<=_\{)|(?<=[A-Za-z]))\d+)+")
_SEPARATOR = re.compile(
    r"\\[{}]|[()\[\]{},;]|\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|.", re.DOTALL
)
_OPEN, _CLOSE = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")


class Items(NamedTuple):
    """A list as it was written: its brackets, "" where there are none, and its elements."""

    opening: str
    closing: str
    items: tuple[str, ...]


def decide(gold: str, answer: str) -> bool | None:
    r"""Tell whether two clean answers are equal, or None where it takes algebra.

    >>> decide(r"\frac{1}{3}", "0.33333"), decide("7", "x = 7"), decide("(1, 2)", "(2, 1)"), decide("x + 1", "1 + x")
    (True, True, False, None)
    """
    if gold == answer:
        return True
    left, right = _INTEGER.fullmatch(gold), _INTEGER.fullmatch(answer)
    if left and right:  # nearly all there is in GSM8K
        digits = left[2].replace(",", "")
        return digits == right[2].replace(",", "") and (left[1] == right[1] or digits == "0")
    if key(gold) == key(answer):
        return True
    verdict = same_in_base(gold, answer)
    if verdict is None:
        verdict = same_measure(gold, answer)
    if verdict is None and "=" in answer and "=" not in gold:
        value = assigned(answer)
        return None if value is None else decide(gold, value)
    if verdict is None:
        verdict = _decide_items(gold, answer)
    return verdict


@lru_cache(maxsize=16384)
def key(text: str) -> str:
    """Return a text in the form in which equal strings are equal answers: without spaces, words in small letters."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)
    text = re.sub(r"\\(sqrt|pmod)\{(\w)\}", r"\\\1\2", text)
    text = re.sub(r"([_^])\{(\w)\}", r"\1\2", text)
    if re.fullmatch(r"\(?[A-Za-z]\)?", text):
        return text.strip("()")
    return text.lower() if re.fullmatch(r"[A-Za-z'-]+", text) else text


def assigned(text: str) -> str | None:
    """Return the right side of `x = 5` or `(p, q) = (3, 2)`, where the left side is a name; None for anything else."""
    left, equals, right = text.partition("=")
    if not equals or "=" in right or not right.strip() or left.endswith(("<", ">", "!", "\\")):
        return None
    return right.strip() if is_name(left.strip()) else None


def is_name(text: str) -> bool:
    r"""Tell whether a text only names what is asked for: `x`, `x_1`, `(p, q)`, `f(x)`, `S_{ABC}:S`, `\text{Area}`."""
    bare = re.sub(r"\\frac\{([A-Za-z]+)\}\{([A-Za-z]+)\}", r"\1\2", text)
    bare = re.sub(r"(?<=[A-Za-z'])(?:\^\{-1\})?\([^()]*\)", "", bare)  # f(3), f^{-1}(1)
    return bool(_NAME.fullmatch(bare)) and any(c.isalpha() for c in bare)


@lru_cache(maxsize=16384)
def split_items(text: str) -> Items | None:
    r"""Take a list apart at its outermost separators; None where there is neither a separator nor a pair of brackets.

    >>> split_items(r"\{1, (2, 3)\}"), split_items("19, 46, and 82").items
    (Items(opening='\\{', closing='\\}', items=('1', '(2, 3)')), ('19', '46', '82'))
    """
    opening, closing, inside = _brackets(text.strip())
    cuts = _cut(inside, ";")
    if len(cuts) == 1:
        cuts = _cut(inside, ",")
    items = tuple(item for item in (cut.strip() for cut in cuts) if item)
    return Items(opening, closing, items) if opening or len(items) > 1 else None


def _brackets(text: str) -> tuple[str, str, str]:
    """Take the pair of brackets off that encloses a whole text."""
    opening = next((b for b in (r"\{", "(", "[", "{", "]") if text.startswith(b)), "")
    closing = next((b for b in (r"\}", ")", "]", "}", "[") if text.endswith(b)), "")
    inside = text[len(opening) : len(text) - len(closing)]
    if not opening or not closing or (opening == r"\{") != (closing == r"\}"):
        return "", "", text
    depth = 0
    for match in _SEPARATOR.finditer(inside):
        depth += (match.group() in _OPEN) - (match.group() in _CLOSE)
        if depth < 0:
            return "", "", text
    return (opening, closing, inside) if depth == 0 else ("", "", text)


def _cut(text: str, separator: str) -> list[str]:
    parts, start, depth = [], 0, 0
    for match in _SEPARATOR.finditer(text):
        token = match.group()
        depth += (token in _OPEN) - (token in _CLOSE)
        joins = token == separator or (separator == "," and len(token) > 1 and token not in _OPEN + _CLOSE)
        if depth == 0 and joins:
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _decide_items(gold: str, answer: str) -> bool | None:
    """Compare two lists of numbers; None where an element is something else, or where the brackets tell them apart."""
    left, right = split_items(gold), split_items(answer)
    if left is None or right is None or min(len(left.items), len(right.items)) < 2:
        return None
    values = [[number(assigned(item) or item) for item in side.items] for side in (left, right)]
    if any(value is None for side in values for value in side):
        return None
    if len(values[0]) != len(values[1]):
        return False
    if not same_brackets(left, right):  # [0, 1) is not (0, 1), but what a bare list stands for depends
        return False if left.opening and right.opening else None
    if not is_ordered(left, right):
        values = [sorted(side, key=lambda n: n.value if n else 0) for side in values]
    return all(same(g, a) for g, a in zip(*values, strict=True) if g and a)


def is_ordered(gold: Items, answer: Items) -> bool:
    """Tell whether the order counts: for tuples and intervals, but not for sets and bare lists."""
    return any(side.opening in ("(", "[", "]") for side in (gold, answer))


def same_brackets(gold: Items, answer: Items) -> bool:
    """Tell whether brackets agree: `[0, 1)` only with itself; a tuple also with a bare list or braces."""
    if any("[" in (side.opening, side.closing) or "]" in (side.opening, side.closing) for side in (gold, answer)):
        return (gold.opening, gold.closing) == (answer.opening, answer.closing)
    return True
