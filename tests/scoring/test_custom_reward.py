"""The example of a reward of one's own: its docstring runs, and its recipe finds it with its parameters."""

import doctest

import pytest
from conftest import ROOT, TINY

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.recipe.user_code import import_file
from reasoning_ext.scoring.call import build_rewards

EXAMPLE = ROOT / "examples" / "custom_reward"


def test_the_docstring_example_runs():
    result = doctest.testmod(import_file(EXAMPLE / "shows_steps.py"))
    assert result.attempted >= 4 and result.failed == 0


@pytest.mark.parametrize("parameter", ["stop_at_error: true", "stop_on_error: true", "stop_at_error: 3"])
def test_the_recipe_finds_the_reward_with_its_parameters(parameter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no earlier run has left a folder
    text = (EXAMPLE / "grpo.yaml").read_text().replace("./shows_steps.py", f"{EXAMPLE}/shows_steps.py")
    (tmp_path / "grpo.yaml").write_text(text.replace("stop_at_error: true", parameter).replace("../../", f"{ROOT}/"))
    sft, grpo = load_recipes([TINY / "1_sft.yaml", "grpo.yaml"])
    checked = check_recipe(grpo, [sft.output_dir])
    if parameter != "stop_at_error: true":
        line = next(
            i for i, row in enumerate(text.splitlines(), 1) if "shows_steps: {" in row or "shows_steps.py: {" in row
        )
        [problem] = checked.problems
        assert problem.line == line and problem.key.endswith(parameter.partition(":")[0])
        return
    spec = checked.specs[1]
    assert (spec.name, spec.weight, spec.options) == ("shows_steps", 0.5, {"stop_at_error": True})
    assert spec.plugin.required == ("prompts", "completions") and spec.columns == () and not checked.problems
    [reward] = build_rewards([spec])
    prompt = [{"role": "user", "content": "7+5*3"}]
    completion = [{"role": "assistant", "content": "<think>7+5=12;2*3=7</think>7"}]
    assert reward(prompts=[prompt], completions=[completion], answer=["6"]) == [0.5]


def test_a_right_step_counts_once_and_in_its_place():
    reward = import_file(EXAMPLE / "shows_steps.py").shows_steps
    thoughts = ["7+5=12;7+5=12", "2*3=6;7+5=12", " 7+5=12 ; 2*3=6 ;1+1=2", "", "7+5=12"]
    completions = [f"<think>{thought}</think>6" for thought in thoughts] + ["<think>7+5=12;2*3=6"]
    assert reward(["7+5*3"] * 6, completions) == [0.5, 0.0, 1.0, 0.0, 0.5, 0.0]
