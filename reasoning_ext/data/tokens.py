"""A training row or pair in tokens: what is trained on and how much, and whether it decodes to the exact trace.

The trainer gets `input_ids` and `labels` (-100 where nothing is trained): TRL neither renders nor masks nor cuts.
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

    `train_on` is "completion", or "answer": the thought is read and not trained on. The weights are factors on each
    token's loss, whose mean is taken over the tokens, not the weights.
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
    """One training row in T tokens: prompt, thought, answer and the end of the turn, (T,).

    `prompt` and `thought` count tokens, the closing tag included. `exact`: they decode to the completion as it stands
    in the data. `spelled`: it contains the text of a token that ends a turn, which is trained on as letters.
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


def tokenize(tokenizer: Any, row: Rendered, parted: bool = True) -> Tokens:
    """Tokenize a rendered row so that its prompt has the very ids that it has at inference.

    Where the end of the prompt and the start of the completion would merge into one token, or the tokenizer would put
    a space between them, the completion is tokenized by itself, as a model that has read the prompt would write it.
    The text of a token that ends a turn becomes letters inside a completion: a model that learned it as a token would
    stop there. `parted` counts the thought's tokens, which takes twice as long; else they are the answer's.
    """
    prompt_ids, end_ids = _ids(tokenizer, row.prompt), _ids(tokenizer, row.end)
    text = (row.thought + row.answer).removesuffix(row.end)
    # a tokenizer that is given a token's text in two parts cannot read it as the token
    inside = "|".join(f"(?<={re.escape(end[0])})(?={re.escape(end[1:])})" for end in row.ends)
    around = ""

    def go_on(text: str) -> tuple[list[int], bool]:
        pieces = [part for piece in _cut(text, inside) for part in _cut(piece, around)]
        return _go_on(tokenizer, row.prompt, prompt_ids, pieces)

    ids, exact = go_on(text)
    if not exact:  # some tokenizers add or take a space beside added tokens, so these are tokenized by themselves
        added = sorted((token for token in tokenizer.get_added_vocab() if token in text), key=len, reverse=True)
        around = "(" + "|".join(map(re.escape, added)) + ")" if added else ""
        ids, exact = go_on(text)
    if row.thought and row.answer:
        thought = common(go_on(row.thought)[0], ids) if parted else 0
    else:
        thought = len(ids + end_ids) if row.thought else 0
    spelled = len(_cut(text, inside)) > 1
    return Tokens([*prompt_ids, *ids, *end_ids], len(prompt_ids), thought, exact, spelled)


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
        rendered = render_row(tokenizer, contract, row, chat_template_kwargs)
    except ValueError as error:
        raise DataError("dataset_name", f"row {index}: {error}") from error
    tokens = tokenize(tokenizer, rendered, loss.train_on == "answer" or loss.weighted)
    if loss.train_on == "answer" and tokens.skipped(loss) >= len(tokens.input_ids):
        raise DataError("train_on", f"row {index}: found no answer after the thought, so that nothing would be trained")
    return tokens


def prompt_length(
    tokenizer: Any, contract: Contract, row: dict[str, Any], index: int, chat_template_kwargs: dict[str, Any] | None
) -> int:
    """Return how many tokens a row's prompt has, rendered as at inference; DataError where the template refuses it."""
    try:
        text = render_prompt(tokenizer, contract, row["prompt"], chat_template_kwargs or {})
    except ValueError as error:
        raise DataError("dataset_name", f"row {index}: {error}") from error
    return count_tokens(tokenizer, text)


@dataclass(frozen=True)
class Pair:
    """A preference pair in P prompt tokens, C chosen and R rejected ones, the answers with the end of the turn.

    `exact` and `spelled` are as in `Tokens`, of both answers, of one of them.
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
    """Render and tokenize both sides, each as a row of `sft`; `index` is the pair's number in errors.

    DPO compares both behind one prompt. A template that opens a thought in the generation prompt gives an answer with
    a thought another prompt than one without: what both begin with is the pair's, the rest belongs to the answers.

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


def common(a: list[int], b: list[int]) -> int:
    """Return how many ids two lists begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _cut(text: str, pattern: str) -> list[str]:
    return [part for part in re.split(pattern, text) if part] if pattern and text else [text]


def _go_on(tokenizer: Any, prompt: str, prompt_ids: list[int], pieces: list[str]) -> tuple[list[int], bool]:
    """Return the ids of the pieces of a text behind a prompt, and whether they decode to it.

    Each is tokenized in the first of several contexts where nothing is added or lost.
    """
    ids: list[int] = []
    exact = True
    for i, piece in enumerate(pieces):
        whole, made = decode(tokenizer, prompt_ids + ids) + piece, []
        for context in [prompt, "", *ANCHORS] if i == 0 else ["", *ANCHORS]:
            context_ids = prompt_ids if context == prompt else _ids(tokenizer, context)
            both = _ids(tokenizer, context + piece)
            if both[: len(context_ids)] == context_ids:  # else the two merge
                made.append(both[len(context_ids) :])
                if decode(tokenizer, prompt_ids + ids + made[-1]) == whole:
                    ids += made[-1]
                    break
        else:
            ids, exact = ids + (made[0] if made else []), False
    return ids, exact
