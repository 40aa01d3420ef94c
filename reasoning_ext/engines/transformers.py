"""Engine `transformers`: the model in this process, batches sorted by length, finished sequences leave their batch.

Departures from one call of `model.generate` a batch: rows that have ended are taken out of the batch and its KV cache; a prompt
that stands in a batch several times is read once; and every completion is drawn with random numbers of its own, so that it is
the same in any batch, up to the rounding of another batch's shape. All else, from the logits processors to the kind of cache,
is `generate`'s, which calls the loop here as its `custom_generate`. Models that Unsloth has patched keep their cache elsewhere,
and others have none of keys and values: there `generate`'s own loop runs, with the same random numbers.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation import logits_process

from reasoning_ext.engines.base import (
    Completion,
    EngineError,
    Key,
    SamplingSettings,
    begun,
    behind_results,
    held_back,
    key_array,
    key_seed,
    render_row,
)
from reasoning_ext.errors import one_line
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.models.watching import watched
from reasoning_ext.shown import print
from reasoning_ext.think.render import count_tokens
from reasoning_ext.think.template import Contract, Decoder, decoder

FINISHED_SHARE = 8  # one row in so many must have ended before the batch is made smaller, since that copies the cache
# In generate's own order: the setting, the class that applies it, the value that leaves everything as it is.
WARPERS: tuple[tuple[str, type, Any], ...] = (
    ("temperature", logits_process.TemperatureLogitsWarper, 1.0),
    ("top_k", logits_process.TopKLogitsWarper, 0),
    ("top_p", logits_process.TopPLogitsWarper, 1.0),
    ("min_p", logits_process.MinPLogitsWarper, None),
    ("typical_p", logits_process.TypicalLogitsWarper, 1.0),
    ("epsilon_cutoff", logits_process.EpsilonLogitsWarper, 0.0),
)


class TransformersEngine:
    """Answers prompts with a loaded model, in batches that are halved where the memory is too small; see `base.Engine`.

    With a streamer of transformers, which needs a batch size of 1, completions are seen as they come.
    """

    def __init__(self, loaded: Loaded, batch_size: int, streamer: Any = None):
        self.model, self.tokenizer, self.contract = loaded.model, loaded.tokenizer, loaded.contract
        self.batch_size, self.streamer = batch_size, streamer

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `base.Engine` says, the longest prompts first, so that a lack of memory shows at once."""
        keys_K2 = key_array(keys)
        unique_P, back_K = np.unique(keys_K2[:, 0], return_inverse=True)
        render = partial(render_row, self.tokenizer, self.contract, prompts, settings=settings)
        tokens = [count_tokens(self.tokenizer, render(p)) for p in unique_P.tolist()]
        keys_K2 = keys_K2[np.argsort(-np.array(tokens, dtype=np.int32)[back_K], kind="stable")]
        start = 0
        while start < len(keys_K2):
            batch = [(p, sample) for p, sample in keys_K2[start : start + self.batch_size].tolist()]
            try:
                rendered = {
                    p: (render(p), begun(prompts[p]), behind_results(prompts[p])) for p in {p for p, _ in batch}
                }
                completions = self._answer(rendered, batch, settings)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise EngineError("max_completion_length", "found too little memory for one completion") from error
                self.batch_size = len(batch) // 2
                torch.cuda.empty_cache()
                line = f"out of memory with {len(batch)} completions at once; going on with {self.batch_size}"
                print(f"{line} (per_device_eval_batch_size)", file=sys.stderr, flush=True)
            else:
                start += len(batch)
                yield completions

    def close(self) -> None:
        """Let go of the model; the stage's end gives its memory back."""
        self.model = None

    def _answer(
        self, rendered: dict[int, tuple[str, str, bool]], batch: list[Key], settings: SamplingSettings
    ) -> list[Completion]:
        """Answer a batch; `rendered`: each prompt as the model reads it, its completion's beginning, if results end it."""
        stops = stop_ids(self.model, self.tokenizer, self.contract)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token_id = stops[0]
        options = {"return_tensors": "pt", "padding": True, "padding_side": "left", "add_special_tokens": False}
        inputs = self.tokenizer([rendered[p][0] for p, _ in batch], **options).to(self.model.device)
        inputs.pop("token_type_ids", None)
        fixed: dict[str, Any] = {"pad_token_id": self.tokenizer.pad_token_id, "eos_token_id": stops}
        if self.streamer is not None:
            fixed["streamer"] = self.streamer
        elif _has_cache(self.model):
            fixed |= {"custom_generate": decode, "prompt_of_row": [p for p, _ in batch]}
        if settings.hold_back:
            fixed["begin_suppress_tokens"] = held_back(self.tokenizer, self.contract, stops)
        length, text_of, found = inputs["input_ids"].shape[1], decoder(self.tokenizer, self.contract), []
        if settings.stop or settings.limits:
            stops_of_rows = RowStops([settings.limit(key) for key in batch], settings.stop, text_of, length)
            fixed["stopping_criteria"] = StoppingCriteriaList([stops_of_rows])
        notes = [DrawnLogprobs(length)] if settings.logprobs else []
        output = self._generate(inputs, fixed, batch, settings, notes)
        logprobs = notes[0].of(output) if notes else None
        for row, (key, ids) in enumerate(zip(batch, output[:, length:].tolist(), strict=True)):
            ids = ids[: settings.limit(key)]
            ids = ids[: text_of.stopped(ids, settings.stop)]
            end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
            finished, kept = end < len(ids), ids[: end + 1]
            _, beginning, behind = rendered[key[0]]
            text = text_of(ids[:end], beginning, settings.stop, behind)
            mean = float(logprobs[row, : len(kept)].mean()) if logprobs is not None and kept else None
            found.append(Completion(*key, text, kept, finished, len(kept), logprob=mean))
        return found

    def _generate(
        self, inputs: Any, fixed: dict[str, Any], batch: list[Key], settings: SamplingSettings, notes: list[Any]
    ) -> torch.Tensor:
        """Call `generate`; what is wrong with a recipe's own arguments is the user's to mend."""
        given = settings.generation_kwargs
        try:
            arguments = _arguments(settings, batch, inputs["input_ids"].shape[1], self.model.device, notes)
            with torch.inference_mode(), watched(self.model, arguments["max_new_tokens"]):
                return self.model.generate(**inputs, **arguments, **fixed)
        except (ValueError, TypeError) as error:
            if not given:
                raise
            reason = one_line(error)
            problem = f"found {', '.join(map(str, given))}, with which transformers cannot generate ({reason})"
            raise EngineError("generation_kwargs", f"{problem}; write them otherwise, or leave them out") from error


class KeyedDraw(LogitsProcessor):
    """Draw one token a row with the row's own random numbers, uniform in [0, 1), and leave no other possible."""

    def __init__(self, uniforms_BT: torch.Tensor, prompt_length: int):
        self.uniforms_BT, self.prompt_length = uniforms_BT, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (B, V) that are 0 at the token drawn by the inverse of the distribution, and -inf elsewhere."""
        cumulative_BV = scores.softmax(-1, dtype=torch.float32).to(self.uniforms_BT.dtype).cumsum(-1)
        uniform_B1 = self.uniforms_BT[:, input_ids.shape[1] - self.prompt_length, None]
        # the first token whose cumulative probability is above the number: one of probability 0 is never that
        token_B1 = torch.searchsorted(cumulative_BV, uniform_B1 * cumulative_BV[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B1.clamp(max=scores.shape[-1] - 1), 0.0)


class DrawnLogprobs(LogitsProcessor):
    """Note the log-probability of each token that is drawn, from the scores as they stand here in the chain."""

    def __init__(self, prompt_length: int):
        self.prompt_length, self.scores_BV, self.found = prompt_length, torch.empty(0), list[torch.Tensor]()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note those of the last tokens, and return the scores as they are."""
        if input_ids.shape[1] > self.prompt_length:
            self._note(input_ids[:, -1:])
        self.scores_BV = scores
        return scores

    def _note(self, token_B1: torch.Tensor) -> None:
        self.found.append(self.scores_BV.gather(1, token_B1)[:, 0] - self.scores_BV.logsumexp(-1))

    def of(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of the drawn tokens of prompts and completions, (B, T - prompt), on the CPU."""
        if len(self.found) < ids_BT.shape[1] - self.prompt_length:  # the last one's, which no call has seen
            self._note(ids_BT[:, -1:])
        return torch.stack(self.found, -1).cpu()


class RowStops(StoppingCriteria):
    """End each row at a limit of its own, or behind a text; transformers' `stop_strings` may begin in the prompt."""

    def __init__(self, limits: list[int], stop: str, text_of: Decoder, prompt_length: int):
        self.limits, self.stop, self.text_of, self.prompt_length = limits, stop, text_of, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Tell which rows have ended, (B,); the text ends in the last token, and no token is shorter than a byte."""
        new = input_ids.shape[1] - self.prompt_length
        over = [new >= limit for limit in self.limits]
        if self.stop:
            tails = input_ids[:, -min(new, len(self.stop.encode()) + 1) :].tolist()
            over = [at_limit or self.text_of.has(ids, self.stop) for at_limit, ids in zip(over, tails, strict=True)]
        return torch.tensor(over, device=input_ids.device)


def _arguments(
    settings: SamplingSettings, batch: list[Key], prompt_length: int, device: torch.device, notes: list[Any]
) -> dict[str, Any]:
    """Return the arguments of `generate`; logits processors sample, so that it is told to take the likeliest token.

    Before all of those stand `notes`, processors that change nothing.
    """
    kwargs = settings.generate_kwargs()
    if not kwargs.pop("do_sample"):
        return kwargs | {"do_sample": False, "logits_processor": LogitsProcessorList(notes)}
    values = {name: kwargs.pop(name, neutral) for name, _, neutral in WARPERS}
    chain = [cls(values[name]) for name, cls, neutral in WARPERS if values[name] not in (neutral, None)]
    seeds, count = [key_seed(settings.seed, *key) for key in batch], kwargs["max_new_tokens"]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    uniforms_BT = torch.stack([torch.rand(count, generator=one, dtype=torch.float64) for one in generators])
    kind = torch.float32 if device.type == "mps" else torch.float64
    drawn = KeyedDraw(uniforms_BT.to(kind).to(device), prompt_length)
    return kwargs | {"do_sample": False, "logits_processor": LogitsProcessorList([*notes, *chain, drawn])}


def _has_cache(model: Any) -> bool:
    """Tell whether rows can be taken out of the model's cache: it is given to `forward`, and is not Unsloth's own."""
    base = _base(model)
    functions = (base.forward, base.generate, model.generate)
    if "unsloth" in sys.modules and any("unsloth" in (getattr(f, "__module__", "") or "") for f in functions):
        return False
    return {"past_key_values", "position_ids", "attention_mask"} <= inspect.signature(base.forward).parameters.keys()


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decode(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: Any,
    generation_config: Any,
    prompt_of_row: list[int],
    **model_kwargs: Any,
) -> torch.Tensor:
    """Generate for a batch whose ended rows leave it; called by transformers' `generate` with what it has prepared.

    Prompts are (B, L), padded on the left, and those of rows with equal `prompt_of_row` are the same. The logits processors see
    the whole batch to its end, because some keep a state for every row. Returned are prompts and completions, (B, at most L +
    max_new_tokens), padded on the right.
    """
    cache, mask = model_kwargs["past_key_values"], model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask  # generate leaves out one without padding
    position_ids = mask.cumsum(-1).sub(1).clamp(min=0)
    unique = np.unique(prompt_of_row, return_index=True, return_inverse=True)
    first, back = (torch.tensor(rows, device=input_ids.device) for rows in unique[1:])
    logits_BV = _forward(model, input_ids[first], mask[first], position_ids[first], cache)[back]  # each prompt once
    cache.reorder_cache(back)
    ids_BT, position = input_ids, position_ids[:, -1:]
    rows = torch.arange(len(input_ids), device=input_ids.device)  # those that the model still goes on with
    over = torch.zeros_like(rows, dtype=torch.bool)  # which of them have ended nevertheless
    while True:
        token_B = logits_processor(ids_BT, logits_BV).argmax(-1)
        new_B = torch.full_like(token_B, generation_config.pad_token_id)
        new_B[rows[~over]] = token_B[rows[~over]]
        ids_BT = torch.cat([ids_BT, new_B[:, None]], -1)
        over = over | stopping_criteria(ids_BT, None)[rows]
        ended = int(over.sum())
        if ended == len(over):
            return ids_BT
        if ended * FINISHED_SHARE >= len(over):
            left = (~over).nonzero()[:, 0]
            rows, mask, position, over = rows[left], mask[left], position[left], over[left]
            cache.reorder_cache(left)
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], -1)
        position = position + 1
        logits_BV = logits_BV.index_copy(0, rows, _forward(model, ids_BT[rows, -1:], mask, position, cache))


def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: Any) -> torch.Tensor:
    """Return the logits of the next token in float32, (B, V)."""
    least = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(_base(model).forward).parameters else {}
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids, "past_key_values": cache}
    return model(**inputs, use_cache=True, **least).logits[:, -1].float()


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [value]


def stop_ids(model: Any, tokenizer: Any, contract: Contract) -> list[int]:
    """Return the ids that end a completion: the model's, the tokenizer's, and the one that ends a turn."""
    declared = _listed(model.generation_config.eos_token_id)
    called = contract.calls and contract.calls.end_id
    return sorted({i for i in [*declared, tokenizer.eos_token_id, contract.end_id, called] if i is not None})
