"""Run a base, an adapter on it by SFT, and both ways on into GRPO, in one process with one backend, and print the facts as JSON.

python backend_chain.py BACKEND BITS FOLDER        BITS: 4, 8, 16 (bfloat16) or 32
"""

import json
import os
import sys
from pathlib import Path

BACKEND, BITS, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
TINY = Path(__file__).parents[1] / "recipes" / "tiny"
COMMON = """\
dataset_name: ./rows.jsonl
max_steps: 2
per_device_train_batch_size: 4
use_cpu: true
save_strategy: no
logging_steps: 1
learning_rate: 1e-2
seed: 1
"""
COMMON += "max_seq_length: 128\n" if BACKEND == "unsloth" else ""
WEIGHTS = {"4": "load_in_4bit: true\n", "8": "load_in_8bit: true\n", "16": "dtype: bfloat16\n", "32": ""}[BITS]
ADAPTER = f"backend: {BACKEND}\nuse_peft: true\nlora_dropout: 0.0\n" + WEIGHTS + COMMON
NEW = "lora_r: 4\nlora_target_modules: [all-linear]\n"
GRPO = "stage: grpo\nmodel_name_or_path: sft\nreward_funcs: [length_penalty: {max_tokens: 9}]\nnum_generations: 4\n"
GRPO += "max_completion_length: 8\nbeta: 0.1\n" + ADAPTER
RECIPES = {
    "base": f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\nbackend: {BACKEND}\n" + COMMON,
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

import reasoning_ext.train.grpo  # noqa: E402
import reasoning_ext.train.sft  # noqa: E402
from reasoning_ext.pipeline import run_recipes  # noqa: E402
from reasoning_ext.recipe.load import load_recipes  # noqa: E402
from reasoning_ext.train.common import train  # noqa: E402

IDS = torch.arange(3, 15).reshape(1, 12)
FACTS: dict = {"backend": BACKEND, "bits": BITS}
LOGITS = {}


def logits(model):
    """Return a model's logits on some tokens, with dropout off."""
    training = model.training
    model.eval()
    with torch.no_grad():
        out = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.float()
    model.train(training)
    return out


def difference(a, b):
    """Return the largest difference between two tensors."""
    return (a - b).abs().max().item()


def recorded(trainer, run, stage):
    """Train, and keep what the model and its reference are before, and what the model is after."""
    own, model = {}, trainer.model
    base = [parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name]
    own["base_tensors"], own["base_numel"] = len(base), sum(base)
    if stage == "grpo":
        start = logits(model)
        own["ref_model"] = trainer.ref_model is None
        own["adapters"] = sorted(model.peft_config)
        from trl.trainer.utils import use_adapter

        with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
            own["reference_off"] = difference(logits(model), start)
        own["start_off_sft"] = difference(start, LOGITS["sft"])
        with model.disable_adapter():
            own["without_adapter_off_sft"] = difference(logits(model), LOGITS["sft"])
    own["checkpointing"] = trainer.args.gradient_checkpointing
    own["layers"] = sorted({type(m).__name__ for m in model.modules()} & {"Linear4bit", "Linear8bitLt"})
    own["dtypes"] = sorted({str(p.dtype)[6:] for p in model.parameters() if p.requires_grad})
    code = train(trainer, run, stage)
    name = run.path.name
    LOGITS[name] = logits(trainer.model)
    own["kl"] = [row["kl"] for row in trainer.state.log_history if "kl" in row]
    FACTS[name] = own
    return code


def main():
    """Run the recipes, load each model again, and print what was seen."""
    reasoning_ext.train.grpo.train = reasoning_ext.train.sft.train = recorded
    for name, text in RECIPES.items():
        (FOLDER / f"{name}.yaml").write_text(text + f"output_dir: {name}\n")
        assert run_recipes(load_recipes([f"{name}.yaml"])) == 0
    plain = {"use_peft": False, "dtype": "bfloat16" if BITS == "16" else "float32"}
    bits = {"4": {"load_in_4bit": True}, "8": {"load_in_8bit": True}}.get(BITS, {})
    for name in ("sft", "further", "merged"):
        options = LoadOptions(backend=BACKEND, trainable=False, max_seq_length=128)
        again = load_model(name, ModelConfig(**plain, **bits), options)
        FACTS[name]["reloaded_off"] = difference(logits(again.model), LOGITS[name])
        FACTS[name]["scale"] = LOGITS[name].abs().max().item()
        FACTS[name]["pad"] = again.tokenizer.pad_token != again.tokenizer.eos_token
        FACTS[name]["base"] = json.loads((FOLDER / name / "adapter_config.json").read_text())["base_model_name_or_path"]
    print("FACTS" + json.dumps(FACTS))


if __name__ == "__main__":
    main()
