"""Defaults of TRL that surprise, said where a recipe leaves their key out.

Values are read off the installed classes, and a note is given only while the value is the one that surprises, so that it
goes away by itself when TRL changes it. Two mistakes with the learning rate are warned of even where the key is set. Only
what costs a run, its quality or its memory is worth a line, the costly first, and never more than `MOST`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from reasoning_ext.findings import Finding
from reasoning_ext.own_keys import FROM_DATA
from reasoning_ext.recipe import Recipe
from reasoning_ext.run_dir import world_size

MOST = 6
FULL_RATE_LIMIT = 5e-5  # full fine-tuning of a pretrained model; LoRA takes about ten times its rate
LORA_RATE_LIMIT = 1e-6
LORA_RATES = {
    "sft": (1e-4, "2.0e-4"),
    "grpo": (5e-6, "1.0e-5"),
    "dpo": (5e-6, "1.0e-5"),
}  # below the first it is a full fine-tuning's; an example
SHORT_ROWS, SHORT_COMPLETIONS = 2048, 1024
FEW_PROMPTS = 4
MANY_TOKENS = 32_768
MANY_CHECKPOINTS = 5
STRONG_PULL = 0.1


def default_findings(recipe: Recipe) -> list[Finding]:
    """Return notes on defaults that surprise, and warnings of learning rates that do not fit what is trained.

    Args:
        recipe: a recipe whose keys and values have been checked one by one.

    Returns:
        warnings, then notes, the costly first, `MOST` at the most; each has the key to write and what it does now.
    """
    found = [finding for check in CHECKS.get(recipe.stage, ()) for finding in check(recipe)]
    return sorted(found, key=lambda finding: finding.level == "note")[:MOST]


def _silent(recipe: Recipe, key: str) -> bool:
    """Tell whether the stage has a key and the recipe leaves it to its default."""
    return key in recipe.keys and key not in recipe.values


def _get(recipe: Recipe, key: str) -> Any:
    """Return a key's value or default, None where the stage does not have the key."""
    return recipe.get(key) if key in recipe.keys else None


def _number(recipe: Recipe, key: str) -> float | None:
    """Return a key's value if it is a number; None also where the stage does not have the key."""
    value = _get(recipe, key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_small(recipe: Recipe) -> bool:
    """Tell whether the model must be a small one, for which rates and sizes of pretrained models do not count."""
    return bool(_get(recipe, "from_scratch") or _get(recipe, "use_cpu"))


def _note(recipe: Recipe, key: str, text: str) -> Iterator[Finding]:
    yield Finding("note", key, f"left out, so it is {_written(_get(recipe, key))}: {text}")


def _written(value: Any) -> str:
    """Write a value as YAML does."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _rate(recipe: Recipe) -> Iterator[Finding]:
    rate, lora = _number(recipe, "learning_rate"), _get(recipe, "use_peft")
    if rate is None:
        return
    low, example = LORA_RATES[recipe.stage]
    if lora and rate < LORA_RATE_LIMIT:
        text = f"found {rate:g} with use_peft: true, at which an adapter hardly moves; write {example} for example"
        yield Finding("warning", "learning_rate", text)
    elif lora and rate < low and _silent(recipe, "learning_rate"):
        yield from _note(
            recipe,
            "learning_rate",
            f"a rate for all weights; an adapter takes about ten times of it, {example} for example",
        )
    elif not lora and rate >= FULL_RATE_LIMIT and not _is_small(recipe):
        full = {"sft": "1.0e-5", "grpo": "1.0e-6", "dpo": "5.0e-7"}[recipe.stage]
        text = f"found {rate:g} for all weights, which is a rate for LoRA; write use_peft: true, or {full} for example"
        yield Finding("warning", "learning_rate", text)


def _row_length(recipe: Recipe) -> Iterator[Finding]:
    length = _number(recipe, "max_length")
    if not _silent(recipe, "max_length") or length is None or length > SHORT_ROWS:
        return
    if _get(recipe, "overlong_rows") == "drop":  # else they stop the run by themselves
        text = "longer rows, which are the longest thoughts, are left out; write what most rows take, 4096 for example"
        yield from _note(recipe, "max_length", text)


def _completion_length(recipe: Recipe) -> Iterator[Finding]:
    length = _number(recipe, "max_completion_length")
    if _silent(recipe, "max_completion_length") and length is not None and length <= SHORT_COMPLETIONS:
        what = "are rewarded as wrong" if recipe.stage == "grpo" else "count as wrong"
        text = f"thoughts that are cut off there have no answer and {what}; write 2048 for example"
        yield from _note(recipe, "max_completion_length", text)


def _truncated(recipe: Recipe) -> Iterator[Finding]:
    if _silent(recipe, "mask_truncated_completions") and _get(recipe, "mask_truncated_completions") is False:
        text = "completions that are cut off teach as if they had ended so; write true to leave them out of the loss"
        yield from _note(recipe, "mask_truncated_completions", text)


def _prompts_a_step(recipe: Recipe) -> Iterator[Finding]:
    batch, steps = _number(recipe, "per_device_train_batch_size"), _number(recipe, "gradient_accumulation_steps")
    generations = _number(recipe, "num_generations")
    if not _silent(recipe, "gradient_accumulation_steps") or batch is None or steps is None or not generations:
        return
    prompts = batch * steps * world_size() / generations
    if prompts < FEW_PROMPTS:
        text = f"a step learns from {prompts:g} prompt{'s' * (prompts != 1)} x {generations:g} completions; write 8 for example"
        yield from _note(recipe, "gradient_accumulation_steps", text)


def _length_of_run(recipe: Recipe) -> Iterator[Finding]:
    epochs, steps = _number(recipe, "num_train_epochs"), _number(recipe, "max_steps")
    silent = all(_silent(recipe, key) for key in ("max_steps", "num_train_epochs"))
    if not silent or not epochs or steps is None or steps >= 0:
        return
    if recipe.stage == "dpo" and epochs > 1:
        text = "times over all pairs, which are learnt by heart after one or two; write 1"
        yield from _note(recipe, "num_train_epochs", text)
    elif recipe.stage == "grpo" and _get(recipe, "max_samples") is None:
        text = f"it goes {epochs:g} times over all prompts, which can take days; write max_steps: 200 for example"
        yield Finding("note", "max_steps", f"left out like num_train_epochs: {text}")


def _reward_scale(recipe: Recipe) -> Iterator[Finding]:
    entries = _get(recipe, "reward_funcs")
    counting = [entry for entry in entries if _weight(entry) != 0] if isinstance(entries, list) else []
    if _silent(recipe, "scale_rewards") and _get(recipe, "scale_rewards") == "group" and len(counting) > 1:
        text = (
            "a group that differs in a small reward alone weighs as much as one that differs in its answers; write none"
        )
        yield from _note(recipe, "scale_rewards", text)


def _weight(entry: Any) -> Any:
    [parameters] = entry.values() if isinstance(entry, dict) and len(entry) == 1 else [None]
    return parameters.get("weight", 1.0) if isinstance(parameters, dict) else 1.0


def _checkpoints(recipe: Recipe) -> Iterator[Finding]:
    every, last = _number(recipe, "save_steps"), _number(recipe, "max_steps")
    if _get(recipe, "save_strategy") != "steps" or every is None or every < 1:
        return
    if _silent(recipe, "save_steps") and last is not None and 0 < last <= every:
        text = f"no checkpoint before the end of {last:g} steps, so that a crash loses all; write 50 for example"
        yield from _note(recipe, "save_steps", text)
    elif _silent(recipe, "save_steps") and recipe.stage == "grpo" and every > 200:
        text = "GRPO can collapse late, and there is nothing to go back to in between; write 50 for example"
        yield from _note(recipe, "save_steps", text)
    number = last / every if last and last > 0 else None
    many = number > MANY_CHECKPOINTS if number is not None else not _is_small(recipe)
    if (
        _silent(recipe, "save_total_limit")
        and _get(recipe, "save_total_limit") is None
        and many
        and not _get(recipe, "use_peft")
    ):
        count = f"{number:.0f}" if number is not None else "all"
        text = f"{count} checkpoints stay, each three times the model's size; write 2 for example"
        yield from _note(recipe, "save_total_limit", text)


def _batch_tokens(recipe: Recipe) -> Iterator[Finding]:
    length = _number(recipe, "max_length" if recipe.stage in FROM_DATA else "max_completion_length")
    rows = _number(recipe, "per_device_train_batch_size")
    rows = 2 * rows if rows and recipe.stage == "dpo" else rows
    if _silent(recipe, "per_device_train_batch_size") and rows and length and rows * length >= MANY_TOKENS:
        text = f"up to {rows * length:g} tokens are on the device at once; write 1 and more gradient_accumulation_steps"
        yield from _note(recipe, "per_device_train_batch_size", text)


def _logging(recipe: Recipe) -> Iterator[Finding]:
    steps = _number(recipe, "logging_steps")
    if _silent(recipe, "logging_steps") and steps is not None and steps > 1:
        text = f"completions are kept of one step in {steps:g} alone; write 1"
        yield from _note(recipe, "logging_steps", text)


def _packing(recipe: Recipe) -> Iterator[Finding]:
    if not _get(recipe, "packing") or _get(recipe, "backend") != "trl":
        return
    if _get(recipe, "packing_strategy") == "wrapped":
        text = "found wrapped, which cuts rows anywhere and lets each see the one before it; leave it out"
        yield Finding("warning", "packing_strategy", text)
        return
    attention = (
        _get(recipe, "attn_implementation")
        or (_get(recipe, "model_init_kwargs") or {}).get("attn_implementation")
        or ""
    )
    if "flash" not in attention and not _get(recipe, "use_cpu"):
        text = f"found {attention or 'none'} with packing: true, which keeps rows apart by a mask of all tokens squared"
        yield Finding("note", "attn_implementation", f"{text}; write flash_attention_2, which needs none")


def _warmup(recipe: Recipe) -> Iterator[Finding]:
    if _silent(recipe, "warmup_steps") and _get(recipe, "warmup_steps") == 0 and not _silent(recipe, "learning_rate"):
        yield from _note(recipe, "warmup_steps", "the first steps take the full rate; write 10 for example")


def _kl(recipe: Recipe) -> Iterator[Finding]:
    if _silent(recipe, "beta") and _get(recipe, "beta") == 0:
        text = "nothing holds the model near its start; that is usual, and write 0.04 for example if it drifts"
        yield from _note(recipe, "beta", text)


def _pull(recipe: Recipe) -> Iterator[Finding]:
    beta = _number(recipe, "beta")
    if _silent(recipe, "beta") and beta and beta >= STRONG_PULL:
        text = "it multiplies a sum over all tokens, so that pairs of long thoughts count as settled soon; write 0.02 for these"
        yield from _note(recipe, "beta", text)


# In the order of what they cost: a run that teaches nothing or the wrong thing, then time, memory and disk, then the rest.
CHECKS: dict[str, tuple[Callable[[Recipe], Iterator[Finding]], ...]] = {
    "sft": (
        _rate, _row_length, _packing, _batch_tokens, _checkpoints,
    ),
    "grpo": (
        _rate, _completion_length, _prompts_a_step, _length_of_run, _reward_scale, _truncated, _batch_tokens,
        _logging, _checkpoints, _warmup, _kl,
    ),
    "dpo": (
        _rate, _row_length, _length_of_run, _batch_tokens, _checkpoints, _warmup, _pull,
    ),
    "sample": (_completion_length,),
    "eval": (_completion_length,),
}  # fmt: skip
