"""What a recipe's numbers will do to its result though nobody would guess it: rates, batches, beta, truncation, sampling.

A default is read off the installed classes, and told of only where the recipe leaves its key out and while it is the one that
surprises, so that a note goes away by itself when TRL changes it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from reasoning_ext.check.cost import generation_of
from reasoning_ext.errors import Level, Problem
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe

FULL_RATE_LIMIT = 5e-5  # full fine-tuning of a pretrained model; LoRA takes about ten times its rate
LORA_RATE_LIMIT = 1e-6
# Below the first a rate is a full fine-tuning's; then an example for an adapter, and one for all weights.
RATES = {"sft": (1e-4, "2.0e-4", "1.0e-5"), "grpo": (5e-6, "1.0e-5", "1.0e-6"), "dpo": (5e-6, "1.0e-5", "5.0e-7")}
SHORT_ROWS, SHORT_COMPLETIONS, FEW_PROMPTS, STRONG_PULL = 2048, 1024, 4, 0.1
UNCUT = {"top_p": (1, 1.0), "top_k": (0, -1, None), "min_p": (0, None)}  # every token can be drawn


def default_findings(recipe: Recipe) -> list[Problem]:
    """Return notes on defaults that surprise, and warnings of values that do not fit each other.

    Args:
        recipe: a recipe whose keys and values have been checked one by one.

    Returns:
        warnings, then notes; each has the key to write and what it does now.
    """
    found = [finding for check in CHECKS for finding in check(recipe)]
    return sorted(found, key=lambda finding: finding.level == "note")


def _problem(level: Level, key: str, found: str) -> Problem:
    return Problem(code="surprising_value", level=level, key=key, found=found)


def _get(recipe: Recipe, key: str, only_silent: bool = False) -> Any:
    """Return a key's value or default; None where the stage has no such key, or where the recipe must be silent and is not."""
    absent = key not in recipe.keys or (only_silent and key in recipe.values)
    return None if absent else recipe.get(key)


def _note(key: str, value: Any, text: str) -> Problem:
    return _problem(
        "note", key, f"left out, so it is {str(value).lower() if isinstance(value, bool) else value}: {text}"
    )


def _rate(recipe: Recipe) -> Iterator[Problem]:
    rate, lora, key = _get(recipe, "learning_rate"), _get(recipe, "use_peft"), "learning_rate"
    if recipe.stage not in TRAINED or not isinstance(rate, int | float):
        return
    low, example, full = RATES[recipe.stage]
    if lora and rate < LORA_RATE_LIMIT:
        text = f"found {rate:g} with use_peft: true, at which an adapter hardly moves; write {example} for example"
        yield _problem("warning", key, text)
    elif lora and rate < low and key not in recipe.values:
        text = f"a rate for all weights; an adapter takes about ten times of it, {example} for example"
        yield _note(key, rate, text)
    elif not lora and rate >= FULL_RATE_LIMIT and not _get(recipe, "from_scratch") and not _get(recipe, "use_cpu"):
        text = f"found {rate:g} for all weights, which is a rate for LoRA; write use_peft: true, or {full} for example"
        yield _problem("warning", key, text)


def _truncation(recipe: Recipe) -> Iterator[Problem]:
    length = _get(recipe, "max_length", only_silent=True)
    if (
        length and length <= SHORT_ROWS and _get(recipe, "overlong_rows") == "drop"
    ):  # else they stop the run by themselves
        text = "longer rows, which are the longest thoughts, are left out; write what most rows take, 4096 for example"
        yield _note("max_length", length, text)
    length = _get(recipe, "max_completion_length", only_silent=True)
    if length and length <= SHORT_COMPLETIONS:
        text = "thoughts that are cut off there have no answer and count as wrong; write 2048 for example"
        yield _note("max_completion_length", length, text)
    if _get(recipe, "mask_truncated_completions", only_silent=True) is False:
        text = "completions that are cut off teach as if they had ended so; write true to leave them out of the loss"
        yield _note("mask_truncated_completions", False, text)
    if _get(recipe, "packing") and _get(recipe, "packing_strategy") == "wrapped":
        text = "found wrapped, which cuts rows anywhere and lets each see the one before it; leave it out"
        yield _problem("warning", "packing_strategy", text)


def _batch(recipe: Recipe) -> Iterator[Problem]:
    steps = _get(recipe, "gradient_accumulation_steps", only_silent=True)
    if recipe.stage != "grpo" or steps is None or not _get(recipe, "num_generations"):
        return
    batch = generation_of(recipe)
    if (prompts := batch.step / batch.each) < FEW_PROMPTS:
        of = f"{prompts:g} prompt{'s' * (prompts != 1)} x {batch.each} completions"
        yield _note("gradient_accumulation_steps", steps, f"a step learns from {of}; write 8 for example")


def _beta(recipe: Recipe) -> Iterator[Problem]:
    beta = _get(recipe, "beta", only_silent=True)
    if recipe.stage == "grpo" and beta == 0:
        text = "nothing holds the model near its start; that is usual, and write 0.04 for example if it drifts"
        yield _note("beta", beta, text)
    elif recipe.stage == "dpo" and beta and beta >= STRONG_PULL:
        text = "it multiplies a sum over all tokens, so that pairs of long thoughts count as settled soon; write 0.02 for these"
        yield _note("beta", beta, text)


def _sampling(recipe: Recipe) -> Iterator[Problem]:
    if not (_get(recipe, "use_vllm") and _get(recipe, "vllm_importance_sampling_correction")):
        return
    for key, uncut in UNCUT.items():
        if key in recipe.values and recipe.values[key] not in uncut:
            text = "vLLM's probabilities are of the tokens that it leaves in, TRL's of all, which biases the importance weights"
            yield _problem("warning", key, f"found {recipe.values[key]} with use_vllm: true; {text}; leave it out")


CHECKS: tuple[Callable[[Recipe], Iterator[Problem]], ...] = (_rate, _truncation, _batch, _beta, _sampling)
