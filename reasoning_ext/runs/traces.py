"""Completions of several turns as a person is shown them: what was thought and said, what was called, what tools answered.

A row has its last turn's text as `completion`, and the messages before it as `turns`, in TRL's form; GRPO's tables have all
of them as JSON text. Everything in them was written by models and tools: what is no message is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reasoning_ext import think
from reasoning_ext.runs.texts import LONGEST, shortened, split_text, text
from reasoning_ext.think.messages import as_objects

TURNS = "turns"
MOST_PARTS, LONGEST_NAME = 64, 200  # pieces of a completion that are shown, characters of a tool's name
Message = dict[str, Any]


class Part(NamedTuple):
    """A piece of a turn: `kind` is thought, text, call or result; `name` the tool's, or the role of another message."""

    kind: str
    name: str
    text: str


def with_turns(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as `samples.jsonl` has it: `turns`, where there are any, a list, and `completion` the last turn's text."""
    given, completion = _messages(row.get(TURNS)), row.get("completion")
    if not given and isinstance(completion, list) and len(completion) > 1:
        given = _messages(completion)
    if given and given[-1]["role"] == "assistant":  # the last turn too, with calls that were not run
        last = given.pop()
        completion = "\n".join([last["content"], *map(call_text, last.get("tool_calls", ()))]).strip()
    elif given and isinstance(completion, list):
        completion = think.content(completion) if completion and isinstance(completion[-1], dict) else ""
    kept = {name: value for name, value in row.items() if name != TURNS}
    return kept | ({TURNS: given} if given else {}) | ({"completion": completion} if "completion" in row else {})


def turns_of(row: Mapping[str, Any]) -> list[Message]:
    """Return the messages before a row's last turn, none where nothing was called."""
    return _messages(row.get(TURNS))


def whole(row: Mapping[str, Any]) -> str | list[Message]:
    """Return a row's completion: a text, or the messages of all its turns."""
    turns, last = turns_of(row), row["completion"]
    return [*turns, {"role": "assistant", "content": last}] if turns else last


def as_one(row: Mapping[str, Any]) -> str:
    """Return a row's completion as a text: with turns its thoughts and its last answer, see `think.as_one`."""
    found = whole(row)
    told = found and isinstance(found, list) and all(isinstance(message, dict) for message in found)
    return think.as_one(found) if told else text(found)


def _messages(given: Any) -> list[Message]:
    """Return what can be read of messages, or of the JSON text of some: roles and contents are texts, calls a list."""
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return []
    known = [think.without_nulls(one) for one in found if isinstance(one, dict)] if isinstance(found, Sequence) else []
    made = []
    for one in known:
        calls = [_unpacked(call) for call in calls] if isinstance(calls := one.get("tool_calls"), list) else []
        message: Message = {name: str(one.get(name) or "") for name in ("role", "content")}
        message |= {"name": shortened(str(one.get("name") or ""), LONGEST_NAME)} if message["role"] == "tool" else {}
        made.append(message | ({"tool_calls": calls} if calls else {}))
    return made


def _unpacked(call: Any) -> Any:
    """Return a call with its arguments as a mapping, where they are one or the JSON text of one, as in a table."""
    try:
        return as_objects([call])[0]
    except (ValueError, AttributeError, RecursionError):
        return call


def call_text(call: Any) -> str:
    """Return a call as one line of code: `calculator {"expression": "17*23"}`."""
    name, arguments = _call(call)
    return f"{name} {arguments}".strip()


def _call(call: Any) -> tuple[str, str]:
    """Return a call's name, and its arguments as JSON."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return "", json.dumps(call, ensure_ascii=False, default=str)
    arguments = function.get("arguments")
    said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    return shortened(str(function.get("name") or ""), LONGEST_NAME), said


def parts(turns: Sequence[Message], most: int = LONGEST) -> list[Part]:
    """Take turns apart, at most MOST_PARTS pieces, of long texts the beginning and the end."""
    found = list[Part]()
    for one in _messages(turns):
        if one["role"] == "tool":
            found.append(Part("result", one["name"], shortened(one["content"], most)))
            continue
        thought, answer = split_text(one["content"]) if one["role"] == "assistant" else (None, one["content"])
        name = "" if one["role"] == "assistant" else shortened(one["role"], LONGEST_NAME)
        said = (Part("thought", "", thought or ""), Part("text", name, shortened(answer or "", most)))
        found += [part for part in said if part.text.strip()]
        called = map(_call, one.get("tool_calls", ()))
        found += [Part("call", tool, shortened(arguments, most)) for tool, arguments in called]
    if len(found) <= MOST_PARTS:
        return found
    half = MOST_PARTS // 2
    left = Part("text", "", f"[… {len(found) - 2 * half:,} parts left out …]")
    return [*found[:half], left, *found[-half:]]


def length(turns: Sequence[Message]) -> int:
    """Return how many characters the pieces of turns put into a page."""
    return sum(len(part.text) + len(part.name) for part in parts(turns))


def used(turns: Sequence[Message]) -> tuple[int, int]:
    """Return how many calls stand in turns, and how many results that are errors."""
    calls = sum(len(one.get("tool_calls", ())) for one in turns)
    return calls, sum(think.failed(one["content"]) for one in turns if one["role"] == "tool")


def as_text(row: Mapping[str, Any]) -> str:
    """Return a row's completion as text for a terminal, with turns as `lines` has them."""
    turns, last = turns_of(row), text(row["completion"])
    return lines([*turns, {"role": "assistant", "content": last}]) if turns else last


def lines(turns: Sequence[Message], most: int = LONGEST) -> str:
    """Return turns as text, calls behind `→` and results behind `←`.

    Only the first line of each of their pieces begins at the edge, so that no text can pass for another.
    """
    return "\n".join(_as_line(part).replace("\n", "\n  ") for part in parts(turns, most))


def _as_line(one: Part) -> str:
    said = f"{think.OPEN}{one.text.strip()}{think.CLOSE}" if one.kind == "thought" else one.text.strip()
    marks = {"call": f"→ {one.name} ", "result": f"← {one.name}: "}
    return marks.get(one.kind, f"{one.name or 'assistant'}: ") + said
