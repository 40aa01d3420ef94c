"""Edits of a recipe that make it fit a card, the cheapest first, each with what it saves.

They are tried one after another on the plan: what costs nothing first, then what costs time, then precision, and last what
changes what is learnt. Edits of the same keys are joined, so that a list of them can be written into a recipe as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reasoning_ext.check.memory.plan import Plan, engine_bytes, plan
from reasoning_ext.check.memory.setup import Setup
from reasoning_ext.recipe.keys import FROM_DATA

NEW_ADAPTER = "all-linear"

# Fields of a setup that are changed together, and those that follow from them.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nesting": (("nested",), ()),
    "sleep": (("sleeps",), ()),
    "checkpointing": (("checkpointing",), ()),
    "optimizer": (("optimizer",), ()),
    "batches": (("generated", "rows", "accumulation", "steps"), ()),
    "engine": (("vllm",), ()),
    "backend": (("backend",), ("trained", "fused", "nested")),
    "reference": (("reference",), ("scored",)),
    "bits": (("bits",), ("trained", "nested")),
    "adapter": (("rank", "targets"), ("trained", "reference", "dtype", "bits")),
    "length": (("completion",), ()),
}
KEYS = {
    "nested": "use_bnb_nested_quant", "sleeps": "vllm_enable_sleep_mode", "checkpointing": "gradient_checkpointing",
    "optimizer": "optim", "rows": "per_device_train_batch_size", "accumulation": "gradient_accumulation_steps",
    "steps": "steps_per_generation", "vllm": "vllm_gpu_memory_utilization", "backend": "backend", "bits": "load_in_4bit",
    "targets": "lora_target_modules", "reference": "precompute_ref_log_probs", "rank": "lora_r",
}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """A change of a recipe: the keys to write with their values as YAML, and what the plan needs then."""

    values: dict[str, str]
    plan: Plan
    saved: int

    @property
    def text(self) -> str:
        """What to write, in one line."""
        return " and ".join(f"{key}: {value}" for key, value in self.values.items())


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
        own, along = GROUPS[group]
        after = plan(replace(before.setup, **{name: getattr(last, name) for name in (*own, *along)}), card)
        values: dict[str, str] = {}
        for name in own:
            follows = last.steps and name == "generated"  # from steps_per_generation
            if getattr(last, name) != getattr(first.setup, name) and not follows:
                values |= _written(name, last)
        done.append(Edit(values, after, before.peak - after.peak))
        before = after
    return done


def _written(name: str, setup: Setup) -> dict[str, str]:
    """Return the keys that set a field, each with its value as YAML."""
    value, key = getattr(setup, name), KEYS.get(name)
    if name in ("bits", "reference"):
        value = True
    elif name == "generated":
        key = "generation_batch_size" if setup.stage == "grpo" else "per_device_eval_batch_size"
    elif name == "completion":
        key = "max_length" if setup.stage in FROM_DATA else "max_completion_length"
    elif name == "rows" and setup.stage == "dpo":
        value //= 2  # pairs
    elif name == "targets":
        value = f"[{value}]"
    written = {str(key): str(value).lower() if isinstance(value, bool) else f"{value}"}
    return {"use_peft": "true"} | written if name == "rank" and setup.targets == NEW_ADAPTER else written


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
    if setup.stage == "dpo" and setup.reference == "model":
        yield "reference", replace(setup, reference="none", scored=False)
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
    sides = 2 if setup.stage == "dpo" else 1
    if setup.trains and setup.rows > sides and setup.rows % (2 * sides) == 0:
        steps = setup.steps * 2 if setup.steps else None
        yield "batches", replace(setup, rows=setup.rows // 2, accumulation=setup.accumulation * 2, steps=steps)


def _low_type(setup: Setup) -> str:
    """Return the type of an adapter on 4-bit weights."""
    return "float32" if setup.backend == "unsloth" or not setup.rank else "bfloat16"
