"""How right the memory plan is: its formulas against traces of TRL's own training step, part by part.

Recipes of many shapes, lengths, batches, ranks and ways to train are planned twice, by formulas and by `memory_trace`. The
weights, adapters and optimizer states of a trace are those of the real modules of transformers, PEFT and bitsandbytes' layout;
its activations come from every operation of the step. What a card adds (kernels' workspaces, fragmentation) neither knows;
`gpu_memory.py` measures it.

    python benchmarks/memory_plan.py                  # about 15 minutes on one core, no GPU; writes results/memory_plan.json
    python benchmarks/memory_plan.py --only 3 --out /tmp/some.json
"""

import argparse
import contextlib
import datetime
import io
import itertools
import json
import logging
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import yaml
from memory_trace.recipes import trace_recipe

from reasoning_ext.check.memory.plan import Plan, plan
from reasoning_ext.check.memory.setup import setup_of
from reasoning_ext.recipe.load import Recipe, load_recipe

RESULT = Path(__file__).parent / "results" / "memory_plan.json"
PARTS = {
    "weights": ("weights in", "embeddings, head, norms", "embeddings and norms"),
    "adapter": ("LoRA weights", "modules_to_save"), "optimizer": ("optimizer states",),
    "reference": ("reference model",),
}  # fmt: skip
LORA = {"use_peft": True, "lora_dropout": 0.0, "lora_target_modules": ["all-linear"], "dtype": "bfloat16"}
WAYS = {
    "nf4": LORA | {"load_in_4bit": True, "use_bnb_nested_quant": True},
    "nf4 dropout": LORA | {"load_in_4bit": True, "lora_dropout": 0.05}, "lora": LORA,
    "lora dropout": LORA | {"lora_dropout": 0.05}, "full bfloat16": {"dtype": "bfloat16"},
    "full float32": {"dtype": "float32"},
}  # fmt: skip
SFT = [(1, 4096), (8, 2048), (1, 16384), (2, 1024)]  # rows, tokens
GRPO = [(2, 256, 4096), (8, 256, 1024), (4, 512, 2048)]  # rows, prompt, completion
SHAPES = (
    "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.2-1B", "mistralai/Mistral-7B-v0.3", "microsoft/Phi-4-mini", "google/gemma-3-1b",
)  # fmt: skip


def cases() -> list[dict]:
    """Return the recipes that are compared: each shape with each way to train, lengths and ranks in turn."""
    lengths = itertools.cycle([*(("sft", *size) for size in SFT), *(("grpo", *size) for size in GRPO)])
    ranks, found = itertools.cycle((8, 32, 128)), []
    for name, (way, values) in itertools.product(SHAPES, WAYS.items()):
        stage, *size = next(lengths)
        values = {"stage": stage, "model_name_or_path": name, "per_device_train_batch_size": size[0]} | values
        values |= {"gradient_checkpointing": True, "gradient_accumulation_steps": 1 if stage == "sft" else 8}
        if "use_peft" in values:
            values["lora_r"] = next(ranks)
        lengths_of = ("max_length",) if stage == "sft" else ("max_prompt_length", "max_completion_length")
        found.append(values | dict(zip(lengths_of, size[1:], strict=True)) | {"way": way})
    found += [case | {"gradient_checkpointing": False} for case in found[1::9] if case.get("max_length") != 16384]
    scored = {"beta": 0.1, "gradient_accumulation_steps": 1}
    found += [case | scored for case in found[::4] if case["stage"] == "grpo"]
    return found + [case | {"optim": "adamw_8bit"} for case in found[2::13] if case.get("use_peft")]


def recipe_of(values: dict, folder: Path) -> Recipe:
    """Return a recipe of some values; what a stage needs beside them is made up."""
    values = {key: value for key, value in values.items() if key != "way"}
    values |= {"dataset_name": "rows.jsonl", "output_dir": "out"}
    if values["stage"] == "grpo":
        values |= {"reward_funcs": ["math_answer"], "num_generations": 8}
    (folder / "r.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(folder / "r.yaml")


def compare(values: dict) -> dict:
    """Plan a recipe both ways.

    Args:
        values: the recipe's.

    Returns:
        bytes by formula and by trace, the relative errors of the parts, of the activations and logits (what is in the peak
        beside weights, adapter, reference and optimizer states), and of the whole peak.
    """
    from dataclasses import replace

    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(values, Path(folder))
        setup = replace(setup_of(recipe, {}), padded=False)
        with contextlib.redirect_stdout(io.StringIO()):
            traced = trace_recipe(recipe, {}, setup)
    if "why" in traced:
        raise SystemExit(f"{values}: {traced['why']}")
    made = plan(setup)
    said = {part: parts_of(made, names) for part, names in PARTS.items() if part in traced["parts"]}
    errors = {part: said[part] / traced["parts"][part] - 1 for part in said}
    peak = max(traced["phases"][phase] for phase in ("forward and backward", "optimizer step"))
    planned = made.phases["training"].total
    errors["activations"] = (planned - sum(said.values())) / (peak - sum(traced["parts"][part] for part in said)) - 1
    errors["peak"] = planned / peak - 1
    if "log-probabilities" in made.phases and "log-probabilities" in traced["phases"]:
        scored = made.phases["log-probabilities"].total
        errors["log-probabilities"] = scored / traced["phases"]["log-probabilities"] - 1
    return {
        "recipe": values, "planned": planned, "traced": peak, "seconds": round(traced["seconds"], 1),
        "errors": {name: round(error, 4) for name, error in errors.items()},
    }  # fmt: skip


def parts_of(made: Plan, names: tuple[str, ...]) -> int:
    """Return the bytes of the parts whose names begin so, in training."""
    return sum(size for part, size in made.shown()["training"].items() if part.startswith(names))


def main() -> None:
    """Compare all cases, print a line each and a summary, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, help="so many of the cases")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows = []
    for values in cases()[: options.only]:
        row = compare(values)
        rows.append(row)
        size = values.get("max_length") or f"{values['max_prompt_length']}+{values['max_completion_length']}"
        errors = " ".join(f"{name} {error:+.1%}" for name, error in row["errors"].items())
        what = f"{values['model_name_or_path']} {values['way']} {values['stage']}"
        print(
            f"{what} {values['per_device_train_batch_size']}x{size}: {row['traced'] / 2**30:.2f} GiB, {errors}",
            flush=True,
        )
    names = sorted({name for row in rows for name in row["errors"]})
    worst = {}
    for name in names:
        found = [row["errors"][name] for row in rows if name in row["errors"]]
        worst[name] = {
            "cases": len(found), "lowest": min(found), "highest": max(found),
            "mean_absolute": round(sum(map(abs, found)) / len(found), 4),
        }  # fmt: skip
        print(
            f"{name}: {len(found)} cases, from {min(found):+.2%} to {max(found):+.2%}, mean {worst[name]['mean_absolute']:.2%}"
        )
    packages = {name: version(name) for name in ("trl", "transformers", "peft", "bitsandbytes", "torch")}
    document = {
        "command": f"python benchmarks/memory_plan.py {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.date.today().isoformat(), "packages": packages, "summary": worst, "rows": rows,
    }  # fmt: skip
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
