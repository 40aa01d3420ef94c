"""Recipes that are right, and what a recipe's file may be: numbers and names as they stand there, hostile ones too."""

from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.keys import RENAMED, STAGES
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.recipe.load import load_recipe, load_recipes, split_overrides
from reasoning_ext.scoring.spec import parse_rewards

HEAD = "stage: sft\nmodel_name_or_path: recipes/tiny/model\ndataset_name: ./rows.jsonl\noutput_dir: runs/x\n"
NASTY = [
    "2020-13-45", "!!int abc", "!!binary x", "!!timestamp x", "!!float x", "!!set {a}", "9" * 6000, "[" * 900,
    "[" * 40 + "]" * 40, '"a\\0b"', '"\\ud800"', "x" * 300, "x/" * 3000, "{[1]: 2}", "{? {a: 1} : 2}", "&a [*a]",
    "{<<: {a: 1}}", "=", "1:30", ".nan", "-.inf", "1e999", "@", "\tx", "null", "[]", "{}", "-1", "0", "''", "~", "\x07", "- a",
    "{a: {b: [1, {c: 2}]}}",
]  # fmt: skip
KEYS = "seed output_dir dataset_name model_name_or_path datasets stage learning_rate rename_columns".split()


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        *(("learning_rate", text, 1e-5) for text in ("1e-5", "1.0e-5", "0.00001", "1E-5", "+1e-5")),
        ("seed", "010", 10), ("seed", "-007", -7), ("seed", "1_000", 1000), ("seed", "+3", 3),
        ("save_strategy", "no", "no"), ("use_cpu", "true", True),
    ],
)  # fmt: skip
def test_values_are_read_alike_in_a_file_and_on_the_command_line(tmp_path, key, text, value):
    assert load_recipe(write(tmp_path, HEAD + f"{key}: {text}\n")).get(key) == value
    assert load_recipe(write(tmp_path, HEAD), {key: text}).get(key) == value
    recipe = load_recipe(write(tmp_path, "stage: grpo\nreward_funcs: [think_format: {weight: 1e-5}]\n"))
    [spec] = parse_rewards(recipe.get("reward_funcs"), tmp_path)
    assert spec.weight == 1e-5


@pytest.mark.parametrize("text", ["1:30", "0x10", "0b1", "2024-01-02", "yes", "=", "9" * 30, "!!int 3"])
def test_what_is_no_decimal_number_is_none(tmp_path, text):
    with pytest.raises(UserError, match=":5:"):
        load_recipe(write(tmp_path, HEAD + f"seed: {text}\n"))
    with pytest.raises(UserError, match="--seed"):
        load_recipe(write(tmp_path, HEAD), {"seed": text})


@pytest.mark.parametrize("value", NASTY)
def test_hostile_values_end_in_a_line_with_its_number(tmp_path, value):
    for key in KEYS:
        lines = [line for line in HEAD.splitlines() if not line.startswith(key + ":")]
        try:
            check_recipe(load_recipe(write(tmp_path, "\n".join([*lines, f"{key}: {value}", ""]))))
        except UserError as error:
            assert "r.yaml:" in str(error) and "\n" not in str(error) and len(str(error)) < 1500


@pytest.mark.parametrize(
    "text", [b"\xff\xfea", b"a: \xe9", b"", b"\0", b"- a", b"--- \na: 1\n---\nb: 2\n", b"1: 2\n", b"? [a]\n: b\n"]
)
def test_hostile_files_end_in_a_line(tmp_path, text):
    with pytest.raises(UserError, match=r"r\.yaml:\d+:"):
        load_recipe(write(tmp_path, text))


def test_an_alias_bomb_is_refused_at_once(tmp_path):
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 12))
    with pytest.raises(UserError, match=":2: "):  # without end if it were unfolded
        load_recipe(write(tmp_path, "l0: &l0 [x]\n" + levels))


def test_defaults_are_those_of_the_installed_classes(write_recipe):
    recipe = load_recipe(write_recipe("stage: grpo\n"))
    assert recipe.get("num_generations") == 8 and recipe.get("lora_r") == 16 and recipe.get("backend") == "trl"


def test_an_override_applies_to_the_recipes_that_know_its_key(write_recipe):
    files = [write_recipe("stage: sft\nseed: 1\n", "1.yaml"), write_recipe("stage: grpo\nseed: 1\n", "2.yaml")]
    sft, grpo = load_recipes(files, {"num_generations": "4", "seed": "7"})
    assert (sft.get("seed"), grpo.get("seed"), grpo.get("num_generations")) == (7, 7, 4)
    assert "num_generations" not in sft.values


def test_a_folder_runs_in_the_order_of_its_numbers(tmp_path, write_recipe):
    for name in ("10_last.yaml", "2_second.yaml", "1_first.yaml"):
        write_recipe("stage: sft\n", name)
    assert [r.path.name for r in load_recipes([tmp_path])] == ["1_first.yaml", "2_second.yaml", "10_last.yaml"]
    assert [r.stage for r in load_recipes([TINY])] == ["sft", "grpo", "sample", "sft", "sft", "eval"]


def test_a_dot_path_is_relative_to_the_recipe_a_home_is_written_out_and_any_other_path_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    recipe = load_recipe(write(tmp_path, HEAD + "datasets: [{dataset_name: ~/d.jsonl}]\n"), {"output_dir": "~/x"})
    assert recipe.local("./model") == str(tmp_path / "model") and recipe.local("runs/1_sft") == "runs/1_sft"
    assert recipe.output_dir == Path("/home/me/x") and recipe.values["datasets"] == [
        {"dataset_name": "/home/me/d.jsonl"}
    ]


def test_dashes_are_underscores(tmp_path):
    recipe = load_recipe(write(tmp_path, HEAD + "learning-rate: 1e-5\n"))
    assert recipe.values["learning_rate"] == 1e-5 and recipe.lines[("learning_rate",)] == 5
    assert split_overrides(["a.yaml", "--learning-rate", "1", "b.yaml", "--lr=-1"]) == (
        ["a.yaml", "b.yaml"], {"learning_rate": "1", "lr": "-1"},
    )  # fmt: skip
    with pytest.raises(UserError, match=":6: learning_rate"):
        load_recipe(write(tmp_path, HEAD + "learning-rate: 1e-5\nlearning_rate: 1e-5\n"))


@pytest.mark.parametrize(
    "arguments",
    [["r.yaml", "--seed"], ["r.yaml", "--seed", "1", "--seed=2"], ["--seed", "1"], ["r.yaml", "--sedes", "0", "1"]],
)
def test_overrides_that_are_none(arguments, wording):
    with pytest.raises(UserError) as error:
        split_overrides(arguments)
    wording(error.value)


def test_renamed_keys_name_a_key_of_the_installed_trl():
    known = {key for stage in STAGES for key in stage_keys(stage)}
    assert not known & {*RENAMED} and {*RENAMED.values()} <= known


def test_a_template_with_a_byte_order_mark_is_read_without(tmp_path):
    from reasoning_ext.think.tokenizer import load_tokenizer

    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}", encoding="utf-8-sig")
    assert load_tokenizer(str(TINY / "model"), None, False, str(tmp_path / "t.jinja")).chat_template.startswith("{{")
