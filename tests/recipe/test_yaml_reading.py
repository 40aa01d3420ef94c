"""What a recipe's file may be: numbers and names as they stand there, and hostile files that end in one line."""

import os
from pathlib import Path

import pytest

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.cli import split_overrides
from reasoning_ext.errors import UserError, print_error
from reasoning_ext.recipe.keys import RENAMED, STAGES
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.recipe.load import load_recipe, load_recipes

HEAD = "stage: sft\nmodel_name_or_path: recipes/tiny/model\ndataset_name: ./rows.jsonl\noutput_dir: runs/x\n"
NASTY = [
    "2020-13-45", "!!int abc", "!!binary x", "!!timestamp x", "!!float x", "!!set {a}", "9" * 6000, "[" * 900,
    "[" * 40 + "]" * 40,    '"a\\0b"', '"\\ud800"', "x" * 300, "x/" * 3000,
    "{[1]: 2}", "{? {a: 1} : 2}", "&a [*a]", "{<<: {a: 1}}", "=", "1:30",
    ".nan", "-.inf", "1e999", "@", "\tx", "null", "[]", "{}", "-1", "0", "''", "~", "\x07", "- a", "{a: {b: [1, {c: 2}]}}",
]  # fmt: skip


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("-007", -7), ("1_000", 1000), ("+3", 3)])
def test_whole_numbers_are_decimal(tmp_path, text, value):
    assert load_recipe(write(tmp_path, HEAD + f"seed: {text}\n")).values["seed"] == value
    assert load_recipe(write(tmp_path, HEAD), {"seed": text}).values["seed"] == value


@pytest.mark.parametrize("text", ["1:30", "0x10", "0b1", "2024-01-02", "yes", "=", "9" * 30, "!!int 3"])
def test_what_is_no_decimal_number_is_none(tmp_path, text):
    with pytest.raises(UserError, match=":5:"):
        load_recipe(write(tmp_path, HEAD + f"seed: {text}\n"))
    with pytest.raises(UserError, match="--seed"):
        load_recipe(write(tmp_path, HEAD), {"seed": text})


@pytest.mark.parametrize("value", NASTY)
def test_hostile_values_end_in_a_line_with_its_number(tmp_path, value):
    for key in (
        "seed",
        "output_dir",
        "dataset_name",
        "model_name_or_path",
        "datasets",
        "stage",
        "learning_rate",
        "rename_columns",
    ):
        lines = [line for line in HEAD.splitlines() if not line.startswith(key + ":")]
        try:
            recipe = load_recipe(write(tmp_path, "\n".join([*lines, f"{key}: {value}", ""])))
            check_recipe(recipe)
        except UserError as error:
            assert "r.yaml:" in str(error)
            assert "\n" not in str(error) and len(str(error)) < 1500


@pytest.mark.parametrize(
    "text", [b"\xff\xfea", b"a: \xe9", b"", b"\0", b"- a", b"--- \na: 1\n---\nb: 2\n", b"1: 2\n", b"? [a]\n: b\n"]
)
def test_hostile_files_end_in_a_line(tmp_path, text):
    with pytest.raises(UserError, match=r"r\.yaml:\d+:"):
        load_recipe(write(tmp_path, text))


@pytest.mark.parametrize("path", ["/dev/zero", "x" * 300, "a\0b", "/"])
def test_what_is_no_file_is_no_recipe(path):
    with pytest.raises(UserError):
        load_recipes([path])


def test_a_home_is_written_out_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe(write(tmp_path, HEAD + "datasets: [{dataset_name: ~/d.jsonl}]\n"), {"output_dir": "~/x"})
    assert recipe.output_dir == tmp_path / "x"
    assert recipe.values["datasets"][0]["dataset_name"] == os.path.join(tmp_path, "d.jsonl")


def test_dashes_are_underscores(tmp_path):
    recipe = load_recipe(write(tmp_path, HEAD + "learning-rate: 1e-5\n"))
    assert recipe.values["learning_rate"] == 1e-5
    assert recipe.lines[("learning_rate",)] == 5
    assert split_overrides(["r.yaml", "--learning-rate", "1e-5"])[1] == {"learning_rate": "1e-5"}
    with pytest.raises(UserError, match=":6: learning_rate"):
        load_recipe(write(tmp_path, HEAD + "learning-rate: 1e-5\nlearning_rate: 1e-5\n"))


def test_renamed_keys_name_the_key_of_the_installed_trl(tmp_path):
    known = {key for stage in STAGES for key in stage_keys(stage)}
    assert not known & set(RENAMED)
    assert {name for name in RENAMED.values() if " " not in name} <= known
    for old, new in (("torch_dtype", "dtype"), ("cutoff_len", "max_length"), ("warmup_ratio", "warmup_steps")):
        with pytest.raises(UserError, match=rf":5: {old}: .*\b{new}\b"):
            load_recipe(write(tmp_path, HEAD + f"{old}: 1\n"))


def test_a_template_with_a_byte_order_mark_is_read_without(tmp_path):
    from reasoning_ext.think.tokenizer import load_tokenizer

    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}", encoding="utf-8-sig")
    tokenizer = load_tokenizer("recipes/tiny/model", None, False, str(tmp_path / "t.jinja"))
    assert tokenizer.chat_template.startswith("{{")


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False), (False, {}, False)],
)
def test_an_error_is_one_line_red_on_a_terminal_alone(monkeypatch, capsys, terminal, environment, coloured):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    print_error("r.yaml:1: a\nb \x1b]0;title\x07 \ud800")
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and r"a\nb \x1b]0;title\x07 \ud800" in line
    assert ("\x1b" in line) is coloured


@pytest.mark.parametrize("models", ["[[]]", "[null]", "[a, b/a]"])
def test_models_that_have_no_names_of_their_own(tmp_path, models):
    text = f"stage: eval\nmodels: {models}\ndataset_name: recipes/tiny/last_digit.py\noutput_dir: runs/x\n"
    found = check_recipe(load_recipe(write(tmp_path, text))).problems
    assert any((problem.line, problem.key) == (2, "models") for problem in found)


def test_a_pipe_is_not_called_missing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="neither a file"):
        load_recipes([tmp_path / "pipe"])


def test_a_renamed_key_of_another_stage_says_whose_it_is(tmp_path):
    text = HEAD.replace("stage: sft", "stage: grpo") + "cutoff_len: 5\n"
    with pytest.raises(UserError, match=r":5: cutoff_len: .*max_length, which stage sft, dpo has"):
        load_recipe(write(tmp_path, text))
