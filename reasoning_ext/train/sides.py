"""One side of a comparison of engines: a model, opened by one of them, that answers prompts and scores tokens.

Unsloth rewrites transformers when it is imported, and vLLM takes the card for itself, so each side has a process of its
own. The other side draws the tokens, and the reference scores the same ones; each renders the prompts by itself.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from reasoning_ext.data.tokens import IGNORED, common
from reasoning_ext.engines.base import Completion, Engine, EngineError, SamplingSettings, render_row
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.engine_options import VllmOptions

Rows = list[list[int]]
LENGTH = 64  # tokens a completion, at most


@dataclass(frozen=True)
class Side:
    """A model and what answers with it; it can be pickled.

    Attributes:
        source: the model; where it is to be trained, the norm of its gradient is measured, too.
        vllm: let vLLM answer, with these options; None: transformers, or Unsloth, as the source says.
        together: rows make one batch; else each is by itself, without padding.
        left: in a batch prompts are padded on the left, as in GRPO; else whole rows on the right, as in SFT.
    """

    source: ModelSource
    vllm: VllmOptions | None = None
    together: bool = True
    left: bool = False


@dataclass(frozen=True)
class Measured:
    """What one side made of P prompts.

    Attributes:
        texts, finished, greedy: the likeliest completions, whether they ended by themselves, and their ids, which a
            server does not tell.
        drawn: completions drawn at temperature 1, ids; none of a server.
        logps: the log-probability of each token of `drawn`.
        norm: of the gradient of the mean cross-entropy of `drawn`; None where the side does not train.
        precision: what it computes in, `float32` for example.
        parted: of the reference, for each row how many tokens of both sides' `greedy` are the same, of how many, and
            how much likelier it finds its own token where they part, in nats; 0 where they do not.
    """

    texts: list[str]
    finished: list[bool]
    greedy: Rows = field(default_factory=list)
    drawn: Rows = field(default_factory=list)
    logps: list[list[float]] = field(default_factory=list)
    norm: float | None = None
    precision: str = ""
    parted: list[tuple[int, int, float]] = field(default_factory=list)


def measure_apart(side: Side, prompts: Sequence, other: Measured | None = None) -> Measured:
    """Call `measure` in a process of its own, which gives all memory back; raises what that does."""
    spoken = (1,) if side.vllm else (1, 2)  # vLLM's own process tells on standard error alone why it ended
    with ProcessPoolExecutor(1, get_context("spawn"), _hush, spoken) as pool:
        try:
            return pool.submit(measure, side, prompts, other).result()
        except BrokenProcessPool as error:
            problem = f"found no end of measuring {side.source.name}: its process died, of too little memory perhaps"
            raise EngineError("model_name_or_path", problem) from error


def _hush(*spoken: int) -> None:
    """Keep what libraries print, by the numbers of the files, out of this command's output."""
    for number in spoken:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def measure(side: Side, prompts: Sequence, other: Measured | None = None) -> Measured:
    """Open a side, let it answer P prompts, lists of messages, and score what `other` drew, or else what it draws.

    Raises:
        KeyProblem: the model or the engine cannot be had.
    """
    from reasoning_ext.models.load import prepare_backend

    source = side.source
    prepare_backend(source.options.backend)
    if side.vllm is not None:
        return _by_vllm(side, prompts)
    from reasoning_ext.engines.transformers import TransformersEngine
    from reasoning_ext.runs.process import quiet

    quiet()
    loaded = ready(source)
    model, autocast = loaded.model, source.choice().autocast if source.options.trainable else None
    engine = TransformersEngine(loaded, len(prompts) if side.together else 1)
    _switch(loaded, source, "for_inference")
    likeliest = answers(engine, prompts, source, 0.0)
    drawn = other.drawn if other else [one.ids for one in answers(engine, prompts, source, 1.0)]
    settings = SamplingSettings(chat_template_kwargs=source.options.chat_template_kwargs)
    rendered = [render_row(loaded.tokenizer, loaded.contract, prompts, i, settings) for i in range(len(prompts))]
    before = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered]
    parted = _part(loaded, before, likeliest, other) if other else []
    if source.options.trainable:
        _switch(loaded, source, "for_training")
    batches, within = list(_batches(side, before, drawn)) if drawn else [], _within(model, autocast)
    logps = [row for batch in batches for row in _logps(model, batch, within)]
    wanted = source.options.trainable and (other is None or other.norm is not None)
    norm = _gradient(model, batches, within) if wanted else None
    precision = autocast or str(model.dtype).removeprefix("torch.")
    return Measured(*_told(likeliest), drawn, logps, norm, precision, parted)


def ready(source: ModelSource) -> Loaded:
    """Open a model as a trainer has it at its first step: on its device, with its adapter, but without dropout.

    A new adapter is made the same on both sides, which take their random numbers in another order.
    """
    import torch
    from accelerate import PartialState

    device = PartialState(**({"cpu": True} if source.use_cpu else {})).device
    loaded = source.load()
    quantized = any(getattr(loaded.model, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))
    if loaded.peft_config is not None:
        from peft import get_peft_model

        loaded.model = get_peft_model(loaded.model, loaded.peft_config)
    model = loaded.model if quantized else loaded.model.to(device)
    new = source.options.merge_adapter or not is_adapter(source.name)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or "lora_" not in name:
            continue
        if new and parameter.any():
            draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw) / math.sqrt(parameter.shape[-1]))
        if quantized and source.options.backend == "trl":  # as TRL's trainers have it
            parameter.data = parameter.data.to(torch.bfloat16)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    loaded.model = model.eval()
    return loaded


def answers(engine: Engine, prompts: Sequence, source: ModelSource, temperature: float) -> list[Completion]:
    """Let an engine answer each of P prompts once, or raise an EngineError where one gets no answer."""
    kwargs = source.options.chat_template_kwargs
    settings = SamplingSettings(LENGTH, temperature, seed=source.options.seed, chat_template_kwargs=kwargs)
    found: dict[int, Completion] = {}
    for batch in engine.generate(prompts, [(i, 0) for i in range(len(prompts))], settings):
        found |= {one.prompt: one for one in batch}
    for one in found.values():
        if one.error:
            raise EngineError("engine", f"found no answer to a prompt: {one.error}")
    return [found[i] for i in range(len(prompts))]


def _told(found: list[Completion]) -> tuple[list[str], list[bool], Rows]:
    return [one.text for one in found], [one.finished for one in found], [one.ids for one in found]


def _by_vllm(side: Side, prompts: Sequence) -> Measured:
    from reasoning_ext.engines.vllm import VllmEngine

    engine = VllmEngine(side.source, side.vllm or VllmOptions())
    with closing(engine):
        likeliest = answers(engine, prompts, side.source, 0.0)
        drawn = [one.ids for one in answers(engine, prompts, side.source, 1.0)]
        logps = engine.score(prompts, drawn, side.source.options.chat_template_kwargs)
    return Measured(*_told(likeliest), drawn, logps, precision=engine.dtype)


def _switch(loaded: Loaded, source: ModelSource, way: str) -> None:
    """Let Unsloth take its own way to generate, or to train; transformers has one for both."""
    if source.options.backend == "unsloth":
        from unsloth import FastLanguageModel

        getattr(FastLanguageModel, way)(loaded.model)
    loaded.model.train(way == "for_training")


def _part(loaded: Loaded, before: Rows, own: list[Completion], other: Measured) -> list[tuple[int, int, float]]:
    """Return `Measured.parted`; where the other side told no ids, its texts and ours are tokenized."""
    import torch

    texts, finished, greedy = _told(own)
    theirs = other.greedy
    if not theirs:
        greedy, theirs = _ids(loaded, texts, finished), _ids(loaded, other.texts, other.finished)
    found = []
    for prompt, a, b in zip(before, greedy, theirs, strict=True):
        alike, margin = common(a, b), 0.0
        if alike < min(len(a), len(b)):
            with torch.no_grad():
                ids = torch.tensor([[*prompt, *a[:alike]]], device=loaded.model.device)
                likely = loaded.model(input_ids=ids).logits[0, -1].float().log_softmax(-1)
            margin = float(likely[a[alike]] - likely[b[alike]])
        found.append((alike, min(len(a), len(b)), margin))
    return found


def _ids(loaded: Loaded, texts: list[str], finished: list[bool]) -> Rows:
    """Tokenize completions, with the end of the turn where they ended."""
    end = [] if loaded.contract.end_id is None else [loaded.contract.end_id]
    rows = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return [[*row, *(end if ended else [])] for row, ended in zip(rows, finished, strict=True)]


def _batches(side: Side, before: Rows, drawn: Rows) -> Iterator[tuple[Any, Any, Any]]:
    """Yield ids, attention mask and labels, each (B, T), of all rows together or of one after another."""
    import torch

    rows = list(zip(before, drawn, strict=True))
    for group in [rows] if side.together else [[row] for row in rows]:
        widest, made = max(len(prompt) for prompt, _ in group), []
        for prompt, said in group:
            pad = widest - len(prompt) if side.left else 0
            ids = [0] * pad + prompt + said
            mask, labels = [0] * pad + [1] * (len(ids) - pad), [IGNORED] * (pad + len(prompt)) + said
            made.append((ids, mask, labels))
        longest = max(len(ids) for ids, _, _ in made)
        fill = (0, 0, IGNORED)
        padded = [[part + [f] * (longest - len(part)) for part, f in zip(row, fill, strict=True)] for row in made]
        ids_BT, mask_BT, labels_BT = (torch.tensor(part) for part in zip(*padded, strict=True))
        yield ids_BT, mask_BT, labels_BT


def _within(model: Any, autocast: str | None) -> Any:
    """Return what makes the context that a trainer computes in."""
    import torch

    return lambda: torch.autocast(model.device.type, getattr(torch, autocast)) if autocast else nullcontext()


def _logps(model: Any, batch: tuple[Any, Any, Any], within: Any) -> Iterator[list[float]]:
    """Yield the log-probabilities of each row's labels."""
    import torch

    ids_BT, mask_BT, labels_BT = (part.to(model.device) for part in batch)
    with torch.no_grad(), within():
        logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits
    for logits_TV, labels_T in zip(logits_BTV[:, :-1], labels_BT[:, 1:], strict=True):
        kept = labels_T != IGNORED
        yield logits_TV[kept].float().log_softmax(-1).gather(-1, labels_T[kept][:, None])[:, 0].tolist()


def _gradient(model: Any, batches: list[tuple[Any, Any, Any]], within: Any) -> float:
    """Return the norm of the gradient of the mean over all labels, by the model's own loss."""
    counts = [int((labels[:, 1:] != IGNORED).sum()) for _, _, labels in batches]
    for (ids_BT, mask_BT, labels_BT), count in zip(batches, counts, strict=True):
        ids, mask, labels = (part.to(model.device) for part in (ids_BT, mask_BT, labels_BT))
        with within():
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        (loss * count / max(sum(counts), 1)).backward()
    grads = [p.grad.float().square().sum().item() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return math.sqrt(sum(grads))
