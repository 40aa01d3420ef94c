"""The arithmetic of batches: how much a step takes, how many steps there are, how much an epoch is."""

import math
from dataclasses import dataclass
from typing import Any

from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.folder import world_size


@dataclass(frozen=True)
class Generation:
    """GRPO's batches, in completions.

    Attributes:
        batch: of one forward pass, in all processes.
        accumulation: batches of an optimizer step.
        steps: batches of a generation, where `generation_batch_size` does not say how large one is.
        size: of one generation.
        each: of one prompt.
    """

    batch: int
    accumulation: int
    steps: int
    size: int
    each: int

    @property
    def step(self) -> int:
        """Completions of an optimizer step."""
        return self.batch * self.accumulation

    @property
    def prompts(self) -> int:
        """Prompts of one generation."""
        return self.size // self.each


def generation_of(recipe: Recipe, processes: int | None = None) -> Generation:
    """Read GRPO's batches off a recipe.

    Args:
        recipe: of stage grpo, its numbers 1 or more.
        processes: that train together; None: those of this launch.
    """
    batch = recipe.get("per_device_train_batch_size") * (processes or world_size())
    accumulation = recipe.get("gradient_accumulation_steps")
    steps = recipe.get("steps_per_generation") or accumulation
    size = recipe.get("generation_batch_size") or batch * steps
    return Generation(batch, accumulation, steps, size, recipe.get("num_generations"))


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
    made = generation_of(recipe)
    prompts = made.step / made.each
    found = {
        "prompts_a_step": int(prompts) if prompts.is_integer() else round(prompts, 2),
        "completions_a_step": made.step,
        "completions_a_prompt": made.each,
        "prompts_a_generation": made.prompts,
    }
    if not rows:
        return found, 0
    batches = rows // made.prompts * (made.size // made.batch) * recipe.get("num_iterations")
    return found, max(1, math.ceil(batches / made.accumulation))


def _generated(recipe: Recipe, rows: int | None) -> dict[str, Any]:
    if not rows:
        return {}
    each = recipe.get("num_generations")
    if recipe.stage == "eval":  # one more is greedy
        return {"prompts": rows, "completions": rows * (each + 1) * len(recipe.get("models") or [""])}
    return {"prompts": rows, "completions": rows * each}
