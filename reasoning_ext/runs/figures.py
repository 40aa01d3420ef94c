"""Pictures of a run: curves and bars as SVG for the page, the GRPO curves as PNG for a README.

Departure from the obvious: no pyplot, which keeps figures in global state, and no colours in the SVG. The lines are
drawn in stand-in colours that are then replaced with the page's CSS variables, so that the dark scheme works.
"""

import io
import math
import statistics
import textwrap
import warnings
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reasoning_ext.shown import visible

INK, FAINT, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206"
CSS = {INK: "currentColor", FAINT: "var(--line)", FIRST: "var(--first)", SECOND: "var(--second)"}
PRINT = {INK: "#333333", FAINT: "#dddddd", FIRST: "#2563c4"}
TITLES = {
    "rewards/math_answer/mean": "accuracy (math_answer)",
    "rewards/think_format/mean": "share of thoughts (think_format)",
    "completions/mean_length": "mean length in tokens",
    "completions/clipped_ratio": "share cut off at the length limit",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "rewards/accuracies": "share of pairs whose chosen answer is preferred",
}  # of the others the key says it
REWARDS = ("accuracies", "margins", "chosen", "rejected")  # of DPO
SHOWN = {
    "sft": ("loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy"),
    "dpo": ("loss", *(f"{of}rewards/{name}" for of in ("", "eval_") for name in REWARDS), "entropy", "eval_loss"),
    "grpo": ("completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std", "entropy", "kl"),
}
README_KEYS = ("reward", *[*TITLES][:3])
NO_SHARES = ("loss", "entropy", "kl", "mean_length", *REWARDS[1:])  # as their keys end


class Curve(NamedTuple):
    """One metric over the steps of a training: its name in `metrics.jsonl`, for readers, and finite `(step, value)`."""

    key: str
    title: str
    points: list[tuple[float, float]]


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
        finite = [(float(x), float(y)) for x, y in points if _is_number(x) and _is_number(y)]
        title = key.removeprefix("rewards/").removesuffix("/mean") if key.endswith("/mean") else key.replace("_", " ")
        found += [Curve(key, TITLES.get(key, title), finite)] if finite else []
    return found


def curve_svg(curve: Curve) -> str:
    """Draw one curve, small enough to stand beside others and to be read on a phone."""
    with matplotlib.rc_context(_style(INK, FAINT)):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        _draw_curve(figure.add_subplot(), curve, FIRST)
        return _svg(figure)


def bars_svg(results: dict[str, dict[str, Any]], names: tuple[str, str] = ("greedy", "pass@1")) -> str:
    """Draw two figures of every model, `{model: {figure: [value, low, high]}}`, as bars with their 95 % intervals."""
    with matplotlib.rc_context(_style(INK, FAINT) | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(4.8, 0.6 + 0.6 * len(results)), layout="constrained")
        axes = figure.add_subplot()
        for offset, name, colour in ((-0.18, names[0], FIRST), (0.18, names[1], SECOND)):
            for row, found in enumerate(results.values()):
                if is_interval(bar := found.get(name)):
                    value, low, high = bar
                    spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
                    axes.barh(row + offset, value, 0.32, color=colour, xerr=spread, ecolor=INK, capsize=3)
        axes.set_yticks(range(len(results)), [_label(name, 28, 15) for name in results])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        return _svg(figure)


def save_grpo_png(metrics: list[dict[str, Any]], output: Path) -> bool:
    """Write reward, accuracy, share of thoughts and mean length as one PNG, 1,000 pixels wide; False where none was logged."""
    shown = [curve for curve in curves("grpo", metrics) if curve.key in README_KEYS]
    with matplotlib.rc_context(_style(PRINT[INK], PRINT[FAINT])):
        lines = math.ceil(len(shown) / 2)
        figure = Figure(figsize=(10, 2.9 * lines or 1), dpi=100, facecolor="white", layout="constrained")
        for place, curve in enumerate(shown, 1):
            axes = figure.add_subplot(lines, min(2, len(shown)), place)
            _draw_curve(axes, curve, PRINT[FIRST])
            axes.set_title(curve.title, loc="left", fontsize=12)
        if shown:
            output.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(output, format="png")
    return bool(shown)


def is_interval(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a figure of `eval.json` is a value with its interval, `[value, low, high]`."""
    return isinstance(value, list) and len(value) == 3 and all(_is_number(v) for v in value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    """Draw the values thin and their running mean thick, since small batches of completions are noisy."""
    steps, values = zip(*curve.points, strict=True)
    half = len(values) // 24
    reach = [min(half, i, len(values) - 1 - i) for i in range(len(values))]  # the same to both sides, so it never lags
    smooth = [statistics.fmean(values[i - r : i + r + 1]) for i, r in enumerate(reach)]
    axes.plot(steps, values, color=colour, linewidth=1, alpha=0.45)
    axes.plot(steps, smooth, color=colour, linewidth=2.2, marker="o" if len(values) == 1 else None)
    if not curve.key.endswith(NO_SHARES) and min(values) >= 0 and max(values) <= 1:
        axes.set_ylim(-0.03, 1.03)
    elif min(values) >= 0:
        axes.set_ylim(0, 1.08 * max(values) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_xlabel("step")


def _style(ink: str, faint: str) -> dict[str, Any]:
    """No box, a light grid, and texts that are neither mathematics nor outlines of letters."""
    spines = {f"axes.spines.{side}": False for side in ("top", "right", "left")}
    ticks = {f"{axis}tick.{what}": value for axis in "xy" for what, value in (("color", faint), ("labelcolor", ink))}
    inks = dict.fromkeys(("text.color", "axes.labelcolor"), ink) | dict.fromkeys(
        ("grid.color", "axes.edgecolor"), faint
    )
    grid = {"axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "axes.facecolor": "none", "font.size": 11}
    return spines | ticks | inks | grid | {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "report"}


def _label(name: str, longest: int, width: int) -> str:
    """Shorten a label and break it into lines, with control characters to be read: fonts have none of them."""
    return "\n".join(textwrap.wrap(visible(name)[:longest], width))


def _svg(figure: Figure) -> str:
    """Write a figure as an SVG element; text stays text, which is smaller and takes the page's font and colour."""
    figure.patch.set_visible(False)
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's font draws it
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    for stand_in, colour in CSS.items():
        svg = svg.replace(stand_in, colour)
    return svg
