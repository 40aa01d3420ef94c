"""What a recipe must not say of tools, each at its line, before anything is loaded."""

import pytest

from reasoning_ext.check.keys import broken_rules, check_recipe
from reasoning_ext.check.named_inputs import input_sources
from reasoning_ext.check.rules_tools import wrong_tool
from reasoning_ext.check.show import check_and_print
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.recipe.user_code import without_code

EVAL = "stage: eval\nmodel_name_or_path: some/model\ndataset_name: ./rows.jsonl\noutput_dir: out\n"
GRPO = EVAL.replace("eval", "grpo", 1) + "reward_funcs: [math_answer]\n"
SFT = EVAL.replace("eval", "sft", 1)
MINE = '''\
open("{ran}", "a").close()


def lookup(name: str, table: str = "") -> str:
    """Look a name up.

    Args:
        name: whose.
        table: the file.
    """
    return name


def won(completions, environments, **kwargs):
    return [1.0 for one in environments]


class Env:
    """A game."""

    def reset(self, **row) -> str | None:
        return None

    def guess(self, number: int) -> str:
        """Guess.

        Args:
            number: the number.
        """
        return "higher"
'''
CASES = {  # lines -> where which code is found
    EVAL + "tools: [calculator, ./mine.py:lookup: {table: ./rows.jsonl}]\nmax_tool_calling_iterations: 2": {},
    EVAL + "tools: calculator": {},
    EVAL + "environment: ./mine.py:Env\nmax_tool_calling_iterations: 2": {},
    EVAL + "tools: [calculator]\nstrategies: [greedy, self_consistency: 2, {greedy: {thinking_budget: 9}}]": {},
    SFT + "tools: [calculator]\nbackend: unsloth": {},
    EVAL + "tools: [calculator, ./mine.py:lookup: {tabel: x}, calculator]": {
        "tools.1../mine.py:lookup.tabel": "wrong_tool", "tools.2": "wrong_tool",
    },
    EVAL + "environment: ./mine.py:lookup": {"environment": "wrong_tool"},
    EVAL + "tools: [calculator]\nstrategies: [beam: {by: step_check}, refine]\nthinking_curve: true": {
        "strategies.0": "unfit_for_tools", "strategies.1": "unfit_for_tools", "thinking_curve": "unfit_for_tools",
    },
    EVAL.partition("dataset")[0] + "output_dir: out\ntools: [calculator]\nbenchmark: lm_eval:gsm8k": {
        "benchmark": "unfit_for_tools"
    },
    EVAL + "tools: [calculator]\nengine: server\ngeneration_kwargs: {tool_choice: auto}": {
        "generation_kwargs.tool_choice": "unfit_for_tools",
    },
    GRPO + "tools: [calculator]\nbackend: unsloth": {"backend": "unfit_for_tools"},
    GRPO + "environment: ./mine.py:Env\nmax_tool_calling_iterations: 0": {
        "max_tool_calling_iterations": "out_of_bounds",
    },
    GRPO + "max_tool_calling_iterations: 3": {"max_tool_calling_iterations": "nothing_to_call"},
    GRPO.replace("math_answer", "math_answer, tool_use: {penalty: 0.1}"): {"reward_funcs.1": "nothing_to_judge"},
    GRPO.replace("math_answer", "./mine.py:won"): {"reward_funcs.0": "nothing_to_judge"},
    GRPO.replace("math_answer", "./mine.py:won") + "environment: ./mine.py:Env": {},
    EVAL + "max_turns: 3": {"max_turns": "unknown_key"},
    SFT + "environment: ./mine.py:Env": {"environment": "unknown_key"},
    EVAL + "tools: [calculator]\nchat_template_kwargs: {tools: []}": {
        "chat_template_kwargs.tools": "unfit_template_arguments",
    },
}  # fmt: skip


@pytest.fixture
def mine(tmp_path, rows_file, monkeypatch):
    """A file of one's own, and whether it ran."""
    (tmp_path / "mine.py").write_text(MINE.format(ran=tmp_path / "ran"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ran"


def problems(path):
    found = []
    recipes = load_recipes([path], {}, found)
    for recipe in recipes:
        found += check_recipe(recipe, run=False).problems + broken_rules(recipe, [wrong_tool])
    return found


def test_what_is_wrong_is_said_with_its_place(mine, write_recipe, wording):
    found = {lines: problems(write_recipe(lines + "\n")) for lines in CASES}
    told = {lines: {one.key: one.code for one in wrong if one.level == "error"} for lines, wrong in found.items()}
    assert told == CASES
    wording([one for wrong in found.values() for one in wrong if one.level == "error"])


def test_code_that_tools_name_is_announced_and_not_run_without_leave(mine, write_recipe, capsys):
    text = EVAL + "tools: [calculator, ./mine.py:lookup]\nenvironment: ./mine.py:Env\n"
    [recipe] = load_recipes([write_recipe(text)])
    assert {*check_recipe(recipe, run=False).code} == {"tool ./mine.py:lookup", "environment ./mine.py:Env"}
    with without_code():
        check_and_print([recipe], [], True, 0, False)
    assert not mine.exists() and "not run" in capsys.readouterr().out


def test_a_run_is_made_of_its_tools_and_of_what_they_read(mine, write_recipe, tmp_path):
    [recipe] = load_recipes([write_recipe(EVAL + "tools: [./mine.py:lookup: {table: rows.jsonl}]\n")])
    found = input_sources(recipe, [])
    assert found["tool lookup"] == str(tmp_path / "mine.py")
    assert found["tool lookup table"] == str(tmp_path / "rows.jsonl")
