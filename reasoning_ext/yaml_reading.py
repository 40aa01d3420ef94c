"""YAML -> plain values and the line of every key.

Departures from plain YAML: `1e-5` is a number (PyYAML reads a string), `no` and `off` are strings (so that
`save_strategy: no` means what it says), doubled keys and aliases are refused, tags build no Python objects.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.errors import RecipeError


def parse_value(text: str) -> Any:
    """Parse one value from the command line as a recipe's value would be.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(_yaml_problem(error)) from error


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """Parse a recipe's file.

    Args:
        path: the YAML file.

    Returns:
        the values, and the line of each key path: `("reward_funcs", 0, "math_answer") -> 6`.

    Raises:
        RecipeError: there is no such file, or it is not one mapping of plain values; the message names the line.
    """
    if not path.is_file():
        beside = [f.name for f in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, 1)
        raise RecipeError(f"{path}: no such file" + (f"; the nearest is {path.parent / near[0]}" if near else ""))
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines: dict[tuple, int] = {}
        if not isinstance(node, yaml.MappingNode):
            kinds = {yaml.SequenceNode: "a sequence", yaml.ScalarNode: "a single value"}
            found = kinds.get(type(node), "nothing")
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
