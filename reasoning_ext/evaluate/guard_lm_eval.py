"""Tasks of lm-evaluation-harness in `guard`: which of their problems a model solves, before a training and after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.answers import Line
from reasoning_ext.evaluate.lm_eval import Asked, samples_of
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.benchmarks import LM_EVAL
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.read import GREEDY


def solved(recipe: Recipe, source: ModelSource, name: str) -> list[Line]:
    """Return a line a problem of a task, with its first metric as `right`, as `guard.jsonl` has it.

    Raises:
        UserError: there is no such task, it cannot be had, or its first metric is no share.
        ModelError, TokenizerError, ContractError: the model cannot be had.
    """
    task = recipe.local(name.removeprefix(LM_EVAL))
    kwargs = recipe.get("chat_template_kwargs")
    try:
        samples = samples_of(source, task, Asked(None, None, kwargs, None))
    except UserError as error:
        raise UserError(replace(error.problem, key="guard")) from error
    lines = list[Line]()
    for rows in samples.values():
        first: dict[Any, float] = {}
        for row in rows:
            value = row[row["metrics"][0]]
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                metric = row["metrics"][0]
                raise UserError(
                    f"guard: found {name}, whose metric {metric} is no share of right answers, allowed: others"
                )
            first.setdefault(row["doc_id"], float(value))
        lines += [
            {"prompt_index": len(lines) + i, "sample_index": GREEDY, "completion": "", "finished": True, "right": value}
            for i, value in enumerate(first.values())
        ]
    return lines
