"""The example of a reward of one's own: its docstring runs, and its recipe finds it with its parameters."""

import doctest
from pathlib import Path

import pytest

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.check.show import check_and_print
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe, load_recipes
from reasoning_ext.recipe.user_code import import_file
from reasoning_ext.scoring.call import build_rewards

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_reward"
RECIPES = [ROOT / "recipes" / "tiny" / "1_sft.yaml", EXAMPLE / "grpo.yaml"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Run where no earlier run has left a folder."""
    monkeypatch.chdir(tmp_path)


def test_the_docstring_example_runs():
    result = doctest.testmod(import_file(EXAMPLE / "shows_steps.py"))
    assert result.attempted >= 4 and result.failed == 0


def test_check_accepts_the_recipe(capsys):
    assert check_and_print(load_recipes(RECIPES), [], offline=True, show=0, as_json=False) == 0
    out = capsys.readouterr().out
    assert f"shows_steps x 0.5 ({EXAMPLE / 'shows_steps.py'})" in out
    assert out.splitlines()[-1].strip() == "ok"


def test_the_recipe_finds_the_reward_with_its_parameters():
    sft, grpo = load_recipes(RECIPES)
    spec = check_recipe(grpo, [sft.output_dir]).specs[1]
    assert (spec.name, spec.weight, spec.options) == ("shows_steps", 0.5, {"stop_at_error": True})
    assert spec.plugin.required == ("prompts", "completions") and spec.columns == ()
    [reward] = build_rewards([spec])
    prompt = [{"role": "user", "content": "7+5*3"}]
    completion = [{"role": "assistant", "content": "<think>7+5=12;2*3=7</think>7"}]
    assert reward(prompts=[prompt], completions=[completion], answer=["6"]) == [0.5]


def test_a_right_step_counts_once_and_in_its_place():
    reward = import_file(EXAMPLE / "shows_steps.py").shows_steps
    thoughts = ["7+5=12;7+5=12", "2*3=6;7+5=12", " 7+5=12 ; 2*3=6 ;1+1=2", "", "7+5=12"]
    completions = [f"<think>{thought}</think>6" for thought in thoughts] + ["<think>7+5=12;2*3=6"]
    assert reward(["7+5*3"] * 6, completions) == [0.5, 0.0, 1.0, 0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            "stop_on_error: true",
            "unknown parameter of shows_steps (found stop_on_error: True); allowed: weight, gate, when, schedule, timeout, "
            "isolate, stop_at",
        ),
        ("stop_at_error: 3", "found 3, allowed: bool (shows_steps in shows_steps.py)"),
    ],
)
def test_a_wrong_parameter_is_refused(tmp_path, found, said):
    recipe = tmp_path / "grpo.yaml"
    text = (EXAMPLE / "grpo.yaml").read_text(encoding="utf-8")
    text = text.replace("./shows_steps.py", str(EXAMPLE / "shows_steps.py")).replace("stop_at_error: true", found)
    recipe.write_text(text.replace("../../recipes", str(ROOT / "recipes")))
    with pytest.raises(UserError) as error:
        check_recipe(load_recipe(recipe), [Path("runs/tiny/1_sft")]).refuse()
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "shows_steps: {" in row)
    assert str(error.value).startswith(f"{recipe}:{line}: reward_funcs.1.")
    assert said in str(error.value)
