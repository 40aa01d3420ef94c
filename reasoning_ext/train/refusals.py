"""What a library's constructor or training refuses, in one line that names the recipe's key."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from reasoning_ext.errors import KeyProblem, UserError

REFUSALS = (
    ValueError, TypeError, ImportError, NotImplementedError, KeyError, AttributeError, FileNotFoundError, ArithmeticError,
    AssertionError, re.error,
)  # fmt: skip


@contextlib.contextmanager
def refusals(values: dict[str, Any], what: str, key: str = "stage") -> Iterator[None]:
    """Raise what the constructor of `what` refuses as a KeyProblem in one line.

    It blames the key of the recipe's `values` that the message is about, or else `key`.
    """
    with _told(f"{what} refuses these values", lambda text: _blamed(values, text) or key):
        yield


@contextlib.contextmanager
def named_refusals(values: dict[str, Any]) -> Iterator[None]:
    """Raise what is refused in a training as a KeyProblem if it names a key of the recipe's `values`."""
    own = [key for key in values if "_" in key]
    with _told("the training was refused", lambda text: next((w for w in re.findall(r"\w+", text) if w in own), "")):
        yield


@contextlib.contextmanager
def _told(what: str, blamed: Callable[[str], str]) -> Iterator[None]:
    """Raise a refusal as the problem of the key that its text is about, or as it is where there is none."""
    try:
        yield
    except UserError:
        raise
    except REFUSALS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if key := blamed(text):
            raise KeyProblem(key, f"{what}: {text[:600]}") from error
        raise


def _blamed(values: dict[str, Any], text: str) -> str:
    """Return the key that a message is about: the first that it names, or the only one whose value it repeats."""
    words = re.findall(r"[\w.-]+", text.casefold())
    own = {key: value for key, value in values.items() if key not in ("stage", "backend")}
    if named := [word for word in re.findall(r"\w+", text) if word in own]:
        return named[0]
    for kinds in (str, (int, float)):  # a number may stand there by chance
        repeated = []
        for key, value in own.items():
            parts = [part for part in (value if isinstance(value, list | dict) else [value]) if isinstance(part, kinds)]
            if any(str(part).casefold() in words for part in parts if not isinstance(part, bool)):
                repeated.append(key)
        if len(repeated) == 1:
            return repeated[0]
    return ""
