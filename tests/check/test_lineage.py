"""The runs that a model comes from: what they were asked with, and what they were trained on."""

import shutil

import pytest
import yaml

from reasoning_ext.check.lineage import adapter_without_peft, forgotten
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import open_run


@pytest.fixture
def put_run(tmp_path, monkeypatch):
    """Open a run's folder in tmp_path, `put_run("sft", stage="sft", ...)`, as `run` does; return its recipe."""
    monkeypatch.chdir(tmp_path)

    def put(name, **values):
        data = {} if "datasets" in values else {"dataset_name": "./rows.jsonl"}
        values = {"output_dir": f"runs/{name}", **data, **values}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
        recipe = load_recipe(tmp_path / f"{name}.yaml")
        open_run(recipe.output_dir, recipe.values, {}, recipe.path)
        return recipe

    return put


SFT = {"stage": "sft", "model_name_or_path": "a/b", "think_tags": ["(", ")"]}
MIXED = {"datasets": [{"dataset_name": "a.jsonl"}, {"dataset_name": "b.jsonl", "system_prompt": "S"}]}


@pytest.mark.parametrize(
    ("more", "own", "said"),
    [
        ({"system_prompt": "S"}, {}, ["system_prompt", "think_tags"]),
        ({"chat_template_kwargs": {"enable_thinking": True}}, {}, ["chat_template_kwargs", "think_tags"]),
        ({"system_prompt": "S"}, {"system_prompt": None, "think_tags": ["(", ")"]}, []),
        ({"system_prompt": "S"}, {"system_prompt": "T"}, ["think_tags"]),
        (MIXED, {}, ["think_tags"]),  # no prompt that is that of all rows
        ({"dataset_name": "runs/kept"}, {}, ["system_prompt", "think_tags"]),  # of the run that made its rows
    ],
)
@pytest.mark.parametrize("stage", ["grpo", "eval", "sample"])
def test_what_a_model_was_trained_with_and_a_recipe_leaves_out_is_said(put_run, more, own, said, stage):
    put_run("kept", stage="sample", model_name_or_path="a/b", system_prompt="K")
    sft = put_run("sft", **SFT, **more)
    named = {"models": {"x": "runs/sft"}} if stage == "eval" else {"model_name_or_path": "runs/sft"}
    recipe = put_run("next", stage=stage, **named, **own)
    for earlier in ([], [sft]):
        assert sorted(finding.key for finding in forgotten(recipe, earlier)) == said
    assert forgotten(sft) == []


def test_an_adapter_without_use_peft_is_said_where_one_is_or_will_be(put_run, tmp_path):
    lora, full = put_run("lora", **SFT, use_peft=True), put_run("full", **SFT)
    for name, earlier, values, said in (
        ("lora", [lora], {}, True), ("lora", [], {}, False), ("full", [full], {}, False), ("lora", [lora, full], {}, True),
        ("lora", [lora], {"use_peft": True}, False), ("lora", [lora], {"use_peft": False}, False),
        ("lora", [lora], {"stage": "sample"}, False), ("lora/export/merged-16bit", [lora], {}, False),
    ):  # fmt: skip
        recipe = put_run("next", **{"stage": "grpo", "model_name_or_path": f"runs/{name}"} | values)
        assert [found.key for found in adapter_without_peft(recipe, earlier)] == ["use_peft"] * said, (name, values)
        shutil.rmtree(tmp_path / "runs" / "next")
    (tmp_path / "runs" / "lora" / "adapter_config.json").write_text("{}")
    assert adapter_without_peft(put_run("last", stage="dpo", model_name_or_path="runs/lora"))
