"""Data sets in tokens. No row is ever cut: one that is too long is refused or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reasoning_ext.data.columns import DataError, columns_of
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.tokens import MASKS, LossOptions, Tokens, prompt_length, tokenize_pair, tokenize_row
from reasoning_ext.think.template import Contract

if TYPE_CHECKING:
    from datasets import Dataset

MARKS = ("exact", "spelled", "defused")
MOST_INEXACT = 0.01  # of the rows; a tokenizer that changes more than that is no tokenizer for these texts


def tokenize_rows(
    rows: Dataset,
    tokenizer: Any,
    contract: Contract,
    loss: LossOptions | None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Dataset:
    """Tokenize formatted rows, or pairs; `loss` says what is trained on, None for pairs.

    Returns:
        rows with `input_ids` (T,), `labels` (T,), and `loss_weights` (T,) where they differ, or `prompt_ids`,
        `chosen_ids` and `rejected_ids` of pairs, with tools `chosen_mask` and `rejected_mask`; and `exact`, `spelled` and
        `defused`.

    Raises:
        DataError: a row trains no token, or its prompt is refused by the template.
    """

    def convert(row: dict[str, Any], index: int) -> dict[str, Any]:
        if loss is None:
            pair = vars(tokenize_pair(tokenizer, contract, row, index, chat_template_kwargs))
            return {name: value for name, value in pair.items() if contract.calls or name not in MASKS}
        tokens = tokenize_row(tokenizer, contract, row, index, loss, chat_template_kwargs)
        labels = tokens.labels(loss)
        made = {"input_ids": tokens.input_ids, "labels": labels, **_marks(tokens)}
        return made | ({"loss_weights": tokens.weights(loss)} if loss.weighted else {})

    if not hasattr(rows, "num_rows"):
        convert(next(iter(rows)), 0)  # a stream fails when it is read, which is late
    return rows.map(convert, with_indices=True, remove_columns=columns_of(rows), **_told(rows, "Tokenizing"))


def prompt_rows(
    prepared: Prepared,
    tokenizer: Any,
    contract: Contract,
    limit: int | None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Dataset:
    """Return rows to generate for: without completions and prompts of more than `limit` tokens, which is noted.

    Raises:
        DataError: the template refuses a prompt, or none is left.
    """

    def fits(row: dict[str, Any], index: int) -> bool:
        length = prompt_length(tokenizer, contract, row, index, chat_template_kwargs)
        return limit is None or length <= limit

    rows = prepared.rows
    rows = rows.remove_columns("completion") if "completion" in columns_of(rows) else rows
    kept = rows.filter(fits, with_indices=True, **_told(rows, "Measuring prompts"))
    if limit is not None and hasattr(rows, "num_rows"):
        if not kept.num_rows:
            raise DataError("max_prompt_length", f"found {limit}, but all {rows.num_rows} prompts have more tokens")
        prepared.note(f"prompts up to {limit} tokens", kept, rows.num_rows - kept.num_rows)
    return kept


def drop_overlong(rows: Dataset, max_length: int | None, choice: str) -> tuple[Dataset, int]:
    """Drop the rows that are longer than `max_length`, or refuse them; never cut one.

    Args:
        rows: in tokens; of a pair the longer side counts.
        max_length: in tokens; None is no limit.
        choice: "error" or "drop".

    Returns:
        `(the rows that fit, how many were dropped)`.

    Raises:
        DataError: there are such rows and the choice is "error", or none is left; of a stream, when it is read.
    """
    if max_length is None:
        return rows, 0

    hint = "raise it, or write overlong_rows: drop"

    def fits(row: dict[str, Any], index: int) -> bool:
        length = _length(row)
        if length > max_length and choice == "error":
            raise DataError(
                "max_length", f"row {index} has {length} tokens, more than max_length {max_length}", hint=hint
            )
        return length <= max_length

    if not hasattr(rows, "num_rows"):
        return rows.filter(fits, with_indices=True), 0
    lengths = [_length(row) for row in rows]
    kept = [i for i, length in enumerate(lengths) if length <= max_length]
    dropped, longest = len(lengths) - len(kept), max(lengths, default=0)
    if dropped and (choice == "error" or not kept):
        found = f"{dropped} of {len(lengths)} rows are longer than max_length {max_length}"
        found += f" (row {lengths.index(longest)} has {longest} tokens)"
        raise DataError("max_length", found, hint=hint if kept else "raise it; no row is left")
    return (rows.select(kept) if dropped else rows), dropped


def _marks(tokens: Tokens) -> dict[str, bool]:
    return {name: getattr(tokens, name) for name in MARKS}


def _length(row: dict[str, Any]) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _told(rows: Dataset, what: str) -> dict[str, Any]:
    """Return arguments of `map` for rows that do not stream; its cache would know a function by its name alone."""
    return {"desc": what, "load_from_cache_file": False} if hasattr(rows, "num_rows") else {}
