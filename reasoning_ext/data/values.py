"""What the values of a row are read as: texts, lists, golds, and conversations with thoughts wherever they stand."""

import json
from hashlib import blake2b
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.calls import CALLS, RESULT, has_calls, paired, read_message

NO_GOLDS = ("", "proof", "notfound")  # what the NuminaMath family writes where a problem has no final answer
REASONING = ("reasoning_content", "thinking", "reasoning")
FROM = {"function_call": "assistant", "observation": RESULT, "tool": RESULT}  # in ShareGPT, beside those of ROLES
ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def text(row: dict[str, Any], column: str) -> str:
    """Return the text of a column; ValueError where it is blank or something else, KeyError where there is none."""
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"the column {column} holds {value!r:.60}, allowed: text that is not empty")
    return value


def items(row: dict[str, Any], column: str) -> list[Any]:
    """Return the list of a column; ValueError where it is empty or something else, KeyError where there is none."""
    value = row[column]
    if not isinstance(value, list) or not value:
        raise ValueError(f"the column {column} holds {value!r:.60}, allowed: a list that is not empty")
    return value


def either(row: dict[str, Any], *columns: str) -> str:
    """Return the first of some columns that a row has, or the first of all, which it then lacks."""
    return next((column for column in columns if column in row), columns[0])


def kept(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    """Return those of some columns that a row has."""
    return {column: row[column] for column in columns if column in row}


def digest(text: str, size: int = 8) -> bytes:
    """Return so many bytes that stand for a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def gold_text(value: Any) -> str | None:
    """Return a gold as it is written, or None for what is none: null, NaN, a mapping, bytes.

    >>> gold_text(7), gold_text("007"), gold_text(True), gold_text(float("nan")), gold_text({"value": 7})
    ('7', '007', 'true', None, None)
    """
    is_number = isinstance(value, float) and str(value).strip("-") not in ("nan", "inf")
    if value is None or isinstance(value, dict | bytes) or (isinstance(value, float) and not is_number):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def gold(value: Any) -> str | None:
    """Return a gold as text, or None for what says that there is none."""
    said = (gold_text(value) or "").strip()
    return None if said.lower() in NO_GOLDS else said


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


def read_chat(value: Any, column: str) -> list[dict[str, Any]]:
    """Return a conversation of the data as every stage takes it: each message as `plain` reads it, calls and results paired.

    Raises:
        ValueError: it holds no messages, one of them is not text, or a call has no result or a result no call.
    """
    roles = [isinstance(m, dict) and m.get("role") for m in value] if isinstance(value, list) else []
    if not roles or not all(role and isinstance(role, str) for role in roles):
        raise ValueError(f"the column {column} holds {value!r:.60}, allowed: text, or messages of role and content")
    chat = [plain(message, column) for message in value]
    for message in chat:
        role = message["role"]
        if (known := ROLES.get(role.lower(), role)) != role:
            raise ValueError(f"the column {column} has a message of the role {role}, allowed: {known}")
    return paired(chat, column) if has_calls(chat) else chat


def plain(message: dict[str, Any], column: str) -> dict[str, Any]:
    """Return a message without nulls whose content is text that begins with the message's reasoning, if there is any.

    Its calls are in TRL's form, in whose arguments a null stays.

    The content is a text or a list of `{"type": "text", "text": ...}`, before which thoughts of the type thinking or
    reasoning may stand; there may be a field of REASONING. `column` is named in errors.

    Raises:
        ValueError: a part is not text, there are different thoughts in two places, or it is not an assistant's.
    """
    made, role = think.without_nulls(read_message(message, column)), message["role"]
    thoughts = {name: _joined(made.pop(name), name, column)[0] for name in REASONING if name in made}
    content, thoughts["parts of its content"] = _joined(made.get("content", ""), "content", column)
    made |= {"content": content}
    thoughts = {name: thought for name, thought in thoughts.items() if thought.strip()}
    if not thoughts:
        return made
    names, thought = " and ".join(thoughts), next(iter(thoughts.values()))
    if role != "assistant":
        raise ValueError(f"the column {column} has {names} in a message of the role {role}, allowed: assistant")
    has_tags = think.CLOSE in content
    if len({*thoughts.values()}) > 1 or (has_tags and thought.strip() not in content):
        raise ValueError(f"the column {column} has different thoughts in one message, in {names} and its content")
    return made if has_tags else made | {"content": traced(thought, content)}


def _joined(value: Any, name: str, column: str) -> tuple[str, str]:
    """Return a field's text, its parts joined where it is a list, and the thought among these."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value), ""
    if isinstance(value, str):
        return value, ""
    if not isinstance(value, list):
        raise ValueError(f"the column {column} has {value!r:.60} as {name} of a message, allowed: text")
    text = thought = ""
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind == "text":
            text += _joined(part.get("text"), "a text part", column)[0]
        elif kind in ("thinking", "reasoning") and not text.strip():
            inner = next((part[key] for key in ("thinking", "reasoning", "text") if part.get(key)), None)
            thought += _joined(inner, f"a {kind} part", column)[0]
        else:
            allowed = "text, and a thought before it"
            raise ValueError(f"the column {column} has a content part of the type {kind}, allowed: {allowed}")
    return text, thought


def turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row's `conversations`, turns of `from` and `value`, as messages, with its column `system` in front.

    Raises:
        ValueError: the column is empty, or a turn has another shape or comes from somebody else.
    """
    chat = []
    for turn in items(row, "conversations"):
        own = kept(turn, *REASONING, *CALLS) if isinstance(turn, dict) else {}
        if not isinstance(turn, dict) or (turn.get("value") is None and not any(own.values())):
            raise ValueError(f"the column conversations holds {turn!r:.60}, allowed: turns of from and value")
        who = turn.get("from")
        if who not in ROLES | FROM:
            found = f"the column conversations has a turn from {who}"
            raise ValueError(f"{found}, allowed: {', '.join(ROLES | FROM)}")
        if who == "function_call":
            chat.append({"role": "assistant", **own, **_calls(turn.get("value"))})
        else:
            chat.append({"role": (ROLES | FROM)[who], "content": turn["value"], **own})
    chat = read_chat(chat, "conversations")
    system = plain({"role": "system", "content": row.get("system")}, "system")
    return [system, *chat] if system["content"].strip() and chat[0]["role"] != "system" else chat


def _calls(value: Any) -> dict[str, Any]:
    """Read a turn that calls, JSON of one call or a list of them behind a thought in tags, as a message's fields."""
    content, closed, written = str(value or "").rpartition(think.CLOSE)
    try:
        calls = json.loads(written)
    except ValueError as error:
        found = f"the column conversations has the call {written!r:.60}, which is no JSON ({error})"
        raise ValueError(f"{found}, allowed: JSON of name and arguments") from error
    return {"content": content + closed, "tool_calls": calls if isinstance(calls, list) else [calls]}


def is_answered(chat: list[dict[str, Any]]) -> bool:
    """Tell whether a chat ends with something that an assistant said after a user."""
    users = any(message["role"] == "user" for message in chat[:-1])
    return users and chat[-1]["role"] == "assistant" and bool(chat[-1]["content"].strip())
