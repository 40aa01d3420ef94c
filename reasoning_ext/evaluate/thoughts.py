"""What a model's thoughts are like: measured by their equations and answers, and not by words such as "wait".

Backtracking, verification and subgoals are named as in arXiv:2503.01307, where a language model counts them in a text.
Here they are read off the equations that `step_check` reads, so that the same thoughts have the same figures; what is
said in words alone is not seen, and backward chaining not at all. A thought is what stands in the think tags, cut off
or not, or the whole completion where it has none; where tools were called, those of all turns are one thought, and what
tools answered is none of it (`traces.as_one`). docs/reading_a_run.md has a table of the measures with their sources.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from statistics import fmean, stdev
from typing import Any, NamedTuple

from reasoning_ext import think, verifier
from reasoning_ext.rewards.step_check import Step, steps, verdicts
from reasoning_ext.runs.outcomes import is_right
from reasoning_ext.runs.read import GREEDY, columns, group
from reasoning_ext.runs.traces import as_one
from reasoning_ext.runs.values import cell
from reasoning_ext.sample.selection import way
from reasoning_ext.scoring.metrics import interval
from reasoning_ext.scoring.votes import same_answers
from reasoning_ext.shown import print_rows
from reasoning_ext.verifier.numbers import value

Rows = list[dict[str, Any]]
COUNTS = ("equations", "first wrong step", "subgoals")  # of one thought; the other measures are shares of thoughts
MEASURES = (
    "with equations, equations, true steps, first wrong step, answer follows, answer among steps, backtracking, "
    "verification, subgoals, reflection words"
).split(", ")
# what sail-sg/understand-r1-zero counts as self-reflection (analysis/keyword_count.py), whatever comes of it
_REFLECTS = re.compile(
    "re-?(?:check|think|assess|evaluat|examin|consider|analy[sz])|double-check|(?:check|think|verify) again"
    "|go over the steps",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]{1,30}(?:,[0-9]{3}){0,9}(?:\.[0-9]{1,30})?")


class _Read(NamedTuple):
    """A completion with its equations."""

    thought: str
    distinct: list[Step]  # each equation once, in the order of their first places
    all: list[Step]
    answer: str | None
    given: frozenset[Fraction]  # the numbers in its prompt


def thoughts(rows: Rows, decides: str = "") -> dict[str, Any]:
    """Return what the thoughts of one model's completions are like; what applies to none of them is left out.

    As in `metrics`, they are the sampled completions, or the greedy ones where there are no others.

    Args:
        rows: lines of `answers.jsonl` or `samples.jsonl`, or anything with `completion`, a text, with `turns` before it
            where tools were called, and `prompt_index`; lengths want `tokens` and `rewards`, and checks `prompt`, too.
        decides: the reward that says what is right.

    Returns:
        `[value, low, high]` for shares, with the 95 % interval over problems, and plain numbers for means of counts,
        whose intervals stand by their names in `intervals`, Student's over the means of two problems or more.
    """
    plain = [row for row in rows if not row.get("way") and not row.get("error")]
    plain.sort(key=lambda row: row.get("sample_index", 0))
    shown = [row for row in plain if row.get("sample_index") != GREEDY] or plain
    shown = [row | {"completion": as_one(row)} for row in shown]
    read = [_read(row["completion"], row.get("prompt", "")) for row in shown]
    facts = [_facts(one, follows) for one, follows in zip(read, _follows(read), strict=True)]
    found, counted = dict[str, Any](), dict[str, list[float]]()
    for name in MEASURES:
        problems = defaultdict[Any, list[float]](list)
        for row, one in zip(shown, facts, strict=True):
            if name in one:
                problems[row["prompt_index"]].append(one[name])
        if problems:
            means, count = [fmean(values) for values in problems.values()], sum(map(len, problems.values()))
            found[name] = round(fmean(means), 2) if name in COUNTS else interval(means, count)
            counted |= {name: means} if name in COUNTS else {}
    lengths = _lengths(shown, decides)
    found |= _together(shown) | {name: round(fmean(means), 2) for name, means in lengths.items()}
    spread = {name: _student(means) for name, means in (counted | lengths).items() if len(means) > 1}
    return found | ({"intervals": spread} if spread else {})


def _student(means: Sequence[float]) -> list[float]:
    from scipy.stats import t

    mean, half = fmean(means), t.ppf(0.975, len(means) - 1) * stdev(means) / len(means) ** 0.5
    return [round(float(value), 2) for value in (mean, max(0.0, mean - half), mean + half)]


def labels(rows: Rows) -> list[dict[str, bool]]:
    """Tell of each completion what `thoughts` counts of many, `{name: whether}`; what does not apply to it is left out.

    Args:
        rows: anything with `completion`, a text, `turns` before it or none, and `prompt`.
    """
    rows = [row | {"completion": as_one(row)} for row in rows]
    read = [_read(row["completion"], row.get("prompt", "")) for row in rows]
    found = []
    for row, one, follows in zip(rows, read, _follows(read), strict=True):
        facts = _facts(one, follows)
        said = {"thinks": think.well_formed(row["completion"])}
        said |= {name: facts[name] == 1 for name in MEASURES if name in facts and name not in COUNTS}
        found.append(said | ({"subgoals": facts["subgoals"] > 0} if "subgoals" in facts else {}))
    return found


def _read(completion: str, prompt: Any) -> _Read:
    thought, answer = think.split(completion)
    if thought is None and answer is None:  # cut off, perhaps within a number
        thought = "".join(completion.partition(think.OPEN)[2].rsplit(maxsplit=1)[:1])
    text = thought if thought is not None else answer or ""
    found, first = steps(text), dict[str, Step]()
    for step in found:
        first.setdefault(step.text, step)
    given = frozenset(Fraction(number.replace(",", "")) for number in _NUMBER.findall(str(prompt)))
    return _Read(text, [*first.values()], found, think.answer(completion), given)


def _follows(read: Sequence[_Read]) -> list[bool | None]:
    """Tell which answers equal the result of the thought's last equation, by the verifier; None without either."""
    last = [next((s.said for s in reversed(one.all) if s.said), None) for one in read]
    known = [i for i, one in enumerate(read) if last[i] is not None and one.answer is not None]
    found = verifier.judge_all([last[i] for i in known], [read[i].answer for i in known])
    right = dict(zip(known, (verdict.right is True for verdict in found), strict=True))
    return [right.get(i) for i in range(len(read))]


def _facts(one: _Read, follows: bool | None) -> dict[str, float]:
    """Return what applies to one thought, a number for each measure, by its name."""
    found, holds = one.distinct, verdicts(one.all)
    facts = {"reflection words": float(bool(_REFLECTS.search(one.thought))), "with equations": float(bool(found))}
    if not found:
        return facts
    results = [None, *(step.result for step in one.all if step.result is not None)]
    number = _number(one.answer) if follows is False else results[-1]  # where none was given, the last result
    if follows is not None:
        facts |= {"answer follows": float(follows), "answer among steps": float(number in results[1:])}
    last = _last_places(found)
    goals = {abs(s.result) for i, s in enumerate(found) if s.result is not None and last.get(abs(s.result), 0) > i}
    checks = _turned_back(found, number) or _reached_again(found, number) or _plugged_in(found, number, one.given)
    facts |= {"equations": len(found), "subgoals": len(goals), "verification": float(checks)}
    if holds:
        facts["true steps"] = fmean(holds)
    if wrong := next((i for i, step in enumerate(found, 1) if step.holds is False), None):
        facts |= {"first wrong step": wrong, "backtracking": float(_corrected(one.all, number))}
    return facts


def _number(answer: str | None) -> Fraction | None:
    """Return the number that an answer gives, or None."""
    said = verifier.said(answer) if answer is not None else None
    read = value(said) if said else None
    return read and read.value


def _last_places(found: Iterable[Step]) -> dict[Fraction, int]:
    """Return the place of the last equation that works with a number, for each."""
    return {number: i for i, step in enumerate(found) for number in step.numbers}


def _turned_back(found: Sequence[Step], answer: Fraction | None) -> bool:
    """Tell whether a result, which is used or answered, is checked by the inverse, `20*17=340` behind `340/20=17`.

    A story may turn back, too, `10-3=7; 7+3=10`: there the second result is used or answered, and nothing is checked.
    """
    inverses, earlier = dict[int, Fraction](), set[tuple[Fraction, frozenset[Fraction]]]()
    for i, step in enumerate(found):
        if step.result is None:
            continue
        said = abs(step.result)
        for number in step.numbers if step.holds else ():
            if {(number, step.numbers - {number} | {said}), (number, step.numbers | {said})} & earlier:
                inverses[i] = number
        earlier.add((said, step.numbers))
    last = _last_places(found)
    used = {number for i, step in enumerate(found) if i not in inverses for number in step.numbers} | {answer}
    return any(
        checked in used and found[i].result != answer and last.get(abs(found[i].result or 0), 0) <= i
        for i, checked in inverses.items()
    )


def _reached_again(found: Sequence[Step], answer: Fraction | None) -> bool:
    """Tell whether a true equation gives the answer again that neither builds on the first one nor comes next to it."""
    built, first, builds = {answer}, None, False
    for i, step in enumerate(found):
        goes_on = builds and found[i - 1].result is None  # `24+66+45 = 135/3`, and then `135/3=45`
        builds = goes_on or not built.isdisjoint(step.numbers)
        if builds and first is not None and step.result is not None:
            built.add(abs(step.result))
        elif answer is not None and step.result == answer and not builds:
            if first is not None and step.holds and i > first + 1 and step.worked != found[first].worked:
                return True
            first = i if first is None else first
    return False


def _plugged_in(found: Sequence[Step], answer: Fraction | None, given: frozenset[Fraction]) -> bool:
    """Tell whether a true equation works with the answer and comes to a number of the problem that is used no more."""
    last = _last_places(found)
    results = ((i, step, abs(step.result)) for i, step in enumerate(found) if step.holds and step.result is not None)
    ends = (step for i, step, said in results if said in given and said != answer and last.get(said, 0) <= i)
    return answer is not None and any(abs(answer) in step.numbers for step in ends)


def _corrected(found: Sequence[Step], answer: Fraction | None) -> bool:
    """Tell whether a wrong equation is put right later, and its wrong result not used from there on.

    That is by the same sum with a true result, or by another true equation that gives the right value, from numbers of
    the wrong one or from results since then, where the value is then used or answered.
    """
    last, made = _last_places(found), dict[Fraction, int]()
    wrong, sums = dict[Fraction, int](), dict[tuple[tuple[str, ...], Fraction], int]()  # places, by the right value
    for i, step in enumerate(found):
        if step.holds is False:
            wrong[step.value] = sums[step.worked, step.value] = i
        elif step.holds:
            again = sums.get((step.worked, step.value))
            place = again if again is not None or step.result is None else wrong.get(step.result)
            if place is not None and _dropped(found[place].result, last, i):
                error, new = found[place], any(made.get(number, -1) > place for number in step.numbers)
                used = step.result == answer or last.get(abs(step.value), 0) > i
                if again is not None or (used and (new or not step.numbers.isdisjoint(error.numbers))):
                    return True
        if step.result is not None:
            made[abs(step.result)] = i
    return False


def _dropped(result: Fraction | None, last: dict[Fraction, int], place: int) -> bool:
    return result is None or last.get(abs(result), -1) < place


def _together(shown: Rows) -> dict[str, Any]:
    """Return how many different ways a problem's samples take, and the share that gives the commonest answer."""
    problems = defaultdict[Any, list[str]](list)
    for row in shown:
        problems[row["prompt_index"]].append(row["completion"])
    n = min(map(len, problems.values()), default=0)
    if n < 2:
        return {}
    first = [texts[:n] for texts in problems.values()]
    ways = fmean(len({*map(way, texts)}) for texts in first)
    agree = [len(next(iter(same_answers(texts)), [])) / n for texts in first]
    return {f"ways@{n}": round(ways, 2), f"agree@{n}": interval(agree, n * len(agree))}


def _lengths(shown: Rows, decides: str) -> dict[str, list[float]]:
    """Return problems' mean tokens, by the share of samples that are right: at most a third, less than two, or more.

    Thirds of that share, not of the problems, so that equally hard ones are together. One sample is right or wrong.
    """
    problems = defaultdict[Any, list[tuple[float, int]]](list)
    for row in shown:
        if "tokens" in row and (right := is_right(row, decides)) is not None:
            problems[row["prompt_index"]].append((float(right), row["tokens"]))
    single = all(len(samples) == 1 for samples in problems.values())
    names = ("wrong", "", "right") if single else ("hard problems", "middle problems", "easy problems")
    found = {f"tokens, {name}": list[float]() for name in names}
    for samples in problems.values():
        rate = fmean(right for right, _ in samples)
        found[f"tokens, {names[(rate > 1 / 3) + (rate >= 2 / 3)]}"].append(fmean(tokens for _, tokens in samples))
    return {name: means for name, means in found.items() if means}


def print_thoughts(results: dict[str, dict[str, Any]]) -> None:
    """Print the measures as rows and the models as columns, shares in per cent; nothing where there is none."""
    if found := group(results, "thoughts"):
        rows = [(name, *[cell(figures.get(name)) for figures in found.values()]) for name in columns(found)]
        print_rows("thoughts, 95 % intervals", ["", *found], rows)
