"""YAML -> plain values and the line of every key.

Departures from PyYAML: `1e-5` is a number, `no` and `off` are strings (so that `save_strategy: no` means what it says), and so
are `1:30`, `0x10` and `2024-01-02`; `010` is 10; a recipe's keys may be written with dashes. Doubled keys, aliases, tags and
what no value can be are refused with a line.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.errors import Problem, UserError

MOST_DIGITS, MOST_DEPTH = 18, 30
NO_SPACE = re.compile(r" *(?:- )?[\w-]+:[^\s/]")  # a key and its value, which YAML takes for one text
_TYPE = "tag:yaml.org,2002:"


def parse_value(text: str) -> Any:
    """Parse one value from the command line as a recipe's value would be.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(_told(error)) from error


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """Parse a recipe's file.

    Returns:
        the values, and the line of each key path: `("reward_funcs", 0, "math_answer") -> 6`.

    Raises:
        UserError: there is no such file, or it is not one mapping of plain values; the message names the line.
    """
    if not os.path.isfile(path):  # Path.is_file raises where a name is too long
        beside = [file.name for file in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
        near = difflib.get_close_matches(path.name, beside, 1)
        hint = f"the nearest is {path.parent / near[0]}" if near else ""
        found = "this is no file of text" if os.path.exists(path) else "there is no such file"
        raise UserError(Problem(code="no_recipe", file=str(path), found=found, hint=hint))
    try:
        text = path.read_bytes().decode()
        if odd := yaml.reader.Reader.NON_PRINTABLE.search(text):
            found = f"found the character U+{ord(odd.group()):04X}"
            raise _error(path, text.count("\n", 0, odd.start()) + 1, found, "text")
        loader, lines = _Loader(text), dict[tuple, int]()
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            found = {yaml.SequenceNode: "a sequence", yaml.ScalarNode: "a single value"}.get(type(node), "nothing")
            raise _error(path, 1, f"found {found}", "a mapping of keys, one `key: value` a line")
        _walk(path, node, (), lines)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        raise _error(path, *_place(text, error)) from error
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#x} in position {error.start}: {error.reason}"
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _error(path, line, f"not a text file in UTF-8 ({byte})") from error
    except OSError as error:
        raise _error(path, None, f"cannot be read: {error.strerror}") from error


def _error(path: Path, line: int | None, found: str, allowed: str = "") -> UserError:
    return UserError(Problem(code="unreadable_yaml", file=str(path), line=line, found=found, allowed=allowed))


def _told(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "'\\t'" in problem:
        return "found a tab, allowed: spaces"
    return problem if problem.startswith("found ") else f"this YAML cannot be read: {problem}"


def _place(text: str, error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """Return the line of a fault and what it is; YAML sees a key without a space lines later."""
    mark = (error.context_mark if "':'" in str(error.problem) else None) or error.problem_mark
    lines, i = [*text.splitlines(), ""], mark.line if mark else 0
    while i and NO_SPACE.match(lines[i - 1]):
        i -= 1
    if NO_SPACE.match(lines[i]):
        return i + 1, f"found {lines[i].strip():.40}, allowed: a space behind the colon"
    return i + 1, _told(error)


def _walk(path: Path, node: yaml.Node, prefix: tuple, lines: dict[tuple, int]) -> None:
    """Note the line of every key below a node and refuse doubled keys."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*prefix, i)] = item.start_mark.line + 1
            _walk(path, item, (*prefix, i), lines)
    for key_node, value_node in node.value if isinstance(node, yaml.MappingNode) else ():
        name, line = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?", key_node.start_mark.line + 1
        if not prefix:
            if key_node.tag != f"{_TYPE}str":
                found = "that is a list or a mapping" if name == "?" else name[:40]
                raise _error(path, line, f"found the key {found}", "names")
            name = key_node.value = name.replace("-", "_")
        key = (*prefix, name)
        if key in lines:
            found, dotted = f"found twice, first on line {lines[key]}", ".".join(map(str, key))
            twice = Problem(
                code="doubled_key", file=str(path), line=line, key=dotted, found=found, hint="allowed: once"
            )
            raise UserError(twice)
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
        event, problem = self.peek_event(), ""
        if isinstance(event, yaml.AliasEvent):
            problem = f"found the alias *{event.anchor}, allowed: the value written out"
        elif getattr(event, "tag", None) not in (None, "!", f"{_TYPE}str"):
            tag = event.tag.replace(_TYPE, "!!")
            problem = f"found the tag {tag}, allowed: plain values; a recipe never runs Python"
        elif self.depth > MOST_DEPTH:
            problem = f"found values within values, {self.depth} deep, allowed: {MOST_DEPTH}"
        if not problem:
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            if not isinstance(node, yaml.ScalarNode):
                return node
            if wrong := re.search(r"[\x00\ud800-\udfff]", node.value):
                problem = f"found the character U+{ord(wrong.group()):04X}, allowed: text"
            elif node.tag == f"{_TYPE}int" and len(node.value.lstrip("+-0")) > MOST_DIGITS:
                problem = f"found a number of {len(node.value)} digits, allowed: {MOST_DIGITS}"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return node


_Loader.add_constructor(f"{_TYPE}int", lambda loader, node: int(node.value.replace("_", "")))
for _tag, _written in {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?\d[\d_]*",
    "float": r"[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(_TYPE + _tag, re.compile(f"^(?:{_written})$"), list("-+.0123456789tTfF"))
