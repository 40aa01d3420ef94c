"""The form `<think>thought</think>answer`: 1.0 or 0.0, or graded to lead there. Weigh it little: format is cheap.

Stricter than `think.well_formed`, because a reward is optimised against: look-alike tags count as repetitions, and what
nobody can read counts as empty. Every pass over the text is linear, so that floods of tags cost nothing.
"""

import re
import unicodedata
from typing import Any, Literal

from reasoning_ext import think

# Anything a reader would take for one of the tags: other case, spaces, attributes, full-width brackets.
_TAG = re.compile(r"[<＜]\s*+(/?+)\s*+(think|answer)(?![\w-])", re.IGNORECASE)
_ANSWER, _ANSWER_END = "<answer>", "</answer>"
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols by category, white to the eye


def think_format(completions: list, *, mode: Literal["strict", "graded"] = "strict", **kwargs: Any) -> list[float]:
    """Reward one thought that says something and then an answer, with no other tag.

    Six conditions: one exact `<think>`; one exact `</think>`; nothing but white space before the opener; a thought with a
    letter or digit; an answer with a letter, digit or symbol; and `<answer>` tags, where there are any, once, as a pair and
    behind the thought. A repeated think tag, exact or look-alike, is worth 0.0 whatever else is right. Where tools were called
    every turn counts, and the worst one is paid for; in a turn that calls, the calls stand for the answer.

    Args:
        completions: N completions, messages or strings.
        mode: `strict` pays 1.0 for all conditions and 0.0 otherwise, `graded` the share of conditions met.

    Returns:
        N rewards between 0.0 and 1.0; 1.0 only for what is well-formed, 0.0 for a text without think tags.

    Raises:
        ValueError: `mode` is neither `strict` nor `graded`.

    Example:
        >>> texts = ["<think>6 x 7</think>42", "<think></think>42", "<think>6 x 7", "42"]
        >>> think_format(texts), [round(reward, 2) for reward in think_format(texts, mode="graded")]
        ([1.0, 0.0, 0.0, 0.0], [1.0, 0.83, 0.33, 0.0])
    """
    if mode not in ("strict", "graded"):
        raise ValueError(f"think_format: found mode={mode!r}; allowed: strict, graded")
    shares = [min(map(_share, _turns(completion))) for completion in completions]
    return shares if mode == "graded" else [float(share == 1.0) for share in shares]


def _turns(completion: str | list[dict[str, Any]]) -> list[str]:
    """Return what the assistant wrote, a text a turn, with a word in the place of calls; a turn that never came is empty."""
    if isinstance(completion, str):
        return [completion]
    turns = [turn for turn in completion if turn.get("role") != "tool"]
    unanswered = [""] * (turns[-1:] != [completion[-1]])
    texts = zip(turns, think.said(completion), strict=True)
    return [f"{text} called" if turn.get("tool_calls") else text for turn, text in texts] + unanswered


def _share(text: str) -> float:
    """Return the share of the conditions that hold; those on thought and answer need the tags that set them apart."""
    tags = [(slash, name.casefold()) for slash, name in _TAG.findall(text)]
    if tags.count(("", "think")) > 1 or tags.count(("/", "think")) > 1:
        return 0.0
    before, opened, after_opener = text.partition(think.OPEN)
    _, closed, answer = text.partition(think.CLOSE)
    starts = bool(opened) and not before.strip()
    thought = after_opener.partition(think.CLOSE)[0] if starts and closed else ""
    answer = "" if not closed or think.OPEN in answer else answer
    paired = _answer_tags_paired(answer, sum(name == "answer" for _, name in tags))
    said = answer.partition(_ANSWER)[2].partition(_ANSWER_END)[0] if paired and _ANSWER in answer else answer
    answered = _says(said.replace(_ANSWER, "").replace(_ANSWER_END, ""), "LNS")
    return sum([bool(opened), bool(closed), starts, _says(thought, "LN"), answered, answered and paired]) / 6


def _answer_tags_paired(answer: str, tags: int) -> bool:
    """Tell whether the `tags` answer tags of a completion are none, or one exact pair in the text after the thought."""
    return tags == 0 or (tags == 2 and _ANSWER_END in answer.partition(_ANSWER)[2])


def _says(text: str, categories: str) -> bool:
    """Tell whether a text has a visible character of one of the Unicode categories (L letters, N numbers, S symbols)."""
    return any(unicodedata.category(c)[0] in categories for c in set(text) - _BLANK_LETTERS)
