"""A page that is written again as its runs go on, whatever their files are in the middle of."""

import os
import time

import pytest

from reasoning_ext.errors import UserError
from reasoning_ext.runs import watch
from reasoning_ext.runs.interrupt import Terminated


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("stage: sft\n")
    return tmp_path / "run"


@pytest.fixture
def watched(monkeypatch):
    """Watch with steps in the place of time: each is done when it would sleep."""

    def call(runs, *steps, fails=()):
        written, left = [], list(steps)

        def write(refresh):
            written.append(refresh)
            if len(written) in fails:
                raise ValueError("half a file")

        monkeypatch.setattr(watch.time, "sleep", lambda seconds: left.pop(0)())
        try:
            watch.watch_runs(runs, 5, write)
        finally:
            assert not left
        return written

    return call


def test_it_writes_when_something_changed_and_ends_when_all_is_done(run, watched):
    steps = (lambda: None, lambda: (run / "metrics.jsonl").write_text("{}\n"), lambda: (run / "DONE").write_text("{}"))
    assert watched([run], *steps) == [5, 5, 5, None], "nothing changed at the second look; the last page stays as it is"


def test_a_damaged_file_in_the_middle_is_said_and_ends_nothing(run, watched, capsys):
    def away():
        (run / "recipe.yaml").rename(run / "gone")

    def back():
        (run / "gone").rename(run / "recipe.yaml")
        (run / "DONE").write_text("{}")

    assert watched([run], lambda: None, away, back, fails=(1,)) == [5, 5, 5, None]
    said = capsys.readouterr().out
    assert "half a file; again in 5 s" in said and "found no run" in said


def test_the_next_recipe_of_a_pipeline_has_time_to_begin(run, watched):
    (run / "DONE").write_text("{}")

    def next_one():
        (run.parent / "second").mkdir()
        (run.parent / "second" / "recipe.yaml").write_text("stage: grpo\n")

    def later():
        for name in ("run", "second"):
            (run.parent / name / "DONE").write_text("{}")
            os.utime(run.parent / name / "DONE", (time.time() - 100,) * 2)

    assert watched([run.parent], next_one, later) == [5, 5, 5, None]
    assert watched([run]) == [5, None], "a run that is named itself is not waited for"


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), Terminated()])
def test_a_signal_leaves_a_page_that_does_not_load_itself_again(run, watched, signal):
    def stop():
        raise signal

    if isinstance(signal, Terminated):
        with pytest.raises(Terminated):
            watched([run], stop)
    else:
        assert watched([run], stop) == [5, None]


def test_a_run_may_begin_a_little_later_and_none_in_a_minute_is_an_error(tmp_path, watched):
    def begin():
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "recipe.yaml").write_text("stage: sft\n")
        (tmp_path / "run" / "DONE").write_text("{}")

    assert watched([tmp_path / "run"], lambda: None, begin) == [5, None]
    with pytest.raises(UserError, match="found no run"):
        watched([tmp_path / "none"], *[lambda: None] * 12)
