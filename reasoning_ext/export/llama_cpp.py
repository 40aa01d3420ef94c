"""Does llama.cpp answer from a GGUF file what the model answers in transformers? Where `xllamacpp` is installed.

It reads the reference's greedy answers: it goes on from a prompt until it takes another token than the reference, and
again from behind that one, so that every token of the answers is asked for once, behind the same text.
"""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.errors import one_line
from reasoning_ext.export.compare import Reference
from reasoning_ext.export.merge import ExportError

NOT_COMPARED = "not compared in llama.cpp, which is not installed; pip install xllamacpp"
MOST_LOST = 0.1  # nats a token; rounding costs a few hundredths at most, another model several nats


@dataclass(frozen=True)
class Reading:
    """What llama.cpp makes of a reference's answers and prompts."""

    tokens: int  # of all answers
    equal_tokens: float  # the share of them that llama.cpp finds most likely, too
    lost: float  # nats a token by which the reference finds llama.cpp's choice less likely than its own
    prompts: int
    equal_prompts: int  # which it cuts into the same tokens

    def line(self) -> str:
        """Return all figures in one line."""
        share = f"{self.equal_tokens:.1%} of {self.tokens} tokens equal, {self.lost:.2g} nats a token lost"
        return f"in llama.cpp {share}, {self.equal_prompts} of {self.prompts} prompts cut into the same tokens"

    def problems(self) -> list[str]:
        """Say what is wrong, where the weights are the model's own but for a rounding; empty where nothing is."""
        found = [] if self.lost < MOST_LOST else [f"{self.lost:.2g} nats a token lost, allowed: below {MOST_LOST}"]
        return found + ["another tokenizer"] * (self.equal_prompts < self.prompts)


def installed() -> bool:
    """Tell whether llama.cpp is here to compare in."""
    return importlib.util.find_spec("xllamacpp") is not None


def read_in_llama_cpp(file: Path, reference: Reference) -> Reading:
    """Let llama.cpp read the reference's answers from a file; an `ExportError` where it cannot load it, or answer."""
    import torch
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_parallel, settings.verbosity = str(file), 1, 0
    settings.n_ctx = max(len(prompt) + len(answer) for prompt, answer in reference.sequences) + 64
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    try:
        server = xllamacpp.Server(settings)
    except RuntimeError as error:
        raise ExportError(f"llama.cpp cannot load {file}: {error}") from error
    equal = lost = 0.0
    for (prompt, answer), log_probs_T_V in zip(reference.sequences, reference.log_probs_T_V, strict=True):
        for wanted, chosen, log_probs_V in zip(answer, _chosen(server, prompt, answer), log_probs_T_V, strict=True):
            equal += chosen == wanted
            lost += (log_probs_V.max() - log_probs_V[chosen]).item()
    same = [_tokens(server, text) == ids for text, (ids, _) in zip(reference.texts, reference.sequences, strict=True)]
    return Reading(reference.tokens, equal / reference.tokens, lost / reference.tokens, len(same), sum(same))


def _chosen(server: Any, prompt_ids: list[int], completion_ids: list[int]) -> Iterator[int]:
    """Yield what llama.cpp finds most likely in the place of each token of an answer, behind those before it."""
    at = 0
    while at < len(completion_ids):
        asked = {"prompt": prompt_ids + completion_ids[:at], "n_predict": len(completion_ids) - at}
        options = {"temperature": 0.0, "repeat_penalty": 1.0, "return_tokens": True}
        for chosen in _asked(server, "completion", asked | options):
            yield chosen
            at += 1
            if chosen != completion_ids[at - 1]:
                break


def _tokens(server: Any, text: str) -> list[int]:
    """Return the tokens that llama.cpp cuts a rendered prompt into."""
    return _asked(server, "tokenize", {"content": text, "add_special": False, "parse_special": True})


def _asked(server: Any, what: str, body: dict[str, Any]) -> list[int]:
    """Ask the server, over its own port, by no proxy: its Python functions drop tokens that end within a letter."""
    request = urllib.request.Request(f"{server.listening_address}/{what}", json.dumps(body).encode())
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            tokens: list[int] = json.load(answer)["tokens"]
            if not tokens:
                raise ValueError("no tokens")
    except (OSError, KeyError, ValueError) as error:
        raise ExportError(f"llama.cpp does not answer: {one_line(error)}") from error
    return tokens
