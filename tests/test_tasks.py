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
from reasoning_ext.verifier import read_gold

HOME = ROOT / "examples" / "tasks"
TASKS = ["chained_arithmetic", "linear_equations", "unit_word_problems"]
CASES = [
    ("chained_arithmetic", {}),
    ("chained_arithmetic", {"fractions": True, "num_operations": 3}),
    ("chained_arithmetic", {"parentheses": False, "max_operand": 500, "num_operations": 6}),
    ("linear_equations", {}),
    ("linear_equations", {"rational": True}),
    ("linear_equations", {"num_unknowns": 2}),
    ("linear_equations", {"num_unknowns": 2, "rational": True, "max_coefficient": 20}),
    ("unit_word_problems", {}),
    ("unit_word_problems", {"max_number": 200, "unit_share": 1.0}),
]


# What each template asks for, worked out a second time from the numbers in its text, in their order.
SOLVED = {
    "get?": lambda n, p, paid: paid - n * p,
    "cost together": lambda p, q, n, m: n * p + m * q,
    "centimetres": lambda metres, n, piece: metres * 100 - n * piece,
    "go in all": lambda t, v, u, w: t * v + u * w,
    "average speed": lambda km, minutes: km / (minutes / 60),
    "How many minutes is": lambda h, m, n: (60 * h + m) * n,
    "How many grams": lambda kg, n, g: 1000 * kg - n * g,
    "millilitres": lambda litres, n, ml: 1000 * litres - n * ml,
    "kilograms": lambda n, m, g: n * m * g / 1000,
    "a week": lambda has, rate, weeks: has + rate * weeks,
    "the fence cost": lambda a, b, p: (a + a + b + b) * p,
    "kilometres": lambda n, m, days: days * n * m / 1000,
    "each of them pay": lambda friends, n, p: n * p / friends,
    "How much is left": lambda hours, rate, fare, days: days * (hours * rate - fare),
    "is it full": lambda size, has, rate: (size - has) / rate,
}


def task(name):
    return import_file(HOME / f"{name}.py")


def rows(name, num_rows=500, **settings):
    return list(getattr(task(name), name)(num_rows=num_rows, **settings))


def value(text, **unknowns):
    """Work an expression out exactly, without eval."""

    def at(node):
        if isinstance(node, ast.BinOp):
            left, right = at(node.left), at(node.right)
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            return left * right if isinstance(node.op, ast.Mult) else left / right
        if isinstance(node, ast.UnaryOp):
            return -at(node.operand)
        return unknowns[node.id] if isinstance(node, ast.Name) else Fraction(str(node.value))

    return at(ast.parse(re.sub(r"(\d)([xy])", r"\1*\2", text.strip()), mode="eval").body)


def sides(equation, **unknowns):
    return [value(side, **unknowns) for side in equation.split("=")]


@pytest.mark.parametrize("name", TASKS)
def test_the_docstring_example_runs(name):
    result = doctest.testmod(task(name))
    assert result.attempted >= 3 and result.failed == 0


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_500_traces_are_right_in_their_steps_and_in_their_answer(name, settings):
    made = rows(name, **settings)
    completions = [row["completion"] for row in made]
    golds = [row["answer"] for row in made]
    assert all(think.well_formed(completion) for completion in completions)
    assert all(read_gold(gold) for gold in golds)
    assert math_answer(completions, golds, prompts=[row["prompt"] for row in made]) == [1.0] * 500
    checked = step_check(completions)
    assert set(checked) <= {1.0, None} and checked.count(1.0) > 400
    assert task(name).score(completions, golds, [row["steps"] for row in made]) == [1.0] * 500
    assert all(row["steps"] == think.split(row["completion"]).thought.strip().split("\n") for row in made)


@pytest.mark.parametrize("name", TASKS)
def test_a_row_depends_on_seed_split_and_index_alone(name):
    ten, thousand = rows(name, 10), rows(name, 1000)
    assert ten == thousand[:10]
    assert rows(name, 10, seed=1) != ten
    assert [*islice(getattr(task(name), name)(), 10)] == ten
    assert len({row["prompt"] for row in thousand}) > 600


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_problem_whatever_the_seed(name):
    problems = {
        split: {
            row["prompt"].partition("Write")[0] for seed in range(3) for row in rows(name, 700, split=split, seed=seed)
        }
        for split in ("train", "validation", "test")
    }
    assert all(len(found) > 300 for found in problems.values())
    assert problems["train"].isdisjoint(problems["test"] | problems["validation"])
    assert problems["validation"].isdisjoint(problems["test"])


def test_arithmetic_is_worked_out_in_order():
    for settings in ({}, {"fractions": True}, {"parentheses": False}, {"operators": "-", "num_operations": 12}):
        for row in rows("chained_arithmetic", 300, **settings):
            expression = row["prompt"].removeprefix("Calculate ").partition(". Write")[0]
            assert value(expression) == Fraction(row["answer"])
            assert all(left == right for left, right in map(sides, row["steps"]))
            assert len(row["steps"]) == row["difficulty"] == settings.get("num_operations", 4)
    flat = [row["prompt"] for row in rows("chained_arithmetic", 50, parentheses=False)]
    assert not any("(" in text for text in flat)
    assert any("(" in row["prompt"] for row in rows("chained_arithmetic", 50))
    fractions = rows("chained_arithmetic", 200, fractions=True)
    assert sum("/" in row["answer"] for row in fractions) > 100
    assert not any("/" in row["answer"] for row in rows("chained_arithmetic", 200))


@pytest.mark.parametrize("num_unknowns", [1, 2])
@pytest.mark.parametrize("rational", [False, True])
def test_every_step_of_an_equation_is_true_at_its_solution(num_unknowns, rational):
    for row in rows("linear_equations", 300, num_unknowns=num_unknowns, rational=rational):
        solution = [Fraction(part) for part in row["answer"].strip("()").split(",")]
        unknowns = dict(zip("xy", solution, strict=False))
        assert len(solution) == num_unknowns
        assert any(part.denominator > 1 for part in solution) == rational
        equations = row["prompt"].removeprefix("Solve ").partition(". Write")[0].split(" and ")
        assert len(equations) == num_unknowns
        assert all(left == right for left, right in (sides(line, **unknowns) for line in [*equations, *row["steps"]]))
        assert row["steps"][-1].replace(" ", "") == f"{'xy'[num_unknowns - 1]}={solution[-1]}"
        assert len(set(row["steps"])) == len(row["steps"])


def test_word_problems_are_various_and_carry_units():
    module = task("unit_word_problems")
    assert len(module.TEMPLATES) >= 12 and len(set(module.THINGS)) >= 20
    made = rows("unit_word_problems", 2000)
    words = {re.sub(r"[\d.]+", "N", row["prompt"]) for row in made}
    assert len(words) > 600
    assert all(left == right for row in made for left, right in map(sides, row["steps"]))
    with_unit = [row for row in made if not row["answer"].replace(".", "").isdigit()]
    assert 800 < len(with_unit) < 1200
    assert {row["answer"].split()[1] for row in with_unit} == {
        "dollars",
        "cm",
        "km",
        "km/h",
        "minutes",
        "g",
        "ml",
        "kg",
    }
    for row in made:
        number, _, unit = row["answer"].partition(" ")
        assert Fraction(number) == sides(row["steps"][-1])[1] > 0
        assert ("number with its unit" in row["prompt"]) == bool(unit)
    assert all(" " in row["answer"] for row in rows("unit_word_problems", 50, unit_share=1))


def test_word_problems_have_the_answer_that_their_text_asks_for():
    seen = set()
    for row in rows("unit_word_problems", 1000):
        question = row["prompt"].partition(" Write the number")[0]
        [kind] = [kind for kind in SOLVED if kind in question]
        numbers = map(Fraction, re.findall(r"\d+(?:\.\d+)?", question))
        assert SOLVED[kind](*numbers) == Fraction(row["answer"].split()[0]), question
        seen.add(kind)
    assert seen == set(SOLVED) and len(seen) == len(task("unit_word_problems").TEMPLATES)


def test_steps_count_with_their_units_too():
    score = task("unit_word_problems").score
    thought = "2 kg * 1000 = 2000 g; 3 * 250 g = 750 g, so 2000 g - 750 g = 1250 g"
    steps = ["2 * 1000 = 2000", "3 * 250 = 750", "2000 - 750 = 1250"]
    assert score([f"<think>{thought}</think>7"], ["1250 g"], [steps]) == [0.5]


def test_a_wrong_unit_is_wrong():
    score = task("unit_word_problems").score
    completions = [rf"<think>a</think>\boxed{{{said}}}" for said in ("45 km", "45", r"45\text{ km}", "45 m", "46 km")]
    assert score(completions, ["45 km"] * 5, [["40 + 5 = 45"]] * 5) == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", TASKS)
def test_a_wrong_answer_never_earns_what_a_right_one_does(name):
    [row] = rows(name, 1)
    steps, count = row["steps"], len(row["steps"])
    wrong = "\\boxed{123456789}"
    thoughts = {
        "\n".join(steps): 0.5,
        "; ".join(steps) + ".": 0.5,
        "So " + ", then ".join(step.replace(" ", "") for step in steps): 0.5,
        steps[0]: 0.5 / count,
        "\n".join([steps[0]] * 50): 0.5 / count,
        steps[0] + "\n" + "\n".join(f"{i} + 1 = {i + 1}" for i in range(100, 199)): 0.5 / 100,
        steps[0].rpartition("=")[0] + "= 987654": 0.0,
        "": 0.0,
    }
    completions = [f"<think>{thought}</think>{wrong}" for thought in thoughts]
    found = task(name).score(completions, [row["answer"]] * len(thoughts), [steps] * len(thoughts))
    assert found == pytest.approx(list(thoughts.values()))
    right = f"\\boxed{{{row['answer']}}}"
    others = [f"<think>{steps[0]}", f"{right}", f"<think>{right}</think>", f"<think>?</think>{right}"]
    assert task(name).score(others, [row["answer"]] * 4, [steps] * 4) == [0.0, 1.0, 0.0, 1.0]
    assert task(name).score(["<think>x</think>5"], ["forty two"], [steps]) == [None]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("chained_arithmetic", {"num_operations": 0}, "found num_operations: 0, allowed: whole numbers from 1 to 12"),
        ("chained_arithmetic", {"num_operations": True}, "found num_operations: True, allowed"),
        ("chained_arithmetic", {"max_operand": 1}, "found max_operand: 1, allowed: whole numbers from 2 to 9999"),
        ("chained_arithmetic", {"operators": "+/"}, "found operators: '+/', allowed: one or more of + - *"),
        ("chained_arithmetic", {"split": "dev"}, "found split: 'dev', allowed: train, validation, test"),
        ("linear_equations", {"num_unknowns": 3}, "found num_unknowns: 3, allowed: 1, 2"),
        ("linear_equations", {"max_coefficient": 2}, "found max_coefficient: 2, allowed: whole numbers from 3 to 99"),
        ("linear_equations", {"split": "dev"}, "found split: 'dev', allowed: train, validation, test"),
        ("unit_word_problems", {"max_number": 4}, "found max_number: 4, allowed: whole numbers from 5 to 1000"),
        ("unit_word_problems", {"unit_share": 2}, "found unit_share: 2, allowed: numbers from 0 to 1"),
        ("unit_word_problems", {"split": "dev"}, "found split: 'dev', allowed: train, validation, test"),
    ],
)
def test_a_bad_setting_is_refused(name, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        rows(name, 1, **settings)


def test_settings_that_leave_no_problem_are_refused():
    with pytest.raises(ValueError, match="found no problem for split"):
        for split in ("validation", "test"):  # `1 + 1`, `1 + 2`, `2 + 1`, `2 + 2` cannot fill both
            rows("chained_arithmetic", 1, num_operations=1, max_operand=2, operators="+", split=split)


def test_check_accepts_the_recipe(cli):
    done = cli("check", HOME / "grpo.yaml", "--offline")
    assert done.code == 0, done.err
    assert "chained_arithmetic.py" in done.out and "score" in done.out
    assert done.out.splitlines()[-1].strip() == "ok"
