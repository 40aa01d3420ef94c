"""Timing that holds on a slow or busy machine: processor time, best of several, no garbage collection, a yardstick."""

import re
import resource
import time
import timeit


def seconds(call, repeat=5):
    """Return the processor time of the fastest of several calls; timeit keeps the collector off meanwhile."""
    return min(timeit.repeat(call, number=1, repeat=repeat, timer=time.process_time))


def child_seconds(call):
    """Return the processor time of the processes that a call starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def slowness():
    """Return how much slower this machine is at the moment than one that finds 200,000 words in 15 ms, at least 1.

    An idle core of 2023 takes about that; a limit in seconds is multiplied with it.
    """
    text = "a b" * 100_000
    return max(1.0, seconds(lambda: [m.group() for m in re.finditer(r"\w+", text)]) / 0.015)
