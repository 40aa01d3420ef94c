r"""From a text to the answer it gives: no sympy, no backtracking, deterministic.

What is looked for, in this order: the last `<answer>` block, the last balanced `\boxed{}` or a later "final answer is", what
follows the last "answer is", "answer:" or "####", and at last the last formula or number, unless it is a piece of something
larger or only one of two alternatives (FAILURES 10).
"""

import re

from reasoning_ext.think import boxes
from reasoning_ext.verifier.cleaning import clean

MAX_TEXT, MAX_END, MAX_ANSWER, MAX_BOXES = 100_000, 4_000, 2_000, 100
NUMBER = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+,\d+(?![\d,.])|\d+)(?:\.\d+)?|\.\d+"
MATH_WORDS = frozenset(
    "sin cos tan cot sec csc log ln exp sqrt cbrt pi oo inf infty infinity max min gcd lcm mod and or arcsin arccos arctan asin "
    "acos atan sinh cosh tanh floor ceil abs theta alpha beta lambda".split()
)
UNITS = frozenset(
    "mm cm dm km in ft yd mi nm um mg kg lb lbs oz ms sec min hr hrs ml cl dl kj kw mph kph kmh gb mb kb hz khz mhz pa kpa "
    "deg rad usd eur st nd rd th".split()
)

_SPECIAL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>|</s>")
_BLOCK = re.compile(r"<answer>\s*([^<\s][^<]*)</answer>")
_MARKER = re.compile(
    r"####|\banswer\b(?:\s*(?:\*\*)?\s*(?::|=|is\b))?|\b(?:correct|right) (?:option|choice) is\b|(?:答案|Ответ)\s*[是为:：]?",
    re.IGNORECASE,
)
_DELIMITED = re.compile(
    r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|(?<!\\)\\\[(.+?)(?<!\\)\\\]|(?<!\\)\\\((.+?)(?<!\\)\\\)|(?<!\\)\$((?:[^$\\]|\\.)+?)\$",
    re.DOTALL,
)
_PERCENT = re.compile(r"\s*(?:\\?%|(?:percent(?:age)?|pct)\b)", re.IGNORECASE)
_SCALE = r"(?:\s+(?:hundred|thousand|million|billion|trillion)\b)?"
_PLAIN = re.compile(
    rf"(?<![\w.\\{{}}])[-+]?[$€£¥₹]?\s?(?:{NUMBER})(?:\s?[/:]\s?-?(?:{NUMBER}))*"
    rf"(?:\s*\\?%|\s?(?:percent(?:age)?|pct)\b)?(?![\d_\\{{]){_SCALE}"
)
_TUPLE = re.compile(r"[(\[{][^()\[\]{}a-zA-Z]*[)\]}]")
_RUN_ON_BEFORE = re.compile(r"[-+*/×·^√<>≤≥(]\s?$|\\[a-z]+$")
_RUN_ON_AFTER = re.compile(r"\s?[×·*^√<>≤≥+]|[!π(]")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])\^\{?[23]\}?(?!\d)")
_EXPONENT = re.compile(r"\^\s*\{?\s*[23]\s*\}?")
_WORD = re.compile(r"(?<![\\A-Za-z0-9^_])[A-Za-z]{2,}(?![A-Za-z0-9(^_=])")
_SHORT_WORDS = frozenset("is it we so to of in an at as if no on he do be my us up go am me".split())
_TEXT_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_JOINT = re.compile(
    r"(?:\s|[,;.&$~]|\\[,;:!\[\]() ]|\\q?quad|\\(?:text|mathrm)\s*\{|\}|\band\b|\bor\b)*", re.IGNORECASE
)
_SIMPLE_END = re.compile(
    r"\\boxed\{([-+]?\d+(?:,\d{3})*(?:[./]\d+)?)\}[\s.$)\]\\]*\Z"
)  # the usual end, read without the rest
_GLUED = re.compile(r"(?<=[\d)}])(or|and)(?=[-A-Z\d(\\])")
_LIST_WORD = re.compile(r"\b(?:and|or)\b|[,;]")
_OR_NEXT = re.compile(r"\s*,?\s*or\b\s*[-\d$\\(]", re.IGNORECASE)
_OR = re.compile(r"\bor\s*$", re.IGNORECASE)
_LINE = re.compile(r"\n\s*\n|(?<=[^\s.][.!?])\s+(?=[A-Z])|\n")
_LEAD = re.compile(
    r"(?:(?:approximately|about|around|roughly|exactly|simply|just|only|therefore|thus|hence|clearly|now|indeed|given by|equal to"
    r"|equals|the|number|value)\b|[≈=:])[\s,]*",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"(?<=\S)\s+\([^()]*\)\s*[.!]?$")
_COMMAND = re.compile(r"(?:=|\bis|^)\s*(-?\\(?:frac|sqrt)[^\n]*?)(?=\.?(?:\s+[A-Za-z]{2,}|\s*$|\.\s))")


def words_of(text: str) -> list[str]:
    """List the plain words of a text: no commands, no functions, no products of letters such as `xy`."""
    found = _WORD.findall(_TEXT_COMMAND.sub(" ", text))
    return [
        word for word in found if (len(word) > 2 or word.lower() in _SHORT_WORDS) and word.lower() not in MATH_WORDS
    ]


def is_prose(text: str) -> bool:
    """Tell whether a text has two or more plain words."""
    return len(words_of(text)) > 1


def final_answer(text: str, many: bool = False) -> str | None:
    r"""Return the answer that a text gives, cleaned, or None where it gives none.

    Args:
        text: the text after the thought.
        many: several boxes that belong together are one list; without it, boxes that stand side by side contradict each
            other, and the list they make is no single answer either.

    >>> final_answer(r"So it is \boxed{41}. No wait, \boxed{\text{**42.**}}"), final_answer("The answer is 1,000 apples.")
    ('42', '1,000 apples')
    """
    start = text.rfind(r"\boxed{")
    simple = _SIMPLE_END.match(text, start) if start >= 0 else None
    if simple and "box" not in text[max(0, start - 80) : start] and "<answer>" not in text:
        return simple[1]
    text = prepared(text)
    found = stated(text, many)
    if found is None:
        text = text[-MAX_END:]
        found = text if _is_bare(text) else _last(text, many)
    return _cleaned(found)


def gold_answer(text: str) -> str | None:
    """Return what a gold says, cleaned: its box or statement, its last formula in a sentence, else the whole of it.

    Golds are mostly bare (`xy = 1`, `5 feet 6 inches`), so that no number is picked out of one unless it is a sentence of
    four words or more; None where two or more words have no digit among them, "forty two" (open-r1#86, #293, #503).
    """
    text = prepared(text)
    found = stated(text[-MAX_TEXT:], True)
    if found is None and (_DELIMITED.search(text) or len(words_of(text)) > 3):
        found = _last(text[-MAX_END:], True)
    said = _cleaned(text if found is None and not _is_wordy(text) else found)
    return None if said is None or (_is_wordy(said) and "\\text" not in text) else said


def _is_wordy(text: str) -> bool:
    """Tell whether a text is prose without a single digit, with which nothing can be compared."""
    return is_prose(text) and not any(c.isdigit() for c in text)


def prepared(text: str) -> str:
    """Take special tokens and `<answer>` tags away, and unify boxes."""
    text = _GLUED.sub(r" \1 ", _SPECIAL_TOKEN.sub("\n", text[-MAX_TEXT:])).strip()
    blocks = _BLOCK.findall(text) if "<answer>" in text else []
    text = blocks[-1] if blocks else text.replace("<answer>", "\n").replace("</answer>", "\n").strip()
    return text.replace(r"\\boxed", r"\boxed").replace(r"\fbox{", r"\boxed{")


def stated(text: str, many: bool) -> str | None:
    """Return what a box or a phrase says is the answer."""
    return _stated_after_box(text) or _boxed(text, many) or _after_marker(text[-MAX_END:], many)


def _cleaned(found: str | None) -> str | None:
    return clean(found) or None if found and len(found) <= MAX_ANSWER else None


def _stated_after_box(text: str) -> str | None:
    """Return what "final answer is" introduces behind the last box: the later of the two statements counts."""
    if r"\boxed" not in text:
        return None
    end = text[max(text.rfind(r"\boxed"), len(text) - MAX_END) :]
    match = re.search(r"final answer(?: is)?:?(?: the final answer is)?[\s:*]*", end, re.IGNORECASE)
    return _formula_list(end[match.end() :]) if match else None


def _is_bare(text: str) -> bool:
    """Tell whether a text is an answer and nothing else: an expression, a measure such as `5 apples`, or one word."""
    words = words_of(text)
    if (
        "\n" in text
        or _DELIMITED.search(text)
        or len(words) > 3
        or any(w.lower() in _SHORT_WORDS | {"the"} for w in words)
    ):
        return False
    starts = text.lstrip("*$ ")[:1] in "-+.0123456789\\([{"
    return not words or starts or (len(words) == 1 and text.strip("*.!\"' ").isalpha())


def _boxed(text: str, many: bool) -> str | None:
    found = [box for box in boxes(text) if box[2].strip()]
    if not found:
        return _open_box(text) if many else None
    chosen = [found[-1]]
    for box in reversed(found[-MAX_BOXES:-1]):
        between = text[box[1] : chosen[0][0]]
        side_by_side = len(between) < 70 and _JOINT.fullmatch(between)
        listed = many and (len(between) < 10 or (len(between) < 70 and _LIST_WORD.search(between)))
        if not side_by_side and not listed:
            break
        chosen.insert(0, box)
    contents = [content.strip() for _, _, content in chosen]
    distinct = [c for i, c in enumerate(contents) if c not in contents[:i]]
    percent = _PERCENT.match(re.sub(r"^\s*\$", "", text[chosen[-1][1] :][:20]))
    return ", ".join(distinct) + ("%" if percent and len(distinct) == 1 and "%" not in distinct[0] else "")


def _open_box(text: str) -> str | None:
    """Return what stands in a last box that is never closed: a gold may be cut so, an answer was not finished."""
    _, opened, rest = text.rpartition(r"\boxed{")
    return rest if opened and rest.strip() else None


def _after_marker(text: str, many: bool) -> str | None:
    """Return what the last "answer is" introduces: what stands there at once, or the last formula or number of its line."""
    for match in list(_MARKER.finditer(text))[:-4:-1]:
        weak = not re.search(r"(?:#|:|：|=|is|是|为)$", match.group(), re.IGNORECASE)
        rest = text[match.end() :].lstrip(" \t:*_}\n\"'>")
        while (lead := _LEAD.match(rest)) and not weak:
            rest = rest[lead.end() :]
        found = _formula_list(rest)
        if found is None and rest:
            found = _from_line(_LINE.split(rest, maxsplit=1)[0].strip(), many, weak)
        if found is not None and clean(found):
            return found
    return None


def _from_line(line: str, many: bool, weak: bool) -> str | None:
    """Return the answer in the line behind a marker; behind a weak one, "answer" alone, only a formula or number."""
    bare = re.sub(r"[*_]+(?=[.!]?$)", "", _ASIDE.sub("", line)) if not weak else line
    if bare and not weak and not is_prose(bare) and not _DELIMITED.search(bare):
        return re.sub(r"^(?:minus|negative)\s+(?=\d)", "-", bare, flags=re.IGNORECASE)
    first = next((m for m in (_PLAIN.match(line), _TUPLE.match(line)) if m and _is_number_in_prose(line, m)), None)
    if first and not weak and not _OR_NEXT.match(line, first.end()):
        return first.group()
    found = _last(line, many, undelimited=not weak)
    word = re.fullmatch(r"(?:the\s+)?([A-Za-z][\w'-]*)[.!*\"']*", line)
    return word.group(1) if found is None and word and not weak else found


def _formula_list(text: str) -> str | None:
    """Return a formula, or several joined by commas, "and" or "or", that a text starts with."""
    first = _DELIMITED.match(text)
    if not first or not _is_formula(first):
        return None
    parts, end = [_content(first)], first.end()
    for following in _formulas(text[end:]):
        if not _JOINT.fullmatch(text[end : first.end() + following.start()]):
            break
        parts.append(_content(following))
        end = first.end() + following.end()
    return _joined(parts, text[end : end + 20])


def _joined(parts: list[str], behind: str) -> str:
    """Write formulas as one list, with the per cent sign that stands behind the last one."""
    return ", ".join(parts) + ("%" if _PERCENT.match(behind) and "%" not in parts[-1] else "")


def _content(match: re.Match) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _is_formula(match: re.Match) -> bool:
    """An inline formula does not go over lines, as in Markdown and math-verify; `$^2$` is the power of a unit before it."""
    return (match.group()[:2] in ("$$", r"\[") or "\n" not in match.group()) and not _EXPONENT.fullmatch(
        _content(match)
    )


def _formulas(text: str) -> list[re.Match]:
    return [match for match in _DELIMITED.finditer(text) if _is_formula(match)]


def _last(text: str, many: bool, undelimited: bool = False) -> str | None:
    """Return the last formula or number of a text, unless it is a piece of something, or "or" offers another beside it."""
    formulas = _formulas(text)
    masked = _UNIT_POWER.sub(lambda m: " " * len(m.group()), _DELIMITED.sub(lambda m: " " * len(m.group()), text))
    candidates = [(formulas[-1].end(), formulas[-1].start(), _with_neighbours(text, formulas))] if formulas else []
    plain = [m for m in [*_PLAIN.finditer(masked), *_TUPLE.finditer(masked)] if _is_number_in_prose(masked, m)]
    candidates += [(m.end(), m.start(), m.group()) for m in plain]
    if undelimited or "=" in masked:
        candidates += [(m.end(1), m.start(1), m.group(1)) for m in _COMMAND.finditer(masked)]
    if not candidates:
        return None
    end, start, found = max(candidates)
    beside = _OR.search(text[max(0, start - 6) : start]) or _OR_NEXT.match(text, end)
    piece = _RUN_ON_BEFORE.search(masked[max(0, start - 10) : start]) or _RUN_ON_AFTER.match(masked, end)
    is_plain = any(m.start() == start for m in plain)
    return found if (many or not beside) and not (is_plain and piece) else None


def _with_neighbours(text: str, formulas: list[re.Match]) -> str:
    """Return the last formula together with those before it that a comma or "and" joins to it."""
    parts = [_content(formulas[-1])]
    for before, after in zip(reversed(formulas[:-1]), reversed(formulas), strict=False):
        between = text[before.end() : after.start()]
        if not between.strip() or not _JOINT.fullmatch(between):
            break
        parts.insert(0, _content(before))
    return _joined(parts, text[formulas[-1].end() : formulas[-1].end() + 20])


def _is_number_in_prose(text: str, match: re.Match) -> bool:
    """Tell a number or tuple from digits inside a word, a name or a LaTeX command: `AZYUK2A`, `0Y_=AvO`, `\frac{63}{4}`."""
    if not any(c.isdigit() for c in match.group()):
        return False
    attached = re.match(r"([A-Za-z]+)([²³]?)", text[match.end() : match.end() + 12])
    return not attached or bool(attached[2]) or attached[1].lower() in UNITS
