"""What formats share: reading a column or saying what is wrong with it, and writing a completion with its trace."""

from typing import Any

from reasoning_ext import think

NO_GOLDS = ("", "proof", "notfound")  # what the NuminaMath family writes where a problem has no final answer


def text(row: dict[str, Any], column: str) -> str:
    """Return the text of a column that must have one.

    Raises:
        KeyError: there is no such column.
        ValueError: it is empty or holds something else than text.
    """
    value = row[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"the column {column} is empty")
    if not isinstance(value, str):
        raise ValueError(f"the column {column} holds {value!r:.60}, allowed: text")
    return value


def items(row: dict[str, Any], column: str) -> list[Any]:
    """Return the list of a column that must have one.

    Raises:
        KeyError: there is no such column.
        ValueError: it is empty or holds something else than a list.
    """
    value = row[column]
    if not isinstance(value, list) or not value:
        raise ValueError(f"the column {column} holds {value!r:.60}, allowed: a list that is not empty")
    return value


def either(row: dict[str, Any], *columns: str) -> str:
    """Return the first of some columns that a row has, or the first of all, which it then lacks."""
    return next((column for column in columns if column in row), columns[0])


def gold_text(value: Any) -> str | None:
    """Return a gold as it is written, or None for what is none: null, NaN, a mapping, bytes.

    >>> gold_text(7), gold_text("007"), gold_text(True), gold_text(float("nan")), gold_text({"value": 7})
    ('7', '007', 'true', None, None)
    """
    if (
        value is None
        or isinstance(value, dict | bytes)
        or (isinstance(value, float) and str(value).strip("-") in ("nan", "inf"))
    ):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def gold(value: Any) -> str | None:
    """Return a gold as text, or None for what says that there is none."""
    said = (gold_text(value) or "").strip()
    return None if said.lower() in NO_GOLDS else said


def kept(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    """Return those of some columns that a row has."""
    return {column: row[column] for column in columns if column in row}


def said(content: str) -> list[dict[str, str]]:
    """Return a completion of one assistant message, whose white space stays as it is."""
    return [{"role": "assistant", "content": content}]


def traced(thought: str, answer: str) -> str:
    """Write a completion from a trace and an answer that the data holds apart, keeping every character of both."""
    return f"{think.OPEN}\n{thought}\n{think.CLOSE}\n\n{answer}"


def finished(completion: str) -> str | None:
    """Return a completion with its opening tag, or None where its thought was never closed or no answer follows it.

    >>> finished("3+4=7</think>7"), finished("<think>3+4=7</think>"), finished("7")
    ('<think>3+4=7</think>7', None, '7')
    """
    if think.CLOSE in completion and think.OPEN not in completion.partition(think.CLOSE)[0]:
        completion = think.OPEN + completion  # the model's template had opened the thought
    answer = think.answer(completion)
    return completion if answer and answer.strip() else None
