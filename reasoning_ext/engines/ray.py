"""Engine `ray`: one of the engines `transformers` and `vllm` on every worker, on a Ray cluster or on this machine.

A worker is an actor that lives as long as the engine, so that a model is opened once and not once a round. It is given a chunk
of keys with the prompts that they name, which comes back whole or not at all: when a worker dies, another one gets the chunk,
and since every completion has its own seed, they come out the same; Ray starts the dead one anew.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from reasoning_ext.engines.base import Completion, Engine, EngineError, Key, SamplingSettings, key_array
from reasoning_ext.engines.local import open_engine
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.engine_options import OPTIONS, RayOptions

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # deaths of workers are told nevertheless
STARTS = 4  # of a chunk whose worker dies each time
CLOSE_SECONDS = 10.0  # that workers may take


class RayEngine:
    """Answers prompts on Ray's workers; see `base.Engine`.

    Args:
        source: the model, which every worker opens; a folder must be there under the same name for all of them.
        options: the recipe's `engine_kwargs`.
        opens: opens a worker's engine in its process.

    Raises:
        EngineError: Ray is not installed, cannot be reached, or has too little for the workers.
    """

    def __init__(self, source: ModelSource, options: RayOptions, opens: Callable[..., Engine] = open_engine):
        self._source, self._options, self._opens = source, options, opens
        self._workers: list[Any] = []  # from the first keys on
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        try:
            import ray
        except ImportError as error:
            problem = f"found ray, which cannot be imported here ({error}); pip install 'reasoning-ext[ray]'"
            raise EngineError("engine", f"{problem} or write another engine") from error
        self._started = not ray.is_initialized()
        if self._started:
            address = options.address or "local"
            here: dict[str, Any] = {} if options.address else {"include_dashboard": False}
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **here)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                problem = f"cannot reach Ray at address {address}: {' '.join(str(error).split())[:200]}"
                raise EngineError("engine_kwargs", problem) from error
        for name, each in {} if options.address else {"GPU": options.num_gpus, "CPU": options.num_cpus}.items():
            if each * options.num_workers > (has := ray.cluster_resources().get(name, 0)):  # and no cluster will grow
                self.close()
                problem = f"found num_workers {options.num_workers} with num_{name.lower()}s {each:g}, but Ray has {has:g} here"
                raise EngineError("engine_kwargs", f"{problem}; write fewer, or the address of a cluster")

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `base.Engine` says, a chunk at a time, in the order in which the workers are done.

        Raises:
            KeyProblem: a worker cannot open its engine, refuses a prompt, or dies of a chunk again and again.
            EngineError: Ray itself fails, or a worker for a reason that is not the user's.
        """
        import ray

        options, keys_K2 = self._options, key_array(keys)
        size = max(1, min(options.batch_size, -(-len(keys_K2) // options.num_workers)))  # few keys go to all workers
        if len(keys_K2) and not self._workers:
            needs = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus, "max_restarts": -1}
            actor = ray.remote(Worker).options(max_concurrency=2, **needs)  # to close beside a chunk
            own = OPTIONS[options.engine](**(options.engine_kwargs or {}))
            opens = partial(self._opens, options.engine, self._source, own)
            self._workers = [actor.remote(opens, os.getcwd()) for _ in range(options.num_workers)]

        def ask(worker: Any, start: int) -> Any:
            part = keys_K2[start : start + size].tolist()
            return worker.answer.remote({p: prompts[p] for p, _ in part}, part, settings)

        try:
            for answer in self._answers(deque(range(0, len(keys_K2), size)), ask):
                if isinstance(answer, tuple):
                    raise KeyProblem(*answer)
                yield answer
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise EngineError("engine", f"ray has given up: {type(error).__name__}: {reason}") from error

    def _answers(self, waiting: deque[int], ask: Callable[[Any, int], Any]) -> Iterator[Any]:
        """Yield what comes of chunks, each named by its first key; `ask` lets a worker begin with one."""
        import ray

        def here(worker: Any) -> Any:
            return worker.here.options(max_task_retries=-1).remote()

        # a worker gets its first chunk, or the next one after it has died, when it is there and can say so
        calls: dict[Any, tuple[Any, int | None]] = {here(worker): (worker, None) for worker in self._workers}
        free: list[Any] = []
        deaths: Counter[int] = Counter()
        while waiting or any(start is not None for _, start in calls.values()):
            while waiting and free:
                worker, start = free.pop(), waiting.popleft()
                calls[ask(worker, start)] = worker, start
            [call], _ = ray.wait(list(calls))
            worker, done = calls.pop(call)
            try:
                answer = ray.get(call)
            except ray.exceptions.RayActorError as error:
                calls[here(worker)] = worker, None
                if done is None:
                    continue
                waiting.appendleft(done)
                deaths[done] += 1
                if deaths[done] == STARTS:
                    problem = f"{STARTS} workers have died of the same completions, for lack of memory perhaps"
                    todo = "write a smaller batch_size, or fewer workers"
                    raise EngineError("engine_kwargs", f"{problem}; {todo}") from error
                continue
            free.append(worker)
            if done is not None:
                yield answer

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
    """What runs on a worker: an engine that is opened with the first chunk and stays open.

    Args:
        opens: opens it.
        folder: the folder that relative names are meant from; on other machines it may not be there.
    """

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
