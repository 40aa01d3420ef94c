"""A training in the trackers of `report_to`: transformers' integrations, kept in one tracked run and from ending the training.

Departure from TRL: tables of completions have a bounded number of rows, and every tracker gets them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from reasoning_ext import think
from reasoning_ext.runs.checkpoints import step_of
from reasoning_ext.runs.folder import RunDir, is_main
from reasoning_ext.runs.tracking import PROJECT, ROWS, Tracking, wanted
from reasoning_ext.train.health import HealthWatch


@contextlib.contextmanager
def tracked_training(trainer: Any, run: RunDir, watch: HealthWatch) -> Iterator[None]:
    """Begin, or go on with, the tracked run that transformers' integrations log to, and close it.

    It is told the alarms of `watch`.
    """
    args, handler = trainer.args, trainer.callback_handler
    names = [*wanted(args.report_to)] if is_main() else []
    step = step_of(run.checkpoint) if run.checkpoint else 0
    tracking = Tracking(run.path, names, getattr(args, "project", PROJECT), args.run_name, step)
    if names:
        args.run_name, args.project = tracking.run_name, tracking.projects.get("trackio", PROJECT)
    tracking.start(name for name in names if name != "trackio")  # which begins anew whatever has begun
    kinds = {kind: name for name, kind in INTEGRATION_TO_CALLBACK.items()}
    for i, callback in enumerate(handler.callbacks):
        if name := kinds.get(type(callback)):
            if name == "tensorboard" and name in names:
                callback.tb_writer = tracking.writer(name)
            handler.callbacks[i] = Guarded(name, callback, tracking)
    if names:
        args.report_to = [name for name in args.report_to if name not in names]  # TRL would write whole tables
        handler.callbacks.insert(0, Told(run.path, tracking, watch))  # before a tracker is closed
    try:
        yield
    finally:
        tracking.finish()


class Guarded(TrainerCallback):
    """One of transformers' trackers; where it fails, the training goes on."""

    def __init__(self, name: str, tracker: TrainerCallback, tracking: Tracking):
        for event in [event for event in dir(tracker) if event.startswith("on_")]:
            told: Callable[..., None] = partial(tracking.ask, name, getattr(tracker, event))
            setattr(self, event, told)


class Told(TrainerCallback):
    """Give trackers what transformers' integrations do not: completions of a GRPO run, and what `health` finds."""

    def __init__(self, path: Path, tracking: Tracking, watch: HealthWatch):
        self.path, self.tracking, self.watch = path, tracking, watch
        self.told, self.logged = 0, 0

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Note that there is a table of completions."""
        self.logged = state.global_step

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Give alarms, and the completions of the last log, which TRL writes after it."""
        new, self.told = self.watch.alarms[self.told :], len(self.watch.alarms)
        for alarm in new:
            self.tracking.alarm(alarm.rule.name, alarm.text, int(alarm.step))
        file = self.path / "completions" / f"completions_{self.logged:05d}.parquet"
        if self.logged and file.is_file():
            self.tracking.ask(file.parent.name, self._table, file, self.logged)  # a table may be torn, or not be one
        self.logged = 0

    on_train_end = on_step_begin

    def _table(self, file: Path, step: int) -> None:
        from pandas import read_parquet

        self.tracking.table("completions", read_parquet(file).head(ROWS).map(_text).to_dict("records"), step)


def _text(cell: Any) -> Any:
    """Return a message's text, as which a table has a prompt and a completion."""
    return think.content(list(cell)) if hasattr(cell, "__len__") and not isinstance(cell, str) else cell
