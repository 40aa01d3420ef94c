"""Columns that have names of TRL's or of this layer's: left out where they mean nothing, refused where they clash."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from conftest import TINY

from reasoning_ext.errors import UserError
from reasoning_ext.scoring.call import build_rewards, call_reward
from reasoning_ext.scoring.spec import EntryError, parse_rewards
from tests.rows import put

TRLS = ["completions", "prompts", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments"]
TRLS += ["image", "images", "self", "whole"]
FREE = ["reward", "rewards", "seconds", "advantages", "advantage", "args", "kwargs", "func", "name", "step", "written"]
RECIPE = f"""\
stage: grpo
model_name_or_path: {TINY}/model
from_scratch: true
use_cpu: true
max_steps: 1
num_generations: 2
per_device_train_batch_size: 2
max_completion_length: 4
logging_steps: 1
save_strategy: no
dataset_name: ./rows.jsonl
output_dir: out
"""


def write_rows(folder, **more):
    put(folder / "rows.jsonl", [{"prompt": f"{i}+4?", "answer": str(i + 4), **more} for i in range(4)])


def test_columns_of_every_such_name_are_checked_and_trained_beside(cli, tmp_path, write_recipe):
    write_rows(tmp_path, **dict.fromkeys([*TRLS, *FREE], "p"))
    write_recipe(f"{RECIPE}reward_funcs: [math_answer, think_format]\n")
    checked, trained = cli("check", "--offline", "--json", "r.yaml"), cli("run", "r.yaml")
    assert (checked.code, trained.code) == (0, 0)
    columns = json.loads(checked.out)["recipes"][0]["facts"]["columns"]
    assert sorted(columns) == sorted(["prompt", "answer", *FREE])
    assert all(name in trained.out for name in TRLS)
    assert cli("score", "out", "--reward", "math_answer").code == 0


@pytest.mark.parametrize("name", ["images", "self", "step", "prompt"])
def test_a_reward_that_asks_for_such_a_column_is_refused(name, tmp_path):
    (tmp_path / "mine.py").write_text(f"def mine(completions, {name}, **kwargs):\n    return [1.0]\n")
    with pytest.raises(UserError, match=f"column {name}"):
        parse_rewards(["mine.py"], tmp_path)


def test_when_may_not_look_at_another_rewards_name(tmp_path):
    with pytest.raises(EntryError, match="column math_answer"):
        parse_rewards(["math_answer", {"think_format": {"when": {"math_answer": "x"}}}], tmp_path)


def test_a_column_does_not_fill_a_setting_of_its_name(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def mine(completions, *, factor: float = 2.0, least=-1, hint=None, **kwargs):\n"
        "    return [max(least, factor + len(h)) for h in hint]\n"
        "also = (lambda f: f)(mine)\n"
    )
    for name in ("mine.py", "mine.py:also"):
        [reward] = build_rewards(parse_rewards([name], tmp_path))
        assert call_reward(reward, completions=["a"], factor=["p"], least=["q"], hint=["abc"]) == [5.0]
        [reward] = build_rewards(parse_rewards([{name: {"least": 9}}], tmp_path))
        assert call_reward(reward, completions=["a"], least=["q"], hint=["abc"]) == [9.0]


def test_a_column_that_says_nothing_in_some_rows_still_reaches_a_reward(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def mine(completions, level: list[str] | None = None, **kwargs):\n    return [float(v == 'x') for v in level]\n"
    )
    [reward] = build_rewards(parse_rewards(["mine.py"], tmp_path))
    assert call_reward(reward, completions=["a", "b"], level=["x", None]) == [1.0, 0.0]


def test_an_older_table_is_scored(cli, tmp_path):
    table = {"step": [1, 1], "prompt": ["?", "?"], "completion": [r"\boxed{7}", "8"], "answer": ["7", "7"]}
    table |= {name: ["x", "y"] for name in [*TRLS, *FREE, "math_answer", "error"] if name not in (*table, "whole")}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "old.parquet")
    result = cli("score", "old.parquet", "--reward", "math_answer")
    assert result.code == 0 and "mean 0.5000" in result.out
