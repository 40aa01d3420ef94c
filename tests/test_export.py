"""Exports of real runs of the tiny model: right ones pass, wrong merges are refused and leave nothing behind."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext import export, export_check, merging
from reasoning_ext.cli import main
from reasoning_ext.errors import UserError
from reasoning_ext.export import export_run
from reasoning_ext.files import DiskError
from reasoning_ext.merging import ExportError

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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a base and its data, and a function that runs a further recipe there."""
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe import load_recipes

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
    from safetensors.torch import load_file

    out = export_run(adapter, "merged-16bit", tmp_path / "out")
    found = facts(out)["comparison"]
    assert found["prompts"] == 20 and found["equal_tokens"] >= 0.95 and found["kl"] < 0.02 < found["change"]
    assert 0.9 < found["least_kept"] <= found["most_kept"] < 1.1
    weights, base = load_file(out / "model.safetensors"), load_file("base/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16} and set(weights) == set(base)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), adapter)
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    wanted = base["model.layers.1.mlp.up_proj.weight"] + layer.get_delta_weight("default")
    assert torch.equal(weights["model.layers.1.mlp.up_proj.weight"], wanted.detach().to(torch.bfloat16))
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [5]
    assert (out / "chat_template.jinja").read_text() == (TINY / "model" / "chat_template.jinja").read_text()
    assert left_behind(tmp_path) == ["out"]
    said = [line for line in capsys.readouterr().out.splitlines() if "tokens equal" in line]
    assert len(said) == 1 and "KL of the base" in said[0]
    card = (out / "README.md").read_text()
    assert "tokens equal on 20 prompts" in card and "model\\_name" not in card and "learning_rate: 0.01" in card
    for file in out.iterdir():
        assert str(Path.cwd()).encode() not in file.read_bytes(), f"{file.name} tells of this machine"


def test_an_export_is_not_made_twice_and_overwrites_nothing(adapter, tmp_path, capsys, monkeypatch):
    out = export_run(adapter, "merged-16bit", tmp_path / "out")
    monkeypatch.setattr(export, "load_trained", lambda source: pytest.fail("loaded again"))
    assert export_run(adapter, "merged-16bit", out) == out
    assert "done already" in capsys.readouterr().out
    with pytest.raises(
        ExportError, match="which is no finished adapter export of this run; remove it, or write --output"
    ):
        export_run(adapter, "adapter", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ExportError, match="no finished merged-16bit export"):
        export_run(adapter, "merged-16bit", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def not_merged(model):
    return model.unload()


def one_layer_skipped(model):
    import torch

    with torch.no_grad():
        model.base_model.model.model.layers[2].self_attn.v_proj.lora_B["default"].weight.zero_()
    return model.merge_and_unload()


def doubled(model):
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.scaling["default"] *= 2
    return model.merge_and_unload()


@pytest.mark.parametrize(
    "broken, problem",
    [
        (not_merged, "no nearer to the trained model"),
        (one_layer_skipped, r"v_proj holds -?0\.0. of"),
        (doubled, r"holds 2\.0. of"),
    ],
)
def test_a_wrong_merge_is_refused_and_removed(adapter, tmp_path, monkeypatch, capsys, broken, problem):
    monkeypatch.setattr(export, "merge", broken)
    with pytest.raises(ExportError, match=problem) as error:
        export_run(adapter, "merged-16bit", tmp_path / "out")
    assert "tokens equal on 20 prompts" in str(error.value) and "\n" not in str(error.value)
    assert left_behind(tmp_path) == []
    monkeypatch.setattr(sys, "argv", ["reasoning-ext", "export", str(adapter), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "error: the export is not the trained model" in capsys.readouterr().err
    assert left_behind(tmp_path) == []


def test_the_figures_alone_refuse_a_wrong_merge(adapter, tmp_path, monkeypatch):
    """Without the look into each layer, the outputs still tell a merge that was left out or done twice."""
    monkeypatch.setattr(export_check, "_layers", lambda model: [])
    for broken in (not_merged, doubled):
        monkeypatch.setattr(export, "merge", broken)
        with pytest.raises(ExportError, match=r"equal tokens, allowed.*KL .*, allowed: below 0\.02"):
            export_run(adapter, "merged-16bit", tmp_path / "out")


def test_weights_that_are_no_numbers_are_refused(adapter, tmp_path):
    run = changed_copy(
        adapter, tmp_path / "run", lambda name, t: t * float("nan") if "layers.0.mlp.up_proj.lora_B" in name else t
    )
    with pytest.raises(ExportError, match=r"loaded wrongly: base_model\..*lora_B"):
        export_run(run, "merged-16bit", tmp_path / "out")
    assert left_behind(tmp_path) == []


def changed_copy(run, folder, change):
    """Copy a run and change the tensors of its adapter: a function of name and tensor, None drops it, a pair renames it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("export", "checkpoint*"))
    tensors = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        new = change(name, tensor)
        if isinstance(new, tuple):
            tensors[new[0]] = new[1]
        elif new is not None:
            tensors[name] = new
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "DONE").write_text("{}")  # which held the sizes of what is changed here
    return folder


def test_an_adapter_that_changes_nothing_is_refused(adapter, tmp_path):
    run = changed_copy(adapter, tmp_path / "run", lambda name, t: t * 0 if "lora_B" in name else t)
    with pytest.raises(
        ExportError, match="equals its base, so that there is nothing to export; raise learning_rate or max_steps"
    ):
        export_run(run, "merged-16bit", tmp_path / "out")


def test_tensors_of_an_adapter_are_neither_lost_nor_made_up(adapter, tmp_path):
    gone = "layers.1.self_attn.q_proj.lora_B"
    run = changed_copy(adapter, tmp_path / "a", lambda name, t: None if gone in name else t)
    with pytest.raises(ExportError, match=r"no weights for base_model.*layers\.1\.self_attn\.q_proj\.lora_B"):
        export_run(run, "merged-16bit", tmp_path / "out")
    run = changed_copy(adapter, tmp_path / "b", lambda n, t: (n.replace("layers.1", "layers.9"), t) if gone in n else t)
    with pytest.raises(ExportError, match=r"no place in its base for base_model.*layers\.9"):
        export_run(run, "merged-16bit", tmp_path / "out")


def logits(model, ids=(2, 20, 21, 3, 8, 9)):
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits.float()


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_modules_that_were_trained_whole_are_merged(runs, tmp_path, module):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    name = f"whole_{module}"
    run = runs(ADAPTER + f"lora_modules_to_save: [{module}]\n", name)
    out = export_run(run, "merged-16bit", tmp_path / "out")
    trained = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), run).eval()
    merged, base = AutoModelForCausalLM.from_pretrained(out), AutoModelForCausalLM.from_pretrained("base")
    near, far = (logits(merged) - logits(trained)).abs().max(), (logits(base) - logits(trained)).abs().max()
    assert near < 0.1 * far


def with_another_template(runs, tied):
    """Train an adapter with the template of another model, whose tokens the base has not."""
    from templates import build

    build("qwen3").save_pretrained("chatml")
    text = ADAPTER + "chat_template_path: ./chatml\n"
    if tied:
        return runs(text, "resized_tied")
    shutil.copytree(TINY / "model", "untied_model", dirs_exist_ok=True)
    config = json.loads(Path("untied_model/config.json").read_text())
    Path("untied_model/config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    runs(BASE.replace(str(TINY / "model"), "./untied_model"), "untied")
    return runs(text.replace("model_name_or_path: base", "model_name_or_path: untied"), "resized")


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_that_came_with_another_template_are_merged(runs, tmp_path, tied):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = with_another_template(runs, tied)
    out = export_run(run, "merged-16bit", tmp_path / "out")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ends = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert ends[0].shape[0] >= len(tokenizer) > 104 and (ends[0] is ends[1]) == tied
    assert facts(out)["comparison"]["change"] > 0.02


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_with_more_tokens_than_its_base_is_evaluated_and_trained_further(runs, tied):
    import torch
    from transformers import AutoTokenizer
    from trl import ModelConfig

    from reasoning_ext.loaded import LoadOptions
    from reasoning_ext.model import load_model

    run = with_another_template(runs, tied)
    loaded = load_model(str(run), ModelConfig(dtype="float32"), LoadOptions(trainable=False))
    trained = merging.load_trained(merging.find_source(run))
    ids = (2, 20, 105, 3, 110, 9)
    assert len(AutoTokenizer.from_pretrained(run)) > 110 and torch.equal(
        logits(loaded.model, ids), logits(trained, ids)
    )
    where = "dataset_name: ./rows_with_answers.jsonl\nnum_generations: 2\nmax_completion_length: 8\n"
    lines = [json.dumps({"prompt": f"{a}+1", "answer": str(a + 1)}) + "\n" for a in range(16)]
    Path("rows_with_answers.jsonl").write_text("".join(lines))
    evaluated = runs(where + f"models: {{it: {run.name}}}\n", f"{run.name}_eval", "stage: eval\nuse_cpu: true\n")
    assert json.loads((evaluated / "eval.json").read_text())["it"]["problems"] == 16
    grpo = f"model_name_or_path: {run.name}\nuse_peft: true\nreward_funcs: [length_penalty: {{max_tokens: 9}}]\n"
    further = runs(where + grpo + "max_steps: 1\n", f"{run.name}_grpo", COMMON.replace("sft", "grpo"))
    assert (further / "adapter_model.safetensors").is_file()


def test_a_run_of_whole_weights_is_saved_in_16_bits(runs, tmp_path):
    import torch
    from safetensors.torch import load_file

    run = runs("model_name_or_path: base\nmax_steps: 15\nlearning_rate: 3e-3\ndataset_name: other.jsonl\n", "full")
    out = export_run(run, "merged-16bit", tmp_path / "out")
    weights, trained = load_file(out / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.equal(weights[name], trained[name].to(torch.bfloat16)) for name in trained)
    assert facts(out)["comparison"]["change"] > 0.02 and "least_kept" not in facts(out)["comparison"]
    with pytest.raises(ExportError, match="a run of whole weights; write --to merged-16bit"):
        export_run(run, "adapter", tmp_path / "adapter")


def test_an_adapter_of_4_bit_weights_is_merged_into_the_whole_ones(runs, tmp_path):
    run = runs(ADAPTER + "load_in_4bit: true\n", "four_bits")
    out = export_run(run, "merged-16bit", tmp_path / "out")
    found = facts(out)["comparison"]
    assert found["trained_kl"] > 2 * found["kl"] and found["kl"] < 0.02
    assert "quantization_config" not in json.loads((out / "config.json").read_text())


def test_a_quantised_base_is_refused_and_another_can_be_named(adapter, tmp_path):
    shutil.copytree("base", "base-unsloth-bnb-4bit", dirs_exist_ok=True)
    config = json.loads(Path("base/config.json").read_text())
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    Path("base-unsloth-bnb-4bit/config.json").write_text(json.dumps(config | quantised))
    with pytest.raises(ExportError, match="whose weights are quantised; write --base base, in 16 bits"):
        export_run(adapter, "merged-16bit", tmp_path / "out", base="base-unsloth-bnb-4bit")
    assert export_run(adapter, "merged-16bit", tmp_path / "out", base="base").is_dir()


def test_a_base_that_was_random_is_found_where_the_run_kept_it(runs, tmp_path, monkeypatch):
    run = runs(
        BASE + "use_peft: true\nlora_target_modules: [all-linear]\nmax_steps: 20\n".replace("max_steps: 20\n", ""),
        "scratch",
    )
    shutil.copytree(run, tmp_path / "moved")
    shutil.move(run, f"{run}_elsewhere")
    try:
        assert export_run(tmp_path / "moved", "merged-16bit", tmp_path / "out").is_dir()
    finally:
        shutil.move(f"{run}_elsewhere", run)


def test_an_adapter_on_a_merged_one_goes_where_its_run_goes(adapter, runs, tmp_path):
    grpo = ADAPTER.replace("model_name_or_path: base", "model_name_or_path: adapter") + "merge_adapter: true\n"
    run = runs(grpo, "second")
    shutil.copytree(run, tmp_path / "moved")
    shutil.move(run, f"{run}_elsewhere")
    try:
        found = merging.find_source(tmp_path / "moved")
        assert found.base == str(tmp_path / "moved" / "merged_base")
        out = export_run(tmp_path / "moved", "merged-16bit", tmp_path / "out")
    finally:
        shutil.move(f"{run}_elsewhere", run)
    assert facts(out)["comparison"]["equal_tokens"] >= 0.95


def test_an_adapter_on_an_adapter_is_exported_and_refused_elsewhere(adapter, runs, tmp_path):
    import torch
    from safetensors.torch import load_file
    from trl import ModelConfig

    from reasoning_ext.loaded import LoadOptions, ModelError
    from reasoning_ext.model import load_model

    text = ADAPTER.replace("model_name_or_path: base", "model_name_or_path: adapter") + "merge_adapter: true\n"
    run = changed_copy(runs(text, "second"), tmp_path / "nested", lambda name, tensor: tensor)
    shutil.rmtree(run / "merged_base")
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(adapter)}))
    nested = export_run(run, "merged-16bit", tmp_path / "out")
    wanted = load_file(export_run(Path("second"), "merged-16bit", tmp_path / "other") / "model.safetensors")
    assert all(torch.equal(t, wanted[name]) for name, t in load_file(nested / "model.safetensors").items())
    for options in (LoadOptions(trainable=False), LoadOptions(run_folder=tmp_path, merge_adapter=True)):
        with pytest.raises(ModelError, match=r"its base .*adapter is an adapter itself; name the folder of `reasoning"):
            load_model(str(run), ModelConfig(use_peft=True), options)


def test_a_full_disk_is_found_out_before_anything_is_loaded(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "load_trained", lambda source: pytest.fail("loaded"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 500_000, 500_000))
    with pytest.raises(DiskError, match=r"found 0\.5 MiB free for .*, needed: 0\.[67] MiB; free some space"):
        export_run(adapter, "merged-16bit", tmp_path / "out")
    assert left_behind(tmp_path) == []
    monkeypatch.undo()
    count = merging.count_parameters(merging.find_source(adapter))
    from transformers import AutoModelForCausalLM

    assert count == AutoModelForCausalLM.from_pretrained("base").num_parameters()


@pytest.mark.parametrize("own", [False, True])
def test_a_disk_that_fills_up_is_one_line(adapter, tmp_path, monkeypatch, capsys, own):
    from safetensors import SafetensorError

    def full(*_):
        assert left_behind(tmp_path), "nothing had been written yet"
        said = "I/O error: No space left on device (os error 28)"
        raise SafetensorError(said) if own else OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_save", full)
    monkeypatch.setattr(sys, "argv", ["reasoning-ext", "export", str(adapter), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and said[-1].startswith(f"error: cannot write {tmp_path / 'out'}: ")
    assert "No space left on device" in said[-1] and "free some space" in said[-1] and "Traceback" not in "".join(said)
    assert left_behind(tmp_path) == []


def test_a_base_that_holds_the_adapter_already_is_refused(adapter, runs, tmp_path):
    """The merge onto it would be compared with the adapter on it, and both would hold the adapter twice."""
    grpo = ADAPTER.replace("model_name_or_path: base", "model_name_or_path: adapter") + "merge_adapter: true\n"
    second = runs(grpo, "second")
    merged = export_run(adapter, "merged-16bit", tmp_path / "merged")
    for base, said in (
        (second / "merged_base", "a base with the adapter adapter merged in"), (merged, "an export of this very run")
    ):  # fmt: skip
        with pytest.raises(ExportError, match=f"--base: found .*, {said}; this run was trained on base, write that"):
            export_run(adapter, "merged-16bit", tmp_path / "out", base=str(base))
    shutil.copytree(second / "merged_base", tmp_path / "moved" / "merged_base")
    assert merging.find_source(second, str(tmp_path / "moved" / "merged_base")).named is None  # the same, elsewhere
    with pytest.raises(ExportError, match=r"--base: found .*, an export of this very run"):
        own = export_run(second, "merged-16bit", tmp_path / "second")
        export_run(second, "merged-16bit", tmp_path / "out", base=str(own))


def test_a_base_that_was_given_by_hand_is_said(adapter, runs, tmp_path, capsys):
    shutil.copytree("base", tmp_path / "same")
    out = export_run(adapter, "merged-16bit", tmp_path / "a", base=str(tmp_path / "same"))
    assert "given by hand" not in capsys.readouterr().out + (out / "README.md").read_text()
    other = runs(BASE.replace("max_steps: 60", "max_steps: 50"), "other_base")
    out = export_run(adapter, "merged-16bit", tmp_path / "b", base=str(other))
    assert f"warning: the base {other} was given by hand; the run was trained on base" in capsys.readouterr().out
    assert "That base was given by hand; the run was trained on base." in (out / "README.md").read_text()


def test_an_interrupted_export_leaves_nothing(adapter, tmp_path, monkeypatch):
    def interrupt(*_):
        assert left_behind(tmp_path), "nothing had been written yet"
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_run(adapter, "merged-16bit", tmp_path / "out")
    assert left_behind(tmp_path) == []
    monkeypatch.undo()
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "torn.safetensors").write_text("of an export that was killed")
    assert export_run(adapter, "merged-16bit", tmp_path / "out").is_dir()
    assert left_behind(tmp_path) == ["out"] and not (tmp_path / "out" / "torn.safetensors").exists()


def test_runs_that_cannot_be_exported_are_refused_in_one_line(adapter, tmp_path):
    def refuses(run, match, to="merged-16bit", **options):
        with pytest.raises(UserError, match=match) as error:
            export_run(run, to, tmp_path / "out", **options)
        assert "\n" not in str(error.value) and left_behind(tmp_path) == []

    refuses(tmp_path, "allowed: the folder of a finished sft, grpo, dpo run")
    refuses(adapter, "--to: found onnx, allowed: merged-16bit, adapter, gguf, hub", to="onnx")
    refuses(adapter, "cannot load nowhere/base", base="nowhere/base")
    refuses(adapter, "--quantization: found q9_9, allowed: f16, bf16, q8_0, f32, q4_0", to="gguf", quantization="q9_9")
    refuses(adapter, "--repo-id: found with --to adapter, which uploads nothing", to="adapter", repo_id="me/tiny")
    refuses(adapter, "--public: found with --to merged-16bit, which uploads nothing", public=True)
    copy = changed_copy(adapter, tmp_path / "copy", lambda name, tensor: tensor)
    (copy / "DONE").unlink()
    refuses(copy, "which has not finished; run its recipe again")
    recipe = (copy / "recipe.yaml").read_text().replace("other.jsonl", "./nowhere.jsonl")
    (copy / "recipe.yaml").write_text(recipe)
    (copy / "DONE").write_text("{}")
    refuses(copy, r"cannot read the run's data .*; write --prompts RECIPE\.yaml, or --prompts FILE\.jsonl")
    refuses(copy, "--prompts: found nowhere.jsonl, allowed: JSONL", prompts=Path("nowhere.jsonl"))


def test_prompts_of_a_file_or_a_recipe(adapter, tmp_path, capsys):
    source = merging.find_source(adapter)
    own = export_check.read_prompts(source)
    assert len(own) == 20 and own[0] == [{"role": "user", "content": "0+2"}]
    assert export_check.read_prompts(source, Path("base.yaml"))[0][0]["content"] == "0+1"
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "1+1"}\n{"prompt": "1+1"}\n{"prompt": [{"role": "user", "content": "2"}]}\n'
    )
    given = export_check.read_prompts(source, tmp_path / "p.jsonl")
    assert [messages[0]["content"] for messages in given] == ["1+1", "2"]
    asked = dataclasses.replace(source.recipe, values=source.recipe.values | {"system_prompt": "S"})
    given = export_check.read_prompts(dataclasses.replace(source, recipe=asked), tmp_path / "p.jsonl")
    assert [[message["content"] for message in messages] for messages in given] == [["S", "1+1"], ["2"]]
    export_run(adapter, "merged-16bit", tmp_path / "out", prompts=tmp_path / "p.jsonl")
    assert "2 different prompts to compare on, 20 are better" in capsys.readouterr().out


def test_prompts_come_from_where_the_recipe_was_written(adapter):
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe import load_recipes

    folder = Path("recipes")
    folder.mkdir(exist_ok=True)
    shutil.copyfile("other.jsonl", folder / "near.jsonl")
    text = COMMON + ADAPTER.replace("other.jsonl", "./near.jsonl").replace("max_steps: 25", "max_steps: 1")
    (folder / "near.yaml").write_text(text + "output_dir: near\n")
    assert run_recipes(load_recipes([folder / "near.yaml"])) == 0
    source = merging.find_source(Path("near"))
    assert export_check.read_prompts(source)[0] == [{"role": "user", "content": "0+2"}]
    folder.rename("recipes_moved")
    with pytest.raises(ExportError, match=r"cannot read .*, the recipe's folder .*recipes is gone\); write --prompts"):
        export_check.read_prompts(merging.find_source(Path("near")))


def test_few_compared_tokens_are_said(adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "FEW_TOKENS", 10**6)
    out = export_run(adapter, "merged-16bit", tmp_path / "out")
    tokens = facts(out)["comparison"]["tokens"]
    assert f"warning: only {tokens} tokens were compared, 1000000 or more" in capsys.readouterr().out


def test_an_adapter_is_exported_as_it_is(adapter, tmp_path, capsys):
    out = export_run(adapter, "adapter", tmp_path / "out")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / name).read_bytes() == (adapter / name).read_bytes()
    assert {"tokenizer.json", "chat_template.jinja", "README.md", "export.json"} <= {f.name for f in out.iterdir()}
    assert "library_name: peft" in (out / "README.md").read_text()
    assert "warning: the adapter's base is the folder base" in capsys.readouterr().out


def test_verdicts():
    good = {
        "prompts": 20,
        "tokens": 99,
        "equal_tokens": 0.99,
        "kl": 0.001,
        "change": 0.1,
        "least_kept": 0.9,
        "most_kept": 1.1,
    }
    judge = lambda **values: export_check.Comparison(**(good | values)).problems()  # noqa: E731
    assert judge() == [] and judge(change=None, least_kept=None, most_kept=None) == []
    nan = float("nan")
    for wrong in (
        {"equal_tokens": 0.94}, {"kl": 0.02}, {"kl": nan}, {"change": 1e-7}, {"change": 0.001}, {"change": nan},
        {"least_kept": 0.0}, {"most_kept": 2.0}, {"least_kept": nan},
    ):  # fmt: skip
        assert judge(**wrong), wrong


CONVERTER = """
import argparse, os, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--outfile", type=pathlib.Path)
parser.add_argument("--outtype")
parser.add_argument("--model-name", required=True)
arguments = parser.parse_args()
assert (pathlib.Path(arguments.model) / "model.safetensors").is_file()
if "HF_TOKEN" in os.environ:
    sys.exit("saw a token")
WRITE
"""


def converter(folder, write='arguments.outfile.write_text("gguf " + arguments.outtype)'):
    """Write a program with the arguments of llama.cpp's converter."""
    folder.mkdir(exist_ok=True)
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER.replace("WRITE", write))
    return folder


def test_gguf_is_written_by_llama_cpps_converter_without_the_users_token(adapter, tmp_path, monkeypatch, capsys):
    from reasoning_ext import export_gguf

    monkeypatch.setenv("HF_TOKEN", "hf_aVerySecretToken1234")
    monkeypatch.setattr(export_gguf, "_check", lambda file, model: "read back")
    file = export_run(adapter, "gguf", llama_cpp=converter(tmp_path / "llama.cpp"), output=tmp_path / "out.gguf")
    assert file.read_text() == "gguf q8_0" and (adapter / "export" / "merged-16bit" / "export.json").is_file()
    assert left_behind(tmp_path) == ["out.gguf"] and "read back" in capsys.readouterr().out
    with pytest.raises(ExportError, match="remove it, or write --output FILE"):
        export_run(adapter, "gguf", llama_cpp=tmp_path / "llama.cpp", output=file)
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "llama.cpp"))
    assert export_run(adapter, "gguf", quantization="f16").name == "adapter-f16.gguf"


def test_a_converter_that_fails_or_writes_nothing_leaves_nothing(adapter, tmp_path):
    for write, match in (
        (
            'arguments.outfile.write_text("torn"); sys.exit("Model LlamaX is not supported")',
            "failed: Model LlamaX is not",
        ),
        ("pass", "found no file where convert_hf_to_gguf.py should have written one"),
    ):
        with pytest.raises(ExportError, match=match):
            export_run(adapter, "gguf", llama_cpp=converter(tmp_path / "l", write), output=tmp_path / "out.gguf")
        assert left_behind(tmp_path) == []


def test_gguf_without_a_tool_is_refused_before_anything_is_loaded(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "export_merged", lambda *_: pytest.fail("merged"))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    with pytest.raises(ExportError, match=r"found neither llama\.cpp's converter nor Unsloth on a GPU; git clone"):
        export_run(adapter, "gguf")
    with pytest.raises(ExportError, match=r"found no convert_hf_to_gguf\.py in"):
        export_run(adapter, "gguf", llama_cpp=tmp_path)
    with pytest.raises(ExportError, match="found q4_k_m without llama-quantize on the PATH, allowed: f16, bf16, q8_0"):
        export_run(adapter, "gguf", llama_cpp=converter(tmp_path / "l"), quantization="q4_k_m")


def test_smaller_quantisations_go_through_llama_quantize(adapter, tmp_path, monkeypatch):
    from reasoning_ext import export_gguf

    monkeypatch.setattr(export_gguf, "_check", lambda file, model: "read back")
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "llama-quantize"
    tool.write_text(
        f'#!{sys.executable}\nimport sys\nopen(sys.argv[2], "w").write(open(sys.argv[1]).read() + sys.argv[3])\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    options = {"llama_cpp": converter(tmp_path / "l"), "output": tmp_path / "out.gguf", "quantization": "q4_k_m"}
    assert export_run(adapter, "gguf", **options).read_text() == "gguf bf16Q4_K_M"
    assert left_behind(tmp_path) == ["out.gguf"]


SECRET = "hf_aVerySecretToken1234"


def response(status):
    """Return a response of the HTTP library that the hub's client uses."""
    from unittest.mock import Mock

    return Mock(status_code=status, headers={})


class Hub:
    """What the hub's client is asked to do; `there` is None or whether the repository is private."""

    def __init__(self, monkeypatch, there=None, error=None):
        from types import SimpleNamespace

        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        self.calls, self.there = [], there

        def repo_info(_, repo_id):
            if self.there is None:
                raise RepositoryNotFoundError("no such repository", response=response(404))
            return SimpleNamespace(private=self.there)

        def create_repo(_, **arguments):
            self.calls.append(("create_repo", arguments))
            self.there = arguments["private"] if self.there is None else self.there

        def upload_folder(_, **arguments):
            if error:
                raise error
            self.calls.append(("upload_folder", arguments))

        for method in (repo_info, create_repo, upload_folder):
            monkeypatch.setattr(HfApi, method.__name__, method)
        monkeypatch.setenv("HF_TOKEN", SECRET)


def test_an_upload_is_private_and_takes_the_export_alone(adapter, tmp_path, monkeypatch, capsys):
    hub = Hub(monkeypatch)
    export_run(adapter, "merged-16bit", tmp_path / "out")
    for name in ("optimizer.pt", "training_args.bin", "notes.txt", ".env"):
        (tmp_path / "out" / name).write_text("stays here")
    export_run(adapter, "hub", tmp_path / "out", repo_id="me/tiny")
    (_, created), (_, uploaded) = hub.calls
    assert created == {"repo_id": "me/tiny", "private": True, "exist_ok": True}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(uploaded["allow_patterns"])
    assert not {"optimizer.pt", "training_args.bin", "notes.txt", ".env"} & set(uploaded["allow_patterns"])
    said = capsys.readouterr().out
    assert "MiB, to me/tiny, private:" in said and "  model.safetensors  " in said and SECRET not in said
    assert said.index("model.safetensors  ") < said.index("uploaded to me/tiny")
    hub = Hub(monkeypatch)
    export_run(adapter, "hub", tmp_path / "out", repo_id="me/open", public=True)
    assert hub.calls[0] == ("create_repo", {"repo_id": "me/open", "private": False, "exist_ok": True})
    said = capsys.readouterr().out
    assert "MiB, to me/open, public:" in said and "warning" not in said


def test_a_private_repository_that_is_there_is_not_called_public(adapter, tmp_path, monkeypatch, capsys):
    hub = Hub(monkeypatch, there=True)
    export_run(adapter, "hub", tmp_path / "out", repo_id="me/tiny", public=True)
    said = capsys.readouterr().out
    assert "MiB, to me/tiny, private:" in said and "me/tiny is there already, private, and stays so" in said
    assert [name for name, _ in hub.calls] == ["create_repo", "upload_folder"] and hub.there


def test_nothing_private_goes_into_a_public_repository(adapter, monkeypatch):
    hub = Hub(monkeypatch, there=False)
    monkeypatch.setattr(export, "export_merged", lambda *_: pytest.fail("merged"))
    with pytest.raises(ExportError, match="found me/tiny, a public repository; write --public, or another name"):
        export_run(adapter, "hub", repo_id="me/tiny")
    with pytest.raises(ExportError, match="found no --repo-id"):
        export_run(adapter, "hub")
    with pytest.raises(ExportError, match="an adapter on the folder base, which nobody else has"):
        export_run(adapter, "hub", repo_id="me/tiny", public=True, what="adapter")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", "nowhere")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ExportError, match="found no token; set HF_TOKEN"):
        export_run(adapter, "hub", repo_id="me/tiny")
    assert hub.calls == []


def test_a_token_is_never_printed_or_written(adapter, tmp_path, monkeypatch, capfd):
    from huggingface_hub.errors import HfHubHTTPError

    own = "oldstyle1234567890"  # one that looks like none, and one of somebody else
    said = f"403 Forbidden: Authorization: Bearer {own}, not {SECRET}"
    Hub(monkeypatch, error=HfHubHTTPError(said, response=response(403)))
    monkeypatch.setenv("HF_TOKEN", own)
    arguments = ["export", str(adapter), "--to", "hub", "-o", str(tmp_path / "out"), "--repo-id", "me/tiny"]
    monkeypatch.setattr(sys, "argv", ["reasoning-ext", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr()
    assert end.value.code == 2 and "Bearer [redacted], not [redacted]" in said.err
    assert own not in said.out + said.err and SECRET not in said.out + said.err
    for file in [f for f in tmp_path.rglob("*") if f.is_file()]:
        assert own.encode() not in file.read_bytes()


@pytest.mark.parametrize("arguments", [["--to", "mergd"], ["--to", "gguf", "--quantization", "q9_9"], ["--public"]])
def test_wrong_arguments_are_refused_before_anything_heavy_is_imported(cli, arguments):
    result = cli("export", "nowhere", *arguments)
    assert (result.code, result.heavy) == (2, []) and result.err.startswith(f"error: {arguments[-2:][0]}: found ")
