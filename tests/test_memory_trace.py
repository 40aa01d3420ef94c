"""The traced memory of a training step against real CPU allocations, its parts against real models, and what it refuses."""

import contextlib

import pytest

torch = pytest.importorskip("torch")

from reasoning_ext.memory.trace import (  # noqa: E402
    FORWARD_BACKWARD,
    LOG_PROBABILITIES,
    OPTIMIZER_STEP,
    MemoryTraceError,
    Workload,
    trace_training,
)
from reasoning_ext.memory.traced_trainer import build_trainer  # noqa: E402

SHAPE = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 768, "vocab_size": 4096, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
CONFIGS = {
    "llama": {"model_type": "llama", **SHAPE},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, **SHAPE},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "sliding_window": 128,
        **SHAPE,
        "tie_word_embeddings": True,
    },
}
LORA = {"dtype": "bfloat16", "use_peft": True, "lora_r": 8, "lora_target_modules": ["all-linear"]}
FULL = {"dtype": "float32"}
WORK = Workload(rows=4, prompt_tokens=32, completion_tokens=224)


def storages(tensors):
    """Bytes of the distinct storages of tensors, each rounded up to 512."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(-(-size // 512) * 512 for size in sizes.values())


def really_allocated(stage, config, load, training, folder):
    """Train two steps on the CPU; the most that PyTorch's allocator held by its own events, and the trainer."""
    from torch.profiler import ProfilerActivity, profile

    accumulation = training.get("gradient_accumulation_steps", 1)
    trainer = build_trainer(stage, config, load, training, WORK, str(folder), steps=2, accumulation=accumulation)
    models = [m for m in (trainer.model, getattr(trainer, "ref_model", None)) if m is not None]
    now = peak = sum(storages([*m.parameters(), *m.buffers()]) for m in models)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.train()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert len(events) > 1000
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak, trainer


STEPS = [
    ("sft", "llama", LORA, {}),
    ("sft", "qwen3", LORA, {"gradient_checkpointing": False}),
    ("sft", "gemma3", FULL, {"gradient_checkpointing": False, "bf16": False}),
    ("sft", "llama", FULL, {"optim": "adamw_torch", "gradient_accumulation_steps": 2}),
    ("grpo", "qwen3", LORA, {"beta": 0.1, "gradient_checkpointing": False}),
    ("grpo", "gemma3", LORA, {"num_iterations": 2}),
    ("grpo", "llama", FULL, {"beta": 0.1, "bf16": False}),
    ("dpo", "llama", FULL, {}),
    ("dpo", "qwen3", LORA, {"gradient_checkpointing": False, "bf16": False}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name", "load", "training"), STEPS)
def test_the_trace_is_what_a_cpu_really_allocates(stage, name, load, training, tmp_path):
    trace = trace_training(stage, CONFIGS[name], load, training, WORK, kernels="cpu")
    peak, trainer = really_allocated(stage, CONFIGS[name], load, training, tmp_path)
    assert trace.peak == pytest.approx(peak, rel=0.01)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    state = [x for s in trainer.optimizer.state.values() for x in s.values() if isinstance(x, torch.Tensor)]
    assert trace.parts["optimizer"] == storages(state)
    assert trace.parts["gradients"] == storages(trained)
    everything = storages([*trainer.model.parameters(), *trainer.model.buffers()])
    assert trace.parts["weights"] + trace.parts.get("adapter", 0) == everything
    assert ("reference" in trace.parts) == ((stage == "dpo" or training.get("beta") is not None) and load is FULL)
    scored = stage == "grpo" and ("beta" in training or "num_iterations" in training)
    assert (LOG_PROBABILITIES in trace.phases) == scored
    assert trace.peak_phase == FORWARD_BACKWARD and trace.phases[OPTIMIZER_STEP] < trace.peak


def test_gradients_stay_with_gradient_accumulation():
    once, twice = (
        trace_training("sft", CONFIGS["llama"], FULL, {"gradient_accumulation_steps": n}, WORK) for n in (1, 2)
    )
    assert once.at_peak[FORWARD_BACKWARD]["gradients"] == 0
    assert twice.at_peak[FORWARD_BACKWARD]["gradients"] == twice.parts["gradients"]
    assert twice.peak > once.peak


def test_quantised_weights_and_their_constants():
    """bitsandbytes: a scale for 64 weights, in 8 bits with a second one for 256 of them, a table of codes for each layer."""

    def blocks(*sizes):
        return sum(-(-int(size) // 512) * 512 for size in sizes)

    layers = 4 * [256 * 256, 256 * 256, 256 * 64, 256 * 64, 256 * 768, 256 * 768, 256 * 768]
    rest = 2 * 2 * 4096 * 256 + 9 * 512
    nested, plain, eight = (
        trace_training("sft", CONFIGS["llama"], LORA | values, {}, WORK).parts["weights"]
        for values in (
            {"load_in_4bit": True, "use_bnb_nested_quant": True},
            {"load_in_4bit": True},
            {"load_in_8bit": True},
        )
    )
    rotary = 1024
    assert nested == sum(blocks(n / 2, n / 64, n / 4096, 64, 1024, 4) for n in layers) + rest + rotary
    assert plain == sum(blocks(n / 2, n / 16, 64) for n in layers) + rest + rotary
    rows = 4 * [256, 256, 64, 64, 768, 768, 256]
    assert eight == sum(blocks(n, 4 * r) for n, r in zip(layers, rows, strict=True)) + rest + rotary


@pytest.mark.parametrize(
    ("optimizer", "bytes_a_weight"),
    [
        ("adamw_8bit", 2 + 8 / 256),
        ("paged_adamw_8bit", 8 / 256),
        ("adamw_torch", 8),
        ("lion_8bit", 1 + 4 / 256),
        ("sgd", 0),
    ],
)
def test_the_state_of_every_optimizer(optimizer, bytes_a_weight):
    """Norms are smaller than bitsandbytes pages or quantises; embeddings keep 32 bits; paged states are not counted."""
    load = {"dtype": "float32", "use_peft": True, "lora_r": 1024, "lora_target_modules": ["up_proj", "down_proj"]}
    trace = trace_training("sft", CONFIGS["llama"], load, {"optim": optimizer}, WORK)
    weights = 4 * 2 * 1024 * (256 + 768)
    assert trace.parts["optimizer"] == pytest.approx(bytes_a_weight * weights, rel=0.01, abs=20_000)


def test_a_card_writes_no_scores_out_and_keeps_masks_as_bytes():
    long = Workload(rows=1, prompt_tokens=0, completion_tokens=8192)
    plain = trace_training("sft", CONFIGS["qwen3"], LORA | {"lora_dropout": 0.0}, {}, long)
    scores = 2 * 8 * 8192 * 8192
    assert plain.at_peak[FORWARD_BACKWARD]["activations"] < scores
    eager = LORA | {"lora_dropout": 0.0, "attn_implementation": "eager"}
    assert trace_training("sft", CONFIGS["qwen3"], eager, {}, long).peak > plain.peak + scores
    padded = Workload(1, 0, 8192, padded=True)
    assert trace_training("sft", CONFIGS["qwen3"], LORA | {"lora_dropout": 0.0}, {}, padded).peak > plain.peak + 8192**2


def test_a_trace_leaves_the_process_as_it_was():
    import os

    from accelerate.state import PartialState

    PartialState(cpu=True)
    before, environment, rng = dict(PartialState._shared_state), dict(os.environ), torch.get_rng_state()
    first, second = (trace_training("grpo", CONFIGS["llama"], LORA, {}, WORK) for _ in range(2))
    assert (first.peak, first.parts, first.phases) == (second.peak, second.parts, second.phases)
    assert before and PartialState._shared_state == before and dict(os.environ) == environment
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize(
    ("key", "config", "load", "training"),
    [
        ("model_name_or_path", {"model_type": "nothing"}, LORA, {}),
        ("model_name_or_path", CONFIGS["llama"] | {"num_attention_heads": 0}, LORA, {}),
        ("optim", CONFIGS["llama"], LORA, {"optim": "galore_adamw"}),
        ("packing", CONFIGS["llama"], LORA, {"packing": True}),
        ("attn_implementation", CONFIGS["llama"], LORA | {"attn_implementation": "flex_attention"}, {}),
        ("use_peft", CONFIGS["llama"], {"load_in_4bit": True}, {}),
        ("stage", CONFIGS["llama"], LORA | {"lora_target_modules": ["nothing"]}, {}),
    ],
)
def test_what_cannot_be_traced_is_one_line_that_names_the_key(key, config, load, training):
    with pytest.raises(MemoryTraceError) as caught:
        trace_training("sft", config, load, training, WORK)
    assert caught.value.key == key and "\n" not in str(caught.value)


@pytest.mark.parametrize("fake", [False, True])
def test_storages_are_counted_once_and_until_they_are_freed(fake):
    from torch._subclasses.fake_tensor import FakeTensorMode

    from reasoning_ext.memory.live_storages import LiveStorages

    with FakeTensorMode() if fake else contextlib.nullcontext(), LiveStorages() as live:
        live.enter("one")
        a = torch.zeros(1000)
        view = a[10:].view(-1, 2).t()
        assert live.now == 4096
        assert live.name([view], "kept") == 4096 and live.name([a], "again") == 0
        b = a + 1
        assert live.at_peak["one"] == {"activations": 4096, "kept": 4096}
        del b, a
        assert live.now == 4096
        live.enter("two")
        del view
        assert live.now == 0 and live.peaks == {"one": 8192, "two": 4096}


@pytest.mark.slow
def test_an_8b_shape_is_traced():
    shape = {
        "model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936,
        "max_position_embeddings": 40960, "tie_word_embeddings": False,
    }  # fmt: skip
    load = LORA | {"lora_r": 32, "load_in_4bit": True, "use_bnb_nested_quant": True}
    trace = trace_training("sft", shape, load, {}, Workload(8, 0, 4096))
    assert trace.parts["weights"] == pytest.approx(6.07e9, rel=0.003)  # the formula of bitsandbytes' constants
    assert trace.parts["adapter"] == pytest.approx(2 * 87_293_952, rel=0.001)  # r (in + out), in bfloat16
