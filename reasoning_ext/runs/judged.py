"""How a model was judged beside its figures, as the card says it: what else an evaluation's folder tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reasoning_ext.recipe.keys import EVAL_REWARDS
from reasoning_ext.runs.causes import causes_of
from reasoning_ext.runs.explanations import SHARES, explanations_of
from reasoning_ext.runs.guards import AFTER, BEFORE, forgotten
from reasoning_ext.runs.paired import ALPHA, p_text
from reasoning_ext.runs.read import IN_TRAINING, Run
from reasoning_ext.runs.tradeoff import curve_rows
from reasoning_ext.runs.values import cell, is_interval, is_number
from reasoning_ext.runs.weights import weights_of

BEST = "best thinking budget"  # a row of `curve_rows`
# what decides how the answers were drawn
HOW = ("benchmark", "num_generations", "temperature", "max_completion_length", "thinking_budget", "seed")


def judged(evaluation: Run, label: str) -> list[str]:
    """Return sentences on one model of an evaluation.

    How its answers were drawn, contamination, its best thinking budget, why answers are wrong, what its thoughts do,
    and general tasks.
    """
    figures = evaluation.results.get(label, {})
    found = [_how(evaluation.recipe), _contamination(figures), *_budget(evaluation, label), *_causes(evaluation, label)]
    return [*found, *_thoughts(evaluation, label), *_general(figures)]


def forgot(run: Run) -> list[str]:
    """Return a sentence on what a training forgot, of all general tasks and of the abilities that fell for certain."""
    rows = forgotten(run.path)
    told = [name for name, row in rows.items() if name == "all" or (row.get("p", 1.0) < ALPHA and _fell(row))]
    said = [
        f"{name} {cell(row[BEFORE])} before, {cell(row[AFTER])} after, {p_text(row['p'])}"
        for name, row in rows.items()
        if name in told and BEFORE in row and "p" in row
    ]
    return [f"What it forgot, of 200 general tasks, in per cent: {'; '.join(said)}."] if said else []


def _fell(row: dict[str, Any]) -> bool:
    return bool(row.get("difference") and row["difference"][0] < 0)


def _thoughts(evaluation: Run, label: str) -> Iterator[str]:
    if row := explanations_of(evaluation.path).get(label):
        shares = "; ".join(f"{name} {cell(row[name])} %" for name in SHARES if name in row)
        if shares:
            yield f"Of the steps of {row['problems']:g} thoughts, by intervention: {shares}."


def _general(figures: dict[str, Any]) -> Iterator[str]:
    given = figures.get("general")
    if isinstance(given, dict) and is_interval(given.get("all")):
        yield f"General tasks: {cell(given['all'])} % of 200 are answered rightly."


def _how(recipe: dict[str, Any]) -> str:
    reward = next(iter(weights_of(recipe)), EVAL_REWARDS[0])
    given = ", ".join(f"{key} {recipe[key]}" for key in HOW if recipe.get(key) is not None)
    return f"Right is what the reward {reward} says{'; drawn with ' * bool(given)}{given}."


def _contamination(figures: dict[str, Any]) -> str:
    count, problems = figures.get(IN_TRAINING), figures.get("problems")
    if not is_number(count):
        return (
            "Contamination: not known, since the training data of its lineage could not be compared with the problems."
        )
    of = f" of {problems:g} problems" if is_number(problems) else " problems"
    return f"Contamination: {count:g}{of} stand in the training data of its lineage, compared by their text."


def _budget(evaluation: Run, label: str) -> Iterator[str]:
    if said := curve_rows({label: evaluation.results.get(label, {})}).get(BEST, {}).get(label):
        yield f"Best thinking budget: {said} (difference to whole thoughts, in points)."


def _causes(evaluation: Run, label: str) -> Iterator[str]:
    for found in causes_of(evaluation.path):
        if found.label == label:
            told = "; ".join(f"{one.name} {one.answers} ({one.share} %)" for one in found.causes)
            yield f"Wrong are {found.wrong} of {found.of} answers; causes of {found.looked_at} by intervention: {told}."
