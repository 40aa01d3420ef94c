r"""Judge whether a text gives the gold answer: right, wrong, or an error with its reason.

Three steps: `answers.final_answer` finds what the text says, `exact.decide` compares what rational arithmetic can compare,
and the rest goes to `comparing.equal` in worker processes that are killed at a deadline (FAILURES 1, 2). Equal pairs are
judged once. The gold comes first everywhere, because comparing is not symmetric (open-r1#557).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from reasoning_ext.verifier.answers import final_answer, gold_answer
from reasoning_ext.verifier.exact import decide
from reasoning_ext.verifier.numbers import number
from reasoning_ext.verifier.pool import Failure, Pool

SECONDS, MEMORY_MB = 2.0, 2048
NO_GOLD, AS_TEXT = "the gold does not parse", "the gold is no formula; only the very same text will be right"
_CACHED, _CACHED_CHARACTERS = 100_000, 500


class Verdict(NamedTuple):
    """What was found: `right` is True or False, or None with the reason of an error."""

    right: bool | None
    reason: str = ""


_RIGHT, _WRONG = Verdict(True), Verdict(False)
_pool = Pool("reasoning_ext.verifier.compare:compare", memory_mb=MEMORY_MB)
_judged: dict[tuple[str, str | None], Verdict] = {}  # by gold and text
_compared: dict[tuple[str, str], Verdict] = {}  # by gold and answer, where it took algebra


def warm_up() -> None:
    """Start the workers, so that the first batch does not wait for sympy."""
    _pool.warm_up()


def judge(gold: str, text: str, seconds: float = SECONDS) -> Verdict:
    r"""Judge one text; see `judge_all`.

    >>> judge("42", r"It is \boxed{42}"), judge("forty two", "42")
    (Verdict(right=True, reason=''), Verdict(right=None, reason='the gold does not parse'))
    """
    return judge_all([gold], [text], seconds)[0]


def judge_all(golds: Sequence[str], texts: Sequence[str | None], seconds: float = SECONDS) -> list[Verdict]:
    """Judge N texts.

    Args:
        golds: N gold answers, with or without LaTeX, a box or a solution around them.
        texts: what comes after the thought; None where no answer was given.
        seconds: deadline a pair, counted from when a worker gets it.

    Returns:
        N verdicts. A gold that cannot be read, a time-out and an exception are errors; an answer that cannot be read is
        wrong.
    """
    pairs = list(
        zip(
            [gold if isinstance(gold, str) else "" if gold is None else str(gold) for gold in golds], texts, strict=True
        )
    )
    verdicts = [*map(_judged.get, pairs)]
    new = dict.fromkeys(pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is None)
    if not new:
        return verdicts  # type: ignore[return-value]
    found = _judge_new(list(new), seconds)
    return [verdict or found[pair] for pair, verdict in zip(pairs, verdicts, strict=True)]


def _judge_new(pairs: list[tuple[str, str | None]], seconds: float) -> dict[tuple[str, str | None], Verdict]:
    """Judge pairs of a gold and a text, each once, and the same gold and answer in different texts once."""
    found: dict[tuple[str, str | None], Verdict] = {}
    waiting: dict[tuple[str, str], list[tuple[str, str | None]]] = {}
    for pair in pairs:
        gold = read_gold(pair[0])
        answer = None if pair[1] is None or gold is None else final_answer(pair[1], gold.many)
        if gold is None or answer is None:
            found[pair] = _WRONG if gold else Verdict(None, NO_GOLD)
            continue
        same = decide(gold.text, answer)
        known = _compared.get((gold.text, answer)) if same is None else _RIGHT if same else _WRONG
        if known is None:
            waiting.setdefault((gold.text, answer), []).append(pair)
        else:
            found[pair] = known
    for hard, result in zip(waiting, _pool.map(list(waiting), seconds) if waiting else (), strict=True):
        verdict = Verdict(None, str(result)) if isinstance(result, Failure) else _RIGHT if result else _WRONG
        found |= dict.fromkeys(waiting[hard], verdict)
        _keep(_compared, hard, verdict)
    for pair, verdict in found.items():
        if len(pair[1] or "") <= _CACHED_CHARACTERS:
            _keep(_judged, pair, verdict)
    return found


def _keep(cache: dict, key: tuple, verdict: Verdict) -> None:
    """Remember a verdict; not an error, which may be different the next time, when the machine is less busy."""
    if verdict.right is not None:
        if len(cache) >= _CACHED:
            cache.clear()
        cache[key] = verdict


class Gold(NamedTuple):
    """A gold as it is compared: its clean text, and whether it is a list, so that several boxes may answer it."""

    text: str
    many: bool


@lru_cache(maxsize=65536)
def read_gold(gold: str) -> Gold | None:
    """Read a gold answer; None where it is empty or prose such as "forty two" (open-r1#86, #293, #503)."""
    if gold.isdecimal():
        return Gold(gold, False)
    text = gold_answer(gold)
    if text is None:
        return None
    return Gold(text, number(text) is None and any(sign in text for sign in (",", ";", "and", "or", r"\pm")))


def unreadable(golds: Sequence[str]) -> list[tuple[int, str]]:
    """Find the golds that no answer can be compared with, before any training.

    Args:
        golds: all gold answers.

    Returns:
        `(index, reason)` for each of them. Numbers are read here, everything else by the workers, equal golds once.
    """
    read = [read_gold(str(gold)) for gold in golds]
    hard = list({gold.text: None for gold in read if gold and not number(gold.text) and not gold.text.isalpha()})
    results = dict(zip(hard, _pool.map([(text, None) for text in hard], SECONDS) if hard else (), strict=True))
    bad = []
    for i, gold in enumerate(read):
        result = NO_GOLD if gold is None else results.get(gold.text, True)
        if result is not True:
            bad.append((i, str(result) if result else AS_TEXT))
    return bad
