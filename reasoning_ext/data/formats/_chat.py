"""What formats of conversations share: ShareGPT's turns, contents in parts, and reasoning in a field of its own."""

from typing import Any

from reasoning_ext import think
from reasoning_ext.data.formats._common import items, traced

REASONING = ("reasoning_content", "thinking", "reasoning")
CALLS, TOOL_ROLES = ("tool_calls", "function_call"), ("tool", "function", "ipython")
ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def read_chat(value: Any, column: str) -> list[dict[str, Any]]:
    """Return a conversation of the data as every stage takes it: each message in text, as `plain` reads it, without tools.

    Raises:
        ValueError: it holds no messages, one of them is not text, or it calls a tool or is a tool's.
    """
    if not (isinstance(value, list) and value and all(isinstance(m, dict) and _is_text(m.get("role")) for m in value)):
        raise ValueError(f"the column {column} holds {value!r:.60}, allowed: text, or messages of role and content")
    chat = [plain(message, column) for message in value]
    for message in chat:
        calls = next((name for name in CALLS if message.get(name)), None)
        if calls or message["role"] in TOOL_ROLES:
            found = f"{calls} in a message" if calls else f"a message of the role {message['role']}"
            raise ValueError(f"the column {column} has {found}; rows with tools are not supported, leave them out")
        if (known := ROLES.get(message["role"].lower(), message["role"])) != message["role"]:
            raise ValueError(f"the column {column} has a message of the role {message['role']}, allowed: {known}")
    return chat


def plain(message: dict[str, Any], column: str) -> dict[str, Any]:
    """Return a message whose content is text that begins with the message's reasoning, if it has any, and without nulls.

    Args:
        message: role and content, a text or a list of `{"type": "text", "text": ...}`, among which thoughts of the type
            thinking or reasoning may stand before the text, and perhaps a field of REASONING.
        column: the column it comes from, for errors.

    Raises:
        ValueError: a part is not text, there is reasoning in two places, or it is not an assistant's.
    """
    made = think.without_nulls(message)
    fields = {name: made.pop(name) for name in REASONING if name in made}
    fields = {
        name: _parts(v, column)[0] if isinstance(v, list) else _text(v, name, column) for name, v in fields.items()
    }
    content, thinking = made.get("content", ""), ""
    if isinstance(content, list):
        content, thinking = _parts(content, column)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        content = str(content)
    made["content"] = content = _text(content, "content", column)
    made = {name: value for name, value in made.items() if value != [] or name not in CALLS}
    thoughts = {name: text for name, text in {**fields, "parts of its content": thinking}.items() if text.strip()}
    if not thoughts:
        return made
    role = message["role"]
    names, thought = " and ".join(thoughts), next(iter(thoughts.values()))
    if role != "assistant":
        raise ValueError(f"the column {column} has {names} in a message of the role {role}, allowed: assistant")
    if any(other != thought for other in thoughts.values()):
        raise ValueError(f"the column {column} has different texts in {names} of one message")
    if think.CLOSE not in content:
        made["content"] = traced(thought, content)
    elif thought.strip() not in content:
        raise ValueError(f"the column {column} has one thought in the content of a message and another in {names}")
    return made


def _parts(parts: list[Any], column: str) -> tuple[str, str]:
    """Return the text of a content in parts, and the thought that stands before it."""
    text, thought = "", ""
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind == "text":
            text += _text(part.get("text"), "a text part", column)
        elif kind in ("thinking", "reasoning") and not text.strip():
            inner = next((part[name] for name in ("thinking", "reasoning", "text") if part.get(name)), None)
            inner = _parts(inner, column)[0] if isinstance(inner, list) else inner
            thought += _text(inner, f"a {kind} part", column)
        else:
            order = "; a thought stands before the text" if kind in ("thinking", "reasoning") else ""
            raise ValueError(f"the column {column} has a content part of the type {kind}, allowed: text{order}")
    return text, thought


def _text(value: Any, name: str, column: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the column {column} has {value!r:.60} as {name} of a message, allowed: text")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row's `conversations`, turns of `from` and `value`, as messages in text, with its column `system` in front.

    Raises:
        ValueError: the column is empty, or a turn has another shape or comes from somebody else.
    """
    chat = []
    for turn in items(row, "conversations"):
        own = {name: turn[name] for name in (*REASONING, *CALLS) if turn.get(name)} if isinstance(turn, dict) else {}
        if not isinstance(turn, dict) or "from" not in turn or (turn.get("value") is None and not own):
            raise ValueError(f"the column conversations holds {turn!r:.60}, allowed: turns of from and value")
        if turn["from"] not in ROLES:
            allowed = ", ".join(ROLES)
            raise ValueError(f"the column conversations has a turn from {turn['from']}, allowed: {allowed}")
        chat.append({"role": ROLES[turn["from"]], "content": turn["value"], **own})
    chat = read_chat(chat, "conversations")
    system = plain({"role": "system", "content": row.get("system")}, "system")
    return [system, *chat] if system["content"].strip() and chat[0]["role"] != "system" else chat


def is_answered(chat: list[dict[str, Any]]) -> bool:
    """Tell whether a chat ends with something that an assistant said after a user."""
    users = any(message["role"] == "user" for message in chat[:-1])
    return users and chat[-1]["role"] == "assistant" and bool(chat[-1]["content"].strip())
