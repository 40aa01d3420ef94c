"""How a model was judged beside its figures, as the card says it: what else an evaluation's folder tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reasoning_ext.recipe.keys import EVAL_REWARDS
from reasoning_ext.runs.causes import causes_of
from reasoning_ext.runs.read import IN_TRAINING, Run
from reasoning_ext.runs.tradeoff import curve_rows
from reasoning_ext.runs.values import is_number
from reasoning_ext.runs.weights import weights_of

BEST = "best thinking budget"  # a row of `curve_rows`
# what decides how the answers were drawn
HOW = ("benchmark", "num_generations", "temperature", "max_completion_length", "thinking_budget", "seed")


def judged(evaluation: Run, label: str) -> list[str]:
    """Return sentences on one model of an evaluation: contamination, its best thinking budget, why answers are wrong."""
    figures = evaluation.results.get(label, {})
    return [_how(evaluation.recipe), _contamination(figures), *_budget(evaluation, label), *_causes(evaluation, label)]


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
