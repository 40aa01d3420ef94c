"""Calls of tools and their results in the messages of rows: whatever form a data set has, TRL's comes out.

A call is `{"type": "function", "function": {"name", "arguments": {...}}}`, a result `{"role": "tool", "name", "content"}`
behind the turn that calls. In a column the arguments are JSON text, since Arrow would give each call the names of all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby, islice, pairwise
from typing import Any

from reasoning_ext.think.messages import UNREADABLE, as_objects, as_text
from reasoning_ext.think.turns import split_turns

CALLS, TOOL_ROLES = ("tool_calls", "function_call"), ("tool", "function", "ipython")
RESULT = "tool"
ARGUMENTS, TOOLS = "arguments", "tools"
CHATS = ("prompt", "completion", "chosen", "rejected")
LOOKED_AT = 100  # rows of a stream
Chat = list[dict[str, Any]]


def has_calls(chat: Any) -> bool:
    """Tell whether there are calls or results in a conversation."""
    messages = [message for message in chat if isinstance(message, dict)] if isinstance(chat, list) else []
    return any(message.get("role") in TOOL_ROLES or any(map(message.get, CALLS)) for message in messages)


def need_tool_turns(rows: Any) -> bool:
    """Tell whether rows have calls, results or tools that the model is told of; of a stream the first ones are seen."""
    names = [name for name in (*CHATS, TOOLS) if name in (rows.column_names or ())]
    seen = rows.select_columns(names) if names else rows
    if not hasattr(rows, "num_rows"):
        seen = islice(seen, LOOKED_AT)
    elif not {"tool_calls", "name", TOOLS} & {*re.findall(r"\w+", str(seen.features))}:
        return False  # no message has a field for them
    return any(row.get(TOOLS) or any(has_calls(value) for value in row.values()) for row in seen)


def read_message(message: dict[str, Any], column: str) -> dict[str, Any]:
    """Return a message whose calls and whose role, where it is a result's, are in TRL's form.

    Raises:
        ValueError: a call has no name, arguments that are no JSON, or it is not an assistant's.
    """
    made = {name: value for name, value in message.items() if name not in CALLS}
    if message["role"] in TOOL_ROLES:
        made["role"] = RESULT
    said = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    if not said:
        return made
    if message["role"] != "assistant":
        raise ValueError(
            f"the column {column} has calls in a message of the role {message['role']}, allowed: assistant"
        )
    if not isinstance(said, list):
        raise ValueError(f"the column {column} holds {said!r:.60} as tool_calls, allowed: a list of calls")
    return made | {"tool_calls": [read_call(call, column) for call in said]}


def read_call(call: Any, column: str) -> dict[str, Any]:
    """Return a call, `{"function": {"name", "arguments"}}` or what stands inside, in TRL's form; its id stays.

    Raises:
        ValueError: it has no name, or its arguments are no mapping and no JSON text of one.
    """
    inside = call.get("function") or call if isinstance(call, dict) else None
    if not isinstance(inside, dict) or not isinstance(inside.get("name"), str) or not inside["name"].strip():
        raise ValueError(f"the column {column} holds {call!r:.60} as a call, allowed: a name and arguments")
    arguments, problem = inside.get(ARGUMENTS), ""
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            problem = f", which is no JSON ({error})"
    arguments = {} if arguments is None or arguments == "" else arguments
    if not isinstance(arguments, dict):
        found = f"{inside['name']} with the arguments {arguments!r:.60}{problem}"
        raise ValueError(f"the column {column} has a call of {found}, allowed: a mapping, or JSON text of one")
    own = {"id": call["id"]} if call.get("id") else {}
    return {"type": "function", "function": {"name": inside["name"], ARGUMENTS: arguments}, **own}


def paired(chat: Chat, column: str) -> Chat:
    """Return a conversation in which each call has its result, in the order of the calls, by the call's name.

    What stands there by ids is put in order by them, and the ids are left out.

    Raises:
        ValueError: a call has no result, or a result no call; a call that was not run is text.
    """
    made: Chat = []
    rest = [*chat]
    while rest:
        message = rest.pop(0)
        calls, results = message.get("tool_calls") or [], []
        if message["role"] == RESULT:
            raise ValueError(_unpaired(column, f"a result ({message['content']!r:.40}) without a call before it"))
        while rest and rest[0]["role"] == RESULT:
            results.append(rest.pop(0))
        if message["role"] == "assistant" and not calls and [one.get("name") for one in results] == [UNREADABLE]:
            made += [message, *results]
            continue
        if missing := calls[len(results) :]:
            raise ValueError(_unpaired(column, f"the call of {missing[0]['function']['name']} without a result"))
        if len(results) > len(calls):
            raise ValueError(_unpaired(column, f"a result ({results[-1]['content']!r:.40}) without a call before it"))
        named = _named(calls, results, column)
        calls = [{name: value for name, value in call.items() if name != "id"} for call in calls]
        bare = {"tool_calls": calls} if calls else {}
        made += [message | bare, *named]
    return made


def _named(calls: Chat, results: Chat, column: str) -> Chat:
    """Return the results of calls in their order, each with the name of its call and without an id."""
    ids = [call.get("id") for call in calls]
    asked = [result.get("tool_call_id") for result in results]
    if all(asked) and all(ids):
        if sorted(map(str, asked)) != sorted(map(str, ids)):
            lost = next(one for one in asked if one not in ids or asked.count(one) > 1)
            raise ValueError(_unpaired(column, f"a result of the id {lost}, which no call or another result has"))
        results = [results[asked.index(one)] for one in ids]
    made = []
    for call, result in zip(calls, results, strict=True):
        name = call["function"]["name"]
        if result.get("name") not in (None, name, UNREADABLE):
            raise ValueError(_unpaired(column, f"a result of {result['name']} behind the call of {name}"))
        others = {key: value for key, value in result.items() if key not in ("role", "name", "content", "tool_call_id")}
        made.append({"role": RESULT, "name": result.get("name") or name, "content": result["content"], **others})
    return made


def _unpaired(column: str, found: str) -> str:
    return f"the column {column} has {found}, allowed: a result behind each call, in turns"


def split_chat(chat: Chat, column: str) -> tuple[Chat, Chat]:
    """Split a conversation into what is given and what is trained on: the last message, or with tools all turns to it.

    Raises:
        ValueError: such turns do not end with an answer.
    """
    prompt, turns = split_turns(chat)
    if not has_calls(turns):
        return chat[:-1], chat[-1:]
    check_answered(turns, column)
    return prompt, turns


def each_answer(chat: Chat, column: str) -> Iterator[tuple[Chat, Chat]]:
    """Yield every part of a conversation that can be trained on as `split_chat` does, behind the user's first message."""
    begin = next((i for i, message in enumerate(chat) if message["role"] == "user"), len(chat))
    for said, group in groupby(range(begin, len(chat)), lambda i: chat[i]["role"] in ("assistant", RESULT)):
        numbers = [*group] if said else []
        turns = [chat[i] for i in numbers]
        if has_calls(turns):
            check_answered(turns, column)
            yield chat[: numbers[0]], turns
        else:
            yield from ((chat[:i], [chat[i]]) for i in numbers)


def check_answered(turns: Chat, column: str) -> None:
    """Refuse turns to train on that do not end with an answer, or in which two of the assistant's stand together."""
    roles = [message["role"] for message in turns]
    if roles[0] != "assistant" or roles[-1] != "assistant" or not turns[-1]["content"].strip():
        last = "a result" if roles[-1] == RESULT else "a turn without an answer"
        raise ValueError(f"the column {column} ends with {last}, allowed: an answer behind the last result")
    if any(a == b == "assistant" for a, b in pairwise(roles)):
        raise ValueError(f"the column {column} has two turns of the assistant together, allowed: results between them")


def packed(chat: Chat) -> Chat:
    """Return messages whose calls have their arguments as JSON text, as columns hold them."""
    bare = [{name: value for name, value in message.items() if name != "tool_calls"} for message in chat]
    calls = [as_text(as_objects(message.get("tool_calls") or [])) for message in chat]
    return [message | ({"tool_calls": made} if made else {}) for message, made in zip(bare, calls, strict=True)]


def held(value: Any) -> Any:
    """Return a row, or a part of one, as a column may hold it: arguments of calls, and schemas of tools, are JSON text."""
    if isinstance(value, list):
        return [held(part) for part in value]
    if not isinstance(value, dict):
        return value
    is_text = {
        ARGUMENTS: isinstance(value.get(ARGUMENTS), dict) and "name" in value,
        TOOLS: isinstance(value.get(TOOLS), list) and any(isinstance(tool, dict) for tool in value[TOOLS]),
    }
    return {name: _written(part) if is_text.get(name) else held(part) for name, part in value.items()}


def read_tools(value: Any) -> list[dict[str, Any]]:
    """Return what a column `tools` tells the model, JSON schemas as chat templates take them.

    It is a list of schemas or of their JSON texts, or JSON text of a list.

    Raises:
        ValueError: it is something else, or a schema has no name.
    """
    found = value
    try:
        found = json.loads(value) if isinstance(value, str) and value.strip() else value or []
        found = [json.loads(tool) if isinstance(tool, str) else tool for tool in found or []]
    except (ValueError, TypeError):
        found = [value]  # refused below
    if not all(isinstance(tool, dict) and _name(tool) for tool in found if tool is not None):
        hint = "or rename the column with rename_columns if it says something else"
        raise ValueError(f"the column tools holds {value!r:.60}, allowed: a list of JSON schemas with names; {hint}")
    tools = [tool for tool in found if tool is not None]
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def _name(tool: dict[str, Any]) -> Any:
    inside = tool.get("function", tool)
    return isinstance(inside, dict) and isinstance(inside.get("name"), str) and inside["name"]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def texts(completion: str | Chat, results: bool = False) -> list[str]:
    """Return a text a turn of a completion: content and calls of the assistant's, and with `results` those too."""
    if isinstance(completion, str):
        return [completion]
    found = []
    for one in completion:
        if results or one["role"] != RESULT:
            insides = [call["function"] for call in one.get("tool_calls") or []]
            called = (f"{inside['name']} {_written(inside[ARGUMENTS])}" for inside in insides)
            found.append("\n".join([str(one.get("content") or ""), *called]))
    return found
