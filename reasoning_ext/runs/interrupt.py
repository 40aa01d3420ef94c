"""Signals that lose nothing: the first one is answered between two steps or batches, the second stops at once.

Ctrl-C, SIGTERM (Slurm, Kubernetes, `timeout`) and SIGHUP (a terminal that closes) mean the same.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP where nothing waits to be saved: what KeyboardInterrupt is for Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Raise what a signal means, a handler for `signal.signal`."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)


def handle_signals(handler: Any) -> dict[int, Any]:
    """Set a handler for each of `SIGNALS` that is not ignored, as under nohup; return those that were set before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child that was forked has nothing to save
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        handler(number, frame)

    return {n: signal.signal(n, handle) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}


class Interrupt:
    """First signal: finish the step, save, stop. Second signal: stop now. A context around training or sampling.

    Attributes:
        promise: what is done first, as it is printed.
        requested: a signal has come.
        code: the exit code for it, 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, promise: str = "stopping after this step and saving a checkpoint") -> None:
        self.promise = promise
        self.requested, self.code = False, 128 + signal.SIGINT
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        self._before = handle_signals(self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested, self.code = True, 128 + number
        handle_signals(stop_at_once)
        for stream, text in ((1, f"\n{self.promise}; a second signal, Ctrl-C again, stops at once\n"), (2, "")):
            try:
                os.write(stream, text.encode())
            except OSError:  # its terminal has gone: what is printed from now on goes nowhere and is no error
                with suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
