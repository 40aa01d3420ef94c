r"""From a text to the answer it gives: no sympy, no backtracking, deterministic.

What is looked for, in this order: the last `<answer>` block, the last balanced `\boxed{}` or a later "final answer is", what
follows the last "answer is", "answer:" or "####", and at last the last formula or number, unless it is a piece of something
larger or only one of two alternatives (FAILURES 10).
"""

import re
import unicodedata

from reasoning_ext.think import boxes
from reasoning_ext.verifier import prose
from reasoning_ext.verifier.cleaning import clean
from reasoning_ext.verifier.formula import read
from reasoning_ext.verifier.words import is_number_in_words, is_words

MAX_TEXT, MAX_END, MAX_ANSWER, MAX_BOXES = 100_000, 4_000, 2_000, 100
_SPECIAL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>|</s>")
_BLOCK = re.compile(r"<(answer|solution|final_answer)>\s*+([^<\s][^<]*+)</\1>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:answer|solution|final_answer|b|i|u|p|em|strong|code|span|div|br|sub|sup|center|h[1-6]|li|ul|ol)\s*+/?>",
    re.IGNORECASE,
)
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
_BOLD = re.compile(r"(?<![\w)\]}*])\*\*(?=[^\s*])([^*\n]*+)\*\*(?![\w(*])")
_BARE_BOX = re.compile(r"\\boxed\s++(-?[\w.]++)")
_MINUS = re.compile(
    r"(?:(?<=\bis)|(?<=[=:]))\s*+\b(?:minus|negative)\s++(?=\d)|\A\s*+(?:minus|negative)\s++(?=\d)", re.IGNORECASE
)
_MARKER = re.compile(
    r"####|\banswer\b(?:\s*+(?:\*\*)?+\s*+(?::|=|is\b))?|\b(?:correct|right) (?:option|choice) is\b|(?:答案|Ответ)\s*+[是为:：]?",
    re.IGNORECASE,
)
_LABELLED = re.compile(r"(?:[A-Za-z]++(?: [A-Za-z]++)?+ ?[:=] ?[^,;:=\n ]++(?:[,;] ?|$)){2,}+")  # Amy: 3, Bob: 5
_OPTION = re.compile(r"\(?(?:option|choice)\s++\(?[A-J]\)?\.?", re.IGNORECASE)
_DENIES = re.compile(r"\b(?:not|never|neither|nor|false|wrong|if|whether|unless)\b|n't\b", re.IGNORECASE)
_DENIED_BEFORE = re.compile(r"(?:\b(?:not|never)|n't)(?: be| equal(?: to)?)?[\s:$]*+\Z")
_DENIED_BEHIND = re.compile(
    r"[\s$.]*+(?:is|was|would be|cannot be) (?:wrong|incorrect|false|not|impossible)\b|\$?\?\s*+No\b"
)
_HEDGES = r"(?:maybe|perhaps|possibly|else|alternatively|also|it is|it could be|could be)"
_OR_BETWEEN = re.compile(r"[\s$,(]*+(?:or|/|\|)[^.!?\n]*+")
_OR_BEHIND = re.compile(rf"[\s$,]*+\(?\s*+(?:or\b|(?={_HEDGES}))(?:\s*+{_HEDGES}\b)*+[\s$]*+(-?(?:{prose.NUMBER}))")
_CONTRAST = re.compile(r",? \(?(?:and )?(?:not|rather than|instead of|because|since)\b|, (?:as|so)\b")
_OPTION_ALONE = re.compile(r"\(?([A-J])\)?(?=[,;:]| because| since)")
_OPPOSITE = {
    one: re.compile(rf"\b{other}\b", re.IGNORECASE)
    for one, other in (("yes", "no"), ("no", "yes"), ("true", "false"), ("false", "true"))
}
_ASTERISK = re.compile(r"[A-Za-z]\s?[*/]\s?[A-Za-z]")
_STRUCK = re.compile(r"~~[^~\n]*+~~|[\u2600-\u27bf\U0001f000-\U0001faff\ufe0f]")  # struck out; also emoji
_SUPPOSED = re.compile(
    r"\b(?:if|suppose|assume|whether) (?:that )?(?:the |my |your )?(?:final |correct )?\Z", re.IGNORECASE
)
_OPTION_SAID = re.compile(
    r"\b(?:option|choice|choose|pick) \(?([A-J])\)?(?![\w'])|\A\(?([A-J])\)? is (?:the )?(?:correct|right)\b",
    re.IGNORECASE,
)
_PLAINLY = re.compile(r"\W*+(yes|no|true|false)\b\s*+[,;:!.\u2014-]", re.IGNORECASE)
# the usual end, read without the rest
_SIMPLE_END = re.compile(r"\\boxed\{([-+]?[0-9]++(?:,[0-9]{3})*+(?:[./][0-9]++)?)\}[\s.$)\]\\]*+\Z")
_GLUED = re.compile(r"(?<=[\d)}])(or|and)(?=[-A-Z\d(\\])")
_LIST_WORD = re.compile(r"\b(?:and|or)\b|[,;]")
_LINE = re.compile(r"\n\s*\n|(?<=[^\s.][.!?])\s+(?=[A-Z])|\n")
_LEAD = re.compile(
    r"(?:(?:approximately|about|around|roughly|exactly|simply|just|only|therefore|thus|hence|clearly|now|indeed|given by|equal to"
    r"|equals|the|number|value)\b|[≈=:])[\s,]*",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"(?<=\S)\s+\((?!or\b|maybe|perhaps)[^()]*\)\s*[.!]?$")


def final_answer(text: str, many: bool = False) -> str | None:
    r"""Return the answer that a text gives, cleaned, or None where it gives none.

    Args:
        text: the text after the thought.
        many: several boxes that belong together are one list; without it, boxes that stand side by side contradict each
            other, and the list they make is no single answer either.
    """
    start = text.rfind(r"\boxed{")
    simple = _SIMPLE_END.match(text, start) if start >= 0 else None
    before = text[max(0, start - 80) : start] if simple else ""
    if simple and "box" not in before and not _DENIED_BEFORE.search(before) and "<answer>" not in text:
        return simple[1]
    text = prepared(text)
    found = stated(text, many)
    if found is None:
        text = text[-MAX_END:]
        found = text if _is_bare(text) else prose.last(text, many)
        if found is None and (option := _OPTION_SAID.search(text)):
            found = option[1] or option[2]
    elif _is_foreign(found):
        found = prose.last(found[-MAX_END:], many) or found
    return _cleaned(found)


def gold_answer(text: str) -> str | None:
    """Return what a gold says, cleaned: its box or statement, its last formula in a sentence, else the whole of it.

    Golds are mostly bare (`xy = 1`, `5 feet 6 inches`), so that no number is picked out of one unless it is a sentence of
    four words or more; None where two or more words have no digit among them, "forty two" (open-r1#86, #293, #503).
    """
    text = prepared(text)
    found = stated(text[-MAX_TEXT:], True)
    if found is None and (prose.DELIMITED.search(text) or len(prose.words_of(text)) > 3):
        found = prose.last(text[-MAX_END:], True)
    said = _cleaned(text if found is None and not _is_wordy(text) else found)
    return None if said is None or (_is_wordy(said) and "\\text" not in text) else said


def _is_wordy(text: str) -> bool:
    """Tell whether a text is prose or a number in words, with which nothing can be compared."""
    if _ASTERISK.search(text) and read(clean(text)) is not None:
        return False  # mass*accel
    words = all(is_words(part) for part in _LIST_WORD.split(text) if part.strip())
    return is_number_in_words(text) or (prose.is_prose(text) and not words and not any(c.isdigit() for c in text))


def final_words(text: str) -> str | None:
    """Return the answer that a text gives to a question whose gold is words: its box, its statement, or all of a short text."""
    text = prepared(text)
    found = _boxed(text, False)
    if found and (plainly := _PLAINLY.match(clean(found))) and not _OPPOSITE[plainly[1].lower()].search(found):
        return plainly[1]
    if found is None:
        strong = [match for match in _MARKER.finditer(text[-MAX_END:]) if _introduces(match)]
        rest = text[-MAX_END:][strong[-1].end() :].lstrip(" \t:*_\n\"'") if strong else text.strip().rpartition("\n")[2]
        found = _LINE.split(rest, maxsplit=1)[0]
        plainly = None if strong else _PLAINLY.match(text)
        if plainly and not _OPPOSITE[plainly[1].lower()].search(text):
            return plainly[1]
        if not strong and not _DENIES.search(found) and not re.search(r"\bor\b", found):  # The triangle is isosceles.
            found = re.split(r"\b(?:is|are|was|were|be|has|have)\b", found)[-1]
    return clean(found) or None if len(found) < 200 else None


def prepared(text: str) -> str:
    """Take special tokens and `<answer>` tags away, and unify boxes."""
    text = text[-MAX_TEXT:]
    if not text.isascii():
        text = "".join(
            c if c.isascii() or not c.isdecimal() else str(unicodedata.digit(c)) for c in text.translate(_WIDE)
        )
    text = _BOLD.sub(r"\1", text.replace("\u2212", "-"))
    text = _STRUCK.sub(" ", text)
    text = _MINUS.sub(" -", _GLUED.sub(r" \1 ", _SPECIAL_TOKEN.sub("\n", text))).strip()
    if "<" in text and (blocks := list(_BLOCK.finditer(text))):
        beside = len(blocks) > 1 and not text[blocks[-2].end() : blocks[-1].start()].strip()
        text = f"{blocks[-2][2]}, {blocks[-1][2]}" if beside and blocks[-2][2] != blocks[-1][2] else blocks[-1][2]
    text = _TAG.sub("\n", text).strip() if "<" in text else text
    text = text.replace(r"\\boxed", r"\boxed").replace(r"\fbox{", r"\boxed{")
    return _BARE_BOX.sub(r"\\boxed{\1}", text)


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
    if not match:
        return None
    rest = end[match.end() :]
    number = prose.PLAIN.match(rest)
    return prose.formula_list(rest) or (number.group() if number and prose.is_number_in_prose(rest, number) else None)


def _is_bare(text: str) -> bool:
    """Tell whether a text is an answer and nothing else: an expression, a measure such as `5 apples`, or one word."""
    words = prose.words_of(text)
    formula = len(text) < 200 and "$" not in text and not re.search("[A-Za-z]{2} ", text) and read(clean(text))
    if formula or _LABELLED.fullmatch(text) or _OPTION.fullmatch(text):
        return True
    if "\n" in text or _is_foreign(text) or prose.DELIMITED.search(text):
        return False
    if len(words) > 3 or any(word.lower() in prose.SHORT_WORDS | {"the"} for word in words):
        return False
    starts = text.lstrip("*$ ")[:1] in "-+.0123456789\\([{"
    return not words or starts or (len(words) == 1 and text.strip("*.!\"' ").isalpha())


def _is_foreign(text: str) -> bool:
    """Tell whether a text has letters of other languages: Cyrillic, Chinese, accents; Greek ones are mathematics."""
    return not text.isascii() and any(
        c.isalpha() and (0xBF < ord(c) < 0x370 or 0x3FF < ord(c) < 0x1D000) and c not in "ℝℤℕℚℂ" for c in text
    )


def _boxed(text: str, many: bool) -> str | None:
    found = [box for box in boxes(text) if box[2].strip()]
    if not found:
        return _open_box(text) if many else None
    if _DENIED_BEFORE.search(text[max(0, found[-1][0] - 30) : found[-1][0]]) or _DENIED_BEHIND.match(
        text, found[-1][1]
    ):
        return "?"  # the answer is not this, and nothing else is said
    chosen = [found[-1]]
    for box in reversed(found[-MAX_BOXES:-1]):
        between = text[box[1] : chosen[0][0]]
        side_by_side = len(between) < 70 and (prose.JOINT.fullmatch(between) or _OR_BETWEEN.fullmatch(between))
        listed = many and (len(between) < 10 or (len(between) < 70 and _LIST_WORD.search(between)))
        if not side_by_side and not listed:
            break
        chosen.insert(0, box)
    contents = [content.strip() for _, _, content in chosen]
    distinct = [c for i, c in enumerate(contents) if c not in contents[:i]]
    if other := _OR_BEHIND.match(text, chosen[-1][1]):
        return rf"{', '.join(distinct)} \text{{ or }} {other[1]}"
    percent = prose.PERCENT.match(re.sub(r"^\s*\$", "", text[chosen[-1][1] :][:20]))
    return ", ".join(distinct) + ("%" if percent and len(distinct) == 1 and "%" not in distinct[0] else "")


def _open_box(text: str) -> str | None:
    """Return what stands in a last box that is never closed: a gold may be cut so, an answer was not finished."""
    _, opened, rest = text.rpartition(r"\boxed{")
    return rest if opened and rest.strip(" }.$") else None


def _after_marker(text: str, many: bool) -> str | None:
    """Return what the last "answer is" introduces: what stands there at once, or the last formula or number of its line."""
    for match in list(_MARKER.finditer(text))[:-4:-1]:
        if _SUPPOSED.search(text[max(0, match.start() - 20) : match.start()]):
            continue
        weak = not _introduces(match)
        rest = text[match.end() :].lstrip(" \t:*_}\n\"'>")
        while (lead := _LEAD.match(rest)) and not weak:
            rest = rest[lead.end() :]
        found = prose.formula_list(rest)
        if found is None and rest:
            found = _from_line(_LINE.split(rest, maxsplit=1)[0].strip(), many, weak)
        if found is not None and clean(found):
            return found
    return None


def _introduces(marker: re.Match) -> bool:
    """Tell "the answer is" and "answer:" from "answer" alone."""
    return marker.group().lower().endswith(("#", ":", "：", "=", "is", "是", "为"))


def _from_line(line: str, many: bool, weak: bool) -> str | None:
    """Return the answer in the line behind a marker; behind a weak one, "answer" alone, only a formula or number."""
    line = _CONTRAST.split(line, maxsplit=1)[0].rstrip()
    if not weak and (option := _OPTION_ALONE.match(line)):
        return option[1]
    bare = re.sub(r"(?<![*_])[*_]++(?=[.!]?$)", "", _ASIDE.sub("", line)) if not weak else line
    bare = bare.rstrip("!") if not weak and bare[-2:-1].isdigit() else bare  # The answer is 42!
    if bare and not weak and not prose.is_prose(bare) and not prose.DELIMITED.search(bare):
        return re.sub(r"^(?:minus|negative)\s+(?=\d)", "-", bare, flags=re.IGNORECASE)
    starts = (prose.PLAIN.match(line), prose.TUPLE.match(line)) if not weak else ()
    first = next((match for match in starts if match and prose.is_number_in_prose(line, match)), None)
    if first:
        return None if prose.CHANGED.match(line, first.end()) else first.group() + prose.alternative(line, first.end())
    found = prose.last(line, many, undelimited=not weak)
    word = re.fullmatch(r"(?:the\s++)?([A-Za-z][\w-]*+(?:'[\w-]++)*+)[.!*\"']*+", line)
    return word.group(1) if found is None and word and not weak else found
