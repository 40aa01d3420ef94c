"""Where the page draws things: curves of one or several runs with thresholds and alarms, distributions, and shares."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from reasoning_ext.runs.figures import Curve, mean
from reasoning_ext.runs.texts import shortened

LEFT, RIGHT, TOP, BOTTOM = 44, 332, 14, 150
MOST_POINTS = 240  # of a line: more cannot be told apart
COLOURS = 6  # that the page has; further lines are dashed
BINS = 24
Points = list[tuple[float, float]]


class Line(NamedTuple):
    """What one drawing shows of one recipe: its curve, or one of each of its seeds."""

    label: str
    place: int  # among the recipes, which gives it its colour
    curves: list[Curve]


class Limit(NamedTuple):
    """The threshold of a rule: it holds `above` or `below` the value."""

    name: str
    value: float
    side: str


def number(value: Any) -> str:
    """Write a number with four digits that count, counts by name as `name 3, other 4`, and anything else as it is."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number(count)}" for name, count in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(
    lines: Sequence[Line], limits: Sequence[Limit] = (), alarms: Sequence[tuple[float, str]] = ()
) -> dict[str, Any]:
    """Return where a metric is drawn.

    Args:
        lines: one or more.
        limits: thresholds; one that is far from the curves is named at the edge, and does not press them flat.
        alarms: `(step, words)` of the rules that hold.

    Returns:
        `values` as `(y, text)`, the `first` and the `last` step, `lines` with `colour`, `dash`, `kind` (`thin`, as
        logged; `seed`; `thick`: the running mean, or the mean of several seeds), `points` and `said`, `whiskers` as
        `(colour, x, y, y)`, `limits` as `(y or None, y of the words, words)`, `alarms` as `(x, words)`.
    """
    every = [curve for line in lines for curve in line.curves]
    steps = [curve.points[end][0] for curve in every for end in (0, -1)] + [step for step, _ in alarms]
    first, last = min(steps), max(steps)
    ends = [curve.range for curve in every]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    near = [limit for limit in limits if low - (high - low) / 2 <= limit.value <= high + (high - low) / 2]
    low, high = min([low, *(limit.value for limit in near)]), max([high, *(limit.value for limit in near)])

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * (step - first) / (last - first or 1)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * ((value / 2 - low / 2) / (high / 2 - low / 2 or 1))

    found: dict[str, Any] = {"first": first, "last": last, "lines": [], "whiskers": []}
    values = [(BOTTOM, low), ((BOTTOM + TOP) / 2, low / 2 + high / 2), (TOP, high)]
    found["values"] = [(place, f"{value:.3g}") for place, value in values]
    for line in lines:
        style = {"colour": line.place % COLOURS, "dash": line.place // COLOURS % 3, "said": _said(line)}
        for kind, points in _paths(line, alone=len(lines) == 1):
            path = [(round(x(step), 1), round(y(value), 1)) for step, value in points]
            written = " ".join(f"{at:g},{value:g}" for at, value in path)
            found["lines"].append({"kind": kind, "points": written, "end": path[-1], **style})
        for curve in line.curves:
            spots = zip(curve.points, curve.intervals, strict=False)
            found["whiskers"] += [(style["colour"], x(step), y(a), y(b)) for (step, _), (a, b) in spots]
    found["limits"] = [
        (y(limit.value), max(y(limit.value) - 3, 9), f"{limit.name}: {limit.side} {number(limit.value)}")
        if limit in near
        else (None, 9 if limit.value > high else BOTTOM - 3, f"{limit.name}: {limit.side} {number(limit.value)}")
        for limit in limits
    ]
    found["alarms"] = [(round(x(step), 1), words) for step, words in alarms]
    return found


def _said(line: Line) -> str:
    starts, finals = [curve.points[0] for curve in line.curves], [curve.points[-1] for curve in line.curves]
    parts = [
        f"{number(value)} at step {step:g}" + (f", {number(final)} at step {last:g}" if last > step else "")
        for (step, value), (last, final) in zip(starts, finals, strict=True)
    ]
    return "; ".join([*parts[:8], *(["…"] if len(parts) > 8 else [])])


def _paths(line: Line, alone: bool) -> list[tuple[str, Points]]:
    """Return the lines of one recipe: what was logged only where it stands alone, since several are not told apart."""
    smooth = []
    for curve in line.curves:
        at = sorted({round(i) for i in numpy.linspace(0, len(curve.points) - 1, MOST_POINTS)})
        smooth.append([(curve.points[i][0], value) for i, value in zip(at, curve.smooth(at), strict=True)])
    if len(smooth) > 1:
        return [*(("seed", path) for path in smooth), ("thick", mean_of(smooth))]
    return [*([("thin", thinned(line.curves[0].points))] if alone else []), ("thick", smooth[0])]


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """Leave out points that cannot be told apart: of each part of a long line the lowest and the highest stay.

    >>> thinned([(0, 1.0), (1, 9.0), (2, 2.0), (3, 3.0)], 2)
    [(0, 1.0), (1, 9.0)]
    """
    parts = most // 2
    if len(points) <= most:
        return points
    chosen = []
    for i in range(parts):
        part = range(len(points) * i // parts, len(points) * (i + 1) // parts)
        low, high = min(part, key=lambda j: points[j][1]), max(part, key=lambda j: points[j][1])
        chosen += sorted({low, high})
    return [points[i] for i in chosen]


def mean_of(paths: Sequence[Points]) -> Points:
    """Return the mean of several lines over the steps that all of them have come to; of none, the first of them."""
    low, high = max(path[0][0] for path in paths), min(path[-1][0] for path in paths)
    steps = [step for step, _ in paths[0] if low <= step <= high]
    if not steps:
        return paths[0]
    values = [numpy.interp(steps, [s for s, _ in path], [v for _, v in path]) for path in paths]
    return [(step, mean(column)) for step, column in zip(steps, numpy.transpose(values), strict=True)]


def histogram(series: dict[str, list[float]]) -> dict[str, Any] | None:
    """Return where the distributions of some values are drawn, each as the share of its own values; None of none.

    Returns:
        `low` and `high` ends of the axis, `most`, the highest share, and `lines` with `label`, `colour`, `points`,
        `count` and `mean`.
    """
    known = {label: values for label, values in series.items() if values}
    if not known:
        return None
    every = sorted({value for values in known.values() for value in values})
    few = len(every) <= BINS and all(value == int(value) for value in every) and every[-1] - every[0] < BINS
    edges = numpy.linspace(every[0] / 2, (every[-1] if every[-1] > every[0] else every[0] + 1) / 2, BINS + 1) * 2
    if few:
        edges = numpy.arange(every[0] - 0.5, every[-1] + 1.5)
    shares = {label: numpy.histogram(values, edges)[0] / len(values) for label, values in known.items()}
    most = max(float(share.max()) for share in shares.values())
    places = numpy.linspace(LEFT, RIGHT, len(edges)).round(1)
    lines = []
    for i, (label, share) in enumerate(shares.items()):
        heights = (BOTTOM - (BOTTOM - TOP) * share / most).round(1)
        corners = [(places[0], BOTTOM)]
        for left, right, height in zip(places, places[1:], heights, strict=False):
            corners += [(left, height), (right, height)]
        path = " ".join(f"{x:g},{y:g}" for x, y in [*corners, (places[-1], BOTTOM)])
        values = known[label]
        about = {"label": shortened(label, 60), "count": len(values), "mean": mean(numpy.array(values))}
        lines.append({"colour": i % COLOURS, "points": path, **about})
    return {"low": float(every[0]), "high": float(every[-1]), "most": most, "lines": lines}
