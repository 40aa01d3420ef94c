"""The memory plan of a machine without a card: what it is of, what it comes to beside a trace, and what `check` says of it."""

import json
import sys
from dataclasses import replace

import pytest
from conftest import ROOT, TINY

from reasoning_ext import check
from reasoning_ext.check.memory import check as memory
from reasoning_ext.check.memory.check import Card, cost_line, find_device, find_host, parse_card, report_memory
from reasoning_ext.check.memory.plan import GIB, HEAP, PROCESS, plan
from reasoning_ext.check.memory.setup import setup_of
from reasoning_ext.check.memory.shapes import config_of
from reasoning_ext.models.devices import Device
from reasoning_ext.recipe.load import load_recipe

sys.path.insert(0, str(ROOT / "benchmarks"))
import memory_plan as benchmark

CPU = Device("cpu")
HOST = Card("this machine", 16 * GIB, CPU)
QWEN = {"model_name_or_path": "Qwen/Qwen2.5-0.5B", "per_device_train_batch_size": 8}
SFT = {"stage": "sft", "max_length": 192} | QWEN
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": ["all-linear"]}
GRPO = {"stage": "grpo", "max_prompt_length": 64, "max_completion_length": 40} | QWEN | LORA


@pytest.fixture
def recipe_of(tmp_path):
    return lambda values: benchmark.recipe_of(values if "stage" in values else SFT | values, tmp_path)


@pytest.mark.parametrize(
    ("values", "device", "expected"),
    [
        (LORA, {"device": CPU}, ("float32", "float32", False)), ({}, {"device": CPU}, ("float32", "float32", False)),
        (LORA | {"dtype": "bfloat16"}, {"device": CPU}, ("bfloat16", "bfloat16", False)),
        ({"bf16": True, "gradient_checkpointing": True}, {"device": CPU}, ("float32", "bfloat16", True)),
        (LORA, {}, ("bfloat16", "bfloat16", True)), ({}, {}, ("float32", "bfloat16", True)),
        ({"bf16": False}, {}, ("float32", "float32", True)),
    ],
)  # fmt: skip
def test_a_plan_has_the_types_that_the_run_chooses(values, device, expected, recipe_of):
    made = setup_of(recipe_of(values), {}, **device)
    assert (made.dtype, made.computed, made.checkpointing) == expected


@pytest.mark.parametrize(
    ("name", "way", "checkpointing"),
    [
        ("meta-llama/Llama-3.2-1B", LORA | {"lora_dropout": 0.05}, False),
        *(
            pytest.param(name, way, checkpointing, marks=pytest.mark.slow)
            for name in ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B", "microsoft/Phi-4-mini", "google/gemma-3-1b")
            for way in (LORA | {"lora_dropout": 0.0}, LORA | {"lora_dropout": 0.05}, {})
            for checkpointing in (False, True)
        ),
    ],
)
def test_the_formulas_are_within_ten_percent_of_a_trace_of_the_cpus_own_step(
    name, way, checkpointing, recipe_of, tmp_path
):
    from memory_trace.trace import Workload, trace_training

    shrunk = {"num_hidden_layers": 2, "layer_types": None, "vocab_size": 2048, "pad_token_id": 0}
    config = {**config_of(name), "bos_token_id": 0, "eos_token_id": 0, **shrunk}
    (tmp_path / "config.json").write_text(json.dumps(config))
    values = {"gradient_checkpointing": checkpointing, "model_name_or_path": str(tmp_path)} | way
    setup = setup_of(recipe_of(values), {}, longest=128, device=CPU)
    made = plan(replace(setup, rows=64))
    load = {"dtype": "float32"} | way
    training = {"bf16": False, "gradient_checkpointing": checkpointing}
    traced = trace_training("sft", config, load, training, Workload(64, 0, 128, padded=True), kernels="cpu")
    assert made.peak / traced.peak == pytest.approx(1, abs=0.10), (made.shown(), traced)


def test_rows_are_as_long_as_the_longest_and_all_their_positions_have_logits(recipe_of):
    whole, read = (setup_of(recipe_of(LORA), {}, longest=n, device=CPU) for n in (None, 100))
    assert (whole.tokens, read.tokens) == (192, 100) and plan(read).peak < plan(whole).peak
    packed = setup_of(recipe_of(LORA | {"packing": True}), {}, longest=100, device=CPU)
    assert packed.tokens == 192
    logits = plan(replace(setup_of(recipe_of(GRPO), {}, device=CPU), fused=True)).shown()["training"]["logits"]
    assert logits / (8 * 104 * 32768 * 33) == pytest.approx(1, abs=0.05)  # not those of the completions alone
    made = plan(read)
    needed = round(made.peak * (1 + HEAP["training"])) + PROCESS
    assert made.needed == needed and made.fits(needed) and not made.fits(needed - 1)


def test_edits_for_a_cpu_name_nothing_that_only_a_card_has(recipe_of):
    found = report_memory(
        recipe_of(LORA | {"per_device_train_batch_size": 64}), [], replace(HOST, memory=6 * GIB), True, 1
    )
    assert found.fits and not found.edits
    found = report_memory(recipe_of(LORA | {"per_device_train_batch_size": 64}), [], HOST, True, None)
    keys = [key for edit in found.edits for key in edit.values]
    assert not found.fits and "gradient_checkpointing" in keys and not {"load_in_4bit", "optim", "backend"} & {*keys}
    assert "this machine" in found.lines()[0] and "CUDA" not in " ".join(found.lines())


@pytest.mark.parametrize(
    ("values", "card", "kind"),
    [
        ({}, None, "cpu"), ({}, "24GB", "cuda"), ({"use_cpu": True}, "24GB", "cpu"), ({"use_cpu": True}, None, "cpu"),
        ({"backend": "unsloth"}, None, None), ({"backend": "unsloth", "use_cpu": True}, None, "cpu"),
        (LORA | {"load_in_4bit": True}, None, None),
        (GRPO | {"use_vllm": True}, None, None), ({"backend": "unsloth"}, "24GB", "cuda"),
    ],
)  # fmt: skip
def test_a_plan_is_of_what_is_here_but_for_what_is_meant_for_a_card(values, card, kind, recipe_of, monkeypatch):
    monkeypatch.setattr(memory, "find_card", lambda: parse_card(card) if card else None)
    found = find_device(recipe_of(values))
    assert (found and found.device.kind) == kind
    planned = report_memory(recipe_of(values), [], found, True, None).plan
    assert bool(planned) is not (kind == "cpu" and "backend" in values)  # Unsloth's own kernels on a CPU


def test_the_memory_of_a_machine_is_no_more_than_its_containers(tmp_path, monkeypatch):
    free = find_host().memory
    assert 0 < free < 2**50
    files = {"memory.max": "1000\n", "memory.current": "300\n", "memory.stat": "anon 100\nfile 200\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert find_host().memory == 900
    (tmp_path / "memory.max").write_text("max\n")
    assert find_host().memory > 1000


@pytest.mark.parametrize(
    ("use_cpu", "memory", "levels"),
    [("true", GIB, []), ("true", GIB // 2, ["error"]), ("false", GIB // 2, ["warning"])],
)
def test_what_does_not_fit_a_cpu_is_refused_where_no_card_can_be_meant(use_cpu, memory, levels, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "find_device", lambda recipe: replace(HOST, memory=memory))
    changes = {"use_cpu": use_cpu, "output_dir": str(tmp_path / "o"), "gen_kwargs": "{num_rows: 64, num_steps: 5}"}
    [checked] = check.check([load_recipe(TINY / "1_sft.yaml", changes)], offline=True)
    assert [problem.level for problem in checked.problems if problem.code == "does_not_fit"] == levels
    assert checked.memory.fits is not bool(levels)


def test_the_cost_on_a_cpu_is_of_its_own_pace(recipe_of, monkeypatch):
    facts = {"optimizer_steps": 100, "rows_a_step": 16, "mean_length": 500}
    made, card = (plan(setup_of(recipe_of(SFT), {}, **device)) for device in ({"device": CPU}, {}))
    assert memory.host_rate(made.setup) > 0
    monkeypatch.setattr(memory, "host_rate", lambda setup: 50)
    assert "4.4 hours at 50 tokens a second" in cost_line(recipe_of(SFT), facts, None, made)
    assert "at 1000 tokens" in cost_line(recipe_of(SFT), facts, None, card)
    assert "at 2000 tokens" in cost_line(recipe_of(SFT), facts, 2000, made)
