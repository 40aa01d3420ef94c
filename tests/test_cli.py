"""The command line: what it offers, and that help comes at once."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from reasoning_ext.cli import split_overrides

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
        start = time.perf_counter()
        subprocess.run([BIN / program, "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    seconds("trl"), seconds("reasoning-ext")
    ratios = [seconds("reasoning-ext") / seconds("trl") for _ in range(7)]
    assert statistics.median(ratios) <= 1.5, ratios


def test_overrides_are_split_from_recipes():
    assert split_overrides(["a.yaml", "--seed", "1", "b.yaml", "--lr=-1"]) == (
        ["a.yaml", "b.yaml"],
        {"seed": "1", "lr": "-1"},
    )
