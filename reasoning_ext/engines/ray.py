"""Engine `ray`: one of the engines `transformers` and `vllm` on every worker, on a Ray cluster or on this machine.

A worker is an actor that lives as long as the engine, so that a model is opened once and not once a round. It is given a chunk
of keys with the prompts that they name; when it dies, Ray starts it anew with its chunk, which waits for it: where a
cluster has lost a node for good, stop and run again.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from reasoning_ext.engines.base import Completion, Engine, EngineError, Key, SamplingSettings, key_array
from reasoning_ext.errors import KeyProblem, UserError, one_line
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.engine_options import OPTIONS, RayOptions

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # deaths of workers are told nevertheless
RESTARTS = 3  # of a chunk whose worker dies
CLOSE_SECONDS = 10.0  # that workers may take


class RayEngine:
    """Answers prompts on Ray's workers, each of which `opens` an engine from its name, the source and its options."""

    def __init__(self, source: ModelSource, options: RayOptions, opens: Callable[..., Engine]):
        own = OPTIONS[options.engine](**(options.engine_kwargs or {}))
        self._options, self._opens = options, partial(opens, options.engine, source, own)
        self._workers: list[Any] = []  # from the first keys on
        self.tokenizer: Any = None  # of the model, and its contract, where somebody here needs to know them
        self.contract: Any = None
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        import ray

        self._started = not ray.is_initialized()
        if self._started:
            address = options.address or "local"
            here: dict[str, Any] = {} if options.address else {"include_dashboard": False}
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **here)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                problem = f"cannot reach Ray at address {address}: {one_line(error)}"
                raise EngineError("engine_kwargs", problem) from error
        for name, each in {} if options.address else {"GPU": options.num_gpus, "CPU": options.num_cpus}.items():
            if each * options.num_workers > (has := ray.cluster_resources().get(name, 0)):  # and no cluster will grow
                self.close()
                problem = f"found num_workers {options.num_workers} with num_{name.lower()}s {each:g}"
                todo = "write fewer, or the address of a cluster"
                raise EngineError("engine_kwargs", f"{problem}, but Ray has {has:g} here; {todo}")

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `base.Engine` says, a chunk at a time, in the order in which the workers are done."""
        import ray

        options, keys_K2 = self._options, key_array(keys)
        size = max(1, min(options.batch_size, -(-len(keys_K2) // options.num_workers)))  # few keys go to all workers
        waiting = deque(range(0, len(keys_K2), size))
        if waiting and not self._workers:
            needs = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus}
            lives = {"max_restarts": -1, "max_task_retries": RESTARTS, "max_concurrency": 2}  # to close beside a chunk
            actor = ray.remote(Worker).options(**needs, **lives)
            self._workers = [actor.remote(self._opens, os.getcwd()) for _ in range(options.num_workers)]
        # a worker gets its first chunk when it is there and can say so; one that a cluster has no room for holds nobody up
        calls = {worker.here.options(max_task_retries=-1).remote(): worker for worker in self._workers}
        chunks: set[Any] = set()
        try:
            while waiting or chunks:
                [call], _ = ray.wait(list(calls))
                worker, answer = calls.pop(call), ray.get(call)
                if isinstance(answer, tuple):
                    raise KeyProblem(*answer)
                if waiting:
                    start = waiting.popleft()
                    part = keys_K2[start : start + size].tolist()
                    chunk = worker.answer.remote({p: prompts[p] for p, _ in part}, part, settings)
                    calls[chunk] = worker
                    chunks.add(chunk)
                if call in chunks:
                    chunks.remove(call)
                    yield answer
        except ray.exceptions.RayActorError as error:
            problem = f"{1 + RESTARTS} workers have died of the same completions, for lack of memory perhaps"
            raise EngineError("engine_kwargs", f"{problem}; write a smaller batch_size, or fewer workers") from error
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise EngineError("engine", f"ray has given up: {type(error).__name__}: {reason}") from error

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        import ray

        workers, self._workers = self._workers, []
        if workers and ray.is_initialized():
            ray.wait([w.close.remote() for w in workers], num_returns=len(workers), timeout=CLOSE_SECONDS)
            for worker in workers:
                ray.kill(worker)
        if self._started:
            ray.shutdown()


class Worker:
    """What runs on a worker, in a folder that may not be there on other machines: an engine, opened with the first chunk."""

    def __init__(self, opens: Callable[[], Engine], folder: str):
        self._opens, self._lock = opens, Lock()
        self._engine: Engine | None = None
        if Path(folder).is_dir():
            os.chdir(folder)

    def here(self) -> None:
        """Tell that the worker has been started."""

    def answer(self, prompts: Any, keys: list[Key], settings: SamplingSettings) -> list[Completion] | tuple[str, str]:
        """Answer a chunk, or say what the user can mend, as key and text: Ray would put pages of traces around an exception."""
        with self._lock:
            try:
                self._engine = self._engine or self._opens()
                return [c for batch in self._engine.generate(prompts, keys, settings) for c in batch]
            except UserError as error:
                return getattr(error, "key", "engine"), str(error)

    def close(self) -> None:
        """Close the engine, whose card the next one finds empty then."""
        if self._engine is not None:
            self._engine.close()
