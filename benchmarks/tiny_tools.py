"""Tools are learned: what GRPO gains on products and on made-up facts, what calls it saves on sums, and what calls cost in speed.

    python benchmarks/tiny_tools.py --seeds 0 1 2 3 4 --runs runs/tools

Runs `recipes/tiny_tools` and `recipes/search_facts` with `--seeds` below --runs, prints the tables of
docs/tutorials/5_tools.md and writes them with versions and date to benchmarks/results/tiny_tools.json. What is done already is
not done again. Exits with 1 where a seed misses what is promised: below 15 % before GRPO and above 90 % after it, greedy, of what
needs the tool; fewer calls where none is needed; six minutes for the stages of all seeds of `recipes/tiny_tools`.
"""

import argparse
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from tiny_seeds import ROOT, finish, run_seeds, share, stage_seconds

from reasoning_ext.data.sources import load_rows, read_jsonl
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.opening import open_engine, sampling_settings
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import seed_folder

BEFORE, AFTER, WALL_SECONDS = 0.15, 0.90, 360
KINDS = {"3_eval": "needs it", "4_eval_sums": "sums"}
NAMES = ("tiny_tools", "search_facts")


def row_of(name: str, seed: int, runs: Path) -> dict:
    """Return one seed's evaluations, its calls a problem, and the seconds of its stages."""
    row: dict[str, Any] = {"recipes": name, "seed": seed, "stage seconds": stage_seconds(runs / name, seed)}
    for stage, kind in KINDS.items():
        folder = seed_folder(runs / name / stage, seed)
        row[kind] = {"models": read_object(folder / "eval.json"), "calls": calls_a_problem(folder / "answers.jsonl")}
    return row


def calls_a_problem(answers: Path) -> dict[str, float]:
    """Return the mean number of calls of each model's sampled completions."""
    counts: dict[str, list[int]] = {}
    for line in read_jsonl(answers):
        if line["sample_index"] >= 0:
            calls = sum(len(turn.get("tool_calls") or []) for turn in line.get("turns") or [])
            counts.setdefault(line["model"], []).append(calls)
    return {model: round(fmean(found), 3) for model, found in counts.items()}


def misses(row: dict) -> list[str]:
    """Name the promises that a seed's results do not keep."""
    need, sums = row["needs it"], row["sums"]
    sft, grpo = need["models"]["sft"], need["models"]["grpo"]
    found = []
    if not sft["greedy"][0] < BEFORE < AFTER < grpo["greedy"][0]:
        found.append(f"{row['recipes']}: greedy from {sft['greedy']} to {grpo['greedy']}")
    if not sums["calls"]["grpo"] < sums["calls"]["sft"] / 2:
        found.append(f"{row['recipes']}: calls a sum from {sums['calls']['sft']} to {sums['calls']['grpo']}")
    return found


def all_misses(rows: list[dict], row: dict) -> list[str]:
    """Name what a seed misses in one folder, and the time that all seeds of the first one took."""
    found = misses(row)
    seconds = sum(sum(row["stage seconds"].values()) for row in rows if row["recipes"] == NAMES[0])
    return found + ([f"{seconds:.0f} s for all seeds"] if seconds > WALL_SECONDS else [])


def table(rows: list[dict]) -> str:
    """Write the page's table: right answers in per cent with 95 % intervals, calls a problem, seconds."""
    head = ["seed", "SFT greedy", "GRPO greedy", "SFT", "GRPO", "calls", "sums right", "calls a sum", "stages"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        need, sums = row["needs it"], row["sums"]
        sft, grpo = need["models"]["sft"], need["models"]["grpo"]
        cells = [str(row["seed"]), *(share(model["greedy"]) for model in (sft, grpo))]
        cells += [share(model["pass@1"]) for model in (sft, grpo)]
        cells += [change(need["calls"], ".2f")]
        cells += [change({name: 100 * model["pass@1"][0] for name, model in sums["models"].items()}, ".1f")]
        cells += [change(sums["calls"], ".2f"), f"{sum(row['stage seconds'].values()):.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def change(figures: dict[str, float], form: str) -> str:
    """Write a figure before and after GRPO: `0.50 → 0.02`."""
    return f"{figures['sft']:{form}} → {figures['grpo']:{form}}"


def throughput(runs: Path, seed: int) -> dict[str, float]:
    """Return tokens a second of the model's own, with the calculator, and without: its completions end with the call then."""
    [recipe] = load_recipes([str(ROOT / "recipes" / NAMES[0] / "3_eval.yaml")], {})
    rows = load_rows(recipe.get("dataset_name"), recipe.folder, "test", gen_kwargs=recipe.get("gen_kwargs"))
    prompts = rows["prompt"][:]
    keys = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(4)]
    engine: Any = open_engine(recipe, str(seed_folder(runs / NAMES[0] / "2_grpo", seed).resolve()))
    with closing(engine):
        return {
            name: speed(one, prompts, keys, sampling_settings(recipe))
            for name, one in {"with": engine, "without": engine.inner}.items()
        }


def speed(engine: Any, prompts: list, keys: list, settings: SamplingSettings) -> float:
    """Return the tokens that an engine draws a second, the first batch aside."""
    drawn = engine.generate(prompts, keys, settings)
    next(drawn)
    start, tokens = time.perf_counter(), sum(completion.tokens for batch in drawn for completion in batch)
    return round(tokens / (time.perf_counter() - start), 1)


def main() -> int:
    """Run the seeds, print the tables, write the result file; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--runs", type=Path, default=Path("runs/tools"))
    arguments = parser.parse_args()
    for name in NAMES:
        run_seeds(ROOT / "recipes" / name, arguments.seeds, arguments.runs)
    runs = arguments.runs / "runs"
    rows = [row_of(name, seed, runs) for name in NAMES for seed in arguments.seeds]
    for name in NAMES:
        print(f"recipes/{name}\n{table([row for row in rows if row['recipes'] == name])}\n")
    speeds = throughput(runs, arguments.seeds[0])
    print(f"tokens a second with the calculator {speeds['with']}, without {speeds['without']}")
    command = f"python benchmarks/tiny_tools.py --seeds {' '.join(map(str, arguments.seeds))}"
    return finish("tiny_tools", command, rows, partial(all_misses, rows), **{"tokens a second": speeds})


if __name__ == "__main__":
    sys.exit(main())
