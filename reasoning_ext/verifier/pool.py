"""Worker processes that can be killed: every item has a hard deadline, and a worker that passes it is replaced.

A worker is `python -c` with the parent's `sys.path`: items go in as pickles, results come out as lines of JSON, so that nothing
a worker says is ever unpickled. `multiprocessing` and `concurrent.futures` would run the user's script a second time, or copy
CUDA and locks, and get rid of no worker that hangs.

Who kills a worker: the parent at a deadline in wall time; the kernel, by a timer that no Python code can delay, at a deadline
in processor time, and half a second after one in wall time if the parent is gone; and the worker itself, without a word, when
it finds its pipes closed because the parent is gone. POSIX only.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Clock = Literal["wall", "processor"]
_BOOT = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = json.loads(sys.argv[1]);"
    " from reasoning_ext.verifier.pool_worker import serve; serve(*sys.argv[2:])"
)
START_SECONDS = 120.0
BACKSTOP = 10.0  # so many times the processor time that an item may use is the wall time that it may take
TIMED_OUT = "time-out after"
_GRACE = 0.5
_MOST_WORKERS, _MOST_ITEMS, _MOST_STILLBORN = 8, 32, 3


class Failure(str):
    """Why an item has no result: the deadline, the memory, or the exception, in words."""


@dataclass(eq=False)
class _Worker:
    """One process, and what it still owes."""

    process: Any  # a subprocess.Popen with pipes
    deadline: float
    ready: bool = False
    owed: deque[int] = field(default_factory=deque)
    seconds: float = 0.0
    wall: float = 0.0
    unread: bytes = b""


class Pool:
    """Worker processes that apply one function to items.

    Args:
        target: the function, `module:name`; it is imported in the workers alone.
        memory_mb: address space a worker may have, in MiB; 0 for no limit.
        setup: an item that a new worker does before it counts as started, to have imported what it needs.
        size: the most workers; default: one a core, 8 at the most, shared among the processes of `accelerate launch`.
        clock: what deadlines count: `wall` time, or the `processor` time that a worker uses, without what it starts, so that
            a busy machine costs no results; an item that waits is killed after `BACKSTOP` times as much wall time.

    Safe to call from any thread, from inside an event loop (which waits) and from a forked child, which gets workers of
    its own. Workers ignore Ctrl-C, which the parent answers by killing those that are busy.
    """

    def __init__(
        self, target: str, memory_mb: int = 0, size: int | None = None, setup: Any = None, clock: Clock = "wall"
    ):
        self.target, self.memory_mb, self.clock = target, memory_mb, clock
        self.setup = "" if setup is None else pickle.dumps(setup).hex()
        self.size = size or default_size()
        self._forget()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Start from nothing; in a forked child the workers belong to the parent."""
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._stillborn = 0

    def warm_up(self) -> None:
        """Start all workers without waiting for them, so that they import while something else goes on."""
        with self._lock:
            while len(self._workers) < self.size:
                self._workers.append(self._start())

    def map(self, items: Sequence[Any], seconds: float) -> list[Any]:
        """Apply the function to N items.

        Args:
            items: what can be pickled.
            seconds: hard deadline an item by the pool's clock, counted from when it is the worker's turn to do it.

        Returns:
            N results, of what JSON can hold, in the items' order; a `Failure` where there is none.

        Raises:
            RuntimeError: workers cannot be started.
        """
        with self._lock:
            try:
                return self._map(items, seconds)
            finally:  # an exception, such as Ctrl-C, leaves workers with work that nobody waits for
                for worker in [w for w in self._workers if w.owed]:
                    self._kill(worker)

    def _map(self, items: Sequence[Any], seconds: float) -> list[Any]:
        results: list[Any] = [None] * len(items)
        waiting = deque(range(len(items)))
        chunk = max(1, min(_MOST_ITEMS, len(items) // (4 * self.size)))
        left, again = len(items), set[int]()
        while left:
            wanted = min(self.size, -(-len(waiting) // chunk))
            while len(self._workers) < wanted:
                self._workers.append(self._start())
            for worker in [w for w in self._workers if w.ready and not w.owed]:
                if worker.process.poll() is not None:  # it died while it had nothing to do
                    self._kill(worker)
                elif waiting:
                    self._send(worker, [waiting.popleft() for _ in range(min(chunk, len(waiting)))], items, seconds)
            if not any(w.owed or not w.ready for w in self._workers):
                continue  # all had died while they had nothing to do
            for worker, reply in self._wait():
                if reply is not None and not worker.owed:
                    continue  # of one that was spent
                if reply is not None:
                    results[worker.owed.popleft()] = reply["value"] if "value" in reply else Failure(reply["error"])
                    worker.deadline = time.monotonic() + worker.wall
                    left -= 1
                    if reply.get("spent"):  # what fills its memory may stay there
                        waiting.extendleft(reversed(worker.owed))
                        worker.owed.clear()
                        self._kill(worker)
                    continue
                if worker.owed:  # it died, or its time is over: the item is to blame, what comes after it is not
                    item, failure = worker.owed.popleft(), _post_mortem(worker, self.clock)
                    waiting.extendleft(reversed(worker.owed))
                    worker.owed.clear()
                    killed = worker.process.returncode == -signal.SIGKILL and not failure.startswith(TIMED_OUT)
                    if killed and item not in again:  # by somebody else, the kernel for want of memory perhaps
                        again.add(item)
                        waiting.appendleft(item)
                    else:
                        results[item] = failure
                        left -= 1
                self._workers.append(self._start())
        return results

    def _send(self, worker: _Worker, chunk: list[int], items: Sequence[Any], seconds: float) -> None:
        wall = seconds if self.clock == "wall" else BACKSTOP * seconds
        timers = {signal.ITIMER_REAL: wall + _GRACE} | ({} if self.clock == "wall" else {signal.ITIMER_PROF: seconds})
        frame = pickle.dumps(([*timers.items()], [items[i] for i in chunk]))
        worker.owed, worker.seconds, worker.wall = deque(chunk), seconds, wall
        worker.deadline = time.monotonic() + wall
        with contextlib.suppress(BrokenPipeError):  # it has died; the reading end says so
            worker.process.stdin.write(frame)
            worker.process.stdin.flush()

    def _wait(self) -> list[tuple[_Worker, dict[str, Any] | None]]:
        """Wait for the next replies or the next deadline; `(worker, None)` for one that is gone by then."""
        awaited = {w.process.stdout.fileno(): w for w in self._workers if w.owed or not w.ready}
        poll = select.poll()
        for fd in awaited:
            poll.register(fd, select.POLLIN)
        readable = poll.poll(1000 * max(0.0, min(w.deadline for w in awaited.values()) - time.monotonic()))
        events: list[tuple[_Worker, dict[str, Any] | None]] = []
        for fd, _ in readable:
            worker = awaited[fd]
            data = os.read(fd, 1 << 16)
            *lines, worker.unread = (worker.unread + data).split(b"\n")
            if lines and not worker.ready:
                worker.ready = True
                del lines[0]
            replies = [_parsed(line) for line in lines]
            if None in replies or len(replies) > len(worker.owed):
                replies, data = [], b""  # an item has written there itself: nothing that comes is to be relied on
            events += [(worker, reply) for reply in replies]
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(1)  # for its own exit code
                self._kill(worker)
                events.append((worker, None))
        heard = [worker for worker, _ in events]
        for worker in awaited.values():
            if (worker.owed or not worker.ready) and time.monotonic() > worker.deadline and worker not in heard:
                self._kill(worker)
                events.append((worker, None))
        return events

    def _start(self) -> _Worker:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), self.target, str(self.memory_mb), self.setup],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return _Worker(process, time.monotonic() + START_SECONDS)

    def _kill(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)  # with all that it has started
        worker.process.wait()
        with contextlib.suppress(BrokenPipeError):
            worker.process.stdin.close()
        worker.process.stdout.close()
        self._stillborn = 0 if worker.ready else self._stillborn + 1
        if not worker.ready and (worker.process.returncode > 0 or self._stillborn > _MOST_STILLBORN):
            raise RuntimeError(f"a worker for {self.target} did not start (exit code {worker.process.returncode})")

    def close(self) -> None:
        """Kill all workers; the next call starts new ones."""
        locked = self._lock.acquire(timeout=1)
        for worker in list(self._workers):
            worker.ready = True
            self._kill(worker)
        if locked:
            self._lock.release()


def default_size() -> int:
    """Return one worker a usable core, 8 at the most, divided by the processes that share this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _post_mortem(worker: _Worker, clock: Clock) -> Failure:
    code = worker.process.returncode
    if code == -signal.SIGPROF and clock == "processor":
        return Failure(f"{TIMED_OUT} {worker.seconds:g} s")
    if code in (-signal.SIGKILL, -signal.SIGALRM) and time.monotonic() >= worker.deadline:
        return Failure(f"{TIMED_OUT} {worker.wall:g} s")
    return Failure(f"the worker died (exit code {code})")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Read a worker's line; None for what `pool_worker` has not written."""
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) and reply.keys() & {"value", "error"} else None
