"""One process a run's folder: a lock that the operating system lets go of when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from reasoning_ext.run_dir import RunDirError
from reasoning_ext.shown import print

LOCK = ".lock"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run's folder for this process; the folder is made if it is not there.

    A record lock (POSIX) belongs to the process and not to its children, so workers that outlive it hold nothing. The file
    stays behind and means nothing by itself; it names the last holder's process.

    Raises:
        RunDirError: another process holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # some network disks have no locks
                print(
                    f"warning: {path} cannot be locked ({error}); see that no other run writes there", file=sys.stderr
                )
                yield
                return
            file.seek(0)
            holder = file.read().strip() or "unknown"
            problem = f"found {path}, which process {holder} is writing to"
            raise RunDirError(f"{problem}; wait for it, stop it, or choose another output_dir") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
