"""What can be wrong with what a model may call: `tools`, `environment`, and the keys that do not go with them."""

from __future__ import annotations

from collections.abc import Callable

from reasoning_ext.check.named_inputs import spellings
from reasoning_ext.check.rules import Problems
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.entries import asks_server
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.tools.spec import has_tools, parse_environment, parse_tools

ROUNDS = "max_tool_calling_iterations"
CUTTING = ("beam", "refine")  # strategies that go on from a text which they have cut or put together
SENT = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls")  # of a server's requests
NAME, OBJECTS = "tool_use", "environments"  # a reward, and what rewards may ask for


def wrong_tool(recipe: Recipe) -> Problems:
    """tools or environment name what is not there or cannot be told to a model, twice the same, or a wrong option.

    Asked when the other rules are content: schemas are transformers' to make, and own tools have to be imported.
    """
    wrong = list[UserError]()
    if has_tools(recipe):
        parse_tools(recipe, wrong)
        parse_environment(recipe, wrong)
    yield from map(recipe.placed, wrong)


def unfit_for_tools(recipe: Recipe) -> Problems:
    """tools or environment beside what cannot work with calls and results in the middle of a completion."""
    if not has_tools(recipe) or recipe.stage in FROM_DATA:
        return
    key = "tools" if recipe.get("tools") else "environment"
    if recipe.stage == "grpo" and recipe.get("backend") == "unsloth":
        found = f"found unsloth with {key}; nobody has seen its compiled trainer leave results out of the loss"
        yield recipe.problem("backend", found, "trl")
    for i, kind in enumerate(spellings(recipe.values.get("strategies"))):
        if kind in CUTTING:
            found = f"found {kind} with {key}, which goes on from a text without running its calls"
            yield recipe.problem(("strategies", i), found, hint="leave one of the two out")
    if recipe.values.get("thinking_curve"):
        found = f"found with {key}; it cuts a thought short, and what was called behind the cut is gone"
        yield recipe.problem("thinking_curve", found, hint="leave one of the two out")
    if lm_eval_task(recipe):
        found = f"found {recipe.get('benchmark')} with {key}, and lm-evaluation-harness runs no calls"
        yield recipe.problem("benchmark", found, "a benchmark of ours, or rows of your own")
    arguments = recipe.get("generation_kwargs") or {}
    for name in [name for name in SENT if asks_server(recipe) and name in arguments]:
        yield recipe.problem(("generation_kwargs", name), f"found beside {key}, which decides it", hint="leave it out")


def nothing_to_call(recipe: Recipe) -> Problems:
    """max_tool_calling_iterations without tools or an environment, where it does nothing."""
    if has_tools(recipe) or recipe.refused("tools", "environment"):
        return
    if (rounds := recipe.values.get(ROUNDS)) is not None:
        found = f"found {rounds} without tools or environment, where it does nothing"
        yield recipe.problem(ROUNDS, found, hint="leave it out, or write tools")


def nothing_to_judge(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """The reward tool_use where nothing can be called, or one that asks for environments where there are none."""
    for i, spec in enumerate(specs if not recipe.refused("tools", "environment") else ()):
        if spec.name == NAME and spec.plugin.module and not has_tools(recipe):
            found = f"found {NAME} without tools or environment, where every completion earns 0.0"
            yield recipe.problem(("reward_funcs", i), found, hint="leave it out, or write tools")
        if OBJECTS in spec.plugin.required and not recipe.get("environment"):
            found = f"{spec.name} asks for {OBJECTS}, and the recipe has no environment"
            yield recipe.problem(("reward_funcs", i), found, hint="leave it out, or write environment: ./my_env.py:Env")


RULES: tuple[Callable[[Recipe], Problems], ...] = (unfit_for_tools, nothing_to_call)
