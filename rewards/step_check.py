r"""The share of a thought's equations that hold, by exact arithmetic: a small dense reward beside the answer's.

Only plain arithmetic is judged: variables, times, ranges, mixed numbers, remainders, code and questions are skipped and
not wrong. Easy sums still pay: weigh it little and gate it on `math_answer`. Every pass over the text is linear.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import chain, groupby, pairwise
from typing import Any, NamedTuple

from reasoning_ext.rewards._side import BRACKETS, CLOSERS, Side

from reasoning_ext import think

_MAX_TOKENS, _MAX_DIGITS = 64, 30  # a longer side or number is not read
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
        completions: N completions, messages or strings; of several turns all thoughts are judged, and no tool's result.
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
    thoughts = ([think.split(text).thought or "" for text in think.said(completion)] for completion in completions)
    judged = [verdicts(steps("\n\n".join(parts))) for parts in thoughts]
    return [sum(holds) / len(holds) if len(holds) >= min_equations else None for holds in judged]


class Step(NamedTuple):
    """One equation of a thought, `17*20=340`: a side that is worked out, and what the other says."""

    text: str  # as it can be read, without white space
    sides: frozenset[tuple[str, ...]]  # what makes it another equation than the next; a true result is no part of that
    holds: bool | None  # None where nobody can tell, or nothing was worked out
    worked: tuple[str, ...]  # the tokens of the side that is worked out, sorted: `3+4` and `4+3` are one
    value: Fraction  # what that side is worth
    numbers: frozenset[Fraction]  # the numbers in it, without their signs
    result: Fraction | None = None  # what the other side says; None where that has several numbers, too
    said: str = ""  # the result as it was written


def steps(thought: str) -> list[Step]:
    """Return a thought's equations as they can be read, in their order.

    >>> [(step.text, step.holds, str(step.result)) for step in steps("First 3 + 4 = 7, then I take 7*2=15.")]
    [('3+4=7', True, '7'), ('7*2=15', False, '15')]
    """
    return _steps(_mended(thought))


def equations(thought: str) -> list[str]:
    """Return a thought's equations as they can be read, in their order and without white space: the way that it takes.

    >>> equations("First 3 + 4 = 7, then I take 7*2=14.")
    ['3+4=7', '7*2=14']
    """
    return [step.text for step in steps(thought)]


def verdicts(steps: list[Step]) -> list[bool]:
    """Tell of each distinct equation that can be judged whether it holds."""
    return [holds for _, holds in {(step.sides, step.holds) for step in steps} if holds is not None]


def _steps(thought: str) -> list[Step]:
    found, known = list[Step](), dict[tuple[str, ...], list[Step]]()  # the same statement again is not judged again
    for statement in _statements(_readable(thought)):
        if statement not in known:
            known[statement] = [_step(*equation) for equation in _equations(statement)]
        found += known[statement]
    return found


def _step(left: Side, sign: str, right: Side) -> Step:
    holds, text = _holds(left, sign, right), "".join([*left.tokens, sign, *right.tokens])
    sides = frozenset(side.key for side in (left, right) if not (holds and side.number))
    worked, other = (right, left) if left.number else (left, right)
    result = (other.value, "".join(other.tokens)) if other.number else (None, "")
    return Step(text, sides, holds, worked.key, worked.value, worked.numbers, *result)


def _mended(thought: str) -> str:
    """Join a number that a line break has cut in two, `18*3.\\n14159 = 56.54862`, where more holds that way."""
    pieces = _CUT.split(thought)  # what stands between two breaks is judged with both, so that the time is linear
    read = ((verdicts(_steps(a + b)), verdicts(_steps(f"{a}\n{b}"))) for a, b in pairwise(pieces))
    ends = ["" if 2 * sum(joined) - len(joined) > 2 * sum(apart) - len(apart) else "\n" for joined, apart in read]
    return "".join(chain.from_iterable(zip(pieces, [*ends, ""], strict=True)))


def _readable(thought: str) -> str:
    """Take bold type and text commands out; GSM8K's `48/2 = <<48/2=24>>24` has it twice, and gets two lines."""
    lines = _BOLD.sub("", _TEXT.sub(r" \1 ", thought)).split("\n")
    return "\n".join([*chain.from_iterable(map(_without_calculator, lines)), ""])


def _without_calculator(line: str) -> list[str]:
    start, *pieces = line.split("<<")
    split = [piece.partition(">>") for piece in pieces]
    outside = start + "".join(after if closed else f"#{inside}" for inside, closed, after in split)
    # no line before goes on there: `9 times`
    return [outside, *(f";{inside}" for inside, closed, _ in split if closed)]


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


def _equations(statement: tuple[str, ...]) -> Iterator[tuple[Side, str, Side]]:
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
    starts = after[:1].isdigit() or after[:1] == "." or after == "\\" or after in CLOSERS
    unclear = any(map(_UNCLEAR.fullmatch, phrase[:3] + phrase[-3:] * starts)) or (starts and phrase[-1] in _LABELS)
    if not (last[-1:].isdigit() or last in CLOSERS.values() or last == "%"):  # prose, or a variable
        return [";"] if starts and not unclear and len(phrase[-1]) > 1 else ["#"]
    is_share = last in "%}" or before[-2:-1] == ["/"]
    sign = {"x": "*", "of": "@" if is_share else ""}.get(phrase[-1], "") if starts else ""
    unit = phrase[:-1] if sign else phrase
    # a letter may be a variable
    is_unit = len(unit) <= 3 and all(len(word) > 1 and word not in _PROSE for word in unit)
    if sign and is_unit and not unclear:
        return [*unit[:1], sign]
    if sign or unclear or phrase[0] in _LIKE_OPERATORS or len("".join(phrase)) == 1:
        return ["#"]
    if starts or after == "#":
        return ["#"] if phrase[-1] in _JOINING else [phrase[0], ";"]
    return phrase[:1] if not after or (is_unit and after not in "^%") else ["#"]


@lru_cache(maxsize=4096)
def _side(*run: str, is_left: bool = False) -> Side | None:
    if "#" in run or len(run) > _MAX_TOKENS:
        return None
    tokens = [token for token in run if not token.isalpha()]
    extra = sum(token in CLOSERS for token in tokens) - sum(token in CLOSERS.values() for token in tokens)
    if extra > 0 and BRACKETS.issuperset(tokens[:extra]):  # `(so 3 + 4 = 7)`
        tokens = tokens[extra:]
    elif not is_left and extra < 0 and BRACKETS.issuperset(tokens[extra:]):
        tokens = tokens[:extra]
    try:
        return Side(tokens, {unit.rstrip("es") for unit in run if unit.isalpha()})  # so that boxes and box are one
    except ValueError:
        return None


def _holds(left: Side, sign: str, right: Side) -> bool | None:
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
