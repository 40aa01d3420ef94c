"""The trackers of `report_to`: accelerate's in stages sample and eval, transformers' in a training, in one tracked run each.

`tracking.json` in the run's folder tells which tracked run is its own, so that a run that was killed goes on in that one. A
tracker that fails is said once and asked no more: no stage ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_ext.errors import one_line
from reasoning_ext.recipe.keys import TRACKERS
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import read_object, write_whole
from reasoning_ext.runs.traces import TURNS, lines, turns_of
from reasoning_ext.runs.values import is_interval, is_number
from reasoning_ext.shown import print, visible, without_secrets

FILE, ROWS = "tracking.json", 100  # rows of a table of completions
PROJECT = "huggingface"  # transformers' default, in the place of which a tracker's own variable may name one
VARIABLES = {"wandb": "WANDB_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME", "trackio": "TRACKIO_PROJECT"}


class Tracking:
    """The tracked run of a run's folder, in some trackers.

    Args:
        path: the folder.
        names: of trackers, some of TRACKERS.
        project: the project or experiment that the tracked run belongs to.
        run_name: its name; None: the folder's; that, and every name for trackio, gets what makes it unique behind it.
        step: after which a training goes on.

    Attributes:
        run_name: the name that it has.
        lost: the trackers that have failed.
    """

    def __init__(self, path: Path, names: Iterable[str], project: str, run_name: str | None, step: int = 0):
        self.path, self.step, self.lost = path, step, set[str]()
        kept = read_object(path / FILE)
        self.kept: dict[str, str] = {"id": secrets.token_hex(4)} | {name: str(kept[name]) for name in kept}
        self.names = list(names)
        unnamed, own = "/".join(path.absolute().parts[-2:]), f"-{self.kept['id']}"
        # trackio knows a run by its name alone, and would go on with another folder's
        self.run_name = (run_name or unnamed) + own * (not run_name or "trackio" in self.names)
        variables = {name: os.environ.get(VARIABLES.get(name, "")) for name in self.names}
        self.projects = {name: (project == PROJECT and variables[name]) or project for name in self.names}
        self._open: dict[str, Any] = {}
        if self.names:
            self._keep()

    def ask(self, name: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Call what a tracker does, unless it has failed before; where it fails now that is said."""
        if name in self.lost:
            return
        try:
            call(*arguments, **named)
        except Exception as error:  # its network, its disk, its server: nothing of the run is lost with it
            self.lost.add(name)
            print(f"warning: report_to: {name} failed ({one_line(error)}); going on without it", flush=True)

    def start(self, names: Iterable[str]) -> None:
        """Open, or go on with, the tracked run in some of the trackers."""
        for name in names:
            self.ask(name, self._start, name)

    def _start(self, name: str) -> None:
        from accelerate import PartialState, tracking

        if not PartialState._shared_state:  # accelerate's trackers want one; a training's config makes its own anew
            PartialState(cpu=True)
        project, known = self.projects[name], {"name": self.run_name, "resume": "allow"}
        if name == "tensorboard":
            made: Any = tracking.TensorBoardTracker(name, self.path, purge_step=self.step + 1 if self.step else None)
        elif name == "mlflow":
            made = tracking.MLflowTracker(project, run_id=self.kept.get(name), run_name=self.run_name)
        elif name == "wandb":
            made = tracking.WandBTracker(project, id=self.kept["id"], **known)
        else:
            made = tracking.TrackioTracker(project, **known)
        made.start()
        self._open[name] = made
        if name == "mlflow":  # which gives ids itself
            self.kept[name] = made.tracker.info.run_id
            self._keep()

    def _keep(self) -> None:
        write_whole(self.path / FILE, json.dumps(self.kept))

    def writer(self, name: str) -> Any:
        """Return what a started tracker writes with, None of another."""
        return self._open[name].tracker if name in self._open else None

    def describe(self, values: Mapping[str, Any]) -> None:
        """Log what the run was asked for."""
        for name, tracker in self._open.items():
            if name == "tensorboard":
                text = "".join(f"    {key}: {value}\n" for key, value in values.items())
                self.ask(name, tracker.log, {"recipe": text})
            elif name == "mlflow":  # whose parameters stay as they are, where a recipe may change
                self.ask(name, import_module(name).set_tags, values)
            else:
                self.ask(name, tracker.store_init_configuration, dict(values))

    def log(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at a step, for each name one."""
        for name, tracker in self._open.items():
            named = {re.sub(r"[^\w\-. :/]", "_", key) if name == "mlflow" else key: n for key, n in values.items()}
            if name == "wandb":  # whose own steps only rise
                self.ask(name, tracker.log, named | {"step": step})
            else:
                self.ask(name, tracker.log, named, step=step)

    def table(self, key: str, rows: Iterable[Mapping[str, Any]], step: int = 0) -> None:
        """Log the first ROWS rows; their values are numbers, texts, turns as text, or written as JSON."""
        from pandas import DataFrame

        frame = DataFrame([{name: _cell(name, value) for name, value in row.items()} for row in islice(rows, ROWS)])
        for name in self.names if len(frame) else ():
            self.ask(name, self._table, name, key, frame, step)

    def _table(self, name: str, key: str, frame: Any, step: int) -> None:
        if name == "tensorboard":
            lines = frame.to_json(orient="records", lines=True, force_ascii=False).splitlines()
            self.writer(name).add_text(key, "\n".join(f"    {line}" for line in lines), step)
        elif name == "mlflow":
            import_module(name).log_table(frame, f"{key}_{step}.json")
        else:
            import_module(name).log({key: import_module(name).Table(dataframe=frame)})

    def alarm(self, title: str, text: str, step: int = 0) -> None:
        """Tell what is wrong with a run, as each tracker tells such a thing."""
        for name in self.names:
            self.ask(name, self._alarm, name, title, text, step)

    def _alarm(self, name: str, title: str, text: str, step: int) -> None:
        if name == "tensorboard":
            self.writer(name).add_text(f"health/{title}", text, step)
        elif name == "mlflow":
            import_module(name).set_tag(f"health.{title}", text)
        else:
            import_module(name).alert(title=title, text=text)

    def finish(self) -> None:
        """Close the tracked run, where its tracker has failed, too: else the next stage's would go on in it."""
        for name, tracker in self._open.items():
            if name not in self.lost:
                self.ask(name, tracker.finish)
                continue
            with contextlib.suppress(Exception):
                tracker.finish()


@contextlib.contextmanager
def tracked(recipe: Recipe, path: Path) -> Iterator[Tracking]:
    """Open the trackers that a recipe without training names, and close them."""
    names = [*wanted(recipe.get("report_to"))]  # in the one process that such a stage has
    tracking = Tracking(path, names, recipe.get("project") or PROJECT, recipe.get("run_name"))
    tracking.start(names)
    tracking.describe(without_secrets(recipe.values))
    try:
        yield tracking
    finally:
        tracking.finish()


def wanted(report_to: Any) -> Iterator[str]:
    """Yield the trackers that `report_to` names, none twice; `all` names those that are installed."""
    names = named(report_to)
    for name in TRACKERS:
        if name in names or ("all" in names and installed(name)):
            yield name


def named(report_to: Any) -> list[Any]:
    """Return what `report_to` names, which may be one name or a list."""
    return report_to if isinstance(report_to, list) else [report_to]


def installed(name: str) -> bool:
    """Tell whether a tracker's package is here; a folder of that name, which some of them write, is none."""
    found = find_spec(name)
    return found is not None and found.origin is not None


def numbers(key: str, value: Any) -> dict[str, float]:
    """Return the numbers in figures or counts, by their names joined; the ends of an interval have names of their own.

    >>> numbers("sft", {"greedy": [0.5, 0.4, 0.6], "thoughts": {"steps": 3}})
    {'sft/greedy': 0.5, 'sft/greedy_low': 0.4, 'sft/greedy_high': 0.6, 'sft/thoughts/steps': 3}
    """
    if is_number(value):
        return {key: value}
    if is_interval(value):
        return dict(zip((key, f"{key}_low", f"{key}_high"), value, strict=True))
    parts = value.items() if isinstance(value, dict) else ()
    return {name: number for part, inner in parts for name, number in numbers(f"{key}/{part}", inner).items()}


def _cell(name: str, value: Any) -> Any:
    if name == TURNS and (turns := turns_of({TURNS: value})):
        return visible(lines(turns))
    plain = value is None or isinstance(value, int | float | str)
    return value if plain else json.dumps(value, ensure_ascii=False, default=str)
