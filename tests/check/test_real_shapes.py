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
@pytest.mark.parametrize("shape", SHAPES)
def test_check_then_one_step_of_each_trainer(shape, tmp_path, write_recipe, monkeypatch, capsys):
    from reasoning_ext.check.show import check_and_print
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    monkeypatch.chdir(tmp_path)
    file, form = SHAPES[shape]
    shared = COMMON + form + f"dataset_name: {file}\n"
    reward = "think_format" if shape == "messages" else "math_answer"
    write_recipe("stage: sft\nmax_length: 256\noutput_dir: out/sft\n" + shared, "1.yaml")
    grpo = (
        f"stage: grpo\nreward_funcs: [{reward}]\nnum_generations: 2\nmax_completion_length: 8\noutput_dir: out/grpo\n"
    )
    write_recipe(grpo + shared, "2.yaml")
    recipes = load_recipes(["1.yaml", "2.yaml"])
    assert check_and_print(recipes, [], offline=True, show=0, as_json=False) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n  ok") == 2 and '"role": "user"' in printed
    assert run_recipes(recipes) == 0
    for stage, figure in (("sft", "loss"), ("grpo", f"rewards/{reward}/mean")):
        logged = [json.loads(line) for line in (tmp_path / "out" / stage / "metrics.jsonl").read_text().splitlines()]
        assert any(figure in row for row in logged)
        assert (tmp_path / "out" / stage / "model.safetensors").is_file()
