"""Formats of multiple-choice questions, GPQA, MMLU, MMLU-Pro: the options in the prompt, the gold a letter.

An option's place is decided by a hash of seed, question and option, so that a row comes out the same wherever it stands
in its set and whichever rows are taken. `choices`, in the order of the letters, is for the reward `choice_answer`.
"""

import hashlib
import re
from string import ascii_uppercase
from typing import Any

from reasoning_ext.data.formats._common import either, items, kept, text

_POINTS_AT_OTHERS = re.compile(
    r"\babove\b|\b(?:all|any|both|none|neither|either) of (?:these|them|the)\b"
    r"|(?-i:\b[A-J]\b[^\w]{1,3}(?:and|or|nor|&)[^\w]{1,3}[A-J]\b)|(?-i:^\W?[A-J]\W? only\b)",
    re.IGNORECASE,
)


def gpqa(row: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """Idavidrein/gpqa: `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`; always shuffled.

    Kept: `High-level domain`, `Subdomain`.

    Args:
        row: one row.
        seed: decides the order of the options.

    Raises:
        ValueError: one of the columns is empty.
    """
    columns = ["Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3))]
    options = [text(row, column).strip() for column in columns]
    question = text(row, "Question").strip()
    return {**_asked(question, options, 0, seed), **kept(row, "High-level domain", "Subdomain")}


def mmlu(row: dict[str, Any], *, seed: int = 0, shuffle: bool = True) -> dict[str, Any]:
    """cais/mmlu (`question`, `subject`, `choices`, `answer` = an index) and TIGER-Lab/MMLU-Pro (`question`, `options`,
    `answer` = a letter, `answer_index`, `category`).

    Kept: `subject`, `category`.

    Args:
        row: one row.
        seed: decides the order of the options.
        shuffle: shuffle the options, but for those of a row in which one points at others, `all of the above`, `A and B`.

    Raises:
        ValueError: a column is empty, or the answer is none of the options.
    """
    column = either(row, "choices", "options")
    options = [str(option).strip() for option in items(row, column)]
    if len(options) > len(ascii_uppercase):
        raise ValueError(f"the column {column} holds {len(options)} options, allowed: {len(ascii_uppercase)}")
    right = _index(row["answer"], len(options))
    keep_order = not shuffle or any(_POINTS_AT_OTHERS.search(option) for option in options)
    question = text(row, "question").strip()
    return {**_asked(question, options, right, None if keep_order else seed), **kept(row, "subject", "category")}


def _index(answer: Any, count: int) -> int:
    """Return the index that an answer, an index or a letter, stands for."""
    said = str(answer).strip()
    index = int(said) if said.isdecimal() else ascii_uppercase.find(said) if len(said) == 1 else -1
    if not 0 <= index < count:
        last = ascii_uppercase[count - 1]
        raise ValueError(f"the column answer holds {answer!r:.60}, allowed: 0 to {count - 1} or A to {last}")
    return index


def _asked(question: str, options: list[str], right: int, seed: int | None) -> dict[str, Any]:
    """Write a question with its options, shuffled where there is a seed; `right` is the index of the right one."""

    def place(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{question}\0{options[index]}".encode()).digest()

    order = [*range(len(options))] if seed is None else sorted(range(len(options)), key=place)
    choices = [options[index] for index in order]
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return {"prompt": f"{question}\n\n{listed}", "answer": ascii_uppercase[order.index(right)], "choices": choices}
