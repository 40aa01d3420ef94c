"""The pool: results in order, deadlines, deaths, and nothing left behind."""

import multiprocessing
import signal
import subprocess
import sys
import time

import pytest

from reasoning_ext.verifier import pool as pool_module
from reasoning_ext.verifier.pool import Failure, Pool


@pytest.fixture
def pool():
    pool = Pool("tests.verifier.pool_tasks:work", memory_mb=512, size=2)
    yield pool
    pool.close()


@pytest.fixture
def one():
    """One worker whose deadlines count processor time."""
    pool = Pool("tests.verifier.pool_tasks:work", size=1, clock="processor")
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def tests_can_be_imported(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.config.rootpath))


def test_results_come_in_the_order_of_the_items(pool):
    assert pool.map(list(range(500)), 5) == [i * 2 for i in range(500)]
    assert pool.map([], 5) == []
    assert pool.map(["x" * 300_000] * 16, 5) == ["x" * 600_000] * 16


@pytest.mark.parametrize("clock", ["wall", "processor"])
def test_a_hang_a_crash_and_an_error_cost_one_item_each(pool, clock, monkeypatch):
    pool.clock = clock
    monkeypatch.setattr(pool_module, "BACKSTOP", 1)  # for the hang, which does not compute
    results = pool.map([1, "hang", 2, "die", 3, "raise", 4, "hoard", "print", 5], 1.0)
    assert [r for r in results if not isinstance(r, Failure)] == [2, 4, 6, 8, "printed", 10]
    assert [str(r) for r in results if isinstance(r, Failure)] == [
        "time-out after 1 s", "the worker died (exit code 3)", "ValueError: no", "MemoryError: ",
    ]  # fmt: skip


def test_in_a_chunk_the_item_that_the_worker_was_at_is_to_blame(one):
    for bad, reason in (("die", "the worker died (exit code 3)"), ("burn 60", "time-out after 0.5 s")):
        results = one.map([*range(15), bad, *range(16, 40)], 0.5)  # in the middle of the second of five chunks
        assert results == [*range(0, 30, 2), reason, *range(32, 80, 2)] and isinstance(results[15], Failure)


def test_waiting_costs_no_processor_time_and_computing_does(pool, one):
    assert one.map(["sleep 1.2", 1, "burn 60", 2, "burn 60", "burn 0.1"], 0.5) == [
        None, 2, "time-out after 0.5 s", 4, "time-out after 0.5 s", "burnt",
    ]  # fmt: skip
    assert pool.map(["sleep 1.2"], 0.5) == ["time-out after 0.5 s"]  # the default is wall time


def test_ctrl_c_is_ignored_and_what_neither_computes_nor_answers_is_killed_at_the_backstop(one, monkeypatch):
    assert one.map(["interrupt me"], 5) == ["undisturbed"]
    monkeypatch.setattr(pool_module, "BACKSTOP", 2)
    assert one.map(["hang", 1], 0.5) == ["time-out after 1 s", 2]


def test_the_timer_kills_although_the_parent_ignores_and_blocks_its_signal(one):
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF, signal.SIGALRM})
    try:
        assert one.map(["burn 60", 1], 0.5) == ["time-out after 0.5 s", 2]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGPROF, before)


def test_a_worker_that_died_while_idle_costs_nothing_and_an_item_whose_worker_was_killed_is_done_again(pool, tmp_path):
    assert pool.map([1, 2, 3], 5) == [2, 4, 6]
    while not all(worker.ready for worker in pool._workers):  # one may have done it all before the other had started
        assert pool.map([1, 2, 3], 5) == [2, 4, 6]
    for worker in pool._workers:
        worker.process.kill()
        worker.process.wait()
    assert pool.map([1, 2, 3], 5) == [2, 4, 6]
    assert pool.map([f"kill me once {tmp_path / 'flag'}", 1], 5) == ["done", 2]


def test_a_target_that_is_not_there_says_so(capfd):
    broken = Pool("tests.verifier.pool_tasks:nothing", size=1)
    with pytest.raises(RuntimeError, match=r"tests.verifier.pool_tasks:nothing did not start"):
        broken.map([1], 5)
    assert "AttributeError: module 'tests.verifier.pool_tasks' has no attribute 'nothing'" in capfd.readouterr().err


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


PARENT = """
import os, pickle, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
from reasoning_ext.verifier import pool as pool_module
pool_module.BACKSTOP = 1
pool = pool_module.Pool("tests.verifier.pool_tasks:work", size=2)
pool.map([1, 2], 5)
print(*[w.process.pid for w in pool._workers], flush=True)
{rest}
"""


@pytest.mark.parametrize(
    ("rest", "sign", "code"),
    [
        ("pool.map(['hang'] * 4, 1)", signal.SIGKILL, -9),  # busy: the kernel's timer
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


DIE = "os.kill(os.getpid(), signal.SIGKILL)"
SEND = "pipe = pool._workers[0].process.stdin; pipe.write(pickle.dumps(([], ['x' * 300_000]))[:20]); pipe.flush(); "


@pytest.mark.parametrize(
    "rest",
    [
        "pool.close(); pool.warm_up(); " + DIE,  # the workers start, and find nobody to tell that they are ready
        SEND + DIE,  # in the middle of a frame
        "pool.map(['kill my parent', 1] * 20, 5)",  # before a reply
        "pool.map(['raise without a parent'], 5)",
    ],
)
def test_a_worker_whose_parent_was_killed_ends_without_a_word(rest, request):
    said = subprocess.run(  # until all have closed their standard error
        [sys.executable, "-c", PARENT.format(rest=rest)], capture_output=True, cwd=request.config.rootpath, timeout=60
    )
    assert said.returncode == -signal.SIGKILL
    assert said.stderr == b""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
