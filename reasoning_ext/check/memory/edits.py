"""Edits of a recipe that make it fit a card, the cheapest first, each with what it saves.

They are tried one after another on the plan of the edited recipe: what costs nothing first, then time, then precision,
and last what changes what is learnt. Edits of the same keys are joined.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from reasoning_ext.check.memory.plan import Plan, engine_bytes
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe

Values = dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """A change of a recipe: the keys to write with their values, what the plan needs then, and the bytes it saves."""

    values: Values
    plan: Plan
    saved: int

    @property
    def text(self) -> str:
        """What to write, in one line."""
        return " and ".join(f"{key}: {json.dumps(value)}" for key, value in self.values.items()).replace('"', "")


def edits(recipe: Recipe, planned: Callable[[Recipe], Plan], card: int) -> list[Edit]:
    """Return what makes a recipe fit a card of so many bytes, each change on top of the ones before it.

    Where the last one's plan, as `planned` makes it, does not fit either, nothing here helps.
    """
    first = current = planned(recipe)
    joined: dict[str, Values] = {}
    for _ in range(30):
        edited = _edited(recipe, joined.values())
        tried = () if current.fits(card) else _changes(edited, current, card)
        plans = ((group, change, planned(_edited(edited, [change]))) for group, change in tried)
        saving = (one for one in plans if current.peak - one[2].peak > 0.01 * current.peak)
        group, change, current = next(saving, ("", {}, current))
        if not group:
            break
        joined[group] = joined.get(group, {}) | change
    done, before, edited = [], first, recipe
    for change in joined.values():
        edited = _edited(edited, [change])
        after = planned(edited)
        done.append(Edit(change, after, before.peak - after.peak))
        before = after
    return done


def _edited(recipe: Recipe, changes: Iterable[Values]) -> Recipe:
    return replace(recipe, values=recipe.values | {key: value for change in changes for key, value in change.items()})


def _changes(recipe: Recipe, now: Plan, card: int) -> Iterator[tuple[str, Values]]:
    """Yield single changes in the order of what they cost, each with the name of its keys' group."""
    setup = now.setup
    if setup.bits == 4 and not setup.nested:
        yield "nesting", {"use_bnb_nested_quant": True}
    if setup.vllm and not setup.sleeps:
        yield "sleep", {"vllm_enable_sleep_mode": True}
    if setup.trains and not setup.checkpointing:
        yield "checkpointing", {"gradient_checkpointing": True}
    if setup.trains and "8bit" not in setup.optimizer and not setup.host:
        yield "optimizer", {"optim": "adamw_8bit"}
    if setup.stage == "dpo" and setup.reference == "model":
        yield "reference", {"precompute_ref_log_probs": True}
    yield from _batches(recipe, now)
    lower = round((setup.vllm or 0) - 0.1, 2)
    if lower > 0 and lower * card >= engine_bytes(setup):
        yield "engine", {"vllm_gpu_memory_utilization": lower}
    if setup.trains and setup.backend == "trl" and setup.rank and not setup.host:
        yield "backend", {"backend": "unsloth"}
    if setup.bits in (16, 32) and (setup.rank or not setup.trains) and not setup.host:
        yield "bits", {"load_in_4bit": True}
    if setup.trains and not setup.rank:
        yield "adapter", {"use_peft": True, "lora_r": 32, "lora_target_modules": ["all-linear"]}
    if setup.trains and setup.own_rank and setup.rank and setup.rank > 8:
        yield "adapter", {"lora_r": setup.rank // 2}
    if setup.completion > 512:
        yield "length", {"max_length" if setup.stage in FROM_DATA else "max_completion_length": setup.completion // 2}


def _batches(recipe: Recipe, now: Plan) -> Iterator[tuple[str, Values]]:
    """Yield smaller batches with the same number of rows a step, as TRL's arithmetic allows them."""
    setup, grpo = now.setup, recipe.stage == "grpo"
    steps = recipe.get("steps_per_generation") if grpo else None
    half, group = setup.generated // 2, recipe.get("num_generations") if grpo else 1
    if half >= max(1, setup.rows) and setup.generated % (2 * group) == 0 and not setup.vllm:
        if not steps:
            yield "batches", {"generation_batch_size" if grpo else "per_device_eval_batch_size": half}
        elif steps % 2 == 0:
            yield "batches", {"steps_per_generation": steps // 2}
    rows = recipe.get("per_device_train_batch_size") if setup.trains else 0
    if rows and rows % 2 == 0:
        change = {"per_device_train_batch_size": rows // 2, "gradient_accumulation_steps": 2 * setup.accumulation}
        yield "batches", change | ({"steps_per_generation": 2 * steps} if steps else {})
