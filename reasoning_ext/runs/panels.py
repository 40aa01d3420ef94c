"""The curves of a stage: a drawing a metric, with what every recipe logged, thresholds of rules and alarms."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from reasoning_ext.runs.arms import Arm, Difference, differences
from reasoning_ext.runs.drawing import COLOURS, Limit, Line, draw
from reasoning_ext.runs.figures import Curve, all_curves
from reasoning_ext.runs.next_steps import Health
from reasoning_ext.runs.read import Run
from reasoning_ext.runs.shares import Share, reward_shares
from reasoning_ext.runs.values import is_number


class Panel(NamedTuple):
    """One drawing: its id in the page, its metric and title, and where things are drawn, see `drawing.draw`."""

    id: str
    key: str
    title: str
    drawn: dict[str, Any]


class Stage(NamedTuple):
    """The trainings of one stage: recipes with colours and dashes, drawings, rewards, and what recipes differ by."""

    name: str
    arms: list[tuple[Arm, int, int]]
    first: list[Panel]
    others: list[Panel]
    shares: list[tuple[Run, list[Share]]]
    differences: list[tuple[Arm, list[Difference]]]


def stage_of(name: str, arms: Sequence[Arm], healths: dict[Run, Health]) -> Stage:
    """Draw the trainings of one stage; a metric whose rule holds is among those that are looked at first."""
    first, others = dict[str, list[Line]](), dict[str, list[Line]]()
    for place, arm in enumerate(arms):
        for found, part in ((first, 0), (others, 1)):
            seeds: dict[str, list[Curve]] = {}
            for curve in (curve for run in arm.runs for curve in all_curves(run)[part]):
                seeds.setdefault(curve.key, []).append(curve)
            for key, same in seeds.items():
                found.setdefault(key, []).append(Line(arm.label, place, same))
    runs = [run for arm in arms for run in arm.runs]
    alarmed = [key for key in others if key not in first and _alarms(key, runs, healths)]
    first |= {key: others[key] for key in alarmed}
    rest = {key: lines for key, lines in others.items() if key not in first}
    panels = [_panel(name, i, key, lines, runs, healths) for i, (key, lines) in enumerate((first | rest).items())]
    shares = [(arm.runs[0], paid) for arm in arms if len(paid := reward_shares(arm.runs[0])) > 1]
    styles = [(arm, place % COLOURS, place // COLOURS % 3) for place, arm in enumerate(arms)]
    return Stage(name, styles, panels[: len(first)], panels[len(first) :], shares, differences(arms))


def _panel(
    stage: str, number: int, key: str, lines: list[Line], runs: Sequence[Run], healths: dict[Run, Health]
) -> Panel:
    limits = dict.fromkeys(limit for run in runs if run in healths for limit in _limits(key, healths[run]))
    drawn = draw(lines, list(limits), _alarms(key, runs, healths))
    return Panel(f"curve-{stage}-{number + 1}", key, lines[0].curves[0].title, drawn)


def _limits(key: str, found: Health) -> list[Limit]:
    """Return the thresholds on a metric of the rules whose first it is, those of a run's recipe."""
    return [
        Limit(rule.name, float(value), rule.side)
        for rule, value in found.rules.items()
        if rule.side and _is(key, rule.keys[0]) and is_number(value)
    ]


def _alarms(key: str, runs: Sequence[Run], healths: dict[Run, Health]) -> list[tuple[float, str]]:
    """Return the rules that hold and read a metric: since which step, and in words."""
    return [
        (alarm.step, f"{run.name}: {alarm.rule.name} at step {alarm.step:g}" if len(runs) > 1 else alarm.rule.name)
        for run in runs
        for alarm in (healths[run].alarms if run in healths else ())
        if any(_is(key, of) for of in alarm.rule.keys)
    ]


def _is(key: str, of: str) -> bool:
    """Tell whether a metric is the one that a rule reads; NAME is any reward's."""
    begin, name, end = of.partition("NAME")
    return key == of or (bool(name) and key.startswith(begin) and key.endswith(end))
