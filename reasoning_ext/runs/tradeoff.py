"""Accuracy against tokens: the curves and strategies of an evaluation, as a table, as a drawing and as a PNG."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_ext.runs.values import cell, is_interval, is_number
from reasoning_ext.shown import visible

Results = dict[str, dict[str, Any]]  # of eval.json, which may be damaged
LEFT, RIGHT, TOP, BOTTOM = 48, 664, 12, 270  # of the drawing
SIGN = 15  # the width of a sign
# of models; the page has those of dark screens, too
COLOURS = ("#2563c4", "#c2600a", "#14763c", "#8a3ab9", "#b42318", "#0e7490")


class Spot(NamedTuple):
    """One way of answering: its name, mean tokens a problem, and accuracy as `[value, low, high]`."""

    name: str
    tokens: float
    accuracy: list[float]


class Mark(NamedTuple):
    """Where a spot stands: its place, the ends of its interval, what marks it how far aside, and what is said of it."""

    x: float
    y: float
    low: float
    high: float
    sign: str
    aside: float
    said: str


class Drawn(NamedTuple):
    """What is drawn of a model: the curve of its cut thoughts by tokens, and its other ways of answering."""

    curve: list[Spot]
    ways: list[Spot]


def tradeoffs(results: Results) -> dict[str, Drawn]:
    """Collect accuracy and tokens by model, of those that have a curve or strategies.

    A curve is that of the budgets, or of the shares where there are none. Of the flat figures there are greedy, whose
    tokens the curve tells, and pass@1.
    """
    found = {}
    for label, row in results.items():
        points, strategies = _points(row), _group(row, "strategies")
        budgets = [point for point in points if "budget" in point] or points
        spots = [spot for point in [*budgets, *points[-1:]] for spot in _spot(point_name(point), point)]
        curve = {spot.tokens: spot for spot in spots}  # where nothing is cut, the whole thought alone
        tokens = {"greedy": points[-1].get("tokens") if points else None, "pass@1": row.get("mean tokens")}
        flat = {name: {"accuracy": row.get(name), "tokens": count} for name, count in tokens.items()}
        ways = [spot for name, way in (flat | strategies).items() for spot in _spot(name, way)]
        if spots or strategies:
            found[label] = Drawn([curve[count] for count in sorted(curve)], ways)
    return found


def point_name(point: dict[str, Any]) -> str:
    """Return what a point of a curve is called.

    >>> [point_name(point) for point in ({"share": 0.125}, {"budget": 16}, {"share": 1.0})]
    ['12.5 %', '16 tokens', 'whole thought']
    """
    if "budget" in point:
        return f"{point['budget']:g} token{'s' * (point['budget'] != 1)}"
    return "whole thought" if point["share"] == 1 else f"{100 * point['share']:g} %"


def curve_rows(results: Results) -> dict[str, dict[str, str]]:
    """Return the table of the curves, `{row: {model: cell}}`: points, overthinking and its thirds, the best budget."""
    curves = {label: curve for label, row in results.items() if (curve := _group(row, "curve"))}
    points = {point_name(p): p for row in results.values() for p in _points(row)}
    ordered = sorted(points, key=lambda name: (points[name].get("share") == 1, points[name].get("budget", 0), name))
    rows: dict[str, dict[str, str]] = {name: {} for name in ordered}
    for label, curve in curves.items():
        for point in _points(results[label]):
            rows[point_name(point)][label] = f"{cell(point.get('accuracy'))}  {cell(point.get('tokens'))}"
        rows.setdefault("overthinking", {})[label] = cell(curve.get("overthinking"))
        for level, third in _group(curve, "terciles").items():
            over = third.get("overthinking") if isinstance(third, dict) else None
            rows.setdefault(f"overthinking, {level} problems", {})[label] = cell(over)
        best = _group(curve, "best_thinking_budget")
        text = f"{best.get('budget')} tokens, {cell(best.get('difference'))}" if best else "none"
        rows.setdefault("best thinking budget", {})[label] = text
    return rows


def draw(models: dict[str, Drawn]) -> dict[str, Any]:
    """Return where a page draws models: `x` and `y` ticks as `(place, value)`, and `models`, a dictionary each.

    Of a model there are `label`, `colour` (a number), `line` and `band` as `x,y x,y`, and its `marks`.
    """
    spots = [spot for drawn in models.values() for spot in (*drawn.curve, *drawn.ways)]
    x, ticks = log_axis([spot.tokens for spot in spots])
    signs = signs_of(models)
    found, taken = [], list[tuple[float, float]]()
    for i, (label, drawn) in enumerate(models.items()):
        line = [_mark(x, spot, "•", []) for spot in drawn.curve]
        marks = [_mark(x, spot, signs[spot.name], taken) for spot in drawn.ways]
        band = [(mark.x, mark.high) for mark in line] + [(mark.x, mark.low) for mark in reversed(line)]
        paths = {"line": _path([(mark.x, mark.y) for mark in line]), "band": _path(band)}
        found.append({"label": label, "colour": i % len(COLOURS), "marks": line + marks, **paths})
    shares = [(_y(share), f"{100 * share:g} %") for share in (0, 0.25, 0.5, 0.75, 1)]
    return {"x": [(x(tick), f"{tick:g}") for tick in ticks], "y": shares, "models": found}


def signs_of(models: dict[str, Drawn]) -> dict[str, str]:
    """Return what marks each way of answering: a number, of which there are enough for any number of strategies."""
    names = dict.fromkeys(spot.name for drawn in models.values() for spot in drawn.ways)
    return {name: str(i) for i, name in enumerate(names, 1)}


def log_axis(tokens: list[float]) -> tuple[Callable[[float], float], list[float]]:
    """Return where tokens stand on an axis of powers, and its ticks 1, 2, 5, 10, ..."""
    low, high = math.log(min(tokens)), math.log(max(tokens))
    room = max(0.03 * (high - low), 0.1)
    low, high = low - room, high + room

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (math.log(value) - low) / (high - low), 1)

    ticks = [step * 10.0**power for power in range(-2, 10) for step in (1, 2, 5)]
    return x, [tick for tick in ticks if low < math.log(tick) < high]


def save_tradeoff_png(results: Results, output: Path) -> bool:
    """Write accuracy against tokens as one PNG, 1,000 pixels wide; False where there is no curve and no strategy."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot, which keeps figures in global state
    from matplotlib.lines import Line2D

    models = tradeoffs(results)
    if not models:
        return False
    signs, plain = signs_of(models), {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    with matplotlib.rc_context(plain | {"grid.color": "#dddddd", "text.parse_math": False}):
        figure = Figure(figsize=(10, 5.2), dpi=100, facecolor="white", layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel="tokens a problem", ylabel="accuracy in per cent")
        asides = [[mark.aside for mark in of["marks"]] for of in draw(models)["models"]]
        for i, drawn in enumerate(models.values()):
            colour = COLOURS[i % len(COLOURS)]
            xs, shares = [s.tokens for s in drawn.curve], [[100 * share for share in s.accuracy] for s in drawn.curve]
            axes.plot(xs, [value for value, *_ in shares], ".-", color=colour, linewidth=2.2)
            axes.fill_between(xs, [s[1] for s in shares], [s[2] for s in shares], color=colour, alpha=0.12, linewidth=0)
            for spot, aside in zip(drawn.ways, asides[i][len(drawn.curve) :], strict=True):
                value, low, high = (100 * share for share in spot.accuracy)
                axes.plot([spot.tokens] * 2, [low, high], color=colour, linewidth=1)
                badge = {"boxstyle": "circle,pad=0.2", "facecolor": colour, "edgecolor": "white"}
                look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": "white", "bbox": badge}
                look["arrowprops"] = {"arrowstyle": "-", "color": colour, "shrinkA": 0, "shrinkB": 0}
                place = (spot.tokens, value)
                axes.annotate(signs[spot.name], place, (aside, 0), textcoords="offset points", **look)
        axes.set_ylim(-2, 102)
        _, ticks = log_axis([spot.tokens for drawn in models.values() for spots in drawn for spot in spots])
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        lines = [
            Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=2.2, label=visible(name))
            for i, name in enumerate(models)
        ]
        marks = [Line2D([], [], linestyle="", label=f"{sign}  {visible(name)}") for name, sign in signs.items()]
        figure.legend(handles=lines + marks, loc="outside right upper", frameon=False)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, format="png")
    return True


def _group(row: dict[str, Any], name: str) -> dict[str, Any]:
    return group if isinstance(group := row.get(name), dict) else {}


def _points(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the points of a model's curve that can be read."""
    points = _group(row, "curve").get("points")
    found = [point for point in (points if isinstance(points, list) else []) if isinstance(point, dict)]
    return [point for point in found if is_number(point.get("budget", point.get("share")))]


def _spot(name: str, way: Any) -> list[Spot]:
    """Return a way of answering as a list of one, of none where its accuracy or its tokens are not known."""
    accuracy, tokens = (way.get("accuracy"), way.get("tokens")) if isinstance(way, dict) else (None, None)
    return [Spot(name, tokens, accuracy)] if is_interval(accuracy) and is_number(tokens) and tokens > 0 else []


def _y(share: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * min(1.0, max(0.0, share)), 1)


def _path(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _mark(x: Callable[[float], float], spot: Spot, sign: str, taken: list[tuple[float, float]]) -> Mark:
    """Place a spot; a sign that would cover another one, of those whose places are `taken`, stands beside it."""
    value, low, high = spot.accuracy
    said = f"{spot.name}: {cell(spot.accuracy)} % at {spot.tokens:g} tokens"
    place = x(spot.tokens), _y(value)
    aside = SIGN * sum(math.dist(place, other) < SIGN for other in taken)
    taken.append(place)
    return Mark(*place, _y(low), _y(high), sign, aside, said)
