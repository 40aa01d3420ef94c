"""Is an exported model the model that was trained: both answer the same prompts alike.

The reference is the adapter on its base as that is published, in 16 bits or float32, also where it was trained on 4-bit
weights, whose rounding error no merged model can have; for a run of whole weights, these. The export is loaded afresh.

The reference writes greedy completions, and then both models read them: two models that are left to run diverge for
good after the first near-tie, which says nothing about them. Counted over the T tokens of all completions:

    equal tokens    the share of positions where both find the same token most likely
    KL              mean of KL(reference || exported) a token, in nats, in float32
    change          mean of KL(reference || base): what the training did. The export must be nearer than the base
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_ext.data.row_options import RowOptions, row_options
from reasoning_ext.data.rows import read_rows
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.data.values import read_chat
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.errors import UserError
from reasoning_ext.export.merge import ExportError, Source, load_weights
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import say
from reasoning_ext.runs.process import free_memory
from reasoning_ext.runs.read import read_run
from reasoning_ext.think.render import render_prompt
from reasoning_ext.think.template import Contract

PROMPTS, NEW_TOKENS, BATCH = 20, 64, 5
LEAST_EQUAL, MOST_KL, LEAST_CHANGE = 0.95, 0.02, 1e-6
FEW_TOKENS = 200  # one of them is half a per cent
ROWS_READ = 200  # to find twenty different prompts among


@dataclass
class Comparison:
    """An export's figures; see the module's text."""

    prompts: int
    tokens: int
    equal_tokens: float
    kl: float
    change: float | None = None

    def line(self) -> str:
        """Return all figures in one line."""
        line = f"{self.equal_tokens:.1%} of {self.tokens} tokens equal on {self.prompts} prompts, KL {self.kl:.2g}"
        return line if self.change is None else f"{line}, KL of the base {self.change:.2g}"

    def problems(self) -> list[str]:
        """Say what is wrong with the export; empty where nothing is. Figures that are no numbers are wrong."""
        found = []
        if not self.equal_tokens >= LEAST_EQUAL:
            found.append(f"{self.equal_tokens:.1%} equal tokens, allowed: {LEAST_EQUAL:.0%} or more")
        if not self.kl < MOST_KL:
            found.append(f"KL {self.kl:.2g}, allowed: below {MOST_KL}")
        if self.change is not None and not self.change >= LEAST_CHANGE:
            hint = "raise learning_rate or max_steps, and see in `reasoning-ext report` whether loss and reward moved"
            found.append(f"the trained model equals its base, so that there is nothing to export; {hint}")
        elif self.change is not None and not self.kl < self.change:
            hint = "an adapter too small for 16 bits is lost in rounding: export --to adapter"
            found.append(f"it is no nearer to the trained model than the base is (KL {self.change:.2g}; {hint})")
        return found


class Reference:
    """What the trained model, which is not merged, answers to some conversations, and how it reads its answers."""

    def __init__(self, model: Any, tokenizer: Any, contract: Contract, kwargs: dict[str, Any], prompts: list):
        from reasoning_ext.engines.transformers import TransformersEngine

        settings = SamplingSettings(max_completion_length=NEW_TOKENS, temperature=0.0, chat_template_kwargs=kwargs)
        engine = TransformersEngine(Loaded(model, tokenizer, contract=contract), BATCH)
        self.texts: list[str] = []  # each prompt, rendered
        self.sequences: list[tuple[list[int], list[int]]] = []  # its token ids, and those of its completion
        for batch in engine.generate(prompts, [(p, 0) for p in range(len(prompts))], settings):
            for one in batch:
                text = render_prompt(tokenizer, contract, prompts[one.prompt], kwargs)
                self.texts.append(text)
                self.sequences.append((tokenizer(text, add_special_tokens=False)["input_ids"], one.ids))
        self.tokens = sum(len(ids) for _, ids in self.sequences)
        self.log_probs_T_V = [_read(model, *sequence) for sequence in self.sequences]
        self.change: float | None = None  # mean KL to an adapter's base
        if hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                self.change = self.against(model)[1]

    def against(self, model: Any) -> tuple[float, float]:
        """Let another model read the answers; return the share of equal tokens and the mean KL a token, in nats."""
        equal = kl = 0.0
        for sequence, p_T_V in zip(self.sequences, self.log_probs_T_V, strict=True):
            q_T_V = _read(model, *sequence)
            equal += (p_T_V.argmax(-1) == q_T_V.argmax(-1)).sum().item()
            kl += (p_T_V.exp() * (p_T_V - q_T_V)).sum().item()
        return equal / self.tokens, 0.0 if kl < 0 else kl / self.tokens


def compared(reference: Reference, folder: Path, source: Source) -> Comparison:
    """Load an exported folder and compare it with the reference, and that with what it was trained from."""
    equal, kl = reference.against(load_weights(str(folder), source))
    free_memory()
    if not source.adapter and source.base is not None:
        with contextlib.suppress(UserError):
            base = load_weights(source.base, source)
            if base.config.vocab_size == reference.log_probs_T_V[0].shape[1]:
                reference.change = reference.against(base)[1]
    if reference.change is None:
        say("export  not compared with its base, which is not there, or has another vocabulary")
    return Comparison(len(reference.sequences), reference.tokens, equal, kl, reference.change)


def _read(model: Any, prompt_ids: list[int], completion_ids: list[int]) -> Any:
    """Return the log probabilities with which a model reads a completion, float32, T by V tokens, on the CPU."""
    import torch

    ids = torch.tensor([prompt_ids + completion_ids], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1]
    return torch.log_softmax(logits.float(), -1).cpu()


def read_prompts(source: Source, given: Path | None = None) -> list[list[dict[str, str]]]:
    """Return up to twenty different prompts, those that were given or else the run's own; none is an `ExportError`.

    Args:
        source: the run.
        given: a JSONL file with `prompt` in every line (text or messages), or a recipe whose data are read.
    """
    found: list[list[dict[str, str]]] = []
    asked = [{"role": "system", "content": source.system_prompt}] if source.system_prompt else []
    for prompt in _given(given) if given is not None else _own(source):
        chat = [*asked, {"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if prompt and chat not in found:
            found.append(chat)
        if len(found) == PROMPTS:
            break
    if not found:
        where = given or source.path
        raise ExportError(f"found no prompt in {where}, allowed: JSONL with the column prompt, or a recipe")
    return found


def _given(file: Path) -> Iterator[Any]:
    """Yield the prompts of a file that was named."""
    if file.suffix in (".yaml", ".yml"):
        yield from _of_rows(row_options(load_recipe(file)))
        return
    try:
        prompts = [row["prompt"] for row in read_jsonl(file)]
        yield from [prompt if isinstance(prompt, str) else read_chat(prompt, "prompt") for prompt in prompts]
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"--prompts: found {file} ({type(error).__name__}: {error})"
        raise ExportError(f"{found}, allowed: JSONL with the column prompt, or a recipe") from error


def _own(source: Source) -> Iterator[Any]:
    """Yield the prompts that a run kept with its completions, and then those of its data, if they can still be read."""
    kept = [row["prompt"] for row in read_run(source.path).samples if row.get("prompt")]
    yield from kept
    try:
        yield from _of_rows(source.rows)
    except UserError as error:
        if not kept:
            hint = "write --prompts RECIPE.yaml, or --prompts FILE.jsonl with the column prompt"
            raise ExportError(f"cannot read the run's data to compare on ({error}); {hint}") from error


def _of_rows(options: RowOptions) -> Iterator[Any]:
    return (row["prompt"] for row in islice(read_rows(options, limit=ROWS_READ), ROWS_READ))
