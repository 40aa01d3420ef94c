"""What can be wrong with how stage `grpo` chooses the prompts that it draws for: `skip_known` and `refill`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reasoning_ext.check.cost import generation_of
from reasoning_ext.check.rules import Problems, wrong_option
from reasoning_ext.recipe.entries import entries
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.records import Refill, SkipKnown, refills
from reasoning_ext.recipe.trl_fields import dataclass_keys
from reasoning_ext.runs.folder import world_size

MOST_ROUNDS = 1_000  # of which each keeps its completions for TRL's table
# keys of TRL's with which a group's advantages hang on the whole batch, which a refill would change
OF_THE_BATCH = {"scale_rewards": "batch", "multi_objective_aggregation": "normalize_then_sum"}


def wrong_skip_known(recipe: Recipe) -> Problems:
    """skip_known has an unknown name, no pass rates, bounds that cross or rest nothing, or rests for no step."""
    given = recipe.values.get("skip_known")
    if not isinstance(given, dict) or (yield from _misfits(recipe, "skip_known", given, SkipKnown)):
        return
    options = SkipKnown(**given)
    bounds = [bound for bound in (options.below, options.above) if bound is not None]
    for name in ("above", "below"):
        if (bound := getattr(options, name)) is not None and not 0 <= bound <= 1:
            yield recipe.problem(("skip_known", name), f"found {bound}", "a pass rate, 0 to 1")
    if not bounds or bounds != sorted({*bounds}):
        found = f"found above: {options.above} and below: {options.below}"
        yield recipe.problem("skip_known", found, "a pass rate above that of below; null for one of them alone")
    if options.retry_after < 1:
        yield recipe.problem(("skip_known", "retry_after"), f"found {options.retry_after}", "1 step or more")


def wrong_refill(recipe: Recipe) -> Problems:
    """refill has an unknown name or no rounds, or has no limit where completions are drawn slowly."""
    given = recipe.values.get("refill")
    options = given if isinstance(given, dict) else {}
    if (yield from _misfits(recipe, "refill", options, Refill)):
        return
    if not 1 <= (rounds := options.get("rounds", 1)) <= MOST_ROUNDS:
        yield recipe.problem(("refill", "rounds"), f"found {rounds}", f"1 to {MOST_ROUNDS}")
    if refills(given) and "rounds" not in options and not recipe.get("use_vllm"):
        hint = "write {rounds: 3}, each of which generates once more"
        yield recipe.problem("refill", f"found {given} without use_vllm or a limit".replace("True", "true"), hint=hint)


def unfit_for_rollouts(recipe: Recipe) -> Problems:
    """skip_known or refill beside what it cannot work with."""
    refill = refills(recipe.values.get("refill"))
    for key, used in (("skip_known", recipe.values.get("skip_known") is not None), ("refill", refill)):
        if used and any(entry.get("dataset_streaming") for entry in entries(recipe)):
            yield recipe.problem(
                key, "found with dataset_streaming: true, where rows come but once", hint="leave it out"
            )
    if not refill:
        return
    if recipe.get("backend") == "unsloth":
        found = "found with backend: unsloth, which compiles a trainer of its own on a GPU"
        yield recipe.problem("refill", found, hint="write backend: trl, or leave it out")
    for key, value in OF_THE_BATCH.items():
        if recipe.get(key) == value:
            yield recipe.problem(
                key, f"found {value} with refill, which draws a part of a batch anew", hint="write another"
            )
    made = generation_of(recipe)
    if world_size() > 1 and all(vars(made).values()) and (made.size // world_size()) % made.each:
        found = f"found {made.each} with refill and {made.size // world_size()} completions a process"
        yield recipe.problem("num_generations", found, "what divides them, so that no group is parted")


def _misfits(recipe: Recipe, key: str, given: dict[Any, Any], record: type) -> Any:
    """Yield what no option of a record can be, and return whether there was any."""
    known = dataclass_keys(record)
    wrong = [wrong_option(recipe, (key, name), name, value, known) for name, value in given.items()]
    yield from filter(None, wrong)
    return any(wrong)


RULES: tuple[Callable[[Recipe], Problems], ...] = (wrong_skip_known, wrong_refill, unfit_for_rollouts)
