"""Checkpoints, whole or put aside, rotated by their steps; and the signals that make one."""

import os
import signal

import pytest

from reasoning_ext.runs.checkpoints import COMPLETE, checkpoints, last_checkpoint, mark_complete, rotate, settle
from reasoning_ext.runs.interrupt import Interrupt, Terminated, handle_signals, stop_at_once


def make(path, step, whole=True):
    folder = path / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (folder / name).write_text(f"{name} of {step}")
    if whole:
        mark_complete(folder)
    return folder


def test_what_is_damaged_is_put_aside_and_what_is_torn_goes(tmp_path):
    for step in (9, 10, 20, 100, 105):
        make(tmp_path, step)
    torn = make(tmp_path, 110, whole=False)
    (tmp_path / ".tmpAb12").write_text("half a model")
    (tmp_path / "checkpoint-105" / COMPLETE).write_text('{"files": [1]}')
    (tmp_path / "checkpoint-100" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-20" / "model.safetensors").write_text("x")
    (tmp_path / "checkpoint-10" / "scheduler.pt").write_text("scheduler.pt of 11")  # of the same size
    told = settle(tmp_path)
    named = [COMPLETE, "optimizer.pt", "model.safetensors", "scheduler.pt"]
    assert [line.split("(")[1].split()[0] for line in told] == named
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9" and not torn.exists()
    assert (tmp_path / "damaged-checkpoint-100").is_dir() and not (tmp_path / ".tmpAb12").exists()
    assert settle(tmp_path) == []


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [9, 10, 100, 200]), (3, None, [10, 100, 200]), (1, None, [200]), (2, 9, [9, 200]), (1, 9, [9, 200]),
    ],
)  # fmt: skip
def test_the_oldest_go_by_step_whatever_the_clock_said_and_the_best_stays(tmp_path, limit, best, left):
    for i, step in enumerate((9, 10, 100, 200)):
        os.utime(make(tmp_path, step), (1e9 - i * 1e6, 1e9 - i * 1e6))
    rotate(tmp_path, limit, best and str(tmp_path / f"checkpoint-{best}"))
    assert [int(c.name[11:]) for c in checkpoints(tmp_path)] == left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_remembered_and_the_second_stops(number):
    before = handle_signals(stop_at_once)
    try:
        with Interrupt("stopping") as interrupt:
            os.kill(os.getpid(), number)
            assert interrupt.requested and interrupt.code == 128 + number
            with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Terminated):
                os.kill(os.getpid(), number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
