"""The longest context that fits a card, and the memory plan beside what was measured, for backends trl and unsloth.

    python benchmarks/gpu_memory.py --models qwen3-8b --limit 24GB 48GB      # hours, on any CUDA card
    python benchmarks/gpu_memory.py --quick                                  # meant for ten minutes on a large card; not measured
    python benchmarks/gpu_memory.py --smoke                                  # a minute on a CPU, nothing is measured there

Models have real shapes and random weights (`gpu_models.py`), recipes are the project's own (--recipes; --set changes keys, by
default to fewer rows a step); 3 steps of SFT and of GRPO, completions of full length, a process a run (`gpu_runs.py`). The
context doubles from --start until it no longer fits or --longest is reached, then the gap is halved down to --step. Prints a
table a run and writes results/gpu_memory.json after each. A run that fails for another reason than memory is reported with its
last line and ends its own search alone. GRPO generates with transformers, a token at a time: at 32k tokens a run takes hours;
--completion fixes the generated tokens, so that the prompt alone grows.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import gpu_models
from gpu_runs import FITS, ROOT, TOO_LARGE, Job, header, measure

from reasoning_ext.check.memory.check import parse_card
from reasoning_ext.check.memory.plan import GIB
from reasoning_ext.check.memory.shapes import config_of, shape_of
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import expand, load_recipe
from reasoning_ext.recipe.yaml_reading import parse_value
from reasoning_ext.runs.files import write_whole

RESULT = ROOT / "benchmarks" / "results" / "gpu_memory.json"
ONE_GENERATION = ["gradient_accumulation_steps=4"]  # of the recipes' eight: the peak and the speed are the same
SMALL_BATCH = [
    "per_device_train_batch_size=2", "gradient_accumulation_steps=2", "steps_per_generation=2", "num_generations=2",
]  # fmt: skip
SMOKE = {"models": [gpu_models.TINY], "start": 96, "longest": 96, "set": SMALL_BATCH}
QUICK = {"start": 4096, "longest": 4096, "completion": 256, "limit": ["48GB"], "timeout": 240}


def grow(run, start, longest, step):
    """Double the context until it does not fit, then halve the gap.

    Args:
        run: `run(context)` measures and returns a row with `status`.
        start, longest: the first context and the last, in tokens.
        step: the gap in tokens at which the search ends.

    Returns:
        the rows, in the order in which they were measured; the search ends at one that failed.
    """
    rows, low, high = [], 0, None
    context = start
    while True:
        row = run(context)
        rows.append(row)
        if row["status"] == FITS:
            low = context
        elif row["status"] == TOO_LARGE:
            high = context
        else:
            return rows
        if high is None and low < longest:
            context = min(2 * low, longest)
        elif high is not None and low and high - low > step:
            context = low + max(step, (high - low) // 2 // step * step)
        else:
            return rows


def table(row):
    """Return a run's lines for people: what it was, how it ended, and plan and measurement by phase in GiB."""
    title = (
        f"{row['model']}  {row['stage']}  {row['backend']}  {row['context']} tokens  {row['rows at once']} rows at once"
    )
    limit = f"  limit {row['limit'] / GIB:g} GiB" if row["limit"] else ""
    lines = ["", f"{title}{limit}: {row['status']}{_detail(row)}"]
    lines.append(f"  {'phase':<18} {'plan GiB':>9} {'measured':>9} {'error %':>8} {'reserved':>9}")
    for line in row["compared"]:
        sizes = {
            key: "-" if line[key] is None else f"{line[key] / GIB:.3f}" for key in ("planned", "measured", "reserved")
        }
        error = "-" if line["error"] is None else f"{line['error']:+.1f}"
        lines.append(
            f"  {line['phase']:<18} {sizes['planned']:>9} {sizes['measured']:>9} {error:>8} {sizes['reserved']:>9}"
        )
    if row.get("outside torch") is not None:
        lines.append(f"  {'outside torch':<18} {'':>9} {row['outside torch'] / GIB:>9.3f}")
    return "\n".join(lines)


def _detail(row):
    if row["status"] == TOO_LARGE:
        return f" in {row['phase of the error']}" if row.get("phase of the error") else ""
    if row["status"] != FITS:
        return f": {row['error']}"
    if row["invalid"]:
        return f", but invalid: {row['invalid']}"
    speed = row["speeds"]
    return f", {speed['step seconds']:.2f} s a step, {speed['tokens a second']:,.0f} tokens/s" if speed else ""


def longest_lines(rows):
    """Return one line a search: the longest context that fitted, with its peak and speed."""
    searches = {}
    for row in rows:
        searches.setdefault((row["model"], row["limit"], row["stage"], row["backend"]), []).append(row)
    lines = ["", "longest that fitted"]
    for (model, limit, stage, backend), runs in searches.items():
        fitted = max((run for run in runs if run["status"] == FITS), key=lambda run: run["context"], default=None)
        said = "none" if fitted is None else f"{fitted['context']} tokens{_detail(fitted)}"
        if fitted and (peak := fitted["compared"][-1]["measured"]):
            said += f", peak {peak / GIB:.2f} GiB"
        if fitted and all(run["status"] != TOO_LARGE for run in runs):
            said += "; longer ones were not tried to the end"
        lines.append(f"  {model}  {f'{limit / GIB:g} GiB' if limit else 'whole card'}  {stage}  {backend}: {said}")
    return "\n".join(lines)


def add_arguments(parser):
    """Add what both benchmarks take."""
    parser.add_argument("--models", nargs="+", default=["qwen3-8b"], help="shapes, see gpu_models.py")
    parser.add_argument("--backends", nargs="+", choices=("trl", "unsloth"), help="default: those that are installed")
    parser.add_argument("--stages", nargs="+", choices=("sft", "grpo"), default=["sft", "grpo"])
    parser.add_argument("--recipes", type=Path, default=ROOT / "recipes" / "qwen3_8b", help="a folder with both stages")
    parser.add_argument(
        "--set", nargs="+", default=ONE_GENERATION, metavar="KEY=VALUE", help="keys of the recipes to change"
    )
    parser.add_argument("--completion", type=int, help="tokens to generate; default: all of the context but the prompt")
    parser.add_argument("--vllm", action="store_true", help="generate with vLLM, inside the process")
    parser.add_argument(
        "--limit", nargs="+", default=[], help="memory to be content with, such as 24GB 48GB; default: all"
    )
    parser.add_argument("--timeout", type=int, default=3600, help="seconds after which a run counts as failed")
    parser.add_argument("--made", type=Path, default=Path("models"), help="the folder that random models are kept in")
    parser.add_argument("--unsloth-python", default=sys.executable, help="the python of the environment with Unsloth")
    parser.add_argument("--output", type=Path, help="the result file; default: in results/, not with --smoke")
    parser.add_argument("--quick", action="store_true", help="one context; meant for ten minutes on a large card")
    parser.add_argument("--smoke", action="store_true", help="a tiny shape, on any machine")


def settle(parser, result, smoke, quick):
    """Read the command line: presets, the backends that are there, and where the results go.

    Args:
        parser: with `add_arguments`.
        result: the default result file.
        smoke, quick: what the two presets set, `{argument: value}`; what the command line says comes after them.
    """
    first = parser.parse_args()
    parser.set_defaults(**(smoke if first.smoke else quick if first.quick else {}))
    arguments = parser.parse_args()
    arguments.unsloth_python = os.path.abspath(arguments.unsloth_python)  # runs start in folders of their own
    if arguments.backends is None:
        own = arguments.unsloth_python == sys.executable
        arguments.backends = ["trl"] if own and find_spec("unsloth") is None else ["trl", "unsloth"]
    arguments.output = arguments.output or (None if arguments.smoke else result)
    arguments.changes = {key: parse_value(value) for key, _, value in (one.partition("=") for one in arguments.set)}
    if arguments.vllm and arguments.limit:
        parser.error("--vllm: vLLM takes its share of the whole card and knows no limit; leave --limit out")
    arguments.limits = [parse_card(text).memory for text in arguments.limit] or [None]
    return arguments


def jobs_of(arguments):
    """Make the models and yield one job a model, limit, stage and backend, without a context, and its interpreter."""
    sources = {recipe.stage: recipe for recipe in reversed([*map(load_recipe, expand(arguments.recipes))])}
    if missing := [stage for stage in arguments.stages if stage not in sources]:
        raise UserError(
            f"--recipes {arguments.recipes}: no recipe of stage {', '.join(missing)}; leave it out of --stages"
        )
    for name in arguments.models:
        # in a process of its own, whose CUDA context ends with it
        maker = [sys.executable, gpu_models.__file__, name, "--models", str(arguments.made)]
        subprocess.run(maker, check=True)
        model = str((arguments.made / name.rsplit("/", 1)[-1]).resolve())
        for limit in arguments.limits:
            for stage in arguments.stages:
                source = sources[stage]
                changes = {key: value for key, value in arguments.changes.items() if key in source.keys}
                for backend in arguments.backends:
                    job = Job(
                        str(source.path), stage, model, backend, 0, arguments.completion if stage == "grpo" else None,
                        changes, limit, arguments.steps, arguments.vllm and stage == "grpo",
                    )  # fmt: skip
                    yield job, arguments.unsloth_python if backend == "unsloth" else sys.executable


def save(arguments, top, rows):
    """Write the result file, where there is one."""
    if arguments.output:
        write_whole(arguments.output, json.dumps({**top, "rows": rows}, indent=1) + "\n")


def main():
    """Run all searches; 1 where a run failed or did not measure what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--start", type=int, default=1024, help="the first context, in tokens")
    parser.add_argument("--longest", type=int, default=32768, help="the last context, in tokens")
    parser.add_argument("--step", type=int, default=1024, help="how near to the limit the search goes, in tokens")
    parser.add_argument("--steps", type=int, default=3, help="of the optimizer")
    arguments = settle(parser, RESULT, SMOKE, QUICK)
    top, rows = header(shlex.join(["python", *sys.argv])), []
    for job, python in jobs_of(arguments):

        def run(context, job=job, python=python):
            rows.append(measure(replace(job, context=context), python, arguments.timeout))
            print(table(rows[-1]), flush=True)
            save(arguments, top, rows)
            return rows[-1]

        made_for = shape_of(config_of(job.model)).context
        grow(run, arguments.start, min(arguments.longest, made_for), arguments.step)
    print(longest_lines(rows))
    return int(any(row["status"] not in (FITS, TOO_LARGE) or row["invalid"] for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
