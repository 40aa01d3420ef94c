"""Sizes from a config against the real modules: transformers' models, PEFT's adapters, bitsandbytes' weights and optimizers."""

import json

import pytest

from reasoning_ext.check.memory import parts
from reasoning_ext.check.memory.shapes import ShapeError, built_in, config_of, shape_of

PUBLISHED = {  # parameters in billions, from the models' cards
    "qwen2.5-0.5b": 0.49, "qwen2.5-1.5b": 1.54, "qwen2.5-3b": 3.09, "qwen2.5-7b": 7.61, "qwen2.5-14b": 14.7,
    "qwen3-4b": 4.0, "qwen3-8b": 8.2, "qwen3-14b": 14.8, "llama-3.1-8b": 8.03, "llama-3.2-1b": 1.24, "llama-3.2-3b": 3.21,
    "phi-4": 14.7, "mistral-7b-v0.3": 7.25, "gemma-3-270m": 0.27, "gemma-3-4b": 4.3, "gemma-3-12b": 12.2,
}  # fmt: skip
QWEN = config_of("Qwen/Qwen3-0.6B")


def on_meta(config):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_parameters_are_the_published_ones(name):
    assert shape_of(built_in()[name]).parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("name", ("microsoft/Phi-4-mini", "google/gemma-3-4b", "Qwen/Qwen3-0.6B"))
@pytest.mark.parametrize("targets", ("all-linear", None, ["q_proj", "v_proj"], r".*\.(q|qkv)_proj"))
def test_an_adapter_has_the_tensors_of_a_real_one(name, targets):
    from peft import LoraConfig, get_peft_model

    shape = shape_of(config_of(name))
    if shape.model_type in {None: ("phi3", "gemma3"), str: (), list: ("phi3",)}[targets and type(targets)]:
        assert parts.adapter_tensors(shape, 8, targets) == []  # PEFT refuses these
        return
    config = LoraConfig(r=8, target_modules=targets, task_type="CAUSAL_LM")
    real = get_peft_model(on_meta(config_of(name)), config)
    sizes = sorted(p.numel() for p in real.parameters() if p.requires_grad)
    assert sorted(parts.adapter_tensors(shape, 8, targets)) == sizes and sizes


@pytest.mark.parametrize("nested", (False, True))
def test_four_bit_weights_are_those_of_bitsandbytes(nested):
    import bitsandbytes as bnb
    import torch

    for outputs, inputs in ((96, 64), (300, 1000), (2048, 1024)):
        weight = bnb.nn.Params4bit(torch.randn(outputs, inputs), compress_statistics=nested, quant_type="nf4")
        layer = bnb.nn.Linear4bit(inputs, outputs, bias=False, compress_statistics=nested, quant_type="nf4")
        layer.weight = weight
        state = layer.to("cpu").weight.quant_state
        held = [layer.weight.data, state.absmax, state.code]
        held += [state.offset, state.state2.absmax, state.state2.code] if nested else []
        real = sum(t.numel() * t.element_size() for t in held)
        assert parts.four_bit_bytes(outputs * inputs, nested) == pytest.approx(real, rel=0.001, abs=8)


def test_the_published_totals_of_four_bit_models():
    """Llama-3.1-8B 5.70 GB, Qwen3-8B 6.07 GB with nested constants: the formula of QLoRA's paper (arXiv:2305.14314)."""
    for name, total in (("meta-llama/Llama-3.1-8B", 5.70e9), ("Qwen/Qwen3-8B", 6.07e9)):
        shape = shape_of(config_of(name))
        assert parts.linear_bytes(shape, 4, nested=True) + parts.rest_bytes(shape, "bfloat16") == pytest.approx(
            total, rel=0.01
        )
        assert sum(parts.model_tensors(shape)) == pytest.approx(shape.parameters, rel=1e-5)


@pytest.mark.parametrize("optimizer", ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop"))
def test_optimizer_states_are_those_of_a_real_optimizer(optimizer, tmp_path):
    import torch
    from transformers import Trainer, TrainingArguments

    model = torch.nn.Sequential(torch.nn.Linear(64, 80), torch.nn.Linear(80, 3))
    arguments = TrainingArguments(str(tmp_path), optim=optimizer, use_cpu=True, report_to=[])
    cls, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    real = cls(model.parameters(), **options)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    real.step()
    states = [t for state in real.state.values() for t in state.values() if torch.is_tensor(t) and t.numel() > 1]
    tensors = [p.numel() for p in model.parameters()]
    assert parts.state_bytes(tensors, optimizer, "float32") == sum(t.numel() * t.element_size() for t in states)


def test_eight_bit_states_are_those_of_bitsandbytes():
    import bitsandbytes as bnb
    import torch

    parameters = [torch.nn.Parameter(torch.randn(n)) for n in (64, 4095, 4096, 100_000)]
    real = bnb.optim.AdamW8bit(parameters, lr=1e-3)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
        real.init_state(real.param_groups[0], parameter, 0, 0)
    kept = ("state1", "state2", "absmax1", "absmax2")
    held = [state[key] for state in real.state.values() for key in kept if key in state]
    expected = sum(t.numel() * t.element_size() for t in held)
    assert parts.state_bytes([p.numel() for p in parameters], "adamw_8bit", "float32") == expected


def test_a_cache_holds_both_keys_and_values_and_no_more_than_a_window():
    qwen = shape_of(config_of("Qwen/Qwen3-8B"))
    assert parts.cache_bytes(qwen, 1, 1) == 144 * 1024
    gemma = shape_of(config_of("google/gemma-3-1b"))
    full = [window for window in gemma.windows if window is None]
    assert len(full) == 4 and parts.cache_bytes(gemma, 2, 4096) == 2 * 2 * 256 * 2 * (4 * 4096 + 22 * 512)


def test_copies_of_a_model_have_its_shape():
    for name, same in (
        ("unsloth/Qwen3-8B-Base-unsloth-bnb-4bit", "Qwen/Qwen3-8B"), ("google/gemma-3-4b-it", "google/gemma-3-4b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.3"), ("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "meta-llama/Llama-3.1-8B"),
    ):  # fmt: skip
        assert config_of(name) == config_of(same)


def test_a_local_config_is_read_and_holes_are_filled_as_transformers_does(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN | {"num_hidden_layers": 2}))
    assert shape_of(config_of(str(tmp_path))).layers == 2
    full = config_of("google/gemma-3-4b")
    left_out = ("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
    text = {key: value for key, value in full["text_config"].items() if key not in left_out}
    assert shape_of(full | {"text_config": text}) == shape_of(full)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mamba"}, [], QWEN | {"hidden_size": "many"}, QWEN | {"num_attention_heads": 0},
        QWEN | {"num_hidden_layers": 10**9, "layer_types": None},
    ],
)  # fmt: skip
def test_what_no_model_can_be_built_from_is_refused_at_once(config):
    with pytest.raises(ShapeError) as error:
        shape_of(config)
    assert error.value.key == "model_name_or_path" and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nobody/nothing", "a b", "empty", "torn"])
def test_a_config_that_cannot_be_had_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{")
    with pytest.raises(ShapeError, match=name):
        config_of(name)
