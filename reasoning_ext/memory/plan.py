"""The memory plan: what a recipe will need on the card, part by part and phase by phase, from formulas; torch is not imported.

Three phases: `generation` (GRPO, sample, eval), `log-probabilities` (GRPO, where TRL scores completions before it trains), and
`training` (SFT, GRPO; forward, backward and the optimizer's step). A phase's parts are what is alive at its own peak, so that
they add up to what PyTorch's allocator reports as `max_memory_allocated`. What the driver takes, and what the allocator cannot
use between its blocks, comes on top where a plan is held against a card.

Not in a plan: several GPUs, image inputs, kernels' own workspaces (some 10 MB), and what Unsloth's patched forwards do beyond
`activations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reasoning_ext.memory.activations import generation_bytes, scoring_bytes, training_bytes
from reasoning_ext.memory.parts import (
    BYTES,
    adapter_tensors,
    cache_bytes,
    linear_bytes,
    model_tensors,
    rest_bytes,
    saved_tensors,
    state_bytes,
)
from reasoning_ext.memory.setup import Setup

GIB = 2**30
CONTEXT = int(0.9 * GIB)  # CUDA context and libraries; 0.6 to 1.4 were seen
FRAGMENTED = 0.05  # of the allocated bytes; 3 to 10 % were seen
USABLE = 0.98  # of a card's nominal memory
NEW_ADAPTER = "all-linear"


@dataclass(frozen=True)
class Plan:
    """What a run needs on the card.

    Attributes:
        setup: what it was planned for.
        phases: `{phase: {part: bytes}}`.
        engine_lacks: bytes that vLLM's share lacks to hold its weights and one sequence of full length.
    """

    setup: Setup
    phases: dict[str, dict[str, int]]
    engine_lacks: int = 0

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        """The bytes that the largest phase allocates."""
        return sum(self.phases[self.peak_phase].values())

    @property
    def needed(self) -> int:
        """The bytes that a card must have: the peak, what lies between its blocks, and the driver's."""
        return needed(self.peak, self.phases[self.peak_phase].get("vLLM", 0))

    def fits(self, card: int) -> bool:
        """Tell whether it fits a card of so many bytes."""
        return self.needed <= card * USABLE and not self.engine_lacks


@dataclass(frozen=True)
class Edit:
    """A change of a recipe: what to write, and what the plan needs then."""

    text: str
    plan: Plan
    saved: int


def needed(peak: int, pool: int = 0) -> int:
    """Return the bytes that a card must have for so many allocated ones; `pool` of them are vLLM's, which divides them itself."""
    return round((peak - pool) * (1 + FRAGMENTED)) + pool + CONTEXT


def plan(setup: Setup, card: int | None = None) -> Plan:
    """Plan a run.

    Args:
        setup: what is put on the card.
        card: the card's memory in bytes, which vLLM takes its share of; None: 48 GiB.

    Returns:
        the plan, its parts in bytes.
    """
    base = weight_parts(setup)
    engine = round((setup.vllm or 0.0) * (card or 48 * GIB))
    lacks = max(0, engine_bytes(setup) - engine) if engine else 0
    if engine and setup.backend == "unsloth":  # its vLLM computes with the trainer's own weights
        engine = max(0, engine - sum(size for part, size in base.items() if "LoRA" not in part))
    resident = {} if setup.sleeps or not engine else {"vLLM": engine}
    phases: dict[str, dict[str, int]] = {}
    kept = dict(base)
    if setup.trains:
        tensors, saved = trained_tensors(setup), saved_tensors(setup.shape, setup.saved)
        states = state_bytes(tensors, setup.optimizer, setup.trained) + state_bytes(saved, setup.optimizer, setup.dtype)
        gradients = sum(tensors) * BYTES[setup.trained] + sum(saved) * BYTES[setup.dtype]
        kept = base | {"optimizer states": states}
        phases["training"] = kept | resident | training_bytes(setup, gradients)
        if setup.rows and setup.accumulation > setup.generated // setup.rows > 0:  # generated in the middle of a step
            kept = kept | {"gradients": gradients}
        if setup.old_logps:
            phases["log-probabilities"] = kept | resident | scoring_bytes(setup)
    if setup.generated:
        if engine:
            phases["generation"] = (kept if setup.trains else base) | {"vLLM": engine}
        else:
            keys = cache_bytes(setup.shape, setup.generated, setup.tokens, BYTES[setup.dtype])
            phases["generation"] = kept | {"KV cache": keys} | generation_bytes(setup)
    return Plan(setup, {name: {part: n for part, n in parts.items() if n} for name, parts in phases.items()}, lacks)


def engine_bytes(setup: Setup) -> int:
    """Return the least that vLLM must have: its weights, which TRL has it load in 16 bits, and one sequence of full length."""
    low = setup.backend == "unsloth" and setup.bits in (4, 8)
    weights = linear_bytes(setup.shape, setup.bits if low else 16, setup.nested) + rest_bytes(setup.shape, "bfloat16")
    return weights + cache_bytes(setup.shape, 1, setup.tokens)


def weight_parts(setup: Setup) -> dict[str, int]:
    """Return what is loaded and stays: the weights, the adapter, the reference, in bytes."""
    low = setup.bits in (4, 8)
    parts = {
        f"weights in {setup.bits} bits": linear_bytes(setup.shape, setup.bits, setup.nested),
        "embeddings, head, norms" if low else "embeddings and norms": rest_bytes(setup.shape, setup.dtype),
    }
    if setup.rank:
        adapter = sum(adapter_tensors(setup.shape, setup.rank, setup.targets, setup.dora))
        parts["LoRA weights"] = adapter * BYTES[setup.trained]
        if setup.reference == "adapter":
            parts["reference adapter"] = adapter * BYTES[setup.trained]
    if setup.saved:
        parts["modules_to_save"] = sum(saved_tensors(setup.shape, setup.saved)) * BYTES[setup.dtype]
    if setup.reference == "model":
        parts["reference model"] = setup.shape.parameters * BYTES[setup.dtype]
    return parts


def trained_tensors(setup: Setup) -> list[int]:
    """Return the elements of each tensor that is trained."""
    if setup.rank:
        return adapter_tensors(setup.shape, setup.rank, setup.targets, setup.dora)
    return model_tensors(setup.shape)


def edits(first: Plan, card: int) -> list[Edit]:
    """Return the changes that make a plan fit a card, the cheapest first, each on top of the ones before it.

    Args:
        first: a plan that does not fit.
        card: the card's memory in bytes.

    Returns:
        the changes that save something, until it fits; where the last one's plan does not fit either, nothing here helps.
    """
    current, groups = first, []
    for _ in range(30):
        if current.fits(card):
            break
        steps = ((group, plan(changed, card)) for group, changed in _changes(current.setup, card))
        group, after = next(((g, p) for g, p in steps if current.peak - p.peak > 0.01 * current.peak), ("", current))
        if not group:
            break
        current = after
        groups.append(group)
    return _listed(first, current.setup, list(dict.fromkeys(groups)), card)


def _listed(first: Plan, last: Setup, groups: list[str], card: int) -> list[Edit]:
    """Return one edit a group of keys, with the values that they have in the end."""
    done, before = [], first
    for group in groups:
        fields = (*GROUPS[group], *ALONG.get(group, ()))
        after = plan(replace(before.setup, **{name: getattr(last, name) for name in fields}), card)
        changed = [name for name in GROUPS[group] if getattr(last, name) != getattr(first.setup, name)]
        if last.steps and "generated" in changed:
            changed.remove("generated")  # follows from steps_per_generation
        text = " and ".join(f"{_key(name, last)}: {_value(name, last)}" for name in changed)
        done.append(Edit(text, after, before.peak - after.peak))
        before = after
    return done


# Fields of a setup that are changed together, and those that follow from them.
GROUPS = {
    "nesting": ("nested",), "sleep": ("sleeps",), "checkpointing": ("checkpointing",), "optimizer": ("optimizer",),
    "batches": ("generated", "rows", "accumulation", "steps"), "engine": ("vllm",), "backend": ("backend",),
    "bits": ("bits",), "adapter": ("rank", "targets"), "length": ("completion",),
}  # fmt: skip
ALONG = {
    "backend": ("trained", "fused", "nested"),
    "bits": ("trained", "nested"),
    "adapter": ("trained", "reference", "dtype", "bits"),
}
KEYS = {
    "nested": "use_bnb_nested_quant", "sleeps": "vllm_enable_sleep_mode", "checkpointing": "gradient_checkpointing",
    "optimizer": "optim", "rows": "per_device_train_batch_size", "accumulation": "gradient_accumulation_steps",
    "steps": "steps_per_generation", "vllm": "vllm_gpu_memory_utilization", "backend": "backend", "bits": "load_in_4bit",
    "targets": "lora_target_modules",
}  # fmt: skip


def _key(name: str, setup: Setup) -> str:
    if name == "generated":
        return "generation_batch_size" if setup.stage == "grpo" else "per_device_eval_batch_size"
    if name == "completion":
        return "max_length" if setup.stage == "sft" else "max_completion_length"
    return KEYS.get(name) or ("lora_r" if setup.targets != NEW_ADAPTER else "use_peft: true and lora_r")


def _value(name: str, setup: Setup) -> str:
    value = True if name == "bits" else getattr(setup, name)
    return f"[{value}]" if name == "targets" else str(value).lower() if isinstance(value, bool) else f"{value}"


def _changes(setup: Setup, card: int) -> Iterator[tuple[str, Setup]]:
    """Yield single changes in the order of what they cost: nothing, then time, then precision, then what is learnt."""
    if setup.bits == 4 and not setup.nested:
        yield "nesting", replace(setup, nested=True)
    if setup.vllm and not setup.sleeps:
        yield "sleep", replace(setup, sleeps=True)
    if setup.trains and not setup.checkpointing:
        yield "checkpointing", replace(setup, checkpointing=True)
    if setup.trains and "8bit" not in setup.optimizer:
        yield "optimizer", replace(setup, optimizer="adamw_8bit")
    yield from _batches(setup)
    lower = round((setup.vllm or 0) - 0.1, 2)
    if lower > 0 and lower * card >= engine_bytes(setup):
        yield "engine", replace(setup, vllm=lower)
    if setup.trains and setup.backend == "trl" and setup.rank:
        after = replace(setup, backend="unsloth", nested=setup.bits == 4, trained="float32", fused=True)
        yield "backend", after
    if setup.bits in (16, 32) and (setup.rank or not setup.trains):
        yield "bits", replace(setup, bits=4, nested=setup.backend == "unsloth", trained=_low_type(setup))
    if setup.trains and not setup.rank:
        low = {"dtype": "bfloat16", "bits": 16} if setup.free_type else {}  # frozen weights take 16 bits by themselves
        after = replace(setup, rank=32, targets=NEW_ADAPTER, trained="float32", reference="none", **low)  # type: ignore[arg-type]
        yield "adapter", after
    if setup.rank and setup.rank > 8 and setup.trains and setup.own_rank:
        yield "adapter", replace(setup, rank=setup.rank // 2)
    if setup.completion > 512:
        yield "length", replace(setup, completion=setup.completion // 2)


def _batches(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Yield smaller batches with the same number of rows a step, as TRL's arithmetic allows them."""
    least = setup.group if setup.stage == "grpo" else 1
    half = setup.generated // 2
    if setup.generated % (2 * least) == 0 and half >= max(1, setup.rows) and not setup.vllm:
        if not setup.steps:
            yield "batches", replace(setup, generated=half)
        elif setup.steps % 2 == 0:
            yield "batches", replace(setup, generated=half, steps=setup.steps // 2)
    if setup.trains and setup.rows > 1 and setup.rows % 2 == 0:
        steps = setup.steps * 2 if setup.steps else None
        yield "batches", replace(setup, rows=setup.rows // 2, accumulation=setup.accumulation * 2, steps=steps)


def _low_type(setup: Setup) -> str:
    """Return the type of an adapter on 4-bit weights."""
    return "float32" if setup.backend == "unsloth" or not setup.rank else "bfloat16"
