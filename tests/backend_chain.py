"""A base, an adapter on it by SFT, and both ways on into GRPO, in one process with one backend; prints the facts as JSON.

python backend_chain.py BACKEND BITS,BITS,... FOLDER        BITS: 4, 8, 16 (bfloat16) or 32
"""

import json
import os
import sys
from pathlib import Path

BACKEND, KINDS, FOLDER = sys.argv[1], sys.argv[2].split(","), Path(sys.argv[3])
TINY = Path(__file__).parents[1] / "recipes" / "tiny"
COMMON = f"""\
dataset_name: {FOLDER}/rows.jsonl
backend: {BACKEND}
max_steps: 2
per_device_train_batch_size: 4
use_cpu: true
save_strategy: no
logging_steps: 1
learning_rate: 1e-2
seed: 1
"""
COMMON += "max_seq_length: 128\n" if BACKEND == "unsloth" else ""
WEIGHTS = {"4": "load_in_4bit: true\n", "8": "load_in_8bit: true\n", "16": "dtype: bfloat16\n", "32": ""}
ADAPTER = "use_peft: true\nlora_dropout: 0.0\n"
NEW = "lora_r: 4\nlora_target_modules: [all-linear]\n"
GRPO = (
    "stage: grpo\nmodel_name_or_path: BITS/sft\nreward_funcs: [length_penalty: {max_tokens: 9}]\nnum_generations: 4\n"
)
GRPO += "max_completion_length: 8\nbeta: 0.1\n" + ADAPTER
RECIPES = {
    "sft": "stage: sft\nmodel_name_or_path: base\n" + NEW + ADAPTER,
    "further": GRPO,
    "merged": "merge_adapter: true\n" + NEW + GRPO,
}

os.chdir(FOLDER)
from reasoning_ext.models.load import load_model, prepare_backend  # noqa: E402
from reasoning_ext.models.loaded import LoadOptions  # noqa: E402

prepare_backend(BACKEND)

import torch  # noqa: E402
from trl import ModelConfig  # noqa: E402
from trl.trainer.utils import use_adapter  # noqa: E402

from reasoning_ext.check import Look  # noqa: E402
from reasoning_ext.pipeline import run_recipes  # noqa: E402
from reasoning_ext.recipe.load import load_recipes  # noqa: E402
from reasoning_ext.train import grpo, sft  # noqa: E402
from reasoning_ext.train.common import train  # noqa: E402

IDS = torch.arange(3, 15).reshape(1, 12)
FACTS: dict = {}
LOGITS = {}


def logits(model):
    """Return a model's logits on some tokens, with dropout off."""
    training = model.training
    model.eval()
    with torch.no_grad():
        out = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.float()
    model.train(training)
    return out


def off(a, b):
    """Return the largest difference between two tensors."""
    return (a - b).abs().max().item()


def recorded(trainer, run, recipe, *rest):
    """Train, and keep what the model and its reference are before, and what the model is after."""
    model, name = trainer.model, str(run.path)
    own = {"base": [p.numel() for key, p in model.named_parameters() if "lora_" not in key]}
    own["layers"] = sorted({type(m).__name__ for m in model.modules()} & {"Linear4bit", "Linear8bitLt"})
    own["checkpointing"] = trainer.args.gradient_checkpointing
    if recipe.stage == "grpo":
        start, trained = logits(model), LOGITS[str(run.path.with_name("sft"))]
        own["ref_model"], own["start_off_sft"] = trainer.ref_model is None, off(start, trained)
        with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
            own["reference_off"] = off(logits(model), start)
        with model.disable_adapter():
            own["without_adapter_off_sft"] = off(logits(model), trained)
    code = train(trainer, run, recipe, *rest)
    LOGITS[name] = logits(trainer.model)
    own["kl"] = [row["kl"] for row in trainer.state.log_history if "kl" in row]
    FACTS[name] = own
    return code


def run(name, text):
    """Run a recipe."""
    Path("r.yaml").write_text(f"{text}{COMMON}output_dir: {name}\n")
    assert run_recipes(load_recipes(["r.yaml"])) == 0


def main():
    """Run the recipes, load each model again, and print what was seen."""
    grpo.train = sft.train = recorded
    Look.look = lambda self: None  # what `check` does has tests of its own
    run("base", f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\n")
    for bits in KINDS:
        weights = {"4": {"load_in_4bit": True}, "8": {"load_in_8bit": True}}.get(bits, {})
        config = ModelConfig(use_peft=False, dtype="bfloat16" if bits == "16" else "float32", **weights)
        for stage, text in RECIPES.items():
            name = f"{bits}/{stage}"
            run(name, WEIGHTS[bits] + text.replace("BITS", bits))
            options = LoadOptions(backend=BACKEND, trainable=False, max_seq_length=128)
            again = load_model(name, config, options)
            named = json.loads(Path(name, "adapter_config.json").read_text())["base_model_name_or_path"]
            FACTS[name] |= {"reloaded_off": off(logits(again.model), LOGITS[name]), "named": named}
            FACTS[name] |= {"scale": LOGITS[name].abs().max().item()}
    print("FACTS" + json.dumps(FACTS))


if __name__ == "__main__":
    main()
