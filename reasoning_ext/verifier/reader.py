"""The reader of formulas, by recursive descent; see `formula` for what the trees are."""

import re
from fractions import Fraction
from typing import Any

from reasoning_ext.verifier.tokens import GREEK, NAMES, Unreadable

Tree = tuple[Any, ...]
MAX_DEPTH = 60
_SAME = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "acot": "arccot", "asinh": "arsinh", "acosh": "arcosh",
    "atanh": "artanh", "sign": "sgn", "Abs": "abs", "ceiling": "ceil", "signum": "sgn", "realpart": "Re", "imagpart": "Im",
    "lceil": "ceil", "lfloor": "floor", "Rational": "/",
}  # fmt: skip
_INVERSE = {
    "sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sinh": "arsinh", "cosh": "arcosh", "tanh": "artanh",
}  # fmt: skip
_SEVERAL = frozenset("gcd lcm max min mod binomial / log root".split())
_ACCENTS = frozenset("overline bar vec hat tilde dot ddot overrightarrow widehat mathcal mathscr mathfrak".split())
_APPLIED = frozenset("fghFGP")
_TIMES, _OVER = ("*", "cdot", "times", "ast"), ("/", "div")


def _number(text: str) -> Tree:
    mantissa, _, power = text.partition("e")
    whole, _, places = mantissa.partition(".")
    value = Fraction(int(whole + places or "0"), 10 ** len(places))
    return ("number", value * Fraction(10) ** int(power) if power else value)


class Reader:
    """Recursive descent over tokens; `bars` counts the open |."""

    def __init__(self, tokens: list[tuple[str, str]]):
        self.tokens, self.at, self.depth, self.wraps, self.bars = tokens, 0, 0, 0, 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *signs: str) -> bool:
        """Go over the next token if it is one of these signs or commands."""
        kind, value = self.peek()
        found = kind in ("sign", "command") and value in signs
        self.at += found
        return found

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise Unreadable

    def deeper(self, steps: int = 1) -> None:
        """Count how deep the tree gets, so that whatever walks it does not."""
        self.depth += steps
        if self.depth > MAX_DEPTH:
            raise Unreadable

    def wrapped(self) -> None:
        """Count what makes the tree deeper in a loop: divisions, exponents, factorials."""
        self.wraps += 1
        if self.wraps > MAX_DEPTH:
            raise Unreadable

    def sum(self) -> Tree:
        self.deeper()
        terms = []
        while True:
            negative = False
            while self.peek()[1] in ("+", "-") and self.peek()[0] == "sign":
                negative ^= self.tokens[self.at][1] == "-"
                self.at += 1
            term = self.product()
            terms.append(("-", term) if negative else term)
            if self.peek() not in (("sign", "+"), ("sign", "-")):
                break
        self.deeper(-1)
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self, argument: bool = False) -> Tree:
        """Read factors; as an argument without brackets, up to an operator or the next function."""
        tree = self.power()
        while True:
            if not argument and self.take(*_TIMES):
                tree = _times(tree, self.signed())
            elif not argument and self.take("bmod", "mod"):
                self.wrapped()
                tree = ("mod", _closed(tree), self.signed())
            elif not argument and self.take(*_OVER):
                self.wrapped()
                below = self.signed()
                while below[0] not in ("number", "-") and self.goes_on(below) and self.peek()[0] != "number":
                    below = _times(below, self.power())
                tree = ("/", _closed(tree), _closed(below))
            elif self.goes_on(tree) and not (argument and self.ends_argument(tree)):
                tree = _times(tree, self.power())
            else:
                return _closed(tree)

    def signed(self) -> Tree:
        """Read a factor behind an operator, which may have a sign: `2*-3`."""
        if self.take("-"):
            self.wrapped()
            return ("-", self.signed())
        return self.power()

    def goes_on(self, tree: Tree) -> bool:
        """Tell whether the next token starts another factor of a product without a sign."""
        kind, value = self.peek()
        last = tree[-1] if tree[0] == "product" else tree
        if kind == "number":
            return last[0] not in ("number", "letter", "degrees")
        if kind == "letter":
            return True
        if kind == "sign":
            return value in "({[" or (value == "|" and not self.bars)
        known = value in NAMES | GREEK | _ACCENTS | {"frac", "binom", "pi", "lfloor", "lceil", "text", "{"}
        return kind == "command" and known and value != "mod"

    def ends_argument(self, tree: Tree) -> bool:
        """Tell whether an argument without brackets ends here: at a function, and behind a letter at e and at a bracket."""
        kind, value = self.peek()
        if kind == "command":
            return value in NAMES
        last = tree[-1] if tree[0] == "product" else tree
        return last[0] != "number" and ((kind == "sign" and value in "([|") or (kind == "letter" and value == "e"))

    def power(self) -> Tree:
        """Read an operand and what is behind it: exponents, factorials, per cent, degrees."""
        self.deeper()
        tree = self.operand()
        self.deeper(-1)
        while True:
            if self.peek()[1] in ("!", "%", "degree", "^", "**"):
                self.wrapped()
            if self.take("!"):
                tree = ("factorial2" if self.take("!") else "factorial", tree)
            elif self.take("%"):
                tree = ("/", tree, ("number", Fraction(100)))
            elif self.take("degree"):
                tree = ("degrees", tree)
            elif self.take("^", "**"):
                tree = self.raised(tree)
            else:
                return tree

    def raised(self, base: Tree) -> Tree:
        """Read an exponent."""
        rest = self.tokens[self.at : self.at + 3]
        if rest[:1] == [("command", "circ")] or rest == [("sign", "{"), ("command", "circ"), ("sign", "}")]:
            self.at += 1 if rest[0][1] == "circ" else 3
            return ("degrees", base)
        return ("^", base, self.exponent())

    def exponent(self) -> Tree:
        self.wrapped()
        if self.take("-"):
            return ("-", self.exponent())
        self.take("+")
        if self.peek() in (("sign", "{"), ("sign", "(")):
            return self.operand()
        tree = self.operand()
        return ("^", tree, self.exponent()) if self.take("^", "**") else tree

    def group(self) -> Tree:
        """Read the argument of a command: what is in braces, or one digit or letter."""
        if self.take("{"):
            tree = self.sum()
            self.need("}")
            return tree
        kind, value = self.peek()
        if kind != "number" or not value[0].isdigit():
            return self.operand()
        if len(value) > 1:
            self.tokens[self.at : self.at + 1] = [("number", value[0]), ("number", value[1:])]
        self.at += 1
        return _number(value[0])

    def raw(self) -> str:
        """Read an index or a name in braces as text."""
        if not self.take("{"):
            self.at += 1
            return self.tokens[self.at - 1][1]
        parts: list[str] = []
        depth = 1
        while True:
            value = self.tokens[self.at][1]
            self.at += 1
            depth += {"{": 1, "}": -1}.get(value, 0)
            if depth == 0:
                return "".join(parts)
            parts.append(value if value not in ("{", "text") else "")

    def operand(self) -> Tree:
        """Read one number, letter, bracket or command with its arguments."""
        self.deeper()
        tree = self.inside_operand()
        self.deeper(-1)
        return tree

    def inside_operand(self) -> Tree:
        kind, value = self.peek()
        self.at += 1
        if kind == "number":
            return self.decimal(value)
        if kind == "letter":
            if value in _APPLIED and (applied := self.applied(value)):
                return applied
            return ("constant", value) if value in ("e", "i") and self.peek()[1] != "_" else self.letter(value)
        if kind == "sign" and value in "({[":
            tree = self.sum()
            self.need({"(": ")", "{": "}", "[": "]"}[value])
            return tree
        if kind == "sign" and value == "|":
            self.bars += 1
            tree = self.sum()
            self.need("|")
            self.bars -= 1
            return ("abs", tree)
        if kind != "command":
            raise Unreadable
        return self.command(value)

    def decimal(self, value: str) -> Tree:
        """Read a number, with a period (`0.1\\overline{6}`) or as the whole of a mixed one (`3\\frac17`, `3 1/7`)."""
        if "." in value and self.take("overline", "bar", "dot"):
            period, places = self.raw(), len(value.partition(".")[2])
            if not period.isdecimal():
                raise Unreadable
            return ("number", _number(value)[1] + Fraction(int(period), (10 ** len(period) - 1) * 10**places))
        whole = _number(value)
        part = self.small_fraction() if value.isdecimal() else None
        return ("number", whole[1] + part) if part is not None else whole

    def small_fraction(self) -> Fraction | None:
        """Go over a fraction of two integers behind an integer, with which it is a mixed number; looked up, not read."""
        ahead = self.tokens[self.at : self.at + 8]
        if ahead[:1] == [("command", "frac")]:
            values, taken = _two_groups(ahead[1:])
            taken += 1
        elif len(ahead) > 2 and ahead[0][0] == ahead[2][0] == "number":
            if ahead[1] != ("sign", "/"):
                raise Unreadable
            values, taken = [ahead[0][1], ahead[2][1]], 3
        elif ahead[:1] and ahead[0][0] == "number":
            raise Unreadable  # two numbers side by side
        else:
            return None
        if len(values) != 2 or not all(map(str.isdecimal, values)) or not int(values[1]):
            return None
        self.at += taken
        return Fraction(int(values[0]), int(values[1]))

    def applied(self, name: str) -> Tree | None:
        """Read f(x) as a function of x, not as a product."""
        start = self.at
        letter = self.letter(name)
        if letter[0] == "letter" and self.take("("):
            arguments = [self.sum()]
            while self.take(","):
                arguments.append(self.sum())
            self.need(")")
            return (f"apply {letter[1]}", *arguments)
        self.at = start
        return None

    def letter(self, name: str) -> Tree:
        """Read what belongs to a letter's name: an index, primes."""
        if self.take("_"):
            name += "_" + self.raw()
        while self.take("'", "prime"):
            name += "'"
        return ("letter", name)

    def command(self, name: str) -> Tree:
        if name == "frac":
            return self.derivative() or ("/", self.group(), self.group())
        if name == "binom":
            return ("binomial", self.group(), self.group())
        if name == "pi":
            return ("constant", "pi")
        if name in NAMES:
            return self.function(_SAME.get(name, name))
        if name in ("lfloor", "lceil"):
            tree = self.sum()
            self.need("r" + name[1:])
            return (_SAME[name], tree)
        if name in GREEK:
            return self.letter("\\" + name)
        if name in _ACCENTS:
            start, inside = self.at, self.raw()
            if name in ("overline", "bar") and not inside.isalpha() and "i" in inside:
                self.at = start
                return ("conjugate", self.group())
            return self.letter(f"\\{name} {inside}")
        if name == "text":
            inside = self.raw().strip()
            if inside in NAMES:
                return self.function(_SAME.get(inside, inside))
            if len(inside) == 1:
                return ("constant", inside) if inside in "ei" else self.letter(inside)
        raise Unreadable

    def derivative(self) -> Tree | None:
        """Read dy/dx as one letter."""
        start = self.at
        if self.peek() == ("sign", "{"):
            above = self.raw()
            below = self.raw() if self.peek() == ("sign", "{") else ""
            if above in ("d", "partial") and re.match(r"(?:d|partial)[A-Za-z]", below):
                raise Unreadable  # an operator, which math-verify reads
            if all(re.fullmatch(r"(?:d|partial)\W*[A-Za-z0-9].*", part) for part in (above, below)):
                return ("letter", f"{above}/{below}")
        self.at = start
        return None

    def function(self, name: str) -> Tree:
        """Read a function's index, exponent and argument: `\\log_2 8`, `\\sin^2 x`, `\\sqrt[3]{x}`, `gcd(4, 6)`."""
        index = exponent = None
        if name == "sqrt" and self.take("["):
            index = self.sum()
            self.need("]")
        if name == "log" and self.take("_"):
            whole = self.peek()[0] == "number" and self.tokens[self.at + 1 : self.at + 2] == [("sign", "(")]
            index = self.operand() if whole else self.group()
        if self.take("^", "**"):
            exponent = self.group() if self.peek() != ("sign", "-") else self.exponent()
        if exponent == ("-", ("number", Fraction(1))) and name in _INVERSE:
            name, exponent = _INVERSE[name], None
        if name == "log" and index is None and self.take("_"):
            index = self.group()
        arguments = self.arguments(name)
        if (len(arguments) > 1) != (name in _SEVERAL and name != "log") and not (
            name in ("log", "lg") and len(arguments) == 2
        ):
            raise Unreadable
        tree = _called(name, arguments, index)
        return tree if exponent is None else ("^", tree, exponent)

    def arguments(self, name: str) -> list[Tree]:
        """Read the arguments in brackets, or the one without."""
        opened = next((sign for sign in ("(", "{", "[") if self.peek() == ("sign", sign)), None)
        if self.peek() == ("command", "{"):
            opened = "\\{"
        if opened is None:
            if self.peek() == ("sign", "-"):
                return [self.signed()]
            if name != "sqrt":
                return [self.product(argument=True)]
            return [self.operand()]  # all of 16 in `\sqrt16`, which is what was meant
        self.at += 1
        arguments = [self.sum()]
        while self.take(","):
            arguments.append(self.sum())
        if opened == "\\{":
            if self.peek() != ("command", "}"):
                raise Unreadable
            self.at += 1
        else:
            self.need({"(": ")", "{": "}", "[": "]"}[opened])
        return arguments


def _two_groups(tokens: list[tuple[str, str]]) -> tuple[list[str], int]:
    """Return the numbers in the two groups behind a \\frac, and how many tokens these take; fewer where they hold more."""
    values: list[str] = []
    at = 0
    while len(values) < 2 and at < len(tokens):
        kind, value = tokens[at]
        if kind == "number" and len(value) > 1 and not values and value.isdecimal():  # \\frac17
            values, at = [value[0], value[1:]], at + 1
            return (values if len(value) == 2 else []), at
        if kind == "number":
            values, at = [*values, value], at + 1
        elif tokens[at : at + 3][2:] == [("sign", "}")] and value == "{" and tokens[at + 1][0] == "number":
            values, at = [*values, tokens[at + 1][1]], at + 3
        else:
            return [], at
    return values, at


def _times(product: Tree, factor: Tree) -> Tree:
    """Put a factor to a product that is being read; one node, however many they are."""
    return (*product, factor) if product[0] == "product" else ("product", product, factor)


def _closed(product: Tree) -> Tree:
    """Return a product that has been read whole, which stays apart from the factors behind it."""
    return ("*", *product[1:]) if product[0] == "product" else product


def _called(name: str, arguments: list[Tree], index: Tree | None) -> Tree:
    """Write roots, exponentials and logarithms with what they stand for."""
    first = arguments[0]
    if name in ("log", "lg"):
        base = index or (arguments[1] if len(arguments) == 2 else ("number", Fraction(10)) if name == "lg" else None)
        return ("log", first) if base is None else ("log", first, base)
    if name in ("sqrt", "cbrt"):
        degree = ("number", Fraction(3)) if name == "cbrt" else index or ("number", Fraction(2))
        return ("root", first, degree)
    return ("^", ("constant", "e"), first) if name == "exp" else (name, *arguments)
