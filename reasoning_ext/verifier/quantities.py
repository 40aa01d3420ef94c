r"""Quantities: numbers with units of measurement or money, converted by sympy's units."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from sympy.physics import units

from reasoning_ext.verifier.algebra import equal_formulas, equal_trees, fraction, trees
from reasoning_ext.verifier.formula import Tree, letters
from reasoning_ext.verifier.numbers import Number, number, same, value
from reasoning_ext.verifier.units import parts_of, unit_key

_MONEY = {"dollar": ("dollar", 100), "cent": ("dollar", 1)}
_NAMES = frozenset("euro yen rupee celsius fahrenheit kelvin sterling".split())
_FACTORS = {
    "week": ("day", 7), "month": ("common_year", Fraction(1, 12)), "year": ("common_year", 1),
    "gallon": ("liter", Fraction("3.785411784")),
    "ounce": ("pound", Fraction(1, 16)), "ton": ("kilogram", 1000), "tonne": ("kilogram", 1000), "mph": ("mile/hour", 1),
    "kmh": ("kilometer/hour", 1), "kph": ("kilometer/hour", 1), "byte": ("bit", 8),
}  # fmt: skip
_BASE = (units.meter, units.kilogram, units.second, units.ampere, units.kelvin, units.mole, units.radian)


def is_unit(unit: str) -> bool:
    """Tell whether a text is a unit of measurement or money, and not a thing that is counted."""
    return _unit(unit_key(unit)) is not None


def equal_quantities(gold: tuple[str, str], answer: tuple[str, str]) -> bool:
    """Compare two values with different units: what they measure must be the same.

    Words that are no unit, apples and fruits, count as one another, because nobody knows; `units` is any unit.
    """
    keys = [unit_key(unit) for _, unit in (gold, answer)]
    found = [_unit(key) for key in keys]
    loose = any("unit" in key.split()[:1] or key.startswith("unit") for key in keys) or _are_degrees(keys)
    if loose or (found[0] is None and found[1] is None):
        return _same_value(gold[0], answer[0], sympy.Integer(1))
    if found[0] is None or found[1] is None:
        return False
    factor = sympy.simplify(found[0] / found[1])
    return bool(factor.is_number) and _same_value(gold[0], answer[0], factor)


def equal_sums(gold: list[tuple[str, str]], answer: list[tuple[str, str]]) -> bool | None:
    """Compare `3 hours 20 minutes` with `200 minutes`; None where a unit is not known."""
    sums = []
    for side in (gold, answer):
        parts = [(value(core), _unit(unit_key(unit))) for core, unit in side]
        if any(number is None or unit is None for number, unit in parts):
            return None
        sums.append(sum(sympy.Rational(*n.value.as_integer_ratio()) * unit for n, unit in parts if n))
    if any(isinstance(total, sympy.Add) for total in sums):
        return None  # of different dimensions: a list
    return bool(sympy.simplify(sums[0] - sums[1]) == 0)


def _are_degrees(keys: list[str]) -> bool:
    """Tell whether one side says degrees and the other says which."""
    return "degree" in keys and bool({"celsius", "fahrenheit"} & set(keys))


def _same_value(gold: str, answer: str, factor: Any) -> bool:
    if factor == 1:
        return equal_formulas(gold, answer)
    left, right = trees(gold, answer)
    if left is None or right is None or not any((factor * sympy.pi**n).is_Rational for n in (-1, 0, 1)):
        return False
    power = 1 if (factor / sympy.pi).is_Rational else -1 if (factor * sympy.pi).is_Rational else 0
    rational = sympy.Rational(factor / sympy.pi**power)
    scaled: Tree = ("*", left, ("number", Fraction(int(rational.p), int(rational.q))))
    if power:
        scaled = ("*" if power > 0 else "/", scaled, ("constant", "pi"))
    if equal_trees(scaled, right):
        return True
    shown, close = number(answer), fraction(scaled) if not letters(scaled) else None
    if shown and close is not None:
        return same(Number(close), shown)
    return False


@lru_cache(maxsize=1024)
def _unit(key: str) -> Any:
    """Read a unit's key as a product of base units, None where it is no unit; what follows a known unit says nothing."""
    total, known = sympy.Integer(1), False
    for i, part in enumerate(key.split("/")):
        for word in part.split():
            match = re.fullmatch(r"([a-z_]+)(?:\^(-?\d))?", word)
            one = _one_unit(match[1]) if match else None
            if one is None:
                return total if known and i == 0 and match and not match[2] else None
            power = int(match[2] or 1) if match else 1
            total, known = total * one ** (power if i == 0 else -power), True
    return total if known else None


def _one_unit(name: str) -> Any:
    if name in _MONEY:
        return _MONEY[name][1] * sympy.Symbol("money", positive=True)
    if name in _NAMES:
        return sympy.Symbol(name, positive=True)
    name, power = parts_of(name)
    base, factor = _FACTORS.get(name, (name, 1))
    if "/" in base:
        above, below = (_one_unit(part) for part in base.split("/"))
        return above / below
    one = getattr(units, base, None)
    if not isinstance(one, units.Quantity):
        return None
    return sympy.Rational(str(factor)) * sympy.Integer(10) ** power * units.convert_to(one, _BASE)
