"""What a recipe can hold and name: a JSON Schema for editors, which complete and check by it, and lines for `list`.

Made from the same `Key`s that `load_recipe` checks with, so that a new TRL or a new key of ours changes it by itself; nothing
heavy is imported. The schema is of draft-07, which the YAML language server of VS Code has had for years. What it cannot say
is left to `check`: that 1.0 is no integer, what a reward's schedule may be, and whatever needs several keys or the data.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_ext.data.filters import TraceFilters
from reasoning_ext.data.format import FORMATS
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.strategy_options import KINDS as STRATEGIES
from reasoning_ext.recipe.entries import ENTRY_KEYS, MixtureEntry
from reasoning_ext.recipe.keys import QUESTION_KEYS, STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.load import expand
from reasoning_ext.recipe.packaged import headline, packaged
from reasoning_ext.recipe.plugins import functions_at
from reasoning_ext.recipe.records import Refill, SkipKnown, ThinkingCurve
from reasoning_ext.recipe.trl_fields import Key, dataclass_keys, first_sentence, schema_of
from reasoning_ext.runs.health import RULES
from reasoning_ext.scoring.spec import HOMES, LAYER_OPTIONS, RewardSpec
from reasoning_ext.tools.spec import BOUNDS, ToolSpec
from reasoning_ext.tools.spec import HOMES as TOOL_HOMES

KINDS = ("rewards", "formats", "tools", "recipes", "keys", "health")
RECORDS = {
    "thinking_curve": ThinkingCurve,
    "skip_known": SkipKnown,
    "refill": Refill,
}  # keys that may hold a mapping of these
DRAFT = "http://json-schema.org/draft-07/schema#"
# where a recipe writes an option in another shape than RewardSpec holds it in
WRITTEN: dict[str, dict[str, Any]] = {
    "timeout": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
    "when": {"anyOf": [{"type": "object"}, {"type": "null"}]},
    "schedule": {"type": "object"},
}


def recipe_schema() -> dict[str, Any]:
    """Return the schema of a recipe for the installed TRL and transformers; what stages have in common is a definition.

    Raises:
        LookupError: the installed TRL or transformers lacks a file or class that keys are read from.
    """
    definitions: dict[str, Any] = {}
    stages = []
    for stage in STAGES:
        keys = {name: key for name, key in stage_keys(stage).items() if name not in MANAGED and name != "stage"}
        properties: dict[str, Any] = {"stage": {"const": stage}}
        for name, key in keys.items():
            schema = _described(_value_schema(key, keys), key)
            alike = definitions.setdefault(name, schema) == schema
            properties[name] = {"$ref": f"#/definitions/{name}"} if alike else schema
        then = {"additionalProperties": False, "properties": properties}
        stages.append({"if": {"properties": {"stage": {"const": stage}}, "required": ["stage"]}, "then": then})
    return {
        "$schema": DRAFT,
        "title": "A recipe of reasoning-ext",
        "type": "object",
        "required": ["stage"],
        "properties": {"stage": {"enum": list(STAGES), "description": "What the recipe does."}},
        "allOf": stages,
        "definitions": definitions,
    }


def schema_text() -> str:
    """Return it as text with sorted keys and a final newline, the same for the same installed versions."""
    return json.dumps(recipe_schema(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _described(schema: dict[str, Any], key: Key) -> dict[str, Any]:
    found = schema | ({"description": key.text} if key.text else {})
    default = key.default is not None and key.misfit(key.default) is None  # None: worked out at run time
    return found | ({"default": key.default} if default else {})


def _value_schema(key: Key, keys: dict[str, Key]) -> dict[str, Any]:
    """Return the schema of a key's value; some hold mappings with keys of their own."""
    if key.name == "trace_filters":
        return {"anyOf": [_mapping(dataclass_keys(TraceFilters)), {"type": "null"}]}
    if key.name == "strategies":
        options = {kind: _mapping(dataclass_keys(record)) for kind, record in STRATEGIES.items()}
        kinds: dict[str, Any] = {kind: {"anyOf": [of, {"type": "null"}]} for kind, of in options.items()}
        kinds["self_consistency"]["anyOf"].append({"type": "integer"})
        named = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
        named["properties"] = kinds
        return {"anyOf": [{"type": "array", "items": {"anyOf": [{"enum": [*kinds]}, named]}}, {"type": "null"}]}
    if key.name in RECORDS:
        record = _mapping(dataclass_keys(RECORDS[key.name]))
        others = [one for one in schema_of(key.annotation)["anyOf"] if one != {"type": "object"}]
        return {"anyOf": [record, *others]}
    if key.name == "datasets":
        entry = {k: keys[k] for k in ENTRY_KEYS if k in keys} | dataclass_keys(MixtureEntry)
        return {"anyOf": [{"type": "array", "items": _mapping(entry, "dataset_name")}, {"type": "null"}]}
    if key.name == "decontaminate":
        entry = _mapping(dict.fromkeys(QUESTION_KEYS, keys["dataset_name"]), "dataset_name")
        return {"anyOf": [{"type": "array", "items": {"anyOf": [{"type": "string"}, entry]}}, {"type": "null"}]}
    if key.name == "health":
        silent = {"anyOf": [{"type": "number", "minimum": 0}, {"enum": ["off", False]}]}
        rules = {rule.name: silent | {"description": f"{rule.meaning}. Default: {rule.threshold}."} for rule in RULES}
        return {"anyOf": [{"type": "object", "additionalProperties": False, "properties": rules}, {"type": "null"}]}
    if key.name in ("tools", "environment"):
        own = dataclass_keys(ToolSpec)
        bounds = {name: _described(schema_of(own[name].annotation), own[name]) for name in BOUNDS}
        named = _named(bounds)
        listed = {"type": "array", "items": {"anyOf": [{"type": "string"}, named]}} if key.name == "tools" else named
        return {"anyOf": [listed, {"type": "string"}, {"type": "null"}]}
    if key.name in ("reward_funcs", "audit"):
        own = dataclass_keys(RewardSpec)
        options = {name: WRITTEN.get(name) or schema_of(own[name].annotation) for name in LAYER_OPTIONS}
        options = {name: _described(schema, own[name]) for name, schema in options.items()}  # its parameters are open
        listed = {"type": "array", "items": {"anyOf": [{"type": "string"}, _named(options)]}}
        return {"anyOf": [listed, *[{"type": "string"}] * (key.name != "audit"), {"type": "null"}]}
    return schema_of(key.annotation, key.choices)


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one name with options, some of which are known."""
    parameters = {"anyOf": [{"type": "object", "properties": options}, {"type": "null"}]}
    return {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": parameters}


def _mapping(keys: dict[str, Key], *required: str) -> dict[str, Any]:
    properties = {name: _described(schema_of(key.annotation, key.choices), key) for name, key in keys.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def listed(kind: str, stage: str | None = None) -> Iterator[str]:
    """Yield a line each for one of `KINDS`, or the keys of a stage: a name, what it does, where its text stands.

    Raises:
        UserError: there is no such kind or stage.
    """
    if kind not in KINDS:
        raise UserError(f"list: found {kind}, allowed: {', '.join(KINDS)}")
    if stage is not None and (kind != "keys" or stage not in STAGES):
        raise UserError(f"list: found {kind} {stage}, allowed: keys, and one of {', '.join(STAGES)}")
    if kind == "recipes":
        yield from _recipes()
    elif kind == "health":
        for rule in RULES:
            yield f"{rule.name:<34} {f'{rule.side} {rule.threshold:g}'.strip():<12} {rule.meaning}  [{rule.source}]"
    elif kind == "keys":
        keys = {name: key for one in reversed([stage] if stage else STAGES) for name, key in stage_keys(one).items()}
        for name in sorted(keys.keys() - MANAGED.keys()):
            key = keys[name]
            default = "" if key.default is None else f" Default: {key.default}."
            place = key.owner if " of " in key.owner else f"{key.owner} of reasoning_ext.recipe.keys"
            yield _line(name, key.text + default, place)
    else:
        for name, file, node in functions_at({"rewards": HOMES, "formats": [FORMATS], "tools": TOOL_HOMES}[kind]):
            yield _line(name, first_sentence(ast.get_docstring(node) or ""), f"{file}:{node.lineno}")


def _recipes() -> Iterator[str]:
    """Yield a line for each recipe of the folder `recipes` here, else of those in the package with their places."""
    here = Path("recipes")
    home = here if here.is_dir() else packaged("recipes")
    for group in sorted({file.parent for file in home.glob("*/**/*.y*ml")}):
        for file in expand(group):
            yield f"{here / file.relative_to(home)!s:<34} {headline(file)}" + (f"  [{file}]" if home != here else "")


def _line(name: str, text: str, place: str) -> str:
    return f"{name:<34} {text}  [{place}]"
