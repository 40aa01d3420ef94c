"""Ctrl-C that loses nothing: the first one is remembered and answered between two steps or batches, the second stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from reasoning_ext.shown import print


class Interrupt:
    """First Ctrl-C: finish the step, save, stop. Second Ctrl-C: stop now. Used as a context around training or sampling.

    Args:
        promise: what is done first, as it is printed.
    """

    def __init__(self, promise: str = "stopping after this step and saving a checkpoint") -> None:
        self.promise = promise
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"\n{self.promise}; press Ctrl-C again to stop at once", flush=True)
