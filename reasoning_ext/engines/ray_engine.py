"""Engine `ray`: Ray Data over one of the engines `transformers` and `vllm`, one on every worker, on a cluster or here.

Keys go out in chunks of `batch_size`, each with the prompts that it names and no others, as rows of a Ray data set, which lies
in Ray's object store and not in this process; every worker is an actor that opens its engine once, renders and answers. A
chunk comes back whole or not at all: when a worker dies, Ray starts it anew and gives it its chunks again, and since every
completion has its own seed, they come out the same. A worker with vLLM has several chunks under way, so that the long
completions of one do not leave the card idle.

An error that the user can mend comes back as a row too: Ray would put pages of traces around an exception.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from reasoning_ext.engines.options import OPTIONS, RayOptions
from reasoning_ext.engines.source import ModelSource
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.generation import Completion, Engine, EngineError, Key, SamplingSettings

CHUNKS_UNDER_WAY = {"transformers": 1, "vllm": 4}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # deaths of workers are told nevertheless
STARTS = 4  # of a chunk whose worker dies each time


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

        missing = set(keys)
        if not missing:
            return
        try:
            for row in self._dataset(prompts, sorted(missing), settings).iter_rows():
                answer = json.loads(row["answer"])
                if "problem" in answer:
                    raise KeyProblem(answer["key"], answer["problem"])
                found = [Completion(**completion) for completion in answer["completions"]]
                new = [c for c in found if (c.prompt, c.sample) in missing]
                missing.difference_update((c.prompt, c.sample) for c in new)
                if new:
                    yield new
        except (ray.exceptions.RayError, SystemException) as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise EngineError("engine", f"ray has given up: {type(error).__name__}: {reason}") from error
        if missing:
            raise EngineError("engine", f"ray has lost {len(missing)} of {len(keys)} completions; run again")

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        import ray

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

    def _dataset(self, prompts: Sequence[list[dict[str, str]]], keys: list[Key], settings: SamplingSettings) -> Any:
        """Lay out the chunks and what is done with each; nothing is done before the rows are asked for."""
        import ray

        options = self._options
        calls = CHUNKS_UNDER_WAY[options.engine]
        starts = ray.remote(Starts).options(num_cpus=0, max_restarts=-1).remote()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = context.enable_auto_log_stats = False
        context.execution_no_progress_timeout_s = -1  # a chunk of long completions takes as long as it takes
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return ray.data.from_arrow(list(chunks(prompts, keys, options.batch_size))).map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(self._source, options, settings, os.getcwd(), starts),
            compute=ray.data.ActorPoolStrategy(
                size=options.num_workers, max_concurrent_calls_per_actor=calls, enable_true_multi_threading=calls > 1
            ),
            num_cpus=options.num_cpus,
            num_gpus=options.num_gpus,
        )


class Starts:
    """How often each chunk was begun: Ray would let one that kills its workers do so for ever. One for all workers."""

    def __init__(self) -> None:
        self._starts: Counter[int] = Counter()

    def another(self, chunk: int) -> int:
        """Count a start of a chunk, and return how many there have been."""
        self._starts[chunk] += 1
        return self._starts[chunk]


class Worker:
    """What runs on a worker: an engine that is opened with the first chunk.

    Args:
        source: the model.
        options: of the engine `ray`.
        settings: how to sample.
        folder: the folder that relative names are meant from; on other machines it may not be there.
        starts: the actor that counts.
    """

    def __init__(self, source: ModelSource, options: RayOptions, settings: SamplingSettings, folder: str, starts: Any):
        self._source, self._options, self._settings, self._starts = source, options, settings, starts
        self._engine: Engine | None = None
        self._lock = Lock()
        if Path(folder).is_dir():
            os.chdir(folder)

    def __del__(self) -> None:
        """Close the engine; Ray deletes it before it ends a worker, whose card the next one finds empty then."""
        if self._engine is not None:
            self._engine.close()

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        """Answer chunks; a problem that the user can mend is an answer too."""
        return {"answer": [json.dumps(self._answer(json.loads(text))) for text in rows["chunk"]]}

    def _answer(self, chunk: dict[str, Any]) -> dict[str, Any]:
        import ray

        if ray.get(self._starts.another.remote(chunk["number"])) > STARTS:
            problem = f"{STARTS} workers have died of the same completions, for lack of memory perhaps"
            return {"key": "engine_kwargs", "problem": f"{problem}; write a smaller batch_size, or fewer workers"}
        prompts: Any = {int(number): prompt for number, prompt in chunk["prompts"].items()}
        keys = [(prompt, sample) for prompt, sample in chunk["keys"]]
        try:
            batches = self._opened().generate(prompts, keys, self._settings)
            return {"completions": [asdict(completion) for batch in batches for completion in batch]}
        except UserError as error:
            return {"key": getattr(error, "key", "engine"), "problem": str(error)}

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


def chunks(prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], size: int) -> Iterator[Any]:
    """Yield keys in tables of one row: as JSON, a number, the keys, and the prompts that they name."""
    import pyarrow

    for number, start in enumerate(range(0, len(keys), size)):
        part = keys[start : start + size]
        chunk = {"number": number, "keys": part, "prompts": {p: prompts[p] for p, _ in part}}
        yield pyarrow.table({"chunk": [json.dumps(chunk)]})


def _here(options: RayOptions) -> dict[str, Any]:
    """Return what Ray is started with on this machine; a cluster has it already."""
    return {} if options.address else {"include_dashboard": False}
