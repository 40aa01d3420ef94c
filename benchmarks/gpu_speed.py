"""Tokens a second of SFT and GRPO, for backends trl and unsloth side by side.

    python benchmarks/gpu_speed.py --models qwen3-8b --contexts 2048 8192    # on any CUDA card
    python benchmarks/gpu_speed.py --quick                                   # meant for ten minutes on a large card; not measured
    python benchmarks/gpu_speed.py --smoke                                   # a minute on a CPU; its figures say nothing

Runs as in `gpu_memory.py`: models of real shapes with random weights, the project's recipes, completions of full length, a
process a run. The first step warms up and is left out; each figure is the median of the others. SFT counts all tokens of its
rows, GRPO those that it generates over the whole step, and apart: generated tokens over the time of generation, and all tokens
of the rows over that of forward, backward and optimizer. `check` reckons with the stated tokens a second where it is told none.
Writes results/gpu_speed.json after each run.
"""

import argparse
import shlex
import sys
from dataclasses import replace

import gpu_models
from gpu_memory import SMALL_BATCH, add_arguments, jobs_of, save, settle
from gpu_runs import FITS, ROOT, header, measure

from reasoning_ext.check.memory.check import TOKENS_PER_SECOND
from reasoning_ext.check.memory.plan import GIB
from reasoning_ext.errors import UserError

RESULT = ROOT / "benchmarks" / "results" / "gpu_speed.json"
SMOKE = {"models": [gpu_models.TINY], "contexts": [96], "steps": 3, "set": SMALL_BATCH}
QUICK = {"contexts": [1024], "completion": 256, "steps": 4, "timeout": 240}
COLUMNS = {
    "s a step": "step seconds", "tokens/s": "tokens a second", "generated/s": "generated tokens a second",
    "trained/s": "trained tokens a second",
}  # fmt: skip


def comparison(rows):
    """Return the table of all runs; those of one model, stage and context stand together, `x` is over backend trl."""
    heads = ["model", "stage", "context", "backend", *COLUMNS, "x", "stated", "peak GiB"]
    lines = [heads]
    base = {_same(row): row["speeds"]["tokens a second"] for row in rows if row["backend"] == "trl" and row["speeds"]}
    for row in sorted(rows, key=_same):
        speed, peak = row["speeds"], row["compared"][-1]["measured"]
        cells = [row["model"], row["stage"], str(row["context"]), row["backend"]]
        if row["status"] != FITS or row["invalid"]:
            lines.append([*cells, row.get("error") or row["invalid"] or row["status"]])
            continue
        figures = [speed.get(key) for key in COLUMNS.values()]
        ratio = speed["tokens a second"] / base[_same(row)] if speed and _same(row) in base else None
        cells += [_figure(value) for value in (*figures, ratio, TOKENS_PER_SECOND, peak and peak / GIB)]
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines if len(line) == len(heads)) for i in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=False)) for line in lines)


def _same(row):
    return row["model"], row["stage"], row["context"], row["limit"] or 0


def _figure(value):
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def main():
    """Measure all combinations; 1 where one failed or did not measure what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--contexts", type=int, nargs="+", default=[2048], help="tokens of a row")
    parser.add_argument("--steps", type=int, default=5, help="of the optimizer; the first is left out")
    arguments = settle(parser, RESULT, SMOKE, QUICK)
    top, rows = {**header(shlex.join(["python", *sys.argv])), "stated tokens a second": TOKENS_PER_SECOND}, []
    for job, python in jobs_of(arguments):
        for context in arguments.contexts:
            rows.append(measure(replace(job, context=context), python, arguments.timeout))
            print(f"{job.stage} {job.backend} {context}: {rows[-1]['status']}", flush=True)
            save(arguments, top, rows)
    print("\n" + comparison(rows))
    return int(any(row["status"] != FITS or row["invalid"] for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
