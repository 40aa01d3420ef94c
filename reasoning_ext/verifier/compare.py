"""What the verifier's workers do: compare a clean gold and a clean answer, part by part, with algebra at the leaves.

Exact rationals first (`exact.decide`), then lists element by element, chains, ratios, units, regions of a line, and at last
formulas (`algebra`). A chain such as `41 = 42`, an approximation or a list is the gold's equal only where all that it claims is.
"""

import re

from reasoning_ext.verifier.algebra import equal_formulas, fraction, near, parsed, region, unit_ratio, value_of
from reasoning_ext.verifier.exact import Items, assigned, decide, is_name, is_ordered, same_brackets, split_items
from reasoning_ext.verifier.numbers import number, split_unit, unit_key

_RELATION = re.compile(r"(?<![<>!\\:])=|\\approx(?![a-z])")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|neq)(?![a-z])")
_MEMBER = re.compile(r"^\s*(?:[A-Za-z](?:_\{?\w\}?)?(?:\([a-z]\))?)\s*\\in(?![a-z])")
_OPTION = re.compile(r"(?:option|choice|answer)\s+\(?([A-J])\)?", re.IGNORECASE)
_LABEL = re.compile(r"(?:\\text\s*\{\s*)?(?:\(([A-J])\)|([A-J])(?:[.)]|:(?=\s)))(?:\s*\})?\s*([^-+*/^=\s,].*)")
_UNREADABLE = re.compile(r"\d\s+\d|\d_|[#@?]")  # read by math-verify as sums, products, or not at all
_WORD = re.compile(r"[A-Za-z]{4,}")
_CASES = re.compile(r"\\begin\{cases\}([^&]*)\\end\{cases\}")


def compare(item: tuple[str, str | None]) -> bool:
    """Judge one pair of a clean gold and a clean answer; with None for the answer, tell whether the gold can be read."""
    gold, answer = item
    return bool(parsed(gold)) if answer is None else equal(gold, answer)


def equal(gold: str, answer: str, depth: int = 0) -> bool:
    """Tell whether two clean answers are equal."""
    verdict = decide(gold, answer)
    if verdict is not None or depth > 6:
        return bool(verdict)
    if _WORD.fullmatch(gold) and _WORD.fullmatch(answer):
        return False  # as products of letters, anagrams would be equal
    if (_INEQUALITY.search(gold) or _INEQUALITY.search(answer)) and _equal_regions(gold, answer):
        return True
    gold, answer = (_MEMBER.sub("", _CASES.sub(_listed, side)) for side in (gold, answer))
    if _UNREADABLE.search(answer):
        return False
    if r"\ldots" in gold + answer or ":" in gold + answer:
        return _equal_sequences(gold, answer, depth)
    if _labelled(answer):
        return any(equal(gold, part, depth + 1) for part in _labelled(answer))
    if _labelled(gold):
        return any(equal(part, answer, depth + 1) for part in _labelled(gold))
    if _is_list(answer) and _equal_items(gold, answer, depth):
        return True
    one = not _is_list(answer) and not _INEQUALITY.search(answer)  # `1; 5 = 8` and `x > 7 = 8` are no chains
    if one and _RELATION.search(answer) and not _RELATION.search(gold):
        return _equal_chain(gold, answer, depth)
    value, other = assigned(gold), assigned(answer)
    product = re.match(r"[a-z]{2,3}\s*=", gold)  # xy = 1 is an equation, AB = 1 names a length
    if value is not None and not product and not _RELATION.search(answer):
        return equal(value, answer, depth + 1)
    if value and other and re.match(r"\w\(", gold) and re.match(r"\w\(", answer) and gold[0] == answer[0]:
        return value_of(value) is not None and equal(value, other, depth + 1)  # f(x) = 1 and f(n) = 1
    return _equal_items(gold, answer, depth) or _equal_measures(gold, answer)


def _labelled(text: str) -> tuple[str, ...]:
    """Return what `(C) 12`, `C. 12` or `Option C` may stand for, the letter and the value; nothing for anything else."""
    if option := _OPTION.fullmatch(text):
        return (option[1],)
    label = _LABEL.fullmatch(text)
    return (label[1] or label[2], label[3]) if label else ()


def _listed(cases: re.Match) -> str:
    return ", ".join(row.strip() for row in cases[1].split(r"\\"))


def _equal_sequences(gold: str, answer: str, depth: int) -> bool:
    """Compare `1, 2, \\ldots, n`, `3:2` and `12:00` part by part; ratios of plain numbers up to a factor."""
    gold, answer = (assigned(side) or side for side in (gold, answer))
    separator = ":" if ":" in gold + answer else ","
    left, right = ([part.strip() for part in side.split(separator) if part.strip()] for side in (gold, answer))
    if len(left) != len(right):
        return separator == "," and gold == answer
    values = [[number(part) for part in side] for side in (left, right)]
    if (
        separator == ":"
        and all(n and n.value for side in values for n in side)
        and not any(p[0] == "0" for p in left + right)
    ):
        return len({g.value / a.value for g, a in zip(*values, strict=True) if g and a}) == 1
    return all(g == a if r"\ldots" in (g, a) else equal(g, a, depth + 1) for g, a in zip(left, right, strict=True))


def _equal_chain(gold: str, answer: str, depth: int) -> bool:
    """Compare `x = 6 \\cdot 7 = 42 \\approx 41.9` with a gold that is no equation.

    The name in front says nothing. Every number in the chain must be the gold, so that `41 = 42` is no answer; what
    stands behind an approximation sign counts only if it is the gold and close to what stands before it.
    """
    parts = [part.strip() for part in _RELATION.split(answer)]
    signs = [match.group() for match in _RELATION.finditer(answer)]
    named = is_name(parts[0])
    if named and len(parts) > 1:
        parts, signs = parts[1:], signs[1:]
    about = next((i for i, sign in enumerate(signs) if sign != "="), len(signs))
    exact, rough = parts[: about + 1], parts[about + 1 :]
    unit = unit_key(split_unit(exact[-1])[1])
    measures = [core for core, other in map(split_unit, exact) if unit_key(other) == unit]  # not 1 km = 1000 m
    values = [value for core in measures if (value := value_of(core)) is not None]
    right = equal(gold, exact[-1], depth + 1)
    if rough and (not named or not right):
        consistent = all(_is_rounding(part, exact[-1]) for part in rough)
        return consistent and (right or any(equal(gold, part, depth + 1) for part in rough))
    return right and all(near(values[0], value) for value in values)


def _is_rounding(rough: str, exact: str) -> bool:
    shown, value = number(rough), value_of(exact)
    return shown is not None and value is not None and abs(shown.value - fraction(value)) < (shown.unit or 1)


def _is_list(text: str) -> bool:
    items = split_items(text)
    return items is not None and len(items.items) > 1


def _equal_items(gold: str, answer: str, depth: int) -> bool:
    """Compare two lists of equal length element by element."""
    left, right = split_items(gold), split_items(answer)
    if left is None or right is None or not same_brackets(left, right):
        return False
    if len(left.items) != len(right.items) and "=" in gold + answer:  # x = 1, y = 2 and x = 3, y = 4
        left, right = (Items("(", ")", _flat(side)) for side in (left, right))
    if len(left.items) != len(right.items):
        return False
    if len(left.items) == 1:
        return bool(left.opening == right.opening) and equal(left.items[0], right.items[0], depth + 1)
    if is_ordered(left, right):
        return all(equal(g, a, depth + 1) for g, a in zip(left.items, right.items, strict=True))
    rest = list(right.items)
    for g in left.items:
        found = next((a for a in rest if equal(g, a, depth + 1)), None)
        if found is None:
            return False
        rest.remove(found)
    return True


def _flat(items: Items) -> tuple[str, ...]:
    """List the innermost elements of a list of lists, names taken off."""
    inner = [split_items(assigned(item) or item) for item in items.items]
    parts = [_flat(i) if i else (assigned(item) or item,) for item, i in zip(items.items, inner, strict=True)]
    return tuple(element for part in parts for element in part)


def _equal_measures(gold: str, answer: str) -> bool:
    """Compare with the units taken off; two different units must measure the same."""
    (gold_core, gold_unit), (answer_core, answer_unit) = split_unit(gold), split_unit(answer)
    if gold_unit and answer_unit and unit_key(gold_unit) != unit_key(answer_unit):
        factor = unit_ratio(gold_unit, answer_unit)
        left, right = value_of(gold_core), value_of(answer_core)
        return factor is not None and left is not None and right is not None and near(left * factor, right)
    return equal_formulas(gold_core, answer_core)


def _equal_regions(gold: str, answer: str) -> bool:
    """Compare inequalities and sets of numbers as sets."""
    left, right = region(gold), region(answer)
    if left is None or right is None or (left[1] and right[1] and left[1] != right[1]):
        return False
    return bool(left[0] == right[0] or left[0].symmetric_difference(right[0]).is_empty)
