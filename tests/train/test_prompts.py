"""Which prompts a GRPO training draws: TRL's order, without those at rest, and the same after a cut as without one."""

import json
from types import SimpleNamespace

import pytest
import torch
from trl.trainer.utils import RepeatSampler

from reasoning_ext.recipe.records import SkipKnown
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.train.prompts import PASS_RATES, PassRates, Prompts

SKIP = SkipKnown(retry_after=4)


class Training:
    """Stands in for a trainer of which every draw has two completions a prompt, and `rates` say how many are right."""

    def __init__(self, folder, rates, resumed=None, skip=SKIP, shuffle=True):
        self.trainer = SimpleNamespace(
            train_dataset=[{"prompt": f"problem {i}"} for i in range(len(rates))],
            shuffle_dataset=shuffle, args=SimpleNamespace(seed=3), state=SimpleNamespace(global_step=resumed or 0),
            model=SimpleNamespace(training=True), accelerator=SimpleNamespace(process_index=0),
            _calculate_rewards=lambda inputs, *_: torch.tensor(
                [[9.0, self.rates[int(x["prompt"][8:])] * 2 > i % 2] for i, x in enumerate(inputs)]
            ),
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        checkpoint = folder / f"checkpoint-{resumed}" if resumed else None
        self.rates, self.kept = rates, PassRates(self.trainer, RunDir(folder, False, checkpoint), decides=1)
        self.prompts = Prompts(self.trainer, self.kept, skip)

    def draw(self, count, without=()):
        rows = self.prompts.take(count, without)
        inputs = [self.trainer.train_dataset[row] for row in rows for _ in range(2)]
        self.trainer._calculate_rewards(inputs, inputs, inputs, inputs)
        return rows

    def steps(self, number, count):
        found = []
        for _ in range(number):
            found.append(self.draw(count))
            self.trainer.state.global_step += 1
        return found


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_order_is_that_of_trl_s_sampler_where_nothing_rests(tmp_path, shuffle):
    training = Training(tmp_path, [0.5] * 12, shuffle=shuffle)
    sampler = RepeatSampler(range(12), 1, batch_size=4, shuffle=shuffle, seed=3)
    assert training.steps(6, 4) == [rows[i : i + 4] for rows in (list(sampler), list(sampler)) for i in (0, 4, 8)]


def test_each_row_comes_once_before_any_comes_again_whatever_else_is_drawn(tmp_path):
    training = Training(tmp_path, [0.5] * 11)
    drawn = []
    for more in (1, 3, 1, 1, 1):
        drawn += [*(first := training.draw(3)), *training.draw(more, first)]
    assert sorted(drawn[:11]) == [*range(11)] and len({*drawn[11:]}) == len(drawn) - 11


def test_solved_and_hopeless_prompts_rest_and_are_tried_again(tmp_path):
    training = Training(tmp_path, [1.0, 0.0, 0.5, 0.5, 0.5, 0.5], shuffle=False)
    first, second, third, *others = training.steps(6, 3)
    assert (first, second, third) == ([0, 1, 2], [3, 4, 5], [2, 3, 4])
    assert others == [[5, 2, 3], [4, 5, 0], [1, 2, 3]]  # drawn for step 1, and awake again for step 5
    assert training.prompts.resting == pytest.approx(2 / 6)
    bounds = SkipKnown(above=0.5, below=None, retry_after=4)
    assert Training(tmp_path / "b", [0.5, 0.0, 0.0], skip=bounds, shuffle=False).steps(2, 2) == [[0, 1], [2, 1]]


def test_those_that_have_rested_longest_come_first_where_too_few_are_awake(tmp_path):
    training = Training(tmp_path, [1.0] * 5 + [0.5], skip=SkipKnown(retry_after=99), shuffle=False)
    assert training.steps(5, 2) == [[0, 1], [2, 3], [4, 5], [5, 0], [5, 1]]
    assert training.draw(9, without=[5]) == [2, 3, 4, 0, 1]  # and no more than there are
    assert training.prompts.take(9, awake=True) == [5]


def test_what_nobody_judges_keeps_its_rate_and_an_evaluation_leaves_none(tmp_path):
    training = Training(tmp_path, [float("nan")] * 4)
    training.trainer._calculate_rewards = None
    rows = [{"prompt": f"problem {i}"} for i in (0, 0, 1, 1)]
    training.kept._scored(rows, rows, rows, rows, torch.tensor([[0, 1.0], [0, 0.4], [0, torch.nan], [0, torch.nan]]))
    training.trainer.model.training = False
    training.kept._scored(rows, rows, rows, rows, torch.ones(4, 2))
    [line] = [json.loads(line) for line in (tmp_path / PASS_RATES).read_text().splitlines()]
    assert line["pass_rates"] == [0.5, None] and line["samples"] == [2, 0] and line["step"] == 1
    assert [*training.kept.last] == line["prompts"][:1]


def test_a_run_that_goes_on_draws_what_it_would_have_drawn(tmp_path):
    rates = [1.0, 0.0, 0.5] * 7
    whole = Training(tmp_path / "whole", rates).steps(20, 4)
    first = Training(tmp_path, rates)
    assert first.steps(11, 4) == whole[:11]  # the checkpoint is of step 8
    with (tmp_path / PASS_RATES).open("a") as file:
        file.write('{"step": 3, "prompts": [')
    assert Training(tmp_path, rates, resumed=8).steps(12, 4) == whole[8:]
    assert (tmp_path / PASS_RATES).read_text() == (tmp_path / "whole" / PASS_RATES).read_text()
