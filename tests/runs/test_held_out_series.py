"""The series of a training on held-out problems: falls and the best checkpoint by paired tests, and damaged lines."""

from functools import cache

import numpy
import pytest

from reasoning_ext.recipe.held_out import measurements
from reasoning_ext.runs import held_out
from reasoning_ext.runs.files import append_lines, rows_until
from reasoning_ext.runs.folder import HELD_OUT
from reasoning_ext.runs.held_out import best, choose, fall, read_held_out


def line(step, right):
    right = [None if one is None else int(one) for one in right]
    return {"step": step, "seconds": 1.0, "figures": {"greedy": [0.0, 0.0, 0.0]}, "right": {"greedy": right}}


def told(shares, rng, problems=100):
    """Return whether a fall is told anywhere in a training whose measurements have these shares, problem by problem."""
    lines = []
    for step, share_P in enumerate(shares):
        lines.append(line(step, rng.random(problems) < share_P))
        if fall(lines, len(shares)):
            return True
    return False


@pytest.mark.parametrize("measured", [3, 11])
def test_a_training_that_never_falls_is_told_to_have_fallen_in_less_than_five_of_a_hundred(measured, monkeypatch):
    monkeypatch.setattr(held_out, "mcnemar", cache(held_out.mcnemar))
    rng = numpy.random.default_rng(0)
    flat = [told([rng.beta(1, 1, 100)] * measured, rng) for _ in range(200)]
    noisy = [told([numpy.full(100, 0.5)] * measured, rng) for _ in range(200)]  # where chance has the most to say
    assert sum(flat) <= 10 and sum(noisy) <= 10


def test_a_collapse_is_told_at_once_and_a_smaller_fall_mostly():
    rng, rise = numpy.random.default_rng(1), numpy.linspace(0.1, 0.7, 10)
    assert all(told([*rise, 0.1], rng) for _ in range(5))
    assert sum(told([*rise, 0.7, 0.4], rng) for _ in range(20)) > 10
    assert not fall([line(0, [1] * 100)], 5) and not fall([line(0, [0] * 100), line(1, [1] * 100)], 2)


def test_the_best_checkpoint_is_kept_only_where_it_is_better_for_certain():
    rises = [line(0, [0] * 20), line(10, [1] * 10 + [0] * 10), line(20, [1] * 18 + [0] * 2), line(30, [0] * 20)]
    step, said = choose(rises, 30, [10, 20, 30])
    assert step == 20 and "checkpoint-20: 90.0 against 0.0" in said and "0.0 at the start" in said
    assert choose(rises, 30, [10, 30])[0] == 10  # the higher one is not there any more
    assert choose(rises, 30, [30])[0] == 30 and choose(rises, 40, [20, 40])[0] == 40  # nothing to hold it against
    one_left = [line(step, [1] * 8) for step in range(10, 100, 10)] + [line(100, [0] * 6 + [1] * 2)]
    assert choose([one_left[0], one_left[-1]], 100, [10])[0] == 10  # p = 1/32
    assert choose(one_left, 100, [10])[0] == 100  # of nine it was the best, and the only one that is still there
    near = [*rises[:3], line(30, [1] * 16 + [0] * 4)]
    assert choose(near, 30, [10, 20, 30])[0] == 30 and best(near)["step"] == 20
    # one of ten is this much higher by luck alone
    many = [line(i, [1] * 6 + [0] * 94) for i in range(1, 11)]
    assert choose([many[0], line(99, [0] * 100)], 99, [1])[0] == 1
    assert choose([*many, line(99, [0] * 100)], 99, range(11))[0] == 99


def test_what_nobody_could_judge_is_left_out_of_a_pair():
    earlier, later = line(1, [1] * 8 + [None, 1]), line(2, [0] * 8 + [1, None])
    found = fall([earlier, later], 2)
    assert (found.before, found.after) == (1.0, 0.0) and found.p == pytest.approx(2 / 2**8)


def test_a_series_is_read_whatever_happened_to_its_file(tmp_path):
    assert read_held_out(tmp_path) == []
    append_lines(tmp_path / HELD_OUT, [line(2, [1]), line(0, [0]), line(2, [0]), line(4, [1])])
    with (tmp_path / HELD_OUT).open("a") as file:
        file.write('{"step": 6}\n[1]\n{"step": "x", "right": {"greedy": []}}\n{"step": 8, "right": {"gre')
    assert [one["step"] for one in read_held_out(tmp_path)] == [0, 2, 4]
    rows_until(tmp_path / HELD_OUT, 2, drop=True)
    assert [(one["step"], one["right"]["greedy"]) for one in read_held_out(tmp_path)] == [(0, [0]), (2, [0])]


@pytest.mark.parametrize(
    ("steps", "every", "wanted"), [(50, 20, 4), (50, 10, 6), (50, 0.1, 11), (50, None, 2), (5, 9, 2)]
)
def test_measurements_are_counted(steps, every, wanted):
    assert measurements(steps, every) == wanted
