"""Run recipes one after another: check all of them, skip what is done, go on with what was cut off, hand outputs on.

Everything that can be checked without torch is checked for all recipes before the first one starts.
"""

import contextlib
import importlib
import time
from pathlib import Path

from reasoning_ext.checkpoints import settle
from reasoning_ext.errors import KeyProblem
from reasoning_ext.files import DiskError
from reasoning_ext.named_inputs import code_line, input_sources, named_code, reads_earlier
from reasoning_ext.own_keys import TRAINED
from reasoning_ext.plugins import without_code
from reasoning_ext.preflight import check_data, check_recipe
from reasoning_ext.process import free_memory, quiet
from reasoning_ext.recipe import Recipe, RecipeError
from reasoning_ext.refusals import named_refusals
from reasoning_ext.reward_loading import RewardSpec
from reasoning_ext.run_dir import (
    RunDir,
    RunDirError,
    fingerprint,
    finish,
    has_begun,
    is_done,
    is_main,
    locked,
    open_run,
    other_choice,
    refuse_other_recipe,
    say,
    world_size,
)

STAGE_FUNCTIONS = {
    "sft": "reasoning_ext.sft:run_sft",
    "grpo": "reasoning_ext.grpo:run_grpo",
    "dpo": "reasoning_ext.dpo:run_dpo",
    "sample": "reasoning_ext.sample:run_sample",
    "eval": "reasoning_ext.evaluate:run_eval",
}
DATA_PARALLEL = TRAINED  # under `accelerate launch`


def run_recipes(recipes: list[Recipe]) -> int:
    """Check and run recipes in order.

    Returns:
        0, or the exit code for the signal that stopped a stage, 130 for Ctrl-C, which goes on when it is run again.

    Raises:
        RecipeError: a recipe, its data set or its folder is wrong; nothing has been started then.
        ModelError, DataError: a model or data set turned out to be unusable when its stage began.
    """
    try:
        checked = check_all(recipes)
    except RecipeError:
        if is_main():
            raise
        return 2  # the first process says why
    from reasoning_ext.model import prepare_backend
    from reasoning_ext.unsloth_backend import wants_standby

    for recipe in recipes:  # Unsloth wants to be imported before TRL, whichever recipe comes first
        prepare_backend(recipe.get("backend"), any(map(wants_standby, recipes)))
    _inspect_all(recipes)
    for recipe, specs in zip(recipes, checked, strict=True):
        with contextlib.ExitStack() as held:
            code = _run_one(recipe, specs, held)
        if code:
            say(f"{recipe.path.stem}: stopped; run the same command again to go on")
            return code
    return 0


def _run_one(recipe: Recipe, specs: list[RewardSpec], held: contextlib.ExitStack) -> int:
    """Run a recipe that has been checked, unless it is done; `held` lets its folder go again."""
    begun, other = has_begun(recipe.output_dir), other_choice(recipe.output_dir, recipe.values)
    run = _open(recipe, specs, held)
    if run.done:
        say(f"{recipe.path.stem}: done already, skipped ({run.path})")
        return 0
    goes_on = f"goes on from {run.checkpoint}" if run.checkpoint else f"goes on in {run.path}" if begun else ""
    goes_on += f" {other}" if other else ""
    say(f"{recipe.path.stem}: " + (goes_on or f"starts in {run.path}"))
    started = time.monotonic()
    code = _run_stage(recipe, run)
    if code:
        return code
    seconds = time.monotonic() - started
    if is_main():
        finish(run.path, seconds)
    _wait()
    say(f"{recipe.path.stem}: done in {seconds:.0f} s ({run.path})")
    return 0


def check_all(recipes: list[Recipe]) -> list[list[RewardSpec]]:
    """Check every recipe and what it names, without torch, the rows in the first process alone; return each one's rewards.

    Raises:
        RecipeError: the first thing that is wrong.
    """
    made: list[Path] = []
    for recipe in recipes:
        with without_code():  # what there is to run is said first
            check_recipe(recipe, made)
        if recipe.output_dir in made:
            raise recipe.error(
                "output_dir", f"found {recipe.output_dir}, which an earlier recipe writes to; allowed: one a recipe"
            )
        try:
            refuse_other_recipe(recipe.output_dir, recipe.values)
        except RunDirError as error:
            raise recipe.error("output_dir", str(error)) from error
        made.append(recipe.output_dir)
    for recipe in recipes:
        if not has_begun(recipe.output_dir) and (code := named_code(recipe)):
            say(f"{recipe.path.stem}: {code_line(code)}")
    checked = [check_recipe(recipe, made[:i]) for i, recipe in enumerate(recipes)]
    backends = {recipe.get("backend") for recipe in recipes if recipe.stage in DATA_PARALLEL}
    if len(backends) > 1:
        raise recipes[0].error(
            "backend", "found trl and unsloth among these recipes; Unsloth patches TRL, so run them one by one"
        )
    for recipe, specs in zip(recipes, checked, strict=True):
        if is_main() and not is_done(recipe.output_dir, recipe.values) and not reads_earlier(recipe, made):
            check_data(recipe, specs)
    return checked


def _inspect_all(recipes: list[Recipe]) -> None:
    """Do what `check` does, on the first rows of each recipe that has not begun, and print its warnings.

    Raises:
        RecipeError: the first error of the first recipe that has one.
    """
    if not is_main():
        return
    for i, recipe in enumerate(recipes):
        if has_begun(recipe.output_dir):
            continue
        from reasoning_ext.check import Result

        result = Result(recipe, recipes[:i], offline=False, errors=[], whole=False)
        for finding in result.findings:
            if finding.level == "error":
                raise recipe.error(finding.key, finding.text)
            if finding.level == "warning":
                say(f"{recipe.path.stem}: warning: {finding.key}: {finding.text}")
        if result.errors:
            raise RecipeError(result.errors[0])


def _open(recipe: Recipe, specs: list[RewardSpec], held: contextlib.ExitStack) -> RunDir:
    """Open a recipe's folder, which the first process keeps to itself as long as `held` is open."""
    inputs = {what: fingerprint(source) for what, source in input_sources(recipe, specs).items()}
    try:
        if is_main() and not is_done(recipe.output_dir, recipe.values):
            held.enter_context(locked(recipe.output_dir))
            for line in settle(recipe.output_dir):
                say(f"{recipe.path.stem}: warning: {line}")
        return open_run(recipe.output_dir, recipe.values, inputs, recipe.path)
    except (RunDirError, DiskError) as error:
        raise recipe.error("output_dir", str(error)) from error


def _run_stage(recipe: Recipe, run: RunDir) -> int:
    from reasoning_ext.model import prepare_backend

    try:
        prepare_backend(recipe.get("backend"))
        quiet()
        _disable_caching()
        module, _, function = STAGE_FUNCTIONS[recipe.stage].partition(":")
        stage = getattr(importlib.import_module(module), function)
        with named_refusals(recipe.values):
            return stage(recipe, run)
    except KeyProblem as error:
        raise recipe.error(error.key, str(error)) from error
    finally:
        free_memory()


def _disable_caching() -> None:
    """Let nothing that is made of rows come from a cache: it knows a format by its name, whatever its file says now."""
    import datasets

    datasets.disable_caching()


def _wait() -> None:
    """Let the other processes of `accelerate launch` come this far, so that they see what the main one wrote."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
