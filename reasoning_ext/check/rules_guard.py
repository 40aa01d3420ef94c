"""What can be wrong with `guard`; a rule as in `rules`."""

from collections.abc import Iterator
from importlib.util import find_spec

from reasoning_ext.errors import Problem
from reasoning_ext.recipe.benchmarks import LM_EVAL, lm_eval_task
from reasoning_ext.recipe.load import Recipe

ALLOWED = f"general, and {LM_EVAL}TASK where a model is trained"


def wrong_guard(recipe: Recipe) -> Iterator[Problem]:
    """guard names no set of tasks, or one that the harness has for itself in an evaluation."""
    given = recipe.values.get("guard") if "guard" in recipe.keys else None
    if given is None:
        return
    names, evaluates = given if isinstance(given, list) else [given], recipe.stage == "eval"
    tasks = [name for name in names if isinstance(name, str) and name.startswith(LM_EVAL)]
    if not names or len({*map(str, names)}) < len(names) or any(name not in ("general", *tasks) for name in names):
        yield recipe.problem("guard", f"found {given!r}", ALLOWED)
    elif evaluates and tasks:
        hint = f"write benchmark: {tasks[0]} in a recipe of its own"
        yield recipe.problem("guard", f"found {tasks[0]} in stage eval", "general", hint)
    elif tasks and find_spec("lm_eval") is None:
        hint = "pip install 'reasoning-ext[lm-eval]'"
        yield recipe.problem("guard", f"found {tasks[0]}, and lm_eval is not installed", hint=hint)
    elif evaluates and lm_eval_task(recipe):
        found = f"found beside benchmark: {recipe.get('benchmark')}, which has no engine for other tasks"
        yield recipe.problem("guard", found, hint="leave one of them out")
