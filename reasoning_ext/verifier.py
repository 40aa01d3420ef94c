"""Judge whether an answer is the gold answer, with math-verify; nothing else in the project touches sympy.

What is judged is the text after the thought, which `think.split` finds. Two equal integers, or two equal strings, are
decided without sympy. The gold goes first, because `math_verify.verify` is not symmetric (open-r1#557).
"""

import re
import threading
from functools import lru_cache
from typing import Any

_INTEGER = re.compile(r"[+-]?\d{1,18}")
_LATEX = re.compile(r"\$|\\boxed|\\\(|\\\[")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
PARSE_SECONDS, VERIFY_SECONDS = 2, 2  # whole numbers: math-verify times out by signal.alarm
MAX_ANSWER_CHARACTERS = 4_000  # the cost of parsing grows with the square of junk; an answer is at the end of its text


def judge(gold: str, answer: str) -> bool | None:
    """Tell whether an answer is right.

    Args:
        gold: the gold answer, with or without LaTeX around it.
        answer: the text after the thought, in which the last box, formula or number is looked for.

    Returns:
        True or False, or None where the gold itself cannot be parsed, so that the row says nothing about the answer.
    """
    gold, answer = str(gold).strip(), answer.strip()
    parsed_gold = parse_gold(gold)
    if not parsed_gold:
        return None
    if answer == gold:
        return True
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        return int(gold) == int(answer)
    from math_verify import verify

    return bool(verify(list(parsed_gold), extract(answer), timeout_seconds=_timeout(VERIFY_SECONDS)))


@lru_cache(maxsize=65536)
def parse_gold(gold: str) -> tuple[Any, ...]:
    """Parse a gold answer, wrapped in `$...$` when it has no LaTeX environment; empty where it is prose or unparsable.

    Unwrapped, 45 of 100 MATH golds do not match themselves (open-r1#86, #293, #503); wrapped, prose such as "forty two"
    would become a product of letters, so that two or more plain words count as unparsable.
    """
    return () if _is_prose(gold) and not _LATEX.search(gold) else tuple(_parse(_in_latex(gold)))


def extract(answer: str) -> list[Any]:
    """Parse the answer out of a text: the last box first, then formulas, then plain expressions."""
    answer = answer[-MAX_ANSWER_CHARACTERS:]
    return _parse(answer if _is_prose(answer) else _in_latex(answer))


def _is_prose(text: str) -> bool:
    """Two or more plain words, outside of LaTeX commands and their text."""
    return len(_WORD.findall(_TEXT_COMMAND.sub(" ", text))) > 1


def _in_latex(text: str) -> str:
    return text if _LATEX.search(text) else f"${text}$"


def _parse(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    targets = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    return parse(text, extraction_config=targets, parsing_timeout=_timeout(PARSE_SECONDS))


def _timeout(seconds: int) -> int | None:
    """Return math-verify's time-out, or None off the main thread, where signal.alarm raises instead of working."""
    return seconds if threading.current_thread() is threading.main_thread() else None
