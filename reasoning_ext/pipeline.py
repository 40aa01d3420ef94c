"""Run recipes one after another: check all of them, skip what is done, go on with what was cut off, hand outputs on.

With several seeds all recipes run with the first, then with the next; they are checked once, with the last, the newest.
"""

import contextlib
import importlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from reasoning_ext.check import check
from reasoning_ext.check.keys import OF_MODELS, Checked, broken_rules
from reasoning_ext.check.named_inputs import code_line, input_sources
from reasoning_ext.check.seeds import by_seed
from reasoning_ext.errors import UserError, print_error
from reasoning_ext.recipe.benchmarks import benchmark_line
from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs import folder
from reasoning_ext.runs.checkpoints import settle
from reasoning_ext.runs.files import DiskError
from reasoning_ext.runs.process import free_memory, quiet
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.train.refusals import named_refusals

STAGE_FUNCTIONS = {
    "sft": "reasoning_ext.train.sft:run_sft",
    "grpo": "reasoning_ext.train.grpo:run_grpo",
    "dpo": "reasoning_ext.train.dpo:run_dpo",
    "sample": "reasoning_ext.sample.stage:run_sample",
    "eval": "reasoning_ext.evaluate.stage:run_eval",
}


def run_recipes(recipes: list[Recipe], seeds: Sequence[int] = ()) -> int:
    """Check and run recipes in order, once for each of some seeds, see `check.seeds`.

    Returns:
        0, or the exit code for the signal that stopped a stage, 130 for Ctrl-C, which goes on when it is run again;
        2 where some of several seeds failed, and the others have run.

    Raises:
        UserError: a recipe, its data set or its folder is wrong; nothing has been started then. Or a model or data set turned
            out to be unusable when its stage began.
    """
    groups, checked, failed = by_seed(recipes, seeds) if seeds else [recipes], list[Checked](), list[int]()
    for one in check(groups[-1], run=True, announce=lambda one: _say(one.recipe, code_line(one.code))):
        if one.errors and not folder.is_main():
            return 2  # the first process says why
        one.refuse()
        for problem in one.problems:
            if problem.level == "warning":
                _say(one.recipe, f"warning: {problem.key + ': ' if problem.key else ''}{problem.text}")
        checked.append(one)
    for i, group in enumerate(groups):
        if seeds:
            folder.say(f"seed {seeds[i]}, {i + 1} of {len(seeds)}")
        try:
            code = _run_all([replace(one, recipe=recipe) for one, recipe in zip(checked, group, strict=True)])
        except UserError as error:
            if len(seeds) < 2 or folder.world_size() > 1:  # other processes may not have failed
                raise
            print_error(error)
            failed.append(seeds[i])
            continue
        if code:
            return code
    if failed:
        folder.say(f"failed with seed {', '.join(map(str, failed))}; run the same command again to go on")
    return 2 if failed else 0


def _run_all(checked: list[Checked]) -> int:
    """Run recipes that have been checked in order, see `run_recipes`."""
    for i, one in enumerate(checked):
        with contextlib.ExitStack() as held:
            try:
                code = _run_one(one, held)
            except UserError:
                for other in checked[i + 1 :]:
                    _say(other.recipe, _not_run(other.recipe, one.recipe))
                raise
            if code:
                _say(one.recipe, "stopped; run the same command again to go on")
                return code
    return 0


def _not_run(recipe: Recipe, failed: Recipe) -> str:
    """Say that a recipe was not run since an earlier one failed, and how an evaluation goes on without its model."""
    folders = {label: Path(recipe.local(name)).resolve() for label, name in eval_models(recipe).items()}
    made = [label for label, path in folders.items() if path == failed.output_dir.resolve()]
    without = f"; leave {made[0]} out of its models, and run it alone, to evaluate the others" if made else ""
    return f"not run, since {failed.path.stem} failed{without}"


def _say(recipe: Recipe, text: str) -> None:
    folder.say(f"{recipe.path.stem}: {text}")


def _run_one(checked: Checked, held: contextlib.ExitStack) -> int:
    """Run a recipe that has been checked, unless it is done; `held` lets its folder go again."""
    recipe, specs = checked.recipe, checked.specs
    inputs = {what: folder.fingerprint(source) for what, source in input_sources(recipe, specs).items()}
    begun, other = folder.has_begun(recipe.output_dir), folder.other_choice(recipe.output_dir, recipe.values, inputs)
    run = _open(recipe, inputs, other, held)
    if run.done:
        _say(recipe, f"done already, skipped ({run.path})")
        return 0
    goes_on = f"goes on from {run.checkpoint}" if run.checkpoint else f"goes on in {run.path}" if begun else ""
    goes_on += f" {other}" if other else ""
    _say(recipe, goes_on or f"starts in {run.path}")
    if line := benchmark_line(recipe):
        _say(recipe, line)
    if checked.memory and checked.memory.plan and checked.memory.plan.setup.host and checked.cost:
        _say(recipe, checked.cost)  # a guess for a CPU, beside which stands the time left as the steps tell it
    started = time.monotonic()
    if code := _run_stage(recipe, run, specs):
        return code
    seconds = time.monotonic() - started
    if folder.is_main():
        folder.finish(run.path, seconds)
    if folder.world_size() > 1:  # the other processes of `accelerate launch` see what the main one wrote
        from accelerate import PartialState

        PartialState().wait_for_everyone()
    _say(recipe, f"done in {seconds:.0f} s ({run.path})")
    return 0


def _open(recipe: Recipe, inputs: dict[str, str], other: str, held: contextlib.ExitStack) -> folder.RunDir:
    """Open a recipe's folder, which the first process keeps to itself as long as `held` is open."""
    try:
        if folder.is_main() and (other or not folder.is_done(recipe.output_dir, recipe.values)):
            held.enter_context(folder.locked(recipe.output_dir))
            for line in settle(recipe.output_dir):
                _say(recipe, f"warning: {line}")
        return folder.open_run(recipe.output_dir, recipe.values, inputs, recipe.path)
    except (folder.RunDirError, DiskError) as error:
        raise recipe.error("output_dir", str(error)) from error


def _run_stage(recipe: Recipe, run: folder.RunDir, specs: list[RewardSpec]) -> int:
    from reasoning_ext.models.load import prepare_backend

    for problem in broken_rules(recipe, OF_MODELS):  # the model of an earlier recipe is there only now
        raise UserError(problem)
    rewards = [specs] if "reward_funcs" in recipe.keys else []
    try:
        prepare_backend(recipe.get("backend"))
        quiet()
        # a cache knows a format by its name, whatever its file says now
        importlib.import_module("datasets").disable_caching()
        module, _, function = STAGE_FUNCTIONS[recipe.stage].partition(":")
        with named_refusals(recipe.values):
            stage = partial(getattr(importlib.import_module(module), function), recipe, run, *rewards)
            if recipe.stage not in TRAINED or not recipe.get("guard"):
                return stage()
            from reasoning_ext.evaluate.guard import guarded

            return guarded(recipe, run, stage)
    except UserError as error:
        raise UserError(recipe.placed(error)) from error
    finally:
        free_memory()
