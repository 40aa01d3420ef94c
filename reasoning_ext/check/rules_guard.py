"""What can be wrong with `guard`; a rule as in `rules`."""

from collections.abc import Iterator

from reasoning_ext.errors import Problem
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.load import Recipe


def wrong_guard(recipe: Recipe) -> Iterator[Problem]:
    """guard names no set of tasks, or stands beside a task of lm-evaluation-harness, which it does not go with."""
    given = recipe.values.get("guard") if "guard" in recipe.keys else None
    names = given if isinstance(given, list) else [given]
    if given is not None and names != ["general"]:
        yield recipe.problem("guard", f"found {given!r}", "general")
    elif given is not None and recipe.stage == "eval" and lm_eval_task(recipe):
        found = f"found beside benchmark: {recipe.get('benchmark')}, which has no engine for other tasks"
        yield recipe.problem("guard", found, hint="leave one of them out")
