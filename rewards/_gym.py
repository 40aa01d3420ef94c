"""The scores of reasoning-gym's tasks, in a worker process: the library's scorers, made safe for answers of a model.

They are code that was written for answers of good will: five give the answer to sympy's parser and four to `eval`, others
take hours for `9**9**9`. `score_entry` therefore belongs into a worker with a deadline, and what it imports there is changed
first: `eval` reads literals alone, and sympy's parser formulas alone. An entry comes from a data set, and is no more trusted
than an answer.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

INSTALL = "reasoning-gym is not installed; pip install 'reasoning-ext[reasoning-gym]'"
_MAX_FORMULA = 2_000
_FUNCTIONS = (
    "sin cos tan cot sec csc asin acos atan sinh cosh tanh asinh acosh atanh exp log ln sqrt Abs erf pi".split()
)
_FORMULA = re.compile(
    rf"(?:(?<![A-Za-z])(?:[A-Za-z]|{'|'.join(_FUNCTIONS)})(?![A-Za-z])|(?:[0-9]\.?|\.[0-9])|[-+*/^(), ])*+"
)
_BITS = re.compile(r"[0-9a-fx\s()+\-*<>&|^~]{0,2000}")  # no letters that a name could be made of
_ANY_TEXT_PAYS = frozenset({"game_of_life_halting"})  # compares bool(answer) with bool(gold), both texts
_RAISES = {"prime_factorization": ValueError, "boxnet": TypeError}  # for an answer in another form than the gold's


def is_installed() -> bool:
    """Tell whether the library is there, without importing it."""
    return importlib.util.find_spec("reasoning_gym") is not None


def score_entry(item: tuple[str, str] | tuple[()]) -> float | None:
    """Score `(gym_entry, answer)` with its task's own scorer, from 0.0 to 1.0; `()` only imports the library.

    For a worker process alone, whose modules it changes. Raises whatever the scorer raises; 0.0 in the two tasks whose
    scorers raise where an answer cannot be read.
    """
    _guard_library()
    if not item:
        return None
    text, answer = item
    found = json.loads(text, object_hook=restored)
    task, entry = found["task"], found["entry"]
    if task == "bitwise_arithmetic" and not _BITS.fullmatch(entry["metadata"]["problem"]):
        raise ValueError("the entry's problem is no arithmetic")
    if task in _ANY_TEXT_PAYS:
        return float(answer.casefold() == str(entry["answer"]).casefold())
    scorer = _scorer(task, json.dumps(found["config"]))
    try:  # `spell_backward` adds floats up to a little more than 1
        return min(1.0, max(0.0, float(scorer(answer, entry))))
    except _RAISES.get(task, ()):
        return 0.0


def plain(value: Any) -> Any:
    """Write what JSON cannot tell apart as objects with a tag: tuples, fractions, and dicts whose keys are no strings."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: plain(inner) for key, inner in value.items()}
        return {"__pairs__": [[plain(key), plain(inner)] for key, inner in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [plain(inner) for inner in value]}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, Fraction):
        return {"__fraction__": str(value)}
    return value.item() if type(value).__module__ == "numpy" else value


def restored(value: dict[str, Any]) -> Any:
    """Undo what `plain` did to an object of JSON."""
    if value.keys() == {"__tuple__"}:
        return tuple(value["__tuple__"])
    if value.keys() == {"__fraction__"}:
        return Fraction(value["__fraction__"])
    return dict(value["__pairs__"]) if value.keys() == {"__pairs__"} else value


@lru_cache(maxsize=64)
def _scorer(task: str, settings: str) -> Callable[[str, dict[str, Any]], float]:
    from reasoning_gym.factory import create_dataset

    return create_dataset(task, **json.loads(settings), seed=0, size=1).score_answer


@lru_cache(maxsize=1)
def _guard_library() -> None:
    """Change what the library's scorers read answers with; its generators are not to be used after that."""
    import reasoning_gym  # noqa: F401
    import sympy
    from sympy.parsing import sympy_parser

    parse = sympy_parser.parse_expr

    def parse_formula(text: str, *args: Any, **kwargs: Any) -> Any:
        if len(text) > _MAX_FORMULA or not _FORMULA.fullmatch(text):
            raise ValueError("no formula")
        return parse(text, *args, **kwargs)

    sympy.parse_expr = parse_formula  # not the one in sympy_parser: sympy itself reads names of its own with that
    for name, module in list(sys.modules.items()):
        if not name.startswith("reasoning_gym."):
            continue
        if vars(module).get("parse_expr") is parse:
            vars(module)["parse_expr"] = parse_formula
        if not name.endswith(".bitwise_arithmetic"):  # it evaluates its own problem, which is looked at before
            vars(module)["eval"] = ast.literal_eval
        vars(module)["exec"] = _refuse


def _refuse(*args: Any) -> None:
    raise ValueError("found code, allowed: an answer")
