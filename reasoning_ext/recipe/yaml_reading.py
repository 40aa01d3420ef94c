"""YAML -> plain values and the line of every key.

Departures from PyYAML: `1e-5` is a number, `no` and `off` are strings (so that `save_strategy: no` means what it says), and so
are `1:30`, `0x10` and `2024-01-02`; `010` is 10. Doubled keys, aliases, tags and what no value can be are refused with a line.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.errors import Problem, UserError

MOST_DIGITS, MOST_DEPTH = 18, 30


def parse_value(text: str) -> Any:
    """Parse one value from the command line as a recipe's value would be.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(_yaml_problem(error)) from error
    except RecursionError as error:
        raise ValueError("found values within values without end") from error


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """Parse a recipe's file.

    Args:
        path: the YAML file.

    Returns:
        the values, and the line of each key path: `("reward_funcs", 0, "math_answer") -> 6`.

    Raises:
        UserError: there is no such file, or it is not one mapping of plain values; the message names the line.
    """
    if not os.path.isfile(path):  # Path.is_file raises where a name is too long
        beside = [f.name for f in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
        near = difflib.get_close_matches(path.name, beside, 1)
        there = "neither a file nor a folder" if os.path.lexists(path) and not path.is_symlink() else "no such file"
        raise _error(
            path, None, there, hint=f"the nearest is {path.parent / near[0]}" if near else "", code="no_recipe"
        )
    content = b""
    try:
        content = path.read_bytes()
        loader = _Loader(content.decode("utf-8"))
        node = loader.get_single_node()
        lines: dict[tuple, int] = {}
        if not isinstance(node, yaml.MappingNode):
            kinds = {yaml.SequenceNode: "a sequence", yaml.ScalarNode: "a single value"}
            found = kinds.get(type(node), "nothing")
            raise _error(path, 1, f"found {found}", "a mapping of keys, one `key: value` a line")
        _walk(path, node, (), lines)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _error(path, line, _yaml_problem(error)) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte {content[error.start]:#x} in position {error.start}: {error.reason}"
        raise _error(path, line, f"not a text file in UTF-8 ({byte})") from error
    except yaml.reader.ReaderError as error:
        line = content.decode("utf-8").count("\n", 0, error.position) + 1
        raise _error(path, line, f"found the character U+{int(error.character):04X}", "text") from error
    except RecursionError as error:
        raise _error(path, None, "found values within values without end", str(MOST_DEPTH)) from error
    except OSError as error:
        raise _error(path, None, f"cannot be read: {error.strerror}") from error


def _error(
    path: Path, line: int | None, found: str, allowed: str = "", hint: str = "", key: str = "",
    code: str = "unreadable_yaml",
) -> UserError:  # fmt: skip
    return UserError(Problem(code=code, file=str(path), line=line, key=key, found=found, allowed=allowed, hint=hint))


def _yaml_problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "'\\t'" in problem:
        return "found a tab, allowed: spaces"
    return problem if problem.startswith("found ") else f"this YAML cannot be read: {problem}"


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
            if not prefix and key_node.tag != "tag:yaml.org,2002:str":
                found = "that is a list or a mapping"
                if isinstance(key_node, yaml.ScalarNode):
                    found = str(key_node.value)[:40]
                raise _error(path, line, f"found the key {found}", "names")
            if key in lines:
                name = ".".join(map(str, key))
                found = f"found twice, first on line {lines[key]}"
                raise _error(path, line, found, hint="allowed: once", key=name, code="doubled_key")
            lines[key] = line
            _walk(path, value_node, key, lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans, without aliases, tags, dates and merges."""

    depth = 0

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith(":null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; an alias is refused, because it can blow a small file up to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"found the alias *{event.anchor}, allowed: the value written out", event.start_mark
            )
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", "tag:yaml.org,2002:str"):
            name = tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"found the tag {name}, allowed: plain values; a recipe never runs Python"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        if self.depth > MOST_DEPTH:
            problem = f"found values within values, {self.depth} deep, allowed: {MOST_DEPTH}"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and (problem := _scalar_problem(node)):
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return node

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Read a whole number, which is decimal whatever it begins with."""
        return int(node.value.replace("_", ""))


def _scalar_problem(node: yaml.ScalarNode) -> str:
    """Say what no value can hold: characters that are none, numbers beyond 64 bits."""
    if wrong := re.search(r"[\x00\ud800-\udfff]", node.value):
        return f"found the character U+{ord(wrong.group()):04X}, allowed: text"
    if node.tag == "tag:yaml.org,2002:int" and len(node.value.lstrip("+-0")) > MOST_DIGITS:
        return f"found a number of {len(node.value)} digits, allowed: {MOST_DIGITS}"
    return ""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d[\d_]*$"), list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
