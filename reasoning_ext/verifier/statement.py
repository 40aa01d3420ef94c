r"""What is said about an answer, taken off before it is compared: where it holds, what its letters are, other spellings."""

import re
from functools import lru_cache

from reasoning_ext.verifier.exact import COMMA, cut

_MEMBER = re.compile(r"\s*+[A-Za-z](?:_\{?\w\}?)?(?:\([a-z]\))?\s*+\\in(?![a-z])")
_CASES = re.compile(r"\\begin\s*+\{cases\}((?:[^&\\]|\\(?!end\b|begin\b))*+)\\end\s*+\{cases\}")
_FREE = re.compile(
    r"(?<![A-Za-z\\])([kmnlNKM])\s*+\\in\s*+(?:\\mathbb\s*+\{?\s*+[ZN]|Z(?![a-z])|\\text\s*+\{\s*+integers)"
)
_PARAMETER = re.compile(r"(?<![A-Za-z\\])([kmnlNKM])(?![A-Za-z])")
_FREE_WORDS = re.compile(
    r"(?:,|;|\\text\s*+\{|\()\s*+(?:where |for |with )?\s*+(?:any |some |all |an )?(?:integers?)\b"
)
_TRAILING = re.compile(
    r"(?<![\s,;(])[,;]?+\s*+\(?+\s*+(?:\\text\s*+\{\s*+\(?+\s*+)?+"
    r"(?:for (?:all|any|every|each|some)\b|\\forall(?![a-z])|where\b(?=[^{}]{0,80}\\in))"
)
_ABOUT = r"(?:or )?(?:approximately|approx\.?|about|roughly|\\approx)"
_ROUGHLY = re.compile(rf"(?<![\s(])\(?+\s*+\\text\s*+\{{\s*+[(,]?\s*+{_ABOUT}\s*+:?\s*+\}}\s*+|\(\s*+{_ABOUT}\s++")
_SAID_BEHIND = re.compile(
    r"\\text\s*+\{\s*+(?:\(\s*+(?:since|because|as|so)\b|(?:is|are) (?:the|an?) (?:only )?(?:solution|answer|result)s?\b)"
    r"[^{}]*+\}\Z"
)
_MAXIMA = re.compile(r"\b(?:oo|oc|co|cc|union|abs|not|diff|int|sum|product)\s*\(|[a-z]#|\bminf\b")
_SPANS = {"oo": "()", "oc": "(]", "co": "[)", "cc": "[]"}
_INFINITE = re.compile(r"(?<![A-Za-z\\])(?:oo|inf|infinity)(?![A-Za-z(])")
_IN_BRACKETS = re.compile(r"(?<=\S) ?\((?:or|maybe|perhaps) ([^()]*+)\)\Z")
_IMPLIES = re.compile(r"\\(?:Rightarrow|implies|Longrightarrow|therefore)(?![A-Za-z])")
_WHERE_DEFINED = re.compile(
    r"(?<=[^\s,(])[\s,]*+\(?\s*+(?:\\text\s*+\{[^{}]*+\}\s*+)?[a-z]\s*+\\neq\s*+-?[\w/.]++\s*+\)?\Z"
)
_TO = re.compile(r"(?<=[\d}])\s*+(?:\\text\s*+\{\s*+to\s*+\}|\bto\b)\s*+(?=[\d\\])")
_SPELLED = re.compile(r"(Eq|Interval(?:\.[a-zA-Z]+)?)\s*+\((.*),([^,]*)\)", re.DOTALL)
_BRACKETS = {"Interval": "[]", "Interval.open": "()", "Interval.Ropen": "[)", "Interval.Lopen": "(]"}


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """Take off what is said about an answer: where it holds, what its letters are, that a value in brackets is rounded."""
    if _MAXIMA.search(text):
        text = _from_maxima(text)
    if spelled := _SPELLED.fullmatch(text):  # as sympy writes them
        left, right = spelled[2].strip(), spelled[3].strip()
        around = _BRACKETS.get(spelled[1], "[]")
        return f"{left} = {right}" if spelled[1] == "Eq" else f"{around[0]}{left}, {right}{around[1]}"
    free = _FREE.search(text)
    if match := _TRAILING.search(text):
        text = text[: match.start()] if match.start() else text
    elif free and (head := text[: free.start()].rstrip(" ,;(")) and any(c.isalnum() for c in head):
        text = re.sub(r"\\text\s*+\{\s*+(?:where|with|for)?\s*+\}?\s*+$", "", head).rstrip(" ,;(")
    elif (match := _FREE_WORDS.search(text)) and match.start():
        free, text = _PARAMETER.search(text), text[: match.start()]
    if free and "n" not in re.sub(r"\\[A-Za-z]++", "", text):
        text = _PARAMETER.sub(lambda match: "n" if match[0] == free[1] else match[0], text)
    text = _TO.sub(":", text)
    text = _INFINITE.sub(r"\\infty ", text) if "\\infty" not in text else text
    steps = _IMPLIES.split(text)
    text = steps[-1].strip() if all("=" in step for step in steps) else text
    text = _IN_BRACKETS.sub(r" \\text{ or } \1", text)
    if (match := _WHERE_DEFINED.search(text)) and not re.search(
        r"[<>=]|\\(?:le|ge|neq|in)(?![a-z])", text[: match.start()]
    ):
        text = text[: match.start()].strip()
    text = text[: match.start()].strip() if (match := _SAID_BEHIND.search(text)) and match.start() else text
    if match := _ROUGHLY.search(text):
        text = text[: match.start()] + r" \approx " + text[match.end() :].rstrip(") ").removeprefix(r"\approx")
    text = _CASES.sub(_listed, text) if "cases" in text else text
    return text[match.end() :].strip() if r"\in" in text and (match := _MEMBER.match(text)) else text.strip()


def _from_maxima(text: str) -> str:
    """Write intervals, unions and signs of Maxima's in LaTeX."""
    text = re.sub(r"\babs\(([^()]*+)\)", r"|\1|", text)
    text = re.sub(
        r"\b(minf|inf)\b", lambda match: r"\infty " if match[0] == "inf" else r"-\infty ", text.replace("#", r" \neq ")
    )
    if negated := re.fullmatch(r"not\s*+\(([^()<>]*+)(<=|>=|<|>|\\le |\\ge )([^()<>]*+)\)", text):
        turned = {"<": r"\ge ", ">": r"\le ", "<=": ">", ">=": "<", r"\le ": ">", r"\ge ": "<"}
        return f"{negated[1]}{turned[negated[2]]}{negated[3]}"
    if call := re.fullmatch(r"(diff|int|sum|product)\((.*)\)(.*)", text):
        return _calculus(call[1], [part.strip() for part in cut(call[2], COMMA)]) + call[3]
    for name, around in _SPANS.items():
        text = re.sub(rf"(?<![a-z]){name}\(([^(),]*+),([^(),]*+)\)", rf"{around[0]}\1,\2{around[1]}", text)
    united = re.fullmatch(r"%?union\((.*)\)", text)
    return r" \cup ".join(cut(united[1], COMMA)) if united else text


def _calculus(name: str, parts: list[str]) -> str:
    """Write a derivative, integral, sum or product of Maxima's in LaTeX."""
    what, letter, *ends = (*parts, "x")[: max(2, len(parts))]
    if name == "diff":
        return rf"\frac{{d}}{{d{letter}}}({what})"
    if name == "int":
        span = rf"_{{{ends[0]}}}^{{{ends[1]}}}" if len(ends) == 2 else ""
        return rf"\int{span} ({what}) d{letter}"
    sign = r"\sum" if name == "sum" else r"\prod"
    return (
        rf"{sign}_{{{letter}={ends[0]}}}^{{{ends[1]}}} ({what})" if len(ends) == 2 else rf"{name}({', '.join(parts)})"
    )


def _listed(cases: re.Match) -> str:
    return ", ".join(row.strip(" ,") for row in cases[1].split(r"\\"))
