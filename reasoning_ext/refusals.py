"""What a library refuses, as one line that blames the key of the recipe which it is about."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.recipe import Recipe

REFUSALS = (
    ValueError, TypeError, ImportError, NotImplementedError, KeyError, AttributeError, FileNotFoundError, ArithmeticError,
    AssertionError, re.error,
)  # fmt: skip


@contextlib.contextmanager
def refusals(recipe: Recipe, what: str, key: str = "stage") -> Iterator[None]:
    """Turn what a library's constructor refuses into one line.

    Args:
        recipe: the recipe.
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
        raise KeyProblem(_blamed(recipe, text) or key, f"{what} refuses these values: {text[:600]}") from error


@contextlib.contextmanager
def named_refusals(recipe: Recipe) -> Iterator[None]:
    """Turn what a library says of a key by its name, while it trains, into one line; everything else is left as it is.

    Raises:
        KeyProblem: it named a key that the recipe sets.
    """
    try:
        yield
    except UserError:
        raise
    except REFUSALS as error:
        text = " ".join(str(error).split())
        key = next((word for word in re.findall(r"\w+", text) if "_" in word and word in recipe.values), None)
        if key is None:
            raise
        raise KeyProblem(key, f"the training was refused: {text[:600]}") from error


def _blamed(recipe: Recipe, text: str) -> str:
    """Return the key that a library's message is about: the first that it names, or the only one whose value it repeats."""
    words = re.findall(r"[\w.-]+", text.casefold())
    own = {key: value for key, value in recipe.values.items() if key not in ("stage", "backend")}
    named = [word for word in re.findall(r"\w+", text) if word in own]
    for kinds in (str, (int, float)):  # a number may stand there by chance
        repeated = []
        for key, value in own.items():
            parts = [part for part in (value if isinstance(value, list | dict) else [value]) if isinstance(part, kinds)]
            if any(str(part).casefold() in words for part in parts if not isinstance(part, bool)):
                repeated.append(key)
        if not named and len(repeated) == 1:
            return repeated[0]
    return named[0] if named else ""
