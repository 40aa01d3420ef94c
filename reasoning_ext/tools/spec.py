"""A recipe's `tools` and `environment` -> what each tool is, what the model is told of it, and what bounds it.

    tools:
      - calculator
      - python: {seconds: 5, memory_mb: 512, allow_code_execution: true}
      - search: {corpus: ./notes.jsonl, k: 3}
      - ./my_tools.py:lookup: {table: prices.csv}

What an entry sets of a function's parameters, and what stands behind `*` in its signature, is the recipe's; the others are the
model's. Every tool has the options `seconds`, `memory_mb` and `max_characters`. Paths are relative to the recipe's folder.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem, UserError, one_line
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.plugins import find_plugin
from reasoning_ext.recipe.trl_fields import describe, fits
from reasoning_ext.recipe.user_code import import_file, no_code, parsed, refuse_library, where
from reasoning_ext.tools.bounds import HOMES
from reasoning_ext.tools.bounds import EnvironmentSpec as EnvironmentSpec
from reasoning_ext.tools.bounds import ToolSpec as ToolSpec
from reasoning_ext.tools.facade import Told, facade, methods_of

SEARCH_MEMORY_MB = 4096  # what torch reserves counts too
MOST_SECONDS, MOST_MB = 86_400, 1 << 24  # a day, and 16 TiB: more fits no timer and no address
BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {  # the options that every tool has
    "seconds": (
        lambda value: _is_number(value) and 0 < value <= MOST_SECONDS,
        f"a number above 0, up to {MOST_SECONDS}",
    ),
    "memory_mb": (
        lambda value: type(value) is int and 0 <= value <= MOST_MB,
        f"a whole number up to {MOST_MB}; 0 for no limit",
    ),
    "max_characters": (lambda value: type(value) is int and value > 0, "a whole number above 0"),
}


def parse_tools(recipe: Recipe, wrong: list[UserError] | None = None) -> list[ToolSpec]:
    """Check the entries of `tools`, or raise the first error as `recipe.error` has it (KeyProblem with the entry's path).

    Args:
        recipe: the recipe.
        wrong: gets all errors, in the place of the first being raised; there are no tools then.
    """
    listed = _said(recipe, "tools") or []
    specs, errors = dict[int, ToolSpec](), list[UserError]()
    for i, entry in enumerate([listed] if isinstance(listed, str) else listed):
        try:
            specs[i] = _parse_entry(recipe, i, entry)
        except KeyProblem as error:
            errors.append(_placed(recipe, ("tools", i), error))
    names = [spec.name for spec in specs.values()]
    for nth, (i, spec) in enumerate(specs.items()):
        if spec.name in names[:nth]:
            errors.append(recipe.error(("tools", i), f"found {spec.name} twice", "each name once", code="wrong_tool"))
    return [] if _told(errors, wrong) else list(specs.values())


def parse_environment(recipe: Recipe, wrong: list[UserError] | None = None) -> EnvironmentSpec | None:
    """Check `environment`, or raise the first error; `wrong` as above."""
    if not (entry := _said(recipe, "environment")):
        return None
    try:
        spec = _parse_class(recipe, entry)
        if not no_code():
            taken = {spec.name for spec in parse_tools(recipe, [])} & {told.__name__ for told in environment_told(spec)}
            if taken:
                raise KeyProblem((), f"found the method {min(taken)}, which is a tool's name too", "each name once")
        return spec
    except KeyProblem as error:
        _told([_placed(recipe, ("environment",), error)], wrong)
        return None


def has_tools(recipe: Recipe) -> bool:
    """Tell whether a recipe's model may call anything."""
    return bool(_said(recipe, "tools") or _said(recipe, "environment"))


def template_kwargs(recipe: Recipe) -> dict[str, Any]:
    """Return the arguments of the chat template: the recipe's, and with tools their JSON schemas as `tools`."""
    given = dict(_said(recipe, "chat_template_kwargs") or {})
    if _said(recipe, "tools") is not None or has_tools(recipe):
        given["tools"] = schemas(parse_tools(recipe), parse_environment(recipe))
    return given


def schemas(specs: Sequence[ToolSpec], environment: EnvironmentSpec | None = None) -> list[dict[str, Any]]:
    """Return what the model is told, tools before methods, as TRL does; of ours alone where no code may be run."""
    tools = [tool_told(spec) for spec in specs if spec.is_ours or not no_code()]
    methods = environment_told(environment) if environment and not no_code() else []
    return [told.schema for told in (*tools, *methods)]


def tool_told(spec: ToolSpec) -> Told:
    """Return the part of a tool that is the model's; KeyProblem for one without docstring or types."""
    try:
        function = spec.plugin.load()
    except (Exception, SystemExit) as error:
        raise KeyProblem((), f"{where(spec.plugin.file, error)}: {one_line(error)}", code="wrong_tool") from error
    return facade(spec.name, function, spec.options)


def environment_told(spec: EnvironmentSpec) -> list[Told]:
    """Return an environment's methods as the model may call them, in TRL's order."""
    return [facade(name, method) for name, method in methods_of(environment_type(spec.file, spec.name)).items()]


def _parse_entry(recipe: Recipe, i: int, entry: Any) -> ToolSpec:
    spelling, given = _one(entry)
    try:
        plugin = find_plugin(spelling, HOMES, recipe.folder)
    except LookupError as error:
        raise KeyProblem((spelling,), f"unknown tool (found {spelling}): {error.args[0]}") from error
    known, own = dict(plugin.parameters), dict[str, Any]()  # own: the recipe's in any case, and their defaults
    if ToolSpec(plugin).is_ours or not no_code():
        hidden = [name for name in given if name in known and name not in BOUNDS]
        whole = [*tool_told(ToolSpec(plugin, options=dict.fromkeys(hidden))).whole.parameters.values()]
        own = {p.name: p.default for p in whole if p.kind is p.KEYWORD_ONLY}
        known = _types(plugin.name, whole, given, (spelling,), [*own])
    _refuse_options(spelling, plugin.name, given, known)
    if "allow_code_execution" in known and given.get("allow_code_execution") is not True:
        what = f"{plugin.name} runs what a model wrote, and allow_code_execution is not true"
        raise KeyProblem((spelling, "allow_code_execution"), what, f"`{spelling}: {{allow_code_execution: true}}`")
    options = {name: value for name, value in given.items() if name in known and (name in own or name not in BOUNDS)}
    bounds_itself = bool({"seconds", "memory_mb"} & own.keys())
    spec = ToolSpec(plugin, bounds_itself, options=options, folder=recipe.folder.resolve())
    if spec.is_ours and spec.name == "search":
        spec = replace(spec, memory_mb=SEARCH_MEMORY_MB)
    spec = replace(spec, **_bounds(own) | _bounds(given))
    if spec.is_ours and (check := getattr(sys.modules[plugin.load().__module__], "check", None)):
        try:
            check(spec.folder, spec.options)
        except KeyProblem as error:
            raise KeyProblem((spelling, *error.path), *_parts(error)) from error
    return spec


def _parse_class(recipe: Recipe, entry: Any) -> EnvironmentSpec:
    spelling, given = _one(entry)
    path, _, name = spelling.partition(":")
    file = (recipe.folder / Path(path).expanduser()).resolve()
    if not name or not path.endswith(".py") or not file.is_file():
        missing = f"; looked for {file}" if path.endswith(".py") and name else ""
        raise KeyProblem((), f"found {spelling}{missing}", "a class in a file, `./my_env.py:Env`")
    try:
        refuse_library(file, None, name)
        classes = [node.name for node in parsed(file).body if isinstance(node, ast.ClassDef)]
    except LookupError as error:
        raise KeyProblem((), str(error.args[0])) from error
    if name not in classes:
        raise KeyProblem((), f"no class {name} in {path}", ", ".join(classes) or "none is there")
    spec = EnvironmentSpec(name, file, folder=recipe.folder.resolve(), **_bounds(given))
    known = dict.fromkeys(given, "Any")
    if not no_code():
        whole = [*inspect.signature(environment_type(file, name), eval_str=True).parameters.values()]
        whole = [p for p in whole if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        known = _types(name, whole, given, (), [p.name for p in whole])
        if not environment_told(spec):
            found = f"{name} has no public method that a model could call"
            raise KeyProblem((), found, "methods with docstring and types")
    _refuse_options(spelling, name, given, known)
    return replace(spec, options={option: value for option, value in given.items() if option not in BOUNDS})


def environment_type(file: Path, name: str) -> type:
    """Import the class of an environment; KeyProblem for what is none."""
    try:
        cls = getattr(import_file(file), name)
    except (Exception, SystemExit) as error:
        raise KeyProblem((), f"{where(file, error)}: {one_line(error)}") from error
    if not isinstance(cls, type) or not inspect.isfunction(getattr(cls, "reset", None)):
        found = f"{name} in {file.name} has no method reset"
        raise KeyProblem((), found, "a class with reset(**row) and public methods")
    return cls


def _said(recipe: Recipe, key: str) -> Any:
    return recipe.get(key) if key in recipe.keys else None


def _types(
    name: str, whole: list[inspect.Parameter], given: dict[str, Any], path: tuple, own: list[str]
) -> dict[str, Any]:
    """Return the types of parameters as they are written; KeyProblem for one of the recipe's `own` that is missing."""
    if missing := [p.name for p in whole if p.name in own and p.default is p.empty and p.name not in given]:
        raise KeyProblem(path, f"the option {missing[0]} of {name} is missing")
    return {p.name: inspect.formatannotation(p.annotation) for p in whole}


def _one(entry: Any) -> tuple[str, dict[str, Any]]:
    """Read an entry: a name, or a name with its options."""
    pairs = list(entry.items()) if isinstance(entry, dict) else [(entry, {})]
    if len(pairs) != 1 or not isinstance(pairs[0][0], str) or not isinstance(pairs[0][1], dict | None):
        allowed = "a name, or one name with its options, `search: {corpus: ./notes.jsonl}`"
        raise KeyProblem((), f"found {entry!r}", allowed)
    return pairs[0][0], pairs[0][1] or {}


def _refuse_options(spelling: str, name: str, given: dict[str, Any], known: dict[str, Any]) -> None:
    for option, value in given.items():
        if option in BOUNDS and not BOUNDS[option][0](value):
            raise KeyProblem((spelling, option), f"found {value!r}", BOUNDS[option][1])
        if option not in (*known, *BOUNDS):
            near = get_close_matches(str(option), [*known, *BOUNDS], 1, cutoff=0.0)[0]
            hint = f"allowed: {', '.join(dict.fromkeys([*known, *BOUNDS]))}; the nearest is {near}"
            raise KeyProblem((spelling, option), f"unknown option of {name} (found {option}: {value!r})", hint=hint)
        if known.get(option) and not fits(value, known[option]):
            raise KeyProblem((spelling, option), f"found {value!r}", describe(known[option]))


def _bounds(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in BOUNDS if name in given}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parts(error: KeyProblem) -> tuple[str, str, str]:
    return error.problem.found, error.problem.allowed, error.problem.hint


def _placed(recipe: Recipe, path: tuple, error: KeyProblem) -> UserError:
    return recipe.error((*path, *error.path), *_parts(error), code="wrong_tool")


def _told(errors: list[UserError], wrong: list[UserError] | None) -> bool:
    """Raise the first error, or put all on the list."""
    if errors and wrong is None:
        raise errors[0]
    (wrong if wrong is not None else []).extend(errors)
    return bool(errors)
