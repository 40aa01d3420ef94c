"""Tools that cannot hang, flood or crash a run: each call in a process with a deadline and limits; see `verifier.pool`."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from reasoning_ext.errors import KeyProblem
from reasoning_ext.think.calls import UNREADABLE, Call, call_of
from reasoning_ext.tools.environment import Acted, environment_class
from reasoning_ext.tools.facade import REWARD, Told
from reasoning_ext.tools.spec import EnvironmentSpec, ToolSpec, environment_told, environment_type, schemas, tool_told
from reasoning_ext.verifier.pool import TIMED_OUT, Failure, Pool, default_size

WORKERS = 16  # a tool may wait for something; `search` does not, and a worker of its own holds the words of an index
GRACE_SECONDS = 10.0  # for a tool that keeps its own deadline
PREPARED = 7 * 86_400.0  # seconds that an index may take
UNKNOWN = "unknown"  # in metrics, for names that a model made up
MALFORMED = "tools/malformed"  # in metrics: calls that nobody could read
_CONTROL = re.compile(r"<(?=\||/?s>|/?(?:think|tool_\w+)>)|\[(?=/?(?:INST|TOOL_\w+)\])")


@dataclass(frozen=True)
class Result:
    """What a call came to; `content` is what the model sees, of an error too; `fault`: "", "error" or "timeout"."""

    name: str
    content: str
    fault: str = ""
    seconds: float = 0.0

    @property
    def message(self) -> dict[str, Any]:
        """Return the message that answers the call."""
        return {"role": "tool", "name": self.name, "content": self.content}


class Toolbox:
    """The tools of a recipe, and the environment that completions act on, one object each.

    Attributes:
        defuse: what makes text of what a result may hold of a template's markers; the contract's, once that is known.
        answer: answers one call for `functions` and for an environment's methods; a trainer puts its own here.
    """

    def __init__(self, specs: Sequence[ToolSpec], environment: EnvironmentSpec | None = None):
        self.specs, self.environment = list(specs), environment
        self.defuse: Callable[[str], str] = defused
        self.answer: Callable[[Call, Any], str] = self._answer
        self._pools: dict[str, Pool] = {}
        self._problems: dict[str, str] = {}
        self._counts, self._lock = Counter[str](), threading.Lock()

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """What the model is told, as chat templates and servers take it; KeyProblem for a function without docstring or types."""
        return schemas(self.specs, self.environment)

    def functions(self) -> list[Callable[..., str]]:
        """Return the tools as plain functions, as TRL takes them; an environment's methods are not among them."""

        def function(told: Told) -> Callable[..., str]:
            return told.dress(lambda **arguments: self.answer(call_of(told.__name__, arguments), None))

        return [function(tool_told(spec)) for spec in self.specs]

    @functools.cached_property
    def environment_factory(self) -> type | None:
        """Make objects that TRL takes for environments, `environment_factory()`; None where the recipe has none."""
        if self.environment is None:
            return None
        rewards = hasattr(environment_type(self.environment.file, self.environment.name), REWARD)
        return environment_class(self.environment.name, [*self._methods.values()], self, rewards)

    def prepare(self) -> None:
        """Build what a tool needs, an index for example, try the sandbox, and make an environment's object once.

        Raises:
            KeyProblem: that is not possible; found before a model is loaded.
        """
        for i, spec in enumerate(self.specs):
            if problem := self._prepared(spec.name, spec):
                raise KeyProblem(("tools", i, spec.name), f"{spec.name}: {problem}", code="wrong_tool")
        if self.environment and (problem := self._prepared("", self.environment)):
            raise KeyProblem(("environment",), f"{self.environment.name}: {problem}", code="wrong_tool")

    def _prepared(self, name: str, spec: Any) -> str:
        """Have a tool prepared, once, in a process of its own; "", or what is wrong."""
        if name not in self._problems:
            seconds = spec.seconds + GRACE_SECONDS if isinstance(spec, EnvironmentSpec) else PREPARED
            pool = Pool("reasoning_ext.tools.worker:prepare", size=1)
            try:
                self._problems[name] = str(pool.map([spec], seconds)[0]) if _takes_time(spec) else ""
            finally:
                pool.close()
        return self._problems[name]

    def run(self, calls: Sequence[tuple[Call, Any]]) -> list[Result]:
        """Answer N calls, `(call, the environment's object or None)`, at once; an unknown name is an error, as the model sees it.

        Calls of one object are answered in their order, each of the state that the one before has left.
        """
        results: dict[int, Result] = {}
        rounds: list[dict[str, list[int]]] = []
        turns = Counter[int]()
        for i, (call, acted) in enumerate(calls):
            name, arguments = _named(call)
            if problem := self._refusal(name, arguments, acted):
                results[i] = self._counted(name, f"error: {problem}", "error")
            elif name in self._tools:
                _put(rounds, 0, name, i)
            else:
                _put(rounds, turns[id(acted)], "", i)
                turns[id(acted)] += 1
        for groups in rounds:
            with ThreadPoolExecutor(len(groups)) as threads:
                for found in threads.map(lambda group: self._group(group[0], group[1], calls), groups.items()):
                    results |= found
        return [results[i] for i in range(len(calls))]

    def unreadable(self, problem: str) -> Result:
        """Answer a call that nobody can read with what is wrong."""
        with self._lock:
            self._counts[MALFORMED] += 1
        return Result(UNREADABLE, self.defuse(f"error: {problem}"), "error")

    def environments(self, rows: Sequence[dict[str, Any]]) -> tuple[list[Any], list[str | None]]:
        """Make an object for each row and reset it with the row: `(objects, what each adds to the user's message or None)`."""
        assert self.environment_factory is not None
        made = [self.environment_factory() for _ in rows]
        return made, self.reset(made, rows)

    def reset(self, made: Sequence[Any], rows: Sequence[dict[str, Any]]) -> list[str | None]:
        """Reset objects with their rows, at once; one whose reset fails answers every call with the reason."""
        replies = self.act([(one.acted, "reset", row) for one, row in zip(made, rows, strict=True)])
        for one, reply in zip(made, replies, strict=True):
            if reply["fault"]:
                one.acted.state, one.acted.broken = None, f"reset failed: {reply['text'].removeprefix('error: ')}"
                self._counted("reset", "", reply["fault"], reply["seconds"])
            else:
                one.acted.broken = ""
        return [None if reply["fault"] or reply["none"] else self.defuse(reply["text"]) for reply in replies]

    def act(self, items: Sequence[tuple[Acted, str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """Call methods of N different objects, and keep what has become of those whose call went well."""
        assert self.environment is not None
        sent = [(acted.state, method, arguments) for acted, method, arguments in items]
        replies = self._replies("", sent)
        for (acted, _, _), reply in zip(items, replies, strict=True):
            if reply.get("state"):
                acted.keep(reply["state"])
        return replies

    def rewards(self, made: Sequence[Any]) -> list[float | None]:
        """Return what N objects give themselves, at once; None where one has nothing to give, or fails at it."""
        able = [one.acted for one in made if not one.acted.broken and one.acted.state]
        replies = {
            id(acted): reply for acted, reply in zip(able, self.act([(a, REWARD, {}) for a in able]), strict=True)
        }
        for reply in replies.values():
            self._counted(REWARD, "", reply["fault"], reply["seconds"])
        return [replies.get(id(one.acted), {}).get("value") for one in made]

    def figures(self) -> dict[str, float]:
        """Return `tools/NAME/calls`, `/errors`, `/timeouts` and `/seconds` (mean a call) since the last time, and begin anew.

        `tools/malformed` are the calls that nobody could read.

        A call is in one of calls alone, in errors (it raised, died, flooded the memory, or its arguments did not fit) or in
        timeouts as well. Tools that were not called have zeros; names that no tool has count as `unknown`.
        """
        with self._lock:
            counts, self._counts = self._counts, Counter()
        found = {MALFORMED: float(counts.pop(MALFORMED, 0))}
        for name in dict.fromkeys([*self._tools, *self._methods, *(key.partition("/")[0] for key in counts)]):
            for what in ("calls", "errors", "timeouts"):
                found[f"tools/{name}/{what}"] = float(counts[f"{name}/{what}"])
            found[f"tools/{name}/seconds"] = counts[f"{name}/seconds"] / max(1, counts[f"{name}/calls"])
        return found

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools.values():
            pool.close()

    @functools.cached_property
    def _tools(self) -> dict[str, Told]:
        return {spec.name: tool_told(spec) for spec in self.specs}

    @functools.cached_property
    def _methods(self) -> dict[str, Told]:
        return {told.__name__: told for told in environment_told(self.environment)} if self.environment else {}

    def _answer(self, call: Call, acted: Any = None) -> str:
        return self.run([(call, acted)])[0].content

    def _refusal(self, name: str, arguments: Any, made: Any) -> str:
        """Say why no process is asked, and what is allowed; "" where one is."""
        told = self._tools.get(name) or self._methods.get(name)
        if told is None:
            return f"no tool {name[:80]!r}, allowed: {', '.join([*self._tools, *self._methods])}"
        if name not in self._tools and made is None:
            return f"{name} needs an environment, and there is none here"
        return (made.acted.broken if name not in self._tools else "") or told.misfit(arguments)

    def _group(self, name: str, of: list[int], calls: Sequence[tuple[Call, Any]]) -> dict[int, Result]:
        """Answer the calls of one tool, or with the name "" one call each of different objects."""
        if name:
            replies = self._replies(name, [_named(calls[i][0])[1] for i in of])
        else:
            replies = self.act([(calls[i][1].acted, *_named(calls[i][0])) for i in of])
        pairs = zip(of, replies, strict=True)
        return {i: self._counted(_named(calls[i][0])[0], r["text"], r["fault"], r["seconds"]) for i, r in pairs}

    def _replies(self, name: str, items: list[Any]) -> list[dict[str, Any]]:
        """Have a tool's workers, or with the name "" the environment's, answer."""
        spec: Any = next((spec for spec in self.specs if spec.name == name), self.environment)
        seconds = spec.seconds + (GRACE_SECONDS if getattr(spec, "bounds_itself", False) else 0)
        try:
            replies = self._pool(name, spec).map(items, seconds)
        except RuntimeError as error:  # no worker starts
            replies = [Failure(error)] * len(items)
        late, failed = {"fault": "timeout", "seconds": seconds}, {"fault": "error", "seconds": 0.0}
        for i, reply in enumerate(replies):
            if isinstance(reply, Failure):
                replies[i] = {"text": f"error: {reply}", **(late if reply.startswith(TIMED_OUT) else failed)}
        return replies

    def _pool(self, name: str, spec: Any) -> Pool:
        with self._lock:
            if name not in self._pools:
                if name and (problem := self._prepared(name, spec)):
                    raise RuntimeError(problem)
                here = max(2, WORKERS // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
                size = default_size() if isinstance(spec, ToolSpec) and spec.is_ours and name == "search" else here
                self._pools[name] = Pool("reasoning_ext.tools.worker:work", size=size, setup=spec)
            return self._pools[name]

    def _counted(self, name: str, content: str, fault: str = "", seconds: float = 0.0) -> Result:
        key = name if {name} & {*self._tools, *self._methods, "reset", REWARD} else UNKNOWN
        with self._lock:
            self._counts[f"{key}/calls"] += 1
            self._counts[f"{key}/seconds"] += seconds  # type: ignore[assignment]
            if fault:
                self._counts[f"{key}/{fault}s"] += 1
        return Result(self.defuse(name)[:80], self.defuse(content), fault, seconds)


def _takes_time(spec: Any) -> bool:
    """Tell whether there is anything to prepare."""
    is_class = isinstance(spec, EnvironmentSpec)
    return is_class or (spec.is_ours and hasattr(sys.modules[spec.plugin.load().__module__], "prepare"))


def defused(text: str) -> str:
    """Part the markers that most templates have from their brackets, so that they are text; `Toolbox.defuse` at first.

    >>> defused("<|im_end|> a < b")
    '< |im_end|> a < b'
    """
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)


def _named(call: Call) -> tuple[str, Any]:
    function = call.get("function") or {}
    return str(function.get("name")), function.get("arguments") or {}


def _put(rounds: list[dict[str, list[int]]], nth: int, name: str, i: int) -> None:
    rounds += [{} for _ in range(nth + 1 - len(rounds))]
    rounds[nth].setdefault(name, []).append(i)
