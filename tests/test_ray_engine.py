"""The engine `ray` on a Ray of this machine: workers with the tiny model, one of which is killed."""

import json
import os
import signal

import pytest
from conftest import TINY

from reasoning_ext.engines.options import RayOptions
from reasoning_ext.engines.ray_engine import STARTS, RayEngine, Starts, Worker, chunks
from reasoning_ext.engines.source import ModelSource
from reasoning_ext.errors import KeyProblem
from reasoning_ext.generation import EngineError, SamplingSettings
from reasoning_ext.model import LoadOptions

PROMPTS = [[{"role": "user", "content": f"{a}+{a * 7 % 90}=?"}] for a in range(60)]
KEYS = [(prompt, sample) for prompt in range(60) for sample in range(8)]
SETTINGS = SamplingSettings(max_completion_length=100, seed=3)
OPTIONS = RayOptions(engine="transformers", num_workers=2, num_gpus=0, num_cpus=1, batch_size=16)
SOURCE = ModelSource(str(TINY / "model"), {}, LoadOptions(trainable=False, from_scratch=True, seed=0), use_cpu=True)


def test_a_chunk_has_its_keys_and_their_prompts_and_no_others():
    prompts = [[{"role": "user", "content": f"q{p}"}] for p in range(9)]
    keys = [(2, 0), (2, 1), (2, 2), (5, 0), (7, 0)]
    tables = [json.loads(table["chunk"][0].as_py()) for table in chunks(prompts, keys, 2)]
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

    mine = psutil.Process().children(recursive=True)
    return [process.pid for process in mine if "MapWorker" in " ".join(process.cmdline())]


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
    engine.close()
    assert cluster.is_initialized()  # it was there before


@pytest.mark.slow
def test_a_worker_that_cannot_open_its_model_says_so_in_one_line(cluster, tmp_path):
    engine = RayEngine(ModelSource(str(tmp_path / "nothing"), use_cpu=True), OPTIONS)
    with pytest.raises(KeyProblem, match=r"cannot load .*nothing") as error:
        list(engine.generate(PROMPTS, KEYS, SETTINGS))
    assert error.value.key == "model_name_or_path" and "\n" not in str(error.value)


@pytest.mark.slow
def test_a_chunk_that_kills_every_worker_is_given_up(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    starts = cluster.remote(Starts).options(num_cpus=0).remote()
    worker = Worker(ModelSource(str(tmp_path / "nothing"), use_cpu=True), OPTIONS, SETTINGS, str(tmp_path), starts)
    chunk = {"chunk": [json.dumps({"number": 3, "keys": [[0, 0]], "prompts": {"0": PROMPTS[0]}})]}
    tries = [json.loads(worker(chunk)["answer"][0]) for _ in range(STARTS + 1)]
    assert [a["key"] for a in tries] == ["model_name_or_path"] * STARTS + ["engine_kwargs"]
    assert f"{STARTS} workers have died" in tries[-1]["problem"]
