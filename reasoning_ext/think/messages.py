"""Calls of tools as messages hold them, TRL's form; how a chat template writes them is `call_format`'s to know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Call = dict[str, Any]  # {"type": "function", "function": {"name": str, "arguments": {str: value}}}
UNREADABLE = "error"  # the name under which a call is answered that nobody can read
TOOLS = "tools"  # of chat_template_kwargs: the schemas; an empty list: tool turns, and nothing is told of tools


def call_of(name: str, arguments: Any) -> Call:
    """Return a call as messages have it."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def as_objects(calls: Sequence[Call]) -> list[Call]:
    """Return calls with their arguments as objects, whether a data set has these or JSON text; ValueError where neither."""
    found = []
    for call in calls:
        function = call.get("function", call)
        arguments = function.get("arguments") or {}
        try:
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        except ValueError as error:
            raise ValueError(f"the arguments of a call of {function.get('name')} are no JSON: {error}") from error
        if not isinstance(arguments, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"a call has a name and an object of arguments: found {str(function)[:200]}")
        found.append({**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return found


def as_text(calls: Sequence[Call]) -> list[Call]:
    """Return calls with their arguments as JSON text, as few templates (DeepSeek-V3) want them."""
    dumped = [json.dumps(call["function"]["arguments"], ensure_ascii=False) for call in calls]
    return [
        {**call, "function": call["function"] | {"arguments": text}} for call, text in zip(calls, dumped, strict=True)
    ]
