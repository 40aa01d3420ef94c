r"""Formulas read with math-verify and compared by value: this and `comparing` are all in the project that touches sympy.

Two numbers are equal when they agree to 20 of 30 digits, two expressions in the same symbols when they agree at four points,
two equations in several symbols when they are proportional: stricter and faster than rounding and `simplify`, by which
1/2004! = 1/2006! (huggingface/Math-Verify#14). Sets, matrices and the rest are math-verify's.
"""

import logging
import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.function import AppliedUndef

from reasoning_ext.verifier.numbers import Number, number, same

logging.getLogger("math_verify").setLevel(
    logging.CRITICAL
)  # it warns that its alarm is off, which kills nothing anyway
DIGITS = 30
_PLAIN = LatexExtractionConfig()
_TARGETS = (
    replace(_PLAIN, boxed_match_priority=0, normalization_config=replace(_PLAIN.normalization_config, units=False)),
)
_ASCII = [
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<!\\)\*"), r"\\cdot "),
    (re.compile(r"\^\s*(-?\d{2,}|-\d)"), r"^{\1}"),
    (re.compile(r"(?<![\\A-Za-z])a(sin|cos|tan)(?=\()"), r"\\arc\1"),
    (
        re.compile(r"(?<![\\A-Za-z])(pi|alpha|beta|theta|(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|ln|log)(?![A-Za-z])"),
        r"\\\1 ",
    ),
    (re.compile(r"(?<![\\A-Za-z])(?:oo|inf|infinity)(?![A-Za-z])"), r"\\infty "),
]
_CALLS = {  # names of sympy's, as plain golds have them, with their arguments written in LaTeX
    "sqrt": r"\sqrt{{{0}}}", "exp": "e^{{{0}}}", "Abs": "|{0}|", "abs": "|{0}|", "factorial": "({0})!",
    "floor": r"\lfloor {0} \rfloor",
    "Rational": r"\frac{{{0}}}{{{1}}}", "binomial": r"\binom{{{0}}}{{{1}}}", "Eq": "{0}={1}", "Interval": "[{0},{1}]",
    "Interval.open": "({0},{1})", "Interval.Ropen": "[{0},{1})", "Interval.Lopen": "({0},{1}]",
}  # fmt: skip
_CALL = re.compile(r"(?<![\\A-Za-z.])(" + "|".join(sorted(map(re.escape, _CALLS), key=len, reverse=True)) + r")\s*\(")
_MATRIX = re.compile(r"Matrix\(\[(\[.*\])\]\)")
_FACTORS = {  # units that sympy lacks, in one that it has
    "week": ("day", 7), "month": ("year", Fraction(1, 12)), "lb": ("pound", 1),
    "gallon": ("liter", Fraction("3.785411784")),
}  # fmt: skip


@lru_cache(maxsize=4096)
def parsed(text: str) -> tuple[Any, ...]:
    """Parse a clean text, also `sqrt(3)/2`, `x**2` and `Rational(1, 2)`, which are not LaTeX; empty where nobody can."""
    text = _with_braces(text)
    for pattern, replacement in _ASCII if "\\begin" not in text else ():
        text = pattern.sub(replacement, text)
    found = parse(f"${text}$", _TARGETS, fallback_mode="no_fallback", parsing_timeout=None)
    return tuple(_with_imaginary_unit(one) for one in found)


def value_of(text: str) -> Any:
    """Return the value of a text as a sympy number of 30 digits, or None where it has letters or cannot be read."""
    plain = number(text)
    if plain is not None:
        return sympy.Rational(plain.value.numerator, plain.value.denominator)
    found = parsed(text)
    if not found or not isinstance(found[0], sympy.Expr) or found[0].free_symbols or _holds_steps(found[0]):
        return None
    value = _numeric(found[0])
    return value if value.is_number else None


def near(left: Any, right: Any) -> bool:
    """Tell whether two numbers agree to 20 digits."""
    gap, size = abs(sympy.N(left - right, DIGITS)), max(abs(sympy.N(left, 15)), abs(sympy.N(right, 15)))
    return bool(gap <= size * sympy.Float(10) ** -20)


def fraction(value: Any) -> Fraction:
    """Turn a real sympy number into an exact fraction."""
    value = sympy.Rational(sympy.re(value))
    return Fraction(int(value.p), int(value.q))


def equal_formulas(gold: str, answer: str) -> bool:
    """Compare by value where both sides are expressions in the same symbols, with math-verify otherwise."""
    left, right = parsed(gold), parsed(answer)
    if not left or not right:
        return False
    g, a = left[0], right[0]
    if isinstance(g, sympy.Expr) and isinstance(a, sympy.Expr) and not _holds_steps(g) and not _holds_steps(a):
        if not g.free_symbols and not a.free_symbols:
            return _equal_values(g, a, number(gold), number(answer))
        if g.free_symbols == a.free_symbols:
            return _equal_at_points(g, a)
        return bool(g.free_symbols and a.free_symbols) and _verify(g, a)
    if isinstance(g, sympy.Eq) and isinstance(a, sympy.Eq) and len(g.free_symbols) > 1 and not g.lhs.is_Symbol:
        return g.free_symbols == a.free_symbols and _proportional(g, a)
    return _verify(g, a)


def region(text: str) -> tuple[Any, set[str]] | None:
    r"""Return the set of numbers that inequalities in one symbol describe, and the symbol, or None.

    `x < 1 \text{ or } x > 3`, `3 > x \ge 2`, `\{x \mid 0 \le x \le 1\}`, and sets and intervals themselves.
    """
    built = re.fullmatch(r"\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid|\||:)\s*(.*)\\\}", text)
    text = built[1].strip() if built else text
    parts = re.split(
        r"\\text\s*\{\s*(or|and)\s*\}|\\(lor|land)(?![a-z])|(?<![A-Za-z])(or|and)(?![A-Za-z])|\\(cup|cap)(?![a-z])",
        text,
    )
    joints = {joint for joint in parts if joint in ("or", "lor", "cup", "and", "land", "cap")}
    either = joints <= {"or", "lor", "cup"}
    if not either and not joints <= {"and", "land", "cap"}:
        return None
    pieces = [_piece(part.strip()) for part in parts if part and part not in joints]
    found = [piece for piece in pieces if piece is not None]
    if len(found) < len(pieces):
        return None
    symbols = {symbol for _, names in found for symbol in names}
    whole = (sympy.Union if either else sympy.Intersection)(*(one for one, _ in found))
    return (whole, symbols) if len(symbols) < 2 else None


def _piece(text: str) -> tuple[Any, set] | None:
    """Read one interval or one chain of inequalities, and its symbols."""
    if re.search(r">|\\ge(?![a-z])", text) and not re.search(r"<|\\le(?![a-z])|=", text):
        signs = re.findall(r">|\\ge(?![a-z])", text)
        turned = {">": "<", r"\ge": r"\le "}
        sides = re.split(r">|\\ge(?![a-z])", text)[::-1]
        text = sides[0] + "".join(turned[sign] + side for sign, side in zip(signs[::-1], sides[1:], strict=True))
    found = parsed(text)
    if not found:
        return None
    one = found[0]
    if isinstance(one, sympy.Set):
        return one, set()
    relations = getattr(one, "_unsorted_args", None) or [one]
    if not all(isinstance(r, sympy.core.relational.Relational) and not isinstance(r, sympy.Eq) for r in relations):
        return None
    if len(one.free_symbols) != 1:
        return None
    return sympy.Intersection(*(relation.as_set() for relation in relations)), {s.name for s in one.free_symbols}


def unit_ratio(gold: str, answer: str) -> Any:
    """Return how many of the answer's units one of the gold's is; None where they measure different things.

    Words that are no physical unit, apples and fruits, count as one, because nobody knows.
    """
    left, right = (_unit(unit) for unit in (gold, answer))
    if left is None or right is None:
        return 1
    ratio = sympy.simplify(left / right)
    return ratio if ratio.is_number else None


def _unit(text: str) -> Any:
    """Read a unit as a product of base units, or return None."""
    from sympy.physics import units

    money = {"dollar": 100, "dollars": 100, "cent": 1, "cents": 1, "¢": 1}
    text = re.sub(r"\\text|[{}\\]", " ", text).strip().lower()
    spelled = {
        "mph": "mile/hour",
        "km/h": "kilometer/hour",
        "kmh": "kilometer/hour",
        "kph": "kilometer/hour",
        "m/s": "meter/second",
    }
    total = sympy.Integer(1)
    for i, part in enumerate(spelled.get(text, text).replace(" per ", "/").split("/")):
        power = re.search(r"\^?\s*([23])$", part.strip())
        word = re.sub(r"\b(?:square|sq|cubic|cu)\b\.?|\^?\s*[23]$", "", part.strip()).strip()
        exponent = int(power[1]) if power else 2 if re.search(r"\bsq", part) else 3 if re.search(r"\bcu", part) else 1
        if word in money:
            one = money[word] * sympy.Symbol("cent", positive=True)
        else:
            base, factor = _FACTORS.get(word.removesuffix("s"), (word, 1))
            one = getattr(units, base, None) or getattr(units, base.removesuffix("s"), None)
            if not isinstance(one, units.Quantity):
                return None
            one = sympy.Rational(factor) * units.convert_to(
                one, [units.meter, units.kilogram, units.second, units.radian]
            )
        total *= one ** (exponent if i == 0 else -exponent)
    return total


def _with_braces(text: str) -> str:
    """Write `sqrt(...)`, `^(...)` and calls of sympy's in LaTeX."""
    if matrix := _MATRIX.search(text):
        rows = r" \\ ".join(row.replace(",", " & ") for row in re.findall(r"\[([^\[\]]*)\]", matrix[1]))
        text = text[: matrix.start()] + r"\begin{pmatrix}" + rows + r"\end{pmatrix}" + text[matrix.end() :]
    for opener in (_CALL, re.compile(r"\\sqrt\s*\("), re.compile(r"\^\s*\(")):
        while match := opener.search(text):
            end, arguments = _arguments(text, match.end())
            name = match[1] if opener is _CALL else "sqrt" if "sqrt" in match[0] else ""
            slots = _CALLS.get(name, "^{{{0}}}")
            if len(arguments) != slots.count("{0}") + slots.count("{1}"):
                return text
            text = text[: match.start()] + slots.format(*arguments) + text[end:]
    return text


def _arguments(text: str, start: int) -> tuple[int, list[str]]:
    """Split what stands in the round brackets that open before `start` at its commas; also say where they close."""
    depth, arguments, last = 1, [], start
    for i in range(start, len(text)):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[i], 0)
        if depth == 0 or (depth == 1 and text[i] == ","):
            arguments.append(text[last:i].strip())
            last = i + 1
        if depth == 0:
            return last, arguments
    return len(text), [*arguments, text[last:].strip()]


def _with_imaginary_unit(one: Any) -> Any:
    """Read the letter i as the imaginary unit in both sides, which math-verify does by the look of each alone."""
    if not isinstance(one, sympy.Expr):
        return one
    return one.subs({symbol: sympy.I for symbol in one.free_symbols if symbol.name == "i"})


def _holds_steps(expression: Any) -> bool:
    """Tell whether an expression holds what `evalf` would spend its time on, or what is no number at all."""
    kinds = (
        sympy.Sum,
        sympy.Product,
        sympy.Integral,
        sympy.Derivative,
        sympy.Limit,
        sympy.zoo,
        sympy.nan,
        AppliedUndef,
    )
    return expression.has(*kinds)


def _numeric(expression: Any) -> Any:
    """Evaluate to 30 digits, decimals taken as exact."""
    return sympy.N(sympy.nsimplify(expression, rational=True).doit(), DIGITS)


def _equal_values(gold: Any, answer: Any, plain_gold: Number | None, plain_answer: Number | None) -> bool:
    """Compare two numbers; a decimal may be the other one rounded."""
    left, right = _numeric(gold), _numeric(answer)
    if not left.is_finite or not right.is_finite:
        return bool(left == right)
    if left.is_real and right.is_real and (plain_gold or plain_answer):
        return same(plain_gold or Number(fraction(left)), plain_answer or Number(fraction(right)))
    return near(left, right)


def _points(symbols: set) -> list[dict]:
    """Return points to compare expressions at: no two coordinates equal, all combinations of signs at the first ones."""
    ordered = sorted(symbols, key=lambda s: s.name)
    shifts = (3, -7, 11, -19, 29, -37)
    return [
        {s: sympy.Rational((-1) ** (n >> 1 & i) * shift * (i + 2), 13 + 4 * i) for i, s in enumerate(ordered)}
        for n, shift in enumerate(shifts)
    ]


def _equal_at_points(gold: Any, answer: Any) -> bool:
    """Compare two expressions at four points: two that agree there to 20 digits are the same."""
    compared = 0
    for point in _points(gold.free_symbols):
        left, right = (_numeric(side.subs(point)) for side in (gold, answer))
        if not (left.is_number and right.is_number and left.is_finite and right.is_finite):
            continue
        if not near(left, right):
            return False
        compared += 1
        if compared == 4:
            return True
    return compared > 1 or _verify(gold, answer)


def _proportional(gold: Any, answer: Any) -> bool:
    """Tell whether two equations in several symbols are the same up to a constant factor."""
    left, right = gold.lhs - gold.rhs, answer.lhs - answer.rhs
    ratios = []
    for point in _points(gold.free_symbols)[:3]:
        above, below = (_numeric(side.subs(point)) for side in (left, right))
        if not (above.is_number and below.is_number) or not above.is_finite or not below.is_finite or near(below, 0):
            return _verify(gold, answer)
        ratios.append(above / below)
    return all(near(ratios[0], ratio) for ratio in ratios) and not near(ratios[0], 0)


def _verify(gold: Any, answer: Any) -> bool:
    """Ask math-verify; `1 < x < 2` and `(1, 2)` are the same set, whichever side writes it how."""
    return bool(verify([gold], [answer], timeout_seconds=None, allow_set_relation_comp=True))
