"""A training row or pair in tokens: what is trained on and how much, and whether it decodes to the exact trace.

The trainer gets `input_ids` and `labels` (-100 where nothing is trained): TRL neither renders nor masks nor cuts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasoning_ext.data.calls import TOOLS, has_calls
from reasoning_ext.data.columns import SIDES, DataError
from reasoning_ext.think.render import Rendered, count_tokens, render_begun, render_prompt, render_row, turn_ends
from reasoning_ext.think.template import Contract, decode
from reasoning_ext.think.turns import ANSWER, PROMPT, RESULT, THOUGHT, TOOL, Segment, render_turns, split_turns

MASKS = ("chosen_mask", "rejected_mask")
IGNORED = -100  # what torch's cross-entropy leaves out
ANCHORS = ("\n", "=")  # behind these a tokenizer that begins each text with a space adds none


@dataclass(frozen=True)
class LossOptions:
    """What of a completion is trained on; prompts and results of tools never are.

    `train_on` is "completion", or "answer": thoughts are read and not trained on, calls are. The weights are factors on each
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
    """One training row in T tokens: prompt, thought, answer and the end of the turn, (T,), and further turns behind results.

    `parts` counts them, `(kind, tokens)`, a thought's with the closing tag. `exact`: they decode to the completion as it
    stands in the data. `spelled`: it contains the text of a token that ends a turn, which is trained on as letters.
    `defused`: a result contains such a token or another one of the template's, which got a space.
    """

    input_ids: list[int]
    parts: tuple[tuple[str, int], ...]
    exact: bool
    spelled: bool = False
    defused: bool = False

    @property
    def prompt(self) -> int:
        """How many tokens are given before the completion."""
        return self.parts[0][1]

    @property
    def thought(self) -> int:
        """How many tokens thoughts have."""
        return sum(count for kind, count in self.parts if kind == THOUGHT)

    def skipped(self, loss: LossOptions) -> int:
        """Return how many tokens are not trained on."""
        return self.labels(loss).count(IGNORED)

    def labels(self, loss: LossOptions) -> list[int]:
        """Return the labels, (T,): the token, or -100 where it is not trained on."""
        idle = {PROMPT, RESULT, *([THOUGHT] if loss.train_on == "answer" else [])}
        return [IGNORED if kind in idle else i for kind, i in zip(self.kinds(), self.input_ids, strict=True)]

    def weights(self, loss: LossOptions) -> list[float]:
        """Return each token's weight in the loss, (T,)."""
        weight = {PROMPT: 0.0, RESULT: 0.0, THOUGHT: loss.thought_weight, ANSWER: loss.answer_weight}
        return [weight[kind] for kind in self.kinds()]

    def kinds(self) -> list[str]:
        """Return the kind of each token, (T,)."""
        return [kind for kind, count in self.parts for _ in range(count)]


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
    said = len(ids) + len(end_ids) - thought
    parts = (PROMPT, len(prompt_ids)), (THOUGHT, thought), (ANSWER, said)
    return Tokens([*prompt_ids, *ids, *end_ids], parts, exact, spelled)


def tokenize_turns(
    tokenizer: Any, contract: Contract, segments: Sequence[Segment], given: int = 0, parted: bool = True
) -> Tokens:
    """Tokenize a rendered conversation of several turns, each behind the result before it as `tokenize` does one.

    Results are tokenized by themselves, as engines and trainers put them behind what a model wrote. The first `given` turns
    are no part of the completion.
    """
    begins = [i for i, segment in enumerate(segments) if segment.kind in (PROMPT, RESULT)]
    letters, ids, parts = turn_ends(tokenizer, contract), list[int](), list[tuple[str, int]]()
    exact, spelled = True, False
    for number, (begin, end) in enumerate(zip(begins, [*begins[1:], len(segments)], strict=True)):
        before, said = segments[begin], {segment.kind: segment.text for segment in segments[begin + 1 : end]}
        ended = contract.calls.end if contract.calls and end < len(segments) else contract.end
        row = Rendered(before.text, said.get(THOUGHT, ""), said.get(ANSWER, ""), ended, letters)
        made = tokenize(tokenizer, row, parted)
        exact = exact and made.exact and _follows(tokenizer, ids[-1:], made.input_ids[: made.prompt], before.text)
        spelled = spelled or (made.spelled and number >= given)
        ids += made.input_ids
        parts += [(PROMPT, len(made.input_ids))] if number < given else [(before.kind, made.prompt), *made.parts[1:]]
    begun = sum(count for _, count in parts[: given + 1])
    return Tokens(ids, ((PROMPT, begun), *parts[given + 1 :]), exact, spelled)


def row_kwargs(row: dict[str, Any], of_all: dict[str, Any] | None) -> dict[str, Any]:
    """Return a row's arguments of the chat template: those of all rows, its own, and the tools that it tells of."""
    own = {name: value for name, value in (row.get("chat_template_kwargs") or {}).items() if value is not None}
    return (of_all or {}) | own | ({TOOLS: json.loads(row[TOOLS])} if row.get(TOOLS) else {})


def render_conversation(
    tokenizer: Any, contract: Contract, row: dict[str, Any], chat_template_kwargs: dict[str, Any] | None = None
) -> tuple[list[Segment], int, bool]:
    """Render a row to train on: `(its parts, how many turns are given, whether a result had a control token)`.

    Raises ValueError where the completion is empty, or the template refuses something.
    """
    kwargs, said = row_kwargs(row, chat_template_kwargs), row["completion"]
    said = [{"role": "assistant", "content": said}] if isinstance(said, str) else said
    asked, begun = split_turns(row["prompt"])
    if not has_calls([*begun, *said]):
        one = render_row(tokenizer, contract, row, kwargs)
        parts = ((one.prompt, PROMPT), (one.thought, THOUGHT), (one.answer, ANSWER))
        return [Segment(text, kind) for text, kind in parts if text or kind == PROMPT], 0, False
    turns = [*begun, *said]
    safe = [_defused(contract, turn) for turn in turns]
    segments = render_turns(tokenizer, contract, [_defused(contract, one) for one in asked], safe, kwargs)
    return segments, sum(turn["role"] == "assistant" for turn in begun), safe != turns


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
        segments, given, defused = render_conversation(tokenizer, contract, row, chat_template_kwargs)
    except ValueError as error:
        raise DataError("dataset_name", f"row {index}: {error}") from error
    made = tokenize_turns(tokenizer, contract, segments, given, loss.train_on == "answer" or loss.weighted)
    tokens = replace(made, defused=defused)
    if loss.train_on == "answer" and tokens.skipped(loss) >= len(tokens.input_ids):
        raise DataError("train_on", f"row {index}: found no answer after the thought, so that nothing would be trained")
    return tokens


def prompt_length(
    tokenizer: Any, contract: Contract, row: dict[str, Any], index: int, chat_template_kwargs: dict[str, Any] | None
) -> int:
    """Return how many tokens a row's prompt has, rendered as at inference; DataError where the template refuses it."""
    try:
        render = render_begun if row["prompt"] and row["prompt"][-1]["role"] == TOOL else render_prompt
        text = render(tokenizer, contract, row["prompt"], chat_template_kwargs or {})
    except ValueError as error:
        raise DataError("dataset_name", f"row {index}: {error}") from error
    return count_tokens(tokenizer, text)


@dataclass(frozen=True)
class Pair:
    """A preference pair in P prompt tokens, C chosen and R rejected ones, the answers with the end of the turn.

    `exact`, `spelled` and `defused` are as in `Tokens`, of both answers, of one of them. The masks, (C,) and (R,), are 0 at
    what tools answered.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    exact: bool
    spelled: bool
    defused: bool
    chosen_mask: list[int]
    rejected_mask: list[int]


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
    masks = [[int(kind != RESULT) for kind in side.kinds()[prompt:]] for side in (chosen, rejected)]
    return Pair(
        chosen.input_ids[:prompt],
        chosen.input_ids[prompt:],
        rejected.input_ids[prompt:],
        chosen.exact and rejected.exact,
        chosen.spelled or rejected.spelled,
        chosen.defused or rejected.defused,
        *masks,
    )


def common(a: list[int], b: list[int]) -> int:
    """Return how many ids two lists begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _defused(contract: Contract, turn: dict[str, Any]) -> dict[str, Any]:
    """Return a message in which, where it is a result, no control token stands as such."""
    if turn["role"] != TOOL or contract.calls is None:
        return turn
    return turn | {"content": contract.calls.defuse(turn["content"])}


def _follows(tokenizer: Any, last: list[int], ids: list[int], text: str) -> bool:
    """Tell whether a text tokenized by itself comes back behind the id before it."""
    return not last or decode(tokenizer, last + ids) == decode(tokenizer, last) + text


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
