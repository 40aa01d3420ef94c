"""Files in the shape of public data sets go through `check`, one SFT step and one GRPO step."""

import json
from pathlib import Path

import pytest
from conftest import TINY

DATA = Path(__file__).parents[1] / "fixtures"
SHAPES = {
    "messages": (DATA / "messages.jsonl", "dataset_format: messages\n"),
    "plain": (DATA / "plain.csv", "rename_columns: {question: prompt, response: completion, target: answer}\n"),
}
COMMON = f"""\
model_name_or_path: {TINY / "model"}
from_scratch: true
max_steps: 1
per_device_train_batch_size: 4
use_cpu: true
gradient_checkpointing: false
save_strategy: no
logging_steps: 1
"""


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "stage"), [("messages", "sft"), ("plain", "grpo")])
def test_check_then_one_step_of_a_trainer(shape, stage, tmp_path, write_recipe, monkeypatch, capsys):
    from reasoning_ext.check.show import check_and_print
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    monkeypatch.chdir(tmp_path)
    file, form = SHAPES[shape]
    grpo = "reward_funcs: [math_answer]\nnum_generations: 2\nmax_completion_length: 8\n"
    own = grpo if stage == "grpo" else "max_length: 256\n"
    write_recipe(f"stage: {stage}\noutput_dir: out\ndataset_name: {file}\n{own}{COMMON}{form}")
    recipes = load_recipes(["r.yaml"])
    assert check_and_print(recipes, [], offline=True, show=0, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "\n  ok" in printed
    assert run_recipes(recipes) == 0
    logged = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert any({"sft": "loss", "grpo": "rewards/math_answer/mean"}[stage] in row for row in logged)
    assert (tmp_path / "out" / "model.safetensors").is_file()
