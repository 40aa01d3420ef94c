"""What runs in the workers of `box`: a tool, or a method of an environment, called once for each item that comes.

What is printed is dropped. A result leaves as text, cut to what may be seen of it, so that a flood never crosses; an object's
state as a pickle, written here and read here. The limit of memory counts what a call takes beyond what importing took.
"""

from __future__ import annotations

import base64
import inspect
import json
import math
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from reasoning_ext.errors import one_line
from reasoning_ext.recipe.user_code import import_file, where
from reasoning_ext.tools.bounds import EnvironmentSpec, ToolSpec
from reasoning_ext.tools.facade import REWARD
from reasoning_ext.tools.library import ToolError

MOST_STATE = 16 << 20  # bytes of a pickled object
MAKE = "__init__"
Spec = ToolSpec | EnvironmentSpec
_held: list[Any] = []  # the spec, and the function or the class, of this worker


def prepare(spec: Spec) -> str:
    """Do what a tool does once and what takes time, and make an environment's object; "", or in words what is wrong."""
    try:
        os.chdir(spec.folder)
        if isinstance(spec, EnvironmentSpec):
            _packed(import_file(spec.file).__dict__[spec.name](**spec.options))
        elif spec.is_ours and (ready := getattr(sys.modules[spec.plugin.load().__module__], "prepare", None)):
            ready(**spec.options)
    except (Exception, SystemExit) as error:
        if isinstance(spec, EnvironmentSpec) and not isinstance(error, ToolError):
            return f"{where(spec.file, error)}: {one_line(error)}"
        return str(error) if isinstance(error, ToolError | RuntimeError) else one_line(error)
    return ""


def work(item: Any) -> dict[str, Any]:
    """Answer an item: a tool's `arguments`, or `(state, method, arguments)`; the first is the spec, to be held.

    Returns:
        `text`, `fault`, `seconds`, and for an environment `state`, in base64, or for its reward `value`.
    """
    if not _held:
        return _hold(item)
    began, reply = time.perf_counter(), {"text": "", "fault": ""}
    try:
        os.chdir(_held[0].folder)  # the call before may have gone elsewhere
        is_method = isinstance(item, tuple)
        reply |= _method(*item) if is_method else {"text": _text(_waited(_loaded()(**item, **_options())))}
    except MemoryError:
        raise MemoryError(f"out of memory, allowed: {_held[0].memory_mb} MiB") from None  # the pool replaces the worker
    except (Exception, SystemExit) as error:
        reply |= {"text": f"error: {_said(error)}", "fault": "timeout" if isinstance(error, TimeoutError) else "error"}
    return reply | {"text": _cut(str(reply["text"])), "seconds": time.perf_counter() - began}


def _hold(spec: Spec) -> dict[str, Any]:
    """Load the tool, drop what it prints from now on, and limit what it takes; what fails fails again in each call."""
    os.chdir(spec.folder)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    _held.append(spec)
    try:
        _loaded()
        if isinstance(spec, ToolSpec) and spec.is_ours and spec.name == "search":
            _loaded()(query="warm", **spec.options)
    except (Exception, SystemExit):
        pass
    if spec.memory_mb and not getattr(spec, "bounds_itself", False):
        with open("/proc/self/statm", encoding="ascii") as sizes:
            limit = int(sizes.read().split()[0]) * resource.getpagesize() + (spec.memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return {}


def _loaded() -> Callable[..., Any]:
    if len(_held) == 1:
        spec = _held[0]
        is_tool = isinstance(spec, ToolSpec)
        _held.append(spec.plugin.load() if is_tool else getattr(import_file(spec.file), spec.name))
    return _held[1]


def _options() -> dict[str, Any]:
    return _held[0].options


def _method(state: bytes | None, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call a method of an object, or make one and call its `reset`."""
    of_class = _loaded()  # before its objects are unpickled
    made = of_class(**_options()) if state is None else pickle.loads(state)
    value = None if method == MAKE else _waited(getattr(made, method)(**arguments))
    if method == REWARD:
        if value is not None and not math.isfinite(value := float(value)):
            raise ToolError(f"{REWARD} returned {value}, allowed: a number, or None")
        return {"value": value}
    return {"text": "" if value is None else _text(value), "none": value is None, "state": _packed(made)}


def _packed(made: Any) -> str:
    try:
        packed = pickle.dumps(made)
    except Exception as error:
        raise ToolError(f"an object of {type(made).__name__} cannot be pickled: {one_line(error)}") from error
    if len(packed) > MOST_STATE:
        raise ToolError(f"an object of {type(made).__name__} takes {len(packed)} bytes, allowed: {MOST_STATE}")
    return base64.b64encode(packed).decode()


def _waited(value: Any) -> Any:
    if not inspect.iscoroutine(value):
        return value
    import asyncio

    return asyncio.run(value)


def _text(value: Any) -> str:
    """Write what a tool returns: text as it is, the rest as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=lambda one: one.tolist())  # of numpy and torch
    except (TypeError, ValueError, AttributeError, RecursionError):
        allowed = "text, a number, or a dict or list of those"
        raise ToolError(f"returned {type(value).__name__}, allowed: {allowed}") from None


def _cut(text: str) -> str:
    """Cut a text to what may be seen of it; what no tokenizer can encode becomes `?`."""
    most = _held[0].max_characters
    kept = text[:most].encode(errors="replace").decode()
    return kept if len(text) <= most else f"{kept}\n... ({len(text) - most} more characters)"


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, ToolError | TimeoutError) and str(error) else one_line(error)
