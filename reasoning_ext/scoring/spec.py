"""A recipe's `reward_funcs` -> what each reward is, and the options that every reward has; see `call` for what those do.

    reward_funcs:
      - math_answer
      - length_penalty: {weight: 0.2, max_tokens: 1024}
      - rewards_of_mine.py:polite
      - language: {gate: math_answer, when: {task: [math, logic]}, schedule: {linear: {0: 0.0, 200: 0.1}}}
      - ./slow.py: {timeout: 20}

What is wrong with an entry is found from the function's signature, before anything is imported.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe.held_out import eval_problems
from reasoning_ext.recipe.keys import EVAL_REWARDS
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.plugins import TRL_REWARD_INPUTS, Plugin, find_plugin, names_in
from reasoning_ext.recipe.trl_fields import describe, fits
from reasoning_ext.think import WHOLE

HOMES = ["reasoning_ext.rewards", "trl.rewards"]
PASSED = ("prompt", "completion", "prompts", "completions", "completion_ids")  # no columns that `when` can look at
SCORED = ("completions", "completion_ids", "prompts")  # a reward takes one of them by name
NOT_COLUMNS = (*TRL_REWARD_INPUTS, "self", "image", "images", WHOLE)  # TRL and this layer pass or read them themselves
TABLE = ("prompt", "completion", "step", "advantage", *NOT_COLUMNS)  # or write them into the table of completions
DEFAULT_TIMEOUT, MAX_TIMEOUT = 60.0, 86_400


class EntryError(KeyProblem):
    """A reward entry is wrong; `place` leads to it inside `reward_funcs`."""

    code = "wrong_reward"

    def __init__(self, place: tuple, found: str, allowed: str = "", hint: str = ""):
        super().__init__(("reward_funcs", *place), found, allowed, hint)


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
        timeout: seconds that a call may take in that process; setting it isolates the reward.
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
        """The data-set columns the reward cannot do without; formats call `answer` what TRL's rewards call `solution`."""
        needed = () if self.plugin.is_factory else self.plugin.required
        return tuple("answer" if name == "solution" else name for name in needed if name not in TRL_REWARD_INPUTS)

    @property
    def is_async(self) -> bool:
        """True where the function must be awaited; in a process of its own it is not."""
        return self.plugin.is_async and not self.isolate

    def weight_at(self, step: int) -> float:
        """Return the weight at a training step.

        >>> RewardSpec(None, schedule=((0, 0.0), (100, 1.0))).weight_at(25)
        0.25
        """
        for (start, low), (end, high) in itertools.pairwise(self.schedule):
            if start <= step < end:
                return low if self.stepwise else low + (high - low) * (step - start) / (end - start)
        return self.schedule[0][1] if self.schedule and step < self.schedule[0][0] else self.weight


def parse_rewards(entries: list | str | None, base: Path, wrong: list[EntryError] | None = None) -> list[RewardSpec]:
    """Check the entries of `reward_funcs`.

    Args:
        entries: the YAML value.
        base: the recipe's folder, which file paths are relative to.
        wrong: gets an `EntryError` for each wrong entry, in the place of the first being raised; there are no rewards then.
    """
    specs, errors = dict[int, RewardSpec](), list[EntryError]()
    entries = [entries] if isinstance(entries, str) else entries or []
    for i, entry in enumerate(entries):
        try:
            specs[i] = _parse_entry({entry: {}} if isinstance(entry, str) else entry, i, base)
        except EntryError as error:
            errors.append(error)
    errors += _clashes(specs)
    errors += [] if errors else _without_effect(specs, entries)  # which may follow from what is wrong with another
    if errors and wrong is None:
        raise errors[0]
    wrong = [] if wrong is None else wrong
    wrong += errors
    return [] if errors else list(specs.values())


def parse_audits(entries: list | None, base: Path, wrong: list[KeyProblem] | None = None) -> list[RewardSpec]:
    """Check the entries of `audit`, which are those of `reward_funcs` without what says how much a reward counts."""
    found, errors = list[EntryError](), list[KeyProblem]()
    specs = parse_rewards(entries, base, found) if entries else []
    for i, entry in enumerate(entries or []):
        [(spelling, given)] = entry.items() if isinstance(entry, dict) and len(entry) == 1 else [("", None)]
        given = given if isinstance(given, dict) else {}
        for name in [name for name in ("weight", "schedule") if name in given]:
            counts = f"found {given[name]!r}, and nothing is trained on an audit"
            errors.append(KeyProblem(("audit", i, spelling, name), counts, hint="leave it out"))
    for problem, place in [(one.problem, one.path) for one in found if not errors]:
        errors.append(KeyProblem(("audit", *place[1:]), problem.found, problem.allowed, problem.hint, problem.code))
    if errors and wrong is None:
        raise errors[0]
    (wrong if wrong is not None else []).extend(errors)
    return [] if errors else specs


def _clashes(specs: dict[int, RewardSpec]) -> Iterator[EntryError]:
    """Refuse a name that stands twice, and columns that something else writes."""
    names = [spec.name for spec in specs.values()]
    for nth, (i, spec) in enumerate(specs.items()):
        if spec.name in names[:nth]:
            yield EntryError((i,), f"found {spec.name} twice", "once, because its name is its metric's name")
        if clash := next((column for column in (*spec.columns, *spec.when) if column in {*TABLE, *names}), None):
            found = f"{spec.name} asks for the column {clash}, a name that TRL's inputs and tables of completions have"
            yield EntryError((i,), found, hint="give it another name, in the reward and with rename_columns")


def _without_effect(specs: dict[int, RewardSpec], entries: list) -> Iterator[EntryError]:
    """Refuse weights that are all 0, and a gate that is no reward of this list, has a gate of its own, or must be awaited."""
    if specs and not any(reward_weights(None, list(specs.values()))):
        yield EntryError((), "found the weight 0 for every reward", "at least one weight that is not 0")
    gates = [spec.name for spec in specs.values() if not spec.gate and not spec.is_async]
    for i, spec in specs.items():
        others = [name for name in gates if name != spec.name]
        if spec.gate is not None and spec.gate not in others:
            allowed = "another reward of this list that has no gate itself and is not async: "
            place = (i, next(iter(entries[i])), "gate")
            yield EntryError(place, f"found {spec.gate!r}", allowed + (", ".join(others) or "none"))


def _parse_entry(entry: Any, i: int, base: Path) -> RewardSpec:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise EntryError((i,), f"found {entry!r}", "a name, or one name with its parameters, `name: {weight: 1.0}`")
    [(spelling, given)] = entry.items()
    path, given = (i, spelling), {} if given is None else given
    if not isinstance(given, dict):
        raise EntryError(path, f"found {given!r}", f"parameters, `{spelling}: {{weight: 1.0}}`")
    try:
        plugin = find_plugin(str(spelling), HOMES, base)
    except LookupError as error:
        raise EntryError(path, f"unknown reward (found {spelling}): {error.args[0]}") from error
    if problem := _no_reward(plugin):
        raise EntryError(path, f"{plugin.name} in {plugin.file.name} {problem}")
    layer = _layer_options(given, path)
    options = {name: value for name, value in given.items() if name not in LAYER_OPTIONS}
    allowed = plugin.options | (dict.fromkeys(plugin.required, "Any") if plugin.is_factory else {})
    for name, value in options.items() if not plugin.unread else ():
        if name not in allowed:
            known = [*LAYER_OPTIONS, *allowed]
            hint = (
                f"allowed: {', '.join(known)}; the nearest is {get_close_matches(str(name), known, 1, cutoff=0.0)[0]}"
            )
            raise EntryError((*path, name), f"unknown parameter of {plugin.name} (found {name}: {value!r})", hint=hint)
        if not fits(value, allowed[name]):
            what = f"{describe(allowed[name])} ({plugin.name} in {plugin.file.name})"
            raise EntryError((*path, name), f"found {value!r}", what)
    if missing := [name for name in plugin.required if plugin.is_factory and name not in options]:
        raise EntryError(path, f"the parameter {missing[0]} is missing")
    return RewardSpec(plugin, options=options, **layer)


def _no_reward(plugin: Plugin) -> str:
    """Say why a function cannot be called as a reward, or nothing."""
    if plugin.is_factory or plugin.unread:
        return ""
    if not {*SCORED} & plugin.parameters.keys():
        return f"is no reward: a reward has a parameter {' or '.join(SCORED)}"
    return "" if plugin.takes_any else "has no **kwargs, and TRL passes it every column; add **kwargs"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _is_when(value: Any) -> bool:
    names = value.items() if isinstance(value, dict) else ()
    return not value or (bool(names) and all(isinstance(c, str) and c not in PASSED and of != [] for c, of in names))


def _is_schedule(value: Any) -> bool:
    points = next(iter(value.values())) if isinstance(value, dict) and list(value) in (["linear"], ["steps"]) else None
    points = points if isinstance(points, dict) else {}
    fine = [type(step) is int and step >= 0 and _is_number(weight) for step, weight in points.items()]
    return len(fine) > 1 and all(fine)


# the options that every reward has: what a value must be, and how that is said
LAYER_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "weight": (_is_number, "a finite number"),
    "gate": (lambda value: True, "another reward of this list"),  # see `_without_effect`
    "when": (_is_when, f"columns and their values, `{{task: [math, logic]}}`, but none of {', '.join(PASSED)}"),
    "schedule": (_is_schedule, "linear or steps with two weights or more by step: `{linear: {0: 1.0, 200: 0.1}}`"),
    "timeout": (
        lambda value: value is None or (_is_number(value) and 0 < value <= MAX_TIMEOUT),
        f"seconds a batch, above 0, at most {MAX_TIMEOUT}",
    ),
    "isolate": (lambda value: isinstance(value, bool), "true or false"),
}


def _layer_options(given: dict[str, Any], path: tuple) -> dict[str, Any]:
    """Check the options that every reward has; returns fields of `RewardSpec`."""
    for name, (right, allowed) in LAYER_OPTIONS.items():
        if name in given and not right(given[name]):
            raise EntryError((*path, name), f"found {given[name]!r}", allowed)
    timeout, schedule = given.get("timeout"), given.get("schedule", {})
    if timeout is not None and given.get("isolate") is False:
        raise EntryError((*path, "isolate"), "found false beside timeout, which needs a process of its own")
    if schedule and "weight" in given:
        raise EntryError((*path, "schedule"), "found beside weight", "one of the two")
    points = sorted((step, float(weight)) for kind in schedule.values() for step, weight in kind.items())
    when = (given.get("when") or {}).items()
    return {
        "weight": points[-1][1] if points else float(given.get("weight", 1.0)),
        "gate": given.get("gate"),
        "when": {column: values if isinstance(values, list) else [values] for column, values in when},
        "schedule": tuple(points),
        "stepwise": "steps" in schedule,
        "isolate": given.get("isolate", False) or timeout is not None,
        "timeout": float(timeout or DEFAULT_TIMEOUT),
    }


def deciding(specs: list[RewardSpec]) -> int:
    """Return the place of the reward that says what is right: the first that compares with the data, else the first."""
    return next((i for i, spec in enumerate(specs) if spec.columns), 0)


def judge(recipe: Recipe, specs: list[RewardSpec]) -> RewardSpec:
    """Return what says what is right of a training's held-out problems, of every row, whatever its gate says.

    That is the first reward of `eval_problems`, else the first of `specs`, the recipe's own, that compares with the
    data, else evaluation's: what does not know the answer cannot say that one is right.
    """
    asked = eval_problems(recipe)
    named = (asked and asked.reward_funcs) or (None if any(spec.columns for spec in specs) else EVAL_REWARDS[:1])
    found = parse_rewards(named, recipe.folder)[0] if named else specs[deciding(specs)]
    return replace(found, gate=None)


def reward_weights(own: list[float] | None, specs: list[RewardSpec]) -> list[float]:
    """Return one weight a reward: those of the recipe's `reward_weights`, else each one's own, of a schedule the largest."""
    return own or [max((weight for _, weight in spec.schedule), key=abs, default=spec.weight) for spec in specs]


def needed_columns(specs: list[RewardSpec]) -> dict[str, str]:
    """Return the data-set columns that rewards cannot do without, and who needs each."""
    asked = {column: f"when of the reward {spec.name}" for spec in specs for column in spec.when}
    return asked | {column: f"the reward {spec.name}" for spec in specs for column in spec.columns}


def read_columns(specs: list[RewardSpec]) -> set[str]:
    """Return every column that rewards may read, of a data set that has it: the gold, parameters, `kwargs[...]`, `when`."""
    read = {name for spec in specs for name in (*names_in(spec.plugin.file), *spec.columns, *spec.when)}
    return ({"answer"} | read) - {*TRL_REWARD_INPUTS, "prompt", "completion"}
