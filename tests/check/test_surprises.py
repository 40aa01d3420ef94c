"""Each note is given where the key is left out and the default is the surprising one, and not otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_ext.check.advice import default_findings
from reasoning_ext.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("examples/**/*.yaml")])

# Keys that keep everything quiet, so that a case sees its own note alone.
QUIET = {
    "sft": {"use_peft": "true", "learning_rate": "1e-4", "max_length": "1024"},
    "grpo": {
        "use_peft": "true", "learning_rate": "1e-5", "max_completion_length": "512", "gradient_accumulation_steps": "8",
        "mask_truncated_completions": "true", "beta": "0.0",
    },
    "dpo": {"use_peft": "true", "learning_rate": "1e-5", "max_length": "1024", "beta": "0.1"},
    "sample": {"max_completion_length": "512"},
    "eval": {"max_completion_length": "512"},
}  # fmt: skip
DROP, VLLM = {"max_length": None, "overlong_rows": "drop"}, {"use_vllm": "true", "vllm_mode": "colocate"}


@pytest.fixture
def findings(tmp_path):
    """Return a function that gives the findings of a quiet recipe with changes; None leaves a key out."""

    def find(stage, changes, defaults=None):
        values = {"stage": stage} | QUIET[stage] | changes
        path = tmp_path / "r.yaml"
        path.write_text("".join(f"{key}: {value}\n" for key, value in values.items() if value is not None))
        recipe = load_recipe(path)
        changed = {name: replace(recipe.keys[name], default=default) for name, default in (defaults or {}).items()}
        return [(f.level, f.key) for f in default_findings(replace(recipe, keys=recipe.keys | changed))]

    return find


@pytest.mark.parametrize(
    ("stage", "changes", "level", "key", "default"),
    [
        ("grpo", {"learning_rate": None}, "note", "learning_rate", 1e-5),
        ("sft", {"learning_rate": None}, "note", "learning_rate", 2e-4),
        ("grpo", {"learning_rate": "5e-7"}, "warning", "learning_rate", None),
        ("sft", {"learning_rate": "2e-4", "use_peft": None}, "warning", "learning_rate", None),
        ("grpo", {"learning_rate": "5e-5", "use_peft": "false"}, "warning", "learning_rate", None),
        ("sft", DROP, "note", "max_length", 4096),
        ("dpo", DROP, "note", "max_length", 4096),
        ("sft", {"packing": "true", "packing_strategy": "wrapped"}, "warning", "packing_strategy", None),
        ("grpo", {"max_completion_length": None}, "note", "max_completion_length", 2048),
        ("sample", {"max_completion_length": None}, "note", "max_completion_length", 2048),
        ("eval", {"max_completion_length": None}, "note", "max_completion_length", 2048),
        ("grpo", {"mask_truncated_completions": None}, "note", "mask_truncated_completions", True),
        ("grpo", {"gradient_accumulation_steps": None}, "note", "gradient_accumulation_steps", 4),
        ("grpo", {"beta": None}, "note", "beta", 0.04),
        ("dpo", {"beta": None}, "note", "beta", 0.01),
        ("grpo", VLLM | {"top_p": "0.9"}, "warning", "top_p", None),
        ("grpo", VLLM | {"top_k": "20"}, "warning", "top_k", None),
        ("grpo", VLLM | {"min_p": "0.1"}, "warning", "min_p", None),
    ],
)
def test_what_surprises_is_told_and_goes_away_with_the_default(findings, stage, changes, level, key, default):
    assert findings(stage, changes) == [(level, key)]
    if default is not None:
        assert findings(stage, changes, {key: default}) == []


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        *((stage, {}) for stage in QUIET),
        ("sft", {"learning_rate": None, "use_peft": None}),
        ("sft", {"learning_rate": "2e-4", "use_peft": None, "from_scratch": "true"}),
        ("sft", {"learning_rate": "2e-4", "use_peft": None, "use_cpu": "true"}),
        ("sft", {"max_length": None}),
        ("grpo", {"gradient_accumulation_steps": None, "per_device_train_batch_size": "32"}),
        ("grpo", {"top_p": "0.9"}),
        ("grpo", VLLM | {"top_p": "1.0"}),
        ("grpo", VLLM | {"top_p": "0.9", "vllm_importance_sampling_correction": "false"}),
    ],
)
def test_what_is_as_it_should_be_is_not_told(findings, stage, changes):
    assert findings(stage, changes) == []


def test_more_processes_make_more_prompts_a_step(findings, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert findings("grpo", {"gradient_accumulation_steps": None}) == []


@pytest.mark.parametrize("stage", sorted(QUIET))
def test_a_key_that_a_release_does_not_have_is_passed_over(stage, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"stage: {stage}\n")
    recipe = load_recipe(path)
    for name in ("beta", "learning_rate", "use_peft", "max_length", "mask_truncated_completions", "use_vllm"):
        fewer = replace(recipe, keys={other: key for other, key in recipe.keys.items() if other != name})
        assert name not in {finding.key for finding in default_findings(fewer)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_projects_recipes_get_few_notes_and_no_warning(path):
    found = default_findings(load_recipe(path))
    assert len(found) <= 3 and all(finding.level == "note" for finding in found), found
