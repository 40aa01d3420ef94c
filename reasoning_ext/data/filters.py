"""Keep the traces worth training on: right answers, true steps, a fitting length, no loops, one language, a whole thought.

Every filter is off until the recipe sets it. What a filter cannot judge, such as the steps of a thought without arithmetic,
it keeps and counts. The rows are read in batches, so that memory does not grow with them, and every filter takes linear
time in the length of a trace.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe.trl_fields import dataclass_keys

if TYPE_CHECKING:
    from datasets import Dataset

KEY = "trace_filters"
NGRAM = 10  # words; the longest n-gram of Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, table A1)
LOOP_TIMES, LOOP_WORDS = 5, 40  # a phrase so often in a row at the end, and together so many words, is a loop
LANGUAGE_SHARE = 0.9
_BATCH, _EXAMPLES = 512, 3
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w{1,20}|[^\w\s]")  # a flood of one letter is many words


@dataclass(frozen=True)
class TraceFilters:
    """The sub-keys of `trace_filters:`; each is off by default.

    Attributes:
        correct: keep rows whose answer verifies against the gold; rows without a gold are kept.
        min_steps: least share of true equations in the thought, as `step_check` counts them; rows without are kept.
        min_tokens: fewest tokens of the completion.
        max_tokens: most tokens of the completion.
        max_repetition: largest `repetition` of the completion; what ends in a loop is dropped whatever its share.
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


# What a filter is given of N rows, (prompt, completion, answer), and what it says of each: whether it is kept, and under which
# name it is counted apart, or "".
_Rows = Sequence[tuple[Any, str, Any]]
_Said = list[tuple[bool, str]]


def problem(filters: TraceFilters) -> tuple[str, str, str] | None:
    """Say what is wrong with the values, `(filter, what was found, what is allowed)`, or None."""
    for name, key in dataclass_keys(TraceFilters).items():
        if found := key.misfit(getattr(filters, name)):
            return name, *found
    bounds: dict[str, tuple[float, float, str]]
    bounds = dict.fromkeys(("min_steps", "max_repetition"), (0, 1, "a share between 0 and 1"))
    bounds |= dict.fromkeys(("min_tokens", "max_tokens"), (1, math.inf, "whole numbers from 1"))
    for name, (least, most, allowed) in bounds.items():
        value = getattr(filters, name)
        if value is not None and not least <= value <= most:
            return name, f"found {value!r}", allowed
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
    """Drop the traces that a filter refuses.

    Args:
        rows: prompt-completion rows, with their gold in `answer` where there is one.
        filters: which filters are on, as `problem` has let them through; they are applied in a fixed order, cheap ones first.
        count: the number of tokens in a text, for `min_tokens` and `max_tokens`; without it, of letters.

    Returns:
        the rows kept, in order, and for each filter that was on, in the order they were applied, `{"filter": name, "before":
        rows it saw, "dropped": k, "examples": the first 3 rows dropped}`, rows numbered from 0 as they came in. `correct`
        also counts `no_gold`, rows kept, and `unjudged`, rows dropped because the gold cannot be read or judging took too
        long; `min_steps` and `language` count `not_applicable`, rows kept.

    Raises:
        KeyProblem: there is no column `completion`.
    """
    on = list(_filters_on(filters, count))
    if on and "completion" not in rows.column_names:
        raise KeyProblem(KEY, f"found no column completion; there are {', '.join(rows.column_names)}")
    records: list[dict[str, Any]] = [{"filter": name, "before": 0, "dropped": 0, "examples": []} for name, _, _ in on]
    for record, (_, _, apart) in zip(records, on, strict=True):
        record |= dict.fromkeys(apart, 0)
    kept: list[int] = []
    for start in range(0, len(rows) if on else 0, _BATCH):
        batch = list(enumerate(_read(rows, start), start))
        for record, (_, judge, _) in zip(records, on, strict=True):
            batch = _apply(judge, batch, record)
        kept += [number for number, _ in batch]
    return rows.select(kept) if on and len(kept) < len(rows) else rows, records


def repetition(text: str) -> float:
    """Return the share of a text's words that stand in an n-gram of 10 words which the text has had before.

    A word is a run of up to 20 letters and digits, another sign, or one Chinese or Japanese character. The first
    occurrence of an n-gram does not count, and a word in several repeated n-grams counts once.

    >>> repetition("one two three four five six seven eight nine ten " * 4)
    0.75
    """
    words = _WORD.findall(text)
    seen: set[tuple[str, ...]] = set()
    repeated = covered = 0  # words counted, and where the n-grams counted so far end
    for end in range(NGRAM, len(words) + 1):
        ngram = tuple(words[end - NGRAM : end])
        if ngram in seen:
            repeated += end - max(covered, end - NGRAM)
            covered = end
        seen.add(ngram)
    return repeated / len(words) if words else 0.0


def ends_in_loop(text: str) -> bool:
    """Tell whether a text ends in one phrase 5 times in a row or more, 40 words or more in all; the last may be cut off.

    >>> ends_in_loop("So it is 4. " + "Wait, let me check again. " * 9 + "Wait, let")
    True
    """
    words = _WORD.findall(text)[-2::-1]  # the last word may be cut off itself; it is counted, not compared
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


def _filters_on(filters: TraceFilters, count: Callable[[str], int]) -> Iterator[tuple[str, Callable, list[str]]]:
    """Yield `(name, function from rows to _Said, what is counted apart)` of each filter that is on, in its order."""

    def each(test: Callable[[str], bool]) -> Callable[[_Rows], _Said]:
        return lambda rows: [(test(completion), "") for _, completion, _ in rows]

    every: dict[str, tuple[Callable, list[str]]] = {
        "require_thought": (each(lambda text: bool((think.split(text).thought or "").strip())), []),
        "min_tokens": (each(lambda text: count(text) >= (filters.min_tokens or 0)), []),
        "max_tokens": (each(lambda text: count(text) <= (filters.max_tokens or 0)), []),
        "language": (partial(_in_language, filters.language), ["not_applicable"]),
        "max_repetition": (each(partial(_repeats_little, filters.max_repetition)), []),
        "min_steps": (partial(_with_true_steps, filters.min_steps), ["not_applicable"]),
        "correct": (_correct, ["no_gold", "unjudged"]),
    }
    for name, (judge, apart) in every.items():
        value = getattr(filters, name)
        if value is not None and value is not False:  # 0.0 is a share like others
            yield name, judge, apart


def _read(rows: Dataset, start: int) -> Iterator[tuple[Any, str, Any]]:
    names = [name for name in ("prompt", "completion", "answer") if name in rows.column_names]
    for row in rows.select_columns(names).select(range(start, min(start + _BATCH, len(rows)))):
        completion = think.content(row["completion"]) if row["completion"] else ""
        yield row.get("prompt"), completion, row.get("answer")


def _apply(judge: Callable, batch: list[tuple[int, Any]], record: dict[str, Any]) -> list[tuple[int, Any]]:
    """Return the rows of a batch that a filter keeps, and enter the others into its record."""
    said: _Said = judge([row for _, row in batch])
    record["before"] += len(batch)
    for apart, rows in Counter(apart for _, apart in said if apart).items():
        record[apart] += rows
    dropped = [number for (number, _), (is_kept, _) in zip(batch, said, strict=True) if not is_kept]
    record["dropped"] += len(dropped)
    record["examples"] = [*record["examples"], *dropped][:_EXAMPLES]
    return [row for row, (is_kept, _) in zip(batch, said, strict=True) if is_kept]


def _repeats_little(most: float | None, text: str) -> bool:
    thought, closed, _ = text.rpartition(think.CLOSE)
    is_loop = ends_in_loop(text) or (bool(closed) and ends_in_loop(thought))
    return not is_loop and repetition(text) <= (1.0 if most is None else most)


def _in_language(script: str | None, rows: _Rows) -> _Said:
    from reasoning_ext.rewards.language import language

    return _at_least(LANGUAGE_SHARE, language([completion for _, completion, _ in rows], script=script or "latin"))


def _with_true_steps(least: float | None, rows: _Rows) -> _Said:
    from reasoning_ext.rewards.step_check import step_check

    return _at_least(least or 0.0, step_check([completion for _, completion, _ in rows]))


def _at_least(least: float, shares: list[float | None]) -> _Said:
    return [(True, "not_applicable") if share is None else (share >= least, "") for share in shares]


def _correct(rows: _Rows) -> _Said:
    """Judge the answers as the reward `math_answer` does, which goes through `verifier.judge_all`; one right gold is enough."""
    from reasoning_ext.rewards.math_answer import math_answer

    pairs = [
        (i, str(gold))
        for i, (_, _, answer) in enumerate(rows)
        for gold in (answer if isinstance(answer, list) else [] if answer is None else [answer])
        if str(gold).strip()
    ]
    completions, prompts = [rows[i][1] for i, _ in pairs], [rows[i][0] or "" for i, _ in pairs]
    verdicts: list[list[float | None]] = [[] for _ in rows]
    for (i, _), verdict in zip(
        pairs, math_answer(completions, [gold for _, gold in pairs], prompts=prompts), strict=True
    ):
        verdicts[i].append(verdict)
    return [
        (1.0 in given, "" if 1.0 in given or None not in given else "unjudged") if given else (True, "no_gold")
        for given in verdicts
    ]
