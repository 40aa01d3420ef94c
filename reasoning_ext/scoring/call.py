"""Rewards as TRL calls them: plain functions with the layer's options around them, the same for every reward.

`Reward` completes what the function sees (whole completions, the gold under the name that TRL's own rewards use), leaves out
the rows that do not concern it (`when`, `gate`), runs it in a process that can be killed (`isolate`, `timeout`), and counts
what goes wrong: an exception, a time-out, a list of the wrong length or a value that is no number gives None, a line on
standard error and the metric `NAME/errors`. Three failures in a row stop the run. No closures, so that everything pickles.
"""

import asyncio
import functools
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.trl_fields import fits
from reasoning_ext.recipe.user_code import where
from reasoning_ext.scoring.inputs import OF_DATA, Extra, Once, copied, state_at_rest
from reasoning_ext.scoring.spec import RewardSpec, read_columns
from reasoning_ext.shown import print, without_secrets
from reasoning_ext.think import WHOLE, content
from reasoning_ext.think.template import Decoder
from reasoning_ext.verifier.pool import Failure, Pool

FAILURES_IN_A_ROW = 3
LOGGERS = ("log_extra", "log_metric")
TOKENS = "tokens"  # the column of TRL's table that says how many a completion has
TURNS = "turns"  # ... with tools: the messages before the last
TOOL_TOKENS = "tool_tokens"  # ... and how many tokens the model did not write
OF_LOOP = (WHOLE, TOKENS, TURNS, TOOL_TOKENS)  # what `train.tools` logs
Values = list[float | None]


class RewardError(UserError):
    """A reward that cannot be used: it fails again and again."""

    code = "reward_failed"


def build_rewards(specs: list[RewardSpec], tolerated: int = FAILURES_IN_A_ROW - 1) -> list["Reward"]:
    """Import the rewards, make them callable as TRL calls them, and start the verifier's workers if one of them judges.

    Args:
        specs: the recipe's rewards.
        tolerated: failures in a row that give None; one more stops the run.
    """
    rewards = [(AsyncReward if spec.is_async else Reward)(spec, tolerated) for spec in specs]
    columns, owners = read_columns(specs), dict[str, str]()
    for i, reward in enumerate(rewards):
        reward.columns, reward.owners, reward.is_first = columns, owners, i == 0
        reward.gate = next((other for other in rewards if other.__name__ == reward.spec.gate), None)
        if not reward.spec.isolate:
            reward.load()
    if "reasoning_ext.verifier" in sys.modules:
        sys.modules["reasoning_ext.verifier"].warm_up()
    return rewards


def decode_with(rewards: list["Reward"], decoder: Decoder, looped: bool = False) -> None:
    """Let rewards see whole completions in a trainer, and let the first log them where TRL's table would lack a part.

    A batch is decoded once for all of them, and not at all where the trainer's own texts are whole, or a loop
    of tools has made and logged them (`looped`).
    """
    whole = None if decoder.changes_nothing or looped else Once(decoder)
    for reward in rewards:
        reward.whole = whole
        if looped:
            reward.columns -= {*OF_LOOP}
            reward.owners |= dict.fromkeys(OF_LOOP, OF_DATA)


class Reward:
    """A reward function with its options, called exactly as TRL calls any."""

    def __init__(self, spec: RewardSpec, tolerated: int = FAILURES_IN_A_ROW - 1):
        self.__name__ = spec.name
        self.spec, self.tolerated, self.failures = spec, tolerated, 0
        self.gate: Reward | None = None
        self.whole: Once | None = None  # makes whole completions of token ids; None where they are whole already
        self.columns: set[str] = set()  # of the data, that go into TRL's table, so that `score` can replay the rewards
        self.owners: dict[str, str] = {}  # who logs a column of that table, shared by all
        self.is_first = False  # it logs the data's columns, and whole completions where TRL's table lacks a part
        self._pool: Pool | None = None
        self._seen: tuple[list, dict[str, Any], Values] | None = None

    def __call__(self, /, completions: list, **kwargs: Any) -> Values:
        """Score N completions; `kwargs` are TRL's inputs and the data set's columns, N values each."""
        if (known := self._known(completions, kwargs)) is not None:
            return known
        rows, given, extra = self._begin(completions, kwargs)
        values: Values = []
        try:
            values = self._checked(self._call(given), len(rows), kwargs) if rows else []
        except (Exception, SystemExit) as error:
            values = self._failed(error, len(rows), kwargs)
        extra.fill()
        return self._end(completions, kwargs, rows, values)

    def load(self) -> None:
        """Import the function, and call one of ours with an empty batch, which checks its parameters.

        Raises:
            RewardError: that is not possible; found before a model is loaded.
        """
        plugin, doing = self.spec.plugin, "cannot be imported"
        try:
            function, doing = self.function, "refuses its parameters"
            if (plugin.module or "").startswith("reasoning_ext.rewards."):
                empty: dict[str, Any] = {name: [] for name in (*plugin.required, "completions", "prompts")}
                _waited(function(**empty | self.spec.options))
        except (Exception, SystemExit) as error:
            problem = f"{doing}: {type(error).__name__}: {error}"
            raise RewardError(f"reward {self.__name__} ({where(plugin.file, error)}): {problem}") from error

    @functools.cached_property
    def function(self) -> Callable[..., Any]:
        """The function itself, imported at first use."""
        loaded = self.spec.plugin.load()
        function = loaded(**self.spec.options) if self.spec.plugin.is_factory else loaded
        if inspect.iscoroutinefunction(function) and not (self.spec.is_async or self.spec.isolate):
            raise TypeError("a factory of an async function, allowed: isolate: true, or an async def of its own")
        return function

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "function"}
        return kept | {"_pool": None, "_seen": None}

    def _known(self, completions: list, kwargs: dict[str, Any]) -> Values | None:
        """Return the values of the batch that was scored last, if it is this one: a gate may have asked before TRL does."""
        if self._seen is None or self._seen[0] is not completions or self._seen[1].keys() != kwargs.keys():
            return None
        same = all(self._seen[1][name] is value for name, value in kwargs.items() if isinstance(value, list))
        return list(self._seen[2]) if same else None

    def _begin(self, completions: list, kwargs: dict[str, Any]) -> tuple[list[int], dict[str, Any], Extra]:
        """Log what the data say; return the rows to score, what the function is given of them, and its `log_extra`."""
        log, count, ids = kwargs.get("log_extra"), len(completions), kwargs.get("completion_ids")
        rows = self._rows(completions, kwargs)
        logs_whole = self.is_first and self.whole is not None and self.whole.decoder.contract.changes_text
        if self.whole is not None and ids is not None and (rows or logs_whole):
            completions = self.whole(completions, ids)
        given = {**kwargs, "completions": completions}
        if len(rows) < count:
            of_rows = [name for name, value in given.items() if isinstance(value, list) and len(value) == count]
            given |= {name: [given[name][i] for i in rows] for name in of_rows}
        extra = Extra(log or _ignore, self.__name__, self.owners, rows, count)
        if log is not None:
            there = logged(self, kwargs)
            self.owners.update(dict.fromkeys(there, OF_DATA))
            for column in there if self.is_first else ():
                log(column, list(kwargs[column]))
            if logs_whole:
                log(WHOLE, [content(completion) for completion in completions])
            if self.is_first and ids is not None and self.owners.setdefault(TOKENS, TOKENS) == TOKENS:
                log(TOKENS, [*map(len, ids)])
            given["log_extra"] = extra
        return rows, given, extra

    def _end(self, completions: list, kwargs: dict[str, Any], rows: list[int], values: Values) -> Values:
        """Put the values in their rows' places, and keep them for who asks again."""
        found = dict(zip(rows, values, strict=True))
        self._seen = (completions, kwargs, [found.get(i) for i in range(len(completions))])
        return list(self._seen[2])

    def _rows(self, completions: list, kwargs: dict[str, Any]) -> list[int]:
        """List the rows that `when` and `gate` leave."""
        when = self.spec.when.items()
        rows = [i for i in range(len(completions)) if all(kwargs[column][i] in allowed for column, allowed in when)]
        if self.gate is not None and rows:
            opened = self.gate(completions, **kwargs)
            rows = [i for i in rows if (opened[i] or 0.0) > 0]
        return rows

    def _arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return copies, so that a reward that edits what it is given changes it for itself alone."""
        plugin, arguments = self.spec.plugin, dict(given)
        for name in plugin.options.keys() & given.keys():  # a column that no setting can be
            if not fits([value for value in given[name] if value is not None], plugin.options[name]):
                del arguments[name]
        for name, other in (("solution", "answer"), ("answer", "solution")):  # TRL's own rewards call the gold solution
            if name not in given and other in given:
                arguments[name] = given[other]
        return copied(arguments if plugin.is_factory else arguments | self.spec.options, {})

    def _call(self, given: dict[str, Any]) -> Any:
        arguments = self._arguments(given)
        return self._in_a_worker(arguments) if self.spec.isolate else self.function(**arguments)

    def _in_a_worker(self, arguments: dict[str, Any]) -> Any:
        if self._pool is None:
            self._pool = Pool("reasoning_ext.scoring.call:score_isolated", size=1, setup=(self.spec, None))
        sent = {name: value for name, value in arguments.items() if name not in (*LOGGERS, "environments")}
        if (state := sent.get("trainer_state")) is not None:  # as it is, it would import transformers there
            sent["trainer_state"] = SimpleNamespace(**vars(state) | {"stateful_callbacks": {}})
        [result] = self._pool.map([(self.spec, sent)], self.spec.timeout)
        if isinstance(result, Failure):
            raise RuntimeError(str(result))
        for logger, name, value in result["logged"]:
            if arguments.get(logger) is not None:
                arguments[logger](name, value)
        return result["values"]

    def _checked(self, values: Any, count: int, kwargs: dict[str, Any]) -> Values:
        values = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(values, list | tuple) or len(values) != count:
            found = f"{len(values)} values" if hasattr(values, "__len__") else type(values).__name__
            raise ValueError(f"returned {found}, allowed: a list of {count}")
        numbers = [None if value is None else float(value) for value in values]
        odd = [value for value in numbers if value is not None and not math.isfinite(value)]
        if odd and len(odd) == len(numbers) - numbers.count(None):
            raise ValueError(f"returned {odd[0]}, which is no reward, for every completion")
        if odd:
            self._count(f"returned {odd[0]}, which is no reward", len(odd), kwargs)
        self.failures = 0
        return [value if value is not None and math.isfinite(value) else None for value in numbers]

    def _failed(self, error: BaseException, count: int, kwargs: dict[str, Any]) -> Values:
        self.failures += 1
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if last.name.startswith("_") else f" ({last.filename}:{last.lineno})"
        problem = f"{type(error).__name__}: {error}{place}"
        if self.failures > self.tolerated:
            often = f" {self.failures} times in a row" if self.failures > 1 else ""
            raise RewardError(f"reward {self.__name__} ({self.spec.plugin.file}): failed{often}: {problem}") from error
        self._count(problem, count, kwargs)
        return [None] * count

    def _count(self, problem: str, count: int, kwargs: dict[str, Any]) -> None:
        said = without_secrets(problem)
        print(f"reward {self.__name__}: {count} completions without a reward: {said}", file=sys.stderr)
        if kwargs.get("log_metric") is not None:
            kwargs["log_metric"](f"{self.__name__}/errors", float(count))


class AsyncReward(Reward):
    """The same for an `async def` reward, which TRL awaits together with the other asynchronous ones."""

    async def __call__(self, /, completions: list, **kwargs: Any) -> Values:  # type: ignore[override]
        """Score N completions, as `Reward` does."""
        rows, given, extra = self._begin(completions, kwargs)
        values: Values = []
        try:
            if rows:
                made = self._call(given)
                values = self._checked(await made if inspect.isawaitable(made) else made, len(rows), kwargs)
        except (Exception, SystemExit) as error:
            values = self._failed(error, len(rows), kwargs)
        extra.fill()
        return self._end(completions, kwargs, rows, values)


def logged(reward: Reward, names: Iterable[str]) -> list[str]:
    """Return those of a data set's columns that go into the table of completions because a reward reads them."""
    return sorted(reward.columns.intersection(names))


def call_reward(reward: Reward, /, **kwargs: Any) -> Values:
    """Call a reward outside of a trainer, waiting for an asynchronous one."""
    given = {"trainer_state": state_at_rest(), "log_extra": _ignore, "log_metric": _ignore} | kwargs
    return _waited(reward(**given))  # type: ignore[arg-type]


def score_isolated(item: tuple[RewardSpec, dict[str, Any] | None]) -> dict[str, Any]:
    """Call a reward in a worker: `(spec, arguments)` -> its values and what it logged; with None, only import it."""
    spec, arguments = item
    if not _held:
        _held.append(Reward(spec))
        _ = _held[0].function
    if arguments is None:
        return {}
    logged: list[tuple[str, str, Any]] = []
    for logger in LOGGERS:
        arguments[logger] = lambda name, value, logger=logger: logged.append((logger, name, value))
    values = _waited(_held[0].function(**arguments))
    return {"values": values.tolist() if hasattr(values, "tolist") else values, "logged": logged}


_held: list[Reward] = []  # the reward that this worker calls, with whatever it has loaded


def _waited(values: Any) -> Any:
    return asyncio.run(values) if inspect.iscoroutine(values) else values


def _ignore(name: str, value: Any) -> None:
    """Stand in for TRL's loggers."""
