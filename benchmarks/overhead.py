"""What the layer costs: a GRPO step of recipes/tiny with 1 and with 6 rewards, through a recipe and in a bare TRL script.

    python benchmarks/overhead.py --rounds 5 --steps 8

Both train the same model on the same rows with the same seed and rewards, in turns in one process with one thread, so that what
counts is the ratio of two runs of one round, and not the seconds: by the wall clock, and in time of this process's processor,
which says more on a machine that does other things too (the verifier's workers, which both have, are not in it). The bare script
gives TRL the reward functions themselves, logs no completions and has no callbacks. A step lasts from one step's end to the next
one's, logs included; a run's first is left out. Prints a table, and writes it with date, versions, load and command to
benchmarks/results/overhead.json.
"""

import argparse
import contextlib
import datetime
import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import Recipe, load_recipe
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.process import versions
from reasoning_ext.train import grpo

ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny"
RESULTS = ROOT / "benchmarks" / "results" / "overhead.json"
REWARDS = ["math_answer", "think_format", "exact_answer", "language", "length_penalty", "think_format_reward"]
BARE_KEYS = (
    "num_generations", "per_device_train_batch_size", "max_completion_length", "max_steps", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "adam_beta2", "loss_type", "epsilon_high", "beta", "temperature", "bf16",
    "gradient_checkpointing", "use_cpu", "logging_steps", "save_strategy", "seed",
)  # fmt: skip


class Clock(TrainerCallback):
    """Keeps when each step ended, by the wall clock and by the time of this process's processor, and its mean reward."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.rewards: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append((time.perf_counter(), time.process_time()))

    def on_log(self, *_: Any, logs: dict | None = None, **__: Any) -> None:
        """Note the reward."""
        self.rewards += [logs["reward"]] if logs and "reward" in logs else []

    def seconds(self) -> tuple[float, float]:
        """Return the median step: `(by the wall clock, of the processor)`."""
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(self.ends)]
        wall, processor = map(statistics.median, zip(*steps, strict=True))
        return wall, processor


def make_model(folder: Path, steps: int) -> None:
    """Train recipes/tiny/1_sft for a few steps, so that completions end by themselves."""
    recipe = load_recipe(
        TINY / "1_sft.yaml", {"max_steps": str(steps), "output_dir": str(folder), "save_strategy": "no"}
    )
    run_recipes([recipe])


def make_recipe(folder: Path, model: Path, rewards: int, steps: int) -> Recipe:
    """Write the recipe of 2_grpo with some rewards, of which the first alone counts, and load it."""
    text = (TINY / "2_grpo.yaml").read_text()
    head, _, rest = text.partition("reward_funcs:")
    tail = rest[rest.index("num_generations") :].replace(
        "save_steps: 10\nsave_total_limit: 2\n", "save_strategy: 'no'\n"
    )
    listed = [REWARDS[0], *({name: {"weight": 0.0}} for name in REWARDS[1:rewards])]
    path = folder / "grpo.yaml"
    path.write_text(head.replace("./", f"{TINY}/") + f"reward_funcs: {json.dumps(listed)}\n" + tail)
    overrides = {"model_name_or_path": str(model), "max_steps": str(steps), "output_dir": str(folder / "run")}
    return load_recipe(path, overrides)


def through_the_layer(recipe: Recipe) -> Clock:
    """Run the recipe as `reasoning-ext run` does."""
    clock, train = Clock(), grpo.train

    def watched(trainer: Any, *rest: Any) -> int:
        trainer.add_callback(clock)
        return train(trainer, *rest)

    grpo.train = watched
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run_recipes([recipe])
    finally:
        grpo.train = train
    return clock


def bare(recipe: Recipe, rewards: int, folder: Path) -> Clock:
    """Train the same with TRL alone."""
    from reasoning_ext.rewards.exact_answer import exact_answer
    from reasoning_ext.rewards.language import language
    from reasoning_ext.rewards.length_penalty import length_penalty
    from reasoning_ext.rewards.math_answer import math_answer
    from reasoning_ext.rewards.think_format import think_format
    from trl.rewards import think_format_reward

    functions = [math_answer, think_format, exact_answer, language, length_penalty, think_format_reward][:rewards]
    values = {key: recipe.get(key) for key in BARE_KEYS}
    weights = [1.0, *([0.0] * (rewards - 1))]
    args = GRPOConfig(
        output_dir=str(folder / "bare"), report_to="none", reward_weights=weights, disable_tqdm=True, **values
    )
    name, rows, clock = recipe.get("model_name_or_path"), prepare(row_options(recipe)).rows, Clock()
    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=functions,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[clock],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return clock


def one_round(model: Path, rewards: int, steps: int, layer_first: bool) -> dict[str, tuple[float, float]]:
    """Train both ways, and return the median step of each.

    Raises:
        SystemExit: they did not earn the same rewards, so that they did not do the same.
    """
    with tempfile.TemporaryDirectory() as name:
        recipe = make_recipe(Path(name), model, rewards, steps)
        clocks = {}
        for way in ("layer", "bare") if layer_first else ("bare", "layer"):
            clocks[way] = through_the_layer(recipe) if way == "layer" else bare(recipe, rewards, Path(name))
    if clocks["layer"].rewards != clocks["bare"].rewards:
        raise SystemExit(f"trained differently: {clocks['layer'].rewards} and {clocks['bare'].rewards}")
    return {way: clock.seconds() for way, clock in clocks.items()}


def measure(model: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Run all in turns and return a row for each number of rewards."""
    found: dict[int, list[dict[str, tuple[float, float]]]] = {1: [], len(REWARDS): []}
    for turn in range(rounds):
        for rewards, done in found.items():
            done.append(one_round(model, rewards, steps, layer_first=turn % 2 == 0))
            print(f"round {turn}  {rewards} rewards  {done[-1]}", flush=True)
    table: dict[str, Any] = {}
    for rewards, done in found.items():
        row = table[f"{rewards} rewards"] = {}
        for i, kind in enumerate(("wall clock", "processor")):
            shares = sorted(one["layer"][i] / one["bare"][i] - 1 for one in done)
            row[kind] = {
                "share of the layer": {"median": round(statistics.median(shares), 4), "lowest": round(shares[0], 4),
                                       "highest": round(shares[-1], 4)},
                "seconds a step": {way: round(statistics.median(one[way][i] for one in done), 3) for way in done[0]},
            }  # fmt: skip
    for way in ("layer", "bare"):
        ratios = [six[way][1] / one[way][1] for six, one in zip(found[len(REWARDS)], found[1], strict=True)]
        table[f"a step with {len(REWARDS)} rewards against one with 1, processor, {way}"] = round(
            statistics.median(ratios), 3
        )
    return table


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each training; the first is left out")
    parser.add_argument("--sft-steps", type=int, default=100, help="that the model is trained before")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        make_model(Path(name) / "sft", arguments.sft_steps)
        table = measure(Path(name) / "sft", arguments.rounds, arguments.steps)
    print(json.dumps(table, indent=1))
    result = {
        "date": datetime.date.today().isoformat(), "versions": versions(),
        "command": " ".join(["python benchmarks/overhead.py", *sys.argv[1:]]),
        "load of the machine, before and after": [round(load, 1), round(os.getloadavg()[0], 1)], "table": table,
    }  # fmt: skip
    write_whole(RESULTS, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
