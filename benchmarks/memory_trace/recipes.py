"""A recipe's training step, traced (see `trace`)."""

from __future__ import annotations

from typing import Any

from memory_trace.trace import MemoryTraceError, Workload, trace_training
from reasoning_ext.check.memory.setup import Setup, model_source
from reasoning_ext.check.memory.shapes import config_of
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import DPO_CONFIG, GRPO_CONFIG, MODEL_CONFIG, SFT_CONFIG


def trace_recipe(recipe: Recipe, earlier: dict[str, Recipe], setup: Setup, offline: bool = True) -> dict[str, Any]:
    """Trace a training step of a recipe.

    Args:
        recipe: of a stage that trains.
        earlier: see `setup.model_source`.
        setup: what the formulas were asked.
        offline: do not ask the hub for the model's config.

    Returns:
        `seconds`, `phases` and `parts` in bytes, and `note`, what the trace does not follow; or `why` it could not be made.
    """
    source, lora = model_source(recipe, earlier)
    load = recipe.config_values(MODEL_CONFIG) | (lora if setup.rank else {}) | {"dtype": setup.dtype}
    if setup.backend == "unsloth":
        load["use_bnb_nested_quant"] = setup.nested
    configs = {"sft": SFT_CONFIG, "dpo": DPO_CONFIG, "grpo": GRPO_CONFIG}
    training = recipe.config_values(configs[setup.stage])
    training["gradient_checkpointing"] = setup.checkpointing
    prompt = setup.prompt if setup.stage == "grpo" else 0
    workload = Workload(setup.rows, prompt, setup.tokens - prompt, setup.padded and setup.rows > 1)
    try:
        config = config_of(source or "", recipe.get("model_revision"), offline)
        trace = trace_training(setup.stage, config, load, training, workload)
    except MemoryTraceError as error:
        return {"why": f"{error.key}: {error}"}
    said = "TRL's own step, since Unsloth's kernels are not traced" if setup.backend == "unsloth" else ""
    return {"seconds": trace.seconds, "phases": trace.phases, "parts": trace.parts, "note": said}
