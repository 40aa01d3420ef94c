"""Tools that do what no tool should, to see that this machine holds a run's tools within their bounds."""

import time


def hangs(word: str) -> str:
    """Never answer.

    Args:
        word: anything.
    """
    while True:
        time.sleep(1)


def raises(word: str) -> str:
    """Raise an exception.

    Args:
        word: anything.
    """
    raise RuntimeError("raised to see what becomes of it")


def floods(word: str) -> str:
    """Answer with 20 million characters.

    Args:
        word: anything.
    """
    return "flood " * (20_000_000 // 6)


def swells(word: str) -> str:
    """Take 64 GiB of memory.

    Args:
        word: anything.
    """
    return str(len(bytearray(64 * 2**30)))
