"""Keep the traces worth training on: right answers, true steps, a fitting length, no loops, one language.

Every filter is off until the recipe sets it. What a filter cannot judge, such as the steps of a thought without
arithmetic, it keeps and counts. With tools a trace is all its turns, of whose results the length alone counts. The rows
are read in batches, so that memory does not grow with them, and every filter takes linear time in the length of a trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.calls import texts
from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe.trl_fields import dataclass_keys

if TYPE_CHECKING:
    from datasets import Dataset

KEY = "trace_filters"
NGRAM = 10  # words; the longest n-gram of Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, table A1)
LOOP_TIMES, LOOP_WORDS = 5, 40  # a phrase so often in a row at the end, and together so many words, is a loop
LANGUAGE_SHARE = 0.9
_BATCH, _EXAMPLES = 512, 3
# a flood is many of them
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]{1,20}|\\[A-Za-z]*|\d{1,20}|_|[^\w\s]")


@dataclass(frozen=True)
class TraceFilters:
    """The sub-keys of `trace_filters:`; each is off by default.

    Attributes:
        correct: keep rows whose answer verifies against the gold; rows without a gold are kept.
        min_steps: least share of true equations in the thought, as `step_check` counts them; rows without are kept.
        min_tokens: fewest tokens of the completion.
        max_tokens: most tokens of the completion.
        max_repetition: largest `repetition` of the completion; what ends in a loop is dropped whatever its share. 0.2
            drops 3 of GSM8K's 7,473 solutions, 2 of MATH-500's, 13 of 16 that a model of 135M did not end by itself.
        language: a script, or several joined by `+`, that 90 % of the letters must be in, as `language` counts them.
        require_thought: keep rows with a closed thought that is not empty.
    """

    correct: bool = False
    min_steps: float | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    max_repetition: float | None = None
    language: str | None = None
    require_thought: bool = False


Rows = Sequence[tuple[Any, Any, Any]]  # (prompt, completion, answer) of N rows
# What a filter says of each of N rows: "" keeps it, "dropped" does not, and the others are counted apart as well.
Verdicts = list[str]
KEPT = ("", "no_gold", "not_applicable")
APART = {"language": ["not_applicable"], "min_steps": ["not_applicable"], "correct": ["no_gold", "unjudged"]}


def problem(filters: TraceFilters) -> tuple[str, str, str] | None:
    """Say what is wrong with the values, `(filter, what was found, what is allowed)`, or None."""
    for name, key in dataclass_keys(TraceFilters).items():
        value = getattr(filters, name)
        if found := key.misfit(value):
            return name, *found
        if name in ("min_steps", "max_repetition") and value is not None and not 0 <= value <= 1:
            return name, f"found {value!r}", "a share between 0 and 1"
        if name in ("min_tokens", "max_tokens") and value is not None and value < 1:
            return name, f"found {value!r}", "whole numbers from 1"
    if filters.min_tokens and filters.max_tokens and filters.min_tokens > filters.max_tokens:
        return "min_tokens", f"found {filters.min_tokens}", f"at most max_tokens, {filters.max_tokens}"
    if filters.language is not None:
        from reasoning_ext.rewards.language import language

        try:
            language([], script=filters.language)
        except ValueError as error:
            return "language", str(error), ""
    return None


def filter_traces(
    rows: Dataset, filters: TraceFilters, count: Callable[[str], int] = len
) -> tuple[Dataset, list[dict[str, Any]]]:
    """Drop the traces that a filter refuses; cheap filters come first, and what one cannot judge is kept.

    Args:
        rows: prompt-completion rows, with their gold in `answer` where there is one.
        count: the number of tokens in a text, for `min_tokens` and `max_tokens`; without it, of letters.

    Returns:
        the rows kept, in order, and for each filter that was on `{"filter": name, "before": rows it saw, "dropped":
        k, "examples": the first 3 rows dropped}`, rows numbered from 0 as they came in, and its counts of `APART`:
        rows kept, but for those `unjudged`, whose gold cannot be read or took too long to judge.

    Raises:
        KeyProblem: there is no column `completion`.
    """
    on = _filters_on(filters, count)
    if on and "completion" not in rows.column_names:
        raise KeyProblem(KEY, f"found no column completion; there are {', '.join(rows.column_names)}")
    records: list[dict[str, Any]] = [
        {"filter": name, "before": 0, "dropped": 0, "examples": [], **dict.fromkeys(APART.get(name, []), 0)}
        for name in on
    ]
    kept: list[int] = []
    for start in range(0, len(rows) if on else 0, _BATCH):
        batch = list(enumerate(_read(rows, start), start))
        for record, judge in zip(records, on.values(), strict=True):
            verdicts = judge([row for _, row in batch])
            dropped = [number for (number, _), said in zip(batch, verdicts, strict=True) if said not in KEPT]
            record["before"] += len(batch)
            record["dropped"] += len(dropped)
            record["examples"] = [*record["examples"], *dropped][:_EXAMPLES]
            for name in APART.get(record["filter"], []):
                record[name] += verdicts.count(name)
            batch = [row for row, said in zip(batch, verdicts, strict=True) if said in KEPT]
        kept += [number for number, _ in batch]
    return rows.select(kept) if on and len(kept) < len(rows) else rows, records


def repetition(text: str) -> float:
    """Return the share of a text that stands in a passage of 10 words, or of 40 tokens, which the text has had before.

    Words alone are counted to 10, and not numbers, signs, single letters or LaTeX's commands, since mathematics writes
    a formula again at every step; what stands between the words belongs to the passage, and must be the same. Nobody
    writes 40 tokens again, whatever they are. The first occurrence of a passage does not count, and what stands in
    several counts once.

    >>> repetition("one two three four five six seven eight nine ten " * 4)
    0.75
    >>> repetition("x + 2y - 3z = 4, 5x - y = 6, " * 2)
    0.0
    """
    tokens = _TOKEN.findall(text)
    words = [i for i, token in enumerate(tokens) if token.isalpha() and (len(token) > 1 or token > "\u3040")]
    again = bytearray(len(tokens))  # 1 where a token stands in a passage that was there before
    spans = ((first, last + 1) for first, last in zip(words, words[NGRAM - 1 :], strict=False))
    for passages in (spans, ((i, i + LOOP_WORDS) for i in range(len(tokens) - LOOP_WORDS + 1))):
        seen: set[int] = set()
        for first, last in passages:
            passage = hash(tuple(tokens[first:last]))
            if passage in seen:
                again[first:last] = b"\1" * (last - first)
            seen.add(passage)
    return sum(again) / len(tokens) if tokens else 0.0


def ends_in_loop(text: str) -> bool:
    """Tell whether a text ends in a phrase 5 times in a row or more, in 40 words or more; the last may be cut off.

    >>> ends_in_loop("So it is 4. " + "Wait, let me check again. " * 9 + "Wait, let")
    True
    """
    words = _TOKEN.findall(text)[-2::-1]  # the last word may be cut off itself; it is counted, not compared
    border = [0] * len(words)  # Knuth-Morris-Pratt: how long a prefix of the reversed words also ends here
    length = 0
    for i in range(1, len(words)):
        while length and words[i] != words[length]:
            length = border[length - 1]
        length += words[i] == words[length]
        border[i] = length
        if i + 2 >= LOOP_WORDS and i + 2 >= LOOP_TIMES * (i + 1 - length):
            return True
    return False


def _filters_on(filters: TraceFilters, count: Callable[[str], int]) -> dict[str, Callable[[Rows], Verdicts]]:
    """Return the filters that are on, in their order."""

    def each(test: Callable[[list[str]], bool], results: bool = False) -> Callable[[Rows], Verdicts]:
        return lambda rows: ["" if test(texts(said, results)) else "dropped" for _, said, _ in rows]

    def tokens(turns: list[str]) -> int:
        return sum(map(count, turns))

    every: dict[str, Callable[[Rows], Verdicts]] = {
        "require_thought": each(lambda turns: any((think.split(text).thought or "").strip() for text in turns)),
        "min_tokens": each(lambda turns: tokens(turns) >= (filters.min_tokens or 0), True),
        "max_tokens": each(lambda turns: tokens(turns) <= (filters.max_tokens or 0), True),
        "language": partial(_in_language, filters.language),
        "max_repetition": each(partial(_repeats_little, filters.max_repetition)),
        "min_steps": partial(_with_true_steps, filters.min_steps),
        "correct": _correct,
    }
    off = {name for name in every if (value := getattr(filters, name)) is None or value is False}  # 0.0 is a share
    return {name: judge for name, judge in every.items() if name not in off}


def _read(rows: Dataset, start: int) -> Iterator[tuple[Any, Any, Any]]:
    names = [name for name in ("prompt", "completion", "answer") if name in rows.column_names]
    for row in rows.select_columns(names).select(range(start, min(start + _BATCH, len(rows)))):
        yield row.get("prompt"), row["completion"] or "", row.get("answer")


def _repeats_little(most: float | None, turns: list[str]) -> bool:
    """Judge what the assistant wrote, in its turns one after the other; a call again and again is a loop too."""
    text = "\n".join(turns)
    thoughts = (thought for thought, closed, _ in (turn.rpartition(think.CLOSE) for turn in turns) if closed)
    is_loop = ends_in_loop(text) or any(map(ends_in_loop, thoughts))
    return not is_loop and repetition(text) <= (1.0 if most is None else most)


def _in_language(script: str | None, rows: Rows) -> Verdicts:
    from reasoning_ext.rewards.language import language

    return _at_least(LANGUAGE_SHARE, language([completion for _, completion, _ in rows], script=script or "latin"))


def _with_true_steps(least: float | None, rows: Rows) -> Verdicts:
    from reasoning_ext.rewards.step_check import step_check

    return _at_least(least or 0.0, step_check([completion for _, completion, _ in rows]))


def _at_least(least: float, shares: list[float | None]) -> Verdicts:
    return ["not_applicable" if share is None else "" if share >= least else "dropped" for share in shares]


def _correct(rows: Rows) -> Verdicts:
    """Judge the answers as the reward `math_answer` does; one right gold is enough."""
    from reasoning_ext.rewards.math_answer import math_answer

    golds = [gold if isinstance(gold, list) else [gold] for _, _, gold in rows]
    pairs = [(i, str(gold)) for i, own in enumerate(golds) for gold in own if gold is not None and str(gold).strip()]
    prompts = [rows[i][0] or "" for i, _ in pairs]
    scores = math_answer([rows[i][1] for i, _ in pairs], [gold for _, gold in pairs], prompts=prompts)
    given: list[list[float | None]] = [[] for _ in rows]
    for (i, _), score in zip(pairs, scores, strict=True):
        given[i].append(score)
    return ["no_gold" if not own else "" if 1.0 in own else "unjudged" if None in own else "dropped" for own in given]
