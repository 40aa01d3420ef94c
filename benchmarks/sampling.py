"""Rejection sampling measured: completions a second, adaptive rounds against a fixed number, memory at a million completions.

    python benchmarks/sampling.py speed adaptive memory

`speed` asks a tiny model (--model, `runs/tiny/1_sft` and `2_grpo` of `make demo`) for the same completions in one `generate`
call a completion, one a prompt, transformers' own batches, and this project's engine, in turns in one process, each with the
same number of threads. `adaptive` samples the same prompts with a fixed number of completions and in adaptive rounds, and counts
what is drawn and kept. `memory` runs the whole stage with an engine that answers at once, at three sizes, each in a process of
its own, and reports its peak memory and the microseconds a completion. Results go to benchmarks/results/sampling.json.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.folder import open_run
from reasoning_ext.runs.process import versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "sampling.json"
TASK = str(ROOT / "recipes" / "tiny" / "last_digit.py")
TURNS, GENERATIONS, LENGTH, BATCH = 3, 4, 56, 256
SIZES = (100_000, 300_000, 1_000_000)
EACH = 16  # completions a prompt where memory is measured


def speed(folder: Path, prompts: int) -> dict[str, Any]:
    """Time four ways to draw the same number of completions, in turns, and return the medians.

    Args:
        folder: a run's folder with the model.
        prompts: how many prompts, of `GENERATIONS` completions each; the two slow ways take a quarter of them.
    """
    from reasoning_ext.data.sources import load_rows
    from reasoning_ext.engines import transformers as transformers_engine
    from reasoning_ext.engines.base import SamplingSettings
    from reasoning_ext.engines.transformers import TransformersEngine

    loaded = load(folder)
    rows = load_rows(TASK, ROOT, split="test", gen_kwargs={"num_rows": prompts, "num_steps": 5})
    asked, settings = [row["prompt"] for row in rows], SamplingSettings(max_completion_length=LENGTH)

    def engine(has_cache: bool, count: int) -> int:
        keys = [(p, g) for p in range(count) for g in range(GENERATIONS)]
        found, transformers_engine._has_cache = transformers_engine._has_cache, lambda model: has_cache
        try:
            return sum(len(b) for b in TransformersEngine(loaded, BATCH).generate(asked, keys, settings))
        finally:
            transformers_engine._has_cache = found

    ways: dict[str, tuple[Callable[[int], int], int]] = {
        "one generate call a completion": (lambda n: alone(loaded, asked[:n], 1), prompts // 4),
        "one generate call a prompt": (lambda n: alone(loaded, asked[:n], GENERATIONS), prompts // 4),
        "generate's own loop in batches": (lambda n: engine(False, n), prompts),
        "engine transformers": (lambda n: engine(True, n), prompts),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, (way, count) in ways.items():
            started = time.perf_counter()
            done = way(count)
            if turn:  # the first is for warming up
                rates[name].append(done / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = medians["one generate call a prompt"]
    return {name: {"completions a second": round(m, 1), "ratio": round(m / base, 2)} for name, m in medians.items()}


def alone(loaded: Any, prompts: list, each: int) -> int:
    """Draw completions with one plain `generate` call a prompt, or one a completion."""
    import torch

    from reasoning_ext.engines.transformers import stop_ids
    from reasoning_ext.think.render import render_prompt

    stops = stop_ids(loaded.model, loaded.tokenizer, loaded.contract)
    for prompt in prompts:
        text = render_prompt(loaded.tokenizer, loaded.contract, prompt, {})
        inputs = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        for _ in range(GENERATIONS // each):
            with torch.inference_mode():
                loaded.model.generate(
                    **inputs, max_new_tokens=LENGTH, do_sample=True, top_k=0, num_return_sequences=each,
                    eos_token_id=stops, pad_token_id=loaded.tokenizer.pad_token_id,
                )  # fmt: skip
    return len(prompts) * GENERATIONS


def load(folder: Path) -> Any:
    """Load a run's model for generation."""
    from trl import ModelConfig

    from reasoning_ext.models.load import load_model
    from reasoning_ext.models.loaded import LoadOptions

    return load_model(str(folder), ModelConfig(dtype="float32"), LoadOptions(trainable=False))


def adaptive(folder: Path, prompts: int) -> list[dict[str, Any]]:
    """Sample the same prompts with a fixed number of completions and in adaptive rounds, and count."""
    found = []
    for keep in (1, 2, 4):
        for rounds in (False, True):
            values = {
                "stage": "sample", "model_name_or_path": str(folder.resolve()), "dataset_name": TASK,
                "gen_kwargs": {"num_rows": prompts, "num_steps": 5}, "reward_funcs": ["math_answer"], "keep": keep,
                "num_generations": 8, "adaptive": rounds, "max_completion_length": LENGTH, "use_cpu": True,
                "per_device_eval_batch_size": BATCH,
            }  # fmt: skip
            summary, seconds = run(values, None)
            counts = {name: summary[name] for name in ("sampled", "accepted", "kept", "prompts without one")}
            way = "adaptive" if rounds else "fixed"
            found.append({"keep": keep, "way": way, **counts, "seconds": round(seconds, 1)})
            print(found[-1], flush=True)
    return found


@contextmanager
def written(values: dict[str, Any]) -> Iterator[Any]:
    """Write a recipe into a folder of its own, which goes with the block, and give it."""
    from reasoning_ext.recipe.load import load_recipe

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "r.yaml"
        path.write_text(yaml.safe_dump(values | {"output_dir": str(Path(place) / "out")}))
        yield load_recipe(path)


def run(values: dict[str, Any], engine: Any) -> tuple[dict[str, Any], float]:
    """Run a sample recipe in a folder of its own; return its summary and the seconds."""
    from reasoning_ext.sample.stage import run_sample
    from reasoning_ext.scoring.spec import parse_rewards

    with written(values) as recipe:
        started = time.perf_counter()
        specs = parse_rewards(recipe.get("reward_funcs"), recipe.folder)
        run_sample(recipe, open_run(recipe.output_dir, recipe.values, {}), specs, engine)
        return json.loads((recipe.output_dir / "summary.json").read_text()), time.perf_counter() - started


class FakeEngine:
    """Answers at once, 256 completions a batch, right three times in ten; one prompt in ten is never solved."""

    def generate(self, prompts: Any, keys: list, settings: Any) -> Iterator[list]:
        """Answer keys; see `base.Engine`."""
        from reasoning_ext.engines.base import Completion, key_seed

        for start in range(0, len(keys), BATCH):
            batch = []
            for p, g in keys[start : start + BATCH]:
                luck = key_seed(settings.seed, p, g) % 10
                right = luck < 3 and p % 10 < 9
                text = f"<think>{'so ' * 40}{g}+{luck}={g + luck}</think>{p % 10 + (not right)}"
                batch.append(Completion(p, g, text, [1, 2, 3], True, 45 + luck))
            yield batch

    def close(self) -> None:
        """Nothing is held."""


def one_size(completions: int, adaptive: bool) -> dict[str, Any]:
    """Run the stage once with a fake engine; return the process's peak memory and the time.

    Args:
        completions: the budget.
        adaptive: in rounds, and with solutions that differ.
    """
    with tempfile.TemporaryDirectory() as place:
        rows, rng = Path(place) / "rows.jsonl", random.Random(0)
        with rows.open("w") as file:
            for p in range(completions // EACH):
                words = " ".join(rng.choice(("take", "add", "what", "is", "of", "the", "sum")) for _ in range(30))
                file.write(json.dumps({"prompt": f"{p}: {words}?", "answer": str(p % 10)}) + "\n")
        values = {
            "stage": "sample", "model_name_or_path": str(ROOT / "recipes/tiny/model"), "dataset_name": str(rows),
            "reward_funcs": ["exact_answer"], "num_generations": EACH, "use_cpu": True,
        }  # fmt: skip
        more = {"adaptive": True, "diverse": 4} if adaptive else {"keep": 4}
        summary, seconds = run(values | more, FakeEngine())
    peak = peak_mib()
    rate = round(1e6 * seconds / summary["sampled"], 1)
    return {
        "completions": summary["sampled"],
        "adaptive": adaptive,
        "kept": summary["kept"],
        "peak MiB": round(peak),
        "us a completion": rate,
    }


def peak_mib() -> float:
    """Return this process's peak memory in MiB; what getrusage says begins with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def memory(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure each size in a process of its own."""
    found = []
    for size, rounds in [*((size, False) for size in sizes), (sizes[-1], True)]:
        command = [
            sys.executable,
            __file__,
            "one-size",
            "--completions",
            str(size),
            *(["--adaptive"] if rounds else []),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1], flush=True)
    return found


def main() -> int:
    """Measure what was asked for and write it into the result file; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["speed", "adaptive", "memory", "one-size"])
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("runs/tiny/1_sft"), Path("runs/tiny/2_grpo")])
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--completions", type=int, default=SIZES[-1])
    parser.add_argument("--adaptive", action="store_true")
    arguments = parser.parse_args()
    if "one-size" in arguments.what:
        print(json.dumps(one_size(arguments.completions, arguments.adaptive)))
        return 0
    missing = [path for path in arguments.model if not (path / "config.json").is_file()]
    if missing and {"speed", "adaptive"} & {*arguments.what}:
        print(f"found no model in {missing[0]}; run `make demo` first, or write --model", file=sys.stderr)
        return 2
    result = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    result |= {"date": time.strftime("%Y-%m-%d"), "versions": versions()}
    result["command"] = "python benchmarks/sampling.py speed adaptive memory"
    if "speed" in arguments.what:
        result["speed"] = {path.name: speed(path, arguments.prompts) for path in arguments.model}
        print(json.dumps(result["speed"], indent=1), flush=True)
    if "adaptive" in arguments.what:
        result["adaptive"] = adaptive(arguments.model[0], 4 * arguments.prompts)
    if "memory" in arguments.what:
        result["memory"] = memory(SIZES)
    write_whole(RESULTS, json.dumps(result, indent=1) + "\n")
    slow = [name for name, rows in result.get("speed", {}).items() if rows["engine transformers"]["ratio"] < 2]
    large = [row for row in result.get("memory", []) if row["peak MiB"] >= 500]
    for problem in [
        *(f"{name}: less than twice as fast" for name in slow),
        *(f"500 MiB and more: {row}" for row in large),
    ]:
        print(f"missed: {problem}")
    return int(bool(slow or large))


if __name__ == "__main__":
    sys.exit(main())
