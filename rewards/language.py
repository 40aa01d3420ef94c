"""The share of letters in the expected script, against thoughts that drift into another language.

It tells scripts apart, not languages: French and English are both Latin. Mathematics, code and tags are not language and
are not counted, so text can hide there; weigh it little, and look at samples.
"""

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import Any

from reasoning_ext import think

_KNOWN = tuple(
    "latin cyrillic greek cjk hiragana katakana hangul bopomofo arabic hebrew devanagari bengali gurmukhi gujarati tamil "
    "telugu kannada malayalam sinhala thai lao khmer myanmar tibetan georgian armenian ethiopic mongolian".split()
)
# First words of the names of letters that are signs of mathematics or phonetics, not of a language.
_SIGNS = frozenset(
    "MATHEMATICAL DOUBLE-STRUCK SCRIPT BLACK-LETTER MICRO OHM KELVIN ANGSTROM PLANCK EULER ALEF BET GIMEL DALET TURNED "
    "INFORMATION FEMININE MASCULINE MODIFIER SUPERSCRIPT SUBSCRIPT".split()
)
# Nothing here looks beyond the next opener of its own kind, so that a flood of openers without closers costs linear time;
# inline code and `$...$` end with their line, because prices are not mathematics.
_NOT_PROSE = re.compile(
    r"""\\[$`\\] | ```.*?``` | `[^`\n]*+` | \$\$[^$]*+\$\$ | \$[^$\n]*+\$
    | \\\((?:[^\\]++|\\(?![()]))*+\\\) | \\\[(?:[^\\]++|\\(?![\[\]]))*+\\\]
    | \\[A-Za-z]++ | </?[A-Za-z]{1,20}>""",
    re.VERBOSE | re.DOTALL,
)
_SYMBOLS = {  # one or two letters on their own are a variable or a unit: α, Δt, x, km
    "greek": re.compile(r"(?<![\u0370-\u03ff])[\u0370-\u03ff]{1,2}(?![\u0370-\u03ff])"),
    "latin": re.compile(r"(?<![A-Za-z])[A-Za-z]{1,2}(?![A-Za-z])"),
}


def language(completions: list, *, script: str = "latin", **kwargs: Any) -> list[float | None]:
    r"""Reward the share of a completion's letters, of thought and answer, that are in the expected script.

    Code, maths between `$` or `\(` and `\)`, LaTeX commands, tags, digits and signs are not counted, nor are Greek and
    Latin symbols of one or two letters where those scripts are not expected, nor what tools answered.

    Args:
        completions: N completions, messages or strings.
        script: a script, or several joined by `+`: `latin`, `cyrillic`, `cjk+hiragana+katakana` ...

    Returns:
        N rewards between 0.0 and 1.0; None for a completion without letters.

    Raises:
        ValueError: `script` names an unknown script.

    Example:
        >>> language(["<think>Let α be 2</think>42", "Paris, город", "$x + y$"], script="latin")
        [1.0, 0.5, None]
    """
    expected = {name.strip().casefold() for name in script.split("+")}
    unknown = sorted(expected - set(_KNOWN))
    if unknown:
        raise ValueError(f"found script={script!r}, unknown: {unknown}; allowed: {', '.join(_KNOWN)}, joined by +")
    return [_share("\n".join(think.said(completion)), expected) for completion in completions]


def _share(text: str, expected: set[str]) -> float | None:
    text = _NOT_PROSE.sub(" ", text)
    for name, symbol in _SYMBOLS.items():
        text = text if name in expected else symbol.sub(" ", text)
    counts = [(_scripts(character), n) for character, n in Counter(text).items() if character.isalpha()]
    letters = sum(n for scripts, n in counts if scripts)
    return sum(n for scripts, n in counts if scripts & expected) / letters if letters else None


@cache
def _scripts(letter: str) -> frozenset[str]:
    """Return the scripts a letter belongs to, by the first word of its Unicode name; none for a mathematical sign."""
    words = unicodedata.name(letter, "UNNAMED").split()
    word = words[1] if words[0] in ("FULLWIDTH", "HALFWIDTH") else words[0]
    if word in _SIGNS:
        return frozenset()
    return frozenset({"cjk"} if word == "IDEOGRAPHIC" else word.casefold().split("-"))
