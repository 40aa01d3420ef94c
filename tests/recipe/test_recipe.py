"""Recipes that are right: numbers, overrides, order, paths."""

import pytest
from conftest import TINY

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe, load_recipes
from reasoning_ext.scoring.spec import parse_rewards

TEXT = "stage: grpo\nlearning_rate: {rate}\nreward_funcs:\n  - length_penalty: {{weight: {rate}}}\noutput_dir: out\n"


@pytest.mark.parametrize("rate", ["1e-5", "1.0e-5", "0.00001", "1E-5", "+1e-5"])
def test_numbers_in_any_notation_are_the_same_number(rate, write_recipe):
    recipe = load_recipe(write_recipe(TEXT.format(rate=rate)))
    assert recipe.get("learning_rate") == 1e-5
    assert parse_rewards(recipe.get("reward_funcs"), recipe.folder)[0].weight == 1e-5
    assert load_recipe(write_recipe(TEXT.format(rate=1.0)), {"learning_rate": rate}).get("learning_rate") == 1e-5


def test_no_is_a_string_and_true_a_boolean(write_recipe):
    recipe = load_recipe(write_recipe("stage: sft\nsave_strategy: no\nuse_cpu: true\nmax_steps: 1_000\n"))
    assert recipe.get("save_strategy") == "no" and recipe.get("use_cpu") is True and recipe.get("max_steps") == 1000


def test_defaults_are_those_of_the_installed_classes(write_recipe):
    recipe = load_recipe(write_recipe("stage: grpo\n"))
    assert recipe.get("num_generations") == 8 and recipe.get("lora_r") == 16 and recipe.get("backend") == "trl"


def test_an_override_applies_to_the_recipes_that_know_its_key(write_recipe):
    files = [write_recipe("stage: sft\nseed: 1\n", "1.yaml"), write_recipe("stage: grpo\nseed: 1\n", "2.yaml")]
    sft, grpo = load_recipes(files, {"num_generations": "4", "seed": "7"})
    assert (sft.get("seed"), grpo.get("seed"), grpo.get("num_generations")) == (7, 7, 4)
    assert "num_generations" not in sft.values


def test_a_folder_runs_in_the_order_of_its_numbers(tmp_path, write_recipe):
    for name in ("10_last.yaml", "2_second.yaml", "1_first.yaml"):
        write_recipe("stage: sft\n", name)
    assert [r.path.name for r in load_recipes([tmp_path])] == ["1_first.yaml", "2_second.yaml", "10_last.yaml"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no recipe in this folder"):
        load_recipes([tmp_path])


def test_a_dot_path_is_relative_to_the_recipe_and_any_other_is_not(write_recipe, tmp_path):
    recipe = load_recipe(write_recipe("stage: sft\n"))
    assert recipe.local("./model") == str(tmp_path / "model")
    assert recipe.local("runs/tiny/1_sft") == "runs/tiny/1_sft"


def test_the_tiny_pipeline_has_its_stages_in_order():
    assert [r.stage for r in load_recipes([TINY])] == ["sft", "grpo", "sample", "sft", "sft", "eval"]
