"""The engine `vllm`: its arguments and what it refuses everywhere, and vLLM itself where it is installed, on CPUs too."""

import importlib.util
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext.engines.options import VllmOptions
from reasoning_ext.engines.source import ModelSource
from reasoning_ext.engines.vllm_engine import llm_arguments, refuse, sampling_arguments, stop_ids
from reasoning_ext.generation import EngineError, SamplingSettings, key_seed
from reasoning_ext.loaded import LoadOptions

PROMPTS = [
    [{"role": "user", "content": f"{i * 7919 % 100000}+{i * 104729 % 99991}=? {'and so on ' * (i % 3)}"}]
    for i in range(24)
]
KEYS = [(prompt, sample) for prompt in range(24) for sample in range(3)]
SAMPLED = SamplingSettings(max_completion_length=40, seed=3)
GREEDY = SamplingSettings(max_completion_length=40, temperature=0.0)


def source(name="model", values=None, **options):
    return ModelSource(str(name), values or {}, LoadOptions(trainable=False, **options), use_cpu=True)


def adapter(folder, **config):
    folder.mkdir(exist_ok=True)
    written = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 4, "lora_alpha": 8} | config
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder


@pytest.mark.parametrize(
    ("values", "options", "wanted"),
    [
        ({}, {}, {"model": "model", "dtype": "float32", "enable_prefix_caching": True, "max_num_seqs": 256}),
        ({"dtype": "bfloat16"}, {}, {"dtype": "bfloat16"}),
        ({"load_in_4bit": True}, {}, {"quantization": "bitsandbytes"}),
        ({"model_revision": "v2"}, {}, {"revision": "v2"}),
        ({"vllm_gpu_memory_utilization": 0.8}, {}, {"gpu_memory_utilization": 0.8}),
        (
            {"vllm_max_model_length": 99, "vllm_tensor_parallel_size": 2},
            {},
            {"max_model_len": 99, "tensor_parallel_size": 2},
        ),
        ({"vllm_model_impl": "transformers"}, {}, {"model_impl": "transformers"}),
        (
            {},
            {"max_num_seqs": 7, "enforce_eager": True, "kv_cache_dtype": "fp8"},
            {"max_num_seqs": 7, "enforce_eager": True},
        ),
        ({}, {"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "fp8"}),
        ({}, {"engine_args": {"enable_prefix_caching": False, "block_size": 32}}, {"enable_prefix_caching": False}),
    ],
)
def test_a_recipes_keys_become_vllms_arguments(values, options, wanted):
    arguments = llm_arguments(source(values=values), VllmOptions(**options))
    assert {name: arguments[name] for name in wanted} == wanted


def test_what_a_recipe_leaves_out_is_vllms_own_default():
    arguments = llm_arguments(source(), VllmOptions())
    assert {"gpu_memory_utilization", "max_model_len", "quantization", "enable_lora"}.isdisjoint(arguments)


@pytest.mark.parametrize(
    ("config", "room"), [({}, 8), ({"r": 16}, 16), ({"r": 17}, 32), ({"rank_pattern": {"q_proj": 100}}, 128)]
)
def test_an_adapter_is_served_on_its_base_with_room_for_its_rank(tmp_path, config, room):
    arguments = llm_arguments(source(adapter(tmp_path / "run", **config)), VllmOptions())
    assert arguments["model"] == "base"
    assert arguments["enable_lora"] and arguments["max_lora_rank"] == room


@pytest.mark.parametrize(
    ("values", "options", "key", "words"),
    [
        ({}, {"from_scratch": True}, "from_scratch", "engine: transformers"),
        ({"load_in_8bit": True}, {}, "load_in_8bit", "load_in_4bit"),
        ({}, {"init_kwargs": {"use_safetensors": True}}, "model_init_kwargs", "found use_safetensors"),
    ],
)
def test_what_vllm_would_leave_out_is_refused(values, options, key, words):
    with pytest.raises(EngineError, match=words) as error:
        refuse(source(values=values, **options))
    assert error.value.key == key and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config", [{"modules_to_save": ["lm_head"]}, {"trainable_token_indices": {"embed_tokens": [7]}}, {"use_dora": True}]
)
def test_an_adapter_that_is_more_than_a_lora_is_refused_and_export_named(tmp_path, config):
    folder = adapter(tmp_path / "run", **config)
    with pytest.raises(EngineError, match=f"reasoning-ext export {folder}") as error:
        refuse(source(folder))
    assert error.value.key == "model_name_or_path" and next(iter(config)) in str(error.value)


def test_an_adapter_on_an_adapter_is_refused(tmp_path):
    base = adapter(tmp_path / "first")
    with pytest.raises(EngineError, match="is an adapter itself") as error:
        llm_arguments(source(adapter(tmp_path / "second", base_model_name_or_path=str(base))), VllmOptions())
    assert error.value.key == "model_name_or_path"


def test_an_adapter_with_nothing_but_lora_is_not_refused(tmp_path):
    refuse(source(adapter(tmp_path / "run", modules_to_save=None, use_dora=False, trainable_token_indices=[])))


def test_every_key_is_sampled_with_its_own_seed_and_the_recipes_settings():
    settings = SamplingSettings(
        max_completion_length=9, temperature=0.7, top_p=0.9, min_p=0.1, seed=5, generation_kwargs={"min_tokens": 2}
    )
    arguments = sampling_arguments(settings, (3, 1), [5])
    assert arguments["seed"] == key_seed(5, 3, 1) != sampling_arguments(settings, (1, 3), [5])["seed"]
    wanted = {"max_tokens": 9, "temperature": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.1, "stop_token_ids": [5]}
    assert {name: arguments[name] for name in wanted} == wanted
    assert arguments["n"] == 1 and arguments["min_tokens"] == 2 and not arguments["detokenize"]


def test_the_end_of_a_turn_and_the_end_of_a_text_both_stop():
    tokenizer, contract = source(TINY / "model").load_tokenizer()
    assert stop_ids(tokenizer, contract) == sorted({tokenizer.eos_token_id, contract.end_id})


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_extra_is_named():
    from reasoning_ext.engines.vllm_engine import VllmEngine

    with pytest.raises(EngineError, match=r"pip install 'reasoning-ext\[vllm\]'") as error:
        VllmEngine(source(TINY / "model"), VllmOptions())
    assert error.value.key == "engine"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random weights of the tiny shape, large enough that no two tokens are nearly as likely, and an adapter on them."""
    pytest.importorskip("vllm")
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(TINY / "model", initializer_range=0.2)
    model, tokenizer = AutoModelForCausalLM.from_config(config), AutoTokenizer.from_pretrained(TINY / "model")
    model.save_pretrained(folder / "full")
    tokenizer.save_pretrained(folder / "full")
    peft_model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    peft_model.peft_config["default"].base_model_name_or_path = str(folder / "full")
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    peft_model.save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")
    return {"full": folder / "full", "adapter": folder / "adapter"}


@pytest.fixture(scope="module", params=["full", "adapter"])
def engines(models, request):
    """(vLLM, transformers) with the same model."""
    from reasoning_ext.engines.transformers_engine import TransformersEngine
    from reasoning_ext.engines.vllm_engine import VllmEngine

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    opened = source(models[request.param], {"vllm_gpu_memory_utilization": 0.3})
    options = VllmOptions(
        max_num_seqs=16, enforce_eager=True, engine_args={"block_size": 32, "disable_log_stats": False}
    )
    vllm = VllmEngine(opened, options)
    yield vllm, TransformersEngine(opened.load(), 16)
    vllm.close()


def answers(engine, keys, settings):
    found = [completion for batch in engine.generate(PROMPTS, keys, settings) for completion in batch]
    assert sorted((c.prompt, c.sample) for c in found) == sorted(keys)
    return {(c.prompt, c.sample): c for c in found}


@pytest.mark.slow
def test_greedy_completions_are_those_of_transformers(engines):
    keys = [(prompt, 0) for prompt in range(24)]
    ours, theirs = (answers(engine, keys, GREEDY) for engine in engines)
    assert (
        sum(ours[key] == theirs[key] for key in keys) >= 22
    )  # ids, text, finished: two sums in float32 may round apart
    assert {c.finished for c in ours.values()} == {True, False}
    for completion in ours.values():
        assert completion.finished == (completion.ids[-1] == 5) and completion.tokens == len(completion.ids)


@pytest.mark.slow
def test_a_key_has_the_same_completion_in_any_order_and_company(engines):
    vllm, _ = engines
    whole = answers(vllm, KEYS, SAMPLED)
    assert len({c.text for c in whole.values()}) > len(KEYS) // 2
    part = answers(vllm, KEYS[::-1][:20], SAMPLED)
    assert {key: part[key].ids for key in part} == {key: whole[key].ids for key in part}
    assert answers(vllm, KEYS[:20], SamplingSettings(max_completion_length=40, seed=4)) != {
        k: whole[k] for k in KEYS[:20]
    }


@pytest.mark.slow
def test_threads_that_generate_at_once_get_their_own_completions(engines):
    vllm, _ = engines
    whole, found = answers(vllm, KEYS, SAMPLED), {}

    def call(part):
        found.update(answers(vllm, part, SAMPLED))

    threads = [threading.Thread(target=call, args=(KEYS[i::3],), daemon=True) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it waits for news that another thread has taken"
    assert {key: c.ids for key, c in found.items()} == {key: c.ids for key, c in whole.items()}


@pytest.mark.slow
def test_what_another_thread_has_brought_is_taken_without_waiting_for_more(engines):
    vllm, _ = engines
    vllm._outputs["this"], found = ["news"], []
    thread = threading.Thread(target=lambda: found.extend(vllm._step("this")), daemon=True)
    thread.start()
    thread.join(10)
    assert found == ["news"]
    del vllm._outputs["this"]


@pytest.mark.slow
def test_completions_come_while_others_are_still_under_way_and_a_stop_leaves_nothing(engines):
    vllm, _ = engines
    batches = vllm.generate(PROMPTS, KEYS, SAMPLED)
    assert 0 < len(next(batches)) < len(KEYS)
    batches.close()
    assert not vllm._engine.has_unfinished_requests()
    assert len(answers(vllm, KEYS[:5], SAMPLED)) == 5


@pytest.mark.slow
def test_a_prompt_is_rendered_when_its_requests_are_added(engines):
    vllm, _ = engines
    looked_at = []

    class Watched(list):
        def __getitem__(self, number):
            looked_at.append(number)
            return super().__getitem__(number)

    keys = [(prompt, sample) for prompt in range(24) for sample in range(8)]
    batches = vllm.generate(Watched(PROMPTS), keys, SAMPLED)
    next(batches)
    assert 0 < len(looked_at) == len(set(looked_at)) < 24
    batches.close()


@pytest.mark.slow
def test_samples_of_a_prompt_share_its_cache(engines):
    vllm, _ = engines
    before = _metric(vllm, "vllm:prefix_cache_hits")
    answers(vllm, [(2, sample) for sample in range(8)], SAMPLED)  # a prompt of more than one block of 32 tokens
    assert _metric(vllm, "vllm:prefix_cache_hits") - before >= 7 * 32


def _metric(engine, name):
    return next(metric.value for metric in engine._engine.get_metrics() if metric.name == name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (SamplingSettings(max_completion_length=1000), "max_completion_length"),
        (SamplingSettings(max_completion_length=9, generation_kwargs={"typical_p": 0.9}), "generation_kwargs"),
    ],
)
def test_what_vllm_refuses_is_one_line_that_names_the_key(engines, settings, key):
    with pytest.raises(EngineError) as error:
        answers(engines[0], KEYS, settings)
    assert error.value.key == key and "\n" not in str(error.value)


@pytest.mark.slow
def test_ctrl_c_reaches_the_stage_and_not_vllms_process(engines):
    [process] = engines[0]._engine.engine_core.resources.engine_manager.processes
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    assert int(status["SigBlk"], 16) & 1 << (signal.SIGINT - 1)


@pytest.mark.slow
def test_a_dead_engine_is_one_line_and_closes(engines):  # the last test, which ends it
    vllm, _ = engines
    batches = vllm.generate(PROMPTS, KEYS, SAMPLED)
    next(batches)
    [process] = vllm._engine.engine_core.resources.engine_manager.processes
    process.kill()
    with pytest.raises(EngineError, match="has died") as error:
        list(batches)
    assert error.value.key == "engine"
    vllm.close()
