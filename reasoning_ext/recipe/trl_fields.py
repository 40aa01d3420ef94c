"""The keys a recipe may use, read off the source of the installed TRL and transformers without importing them.

Importing a trainer's config takes seconds, because it takes torch along; parsing the files that define it takes some
hundredths of a second. Nothing is copied from TRL into this project, so a new TRL brings its new keys by itself.
Departure from the obvious: a few fields are plain `str` whose allowed values stand in the docstring alone
(`loss_type`, `scale_rewards`, `vllm_mode` ...); those are read off the docstring.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
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
ENUM_FILES = (
    ("transformers", "trainer_utils.py"),
    ("transformers", "training_args.py"),
    ("transformers", "debug_utils.py"),
)

_BASIC: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "dict": dict,
    "list": list,
}


@dataclass(frozen=True)
class Key:
    """One key of a recipe: what it may hold, its default, and the class it belongs to."""

    name: str
    annotation: str
    default: Any
    choices: tuple[str, ...]
    owner: str

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
    """Read the fields of dataclasses off their source, later classes overriding earlier ones.

    Args:
        *classes: `(package, file below the package, class name)`, base class first.

    Returns:
        `{field name: Key}` in the order of definition.

    Raises:
        LookupError: the installed package has no such file or class.
    """
    keys: dict[str, Key] = {}
    for package, file, name in classes:
        node = class_node(package, file, name)
        documented = dict(field_texts(ast.get_docstring(node) or ""))
        owner = f"{name.lstrip('_')} of {package} {version(package)}"
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                key = _key(statement, documented.get(statement.target.id, ("", "")), owner)
                keys[key.name] = key
    return keys


def dataclass_keys(cls: type) -> dict[str, Key]:
    """Return the `Key`s of one of our own dataclasses, whose annotations are strings."""
    return {
        f.name: Key(
            f.name,
            str(f.type),
            None if f.default is MISSING else f.default,
            tuple(f.metadata.get("choices", ())),
            cls.__name__,
        )
        for f in fields(cls)
    }


def fits(value: Any, annotation: str) -> bool:
    """Tell whether a YAML value is of an annotation's type; what the annotation leaves open fits."""
    return _fits(value, ast.parse(annotation, mode="eval").body)


def describe(annotation: str) -> str:
    """Write an annotation for people: `float | None` -> `float or null`."""
    if annotation.startswith("Literal["):
        return ", ".join(str(choice) for choice in literal_choices(ast.parse(annotation, mode="eval").body))
    parts = [part.strip() for part in annotation.split("|")]
    enums = enumerations()
    words = ["null" if part == "None" else part for part in parts if part not in enums]
    return " or ".join(words) or annotation


def literal_choices(node: ast.expr) -> list:
    """Return the values of a `Literal[...]`."""
    assert isinstance(node, ast.Subscript)
    elements = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return [element.value for element in elements if isinstance(element, ast.Constant)]


def _fits(value: Any, node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _fits(value, node.left) or _fits(value, node.right)
    if isinstance(node, ast.Constant):
        return value is None if node.value is None else True
    if isinstance(node, ast.Subscript):
        base = ast.unparse(node.value)
        if base == "Optional":
            return value is None or _fits(value, node.slice)
        if base == "list":
            return isinstance(value, list) and all(_fits(item, node.slice) for item in value)
        if base == "Literal":
            return value in literal_choices(node)
        return isinstance(value, dict) if base == "dict" else True
    name = ast.unparse(node)
    if name in enumerations():
        return isinstance(value, str)
    if name not in _BASIC:
        return True
    return isinstance(value, _BASIC[name]) and (name == "bool" or not isinstance(value, bool))


def _key(statement: ast.AnnAssign, documented: tuple[str, str], owner: str) -> Key:
    assert isinstance(statement.target, ast.Name)
    annotation = ast.unparse(statement.annotation)
    arguments = {k.arg: k.value for k in statement.value.keywords} if isinstance(statement.value, ast.Call) else {}
    made = arguments.get("default_factory")
    default = _literal(made.body if isinstance(made, ast.Lambda) else arguments.get("default", statement.value))
    metadata = arguments.get("metadata")
    choices: Any = ()
    if isinstance(metadata, ast.Dict):
        named = {_literal(k): v for k, v in zip(metadata.keys, metadata.values, strict=True) if k is not None}
        choices = _literal(named["choices"]) if "choices" in named else ()
    in_enum = [member for part in annotation.split("|") for member in enumerations().get(part.strip(), ())]
    types, text = documented
    if "str" in annotation and types:
        extra = [t for t in re.findall(r"`(\w+)`", types) if t in _BASIC and t not in annotation]
        annotation = " | ".join([annotation, *extra])
    choices = tuple(in_enum or choices or ())
    if not choices and re.search(r"\bstr\b", annotation):
        choices = _choices_in(text)
        defaults = default if isinstance(default, list) else [default]
        choices = choices if all(one in choices for one in defaults) else ()
    return Key(statement.target.id, annotation, default, choices, owner)


def _choices_in(text: str) -> tuple[str, ...]:
    """Find the allowed values in a field's documentation: a bulleted list of quoted values, "one of ..." or the like."""
    bullets = re.findall(r'^[^\S\n]*+- (?:`\w+` or )?`"([^`"]+)"`', text, re.MULTILINE)
    if bullets:
        return tuple(bullets)
    quoted = r"""`["']([^`"']++)["']`"""
    phrase = re.search(rf"(?:one of|either|at the|values are:)((?:\s*+(?:,\s*+)?(?:or\s*+)?{quoted}){{2,}})", text)
    if phrase:
        return tuple(re.findall(quoted, phrase.group(1)))
    plain = re.search(r"values are:((?:,?\s+`\w+`(?:\s+\(default\))?){2,})", text)
    return tuple(re.findall(r"`(\w+)`", plain.group(1))) if plain else ()


def field_texts(docstring: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield `(field, (its types, its text))` of a docstring's parameter entries."""
    entries = list(re.finditer(r"^ *(\w+) \((.+?)\):$", docstring, re.MULTILINE))
    ends = [*(entry.start() for entry in entries[1:]), len(docstring)][: len(entries)]
    for entry, end in zip(entries, ends, strict=True):
        yield entry.group(1), (entry.group(2), docstring[entry.end() : end])


def _literal(node: ast.expr | None) -> Any:
    """Return a literal's value, or None for anything that would have to be run."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


@cache
def enumerations() -> dict[str, tuple[str, ...]]:
    """Return the string values of the enumerations that transformers' annotations name."""
    enums = {}
    for package, file in ENUM_FILES:
        for node in module_source(package, file).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "ExplicitEnum" for base in node.bases):
                values = (_literal(s.value) for s in node.body if isinstance(s, ast.Assign))
                enums[node.name] = tuple(v for v in values if isinstance(v, str))
    return enums


def class_node(package: str, file: str, name: str) -> ast.ClassDef:
    """Return a class of an installed package as parsed source; LookupError where there is none."""
    for node in module_source(package, file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"{package} {version(package)} has no {name} in {file}; pip install -c constraints.txt {package}")


@cache
def module_source(package: str, file: str) -> ast.Module:
    """Return a file of an installed package as parsed source; LookupError where there is none."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"{package} is not installed; pip install -e . in the project's folder")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise LookupError(f"{package} {version(package)} has no {file}; pip install -c constraints.txt {package}")
    return ast.parse(path.read_text(encoding="utf-8"))
