"""What is read off TRL's source is what TRL's classes say when they are imported."""

import dataclasses
import subprocess
import sys

import pytest

from reasoning_ext.recipe.trl_fields import (
    DPO_CONFIG,
    GRPO_CONFIG,
    MODEL_CONFIG,
    SCRIPT_ARGUMENTS,
    SFT_CONFIG,
    class_keys,
    field_texts,
    fits,
)


@pytest.mark.parametrize(
    ("classes", "name"),
    [
        (SFT_CONFIG, "SFTConfig"),
        (GRPO_CONFIG, "GRPOConfig"),
        (DPO_CONFIG, "DPOConfig"),
        (MODEL_CONFIG, "ModelConfig"),
        (SCRIPT_ARGUMENTS, "ScriptArguments"),
    ],
)
def test_the_keys_are_the_fields_of_the_imported_class(classes, name):
    import trl

    fields = {f.name: f for f in dataclasses.fields(getattr(trl, name)) if f.init}
    keys = class_keys(*classes)
    assert list(keys) == list(fields) or set(keys) == set(fields)
    for key in keys.values():
        default = fields[key.name].default
        if isinstance(default, bool | int | float | str) and key.name != "optim":  # optim is worked out from torch
            assert key.default == default, key.name
        if key.default is not None:
            assert key.misfit(key.default) is None, key.name
        if key.choices and fields[key.name].metadata.get("choices"):
            assert list(key.choices) == list(fields[key.name].metadata["choices"])


def test_choices_that_stand_in_a_docstring_alone_are_those_the_trainer_takes():
    keys = class_keys(*GRPO_CONFIG)
    assert {"grpo", "dr_grpo", "dapo", "bnpo", "cispo"} <= set(keys["loss_type"].choices)
    assert keys["scale_rewards"].choices == ("group", "batch", "none")
    assert keys["scale_rewards"].misfit(False) is None
    assert keys["importance_sampling_level"].choices == ("token", "sequence")
    assert "cosine" in keys["lr_scheduler_type"].choices and "adamw_8bit" in keys["optim"].choices
    losses = class_keys(*DPO_CONFIG)["loss_type"]
    assert losses.default == ["sigmoid"] and {"ipo", "hinge", "sft"} <= set(losses.choices)
    found, allowed = losses.misfit(["ipo", "ipp"])
    assert found == "found 'ipp'" and allowed.startswith("sigmoid, hinge") and losses.misfit(["ipo"]) is None
    assert keys["vllm_mode"].misfit("servr") == ("found 'servr'", "server, colocate")


@pytest.mark.parametrize(
    ("value", "annotation", "right"),
    [
        (1, "float", True), (True, "float", False), (True, "int", False), (1, "bool", False), (1.5, "int", False),
        (None, "int | None", True), (None, "int", False), ("x", "list[str] | str", True), (["x"], "list[str] | str", True),
        ([1], "list[str]", False), ({"a": 1}, "dict[str, Any] | str | None", True), ("cosine", "SchedulerType | str", True),
        (3, "SchedulerType | str", False), (3, "ParallelismConfig | None", True),
    ],
)  # fmt: skip
def test_fits(value, annotation, right):
    assert fits(value, annotation) is right


def test_reading_the_keys_imports_nothing_heavy():
    code = (
        "import sys; from reasoning_ext.recipe.known_keys import STAGES, stage_keys; [stage_keys(stage) for stage in STAGES];"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["", "A class without a word about its fields."])
def test_a_class_may_be_undocumented(text):
    assert list(field_texts(text)) == []
