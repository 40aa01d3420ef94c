"""Draw the pictures of docs/, from result files and from formulas; nothing is drawn by hand. `make docs` runs it.

python docs/scripts/pictures.py                    into docs/pictures
python docs/scripts/pictures.py FOLDER             into another folder
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from reasoning_ext.rewards.math_answer import math_answer
from reasoning_ext.rewards.step_check import step_check
from reasoning_ext.rewards.think_format import think_format

from reasoning_ext.scoring.metrics import pass_at_k

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FIRST, SECOND, DIM = "#2563c4", "#c2600a", "#8a94a0"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "reasoning-ext", "font.size": 10, "axes.grid": True, "axes.grid.axis": "y",
    "grid.color": "#dddddd", "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
}  # fmt: skip


def seeds() -> list[dict[str, Any]]:
    """Return the rows of the tiny demo's result file, a seed each."""
    return json.loads((RESULTS / "tiny_seeds.json").read_text())["rows"]


def bars(
    axes: Any, labels: list[str], series: dict[str, list[list[float]]], colours: tuple = (FIRST, SECOND, DIM)
) -> None:
    """Draw shares `[value, low, high]` as bars in groups, in per cent, with their intervals."""
    width = 0.8 / len(series)
    for i, (name, shares) in enumerate(series.items()):
        places = [x - 0.4 + width * (i + 0.5) for x in range(len(labels))]
        values, lows, highs = zip(*[[100 * share for share in one] for one in shares], strict=True)
        below = [value - low for value, low in zip(values, lows, strict=True)]
        above = [high - value for value, high in zip(values, highs, strict=True)]
        axes.bar(places, values, width * 0.92, yerr=(below, above), label=name, color=colours[i], capsize=2)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 105)
    axes.set_ylabel("right, %")
    axes.legend(frameon=False, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def reasoning(axes: Any) -> None:
    """Greedy and pass@1 of the SFT and the GRPO model, three seeds."""
    found = seeds()
    labels = [f"seed {row['seed']}\n{kind}" for row in found for kind in ("greedy", "pass@1")]
    models = {"sft": "SFT: thinks at times", "grpo": "GRPO: thinks always"}
    shares = {
        label: [row["models"][model][kind] for row in found for kind in ("greedy", "pass@1")]
        for model, label in models.items()
    }
    bars(axes, labels, shares, (DIM, FIRST))


def sft_tokens(axes: Any) -> None:
    """One row of the demo: what is given, and what is trained on."""
    parts = [
        ("<|user|>7+5*3<|assistant|>", DIM),
        ("<think>7+5=12;2*3=6</think>", FIRST),
        ("6", SECOND),
        ("<|end|>", SECOND),
    ]
    place = 0.0
    for text, colour in parts:
        width = len(text) + 1.2
        axes.barh(0, width - 0.3, left=place, height=0.6, color=colour)
        axes.text(
            place + width / 2 - 0.15, 0, text, ha="center", va="center", color="white", family="monospace", fontsize=9
        )
        place += width
    for text, colour, x in (
        ("prompt: given", DIM, 0),
        ("thought: trained on", FIRST, 28),
        ("answer and end: trained on", SECOND, 49),
    ):
        axes.text(x, 0.75, text, color=colour)
    axes.set(xlim=(0, 72), ylim=(-0.5, 1.2))
    axes.axis("off")


def rewards(axes: Any) -> None:
    """Three rewards of the four completions of docs/concepts.md."""
    texts = {
        "right": "<think>7+5=12;2*3=6;6+8=14;4*9=36;6+4=10</think>0",
        "lucky guess": "<think></think>0",
        "a slip": "<think>7+5=12;2*3=6;6+8=15;5*9=45;5+4=9</think>9",
        "right, by a\nfalse step": "<think>7+5=11;2*3=6;6+8=14;4*9=36;6+4=10</think>0",
    }
    completions = [*texts.values()]
    paid = {
        "math_answer": math_answer(completions, answer=["0"] * 4),
        "step_check": step_check(completions),
        "think_format": think_format(completions),
    }
    for i, (name, values) in enumerate(paid.items()):
        places = [x + 0.27 * (i - 1) for x in range(4)]
        axes.bar(places, [value or 0 for value in values], 0.25, label=name, color=(FIRST, SECOND, DIM)[i])
        for x, value in zip(places, values, strict=True):
            axes.text(x, (value or 0) + 0.02, "None" if value is None else f"{value:g}", ha="center", fontsize=8)
    axes.set_xticks(range(4), texts)
    axes.set_ylim(0, 1.3)
    axes.legend(frameon=False, ncols=3, loc="upper center")


def advantages(axes: Any) -> None:
    """What a right and a wrong completion of a group of eight get, as TRL computes it."""
    counts = range(1, 8)
    groups = [[1.0] * right + [0.0] * (8 - right) for right in counts]
    scaled = [[(reward - mean(group)) / (stdev(group) + 1e-4) for reward in group] for group in groups]
    axes.bar(counts, [group[0] for group in scaled], 0.7, color=FIRST, label="each right one")
    axes.bar(counts, [group[-1] for group in scaled], 0.7, color=SECOND, label="each wrong one")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xticks=range(9), xlabel="right of eight (0 and 8: no advantage, nothing is learnt)", ylabel="advantage")
    axes.legend(frameon=False)


def clipping(axes: Any) -> None:
    """The objective of a token against the ratio, for a right and a wrong completion."""
    ratios = [i / 100 for i in range(40, 181)]
    for advantage, colour, name in (
        (1.62, FIRST, "right completion, A = 1.62"),
        (-0.54, SECOND, "wrong completion, A = -0.54"),
    ):
        held = [min(ratio * advantage, max(0.8, min(1.28, ratio)) * advantage) for ratio in ratios]
        axes.plot(ratios, held, color=colour, linewidth=2.2, label=name)
        axes.plot(ratios, [ratio * advantage for ratio in ratios], color=colour, linewidth=1, alpha=0.4)
    for edge in (0.8, 1.28):
        axes.axvline(edge, color=DIM, linewidth=0.8, linestyle="--")
    axes.set(xlabel="ratio: probability now / when it was drawn (clip range 0.8 to 1.28)", ylabel="objective")
    axes.legend(frameon=False, loc="upper left")


def kl(axes: Any) -> None:
    """The KL estimate of a token against p / ref."""
    ratios = [i / 50 for i in range(10, 151)]
    axes.plot(ratios, [1 / ratio - math.log(1 / ratio) - 1 for ratio in ratios], color=FIRST, linewidth=2.2)
    point = 0.30 / 0.20
    axes.plot([point], [1 / point - math.log(1 / point) - 1], "o", color=SECOND)
    axes.annotate(
        "from 20 % to 30 %: 0.0721", (point, 0.0721), (1.6, 0.45), arrowprops={"arrowstyle": "-", "color": SECOND}
    )
    axes.set(xlabel="p / ref: how much more likely the token has become", ylabel="estimate of a token")


def pass_at(axes: Any) -> None:
    """pass@k and maj@4 of the SFT and the GRPO model, seed 0."""
    models = seeds()[0]["models"]
    kinds = ["greedy", "pass@1", "pass@2", "pass@4", "maj@4"]
    names = {"sft": "SFT", "grpo": "GRPO"}
    bars(axes, kinds, {label: [models[name][kind] for kind in kinds] for name, label in names.items()}, (DIM, FIRST))
    assert round(pass_at_k(8, 2, 4), 4) == 0.7857  # the worked example beside it


def distillation(axes: Any) -> None:
    """pass@1 of the student on five sets of traces, three seeds."""
    kinds = {
        "traces": "original\ntraces",
        "sampled": "sampled",
        "steps": "sampled,\nstep_check",
        "dpo after sampled": "DPO after\nsampled",
    }
    series = {
        f"seed {row['seed']}": [
            *(row["students"][kind]["pass@1"] for kind in kinds), row["models"]["student distilled"]["pass@1"],
        ]
        for row in seeds()
    }  # fmt: skip
    bars(axes, [*kinds.values(), "sampled from\nthe GRPO model"], series)


def hacked(axes: Any) -> None:
    """Reward, right answers and length of the two trainings of tutorial 3."""
    rows = json.loads((RESULTS / "hacked_reward.json").read_text())["rows"]
    titles = {
        "reward": "reward",
        "rewards/math_answer/mean": "right answers",
        "completions/mean_length": "mean length, tokens",
    }
    for place, (key, title) in zip(axes, titles.items(), strict=True):
        for colour, name in ((SECOND, "hacked"), (FIRST, "mended")):
            place.plot(
                [row["step"] for row in rows], [row[name][key] for row in rows], color=colour, linewidth=1.8, label=name
            )
        place.set(title=title, xlabel="step")
    axes[1].set_ylim(0, 1.02)
    axes[2].set_ylim(0, None)
    axes[0].legend(frameon=False, loc="center right")


PICTURES: dict[str, tuple[Callable[[Any], None], tuple[float, float], int]] = {
    "reasoning": (reasoning, (7, 3.2), 1),
    "sft_tokens": (sft_tokens, (8, 1.1), 1),
    "rewards": (rewards, (7, 3), 1),
    "advantages": (advantages, (6.5, 3), 1),
    "clipping": (clipping, (6.5, 3.2), 1),
    "kl": (kl, (6, 2.8), 1),
    "pass_at_k": (pass_at, (6.5, 3), 1),
    "distillation": (distillation, (7.5, 3.4), 1),
    "hacked_reward": (hacked, (9, 2.8), 3),
}


def main() -> None:
    """Draw all of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, (draw, size, columns) in PICTURES.items():
            figure = Figure(figsize=size, facecolor="white", layout="constrained")
            draw(figure.subplots(1, columns))
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    print(f"{len(PICTURES)} pictures in {folder}")


if __name__ == "__main__":
    main()
