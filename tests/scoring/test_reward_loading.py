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
"""
OVERLONG = "get_soft_overlong_punishment"


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_file_beside_the_recipe(mine):
    [spec] = parse_rewards([{"./mine.py:shouts": {"weight": 2, "mark": "?"}}], mine)
    assert (spec.name, spec.weight, spec.options) == ("shouts", 2.0, {"mark": "?"})
    assert needed_columns([spec]) == {"loud": "the reward shouts"}
    [reward] = build_rewards([spec])
    assert reward(completions=["a?", "b!"], loud=[0, 1], prompts=["", ""], trainer_state=None) == [1.0, 1.0]
    (mine / "reward.pkl").write_bytes(pickle.dumps(reward))
    code = "import pickle; print(pickle.load(open('reward.pkl', 'rb'))(completions=['a?'], loud=[0]))"
    child = subprocess.run([sys.executable, "-c", code], cwd=mine, capture_output=True, text=True)
    assert child.stdout.strip() == "[1.0]", child.stderr


def test_rewards_of_ours_by_name_and_path_and_of_trl_with_the_gold_under_their_own_name(tmp_path):
    names = ["think_format", "reasoning_ext.rewards.think_format.think_format"]
    by_name, by_path = (parse_rewards([name], tmp_path)[0] for name in names)
    assert by_name.plugin == by_path.plugin
    specs = parse_rewards(["reasoning_accuracy_reward", "trl.rewards.format_rewards.think_format_reward"], tmp_path)
    assert needed_columns(specs) == {"answer": "the reward reasoning_accuracy_reward"}
    accuracy, form = build_rewards(specs)
    completions = [[{"role": "assistant", "content": r"<think>a</think>\boxed{3}"}]] * 2
    assert accuracy(completions=completions, answer=["$3$", "$4$"]) == [1.0, 0.0]
    assert form(completions=completions, answer=["$3$", "$4$"]) == [1.0, 1.0]


def test_a_factory_of_trl_is_called_with_its_parameters(tmp_path):
    [reward] = build_rewards(
        parse_rewards([{OVERLONG: {"max_completion_len": 100, "soft_punish_cache": 20}}], tmp_path)
    )
    again = pickle.loads(pickle.dumps(reward))
    assert [r(completions=["x"], completion_ids=[[1] * 90]) for r in (reward, again)] == [[-0.5], [-0.5]]


def test_an_async_reward_stays_async(mine):
    from trl.trainer.utils import is_async_callable

    reward, plain = build_rewards(parse_rewards(["./mine.py:later", "think_format"], mine))
    assert is_async_callable(reward) and not is_async_callable(plain)
    assert asyncio.run(reward(completions=["a", "b"])) == [0.5, 0.5]
    assert call_reward(reward, completions=["a"]) == [0.5] and call_reward(plain, completions=["a"]) == [0.0]


def options(**given):
    return [{"think_format": given}]


@pytest.mark.parametrize(
    ("entries", "path"),
    [
        (["./nope.py:f"], (0, "./nope.py:f")),
        (["no_such_package.f"], (0, "no_such_package.f")),
        ([OVERLONG], (0, OVERLONG)),
        (["think_format", "think_format"], (1,)),
        ([["think_format"]], (0,)),
        ([{"think_format": 3}], (0, "think_format")),
        (options(weight=True), (0, "think_format", "weight")),
        (options(gate="math_answer"), (0, "think_format", "gate")),
        (["math_answer", *options(gate="think_format")], (1, "think_format", "gate")),
        (["./mine.py:later", *options(gate="later")], (1, "think_format", "gate")),
        (options(when="math"), (0, "think_format", "when")),
        (options(when={"prompts": "a"}), (0, "think_format", "when")),
        (options(timeout=0), (0, "think_format", "timeout")),
        (options(isolate=1), (0, "think_format", "isolate")),
        (options(isolate=False, timeout=5), (0, "think_format", "isolate")),
        (options(schedule={"linear": {0: 1}}), (0, "think_format", "schedule")),
        (options(schedule={"cosine": {0: 1, 5: 2}}), (0, "think_format", "schedule")),
        (options(schedule={"linear": {0: 1, "a": 2}}), (0, "think_format", "schedule")),
        (options(weight=1, schedule={"linear": {0: 1, 9: 2}}), (0, "think_format", "schedule")),
    ],
)
def test_what_is_wrong_is_said_with_its_place(entries, path, mine, wording):
    with pytest.raises(EntryError) as error:
        parse_rewards(entries, mine)
    assert error.value.path == ("reward_funcs", *path)
    wording(error.value)
