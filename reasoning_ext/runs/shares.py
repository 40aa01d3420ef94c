"""What the rewards pay, and how lengths and rewards of the samples are distributed."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from reasoning_ext.runs.drawing import COLOURS, histogram
from reasoning_ext.runs.read import Run
from reasoning_ext.runs.traces import as_one
from reasoning_ext.runs.values import is_number
from reasoning_ext.runs.weights import rewards_of, totals, weights_of

Rows = list[dict[str, Any]]
MOST_MODELS = 6  # whose answers are drawn


class Share(NamedTuple):
    """What one reward pays at the end of a training: its weight, its mean, both multiplied, and its part of the total.

    The part is of the sum of what all of them pay or take, without signs; `left` is where it begins in the picture.
    """

    name: str
    weight: float
    mean: float
    pays: float
    part: float
    left: float
    colour: int


def reward_shares(run: Run) -> list[Share]:
    """Return what each reward pays at the end of a training: its weight there times the mean of the last tenth."""
    rows = run.metrics[-max(1, len(run.metrics) // 10) :]
    weights, paid = weights_of(run.recipe, float(rows[-1]["step"]) if rows else 0.0), []
    for name, weight in weights.items():
        values = [float(value) for row in rows if is_number(value := row.get(f"rewards/{name}/mean"))]
        if values:
            mean = sum(value / len(values) for value in values)
            paid.append((name, weight, mean, weight * mean))
    whole, left, found = sum(abs(pays) for *_, pays in paid), 0.0, []
    for i, (name, weight, mean, pays) in enumerate(paid):
        part = abs(pays) / whole if 0 < whole < float("inf") else 0.0
        found.append(Share(name, weight, mean, pays, part, left, i % COLOURS))
        left += part
    return found


def distributions(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Return the distributions of a run's samples by title: lengths, total rewards, and every reward's own."""
    groups, total = _groups(run), totals(run.recipe)
    names = list(dict.fromkeys(name for rows in groups.values() for row in rows[:100] for name in rewards_of(row)))
    tokens = any(is_number(row.get("tokens")) for rows in groups.values() for row in rows)
    drawn = {
        "length in tokens" if tokens else "length in characters": {k: _lengths(v, tokens) for k, v in groups.items()}
    }
    if len(names) > 1:
        drawn["total reward"] = {k: _known(map(total, v)) for k, v in groups.items()}
    for name in names[:20]:
        drawn[name] = {k: _known(rewards_of(row).get(name) for row in v) for k, v in groups.items()}
    return [(title, found) for title, series in drawn.items() if (found := histogram(series))]


def _groups(run: Run) -> dict[str, Rows]:
    """Return the samples that are held beside one another: of models, of the first and the last steps, or all."""
    if run.answers:
        models: dict[str, Rows] = {}
        for row in run.answers:
            models.setdefault(str(row.get("model")), []).append(row)
        return dict([*models.items()][:MOST_MODELS])
    steps = sorted({step for row in run.samples if is_number(step := row.get("step"))})
    if len(steps) < 2:
        return {"all": run.samples} if run.samples else {}
    few, found = max(1, len(steps) // 10), {}
    for first, *_, last in ([*steps[:few], steps[few - 1]], [*steps[-few:], steps[-1]]):
        label = f"step {first:g}" + f" to {last:g}" * (last > first)
        found[label] = [row for row in run.samples if is_number(step := row.get("step")) and first <= step <= last]
    return found


def _lengths(rows: Rows, tokens: bool) -> list[float]:
    if tokens:
        return [float(value) for row in rows if is_number(value := row.get("tokens"))]
    return [float(len(as_one(row))) for row in rows if "completion" in row]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
