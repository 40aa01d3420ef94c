"""What a reward is given in the place of what TRL has for it: whole completions, copies, loggers, a trainer's state."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from reasoning_ext.think.template import Decoder

OF_DATA = ""  # who logs the columns of the data


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
        parts = value.values() if isinstance(value, dict) else value
        if {list, dict}.isdisjoint(map(type, parts)):  # the ids of a completion, a column of numbers
            copies[id(value)] = value.copy()
        elif isinstance(value, dict):
            copies[id(value)] = {key: copied(part, copies) for key, part in value.items()}
        else:
            copies[id(value)] = [copied(part, copies) for part in value]
    return copies[id(value)]


@dataclass
class Extra:
    """TRL's `log_extra` for one call of a reward: rows that it does not see get None, what another logs is left out.

    Attributes:
        log_extra: TRL's.
        name: the reward's.
        owners: who logs a column, shared by all rewards; TRL puts what is logged twice there twice.
        rows: those, of `count`, that the reward sees.
        logged: the columns that it has logged.
    """

    log_extra: Callable[[str, list], None]
    name: str
    owners: dict[str, str]
    rows: list[int]
    count: int
    logged: set[str] = field(default_factory=set)

    def __call__(self, column: str, values: list) -> None:
        if self.owners.setdefault(column, self.name) == self.name:
            whole: list[Any] = [None] * self.count
            for i, value in zip(self.rows, values, strict=True):
                whole[i] = value
            self.logged.add(column)
            self.log_extra(column, whole)

    def fill(self) -> None:
        """Log None in the columns that the reward logs at other times: TRL would show the last batch's values again."""
        for column in {column for column, owner in self.owners.items() if owner == self.name} - self.logged:
            self.log_extra(column, [None] * self.count)


def state_at_rest() -> SimpleNamespace:
    """Return what rewards read of the `TrainerState` of a training that is about to begin, without importing transformers."""
    steps = {"epoch": 0.0, "global_step": 0, "max_steps": 1, "num_train_epochs": 1, "best_metric": None}
    return SimpleNamespace(**steps, log_history=[], is_world_process_zero=True, is_local_process_zero=True)
