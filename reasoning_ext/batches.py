"""The arithmetic of batches: how much a step takes, how many steps there are, how much an epoch is."""

import math
from typing import Any

from reasoning_ext.named_inputs import eval_models
from reasoning_ext.own_keys import TRAINED
from reasoning_ext.recipe import Recipe
from reasoning_ext.run_dir import world_size


def batch_facts(recipe: Recipe, facts: dict[str, Any]) -> dict[str, Any]:
    """Count what a step and an epoch take.

    Args:
        recipe: a recipe without errors.
        facts: of its rows where they were read: `rows`, `mean_length` in tokens, `fitting_share` of the rows.

    Returns:
        sft, and dpo, whose rows are pairs: `rows_a_step`, `tokens_an_epoch`, `optimizer_steps`, `epochs`. grpo:
        `prompts_a_step`, `completions_a_step`, `completions_a_prompt`, `prompts_a_generation`, `optimizer_steps`, `epochs`.
        sample and eval: `prompts`, `completions`. What is not known is left out.
    """
    rows = facts.get("rows")
    rows = round(rows * facts.get("fitting_share", 1)) if rows else None
    if recipe.stage not in TRAINED:
        return _generated(recipe, rows)
    found, an_epoch = (_grpo if recipe.stage == "grpo" else _rows)(recipe, rows, facts)
    steps = recipe.get("max_steps")
    if steps is None or steps <= 0:
        steps = math.ceil(recipe.get("num_train_epochs") * an_epoch) if an_epoch else None
    if steps:
        found["optimizer_steps"] = steps
        if an_epoch:
            found["epochs"] = round(steps / an_epoch, 2)
    return found


def batch_line(facts: dict[str, Any]) -> str:
    """Write what `batch_facts` found as a line for people."""
    parts = []
    if "completions_a_step" in facts:
        count, each = facts["completions_a_step"], facts["completions_a_prompt"]
        parts.append(f"{count} completions a step, {facts['prompts_a_step']:g} prompts x {each}")
        if facts["prompts_a_generation"] != facts["prompts_a_step"]:
            parts.append(f"{facts['prompts_a_generation']} prompts a generation")
    elif "completions" in facts:
        parts.append(f"{facts['completions']} completions of {facts['prompts']} prompts")
    names = ("rows_a_step", "tokens_an_epoch", "optimizer_steps", "epochs")
    parts += [f"{facts[name]} {name.replace('_', ' ')}" for name in names if name in facts]
    return ", ".join(parts)


def _rows(recipe: Recipe, rows: int | None, facts: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the facts and how many optimizer steps an epoch has, 0 where it is not known."""
    batch = recipe.get("per_device_train_batch_size") * world_size()
    accumulation = recipe.get("gradient_accumulation_steps")
    found: dict[str, Any] = {"rows_a_step": batch * accumulation}
    if not rows:
        return found, 0
    if facts.get("mean_length"):
        found["tokens_an_epoch"] = round(rows * facts["mean_length"])
    if recipe.stage == "sft" and recipe.get("packing"):
        if not recipe.get("max_length") or "tokens_an_epoch" not in found:
            return found, 0
        rows = math.ceil(found["tokens_an_epoch"] / recipe.get("max_length"))
    return found, math.ceil(math.ceil(rows / batch) / accumulation)


def _grpo(recipe: Recipe, rows: int | None, facts: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The same for GRPO: a generation's prompts are drawn whole, and each batch of it is trained on `num_iterations` times."""
    batch = recipe.get("per_device_train_batch_size") * world_size()
    accumulation, each = recipe.get("gradient_accumulation_steps"), recipe.get("num_generations")
    size = recipe.get("generation_batch_size") or batch * (recipe.get("steps_per_generation") or accumulation)
    step = batch * accumulation
    prompts = step / each
    found = {
        "prompts_a_step": int(prompts) if prompts.is_integer() else round(prompts, 2),
        "completions_a_step": step,
        "completions_a_prompt": each,
        "prompts_a_generation": size // each,
    }
    if not rows:
        return found, 0
    batches = rows // (size // each) * (size // batch) * recipe.get("num_iterations")
    return found, max(1, math.ceil(batches / accumulation))


def _generated(recipe: Recipe, rows: int | None) -> dict[str, Any]:
    if not rows:
        return {}
    each = recipe.get("num_generations")
    if recipe.stage == "eval":  # one more is greedy
        return {"prompts": rows, "completions": rows * (each + 1) * len(eval_models(recipe))}
    return {"prompts": rows, "completions": rows * each}
