"""The tracer under benchmarks/ still runs on the installed TRL, and says what a CPU really allocates."""

import sys

import pytest
from conftest import ROOT

torch = pytest.importorskip("torch")
sys.path.insert(0, str(ROOT / "benchmarks"))

from memory_trace.trace import FORWARD_BACKWARD, MemoryTraceError, Workload, trace_training  # noqa: E402
from memory_trace.traced_trainer import build_trainer  # noqa: E402

CONFIG = {
    "model_type": "qwen3", "head_dim": 32, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "intermediate_size": 768, "vocab_size": 4096, "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}  # fmt: skip
LORA = {"dtype": "bfloat16", "use_peft": True, "lora_r": 8, "lora_target_modules": ["all-linear"]}
WORK = Workload(rows=4, prompt_tokens=32, completion_tokens=224)


def storages(tensors):
    """Bytes of the distinct storages of tensors, each rounded up to 512."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(-(-size // 512) * 512 for size in sizes.values())


def really_allocated(stage, load, training, folder):
    """Train two steps on the CPU; return the most that PyTorch's allocator held, by its own events."""
    from torch.profiler import ProfilerActivity, profile

    trainer = build_trainer(stage, CONFIG, load, training, WORK, str(folder), steps=2)
    models = [m for m in (trainer.model, getattr(trainer, "ref_model", None)) if m is not None]
    now = peak = sum(storages([*m.parameters(), *m.buffers()]) for m in models)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.train()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "load", "training"),
    [("grpo", LORA, {"beta": 0.1}), ("dpo", {"dtype": "float32"}, {"bf16": False, "gradient_checkpointing": False})],
)
def test_the_trace_is_what_a_cpu_really_allocates(stage, load, training, tmp_path):
    trace = trace_training(stage, CONFIG, load, training, WORK, kernels="cpu")
    assert trace.peak == pytest.approx(really_allocated(stage, load, training, tmp_path), rel=0.01)
    assert trace.peak_phase == FORWARD_BACKWARD


def test_four_bit_weights_on_a_card_are_traced_with_their_constants_and_other_keys_refused():
    load = LORA | {"load_in_4bit": True, "use_bnb_nested_quant": True}
    trace = trace_training("sft", CONFIG, load, {"optim": "adamw_8bit"}, WORK)
    linear = 4 * (2 * 256 * 256 + 2 * 256 * 64 + 3 * 256 * 768)
    assert trace.parts["weights"] == pytest.approx(linear * 0.516 + 2 * 2 * 4096 * 256, rel=0.02)
    for key, load, training in (
        ("optim", LORA, {"optim": "galore_adamw"}), ("packing", LORA, {"packing": True}),
        ("use_peft", {"load_in_4bit": True}, {}), ("stage", LORA | {"lora_target_modules": ["nothing"]}, {}),
    ):  # fmt: skip
        with pytest.raises(MemoryTraceError) as caught:
            trace_training("sft", CONFIG, load, training, WORK)
        assert caught.value.key == key
