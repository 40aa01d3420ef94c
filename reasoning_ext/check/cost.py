"""The arithmetic of batches: how much a step takes, how many steps there are, how much an epoch is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.held_out import eval_problems, measurements
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.records import refill_rounds
from reasoning_ext.runs.folder import world_size
from reasoning_ext.scoring.spec import RewardSpec


@dataclass(frozen=True)
class Generation:
    """GRPO's batches, in completions."""

    batch: int  # of one forward pass, in all processes
    accumulation: int  # batches of an optimizer step
    steps: int  # batches of a generation, where `generation_batch_size` does not say how large one is
    size: int  # of one generation
    each: int  # of one prompt

    @property
    def step(self) -> int:
        """Completions of an optimizer step."""
        return self.batch * self.accumulation

    @property
    def prompts(self) -> int:
        """Prompts of one generation."""
        return self.size // self.each


def generation_of(recipe: Recipe, processes: int | None = None) -> Generation:
    """Read GRPO's batches off a recipe of that stage, for so many processes, else those of this launch."""
    batch = recipe.get("per_device_train_batch_size") * (processes or world_size())
    accumulation = recipe.get("gradient_accumulation_steps")
    steps = recipe.get("steps_per_generation") or accumulation
    size = recipe.get("generation_batch_size") or batch * steps
    return Generation(batch, accumulation, steps, size, recipe.get("num_generations"))


def batch_facts(recipe: Recipe, facts: dict[str, Any], specs: Sequence[RewardSpec] = ()) -> dict[str, Any]:
    """Count what a step and an epoch take, from `rows`, `mean_length` in tokens and `fitting_share` where rows were read.

    What is returned is, as far as it is known, for sft, and for dpo, whose rows are pairs, `rows_a_step`, `tokens_an_epoch`,
    `optimizer_steps` and `epochs`; for grpo `prompts_a_step`, `completions_a_step`, `completions_a_prompt`,
    `prompts_a_generation`, `optimizer_steps`, `epochs` and, the most there can be, `refilled_completions`; for all
    three `held_out_completions` of `eval_problems`; for sample and eval `prompts`, `completions`, `most_tokens`, and
    `completions_at_least` where an evaluation, whose strategies may score by its `specs`, may draw fewer.
    """
    rows = round((facts.get("rows") or 0) * facts.get("fitting_share", 1))
    if recipe.stage not in TRAINED:
        return _drawn(recipe, rows, specs) if rows else {}
    found, an_epoch = (_grpo if recipe.stage == "grpo" else _rows)(recipe, rows, facts)
    steps = recipe.get("max_steps") if recipe.get("max_steps") > 0 else 0
    if steps := steps or math.ceil(recipe.get("num_train_epochs") * an_epoch):
        found |= {"optimizer_steps": steps} | ({"epochs": round(steps / an_epoch, 2)} if an_epoch else {})
        if rounds := refill_rounds(recipe.values.get("refill")):
            found["refilled_completions"] = steps * found["completions_a_step"] * rounds
        if asked := eval_problems(recipe):
            found["held_out_completions"] = measurements(steps, recipe.get("eval_steps")) * asked.completions
    return found


def _drawn(recipe: Recipe, rows: int, specs: Sequence[RewardSpec]) -> dict[str, Any]:
    """Return the facts of a stage that draws and does not train."""
    most = recipe.get("max_completion_length") or 0
    if recipe.stage != "eval":
        count = rows * recipe.get("num_generations")
        return {"prompts": rows, "completions": count, "most_tokens": count * most}
    from reasoning_ext.evaluate.drawn import most_drawn  # which brings numpy

    draws, each = [*most_drawn(recipe, specs, most).values()], rows * len(eval_models(recipe))
    sure = sum(draw.sure for draw in draws)
    found = {
        "prompts": rows,
        "completions": each * len(draws),
        "most_tokens": each * sum(draw.tokens for draw in draws),
    }
    return found | ({"completions_at_least": each * sure} if sure < len(draws) else {})


def batch_line(facts: dict[str, Any]) -> str:
    """Write what `batch_facts` found as a line for people."""
    parts = []
    if "completions_a_step" in facts:
        count, each = facts["completions_a_step"], facts["completions_a_prompt"]
        parts.append(f"{count} completions a step, {facts['prompts_a_step']:g} prompts x {each}")
        if facts["prompts_a_generation"] != facts["prompts_a_step"]:
            parts.append(f"{facts['prompts_a_generation']} prompts a generation")
    elif "completions" in facts:
        least = f"{facts['completions_at_least']} to " if "completions_at_least" in facts else ""
        parts.append(f"{least}{facts['completions']} completions of {facts['prompts']} prompts")
    names = ("rows_a_step", "tokens_an_epoch", "optimizer_steps", "epochs", "held_out_completions")
    return ", ".join([*parts, *(f"{facts[name]} {name.replace('_', ' ')}" for name in names if name in facts)])


def _rows(recipe: Recipe, rows: int, facts: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the facts and how many optimizer steps an epoch has, 0 where it is not known."""
    batch = recipe.get("per_device_train_batch_size") * world_size()
    accumulation = recipe.get("gradient_accumulation_steps")
    found: dict[str, Any] = {"rows_a_step": batch * accumulation}
    if tokens := round(rows * (facts.get("mean_length") or 0)):
        found["tokens_an_epoch"] = tokens
    if recipe.stage == "sft" and recipe.get("packing"):
        rows = math.ceil(tokens / (recipe.get("max_length") or math.inf))
    return found, math.ceil(math.ceil(rows / batch) / accumulation)


def _grpo(recipe: Recipe, rows: int, facts: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The same for GRPO: prompts are drawn whole, and each batch is trained on `num_iterations` times."""
    made = generation_of(recipe)
    found = {
        "prompts_a_step": round(made.step / made.each, 2),
        "completions_a_step": made.step,
        "completions_a_prompt": made.each,
        "prompts_a_generation": made.prompts,
    }
    batches = rows // made.prompts * (made.size // made.batch) * recipe.get("num_iterations")
    return found, max(1, math.ceil(batches / made.accumulation)) if rows else 0
