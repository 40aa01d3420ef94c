"""A recipe's `reward_funcs` -> reward callables for TRL.

An entry is a name, or a name with the layer's options and the reward's own parameters:

    reward_funcs:
      - math_answer
      - length_penalty: {weight: 0.2, max_tokens: 1024}
      - rewards_of_mine.py:polite

Everything that can be wrong with an entry is found from the function's signature, before anything is imported.
Exceptions in a reward are not caught: a reward that fails stops the run and says which one it was.
"""

import asyncio
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reasoning_ext import think
from reasoning_ext.errors import UserError
from reasoning_ext.fields import describe, fits
from reasoning_ext.plugins import TRL_REWARD_INPUTS, Plugin, find_plugin

HOMES = ["reasoning_ext.rewards", "trl.rewards"]
LAYER_OPTIONS = ("weight",)
SAME_COLUMN = {"solution": "answer"}  # TRL's own rewards ask for `solution`; formatters call the gold `answer`


class EntryError(UserError):
    """A reward entry is wrong; `path` leads to the place inside `reward_funcs`."""

    def __init__(self, path: tuple, problem: str):
        super().__init__(problem)
        self.path = path


@dataclass(frozen=True)
class RewardSpec:
    """One entry of `reward_funcs`, checked against the signature of the function it names."""

    plugin: Plugin
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The reward's name in metrics and in the table of completions."""
        return self.plugin.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The data-set columns the reward cannot do without."""
        if self.plugin.is_factory:
            return ()
        needed = (name for name in self.plugin.required if name not in TRL_REWARD_INPUTS)
        return tuple(SAME_COLUMN.get(name, name) for name in needed)


def parse_rewards(entries: list | str | None, base: Path) -> list[RewardSpec]:
    """Check the entries of `reward_funcs`.

    Args:
        entries: the YAML value.
        base: the recipe's folder, which file paths are relative to.

    Raises:
        EntryError: an entry names no function, has an unknown parameter, or a value of the wrong type.
    """
    entries = [entries] if isinstance(entries, str) else entries or []
    specs = [_parse_entry(entry, i, base) for i, entry in enumerate(entries)]
    for i, spec in enumerate(specs):
        if spec.name in [other.name for other in specs[:i]]:
            raise EntryError((i,), f"found {spec.name} twice, allowed: once, because its name is its metric's name")
    if specs and not any(spec.weight for spec in specs):
        raise EntryError((), "found the weight 0 for every reward, allowed: at least one weight that is not 0")
    return specs


def _parse_entry(entry: Any, i: int, base: Path) -> RewardSpec:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise EntryError(
            (i,), f"found {entry!r}, allowed: a name, or one name with its parameters, `name: {{weight: 1.0}}`"
        )
    [(spelling, parameters)] = entry.items()
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise EntryError((i, spelling), f"found {parameters!r}, allowed: parameters, `{spelling}: {{weight: 1.0}}`")
    try:
        plugin = find_plugin(str(spelling), HOMES, base)
    except LookupError as error:
        raise EntryError((i, spelling), f"unknown reward (found {spelling}): {error.args[0]}") from error
    weight = parameters.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise EntryError((i, spelling, "weight"), f"found {weight!r}, allowed: a finite number")
    options = {name: value for name, value in parameters.items() if name not in LAYER_OPTIONS}
    allowed = plugin.options | (dict.fromkeys(plugin.required, "Any") if plugin.is_factory else {})
    for name, value in options.items():
        _check_option(plugin, name, value, allowed, (i, spelling, name))
    missing = [name for name in plugin.required if plugin.is_factory and name not in options]
    if missing:
        raise EntryError((i, spelling), f"the parameter {missing[0]} is missing; {plugin.name} cannot do without it")
    return RewardSpec(plugin, float(weight), options)


def _check_option(plugin: Plugin, name: str, value: Any, allowed: dict[str, str], path: tuple) -> None:
    if name not in allowed:
        known = [*LAYER_OPTIONS, *allowed]
        near = get_close_matches(name, known, 1, cutoff=0.0)[0]
        raise EntryError(
            path,
            f"unknown parameter of {plugin.name} (found {name}: {value!r}); allowed: {', '.join(known)}; the nearest is {near}",
        )
    if not fits(value, allowed[name]):
        raise EntryError(
            path, f"found {value!r}, allowed: {describe(allowed[name])} ({plugin.name} in {plugin.file.name})"
        )


def needed_columns(specs: list[RewardSpec]) -> dict[str, str]:
    """Return the data-set columns that rewards cannot do without, and who needs each."""
    return {column: f"the reward {spec.name}" for spec in specs for column in spec.columns}


def build_rewards(specs: list[RewardSpec], opener: str = "") -> list["Reward"]:
    """Import the rewards and make them callable as TRL calls them; `opener` is what `think.opener` found."""
    return [(AsyncReward if _is_async(spec) else Reward)(spec, opener) for spec in specs]


class Reward:
    """A reward function with its parameters, called exactly as TRL calls any; picklable, because it holds no closure.

    It completes what the function sees: the opening tag that a template prefilled, and the gold column under the name
    that the function asks for.
    """

    def __init__(self, spec: RewardSpec, opener: str = ""):
        self.__name__ = spec.name
        self.spec, self.opener = spec, opener
        self._function: Callable[..., Any] | None = None

    def __call__(self, completions: list, **kwargs: Any) -> list[float | None]:
        """Score N completions; `kwargs` are TRL's inputs and the data set's columns, N values each."""
        return self._checked(self._call(completions, kwargs), len(completions))

    def _call(self, completions: list, kwargs: dict[str, Any]) -> Any:
        given = {
            name: kwargs[column] for name, column in SAME_COLUMN.items() if name not in kwargs and column in kwargs
        }
        options = {} if self.spec.plugin.is_factory else self.spec.options
        return self.function(completions=think.with_prefix(completions, self.opener), **{**kwargs, **given, **options})

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself, imported at first use."""
        if self._function is None:
            loaded = self.spec.plugin.load()
            self._function = loaded(**self.spec.options) if self.spec.plugin.is_factory else loaded
        return self._function

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_function": None}

    def _checked(self, rewards: Any, count: int) -> list[float | None]:
        if not isinstance(rewards, list | tuple) or len(rewards) != count:
            found = f"{len(rewards)} values" if hasattr(rewards, "__len__") else type(rewards).__name__
            raise ValueError(
                f"reward {self.__name__} ({self.spec.plugin.file}): returned {found}, allowed: a list of {count}"
            )
        return list(rewards)


def call_reward(reward: "Reward", **kwargs: Any) -> list[float | None]:
    """Call a reward outside of a trainer, waiting for an asynchronous one."""
    values: Any = reward(**kwargs)
    return asyncio.run(values) if inspect.iscoroutine(values) else values


class AsyncReward(Reward):
    """The same for an `async def` reward, which TRL awaits together with the other asynchronous ones."""

    async def __call__(self, completions: list, **kwargs: Any) -> list[float | None]:  # type: ignore[override]
        """Score N completions, as `Reward` does."""
        return self._checked(await self._call(completions, kwargs), len(completions))


def _is_async(spec: RewardSpec) -> bool:
    return inspect.iscoroutinefunction(spec.plugin.load())
