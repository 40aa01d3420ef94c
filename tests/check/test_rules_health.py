"""Wrong rules, thresholds and audits are one line each, before anything is loaded; and what `list health` says."""

import json

import pytest
import yaml

from reasoning_ext.check import check
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.check.named_inputs import named_code
from reasoning_ext.check.rows import inspect
from reasoning_ext.check.schema import listed, recipe_schema
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.health import RULES
from reasoning_ext.runs.identity import recipe_hash

GRPO = "stage: grpo\nmodel_name_or_path: some/model\ndataset_name: ./rows.jsonl\nreward_funcs: [math_answer]\noutput_dir: out\n"
SFT = GRPO.replace("grpo", "sft").replace("reward_funcs: [math_answer]\n", "")
WRONG = {  # what the recipe says -> the stage's head, code, key
    "health: {entropy_lo: 0.02}": (GRPO, "unknown_health_rule", "health.entropy_lo"),
    "health: {entropy_low: 0.02, lose_flat: off}": (SFT, "unknown_health_rule", "health.entropy_low"),
    "health: {kl_high: much}": (GRPO, "wrong_health_threshold", "health.kl_high"),
    "health: {kl_high: true}": (GRPO, "wrong_health_threshold", "health.kl_high"),
    "health: {kl_high: -1}": (GRPO, "wrong_health_threshold", "health.kl_high"),
    "health: {kl_high: .nan}": (GRPO, "wrong_health_threshold", "health.kl_high"),
    "health: {kl_high: [1]}": (GRPO, "wrong_health_threshold", "health.kl_high"),
    "health: {kl_high: null}": (GRPO, "wrong_health_threshold", "health.kl_high"),
    "audit: [exact_anser]": (GRPO, "wrong_audit", "audit.0.exact_anser"),
    "audit: [./gone.py]": (GRPO, "wrong_audit", "audit.0../gone.py"),
    "audit: [think_format, math_answer]": (GRPO, "wrong_audit", "audit.1"),
    "audit: [{length_penalty: {max_token: 5}}]": (GRPO, "wrong_audit", "audit.0.length_penalty.max_token"),
    "audit: [{exact_answer: {weight: 0.5}}]": (GRPO, "wrong_audit", "audit.0.exact_answer.weight"),
    "audit: [{exact_answer: {weight: 0.0}}]": (GRPO, "wrong_audit", "audit.0.exact_answer.weight"),
    "audit: [exact_answer, exact_answer]": (GRPO, "wrong_audit", "audit.1"),
    "audit: [3]": (GRPO, "wrong_audit", "audit.0"),
}


@pytest.mark.parametrize("more", WRONG)
def test_what_is_wrong_is_one_line(more, rows_file, write_recipe, wording):
    head, code, key = WRONG[more]
    problems = check_recipe(load_recipe(write_recipe(head + more + "\n")), run=False).problems
    assert problems and all(problem.line == head.count("\n") + 1 for problem in problems)
    assert (problems[0].code, problems[0].key) == (code, key)
    wording("\n".join(map(str, problems)))


@pytest.mark.parametrize(
    "more",
    [
        "health: {entropy_low: 0.02, hacking: off, cut_off: false}",
        "health: {}",
        "audit: [exact_answer, think_format]",
        "audit: [{exact_answer: {timeout: 20}}]",
        "audit: []",
        "health: {nan: 0}",
    ],
)
def test_what_is_right_is_no_problem(more, rows_file, write_recipe):
    recipe = load_recipe(write_recipe(GRPO + more + "\n"))
    assert [str(problem) for problem in check_recipe(recipe, run=False).problems if problem.level == "error"] == []


def test_a_column_that_an_audit_needs_must_be_there_and_its_code_is_told_of(rows_file, write_recipe, tmp_path):
    (tmp_path / "mine.py").write_text("def mine(completions, proof, **kwargs):\n    return [1.0 for _ in proof]\n")
    checked = check_recipe(
        load_recipe(write_recipe(GRPO.replace("rows.jsonl", rows_file.name) + "audit: [./mine.py]\n"))
    )
    assert "reward ./mine.py" in named_code(checked.recipe)
    inspect(checked, None, hub=False, whole=False)
    assert [(problem.code, "proof" in problem.text) for problem in checked.errors] == [("missing_column", True)]


def test_rules_and_audits_may_change_while_a_run_goes_on():
    assert recipe_hash({"stage": "grpo"}) == recipe_hash(
        {"stage": "grpo", "health": {"cut_off": "off"}, "audit": ["a"]}
    )


def test_each_rule_is_listed_with_threshold_meaning_and_source_and_known_to_editors():
    lines = [*listed("health")]
    assert len(lines) == len(RULES)
    for line, rule in zip(lines, RULES, strict=True):
        assert line.startswith(f"{rule.name} ") and f"{rule.threshold:g}" in line
        assert rule.meaning in line and line.endswith(f"[{rule.source}]") and rule.source and rule.edit
    definition = recipe_schema()["definitions"]["health"]["anyOf"][0]
    assert [*definition["properties"]] == [rule.name for rule in RULES] and json.dumps(definition)
    assert yaml.safe_load(yaml.safe_dump({"cut_off": "off"})) == {"cut_off": "off"}


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("audit: [./broken.py]", "audit.0"),
        ("eval_problems: {reward_funcs: [./broken.py]}", "eval_problems.reward_funcs.0"),
    ],
)
def test_code_that_cannot_be_imported_is_said_before_a_run_at_its_own_key(more, key, rows_file, write_recipe):
    path = write_recipe(GRPO + more + "\n")
    (path.parent / "broken.py").write_text('raise ValueError("boom")\n')
    for run in (False, True):
        [checked] = check([load_recipe(path)], run=run, offline=True)
        said = [(problem.key, problem.line) for problem in checked.errors if "ValueError: boom" in problem.found]
        assert said == [(f"{key}../broken.py", GRPO.count("\n") + 1)]
