"""The last formula or number of a text in prose, with its unit, unless it is a piece of something or one of several."""

import re

from reasoning_ext.verifier.cleaning import clean
from reasoning_ext.verifier.formula import read
from reasoning_ext.verifier.units import is_unit_name
from reasoning_ext.verifier.words import MATH_WORDS

NUMBER = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+,\d+(?![\d,.])|\d+)(?:\.\d+)?|\.\d+"
DELIMITED = re.compile(
    r"(?<!\\)\$\$((?:[^$\\]|\\.|\$(?!\$))++)\$\$|(?<!\\)\\\[((?:[^\\]|\\[^\[\]])++)\\\]|(?<!\\)\\\(((?:[^\\]|\\[^()])++)\\\)"
    r"|(?<!\\)\$((?:[^$\\]|\\.)++)\$",
    re.DOTALL,
)
PERCENT = re.compile(r"\s*(?:\\?%|(?:percent(?:age)?|pct)\b)", re.IGNORECASE)
_SCALE = r"(?:\s+(?:hundred|thousand|million|billion|trillion)\b)?"
PLAIN = re.compile(
    rf"(?<![A-Za-z0-9_.\\{{}}])[-+]?[$€£¥₹]?\s?(?:{NUMBER})(?:\s?[/:]\s?-?(?:{NUMBER}))*"
    rf"(?:\s*\\?%|\s?(?:percent(?:age)?|pct)\b)?(?![\d_\\{{]){_SCALE}"
)
_MOMENT = re.compile(
    r"\b(?:\d{4}-\d{2}-\d{2}|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.? \d{1,2}(?:, \d{4})?"
    r"|\d{1,2} (?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}(?: \d{4})?|\d{1,2}(?::\d{2})? ?[ap]\.?m\b\.?)",
    re.IGNORECASE,
)  # dates and times
_UNIT_BEHIND = re.compile(r"\s?([A-Za-z]{1,12}(?:\s?(?:/|per)\s?[A-Za-z]{1,12})?(?:\^[23]|[²³])?)(?![A-Za-z])")
_MEMBERSHIP = re.compile(r"[A-Za-z]\s*+\\in(?![a-z])")
TUPLE = re.compile(r"(?:[(\[]|(?<![}\w])\{)[^()\[\]{}a-zA-Z]*+[)\]}]")
_LIMITS = re.compile(
    r"(?:\b(?:not|cannot|never|nor|except|up to|below|above|at (?:most|least)"
    r"|(?:less|more|greater|fewer|smaller|larger|other|rather) than)|n't)(?: be| equal)?(?: to)?\s*+\$?\Z"
    r"|\b(?:half|multiple|root|square|third|quarter|factor|power|double|twice|number|page|chapter|step) (?:of )?"
    r"(?:the (?:number )?)?\$?\Z"
    r"|\b(?:far from|no longer|not think (?:that )?it is|or (?:it )?(?:could|might|may) be|but (?:perhaps|maybe)(?: also)?)"
    r"\s*+\$?\Z",
    re.IGNORECASE,
)
CHANGED = re.compile(
    r"\$?\s*+(?:(?:is|are|was|would be) (?:wrong|incorrect|false|not|too|impossible|excluded)|squared|cubed|(?:more|less) than)\b"
)
_JOINED_BEFORE = re.compile(rf"(?<![\w.,\\])(-?(?:{NUMBER}))(?:,? (and|to)\b|,) ?(?:[a-z] = )?\Z")
_RUN_ON_BEFORE = re.compile(r"[-+*/×·^√<>≤≥(]\s?$|\\[a-z]+$")
_RUN_ON_AFTER = re.compile(r"\s?[×·*^√<>≤≥+]|[!π(]")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])\^\{?[23]\}?(?!\d)")
_EXPONENT = re.compile(r"\^\s*+\{?+\s*+[23]\s*+\}?+")
_WORD = re.compile(r"(?<![\\A-Za-z0-9^_])[A-Za-z]{2,}(?![A-Za-z0-9(^_=])")
SHORT_WORDS = frozenset("is it we so to of in an at as if no on he do be my us up go am me".split())
_TEXT_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
JOINT = re.compile(r"(?:\s|[,;.&$~]|\\[,;:!\[\]() ]|\\q?quad|\\(?:text|mathrm)\s*\{|\}|\band\b|\bor\b)*", re.IGNORECASE)
OR_NEXT = re.compile(
    r"\s*+[,(]?+\s*+(?:or\b|but\b|(?=maybe|perhaps))(?: (?:maybe|perhaps|possibly|also|else|just))*+\s*+[-\d$\\(]"
    r"|\s*+\((?:maybe|perhaps)\s*+[-\d$\\(]",
    re.IGNORECASE,
)
_OR = re.compile(r"\bor\s*$", re.IGNORECASE)
_COMMAND_END = r"\s*+(-?\\(?:frac|sqrt)(?:[^\s.]|\.(?!\s|$)|[^\S\n]++(?![A-Za-z]{2}|[\s.]|$))*+)"
_COMMAND = re.compile(r"(?:=|\bis|^)" + _COMMAND_END)
_CONCLUDED = re.compile(
    r"(?:\b(?:is|are|get|gives|therefore,?|thus,?|hence,?|so,?)|\n(?!\s))" + _COMMAND_END, re.IGNORECASE
)


def words_of(text: str) -> list[str]:
    """List the plain words of a text: no commands, no functions, no products of letters such as `xy`."""
    found = _WORD.findall(_TEXT_COMMAND.sub(" ", text))
    return [word for word in found if (len(word) > 2 or word.lower() in SHORT_WORDS) and word.lower() not in MATH_WORDS]


def is_prose(text: str) -> bool:
    """Tell whether a text has two or more plain words."""
    return len(words_of(text)) > 1


def formula_list(text: str) -> str | None:
    """Return a formula, or several joined by commas, "and" or "or", that a text starts with."""
    first = DELIMITED.match(text)
    if not first or not _is_formula(first):
        return None
    found, end = _content(first), first.end()
    for following in _formulas(text[end:]):
        between = text[end : first.end() + following.start()]
        if not JOINT.fullmatch(between):
            break
        found += _joint(between) + _content(following)
        end = first.end() + following.end()
    return found + _percent_behind(found, text[end : end + 20]) + alternative(text, end)


def alternative(text: str, end: int) -> str:
    """Return what "or" offers beside an answer that ends there, as it is joined to it; "" where it offers nothing."""
    offered = OR_NEXT.match(text, end)
    if not offered:
        return ""
    rest = text[offered.end() - 1 :]
    formula, number = DELIMITED.match(rest), PLAIN.match(rest)
    other = _content(formula) if formula else number.group() if number else "?"
    return rf" \text{{ or }} {other}"


def _joint(between: str) -> str:
    """Return what joins two formulas: "or", which two regions need, or a comma."""
    return r" \text{ or } " if re.search(r"\bor\b", between, re.IGNORECASE) else ", "


def _percent_behind(found: str, behind: str) -> str:
    """Return the per cent sign that stands behind a formula."""
    return "%" if PERCENT.match(behind) and not found.endswith("%") else ""


def _content(match: re.Match) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _is_formula(match: re.Match) -> bool:
    """An inline formula does not go over lines, as in Markdown and math-verify; `$^2$` is the power of a unit before it."""
    return (match.group()[:2] in ("$$", r"\[") or "\n" not in match.group()) and not _EXPONENT.fullmatch(
        _content(match)
    )


def _formulas(text: str) -> list[re.Match]:
    return [match for match in DELIMITED.finditer(text) if _is_formula(match)]


def last(text: str, many: bool, undelimited: bool = False) -> str | None:
    """Return the last formula or number of a text, unless it is a piece of something, or "or" offers another beside it."""
    formulas = _formulas(text)
    masked = _UNIT_POWER.sub(lambda m: " " * len(m.group()), DELIMITED.sub(lambda m: " " * len(m.group()), text))
    candidates = [(formulas[-1].end(), formulas[-1].start(), _with_neighbours(text, formulas))] if formulas else []
    moments = [*_MOMENT.finditer(masked)]
    for moment in moments:
        masked = masked[: moment.start()] + " " * len(moment.group()) + masked[moment.end() :]
    plain = [m for m in [*PLAIN.finditer(masked), *TUPLE.finditer(masked)] if is_number_in_prose(masked, m)]
    candidates += [(m.end(), m.start(), m.group()) for m in moments]
    candidates += [(m.end(), m.start(), m.group() + _unit_behind(text, m.end())) for m in plain]
    commands = _COMMAND if undelimited or "=" in masked else _CONCLUDED
    candidates += [(m.end(1), m.start(1), m.group(1)) for m in commands.finditer(masked)] if "\\" in masked else []
    if not candidates:
        return None
    end, start, found = max(candidates, key=lambda one: (one[0], -one[1]))
    before = text[max(0, start - 40) : start]
    beside = _OR.search(before[-6:]) or OR_NEXT.match(text, end)
    if (beside and not many) or _LIMITS.search(before) or CHANGED.match(text, end):
        return None
    if not any(m.start() == start for m in plain):
        return found
    if found[0] in "+-" and before.rstrip()[-1:] and (before.rstrip()[-1].isalnum() or before.rstrip()[-1] in ")}]"):
        return _formula_run(text, end)
    if _JOINED_BEFORE.search(before):
        return _whole_list(text, start, found.strip())
    piece = _RUN_ON_BEFORE.search(before[-10:]) or _RUN_ON_AFTER.match(masked, end)
    return None if piece else found


def _whole_list(text: str, start: int, found: str) -> str:
    """Return a number with those that a comma, "and" or "to" joins to it."""
    while joined := _JOINED_BEFORE.search(text[max(0, start - 40) : start]):
        found = f"{joined[1]}{':' if joined[2] == 'to' else ', '}{found}"
        start = max(0, start - 40) + joined.start(1)
    return found


def _formula_run(text: str, end: int) -> str | None:
    """Return the formula that ends with a number, `x^2 + 1` of "So f(x) = x^2 + 1", where all of it can be read."""
    line = text[text.rfind("\n", 0, end) + 1 : end]
    run = re.split(r"=|:|\b(?:is|are|be|get|gives|so|thus|hence|that|equals)\b", line)[-1].strip()
    return run if run and read(clean(run)) is not None and _RUN_ON_AFTER.match(text, end) is None else None


def _unit_behind(text: str, end: int) -> str:
    """Return the unit of measurement behind a number in a sentence; `in` and single letters only at the sentence's end."""
    match = _UNIT_BEHIND.match(text, end)
    if not match:
        return ""
    word = match[1].lower()
    short = len(word) < 3 and word not in ("cm", "mm", "km", "kg", "mg", "ml", "ft", "lb", "oz")
    ends = not text[match.end() :].lstrip()[:1].isalnum()
    known = all(is_unit_name(part.strip()) for part in re.split("/|per", word.partition("^")[0].rstrip("²³")))
    return f" {match.group().strip()}" if known and (ends or not short) else ""


def _with_neighbours(text: str, formulas: list[re.Match]) -> str:
    """Return the last formula together with those before it that a comma or "and" joins to it."""
    content = _content(formulas[-1])
    if len(formulas) > 1 and _MEMBERSHIP.match(content):  # where k is an integer
        return f"{_with_neighbours(text, formulas[:-1])}, {content}"
    around = text[max(0, formulas[-1].start() - 25) : formulas[-1].end() + 25]
    if len(formulas) > 1 and len(content) == 1 and "integer" in around:
        return rf"{_with_neighbours(text, formulas[:-1])}, {content} \in \mathbb{{Z}}"
    found = _content(formulas[-1])
    for before, after in zip(reversed(formulas[:-1]), reversed(formulas), strict=False):
        between = text[before.end() : after.start()]
        if not between.strip() or not JOINT.fullmatch(between):
            break
        found = _content(before) + _joint(between) + found
    return found + _percent_behind(found, text[formulas[-1].end() : formulas[-1].end() + 20])


def is_number_in_prose(text: str, match: re.Match) -> bool:
    """Tell a number or tuple from digits inside a word, a name or a LaTeX command: `AZYUK2A`, `0Y_=AvO`, `\frac{63}{4}`."""
    if not any(c.isdigit() for c in match.group()):
        return False
    attached = re.match(r"([A-Za-z]+)([²³]?)", text[match.end() : match.end() + 12])
    return not attached or bool(attached[2]) or is_unit_name(attached[1].lower())
