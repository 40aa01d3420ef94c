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
from typing import Any, Literal, NamedTuple, TypeGuard

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reasoning_ext.shown import visible

INK, FAINT, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206"
CSS = {INK: "currentColor", FAINT: "var(--line)", FIRST: "var(--first)", SECOND: "var(--second)"}
PRINT = {INK: "#333333", FAINT: "#dddddd", FIRST: "#2563c4", SECOND: "#c2600a"}

TITLES = {
    "reward": "reward",
    "rewards/math_answer/mean": "accuracy (math_answer)",
    "rewards/think_format/mean": "share of thoughts (think_format)",
    "completions/mean_length": "mean length in tokens",
    "completions/clipped_ratio": "share cut off at the length limit",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "entropy": "entropy",
    "kl": "KL to the reference model",
    "loss": "loss",
    "mean_token_accuracy": "token accuracy",
    "eval_loss": "loss on held-out rows",
    "eval_mean_token_accuracy": "token accuracy on held-out rows",
    "rewards/accuracies": "share of pairs whose chosen answer is preferred",
    "rewards/margins": "margin between chosen and rejected answers",
    "rewards/chosen": "implicit reward of chosen answers",
    "rewards/rejected": "implicit reward of rejected answers",
    "eval_rewards/accuracies": "share of held-out pairs whose chosen answer is preferred",
    "eval_rewards/margins": "margin on held-out pairs",
}
SFT_KEYS = ("loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy")
DPO_KEYS = (
    "loss", "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "entropy", "eval_loss",
    "eval_rewards/accuracies", "eval_rewards/margins",
)  # fmt: skip
GRPO_LAST = ("completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std", "entropy", "kl")
README_KEYS = (
    "reward", "rewards/math_answer/mean", "rewards/think_format/mean", "completions/mean_length",
)  # fmt: skip
FROM_ZERO = {"loss", "eval_loss", "entropy", "completions/mean_length"}
NO_SHARES = FROM_ZERO | {"kl", "rewards/margins", "rewards/chosen", "rewards/rejected", "eval_rewards/margins"}


class Curve(NamedTuple):
    """One metric over the steps of a training.

    Attributes:
        key: its name in `metrics.jsonl`.
        title: its name for readers.
        points: `(step, value)`, finite values only.
    """

    key: str
    title: str
    points: list[tuple[float, float]]

    @property
    def is_share(self) -> bool:
        """Whether it is drawn on an axis from 0 to 1."""
        return self.key not in NO_SHARES and all(0 <= value <= 1 for _, value in self.points)


def curves(stage: str, metrics: list[dict[str, Any]]) -> list[Curve]:
    """Choose a training's curves and take them out of its log; a metric that was never logged is left out.

    Args:
        stage: `sft`, `dpo` or `grpo`; any other stage has none.
        metrics: the rows of `metrics.jsonl`.
    """
    logged = {key for row in metrics for key in row}
    rewards = sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))
    rewards.sort(key=lambda key: key not in TITLES)  # accuracy and thoughts first, then by name
    errors = sorted(key for key in logged if key.endswith("/errors") and any(row.get(key) for row in metrics))
    chosen = {"sft": SFT_KEYS, "dpo": DPO_KEYS, "grpo": ("reward", *rewards, *GRPO_LAST, *errors)}.get(stage, ())
    found = [
        Curve(
            key,
            TITLES.get(key, key.split("/")[-2] if "/" in key else key) + ": not judged" * (key in errors),
            _points(metrics, key),
        )
        for key in chosen
    ]
    return [curve for curve in found if curve.points]


def curve_svg(curve: Curve) -> str:
    """Draw one curve, small enough to stand beside others and to be read on a phone."""
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    axes = figure.add_subplot()
    _draw_curve(axes, curve, {colour: colour for colour in CSS})
    return _svg(figure)


def bars_svg(results: dict[str, dict[str, Any]], names: tuple[str, str] = ("greedy", "pass@1")) -> str:
    """Draw two figures of every model as horizontal bars with their 95 % intervals.

    Args:
        results: `{model: {figure: [value, low, high]}}`, as `eval.json` has it.
        names: the two figures.
    """
    figure = Figure(figsize=(4.8, 0.6 + 0.6 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for offset, name, colour in ((-0.18, names[0], FIRST), (0.18, names[1], SECOND)):
        shown = [(row, figures[name]) for row, figures in enumerate(results.values()) if is_interval(figures.get(name))]
        rows, values = [row + offset for row, _ in shown], [value for _, (value, _, _) in shown]
        spread = [[max(0.0, v - low) for _, (v, low, _) in shown], [max(0.0, high - v) for _, (v, _, high) in shown]]
        axes.barh(rows, values, height=0.32, color=colour)
        axes.errorbar(values, rows, xerr=spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
    axes.set_yticks(range(len(results)), [_label(name, 28, 15) for name in results], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    _plain(axes, {colour: colour for colour in CSS}, grid="x")
    return _svg(figure)


def save_grpo_png(metrics: list[dict[str, Any]], output: Path) -> bool:
    """Write reward, accuracy, share of thoughts and mean length as one PNG, 1,000 pixels wide.

    Returns:
        False where none of them was logged; nothing is written then.
    """
    shown = [curve for curve in curves("grpo", metrics) if curve.key in README_KEYS]
    if not shown:
        return False
    columns = min(2, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = Figure(
        figsize=(10, 2.9 * lines), dpi=100, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    )
    for place, curve in enumerate(shown, 1):
        axes = figure.add_subplot(lines, columns, place)
        _draw_curve(axes, curve, PRINT)
        axes.set_title(_label(curve.title, 50), loc="left", fontsize=12, color=PRINT[INK], parse_math=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, format="png")
    return True


def is_interval(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a figure of `eval.json` is a value with its interval, `[value, low, high]`."""
    return isinstance(value, list) and len(value) == 3 and all(_is_number(v) for v in value)


def _points(metrics: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    rows = [(row.get("step"), row.get(key)) for row in metrics]
    return [(float(step), float(value)) for step, value in rows if _is_number(step) and _is_number(value)]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _draw_curve(axes: Axes, curve: Curve, colours: dict[str, str]) -> None:
    """Draw the values thin and their running mean thick, since small batches of completions are noisy."""
    steps, values = zip(*curve.points, strict=True)
    half = len(values) // 24
    reach = [min(half, i, len(values) - 1 - i) for i in range(len(values))]  # the same to both sides, so it never lags
    smooth = [statistics.fmean(values[i - r : i + r + 1]) for i, r in enumerate(reach)]
    marker = "o" if len(values) == 1 else None
    axes.plot(steps, values, color=colours[FIRST], linewidth=1, alpha=0.45)
    axes.plot(steps, smooth, color=colours[FIRST], linewidth=2.2, marker=marker)
    if curve.is_share:
        axes.set_ylim(-0.03, 1.03)
    elif curve.key in FROM_ZERO and min(values) >= 0:
        axes.set_ylim(0, 1.08 * max(values) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_xlabel("step", color=colours[INK], fontsize=11)
    _plain(axes, colours, grid="y")


def _plain(axes: Axes, colours: dict[str, str], grid: Literal["x", "y"]) -> None:
    """Take the box away, keep a light grid, and colour what is left."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(colours[FAINT])
    axes.grid(axis=grid, color=colours[FAINT], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=colours[FAINT], labelcolor=colours[INK], labelsize=11, length=0)


def _label(name: str, longest: int, width: int = 100) -> str:
    """Shorten a label and break it into lines, with control characters to be read: fonts have none of them."""
    name = visible(name)
    return "\n".join(textwrap.wrap(name if len(name) <= longest else name[: longest - 1] + "…", width))


def _svg(figure: Figure) -> str:
    """Write a figure as an SVG element; text stays text, which is smaller and takes the page's font and colour."""
    figure.patch.set_visible(False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reasoning-ext"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's font draws it
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, colour in CSS.items():
        svg = svg.replace(stand_in, colour)
    return svg
