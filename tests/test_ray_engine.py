"""The engine `ray` on a Ray of this machine: workers with the tiny model, one of which is killed."""

import contextlib
import json
import os
import signal
import time

import numpy as np
import pytest
from conftest import TINY

from reasoning_ext.engines.options import RayOptions
from reasoning_ext.engines.ray_engine import STARTS, Chunks, Clerk, RayEngine
from reasoning_ext.engines.source import ModelSource
from reasoning_ext.errors import KeyProblem
from reasoning_ext.generation import EngineError, SamplingSettings
from reasoning_ext.loaded import LoadOptions

PROMPTS = [[{"role": "user", "content": f"{a}+{a * 7 % 90}=?"}] for a in range(60)]
KEYS = [(prompt, sample) for prompt in range(60) for sample in range(8)]
SETTINGS = SamplingSettings(max_completion_length=100, seed=3)
OPTIONS = RayOptions(engine="transformers", num_workers=2, num_gpus=0, num_cpus=1, batch_size=16)
SOURCE = ModelSource(str(TINY / "model"), {}, LoadOptions(trainable=False, from_scratch=True, seed=0), use_cpu=True)


def test_a_chunk_has_its_keys_and_their_prompts_and_no_others():
    prompts = [[{"role": "user", "content": f"q{p}"}] for p in range(9)]
    keys = [(2, 0), (2, 1), (2, 2), (5, 0), (7, 0)]
    chunks = Chunks(prompts, np.array(keys, dtype=np.int32), 2)
    tables = [json.loads(table["chunk"][0].as_py()) for table in chunks]
    assert len(list(chunks)) == 3  # Ray asks again
    assert [t["number"] for t in tables] == [0, 1, 2]
    assert [t["keys"] for t in tables] == [[[2, 0], [2, 1]], [[2, 2], [5, 0]], [[7, 0]]]
    assert [list(t["prompts"]) for t in tables] == [["2"], ["2", "5"], ["7"]]
    assert tables[1]["prompts"]["5"] == prompts[5]


@pytest.mark.slow
def test_more_workers_than_this_machine_has_room_for_are_refused_and_ray_is_ended():
    ray = pytest.importorskip("ray")
    with pytest.raises(EngineError, match="found num_workers 999 with num_cpus 1, but Ray has") as error:
        RayEngine(SOURCE, RayOptions(engine="transformers", num_workers=999, num_gpus=0))
    assert error.value.key == "engine_kwargs" and not ray.is_initialized()


@pytest.fixture(scope="module")
def cluster():
    """A Ray that thinks it has two GPUs: with GPUs, Ray Data has rules of its own."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def _workers():
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "ray::Worker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_completions_are_those_without_ray(cluster):
    from reasoning_ext.engines.transformers_engine import TransformersEngine

    engine = RayEngine(SOURCE, RayOptions(**{**vars(OPTIONS), "num_gpus": 1.0}))
    found, killed = [], None
    for batch in engine.generate(PROMPTS, KEYS, SETTINGS):
        found += batch
        if killed is None and len(found) >= 64:
            killed, *others = _workers()
            assert len(others) == 1
            os.kill(killed, signal.SIGKILL)
    assert killed is not None and killed not in _workers()
    assert sorted((c.prompt, c.sample) for c in found) == KEYS
    plain = TransformersEngine(SOURCE.load(), SOURCE.batch_size)
    alone = {(c.prompt, c.sample): c for batch in plain.generate(PROMPTS, KEYS[:64], SETTINGS) for c in batch}
    through_ray = {(c.prompt, c.sample): c for c in found}
    assert sum(through_ray[key] == alone[key] for key in alone) >= 62  # other batches are summed in another order
    workers = sorted(_workers())
    [again] = list(engine.generate(PROMPTS, KEYS[:3], SETTINGS))
    assert [(c.prompt, c.sample) for c in again] == KEYS[:3]
    assert sorted(_workers()) == workers and len(workers) == 2  # with their models; none is opened again
    engine.close()
    until = time.monotonic() + 20
    while _workers() and time.monotonic() < until:
        time.sleep(0.1)
    assert not _workers()
    assert cluster.is_initialized()  # it was there before


@pytest.mark.slow
def test_a_worker_that_cannot_open_its_model_says_so_in_one_line(cluster, tmp_path):
    engine = RayEngine(ModelSource(str(tmp_path / "nothing"), use_cpu=True), OPTIONS)
    with pytest.raises(KeyProblem, match=r"cannot load .*nothing") as error:
        list(engine.generate(PROMPTS, KEYS, SETTINGS))
    assert error.value.key == "model_name_or_path" and "\n" not in str(error.value)


def _worker(cluster, answer, **options):
    class Stub:  # here, so that it travels by value
        def here(self):
            pass

        def answer(self, text, settings):
            return answer(text)

    return cluster.remote(Stub).options(num_cpus=0, max_restarts=-1, **options).remote()


@pytest.mark.slow
def test_a_chunk_that_kills_every_worker_is_given_up(cluster):
    worker = _worker(cluster, lambda text: os._exit(1) if "prompts" in text else text)
    chunk = json.dumps({"number": 3, "keys": [[0, 0]], "prompts": {"0": PROMPTS[0]}})
    fatal, fine = Clerk([worker], 1, SETTINGS)({"chunk": [chunk, "1"]})["answer"]
    answer = json.loads(fatal)
    assert fine == "1"  # of a worker that was started again
    assert answer["key"] == "engine_kwargs" and f"{STARTS} workers have died" in answer["problem"]


@pytest.mark.slow
def test_a_worker_that_is_not_there_yet_gets_nothing_and_holds_nobody_up(cluster):
    """As one that a cluster has no room for."""
    answers = Clerk([_worker(cluster, str, num_gpus=99), _worker(cluster, str)], 1, SETTINGS)
    assert [answers({"chunk": [str(i)]})["answer"] for i in range(3)] == [["0"], ["1"], ["2"]]
