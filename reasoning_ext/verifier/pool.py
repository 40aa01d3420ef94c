"""Worker processes that can be killed: every item has a hard deadline, and a worker that passes it is replaced.

`multiprocessing` and `concurrent.futures` are not used, because their spawn runs the user's script a second time, their
fork copies CUDA and locks, and neither gets rid of a worker that hangs. Here a worker is `python -c` with the parent's
`sys.path`: items go in as pickles, results come out as lines of JSON, so that nothing a worker says is ever unpickled.

Who kills a worker: the parent at the deadline; the kernel, by an interval timer that no Python code can delay, half a
second later if the parent is gone; and the closed pipe when the parent is gone and the worker is idle. POSIX only.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from reasoning_ext.verifier.pool import serve; serve(*sys.argv[2:])"
)
START_SECONDS = 120.0
TIMED_OUT = "time-out after"
_GRACE = 0.5
_MOST_WORKERS, _MOST_ITEMS, _MOST_STILLBORN = 8, 32, 3


class Failure(str):
    """Why an item has no result: the deadline, the memory, or the exception, in words."""


@dataclass(eq=False)
class _Worker:
    """One process, and what it still owes."""

    process: subprocess.Popen
    deadline: float
    ready: bool = False
    owed: deque[int] = field(default_factory=deque)
    seconds: float = 0.0
    unread: bytes = b""


class Pool:
    """Worker processes that apply one function to items.

    Args:
        target: the function, `module:name`; it is imported in the workers alone.
        memory_mb: address space a worker may have, in MiB; 0 for no limit.
        setup: an item that a new worker does before it counts as started, to have imported what it needs.
        size: the most workers; default: one a core, 8 at the most, shared among the processes of `accelerate launch`.

    Safe to call from any thread, from inside an event loop (which waits) and from a forked child, which gets workers of
    its own. Workers ignore Ctrl-C, which the parent answers by killing those that are busy.
    """

    def __init__(self, target: str, memory_mb: int = 0, size: int | None = None, setup: Any = None):
        self.target, self.memory_mb = target, memory_mb
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
            seconds: hard deadline an item, counted from when it is the worker's turn to do it.

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
            for worker, line in self._wait():
                if line is not None:
                    results[worker.owed.popleft()] = _result(line)
                    worker.deadline = time.monotonic() + worker.seconds
                    left -= 1
                    continue
                if worker.owed:  # it died, or its time is over: the item is to blame, what comes after it is not
                    item, failure = worker.owed.popleft(), _post_mortem(worker)
                    waiting.extendleft(reversed(worker.owed))
                    worker.owed.clear()
                    if (
                        worker.process.returncode == -signal.SIGKILL
                        and not failure.startswith(TIMED_OUT)
                        and item not in again
                    ):
                        again.add(item)  # somebody else killed it, the kernel for want of memory perhaps
                        waiting.appendleft(item)
                    else:
                        results[item] = failure
                        left -= 1
                self._workers.append(self._start())
        return results

    def _send(self, worker: _Worker, chunk: list[int], items: Sequence[Any], seconds: float) -> None:
        frame = pickle.dumps((seconds, [items[i] for i in chunk]))
        worker.owed, worker.seconds = deque(chunk), seconds
        worker.deadline = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # it has died; the reading end says so
            _pipe(worker.process.stdin).write(frame)
            _pipe(worker.process.stdin).flush()

    def _wait(self) -> list[tuple[_Worker, bytes | None]]:
        """Wait for the next lines or the next deadline; `(worker, None)` for one that is gone by then."""
        with selectors.DefaultSelector() as selector:
            awaited = [w for w in self._workers if w.owed or not w.ready]
            for worker in awaited:
                selector.register(_pipe(worker.process.stdout), selectors.EVENT_READ, worker)
            readable = selector.select(max(0.0, min(w.deadline for w in awaited) - time.monotonic()))
        events: list[tuple[_Worker, bytes | None]] = []
        for key, _ in readable:
            worker = key.data
            data = os.read(key.fd, 1 << 16)
            *lines, worker.unread = (worker.unread + data).split(b"\n")
            if lines and not worker.ready:
                worker.ready = True
                del lines[0]
            events += [(worker, line) for line in lines]
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(1)  # for its own exit code
                self._kill(worker)
                events.append((worker, None))
        late = [w for w in self._workers if w in awaited and (w.owed or not w.ready) and time.monotonic() > w.deadline]
        for worker in late:
            if not any(worker is seen for seen, _ in events):
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
            _pipe(worker.process.stdin).close()
        _pipe(worker.process.stdout).close()
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


def _result(line: bytes) -> Any:
    reply = json.loads(line)
    return reply["value"] if "value" in reply else Failure(reply["error"])


def _post_mortem(worker: _Worker) -> Failure:
    if worker.process.returncode in (-signal.SIGKILL, -signal.SIGALRM) and time.monotonic() >= worker.deadline:
        return Failure(f"{TIMED_OUT} {worker.seconds:g} s")
    return Failure(f"the worker died (exit code {worker.process.returncode})")


def _pipe(stream: Any) -> BinaryIO:
    assert stream is not None
    return stream


def serve(target: str, memory_mb: str, setup: str = "") -> None:
    """Be a worker: read chunks of items from standard input until it closes, write one line of JSON an item."""
    replies, items_in = os.fdopen(os.dup(1), "w", encoding="ascii"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # what a function prints is not a reply
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # and what it starts does not read the items
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    if setup:
        function(pickle.loads(bytes.fromhex(setup)))
    if int(memory_mb):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(memory_mb) << 20, int(memory_mb) << 20))
    replies.write("ready\n")
    replies.flush()
    while True:
        try:
            seconds, items = pickle.load(items_in)
        except EOFError:
            return
        for item in items:
            signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)
            reply = _reply(function, item)
            try:
                replies.write(reply + "\n")
                replies.flush()
            except BrokenPipeError:  # nobody waits for it any more
                os._exit(0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(function: Callable[[Any], Any], item: Any) -> str:
    try:
        return json.dumps({"value": function(item)}, default=lambda value: value.tolist())
    except (Exception, SystemExit) as error:
        return json.dumps({"error": f"{type(error).__name__}: {str(error)[:300]}"})
