"""YAML recipe + `--key value` overrides -> a checked `Recipe`; nothing heavy is imported.

A recipe is one flat mapping for one stage. Its keys are those of the installed TRL config of that stage, of TRL's
ModelConfig and ScriptArguments, and the few of `own_keys.py`. Every error is one line:
file, line, key, what was found, what is allowed, the nearest key.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.errors import RecipeError
from reasoning_ext.fields import (
    DPO_CONFIG,
    GRPO_CONFIG,
    MODEL_CONFIG,
    SCRIPT_ARGUMENTS,
    SFT_CONFIG,
    Key,
    class_keys,
    dataclass_keys,
)
from reasoning_ext.own_keys import RENAMED, STAGES, Evaluation, Preferences, Rollouts, Sampling, Shared, Supervised
from reasoning_ext.shown import without_secrets
from reasoning_ext.yaml_reading import parse_value, read_yaml

GENERATION_KEYS = (
    "output_dir", "seed", "use_cpu", "trust_remote_code", "per_device_eval_batch_size", "num_generations",
    "max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs",
    "model_init_kwargs", "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_model_impl",
)  # fmt: skip
MANAGED = {
    "resume_from_checkpoint": "`run` finds the last complete checkpoint in output_dir by itself",
    "hub_token": "a token is read from the environment variable HF_TOKEN alone",
    "local_rank": "`accelerate launch` sets it",
    "ignore_bias_buffers": "nothing here reads it",
    "include_for_metrics": "nothing here reads it",
    "assistant_only_loss": "the completion alone is trained on; see train_on and assistant_turns",
    "completion_only_loss": "the completion alone is trained on; see train_on",
    "dataset_text_field": "rows have prompt and completion; see rename_columns",
    "truncation_mode": "no row is ever cut; see max_length and overlong_rows",
}
NAMES = (
    "output_dir", "dataset_name", "dataset_config", "model_name_or_path", "chat_template_path", "dataset_format", "datasets",
    "decontaminate", "reward_funcs", "logging_dir", "deepspeed", "gen_kwargs",
)  # fmt: skip


JSON_FILES = ("accelerator_config", "deepspeed", "fsdp_config")  # or what such a file holds


@dataclass
class Recipe:
    """A checked recipe.

    Attributes:
        path: the YAML file.
        stage: one of `STAGES`.
        values: what the recipe and the overrides set, in the file's order.
        keys: every key the stage knows.
        lines: line of each key path, `("reward_funcs", 0, "math_answer", "weight") -> 12`; 0 for overrides.
    """

    path: Path
    stage: str
    values: dict[str, Any]
    keys: dict[str, Key]
    lines: dict[tuple, int]

    @property
    def folder(self) -> Path:
        """The folder that `./` paths in the recipe are relative to."""
        return self.path.parent

    @property
    def output_dir(self) -> Path:
        """The run's folder, relative to the current folder as in TRL."""
        return Path(self.values["output_dir"])

    def get(self, name: str) -> Any:
        """Return the value of a key, or the installed class's default."""
        return self.values.get(name, self.keys[name].default)

    def local(self, value: str) -> str:
        """Resolve a path that starts with `./` or `../` against the recipe's folder; leave anything else alone."""
        return os.path.abspath(self.folder / value) if value.startswith(("./", "../")) else value

    def config_values(self, classes: tuple) -> dict[str, Any]:
        """Return the values that belong to the given classes, to build TRL's config with."""
        known = class_keys(*classes)
        values = {name: value for name, value in self.values.items() if name in known}
        for (
            name,
            value,
        ) in values.items():  # `temperature: 2` is refused when tokens are drawn; steps are counts or shares
            if type(value) is int and known[name].annotation.startswith("float") and not name.endswith("_steps"):
                values[name] = float(value)
        return values | {name: self.local(v) for name in JSON_FILES if isinstance(v := values.get(name), str)}

    def error(self, path: str | tuple, problem: str) -> RecipeError:
        """Build the one-line error for a key or a path into a key's value."""
        path = (path,) if isinstance(path, str) else path
        return RecipeError(f"{_where(self.path, self.lines, path)}: {'.'.join(map(str, path))}: {problem}")


def load_recipes(
    paths: Iterable[str | Path], overrides: dict[str, str] | None = None, errors: list[RecipeError] | None = None
) -> list[Recipe]:
    """Load recipes and folders of numbered recipes, in order.

    Args:
        paths: YAML files, or folders whose `*.yaml` files are taken in the order of their leading numbers.
        overrides: `{key: value as on the command line}`; each applies to the recipes whose stage knows the key.
        errors: gets every error, in the place of the first being raised; wrong keys are left out of the recipes then.

    Raises:
        RecipeError: a file is missing or wrong, or no recipe knows an override's key.
    """
    overrides = overrides or {}
    recipes = []
    for path in paths:
        try:
            files = expand(Path(path))
        except RecipeError as error:
            _report(error, Path(path), errors)
            continue
        for file in files:
            try:
                recipes.append(load_recipe(file, overrides, strict=False, errors=errors))
            except RecipeError as error:
                _report(error, file, errors)
    for key in overrides if recipes else ():
        if not any(key in recipe.keys for recipe in recipes):
            known = sorted({name for recipe in recipes for name in recipe.keys})
            stages = ", ".join(sorted({recipe.stage for recipe in recipes}))
            problem = f"--{key}: unknown key (found --{key} {overrides[key][:200]}); {_nearest(key, known, stages)}"
            _report(RecipeError(problem), None, errors)
    return recipes


def _report(error: RecipeError, file: Path | None, errors: list[RecipeError] | None) -> None:
    """Raise an error, or put it on a list."""
    error.file = file
    if errors is None:
        raise error
    errors.append(error)


def load_recipe(
    path: Path,
    overrides: dict[str, str] | None = None,
    strict: bool = True,
    errors: list[RecipeError] | None = None,
) -> Recipe:
    """Load one recipe and check every key and value on its own; what needs several keys is checked in `checks`.

    Args:
        path: the YAML file.
        overrides: as in `load_recipes`.
        strict: refuse overrides that this stage does not know, instead of leaving them to other recipes.
        errors: as in `load_recipes`; what keeps the recipe from being read at all is raised nevertheless.

    Raises:
        RecipeError: see the module's text.
    """
    values, lines = _with_underscores(path, *read_yaml(path))
    stage = values.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        near = difflib.get_close_matches(str(stage), STAGES, 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        found = f"found {_short(stage)}" if "stage" in values else "the key is missing"
        raise RecipeError(f"{_where(path, lines, ('stage',))}: stage: {found}, allowed: {', '.join(STAGES)}{hint}")
    keys = stage_keys(stage)
    for key, text in (overrides or {}).items():
        if key == "stage":
            raise RecipeError("--stage: a recipe's stage cannot be overridden; write a recipe for the other stage")
        if key in keys or strict:
            value = _override(key, text)
            dotted = isinstance(value, str) and value.startswith(("./", "../")) and key != "output_dir"
            values[key] = os.path.abspath(value) if dotted else value
            lines = {place: line for place, line in lines.items() if place[0] != key} | {(key,): 0}
    values = {key: _at_home(value) for key, value in values.items()}
    without_secrets(values)  # from here on nothing says them
    recipe = Recipe(path, stage, values, keys, lines)
    for key, value in list(values.items()):
        if error := _key_error(recipe, key, value):
            _report(error, path, errors)
            del values[key]
    return recipe


def _with_underscores(
    path: Path, values: dict[str, Any], lines: dict[tuple, int]
) -> tuple[dict[str, Any], dict[tuple, int]]:
    """Return values and lines with `learning-rate` read as `learning_rate`."""
    for key in [key for key in values if "-" in key]:
        name = key.replace("-", "_")
        if name in values:
            problem = f"found twice, as {key} and as {name}, first on line {min(lines[(key,)], lines[(name,)])}"
            raise RecipeError(f"{path}:{max(lines[(key,)], lines[(name,)])}: {name}: {problem}; allowed: once")
        values = {name if old == key else old: value for old, value in values.items()}
        lines = {(name, *place[1:]) if place[0] == key else place: line for place, line in lines.items()}
    return values, lines


def _at_home(value: Any) -> Any:
    """Write `~/x` out, wherever it stands: what is a path is one path for all who read it."""
    if isinstance(value, list):
        return [_at_home(part) for part in value]
    if isinstance(value, dict):
        return {key: _at_home(part) for key, part in value.items()}
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def _name_problem(value: Any) -> str | None:
    """Say that a path, or one within a list or mapping, is longer than any file's can be."""
    if isinstance(value, list | dict):
        parts = value if isinstance(value, list) else [*value, *value.values()]
        return next((problem for part in parts if (problem := _name_problem(part))), None)
    long = isinstance(value, str) and (
        len(value) > 4000 or any(len(os.fsencode(part)) > 255 for part in value.split("/"))
    )
    return f"found a name of {len(value)} characters, allowed: 255 between two slashes" if long else None


def _key_error(recipe: Recipe, key: str, value: Any) -> RecipeError | None:
    keys, stage = recipe.keys, recipe.stage
    if key not in keys:
        return recipe.error(key, f"unknown key (found {key}: {_short(value)}); {_nearest(key, list(keys), stage)}")
    if key in MANAGED:
        return recipe.error(key, f"not allowed in a recipe (found {value!r}): {MANAGED[key]}")
    if key in NAMES and (problem := _name_problem(value)):
        return recipe.error(key, problem)
    problem = keys[key].problem(value)
    owner = f" ({keys[key].owner})" if " of " in keys[key].owner else ""  # our own keys' classes say nothing to a user
    return recipe.error(key, f"{problem}{_hint(value, keys[key])}{owner}") if problem else None


def stage_keys(stage: str) -> dict[str, Key]:
    """Return every key a stage knows: TRL's config of that stage, ModelConfig, ScriptArguments and ours."""
    common = class_keys(*SCRIPT_ARGUMENTS) | class_keys(*MODEL_CONFIG) | dataclass_keys(Shared)
    if stage == "sft":
        return common | class_keys(*SFT_CONFIG) | dataclass_keys(Shared) | dataclass_keys(Supervised)
    if stage == "dpo":
        return common | class_keys(*DPO_CONFIG) | dataclass_keys(Preferences)
    grpo = class_keys(*GRPO_CONFIG)
    if stage == "grpo":
        return common | grpo | {"chat_template_kwargs": common["chat_template_kwargs"]} | dataclass_keys(Rollouts)
    generation = {name: grpo[name] for name in GENERATION_KEYS if name in grpo}
    training_only = {
        "dataset_train_split" if stage == "eval" else "dataset_test_split",
        "use_peft",
        "use_dora",
        "use_rslora",
        *(("deduplicate", "decontaminate") if stage == "eval" else ()),
    }
    common = {name: key for name, key in common.items() if name not in training_only and not name.startswith("lora_")}
    return common | generation | dataclass_keys(Sampling if stage == "sample" else Evaluation)


def expand(path: Path) -> list[Path]:
    """Return the recipes of a folder in the order of their numbers, or a file by itself."""
    if not os.path.isdir(path):
        return [path]
    files = [*path.glob("*.yaml"), *path.glob("*.yml")]
    if not files:
        raise RecipeError(f"{path}: no recipe in this folder; it should hold files such as 1_sft.yaml, 2_grpo.yaml")
    return sorted(files, key=lambda f: (int(m.group()) if (m := re.match(r"\d+", f.name)) else 10**9, f.name))


def _where(path: Path, lines: dict[tuple, int], key: tuple) -> str:
    for end in range(len(key), 0, -1):
        line = lines.get(key[:end])
        if line is not None:
            return f"{path}:{line}" if line else f"{path} with --{key[0]} from the command line"
    return str(path)


def _nearest(key: str, known: list[str], stage: str) -> str:
    others = [other for other in STAGES if key in stage_keys(other)]
    if others:
        return f"stage {', '.join(others)} has this key, stage {stage} has not"
    if key in RENAMED:
        name = RENAMED[key]
        having = ", ".join(other for other in STAGES if name in stage_keys(other))
        missing = "" if " " in name or name in known else f", which stage {having} has, stage {stage} has not"
        return name if " " in name else f"its name here is {name}{missing}"
    near = difflib.get_close_matches(key, known, 1, cutoff=0.0)
    return f"the nearest key of stage {stage} is {near[0]}"


def _short(value: Any) -> str:
    """Write a value, of a long one the beginning."""
    return text if len(text := repr(value)) <= 200 else text[:200] + " ..."


def _hint(value: Any, key: Key) -> str:
    if isinstance(value, str) and "str" not in key.annotation:
        return "; write it without quotes" if re.fullmatch(r"[-+.\deE]+|true|false|null", value.strip()) else ""
    if isinstance(value, str) and key.annotation.startswith("list"):
        return f"; write [{value}]"
    if isinstance(value, str) and key.choices:
        near = difflib.get_close_matches(value, key.choices, 1)
        return f"; the nearest is {near[0]}" if near else ""
    return "; write it in quotes" if "str" in key.annotation and not isinstance(value, dict | list | None) else ""


def _override(key: str, text: str) -> Any:
    try:
        return parse_value(text)
    except ValueError as error:
        raise RecipeError(f"--{key}: found {text!r}, which is no YAML value: {error}") from error
