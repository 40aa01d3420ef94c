"""The command line: what it offers, and that help comes at once."""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from reasoning_ext.cli import split_overrides
from tests.timing import child_seconds

BIN = Path(sys.executable).parent


def test_help_names_the_commands_and_imports_nothing_heavy(cli):
    result = cli("--help")
    assert result.code == 0 and result.heavy == []
    for command in ("run", "check", "schema", "score", "report", "ask", "export"):
        assert f" {command} " in result.out
        assert cli(command, "--help").heavy == []


def test_python_m_is_the_same():
    out = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-m", "reasoning_ext"], [BIN / "reasoning-ext"])
    ]
    assert out[0].split("Commands")[1] == out[1].split("Commands")[1]


def test_help_takes_at_most_one_and_a_half_times_trls():
    def seconds(program):
        return child_seconds(lambda: subprocess.run([BIN / program, "--help"], capture_output=True, check=True))

    seconds("trl"), seconds("reasoning-ext")
    ratios = [seconds("reasoning-ext") / seconds("trl") for _ in range(7)]
    assert statistics.median(ratios) <= 1.5, ratios


def test_overrides_are_split_from_recipes():
    assert split_overrides(["a.yaml", "--seed", "1", "b.yaml", "--lr=-1"]) == (
        ["a.yaml", "b.yaml"],
        {"seed": "1", "lr": "-1"},
    )


def test_the_version_and_short_help(cli):
    assert cli("--version").out.split()[0] == "reasoning-ext"
    for arguments in ((), ("check",), ("list",)):
        assert cli(*arguments, "-h").out == cli(*arguments, "--help").out


def test_help_cuts_no_command_s_text_off_on_a_terminal_of_80_columns(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "..." not in cli("-h").out.split("Commands:")[1]


@pytest.mark.parametrize(
    ("arguments", "name", "place"),
    [
        (("rewards",), "math_answer", "math_answer.py:"), (("rewards",), "get_cosine_scaled_reward", "trl"),
        (("formats",), "gsm8k", "problems.py:"), (("keys",), "learning_rate", "SFTConfig"),
        (("keys", "eval"), "engine", "recipe.keys"),
        (("keys", "grpo"), "num_generations", "GRPOConfig"),
    ],
)  # fmt: skip
def test_list_names_what_a_recipe_can_name_and_where_its_text_stands(cli, arguments, name, place):
    result = cli("list", *arguments)
    [line] = [line for line in result.out.splitlines() if line.split()[0] == name]
    assert place in line.rsplit("[", 1)[1] and len(line.split()) > 4 and "torch" not in result.heavy


def test_list_knows_recipes_and_stages(cli, tmp_path):
    (tmp_path / "recipes" / "mine").mkdir(parents=True)
    (tmp_path / "recipes" / "mine" / "1_sft.yaml").write_text("# What it is for.\nstage: sft\n")
    assert cli("list", "recipes").out.split() == ["recipes/mine/1_sft.yaml", "What", "it", "is", "for."]
    assert not any(line.startswith("num_generations ") for line in cli("list", "keys", "sft").out.splitlines())
    for wrong in (("x",), ("keys", "x"), ("rewards", "sft")):
        assert cli("list", *wrong).code == 2
