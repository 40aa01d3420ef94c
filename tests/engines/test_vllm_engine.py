"""The engine `vllm`: with a stand-in everywhere, and with vLLM itself where it is installed, on CPUs too."""

import importlib.util
import json
import os
import signal
import sys
import types
from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext.engines.base import EngineError, SamplingSettings, key_seed
from reasoning_ext.engines.vllm import CHUNK, VllmEngine, llm_arguments, sampling_arguments
from reasoning_ext.models.loaded import LoadOptions
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.engine_options import VllmOptions
from reasoning_ext.think.template import ContractError
from tests.stand_vllm import install

PROMPTS = [
    [{"role": "user", "content": f"{i * 7919 % 100000}+{i * 104729 % 99991}=? {'and so on ' * (i % 3)}"}]
    for i in range(24)
]
KEYS = [(prompt, sample) for prompt in range(24) for sample in range(3)]
SAMPLED = SamplingSettings(max_completion_length=40, seed=3)
INSTALLED = importlib.util.find_spec("vllm") is not None


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
        ({"dtype": "bfloat16", "load_in_4bit": True}, {}, {"dtype": "bfloat16", "quantization": "bitsandbytes"}),
        ({"model_revision": "v2"}, {}, {"revision": "v2"}),
        (
            {"vllm_gpu_memory_utilization": 0.8, "vllm_max_model_length": 99, "vllm_tensor_parallel_size": 2},
            {"max_num_seqs": 7, "enforce_eager": True, "kv_cache_dtype": "fp8"},
            {
                "gpu_memory_utilization": 0.8,
                "max_model_len": 99,
                "tensor_parallel_size": 2,
                "max_num_seqs": 7,
                "enforce_eager": True,
                "kv_cache_dtype": "fp8",
            },
        ),
        ({}, {"engine_args": {"enable_prefix_caching": False, "block_size": 32}}, {"enable_prefix_caching": False}),
    ],
)
def test_a_recipes_keys_become_vllms_arguments(values, options, wanted):
    arguments = llm_arguments(source(values=values), VllmOptions(**options))
    assert wanted.items() <= arguments.items()
    left_out = {"gpu_memory_utilization", "max_model_len", "quantization", "enable_lora"} - {*wanted}
    assert left_out.isdisjoint(arguments)  # vLLM's own defaults, which are not TRL's


@pytest.mark.parametrize(
    ("config", "room"), [({}, 8), ({"r": 16}, 16), ({"r": 17}, 32), ({"rank_pattern": {"q_proj": 100}}, 128)]
)
def test_an_adapter_is_served_on_its_base_with_room_for_its_rank(tmp_path, config, room):
    arguments = llm_arguments(source(adapter(tmp_path / "run", **config)), VllmOptions())
    assert (arguments["model"], arguments["enable_lora"], arguments["max_lora_rank"]) == ("base", True, room)


@pytest.mark.parametrize(
    "config",
    [{"modules_to_save": ["lm_head"]}, {"trainable_token_indices": {"embed_tokens": [7]}}, {"use_dora": True}, {}],
)
def test_an_adapter_that_is_more_than_a_lora_or_on_another_is_refused(tmp_path, config):
    if not config:
        config = {"base_model_name_or_path": str(adapter(tmp_path / "first"))}
    with pytest.raises(EngineError) as error:
        llm_arguments(source(adapter(tmp_path / "run", **config)), VllmOptions())
    assert error.value.key == "model_name_or_path"


def test_every_key_is_sampled_with_its_own_seed_and_the_recipes_settings():
    settings = SamplingSettings(
        max_completion_length=9, temperature=0.7, top_p=0.9, min_p=0.1, seed=5, generation_kwargs={"min_tokens": 2}
    )
    arguments = sampling_arguments(settings, (3, 1), [5])
    assert arguments["seed"] == key_seed(5, 3, 1) != sampling_arguments(settings, (1, 3), [5])["seed"]
    wanted = {"max_tokens": 9, "temperature": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.1, "stop_token_ids": [5],
              "n": 1, "min_tokens": 2, "detokenize": False}  # fmt: skip
    assert wanted.items() <= arguments.items()


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_without_vllm_the_extra_is_named():
    with pytest.raises(EngineError, match=r"pip install 'reasoning-ext\[vllm\]'") as error:
        VllmEngine(source(TINY / "model"), VllmOptions())
    assert error.value.key == "engine"


class Params:
    """vLLM's SamplingParams, which refuse what they do not know."""

    def __init__(
        self,
        *,
        n,
        seed,
        temperature,
        top_p,
        top_k,
        min_p,
        repetition_penalty,
        max_tokens,
        stop_token_ids,
        detokenize,
        skip_special_tokens,
        logprobs,
        logit_bias=None,
        stop="",
        include_stop_str_in_output=False,
    ):
        assert detokenize == include_stop_str_in_output == bool(stop)
        self.seed, self.stops, self.texts, self.logprobs, self.most = seed, stop_token_ids, stop, logprobs, max_tokens
        self.bias = logit_bias


class Stand:
    """vLLM's LLM: even seeds end with the first of their stops, odd ones are cut off; the adapter's number comes first."""

    room = 400

    def __init__(self, **arguments):
        self.arguments, self.calls, self.dead, self.loras = arguments, [], False, []
        config = types.SimpleNamespace(max_model_len=self.room)
        self.llm_engine = types.SimpleNamespace(engine_core=None, model_config=config, add_lora=self.loras.append)

    def generate(self, prompts, sampling_params, use_tqdm, lora_request):
        if self.dead:
            raise sys.modules["vllm.v1.engine.exceptions"].EngineDeadError
        self.calls.append([prompt["prompt_token_ids"] for prompt in prompts])
        self.bias = sampling_params[0].bias
        outputs = []
        for params in sampling_params:
            end = params.seed % 2 == 0
            ids = [20 + params.seed % 7, *([params.stops[0]] if end else [21])]
            reason = {"finish_reason": "stop" if end else "length", "stop_reason": params.stops[0] if end else None}
            reason["cumulative_logprob"] = None if params.logprobs is None else -3.0
            if params.texts and not end:
                reason |= {"finish_reason": "stop", "stop_reason": params.texts[0]}
            outputs.append(types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=ids, **reason)]))
        return outputs


@pytest.fixture
def stand_in(monkeypatch):
    """A VllmEngine over `Stand`, and that."""
    install(monkeypatch, Stand, Params, lambda *values: values)
    stands = []
    monkeypatch.setattr(sys.modules["vllm"], "LLM", lambda **kw: stands.append(Stand(**kw)) or stands[-1])
    monkeypatch.setattr("reasoning_ext.engines.vllm.check_weights", lambda *args: None)
    return VllmEngine(source(TINY / "model"), VllmOptions(max_num_seqs=4)), stands[0]


def test_keys_go_out_in_chunks_and_come_back_as_completions(stand_in):
    engine, stand = stand_in
    batches = list(engine.generate(PROMPTS, KEYS[::-1], SAMPLED))
    assert [len(batch) for batch in batches] == [CHUNK * 4] * 4 + [8] == [len(call) for call in stand.calls]
    found = [c for batch in batches for c in batch]
    assert [(c.prompt, c.sample) for c in found] == KEYS  # those of a prompt together, for its cache
    assert stand.calls[0][0] == stand.calls[0][2] != stand.calls[0][3]
    for c in found:
        ended = key_seed(3, c.prompt, c.sample) % 2 == 0
        assert (c.finished, len(c.ids), c.tokens) == (ended, 2, 2)
        assert c.text == engine.tokenizer.decode(c.ids[:1] if ended else c.ids)
    assert list(engine.generate(PROMPTS, [], SAMPLED)) == []


def test_log_probabilities_stops_limits_and_beginnings_reach_vllm(stand_in):
    engine, stand = stand_in
    letter = engine.tokenizer.decode([21])
    settings = SamplingSettings(390, seed=3, logprobs=True, stop=letter, limits=dict.fromkeys(KEYS, 40))
    prompts = [[*prompt, {"role": "assistant", "content": "<think>1"}] for prompt in PROMPTS]
    for c in [c for batch in engine.generate(prompts, KEYS, settings) for c in batch]:
        ended = key_seed(3, c.prompt, c.sample) % 2 == 0
        assert (c.finished, c.logprob, c.tokens) == (ended, -1.5, 2)
        before, found, _ = engine.tokenizer.decode(c.ids[:1] if ended else c.ids).partition(letter)
        assert c.text == "<think>1" + before + found
    assert engine.tokenizer.decode(stand.calls[0][0]).endswith("<think>1") and stand.bias is None
    [close] = engine.tokenizer("</think>", add_special_tokens=False)["input_ids"]
    list(engine.generate(prompts, KEYS[:1], SamplingSettings(1, hold_back=True)))
    assert stand.bias[close] == stand.bias[engine.tokenizer.eos_token_id] == -100.0


def test_what_vllm_refuses_is_one_line_that_names_the_key(stand_in):
    engine, stand = stand_in
    cases = [({"max_completion_length": 400}, "max_completion_length"),
             ({"generation_kwargs": {"typical_p": 0.9}}, "generation_kwargs")]  # fmt: skip
    for changed, key in cases:
        with pytest.raises(EngineError) as error:
            list(engine.generate(PROMPTS, KEYS, SamplingSettings(**{"max_completion_length": 9} | changed)))
        assert error.value.key == key and "\n" not in str(error.value)
    with pytest.raises(ContractError, match="row 1"):
        list(engine.generate([PROMPTS[0], [{"role": "assistant", "content": "7"}]], KEYS[:6], SAMPLED))
    stand.dead = True
    with pytest.raises(EngineError, match="has died") as error:
        list(engine.generate(PROMPTS, KEYS, SAMPLED))
    assert error.value.key == "engine"


def answers(engine, keys, settings):
    found = [completion for batch in engine.generate(PROMPTS, keys, settings) for completion in batch]
    assert sorted((c.prompt, c.sample) for c in found) == sorted(keys)
    return {(c.prompt, c.sample): c for c in found}


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed")
@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_vllm_itself_answers_as_transformers_does_and_its_death_is_one_line(tmp_path, kind):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from reasoning_ext.engines.transformers import TransformersEngine

    torch.manual_seed(0)  # weights so large that no two tokens are nearly as likely
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY / "model", initializer_range=0.2))
    model.save_pretrained(tmp_path / "full")
    if kind == "adapter":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        model.peft_config["default"].base_model_name_or_path = str(tmp_path / "full")
        model.save_pretrained(tmp_path / kind)
    for folder in tmp_path.iterdir():
        AutoTokenizer.from_pretrained(TINY / "model").save_pretrained(folder)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    opened = source(tmp_path / kind, {"vllm_gpu_memory_utilization": 0.3})
    engine = VllmEngine(opened, VllmOptions(max_num_seqs=16, enforce_eager=True, engine_args={"block_size": 32}))
    keys = [(prompt, 0) for prompt in range(24)]
    greedy = SamplingSettings(max_completion_length=40, temperature=0.0)
    ours, theirs = answers(engine, keys, greedy), answers(TransformersEngine(opened.load(), 16), keys, greedy)
    assert sum(ours[key] == theirs[key] for key in keys) >= 22  # two sums in float32 may round apart
    whole, part = answers(engine, KEYS, SAMPLED), answers(engine, KEYS[::-1][:20], SAMPLED)
    assert len({c.text for c in whole.values()}) > len(KEYS) // 2
    assert all(part[key].ids == whole[key].ids for key in part)
    [process] = engine._llm.llm_engine.engine_core.resources.engine_manager.processes
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    assert int(status["SigBlk"], 16) & 1 << (signal.SIGINT - 1)  # Ctrl-C reaches the stage and not vLLM's process
    process.kill()
    with pytest.raises(EngineError, match="has died"):
        answers(engine, KEYS, SAMPLED)
    engine.close()
