"""A training's curves: where the page draws them, and those of GRPO as a PNG for a README."""

import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_ext.runs.outcomes import series
from reasoning_ext.runs.read import is_number

TITLES = {
    "rewards/math_answer/mean": "accuracy (math_answer)",
    "rewards/think_format/mean": "share of thoughts (think_format)",
    "completions/mean_length": "mean length in tokens",
    "completions/clipped_ratio": "share cut off at the length limit",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "rewards/accuracies": "share of pairs whose chosen answer is preferred",
    "rewards/margins": "margin between chosen and rejected answers",
}  # of the others the key says it
REWARDS = ("accuracies", "margins", "chosen", "rejected")  # of DPO
SHOWN = {
    "sft": ("loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy"),
    "dpo": ("loss", *(f"{of}rewards/{name}" for of in ("", "eval_") for name in REWARDS), "entropy", "eval_loss"),
    "grpo": ("completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std", "entropy", "kl"),
}
README_KEYS = ("reward", *[*TITLES][:3])
OVER_CHECKPOINTS = ("greedy", "pass@1", "thinks", "mean tokens")  # of eval.json
NO_SHARES = ("loss", "entropy", "kl", "mean_length", "mean tokens", *REWARDS[1:])  # as their keys end
LEFT, RIGHT, TOP, BOTTOM = 44, 332, 10, 150  # of a drawn curve


class Curve(NamedTuple):
    """One metric over the steps of a training: its name in `metrics.jsonl`, for readers, and finite `(step, value)`.

    `intervals` has `(low, high)` of each point, where it was measured with certainty.
    """

    key: str
    title: str
    points: list[tuple[float, float]]
    intervals: tuple[tuple[float, float], ...] = ()

    @property
    def smooth(self) -> list[float]:
        """The running mean, since small batches are noisy; of as many to both sides, so that it never lags."""
        values, half = [value for _, value in self.points], len(self.points) // 24
        reach = [min(half, i, len(values) - 1 - i) for i in range(len(values))]
        return [statistics.fmean(values[i - r : i + r + 1]) for i, r in enumerate(reach)]

    @property
    def range(self) -> tuple[float, float]:
        """The ends of the axis: 0 and 1 for shares, from 0 where nothing is below it."""
        low, high = min(value for _, value in self.points), max(value for _, value in self.points)
        if not self.key.endswith(NO_SHARES) and low >= 0 and high <= 1:
            return 0, 1
        return min(low, 0) if low >= 0 else low, high if high > low or high > 0 else low + 1

    def drawn(self) -> dict[str, Any]:
        """Return where the page draws it.

        `thin` and `thick` lines are `x,y x,y`, `values` `(y, value)`, `whiskers` `(x, y, y)`, the `end` `(x, y)`.
        """
        (low, high), steps = self.range, [step for step, _ in self.points]

        def height(value: float) -> float:
            return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

        xs = [LEFT + (RIGHT - LEFT) * (step - steps[0]) / (steps[-1] - steps[0] or 1) for step in steps]
        lines = []
        for values in ([value for _, value in self.points], self.smooth):
            lines.append([f"{x:.1f},{height(value):.1f}" for x, value in zip(xs, values, strict=True)])
        ticks = [(BOTTOM, low), ((BOTTOM + TOP) / 2, (low + high) / 2), (TOP, high)]
        return {
            "thin": " ".join(lines[0]),
            "thick": " ".join(lines[1]),
            "values": ticks,
            "whiskers": [(x, height(a), height(b)) for x, (a, b) in zip(xs, self.intervals, strict=False)],
            "end": lines[1][-1].split(","),
        }


def curves(stage: str, metrics: list[dict[str, Any]]) -> list[Curve]:
    """Choose the curves of a training from the rows of its `metrics.jsonl`; what was never logged is left out."""
    chosen = SHOWN.get(stage, ())
    if stage == "grpo":
        logged = {key for row in metrics for key in row}
        rewards = sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))
        rewards.sort(key=lambda key: key not in TITLES)  # accuracy and thoughts first, then by name
        errors = sorted(key for key in logged if key.endswith("/errors") and any(row.get(key) for row in metrics))
        chosen = ("reward", *rewards, *chosen, *errors)
    found = []
    for key in chosen:
        points = [(row.get("step"), row.get(key)) for row in metrics]
        finite = [(float(x), float(y)) for x, y in points if is_number(x) and is_number(y)]
        name = key.split("/")[-2] if key.endswith(("/mean", "/errors")) else key.replace("_", " ")
        title = TITLES.get(key, name) + ": not judged" * key.endswith("/errors")
        found += [Curve(key, title, finite)] if finite else []
    return found


def checkpoint_curves(results: dict[str, dict[str, Any]]) -> list[Curve]:
    """Return the curves of an evaluation of checkpoints, from its `eval.json`, one a run and figure."""
    found = []
    for name, steps in series(results).items():
        for key in OVER_CHECKPOINTS:
            values = [results[label].get(key) for label in steps.values()]
            shares: list[list[Any]] = [v if isinstance(v, list) and len(v) == 3 else [v] * 3 for v in values]
            if all(is_number(part) for share in shares for part in share):
                points = [(float(step), share[0]) for step, share in zip(steps, shares, strict=True)]
                certain = tuple((low, high) for _, low, high in shares) if isinstance(values[0], list) else ()
                found.append(Curve(key, f"{name}: {key}" if name else key, points, certain))
    return found


def save_grpo_png(metrics: list[dict[str, Any]], output: Path) -> bool:
    """Write reward, accuracy, thoughts and mean length as one PNG, 1,000 pixels wide; False where none was logged."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot, which keeps figures in global state

    shown = [curve for curve in curves("grpo", metrics) if curve.key in README_KEYS]
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
            axes.plot(steps, curve.smooth, color="#2563c4", linewidth=2.2, marker="o" if len(steps) == 1 else None)
            axes.set_ylim(*curve.range)
            axes.margins(y=0.03)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, format="png")
    return True
