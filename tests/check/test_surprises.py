"""Notes on defaults that surprise, and the installed versions, here of made-up packages, against the tested ones."""

import json
import sys
from dataclasses import replace

import pytest
from conftest import ROOT

from reasoning_ext.check.advice import LOWEST, default_findings, version_findings
from reasoning_ext.recipe.load import load_recipe

RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("examples/**/*.yaml")])
# Keys that keep everything quiet, so that a case sees its own note alone.
QUIET = {
    "sft": {"use_peft": "true", "learning_rate": "1e-4"},
    "grpo": {
        "use_peft": "true",
        "learning_rate": "1e-5",
        "max_completion_length": "512",
        "beta": "0.0",
        "gradient_accumulation_steps": "8",
        "lora_dropout": "0.0",
    },
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
        ("grpo", {"beta": None}, "note", "beta", 0.04),
        ("grpo", {"lora_dropout": None}, "note", "lora_dropout", 0.0),
        ("grpo", {"lora_dropout": None, "disable_dropout": "true"}, "", "", None),
        ("grpo", {"lora_dropout": None, "use_peft": None, "learning_rate": "1e-6"}, "", "", None),
        ("grpo", {"gradient_accumulation_steps": None}, "note", "gradient_accumulation_steps", 4),
        ("grpo", {"gradient_accumulation_steps": None, "per_device_train_batch_size": "32"}, "", "", None),
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


@pytest.mark.parametrize(("dropout", "merge", "told"), [(0.1, "false", 1), (0.0, "false", 0), (0.0, "true", 1)])
def test_the_dropout_of_an_adapter_that_is_trained_further_is_its_own(write_recipe, tmp_path, dropout, merge, told):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_dropout": dropout}))
    values = QUIET["grpo"] | {"model_name_or_path": str(tmp_path), "merge_adapter": merge, "lora_dropout": None}
    text = "".join(f"{name}: {value}\n" for name, value in values.items() if value is not None)
    found = default_findings(load_recipe(write_recipe("stage: grpo\n" + text)))
    assert [finding.key for finding in found] == ["lora_dropout"] * told


def test_the_projects_recipes_get_few_notes_and_no_warning():
    for path in RECIPES:
        found = default_findings(load_recipe(path))
        assert len(found) <= 3 and all(finding.level == "note" for finding in found), (path, found)


VERSIONS = {"trl": "1.16.0", "transformers": "5.23.0", "peft": "0.21.2", "datasets": "5.2.0", "bitsandbytes": "0.50.2"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs the packages above, with changes, and takes everything else away."""

    def install(**changes):
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        for name, number in (VERSIONS | changes).items():
            if number is not None:
                folder = tmp_path / f"{name}-{number}.dist-info"
                folder.mkdir()
                (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")

    return install


@pytest.mark.parametrize(
    ("changes", "backend", "quantized", "expected"),
    [
        ({}, "trl", True, []),
        ({"trl": "1.14.0"}, "trl", False, []),
        ({"trl": "1.17.0.dev0"}, "trl", False, ["warning"]),
        ({"trl": "1.15.0"}, "trl", False, ["warning"]),
        ({"trl": "1.13.0"}, "trl", False, ["error"]),
        ({"peft": None}, "trl", False, ["error"]),
        ({"peft": "unknown", "trl": "unknown"}, "trl", False, []),
        ({"bitsandbytes": None}, "trl", True, ["error"]),
        ({}, "unsloth", False, ["note"]),
        ({"unsloth": "2026.10.9"}, "unsloth", False, ["error"]),
        ({"unsloth": "2026.10.9", "trl": "1.15.0"}, "unsloth", False, []),
        ({"unsloth": "2026.10.9", "trl": "1.17.0"}, "trl", False, ["warning"]),
    ],
)
def test_versions_outside_of_what_was_tested_are_named(installed, changes, backend, quantized, expected):
    installed(**changes)
    found = version_findings(backend, False, quantized)
    assert [finding.level for finding in found] == expected
    assert all(number in finding.text for number in changes.values() if number for finding in found if "1.1" in number)


def test_the_lowest_versions_are_those_that_the_package_asks_for(installed):
    text = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{package}>={lowest}' in text for package, lowest in LOWEST.items())
    installed()
    assert [finding.level for finding in version_findings("trl", True)] == ["note"]  # no vLLM here
