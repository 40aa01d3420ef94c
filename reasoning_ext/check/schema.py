"""The JSON Schema of a recipe, for editors: completion, hover texts and errors while a recipe is written.

Made from the same `Key`s that `load_recipe` checks with, so that a new TRL or a new key of ours changes the schema by
itself; nothing heavy is imported. It is a draft-07 schema: the YAML language server of VS Code has had that draft's
if/then and `const` for years.

What JSON Schema cannot say is left to `check`: that 1.0 is no integer, that a key's line comes twice, what a reward's
schedule may be, and whatever needs several keys or the data. `load_recipe` takes command-line overrides, so no key but
`stage` is required.
"""

import json
from typing import Any

from reasoning_ext.data.filters import TraceFilters
from reasoning_ext.recipe.entries import ENTRY_KEYS, MixtureEntry
from reasoning_ext.recipe.keys import QUESTION_KEYS, STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.trl_fields import Key, dataclass_keys, schema_of
from reasoning_ext.scoring.spec import LAYER_OPTIONS, RewardSpec

DRAFT = "http://json-schema.org/draft-07/schema#"
# where a recipe writes an option in another shape than RewardSpec holds it in
WRITTEN: dict[str, dict[str, Any]] = {
    "timeout": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
    "when": {"anyOf": [{"type": "object"}, {"type": "null"}]},
    "schedule": {"type": "object"},
}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft-07) of a recipe for the installed TRL and transformers.

    Every stage is an object of its keys that allows no others, chosen by the value of `stage`; what stages have in common is
    a definition.

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
    """Return the schema as text with sorted keys and a final newline, the same for the same installed versions.

    Raises:
        LookupError: as in `recipe_schema`.
    """
    return json.dumps(recipe_schema(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _described(schema: dict[str, Any], key: Key) -> dict[str, Any]:
    found = schema | ({"description": key.text} if key.text else {})
    default = key.default is not None and key.misfit(key.default) is None  # None: worked out at run time
    return found | ({"default": key.default} if default else {})


def _value_schema(key: Key, keys: dict[str, Key]) -> dict[str, Any]:
    """Return the schema of a key's value; some hold mappings with keys of their own."""
    if key.name == "trace_filters":
        return {"anyOf": [_mapping(dataclass_keys(TraceFilters)), {"type": "null"}]}
    if key.name == "datasets":
        entry = {k: keys[k] for k in ENTRY_KEYS if k in keys} | dataclass_keys(MixtureEntry)
        return {"anyOf": [{"type": "array", "items": _mapping(entry, "dataset_name")}, {"type": "null"}]}
    if key.name == "decontaminate":
        entry = _mapping(dict.fromkeys(QUESTION_KEYS, keys["dataset_name"]), "dataset_name")
        return {"anyOf": [{"type": "array", "items": {"anyOf": [{"type": "string"}, entry]}}, {"type": "null"}]}
    if key.name == "reward_funcs":
        own = dataclass_keys(RewardSpec)
        options = {name: WRITTEN.get(name) or schema_of(own[name].annotation) for name in LAYER_OPTIONS}
        options = {name: _described(schema, own[name]) for name, schema in options.items()}  # its parameters are open
        parameters = {"anyOf": [{"type": "object", "properties": options}, {"type": "null"}]}
        named = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": parameters}
        listed = {"type": "array", "items": {"anyOf": [{"type": "string"}, named]}}
        return {"anyOf": [listed, {"type": "string"}, {"type": "null"}]}
    return schema_of(key.annotation, key.choices)


def _mapping(keys: dict[str, Key], *required: str) -> dict[str, Any]:
    properties = {name: _described(schema_of(key.annotation, key.choices), key) for name, key in keys.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}
