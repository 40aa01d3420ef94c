"""A tool that was called, that answered, and whose answer was used: 1.0, else 0.0, less a penalty a call.

It is judged from the text alone, by taking a result away and asking whether the answer could stand without it. A small dense
reward beside the answer's: it knows nothing of what is right, so gate it on `math_answer` or the like.
"""

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from reasoning_ext import think

_NUMBER = re.compile(r"(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++)?+")
_WORD = re.compile(rf"{_NUMBER.pattern}|[^\W\d_]++")
_TELLING, _LONGEST = 4, 40  # letters of a word that says something by itself; digits of a number that may be rounded


def tool_use(
    completions: list, *, penalty: float = 0.0, log_metric: Callable[[str, float], None] | None = None, **kwargs: Any
) -> list[float]:
    """Reward a completion that called a tool, got a result and gave an answer that depends on it.

    The answer is the last box of the last turn, else its last number, else its whole text, behind the thought. It depends on a
    result where it did not stand in what the assistant had written before that result, calls included, and where one of these
    holds: it stands in the result, rounded to one decimal or more at most; a number that only the result brought is in what
    was written afterwards, to go on with; or the answer has a word of four letters or more that only the result brought.
    A result that begins as an error, `error: ...` or `{"error": ...}`, did not succeed.

    Args:
        completions: N completions, lists of messages, or strings, which called nothing.
        penalty: what each call costs, failed ones too.
        log_metric: TRL's; means a completion: `tool_use/calls`; `tool_use/needless`, called though a column `needs_tool` says
            false or the answer was there before; `tool_use/ignored`, results without an answer that depends on one.
        kwargs: the columns; with `needs_tool`, true or false, a row with false is worth 1.0 where nothing was called and
            0.0 where something was. Prompts: their words are no news from a tool.

    Returns:
        N rewards, 1.0 or 0.0, less `penalty` a call.

    Raises:
        ValueError: `penalty` is no number from 0.

    Example:
        >>> call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "17*23"}}}
        >>> turns = [{"role": "assistant", "content": "<think>17*23 is</think>", "tool_calls": [call]}]
        >>> turns.append({"role": "tool", "name": "calculator", "content": "391"})
        >>> used, ignored = ([*turns, {"role": "assistant", "content": answer}] for answer in ("It is 391.", "Who knows?"))
        >>> tool_use([used, ignored, "391"], penalty=0.25)
        [0.75, -0.25, 0.0]
    """
    if not (isinstance(penalty, int | float) and penalty >= 0 and math.isfinite(penalty)):
        raise ValueError(f"tool_use: found penalty={penalty!r}; allowed: a number from 0")
    count = len(completions)
    prompts, needs = (kwargs.get(name) or [None] * count for name in ("prompts", "needs_tool"))
    uses = [_use(completion, prompt) for completion, prompt in zip(completions, prompts, strict=True)]
    unneeded = [need is not None and not need for need in needs]
    if log_metric is not None and count:
        rows = list(zip(uses, unneeded, strict=True))
        log_metric("tool_use/calls", sum(use.calls for use in uses) / count)
        log_metric("tool_use/needless", sum(use.calls > 0 and (idle or use.known) for use, idle in rows) / count)
        log_metric("tool_use/ignored", sum(use.results > 0 and not use.depends for use in uses) / count)
    paid = [not use.calls if idle else use.depends for use, idle in zip(uses, unneeded, strict=True)]
    return [float(right) - penalty * use.calls for right, use in zip(paid, uses, strict=True)]


class _Use(NamedTuple):
    """What a completion did with tools."""

    calls: int = 0
    results: int = 0  # of calls that succeeded
    depends: bool = False  # the answer, on one of them
    known: bool = False  # the answer stood before the first result, of whatever kind


def _use(completion: str | list[dict[str, Any]], prompt: Any) -> _Use:
    if isinstance(completion, str):
        return _Use()
    said, calls, results = list[str](), 0, list[tuple[int, str]]()
    for message in completion:
        if message["role"] == "tool":
            results.append((len(said), str(message.get("content") or "")))
            continue
        made = message.get("tool_calls") or []
        calls += len(made)
        said.append("\n".join([str(message.get("content") or ""), *map(_arguments, made)]))
    answer = _final(think.answer(think.content(completion)) or "")
    asked = prompt if isinstance(prompt, str) else "\n".join(str(turn.get("content") or "") for turn in prompt or ())
    good = [(at, text) for at, text in results if not think.failed(text)]
    depends = any(_depends(answer, asked, said[:at], text, said[at:]) for at, text in good)
    known = bool(results and answer) and _stands(answer, "\n".join(said[: results[0][0]]))
    return _Use(calls, len(good), depends, known)


def _arguments(call: dict[str, Any]) -> str:
    return json.dumps((call.get("function") or {}).get("arguments"), ensure_ascii=False, default=str)


def _final(text: str) -> str:
    """Return the final answer of the text behind a thought."""
    numbers = _NUMBER.findall(text)
    return think.last_boxed(text) or (numbers[-1] if numbers else text.strip())


def _depends(answer: str, asked: str, before: list[str], result: str, after: list[str]) -> bool:
    """Tell whether an answer hangs on a result, whatever is right; see `tool_use`."""
    there = "\n".join(before)
    if not answer or _stands(answer, there):
        return False
    if _stands(answer, result, rounded=True):
        return True
    news = {*_words(result)} - {*_words(there), *_words(asked)}
    numbers = {word for word in news if word[0].isdigit()}
    words = {word for word in news - numbers if len(word) >= _TELLING}
    return not numbers.isdisjoint(_words("\n".join(after))) or not words.isdisjoint(_words(answer))


def _stands(answer: str, text: str, rounded: bool = False) -> bool:
    """Tell whether an answer's words stand in a text one behind the other, or its number, by its value."""
    wanted, words = _words(answer), _words(text)
    if rounded and len(wanted) == 1 and any(_rounds_to(word, wanted[0]) for word in words):
        return True
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(words)} "


def _rounds_to(number: str, answer: str) -> bool:
    decimals = len(answer.partition(".")[2])
    if not (decimals and number[0].isdigit() and max(len(number), len(answer)) <= _LONGEST):
        return False
    return abs(Decimal(number) - Decimal(answer)) * 10**decimals * 2 <= 1


def _words(text: str) -> list[str]:
    """Return words and unsigned numbers, each in the one form in which it is compared: `1,200.50` is `1200.5`."""
    return [_plain(word) if word[0].isdigit() else word for word in _WORD.findall(text.casefold())]


def _plain(number: str) -> str:
    whole, _, decimals = number.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")
