"""The JSON Schema of a recipe, for editors: completion, hover texts and errors while a recipe is written.

Made from the same `Key`s that `load_recipe` checks with, so that a new TRL or a new key of ours changes the schema by
itself; nothing heavy is imported. It is a draft-07 schema: the YAML language server of VS Code has had that draft's
if/then and `const` for years, and of the later drafts nothing is needed here.

What JSON Schema cannot say is left to `check`: that 1.0 is no integer, that a key's line comes twice, and whatever needs
several keys or the data. `load_recipe` takes command-line overrides, so no key but `stage` is required.
"""

import ast
import dataclasses
import inspect
import json
import re
from typing import Any

from reasoning_ext.data.filters import TraceFilters
from reasoning_ext.recipe import keys as recipe_keys
from reasoning_ext.recipe import trl_fields
from reasoning_ext.recipe.entries import ENTRY_KEYS, MixtureEntry
from reasoning_ext.recipe.keys import QUESTION_KEYS, STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.trl_fields import Key, class_node, enumerations, field_texts, literal_choices
from reasoning_ext.scoring.spec import LAYER_OPTIONS, MAX_TIMEOUT, PASSED, RewardSpec

DRAFT = "http://json-schema.org/draft-07/schema#"
NESTED = ("trace_filters", "datasets", "decontaminate")  # keys that hold mappings with keys of their own
JSON_TYPES = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "string",
    "dict": "object",
    "list": "array",
}
POINTS = {
    "type": "object",
    "minProperties": 2,
    "propertyNames": {"pattern": "^[0-9]+$"},
    "additionalProperties": {"type": "number"},
}
# Where a recipe writes an option in another shape than RewardSpec holds it in.
WRITTEN: dict[str, dict[str, Any]] = {
    "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT},
    "when": {
        "type": ["object", "null"],
        "propertyNames": {"not": {"enum": list(PASSED)}},
        "additionalProperties": {"minItems": 1},
    },
    "schedule": {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {"linear": POINTS, "steps": POINTS},
    },
}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft-07) of a recipe for the installed TRL and transformers.

    Every key is one definition, or one a stage where stages differ in its default or text; every stage is an object of
    its keys that allows no others, chosen by the value of `stage`.

    Raises:
        LookupError: the installed TRL or transformers lacks a file or class that keys are read from.
    """
    definitions: dict[str, Any] = {"reward": _reward_schema()}
    variants: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for stage in STAGES:
        keys = stage_keys(stage)
        texts = key_texts(keys)
        properties = {
            name: {"$ref": f"#/definitions/{_define(name, stage, _key_schema(key, texts.get(name), keys), variants)}"}
            for name, key in keys.items()
            if name not in MANAGED and name != "stage"
        }
        definitions[f"stage.{stage}"] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {"stage": {"const": stage}} | properties,
        }
    definitions |= {name: schema for found in variants.values() for name, schema in found}
    return {
        "$schema": DRAFT,
        "title": "A recipe of reasoning-ext",
        "type": "object",
        "required": ["stage"],
        "properties": {"stage": {"enum": list(STAGES), "description": "What the recipe does."}},
        "allOf": [
            {
                "if": {"properties": {"stage": {"const": stage}}, "required": ["stage"]},
                "then": {"$ref": f"#/definitions/stage.{stage}"},
            }
            for stage in STAGES
        ],
        "definitions": definitions,
    }


def schema_text() -> str:
    """Return the schema as text with sorted keys and a final newline, the same for the same installed versions.

    Raises:
        LookupError: as in `recipe_schema`.
    """
    return json.dumps(recipe_schema(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def annotation_schema(annotation: str, choices: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the schema of the values that `trl_fields.fits` accepts for an annotation.

    Args:
        annotation: as in the source, `float | None` for example; what it leaves open gives `{}`.
        choices: the strings that are allowed where the annotation has a string.
    """
    return _union(_options(ast.parse(annotation, mode="eval").body, choices))


def _define(
    name: str, stage: str, schema: dict[str, Any], variants: dict[str, list[tuple[str, dict[str, Any]]]]
) -> str:
    """Return the name of a key's definition, one that is there already where another stage has the same."""
    found = variants.setdefault(name, [])
    for defined, other in found:
        if other == schema:
            return defined
    defined = f"key.{name}.{stage}" if found else f"key.{name}"
    found.append((defined, schema))
    return defined


def _key_schema(key: Key, text: str | None, keys: dict[str, Key]) -> dict[str, Any]:
    if key.name in NESTED:
        schema = _nested(key.name, keys)
    elif key.name == "reward_funcs":
        one = {"$ref": "#/definitions/reward"}
        schema = {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": one}]}
    else:
        schema = annotation_schema(key.annotation, key.choices)
    if text:
        schema["description"] = text
    if key.default is not None and key.misfit(key.default) is None:  # None also stands for "worked out at run time"
        schema["default"] = key.default
    return schema


def _nested(name: str, keys: dict[str, Key]) -> dict[str, Any]:
    """Return the schema of a key that holds mappings with keys of their own."""
    filters, own = trl_fields.dataclass_keys(TraceFilters), trl_fields.dataclass_keys(MixtureEntry)
    known = {
        "trace_filters": filters,
        "datasets": {k: keys[k] for k in ENTRY_KEYS if k in keys} | own,
        "decontaminate": dict.fromkeys(QUESTION_KEYS, keys["dataset_name"]),
    }[name]
    texts = _attribute_texts(inspect.cleandoc(TraceFilters.__doc__ or "")) if name == "trace_filters" else {}
    properties = {k: annotation_schema(key.annotation, key.choices) for k, key in known.items()}
    properties = {k: value | ({"description": texts[k]} if k in texts else {}) for k, value in properties.items()}
    mapping: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    if name == "trace_filters":
        return mapping | {"type": ["object", "null"]}
    mapping["required"] = ["dataset_name"]
    items = mapping if name == "datasets" else {"anyOf": [{"type": "string"}, mapping]}
    return {"type": ["array", "null"], "items": items}


def _reward_schema() -> dict[str, Any]:
    """Return the schema of one entry of `reward_funcs`; a reward's own parameters are open."""
    types = {
        f.name: f.type.__name__ if isinstance(f.type, type) else str(f.type) for f in dataclasses.fields(RewardSpec)
    }
    texts = _attribute_texts(inspect.cleandoc(RewardSpec.__doc__ or ""))
    options = {}
    for name in LAYER_OPTIONS:
        options[name] = dict(WRITTEN.get(name) or annotation_schema(types.get(name, "Any")))
        if name in texts:
            options[name]["description"] = texts[name]
    parameters = {"type": ["object", "null"], "properties": options}
    named = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": parameters}
    return {
        "description": "A reward's name, or one name with its parameters: `name: {weight: 1.0}`.",
        "anyOf": [{"type": "string"}, named],
    }


def _options(node: ast.expr, choices: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the alternatives of an annotation, in the order in which it names them."""
    if isinstance(node, ast.BinOp):
        return _options(node.left, choices) + _options(node.right, choices)
    if isinstance(node, ast.Constant):
        return [{"type": "null"} if node.value is None else {}]
    if isinstance(node, ast.Subscript):
        base = ast.unparse(node.value)
        if base == "Optional":
            return [*_options(node.slice, choices), {"type": "null"}]
        if base == "list":
            items = _union(_options(node.slice, choices))
            return [{"type": "array"} | ({"items": items} if items else {})]
        if base == "Literal":
            return [{"enum": literal_choices(node)}]
        return [{"type": "object"} if base == "dict" else {}]
    name = ast.unparse(node)
    if choices and (name == "str" or name in enumerations()):
        return [{"enum": list(choices)}]
    return [{"type": "string"} if name in enumerations() else {"type": JSON_TYPES[name]} if name in JSON_TYPES else {}]


def _union(options: list[dict[str, Any]]) -> dict[str, Any]:
    distinct = [option for i, option in enumerate(options) if option not in options[:i]]
    if {} in distinct:
        return {}
    types = [option["type"] for option in distinct if list(option) == ["type"]]
    others = [option for option in distinct if list(option) != ["type"]]
    together = [{"type": types[0] if len(types) == 1 else types}] if types else []
    if types == ["null"] and len(others) == 1 and "enum" in others[0]:
        return {"enum": [*others[0]["enum"], None]}
    return (together + others)[0] if len(together + others) == 1 else {"anyOf": together + others}


def key_texts(keys: dict[str, Key]) -> dict[str, str]:
    """Return the first sentence of each key's documentation; a subclass's text goes before its base's."""
    owners = {key.owner.split(" of ")[0] for key in keys.values()}
    texts: dict[str, str] = {}
    for chain in _chains():
        if chain[-1][2] in owners:
            for place in chain:
                texts |= _docstring_texts(*place)
    for owner in owners:
        cls = getattr(recipe_keys, owner, None)
        for base in reversed(cls.__mro__[:-1] if isinstance(cls, type) else ()):
            texts |= _attribute_texts(inspect.cleandoc(base.__doc__ or ""))
    return texts


def _chains() -> list[tuple]:
    """Return the chains of classes that `fields` names, `GRPO_CONFIG` and so on."""
    constants = [value for value in vars(trl_fields).values() if isinstance(value, tuple) and value]
    return [value for value in constants if all(isinstance(place, tuple) and len(place) == 3 for place in value)]


def _docstring_texts(package: str, file: str, name: str) -> dict[str, str]:
    docstring = re.sub(r"^( *\w+)\(`", r"\1 (`", ast.get_docstring(class_node(package, file, name)) or "", flags=re.M)
    typed = {field: first_sentence(text) for field, (_, text) in (field_texts(docstring) if docstring else ())}
    return {field: text for field, text in typed.items() if text}


def _attribute_texts(docstring: str) -> dict[str, str]:
    """Read the `Attributes:` section of a docstring: `name: text`, further lines indented deeper."""
    section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", section.group(1), re.MULTILINE) if section else []
    return {name: first_sentence(text) for name, text in entries}


def first_sentence(text: str) -> str:
    """Return the first sentence of the first paragraph, links and tags taken out, as one line."""
    paragraph = re.sub(r"<[^<>]++>", "", text).strip().split("\n\n")[0]
    line = re.sub(r"\[([^\[\]]++)\](?:\([^()]*+\))?", r"\1", " ".join(paragraph.split()))
    end = re.search(r"(?<!e\.g)(?<!i\.e)(?<!vs)(?<!etc)[.!?](?=\s+[A-Z`\"(]|$)", line)
    return line[: end.end()] if end else line
