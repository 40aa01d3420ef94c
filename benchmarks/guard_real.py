"""What does a real model forget when it is trained on one task, and what of it does a mixture with general data save?

    python benchmarks/guard_real.py --model models/smollm2_135m

SFT of SmolLM2-135M as in `recipes/smollm2_135m/1_sft.yaml`, once on its word problems alone and once with as many rows of
general text beside them, both with `guard: general`. The general text is the model's own: its greedy answers, from before
the training, to prompts of other kinds than the guard's tasks (self-synthesised rehearsal, arXiv:2403.01244). Prints and
writes to benchmarks/results/guard_real.json, by arm and ability, the share of tasks answered rightly before and after,
the difference with its interval, and p of McNemar's exact test. What is done already is not done again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from tiny_seeds import ROOT, finish

from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.models.loaded import LoadOptions
from reasoning_ext.runs.guards import forgotten

RECIPE = ROOT / "recipes/smollm2_135m/1_sft.yaml"
ASKED = (
    "Write one sentence about {}.",
    "What is {}?",
    "Explain {} to a child.",
    "Give a short tip about {}.",
    "Why do people like {}?",
)
TOPICS = """the sea; bread; a garden; winter; music; a bicycle; the moon; tea; a library; sleep; a river; friendship; cooking; a
train; mountains; painting; a market; rain; a dog; football; a letter; the sun; a forest; dancing; a bridge; honey; a school;
the wind; chess; a birthday""".replace("\n", " ").split("; ")  # fmt: skip
LENGTH = 64  # tokens of a general answer; those that do not end are left out


def general_rows(model: str, path: Path) -> int:
    """Write the model's own answers to general prompts as JSONL, and return how many there are."""
    if not path.is_file():
        from trl import ModelConfig

        from reasoning_ext.models.load import load_model

        loaded = load_model(model, ModelConfig(dtype="bfloat16"), LoadOptions(trainable=False))
        prompts = [[{"role": "user", "content": how.format(topic)}] for topic in TOPICS for how in ASKED]
        settings, keys = SamplingSettings(LENGTH, 0.0), [(i, 0) for i in range(len(prompts))]
        made = [one for batch in TransformersEngine(loaded, 50).generate(prompts, keys, settings) for one in batch]
        rows = [
            {"prompt": prompts[one.prompt], "completion": [{"role": "assistant", "content": one.text}]}
            for one in made
            if one.finished and one.text.strip()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(path.read_text().splitlines())


def write_recipe(folder: Path, arm: str, model: str, steps: int) -> Path:
    """Write an arm's recipe and return its path."""
    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
    task = {name: recipe.pop(name) for name in ("dataset_name", "gen_kwargs", "system_prompt")}
    task["dataset_name"] = str(ROOT / "recipes/smollm2_135m/word_problems.py")
    recipe |= {"model_name_or_path": str(Path(model).resolve()), "guard": "general", "output_dir": str(folder / arm)}
    recipe |= {"max_steps": steps, "per_device_eval_batch_size": 100}
    if arm == "task alone":
        recipe |= task
    else:
        general = {"dataset_name": str(folder / "general.jsonl"), "weight": 1.0}
        recipe |= {"datasets": [task | {"weight": 1.0}, general], "overlong_rows": "drop"}
    path = folder / f"{arm.replace(' ', '_')}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def main() -> int:
    """Train both arms, print the table, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2_135m")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs/guard"))
    given = parser.parse_args()
    folder, rows, started = given.runs.resolve(), [], time.monotonic()
    count = general_rows(given.model, folder / "general.jsonl")
    for arm in ("task alone", "with general text"):
        recipe = write_recipe(folder, arm, given.model, given.steps)
        subprocess.run([sys.executable, "-m", "reasoning_ext", "run", str(recipe)], check=True)
        for ability, row in forgotten(folder / arm).items():
            rows.append({"arm": arm, "ability": ability} | row)
            print(arm, ability, *(f"{100 * row[name][0]:.1f}" for name in ("before", "after")), f"p {row['p']:.4f}")
    command = f"python benchmarks/guard_real.py --model {given.model} --steps {given.steps}"
    seconds = round(time.monotonic() - started)
    return finish("guard_real", command, rows, lambda row: [], general_rows=count, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
