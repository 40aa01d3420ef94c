r"""Rules for what has a name: named values, equations, definitions of functions, chains, solutions, functions by cases.

A rule takes two clean texts and `same`, which compares parts of them, and returns True, False, or None: not my kind.
"""

import re
from fractions import Fraction
from typing import Any

from reasoning_ext.verifier import algebra, quantities
from reasoning_ext.verifier.exact import (
    INEQUALITY,
    PRODUCT,
    SEMICOLON,
    Items,
    cut,
    is_name,
    key,
    named,
    sides,
    split_items,
)
from reasoning_ext.verifier.lists import APPROX, SIGNS, Same, Verdict, both_signs, in_order, same_elements
from reasoning_ext.verifier.numbers import number, split_unit
from reasoning_ext.verifier.regions import equal_regions
from reasoning_ext.verifier.units import unit_key
from reasoning_ext.verifier.words import same_words

_FUNCTION = re.compile(r"([A-Za-z](?:_\{?\w\}?|'|\^\{-1\})?)\s*+\(([A-Za-z](?:,\s*+[A-Za-z])*+)\)")
_OR = re.compile(r"\\text\s*+\{[^{}]*+\bor\b[^{}]*+\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![a-z])")
_JOINS = re.compile(r"\\text\s*+\{\s*+(?:if|for|when)\s*+\}|\b(?:if|for|when|is)\b|\\quad|,\s*+\Z|\A\s*+,")
_PIECEWISE = re.compile(r"\\begin\s*+\{cases\}((?:[^\\]|\\(?!end\b|begin\b))*+)\\end\s*+\{cases\}")


def named_values(gold: str, answer: str, same: Same) -> Verdict:
    """Values with names belong to them, whatever the order; against values without, they stand in the order of the names."""
    pairs: list[Any] = [_pairs(side) for side in (gold, answer)]
    if None in pairs or max(map(len, pairs)) < 2:
        return None
    left, right = (dict(side) for side in pairs)
    whole = [len(side) == len(given) and "" not in side for side, given in zip((left, right), pairs, strict=True)]
    if all(whole):
        if bool(_OR.search(gold)) != bool(_OR.search(answer)):
            return False  # x = 1 or y = 2
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if not any(whole):
        return None
    names, other = (left, pairs[1]) if whole[0] else (right, pairs[0])
    if len(other) != len(names):
        return None if len(other) < 2 else False
    bare = split_items(gold if whole[1] else answer)
    if whole[1] and bare and not bare.opening:
        return None  # a gold without names and without order
    values, written, by_letter = [one for _, one in other], [*names.values()], [names[name] for name in sorted(names)]
    point = bare is not None and bare.opening == "(" and all(len(name) == 1 for name in names)
    orders = [by_letter] if point else [written, by_letter]
    return any(in_order(values, order, same) if whole[1] else in_order(order, values, same) for order in orders)


def _pairs(text: str) -> list[tuple[str, str]] | None:
    """Read a list as pairs of a name and a value, the name "" where there is none; None where it is no list."""
    name, rest = named(text)
    names, values = split_items(name) if name else None, split_items(rest)
    if names and values and len(names.items) > 1:
        return list(zip(names.items, values.items, strict=True)) if len(names.items) == len(values.items) else None
    items = split_items(text)
    if items is None or len(items.items) < 2:
        return None
    return [_pair(item) for item in items.items]


def _pair(item: str) -> tuple[str, str]:
    """Read one item of a list; what is counted, apples or boys, is a name too."""
    name, rest = named(item)
    if not name:
        core, unit = split_unit(item)
        if unit and not quantities.is_unit(unit):
            return unit_key(unit), core
    return name, rest


def solutions(gold: str, answer: str, same: Same) -> Verdict:
    """Several solutions of several unknowns, `p=5, q=2; p=7, q=2`, in any order."""
    left, right = _rounds(gold), _rounds(answer)
    if not left or not right:
        return None
    return len(left) == len(right) and same_elements(left, right, same)


def _rounds(text: str) -> list[str] | None:
    """List solutions that are written one after the other, each with the same names."""
    semicolon = cut(text, SEMICOLON)
    if len(semicolon) > 1:
        return [part.strip() for part in semicolon] if all("=" in part and "," in part for part in semicolon) else None
    pairs = _pairs(text) if "=" in text else None
    names = [name for name, _ in pairs or ()]
    period = len(set(names))
    if not pairs or "" in names or not 1 < period < len(names) or names != names[:period] * (len(names) // period):
        return None
    rounds = [pairs[i : i + period] for i in range(0, len(pairs), period)]
    return [", ".join(f"{name}={value}" for name, value in one) for one in rounds]


def solved(gold: str, answer: str, same: Same) -> Verdict:
    """A gold that is an equation in one letter is answered by its solutions: `x^2 = 9` by `x = \\pm 3`; not the reverse."""
    parts = sides(gold)
    several = _OR.search(answer) or SIGNS.search(answer) or "," in answer
    if len(parts) != 2 or not several or (named(gold)[0] and not gold.startswith("|")):
        return None
    given = {named(item)[0] for item in (split_items(answer) or Items("", "", (answer,))).items} - {""}
    roots = None if len(given) > 1 else both_signs(answer.replace(r"\\lor", " or "))
    return None if roots is None else algebra.are_solutions(parts, roots)


def chains(gold: str, answer: str, same: Same) -> Verdict:
    """`x = 6 \\cdot 7 = 42 \\approx 41.9` for a gold that is no equation.

    The name in front says nothing. Every number in the chain must be the gold, so that `41 = 42` is no answer; what
    stands behind an approximation sign counts only if it is the gold and close to what stands before it.
    """
    if len(sides(gold)) > 1:
        return _value_of_gold(gold, answer, same)
    parts = sides(answer)
    if len(parts) < 2:
        return None
    items = split_items(answer)
    if "" in parts[1:] or INEQUALITY.search(answer) or (items and len(items.items) > 1):
        return False  # `1; 5 = 8` and `x > 7 = 8` are no chains
    head, *roughly = (part.strip() for part in cut(answer, APPROX))
    exact = [part for part in sides(head) if part]
    if len(gold) == 1 and gold.isupper() and all(len(part) == 1 for part in parts):
        return False  # A = B chooses nothing
    if len(exact) == 2 and not roughly and algebra.is_unsolved(exact[0]):
        return False  # 2x = 5 still has to be solved
    name = named(rf"{exact[0]} = 0")[0] if exact else ""
    if name and (len(exact) > 1 or roughly):
        exact = exact[1:]
    if not exact:
        return any(same(gold, part) for part in roughly) and all(
            same(gold, part) or _is_rounding(part, gold) for part in roughly
        )
    unit = unit_key(split_unit(exact[-1])[1])
    measures = [core for core, other in map(split_unit, exact) if not other or not unit or unit_key(other) == unit]
    right = same(gold, exact[-1])
    if roughly and (not name or not right):
        consistent = all(_is_rounding(part, exact[-1]) for part in roughly)
        return consistent and (right or any(same(gold, part) for part in roughly))
    trees = [core for core in measures if algebra.is_number(core)]
    lists = [part for part in exact[:-1] if (items := split_items(part)) and items.opening and len(items.items) > 1]
    return (
        right
        and all(same(gold, part) for part in lists)
        and all(same(trees[0], other) or ("." in other and _is_rounding(other, trees[0])) for other in trees[1:])
    )


def _is_rounding(rough: str, exact: str) -> bool:
    shown, close = number(split_unit(rough)[0]), algebra.fraction_of(split_unit(exact)[0])
    return shown is not None and close is not None and abs(shown.value - close) <= (shown.unit or Fraction(1, 2))


def _value_of_gold(gold: str, answer: str, same: Same) -> Verdict:
    """A gold that names or defines something is answered by its right side: `x = 5` by 5, `f(x) = 2x` by `2x`."""
    parts, given = sides(gold), sides(answer)
    name = named(gold)[0] if len(parts) == 2 else ""
    if len(parts) > 2 and len(given) < 2:
        return same(parts[-1], answer)
    if not name or PRODUCT.fullmatch(name):
        return None
    if len(given) < 2:
        return same(parts[1], answer)
    if _are_rivals(parts[0], given[0]):
        return False
    other, found = _FUNCTION.fullmatch(parts[0]), _FUNCTION.fullmatch(given[0])
    heads = [key(side).partition("(")[0] for side in (parts[0], given[0])]
    if len(given) == 2 and (other or found) and (heads[0] == heads[1] or "y" in heads):
        return same(parts[1], _renamed(given[1], found, other))
    described = any(re.search("[A-Za-z]{3}", re.sub(r"\\[a-z]++", "", one)) for one in (parts[0], given[0]))
    if key(parts[0]) == key(given[0]):
        return same(parts[1], " = ".join(given[1:])) or (None if len(given) > 2 else False)
    if described and is_name(given[0]):
        return same(parts[1], " = ".join(given[1:])) or None
    solved = algebra.is_number(parts[1]) and len(name) == 1 and key(given[-1]) != name
    return False if solved and algebra.is_unsolved(f"({given[0]})-({given[-1]})") else None


def _are_rivals(name: str, other: str) -> bool:
    """Tell whether two names differ in what sets one thing apart from the next: an index, a prime, the event in P(A)."""
    if not is_name(other):
        return False
    if not re.search(r"\([^()]*[^a-z(), ]", name + other):  # y, y(x) and y(t) are one
        name, other = (text.partition("(")[0] for text in (name, other))
    heads = [key(text)[:1] for text in (name, other)]
    return heads[0] == heads[1] and key(name) != key(other) and len(key(name)) < 9


def _renamed(text: str, found: re.Match | None, wanted: re.Match | None) -> str:
    """Write f(t) = t as f(x) = x, where the letters of the arguments differ."""
    if not found or not wanted or key(found[1]) != key(wanted[1]):
        return text
    old, new = ([name.strip() for name in match[2].split(",")] for match in (found, wanted))
    if len(old) != len(new):
        return text
    names = dict(zip(new, old, strict=True)) | dict(zip(old, new, strict=True))
    return re.sub(r"\\[A-Za-z]++|[A-Za-z]", lambda match: names.get(match[0], match[0]), text)


def equations(gold: str, answer: str, same: Same) -> Verdict:
    """Equations are equal up to a constant factor, and solved or not."""
    if len(sides(gold)) == 2 and len(sides(answer)) == 2:
        return algebra.equal_equations(sides(gold), sides(answer))
    return None


def piecewise(gold: str, answer: str, same: Same) -> Verdict:
    """Functions by cases: the same values under the same conditions, in any order."""
    left, right = _branches(gold), _branches(answer)
    if left is None or right is None:
        return None
    rest = list(right)
    for value_, condition in left:
        there = [one for one in rest if _same_condition(condition, one[1], len(rest) == 1)]
        found = next((one for one in there if same(value_, one[0])), None)
        if found is None:
            return False
        rest.remove(found)
    return not rest


def _branches(text: str) -> list[tuple[str, str]] | None:
    match = _PIECEWISE.search(text)
    rows = [row.partition("&") for row in match[1].split(r"\\") if row.strip()] if match else []
    if not rows or not all(split for _, split, _ in rows):
        return None
    return [(_JOINS.sub("", one).strip(" ,"), _JOINS.sub("", other).strip(" ,.")) for one, _, other in rows]


def _same_condition(gold: str, answer: str, last: bool) -> bool:
    if last and "otherwise" in gold + answer:
        return True
    return key(gold) == key(answer) or same_words(gold, answer) or equal_regions(gold, answer) is True
