"""A reward in a process of its own, which can be killed: what runs there."""

import asyncio
import inspect
from typing import Any

from reasoning_ext.scoring.call import LOGGERS, Reward
from reasoning_ext.scoring.spec import RewardSpec

_held: list[Reward] = []  # the reward that this worker calls, with whatever it has loaded


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
        arguments[logger] = _Record(logger, logged)
    values = _held[0].function(**arguments)
    values = asyncio.run(values) if inspect.iscoroutine(values) else values
    return {"values": values.tolist() if hasattr(values, "tolist") else values, "logged": logged}


class _Record:
    """A stand-in for TRL's `log_extra` and `log_metric` that keeps what it is given."""

    def __init__(self, logger: str, logged: list):
        self.logger, self.logged = logger, logged

    def __call__(self, name: str, value: Any) -> None:
        self.logged.append((self.logger, name, value))
