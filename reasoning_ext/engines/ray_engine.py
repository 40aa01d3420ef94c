"""Engine `ray`: Ray Data over one of the engines `transformers` and `vllm`, one on every worker, on a cluster or here.

Keys go out in chunks of `batch_size`, each with the prompts that it names and no others, as rows of a Ray data set, which lies
in Ray's object store and not in this process. Ray Data streams them through a clerk, an actor that takes no GPU and hands each
to a worker that is free. The workers are actors of ours and not of Ray Data, which ends its own after every run over a data
set: they live as long as the engine, so that a model is opened once a worker, and not once a round of adaptive sampling.

A chunk comes back whole or not at all: when a worker dies, Ray starts it anew and the clerk hands the chunk out again, and
since every completion has its own seed, they come out the same. A worker with vLLM has several chunks under way, so that the
long completions of one do not leave the card idle. An error that the user can mend comes back as a row too: Ray would put pages
of traces around an exception.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np

from reasoning_ext.engines.options import OPTIONS, RayOptions
from reasoning_ext.engines.source import ModelSource
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.generation import Completion, Engine, EngineError, Key, SamplingSettings

CHUNKS_UNDER_WAY = {"transformers": 1, "vllm": 4}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # deaths of workers are told nevertheless
STARTS = 4  # of a chunk whose worker dies each time
CLOSE_SECONDS, LOOK_SECONDS = (
    10.0,
    0.5,
)  # that workers may take to close; between two looks at one that is being started


class RayEngine:
    """Answers prompts on Ray's workers; see `generation.Engine`.

    Args:
        source: the model, which every worker opens; a folder must be there under the same name for all of them.
        options: the recipe's `engine_kwargs`.

    Raises:
        EngineError: Ray is not installed, cannot be reached, or has too little for the workers.
    """

    def __init__(self, source: ModelSource, options: RayOptions):
        self._source, self._options = source, options
        self._workers: list[Any] = []  # from the first keys on
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
            import ray.data
        except ImportError as error:
            problem = f"found ray, which cannot be imported here ({error}); pip install 'reasoning-ext[ray]'"
            raise EngineError("engine", f"{problem} or write another engine") from error
        self._started = not ray.is_initialized()
        if self._started:
            address = options.address or "local"
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **_here(options))
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                problem = f"cannot reach Ray at address {address}: {' '.join(str(error).split())[:200]}"
                raise EngineError("engine_kwargs", problem) from error
        if not options.address:
            self._refuse_too_many(ray.cluster_resources())

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `generation.Engine` says, a chunk at a time, in the order in which the workers are done.

        Raises:
            KeyProblem: a worker cannot open its engine, refuses a prompt, or dies of a chunk again and again.
            EngineError: Ray itself fails, or a worker for a reason that is not the user's.
        """
        import ray
        from ray.data.exceptions import SystemException

        keys_K2 = np.asarray(getattr(keys, "array_K2", keys), dtype=np.int32).reshape(-1, 2)
        keys_K2 = keys_K2[np.lexsort((keys_K2[:, 1], keys_K2[:, 0]))]
        done = np.zeros(-(-len(keys_K2) // self._options.batch_size), dtype=bool)  # by chunk
        if not len(done):
            return
        try:
            for row in self._dataset(Chunks(prompts, keys_K2, self._options.batch_size), settings).iter_rows():
                answer = json.loads(row["answer"])
                if "problem" in answer:
                    raise KeyProblem(answer["key"], answer["problem"])
                if not done[answer["number"]]:  # Ray may do a thing twice
                    done[answer["number"]] = True
                    yield [Completion(**completion) for completion in answer["completions"]]
        except (ray.exceptions.RayError, SystemException) as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise EngineError("engine", f"ray has given up: {type(error).__name__}: {reason}") from error
        if not done.all():
            raise EngineError("engine", f"ray has lost {(~done).sum()} of {len(done)} chunks of completions; run again")

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

    def _refuse_too_many(self, resources: dict[str, float]) -> None:
        """Refuse workers that this machine has no room for: Ray would wait for a cluster to grow."""
        options = self._options
        for name, each in (("GPU", options.num_gpus), ("CPU", options.num_cpus)):
            wanted, has = each * options.num_workers, resources.get(name, 0)
            if wanted > has:
                self.close()
                problem = f"found num_workers {options.num_workers} with num_{name.lower()}s {each:g}, but Ray has {has:g} here"
                raise EngineError("engine_kwargs", f"{problem}; write fewer, or the address of a cluster")

    def _dataset(self, chunks: Chunks, settings: SamplingSettings) -> Any:
        """Lay out the chunks and what is done with each; nothing is done before the rows are asked for."""
        import ray

        options, calls = self._options, CHUNKS_UNDER_WAY[self._options.engine]
        if not self._workers:
            worker = ray.remote(Worker).options(
                num_cpus=options.num_cpus,
                num_gpus=options.num_gpus,
                max_restarts=-1,
                max_concurrency=calls + 1,  # to close beside its chunks
            )
            self._workers = [worker.remote(self._source, options, os.getcwd()) for _ in range(options.num_workers)]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = context.enable_auto_log_stats = False
        context.execution_no_progress_timeout_s = -1  # a chunk of long completions takes as long as it takes
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        at_once = calls * options.num_workers
        # from_arrow would ask for a CPU to look at each table, and the workers may have all of them
        return ray.data.from_blocks(chunks).map_batches(  # type: ignore[arg-type]
            Clerk,
            batch_size=1,
            fn_constructor_args=(self._workers, calls, settings),
            compute=ray.data.ActorPoolStrategy(
                size=1,
                max_tasks_in_flight_per_actor=at_once,
                max_concurrent_calls_per_actor=at_once,
                enable_true_multi_threading=True,
            ),
            num_cpus=0,
        )


class Clerk:
    """Hands chunks to workers that are free, in threads, and again to another where one dies of it; Ray Data's only actor.

    Args:
        workers: handles of `Worker`s; those that are not there yet get nothing.
        calls: chunks that a worker has under way at once.
        settings: how to sample.
    """

    def __init__(self, workers: list[Any], calls: int, settings: SamplingSettings):
        self._workers, self._settings = workers, settings
        self._free: SimpleQueue[int] = SimpleQueue()  # each worker's number as often as it has room for a chunk
        for number in list(range(len(workers))) * calls:
            self._expect(number)

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        """Let chunks be answered; a problem that the user can mend is an answer too."""
        return {"answer": [self._answer(text) for text in rows["chunk"]]}

    def _answer(self, chunk: str) -> str:
        import ray

        for _ in range(STARTS):
            number = self._free.get()
            try:
                answer = ray.get(self._workers[number].answer.remote(chunk, self._settings))
            except ray.exceptions.RayActorError:
                self._expect(number)
                continue
            self._free.put(number)
            return answer
        problem = f"{STARTS} workers have died of the same completions, for lack of memory perhaps"
        todo = "write a smaller batch_size, or fewer workers"
        return json.dumps({"key": "engine_kwargs", "problem": f"{problem}; {todo}"})

    def _expect(self, number: int) -> None:
        """Count a worker as free once it is there; one that Ray will not start again kills the chunks that it is given."""
        import ray

        def wait() -> None:
            while True:
                try:
                    ray.get(self._workers[number].here.remote())
                except ray.exceptions.ActorUnavailableError:
                    time.sleep(LOOK_SECONDS)
                    continue
                except ray.exceptions.RayActorError:
                    pass
                return self._free.put(number)

        Thread(target=wait, daemon=True).start()


class Worker:
    """What runs on a worker: an engine that is opened with the first chunk and stays open.

    Args:
        source: the model.
        options: of the engine `ray`.
        folder: the folder that relative names are meant from; on other machines it may not be there.
    """

    def __init__(self, source: ModelSource, options: RayOptions, folder: str):
        self._source, self._options = source, options
        self._engine: Engine | None = None
        self._lock = Lock()
        if Path(folder).is_dir():
            os.chdir(folder)

    def here(self) -> None:
        """Tell that the worker has been started."""

    def answer(self, text: str, settings: SamplingSettings) -> str:
        """Answer a chunk; a problem that the user can mend is an answer too."""
        chunk = json.loads(text)
        prompts: Any = {int(number): prompt for number, prompt in chunk["prompts"].items()}
        keys = [(prompt, sample) for prompt, sample in chunk["keys"]]
        try:
            batches = self._opened().generate(prompts, keys, settings)
            completions = [asdict(completion) for batch in batches for completion in batch]
            return json.dumps({"number": chunk["number"], "completions": completions})
        except UserError as error:
            return json.dumps({"key": getattr(error, "key", "engine"), "problem": str(error)})

    def close(self) -> None:
        """Close the engine, whose card the next one finds empty then."""
        if self._engine is not None:
            self._engine.close()

    def _opened(self) -> Engine:
        with self._lock:  # the first chunks of an engine with several under way come together
            if self._engine is None:
                self._engine = open_here(self._source, self._options)
            return self._engine


def open_here(source: ModelSource, options: RayOptions) -> Engine:
    """Open a worker's engine in its process."""
    from reasoning_ext.model import prepare_backend

    own = OPTIONS[options.engine](**(options.engine_kwargs or {}))
    if options.engine == "vllm":
        from reasoning_ext.engines.vllm_engine import VllmEngine

        return VllmEngine(source, own)
    prepare_backend(source.options.backend)
    from reasoning_ext.engines.transformers_engine import TransformersEngine

    return TransformersEngine(source.load(), source.batch_size)


class Chunks:
    """Keys in tables of one row: as JSON, a number, the keys, and the prompts that they name; made as they are asked for.

    Args:
        prompts: P conversations.
        keys_K2: prompt and sample of each key, by prompt.
        size: keys a chunk.
    """

    def __init__(self, prompts: Sequence[list[dict[str, str]]], keys_K2: np.ndarray, size: int):
        self._prompts, self._keys_K2, self._size = prompts, keys_K2, size

    def __iter__(self) -> Iterator[Any]:
        """Yield the tables; Ray goes through them twice, to store them and to count their rows."""
        import pyarrow

        for number, start in enumerate(range(0, len(self._keys_K2), self._size)):
            part = self._keys_K2[start : start + self._size].tolist()
            chunk = {"number": number, "keys": part, "prompts": {p: self._prompts[p] for p, _ in part}}
            yield pyarrow.table({"chunk": [json.dumps(chunk)]})


def _here(options: RayOptions) -> dict[str, Any]:
    """Return what Ray is started with on this machine; a cluster has it already."""
    return {} if options.address else {"include_dashboard": False}
