"""What `skip_known` and `refill` are worth: GRPO with neither, either and both, from one SFT model, for several seeds.

    python benchmarks/rollouts.py --seeds 0 1 2 --tiny runs/tiny/1_sft
    python benchmarks/rollouts.py --seeds 0 1 2 --real runs/smollm2_135m/1_sft

Trains `recipes/tiny/2_grpo.yaml`, or `recipes/smollm2_135m/2_grpo.yaml`, on so few problems that they come again,
each arm in a folder of its own below --runs, and answers held-out problems greedily with each checkpoint. Prints and writes to
benchmarks/results/rollouts.json, of the real model alone to rollouts_real.json, by seed and arm: the share of the groups that
were trained on and had a difference, the completions that were drawn, the seconds, the greedy accuracy by step, and how many
steps and completions it took to a given one. What is done already is not done again. Exits with 1 where a refill does not raise
the share of groups with a difference.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_seeds import finish

from reasoning_ext.evaluate.stage import RESULTS
from reasoning_ext.runs.files import rows_until
from reasoning_ext.runs.folder import DONE, METRICS
from reasoning_ext.train.prompts import PASS_RATES

ROOT = Path(__file__).parents[1]
SKIP = {"above": 0.95, "below": 0.02, "retry_after": 20}
REFILL = {"rounds": 3}
ARMS: dict[str, dict[str, Any]] = {
    "off": {}, "skip_known": {"skip_known": SKIP}, "refill": {"refill": REFILL},
    "both": {"skip_known": SKIP, "refill": REFILL},
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What is trained and evaluated.

    Attributes:
        grpo, evaluation: the recipes.
        gen_kwargs: of the problems to train on.
        steps, every: of the training, and between two evaluations.
        target: the greedy accuracy that is waited for.
    """

    grpo: Path
    evaluation: Path
    gen_kwargs: dict[str, Any]
    steps: int
    every: int
    target: float


TASKS = {
    "tiny": Task(
        ROOT / "recipes/tiny/2_grpo.yaml", ROOT / "recipes/tiny/6_eval.yaml", {"num_rows": 256, "num_steps": 5}, 50, 5, 0.9
    ),
    "real": Task(
        ROOT / "recipes/smollm2_135m/2_grpo.yaml", ROOT / "recipes/smollm2_135m/5_eval.yaml",
        {"num_rows": 24, "num_steps": [1, 2, 2, 2], "seed": 1}, 12, 3, 0.6,
    ),
}  # fmt: skip


def run(recipe: Path, **values: Any) -> None:
    """Run a recipe with other values."""
    given = [
        part
        for key, value in values.items()
        for part in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]
    subprocess.run([sys.executable, "-m", "reasoning_ext", "run", str(recipe), *given], check=True)


def arm_of(task: Task, model: str, seed: int, folder: Path, arm: dict[str, Any], steps: int) -> dict[str, Any]:
    """Train one arm and evaluate its checkpoints; return its figures."""
    trained, answered = folder / "grpo", folder / "eval"
    size = {"max_steps": steps, "save_steps": task.every, "save_total_limit": steps}
    run(
        task.grpo,
        model_name_or_path=model,
        seed=seed,
        gen_kwargs=task.gen_kwargs,
        output_dir=str(trained),
        **size,
        **arm,
    )
    run(task.evaluation, models=f"{trained}/checkpoint-*", num_generations=0, output_dir=str(answered))
    rows = [row for row in rows_until(trained / METRICS, steps) if "reward" in row]
    tables = json.loads((answered / RESULTS).read_text())
    greedy = {int(label.rpartition("-")[2]): figures["greedy"] for label, figures in tables.items()}
    drawn = drawn_by_step(trained, steps)
    reached = next((step for step, (value, *_) in sorted(greedy.items()) if value >= task.target), None)
    signal = [row.get("rollouts/with_signal", 1 - row["frac_reward_zero_std"]) for row in rows]
    return {
        "with signal": round(sum(signal) / len(signal), 4),
        "with signal by step": [round(one, 3) for one in signal],
        "completions": sum(drawn),
        "seconds": json.loads((trained / DONE).read_text())["seconds"],
        "greedy by step": {step: greedy[step] for step in sorted(greedy)},
        "steps to target": reached,
        "completions to target": sum(drawn[:reached]) if reached else None,
    }


def drawn_by_step(trained: Path, steps: int) -> list[int]:
    """Return how many completions were drawn for each step, by the file of live pass rates; all are judged."""
    counts = [0] * steps
    for line in rows_until(trained / PASS_RATES, steps):
        counts[line["step"] - 1] += sum(line["samples"])
    return counts


def table(rows: list[dict[str, Any]]) -> str:
    """Write a line for each seed and arm."""
    head = "task, seed | arm | with a difference | completions | seconds | greedy | steps to target | completions to it"
    lines = [f"| {head} |"]
    lines.append("|" + "---|" * 8)
    for row in rows:
        for name, arm in row["arms"].items():
            end = 100 * list(arm["greedy by step"].values())[-1][0]
            cells = [
                row["seed"],
                name,
                f"{100 * arm['with signal']:.0f} %",
                arm["completions"],
                f"{arm['seconds']:.0f}",
                f"{end:.1f}",
            ]
            lines.append(
                "| " + " | ".join(map(str, [*cells, arm["steps to target"], arm["completions to target"]])) + " |"
            )
    return "\n".join(lines)


def misses(row: dict[str, Any]) -> list[str]:
    """Say where a refill has not raised the share of groups that teach something."""
    shares = {name: arm["with signal"] for name, arm in row["arms"].items()}
    pairs = [
        (more, less) for more, less in (("refill", "off"), ("both", "skip_known")) if {more, less} <= shares.keys()
    ]
    return [
        f"{more} {shares[more]} against {less} {shares[less]}" for more, less in pairs if shares[more] <= shares[less]
    ]


def main() -> int:
    """Run all arms of all seeds, print the table, write the result file; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tiny", default="", help="the SFT model of recipes/tiny")
    parser.add_argument("--real", default="", help="the SFT model of recipes/smollm2_135m")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--steps", type=int, help="fewer than the tasks have, for a try: nothing is written then")
    parser.add_argument("--runs", type=Path, default=Path("runs/rollouts"))
    given = parser.parse_args()
    models, rows = {"tiny": given.tiny, "real": given.real}, list[dict[str, Any]]()
    for name, seed in [(name, seed) for name, model in models.items() if model for seed in given.seeds]:
        task, place = TASKS[name], given.runs / name / str(seed)
        steps = given.steps or task.steps
        arms = {arm: arm_of(task, models[name], seed, place / arm, ARMS[arm], steps) for arm in given.arms}
        rows.append({"seed": f"{name} {seed}", "target": task.target, "gen_kwargs": task.gen_kwargs, "arms": arms})
    print(table(rows))
    if given.steps:
        return int(any(map(misses, rows)))
    command = f"python benchmarks/rollouts.py --seeds {' '.join(map(str, given.seeds))}"
    command += "".join(f" --{name} {model}" for name, model in models.items() if model)
    return finish("rollouts" if given.tiny else "rollouts_real", command, rows, misses, skip_known=SKIP, refill=REFILL)


if __name__ == "__main__":
    sys.exit(main())
