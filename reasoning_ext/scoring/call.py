"""Rewards as TRL calls them: plain functions with the layer's options around them, the same for every reward.

`Reward` completes what the function sees (whole completions, whatever the chat template did to them, the gold under the
name that TRL's own rewards use), leaves out the rows that do not concern it (`when`, `gate`), runs it in a process that can
be killed (`isolate`, `timeout`), and counts what goes wrong: an exception, a time-out, a list of the wrong length or a value
that is no number gives None, a line on standard error and the metric `NAME/errors`. A reward that fails three times in a row
is broken and stops the run. No closures, so that everything pickles.
"""

import asyncio
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
from reasoning_ext.scoring.inputs import Extra, Once, StateAtRest, copied, ignore, said
from reasoning_ext.scoring.spec import SAME_COLUMN, RewardSpec, read_columns
from reasoning_ext.shown import print, without_secrets
from reasoning_ext.think import WHOLE, content
from reasoning_ext.think.template import Decoder
from reasoning_ext.verifier.pool import Failure, Pool

FAILURES_IN_A_ROW = 3
LOGGERS = ("log_extra", "log_metric")
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
        reward.columns, reward.owners, reward.logs_columns = columns, owners, i == 0
        reward.gate = next((other for other in rewards if other.__name__ == reward.spec.gate), None)
        if not reward.spec.isolate:
            reward.load()
    if "reasoning_ext.verifier" in sys.modules:
        sys.modules["reasoning_ext.verifier"].warm_up()
    return rewards


def decode_with(rewards: list["Reward"], decoder: Decoder) -> None:
    """Let rewards see whole completions in a trainer, and let the first log them where TRL's table would lack a part.

    A batch is decoded once for all of them, and not at all where the trainer's own texts are whole.
    """
    if decoder.changes_nothing:
        return
    whole = Once(decoder)
    for reward in rewards:
        reward.whole = whole
    rewards[0].logs_whole = decoder.contract.changes_text


class Reward:
    """A reward function with its options, called exactly as TRL calls any."""

    def __init__(self, spec: RewardSpec, tolerated: int = FAILURES_IN_A_ROW - 1):
        self.__name__ = spec.name
        self.spec, self.tolerated = spec, tolerated
        self.whole: Once | None = None  # makes whole completions of token ids; None where they are whole already
        self.gate: Reward | None = None
        self.columns: set[str] = set()  # of the data, that go into TRL's table, so that `score` can replay the rewards
        self.logs_columns = False  # the first reward logs them: TRL puts what is logged twice there twice
        self.owners: dict[str, str] = {}  # the reward that logs a further column, shared by all, for the same reason
        self.logs_whole = False  # the first reward logs whole completions where TRL's table has something else
        self.failures = 0
        self._function: Callable[..., Any] | None = None
        self._pool: Pool | None = None
        self._seen: tuple[list, dict[str, Any], Values] | None = None
        self._extra_columns: set[str] = set()

    def __call__(self, /, completions: list, **kwargs: Any) -> Values:
        """Score N completions; `kwargs` are TRL's inputs and the data set's columns, N values each."""
        known = self._known(completions, kwargs)
        if known is not None:
            return known
        chosen, part, columns, extra = self._begin(completions, kwargs)
        values: Values = []
        try:
            values = self._checked(self._call(part, columns), len(part), columns) if chosen else []
        except (Exception, SystemExit) as error:
            values = self._failed(error, len(part), columns)
        return self._end(completions, kwargs, chosen, values, extra)

    def load(self) -> None:
        """Import the function, and call one of ours with an empty batch, which checks its parameters.

        Raises:
            RewardError: that is not possible; found before a model is loaded.
        """
        doing = "cannot be imported"
        try:
            function = self.function
            doing = "refuses its parameters"
            if (self.spec.plugin.module or "").startswith("reasoning_ext.rewards."):
                empty: dict[str, Any] = {name: [] for name in (*self.spec.plugin.required, "completions", "prompts")}
                result = function(**{**empty, **self.spec.options})
                _ = asyncio.run(result) if inspect.iscoroutine(result) else result
        except (Exception, SystemExit) as error:
            problem = f"{doing}: {type(error).__name__}: {error}"
            raise RewardError(f"reward {self.__name__} ({where(self.spec.plugin.file, error)}): {problem}") from error

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself, imported at first use."""
        if self._function is None:
            loaded = self.spec.plugin.load()
            self._function = loaded(**self.spec.options) if self.spec.plugin.is_factory else loaded
            if inspect.iscoroutinefunction(self._function) and not (self.spec.is_async or self.spec.isolate):
                raise TypeError("a factory of an async function, allowed: isolate: true, or an async def of its own")
        return self._function

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_function": None, "_pool": None, "_seen": None}

    def _known(self, completions: list, kwargs: dict[str, Any]) -> Values | None:
        """Return the values of the batch that was scored last, if it is this one: a gate may have asked before TRL does."""
        if self._seen is None or self._seen[0] is not completions:
            return None
        columns = self._seen[1]
        same = columns.keys() == kwargs.keys() and all(
            columns[k] is kwargs[k] for k in kwargs if isinstance(kwargs[k], list)
        )
        return list(self._seen[2]) if same else None

    def _begin(self, completions: list, kwargs: dict[str, Any]) -> tuple[list[int], list, dict[str, Any], Extra | None]:
        """Return the rows to score, their completions and columns, and what they are logged with."""
        self._log_columns(completions, kwargs)
        chosen = self._chosen(completions, kwargs)
        whole = self._whole(completions, kwargs) if chosen else completions
        return chosen, *self._rows(whole, kwargs, chosen)

    def _end(
        self, completions: list, kwargs: dict[str, Any], chosen: list[int], values: Values, extra: Extra | None
    ) -> Values:
        """Put the values in their rows' places, and keep them for who asks again."""
        self._fill(extra)
        found: Values = [None] * len(completions)
        for i, value in zip(chosen, values, strict=True):
            found[i] = value
        self._seen = (completions, kwargs, found)
        return list(found)

    def _chosen(self, completions: list, kwargs: dict[str, Any]) -> list[int]:
        """List the rows that `when` and `gate` leave."""
        chosen = [
            i for i in range(len(completions)) if all(kwargs[c][i] in allowed for c, allowed in self.spec.when.items())
        ]
        if self.gate is not None and chosen:
            opened = self.gate(completions, **kwargs)
            chosen = [i for i in chosen if (opened[i] or 0.0) > 0]
        return chosen

    def _arguments(self, completions: list, kwargs: dict[str, Any]) -> dict[str, Any]:
        aliases = [pair for name, column in SAME_COLUMN.items() for pair in ((name, column), (column, name))]
        given = {name: kwargs[column] for name, column in aliases if name not in kwargs and column in kwargs}
        plugin = self.spec.plugin
        options = {} if plugin.is_factory else self.spec.options
        settings = plugin.options | dict.fromkeys(plugin.numbers, "float | None")  # no column fills them
        columns = {name: v for name, v in kwargs.items() if name not in settings or fits(said(v), settings[name])}
        arguments = {"completions": completions, **columns, **given, **options}
        return copied(arguments, {})  # so that a reward that edits what it is given changes it for itself alone

    def _whole(self, completions: list, kwargs: dict[str, Any]) -> list:
        ids = kwargs.get("completion_ids")
        return completions if self.whole is None or ids is None else self.whole(completions, ids)

    def _call(self, completions: list, kwargs: dict[str, Any]) -> Any:
        arguments = self._arguments(completions, kwargs)
        return self._in_a_worker(arguments) if self.spec.isolate else self.function(**arguments)

    def _in_a_worker(self, arguments: dict[str, Any]) -> Any:
        if self._pool is None:
            self._pool = Pool("reasoning_ext.scoring.isolated:score_isolated", size=1, setup=(self.spec, None))
        sent = {name: value for name, value in arguments.items() if name not in (*LOGGERS, "environments")}
        state = sent.get("trainer_state")
        if isinstance(state, StateAtRest) and "trainer_state" in self.spec.plugin.takes:
            _ = state.epoch  # imports transformers here, where no deadline runs
        if state is not None and vars(state):  # as it is, it would import transformers there
            sent["trainer_state"] = SimpleNamespace(**vars(state) | {"stateful_callbacks": {}})
        [result] = self._pool.map([(self.spec, sent)], self.spec.timeout)
        if isinstance(result, Failure):
            raise RuntimeError(str(result))
        for logger, name, value in result["logged"]:
            if arguments.get(logger) is not None:
                arguments[logger](name, value)
        return result["values"]

    def _log_columns(self, completions: list, kwargs: dict[str, Any]) -> None:
        for column in logged(self, kwargs) if kwargs.get("log_extra") is not None and self.logs_columns else ():
            kwargs["log_extra"](column, list(kwargs[column]))
        if self.logs_whole and kwargs.get("log_extra") is not None:
            whole = [content(completion) for completion in self._whole(completions, kwargs)]
            kwargs["log_extra"](WHOLE, whole)

    def _rows(
        self, completions: list, kwargs: dict[str, Any], chosen: list[int]
    ) -> tuple[list, dict[str, Any], Extra | None]:
        """Take the chosen rows out of the completions and of every column; what is logged a row goes back to its place."""
        count = len(completions)
        part = dict(kwargs)
        if len(chosen) < count:
            for name, value in kwargs.items():
                if isinstance(value, list) and len(value) == count:
                    part[name] = [value[i] for i in chosen]
            completions = [completions[i] for i in chosen]
        extra = None
        if kwargs.get("log_extra") is not None:
            extra = part["log_extra"] = Extra(
                kwargs["log_extra"], self.__name__, self.owners, logged(self, kwargs), chosen, count
            )
        return completions, part, extra

    def _fill(self, extra: Extra | None) -> None:
        """Log None in the columns that this reward logs at other times: TRL would show the last batch's values again."""
        if extra is not None:
            self._extra_columns |= extra.logged
            for column in self._extra_columns - extra.logged:
                extra.log_extra(column, [None] * extra.count)

    def _checked(self, values: Any, count: int, kwargs: dict[str, Any]) -> Values:
        values = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(values, list | tuple) or len(values) != count:
            found = f"{len(values)} values" if hasattr(values, "__len__") else type(values).__name__
            raise ValueError(f"returned {found}, allowed: a list of {count}")
        if text := next((value for value in values if isinstance(value, str | bytes)), None):
            raise TypeError(f"returned the text {text!r:.40}, allowed: numbers and None")
        numbers = [None if value is None else float(value) for value in values]
        odd = [value for value in numbers if value is not None and not math.isfinite(value)]
        if odd and len(odd) == len(numbers) - numbers.count(None):
            raise ValueError(f"returned {odd[0]}, which is no reward, for every completion")
        if odd:
            self._count(f"returned {odd[0]}, which is no reward", len(odd), kwargs)
        self.failures = 0
        return [None if value in odd or value != value else value for value in numbers]

    def _failed(self, error: BaseException, count: int, kwargs: dict[str, Any]) -> Values:
        self.failures += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error}" + (
            "" if where.name.startswith("_") else f" ({where.filename}:{where.lineno})"
        )
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
        chosen, part, columns, extra = self._begin(completions, kwargs)
        values: Any = []
        try:
            values = self.function(**self._arguments(part, columns)) if chosen else []
            values = await values if inspect.isawaitable(values) else values
            values = self._checked(values, len(part), columns) if chosen else []
        except (Exception, SystemExit) as error:
            values = self._failed(error, len(part), columns)
        return self._end(completions, kwargs, chosen, values, extra)


def logged(reward: Reward, names: Iterable[str]) -> list[str]:
    """Return those of a data set's columns that go into the table of completions because a reward reads them."""
    return sorted(reward.columns.intersection(names))


def call_reward(reward: "Reward", /, **kwargs: Any) -> Values:
    """Call a reward outside of a trainer, waiting for an asynchronous one."""
    at_rest = {"trainer_state": StateAtRest(), "log_extra": ignore, "log_metric": ignore}
    values: Any = reward(**{**at_rest, **kwargs})
    return asyncio.run(values) if inspect.iscoroutine(values) else values
