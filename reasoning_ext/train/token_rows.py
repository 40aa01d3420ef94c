"""Rows in tokens, with everything wrong about them found before a model is loaded: how `sft` and `dpo` begin."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reasoning_ext.data.calls import TOOLS, need_tool_turns
from reasoning_ext.data.columns import ROW_COLUMNS, DataError, check_columns, columns_of
from reasoning_ext.data.held_out import write_problems
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import TEST, TRAIN, RowOptions
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.token_sets import MARKS, MOST_INEXACT, drop_overlong, tokenize_rows
from reasoning_ext.data.tokens import LossOptions
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.models.source import ModelSource
from reasoning_ext.runs.folder import say
from reasoning_ext.think.render import count_tokens
from reasoning_ext.think.template import Contract


@dataclass(frozen=True)
class TokenOptions:
    """How rows become tokens."""

    stage: str  # sft or dpo
    loss: LossOptions | None  # what is trained on; None for pairs
    max_length: int | None  # in tokens; None is no limit
    overlong_rows: str  # "error" or "drop"
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)


class TokenRows:
    """A recipe's rows in tokens: `train`, and `held_out`, None where none are.

    `source` is the model that they are for; where rows have tool turns, its template has them too.

    Raises DataError where rows cannot be read, lack a column, are too long, or do not survive the tokenizer.
    """

    def __init__(self, options: RowOptions, how: TokenOptions, source: ModelSource, held_out: bool):
        count = functools.partial(count_tokens, source.tokenizer())
        self.sets = [prepare(options, split, count) for split in [TRAIN, *[TEST] * held_out]]
        self.read = [len(one.steps) for one in self.sets]
        self.source = source.with_tool_turns() if any(need_tool_turns(one.rows) for one in self.sets) else source
        self.how = replace(how, chat_template_kwargs=self.source.options.chat_template_kwargs or {})
        self._make(*self.source.load_tokenizer())
        for one, mark in zip(self.sets, ("", "held out: "), strict=False):
            for line in one.lines():
                say(f"data  {mark}{line}")

    def _make(self, tokenizer: Any, contract: Contract) -> None:
        self.size = len(tokenizer)
        self.train, self.held_out, *_ = [*(tokens_of(one, self.how, tokenizer, contract) for one in self.sets), None]

    def keep(self, folder: Path, loaded: Loaded) -> None:
        """Write into a run's folder what became of the rows, which are made anew for a tokenizer with new tokens."""
        if len(loaded.tokenizer) != self.size:
            for one, steps in zip(self.sets, self.read, strict=True):
                del one.steps[steps:]
            self._make(loaded.tokenizer, loaded.contract)
        self.sets[0].write(folder)
        write_problems(folder, self.sets[0].rows)


def tokens_of(prepared: Prepared, how: TokenOptions, tokenizer: Any, contract: Contract) -> Any:
    """Render and tokenize rows, and drop the ones that are too long, which is noted, or raise DataError."""
    names = columns_of(prepared.rows)
    check_columns(names, ROW_COLUMNS[how.stage])
    used = [name for name in (*ROW_COLUMNS[how.stage], "chat_template_kwargs", TOOLS) if name in names]
    rows = tokenize_rows(prepared.rows.select_columns(used), tokenizer, contract, how.loss, how.chat_template_kwargs)
    if hasattr(rows, "num_rows"):
        inexact = rows.num_rows - sum(rows["exact"])
        if inexact > MOST_INEXACT * rows.num_rows:
            problem = f"{inexact} of {rows.num_rows} completions do not come back from the tokenizer as they went in"
            raise DataError("model_name_or_path", f"{problem}; use a tokenizer that keeps them")
        if inexact:
            prepared.note("changed by the tokenizer", rows, 0, changed=inexact)
        if spelled := sum(rows["spelled"]):
            prepared.note(f"with {contract.end} or the like in the text, trained on as letters", rows, 0, found=spelled)
        if defused := sum(rows["defused"]):
            note = "with control tokens in what tools answered, which have got a space"
            prepared.note(note, rows, 0, found=defused)
    # with packing too, which would cut
    rows, dropped = drop_overlong(rows.remove_columns([*MARKS]), how.max_length, how.overlong_rows)
    if dropped:
        prepared.note(f"up to max_length {how.max_length}", rows, dropped)
    return rows
