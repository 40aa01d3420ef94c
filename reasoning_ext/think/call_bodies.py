"""What stands between a call's name and its end, in the four forms that chat templates write arguments in, read and written.

Reading raises ValueError with what is wrong, in words for the model that wrote it; writing where the form cannot hold a value.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Arguments = dict[str, Any]
WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
KEY = re.compile(r"\s*([^\W\d][\w.-]*)\s*=\s*")
CLOSED = re.compile(r"\s{0,9}\)")
END_OF_STRING = r"(?=\s{0,9}(?:,\s{0,9}[^\W\d]\w{0,99}=|\)(?:,\s{0,9}[^\W\d][\w.-]{0,99}\(|\])))"
SPLITS = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\[\](){},]""", re.S)
NUMBER = re.compile(r"[^\s,\]}<]+")


class Body(Protocol):
    """A form of arguments; `types` are a function's parameters by name, as its JSON schema has them."""

    def write(self, arguments: Arguments) -> str: ...

    def read(self, text: str, start: int, types: Mapping[str, Any]) -> tuple[Arguments, int]: ...


@dataclass(frozen=True)
class Json:
    """`{"key": value}`."""

    compact: bool = False

    def write(self, arguments: Arguments) -> str:
        """Write arguments."""
        return json.dumps(arguments, ensure_ascii=False, separators=(",", ":") if self.compact else None)

    def read(self, text: str, start: int, types: Mapping[str, Any]) -> tuple[Arguments, int]:
        """Read arguments at a place."""
        value, end = read_json(text, start)
        if not isinstance(value, dict):
            raise ValueError("its arguments are no JSON object")
        return value, end


def read_json(text: str, start: int) -> tuple[Any, int]:
    """Read a JSON value at a place behind white space: `(value, where it ends)`."""
    start += len(text[start : start + 100]) - len(text[start : start + 100].lstrip())
    try:
        # one of the module's could not be pickled, as `datasets` does with what maps rows
        return json.JSONDecoder(strict=False).raw_decode(text, start)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"its JSON is malformed: {error.msg} behind {text[start : error.pos][-30:]!r}") from None


@dataclass(frozen=True)
class Bare:
    """`{key:value}` with strings between two equal quotes and nothing escaped, keys in alphabetical order (Gemma 4)."""

    quote: str
    words: Mapping[str, str] = field(default_factory=dict, hash=False)  # how `True`, `False` and `None` are written

    def write(self, arguments: Arguments) -> str:
        """Write arguments, or a part of them."""
        value: Any = arguments
        if isinstance(value, str):
            return self.quote + self._free(value, self.quote, "a string") + self.quote
        if isinstance(value, dict):
            keys = sorted(value, key=str.lower)
            parts = (self._free(key, ":", "a key") + ":" + self.write(value[key]) for key in keys)
            return "{" + ",".join(parts) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self.write, value)) + "]"
        return self.words.get(repr(value)) or json.dumps(value)

    @staticmethod
    def _free(text: str, mark: str, what: str) -> str:
        if mark in text:
            raise ValueError(f"{what} with {mark!r} cannot be written in the chat template's form of calls")
        return text

    def read(self, text: str, start: int, types: Mapping[str, Any]) -> tuple[Arguments, int]:
        """Read arguments at a place."""
        try:
            value, end = self._read(text, start)
        except RecursionError:
            raise ValueError("its arguments are nested too deeply") from None
        if not isinstance(value, dict):
            raise ValueError("its arguments do not begin with {")
        return value, end

    def _read(self, text: str, at: int) -> tuple[Any, int]:
        if text.startswith(self.quote, at):
            end = text.find(self.quote, at + len(self.quote))
            if end < 0:
                raise ValueError(f"a string has no {self.quote} at its end")
            return text[at + len(self.quote) : end], end + len(self.quote)
        if text[at : at + 1] not in ("{", "["):
            word = NUMBER.match(text, at)
            if not word:
                raise ValueError(f"a value is missing behind {text[max(0, at - 20) : at]!r}")
            return _plain(word.group()), word.end()
        object_, found, named = text[at] == "{", [], {}
        close, at = "}" if object_ else "]", at + 1
        while not text.startswith(close, at):
            if object_:
                colon = text.find(":", at, at + 200)
                if colon < 0:
                    raise ValueError(f"a key without a colon stands behind {text[max(0, at - 20) : at]!r}")
                key = text[at:colon].removeprefix(self.quote).removesuffix(self.quote)
                named[key], at = self._read(text, colon + 1)
            else:
                value, at = self._read(text, at)
                found.append(value)
            if not text.startswith(close, at) and text[at : at + 1] != ",":
                raise ValueError(f"{close} or a comma is missing behind {text[max(0, at - 20) : at]!r}")
            at += text[at : at + 1] == ","
        return (named if object_ else found), at + 1


@dataclass(frozen=True)
class Python:
    """`(key='text', other=7)`, as LFM2 writes calls."""

    quote: str = "'"
    escapes: bool = True  # else nothing in a string is, and one ends before the next argument or the end
    by_str: frozenset[str] = frozenset()  # the types that are written as Python does, not as JSON

    def write(self, arguments: Arguments) -> str:
        """Write arguments."""
        return "(" + ", ".join(f"{key}={self._write(value)}" for key, value in arguments.items()) + ")"

    def _write(self, value: Any) -> str:
        if not isinstance(value, str):
            return _written(value, self.by_str)
        if self.escapes:
            for plain, letter in (("\\", "\\"), (self.quote, self.quote), ("\n", "n"), ("\r", "r")):
                value = value.replace(plain, "\\" + letter)
        elif self._end(value + self.quote + ")]", 0) != len(value):
            raise ValueError(f"the string {value!r} cannot be written in the chat template's form of calls")
        return self.quote + value + self.quote

    def _end(self, text: str, start: int) -> int:
        """Find where a string without escapes ends: before the next argument, or the end of the call and of what follows."""
        found = re.compile(self.quote + END_OF_STRING).search(text, start)
        return found.start() if found else -1

    def read(self, text: str, start: int, types: Mapping[str, Any]) -> tuple[Arguments, int]:
        """Read arguments at a place."""
        if not text.startswith("(", start):
            raise ValueError("( is missing behind its name")
        arguments: Arguments = {}
        at = start + 1
        while not (closed := CLOSED.match(text, at)):
            key = KEY.match(text, at + (text[at : at + 1] == ","))
            if not key:
                raise ValueError(f"an argument without key= stands behind {text[max(0, at - 20) : at]!r}")
            arguments[key.group(1)], at = self._read(text, key.end())
            if text[at : at + 1] not in (",", ")"):
                raise ValueError(f", or ) is missing behind {text[max(0, at - 20) : at]!r}")
        return arguments, closed.end()

    def _read(self, text: str, at: int) -> tuple[Any, int]:
        if text.startswith(self.quote, at) and not self.escapes:
            if (end := self._end(text, at + 1)) < 0:
                raise ValueError(f"a string has no {self.quote} at its end")
            return text[at + 1 : end], end + 1
        depth = 0
        for mark in SPLITS.finditer(text, at):
            token = mark.group()
            if depth == 0 and token in (",", ")"):
                return self._value(text[at : mark.start()].strip()), mark.start()
            depth += (token in "[({") - (token in "])}")
        raise ValueError("its arguments have no ) at their end")

    def _value(self, text: str) -> Any:
        if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
            return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), text[1:-1], flags=re.S)
        return _plain(text)


@dataclass(frozen=True)
class Tagged:
    """`open KEY sep VALUE close` for each argument, strings as they are (GLM, Qwen3.5); types come from the tool's schema."""

    open: str
    sep: str
    close: str
    by_str: frozenset[str] = frozenset()

    def write(self, arguments: Arguments) -> str:
        """Write arguments."""
        return "".join(self.open + key + self.sep + self._write(key, arguments[key]) + self.close for key in arguments)

    def _write(self, key: str, value: Any) -> str:
        text = value if isinstance(value, str) else _written(value, self.by_str)
        if self.close.strip() in text:
            problem = f"a value with {self.close.strip()!r} cannot be written in the chat template's form of calls"
            raise ValueError(f"{problem}: {key}")
        return text

    def read(self, text: str, start: int, types: Mapping[str, Any]) -> tuple[Arguments, int]:
        """Read arguments at a place."""
        arguments: Arguments = {}
        opening = lenient(self.open)
        while found := opening.match(text, start):
            sep, close = self.sep.strip(), self.close.strip()
            at = text.find(sep, found.end())
            key = text[found.end() : at].strip()
            if at < 0 or not key or len(key) > 200 or "\n" in key:
                raise ValueError(f"an argument's name has no {sep} behind it")
            at += len(sep)
            end = text.find(close, at)
            if end < 0:
                raise ValueError(f"the argument {key} has no {close} at its end")
            value = text[at:end]
            left, right = self.sep[self.sep.rindex(sep) + len(sep) :], self.close[: self.close.index(close)]
            arguments[key] = typed(value.removeprefix(left).removesuffix(right), types.get(key))
            start = end + len(self.close.rstrip()) - self.close.index(close)
        return arguments, start


def typed(text: str, schema: Any) -> Any:
    """Give an argument's text its type by the parameter's JSON schema; without one, what it looks like."""
    options = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())] if isinstance(schema, dict) else []
    named = [option.get("type") for option in options if isinstance(option, dict)]
    types = {name for kind in named for name in (kind if isinstance(kind, list) else [kind]) if isinstance(name, str)}
    if types and types <= {"string"}:
        return text
    value = _plain(text)
    if "string" in types and not (value is None and "null" in types):
        fits: dict[str, Any] = {"integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
        return value if any(isinstance(value, fits[name]) for name in types & fits.keys()) else text
    return value


def _plain(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if text[:1] in "[{(":
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            pass
    return text


def _written(value: Any, by_str: frozenset[str]) -> str:
    return str(value) if type(value).__name__ in by_str else json.dumps(value, ensure_ascii=False)


def lenient(literal: str) -> re.Pattern[str]:
    """Match a literal whatever white space stands where it has some, before and behind it too."""
    return re.compile(r"\s*" + r"\s*".join(map(re.escape, literal.split())) + r"\s*")
