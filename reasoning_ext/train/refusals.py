"""What a library's constructor or training refuses, in one line that names the recipe's key."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from reasoning_ext.errors import KeyProblem, UserError

REFUSALS = (
    ValueError, TypeError, ImportError, NotImplementedError, KeyError, AttributeError, FileNotFoundError, ArithmeticError,
    AssertionError, re.error,
)  # fmt: skip


@contextlib.contextmanager
def refusals(values: dict[str, Any], what: str, key: str = "stage") -> Iterator[None]:
    """Turn what a library's constructor refuses into one line.

    Args:
        values: the recipe's, by key.
        what: what is built.
        key: to blame where the message names no key that the recipe sets.

    Raises:
        KeyProblem: it was refused.
    """
    try:
        yield
    except UserError:
        raise
    except REFUSALS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise KeyProblem(_blamed(values, text) or key, f"{what} refuses these values: {text[:600]}") from error


@contextlib.contextmanager
def named_refusals(values: dict[str, Any]) -> Iterator[None]:
    """Turn what a library says of a key by its name, while it trains, into one line; everything else is left as it is.

    Args:
        values: the recipe's, by key.

    Raises:
        KeyProblem: it named a key that the recipe sets.
    """
    try:
        yield
    except UserError:
        raise
    except REFUSALS as error:
        text = " ".join(str(error).split())
        key = next((word for word in re.findall(r"\w+", text) if "_" in word and word in values), None)
        if key is None:
            raise
        raise KeyProblem(key, f"the training was refused: {text[:600]}") from error


def _blamed(values: dict[str, Any], text: str) -> str:
    """Return the key that a library's message is about: the first that it names, or the only one whose value it repeats."""
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
