"""The example tasks: rows that depend on their index alone, splits apart, steps that are true, golds judged right."""

import ast
import doctest
import re
from fractions import Fraction
from itertools import islice

import pytest
from conftest import ROOT
from reasoning_ext.rewards.math_answer import math_answer
from reasoning_ext.rewards.step_check import step_check

from reasoning_ext import think
from reasoning_ext.recipe.user_code import import_file

HOME = ROOT / "examples" / "tasks"
TASKS = ["chained_arithmetic", "linear_equations", "unit_word_problems"]
CASES = [
    ("chained_arithmetic", {}),
    ("chained_arithmetic", {"fractions": True, "num_operations": 3}),
    ("chained_arithmetic", {"parentheses": False, "max_operand": 500, "num_operations": 6}),
    ("linear_equations", {"rational": True}),
    ("linear_equations", {"num_unknowns": 2}),
    ("linear_equations", {"num_unknowns": 2, "rational": True, "max_coefficient": 20}),
    ("unit_word_problems", {}),
    ("unit_word_problems", {"max_number": 200, "unit_share": 1.0}),
]


def task(name):
    return import_file(HOME / f"{name}.py")


def rows(name, num_rows=500, **settings):
    return list(getattr(task(name), name)(num_rows=num_rows, **settings))


def value(text, **unknowns):
    """Work an expression out exactly, without eval."""

    def at(node):
        if isinstance(node, ast.BinOp):
            left, right = at(node.left), at(node.right)
            signs = {ast.Add: lambda: left + right, ast.Sub: lambda: left - right, ast.Mult: lambda: left * right}
            return signs.get(type(node.op), lambda: left / right)()
        if isinstance(node, ast.UnaryOp):
            return -at(node.operand)
        return unknowns[node.id] if isinstance(node, ast.Name) else Fraction(str(node.value))

    return at(ast.parse(re.sub(r"(\d)([xy])", r"\1*\2", text.strip()), mode="eval").body)


def holds(equation, **unknowns):
    left, right = (value(side, **unknowns) for side in equation.split("="))
    return left == right


def solved(name, row):
    """Tell whether a row's answer solves its problem, worked out again, and whether its steps are true."""
    asked, answer = row["prompt"].partition(". Write")[0], row["answer"]
    if name == "unit_word_problems":
        last = row["steps"][-1].rpartition("=")[2]
        return all(map(holds, row["steps"])) and value(last) == Fraction(answer.split()[0]) > 0
    if name == "chained_arithmetic":
        return value(asked.removeprefix("Calculate ")) == Fraction(answer) and all(map(holds, row["steps"]))
    unknowns = dict(zip("xy", map(Fraction, answer.strip("()").split(",")), strict=False))
    return all(holds(line, **unknowns) for line in [*asked.removeprefix("Solve ").split(" and "), *row["steps"]])


@pytest.mark.parametrize("name", TASKS)
def test_the_docstring_example_runs(name):
    result = doctest.testmod(task(name))
    assert result.attempted >= 3 and result.failed == 0


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_300_traces_are_right_in_their_steps_and_in_their_answer(name, settings):
    made = rows(name, 300, **settings)
    completions, golds = [row["completion"] for row in made], [row["answer"] for row in made]
    assert all(think.well_formed(completion) for completion in completions)
    assert math_answer(completions, golds, prompts=[row["prompt"] for row in made]) == [1.0] * 300
    checked = step_check(completions)
    assert {*checked} <= {1.0, None} and checked.count(1.0) > 240
    assert task(name).score(completions, golds, [row["steps"] for row in made]) == [1.0] * 300
    assert all(row["steps"] == think.split(row["completion"]).thought.strip().split("\n") for row in made)
    assert all(solved(name, row) for row in made)


@pytest.mark.parametrize("name", TASKS)
def test_a_row_depends_on_seed_split_and_index_alone_and_splits_share_no_problem(name):
    ten, thousand = rows(name, 10), rows(name, 1000)
    assert ten == thousand[:10] == [*islice(getattr(task(name), name)(), 10)] and rows(name, 10, seed=1) != ten
    assert len({row["prompt"] for row in thousand}) > 600
    splits = []
    for split in ("train", "validation", "test"):
        made = [row for seed in range(2) for row in rows(name, 700, split=split, seed=seed)]
        splits.append({row["prompt"].partition("Write")[0] for row in made})
        assert len(splits[-1]) > 300
    assert splits[0].isdisjoint(splits[1] | splits[2]) and splits[1].isdisjoint(splits[2])


def test_word_problems_are_various_and_their_units_count():
    made = rows("unit_word_problems", 2000)
    assert len({re.sub(r"[\d.]+", "N", row["prompt"]) for row in made}) > 600
    assert 800 < sum(" " in row["answer"] for row in made) < 1200
    score = task("unit_word_problems").score
    thought = "2 kg * 1000 = 2000 g; 3 * 250 g = 750 g, so 2000 g - 750 g = 1250 g"
    steps = ["2 * 1000 = 2000", "3 * 250 = 750", "2000 - 750 = 1250"]
    assert score([f"<think>{thought}</think>7"], ["1250 g"], [steps]) == [0.5]
    completions = [rf"<think>a</think>\boxed{{{said}}}" for said in ("45 km", "45", r"45\text{ km}", "45 m", "46 km")]
    assert score(completions, ["45 km"] * 5, [["40 + 5 = 45"]] * 5) == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", TASKS)
def test_a_wrong_answer_never_earns_what_a_right_one_does(name):
    [row] = rows(name, 1)
    steps, count = row["steps"], len(row["steps"])
    thoughts = {
        "\n".join(steps): 0.5,
        "So " + ", then ".join(step.replace(" ", "") for step in steps): 0.5,
        "\n".join([steps[0]] * 50): 0.5 / count,
        steps[0] + "\n" + "\n".join(f"{i} + 1 = {i + 1}" for i in range(100, 199)): 0.5 / 100,
        steps[0].rpartition("=")[0] + "= 987654": 0.0,
        "": 0.0,
    }
    completions = [f"<think>{thought}</think>\\boxed{{123456789}}" for thought in thoughts]
    found = task(name).score(completions, [row["answer"]] * len(thoughts), [steps] * len(thoughts))
    assert found == pytest.approx(list(thoughts.values()))
    right = f"\\boxed{{{row['answer']}}}"
    others = [f"<think>{steps[0]}", f"{right}", f"<think>{right}</think>", f"<think>?</think>{right}"]
    assert task(name).score(others, [row["answer"]] * 4, [steps] * 4) == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("chained_arithmetic", {"num_operations": True}), ("chained_arithmetic", {"max_operand": 1}),
        ("chained_arithmetic", {"operators": "+/"}), ("linear_equations", {"num_unknowns": 3}),
        ("linear_equations", {"max_coefficient": 2}), ("unit_word_problems", {"max_number": 4}),
        ("unit_word_problems", {"unit_share": 2}), *((name, {"split": "dev"}) for name in TASKS),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused(name, settings):
    [(key, wrong)] = settings.items()
    with pytest.raises(ValueError, match=re.escape(f"found {key}: {wrong!r}, allowed: ")):
        rows(name, 1, **settings)
    with pytest.raises(ValueError, match="found no problem for split"):
        for split in ("validation", "test"):  # `1 + 1`, `1 + 2`, `2 + 1`, `2 + 2` cannot fill both
            rows("chained_arithmetic", 1, num_operations=1, max_operand=2, operators="+", split=split)


def test_the_real_models_word_problems_are_solved_by_true_steps_and_never_by_copying():
    problems = import_file(ROOT / "recipes" / "smollm2_135m" / "word_problems.py").word_problems
    made = {split: [*problems(split, num_rows=400, num_steps=(1, 2, 3))] for split in ("train", "test")}
    assert {row["prompt"] for row in made["train"]}.isdisjoint(row["prompt"] for row in made["test"])
    assert (
        made["train"][:9]
        == [*problems("train", num_rows=9, num_steps=(1, 2, 3))]
        != [*problems("train", 1, 9, (1, 2, 3))]
    )
    thoughtful = [*problems("train", num_rows=400, num_steps=(1, 2, 3), thought_share=1.0)]
    assert step_check([row["completion"] for row in thoughtful]) == [1.0] * 400
    for row in [*thoughtful, *made["test"]]:
        first, *events = re.findall(r"(has|finds|gets|gives|loses|buys) (\d+)(?: \w+ of (\d+))?", row["prompt"])
        signs = {"finds": 1, "gets": 1, "buys": 1, "gives": -1, "loses": -1}
        assert (
            int(first[1]) + sum(signs[verb] * int(a) * int(b or 1) for verb, a, b in events) == int(row["answer"]) > 0
        )
        assert len(events) + sum(verb == "buys" for verb, *_ in events) == row["steps"]
        assert row["answer"] not in re.findall(r"\d+", row["prompt"])
    thoughts = [think.split(row["completion"]).thought.strip() for row in made["train"]]
    assert [len(text.split("\n")) for text, row in zip(thoughts, made["train"], strict=True) if text] == [
        row["steps"] for text, row in zip(thoughts, made["train"], strict=True) if text
    ]
    assert 120 < sum(map(bool, thoughts)) < 200
