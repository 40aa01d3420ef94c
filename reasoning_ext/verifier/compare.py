r"""What the verifier's workers do: compare a clean gold and a clean answer by kind.

`equal` asks one rule after another; the first that applies decides. What no rule takes is a formula and goes to `algebra`. A
rule is a function of the two texts that returns True, False, or None for "this is not my kind"; docs/judging.md has them all,
with examples, in this order.
"""

import re
from collections.abc import Callable

from reasoning_ext.verifier import algebra, lists, names, quantities
from reasoning_ext.verifier.exact import COLON, INEQUALITY, cut, decide, sides, split_items
from reasoning_ext.verifier.formula import read
from reasoning_ext.verifier.lists import Same, Verdict
from reasoning_ext.verifier.numbers import split_quantities, split_unit
from reasoning_ext.verifier.regions import equal_regions, read_region
from reasoning_ext.verifier.statement import plain
from reasoning_ext.verifier.units import unit_key
from reasoning_ext.verifier.words import is_words, same_words

_REGION = re.compile(r"\\(?:cup|cap|mathbb|setminus|mid|lor|land)(?![a-z])|all real")
_OPTION = re.compile(r"(?:option|choice|answer)\s++\(?([A-J])\)?", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:\\text\s*+\{\s*+)?(?:\(([A-J])\)|([A-J])(?:[.)]|:(?=\s)))(?:\s*+\})?\s*+([^-+*/^=\s,].*+)", re.DOTALL
)
_UNREADABLE = re.compile(r"\d\s++\d|\d_|[#@?]")  # would be read as sums, products, or not at all
_CHARGE = re.compile(r"\^\s*+\{?+([0-9]?+[+-])\}?+(?![0-9A-Za-z])")
_CHEMICAL_MARKUP = re.compile(r"\\(?:text|mathrm|ce)(?![a-z])|[{}_\s]")
_COUNTED = re.compile("[A-Z][a-z]?[0-9+-]")
_CHEMICAL = re.compile(r"(?:[A-Z][a-z]?+|\(|\)|[0-9]++|[+-])++")
MAX_DEPTH = 6


def compare(item: tuple[str, str | None]) -> bool:
    """Judge one pair of a clean gold and a clean answer; with None for the answer, tell whether the gold can be read."""
    gold, answer = item
    if answer is None:
        return is_words(gold) or _is_readable(plain(gold)) or _has_readable_parts(gold)
    return equal(gold, answer)


def equal(gold: str, answer: str, depth: int = 0) -> bool:
    """Tell whether two clean answers are equal.

    Raises:
        TooLarge: they are numbers that nobody can compare in the time there is.
    """
    verdict = decide(gold, answer)
    if verdict is not None or depth > MAX_DEPTH:
        return bool(verdict)
    gold, answer = plain(gold), plain(answer)
    for rule in _RULES:
        verdict = rule(gold, answer, lambda left, right: equal(left, right, depth + 1))
        if verdict is not None:
            return verdict
    return algebra.equal_formulas(gold, answer)


def _chemistry(gold: str, answer: str, same: Same) -> Verdict:
    """Chemical formulas are the same elements, counts and charges, whether these are set as indices or not."""
    found = [_CHEMICAL_MARKUP.sub("", _CHARGE.sub(r"\1", side)) for side in (gold, answer)]
    return True if found[0] == found[1] and _CHEMICAL.fullmatch(found[0]) and _COUNTED.search(found[0]) else None


def _words(gold: str, answer: str, same: Same) -> Verdict:
    """Words are the same words; as products of letters, anagrams would be equal."""
    if (is_words(gold) or is_words(answer)) and same_words(gold, answer):
        return True
    if is_words(gold) or (is_words(answer) and not _is_readable(gold)):
        return None if _REGION.search(gold) else False
    return False if is_words(answer) and not _REGION.search(answer) and len(answer) > 3 else None


def _unreadable(gold: str, answer: str, same: Same) -> Verdict:
    return False if _UNREADABLE.search(answer) and read(answer) is None else None


def _labels(gold: str, answer: str, same: Same) -> Verdict:
    """An option's letter and its text stand for one another: `(C) 12` is `C` and 12."""
    for text, other in ((answer, gold), (gold, answer)):
        if option := _OPTION.fullmatch(text):
            return same(option[1], other)
        if label := _LABEL.fullmatch(text):
            if _LABEL.fullmatch(label[3]) or re.fullmatch(r"\(?[A-J]\)?[.)]?", label[3]):
                return False  # two options
            parts = (label[1] or label[2], label[3])
            if len(other) == 1 and other in "ABCDEFGHIJ":
                return same(parts[0], other)
            return any(same(other, part) if text is answer else same(part, other) for part in parts)
    return None


def _regions(gold: str, answer: str, same: Same) -> Verdict:
    """Inequalities, intervals and set-builder notation are the sets that they describe."""
    if any(INEQUALITY.search(side) or _REGION.search(side) for side in (gold, answer)):
        return equal_regions(gold, answer)
    return None


def _measures(gold: str, answer: str, same: Same) -> Verdict:
    """Quantities: a unit may be left out; two that differ must measure the same."""
    left, right = split_quantities(gold), split_quantities(answer)
    if left and right and max(len(left), len(right)) > 1:
        return quantities.equal_sums(left, right)
    (core, unit), (other, found) = split_unit(gold), split_unit(answer)
    if not unit and not found:
        return None
    if "degree" in (unit_key(unit), unit_key(found)) and r"\pi" in core + other and not (unit and found):
        return None  # degrees beside a multiple of pi are converted
    if unit and found and unit_key(unit) != unit_key(found):
        return quantities.equal_quantities((core, unit), (other, found))
    return same(core, other)


_RULES: tuple[Callable[[str, str, Same], Verdict], ...] = (
    _labels, lists.labelled_parts, lists.matrices, names.piecewise, _chemistry, _regions, _words, _unreadable, names.solved,
    names.solutions, names.named_values, lists.signs, lists.sequences, lists.ratios, lists.in_brackets, names.chains,
    names.equations, _measures,
)  # fmt: skip


def _has_readable_parts(gold: str) -> bool:
    """Tell whether a gold is a list, an equation, a quantity or a chain of what can be read."""
    items = split_items(gold)
    parts = list(items.items) if items else [*cut(gold, COLON)] if ":" in gold else sides(gold)
    if len(parts) == 1:
        rest = split_unit(gold)[0]
        return rest != gold and _is_readable(rest)
    return all(
        is_words(part) or _is_readable(plain(part)) or (part != gold and _has_readable_parts(part)) for part in parts
    )


def _is_readable(text: str) -> bool:
    return algebra.is_readable(text) or read_region(text) is not None
