"""Golds as they are compared: read, cleaned, and what is none."""

import math
import re
from functools import lru_cache
from typing import Any, NamedTuple

from reasoning_ext.verifier.answers import gold_answer
from reasoning_ext.verifier.numbers import value
from reasoning_ext.verifier.words import is_words

_CONTROL = re.compile(r"(?<!\\)[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Gold(NamedTuple):
    """A gold as it is compared: its clean text, whether it is a list, so that several boxes may answer it, and words."""

    text: str
    many: bool
    words: bool = False


def as_text(gold: Any) -> str:
    """Write any gold as text; "" for what is none: NaN, a mapping, a list of none or several, bytes."""
    if isinstance(gold, str):
        return gold
    if isinstance(gold, list | tuple) and len(gold) == 1:
        return as_text(gold[0])
    if gold is None or isinstance(gold, dict | list | tuple | set | bytes | bool):
        return str(gold) if isinstance(gold, bool) else ""
    if isinstance(gold, float) and not math.isfinite(gold):
        return ""
    return str(gold)


@lru_cache(maxsize=65536)
def read_gold(gold: str) -> Gold | None:
    r"""Read a gold answer; None where it is empty, prose or a number in words such as "forty two" (open-r1#86, #293, #503).

    A control character is what a lost backslash leaves, `\f` and `rac{1}{2}`: nobody knows what else was lost.
    """
    if gold.isascii() and gold.isdecimal():
        return Gold(gold, False)
    if gold.strip().lower() in ("nan", "none", "null", "") or _CONTROL.search(gold):
        return None
    text = gold_answer(gold)
    if text is None:
        return None
    if is_words(text):
        return Gold(text, False, words=True)
    return Gold(text, value(text) is None and any(sign in text for sign in (",", ";", "and", "or", r"\pm")))
