"""Formats of conversations and instructions: plain columns, messages, ShareGPT, Alpaca."""

from typing import Any

from reasoning_ext.data.formats._chat import REASONING, is_answered, read_chat, turns
from reasoning_ext.data.formats._common import gold_text, said, text


def prompt_completion(row: dict[str, Any]) -> dict[str, Any]:
    """Plain columns: `prompt`, and `completion` and `answer` (text, or a list of texts) where they are; others are kept.

    A completion of several messages is trained on its last; those before it belong to the prompt. A text in a column of its
    own `reasoning_content`, `thinking` or `reasoning` is the thought of the completion; beside a pair nobody knows whose.

    Columns of other names are renamed in the recipe: `rename_columns: {question: prompt, response: completion}`.

    A row without a gold is left out, and counted, where a reward asks for one.

    Raises:
        ValueError: the column prompt or completion is there and empty.
    """
    row = dict(row)
    for column in ("prompt", "completion"):
        if column in row and row[column] is None:
            raise ValueError(f"the column {column} is empty")
    if row.get("answer") is not None:
        golds = row["answer"]
        texts = [gold_text(gold) for gold in (golds if isinstance(golds, list) else [golds])]
        row["answer"] = [text for text in texts if text is not None] if isinstance(golds, list) else texts[0]
    thoughts = {name: row[name] for name in REASONING if isinstance(row.get(name), str | list | dict)}
    if {"chosen", "rejected"} <= row.keys() and (name := next((n for n in REASONING[:2] if thoughts.get(n)), None)):
        whose = "put it into the message whose thought it is, or rename it with rename_columns"
        raise ValueError(f"the column {name} stands beside chosen and rejected; {whose}")
    if thoughts and row.get("completion"):
        chat = row["completion"] if isinstance(row["completion"], list) else said(str(row["completion"]))
        row["completion"] = [*chat[:-1], {**chat[-1], **thoughts}]
    return row


def messages(row: dict[str, Any]) -> dict[str, Any]:
    """Chats: `messages` of role and content; the last assistant message is what is trained on, what precedes it is given.

    A content may be a list of text parts. Reasoning in a field of its own (`reasoning_content`, `thinking`, `reasoning`,
    as in HuggingFaceH4/Multilingual-Thinking) is put in front of the content in think tags. Other columns are kept.

    Raises:
        ValueError: the chat does not end with an assistant message after a prompt, or a content is not text.
    """
    chat = read_chat(row["messages"], "messages") if row["messages"] else []
    if not chat or chat[-1]["role"] != "assistant":
        raise ValueError("the last of the column messages is not from the assistant")
    if len(chat) < 2:
        raise ValueError("the column messages holds one message and no prompt before it")
    rest = {name: value for name, value in row.items() if name != "messages"}
    return {**rest, "prompt": chat[:-1], "completion": chat[-1:]}


def sharegpt(row: dict[str, Any]) -> dict[str, Any] | None:
    """ShareGPT: `conversations` of `from` (human, gpt, system; or user, assistant) and `value`, perhaps a column `system`.

    The last assistant turn is what is trained on. A chat that does not end with one is left out. Other columns are kept.

    Raises:
        ValueError: the column conversations is empty or a turn has another shape or comes from somebody else.
    """
    chat = turns(row)
    if not is_answered(chat):
        return None
    rest = {name: value for name, value in row.items() if name not in ("conversations", "system")}
    return {**rest, "prompt": chat[:-1], "completion": chat[-1:]}


def alpaca(row: dict[str, Any]) -> dict[str, Any] | None:
    """Alpaca (tatsu-lab/alpaca, yahma/alpaca-cleaned): `instruction`, `input` (may be empty), `output`.

    The input follows the instruction after an empty line. The column `text`, the same in one template, is not read. A row
    with an empty output is left out.

    Raises:
        ValueError: the column instruction is empty.
    """
    instruction, given = text(row, "instruction"), row.get("input") or ""
    if not (row["output"] or "").strip():
        return None
    prompt = f"{instruction}\n\n{given}" if given.strip() else instruction
    return {"prompt": prompt, "completion": said(text(row, "output"))}
