"""A completion printed as it comes, its thought dimmed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TextStreamer

from reasoning_ext.engines.base import Completion, Key, SamplingSettings, begun, behind_results
from reasoning_ext.engines.transformers import TransformersEngine, stop_ids
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.shown import visible
from reasoning_ext.think import CLOSE, OPEN
from reasoning_ext.think.template import decoder

if TYPE_CHECKING:
    from rich.console import Console


class StreamingEngine:
    """The engine `transformers` for one completion, which is printed as it comes, without a line's end.

    A completion may come in several parts, each begun with what is left of the ones before it, as `ThinkingEngine` asks
    for them: what was put there is printed, and that something was taken back.
    """

    def __init__(self, loaded: Loaded, console: Console):
        self.loaded, self.console, self.said = loaded, console, ""
        self.tokenizer, self.contract = loaded.tokenizer, loaded.contract

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `base.Engine` says."""
        for key in keys:
            beginning = begun(prompts[key[0]])
            self.said = self.said if beginning else ""  # another turn takes nothing back
            pairs = zip(self.said, beginning, strict=False)
            kept = len([*itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)])
            if kept < len(self.said.rstrip("\ufffd")):  # of a letter that was cut in two there is nothing to take back
                self.console.print(" [taken back] ", end="", markup=False)
            _print(self.console, split_style(beginning, kept, OPEN, CLOSE))
            streamer = Streamer(self.loaded, self.console, beginning, behind_results(prompts[key[0]]))
            for batch in TransformersEngine(self.loaded, 1, streamer).generate(prompts, [key], settings):
                self.said = batch[0].text
                yield batch

    def close(self) -> None:
        """Nothing is held."""


class Streamer(TextStreamer):
    """Transformers' own, to a console, letter by letter, without the tokens that end a turn.

    `text` is what there is of the completion, as the model writes it.
    """

    def __init__(self, loaded: Loaded, console: Console, beginning: str, behind: bool = False):
        self.contract, self.console, self.text = loaded.contract, console, loaded.contract.native(beginning)
        stops = stop_ids(loaded.model, loaded.tokenizer, self.contract)
        self.ends = {*stops, *decoder(loaded.tokenizer, self.contract).stop_ids}
        shown = self.contract.special or self.contract.calls
        options = {"skip_special_tokens": not shown, "clean_up_tokenization_spaces": False}
        super().__init__(loaded.tokenizer, skip_prompt=True, **options)
        if not beginning:
            self.text = ""
            self.on_finalized_text((self.contract.behind_results if behind else self.contract).prefix)

    def put(self, value: Any) -> None:
        """Take the prompt's ids, (1, L), then one id at a time."""
        if self.next_tokens_are_prompt or int(value.flatten()[-1]) not in self.ends:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print what has come since the last call."""
        start, self.text = len(self.text), self.text + text
        _print(self.console, split_style(self.text, start, self.contract.open.strip(), self.contract.close.strip()))

    def _is_chinese_char(self, cp: int) -> bool:
        return cp != 0xFFFD  # what is not yet a whole letter is held back, as it does for scripts without spaces


def print_results(console: Console, results: list[dict[str, Any]]) -> None:
    """Print what tools answered, behind the calls that have been printed as they came; a completion goes on below it."""
    for result in results:
        line = "\n".join(f"  {line}" for line in result["content"].splitlines())
        console.print(visible(f"\n[{result['name']}]\n{line}"), end="", style="dim", markup=False)
    console.print()


def _print(console: Console, parts: list[tuple[str, bool]]) -> None:
    for part, thought in parts:
        console.print(visible(part), end="", style="dim" if thought else None, markup=False)


def split_style(text: str, start: int, opened: str, closed: str) -> list[tuple[str, bool]]:
    """Split what has come of a text since a place into parts that are the thought, tags included, and others.

    >>> split_style("<think>6*7</think>42", 3, "<think>", "</think>")
    [('ink>6*7</think>', True), ('42', False)]
    """
    begin, end = text.find(opened), text.find(closed, text.find(opened))
    end = len(text) if end < 0 else end + len(closed)
    cuts = [start, max(start, begin), max(start, end), len(text)] if begin >= 0 else [start, len(text)]
    parts = [(text[a:b], i == 1) for i, (a, b) in enumerate(itertools.pairwise(cuts))]
    return [(part, thought) for part, thought in parts if part]
