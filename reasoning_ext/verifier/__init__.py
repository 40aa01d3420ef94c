r"""Judge whether a text gives the gold answer: right, wrong, or an error with its reason.

Three steps: `answers.final_answer` finds what the text says, `exact.decide` compares what rational arithmetic can compare,
and the rest goes to `compare.equal` in worker processes that are killed at a deadline (FAILURES 1, 2). Equal pairs are
judged once. The gold comes first everywhere, because comparing is not symmetric (open-r1#557). docs/judging.md has the rules.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from reasoning_ext.verifier.answers import final_answer, final_words
from reasoning_ext.verifier.exact import decide
from reasoning_ext.verifier.golds import as_text, read_gold
from reasoning_ext.verifier.numbers import value
from reasoning_ext.verifier.pool import Failure, Pool
from reasoning_ext.verifier.question import asks_for_percent, base_of, names_base
from reasoning_ext.verifier.words import is_words, same_words
from reasoning_ext.verifier.worked_out import is_worked_out

SECONDS, MEMORY_MB = 2.0, 2048
NO_GOLD, AS_TEXT = "the gold does not parse", "the gold is no formula; only the very same text will be right"
_CACHED, _CACHED_CHARACTERS = 100_000, 500


class Verdict(NamedTuple):
    """What was found: `right` is True or False, or None with the reason of an error."""

    right: bool | None
    reason: str = ""


class Rules(NamedTuple):
    """What else an answer must be, or may be."""

    evaluated: bool = False  # a value, and not an expression that still has to be worked out
    base_may_be_omitted: bool = False  # without the base that its question names


class _Case(NamedTuple):
    gold: str
    text: str | None
    percent: bool  # is asked for
    base: bool  # is named, and may be omitted
    evaluated: bool


_NO_RULES = Rules()
_RIGHT, _WRONG = Verdict(True), Verdict(False)
_pool = Pool("reasoning_ext.verifier.compare:compare", memory_mb=MEMORY_MB, clock="processor")
_judged: dict[_Case, Verdict] = {}
_compared: dict[tuple[str, str], Verdict] = {}  # by gold and answer, where it took algebra


def warm_up() -> None:
    """Start the workers, so that the first batch does not wait for sympy."""
    _pool.warm_up()


def judge(
    gold: Any, text: str | None, seconds: float = SECONDS, question: str = "", rules: Rules = _NO_RULES
) -> Verdict:
    r"""Judge one text; see `judge_all`.

    >>> judge("42", r"It is \boxed{42}"), judge("forty two", "42")
    (Verdict(right=True, reason=''), Verdict(right=None, reason='the gold does not parse'))
    """
    return judge_all([gold], [text], seconds, [question], rules)[0]


def judge_all(
    golds: Sequence[Any],
    texts: Sequence[str | None],
    seconds: float = SECONDS,
    questions: Sequence[str] | None = None,
    rules: Rules = _NO_RULES,
) -> list[Verdict]:
    """Judge N texts.

    Args:
        golds: N gold answers, with or without LaTeX, a box or a solution around them.
        texts: what comes after the thought; None where no answer was given.
        seconds: processor time a pair, counted from when a worker begins with it.
        questions: N questions. Where one asks for per cent, `60%` is a gold of 60 too; where it names a base, see `rules`.
        rules: what else is asked of an answer.

    Returns:
        N verdicts. A gold that cannot be read, a time-out and an exception are errors; an answer that cannot be read is
        wrong.
    """
    asked = questions or [""] * len(golds)
    cases = [_case(as_text(gold), text, why, rules) for gold, text, why in zip(golds, texts, asked, strict=True)]
    known = {case: _judged[case] for case in cases if case in _judged}
    if new := dict.fromkeys(case for case in cases if case not in known):
        known |= _judge_new([*new], seconds)
    return [known[case] for case in cases]


def _case(gold: str, text: str | None, question: str, rules: Rules) -> _Case:
    if not question:
        return _Case(gold, text, False, False, rules.evaluated)
    percent = bool(text and ("%" in text or "per" in text) and asks_for_percent(question))
    return _Case(gold, text, percent, rules.base_may_be_omitted and names_base(question), rules.evaluated)


def _judge_new(cases: list[_Case], seconds: float) -> dict[_Case, Verdict]:
    """Judge each case once, and the same gold and answer in different texts once."""
    found: dict[_Case, Verdict] = {}
    waiting: dict[_Case, list[tuple[str, str]]] = {}
    for case in cases:
        gold, answer = read_gold(case.gold), None
        if gold and case.text is not None:
            answer = final_words(case.text) if gold.words else final_answer(case.text, gold.many)
        if gold is None or answer is None:
            found[case] = _WRONG if gold else Verdict(None, NO_GOLD)
        elif gold.words:
            found[case] = _RIGHT if same_words(gold.text, answer) else _WRONG
        elif case.evaluated and not is_worked_out(answer, gold.text):
            found[case] = _WRONG
        else:
            waiting[case] = [(gold.text, answer)]
            if case.percent and "%" in answer and "%" not in gold.text:
                waiting[case].append((gold.text, answer.replace("%", "").strip()))
            if case.base and answer.isalnum() and (base := base_of(gold.text)):
                waiting[case].append((gold.text, f"{answer}_{base}"))
    known = _compare_all([pair for pairs in waiting.values() for pair in pairs], seconds)
    for case, pairs in waiting.items():
        found[case] = max((known[pair] for pair in pairs), key=lambda one: (one.right is True, one.right is None))
    for case, verdict in found.items():
        if len(case.text or "") <= _CACHED_CHARACTERS:
            _keep(_judged, case, verdict)
    return found


def _compare_all(pairs: list[tuple[str, str]], seconds: float) -> dict[tuple[str, str], Verdict]:
    """Compare clean golds with clean answers: by exact arithmetic here, by everything else in the workers."""
    found: dict[tuple[str, str], Verdict] = {}
    hard = []
    for pair in dict.fromkeys(pairs):
        same = decide(*pair)
        if same is not None:
            found[pair] = _RIGHT if same else _WRONG
        elif pair in _compared:
            found[pair] = _compared[pair]
        else:
            hard.append(pair)
    for pair, result in zip(hard, _pool.map(hard, seconds) if hard else (), strict=True):
        found[pair] = Verdict(None, str(result)) if isinstance(result, Failure) else _RIGHT if result else _WRONG
        _keep(_compared, pair, found[pair])
    return found


def _keep(cache: dict, key: Any, verdict: Verdict) -> None:
    """Remember a verdict; not an error, which may be different the next time, when the machine is less busy."""
    if verdict.right is not None:
        if len(cache) >= _CACHED:
            cache.clear()
        cache[key] = verdict


def alike(texts: Sequence[str | None], seconds: float = SECONDS) -> list[int | None]:
    r"""Group texts by the answers that they give, for a vote: `0.5`, `\frac12` and `1/2` are one.

    Returns:
        For each text the index of the first text that gives the same answer, None where it gives none.

    >>> alike(["It is 0.5", r"\boxed{\frac12}", "I cannot tell.", r"\boxed{2}"])
    [0, 0, None, 3]
    """
    answers = [None if text is None else said(text) for text in texts]
    leader_of: dict[str, str] = {}
    for answer in dict.fromkeys(answer for answer in answers if answer is not None):
        leaders = dict.fromkeys(leader_of.values())
        leader_of[answer] = _leader(answer, [*leaders], seconds)
    return [None if answer is None else answers.index(leader_of[answer]) for answer in answers]


def _leader(answer: str, leaders: list[str], seconds: float) -> str:
    """Return the answer among others that equals one, or the answer itself."""
    same = next((other for other in leaders if same_words(other, answer)), None)
    if same is not None or is_words(answer):
        return same or answer
    known = _compare_all([pair for other in leaders for pair in ((other, answer), (answer, other))], seconds)
    return next((one for one in leaders if known[one, answer].right or known[answer, one].right), answer)


def said(text: str) -> str | None:
    r"""Return the answer that a text gives whatever its gold is, as `judge_all` compares it; None where it gives none.

    >>> said(r"So it is \boxed{42}."), said("The capital is Paris."), said("I do not know.")
    ('42', 'Paris', None)
    """
    if found := final_answer(text):
        return found
    words = final_words(text)
    return words if words and is_words(words) and not _REFUSES.search(words) else None


_REFUSES = re.compile(r"\b(?:I|we|cannot|can't|unsure|sorry)\b", re.IGNORECASE)
_LOST_BACKSLASH = re.compile(r"\t(?:ext|imes|heta|an\b|frac|o\b|riangle)|\r(?:ight|m\b|ho\b)|\n(?:eq?\b|u\b|abla|ot\b)")


def kind(gold: Any) -> Literal["number", "formula", "words", "none"]:
    """Tell what a gold is: a rational number, words, a formula (or anything else that is compared), or no gold at all."""
    read = read_gold(as_text(gold))
    if read is None:
        return "none"
    return "words" if read.words else "number" if value(read.text) else "formula"


def unreadable(golds: Sequence[Any]) -> list[tuple[int, str]]:
    """Find the golds that no answer can be compared with, before any training, as `(index, reason)`."""
    texts = [as_text(gold) for gold in golds]
    read = [None if _LOST_BACKSLASH.search(text) else read_gold(text) for text in texts]
    formulas = (gold.text for gold in read if gold and not gold.words and len(gold.text) > 1 and not value(gold.text))
    hard = [*dict.fromkeys(formulas)]
    results = dict(zip(hard, _pool.map([(text, None) for text in hard], SECONDS) if hard else (), strict=True))
    reasons = [NO_GOLD if gold is None else results.get(gold.text, True) for gold in read]
    return [(i, str(reason) if reason else AS_TEXT) for i, reason in enumerate(reasons) if reason is not True]
