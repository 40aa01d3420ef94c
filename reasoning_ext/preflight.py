"""What can be found wrong with a recipe before torch is imported: keys that must agree, and what the recipe names.

`check_recipe` needs the YAML alone, `check_data` reads the first rows of the data set. Every error is one line.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from reasoning_ext import combinations, generation_checks, idle_keys, named_inputs
from reasoning_ext.combinations import Errors, refused
from reasoning_ext.data import ROW_COLUMNS, check_columns, columns_of
from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe import Recipe, RecipeError
from reasoning_ext.reward_loading import RewardSpec, needed_columns

REQUIRED = {
    "sft": ("model_name_or_path", "dataset_name", "output_dir"),
    "grpo": ("model_name_or_path", "dataset_name", "reward_funcs", "output_dir"),
    "dpo": ("model_name_or_path", "dataset_name", "output_dir"),
    "sample": ("model_name_or_path", "dataset_name", "reward_funcs", "output_dir"),
    "eval": ("dataset_name", "output_dir"),
}
CHECKED_ROWS = 8


def check_recipe(
    recipe: Recipe, made: Iterable[Path] = (), run: bool = True, problems: list[RecipeError] | None = None
) -> list[RewardSpec]:
    """Check what needs more than one key, and that everything the recipe names exists.

    Args:
        recipe: a recipe whose keys have been checked one by one.
        made: the output_dirs of the recipes that run before this one.
        run: the recipe is about to run, so that its backend must be installed and earlier runs be finished.
        problems: gets everything that is wrong, in the place of the first being raised.

    Returns:
        the recipe's rewards; none where they are wrong.

    Raises:
        RecipeError: the first thing that is wrong.
    """
    made = {Path(path).resolve() for path in made}
    specs: list[RewardSpec] = []
    of_stage: dict[str, Callable[[Recipe], Errors]] = {
        "sft": combinations.sft_errors,
        "grpo": combinations.batch_errors,
        "dpo": combinations.dpo_errors,
    }
    checks = [
        _required_errors(recipe),
        combinations.run_folder_errors(recipe),
        named_inputs.model_errors(recipe, made, run),
        combinations.weight_errors(recipe),
        named_inputs.template_errors(recipe),
        named_inputs.dataset_errors(recipe, made),
        combinations.reward_errors(recipe, specs),
        combinations.tag_errors(recipe),
        of_stage.get(recipe.stage, combinations.generation_errors)(recipe),
        combinations.count_errors(recipe),
        idle_keys.idle_errors(recipe),
        generation_checks.difficulty_errors(recipe),
        *_answering_checks(recipe, specs, run),
        _backend_errors(recipe, run),
    ]
    for errors in checks:
        try:
            for error in errors:
                if problems is None:
                    raise error
                problems.append(error)
        except RecipeError as error:  # raised by what a check reads the recipe with
            if problems is None:
                raise
            if str(error) not in map(str, problems):
                problems.append(error)
    return specs


def _answering_checks(recipe: Recipe, specs: list[RewardSpec], run: bool) -> list[Errors]:
    """Return the checks of the stages that answer prompts; `specs` is filled by the time that they are asked."""
    if recipe.stage not in ("sample", "eval"):
        return []
    checks = [generation_checks.engine_errors(recipe, specs)]
    checks += [generation_checks.selection_errors(recipe, specs)] if recipe.stage == "sample" else []
    return checks + ([generation_checks.missing_engine(recipe)] if run else [])


def _required_errors(recipe: Recipe) -> Errors:
    for key in REQUIRED[recipe.stage]:
        there = recipe.values.get(key) or (key == "dataset_name" and recipe.values.get("datasets") is not None)
        if not there and not refused(recipe, key, *(["datasets"] if key == "dataset_name" else [])):
            yield recipe.error(
                key, f"the key is missing; stage {recipe.stage} needs {', '.join(REQUIRED[recipe.stage])}"
            )


def _backend_errors(recipe: Recipe, run: bool) -> Errors:
    if recipe.get("backend") != "unsloth":
        return
    if run and find_spec("unsloth") is None:
        yield recipe.error(
            "backend", "found unsloth, which is not installed; pip install 'reasoning-ext[unsloth]' or write trl"
        )


def stage_columns(recipe: Recipe, specs: list[RewardSpec]) -> dict[str, str]:
    """Return the columns that a recipe's rows must have, `{column: who needs it}`."""
    needed = ROW_COLUMNS.get(recipe.stage) or {"prompt": f"stage {recipe.stage}"} | needed_columns(specs)
    agrees = recipe.stage == "sample" and recipe.get("min_agreement") is not None
    return {column: who for column, who in needed.items() if not (agrees and column == "answer")}


def check_data(recipe: Recipe, specs: list[RewardSpec]) -> list[dict]:
    """Read and format the first rows of a recipe's data set and check that no column is missing.

    Returns:
        the formatted rows, `CHECKED_ROWS` at the most.

    Raises:
        RecipeError: the data set cannot be read, does not fit its format, or lacks a column.
    """
    from reasoning_ext.row_options import TEST, TRAIN, row_options
    from reasoning_ext.rows import read_rows

    try:
        rows = read_rows(row_options(recipe), TEST if recipe.stage == "eval" else TRAIN, CHECKED_ROWS)
        needed = stage_columns(recipe, specs)
        check_columns(columns_of(rows), needed)
    except KeyProblem as error:
        raise data_error(recipe, error) from error
    return list(rows)


def data_error(recipe: Recipe, error: KeyProblem) -> RecipeError:
    """Say where a recipe is wrong whose rows do not fit: at the key to blame, or at the data set where that is left out.

    Args:
        recipe: the recipe.
        error: what a data set, a format or a filter said.
    """
    key, text = error.key, str(error)
    name = recipe.values.get("dataset_name")
    if "needs the column" in text and name and Path(name).suffix == ".csv":
        text += "; the first line of a CSV file names its columns"
    if key == "dataset_name" and recipe.values.get("datasets"):
        return recipe.error("datasets", text)
    if key != "dataset_format" or key in recipe.values:
        return recipe.error(key, text)
    hint = "; say how its rows are read with dataset_format or rename_columns" if "needs the column" in text else ""
    return recipe.error("dataset_name", text + hint)


def reward_weights(recipe: Recipe, specs: list[RewardSpec]) -> list[float]:
    """Return one weight a reward: `reward_weights`, else each one's own, of a schedule the largest."""
    own = [max((weight for _, weight in spec.schedule), key=abs, default=spec.weight) for spec in specs]
    return recipe.values.get("reward_weights") or own
