"""The keys a recipe may use, read off the source of the installed TRL and transformers without importing them.

Importing a trainer's config takes seconds, because it takes torch along; parsing the files that define it takes some
hundredths of a second, and a new TRL brings its new keys by itself. An annotation is read once, as JSON Schema, which `run`
checks values by and editors complete by. A few fields are plain `str` whose allowed values stand in the docstring alone
(`loss_type`, `scale_rewards`, `vllm_mode` ...); those are read off the docstring.
"""

import ast
import inspect
import re
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TRAINING_ARGUMENTS = ("transformers", "training_args.py", "TrainingArguments")
BASE_CONFIG = ("trl", "trainer/base_config.py", "_BaseConfig")
SFT_CONFIG = (TRAINING_ARGUMENTS, BASE_CONFIG, ("trl", "trainer/sft_config.py", "SFTConfig"))
DPO_CONFIG = (TRAINING_ARGUMENTS, BASE_CONFIG, ("trl", "trainer/dpo_config.py", "DPOConfig"))
GRPO_CONFIG = (TRAINING_ARGUMENTS, BASE_CONFIG, ("trl", "trainer/grpo_config.py", "GRPOConfig"))
MODEL_CONFIG = (("trl", "trainer/model_config.py", "ModelConfig"),)
SCRIPT_ARGUMENTS = (("trl", "scripts/utils.py", "ScriptArguments"),)
ENUM_FILES = ("trainer_utils.py", "training_args.py", "debug_utils.py")  # of transformers
TYPES: dict[str, tuple[str, type | tuple[type, ...]]] = {  # by name: JSON Schema's, and what YAML makes of such a value
    "int": ("integer", int),
    "float": ("number", (int, float)),
    "bool": ("boolean", bool),
    "str": ("string", str),
    "dict": ("object", dict),
    "list": ("array", list),
    "None": ("null", type(None)),
}
KINDS = dict(TYPES.values())


@dataclass(frozen=True)
class Key:
    """One key of a recipe: what it may hold, its default, its class, and what its documentation says first."""

    name: str
    annotation: str
    default: Any
    choices: tuple[str, ...]
    owner: str
    text: str = ""

    def misfit(self, value: Any) -> tuple[str, str] | None:
        """Say what a value is and what is allowed, or None if it fits."""
        if not fits(value, self.annotation):
            return f"found {repr(value)[:200]}", describe(self.annotation)
        for one in value if isinstance(value, list) else [value]:
            if self.choices and isinstance(one, str) and one not in self.choices:
                return f"found {one[:200]!r}", ", ".join(self.choices)
        return None


@cache
def class_keys(*classes: tuple[str, str, str]) -> dict[str, Key]:
    """Read the fields of dataclasses off their source: `(package, file, class)` each, a base class before what overrides it.

    Raises:
        LookupError: the installed package has no such file or class.
    """
    keys: dict[str, Key] = {}
    texts: dict[str, str] = {}
    for package, file, name in classes:
        nodes = [n for n in module_source(package, file).body if isinstance(n, ast.ClassDef) and n.name == name]
        if not nodes:
            raise LookupError(f"{package} has no {name} in {file}; pip install -c constraints.txt {package}")
        [node] = nodes
        documented = _documented(ast.get_docstring(node) or "")
        texts |= {field: said for field, (_, text) in documented.items() if (said := first_sentence(text))}
        owner = f"{name.lstrip('_')} of {package} {version(package)}"
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                field = statement.target.id
                keys[field] = Key(field, *_read(statement, *documented.get(field, ("", ""))), owner=owner)
    return {field: replace(key, text=texts.get(field, "")) for field, key in keys.items()}


@cache
def dataclass_keys(cls: type) -> dict[str, Key]:
    """Return the `Key`s of one of our own dataclasses; their texts stand below `Attributes:` in its docstring."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        texts |= dict(re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", section.group(1), re.MULTILINE) if section else [])
    return {
        f.name: Key(
            f.name, f.type.__name__ if isinstance(f.type, type) else str(f.type),
            None if f.default is MISSING else f.default, tuple(f.metadata.get("choices", ())),
            cls.__name__, first_sentence(texts.get(f.name, "")),
        )
        for f in fields(cls)
    }  # fmt: skip


def schema_of(annotation: str, choices: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the JSON Schema of an annotation, whose strings are the choices; what it leaves open gives `{}`."""
    options = _options(ast.parse(annotation, mode="eval").body, choices)
    distinct = [option for i, option in enumerate(options) if option not in options[:i]]
    if {} in distinct:
        return {}
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def fits(value: Any, annotation: str) -> bool:
    """Tell whether a YAML value is of an annotation's type; what the annotation leaves open fits."""
    return accepts(schema_of(annotation), value)


def describe(annotation: str) -> str:
    """Write an annotation for people: `float | None` -> `float or null`."""
    if annotation.startswith("Literal["):
        return ", ".join(map(str, schema_of(annotation)["enum"]))
    parts = [part.strip() for part in annotation.split("|")]
    return " or ".join("null" if part == "None" else part for part in parts if part not in enumerations()) or annotation


def first_sentence(text: str) -> str:
    """Return the first sentence of the first paragraph, links and tags taken out but in backticks, as one line."""
    paragraph = re.sub(r"(`[^`]*+`)|<[^<>]++>", r"\1", text).strip().split("\n\n")[0]
    line = re.sub(r"\[([^\[\]]++)\](?:\([^()]*+\))?", r"\1", " ".join(paragraph.split()))
    end = re.search(r"(?<!e\.g)(?<!i\.e)(?<!vs)(?<!etc)[.!?](?=\s+[A-Z`\"(]|$)", line)
    return line[: end.end()] if end else line


def _options(node: ast.expr, choices: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the alternatives of an annotation, in the order in which it names them."""
    if isinstance(node, ast.BinOp):
        return _options(node.left, choices) + _options(node.right, choices)
    name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node)
    if isinstance(node, ast.Subscript):
        if name == "Optional":
            return [*_options(node.slice, choices), {"type": "null"}]
        if name == "Literal":
            return [{"enum": [ast.literal_eval(e) for e in getattr(node.slice, "elts", [node.slice])]}]
        if name == "list" and (items := schema_of(ast.unparse(node.slice), choices)):
            return [{"type": "array", "items": items}]
    is_text = name == "str" or name in enumerations()
    if is_text and choices:
        return [{"enum": list(choices)}]
    return [{"type": TYPES["str" if is_text else name][0]} if is_text or name in TYPES else {}]


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Tell whether a value fits a JSON schema as `schema_of` writes it, or transformers' `get_json_schema`."""
    if value is None and schema.get("nullable"):
        return True
    if "anyOf" in schema:
        return any(accepts(option, value) for option in schema["anyOf"])
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    kinds = schema.get("type")
    if not kinds or (isinstance(value, bool) and "boolean" not in kinds):
        return not kinds
    parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    inner = schema.get("items" if isinstance(value, list) else "additionalProperties") or {}
    known = tuple(KINDS[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
    return isinstance(value, known) and all(accepts(inner, part) for part in parts)


def _read(statement: ast.AnnAssign, types: str, text: str) -> tuple[str, Any, tuple[str, ...]]:
    """Return a field's annotation, default and choices."""
    annotation = ast.unparse(statement.annotation)
    arguments = {k.arg: k.value for k in statement.value.keywords} if isinstance(statement.value, ast.Call) else {}
    made = arguments.get("default_factory")
    default = _literal(made.body if isinstance(made, ast.Lambda) else arguments.get("default", statement.value))
    metadata = arguments.get("metadata")
    told = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
    named = {_literal(name): value for name, value in told}
    in_enum = [member for part in annotation.split("|") for member in enumerations().get(part.strip(), ())]
    choices = tuple(in_enum or _literal(named.get("choices")) or ())
    if "str" in annotation:
        extra = [t for t in re.findall(r"`(\w+)`", types) if t in TYPES and t not in annotation]
        annotation = " | ".join([annotation, *extra])
    if not choices and re.search(r"\bstr\b", annotation):
        choices = _choices_in(text)
        choices = choices if {*(default if isinstance(default, list) else [default])} <= {*choices} else ()
    return annotation, default, choices


def _choices_in(text: str) -> tuple[str, ...]:
    """Find the allowed values in a field's documentation: a list of quoted values, "one of ..." or the like."""
    if bullets := re.findall(r'^[^\S\n]*+- (?:`\w+` or )?`"([^`"]+)"`', text, re.MULTILINE):
        return tuple(bullets)
    quoted = r"""`["']([^`"']++)["']`"""
    phrase = re.search(rf"(?:one of|either|at the|values are:)((?:\s*+(?:,\s*+)?(?:or\s*+)?{quoted}){{2,}})", text)
    if phrase:
        return tuple(re.findall(quoted, phrase.group(1)))
    plain = re.search(r"values are:((?:,?\s+`\w+`(?:\s+\(default\))?){2,})", text)
    return tuple(re.findall(r"`(\w+)`", plain.group(1))) if plain else ()


def _documented(docstring: str) -> dict[str, tuple[str, str]]:
    """Return `{field: (its types, its text)}` of a docstring's parameter entries, `name (types):`."""
    parts = re.split(r"^ *(\w+) ?\((.+?)\):$", docstring, flags=re.MULTILINE)[1:]
    return {name: (types, text) for name, types, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def _literal(node: ast.expr | None) -> Any:
    """Return a literal's value, or None for anything that would have to be run."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


@cache
def enumerations() -> dict[str, tuple[str, ...]]:
    """Return the string values of the enumerations that transformers' annotations name."""
    found = {}
    for node in [node for file in ENUM_FILES for node in module_source("transformers", file).body]:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "ExplicitEnum" for base in node.bases):
            values = (_literal(s.value) for s in node.body if isinstance(s, ast.Assign))
            found[node.name] = tuple(v for v in values if isinstance(v, str))
    return found


@cache
def module_source(package: str, file: str) -> ast.Module:
    """Return a file of an installed package as parsed source; LookupError where there is none."""
    spec = find_spec(package)
    path = Path(*((spec and spec.submodule_search_locations) or ["nowhere"])[:1], file)
    if not path.is_file():
        raise LookupError(f"{package} has no {file} here; pip install -c constraints.txt {package}")
    return ast.parse(path.read_text(encoding="utf-8"))
