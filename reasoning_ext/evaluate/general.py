"""Two hundred small tasks of general abilities, by which a trained model is asked what it forgot.

They stand in `general.jsonl`, forty for each of `ABILITIES`, written for this project, and judged by programs alone.
The kinds of checks, as a task names them; letters of either case are alike unless it says `"case": true`:

    equals    `answers`: the answer is one of them
    contains  `texts`: each stands in it, as whole words
    choice    `letter`: the one letter of A to D that it names
    words     `least`, `most`: how many words it has
    lines     `count`: how many lines that are not blank it has; `each`: a pattern of each of them
    starts    `text`: it begins so
    ends      `text`: it ends so
    without   `letters`: it has none of them, and does have others
    pattern   `pattern`: a regular expression of all of it
    json      `value`: what it reads as; a text of `TYPES` such as "<string>" stands for any value of that type
    all       `checks`: each of them passes
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from reasoning_ext import think

ABILITIES = ("instruction", "choice", "spelling", "copying", "format")
LONGEST = 2000  # characters of an answer that is judged; no task asks for a tenth of it
TYPES: dict[str, Any] = {"<string>": str, "<integer>": int, "<number>": (int, float), "<boolean>": bool}

_ENCLOSED = re.compile(
    r"""```\w{0,12}\n(.*)\n```|```(.*)```|\*\*(.*)\*\*|"(.*)"|'(.*)'|“(.*)”|‘(.*)’|`(.*)`""", re.DOTALL
)
_WORD = re.compile(r"[\w'’-]+")
_LETTER = re.compile(r"\b(?:[BCD]|A(?! (?!or\b|and\b)\w))\b(?!['’])")  # an A before a word is an article


@dataclass(frozen=True)
class Task:
    """One task: what is asked, how an answer is checked, and an answer that passes."""

    id: str
    ability: str
    prompt: str
    check: dict[str, Any]
    reference: str


@cache
def _read() -> tuple[Task, ...]:
    lines = files("reasoning_ext.evaluate").joinpath("general.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Task(**json.loads(line)) for line in lines)


def tasks() -> list[Task]:
    """Return all tasks, in the order of their file."""
    return list(_read())


def passes(task: Task, completion: str) -> bool:
    """Judge a whole completion by what stands after its thought; one that never ends its thought fails.

    One pair of quotation marks, bold marks or code fences around the answer and a full stop at its end do no harm.
    """
    answer = (think.answer(completion) or "").strip()
    return 0 < len(answer) <= LONGEST and any(_holds(task.check, form) for form in _forms(answer))


def _forms(text: str) -> Iterator[str]:
    """Yield an answer as it stands, without its full stop, and without what encloses it."""
    yield text
    for _ in range(2):
        text = text.removesuffix(".").strip()
        yield text
        if enclosed := _ENCLOSED.fullmatch(text):
            text = next(part for part in enclosed.groups() if part is not None).strip()
            yield text


def _holds(check: dict[str, Any], text: str) -> bool:
    """Tell whether one form of an answer passes a check; raises a ValueError for a kind that is none."""
    alike = str if check.get("case") else str.casefold
    match check["kind"]:
        case "equals":
            return alike(text) in [alike(answer.removesuffix(".")) for answer in check["answers"]]
        case "contains":
            said = f" {' '.join(_words(alike(text)))} "
            return all(f" {alike(wanted)} " in said for wanted in check["texts"])
        case "choice":
            return {*_LETTER.findall(text.upper() if len(text) <= 3 else text)} == {check["letter"]}
        case "words":
            return check["least"] <= len(_words(text)) <= check["most"]
        case "lines":
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return len(lines) == check["count"] and all(_is(check.get("each", ".+"), line, check) for line in lines)
        case "starts":
            return alike(text).startswith(alike(check["text"]))
        case "ends":
            return alike(text).endswith(alike(check["text"]))
        case "without":
            return any(map(str.isalpha, text)) and not {*alike(text)} & {*check["letters"]}
        case "pattern":
            return _is(check["pattern"], text, check)
        case "json":
            return _reads_as(text, check["value"])
        case "all":
            return all(_holds(part, text) for part in check["checks"])
    raise ValueError(f"unknown kind of check: {check['kind']}")


def _words(text: str) -> list[str]:
    return [word for found in _WORD.findall(text) if (word := found.strip("'’-_"))]


def _is(pattern: str, text: str, check: dict[str, Any]) -> bool:
    return re.fullmatch(pattern, text, re.DOTALL if check.get("case") else re.DOTALL | re.IGNORECASE) is not None


def _reads_as(text: str, wanted: Any) -> bool:
    try:
        return _alike(json.loads(text), wanted)
    except (ValueError, RecursionError):
        return False


def _alike(found: Any, wanted: Any) -> bool:
    """Tell whether a value is the wanted one; 1 is not true, and order counts in lists alone."""
    if isinstance(wanted, str) and wanted in TYPES:
        return isinstance(found, TYPES[wanted]) and (wanted == "<boolean>" or not isinstance(found, bool))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return found.keys() == wanted.keys() and all(_alike(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(_alike, found, wanted))
    return bool(isinstance(found, bool) == isinstance(wanted, bool) and found == wanted)
