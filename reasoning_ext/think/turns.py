"""A completion of several turns as the model reads and writes it: what it said, and what tools answered in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from reasoning_ext import think
from reasoning_ext.errors import one_line
from reasoning_ext.think.messages import as_objects, call_of
from reasoning_ext.think.probes import USER, USER_TURN, render, split_prompt
from reasoning_ext.think.template import Contract

PROMPT, THOUGHT, ANSWER, RESULT = "prompt", "thought", "answer", "result"
ASSISTANT, TOOL = "assistant", "tool"


class Segment(NamedTuple):
    """A part of a rendered conversation; `kind`: prompt, thought, answer (calls too) or result (with the next prompt)."""

    text: str
    kind: str


def split_turns(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split a conversation before the assistant's first turn behind the last user's message: `(prompt, turns)`."""
    at = len(messages)
    while at and messages[at - 1]["role"] in (ASSISTANT, TOOL):
        at -= 1
    return list(messages[:at]), list(messages[at:])


def render_prompt(
    tokenizer: Any, contract: Contract, prompt: Sequence[dict[str, Any]], chat_template_kwargs: dict[str, Any]
) -> str:
    """Render a prompt as at inference; ValueError where the template refuses it or an assistant's message ends it."""
    if prompt and prompt[-1]["role"] == "assistant":
        raise ValueError("the prompt ends with an assistant's message; allowed: as the beginning of the completion")
    try:
        return render(tokenizer, contract.messages(prompt), True, chat_template_kwargs)
    except Exception as error:  # a template raises whatever it likes
        raise ValueError(f"the chat template refuses the prompt: {one_line(error)}") from error


def render_turns(
    tokenizer: Any,
    contract: Contract,
    prompt: Sequence[dict[str, Any]],
    turns: Sequence[dict[str, Any]],
    chat_template_kwargs: dict[str, Any],
) -> list[Segment]:
    """Render a prompt and the turns behind it: each turn's exact text, the end of it, the results, the next generation prompt.

    Turns that end with results end with a generation prompt; joined, it is what a model reads to go on. Raises ValueError
    where the template refuses something or has no tool turns.
    """
    segments = [Segment(render_prompt(tokenizer, contract, prompt, chat_template_kwargs), PROMPT)]
    turns = [think.without_nulls(turn) for turn in turns]
    at = 0
    while at < len(turns):
        results = 0
        while at + 1 + results < len(turns) and turns[at + 1 + results]["role"] == TOOL:
            results += 1
        if turns[at]["role"] != ASSISTANT:
            raise ValueError(f"a turn of the role {turns[at]['role']!r} stands where the assistant's is expected")
        if segments[-1].kind not in (PROMPT, RESULT):
            raise ValueError("two turns of the assistant stand side by side")
        opened = segments.pop()
        before, thought, answer, closed = join_turn(contract, opened.text, turns[at])
        calls = contract.calls if results or turns[at].get("tool_calls") else None
        end = calls.end if calls else contract.end
        said = (thought, answer + end) if closed else (thought + end, "")
        segments += [
            Segment(before, opened.kind),
            *(Segment(*part) for part in zip(said, (THOUGHT, ANSWER), strict=True) if part[0]),
        ]
        at += 1 + results
        if results:
            answered = turns[at - results : at]
            segments.append(Segment(results_text(tokenizer, contract, answered, chat_template_kwargs), RESULT))
    return segments


def results_text(
    tokenizer: Any, contract: Contract, results: Sequence[dict[str, Any]], chat_template_kwargs: dict[str, Any]
) -> str:
    """Render what stands behind the end of a turn that calls: the results, and the next generation prompt.

    Raises ValueError where the template refuses them or has no tool turns.
    """
    if contract.calls is None:
        raise ValueError("the conversation has results of tools, and no tools are asked for of the chat template")
    call = call_of(results[0].get("name") or "tool", {})
    turn = {"role": ASSISTANT, "content": "", "tool_calls": [call]}
    messages = contract.messages([USER_TURN, turn, *results])
    try:
        text = render(tokenizer, messages, True, chat_template_kwargs)
    except Exception as error:  # a template raises whatever it likes
        raise ValueError(f"the chat template refuses a tool's result: {one_line(error)}") from error
    written, end = contract.calls.write("", [call]).strip(), contract.calls.end
    at = text.find(written, text.find(USER))
    ended = text.find(end, at + len(written)) if at >= 0 else -1
    if ended < 0:
        raise ValueError("the chat template does not end a turn that calls where a result follows")
    return text[ended + len(end) :]


def join_turn(contract: Contract, opened: str, turn: dict[str, Any]) -> tuple[str, str, str, bool]:
    """Join a turn to the generation prompt before it, without its end: `(the prompt, thought, answer, no open thought)`.

    What it says of thoughts is in `render_row`; calls are written behind what the turn says. Raises ValueError where they
    cannot be.
    """
    content, calls = str(turn.get("content") or ""), as_objects(turn.get("tool_calls") or [])
    base, prefix, empty = split_prompt(opened, contract.open, contract.close)
    if calls and contract.calls is None:
        raise ValueError("the conversation has calls of tools, and no tools are asked for of the chat template")
    whole = contract.calls.write(content, calls) if contract.calls else content
    thinks = content.lstrip().startswith(think.OPEN)
    lead = contract.plain_lead  # the model wrote it itself where it is white space
    led = not (thinks or lead.strip()) and content.startswith(lead)
    text = whole if led or (calls and not content.strip()) else contract.native(whole)
    if not thinks:
        text = text.removeprefix(contract.plain_lead) if empty and content.strip() else text
        return base if prefix else opened, "", text, True
    if prefix:
        tag = contract.open.strip()
        text = text.lstrip().removeprefix(tag).removeprefix(prefix.removeprefix(tag))
    thought, closed, answer = text.rpartition(contract.close.strip())
    if calls and contract.calls and not closed:  # a thought that ends where the call begins
        thought, closed, answer = text.rpartition(contract.calls.write("", calls).removeprefix(contract.calls.bare))
        return base + prefix, *((thought, closed + answer, True) if closed else (text, "", False))
    return (base + prefix, thought + closed, answer, True) if closed else (base + prefix, text, "", False)
