"""A recipe's `reward_funcs` -> reward callables for TRL.

An entry is a name, or a name with the layer's options and the reward's own parameters:

    reward_funcs:
      - math_answer
      - length_penalty: {weight: 0.2, max_tokens: 1024}
      - rewards_of_mine.py:polite

      - language: {gate: math_answer, when: {task: [math, logic]}, schedule: {linear: {0: 0.0, 200: 0.1}}}
      - ./slow.py: {timeout: 20}

Everything that can be wrong with an entry is found from the function's signature, before anything is imported. What the
options do when a reward is called is in `reward_calls`.
"""

import itertools
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reasoning_ext.errors import UserError
from reasoning_ext.fields import describe, fits
from reasoning_ext.plugins import TRL_REWARD_INPUTS, Plugin, find_plugin, names_in
from reasoning_ext.think import WHOLE

HOMES = ["reasoning_ext.rewards", "trl.rewards"]
PASSED = ("prompt", "completion", "prompts", "completions", "completion_ids")  # no columns that `when` can look at
SCORED = ("completions", "completion_ids", "prompts")  # a reward takes one of them by name
NOT_COLUMNS = (*TRL_REWARD_INPUTS, "self", "image", "images", WHOLE)  # TRL and this layer pass or read them themselves
TABLE = (
    "prompt",
    "completion",
    "step",
    "advantage",
    WHOLE,
    *NOT_COLUMNS,
)  # or write them into the table of completions
LAYER_OPTIONS = ("weight", "gate", "when", "schedule", "timeout", "isolate")
DEFAULT_TIMEOUT, MAX_TIMEOUT = 60.0, 86_400
SAME_COLUMN = {"solution": "answer"}  # TRL's own rewards ask for `solution`; formatters call the gold `answer`


class EntryError(UserError):
    """A reward entry is wrong; `path` leads to the place inside `reward_funcs`."""

    def __init__(self, path: tuple, problem: str):
        super().__init__(problem)
        self.path = path


@dataclass(frozen=True)
class RewardSpec:
    """One entry of `reward_funcs`, checked against the signature of the function it names.

    Attributes:
        weight: factor in the sum of rewards; with a schedule its last value.
        options: the reward's own parameters.
        gate: the reward that must be above 0 for this one to count.
        when: `{column: values}`; this reward counts for rows with one of the values alone.
        schedule: `(step, weight)` points over training.
        stepwise: the weight jumps from point to point; otherwise it goes in a line.
        isolate: call it in a process of its own, killed after `timeout` seconds.
    """

    plugin: Plugin
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    gate: str | None = None
    when: dict[str, list] = field(default_factory=dict)
    schedule: tuple[tuple[int, float], ...] = ()
    stepwise: bool = False
    isolate: bool = False
    timeout: float = DEFAULT_TIMEOUT

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

    @property
    def is_async(self) -> bool:
        """True where the function must be awaited; in a process of its own it is not."""
        return self.plugin.is_async and not self.isolate

    def weight_at(self, step: int) -> float:
        """Return the weight at a training step.

        >>> RewardSpec(None, schedule=((0, 0.0), (100, 1.0))).weight_at(25)
        0.25
        """
        if not self.schedule or step >= self.schedule[-1][0]:
            return self.schedule[-1][1] if self.schedule else self.weight
        for (start, low), (end, high) in itertools.pairwise(self.schedule):
            if start <= step < end:
                return low if self.stepwise else low + (high - low) * (step - start) / (end - start)
        return self.schedule[0][1]


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
    for i, spec in enumerate(specs):
        names = {*TABLE, *(other.name for other in specs)}
        if clash := next((column for column in (*spec.columns, *spec.when) if column in names), None):
            problem = (
                f"{spec.name} asks for the column {clash}, a name that TRL's inputs and tables of completions have"
            )
            raise EntryError((i,), f"{problem}; give it another name, in the reward and with rename_columns")
    if specs and not any(spec.weight or any(w for _, w in spec.schedule) for spec in specs):
        raise EntryError((), "found the weight 0 for every reward, allowed: at least one weight that is not 0")
    for i, spec in enumerate(specs):
        if spec.gate is not None:
            _check_gate(spec, {other.name: other for other in specs}, (i, next(iter(entries[i])), "gate"))
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
    if problem := _no_reward(plugin):
        raise EntryError((i, spelling), f"{plugin.function} in {plugin.file.name} {problem}")
    layer = _layer_options(parameters, (i, spelling))
    options = {name: value for name, value in parameters.items() if name not in LAYER_OPTIONS}
    allowed = plugin.options | (dict.fromkeys(plugin.required, "Any") if plugin.is_factory else {})
    for name, value in options.items() if not plugin.unread else ():
        _check_option(plugin, name, value, allowed, (i, spelling, name))
    missing = [name for name in plugin.required if plugin.is_factory and name not in options]
    if missing:
        raise EntryError((i, spelling), f"the parameter {missing[0]} is missing; {plugin.name} cannot do without it")
    return RewardSpec(plugin, options=options, **layer)


def _no_reward(plugin: Plugin) -> str:
    """Say why a function cannot be called as a reward, or nothing."""
    if plugin.is_factory or plugin.unread:
        return ""
    if not {*SCORED} & {*plugin.takes}:
        return f"is no reward: a reward has a parameter {' or '.join(SCORED)}"
    return "" if plugin.takes_any else "has no **kwargs, and TRL passes it every column; add **kwargs"


def _layer_options(parameters: dict[str, Any], path: tuple) -> dict[str, Any]:
    """Check the options that every reward has; returns fields of `RewardSpec`."""
    weight, isolate, timeout = (
        parameters.get("weight", 1.0),
        parameters.get("isolate", False),
        parameters.get("timeout"),
    )
    if not _is_number(weight):
        raise EntryError((*path, "weight"), f"found {weight!r}, allowed: a finite number")
    if not isinstance(isolate, bool):
        raise EntryError((*path, "isolate"), f"found {isolate!r}, allowed: true or false")
    if timeout is not None and (not _is_number(timeout) or not 0 < timeout <= MAX_TIMEOUT):
        raise EntryError(
            (*path, "timeout"), f"found {timeout!r}, allowed: seconds a batch, above 0, at most {MAX_TIMEOUT}"
        )
    if timeout is not None and parameters.get("isolate") is False:
        raise EntryError(
            (*path, "isolate"), "found false beside timeout, which needs a process of its own; leave it out"
        )
    fields = {
        "weight": float(weight),
        "isolate": isolate or timeout is not None,
        "timeout": float(timeout or DEFAULT_TIMEOUT),
        "gate": parameters.get("gate"),
        "when": _when(parameters.get("when", {}), (*path, "when")),
    }
    if "schedule" in parameters:
        if "weight" in parameters:
            raise EntryError(
                (*path, "schedule"), "found beside weight, allowed: one of the two; a schedule holds weights"
            )
        points = _schedule(parameters["schedule"], (*path, "schedule"))
        fields |= {"schedule": points, "stepwise": "steps" in parameters["schedule"], "weight": points[-1][1]}
    return fields


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _when(value: Any, path: tuple) -> dict[str, list]:
    columns: dict[Any, Any] = value if isinstance(value, dict) else {None: None} if value else {}
    if not all(isinstance(c, str) and c not in PASSED and allowed != [] for c, allowed in columns.items()):
        allowed = "columns and their values, `{task: math}` or `{task: [math, logic]}`"
        raise EntryError(path, f"found {value!r}, allowed: {allowed}; not {', '.join(PASSED)}")
    return {column: allowed if isinstance(allowed, list) else [allowed] for column, allowed in columns.items()}


def _schedule(value: Any, path: tuple) -> tuple[tuple[int, float], ...]:
    points = next(iter(value.values())) if isinstance(value, dict) and list(value) in (["linear"], ["steps"]) else None
    points = points if isinstance(points, dict) else {}
    fine = [type(step) is int and step >= 0 and _is_number(weight) for step, weight in points.items()]
    if len(fine) > 1 and all(fine):
        return tuple(sorted((step, float(weight)) for step, weight in points.items()))
    allowed = "linear or steps with two weights or more by step, whole numbers from 0: `{linear: {0: 1.0, 200: 0.1}}`"
    raise EntryError(path, f"found {value!r}, allowed: {allowed}")


def _check_gate(spec: RewardSpec, specs: dict[str, RewardSpec], path: tuple) -> None:
    """Refuse a gate that is no reward of this recipe, that has a gate of its own, or that must be awaited."""
    others = [name for name, other in specs.items() if name != spec.name and not other.gate and not other.is_async]
    if spec.gate not in others:
        allowed = f"another reward of this list that has no gate itself and is not async: {', '.join(others) or 'none'}"
        raise EntryError(path, f"found {spec.gate!r}, allowed: {allowed}")


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
    needed = {column: f"the reward {spec.name}" for spec in specs for column in spec.columns}
    return needed | {
        column: f"when of the reward {spec.name}" for spec in specs for column in spec.when if column not in needed
    }


def read_columns(specs: list[RewardSpec]) -> set[str]:
    """Return every column that rewards may read, of a data set that has it: the gold, parameters, `kwargs[...]`, `when`."""
    read = {name for spec in specs for name in (*names_in(spec.plugin.file), *spec.columns, *spec.when)}
    return ({"answer"} | read) - {*TRL_REWARD_INPUTS, "prompt", "completion"}
