"""`reasoning-ext ask`: one question to one model; the thought streams by dimmed, then the answer, then the vote.

A run is asked as it was trained: with the system prompt, the arguments of the chat template and the think tags of its recipe.
"""

from __future__ import annotations

import itertools
import logging
import re
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.lineage import prompt_settings, run_of, run_recipe
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.errors import UserError
from reasoning_ext.scoring.votes import same_answers
from reasoning_ext.shown import print, visible
from reasoning_ext.think.render import render_prompt
from reasoning_ext.verifier import said as answer_of

if TYPE_CHECKING:
    from reasoning_ext.models.loaded import Loaded, LoadOptions

SHOWN = 200  # characters of an answer that is not streamed


def ask_and_print(
    model: str, question: str, n: int, temperature: float, most: int, seed: int, system_prompt: str | None = None
) -> None:
    """Ask a run, a folder with weights or a model of the hub for n completions of at most so many tokens, and show them.

    The first is streamed, of the others the answers are shown, then the vote. A system prompt stands in the place of the one
    that a run was trained with. Raises a ModelError or UserError where the model cannot be loaded or has no room.
    """
    if re.search("[\ud800-\udfff]", question + (system_prompt or "")):  # as the system hands bytes on that are no text
        raise UserError("ask: found bytes that are no UTF-8 in the question or the system prompt, allowed: text")
    logging.disable(logging.WARNING)  # which nobody who asks can act on
    warnings.simplefilter("ignore")
    from rich.console import Console
    from transformers.utils.logging import disable_progress_bar
    from trl import ModelConfig

    from reasoning_ext.engines.transformers import TransformersEngine
    from reasoning_ext.models.load import load_model

    disable_progress_bar()
    trained_with, options = _as_trained(model, seed)
    system = (trained_with or "") if system_prompt is None else system_prompt
    loaded = load_model(model, ModelConfig(dtype="auto"), options)
    prompt = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": question}]
    inputs, room = _inputs(loaded, prompt, kwargs := options.chat_template_kwargs)
    settings = SamplingSettings(min(most, room), temperature, seed=seed, chat_template_kwargs=kwargs)
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    if n > 1:
        console.print(f"completion 1 of {n}:", markup=False)
    texts = [stream(loaded, inputs, settings, console)]
    for batch in TransformersEngine(loaded, n).generate([prompt], [(0, i) for i in range(1, n)], settings):
        for completion in batch:
            texts.append(completion.text)
            answer = " ".join((think.answer(completion.text) or "").split()) or "(no answer)"
            answer = answer if len(answer) <= SHOWN else f"{answer[:SHOWN]} ..."
            console.print(visible(f"completion {len(texts)} of {n}: {answer}"), markup=False)
    if n > 1:
        console.print(visible(vote_line(texts)), markup=False)


def vote_line(completions: list[str]) -> str:
    r"""Return the vote in words: each answer as most of its completions write it, and how many give it.

    >>> vote_line(["The answer is 42.", "<think>6*7", "x = 42", r"\boxed{41}", "<think>6*7=42</think>42"])
    'vote: 42 (3 of 5), 41 (1 of 5), (no answer) (1 of 5)'
    """
    said = [think.answer(text) or "" for text in completions]
    written = [Counter(answer_of(said[i]) for i in group) for group in same_answers(completions)]
    counts = [(wordings.most_common(1)[0][0], wordings.total()) for wordings in written]
    if without := len(said) - sum(count for _, count in counts):
        counts.append(("(no answer)", without))
    return "vote: " + ", ".join(f"{answer} ({count} of {len(said)})" for answer, count in counts)


def split_style(text: str, start: int, opened: str, closed: str) -> list[tuple[str, bool]]:
    """Split what has come of a text since a place into parts that are the thought, tags included, and parts that are not.

    >>> split_style("<think>6*7</think>42", 3, "<think>", "</think>")
    [('ink>6*7</think>', True), ('42', False)]
    """
    begin, end = text.find(opened), text.find(closed, text.find(opened))
    end = len(text) if end < 0 else end + len(closed)
    cuts = [start, max(start, begin), max(start, end), len(text)] if begin >= 0 else [start, len(text)]
    parts = [(text[a:b], i == 1) for i, (a, b) in enumerate(itertools.pairwise(cuts))]
    return [(part, thought) for part, thought in parts if part]


def _as_trained(model: str, seed: int) -> tuple[str | None, LoadOptions]:
    """Return the system prompt that a model was trained with, and how it is loaded; of a run its recipe says both."""
    from reasoning_ext.models.loaded import LoadOptions

    options = LoadOptions(trainable=False, seed=seed)
    if (run := run_of(Path(model))) is None:
        return None, options
    recipe = run_recipe(run, [])  # keys that this version does not know say nothing about prompts
    (system, kwargs), *others = prompt_settings(recipe)
    if others:
        line = f"{run} was trained with {1 + len(others)} ways to write a prompt; asked with that of its first data set"
        print(f"{line} (--system-prompt for another)", file=sys.stderr)
    return system, replace(options, chat_template_kwargs=kwargs, think_tags=recipe.get("think_tags"))


def _inputs(loaded: Loaded, prompt: list[dict[str, str]], kwargs: dict[str, Any]) -> tuple[Any, int]:
    """Return a prompt in tokens, and how many a completion may have; raises a UserError where that is none."""
    try:
        text = render_prompt(loaded.tokenizer, loaded.contract, prompt, kwargs)
    except ValueError as error:
        raise UserError(f"ask: {error}") from error
    inputs = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False).to(loaded.model.device)
    inputs.pop("token_type_ids", None)
    taken = inputs["input_ids"].shape[1]
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    if taken >= context:
        raise UserError(f"ask: found a question of {taken} tokens, allowed: fewer than the model's {context}")
    return inputs, int(context - taken)


def stream(loaded: Loaded, inputs: Any, settings: SamplingSettings, console: Any) -> str:
    """Print one completion as it comes, its thought dimmed, and that it was cut off; return it whole."""
    import torch
    from transformers import TextStreamer

    from reasoning_ext.engines.transformers import stop_ids
    from reasoning_ext.think.template import decoder

    model, tokenizer, contract = loaded.model, loaded.tokenizer, loaded.contract
    decode, stops = decoder(tokenizer, contract), stop_ids(model, tokenizer, contract)

    class Streamer(TextStreamer):
        """Transformers' own, to this console, letter by letter, without the tokens that end a turn."""

        def __init__(self) -> None:
            options = {"skip_special_tokens": not contract.special, "clean_up_tokenization_spaces": False}
            super().__init__(tokenizer, skip_prompt=True, **options)
            self.text, self.ids = "", list[int]()
            self.on_finalized_text(contract.prefix)

        def put(self, value: Any) -> None:  # the prompt's ids, then one id at a time
            if not self.next_tokens_are_prompt:
                self.ids.append(int(value.flatten()[-1]))
            if not self.ids or self.ids[-1] not in {*stops, *decode.stop_ids}:
                super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            start, self.text = len(self.text), self.text + text
            for part, thought in split_style(self.text, start, contract.open.strip(), contract.close.strip()):
                console.print(visible(part), end="", style="dim" if thought else None, markup=False)
            if stream_end:
                console.print()

        def _is_chinese_char(self, cp: int) -> bool:
            return cp != 0xFFFD  # what is not yet a whole letter is held back, as it does for scripts without spaces

    torch.manual_seed(settings.seed)
    streamer = Streamer()
    model.generate(**inputs, **settings.generate_kwargs(), eos_token_id=stops, streamer=streamer)
    if not {*streamer.ids[-1:]} & {*stops}:
        console.print(f"cut off after {len(streamer.ids)} tokens", markup=False)
    return decode(streamer.ids)
