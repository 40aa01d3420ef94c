"""The part of a function that a model is told of and may set: its name, its docstring, its parameters without the recipe's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

from reasoning_ext.errors import KeyProblem, one_line
from reasoning_ext.recipe.trl_fields import accepts

REWARD = "get_reward"
NOT_CALLED = ("reset", REWARD)  # of an environment's public methods; they are TRL's to call


class Told:
    """What a model is told of a function.

    Attributes:
        whole: the signature with the recipe's parameters.
        signature: the model's part.
        doc: the docstring.
    """

    def __init__(self, name: str, doc: str, whole: inspect.Signature, hidden: Collection[str], kinds: Collection[int]):
        self.__name__, self.doc, self.whole = name, doc, whole
        shown = [p for p in whole.parameters.values() if p.name not in hidden and p.kind not in kinds]
        self.signature = inspect.Signature([p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in shown])

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema, as chat templates and servers take it."""
        from transformers.utils import get_json_schema

        try:
            return get_json_schema(self.dress(lambda **arguments: None))
        except Exception as error:  # of several classes, all of them about the docstring or a type
            said = " ".join(str(error).split("\n")[0].split())[:200]
            allowed = "a docstring that says what it does and, below Args:, each parameter; and a type for each"
            raise KeyProblem((), f"{self.__name__}: {said}", allowed, code="wrong_tool") from error

    def dress(self, function: Callable[..., Any], of_object: bool = False) -> Callable[..., Any]:
        """Give a function this name, docstring and signature, so that TRL takes it for the tool; a method gets `self`."""
        parameters = list(self.signature.parameters.values())
        own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)] if of_object else []
        function.__name__ = function.__qualname__ = self.__name__
        function.__doc__, function.__annotations__ = self.doc, {p.name: p.annotation for p in parameters}
        function.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined]
        return function

    def misfit(self, arguments: Any) -> str:
        """Say what is wrong with a call's arguments, and what is allowed; "" where nothing is."""
        described = self.schema["function"]["parameters"]
        properties, needed = described["properties"], described.get("required", [])
        allowed = ", ".join(f"{name} ({_described(one)})" for name, one in properties.items()) or "no arguments"
        if not isinstance(arguments, dict):
            return f"{self.__name__}: the arguments are no object, allowed: {allowed}"
        for name, value in arguments.items():
            if name not in properties:
                return f"{self.__name__} has no argument {str(name)[:80]!r}, allowed: {allowed}"
            if not accepts(properties[name], value):
                return f"{self.__name__}: {name} is {repr(value)[:80]}, allowed: {_described(properties[name])}"
        missing = [name for name in needed if name not in arguments]
        return f"{self.__name__}: the argument {missing[0]} is missing, allowed: {allowed}" if missing else ""


def facade(name: str, function: Callable[..., Any], options: Collection[str] | None = None) -> Told:
    """Return what a model is told of a function, of which `options` and what is keyword-only are the recipe's; None: nothing.

    Raises:
        KeyProblem: without docstring, types, or a description of each parameter.
    """
    named = function.func if isinstance(function, functools.partial) else function
    try:
        whole = inspect.signature(function, eval_str=True)
    except (Exception, SystemExit) as error:
        raise KeyProblem((), f"{name}: its signature cannot be read: {one_line(error)}", code="wrong_tool") from error
    if next(iter(whole.parameters), "") == "self" and inspect.isfunction(function):
        whole = whole.replace(parameters=list(whole.parameters.values())[1:])
    _refuse_form(name, named, whole)
    described = named if inspect.isroutine(named) else type(named).__call__
    told = Told(
        name,
        inspect.getdoc(named if inspect.isroutine(named) else described) or "",
        whole,
        options or (),
        (2, 3, 4)[:: 2 if options is None else 1],
    )
    _ = told.schema
    return told


def _refuse_form(name: str, function: Callable[..., Any], whole: inspect.Signature) -> None:
    """Refuse a function whose every call would fail: arguments come by name, and what yields returns no text."""
    by_place = [p.name for p in whole.parameters.values() if p.kind is p.POSITIONAL_ONLY]
    if by_place:
        found = f"{name}: found {by_place[0]} before `/`, and arguments are given by name"
        raise KeyProblem((), found, hint="leave the `/` out", code="wrong_tool")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise KeyProblem((), f"{name}: found a function that yields", "one that returns", code="wrong_tool")


def methods_of(cls: type) -> dict[str, Callable[..., Any]]:
    """List the methods that a model may call of a class, as TRL does."""
    public = inspect.getmembers(cls, inspect.isfunction)
    return {name: method for name, method in public if not name.startswith("_") and name not in NOT_CALLED}


def _described(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(map(_described, schema["anyOf"]))
    kinds = schema.get("type", "anything")
    return (kinds if isinstance(kinds, str) else " or ".join(kinds)) + (" or null" if schema.get("nullable") else "")
