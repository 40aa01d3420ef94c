"""A training row or pair in tokens: what is trained on and how much, and whether it decodes to the exact trace.

The trainer gets `input_ids` and `labels` (-100 where nothing is trained), so that TRL neither renders nor masks nor cuts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from reasoning_ext.data.columns import SIDES, DataError
from reasoning_ext.think.render import Rendered, count_tokens, render_prompt, render_row
from reasoning_ext.think.template import Contract, decode

IGNORED = -100  # what torch's cross-entropy leaves out
ANCHORS = ("\n", "=")  # behind these a tokenizer that begins each text with a space adds none


@dataclass(frozen=True)
class LossOptions:
    """What of a completion is trained on; the prompt never is.

    Attributes:
        train_on: "completion", or "answer": the thought is read and not trained on.
        thought_weight, answer_weight: factors on each token's loss; the mean is taken over the tokens, not the weights.
    """

    train_on: str = "completion"
    thought_weight: float = 1.0
    answer_weight: float = 1.0

    @property
    def weighted(self) -> bool:
        """Tell whether tokens weigh differently, so that TRL's own loss does not do."""
        return self.thought_weight != 1.0 or self.answer_weight != 1.0


@dataclass(frozen=True)
class Tokens:
    """One training row in T tokens.

    Attributes:
        input_ids: prompt, thought, answer and the end of the turn, (T,).
        prompt: how many of them are the prompt.
        thought: how many after the prompt are the thought, closing tag included.
        exact: they decode to the completion as it stands in the data.
        spelled: the completion contains the text of a token that ends a turn; it is trained on as letters.
    """

    input_ids: list[int]
    prompt: int
    thought: int
    exact: bool
    spelled: bool = False

    def skipped(self, loss: LossOptions) -> int:
        """Return how many tokens at the start are not trained on."""
        return self.prompt + (self.thought if loss.train_on == "answer" else 0)

    def labels(self, loss: LossOptions) -> list[int]:
        """Return the labels, (T,): the token, or -100 where it is not trained on."""
        skipped = self.skipped(loss)
        return [IGNORED] * skipped + self.input_ids[skipped:]

    def weights(self, loss: LossOptions) -> list[float]:
        """Return each token's weight in the loss, (T,)."""
        answer = len(self.input_ids) - self.prompt - self.thought
        return [0.0] * self.prompt + [loss.thought_weight] * self.thought + [loss.answer_weight] * answer


def tokenize(tokenizer: Any, row: Rendered) -> Tokens:
    """Tokenize a rendered row so that its prompt has the very ids that it has at inference.

    Where the end of the prompt and the start of the completion would merge into one token, or the tokenizer would put a space
    between them, the completion is tokenized by itself, as a model that has read the prompt would write it. The text of a
    token that ends a turn becomes letters inside a completion: a model that learned it as a token would stop there.
    """
    prompt_ids = _ids(tokenizer, row.prompt)
    text = (row.thought + row.answer).removesuffix(row.end)
    pieces = _pieces(text, row.ends)
    added: list[str] = []
    ids, exact, thought = _go_on(tokenizer, row.prompt, prompt_ids, pieces, len(row.thought))
    if not exact:  # some tokenizers add or take a space beside added tokens, so these are tokenized by themselves
        added = sorted((token for token in tokenizer.get_added_vocab() if token in text), key=len, reverse=True)
        ids, exact, thought = _go_on(tokenizer, row.prompt, prompt_ids, _around(pieces, added), len(row.thought))
    end_ids = _ids(tokenizer, row.end)
    if not (row.thought and row.answer):
        thought = len(ids + end_ids) if row.thought else 0
    elif thought is None:  # a tokenizer that does not tell which token a letter is in
        head = _go_on(tokenizer, row.prompt, prompt_ids, _around(_pieces(row.thought, row.ends), added))[0]
        thought = common(head, ids)
    return Tokens([*prompt_ids, *ids, *end_ids], len(prompt_ids), thought, exact, len(pieces) > 1)


def tokenize_row(
    tokenizer: Any,
    contract: Contract,
    row: dict[str, Any],
    index: int,
    loss: LossOptions,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Tokens:
    """Render and tokenize one row; `index` is its number in errors.

    Raises:
        DataError: it trains no token, or its prompt is refused by the template.
    """
    try:
        tokens = tokenize(tokenizer, render_row(tokenizer, contract, row, chat_template_kwargs))
    except ValueError as error:
        raise DataError("dataset_name", f"row {index}: {error}") from error
    if loss.train_on == "answer" and tokens.skipped(loss) >= len(tokens.input_ids):
        raise DataError("train_on", f"row {index}: found no answer after the thought, so that nothing would be trained")
    return tokens


def prompt_length(
    tokenizer: Any, contract: Contract, row: dict[str, Any], index: int, chat_template_kwargs: dict[str, Any] | None
) -> int:
    """Return how many tokens a row's prompt has, rendered as at inference; `index` is the row's number in errors.

    Raises:
        DataError: the template refuses it.
    """
    try:
        text = render_prompt(tokenizer, contract, row["prompt"], chat_template_kwargs or {})
    except ValueError as error:
        raise DataError("dataset_name", f"row {index}: {error}") from error
    return count_tokens(tokenizer, text)


@dataclass(frozen=True)
class Pair:
    """A preference pair in P prompt tokens, C chosen and R rejected ones.

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


def tokenize_pair(
    tokenizer: Any,
    contract: Contract,
    row: dict[str, Any],
    index: int,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> Pair:
    """Render and tokenize what is chosen and what is rejected, each as a row of `sft`; `index` is the pair's number in errors.

    DPO compares both behind one prompt. A template that opens a thought in the generation prompt gives an answer with a
    thought another prompt than one without: what both prompts begin with is the pair's, and the rest belongs to the answers.

    Raises:
        DataError: a side is empty, or the template refuses the prompt.
    """
    chosen, rejected = (
        tokenize_row(tokenizer, contract, row | {"completion": row[side]}, index, LossOptions(), chat_template_kwargs)
        for side in SIDES
    )
    prompt = common(chosen.input_ids[: chosen.prompt], rejected.input_ids[: rejected.prompt])
    exact, spelled = chosen.exact and rejected.exact, chosen.spelled or rejected.spelled
    return Pair(chosen.input_ids[:prompt], chosen.input_ids[prompt:], rejected.input_ids[prompt:], exact, spelled)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def common(a: list[int], b: list[int]) -> int:
    """Return how many ids two lists begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _pieces(text: str, ends: tuple[str, ...]) -> list[str]:
    """Cut a text inside each of `ends`, so that a tokenizer cannot read them as tokens."""
    if not any(end in text for end in ends):
        return [text]
    return re.split("|".join(f"(?<={re.escape(end[0])})(?={re.escape(end[1:])})" for end in ends), text)


def _around(pieces: list[str], tokens: list[str]) -> list[str]:
    """Cut pieces before and behind each of the tokens, the longest of which come first."""
    if not tokens:
        return pieces
    pattern = "(" + "|".join(map(re.escape, tokens)) + ")"
    return [part for piece in pieces for part in re.split(pattern, piece) if part]


def _go_on(
    tokenizer: Any, prompt: str, prompt_ids: list[int], pieces: list[str], cut: int = 0
) -> tuple[list[int], bool, int | None]:
    """Tokenize the pieces of a text behind a prompt, each in the first of several contexts where nothing is added or lost.

    Returns:
        `(the ids of all, whether they decode to the text, how many of them lie before its letter number cut)`; None for the
        last where the tokenizer does not tell.
    """
    ids: list[int] = []
    exact = True
    start, before_cut = 0, None
    for i, piece in enumerate(pieces):
        before, first = decode(tokenizer, prompt_ids + ids), None
        for context in [prompt, "", *ANCHORS] if i == 0 else ["", *ANCHORS]:
            context_ids = prompt_ids if context == prompt else _ids(tokenizer, context)
            more = _after(tokenizer, context, context_ids, piece, cut - start)
            if more is not None and decode(tokenizer, prompt_ids + ids + more[0]) == before + piece:
                break
            first = more if first is None else first
        else:
            more, exact = first, False
        if more:
            before_cut = before_cut if more[1] is None else len(ids) + more[1]
            ids += more[0]
        start += len(piece)
    return ids, exact, before_cut


def _after(
    tokenizer: Any, context: str, context_ids: list[int], text: str, cut: int
) -> tuple[list[int], int | None] | None:
    """Return the ids of a text behind a context, and how many lie before its letter number cut; None where the two merge."""
    made = tokenizer(context + text, add_special_tokens=False, verbose=False)
    ids, taken = list(made["input_ids"]), len(context_ids)
    if ids[:taken] != context_ids:
        return None
    at = made.char_to_token(len(context) + cut) if 0 <= cut < len(text) and tokenizer.is_fast else None
    return ids[taken:], None if at is None else at - taken
