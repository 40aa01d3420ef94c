"""`reasoning-ext report --watch`: the page is written again as its runs go on, until they are done, or Ctrl-C."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

from reasoning_ext.errors import UserError, one_line
from reasoning_ext.runs.folder import DONE
from reasoning_ext.runs.interrupt import Terminated
from reasoning_ext.runs.read import find_runs
from reasoning_ext.shown import print

BETWEEN = 60  # seconds in which the first or the next recipe of a pipeline begins its run


def watch_runs(runs: list[Path], every: float, write: Callable[[float | None], None]) -> None:
    """Write a page whenever its runs have changed, and once more at the end.

    Nothing that a run is in the middle of ends this: what cannot be written is said, and tried again.

    Args:
        runs: as the command has them; none a minute after the start is a `UserError`.
        every: seconds between two looks.
        write: writes the page, which loads itself again after so many seconds, or not for None.
    """
    before: object = None
    try:
        _wait_for_one(runs, every)
        while True:
            try:
                if (now := _state(runs)) != before:
                    write(every)
                before = now
                if _finished(runs):
                    break
            except Exception as error:  # whatever a file was in the middle of becoming
                print(f"report  not written: {one_line(error)}; again in {every:g} s", flush=True)
            time.sleep(every)
    except (KeyboardInterrupt, Terminated) as stopped:
        if isinstance(stopped, Terminated):
            write(None)
            raise
    write(None)


def _wait_for_one(runs: list[Path], every: float) -> None:
    """Wait a minute at most for a training that is started beside this, and checks its recipe first."""
    for look in range(math.ceil(BETWEEN / every)):
        with contextlib.suppress(UserError):
            find_runs(runs)
            return
        if look == 0:
            print(f"report  no run in {', '.join(map(str, runs))} yet; waits for one, {BETWEEN} s at most", flush=True)
        time.sleep(every)
    find_runs(runs)


def _state(runs: list[Path]) -> object:
    """Return what changes when a run has written something: the sizes and times of its files."""
    found = []
    for run in find_runs(runs):
        files = [file for file in run.iterdir() if file.name[0] != "." and file.suffix != ".html"]
        found += [(str(file), (of := file.stat()).st_size, of.st_mtime_ns) for file in sorted(files)]
    return found


def _finished(runs: list[Path]) -> bool:
    """Tell whether all runs are done, and none has been for a while that another one may follow."""
    found = find_runs(runs)
    done = [run / DONE for run in found]
    alone = {run.resolve() for run in found} == {path.resolve() for path in runs}
    return all(file.is_file() for file in done) and (
        alone or time.time() - max(file.stat().st_mtime for file in done) > BETWEEN
    )
