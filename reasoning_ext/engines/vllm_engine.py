"""Engine `vllm`: vLLM in this process, fed request by request, so that completions come as they finish.

`LLM.generate` takes all prompts at once and returns when the last one is done. Here the engine below it is stepped by hand: no
more than `AHEAD` times the requests that run at once exist at a time, and what a few steps have finished is yielded. Every
completion is a request of its own with its own seed; what the completions of a prompt share, vLLM finds in its prefix cache. A
LoRA adapter is served as it is, on its base. Several threads may generate at once, as Ray's workers do: they share the engine,
and whichever steps it hands the others their part.
"""

from __future__ import annotations

import json
import os
import signal
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from multiprocessing import connection, resource_tracker
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

from reasoning_ext.contract import Contract, ContractError, decoder
from reasoning_ext.engines.options import VllmOptions
from reasoning_ext.engines.source import ModelSource
from reasoning_ext.generation import Completion, EngineError, Key, SamplingSettings, key_seed
from reasoning_ext.hand_over import ADAPTER, adapter_base, adapter_rank, is_adapter
from reasoning_ext.loaded import base_revision
from reasoning_ext.rendering import render_prompt
from reasoning_ext.weights import check_weights

AHEAD = 2
STEPS = 16  # of the engine, between two batches
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
    """Answers prompts with vLLM; see `generation.Engine`.

    Args:
        source: weights in a folder or on the hub, or a LoRA adapter on such.
        options: the recipe's `engine_kwargs`.

    Raises:
        EngineError: vLLM is not installed, cannot serve this model, or does not know an argument.
        TokenizerError, ContractError: the tokenizer or its template cannot be used.
    """

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
        self._ahead = AHEAD * options.max_num_seqs
        self._lock, self._calls, self._dead = Lock(), count(), False
        self._outputs: dict[str, list[Any]] = {}  # what has finished, by call of generate, until that looks for it
        self._adapter = LoRARequest("adapter", 1, source.name) if is_adapter(source.name) else None
        try:
            with _without_interrupts():
                self._engine: Any = LLM(**arguments).llm_engine
            if self._adapter:
                self._engine.add_lora(self._adapter)
            _tell_of_death(self._engine.engine_core)
        except REFUSALS as error:
            raise EngineError("engine", f"vllm cannot open {source.name}: {_reason(error)}") from error

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `generation.Engine` says, those of a prompt next to each other.

        Raises:
            ContractError: the chat template refuses a prompt.
            EngineError: a completion does not fit into vLLM's context, or vLLM refuses `generation_kwargs` or has died.
        """
        stops = stop_ids(self.tokenizer, self.contract)
        keys_K2 = np.asarray(getattr(keys, "array_K2", keys), dtype=np.int32).reshape(-1, 2)
        waiting = iter(keys_K2[np.lexsort((keys_K2[:, 1], keys_K2[:, 0]))])
        call, steps, last, ids = str(next(self._calls)), 0, -1, array("i")
        under_way: dict[str, Key] = {}
        finished: list[Completion] = []
        self._outputs[call] = []
        try:
            while True:
                for prompt, sample in map(np.ndarray.tolist, islice(waiting, self._ahead - len(under_way))):
                    if prompt != last:
                        last, ids = prompt, self._prompt_ids(prompts[prompt], prompt, settings)
                    name = f"{call}/{prompt}/{sample}"
                    self._add(name, ids, sampling_arguments(settings, (prompt, sample), stops))
                    under_way[name] = (prompt, sample)
                if not under_way:
                    return
                for output in self._step(call):
                    finished.append(self._completion(under_way.pop(output.request_id), output.outputs[0]))
                steps += 1
                if finished and (steps % STEPS == 0 or not under_way):
                    yield finished
                    finished = []
        finally:
            with self._lock:
                del self._outputs[call]
                if under_way and not self._dead:  # the caller has stopped, or a request was refused
                    self._engine.abort_request(list(under_way))

    def close(self) -> None:
        """End vLLM's own process, which gives back all memory of the card."""
        self._engine.engine_core.shutdown()

    def _prompt_ids(self, prompt: list[dict[str, str]], row: int, settings: SamplingSettings) -> array:
        """Return a prompt's token ids; done when its first request is added, so that few prompts' ids exist at a time."""
        try:
            text = render_prompt(self.tokenizer, self.contract, prompt, settings.chat_template_kwargs)
        except ValueError as error:
            raise ContractError("dataset_name", f"row {row}: {error}") from error
        ids = array("i", self.tokenizer(text, add_special_tokens=False)["input_ids"])
        room, wanted = self._engine.model_config.max_model_len, settings.max_completion_length
        if len(ids) + wanted > room:
            problem = (
                f"found {wanted}, and the prompt of row {row} has {len(ids)} tokens, but vLLM's context has {room}"
            )
            raise EngineError("max_completion_length", f"{problem}; write a smaller one, or leave such prompts out")
        return ids

    def _add(self, name: str, prompt_ids: array, arguments: dict[str, Any]) -> None:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        try:
            params = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **arguments)
            with self._lock:
                self._engine.add_request(name, tokens_input(prompt_ids.tolist()), params, lora_request=self._adapter)
        except REFUSALS as error:
            raise EngineError("generation_kwargs", f"vllm refuses a request: {_reason(error)}") from error

    def _step(self, call: str) -> list[Any]:
        """Let every running request grow by a token, and return what of a call has finished.

        A step waits for news of the engine, so none is done while another thread's has already brought this call's.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        with self._lock:
            if not self._outputs[call]:
                if self._dead:  # another thread has been told
                    raise EngineError("engine", DIED)
                try:
                    outputs = self._engine.step()
                except EngineDeadError as error:
                    self._dead = True
                    raise EngineError("engine", DIED) from error
                for output in outputs:
                    owner = self._outputs.get(output.request_id.partition("/")[0])
                    if output.finished and owner is not None:
                        owner.append(output)
            found, self._outputs[call] = self._outputs[call], []
            return found

    def _completion(self, key: Key, output: Any) -> Completion:
        """Make a completion of vLLM's output, whose ids end with the token that stopped it, if one did."""
        ids, ended = list(output.token_ids), output.finish_reason == "stop"
        by_token = ended and not isinstance(output.stop_reason, str)  # a text to stop at is part of the completion
        text = decoder(self.tokenizer, self.contract)(ids[:-1] if by_token else ids)
        return Completion(*key, text, ids, ended, len(ids))


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
    """Return the arguments of `vllm.LLM`.

    Raises:
        EngineError: the recipe asks for what vLLM cannot do.
    """
    refuse(source)
    name, values, adapter = source.name, source.values, is_adapter(source.name)
    try:
        base = adapter_base(name) if adapter else name
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


def refuse(source: ModelSource) -> None:
    """Refuse what vLLM would leave out in silence, or only refuse after the model is loaded.

    Raises:
        EngineError: weights that are not there, 8 bits, arguments of transformers, an adapter that is more than a LoRA.
    """
    if source.options.from_scratch:
        problem = "found true with engine: vllm, which needs weights in files"
        raise EngineError("from_scratch", f"{problem}; write engine: transformers")
    if source.values.get("load_in_8bit"):
        problem = (
            "found true, which vLLM cannot do; allowed with engine: vllm: load_in_4bit, or weights that are stored so"
        )
        raise EngineError("load_in_8bit", problem)
    if source.options.init_kwargs:
        problem = f"found {', '.join(source.options.init_kwargs)}, which are transformers' arguments"
        raise EngineError(
            "model_init_kwargs", f"{problem}; with engine: vllm write engine_kwargs: {{engine_args: ...}}"
        )
    if is_adapter(source.name):
        config = json.loads((Path(source.name) / ADAPTER).read_text(encoding="utf-8"))
        for own in ("modules_to_save", "trainable_token_indices", "use_dora", "lora_bias"):
            if config.get(own):
                problem = f"found the adapter {source.name} with {own}, which vLLM cannot serve"
                todo = f"`reasoning-ext export {source.name}`, and write its folder here, or engine: transformers"
                raise EngineError("model_name_or_path", f"{problem}; merge it with {todo}")


def sampling_arguments(settings: SamplingSettings, key: Key, stops: list[int]) -> dict[str, Any]:
    """Return the arguments of `vllm.SamplingParams` for one completion.

    Args:
        settings: how to sample.
        key: which completion.
        stops: ids that end it, beside those that the model's generation config names, which vLLM adds by itself.
    """
    return {
        "n": 1,
        "seed": key_seed(settings.seed, *key),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k or 0,  # all tokens, as with TRL and transformers
        "min_p": settings.min_p or 0.0,
        "repetition_penalty": settings.repetition_penalty,
        "max_tokens": settings.max_completion_length,
        "stop_token_ids": stops,
        "detokenize": False,
        "skip_special_tokens": False,
    } | settings.generation_kwargs


def stop_ids(tokenizer: Any, contract: Contract) -> list[int]:
    """Return the ids that end a turn or a text as the tokenizer has them."""
    return sorted({tokenizer.eos_token_id, contract.end_id} - {None})


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
