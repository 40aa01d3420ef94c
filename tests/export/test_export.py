"""Exports of real runs of the tiny model: right ones pass, wrong merges are refused and leave nothing behind."""

import dataclasses
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import TINY
from safetensors import SafetensorError

from reasoning_ext import export
from reasoning_ext.cli import main
from reasoning_ext.errors import UserError
from reasoning_ext.export import compare, export_run
from reasoning_ext.export import merge as merging
from reasoning_ext.export.merge import ExportError
from reasoning_ext.runs.files import DiskError

pytestmark = pytest.mark.slow
COMMON = """\
stage: sft
per_device_train_batch_size: 24
use_cpu: true
gradient_checkpointing: false
save_strategy: no
logging_steps: 5
"""
BASE = f"model_name_or_path: {TINY / 'model'}\nfrom_scratch: true\nmax_steps: 60\nlearning_rate: 5e-3\ndataset_name: rows.jsonl\n"
LORA = "model_name_or_path: base\nuse_peft: true\nlora_r: 8\nlora_target_modules: [all-linear]\nlearning_rate: 1e-2\n"
ADAPTER = LORA + "max_steps: 25\ndataset_name: other.jsonl\n"
SHORT = ADAPTER.replace("25", "8")
ON_ADAPTER = SHORT.replace("model_name_or_path: base", "model_name_or_path: adapter") + "merge_adapter: true\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a base and its data, and a function that runs a further recipe there."""
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    folder, before = tmp_path_factory.mktemp("runs"), Path.cwd()
    os.chdir(folder)
    for name, step in (("rows", 1), ("other", 2)):
        lines = [
            {"prompt": f"{a}+{a + step}", "completion": f"<think>{a} and {a + step}</think>{2 * a + step}"}
            for a in range(24)
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(text, out, common=COMMON):
        if not Path(out, "DONE").is_file():
            Path(f"{out}.yaml").write_text(common + text + f"output_dir: {out}\n")
            assert run_recipes(load_recipes([f"{out}.yaml"])) == 0
        return folder / out

    run(BASE, "base")
    yield run
    os.chdir(before)


@pytest.fixture
def adapter(runs):
    """A finished run with a LoRA adapter that says other things than its base."""
    return runs(ADAPTER, "adapter")


def facts(folder):
    return json.loads((folder / "export.json").read_text())


def left_behind(folder):
    return sorted(f.name for f in folder.rglob("*") if ".part" in f.name or f.name.startswith("out"))


def test_an_adapter_is_merged_reloaded_and_compared(adapter, tmp_path, capsys):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    out = export_run(adapter, "merged-16bit", tmp_path / "out")
    found = facts(out)["comparison"]
    assert found["prompts"] == 20 and found["equal_tokens"] >= 0.95 and found["kl"] < 0.02 < found["change"]
    weights, base = load_file(out / "model.safetensors"), load_file("base/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16} and set(weights) == set(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), adapter)
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    wanted = base["model.layers.1.mlp.up_proj.weight"] + layer.get_delta_weight("default")
    assert torch.equal(weights["model.layers.1.mlp.up_proj.weight"], wanted.detach().to(torch.bfloat16))
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [5]
    assert (out / "chat_template.jinja").read_text() == (TINY / "model" / "chat_template.jinja").read_text()
    card = (out / "README.md").read_text()
    assert "tokens equal on 20 prompts" in card and "tokens equal on 20 prompts" in capsys.readouterr().out
    assert left_behind(tmp_path) == ["out"]
    for file in out.iterdir():
        assert str(Path.cwd()).encode() not in file.read_bytes(), f"{file.name} tells of this machine"


def test_an_export_is_not_made_twice_and_overwrites_nothing(adapter, tmp_path, capsys, monkeypatch):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "torn.safetensors").write_text("x")  # left by one that was killed
    out = export_run(adapter, "adapter", tmp_path / "out")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / name).read_bytes() == (adapter / name).read_bytes()
    assert {"tokenizer.json", "chat_template.jinja", "README.md", "export.json"} <= {f.name for f in out.iterdir()}
    assert not (out / "torn.safetensors").exists() and left_behind(tmp_path) == ["out"]
    assert "library_name: peft" in (out / "README.md").read_text()
    assert "warning: the adapter's base is the folder base" in capsys.readouterr().out
    monkeypatch.setattr(export, "run_tokenizer", lambda source: pytest.fail("made again"))
    assert export_run(adapter, "adapter", out) == out and "done already" in capsys.readouterr().out
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for folder in (out, tmp_path / "mine"):
        with pytest.raises(ExportError, match="no finished merged-16bit export of this run"):
            export_run(adapter, "merged-16bit", folder)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def not_merged(model):
    return model.unload()


def doubled(model):
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.scaling["default"] *= 2
    return model.merge_and_unload()


def full(*_):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("merge", "code", "said"),
    [
        (not_merged, 2, "error: the export is not the trained model: .*no nearer to the trained model"),
        (doubled, 2, "error: the export is not the trained model: .*equal tokens, .*on 20 prompts"),
        (full, 2, "error: .*No space left on device.*free some space"),
        (interrupted, 130, ""),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(adapter, tmp_path, monkeypatch, capsys, merge, code, said):
    def broken(model):
        assert left_behind(tmp_path), "nothing had been begun yet"
        return merge(model)

    monkeypatch.setattr(export, "merged", broken)
    monkeypatch.setattr(sys, "argv", ["reasoning-ext", "export", str(adapter), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == code and re.search(said, lines[-1] if lines else "") and "Traceback" not in "".join(lines)
    assert left_behind(tmp_path) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "Reference", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 500_000, 500_000))
    with pytest.raises(DiskError, match=r"found 0\.5 MiB free for .*, needed: 0\.[67] MiB"):
        export_run(adapter, "merged-16bit", tmp_path / "out")


def changed_copy(run, folder, change=lambda name, tensor: tensor):
    """Copy a run and change the tensors of its adapter: a function of name and tensor, None drops it, a pair renames it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("export", "checkpoint*"))
    found = [(name, change(name, t)) for name, t in load_file(folder / "adapter_model.safetensors").items()]
    tensors = dict(new if isinstance(new, tuple) else (name, new) for name, new in found if new is not None)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "DONE").write_text("{}")  # which held the sizes of what is changed here
    return folder


LOST = "layers.1.self_attn.q_proj.lora_B"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n, t: t * float("nan") if "layers.0.mlp.up_proj.lora_B" in n else t, r"loaded wrongly: .*lora_B"),
        (lambda n, t: t * 0 if "lora_B" in n else t, "equals its base, so that there is nothing to export; raise"),
        (lambda n, t: None if LOST in n else t, rf"no weights for base_model.*{LOST}"),
        (lambda n, t: (n.replace("layers.1", "layers.9"), t) if LOST in n else t, r"no place in its base .*layers\.9"),
    ],
)
def test_an_adapter_is_neither_empty_nor_torn_nor_made_up(adapter, tmp_path, change, said):
    with pytest.raises(ExportError, match=said):
        export_run(changed_copy(adapter, tmp_path / "run", change), "merged-16bit", tmp_path / "out")
    assert left_behind(tmp_path) == []


def logits(model, ids=(2, 20, 21, 3, 8, 9)):
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits.float()


def test_modules_that_were_trained_whole_are_merged(runs, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = runs(SHORT + "lora_modules_to_save: [lm_head, embed_tokens]\n", "whole")
    out = export_run(run, "merged-16bit", tmp_path / "out")
    trained = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), run).eval()
    merged, base = AutoModelForCausalLM.from_pretrained(out), AutoModelForCausalLM.from_pretrained("base")
    near, far = (logits(merged) - logits(trained)).abs().max(), (logits(base) - logits(trained)).abs().max()
    assert near < 0.1 * far


def test_tokens_that_came_with_another_template_are_loaded_and_merged(runs, tmp_path):
    """The template of another model brings tokens along, which the base has not."""
    import torch
    from templates import build
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import ModelConfig

    from reasoning_ext.models.load import load_model
    from reasoning_ext.models.loaded import LoadOptions

    build("qwen3").save_pretrained("chatml")
    run = runs(SHORT + "chat_template_path: ./chatml\n", "resized")
    out = export_run(run, "merged-16bit", tmp_path / "out")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ends = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert ends[0].shape[0] >= len(tokenizer) > 110 and ends[0] is ends[1]
    trained = logits(merging.load_trained(merging.find_source(run)), ids := (2, 20, 105, 3, 110, 9))
    for trainable in (False, True):
        options = LoadOptions(trainable=trainable)
        loaded = load_model(str(run), ModelConfig(dtype="float32", use_peft=trainable), options).model.eval()
        assert torch.equal(logits(loaded, ids), trained)


def test_a_run_of_whole_weights_is_saved_in_16_bits(runs, tmp_path):
    import torch
    from safetensors.torch import load_file

    run = runs("model_name_or_path: base\nmax_steps: 8\nlearning_rate: 3e-3\ndataset_name: other.jsonl\n", "full")
    out = export_run(run, "merged-16bit", tmp_path / "out")
    weights, trained = load_file(out / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.equal(weights[name], trained[name].to(torch.bfloat16)) for name in trained)
    assert facts(out)["comparison"]["change"] > 0.02
    with pytest.raises(ExportError, match="--to merged-16bit"):
        export_run(run, "adapter", tmp_path / "adapter")


def test_an_adapter_of_4_bit_weights_is_merged_into_the_whole_ones(runs, tmp_path):
    out = export_run(runs(SHORT + "load_in_4bit: true\n", "four_bits"), "merged-16bit", tmp_path / "out")
    assert facts(out)["comparison"]["kl"] < 0.02
    assert "quantization_config" not in json.loads((out / "config.json").read_text())


def test_a_base_that_was_given_by_hand(adapter, runs, tmp_path, capsys):
    """The same elsewhere is nothing to speak of, another one is said, and one that holds the adapter or 4 bits is refused."""
    shutil.copytree("base", tmp_path / "same")
    assert merging.find_source(adapter, str(tmp_path / "same")).named is None
    merged = export_run(adapter, "merged-16bit", tmp_path / "merged")
    other = shutil.copytree("base", tmp_path / "other", ignore=shutil.ignore_patterns("lineage.json"))
    out = export_run(adapter, "merged-16bit", tmp_path / "b", base=str(other))
    assert f"the base {other} was given by hand" in capsys.readouterr().out
    assert "That base was given by hand; the run was trained on base." in (out / "README.md").read_text()
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"quantization_config": {"load_in_4bit": True}}))
    second = runs(ON_ADAPTER, "second")
    for base, said in (
        (other, "quantised"), (second / "merged_base", "this very run's adapter"), (merged, "this very run's adapter"),
        ("nowhere/base", "cannot load nowhere/base"),
    ):  # fmt: skip
        with pytest.raises(ExportError, match=said) as error:
            export_run(adapter, "merged-16bit", tmp_path / "out", base=str(base))
        assert "\n" not in str(error.value)


def test_an_adapter_on_a_merged_one_goes_where_its_run_goes(adapter, runs, tmp_path):
    run = runs(ON_ADAPTER, "second")
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    run.rename(elsewhere := run.with_name("elsewhere"))
    try:
        assert merging.find_source(moved).base == str(moved / "merged_base")
        out = export_run(moved, "merged-16bit", tmp_path / "out")
    finally:
        elsewhere.rename(run)
    assert facts(out)["comparison"]["equal_tokens"] >= 0.95


def test_an_adapter_on_an_adapter_is_exported_and_refused_elsewhere(adapter, runs, tmp_path):
    from safetensors.torch import load_file
    from trl import ModelConfig

    from reasoning_ext.models.load import load_model
    from reasoning_ext.models.loaded import LoadOptions, ModelError

    run = changed_copy(runs(ON_ADAPTER, "second"), tmp_path / "nested")
    shutil.rmtree(run / "merged_base")
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(adapter)}))
    nested = load_file(export_run(run, "merged-16bit", tmp_path / "out") / "model.safetensors")
    wanted = load_file(export_run(Path("second"), "merged-16bit", tmp_path / "other") / "model.safetensors")
    assert all(tensor.equal(wanted[name]) for name, tensor in nested.items())
    for options in (LoadOptions(trainable=False), LoadOptions(run_folder=tmp_path, merge_adapter=True)):
        with pytest.raises(ModelError, match=r"its base .*adapter is an adapter itself; name the folder of `reasoning"):
            load_model(str(run), ModelConfig(use_peft=True), options)


def test_what_cannot_be_exported_is_refused_in_one_line(adapter, tmp_path, monkeypatch):
    def refuses(run, match, to="merged-16bit", **options):
        with pytest.raises(UserError, match=match) as error:
            export_run(run, to, tmp_path / "out", **options)
        assert "\n" not in str(error.value) and left_behind(tmp_path) == []

    monkeypatch.setattr(export, "check_upload", lambda *_: None)
    refuses(tmp_path, "allowed: the folder of a finished sft, grpo, dpo run")
    refuses(adapter, "nobody else has", "hub", what="adapter", repo_id="me/tiny", public=True)
    copy = changed_copy(adapter, tmp_path / "copy")
    (copy / "DONE").unlink()
    refuses(copy, "a run that has not finished; run its recipe again")
    (copy / "recipe.yaml").write_text((copy / "recipe.yaml").read_text().replace("other.jsonl", "./nowhere.jsonl"))
    (copy / "DONE").write_text("{}")
    refuses(copy, r"nowhere\.jsonl.*; write --prompts RECIPE\.yaml, or --prompts FILE\.jsonl")
    refuses(copy, "--prompts: found nowhere.jsonl", prompts=Path("nowhere.jsonl"))


def test_prompts_of_a_file_a_recipe_or_where_the_recipe_was_written(adapter, tmp_path, capsys):
    source = merging.find_source(adapter)
    own = compare.read_prompts(source)
    assert len(own) == 20 and own[0] == [{"role": "user", "content": "0+2"}]
    assert compare.read_prompts(source, Path("base.yaml"))[0][0]["content"] == "0+1"
    given = tmp_path / "p.jsonl"
    given.write_text('{"prompt": "1+1"}\n{"prompt": "1+1"}\n{"prompt": [{"role": "user", "content": "2"}]}\n')
    for system, texts in ((None, [["1+1"], ["2"]]), ("S", [["S", "1+1"], ["2"]])):
        found = compare.read_prompts(dataclasses.replace(source, system_prompt=system), given)
        assert [[message["content"] for message in messages] for messages in found] == texts
    export_run(adapter, "merged-16bit", tmp_path / "out", prompts=given)
    assert "warning: 20 prompts and 200 tokens" in capsys.readouterr().out
    run = changed_copy(adapter, tmp_path / "run")
    (tmp_path / "recipes").mkdir()
    shutil.copyfile("other.jsonl", tmp_path / "recipes" / "near.jsonl")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("other.jsonl", "./near.jsonl"))
    (run / "recipe_path").write_text(f"{tmp_path / 'recipes' / 'near.yaml'}\n")
    assert compare.read_prompts(merging.find_source(run))[0] == own[0]


def test_verdicts():
    good = {"prompts": 20, "tokens": 99, "equal_tokens": 0.99, "kl": 0.001, "change": 0.1}
    judge = lambda **values: compare.Comparison(**(good | values)).problems()  # noqa: E731
    assert judge() == [] and judge(change=None) == []
    nan = float("nan")
    for wrong in (
        {"equal_tokens": 0.94}, {"equal_tokens": nan}, {"kl": 0.02}, {"kl": nan}, {"change": 1e-7}, {"change": 0.001},
        {"change": nan},
    ):  # fmt: skip
        assert judge(**wrong), wrong


@pytest.mark.parametrize(
    "arguments", [["--to", "mergd"], ["--to", "gguf", "--quantization", "q9_9"], ["--public"], ["--repo-id", "a/b"]]
)
def test_wrong_arguments_are_refused_before_anything_heavy_is_imported(cli, arguments):
    result = cli("export", "nowhere", *arguments)
    assert (result.code, result.heavy) == (2, []) and result.err.startswith(f"error: {arguments[-2:][0]}: found ")
