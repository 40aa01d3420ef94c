"""Rows as the model reads them: the prompt as inference renders it, and the exact completion to train on behind it.

The chat template renders the prompt alone. It never sees the completion, so that it cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_ext import think
from reasoning_ext.think.template import Contract
from reasoning_ext.think.turns import join_turn, render_turns, split_turns
from reasoning_ext.think.turns import render_prompt as render_prompt


@dataclass(frozen=True)
class Rendered:
    """A training row as text."""

    prompt: str  # never trained on
    thought: str  # with the closing tag, or ""
    answer: str  # with the end of the turn, which the thought has where there is no answer
    end: str = ""  # of the turn
    ends: tuple[str, ...] = ()  # tokens that end a turn or a text; inside a completion they are letters


def render_row(
    tokenizer: Any, contract: Contract, row: dict[str, Any], chat_template_kwargs: dict[str, Any] | None = None
) -> Rendered:
    """Render a row to train on: the generation prompt as at inference, the exact completion, the end of the turn.

    A completion that opens a thought goes on where the prompt opened it. One without a thought gets no empty one: the
    opening tag that the prompt wrote is taken off. A thought after a prompt that closed an empty one takes that one's
    place.

    A row has `prompt` and `completion` (messages), and `chat_template_kwargs` where it has more than the recipe's.
    Raises ValueError where the completion is empty, or the template refuses the prompt.
    """
    # rows of a mixture have None where another entry has an argument of its own
    own = {name: value for name, value in (row.get("chat_template_kwargs") or {}).items() if value is not None}
    prompt = render_prompt(tokenizer, contract, row["prompt"], (chat_template_kwargs or {}) | own)
    completion = think.content(row["completion"])
    if not completion.strip():
        raise ValueError("the completion is empty")
    before, thought, answer, closed = join_turn(contract, prompt, {"content": completion})
    said = (thought, answer + contract.end) if closed else (thought + contract.end, "")
    return Rendered(before, *said, contract.end, turn_ends(tokenizer, contract))


def render_begun(
    tokenizer: Any, contract: Contract, prompt: Sequence[dict[str, Any]], chat_template_kwargs: dict[str, Any]
) -> str:
    """Render a prompt whose last message may be a whole completion's beginning, which the model is to go on from.

    Raises ValueError where the template refuses the prompt.
    """
    asked, turns = split_turns(prompt)
    begun = turns.pop() if turns and turns[-1]["role"] == "assistant" else None
    *before, last = render_turns(tokenizer, contract, asked, turns, chat_template_kwargs)
    head = "".join(segment.text for segment in before)
    if begun is None:
        return head + last.text
    content = str(begun["content"])
    if not content.strip():
        raise ValueError("the completion is empty")
    text = head + "".join(join_turn(contract, last.text, begun)[:3])
    said = content.rstrip()
    space = content[len(said) :]  # which channels are written without, though there is more to come
    return text if text.endswith(space) or said.endswith((think.OPEN, think.CLOSE)) else text + space


def count_tokens(tokenizer: Any, text: str) -> int:
    """Return how many tokens a text has, without any that a tokenizer adds and without a warning about its length."""
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def turn_ends(tokenizer: Any, contract: Contract) -> tuple[str, ...]:
    """List the tokens that end a turn or a text and are no part of the tags or of calls."""
    calls = contract.calls
    ended = [contract.end, *([calls.end] if calls else [])]
    ids = [*(i for end in ended for i in tokenizer(end, add_special_tokens=False)["input_ids"]), tokenizer.pad_token_id]
    tokens = {tokenizer.eos_token, *(tokenizer.convert_ids_to_tokens(i) for i in ids if i is not None)}
    written, added = (
        contract.open + contract.close + contract.thought_lead + contract.plain_lead,
        tokenizer.get_added_vocab(),
    )
    written += calls.head + calls.close + (calls.between or "") + calls.finish if calls else ""
    return tuple(sorted(t for t in tokens if t and len(t) > 1 and t in added and t not in written))
