"""Engine `vllm`: vLLM in this process, which is given keys in chunks, a request and a seed of its own for each.

What the completions of a prompt share, vLLM finds in its prefix cache. A LoRA adapter is served as it is, on its base.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from pathlib import Path
from threading import Thread
from typing import Any

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
from reasoning_ext.models.adapter import ADAPTER, adapter_base, adapter_rank, is_adapter
from reasoning_ext.models.loaded import base_revision
from reasoning_ext.models.source import ModelSource
from reasoning_ext.models.weights import check_weights
from reasoning_ext.recipe.engine_options import VllmOptions
from reasoning_ext.think.template import decoder

CHUNK = 4  # so many times the completions that run at once are asked for together: the last ones of a chunk run alone
DIED = "vLLM's own process has died, of too little memory perhaps; what it said stands above; run again to go on"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM has room for, its MaxLoRARanks
# recipe key, as TRL names it -> vLLM's argument; what a recipe leaves out is vLLM's default, as TRL's are those of training
TRL_KEYS = {
    "vllm_gpu_memory_utilization": "gpu_memory_utilization",
    "vllm_max_model_length": "max_model_len",
    "vllm_tensor_parallel_size": "tensor_parallel_size",
    "vllm_model_impl": "model_impl",
}
REFUSALS = (OSError, ImportError, LookupError, ValueError, TypeError, RuntimeError, AssertionError)  # of vLLM's making


class VllmEngine:
    """Answers prompts with vLLM and the weights of a source, or a LoRA adapter on such; see `base.Engine`."""

    def __init__(self, source: ModelSource, options: VllmOptions):
        arguments = llm_arguments(source, options)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            problem = f"found vllm, which cannot be imported here ({error}); pip install 'reasoning-ext[vllm]'"
            raise EngineError("engine", f"{problem} or write transformers") from error
        check_weights(source.name, source.options.trust_remote_code, source.options.init_kwargs)
        self.tokenizer, self.contract = source.load_tokenizer()
        self._chunk = CHUNK * options.max_num_seqs
        self._adapter = LoRARequest("adapter", 1, source.name) if is_adapter(source.name) else None
        try:
            with _without_interrupts():
                self._llm: Any = LLM(**arguments)
            if self._adapter:
                self._llm.llm_engine.add_lora(self._adapter)
            _tell_of_death(self._llm.llm_engine.engine_core)
        except REFUSALS as error:
            raise EngineError("engine", f"vllm cannot open {source.name}: {one_line(error)}") from error

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `base.Engine` says, those of a prompt next to each other."""
        from vllm import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        called = self.contract.calls and self.contract.calls.end_id
        stops = sorted({self.tokenizer.eos_token_id, self.contract.end_id, called} - {None})
        text_of = decoder(self.tokenizer, self.contract)
        banned = held_back(self.tokenizer, self.contract, stops) if settings.hold_back else []  # for a lone first token
        held = {"logit_bias": dict.fromkeys(banned, -100.0)} if banned else {}
        keys_K2 = key_array(keys)
        for start in range(0, len(keys_K2), self._chunk):
            chunk = [(p, g) for p, g in keys_K2[start : start + self._chunk].tolist()]
            most = {key[0]: settings.limit(key) for key in sorted(chunk, key=settings.limit)}
            prompt_ids = {p: self._prompt_ids(prompts, p, settings, wanted) for p, wanted in most.items()}
            try:
                outputs = self._llm.generate(
                    [{"prompt_token_ids": prompt_ids[p]} for p, _ in chunk],
                    [SamplingParams(**(sampling_arguments(settings, key, stops) | held)) for key in chunk],
                    use_tqdm=False,
                    lora_request=self._adapter,
                )
            except EngineDeadError as error:
                raise EngineError("engine", DIED) from error
            except REFUSALS as error:
                raise EngineError("generation_kwargs", f"vllm refuses a request: {one_line(error)}") from error
            found = []
            for key, output in zip(chunk, (request.outputs[0] for request in outputs), strict=True):
                ids, ended = list(output.token_ids), output.finish_reason == "stop"  # with the token that stopped it
                by_token = ended and not isinstance(output.stop_reason, str)  # a text to stop at belongs to it
                prompt, said = prompts[key[0]], ids[:-1] if by_token else ids
                text = text_of(said, begun(prompt), settings.stop, behind_results(prompt))
                finished = ended and (by_token or output.stop_reason != settings.stop)
                mean = output.cumulative_logprob / len(ids) if settings.logprobs and ids else None
                found.append(Completion(*key, text, ids, finished, len(ids), logprob=mean))
            yield found

    def score(self, prompts: Sequence, rows: list[list[int]], kwargs: dict[str, Any]) -> list[list[float]]:
        """Return the log-probability of each token of completions, ids, one for each of P prompts."""
        from vllm import SamplingParams

        settings, found = SamplingSettings(chat_template_kwargs=kwargs), []
        before = [self._prompt_ids(prompts, p, settings, len(row)) for p, row in enumerate(rows)]
        asked = [{"prompt_token_ids": [*prompt, *row]} for prompt, row in zip(before, rows, strict=True)]
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        for prompt, row, output in zip(
            before, rows, self._llm.generate(asked, params, use_tqdm=False, lora_request=self._adapter), strict=True
        ):
            told = output.prompt_logprobs[len(prompt) :]
            found.append([of[token].logprob for token, of in zip(row, told, strict=True)])
        return found

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self._llm.llm_engine.model_config.dtype).removeprefix("torch.")

    def close(self) -> None:
        """End vLLM's own process, which gives back all memory of the card."""
        self._llm.llm_engine.engine_core.shutdown()

    def _prompt_ids(self, prompts: Sequence, row: int, settings: SamplingSettings, wanted: int) -> list[int]:
        """Return a prompt's token ids, if a completion of so many tokens fits beside them."""
        text = render_row(self.tokenizer, self.contract, prompts, row, settings)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        room = self._llm.llm_engine.model_config.max_model_len
        if len(ids) + wanted > room:
            problem = f"found {wanted}, and the prompt of row {row} has {len(ids)} tokens of vLLM's context of {room}"
            raise EngineError("max_completion_length", f"{problem}; write a smaller one, or leave such prompts out")
        return ids


def _tell_of_death(client: Any) -> None:
    """Let a step end when vLLM's process dies: its own client waits for ever if that was killed, for lack of memory perhaps."""
    from vllm.v1.engine.exceptions import EngineDeadError

    manager = getattr(getattr(client, "resources", None), "engine_manager", None)
    if manager is None:  # the engine has no process of its own
        return

    def watch() -> None:
        connection.wait([process.sentinel for process in manager.processes])
        client.outputs_queue.put(EngineDeadError())

    Thread(target=watch, daemon=True).start()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes begun here never see Ctrl-C: the stage then ends after a batch, and ends them."""
    resource_tracker.ensure_running()  # Python starts it with the first process, and lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def llm_arguments(source: ModelSource, options: VllmOptions) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`, or raise an EngineError for an adapter that it cannot serve."""
    name, values, base = source.name, source.values, source.name
    if adapter := is_adapter(name):
        refuse_adapter(name)
        try:
            base = adapter_base(name)
        except ValueError as error:
            raise EngineError("model_name_or_path", f"found the adapter {name}, but {error}") from error
    arguments = {
        "model": base,
        "revision": base_revision(base, values.get("model_revision")),
        "trust_remote_code": source.options.trust_remote_code,
        "dtype": source.choice().dtype or "auto",
        "seed": source.options.seed,
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": options.enforce_eager,
        "kv_cache_dtype": options.kv_cache_dtype,
        "enable_prefix_caching": True,
    }
    arguments |= {TRL_KEYS[key]: values[key] for key in TRL_KEYS if values.get(key) is not None}
    if values.get("load_in_4bit"):
        arguments["quantization"] = "bitsandbytes"
    if adapter:
        rank = adapter_rank(name)
        room = next((r for r in LORA_RANKS if r >= rank), rank)
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
    return arguments | (options.engine_args or {})


def refuse_adapter(folder: str) -> None:
    """Raise an EngineError for an adapter that is more than a LoRA, which vLLM would leave out in silence."""
    config = json.loads((Path(folder) / ADAPTER).read_text(encoding="utf-8"))
    for own in ("modules_to_save", "trainable_token_indices", "use_dora", "lora_bias"):
        if config.get(own):
            problem = f"found the adapter {folder} with {own}, which vLLM cannot serve"
            todo = f"`reasoning-ext export {folder}`, and write its folder here, or engine: transformers"
            raise EngineError("model_name_or_path", f"{problem}; merge it with {todo}")


def sampling_arguments(settings: SamplingSettings, key: Key, stops: list[int]) -> dict[str, Any]:
    """Return the arguments of `vllm.SamplingParams` for one completion.

    vLLM adds the stops that the model's config names; its log-probabilities are those before a repetition penalty.
    """
    stop = {"stop": [settings.stop], "include_stop_str_in_output": True, "detokenize": True} if settings.stop else {}
    return {
        "n": 1,
        "seed": key_seed(settings.seed, *key),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k or 0,  # all tokens, as with TRL and transformers
        "min_p": settings.min_p or 0.0,
        "repetition_penalty": settings.repetition_penalty,
        "max_tokens": settings.limit(key),
        "stop_token_ids": stops,
        "detokenize": False,
        "skip_special_tokens": False,
        "logprobs": 0 if settings.logprobs else None,  # of the drawn token alone
    } | (settings.generation_kwargs | stop)
