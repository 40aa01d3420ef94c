"""Preference pairs in tokens: one prompt, and behind it the exact answer that is chosen and the exact one that is rejected.

Both sides are rendered as a row of `sft` is. DPO compares them behind one prompt, though, and a template that opens a thought
in the generation prompt gives an answer with a thought another prompt than one without: what both prompts begin with is the
pair's prompt then, and the rest belongs to the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reasoning_ext.contract import Contract
from reasoning_ext.data import SIDES
from reasoning_ext.rendering import Rendered, render_row
from reasoning_ext.tokenized import LossOptions, common, convert_rows, tokenize_row

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Pair:
    """One pair in P prompt tokens, C chosen and R rejected ones.

    Attributes:
        prompt_ids, chosen_ids, rejected_ids: (P,), (C,) and (R,), the answers with the end of the turn.
        exact: both answers decode to what stands in the data.
        spelled: one of them contains the text of a token that ends a turn; it is read as letters.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    exact: bool
    spelled: bool

    @property
    def lengths(self) -> tuple[int, int]:
        """The tokens of the prompt with what is chosen, and with what is rejected."""
        return len(self.prompt_ids) + len(self.chosen_ids), len(self.prompt_ids) + len(self.rejected_ids)


def side_of(row: dict[str, Any], side: str) -> dict[str, Any]:
    """Return one side of a pair as a row with a completion."""
    return {**row, "completion": row[side]}


def render_pair(
    tokenizer: Any, contract: Contract, row: dict[str, Any], chat_template_kwargs: dict[str, Any] | None = None
) -> list[Rendered]:
    """Render what is chosen and what is rejected, as `rendering.render_row` does."""
    return [render_row(tokenizer, contract, side_of(row, side), chat_template_kwargs) for side in SIDES]


def tokenize_pair(
    tokenizer: Any,
    contract: Contract,
    row: dict[str, Any],
    index: int,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Pair:
    """Render and tokenize a pair; `index` is its number in errors.

    Raises:
        DataError: a side is empty, or the template refuses the prompt.
    """
    sides = [
        tokenize_row(tokenizer, contract, side_of(row, side), index, LossOptions(), chat_template_kwargs)
        for side in SIDES
    ]
    chosen, rejected = (tokens.input_ids for tokens in sides)
    prompt = common(*(tokens.input_ids[: tokens.prompt] for tokens in sides))
    exact, spelled = all(tokens.exact for tokens in sides), any(tokens.spelled for tokens in sides)
    return Pair(chosen[:prompt], chosen[prompt:], rejected[prompt:], exact, spelled)


def tokenize_pairs(
    rows: Dataset, tokenizer: Any, contract: Contract, chat_template_kwargs: dict[str, Any] | None = None
) -> Dataset:
    """Tokenize formatted pairs.

    Args:
        rows: `prompt`, `chosen` and `rejected` in messages, and `chat_template_kwargs` where rows have their own.
        tokenizer: with a chat template.
        contract: what `contract.find_contract` found for it.
        chat_template_kwargs: of the recipe.

    Returns:
        rows with `prompt_ids`, `chosen_ids`, `rejected_ids`, `exact` and `spelled`.

    Raises:
        DataError: as in `tokenize_pair`.
    """

    def convert(row: dict[str, Any], index: int) -> dict[str, Any]:
        return vars(tokenize_pair(tokenizer, contract, row, index, chat_template_kwargs))

    return convert_rows(rows, convert)
