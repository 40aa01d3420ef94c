"""How a chat template writes calls of tools and their results, found out by rendering, never by a template's name.

Between a call and the next turn stand the tool's result and the next generation prompt. A template that knows no tools gets
tool turns of the widespread form: `<tool_call>` with JSON in the assistant's turn, `<tool_response>` in a user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasoning_ext import think
from reasoning_ext.think import probes
from reasoning_ext.think.call_finding import find_calls, types_of
from reasoning_ext.think.call_format import CallFormat
from reasoning_ext.think.messages import TOOLS, UNREADABLE, Call, as_text, call_of
from reasoning_ext.think.template import Contract, decoder
from reasoning_ext.think.tool_turns import add_tool_turns
from reasoning_ext.think.turns import render_turns

__all__ = ["TOOLS", "UNREADABLE", "Call", "CallFormat", "add_tool_turns", "as_text", "call_of", "find_calls", "play"]


def play(tokenizer: Any, contract: Contract, chat_template_kwargs: dict[str, Any]) -> str:
    """Play a round of a call, its result and an answer through the real template and parser: what is wrong, in a line, or ""."""
    form, decode = contract.calls, decoder(tokenizer, contract)
    if form is None:
        return "no tools are asked for of the chat template"
    calls = [call_of(*_trial(chat_template_kwargs.get(TOOLS) or []))]
    hostile = f"4 {' '.join(form.tokens)} {think.CLOSE} {contract.end}"
    result = {"role": "tool", "name": calls[0]["function"]["name"], "content": form.defuse(hostile)}
    thought = f"{think.OPEN}\n{probes.THOUGHT}\n{think.CLOSE}\n\n"
    turns = [{"role": "assistant", "content": thought, "tool_calls": calls}, result]
    turns.append({"role": "assistant", "content": thought + probes.ANSWER})
    try:
        segments = render_turns(tokenizer, contract, [probes.USER_TURN], turns, chat_template_kwargs)
    except ValueError as error:
        return str(error)
    places = [number for number, segment in enumerate(segments) if segment.kind == "result"]
    if len(places) != 1 or probes.ANSWER not in segments[-1].text:
        return "the result or the answer is left out"
    said = "".join(segment.text for segment in segments[: places[0]] if segment.kind != "prompt")
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    _, found, problem = form.parse(decode(ids))
    if problem or found != calls:
        return f"a call is not read back from tokens: {problem or decode(ids)!r}"[:600]
    inside = tokenizer(result["content"], add_special_tokens=False)["input_ids"]
    if special := {i for i in inside if i in tokenizer.added_tokens_decoder and len(tokenizer.decode([i]).strip()) > 1}:
        return f"control tokens stand in a result: {tokenizer.decode(sorted(special))!r}"
    return ""


def _trial(schemas: Sequence[Any]) -> tuple[str, Call]:
    """Make a name and arguments up that the first tool would take."""
    samples = {"string": "2 + 2", "integer": 4, "number": 2.5, "boolean": True, "array": [], "object": {}}
    name, parameters = next(iter(types_of(schemas).items()), ("look_up", {"key": {"type": "string"}}))
    types = {key: value.get("type") if isinstance(value, dict) else None for key, value in parameters.items()}
    return name, {key: samples.get(kind if isinstance(kind, str) else "", "2 + 2") for key, kind in types.items()}
