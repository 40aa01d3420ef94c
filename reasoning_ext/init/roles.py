"""What each column of a table is for, the problem, the answer, a trace: by names first, then by contents.

Names of the field's data sets are known; a table with other names (`Aufgabe`, `q7`) is read by what stands in it:
problems are the long texts that differ, an answer is short, a column that counts rows is neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from reasoning_ext import think
from reasoning_ext.errors import UserError

Rows = Sequence[dict[str, Any]]
# role -> names, the likeliest first; a name counts as a whole, then as a word in a longer one
NAMES = {
    "messages": "messages",
    "conversations": "conversations",
    "choices": "choices options",
    "tests": "tests test_list test_cases unit_tests asserts test",
    "rubric": "rubric rubrics criteria grading_criteria marking_scheme",
    "thought": "reasoning_content thinking reasoning thought thoughts cot chain_of_thought trace rationale scratchpad",
    "completion": "completion response generation output solution explanation code canonical_solution",
    "answer": "answer final_answer correct_answer gold golds label ground_truth expected expected_answer target result "
    "answer_key answerkey key correct answers",
    "prompt": "prompt question problem instruction query task text",
    "context": "input context passage facts body story paragraph article document",
}
OPTION = re.compile(r"(?:option|choice|opt)?[ _.-]?\(?([a-j]|[0-9])\)?", re.IGNORECASE)
SHORT = 60  # characters of an answer that can be compared, in the mean; a longer one is prose or a worked solution
MOST = 0.9  # of the rows must have a mark for it to be the table's


def values(rows: Rows, column: str) -> list[Any]:
    """Return what stands in a column, without what is empty."""
    return [row[column] for row in rows if row.get(column) not in (None, "", [])]


def alternatives(value: Any) -> Any:
    """Return what a mapping of answers holds, `{"text": [...]}` as SQuAD has it, `{"value": ..., "aliases": [...]}`."""
    named = [value[name] for name in ("text", "aliases", "value") if value.get(name)] if isinstance(value, dict) else []
    return named[0] if named else value


def share(rows: Rows, column: str, mark: str) -> float:
    """Return the share of rows whose column holds a text in its text."""
    return sum(mark in str(value) for value in values(rows, column)) / max(1, len(rows))


def is_short(rows: Rows, column: str) -> bool:
    """Tell whether a column holds answers that can be compared, and no prose."""
    found = [alternatives(value) for value in values(rows, column)]
    texts = [str(value[0] if isinstance(value, list) else value) for value in found if value != []]
    return sum(map(len, texts)) <= SHORT * len(texts)


def option_columns(columns: Sequence[str]) -> list[str]:
    """Return the columns that hold an option each, `A`, `B`, `C` or `option_1`, at least three, else none."""
    found = {match[1].lower(): name for name in columns if (match := OPTION.fullmatch(name))}
    marks = sorted(found)
    follows = all(ord(after) - ord(before) == 1 for before, after in pairwise(marks))
    return [found[mark] for mark in marks] if len(marks) >= 3 and follows else []


def roles(rows: Rows, columns: Sequence[str]) -> dict[str, str]:
    """Return `{role: column}` for the roles of `NAMES` that a table has.

    Raises:
        UserError: no column holds problems.
    """
    if {"chosen", "rejected"} <= {*columns}:
        hint = "write stage: dpo yourself; reasoning-ext init recipes/teacher has one, 3_dpo.yaml"
        raise UserError(f"found pairs, chosen and rejected, allowed: problems with answers; {hint}")
    options = option_columns(columns)
    free = [name for name in columns if name not in options and values(rows, name)]
    found = _by_name(free)
    if not {"messages", "conversations"} & found.keys():
        free = [name for name in free if name not in found.values() and not _is_idle(rows, name)]
        _by_contents(rows, free, found, bool(options))
        if "prompt" not in found:
            one = f"one column, {columns[0]!r}," if len(columns) == 1 else f"the columns {', '.join(columns)},"
            raise UserError(f"found {one} and no problems in them, allowed: a column of texts that differ, one a row")
    return _settled(rows, found)


def _by_name(columns: list[str]) -> dict[str, str]:
    """Find roles by names, each column for one role and each role by its likeliest name."""
    found: dict[str, str] = {}
    words = {name: re.sub(r"[\W_]+", "_", name.casefold()).strip("_") for name in columns}
    for whole in (True, False):
        for role, names in NAMES.items():
            for known in names.split() if role not in found else ():
                fits = (n for n in columns if n not in found.values() and _fits(words[n], known, whole))
                if column := next(fits, None):
                    found[role] = column
                    break
    if "context" in found and "prompt" not in found:  # `input` and `output`
        found["prompt"] = found.pop("context")
    return found


def _fits(word: str, known: str, whole: bool) -> bool:
    return word == known if whole else f"_{known}_" in f"_{word}_" and not word.endswith(("_id", "_type"))


def _is_idle(rows: Rows, column: str) -> bool:
    """Tell whether a column says nothing: the same everywhere, or the number of its row."""
    found = [str(value) for value in values(rows, column)]
    counts = all(text.isdecimal() and len(text) < 16 for text in found) and len(found) > 2
    return len({*found}) < 2 or (counts and all(int(b) - int(a) == 1 for a, b in pairwise(found)))


def _by_contents(rows: Rows, free: list[str], found: dict[str, str], options: bool) -> None:
    """Enter the problem and the answer where no name told them."""
    texts = {name: [str(value) for value in values(rows, name)] for name in free}
    long: list[str] = []
    if "prompt" not in found:
        said = re.compile(r"[^\W\d_]{2}|\d\D+\d")  # words, or something to work out
        long = [name for name in free if len({*texts[name]}) > len(rows) / 2 and any(map(said.search, texts[name]))]
        if long := [name for name in long if not share(rows, name, think.CLOSE)]:
            found["prompt"] = max(long, key=lambda name: sum(map(len, texts[name])))
    rest = [name for name in free if name not in found.values()]
    if told := next((name for name in rest if share(rows, name, think.CLOSE) > MOST), None):
        found.setdefault("completion", told)
        rest.remove(told)
    if not {"answer", "tests", "rubric"} & found.keys() and rest and (options or "prompt" in found):

        def likely(name: str) -> tuple:
            numbers = sum(bool(re.fullmatch(r"[-+]?[\d.,/ ]+%?|\(?[A-Ja-j]\)?", text)) for text in texts[name])
            return len(texts[name]), numbers > len(texts[name]) / 2, len({*texts[name]}), rest.index(name)

        found["answer"] = max(rest, key=likely)
        _tell_thoughts(rows, [name for name in long if name != found["answer"]], found)


def _tell_thoughts(rows: Rows, long: list[str], found: dict[str, str]) -> None:
    """Of two columns of long texts that no name told apart, the one that holds the answers is the thought."""

    def tells(name: str) -> bool:
        pairs = [
            (str(row[name]), str(row[found["answer"]])) for row in rows if None not in (row[name], row[found["answer"]])
        ]
        return sum(answer in text for text, answer in pairs) > MOST * len(pairs)

    if len(long) == 2 and found["prompt"] in long and not {"thought", "completion"} & found.keys():
        thoughts = [name for name in long if tells(name)]
        if len(thoughts) == 1:
            found["thought"] = thoughts[0]
            found["prompt"] = next(name for name in long if name != thoughts[0])


def _settled(rows: Rows, found: dict[str, str]) -> dict[str, str]:
    """Correct by contents what names alone told: a short `output` is an answer, a long `answer` is none."""
    if {"prompt", "context"} <= found.keys() and len({*map(str, values(rows, found["prompt"]))}) < len(rows) / 2:
        found["prompt"], found["context"] = found["context"], found["prompt"]  # one instruction for many texts
    told, answers = found.get("completion"), found.get("answer")
    if told and not answers and "tests" not in found and not _is_worked(rows, told):
        found["answer"] = found.pop("completion")
    elif answers and not {"completion", "choices", "rubric"} & found.keys() and _is_worked(rows, answers):
        found["completion"] = found.pop("answer")
    return found


def _is_worked(rows: Rows, column: str) -> bool:
    """Tell whether a column holds solutions, traces or prose, and not answers alone."""
    marks = ("####", think.CLOSE, r" \boxed{")
    return not is_short(rows, column) or any(share(rows, column, mark) > MOST for mark in marks)
