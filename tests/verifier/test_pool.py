"""The pool: results in order, deadlines, deaths, and nothing left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from reasoning_ext.verifier.pool import Failure, Pool, default_size


@pytest.fixture
def pool():
    pool = Pool("tests.verifier.pool_tasks:work", memory_mb=512, size=2)
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def tests_can_be_imported(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.config.rootpath))


def test_results_come_in_the_order_of_the_items(pool):
    assert pool.map(list(range(500)), 5) == [i * 2 for i in range(500)]
    assert pool.map([], 5) == []


def test_a_hang_a_crash_and_an_error_cost_one_item_each(pool):
    results = pool.map([1, "hang", 2, "die", 3, "raise", 4, "hoard", "print", 5], 1.0)
    assert [r for r in results if not isinstance(r, Failure)] == [2, 4, 6, 8, "printed", 10]
    assert [str(r) for r in results if isinstance(r, Failure)] == [
        "time-out after 1 s", "the worker died (exit code 3)", "ValueError: no", "MemoryError: ",
    ]  # fmt: skip


def test_a_worker_that_died_while_idle_costs_nothing(pool):
    assert pool.map([1, 2, 3], 5) == [2, 4, 6]
    while not all(worker.ready for worker in pool._workers):  # one may have done it all before the other had started
        assert pool.map([1, 2, 3], 5) == [2, 4, 6]
    for worker in pool._workers:
        worker.process.kill()
        worker.process.wait()
    assert pool.map([1, 2, 3], 5) == [2, 4, 6]


def test_an_item_whose_worker_somebody_killed_is_done_again(pool, tmp_path):
    assert pool.map([f"kill me once {tmp_path / 'flag'}", 1], 5) == ["done", 2]


def test_a_target_that_is_not_there_says_so(pool):
    broken = Pool("tests.verifier.pool_tasks:nothing", size=1)
    with pytest.raises(RuntimeError, match=r"tests.verifier.pool_tasks:nothing did not start"):
        broken.map([1], 5)


def test_a_forked_child_has_workers_of_its_own(pool):
    assert pool.map([1, 2], 5) == [2, 4]
    ours = {worker.process.pid for worker in pool._workers}
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=report_workers, args=(pool, sending))
    with pool._lock:  # as if another thread were judging just now
        child.start()
    assert receiving.poll(30)
    results, theirs = receiving.recv()
    child.join()
    assert results == [6, 8] and theirs and not theirs & ours
    assert pool.map([5], 5) == [10] and ours == {worker.process.pid for worker in pool._workers}


def report_workers(pool, sending):
    sending.send((pool.map([3, 4], 5), {worker.process.pid for worker in pool._workers}))
    pool.close()


def test_the_number_of_workers_fits_the_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert default_size() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert default_size() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert default_size() == 1


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
from reasoning_ext.verifier.pool import Pool
pool = Pool("tests.verifier.pool_tasks:work", size=2)
pool.map([1, 2], 5)
print(*[w.process.pid for w in pool._workers], flush=True)
{rest}
"""


@pytest.mark.parametrize(
    ("rest", "sign", "code"),
    [
        ("pool.map(['hang'] * 4, 3)", signal.SIGKILL, -9),  # busy: the kernel's timer
        ("sys.stdin.read()", signal.SIGKILL, -9),  # idle: the closed pipe
        ("pool.map(['hang'] * 4, 60)", signal.SIGINT, -2),  # Ctrl-C in the middle of a batch
        ("", None, 0),  # the end
    ],
)
def test_nothing_is_left_behind(rest, sign, code, request):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(rest=rest)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd=request.config.rootpath,
    )  # fmt: skip
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(0.3)
    if sign:
        parent.send_signal(sign)
    assert parent.wait(timeout=30) == code
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(alive(pid) for pid in workers):
        time.sleep(0.05)
    assert not [pid for pid in workers if alive(pid)]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
