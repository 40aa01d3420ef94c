"""What can be wrong with `eval_problems`, `keep` and `on_fall`; rules as in `rules`."""

from collections.abc import Callable, Iterator

from reasoning_ext.check.rules import wrong_option
from reasoning_ext.errors import Problem
from reasoning_ext.recipe.held_out import EvalProblems, keeps_best
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import dataclass_keys
from reasoning_ext.scoring.spec import EntryError, parse_rewards

LEAST = {"n": 1, "samples": 0, "max_completion_length": 1}
KEY = "eval_problems"


def wrong_eval_problems(recipe: Recipe) -> Iterator[Problem]:
    """eval_problems is no number of problems or has a wrong key or value; eval_steps is no number of steps."""
    given = recipe.values.get(KEY) if recipe.stage in TRAINED else None
    known = dataclass_keys(EvalProblems)
    for name, value in given.items() if isinstance(given, dict) else {"n": given}.items() if given is not None else ():
        place = (KEY, name) if isinstance(given, dict) else (KEY,)
        if misfit := wrong_option(recipe, place, name, value, known, "key"):
            yield misfit
        elif name in LEAST and value is not None and value < LEAST[name]:
            yield recipe.problem(place, f"found {value}", f"{LEAST[name]} or more")
        elif name == "reward_funcs" and value:
            wrong = list[EntryError]()
            parse_rewards(value, recipe.folder, wrong)
            for told in wrong:
                yield recipe.problem((KEY, *told.path), told.problem.found, told.problem.allowed, told.problem.hint)
    every = recipe.values.get("eval_steps")
    if given is not None and isinstance(every, int | float) and not _is_pace(every):
        yield recipe.problem("eval_steps", f"found {every}", "a whole number, or a share of all steps below 1")


def nothing_measured(recipe: Recipe) -> Iterator[Problem]:
    """keep: best or on_fall: stop, where nothing is measured while it trains."""
    for key in (key for key in ("keep", "on_fall") if key in recipe.values and recipe.stage in TRAINED):
        missing = [other for other in (KEY, "eval_steps") if recipe.values.get(other) is None]
        if missing and (key == "on_fall" or keeps_best(recipe)):
            example = f"{KEY}: 100" if missing[0] == KEY else f"eval_steps: {recipe.get('save_steps'):g}"
            yield recipe.problem(key, f"found {recipe.get(key)} without {missing[0]}", hint=f"write {example}")


def unsaved_measurement(recipe: Recipe) -> Iterator[Problem]:
    """keep: best or on_fall: stop, where a step that is measured is not saved, or TRL keeps a best of its own."""
    every = recipe.values.get("eval_steps") if keeps_best(recipe) else None
    if not isinstance(every, int | float) or not _is_pace(every) or recipe.values.get(KEY) is None:
        return
    strategy, saved = recipe.get("save_strategy"), recipe.get("save_steps")
    why = "which needs a checkpoint at every step that is measured"
    cause = "keep: best" if recipe.get("keep") == "best" else "on_fall: stop"
    if strategy != "steps":
        yield recipe.problem("save_strategy", f"found {strategy} with {cause}, {why}", "steps")
    elif not saved or (every != saved and (min(every, saved) < 1 or every % saved)):
        yield recipe.problem("save_steps", f"found {saved} with {cause}, {why}", hint=f"write save_steps: {every:g}")
    if recipe.get("load_best_model_at_end"):
        yield recipe.problem("load_best_model_at_end", f"found true with {cause}", hint="take one of them")


def held_out_in_parts(recipe: Recipe) -> Iterator[Problem]:
    """eval_problems where no process has the whole model to answer them."""
    for key in (key for key in ("fsdp", "deepspeed") if recipe.values.get(key) and recipe.values.get(KEY) is not None):
        hint = "leave it out, and evaluate checkpoints with stage eval"
        yield recipe.problem(KEY, f"found with {key}, under which no process has the whole model", hint=hint)


def _is_pace(every: float) -> bool:
    return 0 < every < 1 or (every >= 1 and float(every).is_integer())


RULES: tuple[Callable[[Recipe], Iterator[Problem]], ...]
RULES = (wrong_eval_problems, nothing_measured, unsaved_measurement, held_out_in_parts)
