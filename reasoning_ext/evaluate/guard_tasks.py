"""The guard's 200 tasks, 40 of each of five abilities, and the checks that judge an answer to one.

A check is data, `{kind: value}`, and all of its kinds must hold of the answer behind the thought; no empty answer is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext import think

TASKS = Path(__file__).with_name("guard_tasks.jsonl")
_LETTER = re.compile(
    r"\W*(?:the )?(?:right |correct )?(?:answer|letter|option)?\W*(?:is\W*)?\(?([A-D])(?=\W*$|[).:,]|\s*\n)", re.I
)


@cache
def tasks() -> list[dict[str, Any]]:
    """Return the tasks: `id`, `ability`, `prompt`, `check` and `reference`, an answer that is right."""
    return [json.loads(line) for line in TASKS.read_text(encoding="utf-8").splitlines()]


def right(task: dict[str, Any], completion: str) -> bool:
    """Tell whether a whole completion answers a task: an unclosed thought is no answer, nor is the prompt itself.

    >>> task = {"prompt": "Write dog backwards.", "check": {"equals": "god"}}
    >>> right(task, "<think>g, o, d</think>god."), right(task, "<think>god")
    (True, False)
    """
    answer = (think.answer(completion) or "").strip()
    return answer not in ("", task["prompt"]) and all(
        KINDS[kind](answer, value) for kind, value in task["check"].items()
    )


def _equals(answer: str, value: str) -> bool:
    bare = answer.strip("\"'`* ")
    return value in (answer, bare, bare.removesuffix("."))


def _json(answer: str, keys: list[str]) -> bool:
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", answer, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and [*found] == keys


def _choice(answer: str, letter: str) -> bool:
    found = _LETTER.match(answer)
    return bool(found) and found[1].upper() == letter  # type: ignore[index]


KINDS: dict[str, Callable[[str, Any], bool]] = {
    "equals": _equals,
    "choice": _choice,
    "has": lambda answer, value: value in answer.lower(),
    "lacks": lambda answer, value: not re.search(rf"\b{value}\b" if len(value) > 1 else re.escape(value), answer, re.I),
    "starts": lambda answer, value: answer.lower().startswith(value.lower()),
    "ends": lambda answer, value: answer.endswith(value),
    "words": lambda answer, value: len(answer.split()) == value,
    "least_words": lambda answer, value: len(answer.split()) >= value,
    "most_words": lambda answer, value: len(answer.split()) <= value,
    "lines": lambda answer, value: len([line for line in answer.splitlines() if line.strip()]) == value,
    "lower": lambda answer, value: answer.islower(),
    "upper": lambda answer, value: answer.isupper(),
    "json": _json,
    "regex": lambda answer, value: re.fullmatch(value, answer) is not None,
}
