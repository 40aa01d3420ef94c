"""Formats of conversations and instructions: plain columns, messages, ShareGPT, Alpaca, preferences."""

from typing import Any

from reasoning_ext.data.calls import has_calls, split_chat
from reasoning_ext.data.values import REASONING, gold_text, is_answered, items, read_chat, said, text, turns
from reasoning_ext.think.turns import split_turns


def prompt_completion(row: dict[str, Any]) -> dict[str, Any]:
    """Plain columns: `prompt`, and `completion` and `answer` (text, or a list of texts) where they are, and others.

    A completion of several messages is trained on its last; those before it belong to the prompt, but for turns that
    call tools and their results, which belong to the completion. A text in a column
    of its own `reasoning_content`, `thinking` or `reasoning` is the thought of the completion; beside a pair nobody
    knows whose. A row without a gold is left out, and counted, where a reward asks for one.
    """
    row = dict(row)
    for column in ("prompt", "completion"):
        if column in row and row[column] is None:
            raise ValueError(f"the column {column} is empty")
    if (golds := row.get("answer")) is not None:
        texts = [gold_text(gold) for gold in (golds if isinstance(golds, list) else [golds])]
        row["answer"] = [text for text in texts if text is not None] if isinstance(golds, list) else texts[0]
    thoughts = {name: row[name] for name in REASONING if isinstance(row.get(name), str | list | dict)}
    if {"chosen", "rejected"} <= row.keys() and (name := next((n for n in REASONING[:2] if thoughts.get(n)), None)):
        hint = "put it into the message whose thought it is, or rename it with rename_columns"
        raise ValueError(f"the column {name} stands beside chosen and rejected; {hint}")
    if thoughts and row.get("completion"):
        chat = row["completion"] if isinstance(row["completion"], list) else said(str(row["completion"]))
        row["completion"] = [*chat[:-1], {**chat[-1], **thoughts}]
    return row


def messages(row: dict[str, Any]) -> dict[str, Any]:
    """Chats: `messages` of role and content; the last one, an assistant's, is trained on, what precedes it is given.

    Where tools were called behind the last user's message, all turns from there on are trained on, but for the results.
    A column `tools`, JSON schemas, is what the model is told of them.
    A content may be a list of text parts. Reasoning in a field of its own (`reasoning_content`, `thinking`, `reasoning`)
    is put in front of the content in think tags, as for HuggingFaceH4/Multilingual-Thinking. Other columns are kept.
    """
    chat = _answered(row, "messages")
    prompt, completion = split_chat(chat, "messages")
    return {**_without(row, "messages"), "prompt": prompt, "completion": completion}


def sharegpt(row: dict[str, Any]) -> dict[str, Any] | None:
    """ShareGPT: `conversations` of `from` (human, gpt, system; or user, assistant) and `value`, perhaps `system`.

    The last assistant turn is trained on, and with tools (from function_call, and observation or tool) all turns behind
    the last user's. A chat that does not end with one is left out. Other columns are kept.
    """
    chat = turns(row)
    rest = _without(row, "conversations", "system")
    if not is_answered(chat):
        return None
    prompt, completion = split_chat(chat, "conversations")
    return {**rest, "prompt": prompt, "completion": completion}


def alpaca(row: dict[str, Any]) -> dict[str, Any] | None:
    """Alpaca (tatsu-lab/alpaca, yahma/alpaca-cleaned): `instruction`, `input` (may be empty), `output`.

    The input follows the instruction after an empty line. A row with an empty output is left out.
    """
    instruction, given = text(row, "instruction"), row.get("input") or ""
    if not (row["output"] or "").strip():
        return None
    prompt = f"{instruction}\n\n{given}" if given.strip() else instruction
    return {"prompt": prompt, "completion": said(text(row, "output"))}


def preferences(row: dict[str, Any]) -> dict[str, Any] | None:
    """Whole conversations in `chosen` and `rejected`, as in trl-lib/ultrafeedback_binarized and
    HuggingFaceH4/ultrafeedback_binarized; a column `prompt`, which says the same again, is not read.

    What both begin with is the prompt, and the last message of each is its side, or with tools all turns behind the last
    user's. A row whose conversations differ before that is left out. Other columns are kept.
    """
    chosen, rejected = _answered(row, "chosen"), _answered(row, "rejected")
    split = split_turns if has_calls(split_turns(chosen)[1] + split_turns(rejected)[1]) else _last
    (prompt, chosen), (other, rejected) = split(chosen), split(rejected)
    rest = _without(row, "prompt", "chosen", "rejected")
    return {**rest, "prompt": prompt, "chosen": chosen, "rejected": rejected} if prompt == other else None


def _answered(row: dict[str, Any], column: str) -> list[dict[str, Any]]:
    """Return a column's conversation, which ends with an assistant's message."""
    chat = read_chat(items(row, column), column)
    if len(chat) < 2 or chat[-1]["role"] != "assistant":
        raise ValueError(f"the column {column} does not end with an assistant's message after a prompt")
    return chat


def _last(chat: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return chat[:-1], chat[-1:]


def _without(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in columns}
