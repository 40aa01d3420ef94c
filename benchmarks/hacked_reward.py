"""A reward that can be hacked beside the mended one: what becomes of reward, right answers, thoughts and lengths.

    python benchmarks/hacked_reward.py

Runs examples/hacked_reward after the demo's SFT, in runs/; what is done already is not done again. Prints the table of
docs/tutorials/3_hacked_reward.md and writes all steps with versions and date to benchmarks/results/hacked_reward.json.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.process import versions

ROOT = Path(__file__).parents[1]
RUNS = {"hacked": "1_hacked", "mended": "2_mended"}
FIGURES = ("reward", "rewards/math_answer/mean", "rewards/think_format/mean", "completions/mean_length")
SHOWN = (1, 10, 20, 30, 40)  # steps
AROUND = 2  # a step's figure in the table is the mean over so many before and after it, since 128 completions are few


def table(rows: list[dict]) -> str:
    """Write the tutorial's table from `{"step": ..., "hacked": {figure: value}, "mended": ...}`, a row a step."""
    lines = ["| step | run | reward | right | thinks | tokens |", "|---|---|---|---|---|---|"]
    for name in RUNS:
        for step in SHOWN:
            near = [row[name] for row in rows if abs(row["step"] - step) <= AROUND]
            reward, right, thinks, tokens = (sum(row[figure] for row in near) / len(near) for figure in FIGURES)
            lines.append(f"| {step} | {name} | {reward:.2f} | {right:.0%} | {thinks:.0%} | {tokens:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run both, print the table, write the result file."""
    recipes = ["recipes/tiny/1_sft.yaml", "examples/hacked_reward"]
    subprocess.run([sys.executable, "-m", "reasoning_ext", "run", *recipes], cwd=ROOT, check=True)
    steps: dict[int, dict] = {}
    for name, folder in RUNS.items():
        for line in (ROOT / "runs" / "hacked" / folder / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            if "reward" in row:
                figures = {figure: round(row[figure], 4) for figure in FIGURES}
                steps.setdefault(row["step"], {"step": row["step"]})[name] = figures
    rows = [steps[step] for step in sorted(steps)]
    print(table(rows))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/hacked_reward.py",
        "versions": versions(),
        "rows": rows,
    }
    write_whole(ROOT / "benchmarks" / "results" / "hacked_reward.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
