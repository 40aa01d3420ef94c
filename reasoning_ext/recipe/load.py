"""YAML recipe + `--key value` overrides -> a checked `Recipe`; nothing heavy is imported.

A recipe is one flat mapping for one stage. Its keys are those of the installed TRL config of that stage, of TRL's
ModelConfig and ScriptArguments, and the few of `keys.py`. Every error is one line:
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

from reasoning_ext.errors import Level, Problem, UserError, dotted
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import MANAGED, nearest, stage_keys
from reasoning_ext.recipe.trl_fields import Key, class_keys
from reasoning_ext.recipe.yaml_reading import parse_value, read_yaml
from reasoning_ext.shown import without_secrets

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

    def refused(self, *keys: str) -> bool:
        """Tell whether the recipe sets one of the keys to a value that was refused, so that no more should be said of it."""
        return any((key,) in self.lines and key not in self.values for key in keys)

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

    def problem(
        self, path: str | tuple, found: str, allowed: str = "", hint: str = "", code: str = "", level: Level = "error"
    ) -> Problem:
        """Say what is wrong with a key, or with what a path leads to in a key's value, and where that stands."""
        path = (path,) if isinstance(path, str) else path
        file, line = str(self.path), _line(self.lines, path)
        found, allowed, hint = str(found), str(allowed), str(hint)
        return Problem(
            code=code, level=level, file=file, line=line, key=dotted(path), found=found, allowed=allowed, hint=hint
        )

    def error(
        self, path: str | tuple, found: str, allowed: str = "", hint: str = "", code: str = "wrong_value"
    ) -> UserError:
        """Return the same to be raised."""
        return UserError(self.problem(path, found, allowed, hint, code))

    def placed(self, told: UserError | Problem) -> Problem:
        """Return a problem at its key's place in this recipe; one that has a place, or is about no key, as it is."""
        problem = told.problem if isinstance(told, UserError) else told
        path = (told.path if isinstance(told, UserError) else ()) or ((problem.key,) if problem.key else ())
        if problem.file or not path:
            return problem
        return self.problem(path, problem.found, problem.allowed, problem.hint, problem.code, problem.level)


def load_recipes(
    paths: Iterable[str | Path], overrides: dict[str, str] | None = None, problems: list[Problem] | None = None
) -> list[Recipe]:
    """Load recipes and folders of numbered recipes, in order.

    Args:
        paths: YAML files, or folders whose `*.yaml` files are taken in the order of their leading numbers.
        overrides: `{key: value as on the command line}`; each applies to the recipes whose stage knows the key.
        problems: gets every problem, in the place of the first being raised; wrong keys are left out of the recipes then.

    Raises:
        UserError: a file is missing or wrong, or no recipe knows an override's key.
    """
    overrides = overrides or {}
    recipes = []
    for path in paths:
        try:
            files = expand(Path(path))
        except UserError as error:
            _report(error.problem, problems)
            continue
        for file in files:
            try:
                recipes.append(load_recipe(file, overrides, strict=False, problems=problems))
            except UserError as error:
                _report(error.problem, problems)
    for key in overrides if recipes else ():
        if not any(key in recipe.keys for recipe in recipes):
            known = sorted({name for recipe in recipes for name in recipe.keys})
            stages = ", ".join(sorted({recipe.stage for recipe in recipes}))
            found = f"--{key}: unknown key (found --{key} {overrides[key][:200]})"
            hint = nearest(key, known, stages)
            _report(Problem(code="unknown_key", key=f"--{key}", found=found, hint=hint), problems)
    return recipes


def _report(problem: Problem, problems: list[Problem] | None) -> None:
    """Raise a problem, or put it on a list."""
    if problems is None:
        raise UserError(problem)
    problems.append(problem)


def load_recipe(
    path: Path,
    overrides: dict[str, str] | None = None,
    strict: bool = True,
    problems: list[Problem] | None = None,
) -> Recipe:
    """Load one recipe and check every key and value on its own; what needs several keys is checked in `rules`.

    Args:
        path: the YAML file.
        overrides: as in `load_recipes`.
        strict: refuse overrides that this stage does not know, instead of leaving them to other recipes.
        problems: as in `load_recipes`; what keeps the recipe from being read at all is raised nevertheless.

    Raises:
        UserError: see the module's text.
    """
    values, lines = _with_underscores(path, *read_yaml(path))
    stage = values.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        near = difflib.get_close_matches(str(stage), STAGES, 1)
        hint = f"the nearest is {near[0]}" if near else ""
        found = f"found {_short(stage)}" if "stage" in values else "the key is missing"
        raise Recipe(path, "", values, {}, lines).error("stage", found, ", ".join(STAGES), hint, code="unknown_stage")
    keys = stage_keys(stage)
    for key, text in (overrides or {}).items():
        if key == "stage":
            found, hint = "--stage: a recipe's stage cannot be overridden", "write a recipe for the other stage"
            raise UserError(Problem(code="unknown_stage", key="--stage", found=found, hint=hint))
        if key in keys or strict:
            value = _override(key, text)
            dotted = isinstance(value, str) and value.startswith(("./", "../")) and key != "output_dir"
            values[key] = os.path.abspath(value) if dotted else value
            lines = {place: line for place, line in lines.items() if place[0] != key} | {(key,): 0}
    values = {key: _at_home(value) for key, value in values.items()}
    without_secrets(values)  # from here on nothing says them
    recipe = Recipe(path, stage, values, keys, lines)
    for key, value in list(values.items()):
        if problem := _key_problem(recipe, key, value):
            _report(problem, problems)
            del values[key]
    return recipe


def _with_underscores(
    path: Path, values: dict[str, Any], lines: dict[tuple, int]
) -> tuple[dict[str, Any], dict[tuple, int]]:
    """Return values and lines with `learning-rate` read as `learning_rate`."""
    for key in [key for key in values if "-" in key]:
        name = key.replace("-", "_")
        if name in values:
            found = f"found twice, as {key} and as {name}, first on line {min(lines[(key,)], lines[(name,)])}"
            line = max(lines[(key,)], lines[(name,)])
            raise UserError(
                Problem(code="doubled_key", file=str(path), line=line, key=name, found=found, hint="allowed: once")
            )
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


def _long_name(value: Any) -> tuple[str, str] | None:
    """Say that a path, or one within a list or mapping, is longer than any file's can be: what is there, what could be."""
    if isinstance(value, list | dict):
        parts = value if isinstance(value, list) else [*value, *value.values()]
        return next((long for part in parts if (long := _long_name(part))), None)
    if isinstance(value, str) and (len(value) > 4000 or any(len(os.fsencode(part)) > 255 for part in value.split("/"))):
        return f"found a name of {len(value)} characters", "255 between two slashes"
    return None


def _key_problem(recipe: Recipe, key: str, value: Any) -> Problem | None:
    """Say what is wrong with a key and its value by themselves."""
    keys, stage = recipe.keys, recipe.stage
    if key not in keys:
        found, hint = f"unknown key (found {key}: {_short(value)})", nearest(key, list(keys), stage)
        return recipe.problem(key, found, hint=hint, code="unknown_key")
    if key in MANAGED:
        return recipe.problem(key, f"not allowed in a recipe (found {value!r}): {MANAGED[key]}", code="managed_key")
    if key in NAMES and (long := _long_name(value)):
        return recipe.problem(key, *long, code="long_name")
    if (misfit := keys[key].misfit(value)) is None:
        return None
    owner = f" ({keys[key].owner})" if " of " in keys[key].owner else ""  # our own keys' classes say nothing to a user
    found, allowed = misfit
    hint = _hint(value, keys[key])
    allowed, hint = (allowed, hint + owner) if hint else (allowed + owner, "")
    return recipe.problem(key, found, allowed, hint, code="wrong_type")


def expand(path: Path) -> list[Path]:
    """Return the recipes of a folder in the order of their numbers, or a file by itself."""
    if not os.path.isdir(path):
        return [path]
    files = [*path.glob("*.yaml"), *path.glob("*.yml")]
    if not files:
        hint = "it should hold files such as 1_sft.yaml, 2_grpo.yaml"
        raise UserError(Problem(code="no_recipe", file=str(path), found="no recipe in this folder", hint=hint))
    return sorted(files, key=lambda f: (int(m.group()) if (m := re.match(r"\d+", f.name)) else 10**9, f.name))


def _line(lines: dict[tuple, int], path: tuple) -> int | None:
    """Return the line of a path, or of what it lies in; 0 where that came from the command line."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)


def _short(value: Any) -> str:
    """Write a value, of a long one the beginning."""
    return text if len(text := repr(value)) <= 200 else text[:200] + " ..."


def _hint(value: Any, key: Key) -> str:
    if isinstance(value, str) and "str" not in key.annotation:
        return "write it without quotes" if re.fullmatch(r"[-+.\deE]+|true|false|null", value.strip()) else ""
    if isinstance(value, str) and key.annotation.startswith("list"):
        return f"write [{value}]"
    if isinstance(value, str) and key.choices:
        near = difflib.get_close_matches(value, key.choices, 1)
        return f"the nearest is {near[0]}" if near else ""
    return "write it in quotes" if "str" in key.annotation and not isinstance(value, dict | list | None) else ""


def _override(key: str, text: str) -> Any:
    try:
        return parse_value(text)
    except ValueError as error:
        found = f"--{key}: found {text!r}, which is no YAML value: {error}"
        raise UserError(Problem(code="unreadable_yaml", key=f"--{key}", found=found)) from error
