"""How a chat template writes calls, as text: taken apart, written, and kept out of what tools answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reasoning_ext import think
from reasoning_ext.think.call_bodies import Body, Json, lenient, read_json
from reasoning_ext.think.messages import Call, call_of

NAME = "\0"  # in `head` and `between`, where a template writes a function's name there too
NAMES = r"[\w.-]{1,200}"
DEPTH = 32  # of lists and objects in arguments
TRIES = 64  # openings of calls that may turn out malformed in a text before the rest is left alone
WRAPPED = re.compile(r'\{\s*"name"\s*:\s*"$')


@dataclass(frozen=True)
class CallFormat:
    """How a template writes calls and results: `head NAME middle BODY close`, `between` two of them, `finish` behind the last."""

    head: str = '<tool_call>\n{"name": "'
    middle: str = '", "arguments": '
    body: Body = field(default_factory=Json)
    close: str = "}\n</tool_call>"
    between: str | None = '\n<tool_call>\n{"name": "'  # None where a turn has one call
    finish: str = ""
    lead: str = "\n"  # between what a turn says and its first call
    bare: str = ""  # before the first call of a turn that says nothing
    thought_end: str = ""  # what ends a thought before a call, where it is not what ends one before an answer
    end: str = ""  # what ends an assistant's turn that calls; `Contract.end` in most
    end_id: int | None = None
    prefix: str = ""  # what the generation prompt behind results wrote of a turn, as `Contract.prefix` of a question
    text_arguments: bool = False  # the template wants a call's arguments as JSON text
    types: Mapping[str, Any] = field(default_factory=dict, hash=False)  # parameters by function, of the schemas
    tokens: tuple[str, ...] = ()  # the tokenizer's control tokens
    roles: tuple[str, ...] = ()  # words at a line's beginning by which a template without control tokens opens turns

    def parse(self, text: str) -> tuple[str, list[Call], str]:
        """Take a whole completion's turn apart: `(the content before the calls, the calls, what is wrong with one or "")`.

        Calls are taken wherever they stand; what stands behind the last one is left out. Without a call that can be read the
        content is the whole text. An opening inside a closed thought that is no call is a mention, and nothing is wrong.
        """
        calls: list[Call] = []
        first, at, tries, problem = -1, 0, 0, ""
        closed = text.rfind(think.CLOSE)
        while tries < TRIES and (found := self._opening.search(text, at)):
            at, following = found.end(), None
            try:
                call, at = self._read(text, at)
                calls.append(call)
                first = found.start() if first < 0 else first
                while self._between and (following := self._between.match(text, at)):
                    call, at = self._read(text, following.end())
                    calls.append(call)
            except ValueError as error:
                at, tries = max(at, following.end() if following else 0), tries + 1
                if found.start() > closed and (self._marked or _NAMED.match(text, found.start())):
                    problem = problem or f"this call was not understood: {error}; write {self._example()}"
            if not self._marked:
                at = max(at, found.start() + 1)
        if not calls:
            return text, [], problem
        if self.between is None and len(calls) > 1:
            calls, problem = calls[:1], "only the first call was run: one call a turn"
        return self._content(text[:first]), calls, problem

    def write(self, content: str, calls: Sequence[Call]) -> str:
        """Write a turn's text as the template would, without the end of the turn; `parse` reads it back.

        Raises ValueError where the template's form cannot hold a value or so many calls.
        """
        if not calls:
            return content
        if self.between is None and len(calls) > 1:
            raise ValueError(f"{len(calls)} calls in a turn; the chat template has room for one")
        parts = []
        for number, call in enumerate(calls):
            name, arguments = call["function"]["name"], call["function"].get("arguments") or {}
            opening = (self.between if number else self.head) or ""
            parts += [opening.replace(NAME, name), name, self.middle, self.body.write(arguments), self.close]
        return self._opened(content) + "".join(parts) + self.finish

    def defuse(self, text: str) -> str:
        """Return a result's text in which no control token and no marker of calls, results or thoughts stands as such."""
        for _ in range(3):  # a space may make another marker
            text = self._markers.sub(lambda found: _split(found.group()), text)
        return text

    def _opened(self, content: str) -> str:
        said = content.rstrip()
        if not said:
            return content + self.bare
        if self.thought_end:
            return (said.removesuffix(think.CLOSE) if said.endswith(think.CLOSE) else content) + self.thought_end
        return content if said.endswith(think.CLOSE) else content + self.lead

    def _content(self, before: str) -> str:
        if not before.strip():
            return before.removesuffix(self.bare)
        if self.thought_end and before.rstrip().endswith(self.thought_end.strip()):
            exact = before.endswith(self.thought_end)
            said = before[: -len(self.thought_end)] if exact else before.rstrip()[: -len(self.thought_end.strip())]
            return said + think.CLOSE if think.answer(said) is None else said
        return before if before.rstrip().endswith(think.CLOSE) else before.removesuffix(self.lead)

    def _read(self, text: str, at: int) -> tuple[Call, int]:
        """Read a call behind its opening: `(call, where it ends)`."""
        if self._wrapped:
            value, at = read_json(text, at)
            if not isinstance(value, dict) or not isinstance(value.get("name"), str):
                raise ValueError('it is no JSON object with a "name"')
            name = value["name"]
            arguments = value.get("arguments", value.get("parameters", {} if self._marked else None))
            if isinstance(arguments, str):
                arguments = read_json(arguments, 0)[0]
            if not isinstance(arguments, dict):
                raise ValueError("its arguments are no JSON object")
        else:
            found = re.compile(rf"\s{{0,9}}({NAMES})").match(text, at)
            if not found or not (middle := lenient(self.middle).match(text, found.end())):
                raise ValueError("its name is missing or followed by something else")
            name = found.group(1)
            arguments, at = self.body.read(text, middle.end(), self.types.get(name, {}))
        if not (end := lenient(self._closing).match(text, at)):
            raise ValueError(f"{self._closing.strip()} is missing at its end")
        if problem := _unsound(name, arguments):
            raise ValueError(problem)
        return call_of(name, arguments), end.end() if self._closing.strip() else at

    def _example(self) -> str:
        written = self.middle + self.body.write({"key": "value"}) + self.close
        return (self.head.replace(NAME, "NAME") + "NAME" + written).strip()

    @cached_property
    def _wrapped(self) -> bool:
        """Tell whether name and arguments are in one JSON object."""
        return bool(WRAPPED.search(self.head))

    @cached_property
    def _marked(self) -> bool:
        """Tell whether something stands before the object."""
        return bool(WRAPPED.sub("", self.head).strip())

    @cached_property
    def _closing(self) -> str:
        return self.close.lstrip().removeprefix("}") if self._wrapped else self.close

    @cached_property
    def _opening(self) -> re.Pattern[str]:
        return _pattern(WRAPPED.sub("", self.head)) if self._marked else re.compile(r'(?=\{\s{0,9}"name"\s{0,9}:)')

    @cached_property
    def _between(self) -> re.Pattern[str] | None:
        literal = WRAPPED.sub("", self.between or "")
        return re.compile(r"\s*" + _pattern(literal).pattern) if literal.strip() else None

    @cached_property
    def _markers(self) -> re.Pattern[str]:
        pieces = [piece for text in (self.head, self.close, self.finish) for piece in _TAGS.findall(text)]
        marks = {*self.tokens, *pieces, *_PLAIN_MARKS}
        words = "|".join(map(re.escape, sorted((mark for mark in marks if len(mark) > 1), key=len, reverse=True)))
        roles = "".join(rf"|^[^\S\n]*{re.escape(role)}" for role in self.roles)
        return re.compile(words + roles, re.M)


_TAGS = re.compile(r"<[^\s<>]+[>=]|\[[A-Z_/]+\]")
_NAMED = re.compile(r'\{\s{0,9}"name"\s{0,9}:\s{0,9}"[^"\n]{0,200}"\s{0,9},\s{0,9}"(?:parameters|arguments)"')
_PLAIN_MARKS = (think.OPEN, think.CLOSE, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


def _unsound(name: str, arguments: Any) -> str:
    """Say what of a call could not be rendered, sent or written again; "" where nothing is."""
    if not re.fullmatch(NAMES, name):
        return "its name may have letters, digits, _ . and - alone"
    level = [arguments]
    for _ in range(DEPTH):
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        level = [part for part in level if isinstance(part, dict | list)]
    if level:
        return "its arguments are nested too deeply"
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "its arguments hold half of a surrogate pair, which is no text"
    return ""


def _pattern(literal: str) -> re.Pattern[str]:
    """Match an opening whatever its white space, with any name where a name stands in it."""
    words = (NAMES.join(map(re.escape, word.split(NAME))) for word in literal.split())
    return re.compile(r"\s*".join(words))


def _split(mark: str) -> str:
    """Put a space into a marker: behind its first letter, or before the last where it begins as a word does."""
    at = len(mark) - 1 if mark.lstrip()[:1].isalnum() else len(mark) - len(mark.lstrip()) + 1
    return f"{mark[:at]} {mark[at:]}"
