"""Tools and environments that behave badly, and some that do not; as a user writes them into a file."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Literal

_kept = list[bytearray]()


def lookup(word: str, *, table: str, shout: bool = False) -> str:
    """Looks a word up.

    Args:
        word: what to look for
        table: the file, a line each
    """
    print("x" * 100_000)
    with open(table, encoding="utf-8") as file:
        lines = dict(line.split(" ", 1) for line in file.read().splitlines())
    return lines[word].upper() if shout else lines[word]


def wait(seconds: float, then: Literal["a", "b"] = "a") -> dict:
    """Waits.

    Args:
        seconds: how long
        then: what to say
    """
    time.sleep(seconds)
    return {"waited": seconds, "then": then}


def misbehave(how: str) -> str:
    """Does what no tool should.

    Args:
        how: what to do
    """
    if how == "hang":
        while True:
            time.sleep(1)
    if how == "raise":
        raise ValueError("no such\nthing <|im_end|>")
    if how == "exit":
        os._exit(3)
    if how == "leave":
        raise SystemExit(0)
    if how == "fork":
        return f"fork {os.fork() > 0}"
    if how == "scribble":
        for fd in range(3, 12):
            with contextlib.suppress(OSError):
                os.write(fd, b'{"value": 1}\nno reply\n')
        return "scribbled"
    if how == "away":
        here = Path("user_tools.py").is_file()
        os.chdir("/")
        return f"at home: {here}"
    if how == "keep":
        _kept.append(bytearray(100 << 20))
        return f"kept {len(_kept)}"
    if how == "hoard":
        return str(len(bytearray(900 << 20)))
    if how == "flood":
        return "ab" * 20_000_000
    if how == "surrogate":
        return "a\ud800b"
    return {"bytes": b"x", "object": object(), "set": {1}, "none": None, "list": [1, {"ä": 2.5}], "number": 7}[how]


async def later(word: str) -> str:
    """Says it later.

    Args:
        word: what to say
    """
    return word


def undocumented(x: int):
    return x


def undescribed(x: int):
    """Has a docstring, without its parameter."""
    return x


def untyped(x):
    """Has no type.

    Args:
        x: a number
    """
    return x


class Guess:
    """A number to be guessed."""

    def __init__(self, most: int = 100):
        self.most, self.tries = most, 0

    def reset(self, *, number, **row):
        self.number, self.tries, self.solved = number, 0, False
        return f"It is between 1 and {self.most}." if number != 13 else None

    def guess(self, number: int) -> str:
        """Guesses.

        Args:
            number: the guess
        """
        self.tries += 1
        self.solved = number == self.number
        return "right" if self.solved else "too low" if number < self.number else "too high"

    def hang(self, seconds: float) -> str:
        """Hangs, after it has spoilt everything.

        Args:
            seconds: how long
        """
        self.number = -1
        time.sleep(seconds)
        return "awake"

    def get_reward(self) -> float:
        return float(self.solved) / self.tries

    def _hidden(self):
        return self.number


class Locked:
    """One that no pickle can hold."""

    def __init__(self):
        self.lock = threading.Lock()

    def reset(self, **row):
        return None

    def look(self) -> str:
        """Looks."""
        return "nothing"
