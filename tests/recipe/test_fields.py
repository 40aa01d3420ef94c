"""What is read off TRL's source is what TRL's classes say when they are imported."""

import dataclasses
import subprocess
import sys

import pytest

from reasoning_ext.recipe import trl_fields
from reasoning_ext.recipe.trl_fields import class_keys, fits, schema_of

CLASSES = ("SFTConfig", "GRPOConfig", "DPOConfig", "ModelConfig", "ScriptArguments")
CHAINS = (trl_fields.SFT_CONFIG, trl_fields.GRPO_CONFIG, trl_fields.DPO_CONFIG, trl_fields.MODEL_CONFIG)


@pytest.mark.parametrize(
    ("classes", "name"), zip([*CHAINS, trl_fields.SCRIPT_ARGUMENTS], CLASSES, strict=True), ids=CLASSES
)
def test_the_keys_are_the_fields_of_the_imported_class(classes, name):
    import trl

    fields = {f.name: f for f in dataclasses.fields(getattr(trl, name)) if f.init}
    keys = class_keys(*classes)
    assert set(keys) == set(fields)
    for key in keys.values():
        default = fields[key.name].default
        if isinstance(default, bool | int | float | str) and key.name != "optim":  # optim is worked out from torch
            assert key.default == default, key.name
        if key.default is not None:
            assert key.misfit(key.default) is None, key.name
        if key.choices and fields[key.name].metadata.get("choices"):
            assert list(key.choices) == list(fields[key.name].metadata["choices"])


def test_choices_that_stand_in_a_docstring_alone_are_those_the_trainer_takes():
    keys = class_keys(*trl_fields.GRPO_CONFIG)
    assert {"grpo", "dr_grpo", "dapo", "bnpo", "cispo"} <= set(keys["loss_type"].choices)
    assert keys["scale_rewards"].choices == ("group", "batch", "none")
    assert keys["scale_rewards"].misfit(False) is None
    assert keys["importance_sampling_level"].choices == ("token", "sequence")
    assert "cosine" in keys["lr_scheduler_type"].choices and "adamw_8bit" in keys["optim"].choices
    losses = class_keys(*trl_fields.DPO_CONFIG)["loss_type"]
    assert losses.default == ["sigmoid"] and {"ipo", "hinge", "sft"} <= set(losses.choices)
    found, allowed = losses.misfit(["ipo", "ipp"])
    assert "'ipp'" in found and allowed.startswith("sigmoid, hinge") and losses.misfit(["ipo"]) is None
    assert keys["vllm_mode"].misfit("servr")[1] == "server, colocate"


TYPES = [  # an annotation, what editors are told of it, values that fit, and that do not
    ("float", {"type": "number"}, [1, 1.5], [True, None, "1"]),
    ("int | None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], [True, 1.5]),
    ("Optional[bool]", {"anyOf": [{"type": "boolean"}, {"type": "null"}]}, [False, None], [1, 0]),
    ("list[str] | str", {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}, ["x", ["x"]], [[1], 1]),
    ("dict[str, Any] | str", {"anyOf": [{"type": "object"}, {"type": "string"}]}, [{"a": 1}, "x"], [[], 3]),
    ("list[Any]", {"type": "array"}, [[], [1, "a"]], ["a"]),
    ("Literal['x', False]", {"enum": ["x", False]}, ["x", False], [0, "y", True]),
    ("SchedulerType | str", {"type": "string"}, ["cosine"], [3]),
    ("ParallelismConfig | None", {}, [3, None, {}], []),
    ("'Forward'", {}, [3], []),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "schema", "right", "wrong"), TYPES)
def test_annotations(annotation, schema, right, wrong):
    assert schema_of(annotation) == schema
    assert all(fits(value, annotation) for value in right) and not any(fits(value, annotation) for value in wrong)


def test_choices_stand_in_the_place_of_a_string():
    assert schema_of("str | None", ("a",)) == {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}
    assert schema_of("SchedulerType | str", ("a", "b")) == {"enum": ["a", "b"]}


def test_reading_keys_and_writing_the_schema_imports_nothing_heavy():
    code = (
        "import sys; from reasoning_ext.recipe.known_keys import STAGES, stage_keys; [stage_keys(stage) for stage in STAGES];"
        "from reasoning_ext.check.schema import schema_text; schema_text();"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'numpy', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_class_may_be_undocumented_and_a_release_may_lack_one(monkeypatch, tmp_path):
    (tmp_path / "bare.py").write_text("class A:\n    x: int = 3\n")
    monkeypatch.setattr(
        trl_fields, "find_spec", lambda name: type("Spec", (), {"submodule_search_locations": [tmp_path]})
    )
    assert class_keys(("trl", "bare.py", "A"))["x"].default == 3
    with pytest.raises(LookupError, match="pip install"):
        class_keys(("trl", "bare.py", "B"))
    with pytest.raises(LookupError, match="pip install"):
        class_keys(("trl", "none.py", "B"))
