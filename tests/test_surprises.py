"""Each note is given where the key is left out and the default is the surprising one, and not otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_ext.known_keys import stage_keys
from reasoning_ext.recipe import load_recipe
from reasoning_ext.surprises import CHECKS, MOST, default_findings

ROOT = Path(__file__).parents[1]
RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("examples/**/*.yaml")])

# Keys that keep everything else quiet, so that a case sees its own note alone.
QUIET = {
    "sft": {
        "use_peft": "true", "dtype": "bfloat16", "learning_rate": "1e-4", "max_length": "1024", "save_total_limit": "2",
        "max_steps": "100", "save_steps": "50",
    },
    "grpo": {
        "use_peft": "true", "dtype": "bfloat16", "learning_rate": "1e-5", "max_completion_length": "512",
        "gradient_accumulation_steps": "8", "max_steps": "100", "save_steps": "50", "scale_rewards": "none",
        "mask_truncated_completions": "true", "logging_steps": "1", "warmup_steps": "5", "beta": "0.0",
    },
    "dpo": {
        "use_peft": "true", "dtype": "bfloat16", "learning_rate": "1e-5", "max_length": "1024", "save_total_limit": "2",
        "max_steps": "100", "save_steps": "50", "warmup_steps": "5", "beta": "0.1",
    },
    "sample": {"dtype": "bfloat16", "max_completion_length": "512"},
    "eval": {"dtype": "bfloat16", "max_completion_length": "512"},
}  # fmt: skip


@pytest.fixture
def findings(tmp_path):
    """Return a function that gives the findings of a quiet recipe with changes; None leaves a key out."""

    def find(stage, changes, defaults=None):
        values = {"stage": stage} | QUIET[stage] | changes
        path = tmp_path / "r.yaml"
        path.write_text("".join(f"{key}: {value}\n" for key, value in values.items() if value is not None))
        recipe = load_recipe(path)
        changed = {name: replace(recipe.keys[name], default=default) for name, default in (defaults or {}).items()}
        return default_findings(replace(recipe, keys=recipe.keys | changed))

    return find


@pytest.mark.parametrize("stage", sorted(QUIET))
def test_a_recipe_that_sets_what_matters_gets_nothing(findings, stage):
    assert findings(stage, {}) == []


# (stage, changes, level, key, a part of the text)
CASES = [
    ("grpo", {"learning_rate": None}, "note", "learning_rate", "is 1e-06: a rate for all weights"),
    ("sft", {"learning_rate": None}, "note", "learning_rate", "is 2e-05: a rate for all weights"),
    ("grpo", {"learning_rate": "5e-7"}, "warning", "learning_rate", "found 5e-07 with use_peft: true"),
    ("sft", {"learning_rate": "2e-4", "use_peft": None}, "warning", "learning_rate", "found 0.0002 for all weights"),
    ("grpo", {"learning_rate": "5e-5", "use_peft": "false", "save_total_limit": "2"}, "warning", "learning_rate", "1.0e-6"),
    ("sft", {"max_length": None, "overlong_rows": "drop"}, "note", "max_length", "is 1024: longer rows"),
    ("grpo", {"max_completion_length": None}, "note", "max_completion_length", "is 512: thoughts that are cut off"),
    ("sample", {"max_completion_length": None}, "note", "max_completion_length", "count as wrong"),
    ("eval", {"max_completion_length": None}, "note", "max_completion_length", "count as wrong"),
    ("grpo", {"mask_truncated_completions": None}, "note", "mask_truncated_completions", "is false: completions"),
    ("grpo", {"gradient_accumulation_steps": None}, "note", "gradient_accumulation_steps", "from 1 prompt x 8 completions"),
    (
        "grpo", {"gradient_accumulation_steps": None, "num_generations": "4"},
        "note", "gradient_accumulation_steps", "from 2 prompts x 4 completions",
    ),
    ("grpo", {"max_steps": None, "save_steps": "50"}, "note", "max_steps", "it goes 3 times over all prompts"),
    (
        "grpo", {"scale_rewards": None, "reward_funcs": "[math_answer, think_format: {weight: 0.1}]"},
        "note", "scale_rewards", "is group: a group that differs in a small reward",
    ),
    ("grpo", {"save_steps": None}, "note", "save_steps", "is 500: no checkpoint before the end of 100 steps"),
    ("sft", {"save_steps": None, "max_steps": "500"}, "note", "save_steps", "no checkpoint before the end of 500 steps"),
    ("grpo", {"save_steps": None, "max_steps": "2000"}, "note", "save_steps", "collapse late"),
    (
        "sft", {"use_peft": None, "learning_rate": "1e-5", "save_total_limit": None, "max_steps": "1000"},
        "note", "save_total_limit", "is null: 20 checkpoints stay",
    ),
    (
        "sft", {"use_peft": None, "learning_rate": "1e-5", "save_total_limit": None, "max_steps": None},
        "note", "save_total_limit", "all checkpoints stay",
    ),
    ("sft", {"max_length": "8192"}, "note", "per_device_train_batch_size", "is 8: up to 65536 tokens"),
    ("grpo", {"max_completion_length": "4096"}, "note", "per_device_train_batch_size", "up to 32768 tokens"),
    ("grpo", {"logging_steps": None}, "note", "logging_steps", "is 10: completions are kept of one step in 10"),
    ("sft", {"packing": "true"}, "note", "attn_implementation", "found none with packing: true"),
    ("sft", {"packing": "true", "attn_implementation": "sdpa"}, "note", "attn_implementation", "found sdpa with"),
    ("sft", {"packing": "true", "packing_strategy": "wrapped"}, "warning", "packing_strategy", "found wrapped, which cuts"),
    ("grpo", {"warmup_steps": None}, "note", "warmup_steps", "is 0: the first steps take the full rate"),
    ("grpo", {"beta": None}, "note", "beta", "is 0.0: nothing holds the model near its start"),
    ("dpo", {"beta": None}, "note", "beta", "is 0.1: it multiplies a sum over all tokens"),
    ("dpo", {"learning_rate": None}, "note", "learning_rate", "is 1e-06: a rate for all weights"),
    ("dpo", {"learning_rate": "1e-4", "use_peft": "false"}, "warning", "learning_rate", "5.0e-7 for example"),
    ("dpo", {"max_steps": None}, "note", "num_train_epochs", "is 3.0: times over all pairs"),
    ("dpo", {"max_length": "2048"}, "note", "per_device_train_batch_size", "up to 32768 tokens"),
    ("dpo", {"max_length": None, "overlong_rows": "drop"}, "note", "max_length", "is 1024: longer rows"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "changes", "level", "key", "text"), CASES)
def test_a_surprise_is_told_once(findings, stage, changes, level, key, text):
    [found] = findings(stage, changes)
    assert (found.level, found.key) == (level, key)
    assert text in found.text and "\n" not in found.text and len(found.text) < 200
    assert (
        found.text.startswith("left out" if changes.get(key) is None and level == "note" else "found")
        or "packing" in text
    )


NOTHING_TO_SAY = [
    ("grpo", {"learning_rate": "1e-6"}),  # low for an adapter, but written
    ("grpo", {"learning_rate": None, "use_peft": "false", "save_total_limit": "2"}),  # right for all weights
    ("sft", {"learning_rate": None, "use_peft": "false"}),
    ("sft", {"learning_rate": "4.9e-5", "use_peft": "false"}),
    ("sft", {"learning_rate": "2e-3", "use_peft": "false", "from_scratch": "true"}),
    ("sft", {"learning_rate": "2e-3", "use_peft": "false", "use_cpu": "true", "gradient_checkpointing": "false"}),
    ("sft", {"max_length": None}),  # a row that is too long stops the run and says so
    ("grpo", {"scale_rewards": None, "reward_funcs": "[math_answer]"}),
    ("grpo", {"scale_rewards": None, "reward_funcs": "[math_answer, think_format: {weight: 0}]"}),
    ("grpo", {"scale_rewards": None, "reward_funcs": "math_answer"}),
    ("grpo", {"gradient_accumulation_steps": None, "per_device_train_batch_size": "32"}),
    ("grpo", {"max_steps": None, "num_train_epochs": "1"}),
    ("grpo", {"max_steps": None, "max_samples": "100"}),
    ("grpo", {"save_steps": None, "save_strategy": "epoch"}),
    ("sft", {"save_steps": None, "max_steps": "2000"}),
    ("sft", {"save_total_limit": None, "max_steps": "1000"}),  # an adapter's checkpoints are small
    ("sft", {"save_total_limit": None, "use_peft": None, "learning_rate": "1e-5", "max_steps": "250"}),
    ("sft", {"max_length": "8192", "per_device_train_batch_size": "8"}),
    ("sft", {"packing": "true", "attn_implementation": "flash_attention_2"}),
    ("sft", {"packing": "true", "model_init_kwargs": "{attn_implementation: kernels-community/flash-attn3}"}),
    ("sft", {"packing": "true", "backend": "unsloth"}),
    ("sft", {"packing": "false", "packing_strategy": "wrapped"}),
    ("dpo", {"max_steps": None, "num_train_epochs": "2"}),
    ("dpo", {"learning_rate": None, "use_peft": "false"}),
]


@pytest.mark.parametrize(("stage", "changes"), NOTHING_TO_SAY)
def test_what_is_as_it_should_be_is_not_told(findings, stage, changes):
    assert findings(stage, changes) == []


@pytest.mark.parametrize(
    ("stage", "changes", "default"),
    [
        ("grpo", {"learning_rate": None}, {"learning_rate": 1e-5}),
        ("sft", {"learning_rate": None}, {"learning_rate": 2e-4}),
        ("sft", {"max_length": None, "overlong_rows": "drop"}, {"max_length": 4096, "per_device_train_batch_size": 1}),
        ("sft", {"max_length": None, "overlong_rows": "drop"}, {"max_length": None}),
        ("grpo", {"max_completion_length": None}, {"max_completion_length": 2048}),
        ("grpo", {"mask_truncated_completions": None}, {"mask_truncated_completions": True}),
        ("grpo", {"gradient_accumulation_steps": None}, {"gradient_accumulation_steps": 4}),
        ("grpo", {"max_steps": None, "save_steps": "50"}, {"max_steps": 300}),
        ("grpo", {"scale_rewards": None, "reward_funcs": "[a, b]"}, {"scale_rewards": "none"}),
        ("grpo", {"save_steps": None}, {"save_steps": 50}),
        ("sft", {"max_length": "8192"}, {"per_device_train_batch_size": 1}),
        ("grpo", {"logging_steps": None}, {"logging_steps": 1}),
        ("grpo", {"warmup_steps": None}, {"warmup_steps": 0.1}),
        ("grpo", {"beta": None}, {"beta": 0.04}),
        ("dpo", {"beta": None}, {"beta": 0.01}),
        ("dpo", {"max_steps": None}, {"num_train_epochs": 1.0}),
    ],
)
def test_a_default_that_changes_takes_its_note_away(findings, stage, changes, default):
    assert findings(stage, changes) and findings(stage, changes, default) == []


@pytest.mark.parametrize("stage", sorted(CHECKS))
def test_a_key_that_a_release_does_not_have_is_passed_over(stage, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"stage: {stage}\n")
    recipe = load_recipe(path)
    for name in recipe.keys:
        fewer = replace(recipe, keys={other: key for other, key in recipe.keys.items() if other != name})
        assert name not in {finding.key for finding in default_findings(fewer)}


def test_more_processes_make_more_prompts_a_step(findings, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert findings("grpo", {"gradient_accumulation_steps": None}) == []


def test_a_recipe_that_sets_nothing_gets_the_costly_ones_warnings_first(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("stage: grpo\nlearning_rate: 1e-4\nreward_funcs: [a, b]\n")
    found = default_findings(load_recipe(path))
    assert [finding.key for finding in found] == [
        "learning_rate", "max_completion_length", "gradient_accumulation_steps", "max_steps", "scale_rewards",
        "mask_truncated_completions",
    ]  # fmt: skip
    assert len(found) == MOST and found[0].level == "warning" and {f.level for f in found[1:]} == {"note"}


def test_a_stage_without_checks_has_none(findings, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("stage: sft\n")
    assert default_findings(replace(load_recipe(path), stage="other")) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_projects_recipes_get_few_notes_and_no_warning(path):
    found = default_findings(load_recipe(path))
    assert len(found) <= 3 and all(finding.level == "note" for finding in found), found


def test_what_a_note_calls_a_key_of_the_stage_is_one():
    for stage, _, _, key, _ in CASES:
        assert key in stage_keys(stage)
