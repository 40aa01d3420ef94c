"""A training's curves: which metrics are shown in what order, and those of GRPO as a PNG for a README."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from reasoning_ext.runs.outcomes import series
from reasoning_ext.runs.read import Run
from reasoning_ext.runs.values import is_interval, is_number

TITLES = {
    "rewards/math_answer/mean": "accuracy (math_answer)",
    "rewards/think_format/mean": "share of thoughts (think_format)",
    "completions/mean_length": "mean length in tokens",
    "completions/clipped_ratio": "share cut off at the length limit",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "rewards/accuracies": "share of pairs whose chosen answer is preferred",
    "rewards/margins": "margin between chosen and rejected answers",
    "completions/thinks": "share with one thought and an answer",
    "completions/repetition": "share of repeated words",
    "rollouts/resting": "share of prompts at rest",
    "rollouts/with_signal": "share of trained groups with a difference",
    "rollouts/drawn": "completions drawn in a step",
    "tools/call_frequency": "tool calls a completion",
    "tools/failure_frequency": "share of tool calls that raised",
    "tools/malformed": "calls that could not be read",
    "held_out/thinks": "held-out problems: share of thoughts",
    "held_out/tokens": "held-out problems: mean tokens",
    "held_out/cut_off": "held-out problems: share cut off",
}  # of the others the key says it
OF_TOOLS = {
    "calls": "calls",
    "errors": "calls that failed",
    "timeouts": "calls that took too long",
    "seconds": "seconds a call",
}
REWARDS = ("accuracies", "margins", "chosen", "rejected")  # of DPO
SHOWN = {
    "sft": ("loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy"),
    "dpo": ("loss", *(f"{of}rewards/{name}" for of in ("", "eval_") for name in REWARDS), "entropy", "eval_loss"),
    "grpo": (
        *("completions/mean_length", "completions/clipped_ratio", "completions/thinks", "completions/repetition"),
        *("frac_reward_zero_std", "entropy", "kl", "tools/call_frequency", "tools/failure_frequency"),
    ),
}
HELD_OUT = ("greedy", "pass@1", "thinks", "tokens", "cut_off")
README_KEYS = ("reward", *[*TITLES][:3])
OVER_CHECKPOINTS = ("greedy", "pass@1", "thinks", "mean tokens")  # of eval.json
NO_SHARES = (  # as their keys end
    *"loss entropy kl mean_length tokens /gap seconds learning_rate grad_norm reward_std /std epoch".split(),
    *("per_second", "time", "flos", "/call_frequency", "/calls", "/errors", "/timeouts", "/malformed", *REWARDS[1:]),
)
MOST_KEYS = 300  # of the metrics that are logged


class Curve(NamedTuple):
    """One metric over the steps of a training: its name in `metrics.jsonl`, for readers, and finite `(step, value)`.

    `intervals` has `(low, high)` of each point, where it was measured with certainty.
    """

    key: str
    title: str
    points: list[tuple[float, float]]
    intervals: tuple[tuple[float, float], ...] = ()

    def smooth(self, at: Sequence[int]) -> list[float]:
        """The running mean at some points, for batches are noisy; of as many to both sides, so that it never lags."""
        values, half = numpy.array([value for _, value in self.points]), len(self.points) // 24
        reach = [(i, min(half, i, len(values) - 1 - i)) for i in at]
        return [mean(values[i - r : i + r + 1]) for i, r in reach]

    @property
    def final(self) -> float:
        """The mean of the last tenth of its points."""
        return mean(numpy.array([value for _, value in self.points[-max(1, len(self.points) // 10) :]]))

    @property
    def range(self) -> tuple[float, float]:
        """The ends of the axis: 0 and 1 for shares, from 0 where nothing is below it."""
        whole = [value for _, value in self.points] + [end for ends in self.intervals for end in ends]
        low, high = min(whole), max(whole)
        if not self.key.endswith(NO_SHARES) and low >= 0 and high <= 1:
            return 0, 1
        return min(low, 0) if low >= 0 else low, high if high > low or high > 0 else low + 1


def mean(values: Any) -> float:
    """Return the mean of finite numbers, however large."""
    largest = float(numpy.abs(values).max()) or 1.0
    return float((values / largest).mean() * largest)


def important(stage: str, metrics: list[dict[str, Any]]) -> list[str]:
    """Return the metrics that are looked at first, in their order, whether they were logged or not."""
    chosen = SHOWN.get(stage, ())
    logged = sorted({key for row in metrics for key in row})
    held_out = [f"held_out/{name}" for name in HELD_OUT]
    audit = [key for key in logged if re.fullmatch("audit/.+/(mean|gap)", key)]
    if stage == "grpo":
        rewards = [key for key in logged if key.startswith("rewards/") and key.endswith("/mean")]
        rewards.sort(key=lambda key: key not in TITLES)  # accuracy and thoughts first, then by name
        rollouts = [key for key in logged if key.startswith("rollouts/")]
        wrong = ("/errors", "/timeouts", "/malformed")
        errors = [key for key in logged if key.endswith(wrong) and any(row.get(key) for row in metrics)]
        return ["reward", *held_out, *rewards, *audit, *chosen, *rollouts, *errors]
    return [*chosen[:1], *held_out, *audit, *chosen[1:]]


def all_curves(run: Run) -> tuple[list[Curve], list[Curve]]:
    """Return every metric that a training logged: those that are looked at first, and the others by name.

    What was measured on held-out problems has its intervals, and what its thoughts were like stands behind the first.
    """
    first = important(run.stage, run.metrics)
    logged = {key for row in run.metrics for key in row} - {"step"}
    others = sorted(key for key in logged if key not in first)[:MOST_KEYS]
    measured = {
        curve.key: curve for curve in _curves("held_out/", ((row["step"], row["figures"]) for row in run.held_out))
    }
    shown = [measured.get(key) or _curve(key, run.metrics) for key in first[:MOST_KEYS]]
    rest = [_curve(key, run.metrics) for key in others]
    behaviours = behaviour_curves(run.thoughts)
    return [c for c in shown if c.points] + behaviours, [c for c in rest if c.points]


def _curve(key: str, metrics: list[dict[str, Any]]) -> Curve:
    points = [(row.get("step"), row.get(key)) for row in metrics]
    finite = [(float(x), float(y)) for x, y in points if is_number(x) and is_number(y)]
    return Curve(key, title(key), sorted(finite, key=lambda point: point[0]))


def title(key: str) -> str:
    """Return what a metric is called.

    >>> title("rewards/step_check/mean"), title("audit/exact_answer/gap"), title("audit/exact_answer/errors")
    ('step_check', 'audit: exact_answer, gap to the reward', 'audit: exact_answer: not judged')
    >>> title("tools/calculator/errors")
    'tool calculator: calls that failed'
    """
    kind, _, name = key.partition("/")
    if key in TITLES or not name:
        return TITLES.get(key, key.replace("_", " "))
    if kind in ("held_out", "thoughts"):
        return f"{kind.replace('held_out', 'held-out problems')}: {name}"
    if kind == "audit" and name.endswith(("/mean", "/gap")):
        return f"audit: {name.rpartition('/')[0]}" + ", gap to the reward" * name.endswith("/gap")
    if kind == "tools" and name.rpartition("/")[2] in OF_TOOLS:
        return f"tool {name.rpartition('/')[0]}: {OF_TOOLS[name.rpartition('/')[2]]}"
    if kind == "rewards" and name.endswith("/mean"):
        return name.rpartition("/")[0]
    if name.endswith("errors"):
        return f"{key.removesuffix('/errors').replace('/', ': ')}: not judged"
    return key.replace("_", " ")


def behaviour_curves(thoughts: dict[str, dict[str, Any]]) -> list[Curve]:
    """Return what thoughts were like over the steps of a training, of `{"steps 1 to 9": figures}`."""
    spots = []
    for steps, figures in thoughts.items():
        if places := [int(number) for number in re.findall(r"\d+", steps)[:2]]:
            spots.append((statistics.fmean(places), figures | (figures.get("intervals") or {})))  # of what is no share
    return _curves("thoughts/", spots)


def checkpoint_curves(results: dict[str, dict[str, Any]], names: Iterable[str] = OVER_CHECKPOINTS) -> list[Curve]:
    """Return the curves of figures of checkpoints, such as those of `eval.json`, one a run and figure."""
    found = []
    for name, steps in series(results).items():
        spots = [(float(step), {key: results[label].get(key) for key in names}) for step, label in steps.items()]
        found += [curve._replace(title=f"{name}: {curve.key}" if name else curve.key) for curve in _curves("", spots)]
    return found


def _curves(kind: str, measured: Iterable[tuple[float, dict[str, Any]]]) -> list[Curve]:
    """Return a curve a figure of what was measured at some steps, with intervals where one has any."""
    found: dict[str, list[tuple[float, list[float]]]] = {}
    for step, figures in measured:
        for name, value in figures.items():
            share = value if is_interval(value) else [value] * 3
            if all(map(is_number, share)):
                found.setdefault(f"{kind}{name}", []).append((step, share))
    return [
        Curve(
            key,
            title(key),
            [(step, float(share[0])) for step, share in spots],
            tuple((low, high) for _, (_, low, high) in spots)
            if any(low != high for _, (_, low, high) in spots)
            else (),
        )
        for key, spots in found.items()
    ]


def save_grpo_png(metrics: list[dict[str, Any]], output: Path) -> bool:
    """Write reward, accuracy, thoughts and mean length as one PNG, 1,000 pixels wide; False where none was logged."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot, which keeps figures in global state

    shown = [curve for key in README_KEYS if (curve := _curve(key, metrics)).points]
    if not shown:
        return False
    no_box = {f"axes.spines.{side}": False for side in ("top", "right", "left")}
    with matplotlib.rc_context(no_box | {"axes.grid": True, "axes.grid.axis": "y", "grid.color": "#dddddd"}):
        lines, columns = math.ceil(len(shown) / 2), min(2, len(shown))
        figure = Figure(figsize=(10, 2.9 * lines), dpi=100, facecolor="white", layout="constrained")
        for place, curve in enumerate(shown, 1):
            axes = figure.add_subplot(lines, columns, place, title=curve.title, xlabel="step")
            steps, values = zip(*curve.points, strict=True)
            axes.plot(steps, values, color="#2563c4", linewidth=1, alpha=0.45)
            axes.plot(
                steps,
                curve.smooth(range(len(steps))),
                color="#2563c4",
                linewidth=2.2,
                marker="o" if len(steps) == 1 else None,
            )
            axes.set_ylim(*curve.range)
            axes.margins(y=0.03)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, format="png")
    return True
