"""The demo for several seeds: what GRPO and distillation gain on held-out problems, and how long all stages take.

    python benchmarks/tiny_seeds.py --seeds 0 1 2 3 4 --distillation 0 1 2 --runs runs/seeds

Runs `recipes/tiny` with `--seeds`, and `recipes/tiny/distillation` for some of them, below --runs, prints the
tables of README and docs/sampling.md and writes them with versions and date to benchmarks/results/tiny_seeds.json. What is done
already is not done again. Exits with 1 where a seed misses what the README promises.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reasoning_ext.runs.files import read_object, write_whole
from reasoning_ext.runs.folder import seed_folder
from reasoning_ext.runs.process import versions

ROOT = Path(__file__).parents[1]
SAMPLED_GAIN, GREEDY_GAIN, STUDENT_GAIN, WALL_SECONDS = 0.40, 0.50, 0.20, 360
STUDENTS = ("traces", "sampled", "steps", "second round", "dpo after sampled", "dpo after steps")


def run_seeds(recipes: Path, seeds: list[int], folder: Path) -> None:
    """Run a folder of recipes in `folder`, once for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "reasoning_ext", "run", str(recipes), "--seeds", *map(str, seeds)]
    subprocess.run(command, cwd=folder, check=True)


def row_of(seed: int, runs: Path, distillation: bool) -> dict:
    """Return the evaluation of one seed and the seconds of all its stages."""
    tiny, more, results = runs / "tiny", runs / "tiny_distillation", seed_folder(runs / "tiny" / "6_eval", seed)
    row = {"seed": seed, "stage seconds": stage_seconds(tiny, seed), "models": read_object(results / "eval.json")}
    if distillation:
        row["students"] = read_object(seed_folder(more / "8_eval", seed) / "eval.json")
        row["sampling"] = read_object(seed_folder(more / "1_sample", seed) / "summary.json")
    return row


def misses(row: dict) -> list[str]:
    """Name the promises that a seed's results do not keep."""
    models = row["models"]
    sft, grpo = models["sft"], models["grpo"]
    found = []
    for figure, gain in (("pass@1", SAMPLED_GAIN), ("greedy", GREEDY_GAIN)):
        if grpo[figure][0] - sft[figure][0] < gain or grpo[figure][1] <= sft[figure][2]:
            found.append(f"{figure} from {sft[figure]} to {grpo[figure]}")
    if models["student distilled"]["pass@1"][0] - models["student on traces"]["pass@1"][0] < STUDENT_GAIN:
        found.append("the distilled student is not 20 points better")
    students = row.get("students")
    if students and students["steps"]["pass@1"][1] <= students["sampled"]["pass@1"][2]:
        found.append("the student on true steps is not better than the one on all that is right")
    if students and students["sampled"]["pass@1"][1] <= students["traces"]["pass@1"][2]:
        found.append("the student on sampled traces is not better than the one on the original ones")
    if sum(row["stage seconds"].values()) > WALL_SECONDS:
        found.append(f"{sum(row['stage seconds'].values()):.0f} s")
    return found


def table(rows: list[dict]) -> str:
    """Write the README's table: pass@1 at temperature 1 and greedy, in per cent with 95 % intervals."""
    head = [
        "seed",
        "SFT",
        "GRPO",
        "SFT greedy",
        "GRPO greedy",
        "thinks",
        "tokens",
        "student, traces",
        "student, distilled",
        "stages",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        m = row["models"]
        sft, grpo = m["sft"], m["grpo"]
        cells = [
            str(row["seed"]), share(sft["pass@1"]), share(grpo["pass@1"]), share(sft["greedy"]), share(grpo["greedy"]),
            f"{sft['thinks'][0]:.0%} → {grpo['thinks'][0]:.0%}", f"{sft['mean tokens']:.0f} → {grpo['mean tokens']:.0f}",
            share(m["student on traces"]["pass@1"]), share(m["student distilled"]["pass@1"]),
            f"{sum(row['stage seconds'].values()):.0f} s",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def distillation_table(rows: list[dict]) -> str:
    """Write the table of students in docs/sampling.md: pass@1 at temperature 1, in per cent with 95 % intervals, then greedy."""
    lines = ["| seed | " + " | ".join(STUDENTS) + " |", "|" + "---|" * (len(STUDENTS) + 1)]
    for row in rows:
        shares = [
            f"{share(row['students'][name]['pass@1'])}, {100 * row['students'][name]['greedy'][0]:.1f}"
            for name in STUDENTS
        ]
        lines.append("| " + " | ".join([str(row["seed"]), *shares]) + " |")
    return "\n".join(lines)


def share(value: list[float]) -> str:
    """Write a share and its 95 % interval in per cent: `41.9 [39.5, 44.4]`."""
    return f"{100 * value[0]:.1f} [{100 * value[1]:.1f}, {100 * value[2]:.1f}]"


def stage_seconds(runs: Path, seed: int) -> dict[str, float]:
    """Return the seconds that each finished stage of a folder of runs took with one seed."""
    done = sorted(runs.glob(f"*/{seed_folder(Path(), seed)}/DONE"))
    return {file.parents[1].name: read_object(file)["seconds"] for file in done}


def finish(name: str, command: str, rows: list[dict], misses: Callable[[dict], list[str]], **more: Any) -> int:
    """Write the result file, say which seeds miss what is promised, and return the exit code: 1 where one does."""
    result = {"date": time.strftime("%Y-%m-%d"), "command": command, "versions": versions(), **more, "rows": rows}
    write_whole(ROOT / "benchmarks" / "results" / f"{name}.json", json.dumps(result, indent=1) + "\n")
    missed = {row.get("seed", row.get("measure")): misses(row) for row in rows if misses(row)}
    for one, what in missed.items():
        print(f"{one} misses: {'; '.join(what)}")
    return int(bool(missed))


def main() -> int:
    """Run the seeds, print the table, write the result file; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--distillation", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"))
    arguments = parser.parse_args()
    more = arguments.distillation
    run_seeds(ROOT / "recipes" / "tiny", arguments.seeds, arguments.runs)
    if more:
        run_seeds(ROOT / "recipes" / "tiny" / "distillation", more, arguments.runs)
    rows = [row_of(seed, arguments.runs / "runs", seed in more) for seed in arguments.seeds]
    print(table(rows))
    print(distillation_table([row for row in rows if "students" in row]))
    command = f"python benchmarks/tiny_seeds.py --seeds {' '.join(map(str, arguments.seeds))}"
    command += f" --distillation {' '.join(map(str, more))}"
    return finish("tiny_seeds", command, rows, misses)


if __name__ == "__main__":
    sys.exit(main())
