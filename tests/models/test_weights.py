"""Weights that do not fit their model end a stage in one line, before anything is trained on random ones."""

import json
import shutil

import pytest
from conftest import TINY

from reasoning_ext.errors import KeyProblem
from reasoning_ext.models.weights import check_weights

WEIGHTS = "model.safetensors"
RECIPE = """\
stage: sft
model_name_or_path: {model}
dataset_name: ./rows.jsonl
max_steps: 1
per_device_train_batch_size: 4
use_cpu: true
gradient_checkpointing: false
save_strategy: no
use_peft: true
lora_r: 4
output_dir: out
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with random weights of the tiny model, untied, and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("models") / "whole"
    config = AutoConfig.from_pretrained(TINY / "model")
    config.num_hidden_layers, config.tie_word_embeddings = 2, False
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY / "model").save_pretrained(folder)
    return folder


@pytest.fixture
def model(whole, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(whole, tmp_path / "model")


def rename(folder, change):
    from safetensors.torch import load_file, save_file

    tensors = {new: t for name, t in load_file(folder / WEIGHTS).items() if (new := change(name))}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def edit(folder, file, **values):
    written = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({k: v for k, v in (written | values).items() if v is not None}))


def refused(folder):
    with pytest.raises(KeyProblem) as error:
        check_weights(str(folder))
    assert error.value.key == "model_name_or_path" and "\n" not in str(error.value) and str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: "base_model.model." + n, ["21 of 21 tensors are missing", "21 have no place", "base_model.model.lm_head"]),
        (lambda n: n.replace("layers.", "layers._fsdp_wrapped_module."), ["18 of 21", "_fsdp_wrapped_module"]),
        (lambda n: n.replace("q_proj.", "q_proj.base_layer."), ["2 of 21", "base_layer"]),
        (lambda n: n if n != "lm_head.weight" else "v_head.summary.weight", ["1 of 21", "(lm_head.weight)", "(v_head.summary"]),
    ],
)  # fmt: skip
def test_names_that_fit_nothing_are_counted_and_one_is_named(model, change, said):
    rename(model, change)
    text = refused(model)
    assert all(part in text for part in said), text


def test_another_architecture_and_other_sizes_are_refused(model):
    edit(model, "config.json", vocab_size=60)
    assert "2 have other sizes" in refused(model) and "[104, 96]" in refused(model)
    edit(model, "config.json", vocab_size=104, num_hidden_layers=3)
    assert "9 of 30 tensors are missing" in refused(model)
    edit(model, "config.json", num_hidden_layers=1)
    assert "9 have no place in it" in refused(model)
    edit(model, "config.json", model_type="gpt_neox", num_hidden_layers=2, architectures=["LlamaForCausalLM"])
    assert "GPTNeoXForCausalLM" in refused(model)


def test_whatever_transformers_gives_a_place_is_no_fault(model, whole, tmp_path):
    check_weights(str(whole))
    rename(model, lambda name: name.removeprefix("model."))  # as the base class saves them
    check_weights(str(model))
    tied = shutil.copytree(whole, tmp_path / "tied")
    edit(tied, "config.json", tie_word_embeddings=True)
    rename(tied, lambda name: "" if name == "lm_head.weight" else name)
    check_weights(str(tied))
    check_weights("openai/nothing-is-known-of-hub-names")
    rename(model, lambda name: "" if "layers.1." in name else name)
    check_weights(str(model), init_kwargs={"num_hidden_layers": 1})


def test_sharded_and_pickled_weights_are_judged_too_and_quantised_ones_when_they_are_loaded(model, tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model)
    loaded.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    check_weights(str(tmp_path / "sharded"))
    next((tmp_path / "sharded").glob("model-00002*")).unlink()
    assert "model-00002-of-" in refused(tmp_path / "sharded")
    tensors = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    torch.save(tensors, model / "pytorch_model.bin")
    check_weights(str(model))
    torch.save({"module." + name: tensor for name, tensor in tensors.items()}, model / "pytorch_model.bin")
    assert "21 of 21" in refused(model)
    edit(model, "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    check_weights(str(model))


def test_the_model_below_an_adapter_is_looked_at(model, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapter = tmp_path / "adapter"
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(r=2)).save_pretrained(adapter)
    check_weights(str(adapter))
    rename(model, lambda name: "_orig_mod." + name)
    with pytest.raises(KeyProblem, match="_orig_mod"):
        check_weights(str(adapter))
    (adapter / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in refused(adapter)


def cut(name, share=2):
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // share]
    )


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content)


DAMAGES = {
    "config.json": [put("config.json", content) for content in (b"", b"{", b"\xff\xfe\x00", b"[]")],
    "model_type": [lambda f: edit(f, "config.json", model_type=None, architectures=None)],
    "nosuch": [lambda f: edit(f, "config.json", model_type="nosuch")],
    "32000": [lambda f: edit(f, "config.json", vocab_size=None)],
    "hidden_size": [lambda f: edit(f, "config.json", hidden_size="wide")],
    WEIGHTS: [
        cut(WEIGHTS), cut(WEIGHTS, 10**9), put(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"),
        lambda f: (f / WEIGHTS).unlink(), put(WEIGHTS, (2**60).to_bytes(8, "little") + b"{}"),
    ],
    "model.safetensors.index.json": [lambda f: (f / WEIGHTS).rename(f / "model.safetensors.index.json")],
    "weight_map": [lambda f: (f / WEIGHTS).unlink() or put("model.safetensors.index.json", b"{}")(f)],
    "generation_config.json": [
        put("generation_config.json", b"{"), put("generation_config.json", b"[]"),
        lambda f: edit(f, "generation_config.json", eos_token_id="end"),
    ],
    "adapter_config.json": [
        put("adapter_config.json", b"{"),
        lambda f: (f / WEIGHTS).rename(f / "adapter_model.safetensors") and edit(f, "adapter_config.json", peft_type="LORA"),
    ],
    "tokenizer.json": [cut("tokenizer.json"), put("tokenizer.json", b"")],
    "special_tokens_map.json": [put("special_tokens_map.json", b"{")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("named", "damage"), [(named, damage) for named, all_of in DAMAGES.items() for damage in all_of]
)
def test_a_damaged_folder_is_one_line_that_names_the_file(model, named, damage):
    damage(model)
    assert named in refused(model)


def test_a_file_that_nothing_reads_may_hold_anything(model):
    put("my_tokens.json", b"[1, 2]")(model)
    check_weights(str(model))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: rename(f, lambda n: "base_model.model." + n),
        put("adapter_config.json", b"{}"),
        put("tokenizer.json", b"{}"),
        put("chat_template.jinja", b"{% for m in messages %}{{ m.content }"),
    ],
    ids=["names", "adapter", "tokenizer", "template"],
)
def test_check_and_run_refuse_it_with_the_line_of_the_key(
    model, damage, rows_file, write_recipe, monkeypatch, tmp_path, capsys
):
    from reasoning_ext.check.show import check_and_print
    from reasoning_ext.errors import UserError
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    monkeypatch.chdir(tmp_path)
    damage(model)
    write_recipe(RECIPE.format(model=model))
    assert check_and_print(load_recipes(["r.yaml"]), [], True, 0, False) == 2
    assert "error: r.yaml:2: model_name_or_path: " in capsys.readouterr().err
    with pytest.raises(UserError, match=r"r.yaml:2: model_name_or_path: "):
        run_recipes(load_recipes(["r.yaml"]))
    assert not (tmp_path / "out" / "DONE").exists()


def test_what_is_loaded_is_judged_by_its_own_report_and_by_what_it_would_be_saved_with(model, monkeypatch):
    """Hub names have no folder whose headers could be read before."""
    from trl import ModelConfig

    from reasoning_ext.models import load
    from reasoning_ext.models.loaded import LoadOptions, ModelError

    edit(model, "generation_config.json", temperature=0.5, do_sample=False)
    config, to_generate = ModelConfig(dtype="float32"), LoadOptions(trainable=False)
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        load.load_model(str(model), config, LoadOptions())
    load.load_model(str(model), config, to_generate)
    monkeypatch.setattr(load, "check_weights", lambda *arguments: None)
    rename(model, lambda name: "base_model.model." + name)
    with pytest.raises(ModelError, match="21 of 21 tensors are missing"):
        load.load_model(str(model), config, to_generate)
    with pytest.raises(ModelError, match="hub/name is no adapter"):
        load.load_model("hub/name", config, LoadOptions(run_folder=model, merge_adapter=True))


def test_a_tokenizer_beyond_the_embeddings_is_refused_unless_nothing_uses_what_is_beyond(whole):
    from transformers import AutoConfig, AutoTokenizer

    from reasoning_ext.models.weights import vocabulary_problem

    tokenizer, config = AutoTokenizer.from_pretrained(whole), AutoConfig.from_pretrained(whole)
    config.vocab_size = len(tokenizer)
    assert not vocabulary_problem("m", tokenizer, config)
    tokenizer.add_tokens(["<image_soft_token>"])
    assert not vocabulary_problem("m", tokenizer, config)
    tokenizer.chat_template += "<image_soft_token>"
    assert "<image_soft_token>" in vocabulary_problem("m", tokenizer, config)
    config.vocab_size = 50
    assert vocabulary_problem("m", AutoTokenizer.from_pretrained(whole), config)


def test_on_a_cpu_the_head_gets_its_hidden_states_in_one_block(model):
    """Else torch copies a frozen head once a row: 11 GiB for 200 rows of a 135M model."""
    import torch
    from trl import ModelConfig

    from reasoning_ext.models.load import LoadOptions, load_model

    loaded = load_model(str(model), ModelConfig(dtype="float32"), LoadOptions(trainable=False))
    seen = []
    loaded.model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    whole = loaded.model(torch.arange(40).reshape(4, 10)).logits
    kept = loaded.model(torch.arange(40).reshape(4, 10), logits_to_keep=2).logits
    assert [tuple(hidden.shape[:2]) for hidden in seen] == [(4, 10), (4, 2)]
    assert all(hidden.is_contiguous() for hidden in seen)
    torch.testing.assert_close(kept, whole[:, -2:])
