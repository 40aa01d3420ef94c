"""The memory plan of a machine without a card beside what five runs of a model took, each in a process of its own.

    python benchmarks/cpu_memory.py models/smollm2_135m            # minutes on two idle cores, up to 12 GiB; --only 1 2 runs some

SFT with LoRA and of all weights, GRPO with LoRA without and with gradient checkpointing, and an evaluation: two steps of each,
or one batch, on made-up word problems of about 95 tokens. Measured is the most resident memory of the run's process, beside
what the plan says is needed with Python and its libraries. The CPU seconds are of the whole process, imports among them.
Writes results/cpu_memory.json, in which other runs than those of --only stay.
"""

import argparse
import datetime
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from reasoning_ext.check import check
from reasoning_ext.check.memory.check import find_host, report_memory
from reasoning_ext.check.memory.plan import GIB
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.process import versions

RESULT = Path(__file__).parent / "results" / "cpu_memory.json"
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": ["all-linear"]}
TRAINED = {"max_steps": 2, "save_strategy": "no", "report_to": "none", "logging_steps": 1}
DRAWN = {"reward_funcs": ["math_answer"], "max_completion_length": 40}
SFT = {"stage": "sft", "max_length": 192} | TRAINED
GRPO = {"stage": "grpo", "num_generations": 8, "per_device_train_batch_size": 32} | DRAWN | LORA | TRAINED
CASES = {
    "SFT, LoRA, 8 rows": SFT | LORA | {"per_device_train_batch_size": 8},
    "SFT, all weights, 4 rows": SFT | {"per_device_train_batch_size": 4},
    "GRPO, LoRA, 32 completions": GRPO,
    "GRPO, LoRA, 32 completions, checkpointing": GRPO | {"gradient_checkpointing": True},
    "eval, 64 at once": {"stage": "eval", "num_generations": 1, "max_samples": 32, "per_device_eval_batch_size": 64} | DRAWN,
}  # fmt: skip


def write_rows(path):
    """Write 400 word problems with a thought and an answer, the same each time."""
    rng, lines = random.Random(0), []
    for _ in range(400):
        boxes, each, before = rng.randint(2, 9), rng.randint(2, 12), rng.randint(3, 60)
        question = (
            f"Ada has {before} apples and buys {boxes} boxes with {each} apples each, then walks home along the river"
        )
        answer = str(before + boxes * each)
        thought = f"{boxes} * {each} = {boxes * each}. {before} + {boxes * each} = {answer}. So the answer is {answer}."
        row = {"prompt": f"{question} and counts everything twice. How many apples are there now?", "answer": answer}
        lines.append(json.dumps(row | {"completion": f"<think>{thought}</think>{answer}"}))
    path.write_text("\n".join(lines) + "\n")


def measure(values, model, folder):
    """Plan and run a recipe.

    Args:
        values: the recipe's, without model, data and output folder.
        model: a model's folder.
        folder: a temporary one, with `rows.jsonl`.

    Returns:
        bytes planned and measured, the plan's phase, the relative error and the CPU seconds.
    """
    named = {"models": {"it": model}} if values["stage"] == "eval" else {"model_name_or_path": model}
    recipe_file = folder / "r.yaml"
    output = tempfile.mkdtemp(dir=folder)
    own = {"dataset_name": "./rows.jsonl", "system_prompt": "Answer with a number.", "seed": 0, "output_dir": output}
    recipe_file.write_text(yaml.safe_dump(values | named | own))
    recipe = load_recipe(recipe_file)
    [checked] = check([recipe], offline=True)
    made = report_memory(recipe, [], find_host(), True, max(checked.inspection.lengths)).plan
    command = [sys.executable, "-m", "reasoning_ext", "run", str(recipe_file)]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{values} ended with {status}: {(folder / 'log').read_text()[-2000:]}")
    measured = used.ru_maxrss * 1024
    return {
        "recipe": values, "planned": made.needed, "phase": made.peak_phase, "measured": measured,
        "error": round(made.needed / measured - 1, 4), "cpu seconds": round(used.ru_utime + used.ru_stime, 1),
    }  # fmt: skip


def main():
    """Measure all cases, print a line each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with a model")
    parser.add_argument("--only", type=int, nargs="+", default=range(1, len(CASES) + 1), help="the first is 1")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else {}
    for name in [name for i, name in enumerate(CASES, 1) if i in options.only]:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder) / "rows.jsonl")
            row = rows[name] = measure(CASES[name], str(options.model.resolve()), Path(folder))
        sizes = f"planned {row['planned'] / GIB:.2f} GiB, measured {row['measured'] / GIB:.2f}"
        print(f"{name}: {sizes}, error {row['error']:+.1%}, {row['cpu seconds']} CPU seconds", flush=True)
        top = {"command": shlex.join(["python", *sys.argv[:1], f"models/{options.model.name}"])}
        top |= {"date": datetime.date.today().isoformat(), "versions": versions()}
        rows = {name: rows[name] for name in CASES if name in rows}
        write_whole(options.out, json.dumps({**top, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
