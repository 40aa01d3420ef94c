"""The engine `ray` on a Ray of this machine: workers of which some are killed, and one with the tiny model."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext.engines import ray as module
from reasoning_ext.engines.base import Completion, EngineError, SamplingSettings
from reasoning_ext.engines.opening import open_local
from reasoning_ext.engines.ray import RayEngine
from reasoning_ext.engines.thinking import ThinkingEngine
from reasoning_ext.errors import KeyProblem
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.engine_options import RayOptions

PROMPTS = [[{"role": "user", "content": f"{a}+{a * 7 % 90}=?"}] for a in range(12)]
KEYS = [(prompt, sample) for prompt in range(12) for sample in range(8)]
SETTINGS = SamplingSettings(max_completion_length=20, seed=3)
SOURCE = ModelSource(str(TINY / "model"), use_cpu=True)

pytestmark = pytest.mark.slow


def options(**changed):
    return RayOptions(**{"engine": "transformers", "num_workers": 2, "num_gpus": 0, "batch_size": 8} | changed)


@pytest.fixture(scope="module")
def cluster():
    """A Ray that thinks it has two GPUs."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def opens(answer):
    """What opens a stand-in for a model, whose completion is `answer(content, sample)`; it tells its process."""

    def open_stand_in(engine, source, own):
        class StandIn:  # here, so that it travels by value
            def generate(self, prompts, keys, settings):
                time.sleep(0.2)
                yield [
                    Completion(p, g, answer(prompts[p][0]["content"], g), [os.getpid()], True, len(prompts))
                    for p, g in keys
                ]

            def close(self):
                pass

        return StandIn()

    return open_stand_in


def test_a_killed_worker_costs_nothing_and_the_others_stay_for_the_next_round(cluster):
    engine = RayEngine(SOURCE, options(num_gpus=1.0), opens(lambda content, g: f"{content} {g}"))
    found, pids = [], []
    for batch in engine.generate(PROMPTS, KEYS, SETTINGS):
        assert {c.tokens for c in batch} == {1}  # prompts that a chunk of one prompt's keys was sent with
        found += batch
        pids += [batch[0].ids[0]] if batch[0].ids[0] not in pids else []
        if len(found) == 24:
            os.kill(pids[0], signal.SIGKILL)
    assert sorted((c.prompt, c.sample) for c in found) == KEYS
    assert all(c.text == f"{PROMPTS[c.prompt][0]['content']} {c.sample}" for c in found)
    left = set(pids[1:])
    again = [c for batch in engine.generate(PROMPTS, KEYS[:3], SETTINGS) for c in batch]
    assert sorted((c.prompt, c.sample) for c in again) == KEYS[:3]
    assert len({c.ids[0] for c in again} - left) <= 1  # the one that was started in the place of the killed one
    assert list(engine.generate(PROMPTS, [], SETTINGS)) == []
    engine.close()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert cluster.is_initialized()  # it was there before


def test_a_chunk_that_kills_every_worker_is_given_up(cluster, monkeypatch):
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(module, "RESTARTS", 1)
    engine = RayEngine(SOURCE, options(), opens(lambda content, g: os._exit(1) if content == "11+77=?" else "7"))
    with pytest.raises(EngineError, match="2 workers have died") as error:
        list(engine.generate(PROMPTS, KEYS, SETTINGS))
    assert error.value.key == "engine_kwargs"
    engine.close()


def test_a_worker_that_is_not_there_yet_holds_nobody_up(cluster, monkeypatch):
    """As one that a cluster has no room for."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.5)
    taken = cluster.remote(num_gpus=1)(type("Taken", (), {"here": lambda self: None})).remote()
    cluster.get(taken.here.remote())
    engine = RayEngine(SOURCE, options(num_gpus=1, num_cpus=0), opens(lambda content, g: "7"))
    assert len([c for batch in engine.generate(PROMPTS, KEYS, SETTINGS) for c in batch]) == len(KEYS)
    engine.close()
    cluster.kill(taken)


def test_completions_are_those_without_ray_and_problems_one_line(cluster, tmp_path):
    from reasoning_ext.models.load import LoadOptions

    source = ModelSource(str(TINY / "model"), {}, LoadOptions(trainable=False, from_scratch=True), use_cpu=True)
    engine = RayEngine(source, options(num_workers=1), open_local)
    found = {(c.prompt, c.sample): c for batch in engine.generate(PROMPTS, KEYS[:32], SETTINGS) for c in batch}
    from reasoning_ext.engines.transformers import TransformersEngine

    plain = TransformersEngine(source.load(), source.batch_size)
    alone = {(c.prompt, c.sample): c for batch in plain.generate(PROMPTS, KEYS[:32], SETTINGS) for c in batch}
    assert found.keys() == alone.keys()
    assert sum(found[key] == alone[key] for key in alone) >= 31  # other batches are summed in another order
    # on the workers, which have the tokenizer
    bounded = replace(SETTINGS, thinking_budget=10, min_thinking=5, logprobs=True)
    wanted = {c.sample: c for batch in ThinkingEngine(plain).generate(PROMPTS, KEYS[:8], bounded) for c in batch}
    there = [c for batch in engine.generate(PROMPTS, KEYS[:8], bounded) for c in batch]
    assert len(there) == 8 and sum(c.ids == wanted[c.sample].ids for c in there) >= 7 and any(c.forced for c in there)
    with pytest.raises(KeyProblem) as error:
        list(engine.generate(PROMPTS, KEYS[:8], SamplingSettings(generation_kwargs={"min_lenght": 3})))
    assert error.value.key == "generation_kwargs" and "\n" not in str(error.value)
    engine.close()
    with pytest.raises(EngineError, match="999") as error:
        RayEngine(SOURCE, options(num_workers=999), open_local)
    assert error.value.key == "engine_kwargs"
