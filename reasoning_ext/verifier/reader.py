"""The reader of formulas, by recursive descent; see `formula` for what the trees are."""

import re
from fractions import Fraction

from reasoning_ext.verifier.tokens import GREEK, INVERSE, NAMES, SAME, SEVERAL, Tree, Unreadable, as_number, called

_CLOSING = {"(": ")", "{": "}", "[": "]"}
_MIXED = re.compile(r"frac (?:(\d)(\d) |(?:\{ (\d+) \}|(\d)) (?:\{ (\d+) \}|(\d+)) )|(\d+) / (\d+) ")
_APPLIED = frozenset("fghFGP")
_TIMES, _OVER = ("*", "cdot", "times", "ast"), ("/", "div")


class Reader:
    """Recursive descent over tokens; `bars` counts the open |."""

    def __init__(self, tokens: list[tuple[str, str]]):
        self.tokens, self.at, self.bars = tokens, 0, 0

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

    def sum(self) -> Tree:
        terms: list[Tree] = []
        while not terms or self.peek() in (("sign", "+"), ("sign", "-")):
            negative = False
            while self.peek() in (("sign", "+"), ("sign", "-")):
                negative ^= self.take("-") or not self.take("+")
            term = self.product()
            terms.append(("-", term) if negative else term)
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self, argument: bool = False) -> Tree:
        """Read factors; as an argument without brackets, up to an operator or the next function."""
        tree = self.power()
        while True:
            if not argument and self.take(*_TIMES):
                tree = _times(tree, self.signed())
            elif not argument and self.take("bmod", "mod"):
                tree = ("mod", _closed(tree), self.signed())
            elif not argument and self.take(*_OVER):
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
        known = value in NAMES | GREEK | {"frac", "binom", "pi", "lfloor", "lceil", "text", "overline", "bar", "{"}
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
        tree = self.operand()
        while True:
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
        return as_number(value[0])

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
        kind, value = self.peek()
        self.at += 1
        if kind == "number":
            return self.decimal(value)
        if kind == "letter":
            if value in ("e", "i") and self.peek()[1] != "_":
                return ("constant", value)
            letter = self.letter(value)
            called_so = value in _APPLIED and self.take("(")  # f(x) is a function of x, not a product
            return (f"apply {letter[1]}", *self.listed(")")) if called_so else letter
        if kind == "sign" and value in "({[":
            tree = self.sum()
            self.need(_CLOSING[value])
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
            return ("number", as_number(value)[1] + Fraction(int(period), (10 ** len(period) - 1) * 10**places))
        whole = as_number(value)
        part = self.small_fraction() if value.isdecimal() else None
        return ("number", whole[1] + part) if part is not None else whole

    def small_fraction(self) -> Fraction | None:
        """Go over a fraction of two integers behind an integer, with which it is a mixed number; looked up, not read."""
        ahead = "".join(f"{value} " for _, value in self.tokens[self.at : self.at + 8])
        if match := _MIXED.match(ahead):
            above, below = (int(group) for group in match.groups() if group)
            self.at += match[0].count(" ") if below else 0
            return Fraction(above, below) if below else None
        if self.peek()[0] == "number":
            raise Unreadable  # two numbers side by side
        return None

    def listed(self, closing: str) -> list[Tree]:
        """Read what commas part, up to a closing bracket."""
        found = [self.sum()]
        while self.take(","):
            found.append(self.sum())
        self.need(closing)
        return found

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
            return self.function(SAME.get(name, name))
        if name in ("lfloor", "lceil"):
            tree = self.sum()
            self.need("r" + name[1:])
            return (SAME[name], tree)
        if name in GREEK:
            return self.letter("\\" + name)
        if name in ("overline", "bar"):
            start, inside = self.at, self.raw()
            self.at = start
            if "i" in inside and not inside.isalpha():
                return ("conjugate", self.group())
        if name == "text":
            inside = self.raw().strip()
            if inside in NAMES:
                return self.function(SAME.get(inside, inside))
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
        if exponent == ("-", ("number", Fraction(1))) and name in INVERSE:
            name, exponent = INVERSE[name], None
        arguments = self.arguments(name)
        with_base = name in ("log", "lg") and len(arguments) == 2
        if not with_base and (len(arguments) > 1) != (name in SEVERAL):
            raise Unreadable
        tree = called(name, arguments, index)
        return tree if exponent is None else ("^", tree, exponent)

    def arguments(self, name: str) -> list[Tree]:
        """Read the arguments in brackets, or the one without."""
        kind, value = self.peek()
        if (kind, value) == ("command", "{") or (kind == "sign" and value in _CLOSING):
            self.at += 1
            return self.listed(_CLOSING[value])
        if (kind, value) == ("sign", "-"):
            return [self.signed()]
        if name != "sqrt":
            return [self.product(argument=True)]
        return [self.operand()]  # all of 16 in `\sqrt16`, which is what was meant


def _times(product: Tree, factor: Tree) -> Tree:
    """Put a factor to a product that is being read; one node, however many they are."""
    return (*product, factor) if product[0] == "product" else ("product", product, factor)


def _closed(product: Tree) -> Tree:
    """Return a product that has been read whole, which stays apart from the factors behind it."""
    return ("*", *product[1:]) if product[0] == "product" else product
