"""Data sets in tokens. No row is ever cut: one that is too long is refused or dropped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.columns import DataError, columns_of
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.tokens import LossOptions, prompt_length, tokenize_pair, tokenize_row
from reasoning_ext.think.template import Contract

if TYPE_CHECKING:
    from datasets import Dataset

MOST_INEXACT = 0.01  # of the rows; a tokenizer that changes more than that is no tokenizer for these texts


def tokenize_rows(
    rows: Dataset,
    tokenizer: Any,
    contract: Contract,
    loss: LossOptions | None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Dataset:
    """Tokenize formatted rows, or pairs.

    Args:
        rows: `prompt` and `completion`, or `chosen` and `rejected`, in messages, and `chat_template_kwargs` where rows have
            their own.
        tokenizer: with a chat template.
        contract: what `template.find_contract` found for it.
        loss: what is trained on; None for pairs.
        chat_template_kwargs: of the recipe.

    Returns:
        rows with `input_ids` (T,), `labels` (T,), and `loss_weights` (T,) where they differ, or `prompt_ids`, `chosen_ids` and
        `rejected_ids` of pairs; and `exact` and `spelled`.

    Raises:
        DataError: a row trains no token, or its prompt is refused by the template.
    """

    def convert(row: dict[str, Any], index: int) -> dict[str, Any]:
        if loss is None:
            return vars(tokenize_pair(tokenizer, contract, row, index, chat_template_kwargs))
        tokens = tokenize_row(tokenizer, contract, row, index, loss, chat_template_kwargs)
        labels = tokens.labels(loss)
        made = {"input_ids": tokens.input_ids, "labels": labels, "exact": tokens.exact, "spelled": tokens.spelled}
        return made | ({"loss_weights": tokens.weights(loss)} if loss.weighted else {})

    names, is_whole = columns_of(rows), hasattr(rows, "num_rows")
    if not is_whole:
        convert(next(iter(rows)), 0)  # a stream fails when it is read, which is late
    arguments = {"desc": "Tokenizing", "load_from_cache_file": False} if is_whole else {}
    return rows.map(convert, with_indices=True, remove_columns=names, **arguments)


def drop_long_prompts(
    rows: Dataset,
    tokenizer: Any,
    contract: Contract,
    limit: int | None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Dataset:
    """Drop the rows whose prompt, rendered as at inference, has more than `limit` tokens (None: no limit).

    Raises:
        DataError: the template refuses a prompt, or none is left.
    """

    def fits(row: dict[str, Any], index: int) -> bool:
        length = prompt_length(tokenizer, contract, row, index, chat_template_kwargs)
        return limit is None or length <= limit

    arguments = {"desc": "Measuring prompts", "load_from_cache_file": False} if hasattr(rows, "num_rows") else {}
    kept = rows.filter(fits, with_indices=True, **arguments)
    if hasattr(kept, "num_rows") and kept.num_rows == 0:
        problem = f"found {limit}, but all {rows.num_rows} prompts have more tokens; raise it"
        raise DataError("max_prompt_length", problem)
    return kept


def prompt_rows(
    prepared: Prepared,
    tokenizer: Any,
    contract: Contract,
    limit: int | None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Dataset:
    """Return rows to generate for: without completions, and as `drop_long_prompts` leaves them, which is noted.

    Raises:
        DataError: the template refuses a prompt, or none is left.
    """
    rows = prepared.rows
    rows = rows.remove_columns("completion") if "completion" in columns_of(rows) else rows
    fits = drop_long_prompts(rows, tokenizer, contract, limit, chat_template_kwargs)
    if limit is not None and hasattr(rows, "num_rows"):
        prepared.note(f"prompts up to {limit} tokens", fits, rows.num_rows - fits.num_rows)
    return fits


def drop_overlong(rows: Dataset, max_length: int | None, choice: str) -> tuple[Dataset, int]:
    """Drop the rows that are longer than `max_length`, or refuse them; never cut one.

    Args:
        rows: with `input_ids`, or pairs with `prompt_ids`, `chosen_ids` and `rejected_ids`, whose longer side counts.
        max_length: in tokens; None is no limit.
        choice: "error" or "drop".

    Returns:
        `(the rows that fit, how many were dropped)`.

    Raises:
        DataError: there are such rows and the choice is "error", or none is left.
    """
    if max_length is None:
        return rows, 0
    if not hasattr(rows, "num_rows"):
        return rows.filter(functools.partial(_fits, max_length=max_length, choice=choice), with_indices=True), 0
    lengths = [_length(row) for row in rows]
    kept = [i for i, length in enumerate(lengths) if length <= max_length]
    dropped = len(lengths) - len(kept)
    if dropped and (choice == "error" or not kept):
        longest = max(lengths)
        found = f"{dropped} of {len(lengths)} rows are longer than max_length {max_length}"
        found += f" (row {lengths.index(longest)} has {longest} tokens)"
        hint = "raise max_length" + (", or write overlong_rows: drop" if kept else "; no row is left")
        raise DataError("max_length", found, hint=hint)
    return (rows.select(kept) if dropped else rows), dropped


def _length(row: dict[str, Any]) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _fits(row: dict[str, Any], index: int, max_length: int, choice: str) -> bool:
    """Tell whether a streamed row fits; the first that does not ends the run, unless it may be dropped."""
    length = _length(row)
    if length > max_length and choice == "error":
        problem = f"row {index} has {length} tokens, more than max_length {max_length}"
        raise DataError("max_length", f"{problem}; raise max_length, or write overlong_rows: drop")
    return length <= max_length
