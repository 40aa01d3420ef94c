"""YAML recipe + `--key value` overrides -> a checked `Recipe`; nothing heavy is imported.

A recipe is one flat mapping for one stage; `known_keys` tells its keys. Every error is one line: file, line, key, what was
found, what is allowed, the nearest key.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.errors import Level, Problem, UserError, dotted
from reasoning_ext.recipe.benchmarks import set_defaults
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import MANAGED, nearest, stage_keys
from reasoning_ext.recipe.trl_fields import Key, class_keys
from reasoning_ext.recipe.yaml_reading import parse_value, read_yaml
from reasoning_ext.shown import without_secrets

NAMES = (
    "output_dir", "dataset_name", "dataset_config", "model_name_or_path", "chat_template_path", "dataset_format", "datasets",
    "decontaminate", "reward_funcs", "logging_dir", "deepspeed", "gen_kwargs", "tools", "environment",
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
        for name, value in values.items():  # TRL wants floats, but steps are counts or shares
            if type(value) is int and known[name].annotation.startswith("float") and not name.endswith("_steps"):
                values[name] = float(value)
            elif name in JSON_FILES and isinstance(value, str):
                values[name] = self.local(value)
        return values

    def problem(
        self, path: str | tuple, found: object, allowed: object = "", hint: str = "", code: str = "", level: Level = "error"
    ) -> Problem:  # fmt: skip
        """Say what is wrong with a key, or with what a path leads to in a key's value, and where that stands."""
        path = (path,) if isinstance(path, str) else path
        above = (self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines)
        said = {"found": str(found), "allowed": str(allowed), "hint": hint}
        return Problem(code=code, level=level, file=str(self.path), line=next(above, None), key=dotted(path), **said)

    def error(
        self, path: str | tuple, found: object, allowed: object = "", hint: str = "", code: str = "wrong_value"
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
        problems: gets every problem, in the place of the first being raised as a `UserError`; wrong keys are left out then.
    """
    overrides, recipes = overrides or {}, list[Recipe]()
    for path in paths:
        files: list[Path] = []
        with _reported(problems):
            files = expand(Path(path))
        for file in files:
            with _reported(problems):
                recipes.append(load_recipe(file, overrides, strict=False, problems=problems))
    known = {name for recipe in recipes for name in recipe.keys}
    for key in [key for key in overrides if recipes and key not in known]:
        found = f"--{key}: unknown key (found --{key} {overrides[key][:200]})"
        hint = nearest(key, sorted(known), ", ".join(sorted({recipe.stage for recipe in recipes})))
        with _reported(problems):
            raise UserError(Problem(code="unknown_key", key=f"--{key}", found=found, hint=hint))
    return recipes


@contextlib.contextmanager
def _reported(problems: list[Problem] | None) -> Iterator[None]:
    """Put the problem that is raised on a list, if there is one."""
    try:
        yield
    except UserError as error:
        if problems is None:
            raise
        problems.append(error.problem)


def load_recipe(
    path: Path, overrides: dict[str, str] | None = None, strict: bool = True, problems: list[Problem] | None = None
) -> Recipe:
    """Load one recipe and check every key and value on its own; what needs several keys is checked in `rules`.

    Args:
        path, overrides, problems: as in `load_recipes`; what keeps the file from being read at all is raised nevertheless.
        strict: refuse overrides that this stage does not know, instead of leaving them to other recipes.
    """
    values, lines = read_yaml(path)
    stage = values.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        found = f"found {_short(stage)}" if "stage" in values else "the key is missing"
        raise Recipe(path, "", values, {}, lines).error("stage", found, ", ".join(STAGES), code="unknown_stage")
    keys = stage_keys(stage)
    for key, text in (overrides or {}).items():
        if key in keys or strict:
            values[key] = _override(key, text)
            lines = {place: line for place, line in lines.items() if place[0] != key} | {(key,): 0}
    values = {key: _at_home(value) for key, value in values.items()}
    without_secrets(values)  # from here on nothing says them
    recipe = Recipe(path, stage, values, keys, lines)
    for key, value in list(values.items()):
        if problem := _key_problem(recipe, key, value):
            del values[key]
            with _reported(problems):
                raise UserError(problem)
    set_defaults(recipe)
    return recipe


def _override(key: str, text: str) -> Any:
    """Read a value of the command line, whose paths are relative to the current folder."""
    if key == "stage":
        found, hint = "--stage: a recipe's stage cannot be overridden", "write a recipe for the other stage"
        raise UserError(Problem(code="unknown_stage", key="--stage", found=found, hint=hint))
    try:
        value = parse_value(text)
    except ValueError as error:
        found = f"--{key}: found {text!r}, which is no YAML value: {error}"
        raise UserError(Problem(code="unreadable_yaml", key=f"--{key}", found=found)) from error
    from_here = isinstance(value, str) and value.startswith(("./", "../")) and key != "output_dir"
    return os.path.abspath(value) if from_here else value


def _at_home(value: Any) -> Any:
    """Write `~/x` out, wherever it stands: what is a path is one path for all who read it."""
    if isinstance(value, list):
        return [_at_home(part) for part in value]
    if isinstance(value, dict):
        return {key: _at_home(part) for key, part in value.items()}
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)


def _key_problem(recipe: Recipe, key: str, value: Any) -> Problem | None:
    """Say what is wrong with a key and its value by themselves."""
    if key not in recipe.keys:
        found, hint = f"unknown key (found {key}: {_short(value)})", nearest(key, list(recipe.keys), recipe.stage)
        return recipe.problem(key, found, hint=hint, code="unknown_key")
    if key in MANAGED:
        return recipe.problem(key, f"not allowed in a recipe (found {value!r}): {MANAGED[key]}", code="managed_key")
    for text in _texts(value) if key in NAMES else ():
        if len(text) > 4000 or any(len(os.fsencode(part)) > 255 for part in text.split("/")):
            found, allowed = f"found a name of {len(text)} characters", "255 between two slashes"
            return recipe.problem(key, found, allowed, code="long_name")
    known = recipe.keys[key]
    if (misfit := known.misfit(value)) is None:
        return None
    owner = f" ({known.owner})" if " of " in known.owner else ""  # our own keys' classes say nothing to a user
    hint = f"write [{value}]" if isinstance(value, str) and known.annotation.startswith("list") else ""
    return recipe.problem(key, misfit[0], misfit[1] + owner, hint, code="wrong_type")


def _short(value: Any) -> str:
    return text if len(text := repr(value)) <= 200 else text[:200] + " ..."


def expand(path: Path) -> list[Path]:
    """Return the recipes of a folder in the order of their numbers, or a file by itself."""
    if not os.path.isdir(path):
        return [path]
    if files := [*path.glob("*.yaml"), *path.glob("*.yml")]:
        return sorted(files, key=lambda f: (int(m.group()) if (m := re.match(r"\d+", f.name)) else 10**9, f.name))
    hint = "it should hold files such as 1_sft.yaml, 2_grpo.yaml"
    raise UserError(Problem(code="no_recipe", file=str(path), found="no recipe in this folder", hint=hint))


def split_overrides(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Split what stands behind a command into recipes and `--key value` or `--key=value` overrides."""
    paths, overrides, rest, said = list[str](), dict[str, str](), iter(arguments), ""
    for argument in rest:
        if not argument.startswith("--"):
            if said and not argument.endswith(".yaml") and not Path(argument).exists():
                raise UserError(f"{said} {argument}, where {argument} is no recipe, allowed: one value, or '[1, 2]'")
            paths.append(argument)
            continue
        key, equals, value = argument[2:].partition("=")
        key, value = key.replace("-", "_"), value if equals else next(rest, "")
        if not equals and (not value or value.startswith("--")):
            raise UserError(f"--{key}: found no value, allowed: --{key} VALUE or --{key}=VALUE")
        if key in overrides:
            raise UserError(f"--{key}: found twice, allowed: once")
        overrides[key], said = value, f"--{key}: found {value}"
    if not paths:
        raise UserError("found no recipe, allowed: one or more YAML files or folders, then --key value")
    return paths, overrides
