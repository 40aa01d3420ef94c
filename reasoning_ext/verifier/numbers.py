r"""Numbers and measures as they are written, read exactly and compared by exact rational arithmetic (FAILURES 12).

A decimal equals an exact value when it is that value rounded, or cut, at four significant digits or more, or the double that
is nearest; `28%` is 7/25, and the bare `28` may stand for it, while `50%` never stands for a gold of 50; `12_7` is not 12.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from reasoning_ext.verifier.formula import read
from reasoning_ext.verifier.rational import exact
from reasoning_ext.verifier.units import UNITS
from reasoning_ext.verifier.words import MATH_WORDS

MAX_DIGITS, MAX_EXPONENT = 1_000, 400
_DOUBLE = Fraction(1, 2**50)  # four units in the last place of a double, which is what sums of a few are off by
_N = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_PLAIN = re.compile(_N)
_SCIENTIFIC = re.compile(
    rf"({_N})\s*(?:(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{{\s*([-+]?\d+)\s*\}}|\(\s*([-+]?\d+)\s*\)|([-+]?\d+))|[eE]([-+]?\d+))"
)
_SPACED = re.compile(r"\d{1,3}(?: \d{3})+(?:\.\d+)?")
DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}|\d{1,4}/\d{1,2}/\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2}(?:,? \d{4})?|\d{1,2} [A-Za-z]{3,9}(?:,? \d{4})?"
)
DECIMAL_COMMA = re.compile(r"(\d+),(\d{2}|\d{4,})|0,(\d+)")
_BASED = re.compile(
    r"\(?([0-9A-Fa-f]++)\)?\s*+_\s*+\{?+\s*+(?:\\text\s*+\{)?+\s*+\(?+\s*+(\d++|[a-z]++)\s*+\)?+\s*+\}?+\s*+\}?+"
)
_BASES = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_UNIT = re.compile(
    r"(?:\s*+(?:\\text\s*+\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}|\\mu(?=\s*(?:\\text|[mgslFAVW](?![A-Za-z])))|\\Omega(?![A-Za-z])|\^\s*+\{?\s*+\\circ(?![A-Za-z])\s*+\}?|[A-Za-z]++\.?|/|-(?=[A-Za-z])|\\cdot(?![A-Za-z])"
    r"|\^\s*+(?:\{\s*+-?[123]\s*+\}|-?[123])))++\s*+"
)
_UNIT_START = re.compile(
    r"(?:(?<=[\d}])\s*+\\mu\s*+)?\\text\s*+\{|(?<=[\d}])\s*+\\mu(?=\s*+[mgslFAVW](?![A-Za-z]))|(?<=[\d}])\s*+\\Omega(?![A-Za-z])|(?<=[\d}%)])\s*+(?=[A-Za-z]|\^\s*+\{?\s*+\\circ)|\^\s*+\{?\s*+\\circ"
)
_LETTERS = frozenset("msghLlNJWVAKCFTB")  # units after a number and a space; glued to it, or behind a letter, variables
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12, "lakh": 10**5,
    "crore": 10**7, "gross": 144, "score": 20}  # fmt: skip
_NO_UNIT = re.compile(
    r"\b(?:and|or|nor|not|plus|minus|times|over|half|halves|thirds?|quarters?|fourths?|if|unless|when|where|for|wrong|else|factorial"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|so|is|to|mod|of|no|false|wrong|incorrect|maybe|perhaps|except|doubled|tripled|halved|negative|below|above|more|less"
    r"|(?:ten|hundred|thousand|million|fif|six|seven|eigh|nin|twelf)ths?)\b|\{[^{}]*+\d[^{}]*+\d|\w\("
)


class Number(NamedTuple):
    """An exact number as it was written."""

    value: Fraction  # for `28%` it is 7/25
    unit: Fraction = Fraction(0)  # the last place shown, 1/100 for `3.14`; 0 for a number without a point
    digits: int = 0  # significant digits shown
    percent: bool = False


@lru_cache(maxsize=16384)
def number(text: str) -> Number | None:
    """Read an integer, a decimal or a number in scientific notation, with thousands, sign, per cent."""
    text = text.strip()
    if len(text) > MAX_DIGITS or not any(c.isdigit() for c in text):
        return None
    if text.endswith(r"\ldots") and "." in text:  # 0.333... says one digit more than it shows
        cut = number(text.removesuffix(r"\ldots"))
        return cut and cut._replace(digits=cut.digits + 1)
    percent = text.endswith("%")
    text = text.removesuffix("%").strip()
    while text.startswith("(") and text.endswith(")") and "(" not in text[1:] and "," not in text:
        text = text[1:-1].strip()
    sign = -1 if text.startswith("-") else 1
    found = _magnitude(text.lstrip("-+").strip() if re.match(r"[-+]\s*[^-+]", text) else text)
    if found is None:
        return None
    scale = Fraction(sign, 100) if percent else Fraction(sign)
    return found._replace(value=found.value * scale, unit=found.unit * abs(scale), percent=percent)


@lru_cache(maxsize=16384)
def value(text: str) -> Number | None:
    r"""Read a rational number however it is written: `0.5`, `50\%`, `\frac12`, `1-\frac12`, `2^{-1}`, `\binom42/12`."""
    plain = number(text)
    if plain is not None or DATE.fullmatch(text):
        return plain
    tree = None if "," in text and text[0] in "([{\\" else read(text)
    found = None if tree is None else exact(tree)
    return None if found is None else Number(found, percent=text.endswith("%"))


def _magnitude(text: str) -> Number | None:
    if _PLAIN.fullmatch(text):
        return _decimal(text)
    if _SPACED.fullmatch(text):
        return _decimal(text.replace(" ", ""))
    match = _SCIENTIFIC.fullmatch(text)
    exponent = int(next(group for group in match.groups()[1:] if group)) if match else 0
    if not match or abs(exponent) > MAX_EXPONENT:
        return None
    mantissa, scale = _decimal(match[1]), Fraction(10) ** exponent
    return mantissa._replace(value=mantissa.value * scale, unit=mantissa.unit * scale)


def _decimal(text: str) -> Number:
    whole, _, places = text.replace(",", "").partition(".")
    value = Fraction(int(whole + places or "0"), 10 ** len(places))
    return Number(value, Fraction(1, 10 ** len(places)) if places else Fraction(0), len((whole + places).lstrip("0")))


def same(gold: Number, answer: Number) -> bool:
    """Compare two numbers by the rules of this module's text."""
    if gold.percent and not answer.percent:
        return _close(gold, answer) or _close(gold._replace(value=gold.value * 100, unit=gold.unit * 100), answer)
    return _close(gold, answer)


def _close(gold: Number, answer: Number) -> bool:
    gap = abs(gold.value - answer.value)
    if gap == 0:
        return True
    whole = any(not n.unit and n.value.denominator == 1 for n in (gold, answer))  # of an integer, every digit counts
    rounded = any(
        n.unit and n.digits >= 4 and 2 * gap <= n.unit and not (whole and n.unit >= 1) for n in (gold, answer)
    )
    double = any(n.unit and 15 <= n.digits <= 17 and gap <= abs(n.value) * _DOUBLE for n in (gold, answer))
    cut = (
        answer.digits >= 4 and not whole and not gold.unit and gap < answer.unit and abs(answer.value) < abs(gold.value)
    )
    return rounded or cut or double


def same_in_base(gold: str, answer: str) -> bool | None:
    """Compare numbers in a base: the digits and the base must agree; base ten is plain."""
    if "_" not in gold and "_" not in answer:
        return None
    left, right = _in_base(gold), _in_base(answer)
    return None if left is None or right is None else left == right


def _in_base(text: str) -> tuple[str, int] | None:
    match = _BASED.fullmatch(text)
    if match is None:
        return (text.strip().replace(",", "").lstrip("0"), 10) if number(text) else None
    named = _BASES.index(match[2]) + 2 if match[2] in _BASES else 0
    base = named or (int(match[2]) if match[2].isdigit() and len(match[2]) < 3 else 0)
    return (match[1].lstrip("0").lower(), base) if base else None


@lru_cache(maxsize=16384)
def split_unit(text: str) -> tuple[str, str]:
    r"""Split `15\text{ cm}^2` or `12 miles` into what is measured and its unit; the unit is "" where there is none.

    A word right after a number is a unit only if it is a known one (`5km`, not `5x`); after a space any word is that has
    two letters and no meaning in mathematics.
    """
    for match in _UNIT_START.finditer(text):
        start = match.start()
        if start and _UNIT.fullmatch(text, start) and _is_unit(text[:start], text[start:]):
            core, unit = text[:start].strip(), text[start:].strip()
            first, _, rest = re.sub(r"\\text|[{}]", " ", unit).strip().partition(" ")
            scale = _SCALES.get(first.lower()) or _SCALES.get(first.lower().removesuffix("s"))
            found = value(core) if scale else None
            return (str(found.value * scale), rest.strip()) if scale and found else (core, unit)
    return text, ""


_POWER_ALONE = re.compile(r"\s*+(?:\\text\s*+\{)?\s*+(?:squared|cubed)\b")
_QUANTITY = re.compile(
    r"(?<![\s\d.])\s*+(?:,|and\b|\\text\s*+\{\s*+(?:,|and)\s*+\})?\s*+(-?\d[\d.,]*+)\s*+((?:\\text\s*+\{[^{}\d]*+\}|[A-Za-z]++))"
)


def split_quantities(text: str) -> list[tuple[str, str]]:
    """Take `3 hours 20 minutes` apart into numbers and units; a quantity alone is a list of one; empty for anything else."""
    found, end = [], 0
    for match in _QUANTITY.finditer(text):
        if match.start() != end:
            return []
        found.append((match[1].rstrip(","), match[2]))
        end = match.end()
    return found if end == len(text) else []


def _is_unit(core: str, unit: str) -> bool:
    """Tell whether what stands behind a core may be a unit."""
    if _NO_UNIT.search(unit) or _POWER_ALONE.match(unit) or not any(c.isalpha() for c in unit):
        return False  # 42 squared
    if ("\\text" in unit and "circ" not in unit) or "\\Omega" in unit or "\\mu" in unit:
        return True
    plain = re.sub(r"\\text\s*+\{[^{}]*+\}|\\circ|\\cdot", "", unit)
    words = re.findall("[A-Za-z]++", plain)
    if words and all(word.lower() in UNITS for word in words):
        return True
    spaced = unit[0].isspace()
    if all(word in _LETTERS or word.lower() in UNITS for word in words):
        return bool(("circ" in unit or spaced) and value(core.strip()))
    return spaced and all(len(word) > 1 and word.lower() not in MATH_WORDS for word in words)
