"""Backend `unsloth` for real: imported first, 4-bit weights and LoRA trained, and TRL's defaults where it has others."""

import json
import os
import subprocess
import sys

import pytest
from conftest import TINY

pytestmark = pytest.mark.unsloth
RECIPE = f"""\
stage: sft
backend: unsloth
model_name_or_path: {TINY / "model"}
from_scratch: true
load_in_4bit: true
use_peft: true
lora_target_modules: [all-linear]
dataset_name: ./rows.jsonl
max_steps: 1
output_dir: out
"""
ORDER = """
import atexit, sys
seen = []
def hook(event, arguments):
    if event == "import" and arguments[0] in ("unsloth", "trl", "transformers", "peft") and arguments[0] not in seen:
        seen.append(arguments[0])
sys.addaudithook(hook)
atexit.register(lambda: print("ORDER", *seen))
"""
CALL = """
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
run_recipes(load_recipes(["r.yaml"]))
"""


@pytest.mark.parametrize("command", [["-m", "reasoning_ext", "run", "r.yaml"], ["-c", CALL]], ids=["-m", "call"])
def test_unsloth_is_imported_first_however_the_program_is_started(command, tmp_path, write_recipe, rows_file):
    (tmp_path / "sitecustomize.py").write_text(ORDER)
    write_recipe(RECIPE)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ORDER unsloth transformers" in done.stdout
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "out/random_base"
    assert (tmp_path / "out" / "random_base" / "config.json").is_file()
    assert json.loads((tmp_path / "out" / "versions.json").read_text())["unsloth"]


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
found = {"patched": inspect.signature(GRPOConfig).parameters["learning_rate"].default}
for lines in sys.argv[1:]:
    Path("r.yaml").write_text(f"stage: grpo\\nbackend: unsloth\\nuse_cpu: true\\noutput_dir: out\\n{lines}\\n")
    recipe = load_recipe(Path("r.yaml"))
    config, off = build_config(GRPOConfig, GRPO_CONFIG, recipe), {}
    for name, key in class_keys(*GRPO_CONFIG).items():
        wanted, has = recipe.get(name), getattr(config, name)
        if name == "epsilon_high" or (isinstance(wanted, int | float | str) and has != wanted):
            off[name] = has
    found[lines] = {"off": off, "optim": config.optim}
print("FACTS" + json.dumps(found, default=str))
"""
LINES = ["", "loss_type: dapo", "loss_type: cispo", "loss_type: dr_grpo", "loss_type: grpo\nscale_rewards: group"]


def test_what_a_recipe_leaves_out_is_trls_default_though_unsloth_has_others(tmp_path):
    command = [sys.executable, "-c", PATCHED, *LINES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "FACTS" in done.stdout, done.stderr[-3000:]
    facts = json.loads(done.stdout.partition("FACTS")[2])
    assert facts.pop("patched") == 5e-5, "Unsloth has not patched the class, and nothing was tested"
    by_device = {"gradient_checkpointing", "dataloader_pin_memory"}
    into_lists = {"report_to", "debug", "fsdp"}  # by TRL, which parses them
    for lines in LINES:
        off = {name: value for name, value in facts[lines]["off"].items() if name not in by_device | into_lists}
        assert off == {"epsilon_high": None} and facts[lines]["optim"] != "adamw_8bit", lines
