"""A recipe's reward entries: found by any spelling, completed with parameters and columns, picklable, usable by TRL."""

import asyncio
import pickle
import subprocess
import sys

import pytest

from reasoning_ext.scoring.call import build_rewards, call_reward
from reasoning_ext.scoring.spec import EntryError, needed_columns, parse_rewards

MINE = """\
def shouts(completions, loud, *, mark="!", log_metric=None, **kwargs):
    return [float(mark in c) + bias for c, bias in zip(completions, loud)]

async def later(completions, **kwargs):
    return [0.5 for _ in completions]

def short(completions, **kwargs):
    return [1.0]
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_file_beside_the_recipe(mine):
    specs = parse_rewards([{"./mine.py:shouts": {"weight": 2, "mark": "?"}}], mine)
    assert (specs[0].name, specs[0].weight, specs[0].options) == ("shouts", 2.0, {"mark": "?"})
    assert needed_columns(specs) == {"loud": "the reward shouts"}
    [reward] = build_rewards(specs)
    assert reward.__name__ == "shouts"
    assert reward(completions=["a?", "b!"], loud=[0, 1], prompts=["", ""], trainer_state=None) == [1.0, 1.0]
    (mine / "reward.pkl").write_bytes(pickle.dumps(reward))
    code = "import pickle; print(pickle.load(open('reward.pkl', 'rb'))(completions=['a?'], loud=[0]))"
    child = subprocess.run([sys.executable, "-c", code], cwd=mine, capture_output=True, text=True)
    assert child.stdout.strip() == "[1.0]", child.stderr


def test_a_dotted_path_and_a_name_are_the_same_function(tmp_path):
    by_name, by_path = parse_rewards(["think_format"], tmp_path) + parse_rewards(
        ["reasoning_ext.rewards.think_format.think_format"], tmp_path
    )
    assert by_name.plugin.file == by_path.plugin.file
    assert build_rewards([by_path])[0](completions=["<think>a</think>b"]) == [1.0]


def test_trl_rewards_get_the_gold_under_their_own_name(tmp_path):
    specs = parse_rewards(["reasoning_accuracy_reward", "trl.rewards.format_rewards.think_format_reward"], tmp_path)
    assert needed_columns(specs) == {"answer": "the reward reasoning_accuracy_reward"}
    accuracy, form = build_rewards(specs)
    completions = [[{"role": "assistant", "content": r"<think>a</think>\boxed{3}"}]] * 2
    assert accuracy(completions=completions, answer=["$3$", "$4$"]) == [1.0, 0.0]
    assert form(completions=completions, answer=["$3$", "$4$"]) == [1.0, 1.0]


def test_a_factory_of_trl_is_called_with_its_parameters(tmp_path):
    entry = {"get_soft_overlong_punishment": {"max_completion_len": 100, "soft_punish_cache": 20}}
    [reward] = build_rewards(parse_rewards([entry], tmp_path))
    assert reward(completions=["x"], completion_ids=[[1] * 90]) == [-0.5]
    assert pickle.loads(pickle.dumps(reward))(completions=["x"], completion_ids=[[1] * 90]) == [-0.5]
    with pytest.raises(EntryError, match="the parameter max_completion_len is missing"):
        parse_rewards(["get_soft_overlong_punishment"], tmp_path)


def test_an_async_reward_stays_async(mine):
    from trl.trainer.utils import is_async_callable

    reward, plain = build_rewards(parse_rewards(["./mine.py:later", "think_format"], mine))
    assert is_async_callable(reward) and not is_async_callable(plain)
    assert asyncio.run(reward(completions=["a", "b"])) == [0.5, 0.5]
    assert call_reward(reward, completions=["a"]) == [0.5] and call_reward(plain, completions=["a"]) == [0.0]


@pytest.mark.parametrize(
    ("entries", "path", "problem"),
    [
        (["./nope.py:f"], (0, "./nope.py:f"), "no file ./nope.py"),
        (["./mine.py:nope"], (0, "./mine.py:nope"), "has no function nope; it has shouts, later, short"),
        (["no_such_package.f"], (0, "no_such_package.f"), "no module no_such_package is installed"),
        (["think_format", "think_format"], (1,), "found think_format twice"),
        ([["think_format"]], (0,), "allowed: a name"),
        ([{"think_format": 3}], (0, "think_format"), "found 3, allowed: parameters"),
        ([{"think_format": {"weight": True}}], (0, "think_format", "weight"), "found True, allowed: a finite number"),
        (
            [{"think_format": {"gate": "math_answer"}}],
            (0, "think_format", "gate"),
            "allowed: another reward of this list",
        ),
        (["math_answer", {"think_format": {"gate": "think_format"}}], (1, "think_format", "gate"), "math_answer"),
        (["./mine.py:later", {"think_format": {"gate": "later"}}], (1, "think_format", "gate"), "found 'later'"),
        ([{"think_format": {"when": "math"}}], (0, "think_format", "when"), "columns and their values"),
        ([{"think_format": {"timeout": 0}}], (0, "think_format", "timeout"), "seconds a batch, above 0"),
        ([{"think_format": {"isolate": 1}}], (0, "think_format", "isolate"), "true or false"),
        ([{"think_format": {"schedule": {"linear": {0: 1}}}}], (0, "think_format", "schedule"), "linear or steps"),
        (
            [{"think_format": {"schedule": {"cosine": {0: 1, 5: 2}}}}],
            (0, "think_format", "schedule"),
            "linear or steps",
        ),
        (
            [{"think_format": {"schedule": {"linear": {0: 1, "a": 2}}}}],
            (0, "think_format", "schedule"),
            "linear or steps",
        ),
        (
            [{"think_format": {"weight": 1, "schedule": {"linear": {0: 1, 9: 2}}}}],
            (0, "think_format", "schedule"),
            "found beside weight",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(entries, path, problem, mine):
    with pytest.raises(EntryError) as error:
        parse_rewards(entries, mine)
    assert error.value.path == ("reward_funcs", *path) and problem in str(error.value)


def test_a_file_with_a_syntax_error_is_named_with_its_line(mine):
    (mine / "broken.py").write_text("def f(:\n    pass\n")
    with pytest.raises(EntryError, match=r"broken\.py:1"):
        parse_rewards(["./broken.py:f"], mine)
