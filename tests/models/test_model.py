"""Loading and handing over: adapters are trained further or merged, 4-bit weights carry one, errors name the key."""

import json

import pytest
from conftest import TINY

pytestmark = pytest.mark.slow
COMMON = """\
dataset_name: ./rows.jsonl
max_steps: 1
per_device_train_batch_size: 4
use_cpu: true
gradient_checkpointing: false
save_strategy: no
"""
GRPO = (
    "stage: grpo\nreward_funcs: [length_penalty: {max_tokens: 9}]\nnum_generations: 2\nmax_completion_length: 8\n"
    + COMMON
)


@pytest.fixture
def run(tmp_path, write_recipe, rows_file, monkeypatch):
    """Run a recipe text in this process."""
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    monkeypatch.chdir(tmp_path)

    def call(text, out):
        write_recipe(text + f"output_dir: {out}\n")
        return run_recipes(load_recipes(["r.yaml"]))

    return call


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_an_adapter_goes_from_sft_into_grpo_and_into_eval(run, tmp_path, capsys):
    from reasoning_ext.errors import UserError

    base = f"model_name_or_path: {TINY / 'model'}\nfrom_scratch: true\nlearning_rate: 1e-3\n"
    assert run("stage: sft\n" + base + COMMON, "base") == 0
    assert (
        run(
            "stage: sft\nmodel_name_or_path: base\nuse_peft: true\nlora_target_modules: [all-linear]\nlearning_rate: 1e-2\n"
            + COMMON,
            "adapter",
        )
        == 0
    )
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    further = "model_name_or_path: adapter\nuse_peft: true\nlora_target_modules: [all-linear]\nlearning_rate: 1e-2\nbeta: 0.1\n"
    assert run(GRPO + further, "further") == 0
    before, after = weights(tmp_path / "adapter"), weights(tmp_path / "further")
    assert set(before) == set(after) and any((before[k] != after[k]).any() for k in before)
    config = json.loads((tmp_path / "further" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert run(GRPO + "model_name_or_path: adapter\nlearning_rate: 1e-2\n", "merged") == 0
    assert (tmp_path / "merged" / "model.safetensors").exists()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    with pytest.raises(UserError, match="beta: found a KL term, whose reference would be the model below the adapter"):
        run(GRPO + "model_name_or_path: adapter\nbeta: 0.1\n", "wrong_reference")
    evaluation = (
        "stage: eval\nmodels: {adapter: further, merged: merged}\ndataset_name: ./rows.jsonl\nnum_generations: 2\n"
    )
    assert run(evaluation + "max_completion_length: 8\nuse_cpu: true\n", "eval") == 0
    assert "further" not in capsys.readouterr().err
    assert set(json.loads((tmp_path / "eval" / "eval.json").read_text())) == {"adapter", "merged"}


def test_four_bit_weights_carry_an_adapter(run, tmp_path):
    base = f"model_name_or_path: {TINY / 'model'}\nfrom_scratch: true\n"
    run("stage: sft\n" + base + COMMON, "base")
    quantised = "model_name_or_path: base\nload_in_4bit: true\nuse_peft: true\nlora_target_modules: [all-linear]\n"
    assert run("stage: sft\n" + quantised + COMMON, "adapter") == 0
    assert (
        run(
            GRPO
            + "model_name_or_path: adapter\nload_in_4bit: true\nuse_peft: true\nlora_target_modules: [all-linear]\n",
            "further",
        )
        == 0
    )
    assert weights(tmp_path / "further")


def test_what_cannot_be_loaded_is_said_with_its_key(run, tmp_path):
    from reasoning_ext.errors import UserError

    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^r\.yaml:2: model_name_or_path: found empty, a folder without a model"):
        run("stage: sft\nmodel_name_or_path: empty\n" + COMMON, "out")


def test_a_tokenizer_without_a_template_gets_one_that_is_saved(run, tmp_path):
    import shutil

    from reasoning_ext.think.tokenizer import DEFAULT_TEMPLATE

    shutil.copytree(TINY / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    assert run("stage: sft\nmodel_name_or_path: model\nfrom_scratch: true\n" + COMMON, "out") == 0
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == DEFAULT_TEMPLATE


def test_what_trl_refuses_is_one_line(run):
    from reasoning_ext.errors import UserError

    text = f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\n" + COMMON
    with pytest.raises(UserError, match=r"^r\.yaml:\d+: load_best_model_at_end: "):
        run(
            text + "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 1\n"
            "dataset_train_split: train[:80%]\ndataset_test_split: train[80%:]\n",
            "out",
        )


def test_a_template_that_drops_the_thought_does_not_drop_it_from_training(run, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(TINY / "model", tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(
        template.read_text().replace("{{ message.content }}<|end|>", "{{ message.content.split('</think>')[-1] }}")
    )
    seen = []
    import trl

    trained = trl.SFTTrainer.train
    monkeypatch.setattr(
        trl.SFTTrainer, "train", lambda self, **k: seen.append(self.train_dataset) or trained(self, **k)
    )
    assert run("stage: sft\nmodel_name_or_path: model\nfrom_scratch: true\n" + COMMON, "out") == 0
    from transformers import AutoTokenizer

    labels = [i for i in seen[0]["labels"][0] if i != -100]
    assert "<think>0 and 1</think>" in AutoTokenizer.from_pretrained(tmp_path / "out").decode(labels)


def test_the_training_rows_are_not_called_held_out(run):
    from reasoning_ext.errors import UserError

    text = (
        f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\neval_strategy: steps\neval_steps: 1\n"
        + COMMON
    )
    with pytest.raises(UserError, match=r"dataset_test_split: found test, but rows\.jsonl has one split"):
        run(text, "out")
    assert run(text + "dataset_train_split: train[:80%]\ndataset_test_split: train[80%:]\n", "out2") == 0


def test_an_edited_format_gives_new_rows_to_the_trainer(run, tmp_path, monkeypatch):
    """The cache of `datasets` knows a format by its name; nothing may come from there, TRL's own steps included."""
    import shutil

    import trl
    from transformers import AutoTokenizer

    seen = []
    trained = trl.SFTTrainer.train
    monkeypatch.setattr(
        trl.SFTTrainer, "train", lambda self, **k: seen.append(self.train_dataset) or trained(self, **k)
    )
    text = f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\ndataset_format: ./mine.py:mine\n"
    for said in ("111", "222222"):
        (tmp_path / "mine.py").write_text(f"def mine(row):\n    return {{'prompt': '1', 'completion': '{said}'}}\n")
        for name in [name for name in __import__("sys").modules if name.startswith("reasoning_ext_file_mine")]:
            del __import__("sys").modules[name]
        assert run(text + COMMON, "out") == 0
        shutil.rmtree(tmp_path / "out")
    labels = [i for i in seen[1]["labels"][0] if i != -100]
    assert AutoTokenizer.from_pretrained(TINY / "model").decode(labels).startswith("222222")
