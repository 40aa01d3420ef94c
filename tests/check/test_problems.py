"""A problem is data: its line is written from its parts, every code is documented, and one recipe is checked once."""

import pickle
import re

import pytest
from conftest import ROOT

from reasoning_ext.check.keys import OF_KEYS, OF_REWARDS, OF_RUNS
from reasoning_ext.check.named_inputs import RULES
from reasoning_ext.data.columns import DataError
from reasoning_ext.errors import KeyProblem, Problem, UserError
from reasoning_ext.recipe.load import load_recipe

DOCUMENTED = re.findall(r"^\| `(\w+)` \| (.+) \|$", (ROOT / "docs" / "problems.md").read_text(), re.MULTILINE)


def test_every_code_has_one_line_of_meaning():
    rules = [*OF_KEYS, *OF_REWARDS, *OF_RUNS, *RULES]
    written = {rule.__name__ for rule in rules}
    for file in (ROOT / "reasoning_ext").rglob("*.py"):
        written |= {*re.findall(r'\bcode(?:: [\w\[\]]+)? ?= ?"(\w+)"', file.read_text())}
    names = [code for code, _ in DOCUMENTED]
    assert sorted(names) == names and len({*names}) == len(names)
    assert {*names} == written
    assert all(meaning[0].isupper() or meaning.startswith("`") for _, meaning in DOCUMENTED)


def test_a_line_is_file_line_key_found_allowed_and_hint():
    problem = Problem(code="x", file="r.yaml", line=3, key="a.b", found="found 1", allowed="2", hint="write 2")
    assert str(problem) == "r.yaml:3: a.b: found 1, allowed: 2; write 2"
    assert problem.as_dict()["line"] == 3 and problem.as_dict()["text"] == "found 1, allowed: 2; write 2"
    assert "--a from the command line" in str(Problem(code="x", file="r.yaml", line=0, key="a.b", found="found 1"))
    assert str(Problem(code="x", key="a", found="found 1")) == "found 1"


def test_an_error_is_placed_by_the_recipe_that_it_is_about(write_recipe):
    recipe = load_recipe(write_recipe("stage: sft\nlearning_rate: 1.0\n"))
    placed = recipe.placed(DataError("learning_rate", "found 1", "0"))
    assert (placed.code, placed.line, placed.key) == ("unusable_data", 2, "learning_rate")
    assert recipe.placed(UserError(placed)) is placed
    assert recipe.placed(UserError("no key")).file == ""


@pytest.mark.parametrize("error", [UserError("text"), KeyProblem("key", "found"), DataError(("a", 1), "found", "none")])
def test_errors_survive_a_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.problem, again.path) == (type(error), str(error), error.problem, error.path)
