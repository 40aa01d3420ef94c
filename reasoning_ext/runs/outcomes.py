"""Which model solved which problem, from the stored answers of an evaluation: what paired comparisons are made of."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy

from reasoning_ext.runs.paired import Array, earliest_as_good
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.values import is_number

Rows = list[dict[str, Any]]
STRATEGIES = "strategies.jsonl"
PLAIN = ("greedy", "pass@1")  # figures of answers.jsonl; those of strategies.jsonl have the strategies' names
Outcomes = dict[str, dict[int, float]]  # {model: {problem: between 0 and 1}}


def is_plain(row: Mapping[str, Any]) -> bool:
    """Tell whether an answer was drawn without a strategy's help, and is there, to a problem that has a number."""
    return not row.get("way") and "completion" in row and isinstance(row.get("prompt_index", 0), int)


def is_right(row: Mapping[str, Any], decides: str | None = None) -> bool | None:
    """Tell whether the reward that decides, the first where none is named, says right; None where it does not judge."""
    rewards = row["rewards"] if isinstance(row.get("rewards"), dict) else {}
    value = next(iter(rewards.values()), None) if decides is None else rewards.get(decides)
    return value > 0.5 if is_number(value) else None


def outcomes(
    figure: str, answers: Iterable[Mapping[str, Any]], strategies: Iterable[Mapping[str, Any]] = ()
) -> Outcomes:
    """Return each model's share of right answers to each problem; what nobody judged is left out.

    Args:
        figure: one of `figures`.
        answers: lines of `answers.jsonl`.
        strategies: lines of `strategies.jsonl`.
    """
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in answers if figure in PLAIN else ():
        greedy = row.get("sample_index") == GREEDY
        if is_plain(row) and greedy == (figure == "greedy") and (right := is_right(row)) is not None:
            found[str(row.get("model"))][row.get("prompt_index", 0)].append(float(right))
    for row in strategies:
        if row.get("strategy") == figure and is_number(row.get("right")):
            found[str(row.get("model"))][row["prompt_index"]].append(float(row["right"]))
    return {model: {p: fmean(rights) for p, rights in sorted(of.items())} for model, of in found.items()}


def figures(answers: Iterable[Mapping[str, Any]], strategies: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """Return what `outcomes` can be asked for."""
    kinds = {row.get("sample_index") == GREEDY for row in answers if is_plain(row)}
    plain = [name for name, greedy in zip(PLAIN, (True, False), strict=True) if greedy in kinds]
    return list(dict.fromkeys([*plain, *(str(row.get("strategy")) for row in strategies)]))


def stacked(sides: Sequence[Sequence[Mapping[int, float]]]) -> list[Array]:
    """Return outcomes `(S, P)` of each side, which has a mapping a seed, over the problems that all of them have."""
    first, *others = [of for side in sides for of in side]
    problems = sorted(p for p in first if all(p in other for other in others))
    return [numpy.array([[of[p] for p in problems] for of in side]) for side in sides]


def series(labels: Iterable[str]) -> dict[str, dict[int, str]]:
    """Group the labels of checkpoints by the run they are of, `{its name, or "": {step: label}}`, from two on.

    >>> series(["grpo checkpoint-10", "grpo checkpoint-9", "sft", "checkpoint-2"])
    {'grpo': {9: 'grpo checkpoint-9', 10: 'grpo checkpoint-10'}}
    """
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for label in labels:
        name, _, last = label.rpartition(" ")
        if (number := last.removeprefix("checkpoint-")) != last and number.isdecimal():
            found[name][int(number)] = label
    return {name: dict(sorted(steps.items())) for name, steps in found.items() if len(steps) > 1}


def best_checkpoints(found: Mapping[str, Sequence[Mapping[int, float]]], figure: str) -> list[str]:
    """Say for each run's checkpoints which is the highest, and which the earliest that is not told apart from it.

    `found` has a model's outcomes, one mapping a seed.
    """
    lines = []
    for steps in series(found).values():
        labels = [*steps.values()]
        shares = dict(zip(labels, stacked([found[label] for label in labels]), strict=True))
        if not next(iter(shares.values())).size or len({*map(len, shares.values())}) > 1:
            continue
        earliest, highest = earliest_as_good(shares)
        said = f"{highest} has the highest {figure}, {100 * shares[highest].mean():.1f} %, "
        if earliest == highest:
            said += "and is better than every one before it" if highest != labels[0] else "and is the first"
        else:
            said += f"from which {earliest}, {100 * shares[earliest].mean():.1f} %, is the earliest not told apart"
        lines.append(said)
    return lines
