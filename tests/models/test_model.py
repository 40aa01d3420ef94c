"""Loading and handing over, in whole runs: what is trained, what is refused in one line, what is saved."""

import json
import shutil

import pytest
from conftest import TINY

from reasoning_ext.check import Look
from reasoning_ext.errors import UserError
from reasoning_ext.think.tokenizer import DEFAULT_TEMPLATE

pytestmark = pytest.mark.slow
COMMON = """\
dataset_name: ./rows.jsonl
max_steps: 1
per_device_train_batch_size: 4
use_cpu: true
gradient_checkpointing: false
save_strategy: no
"""
SFT = f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\n" + COMMON
GRPO = (
    "stage: grpo\nmodel_name_or_path: adapter\nreward_funcs: [length_penalty: {max_tokens: 9}]\nnum_generations: 2\n"
    "max_completion_length: 8\nlearning_rate: 1e-2\n" + COMMON
)


@pytest.fixture
def run(tmp_path, write_recipe, rows_file, monkeypatch):
    """Run a recipe text in this process, without the whole of `check`."""
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Look, "look", lambda self: None)

    def call(text, out="out"):
        write_recipe(text + f"output_dir: {out}\n")
        return run_recipes(load_recipes(["r.yaml"]))

    return call


@pytest.fixture
def trained_rows(monkeypatch):
    """What came to SFTTrainer's training, decoded: a list of the first row's trained text of each run."""
    import trl

    seen, before = [], trl.SFTTrainer.train

    def train(self, **kwargs):
        labels = [i for i in self.train_dataset[0]["labels"] if i != -100]
        seen.append(self.processing_class.decode(labels))
        return before(self, **kwargs)

    monkeypatch.setattr(trl.SFTTrainer, "train", train)
    return seen


def test_an_adapter_goes_from_sft_into_grpo_of_all_weights_and_into_eval(run, tmp_path, capsys):
    assert run(SFT + "learning_rate: 1e-3\n", "base") == 0
    adapter = "use_peft: true\nlora_target_modules: [all-linear]\n"
    assert run(f"stage: sft\nmodel_name_or_path: base\nlearning_rate: 1e-2\n{adapter}{COMMON}", "adapter") == 0
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    capsys.readouterr()
    assert run(GRPO, "merged") == 0 and (tmp_path / "merged" / "model.safetensors").exists()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert "adapter is merged onto its base, and all weights are trained" in capsys.readouterr().out
    evaluation = "stage: eval\nmodels: {a: adapter, merged: merged}\ndataset_name: ./rows.jsonl\nnum_generations: 2\n"
    assert run(evaluation + "max_completion_length: 8\nuse_cpu: true\n", "eval") == 0
    assert set(json.loads((tmp_path / "eval" / "eval.json").read_text())) == {"a", "merged"}


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("load_best_model_at_end: true\neval_strategy: epoch\ntest_size: 3", "load_best_model_at_end"),
        ("eval_strategy: epoch", "dataset_test_split"),  # the training rows are not held out
        ("model_name_or_path: empty", "model_name_or_path"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_key(run, tmp_path, lines, key):
    (tmp_path / "empty").mkdir()
    text = SFT.replace(f"model_name_or_path: {TINY / 'model'}\n", "") if "model_name" in lines else SFT
    with pytest.raises(UserError) as error:
        run(f"{text}{lines}\n")
    problem = error.value.problem
    assert (problem.file, problem.key) == ("r.yaml", key) and "\n" not in str(problem)


def test_a_template_that_drops_the_thought_does_not_drop_it_from_training_and_one_is_saved(run, tmp_path, trained_rows):
    shutil.copytree(TINY / "model", tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    drops = "{{ message.content.split('</think>')[-1] }}"
    template.write_text(template.read_text().replace("{{ message.content }}<|end|>", drops))
    text = SFT.replace(str(TINY / "model"), "model")
    assert run(text) == 0 and "<think>0 and 1</think>" in trained_rows[0]
    template.unlink()  # a tokenizer without a template gets one
    assert run(text, "again") == 0
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == DEFAULT_TEMPLATE


def test_an_edited_format_gives_new_rows_to_the_trainer(run, tmp_path, trained_rows, monkeypatch):
    """The cache of `datasets` knows a format by its name; nothing may come from there, TRL's own steps included."""
    import sys

    for said in ("111", "222222"):
        (tmp_path / "mine.py").write_text(f"def mine(row):\n    return {{'prompt': '1', 'completion': '{said}'}}\n")
        for name in [name for name in sys.modules if name.startswith("reasoning_ext_file_mine")]:
            monkeypatch.delitem(sys.modules, name)
        assert run(SFT + "dataset_format: ./mine.py:mine\n", f"out{said}") == 0
    assert trained_rows[1].startswith("222222")
