"""One side of an equation in a thought, worked out exactly, for `step_check`."""

import operator
from collections.abc import Callable
from fractions import Fraction
from functools import cached_property
from typing import Any

_MAX_BITS = 1024  # a larger value is not read
CLOSERS, BRACKETS = {"(": ")", "[": "]", "{": "}"}, frozenset("()[]{}")
_OPERATORS: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "+": (1, operator.add), "-": (1, operator.sub), "*": (2, operator.mul), "@": (2, operator.mul),
    "/": (2, operator.truediv), "^": (3, operator.pow), "\\": (0, operator.truediv),
}  # fmt: skip


class Side:
    """One side's exact value, and how many of its operators do something, as that of `7 * 1` does not.

    A ValueError says that it is no expression, has two readings, or is too large.
    """

    def __init__(self, tokens: list[str], units: set[str]) -> None:
        self.tokens, self.units, self.steps, self.is_undefined = tokens, units, 0, False
        bare = [token for token in tokens if token not in BRACKETS]
        self.key = tuple(sorted(t.strip("0").rstrip(".") if "." in t else t for t in bare))
        numbers = [token for token in bare if token[-1].isdigit()]
        self.number = numbers[0] if len(numbers) == 1 else ""
        self.percents = bare.count("%") / max(len(numbers), 1)
        self.rest = ["", *reversed(tokens)]
        self.value = self.read()
        is_sum = not {"+", "-"}.isdisjoint(tokens[1:])
        is_mixed = len(units) > 1 or "@" in tokens or 0 < self.percents < 1
        if self.rest != [""] or (is_sum and is_mixed) or {"\\", "%"}.issubset(tokens):
            raise ValueError("`3 5`, `2 weeks + 3 days`, `100 - 20%`")

    @cached_property
    def numbers(self) -> frozenset[Fraction]:
        """The numbers that it is made of, without their signs; `25` and 1/4 for `25%`."""
        plain = [Fraction(token) for token in self.tokens if token[-1].isdigit()]
        return frozenset(plain + [number / 100 for number in plain] * ("%" in self.tokens))

    def rounding(self, sign: str, other: "Side") -> Fraction | int:
        """Return half a unit of the last digit shown where this side may be rounded, or 0."""
        digits, _, decimals = self.number.partition(".")
        places = min(len(decimals), 12) + (2 if self.percents else 0)  # a float's last digits are noise
        if sign == "≈" and not decimals:
            places -= len(digits) - len(digits.rstrip("0") or "0")  # `1234 * 5 ≈ 6200`
        is_rounded = sign == "≈" or (places >= 2 and not {"/", "\\", "%"}.isdisjoint(other.tokens))
        return Fraction(10) ** -places / 2 if self.number and is_rounded else 0

    def read(self, rank: int = 0) -> Fraction:
        """Read on while operators bind more tightly than `rank`; the cap on tokens bounds the recursion."""
        value = self.atom()
        while (sign := self.rest[-1]) in _OPERATORS and _OPERATORS[sign][0] > rank:
            self.rest.pop()
            value = self.apply(sign, value, self.read(_OPERATORS[sign][0]))
        return value

    def atom(self) -> Fraction:
        token = self.rest.pop()
        if token == "-":
            value = -self.atom()
        elif token == "\\":
            value = self.apply(token, self.atom(), self.atom())
        elif token in CLOSERS:
            value = self.read()
            if self.rest.pop() != CLOSERS[token]:
                raise ValueError("`(3 + 4]`")
        else:
            value = Fraction(token)  # a ValueError where it is no number
        if token == "-" and self.rest[-1] == "^":
            raise ValueError("`-2^2`")
        return value / 100 if self.rest[-1] == "%" and self.rest.pop() else value

    def apply(self, sign: str, a: Fraction, b: Fraction) -> Fraction:
        """Work out one operator; division by zero makes the side undefined, and whatever it is compared with false."""
        self.steps += 0 not in (a, b) and (sign in "+-" or b != 1) and (sign not in "*@^" or a != 1)
        if (sign in "/\\" and b == 0) or (sign == "^" and a == 0 and b < 0):
            self.is_undefined = True
            return Fraction(0)
        if (sign in "/^" and self.rest[-1] == sign) or (sign == "^" and b.denominator > 1):
            raise ValueError("`6/1/2`, `2^3^2`, `2^0.5`")
        bits = a.numerator.bit_length() + a.denominator.bit_length()
        if bits * (abs(b) if sign == "^" else 1) > _MAX_BITS:
            raise ValueError("`9^9999`")
        return _OPERATORS[sign][1](a, b)
