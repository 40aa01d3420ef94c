"""Formats of multiple-choice questions, GPQA, MMLU, MMLU-Pro: the options in the prompt, the gold a letter.

An option's place is decided by a hash of seed, question and option, so that a row comes out the same wherever it stands
in its set and whichever rows are taken. `choices`, in the order of the letters, is for the reward `choice_answer`.
"""

import hashlib
import re
from string import ascii_uppercase
from typing import Any

from reasoning_ext.data.values import either, items, kept, text

_POINTS_AT_OTHERS = re.compile(
    r"\babove\b|\b(?:all|any|both|none|neither|either) of (?:these|them|the)\b"
    r"|(?-i:\b[A-J]\b[^\w]{1,3}(?:and|or|nor|&)[^\w]{1,3}[A-J]\b)|(?-i:^\W?[A-J]\W? only\b)",
    re.IGNORECASE,
)


def gpqa(row: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """Idavidrein/gpqa: `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`; always shuffled, as `seed` decides.

    Kept: `High-level domain`, `Subdomain`.
    """
    columns = ["Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3))]
    options = [text(row, column).strip() for column in columns]
    question = text(row, "Question").strip()
    return {**_asked(question, options, 0, seed), **kept(row, "High-level domain", "Subdomain")}


def mmlu(row: dict[str, Any], *, seed: int = 0, shuffle: bool = True) -> dict[str, Any]:
    """cais/mmlu (`question`, `subject`, `choices`, `answer` = an index) and TIGER-Lab/MMLU-Pro (`question`, `options`,
    `answer` = a letter, `answer_index`, `category`).

    Options are shuffled as `seed` decides, but for those of a row in which one points at others, `all of the above`,
    `A and B`. Kept: `subject`, `category`.
    """
    column = either(row, "choices", "options")
    options, answer = [str(option).strip() for option in items(row, column)], str(row["answer"]).strip()
    index = int(answer) if answer.isdecimal() else ascii_uppercase.find(answer) if len(answer) == 1 else -1
    if len(options) > len(ascii_uppercase) or not 0 <= index < len(options):
        counts = f"the column {column} has {len(options)} options, and the column answer holds {answer:.60}"
        raise ValueError(
            f"{counts}, allowed: up to {len(ascii_uppercase)}, and the number or the letter of one of them"
        )
    keep_order = not shuffle or any(_POINTS_AT_OTHERS.search(option) for option in options)
    question = text(row, "question").strip()
    return {**_asked(question, options, index, None if keep_order else seed), **kept(row, "subject", "category")}


def _asked(question: str, options: list[str], right: int, seed: int | None) -> dict[str, Any]:
    """Write a question with its options, shuffled where there is a seed; `right` is the index of the right one."""

    def place(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{question}\0{options[index]}".encode()).digest()

    order = [*range(len(options))] if seed is None else sorted(range(len(options)), key=place)
    choices = [options[index] for index in order]
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return {"prompt": f"{question}\n\n{listed}", "answer": ascii_uppercase[order.index(right)], "choices": choices}
