"""Backend `unsloth` for real: 4-bit weights, LoRA, one step of SFT, and its adapter on into one step of GRPO."""

import json
import subprocess
import sys

import pytest
from conftest import TINY

pytestmark = pytest.mark.unsloth
COMMON = """\
backend: unsloth
dataset_name: ./rows.jsonl
load_in_4bit: true
use_peft: true
lora_r: 8
lora_target_modules: [all-linear]
max_seq_length: 128
max_steps: 1
per_device_train_batch_size: 4
logging_steps: 1
save_strategy: no
"""
SFT = f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\noutput_dir: sft\n" + COMMON
GRPO = """\
stage: grpo
reward_funcs: [length_penalty: {max_tokens: 9}]
num_generations: 2
max_completion_length: 8
output_dir: grpo
"""


def test_one_step_of_sft_and_of_grpo_on_four_bit_weights(cli, tmp_path, write_recipe, rows_file):
    write_recipe(SFT, "1.yaml")
    write_recipe(GRPO + f"model_name_or_path: {TINY / 'model'}\nfrom_scratch: true\n" + COMMON, "2.yaml")
    result = cli("run", "1.yaml", "2.yaml", timeout=900)
    assert result.code == 0, result.out[-3000:] + result.err[-3000:]
    for stage, figure in (("sft", "loss"), ("grpo", "reward")):
        folder = tmp_path / stage
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert any(figure in row for row in rows), rows
        adapter = json.loads((folder / "adapter_config.json").read_text())
        assert adapter["r"] == 8 and (folder / "adapter_model.safetensors").is_file()
        versions = json.loads((folder / "versions.json").read_text())
        assert versions["unsloth"]


LOAD = """
from reasoning_ext.models.loaded import LoadOptions
from reasoning_ext.models.load import load_model, prepare_backend
prepare_backend("unsloth")
from trl import ModelConfig
config = ModelConfig(load_in_4bit=True, use_peft=True, lora_r=8, lora_target_modules=["all-linear"])
loaded = load_model({path!r}, config, LoadOptions(backend="unsloth", from_scratch=True, max_seq_length=128))
kinds = {{type(module).__name__ for module in loaded.model.modules()}}
print("KINDS", sorted(kinds & {{"Linear4bit"}}), type(loaded.model).__name__, loaded.peft_config)
print("TRAINED", {{name.rsplit(".", 2)[-3] for name, p in loaded.model.named_parameters() if p.requires_grad}})
"""


def test_the_weights_are_in_four_bits_and_only_the_adapter_is_trained(tmp_path):
    code = LOAD.format(path=str(TINY / "model"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "KINDS ['Linear4bit'] PeftModelForCausalLM None" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    trained = done.stdout.split("TRAINED ")[1]
    assert "lora_A" in trained and "lora_B" in trained and "base_layer" not in trained


def test_the_keys_are_read_off_this_trl_too(cli, write_recipe, rows_file):
    write_recipe(SFT + "learning_ratee: 1\n", "1.yaml")
    result = cli("run", "1.yaml")
    assert (result.code, result.heavy) == (2, []) and "the nearest key of stage sft is learning_rate" in result.err


PATCHED = """
from reasoning_ext.models.load import prepare_backend
prepare_backend("unsloth")
import inspect, json, sys
from pathlib import Path
from unsloth.models.rl import _patch_trl_rl_trainers
_patch_trl_rl_trainers("grpo_trainer")  # done by itself on a GPU alone
from trl import GRPOConfig
from reasoning_ext.recipe.trl_fields import GRPO_CONFIG, class_keys
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.train.common import build_config
recipe = load_recipe(Path("r.yaml"))
config = build_config(GRPOConfig, GRPO_CONFIG, recipe)
off = {}
for name, key in class_keys(*GRPO_CONFIG).items():
    wanted, has = recipe.get(name), getattr(config, name)
    if name == "epsilon_high" or (isinstance(wanted, int | float | str) and has != wanted):
        off[name] = has
patched = inspect.signature(GRPOConfig).parameters["learning_rate"].default
print("FACTS" + json.dumps({"patched": patched, "off": off, "optim": config.optim}, default=str))
"""


@pytest.mark.parametrize(
    "lines", ["", "loss_type: dapo", "loss_type: cispo", "loss_type: dr_grpo", "loss_type: grpo\nscale_rewards: group"]
)
def test_what_a_recipe_leaves_out_is_trls_default_though_unsloth_has_others(lines, tmp_path, write_recipe):
    write_recipe(f"stage: grpo\nbackend: unsloth\nuse_cpu: true\noutput_dir: out\n{lines}\n")
    done = subprocess.run([sys.executable, "-c", PATCHED], cwd=tmp_path, capture_output=True, text=True)
    assert "FACTS" in done.stdout, done.stderr[-3000:]
    facts = json.loads(done.stdout.partition("FACTS")[2])
    assert facts["patched"] == 5e-5, "Unsloth has not patched the class, and nothing was tested"
    by_device = {"gradient_checkpointing", "dataloader_pin_memory"}
    into_lists = {"report_to", "debug", "fsdp"}  # by TRL, which parses them
    off = {name: value for name, value in facts["off"].items() if name not in by_device | into_lists}
    assert off == {"epsilon_high": None} and facts["optim"] != "adamw_8bit"
