"""Every mistake in a recipe ends with exit code 2 and its exact line, before torch or a trainer is imported."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import TINY

from reasoning_ext.data.format import format_names
from reasoning_ext.recipe.load import load_recipes
from tests.timing import child_seconds

TRL = version("trl")
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
LOSSES = "grpo, dr_grpo, dapo, bnpo, cispo, sapo, luspo, vespo"

# (what is replaced, by what, the message); an empty first part appends a line, which is line 11.
CASES = {
    "unknown key": (
        "", "learning_ratee: 1.0",
        "r.yaml:11: learning_ratee: unknown key (found learning_ratee: 1.0); the nearest key of stage grpo is learning_rate",
    ),
    "doubled key": ("", "num_generations: 8", "r.yaml:11: num_generations: found twice, first on line 8; allowed: once"),
    "doubled nested key": (
        "weight: 1.0", "weight: 1.0, weight: 2.0",
        "r.yaml:6: reward_funcs.0.math_answer.weight: found twice, first on line 6; allowed: once",
    ),
    "wrong type": (
        "", "learning_rate: fast", f"r.yaml:11: learning_rate: found 'fast', allowed: float (GRPOConfig of trl {TRL})",
    ),
    "number in quotes": (
        "", "learning_rate: '1e-5'",
        f"r.yaml:11: learning_rate: found '1e-5', allowed: float; write it without quotes (GRPOConfig of trl {TRL})",
    ),
    "empty value": ("", "learning_rate:", f"r.yaml:11: learning_rate: found None, allowed: float (GRPOConfig of trl {TRL})"),
    "value outside the choices": (
        "", "loss_type: dap",
        f"r.yaml:11: loss_type: found 'dap', allowed: {LOSSES}; the nearest is dapo (GRPOConfig of trl {TRL})",
    ),
    "unknown stage": (
        "stage: grpo", "stage: grop",
        "r.yaml:1: stage: found 'grop', allowed: sft, grpo, dpo, sample, eval; the nearest is grpo",
    ),
    "no stage": ("stage: grpo\n", "", "r.yaml: stage: the key is missing, allowed: sft, grpo, dpo, sample, eval"),
    "no output_dir": (
        "output_dir: out\n", "",
        "r.yaml: output_dir: the key is missing; stage grpo needs model_name_or_path, dataset_name, reward_funcs, output_dir",
    ),
    "unknown reward": (
        "math_answer:", "math_anser:",
        "r.yaml:6: reward_funcs.0.math_anser: unknown reward (found math_anser): no math_anser in reasoning_ext.rewards or "
        "trl.rewards; the nearest is math_answer; or write pkg.module.function or path/to/file.py:function",
    ),
    "unknown reward parameter": (
        "max_tokens", "max_token",
        "r.yaml:7: reward_funcs.1.length_penalty.max_token: unknown parameter of length_penalty (found max_token: 64); "
        "allowed: weight, gate, when, schedule, timeout, isolate, min_tokens, max_tokens; the nearest is max_tokens",
    ),
    "wrong type of a reward parameter": (
        "max_tokens: 64", "max_tokens: many",
        "r.yaml:7: reward_funcs.1.length_penalty.max_tokens: found 'many', allowed: int (length_penalty in length_penalty.py)",
    ),
    "unknown format": (
        "", "dataset_format: gsm9k",
        "r.yaml:11: dataset_format: unknown format (found gsm9k): no gsm9k in reasoning_ext.data.formats; the nearest is gsm8k; "
        f"or write pkg.module.function or path/to/file.py:function; formats: {', '.join(format_names())}",
    ),
    "weight that is no number": (
        "weight: 1.0", "weight: heavy", "r.yaml:6: reward_funcs.0.math_answer.weight: found 'heavy', allowed: a finite number",
    ),
    "weight that is not finite": (
        "weight: 1.0", "weight: .nan", "r.yaml:6: reward_funcs.0.math_answer.weight: found nan, allowed: a finite number",
    ),
    "all weights 0": (
        "weight: 1.0}\n  - length_penalty: {max_tokens: 64}", "weight: 0}",
        "r.yaml:5: reward_funcs: found the weight 0 for every reward, allowed: at least one weight that is not 0",
    ),
    "too few reward_weights": (
        "", "reward_weights: [1.0]", "r.yaml:11: reward_weights: found 1 weights, allowed: 2, one a reward",
    ),
    "one generation": (
        "num_generations: 4", "num_generations: 1",
        "r.yaml:8: num_generations: found 1, allowed: 2 or more, because GRPO compares a prompt's completions",
    ),
    "not a mapping": (BASE, "- stage: grpo\n", "r.yaml:1: found a sequence, allowed: a mapping of keys, one `key: value` a line"),
    "nothing": (BASE, "", "r.yaml:1: found nothing, allowed: a mapping of keys, one `key: value` a line"),
    "python tag": (
        "", "run_name: !!python/object/apply:os.system [touch marker]",
        "r.yaml:11: found the tag !!python/object/apply:os.system, allowed: plain values; a recipe never runs Python",
    ),
    "alias": (
        "", "run_name: &a x\nproject: *a", "r.yaml:12: found the alias *a, allowed: the value written out",
    ),
    "missing model": (
        "./model", "./modl",
        "r.yaml:2: model_name_or_path: found ./modl, but there is no such folder; run the recipe that makes it first",
    ),
    "4-bit weights without an adapter": (
        "from_scratch: true", "load_in_4bit: true",
        "r.yaml:3: load_in_4bit: found true with use_peft: false; an adapter can be trained on such weights, they cannot",
    ),
    "gen_kwargs without a generator": (
        "", "gen_kwargs: {num_rows: 3}",
        "r.yaml:11: gen_kwargs: found with ./rows.jsonl, allowed: with a Python file that makes the rows",
    ),
    "a model that is a file": (
        "./model", "./rows.jsonl",
        "r.yaml:2: model_name_or_path: found ./rows.jsonl, a file, allowed: a folder with a model, or a hub name",
    ),
    "a folder without a model": (
        "./model", "../" + "{folder}",
        "r.yaml:2: model_name_or_path: found ../{folder}, a folder without a model: none of config.json and adapter_config.json "
        "is there",
    ),
    "a run that looks like a hub name": (
        "./model", "runs/first",
        "r.yaml:2: model_name_or_path: found runs/first, but there is no such folder; run the recipe that makes it first",
    ),
    "missing chat template": (
        "", "chat_template_path: ./none.jinja",
        "r.yaml:11: chat_template_path: found ./none.jinja, but there is no such file ({path}/none.jinja)",
    ),
    "a chat template that is no text": (
        "", "chat_template_path: ./latin.jinja",
        "r.yaml:11: chat_template_path: found ./latin.jinja, which cannot be read as text in UTF-8: 'utf-8' codec can't decode "
        "byte 0xff in position 0: invalid start byte",
    ),
    "an output_dir that is a file": (
        "output_dir: out", "output_dir: rows.jsonl",
        "r.yaml:10: output_dir: found rows.jsonl, but rows.jsonl is a file, allowed: a new or an empty folder",
    ),
    "an output_dir within a file": (
        "output_dir: out", "output_dir: rows.jsonl/out",
        "r.yaml:10: output_dir: found rows.jsonl/out, but rows.jsonl is a file, allowed: a new or an empty folder",
    ),
    "an output_dir that is empty": (
        "output_dir: out", "output_dir:",
        "r.yaml:10: output_dir: the key is missing; stage grpo needs model_name_or_path, dataset_name, reward_funcs, output_dir",
    ),
    "a batch of nothing": (
        "per_device_train_batch_size: 8", "per_device_train_batch_size: 0",
        "r.yaml:9: per_device_train_batch_size: found 0, allowed: 1 or more",
    ),
    "no accumulation": (
        "", "gradient_accumulation_steps: 0", "r.yaml:11: gradient_accumulation_steps: found 0, allowed: 1 or more",
    ),
    "samples below zero": ("", "max_samples: -1", "r.yaml:11: max_samples: found -1, allowed: 1 or more"),
    "a weight in words": (
        "", "reward_weights: [0.0, 0.0]",
        "r.yaml:11: reward_weights: found [0.0, 0.0], allowed: finite numbers, at least one of them not 0",
    ),
    "a key that is no name": ("", "8: true", "r.yaml:11: found the key 8, allowed: names"),
    "a token": (
        "", "hub_token: hf_x",
        "r.yaml:11: hub_token: not allowed in a recipe (found 'hf_x'): a token is read from the environment variable HF_TOKEN "
        "alone",
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, rows_file):
    shutil.copytree(TINY / "model", tmp_path / "model")
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_mistake(name, folder, cli, write_recipe):
    old, new, message = (part.format(folder=folder.name, path=folder) if "{folder}" in part or "{path}" in part else part
                         for part in CASES[name])  # fmt: skip
    assert old in BASE
    (folder / "latin.jinja").write_bytes(b"\xff\xfe")
    write_recipe(BASE.replace(old, new) if old else BASE + new + "\n")
    result = cli("run", "r.yaml")
    assert result.err == f"error: {message}\n"
    assert (result.code, result.heavy, result.out) == (2, [], "")
    assert not (folder / "out").exists() and not (folder / "marker").exists()


@pytest.mark.parametrize(
    ("base", "where"),
    [
        ("/nowhere/base", ""),
        ("./base", " (relative paths count from {folder})"),
        ("gone/merged_base", " (relative paths count from {folder})"),
        ("model/base", " (relative paths count from {folder})"),
    ],
)
def test_an_adapter_whose_base_is_gone(base, where, folder, cli, write_recipe):
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    write_recipe(BASE.replace("./model", "./adapter").replace("from_scratch: true\n", "use_peft: true\n"))
    result = cli("run", "r.yaml")
    assert result.err == (
        f"error: r.yaml:2: model_name_or_path: found ./adapter, an adapter whose base {base} is not there"
        f"{where.format(folder=folder)}; start where it was trained, or mend base_model_name_or_path in "
        f"{folder}/adapter/adapter_config.json\n"
    )
    assert (result.code, result.heavy) == (2, [])


def test_an_adapter_that_names_no_base_is_called_as_the_recipe_calls_it(folder, cli, write_recipe):
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    write_recipe(BASE.replace("./model", "./adapter").replace("from_scratch: true\n", "use_peft: true\n"))
    found = "found ./adapter, an adapter whose adapter_config.json names no base_model_name_or_path"
    assert cli("run", "r.yaml").err == f"error: r.yaml:2: model_name_or_path: {found}\n"


def test_an_adapter_on_a_base_that_is_there_or_on_the_hub_is_let_through(folder):
    from reasoning_ext.check.keys import check_recipe

    (folder / "r.yaml").write_text(
        BASE.replace("./model", "./adapter").replace("from_scratch: true\n", "use_peft: true\n")
    )
    (folder / "adapter").mkdir()
    for base in ("Qwen/Qwen3-8B", "gpt2", str(folder / "model")):
        (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        assert check_recipe(load_recipes([folder / "r.yaml"])[0]).problems == []


def in_one_go(folder, text):
    """Return the errors that `check` prints of a recipe, without the file's name."""
    from reasoning_ext.check import check

    (folder / "r.yaml").write_text(text)
    wrong = []
    [checked] = check(load_recipes([folder / "r.yaml"], {}, wrong), offline=True, wrong=wrong)
    return [str(problem).partition("r.yaml:")[2] for problem in checked.errors]


def test_check_names_every_mistake_at_once(folder):
    text = BASE.replace("./model", "./modl").replace("rows.jsonl", "rowz.jsonl").replace("math_answer", "math_anser")
    text = text.replace("max_tokens: 64", "max_token: 64").replace("num_generations: 4", "num_generations: [4]")
    text += "learning_ratee: 1\ntemperature: hot\nthink_tags: [a]\nchat_template_path: ./no.jinja\nmax_samples: 0\n"
    found = [line.partition(":")[0] + " " + line.split(": ")[1] for line in in_one_go(folder, text)]
    assert sorted(found) == sorted(
        [
            "2 model_name_or_path", "4 dataset_name", "6 reward_funcs.0.math_anser", "7 reward_funcs.1.length_penalty.max_token",
            "8 num_generations", "11 learning_ratee", "12 temperature", "13 think_tags", "14 chat_template_path",
            "15 max_samples",
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("num_generations: 4", "num_generations: [4]", 8),  # and not that 8 generations do not go into the batch
        ("per_device_train_batch_size: 8", "per_device_train_batch_size: many", 9),
        ("per_device_train_batch_size: 8", "per_device_train_batch_size: -2", 9),
        ("model_name_or_path: ./model", "model_name_or_path: 5", 2),  # and not that the key is missing
        ("dataset_name: ./rows.jsonl", "dataset_name: [a]", 4),
        ("output_dir: out", "output_dir: [out]", 10),
        ("weight: 1.0", "weight: 0.0, gate: length_penalt", 6),
        ("max_tokens: 64", "max_tokens: 64, gate: math_answer, x: 1", 7),
        ("math_answer: {weight: 1.0}", "math_answer: {weight: heavy}", 6),
        (
            "math_answer: {weight: 1.0}\n  - length_penalty: {max_tokens: 64}",
            "math_answer: {weight: heavy}\n  - length_penalty: {max_tokens: 64, gate: math_answer}",
            6,
        ),
    ],
)
def test_nothing_is_said_that_follows_from_another_mistake(old, new, number, folder):
    assert old in BASE
    [line] = in_one_go(folder, BASE.replace(old, new))
    assert line.startswith(f"{number}: ")


def test_all_mistakes_in_an_sft_recipe(folder):
    text = "stage: sft\nmodel_name_or_path: ./model\ndataset_name: ./rows.jsonl\noutput_dir: out\n"
    text += "thought_weight: -1\nanswer_weight: .inf\ntrace_filters: {min_token: 3, max_repetition: x}\nload_in_8bit: true\n"
    lines = [line.split(": found")[0] for line in in_one_go(folder, text)]
    assert lines == [
        "5: thought_weight", "6: answer_weight", "8: load_in_8bit",
        "7: trace_filters.min_token: unknown filter (found min_token: 3); the nearest is min_tokens",
        "7: trace_filters.max_repetition",
    ]  # fmt: skip


def test_missing_file(cli, write_recipe):
    write_recipe(BASE, "grpo.yaml")
    result = cli("run", "grop.yaml")
    assert (result.code, result.heavy) == (2, [])
    assert result.err == "error: grop.yaml: no such file; the nearest is grpo.yaml\n"


def test_missing_data_file(folder, cli, write_recipe):
    write_recipe(BASE.replace("rows.jsonl", "rowz.jsonl"))
    result = cli("run", "r.yaml")
    assert (result.code, result.heavy) == (2, [])
    assert result.err == (
        f"error: r.yaml:4: dataset_name: found ./rowz.jsonl, but there is no such file or folder ({folder / 'rowz.jsonl'})\n"
    )


def test_column_that_a_reward_needs(folder, cli, write_recipe):
    (folder / "rows.jsonl").write_text('{"prompt": "1+1", "completion": "2"}\n')
    write_recipe(BASE)
    result = cli("run", "r.yaml")
    assert result.code == 2 and not {"torch", "transformers", "trl"} & set(result.heavy)
    assert result.err == (
        "error: r.yaml:4: dataset_name: the reward math_answer needs the column answer; after formatting there are prompt, "
        "completion\n"
    )


def test_output_dir_of_a_different_recipe(folder, cli, write_recipe):
    from reasoning_ext.recipe.load import load_recipe
    from reasoning_ext.runs.folder import open_run

    open_run(folder / "out", load_recipe(write_recipe(BASE)).values, {})
    (folder / "out" / "metrics.jsonl").write_text("{}\n")
    write_recipe(BASE.replace("num_generations: 4", "num_generations: 2"))
    result = cli("run", "r.yaml")
    assert (result.code, result.heavy) == (2, [])
    assert result.err == (
        "error: r.yaml:10: output_dir: found out, made by a different recipe (num_generations 4 -> 2); choose another "
        "output_dir or remove the folder\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--learning_rat", "1e-5"],
            "--learning_rat: unknown key (found --learning_rat 1e-5); the nearest key of stage grpo is learning_rate",
        ),
        (
            ["--learning_rate", "quick"],
            "r.yaml with --learning_rate from the command line: learning_rate: found 'quick', allowed: float "
            f"(GRPOConfig of trl {TRL})",
        ),
        (
            ["--learning_rate"],
            "--learning_rate: found no value, allowed: --learning_rate VALUE or --learning_rate=VALUE",
        ),
        (["--seed", "1", "--seed=2"], "--seed: found twice, allowed: once"),
        (["--stage", "sft"], "--stage: a recipe's stage cannot be overridden; write a recipe for the other stage"),
    ],
)
def test_override(arguments, message, folder, cli, write_recipe):
    write_recipe(BASE)
    result = cli("run", "r.yaml", *arguments)
    assert (result.code, result.heavy, result.err) == (2, [], f"error: {message}\n")


def test_a_mistake_in_the_last_of_several_recipes_stops_the_first(folder, cli, write_recipe):
    write_recipe(BASE, "1.yaml")
    write_recipe(BASE.replace("output_dir: out", "output_dir: out2") + "lerning_rate: 1\n", "2.yaml")
    result = cli("run", "1.yaml", "2.yaml")
    assert result.code == 2 and result.err.startswith("error: 2.yaml:11: lerning_rate: unknown key")
    assert not (folder / "out").exists()


EVAL = "stage: eval\ndataset_name: ./rows.jsonl\noutput_dir: out\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "models: [a/model, b/model]",
            "r.yaml:4: models: found two models called model; write models: {label: path, ...}",
        ),
        ("models: {8: ./model}", "r.yaml:4: models: found the labels [8], allowed: names; write a number in quotes"),
        ("model_name_or_path: ./model\nnum_generations: 0", "r.yaml:5: num_generations: found 0, allowed: 1 or more"),
        (
            "model_name_or_path: ./model\nmax_completion_length: null",
            "r.yaml:5: max_completion_length: found None, allowed: 1 or more",
        ),
        (
            "model_name_or_path: ./model\nlora_r: 8",
            "r.yaml:5: lora_r: unknown key (found lora_r: 8); stage sft, grpo, dpo has this key, stage eval has not",
        ),
    ],
)
def test_mistake_in_an_evaluation(line, message, folder, cli, write_recipe):
    write_recipe(EVAL + line + "\n")
    result = cli("run", "r.yaml")
    assert (result.code, result.heavy, result.err) == (2, [], f"error: {message}\n")


def test_an_alias_bomb_is_refused_at_once(cli, write_recipe):
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 12))
    write_recipe("l0: &l0 [x]\n" + levels)
    result = cli("run", "r.yaml", timeout=60)  # without end if it were unfolded
    assert result.code == 2 and "found the alias *l0" in result.err


def test_a_failing_recipe_is_answered_in_little_more_than_python_starts(folder, write_recipe):
    """Half a second is 15 times `python -c pass`; processor time, so that the ratio holds on a busy machine too."""
    write_recipe(BASE + "learning_ratee: 1\n")

    def seconds(*command):
        return child_seconds(lambda: subprocess.run(command, cwd=folder, capture_output=True, check=False))

    ours = min(seconds(sys.executable, "-m", "reasoning_ext", "run", "r.yaml") for _ in range(3))
    yardstick = min(seconds(sys.executable, "-c", "import yaml, typer, asyncio, email") for _ in range(3))
    assert ours < 6 * yardstick
