"""Exact arithmetic over whole numbers and fractions, without `eval`: Python's parser reads, this file calculates, in bounds."""

import ast
import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

from reasoning_ext.tools.library import ToolError

MOST_DIGITS, MOST_CHARACTERS, MOST_LEVELS = 4000, 2000, 800  # levels: whatever recursion the process allows
_BITS = int(MOST_DIGITS * math.log2(10))
_SIGNS = str.maketrans({"×": "*", "·": "*", "∙": "*", "÷": "/", "−": "-", "–": "-", "^": "**", "[": "(", "]": ")"})
_TOO_LARGE = f"the result has more than {MOST_DIGITS} digits"


def calculator(expression: str) -> str:
    """Calculates exactly. Knows + - * / // % ** ( ), sqrt, gcd, lcm, factorial, comb, abs, min, max and round.

    Args:
        expression: what to calculate, for example (12 + 3/4) * 2**10

    Returns:
        The exact result; of a fraction also the decimal.
    """
    if len(expression) > MOST_CHARACTERS:
        raise ToolError(f"found {len(expression)} characters, allowed: {MOST_CHARACTERS}")
    try:
        tree, source = _parse(expression.translate(_SIGNS).strip().rstrip("=?").strip())
        if _levels(tree) > MOST_LEVELS:
            raise RecursionError
        return _written(_value(tree, source))
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ToolError):
            raise
        raise ToolError(f"cannot read {expression[:80]!r}") from None


def _parse(source: str) -> tuple[ast.expr, str]:
    """Read an expression; commas that stand between thousands are taken out where it has no meaning with them."""
    plain = re.sub(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)", lambda number: number[0].replace(",", ""), source)
    try:
        tree = ast.parse(source, mode="eval").body
        nodes = [] if source == plain else list(ast.walk(tree))
        zeros = [ast.get_source_segment(source, node) for node in nodes if isinstance(node, ast.Constant)]
        if not any(isinstance(node, ast.Tuple) for node in nodes) and "000" not in zeros:
            return tree, source
    except SyntaxError:
        if source == plain:
            raise
    return ast.parse(plain, mode="eval").body, plain


def _levels(tree: ast.AST) -> int:
    level, count = [tree], 0
    while level:
        level, count = [part for node in level for part in ast.iter_child_nodes(node)], count + 1
    return count


def _value(node: ast.expr, source: str) -> Fraction:
    """Calculate a parsed expression; ToolError for what is not known, and before anything large is worked out."""
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return _number(ast.get_source_segment(source, node) or "")
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand, source)
        case ast.UnaryOp(op=ast.UAdd()):
            return _value(node.operand, source)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _bounded(_OPERATORS[type(node.op)](_value(node.left, source), _value(node.right, source)))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            function, least, most = _FUNCTIONS[name]
            if not least <= len(node.args) <= most:
                raise ToolError(f"{name} takes {least if least == most else f'{least} or more'} numbers")
            return _bounded(Fraction(function(*[_value(one, source) for one in node.args])))
    known = f"numbers, + - * / // % ** ( ), {', '.join(_FUNCTIONS)}"
    raise ToolError(f"cannot calculate {(ast.get_source_segment(source, node) or source)[:80]!r}, allowed: {known}")


def _number(text: str) -> Fraction:
    _, _, exponent = text.lower().partition("e")
    if text[:2].lower() not in ("0x", "0o", "0b"):
        if exponent and abs(int(exponent)) > MOST_DIGITS:
            raise ToolError(_TOO_LARGE)
        return _bounded(Fraction(text))
    return _bounded(Fraction(int(text, 0)))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _BITS:
        raise ToolError(_TOO_LARGE)
    return value


def _whole(name: str, value: Fraction) -> int:
    if value.denominator != 1:
        raise ToolError(f"{name} takes whole numbers")
    return value.numerator


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ToolError("an exponent must be a whole number; sqrt(x) is the square root")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())  # of b bits: at least (b - 1) * exponent
    if (size - 1) * abs(exponent) > _BITS:
        raise ToolError(_TOO_LARGE)
    if size == 1 and base.denominator == 1:  # 0, 1 or -1, whatever the exponent
        return base ** (exponent.numerator % 2 or 2 * (exponent != 0)) if exponent >= 0 or base else 1 / base
    return Fraction(base ** int(exponent))


def _sqrt(value: Fraction) -> Fraction:
    if value < 0:
        raise ToolError("the square root of a negative number is not real")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root != value:
        with localcontext(prec=15):
            about = (Decimal(value.numerator) / value.denominator).sqrt()
        raise ToolError(f"sqrt({value}) is no fraction, it is about {about}"[:200])
    return root


def _factorial(value: Fraction) -> int:
    if not 0 <= _whole("factorial", value) <= MOST_DIGITS // 2:
        raise ToolError("factorial takes no negative numbers" if value < 0 else _TOO_LARGE)
    return math.factorial(int(value))


def _comb(of: Fraction, some: Fraction) -> int:
    n, k = _whole("comb", of), _whole("comb", some)
    if n < 0 or k < 0:
        raise ToolError("comb takes no negative numbers")
    least = min(k, n - k)  # comb(n, k) is at least (n / k) ** k
    if least > _BITS or least * (n.bit_length() - least.bit_length() - 1) > _BITS:
        raise ToolError(_TOO_LARGE)
    return math.comb(n, k)


def _round(value: Fraction, digits: Fraction | None = None) -> Fraction | int:
    if digits is not None and abs(digits) > MOST_DIGITS:
        raise ToolError(f"round takes at most {MOST_DIGITS} digits")
    return round(value) if digits is None else round(value, _whole("round", digits))


def _of_whole(name: str, function: Callable[..., int]) -> Callable[..., int]:
    return lambda *values: function(*[_whole(name, value) for value in values])


_OPERATORS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: lambda a, b: Fraction(a % b),
    ast.Pow: _power,
}
_FUNCTIONS: dict[str, tuple[Callable, int, int]] = {  # and how many numbers it takes, from and to
    "sqrt": (_sqrt, 1, 1),
    "gcd": (_of_whole("gcd", math.gcd), 2, 99),
    "lcm": (_of_whole("lcm", math.lcm), 2, 99),
    "factorial": (_factorial, 1, 1),
    "comb": (_comb, 2, 2),
    "abs": (abs, 1, 1),
    "min": (min, 2, 99),
    "max": (max, 2, 99),
    "round": (_round, 1, 2),
}


def _written(value: Fraction) -> str:
    """Write a result: `7`, `3/8 = 0.375`, `1/3 = 0.333333333333333...`."""
    if value.denominator == 1:
        return str(value.numerator)
    with localcontext(prec=15):
        decimal = Decimal(value.numerator) / value.denominator
        exact = Fraction(decimal) == value
    return (
        f"{value} = {decimal.normalize():f}" + ("" if exact else "...") if abs(decimal.adjusted()) < 20 else str(value)
    )
