"""What a reward is given in the place of what TRL has for it: whole completions, copies, loggers, a trainer's state."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reasoning_ext.think.template import Decoder


class Once:
    """The whole completions of the batch that was asked for last."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self._last: tuple[list, list] | None = None

    def __call__(self, completions: list, completion_ids: list[list[int]]) -> list:
        if self._last is None or self._last[0] is not completions:
            self._last = (completions, self.decoder.messages(completions, completion_ids))
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}


def copied(value: Any, copies: dict[int, Any]) -> Any:
    """Copy lists and mappings, all the way down, and nothing else; what occurs twice is copied once."""
    if not isinstance(value, list | dict):
        return value
    if id(value) not in copies:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        made = {k: copied(v, copies) if isinstance(v, list | dict) else v for k, v in parts}
        copies[id(value)] = made if isinstance(value, dict) else list(made.values())
    return copies[id(value)]


def said(column: Any) -> Any:
    """Return what a column says, without the rows in which it says nothing."""
    return [value for value in column if value is not None] if isinstance(column, list) else column


@dataclass
class Extra:
    """TRL's `log_extra` for one reward: rows that it does not see get None, columns that are logged already are left out.

    Attributes:
        log_extra: TRL's.
        name: the reward's.
        owners: the reward that logs a column, shared by all.
        there: the columns of the data that are logged already.
        chosen: the rows, of `count`, that the reward sees.
        logged: the columns that it has logged.
    """

    log_extra: Callable[[str, list], None]
    name: str
    owners: dict[str, str]
    there: list[str]
    chosen: list[int]
    count: int
    logged: set[str] = field(default_factory=set)

    def __call__(self, column: str, values: list) -> None:
        if column in self.there or self.owners.setdefault(column, self.name) != self.name:
            return
        whole: list[Any] = [None] * self.count
        for i, value in zip(self.chosen, values, strict=True):
            whole[i] = value
        self.logged.add(column)
        self.log_extra(column, whole)


class StateAtRest:
    """The `TrainerState` of a training that is about to begin; transformers is imported for a reward that looks at it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what pickle asks for
            raise AttributeError(name)
        from transformers import TrainerState

        vars(self).update(vars(TrainerState(epoch=0.0, max_steps=1, num_train_epochs=1)))
        return vars(self)[name] if name in vars(self) else getattr(TrainerState, name)


def ignore(name: str, value: Any) -> None:
    """Stand in for TRL's loggers."""
