"""YAML recipe + `--key value` overrides -> a checked `Recipe`; nothing heavy is imported.

A recipe is one flat mapping for one stage. Its keys are those of the installed TRL config of that stage, of TRL's
ModelConfig and ScriptArguments, and the few of `Shared`, `Sampling` and `Evaluation` below. Every error is one line:
file, line, key, what was found, what is allowed, the nearest key.

Departures from plain YAML: `1e-5` is a number (PyYAML reads a string), `no` and `off` are strings (so that
`save_strategy: no` means what it says), doubled keys and aliases are refused, tags build no Python objects.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.errors import UserError
from reasoning_ext.fields import (
    GRPO_CONFIG,
    MODEL_CONFIG,
    SCRIPT_ARGUMENTS,
    SFT_CONFIG,
    Key,
    class_keys,
    dataclass_keys,
)

STAGES = ("sft", "grpo", "sample", "eval")
GENERATION_KEYS = (
    "output_dir", "seed", "use_cpu", "trust_remote_code", "per_device_eval_batch_size", "num_generations",
    "max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs",
    "chat_template_kwargs", "model_init_kwargs",
)  # fmt: skip
MANAGED = {
    "resume_from_checkpoint": "`run` finds the last complete checkpoint in output_dir by itself",
    "hub_token": "a token is read from the environment variable HF_TOKEN alone",
    "local_rank": "`accelerate launch` sets it",
}


@dataclass
class Shared:
    """Keys of every stage that are ours and not TRL's."""

    stage: str = field(default="", metadata={"choices": STAGES})
    backend: str = field(default="trl", metadata={"choices": ("trl", "unsloth")})
    from_scratch: bool = False
    max_seq_length: int | None = None
    dataset_format: str | None = None
    rename_columns: dict | None = None
    gen_kwargs: dict | None = None
    system_prompt: str | None = None
    max_samples: int | None = None


@dataclass
class Rewarded:
    """Keys of the stages that score completions."""

    reward_funcs: list | str | None = None


@dataclass
class Sampling(Rewarded):
    """Keys of `stage: sample`."""

    min_reward: float = 1.0
    keep: int = 1


@dataclass
class Evaluation(Rewarded):
    """Keys of `stage: eval`."""

    models: dict | list | None = None


class RecipeError(UserError):
    """A recipe, or what it names, is wrong; the message is one line that says what to change."""


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
        return {name: value for name, value in self.values.items() if name in known}

    def error(self, path: str | tuple, problem: str) -> RecipeError:
        """Build the one-line error for a key or a path into a key's value."""
        path = (path,) if isinstance(path, str) else path
        return RecipeError(f"{_where(self.path, self.lines, path)}: {'.'.join(map(str, path))}: {problem}")


def load_recipes(paths: Iterable[str | Path], overrides: dict[str, str] | None = None) -> list[Recipe]:
    """Load recipes and folders of numbered recipes, in order.

    Args:
        paths: YAML files, or folders whose `*.yaml` files are taken in the order of their leading numbers.
        overrides: `{key: value as on the command line}`; each applies to the recipes whose stage knows the key.

    Raises:
        RecipeError: a file is missing or wrong, or no recipe knows an override's key.
    """
    overrides = overrides or {}
    recipes = [load_recipe(file, overrides, strict=False) for path in paths for file in expand(Path(path))]
    for key in overrides:
        if not any(key in recipe.keys for recipe in recipes):
            known = sorted({name for recipe in recipes for name in recipe.keys})
            stages = ", ".join(sorted({recipe.stage for recipe in recipes}))
            raise RecipeError(f"--{key}: unknown key (found --{key} {overrides[key]}); {_nearest(key, known, stages)}")
    return recipes


def load_recipe(path: Path, overrides: dict[str, str] | None = None, strict: bool = True) -> Recipe:
    """Load one recipe and check every key and value on its own; what needs several keys is checked in `checks`.

    Args:
        path: the YAML file.
        overrides: as in `load_recipes`.
        strict: refuse overrides that this stage does not know, instead of leaving them to other recipes.

    Raises:
        RecipeError: see the module's text.
    """
    values, lines = _read(path)
    stage = values.get("stage")
    if stage not in STAGES:
        near = difflib.get_close_matches(str(stage), STAGES, 1)
        hint = f"; the nearest is {near[0]}" if near else ""
        found = f"found {stage!r}" if "stage" in values else "the key is missing"
        raise RecipeError(f"{_where(path, lines, ('stage',))}: stage: {found}, allowed: {', '.join(STAGES)}{hint}")
    keys = stage_keys(stage)
    for key, text in (overrides or {}).items():
        if key == "stage":
            raise RecipeError("--stage: a recipe's stage cannot be overridden; write a recipe for the other stage")
        if key in keys or strict:
            values[key] = _override(key, text)
            lines = {place: line for place, line in lines.items() if place[0] != key} | {(key,): 0}
    recipe = Recipe(path, stage, values, keys, lines)
    for key, value in values.items():
        if key not in keys:
            raise recipe.error(key, f"unknown key (found {key}: {value!r}); {_nearest(key, list(keys), stage)}")
        if key in MANAGED:
            raise recipe.error(key, f"not allowed in a recipe (found {value!r}): {MANAGED[key]}")
        problem = keys[key].problem(value)
        if problem:
            raise recipe.error(key, f"{problem}{_hint(value, keys[key])} ({keys[key].owner})")
    return recipe


def stage_keys(stage: str) -> dict[str, Key]:
    """Return every key a stage knows: TRL's config of that stage, ModelConfig, ScriptArguments and ours."""
    common = class_keys(*SCRIPT_ARGUMENTS) | class_keys(*MODEL_CONFIG) | dataclass_keys(Shared)
    if stage == "sft":
        return common | class_keys(*SFT_CONFIG)
    grpo = class_keys(*GRPO_CONFIG)
    if stage == "grpo":
        return common | grpo | dataclass_keys(Rewarded)
    generation = {name: grpo[name] for name in GENERATION_KEYS if name in grpo}
    return common | generation | dataclass_keys(Sampling if stage == "sample" else Evaluation)


def expand(path: Path) -> list[Path]:
    """Return the recipes of a folder in the order of their numbers, or a file by itself."""
    if not path.is_dir():
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
    near = difflib.get_close_matches(key, known, 1, cutoff=0.0)
    return f"the nearest key of stage {stage} is {near[0]}"


def _hint(value: Any, key: Key) -> str:
    if isinstance(value, str) and "str" not in key.annotation:
        return "; write it without quotes" if re.fullmatch(r"[-+.\deE]+|true|false|null", value.strip()) else ""
    if isinstance(value, str) and key.choices:
        near = difflib.get_close_matches(value, key.choices, 1)
        return f"; the nearest is {near[0]}" if near else ""
    return "; write it in quotes" if "str" in key.annotation and not isinstance(value, dict | list | None) else ""


def _override(key: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"--{key}: found {text!r}, which is no YAML value: {_yaml_problem(error)}") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """Parse a recipe's file into its values and the line of each key path."""
    if not path.is_file():
        beside = [f.name for f in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, 1)
        raise RecipeError(f"{path}: no such file" + (f"; the nearest is {path.parent / near[0]}" if near else ""))
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines: dict[tuple, int] = {}
        if not isinstance(node, yaml.MappingNode):
            found = "nothing" if node is None else {"scalar": "a single value"}.get(node.id, f"a {node.id}")
            raise RecipeError(f"{path}:1: found {found}, allowed: a mapping of keys, one `key: value` a line")
        _walk(path, node, (), lines)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{path}:{line}: {_yaml_problem(error)}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{path}: this YAML cannot be read: {str(error).splitlines()[0]}") from error


def _yaml_problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    tag = re.search(r"constructor for the tag '([^']+)'", problem)
    if tag:
        found = tag.group(1).replace("tag:yaml.org,2002:", "!!")
        return f"found the tag {found}, allowed: plain values; a recipe never runs Python"
    return problem if problem.startswith("found the alias") else f"this YAML cannot be read: {problem}"


def _walk(path: Path, node: yaml.Node, prefix: tuple, lines: dict[tuple, int]) -> None:
    """Note the line of every key below a node and refuse doubled keys."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*prefix, i)] = item.start_mark.line + 1
            _walk(path, item, (*prefix, i), lines)
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*prefix, key_node.value if isinstance(key_node, yaml.ScalarNode) else "?")
            line = key_node.start_mark.line + 1
            if key in lines:
                name = ".".join(map(str, key))
                raise RecipeError(f"{path}:{line}: {name}: found twice, first on line {lines[key]}; allowed: once")
            lines[key] = line
            _walk(path, value_node, key, lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans, without aliases."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; an alias is refused, because it can blow a small file up to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"found the alias *{event.anchor}, allowed: the value written out", event.start_mark
            )
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
