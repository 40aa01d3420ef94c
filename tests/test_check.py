"""`check` accepts every recipe in the tree, and says in one line what is wrong with one that has a typo."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoning_ext.cli import app

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def test_the_recipes_are_found():
    assert len(RECIPES) >= 14


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_check_accepts_the_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # --offline sets both; this has them taken back after the test
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)  # so that what lies in runs/ has no say
    result = CliRunner().invoke(app, ["check", "--offline", str(recipe)])
    assert result.exception is None, result.exception
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith(f"{recipe}: stage ")
    assert result.stdout.splitlines()[-1].strip() == "ok"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_the_header_has_its_command_and_the_number_to_expect(recipe):
    header = recipe.read_text(encoding="utf-8").split("\nstage:")[0].splitlines()
    assert all(line.startswith("#") for line in header)
    assert "reasoning-ext run recipes/" in " ".join(header)
    assert any(line.startswith("# Expect:") for line in header)


def test_a_typo_ends_in_one_line_and_exit_code_2(tmp_path):
    recipe = tmp_path / "1_sft.yaml"
    recipe.write_text(
        f"stage: sft\nmodel_name_or_path: {ROOT}/recipes/tiny/model\nfrom_scratch: true\n"
        f"dataset_name: {ROOT}/recipes/tiny/last_digit.py\nlerning_rate: 1e-3\noutput_dir: {tmp_path}/run\n"
    )
    command = [sys.executable, "-m", "reasoning_ext", "check", "--offline", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {recipe}:5: lerning_rate: unknown key (found lerning_rate: 0.001)")
    assert line.endswith("the nearest key of stage sft is learning_rate")
