"""Each note is given where the key is left out and the default is the surprising one, and not otherwise."""

from dataclasses import replace

import pytest
from conftest import ROOT

from reasoning_ext.check.advice import default_findings
from reasoning_ext.recipe.load import load_recipe

RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("examples/**/*.yaml")])
# Keys that keep everything quiet, so that a case sees its own note alone.
QUIET = {
    "sft": {"use_peft": "true", "learning_rate": "1e-4"},
    "grpo": {"use_peft": "true", "learning_rate": "1e-5", "max_completion_length": "512"},
    "sample": {"max_completion_length": "512"},
}
VLLM = {"use_vllm": "true", "vllm_mode": "colocate"}


@pytest.mark.parametrize(
    ("stage", "changes", "level", "key", "default"),
    [
        ("grpo", {"learning_rate": None}, "note", "learning_rate", 1e-5),
        ("sft", {"learning_rate": None}, "note", "learning_rate", 2e-4),
        ("grpo", {"learning_rate": "5e-7"}, "warning", "learning_rate", None),
        ("sft", {"learning_rate": "2e-4", "use_peft": None}, "warning", "learning_rate", None),
        ("sft", {"packing": "true", "packing_strategy": "wrapped"}, "warning", "packing_strategy", None),
        ("grpo", {"max_completion_length": None}, "note", "max_completion_length", 2048),
        ("sample", {"max_completion_length": None}, "note", "max_completion_length", 2048),
        ("grpo", VLLM | {"top_p": "0.9"}, "warning", "top_p", None),
        ("grpo", VLLM | {"top_k": "20"}, "warning", "top_k", None),
        *((stage, {}, "", "", None) for stage in QUIET),
        ("sft", {"learning_rate": None, "use_peft": None}, "", "", None),
        ("sft", {"learning_rate": "2e-4", "use_peft": None, "from_scratch": "true"}, "", "", None),
        ("grpo", {"top_p": "0.9"}, "", "", None),
        ("grpo", VLLM | {"top_p": "1.0"}, "", "", None),
        ("grpo", VLLM | {"top_p": "0.9", "vllm_importance_sampling_correction": "false"}, "", "", None),
    ],
)
def test_what_surprises_is_told_and_goes_away_with_the_default(write_recipe, stage, changes, level, key, default):
    values = {"stage": stage} | QUIET[stage] | changes
    text = "".join(f"{name}: {value}\n" for name, value in values.items() if value is not None)
    recipe = load_recipe(write_recipe(text))
    assert [(f.level, f.key) for f in default_findings(recipe)] == ([(level, key)] if level else [])
    if default is not None:
        keys = recipe.keys | {key: replace(recipe.keys[key], default=default)}
        assert default_findings(replace(recipe, keys=keys)) == []


def test_the_projects_recipes_get_few_notes_and_no_warning():
    for path in RECIPES:
        found = default_findings(load_recipe(path))
        assert len(found) <= 3 and all(finding.level == "note" for finding in found), (path, found)
