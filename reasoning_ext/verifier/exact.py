r"""Compare two clean answers as far as exact arithmetic goes: no sympy, no floating point, no tolerance by feel.

`decide` answers True, False, or None where it takes more. Equal texts, dates and times, rational numbers however they are
written (`numbers`, `values.exact`), with their units, and lists of them, in order where the gold has brackets.
"""

import re
from contextlib import suppress
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple

from reasoning_ext.verifier.formula import letters, read
from reasoning_ext.verifier.numbers import DATE, DECIMAL_COMMA, number, same, same_in_base, split_unit, value
from reasoning_ext.verifier.units import unit_key

_INTEGER = re.compile(r"(?=-?\d)(-?)0*+((?!0)\d{1,3}(?:,\d{3})+|\d*)(?:\.0*+)?")  # 1,000 and 1000.0 are 1000
_TOKEN = re.compile(r"\\[A-Za-z]++|\\.|.", re.DOTALL)
_OPERATORS = frozenset((r"\cdot", r"\times", r"\pm", r"\div", r"\in", r"\le", r"\ge", r"\neq"))
_OPEN, _CLOSE = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
_COMMA = re.compile(
    r",|\\text\s*+\{\s*+,?\s*+(?:and|or)\s*+,?\s*+\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor(?![a-z])"
)
_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)|\\approx(?![A-Za-z])|\\equiv(?![A-Za-z])")
COMMA, SEMICOLON, COLON = re.compile(","), re.compile(";"), re.compile(":")
_COLON = re.compile(r":(?!=)")
_DENIES = re.compile(r"\b(?:not?|wrong|incorrect|false|never|(?:less|more) than|at (?:most|least))\b", re.IGNORECASE)
PRODUCT = re.compile("[a-z]{2,3}")  # xy = 1 is an equation, AB = 1 names a length
_CLOCK = re.compile(
    r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?(?:\s*+(?:\\text\s*+\{\s*+)?([ap])\.?\s*+m\.?\s*+\}?)?", re.IGNORECASE
)
_DATE_FORMS = ("%Y-%m-%d", "%m/%d/%Y", "%Y/%m/%d", "%B %d %Y", "%b %d %Y", "%d %B %Y", "%d %b %Y")
INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|neq)(?![a-z])")


class Items(NamedTuple):
    """A list as it was written: its brackets, "" where there are none, and its elements."""

    opening: str
    closing: str
    items: tuple[str, ...]


def decide(gold: str, answer: str) -> bool | None:
    r"""Tell whether two clean answers are equal, or None where exact arithmetic does not tell."""
    if gold == answer:
        return True
    left, right = _INTEGER.fullmatch(gold), _INTEGER.fullmatch(answer)
    if left and right:  # nearly all there is in GSM8K
        digits = left[2].replace(",", "")
        return digits == right[2].replace(",", "") and (left[1] == right[1] or not digits)
    if key(gold) == key(answer):
        return True
    for compare in (_same_moment, same_in_base, same_measure):
        verdict = compare(gold, answer)
        if verdict is not None:
            return verdict
    (name, wanted), (other, said) = named(gold), named(answer)
    if len(gold) == len(other) == 1 and gold.isupper():
        return None  # A = B chooses nothing
    if (name and name == other) or (other and not name and "=" not in gold):
        return decide(wanted, said)
    if name and "=" not in answer and ":" not in answer and not PRODUCT.fullmatch(name):
        return decide(wanted, answer)
    return None if "=" in answer else _decide_items(gold, answer)


@lru_cache(maxsize=16384)
def key(text: str) -> str:
    """Return a text in the form in which equal strings are equal answers: without spaces, words in small letters."""
    text = re.sub(r"\\text\s*+\{([^{}]*+)\}", r"\1", text)
    text = re.sub(r"(?<![\d\s])\s++|(?<!\s)\s++(?!\d)", "", text)
    text = re.sub(r"\\(sqrt|pmod)\{(\w)\}", r"\\\1\2", text)
    text = re.sub(r"([_^])\{(\w)\}", r"\1\2", text)
    if re.fullmatch(r"\(?[A-Za-z]\)?", text):
        return text.strip("()")
    return text.lower() if re.fullmatch(r"[A-Za-z]{2,}+(?:['-][A-Za-z]{2,}+)*+", text) else text


def same_measure(gold: str, answer: str) -> bool | None:
    """Compare two rational numbers with their units; None where a side is none, or where two different units are given."""
    (gold_core, gold_unit), (answer_core, answer_unit) = split_unit(gold), split_unit(answer)
    left, right = value(gold_core), value(answer_core)
    if left is None and right and "." in answer_core and DECIMAL_COMMA.fullmatch(gold_core):
        left = number(gold_core.replace(",", "."))  # 1,22 is 1.22 where the other side has a point, else it is a list
    elif right is None and left and DECIMAL_COMMA.fullmatch(answer_core) and "." in gold_core:
        right = number(answer_core.replace(",", "."))
    if left is None or right is None:
        return None
    if gold_unit and answer_unit and unit_key(gold_unit) != unit_key(answer_unit):
        return None
    return same(left, right)


def _same_moment(gold: str, answer: str) -> bool | None:
    """Compare two dates, or two times of which one says a.m. or p.m.; None where a side is neither."""
    if day := _day(gold):
        return day == _day(answer)
    times = [_CLOCK.fullmatch(text) for text in (gold, answer)]
    if not times[0] or not times[1] or not (times[0][4] or times[1][4]):
        return None
    (first, half), (second, other) = (_clock(match) for match in times if match)
    return first == second if half and other else first % 720 == second % 720


def _day(text: str) -> date | None:
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", text)
    bare = text.replace(",", "").replace(".", "")
    for written in (bare, f"{bare} 1904") if DATE.fullmatch(text) else ():  # no year: a leap year
        for form in _DATE_FORMS:
            with suppress(ValueError):
                return datetime.strptime(written, form).date()
    return None


def _clock(match: re.Match) -> tuple[int, bool]:
    """Return the minutes since midnight, or since noon where nothing says which, and whether something does."""
    hour, minute = int(match[1]), int(match[2] or 0)
    half = (match[4] or "").lower()
    return (hour % 12 + 12 * (half == "p") if half else hour) * 60 + minute, bool(half) or hour > 12


def cut(text: str, separator: re.Pattern) -> list[str]:
    """Take a text apart at the separators that stand in no bracket; where the brackets are those of intervals, any close any."""
    parts, start, depth, end = [], 0, 0, 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.start() < end:
            continue
        if depth == 0 and (found := separator.match(text, match.start())):
            parts.append(text[start : found.start()])
            start = end = max(found.end(), match.end())
            continue
        depth = max(0, depth + (token in _OPEN) - (token in _CLOSE))
    return [*parts, text[start:]]


def sides(text: str) -> list[str]:
    """Take an equation or a chain of them apart at its signs of equality."""
    return [part.strip() for part in cut(text, _EQUALS)]


@lru_cache(maxsize=16384)
def named(text: str) -> tuple[str, str]:
    r"""Split `x = 5`, `\text{Amy: }3` or `Area: 7` into what is named and its value; the name is "" where there is none."""
    text = text.strip()
    if match := re.match(r"\\text\s*+\{\s*+([^{}:]*[^{}:\d\s])(?::|\s+is|\s*=)\s*+\}", text):
        rest = text[match.end() :].strip()
        return (key(match[1]).lower(), rest) if rest and not _DENIES.search(match[1]) else ("", text)
    if "=" in text:
        parts = sides(text)
        is_named = len(parts) == 2 and parts[1] and is_name(parts[0]) and not _DENIES.search(parts[0])
        if is_named and r"\approx" not in text:
            return key(parts[0]), parts[1]
    elif match := re.match(r"([A-Z])'?\s*+(?=\(.*,)", text):
        if split_items(text[match.end() :]):
            return match[1], text[match.end() :]
    elif ":" in text:
        parts = cut(text, _COLON)
        label, said = parts[0].strip(), len(parts) == 2 and parts[1].strip()
        if said and len(label) > 1 and re.fullmatch(r"[A-Za-z][A-Za-z _]*+", re.sub(r"\\text|[{}]", "", label)):
            return ("", text) if _DENIES.search(label) else (key(label).lower(), said)
    return "", text


@lru_cache(maxsize=4096)
def is_name(text: str) -> bool:
    r"""Tell whether a text only names what is asked for: `x`, `x_1`, `(p, q)`, `f(x)`, `|AB|`, `\text{Area}`, `P(A|B)`.

    Arithmetic is none: digits stand only in brackets, in an index or in a limit, and there is no operator outside them.
    """
    before, depth, has_letter = "", 0, False
    for token in _TOKEN.findall(text):
        depth += (token in _OPEN) - (token in _CLOSE)
        has_letter |= token.isalpha() or token.startswith("\\")
        plain = token.isalpha() or token.startswith("\\") or token in "_^'|,: ()[]{}"
        index = token.isdigit() and (before.isalpha() or (before in ("_", "^") and token != "2"))
        if depth == 0 and (token in _OPERATORS or not (plain or index)):
            return False
        if not token.isspace():
            before = token
    tree = read(text) if has_letter and depth == 0 else None
    return has_letter and depth == 0 and (tree is None or bool(letters(tree)))


@lru_cache(maxsize=16384)
def split_items(text: str) -> Items | None:
    r"""Take a list apart at its outermost separators; None where there is neither a separator nor a pair of brackets."""
    opening, closing, inside = _brackets(text.strip())
    cuts = cut(inside, SEMICOLON)
    cuts = cut(inside, _COMMA) if len(cuts) == 1 else cuts
    items = tuple(item for item in (part.strip() for part in cuts) if item)
    opening, closing = _OUTWARD.get(opening, opening), _OUTWARD.get("-" + closing, closing)
    return Items(opening, closing, items) if opening or len(items) > 1 else None


_OUTWARD = {"]": "(", "-[": ")"}  # ]0, 1[ is (0, 1)


def _brackets(text: str) -> tuple[str, str, str]:
    """Take the pair of brackets off that encloses a whole text."""
    opening = next((b for b in (r"\{", "(", "[", "{", "]") if text.startswith(b)), "")
    closing = next((b for b in (r"\}", ")", "]", "}", "[") if text.endswith(b)), "")
    inside = text[len(opening) : len(text) - len(closing)]
    if not opening or not closing or (opening == r"\{") != (closing == r"\}") or len(text) < 2:
        return "", "", text
    depth = 0
    for token in _TOKEN.findall(inside):
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth < 0:
            return "", "", text
    return (opening, closing, inside) if depth == 0 else ("", "", text)


def _decide_items(gold: str, answer: str) -> bool | None:
    """Compare two lists of numbers; None where an element is something else, or where the brackets tell them apart."""
    left, right = split_items(gold), split_items(answer)
    if left is None or right is None or min(len(left.items), len(right.items)) < 2:
        return None
    values = [[value(item) for item in side.items] for side in (left, right)]
    if any(number is None for side in values for number in side):
        return None
    if len(values[0]) != len(values[1]):
        return None if left.opening == right.opening == r"\{" else False
    if not same_brackets(left, right):  # [0, 1) is not (0, 1), but what a bare list stands for depends
        return False if left.opening and right.opening else None
    if not is_ordered(left, right):
        values = [sorted(side, key=lambda n: n.value if n else 0) for side in values]
    return all(same(g, a) for g, a in zip(*values, strict=True) if g and a)


def is_ordered(gold: Items, answer: Items) -> bool:
    """Tell whether the order counts: for tuples and intervals, but not for sets and bare lists."""
    return any(side.opening in ("(", "[") for side in (gold, answer))


def same_brackets(gold: Items, answer: Items) -> bool:
    """Tell whether brackets agree: `[0, 1)` only with itself; a tuple and a set only with a bare list as well."""
    if {gold.opening, answer.opening} == {"(", r"\{"}:
        return False
    if any("[" in (side.opening, side.closing) or "]" in (side.opening, side.closing) for side in (gold, answer)):
        return (gold.opening, gold.closing) == (answer.opening, answer.closing)
    return True
