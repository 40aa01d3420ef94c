"""What can be wrong with `benchmark`, found before anything heavy is imported; rules as in `rules`."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from reasoning_ext.errors import Problem
from reasoning_ext.recipe.benchmarks import BENCHMARKS, LM_EVAL, lm_eval_task, nearest_benchmark
from reasoning_ext.recipe.load import Recipe

# what a task of lm-evaluation-harness says by itself
OF_TASKS = """
dataset_name dataset_config dataset_test_split dataset_format dataset_streaming datasets test_size rename_columns
format_kwargs gen_kwargs reward_funcs reward_weights max_unreadable_golds num_generations temperature top_p top_k min_p
repetition_penalty generation_kwargs strategies
""".split()


def unknown_benchmark(recipe: Recipe) -> Iterator[Problem]:
    """benchmark is none that is known, nor a task of lm-evaluation-harness."""
    name = recipe.values.get("benchmark")
    if name is not None and name not in BENCHMARKS and not (name.startswith(LM_EVAL) and name != LM_EVAL):
        allowed = f"{', '.join(BENCHMARKS)}, {LM_EVAL}TASK"
        near = "" if name == LM_EVAL else f"the nearest is {nearest_benchmark(name)}"
        yield recipe.problem("benchmark", f"found {name!r}", allowed, near)


def unfit_for_lm_eval(recipe: Recipe) -> Iterator[Problem]:
    """A key beside `benchmark: lm_eval:TASK` which the task decides by itself, or an engine that it does not have."""
    if not lm_eval_task(recipe):
        return
    name = recipe.values["benchmark"]
    for key in [key for key in OF_TASKS if key in recipe.values]:
        yield recipe.problem(key, f"found with benchmark: {name}, which decides it", hint="leave it out")
    if (engine := recipe.get("engine")) != "transformers":
        yield recipe.problem("engine", f"found {engine} with benchmark: {name}", "transformers")


def missing_lm_eval(recipe: Recipe) -> Iterator[Problem]:
    """lm-evaluation-harness is not installed; asked before a run, since a recipe may be for elsewhere."""
    if lm_eval_task(recipe) and find_spec("lm_eval") is None:
        found = f"found {recipe.values['benchmark']}, but lm-evaluation-harness is not installed"
        yield recipe.problem("benchmark", found, hint="pip install 'reasoning-ext[lm-eval]'")


RULES: tuple[Callable[[Recipe], Iterator[Problem]], ...] = (unknown_benchmark, unfit_for_lm_eval)
