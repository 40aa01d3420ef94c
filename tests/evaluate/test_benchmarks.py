"""Benchmarks by name: what they set, what a recipe sets itself, whose rows they read, and what is told of them."""

import pytest
import yaml
from conftest import TINY
from reasoning_ext.rewards.choice_answer import choice_answer

from reasoning_ext.check import check
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.check.named_inputs import input_sources
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.evaluate.published import print_published
from reasoning_ext.evaluate.strategies import parse_strategies
from reasoning_ext.recipe.benchmarks import BENCHMARKS, benchmark_line, changed
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.scoring.spec import parse_rewards
from tests.rows import FIXTURES

EVAL = f"stage: eval\nmodel_name_or_path: {TINY / 'model'}\noutput_dir: out\nbenchmark: "
# a file with rows as the hub has them, and the gold of its first row
ROWS = {
    "gsm8k": ("../gsm8k", None), "math500": ("math500", None), "aime24": ("aime_2024", None), "aime25": ("aime25", None),
    "amc23": ("amc23", None), "svamp": ("svamp_hub", None), "gpqa_diamond": ("gpqa", "C"), "mmlu_pro": ("mmlu_pro", None),
}  # fmt: skip


def load(write_recipe, text, **overrides):
    return load_recipe(write_recipe(EVAL + text), {key: str(value) for key, value in overrides.items()})


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_sets_defaults_at_its_own_line_that_break_no_rule(name, write_recipe):
    recipe = load(write_recipe, name)
    known = BENCHMARKS[name].defaults.keys() & recipe.keys
    assert BENCHMARKS[name].defaults.keys() - known <= {"strategies"}
    assert all(recipe.values[key] == BENCHMARKS[name].defaults[key] and recipe.lines[key,] == 4 for key in known)
    assert changed(recipe) == [] and "openai/gsm8k" in benchmark_line(load(write_recipe, "gsm8k"))
    found = check_recipe(recipe, run=False)
    assert not found.errors and [problem.code for problem in found.problems] == ["benchmark"]
    assert yaml.safe_load(yaml.safe_dump(recipe.values)) == recipe.values  # as the run's folder has it


def test_a_benchmark_is_asked_alone_with_a_sentence_and_behind_examples(write_recipe):
    for name, examples in (("gsm8k", "word_problems"), ("svamp", "word_problems"), ("math500", "competition")):
        recipe = load(write_recipe, f"{name}\ndataset_name: ./mine.jsonl\n")
        found = parse_strategies(recipe, [])
        assert [one.kind for one in found] == ["greedy", "cot", "cot"] and len(found[2].turns) == 8
        assert (
            examples in benchmark_line(recipe)
            and input_sources(recipe, [])[f"examples {examples}"] == found[2].examples
        )
    assert parse_strategies(load(write_recipe, "gsm8k\nstrategies: [greedy]\n"), [])[0].label == "greedy"


def test_what_a_recipe_or_the_command_line_says_wins(write_recipe):
    recipe = load(write_recipe, "aime24\ntemperature: 1.0\ndataset_name: ./mine.jsonl\n", num_generations=3)
    assert (recipe.get("temperature"), recipe.get("num_generations"), recipe.get("top_p")) == (1.0, 3, 0.95)
    assert recipe.values.keys().isdisjoint(("dataset_config", "dataset_test_split"))  # a file has one split
    assert sorted(changed(recipe)) == ["dataset_name", "num_generations", "temperature"]
    greedy = load(write_recipe, "gpqa_diamond\nnum_generations: 0\nmax_samples: 5\n")
    assert greedy.values.keys().isdisjoint(("temperature", "top_p"))
    assert changed(greedy) == ["num_generations", "max_samples"]
    assert not check_recipe(greedy, run=False).errors
    mixed = load(write_recipe, "gsm8k\ndatasets: [{dataset_name: a.jsonl}]\n")
    assert "dataset_name" not in mixed.values and "datasets" in changed(mixed)
    assert load(write_recipe, "math500", benchmark="svamp").get("dataset_format") == "svamp"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_file_in_the_place_of_the_hubs_rows_is_read_and_judged(name, write_recipe):
    file, gold = ROWS[name]
    recipe = load(write_recipe, f"{name}\ndataset_name: {FIXTURES / 'formats' / file}.jsonl\n")
    row = prepare(row_options(recipe), TEST).rows[0]
    system, *asked = row["prompt"]
    assert (system["role"], system["content"]) == ("system", BENCHMARKS[name].defaults["system_prompt"])
    assert [message["role"] for message in asked] == ["user"] and row["answer"] and gold in (None, row["answer"])
    assert ("the letter of" in system["content"]) is ("choices" in row)
    if "choices" in row:
        boxes, known = [rf"\boxed{{{letter}}}" for letter in "ABCDEFGHIJ"], {"choices": [row["choices"]]}
        letters = [choice_answer([box], [row["answer"]], **known)[0] for box in boxes]
        assert letters.count(1.0) == 1 and letters["ABCDEFGHIJ".index(row["answer"])] == 1.0


def test_the_options_of_a_choice_stand_where_they_stand_whatever_the_recipes_seed(write_recipe):
    for name in ("gpqa_diamond", "mmlu_pro"):
        file = f"\ndataset_name: {FIXTURES / 'formats' / ROWS[name][0]}.jsonl\n"
        made = [[*prepare(row_options(load(write_recipe, name + file, seed=seed)), TEST).rows] for seed in (1, 2)]
        assert made[0] == made[1]


@pytest.mark.parametrize(
    ("text", "code", "line", "key"),
    [
        ("gsm8", "unknown_benchmark", 4, "benchmark"),
        ("'lm_eval:'", "unknown_benchmark", 4, "benchmark"),
        ("3", "wrong_type", 4, "benchmark"),
        ("lm_eval:gsm8k\nnum_generations: 4", "unfit_for_lm_eval", 5, "num_generations"),
        ("lm_eval:gsm8k\nengine: vllm", "unfit_for_lm_eval", 5, "engine"),
    ],
)
def test_what_is_wrong_with_a_benchmark_is_one_line(text, code, line, key, write_recipe, wording):
    problems: list = []
    recipe = load_recipe(write_recipe(EVAL + text + "\n"), problems=problems)
    found = check_recipe(recipe, run=False, wrong=problems).errors
    assert [(problem.code, problem.line, problem.key) for problem in found] == [(code, line, key)]
    wording(found)


def test_a_benchmark_whose_rows_are_on_the_hub_says_offline_what_to_do(write_recipe, wording):
    (checked,) = check([load(write_recipe, "math500")], run=True)
    (problem,) = checked.errors
    assert (problem.code, problem.line, problem.key) == ("unusable_data", 4, "dataset_name")
    wording(problem)


def test_a_task_of_the_harness_has_no_rows_or_rewards_of_ours(write_recipe, tmp_path, monkeypatch):
    recipe = load(write_recipe, "lm_eval:./task.yaml\n")
    found = check_recipe(recipe, run=False)
    assert (found.errors, found.specs) == ([], []) and found.code == {
        "benchmark task.yaml": str(tmp_path / "task.yaml")
    }
    monkeypatch.setattr("reasoning_ext.check.rules_benchmarks.find_spec", lambda name: None)
    assert [problem.code for problem in check_recipe(recipe).errors] == ["missing_lm_eval"]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ("{test: [a.jsonl, b.jsonl]}", ["a.jsonl", "b.jsonl"]),
        ("a.jsonl", ["a.jsonl"]),
        ("[a, b]", ["a", "b"]),
        ("", []),
    ],
)
def test_the_rows_of_a_task_of_ones_own_are_inputs(files, named, write_recipe, tmp_path):
    recipe = load(write_recipe, "lm_eval:./task.yaml\n")
    (tmp_path / "task.yaml").write_text(f"doc_to_text: !function x.f\ndataset_kwargs: {{data_files: {files}}}\n")
    found = input_sources(recipe, [])
    assert [found[what] for what in found if what.startswith("rows of the benchmark")] == named
    assert found["benchmark"] == str(tmp_path / "task.yaml")


def test_every_published_figure_is_printed_with_its_setting_and_source(write_recipe, capsys):
    for name, benchmark in BENCHMARKS.items():
        print_published(load(write_recipe, f"{name}\nmax_samples: 2\n"))
        said = capsys.readouterr().out
        assert "max_samples" in said.splitlines()[0] and len(benchmark.published) == len(said.splitlines()) - 1 > 0
        for row, line in zip(benchmark.published, said.splitlines()[1:], strict=True):
            assert 0 < row.percent < 100
            assert all(str(part) in line for part in (row.model, row.percent, row.setting, row.source))
    print_published(load(write_recipe, "lm_eval:gsm8k\n"))
    assert capsys.readouterr().out == ""


def test_rewards_that_a_benchmark_names_are_there():
    assert "benchmark" in stage_keys("eval") and "benchmark" not in stage_keys("sample")
    for benchmark in BENCHMARKS.values():
        assert parse_rewards(benchmark.defaults.get("reward_funcs", []), TINY) is not None
