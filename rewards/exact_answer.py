r"""1.0 where the final answer is the gold string, or the gold set of strings, 0.0 otherwise: for words, names, short texts.

The whole final answer has to be the gold; a gold that stands somewhere in a long text earns nothing. No arithmetic: `0.5`
is not `1/2` here (that is math_answer), and brackets, signs and leading dots count, so that `(0,1)` is not `[0,1]`.
"""

import re
from typing import Any, Literal

from reasoning_ext import think
from reasoning_ext.verifier.numbers import split_unit
from reasoning_ext.verifier.units import unit_key
from reasoning_ext.verifier.wording import ANSWER, CLOSED, IS, OPENED, is_text, last_boxes, unified

_MAX_CHARACTERS = 4_000  # a final answer is short, and stands at the end
_MAX_WRAPPINGS, _MAX_MEASURE = 8, 60
_STATED = re.compile(rf"{ANSWER}(?:[*_ ]{{0,4}}:[*_]*+|{IS}[*_]*+:?| {{1,2}}- )|{OPENED.pattern}", re.IGNORECASE)
_TEX_TEXT = re.compile(r"\\(?:text|math)[a-z]{0,6}\{([^{}]*+)\}|\\[ ,;!]")
_PAIRS = [
    pair.split()
    for pair in ("** **", "* *", "` `", '" "', "' '", "« »", "「 」", "『 』", "《 》", "$ $", r"\( \)", r"\[ \]")
] + [[f"<{tag}>", f"</{tag}>"] for tag in ("b", "strong", "i", "em", "u")]
_EMPHATIC_STOP = re.compile(r"""(?<=[^\W\d_]{2}|[^\W\d_]["'`*]|\*\*)[!?]++$""")  # `Paris!` is Paris, `5!` is not 5
_UNSTRESSED = re.compile(  # an article, or the verb that ends a sentence
    r"^(?:the|an?) (?=[\"'*`$]{0,3}[^\W\d_]{2})|(?:です|でした|である|입니다|이에요|예요|이다)$", re.IGNORECASE
)
_BULLET = re.compile(r"(?m)^[ \t]*+(?:[-*•]|[0-9]{1,3}[.)])[ \t]++")
_BETWEEN_ITEMS = re.compile(r"[,;\n]|\band\b", re.IGNORECASE)

_NUMERIC = "+-0123456789.,:/ "
_UNIT, _NAME = "\0\1"  # stand between a number and its unit in the form that is compared
_MONEY = re.compile(r"([-+]?)\\?([$€£¥₹]) ?(?=[-+]?[0-9])(.*)")
_DEGREES = re.compile(r" ?(?:°|\bdegrees?|\^\{?\\circ\}?)(?: ?([CF])(?:elsius|ahrenheit)?)?$", re.IGNORECASE)
_PERCENT = re.compile(r"(?<=[0-9]) ?\\?(?:%|per ?cent|pct)$", re.IGNORECASE)
_SYMBOLS = {"$": " dollars", "€": " euros", "£": " pounds", "¥": " yen", "₹": " rupees", "\\": ""}
_NAMED = str.maketrans(_SYMBOLS)


def exact_answer(
    completions: list,
    answer: list[str | list[str]],
    *,
    ignore_case: bool = True,
    match: Literal["any", "all"] = "any",
    **kwargs: Any,
) -> list[float | None]:
    r"""Reward a completion whose final answer is the gold string.

    The final answer is the last box, with those side by side with it; else what follows the last "answer is", "answer:"
    or `<answer>` on its line; else the whole text after the thought. Unicode forms, white space, `\text{}`, and an
    article, quotes, emphasis and stops around it are the same to it; `$5` is `5 dollars`, and a unit may be left out.

    Args:
        completions: N completions, messages or strings.
        answer: N golds, strings or lists of strings.
        ignore_case: whether `paris` is `Paris`.
        match: what several strings mean. `any`: a list holds alternatives, and the answer is one of them. `all`: gold and
            answer are sets, written with commas, semicolons, "and", lines, bullets or boxes, and are equal in any order.

    Returns:
        N rewards: 1.0 right; 0.0 wrong or a thought that was never closed; None where the gold is empty or no text.

    Raises:
        ValueError: `match` is neither `any` nor `all`.

    Example:
        >>> exact_answer(["<think>...</think>The answer is **Paris**.", "Not Rome but Paris"], answer=["paris", "Paris"])
        [1.0, 0.0]
        >>> exact_answer(["Answer: blue, red and green", "red"], answer=[["red", "green", "blue"]] * 2, match="all")
        [1.0, 0.0]
    """
    if match not in ("any", "all"):
        raise ValueError(f"exact_answer: found match={match!r}; allowed: any, all")
    many = match == "all"
    rewards: list[float | None] = []
    for completion, gold in zip(completions, answer, strict=True):
        golds = [str(text) for text in (gold if isinstance(gold, list | tuple) else [gold]) if is_text(text)]
        wanted = _compared(golds, many, ignore_case)
        given = _compared(_final(think.answer(think.content(completion)) or "", many), many, ignore_case)
        right = bool(given) and _all_in(given, wanted)
        whole = not many or (len(given) == len(wanted) and _all_in(wanted, given))
        rewards.append(float(right and whole) if wanted else None)
    return rewards


def _final(text: str, many: bool) -> list[str]:
    """Return the final answer of a text, nothing where the text is too long to be one; `many` may go over several lines."""
    text = text.strip()
    end = unified(text[-_MAX_CHARACTERS:])[-_MAX_CHARACTERS:]
    if r"\boxed{" in end:
        return last_boxes(end)
    stated = [*_STATED.finditer(end)]
    if not stated:
        return [end] if len(text) <= _MAX_CHARACTERS else []
    rest = CLOSED.split(end[stated[-1].end() :], maxsplit=1)[0].lstrip(" \t")
    listed = many and rest.startswith("\n")  # a list that begins on the next line goes on to an empty line
    line = rest.strip().partition("\n\n" if listed else "\n")[0]
    return [line.removesuffix("**") if line.count("**") == 1 else line]  # all of `**The answer is Paris**` was bold


def _compared(texts: list[str], many: bool, ignore_case: bool) -> set[str]:
    """Return texts, or with `many` the members of the sets they are, in the form that is compared."""
    items = [item for text in texts for item in _items(text)] if many else texts
    forms = {_measured(_bare(item), ignore_case) for item in items} - {""}
    return {form.casefold() for form in forms} if ignore_case else forms


def _items(text: str) -> list[str]:
    """Return the members of a set, whatever parts them and whatever bracket is around them."""
    text = _bare(text, lines=True).replace("\\{", "{").replace("\\}", "}")
    text = text[1:-1] if text[:1] + text[-1:] in ("{}", "[]", "()") else text
    return _BETWEEN_ITEMS.split(_BULLET.sub("", text))


def _bare(text: str, lines: bool = False) -> str:
    """Take off what does not change an answer; `lines` keeps its line breaks."""
    text = think.last_boxed(text) or text if text.startswith(r"\boxed{") else text
    text = _TEX_TEXT.sub(lambda found: found[1] if found[1] is not None else " ", unified(text))
    text = "\n".join(" ".join(line.split()) for line in text.splitlines()) if lines else " ".join(text.split())
    return _unwrapped(text.strip()) or text.strip()


def _unwrapped(text: str) -> str:
    """Take quotes, emphasis, articles and closing stops off, in whatever order they are around a text."""
    for _ in range(_MAX_WRAPPINGS):
        before = text
        text = _UNSTRESSED.sub("", _EMPHATIC_STOP.sub("", text.rstrip(".,;: ")))
        for opening, closing in _PAIRS:
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                text = text[len(opening) : -len(closing)].strip()
        if text == before:
            break
    return text


def _measured(text: str, ignore_case: bool) -> str:
    """Write `5 cm` as number, `_UNIT` and the unit's key; with `_NAME` where a capital makes a name: `50 Cent`, `44 BC`."""
    if len(text) > _MAX_MEASURE:
        return text
    text = _PERCENT.sub("%", text)
    measure = _DEGREES.sub(lambda found: f" degrees{(found[1] or '').lower()}", _MONEY.sub(r"\1\3 \2", text))
    number, unit = split_unit(measure.translate(_NAMED))
    is_name = not unit[:1].islower()
    if not unit or number.strip(_NUMERIC) or (is_name and not ignore_case):
        return text
    return number + (_NAME if is_name else _UNIT) + unit_key(unit)


def _all_in(forms: set[str], others: set[str]) -> bool:
    """Tell whether each form is one of the others, or is the same number and one of the two has no unit."""
    equal = {other.replace(_NAME, _UNIT) for other in others}
    bare = {other for other in others if _UNIT not in other}
    numbers = {other.partition(_UNIT)[0] for other in others}
    return all(
        form.replace(_NAME, _UNIT) in equal or form.partition(_UNIT)[0] in (bare if _UNIT in form else numbers)
        for form in forms
    )
