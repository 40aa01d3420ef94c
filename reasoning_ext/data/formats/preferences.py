"""Formats of preference sets, whose rows have an answer that is chosen and one that is rejected."""

from typing import Any

from reasoning_ext.data.formats._chat import read_chat
from reasoning_ext.data.formats._common import items


def preferences(row: dict[str, Any]) -> dict[str, Any] | None:
    """Whole conversations in `chosen` and `rejected`, as in trl-lib/ultrafeedback_binarized and
    HuggingFaceH4/ultrafeedback_binarized; a column `prompt`, which says the same again, is not read.

    What both begin with is the prompt, and the last message of each is its side. A row whose conversations differ before that
    is left out. Other columns are kept.

    Raises:
        ValueError: a conversation does not end with an assistant message after a prompt, or a content is not text.
    """
    chats = []
    for column in ("chosen", "rejected"):
        chat = read_chat(items(row, column), column)
        if len(chat) < 2 or chat[-1]["role"] != "assistant":
            raise ValueError(f"the column {column} does not end with an assistant's message after a prompt")
        chats.append(chat)
    chosen, rejected = chats
    if chosen[:-1] != rejected[:-1]:
        return None
    rest = {name: value for name, value in row.items() if name not in ("prompt", "chosen", "rejected")}
    return {**rest, "prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}
