"""`reasoning-ext ask`: one question to one model; the thought streams by dimmed, then the answer, then the vote."""

from __future__ import annotations

from collections import Counter
from threading import Thread
from typing import Any

from reasoning_ext import think
from reasoning_ext.contract import decoder
from reasoning_ext.engines.transformers_engine import TransformersEngine, stop_ids
from reasoning_ext.generation import SamplingSettings
from reasoning_ext.model import LoadOptions, load_model
from reasoning_ext.rendering import render_prompt
from reasoning_ext.shown import visible
from reasoning_ext.verifier import said as answer_of
from reasoning_ext.votes import same_answers


def ask_and_print(model: str, question: str, n: int, temperature: float, max_completion_length: int, seed: int) -> None:
    """Ask a question; the first completion is streamed, the others are drawn for the vote.

    Args:
        model: a run's folder, a folder with weights, or a hub name.
        question: the user's message.
        n: completions in all.
        temperature: 0 is greedy.
        max_completion_length: tokens a completion.
        seed: of the sampling.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from rich.console import Console
    from trl import ModelConfig

    loaded = load_model(model, ModelConfig(dtype="auto"), LoadOptions(trainable=False, seed=seed))
    settings = SamplingSettings(max_completion_length=max_completion_length, temperature=temperature, seed=seed)
    console = Console(highlight=False, soft_wrap=True)
    prompt = [{"role": "user", "content": question}]
    first = _stream(loaded, prompt, settings, seed, console)
    texts = [first]
    if n > 1:
        keys = [(0, i) for i in range(1, n)]
        for batch in TransformersEngine(loaded, n).generate([prompt], keys, settings):
            texts += [completion.text for completion in batch]
        console.print(visible(vote_line(texts)), markup=False)


def vote_line(completions: list[str]) -> str:
    r"""Return the vote in words: each answer as most of its completions write it, and how many give it.

    >>> vote_line(["The answer is 42.", "<think>6*7", "x = 42", r"\boxed{41}", "<think>6*7=42</think>42"])
    'vote: 42 (3 of 5), 41 (1 of 5), (no answer) (1 of 5)'
    """
    said = [think.answer(text) or "" for text in completions]
    groups = same_answers(completions)
    written = [Counter(answer_of(said[i]) for i in group) for group in groups]
    counts = [(wordings.most_common(1)[0][0], wordings.total()) for wordings in written]
    without = len(said) - sum(count for _, count in counts)
    counts += [("(no answer)", without)] if without else []
    return "vote: " + ", ".join(f"{answer} ({count} of {len(said)})" for answer, count in counts)


def _stream(loaded: Any, prompt: list[dict[str, str]], settings: SamplingSettings, seed: int, console: Any) -> str:
    """Print one completion as it comes, dimmed up to the end of the thought, and return it whole."""
    import torch
    from transformers import TextIteratorStreamer

    model, tokenizer, contract = loaded.model, loaded.tokenizer, loaded.contract
    text = render_prompt(tokenizer, contract, prompt, {})
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False).to(model.device)
    inputs.pop("token_type_ids", None)
    ends = {*stop_ids(model, tokenizer, contract), *decoder(tokenizer, contract).stop_ids}

    class Streamer(TextIteratorStreamer):
        """Transformers' own, which keeps the tokens that end a turn to itself."""

        def put(self, value: Any) -> None:
            """Take the prompt's ids, then one id at a time."""
            if self.next_tokens_are_prompt or int(value.flatten()[-1]) not in ends:
                super().put(value)

    skip = not contract.special
    streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    torch.manual_seed(seed)
    failed: list[BaseException] = []

    def generate_and_end() -> None:
        try:
            stops = stop_ids(model, tokenizer, contract)
            model.generate(**inputs, **settings.generate_kwargs(), eos_token_id=stops, streamer=streamer)
        except BaseException as error:  # raised again where the user waits
            failed.append(error)
        finally:
            # also when it failed, or the loop below would wait for ever
            streamer.on_finalized_text("", stream_end=True)

    Thread(target=generate_and_end, daemon=True).start()
    text = ""
    console.print(contract.prefix, end="", style="dim", markup=False)
    for piece in streamer:
        thinking = contract.open.strip() in contract.prefix + text + piece and contract.close.strip() not in text
        text += piece
        console.print(visible(piece), end="", style="dim" if thinking else None, markup=False)
    console.print()
    if failed:
        raise failed[0]
    return contract.whole(text)
