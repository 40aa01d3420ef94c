"""Every mistake in a recipe is one line with its place, all of them at once, before torch or a trainer is imported."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import TINY

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.shown import visible
from tests.timing import child_seconds

BASE = """\
stage: grpo
model_name_or_path: ./model
from_scratch: true
dataset_name: ./rows.jsonl
reward_funcs:
  - math_answer: {weight: 1.0}
  - length_penalty: {max_tokens: 64}
num_generations: 4
per_device_train_batch_size: 8
output_dir: out
"""
SFT = "stage: sft\nmodel_name_or_path: ./model\ndataset_name: ./rows.jsonl\noutput_dir: out\n"
EVAL = "stage: eval\ndataset_name: ./rows.jsonl\noutput_dir: out\n"
ADAPTER = BASE.replace("./model", "./adapter").replace("from_scratch: true\n", "use_peft: true\n")

# (what is replaced, by what, where the mistakes are); an empty first part appends a line, which is line 11.
CASES = [
    ("", "learning_ratee: 1.0", "11 learning_ratee"),
    ("", "num_generations: 8", "11 num_generations"),  # a second time
    ("weight: 1.0", "weight: 1.0, weight: 2.0", "6 reward_funcs.0.math_answer.weight"),
    ("", "learning_rate: fast", "11 learning_rate"),
    ("", "learning_rate: '1e-5'", "11 learning_rate"),
    ("", "learning_rate:", "11 learning_rate"),
    ("", "loss_type: dap", "11 loss_type"),
    ("stage: grpo", "stage: grop", "1 stage"),
    ("stage: grpo\n", "", "None stage"),
    ("output_dir: out\n", "", "None output_dir"),
    ("output_dir: out", "output_dir:", "10 output_dir"),
    ("output_dir: out", "output_dir: rows.jsonl", "10 output_dir"),  # a file
    ("output_dir: out", "output_dir: rows.jsonl/out", "10 output_dir"),
    ("math_answer:", "math_anser:", "6 reward_funcs.0.math_anser"),
    ("max_tokens", "max_token", "7 reward_funcs.1.length_penalty.max_token"),
    ("max_tokens: 64", "max_tokens: many", "7 reward_funcs.1.length_penalty.max_tokens"),
    ("weight: 1.0", "weight: .nan", "6 reward_funcs.0.math_answer.weight"),
    ("weight: 1.0}\n  - length_penalty: {max_tokens: 64}", "weight: 0}", "5 reward_funcs"),
    ("", "reward_weights: [1.0]", "11 reward_weights"),
    ("", "reward_weights: [0.0, 0.0]", "11 reward_weights"),
    ("", "dataset_format: gsm9k", "11 dataset_format"),
    ("", "gen_kwargs: {num_rows: 3}", "11 gen_kwargs"),  # of a file
    ("num_generations: 4", "num_generations: 1", "8 num_generations"),
    ("", "gradient_accumulation_steps: 0", "11 gradient_accumulation_steps"),
    ("", "max_samples: -1", "11 max_samples"),
    ("", "run_name: !!python/object/apply:os.system [touch marker]", "11 "),
    ("", "run_name: &a x\nproject: *a", "12 "),
    ("", "8: true", "11 "),
    ("", "learning_rate:1e-5\nseed: 1", "11 "),
    ("stage: grpo", "stage:grpo", "1 "),
    ("weight: 1.0}", "weight: 1.0}\n  x:1", "7 "),
    (BASE, "- stage: grpo\n", "1 "),
    (BASE, "", "1 "),
    ("./model", "./modl", "2 model_name_or_path"),
    ("./model", "./rows.jsonl", "2 model_name_or_path"),
    ("./model", "../no_model", "2 model_name_or_path"),
    ("./model", "runs/first", "2 model_name_or_path"),  # which looks like a name on the hub
    ("rows.jsonl", "rowz.jsonl", "4 dataset_name"),
    ("from_scratch: true", "load_in_4bit: true", "3 load_in_4bit"),  # without an adapter
    ("", "chat_template_path: ./none.jinja", "11 chat_template_path"),
    ("", "chat_template_path: ./latin.jinja", "11 chat_template_path"),
    ("", "hub_token: hf_x", "11 hub_token"),
    ("", "lora_rank: 8", "11 lora_rank"),  # what others call it
    ("", "cutoff_len: 8", "11 cutoff_len"),  # which another stage has
    # and nothing is said that follows from another mistake
    ("num_generations: 4", "num_generations: [4]", "8 num_generations"),
    ("per_device_train_batch_size: 8", "per_device_train_batch_size: -2", "9 per_device_train_batch_size"),
    ("model_name_or_path: ./model", "model_name_or_path: 5", "2 model_name_or_path"),
    ("output_dir: out", "output_dir: [out]", "10 output_dir"),
    ("weight: 1.0", "weight: 0.0, gate: length_penalt", "6 reward_funcs.0.math_answer.gate"),
    ("weight: 1.0", "weight: heavy, gate: length_penalty", "6 reward_funcs.0.math_answer.weight"),
    # several
    (BASE, SFT + "thought_weight: -1\nanswer_weight: .inf\ntrace_filters: {min_token: 3, max_repetition: x}\nload_in_8bit: 1\n",
     "8 load_in_8bit, 5 thought_weight, 6 answer_weight, 7 trace_filters.min_token, 7 trace_filters.max_repetition"),
    (BASE, EVAL + "models: [a/model, b/model]\n", "4 models"),
    (BASE, EVAL + "models: {8: ./model}\n", "4 models"),
    (BASE, EVAL + "models: [[]]\n", "4 models, 4 models"),
    (BASE, EVAL + "model_name_or_path: ./model\nnum_generations: -1\nmax_completion_length: null\nlora_r: 8\n",
     "7 lora_r, 5 num_generations, 6 max_completion_length"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, rows_file, monkeypatch):
    """A folder with a model, rows, and things that are neither, in which the test stands."""
    folder = tmp_path / "here"
    shutil.copytree(TINY / "model", folder / "model")
    shutil.copy(rows_file, folder / "rows.jsonl")
    (tmp_path / "no_model").mkdir()
    (folder / "adapter").mkdir()
    (folder / "latin.jinja").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(folder)
    return folder


def found_in(folder, text, overrides=None):
    """Return what is wrong with a recipe's keys."""
    (folder / "r.yaml").write_text(text)
    wrong = []
    recipes = load_recipes(["r.yaml"], overrides or {}, wrong)
    return wrong + [problem for recipe in recipes for problem in check_recipe(recipe).problems]


@pytest.mark.parametrize(
    ("old", "new", "places"), CASES, ids=[case[2 if case[0] == BASE else 1][:40] for case in CASES]
)
def test_mistake(old, new, places, folder, wording):
    assert old in BASE
    found = found_in(folder, BASE.replace(old, new) if old else BASE + new + "\n")
    assert ", ".join(f"{problem.line} {problem.key}" for problem in found) == places
    assert all(problem.file == "r.yaml" and problem.code and "\n" not in str(problem) for problem in found)
    assert not (folder / "marker").exists()
    wording([re.sub(r"(of \w+) [\d.]+\)", r"\1)", str(problem)) for problem in found])  # without the version


def test_every_mistake_is_named_at_once_and_the_first_ends_a_run(folder, cli, tmp_path):
    text = BASE.replace("./model", "./modl").replace("math_answer", "math_anser").replace("max_tokens", "max_token")
    text += "learning_ratee: 1\ntemperature: hot\nthink_tags: [a]\nmax_samples: 0\n"
    assert sorted(problem.line for problem in found_in(folder, text)) == [2, 6, 7, 11, 12, 13, 14]
    (tmp_path / "1.yaml").write_text(BASE)
    (tmp_path / "2.yaml").write_text(text)
    done = cli("run", "1.yaml", "2.yaml")
    assert (done.code, done.heavy, done.out) == (2, [], "") and not (tmp_path / "out").exists()
    assert done.err.startswith("error: 2.yaml:11: learning_ratee: ") and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("base", "wrong"),
    [
        ("/nowhere/base", True), ("./base", True), ("gone/merged_base", True), ("model/base", True), (None, True),
        ("Qwen/Qwen3-8B", False), ("gpt2", False), ("model", False),
    ],
)  # fmt: skip
def test_an_adapter_whose_base_is_gone(base, wrong, folder, wording):
    named = {} if base is None else {"base_model_name_or_path": base}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(named))
    found = found_in(folder, ADAPTER)
    assert [(problem.line, problem.key) for problem in found] == [(2, "model_name_or_path")] * wrong
    wording(found)


@pytest.mark.parametrize(
    ("overrides", "places"),
    [
        ({"learning_rat": "1e-5"}, "None --learning_rat"), ({"learning_rate": "quick"}, "0 learning_rate"),
        ({"learning_rate": "["}, "None --learning_rate"), ({"stage": "sft"}, "None --stage"),
    ],
)  # fmt: skip
def test_override(overrides, places, folder, wording):
    found = found_in(folder, BASE, overrides)
    assert ", ".join(f"{problem.line} {problem.key}" for problem in found) == places
    wording([re.sub(r"(of \w+) [\d.]+\)", r"\1)", str(problem)) for problem in found])  # without the version


@pytest.mark.parametrize("name", ["grop.yaml", "empty", "/dev/zero", "x" * 300, "a\0b", "pipe"])
def test_what_is_no_recipe(name, folder, wording):
    os.mkfifo(folder / "pipe")
    (folder / "empty").mkdir()
    (folder / "grpo.yaml").write_text(BASE)
    with pytest.raises(UserError) as error:
        load_recipes([name])
    wording(visible(str(error.value)))


def test_rows_without_a_column_that_a_reward_needs_and_a_folder_of_another_recipe(folder, tmp_path, cli, wording):
    from reasoning_ext.recipe.load import load_recipe
    from reasoning_ext.runs.folder import open_run

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1", "completion": "2"}\n')
    (tmp_path / "r.yaml").write_text(BASE)
    done = cli("run", "r.yaml")
    assert done.code == 2 and "r.yaml:4: dataset_name: " in done.err
    assert not {"torch", "transformers", "trl"} & {*done.heavy}
    wording(done.err)
    open_run(tmp_path / "out", load_recipe(tmp_path / "r.yaml").values, {})
    (tmp_path / "out" / "metrics.jsonl").write_text("{}\n")
    done = cli("run", "r.yaml", "--num_generations", "2")
    assert (done.code, done.heavy) == (2, []) and "r.yaml:10: output_dir: " in done.err
    wording(done.err)


def test_a_failing_recipe_is_answered_in_little_more_than_python_starts(folder):
    """Half a second is 15 times `python -c pass`; processor time, so that the ratio holds on a busy machine too."""
    (folder / "r.yaml").write_text(BASE + "learning_ratee: 1\n")

    # a Python that may not keep bytecode would read ours anew at each start, and what is installed not
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}

    def seconds(*command):
        return child_seconds(lambda: subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False))

    ours = min(seconds(sys.executable, "-m", "reasoning_ext", "run", "r.yaml") for _ in range(3))
    yardstick = min(seconds(sys.executable, "-c", "import yaml, typer, asyncio, email") for _ in range(3))
    assert ours < 6 * yardstick
