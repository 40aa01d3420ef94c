"""What eval_problems, keep and on_fall must not say, before anything is loaded; and rows that are no held-out ones."""

import json

import pytest
from conftest import TINY

from reasoning_ext.check import check
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.scoring.spec import judge, parse_rewards

BASE = "model_name_or_path: some/model\ndataset_name: a/b\noutput_dir: out\n"
STAGES = {
    "sft": "stage: sft\n" + BASE,
    "dpo": "stage: dpo\n" + BASE,
    "grpo": "stage: grpo\nreward_funcs: [math_answer]\n" + BASE,
}
MEASURED = "eval_problems: 20\neval_steps: 10\n"
CASES = {  # lines -> codes and keys
    "eval_problems: 0": [("wrong_eval_problems", "eval_problems")],
    "eval_problems: {n: 0, samples: -1, max_completion_length: 0}": [
        ("wrong_eval_problems", f"eval_problems.{key}") for key in ("n", "samples", "max_completion_length")
    ],
    "eval_problems: {number: 5}": [("wrong_eval_problems", "eval_problems.number")],
    "eval_problems: {n: many}": [("wrong_eval_problems", "eval_problems.n")],
    "eval_problems: {reward_funcs: true}": [("wrong_eval_problems", "eval_problems.reward_funcs")],
    "eval_problems: {reward_funcs: {a: 1}}": [("wrong_eval_problems", "eval_problems.reward_funcs")],
    "eval_problems: {reward_funcs: [no_such_reward]}": [("wrong_eval_problems", "eval_problems.reward_funcs.0.no_such_reward")],
    "eval_problems: 5\neval_steps: 0": [("wrong_eval_problems", "eval_steps")],
    "eval_problems: 5\neval_steps: 7.5": [("wrong_eval_problems", "eval_steps")],
    "eval_problems: 5\neval_steps: .nan": [("wrong_eval_problems", "eval_steps")],
    "eval_problems: 5\neval_steps: .inf\nkeep: best": [("wrong_eval_problems", "eval_steps")],
    "eval_problems: {reward_funcs: 3}": [("wrong_eval_problems", "eval_problems.reward_funcs")],
    "eval_problems: 5\neval_steps: 10": [],
    "eval_problems: {n: 5, samples: 0, reward_funcs: [exact_answer]}": [],
    "eval_steps: 10": [("key_without_effect", "eval_steps")],
    "keep: best": [("nothing_measured", "keep")],
    "keep: best\neval_problems: 5": [("nothing_measured", "keep")],
    "on_fall: stop\neval_steps: 5\neval_strategy: steps": [("nothing_measured", "on_fall")],
    "on_fall: warn": [("nothing_measured", "on_fall")],
    MEASURED + "keep: best": [("unsaved_measurement", "save_steps")],
    MEASURED + "on_fall: stop\nsave_steps: 20": [("unsaved_measurement", "save_steps")],
    MEASURED + "keep: best\nsave_steps: 0.1": [("unsaved_measurement", "save_steps")],
    MEASURED + "keep: best\nsave_strategy: epoch": [("unsaved_measurement", "save_strategy")],
    MEASURED + "keep: best\nsave_steps: 5": [],
    MEASURED + "on_fall: stop\nsave_steps: 10": [],
    MEASURED + "on_fall: warn": [],
    "eval_problems: 20\nkeep: best\neval_steps: 0.1\nsave_steps: 0.1": [],
    MEASURED + "keep: best\nsave_steps: 10\nload_best_model_at_end: true\neval_strategy: steps": [
        ("unsaved_measurement", "load_best_model_at_end")
    ],
    MEASURED + "deepspeed: zero3.json": [("held_out_in_parts", "eval_problems")],
}  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), CASES.items(), ids=CASES)
def test_what_cannot_be_measured_is_refused_in_one_line(write_recipe, text, wanted):
    for stage in STAGES.values():
        checked = check_recipe(load_recipe(write_recipe(stage + text)), run=False)
        assert [(problem.code, problem.key) for problem in checked.errors] == wanted
        assert all(problem.line for problem in checked.errors if problem.key != "save_steps")


def test_a_reward_of_eval_problems_is_named_among_the_code_that_runs(write_recipe, tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('must not run')\n\n\ndef mine(completions, **kwargs): ...\n")
    recipe = load_recipe(write_recipe(STAGES["sft"] + "eval_problems: {reward_funcs: [./mine.py:mine]}\n"))
    assert [*check_recipe(recipe, run=False).code] == ["reward ./mine.py:mine"]


@pytest.mark.parametrize(
    ("lines", "judges"),
    [
        ("[think_format]", "math_answer"),
        ("[think_format, exact_answer]", "exact_answer"),
        ("[math_answer]", "math_answer"),
    ],
)
def test_what_does_not_know_the_answer_says_not_what_is_right_unless_it_is_named(write_recipe, lines, judges):
    text = f"stage: grpo\n{BASE}reward_funcs: {lines}\neval_problems: "
    for asked, name in (("5", judges), ("{reward_funcs: [think_format]}", "think_format")):
        recipe = load_recipe(write_recipe(text + asked + "\n"))
        assert judge(recipe, parse_rewards(recipe.get("reward_funcs"), recipe.folder)).name == name


ROWS = [{"prompt": f"{a}+1", "completion": f"<think>x</think>{a + 1}", "answer": str(a + 1)} for a in range(20)]
SETS = {  # lines, and whether rows have golds -> codes
    ("eval_problems: 4", True): ["unusable_data"],  # a file has no split test
    ("eval_problems: 4\ntest_size: 0.5", True): [],
    ("eval_problems: 4\ntest_size: 0.5", False): ["missing_column"],
    ("eval_problems: {n: 4, reward_funcs: [think_format]}\ntest_size: 0.5", False): [],
    ("eval_problems: 4\ndataset_test_split: 'train[:50%]'", True): ["overlap"],
}


@pytest.mark.parametrize(("case", "wanted"), SETS.items(), ids=map(str, range(len(SETS))))
def test_rows_that_are_not_held_out_or_cannot_be_judged_are_refused(write_recipe, tmp_path, monkeypatch, case, wanted):
    text, golds = case
    monkeypatch.chdir(tmp_path)
    rows = [row if golds else {key: row[key] for key in ("prompt", "completion")} for row in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\nuse_cpu: true\nbf16: false\n"
    path = write_recipe(f"{recipe}dataset_name: ./rows.jsonl\noutput_dir: out\nmax_steps: 2\n{text}\n")
    [checked] = check([load_recipe(path)])
    assert [problem.code for problem in checked.errors] == wanted


@pytest.mark.parametrize(("asked", "found"), [("10", []), ("{n: 11}", ["found 11, but 10 rows are held out"])])
def test_more_problems_than_rows_are_held_out_are_said(write_recipe, tmp_path, monkeypatch, asked, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    recipe = f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\nuse_cpu: true\nbf16: false\n"
    recipe += f"dataset_name: ./rows.jsonl\noutput_dir: out\nmax_steps: 2\ntest_size: 0.5\neval_problems: {asked}\n"
    [checked] = check([load_recipe(write_recipe(recipe))])
    assert [problem.found for problem in checked.problems if problem.code == "few_held_out"] == found
