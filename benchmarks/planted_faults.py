"""Faults made on purpose with the tiny model: which health rule says so, how many steps behind the cause; and healthy seeds.

    python benchmarks/planted_faults.py --seeds 0 1 2 3 4 --runs runs/planted

Trains recipes/tiny's SFT with the first seed and GRPO from it with each, of which no rule may say anything, and from the same
SFT model a run a fault, of which its rule must within 20 steps. What no CPU can make is put into the rows of the first healthy
GRPO. Prints the table of docs/reading_a_run.md and writes it with versions and date to benchmarks/results/planted_faults.json.
What is done already is not done again. Exits with 1 where a rule is silent or late, or gives a false alarm.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from tiny_seeds import ROOT, finish

from reasoning_ext.errors import UserError, print_error
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.folder import METRICS
from reasoning_ext.runs.health import RULES, alarms
from reasoning_ext.shown import print

WITHIN, STEPS, HEALTHY_STEPS, CAUSE = 20, 26, 60, 21
ENDING = ("cut_off", "nan")  # the rules that end a training
TINY = ROOT / "recipes" / "tiny"
SFT, GRPO = Path("runs/tiny/1_sft"), Path("runs/tiny/2_grpo")
REWARDS = """
def never(completions, **kwargs):
    return [0.0 for _ in completions]

def longer(completion_ids, **kwargs):
    return [len(ids) / 56 for ids in completion_ids]

def semicolons(completions, **kwargs):
    return [completion[0]["content"].count(";") / 56 for completion in completions]

def huge(completion_ids, **kwargs):
    return [1000.0 * len(ids) for ids in completion_ids]

def tiny(completion_ids, **kwargs):
    return [1e-6 * len(ids) for ids in completion_ids]
"""
SHORT = {  # examples/hacked_reward
    "reward_funcs": [
        "math_answer",
        {"length_penalty": {"weight": 1.5, "max_tokens": 40}},
        {"think_format": {"weight": 0.0}},
    ],
    "audit": ["exact_answer"],
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 10,
    "max_steps": 40,
}
NOISE = {"entropy_coef": 5.0, "learning_rate": 1e-3, "beta": 1e-6, "health": {"cut_off": "off"}}
MEMORISED = {"gen_kwargs": {"num_rows": 64, "num_steps": 5}, "eval_strategy": "steps", "eval_steps": 2}
# the rule, what its fault changes in the recipe; the cause is there from the first step, or from the first that trains
FAULTS: dict[str, dict[str, Any]] = {
    "reward_flat": {"learning_rate": 1e-9},
    "none_right": {"reward_funcs": ["./rewards_of_mine.py:never", "think_format"]},
    "flat_groups": {"reward_funcs": ["./rewards_of_mine.py:never"]},
    "entropy_low": {"temperature": 0.1},
    "entropy_high": NOISE,
    "kl_high": NOISE,
    "grad_norm_high": {"reward_funcs": ["./rewards_of_mine.py:huge"], "scale_rewards": "none"},
    "grad_norm_low": {"reward_funcs": ["./rewards_of_mine.py:tiny"], "scale_rewards": "none"},
    "clip_ratio_high": {"num_iterations": 4, "epsilon": 1e-5, "epsilon_high": 1e-5, "learning_rate": 1e-3},
    "cut_off": {"max_completion_length": 3},
    "length_limit": {"reward_funcs": ["./rewards_of_mine.py:longer"], "learning_rate": 1e-3},
    "length_collapse": SHORT,
    "learning_rate_zero": {"learning_rate": 0.0},
    "nan": {"learning_rate": 1e38},
    "hacking": SHORT,
    "thoughts_lost": {"reward_funcs": ["math_answer", {"think_format": {"weight": -2.0}}]},
    "repetition": {"reward_funcs": ["./rewards_of_mine.py:semicolons"], "learning_rate": 1e-3},
    "loss_flat": {"stage": "sft", "learning_rate": 1e-9},
    "overfit": {"stage": "sft", "learning_rate": 3e-3} | MEMORISED,
}
# vLLM's, and those of tools, which the demo has none of: the metric, what it is in healthy rows, and in those from CAUSE on
IN_ROWS = {
    "sampling_mismatch": ("sampling/sampling_logp_difference/mean", 0.01, 1.4),
    "importance_ratio_low": ("sampling/importance_sampling_ratio/mean", 0.6, 0.02),
    "tool_failures": ("tools/failure_frequency", 0.1, 0.9),
    "tools_unused": ("tools/call_frequency", 1.0, 0.0),
}


def train(recipe: Path, **values: Any) -> None:
    """Run a recipe with other values, in this process, since most of a short training would be imports; a rule may end it."""
    try:
        run_recipes(load_recipes([recipe], {key: str(value) for key, value in values.items()}))
    except UserError as error:
        print_error(error)


def rows_of(run: Path) -> list[dict]:
    """Return what a run has logged."""
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def healthy(seed: int, sft: bool) -> dict:
    """Train GRPO of the demo with a seed, and its SFT before it where that is asked for, and return the alarms."""
    if sft:
        train(TINY / "1_sft.yaml", seed=seed)
    grpo = GRPO.with_name(f"{GRPO.name}_{seed}")
    train(TINY / "2_grpo.yaml", seed=seed, max_steps=HEALTHY_STEPS, output_dir=grpo)
    logged = {"sft": rows_of(SFT)} if sft else {}
    logged["grpo"] = rows_of(grpo)
    return {
        "seed": seed,
        "steps": {stage: rows[-1]["step"] for stage, rows in logged.items()},
        "alarms of the healthy run": [
            alarm.text for stage, rows in logged.items() for alarm in alarms(rows, {"stage": stage})
        ],
    }


def plant(rule: str) -> dict:
    """Train with a fault, and return what was said of it: the step of the alarm, and whether it ended the training."""
    folder = Path("faults") / next(name for name in FAULTS if FAULTS[name] == FAULTS[rule])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rewards_of_mine.py").write_text(REWARDS)
    base = "1_sft" if FAULTS[rule].get("stage") == "sft" else "2_grpo"
    recipe = yaml.safe_load((TINY / f"{base}.yaml").read_text())
    recipe |= {"model_name_or_path": str(SFT), "from_scratch": None, "dataset_name": str(TINY / "last_digit.py")}
    recipe |= {"gen_kwargs": {"num_rows": 4096, "num_steps": 5}, "per_device_train_batch_size": 128}
    recipe |= {"lr_scheduler_type": "constant", "warmup_steps": None}
    recipe |= {"max_steps": STEPS, "logging_steps": 1, "save_steps": 10, "output_dir": str(folder / "run")}
    recipe = {key: value for key, value in (recipe | FAULTS[rule]).items() if value is not None}
    path, run = folder / "recipe.yaml", folder / "run"
    path.write_text(yaml.safe_dump(recipe))
    if not ((run / METRICS).is_file() and "train_runtime" in rows_of(run)[-1]):
        train(path)
    found = {alarm.rule.name: alarm.step for alarm in alarms(rows_of(run), recipe)}
    return found_of(rule, found, FAULTS[rule]) | {"ended": not (run / "DONE").is_file()}


def plant_in_rows(rule: str, rows: list[dict]) -> dict:
    """Change a metric of a healthy run's rows from a step on, and return how many steps later that is said."""
    key, before, after = IN_ROWS[rule]
    changed = [row | {key: before if row["step"] < CAUSE else after} for row in rows]
    found = {alarm.rule.name: alarm.step - CAUSE + 1 for alarm in alarms(changed, {"stage": "grpo"})}
    return found_of(rule, found, {key: after}) | {"in rows": True}


def found_of(rule: str, found: dict[str, float], fault: dict[str, Any]) -> dict:
    """Return the fault, the step of its alarm, and those of others."""
    others = {name: step for name, step in found.items() if name != rule}
    return {"fault": fault, "alarm": found.get(rule), "beside it": others}


def table(faults: dict[str, dict]) -> str:
    """Write the table: a rule, its fault, how many steps until its alarm, what else was said."""
    lines = ["| rule | planted | alarm after steps | also said |", "|---|---|---|---|"]
    for rule, row in faults.items():
        fault = ", ".join(f"`{key}: {value}`" for key, value in row["fault"].items())
        fault = "`examples/hacked_reward/1_hacked.yaml`" if row["fault"] == SHORT else fault
        where = f" put into rows, from step {CAUSE} on" if row.get("in rows") else ""
        told = {rule: "none" if row["alarm"] is None else f"{row['alarm']:g}"}
        told |= {name: f"{name} {step:g}" for name, step in row["beside it"].items()}
        told |= {name: f"{told[name]}, ended" for name in ENDING if row.get("ended") and name in told}
        at, *others = told.values()
        lines.append(f"| `{rule}` | {fault}{where} | {at} | {'; '.join(others)} |")
    return "\n".join(lines)


def misses(row: dict) -> list[str]:
    """Name the rules that are silent or late, and the false alarms of a healthy run, or that it was not whole."""
    late = [rule for rule, one in row.get("faults", {}).items() if not one["alarm"] or one["alarm"] > WITHIN]
    short = ["GRPO has ended early"] if row["steps"]["grpo"] < HEALTHY_STEPS else []
    return [f"{rule} is silent or late" for rule in late] + row["alarms of the healthy run"] + short


def main() -> int:
    """Train, print the table, write the result file; 1 where a rule is silent or gives a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--runs", type=Path, default=Path("runs/planted"))
    arguments = parser.parse_args()
    assert {*FAULTS, *IN_ROWS} == {rule.name for rule in RULES}
    arguments.runs.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.runs)
    first = arguments.seeds[0]
    rows = [healthy(seed, sft=seed == first) for seed in arguments.seeds]
    trained = {rule: plant(rule) for rule in FAULTS}
    quiet = rows_of(GRPO.with_name(f"{GRPO.name}_{first}"))
    planted = trained | {rule: plant_in_rows(rule, quiet) for rule in IN_ROWS}
    rows[0]["faults"] = {rule.name: planted[rule.name] for rule in RULES}
    print(table(rows[0]["faults"]))
    command = f"python benchmarks/planted_faults.py --seeds {' '.join(map(str, arguments.seeds))}"
    return finish("planted_faults", command, rows, misses)


if __name__ == "__main__":
    sys.exit(main())
