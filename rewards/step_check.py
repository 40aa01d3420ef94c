r"""The share of a thought's equations that hold, by exact arithmetic: a small dense reward beside the answer's.

Only plain arithmetic is judged: variables, times, ranges, mixed numbers, remainders, code and questions are skipped and
not wrong. Easy sums still pay: weigh it little and gate it on `math_answer`. Every pass over the text is linear.
"""

import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import chain, groupby, pairwise
from typing import Any

from reasoning_ext import think

_MAX_TOKENS, _MAX_DIGITS, _MAX_BITS = 64, 30, 1024  # a longer side, number or value is not read
# Possessive quantifiers (`++`) never backtrack; the first alternative that matches wins.
_TOKEN = re.compile(
    r"""^[ \t]*+(?:[-*•#>]++|[0-9]++[.)])[ \t]++             # the bullet or the number of a list item
    | [^\S\n]++ | \n++ | (?:https?://|www\.)\S*+ | 0[xX]\w++
    | \\(?:(?:begin|end)\{[^{}]*+\} | [A-Za-z]++ | [^A-Za-z])
    | (?:[0-9]++(?:(?:[.,:]|\{,\}|,\\!)[0-9]++)*+|(?<!\w)\.[0-9]++)(?:(?![xX][0-9(])\w)*+  # 1,200 3.5 2n 3:45
    | (?<=[0-9)\]}%])[xX](?=[0-9(]) | (?:divided|multiplied)\ by
    | \w++[(\[]?                                              # a word, or a call: f(
    | (?<!\s):[\s)"] | \.[\s)"] | ,\s?(?:with\ )?(?:a\ )?rem  # `17/5 = 3, remainder 2`
    | [-=]{1,2}+> | [-+*/<>!?:~^|]?=[=<>~]*+ | \*\* | --++ | .""",
    re.VERBOSE | re.MULTILINE,
)
_NUMBER = re.compile(r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})++|0|[1-9][0-9]*+)?(?:\.[0-9]++)?")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*+\{([^{}]*+)\}")
_DOT = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")  # perhaps thousands
_CUT = re.compile(r"(?<=[0-9][.,])[ \t]*+\n[ \t]*+(?=[0-9])")
_BOLD = re.compile(r"(?<!\S)\*\*(?=\S)|(?<=\S)\*\*(?![^\s.,:;)])")

# Tokens: numbers, words, `+-*/^%`, `@` (of), `\` (frac), brackets, `=`, `≈`, `;` (a clean break), `!` (one that leaves
# doubt before it) and `#`, anything else: what touches it is not read.
_SPELLINGS = {
    "+": "+ plus", "-": "- − – minus", "*": r"* × · ⋅ ∙ ∗ ✕ \times \cdot \ast times", "/": r"/ ÷ ∕ ⁄ \div", "^": "^ **",
    "%": r"% \% percent", "\\": r"\frac \dfrac \tfrac", "=": "=", "≈": r"≈ \approx", "\n": "\\\\", "!": "! ?",
    "(": "(", ")": ")", "[": "[", "]": "]", "{": "{", "}": "}",
    " ": r"$ € £ ¥ & \$ \, \; \: \! \( \) \left \right \boxed \displaystyle",
    ";": r'; , " ` • → ⇒ ✓ ✔ ✅ \[ \] \quad \qquad \to \rightarrow \Rightarrow \implies \therefore',
}  # fmt: skip
_KNOWN = {spelling: token for token, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_KNOWN |= {"divided by": "/", "multiplied by": "*"}
_CLOSERS, _BRACKETS = {"(": ")", "[": "]", "{": "}"}, frozenset("()[]{}")
_OPERATORS: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "+": (1, operator.add), "-": (1, operator.sub), "*": (2, operator.mul), "@": (2, operator.mul),
    "/": (2, operator.truediv), "^": (3, operator.pow), "\\": (0, operator.truediv),
}  # fmt: skip
# Words that change the number beside them, or deny an equation; words that, just before a number, make it a label.
_UNCLEAR = re.compile(
    "dozens?|hundreds?|thousands?|[bmtr]+illions?|cents?|half|halves|thirds?|quarters?|fourths?|fifths?|tenths?|twice"
    "|double|triple|squared?|cubed?|root|sqrt|log|ln|sin|cos|tan|exp|mod|modulo|rem|remainder|factorial|choose|pi|power"
    "|negative|average|mean|median|max|min|gcd|lcm|base|binary|not|wrong|incorrect|false"
)
_LABELS = frozenset({"day", "week", "month", "year", "step", "case", "option", "part"})
# Words that are no unit; words that, between two numbers, may stand for an operator: first, or last.
_PROSE = frozenset({"as", "because", "if", "is", "since", "so", "then", "we"})
_LIKE_OPERATORS = frozenset({"of", "by", "over", "per", "divided", "multiplied"})
_JOINING = _LIKE_OPERATORS | {"and", "or", "to", "from", "than", "with", "through", "versus", "vs"}


def step_check(completions: list, *, min_equations: int = 1, **kwargs: Any) -> list[float | None]:
    r"""Reward true arithmetic inside the thought: the share of its distinct equations that hold.

    An equation needs an operator. `10/3 = 3.33` holds: after a division or a percentage, a number with two decimals or
    more may be rounded; after `≈` any number may. A division by zero is false. What is true for free earns nothing: the
    same sum again, turned round or with more decimals, `2+3 = 3+2`, and sums with neutral numbers only, `7*1 = 7`.

    Args:
        completions: N completions, messages or strings.
        min_equations: distinct equations that a thought needs to be judged.

    Returns:
        N rewards between 0.0 and 1.0; None without a closed thought or with fewer equations.

    Raises:
        ValueError: `min_equations` is not a whole number from 1.

    Example:
        >>> thoughts = ["17 x 20 = 340, so 340 + 51 = 391", r"\frac{1}{2} + 3 = 4; 20% of 50 = 10", "x = 5"]
        >>> step_check([f"<think>{thought}</think>391" for thought in thoughts])
        [1.0, 0.5, None]
    """
    if type(min_equations) is not int or min_equations < 1:
        raise ValueError(f"step_check: found min_equations={min_equations!r}; allowed: whole numbers from 1")
    verdicts = [_verdicts(_mended(think.split(think.content(completion)).thought or "")) for completion in completions]
    return [sum(holds) / len(holds) if len(holds) >= min_equations else None for holds in verdicts]


def equations(thought: str) -> list[str]:
    """Return a thought's equations as they can be read, in their order and without white space: the way that it takes.

    >>> equations("First 3 + 4 = 7, then I take 7*2=14.")
    ['3+4=7', '7*2=14']
    """
    read = (equation for statement in _statements(_readable(_mended(thought))) for equation in _equations(statement))
    return ["".join([*left.tokens, sign, *right.tokens]) for left, sign, right in read]


def _verdicts(thought: str) -> list[bool]:
    """Tell of each distinct equation whether it holds."""
    judged, read = set(), {*_statements(_readable(thought))}
    for left, sign, right in {equation for statement in read for equation in _equations(statement)}:
        if (holds := _holds(left, sign, right)) is not None:  # a true result is no part of what makes a sum distinct
            judged.add((frozenset(side.key for side in (left, right) if not (holds and side.number)), holds))
    return [holds for _, holds in judged]


def _mended(thought: str) -> str:
    """Join a number that a line break has cut in two, `18*3.\\n14159 = 56.54862`, where more holds that way."""
    pieces = _CUT.split(thought)  # what stands between two breaks is judged with both, so that the time is linear
    read = ((_verdicts(a + b), _verdicts(f"{a}\n{b}")) for a, b in pairwise(pieces))
    ends = ["" if 2 * sum(joined) - len(joined) > 2 * sum(apart) - len(apart) else "\n" for joined, apart in read]
    return "".join(chain.from_iterable(zip(pieces, [*ends, ""], strict=True)))


def _readable(thought: str) -> str:
    """Take bold type and text commands out; GSM8K's `48/2 = <<48/2=24>>24` has the equation twice, and gets a line for it."""
    line, *pieces = _BOLD.sub("", _TEXT.sub(r" \1 ", thought)).split("<<")
    split = [piece.partition(">>") for piece in pieces]
    lines = [line + "".join(after if closed else f"#{inside}" for inside, closed, after in split)]
    return "\n".join([*lines, *(inside for inside, closed, _ in split if closed), ""])


def _statements(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the tokens between clean breaks; a line that ends in an operator, or is followed by `=`, goes on."""
    raws = _TOKEN.findall(text)
    meanings = {raw: _KNOWN.get(raw) or _token(raw) for raw in set(raws)}
    tokens, line_ended = list[str](), False
    for token in map(meanings.__getitem__, raws):
        if token == "\n":
            line_ended = True
        elif token != " ":
            if token in ";!" or (line_ended and token not in "=≈" and not (tokens and tokens[-1] in "+-*/^=≈")):
                yield (*tokens, "#") if token == "!" else tuple(tokens)
                tokens = []
            line_ended = False
            tokens += [token] * (token not in ";!")
    yield tuple(tokens)


def _token(raw: str) -> str:
    if raw.isspace():
        return "\n" if raw[0] == "\n" else " "
    if raw[-1].isspace() or (raw[0] in "-=" and raw[-1] == ">") or (raw[0] in ".:\\" and raw[-1] in ')"}'):
        return ";"
    if raw.isalpha():
        return raw.lower()
    number = raw.replace("{,}", ",").replace(r",\!", ",") if len(raw) <= _MAX_DIGITS else "#"
    return number.replace(",", "") if _NUMBER.fullmatch(number) else "#"


def _equations(statement: tuple[str, ...]) -> Iterator[tuple["_Side", str, "_Side"]]:
    """Yield the two sides of each sign where both can be read and one has something to work out."""
    if "=" not in statement and "≈" not in statement:
        return
    flat: list[str] = []
    groups = [(is_phrase, list(group)) for is_phrase, group in groupby(statement, str.isalpha)]
    for (is_phrase, group), (_, following) in zip(groups, [*groups[1:], (False, [""])], strict=True):
        flat += _link(flat, group, following[0]) if is_phrase else group
    left, sign, runs = None, "", [list[str]()]
    for token in [*flat, "="]:
        if token == ";":
            runs.append([])
        elif token in ("=", "≈"):
            if left and (right := _side(*runs[0][: _MAX_TOKENS + 1])) and not (left.number and right.number):
                yield left, sign, right
            left, sign = _side(*runs[-1][: _MAX_TOKENS + 1], is_left=True), token
            if left and left.number and (left.units or len(runs) > 1):
                left = None  # a label, or a unit converted: `day 2 = 3 + 4`, `2 kg = 2 * 1000`
            runs = [[]]
        else:
            runs[-1].append(token)


def _link(before: list[str], phrase: list[str], after: str) -> list[str]:
    """Say what words between two other tokens are: a unit, an operator, prose (a clean break) or unclear."""
    last = before[-1] if before else ""
    starts = after[:1].isdigit() or after[:1] == "." or after == "\\" or after in _CLOSERS
    unclear = any(map(_UNCLEAR.fullmatch, phrase[:3] + phrase[-3:] * starts)) or (starts and phrase[-1] in _LABELS)
    if not (last[-1:].isdigit() or last in _CLOSERS.values() or last == "%"):  # prose, or a variable
        return [";"] if starts and not unclear and len(phrase[-1]) > 1 else ["#"]
    is_share = last in "%}" or before[-2:-1] == ["/"]
    sign = {"x": "*", "of": "@" if is_share else ""}.get(phrase[-1], "") if starts else ""
    unit = phrase[:-1] if sign else phrase
    is_unit = len(unit) <= 3 and all(
        len(word) > 1 and word not in _PROSE for word in unit
    )  # a letter may be a variable
    if sign and is_unit and not unclear:
        return [*unit[:1], sign]
    if sign or unclear or phrase[0] in _LIKE_OPERATORS or len("".join(phrase)) == 1:
        return ["#"]
    if starts or after == "#":
        return ["#"] if phrase[-1] in _JOINING else [phrase[0], ";"]
    return phrase[:1] if not after or (is_unit and after not in "^%") else ["#"]


@lru_cache(maxsize=4096)
def _side(*run: str, is_left: bool = False) -> "_Side | None":
    if "#" in run or len(run) > _MAX_TOKENS:
        return None
    tokens = [token for token in run if not token.isalpha()]
    extra = sum(token in _CLOSERS for token in tokens) - sum(token in _CLOSERS.values() for token in tokens)
    if extra > 0 and _BRACKETS.issuperset(tokens[:extra]):  # `(so 3 + 4 = 7)`
        tokens = tokens[extra:]
    elif not is_left and extra < 0 and _BRACKETS.issuperset(tokens[extra:]):
        tokens = tokens[:extra]
    try:
        return _Side(tokens, {unit.rstrip("es") for unit in run if unit.isalpha()})  # so that boxes and box are one
    except ValueError:
        return None


def _holds(left: "_Side", sign: str, right: "_Side") -> bool | None:
    """Compare the sides; None where they can be read in two ways, or hold without anything being worked out."""
    if (left.units and right.units and left.units.isdisjoint(right.units)) or "@" in right.tokens:
        return None  # `1 hour / 4 = 15 minutes`, `1 - 2/3 = 1/3 of the 12`
    if left.is_undefined or right.is_undefined:
        return False
    slack = max(left.rounding(sign, right), right.rounding(sign, left))
    if abs(left.value - right.value) <= slack:
        return True if left.steps + right.steps and left.key != right.key else None
    for one, two in ((left, right), (right, left)):
        is_range = one.value < 0 and len(one.tokens) == 3 and one.tokens[1] == "-" != two.tokens[0]  # `3-5 = 2 years`
        is_loose = one.percents and not two.percents and abs(100 * one.value - two.value) <= 100 * slack
        if is_range or is_loose:  # `15/60*100 = 25%`
            return None
    first, second = (_side(*(t.replace(".", "") if _DOT.fullmatch(t) else t for t in s.tokens)) for s in (left, right))
    is_pointed = first and second and first.value == second.value  # `1000*3 = 3.000`
    return None if is_pointed or (sign == "≈" and not (left.number or right.number)) else False


class _Side:
    """One side's exact value, and how many of its operators do something, as that of `7 * 1` does not.

    A ValueError says that it is no expression, has two readings, or is too large.
    """

    def __init__(self, tokens: list[str], units: set[str]) -> None:
        self.tokens, self.units, self.steps, self.is_undefined = tokens, units, 0, False
        bare = [token for token in tokens if token not in _BRACKETS]
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

    def rounding(self, sign: str, other: "_Side") -> Fraction | int:
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
        elif token in _CLOSERS:
            value = self.read()
            if self.rest.pop() != _CLOSERS[token]:
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
