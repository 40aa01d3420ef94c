"""What the thoughts of a GRPO training were like over its steps: a point a period, for curves."""

from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from reasoning_ext import think
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.metrics import interval
from reasoning_ext.evaluate.replay import read_completions
from reasoning_ext.evaluate.thoughts import thoughts
from reasoning_ext.runs.folder import RECIPE
from reasoning_ext.runs.stored import evenly
from reasoning_ext.runs.values import deciding
from reasoning_ext.runs.weights import weights_of

PERIODS, TABLES = 8, 5  # of a training, and tables of completions read of each
MOST, LETTERS = 20_000, 10_000_000  # completions that are looked at, and letters in them: half a minute of one core


def over_steps(run: Path) -> dict[str, dict[str, Any]]:
    """Return what the thoughts in a GRPO run's `completions/` were like over its steps, `{steps: figures}`.

    The steps are divided into at most `PERIODS` parts, of each of which at most `TABLES` tables are read, and of these
    as many prompts, with all of their completions, as `MOST` and `LETTERS` allow. A prompt that comes again at a later
    step counts as another one, so that its pass rate, which `tokens, hard problems` goes by, is that of one step.

    Returns:
        the figures of `thoughts`, and before them `thinks`, the share of completions with a thought that is closed.
        Lengths are there where the tables have `tokens`, which a training writes.
    """
    files, decides = sorted(run.glob("completions/*.parquet")), _decides(run)
    found = {}
    parts = min(PERIODS, len(files))
    for period in (files[len(files) * i // parts : len(files) * (i + 1) // parts] for i in range(parts)):
        prompts: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for table in evenly(period, TABLES):
            with suppress(UserError):  # a table that cannot be read
                for row in read_completions(table):
                    prompts[str(row.get("prompt")), str(row.get("step"))].append(row)
        if lines := [_line(row, of, decides) for of in _some(prompts) for row in prompts[of]]:
            steps = [row.get("step") for rows in prompts.values() for row in rows[:1]]
            shares = defaultdict[str, list[float]](list)
            for line in lines:
                shares[line["prompt_index"]].append(float(think.well_formed(line["completion"])))
            figures = {"thinks": interval([*map(fmean, shares.values())], len(lines))} | thoughts(lines, decides)
            found[f"step {steps[0]}" if steps[0] == steps[-1] else f"steps {steps[0]} to {steps[-1]}"] = figures
    return found


def _decides(run: Path) -> str:
    """Return the reward that says what is right by the run's recipe, or "" where that cannot be read."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        recipe = yaml.safe_load((run / RECIPE).read_text(encoding="utf-8"))
        return deciding(weights_of(recipe)) if isinstance(recipe, dict) else ""
    return ""


def _line(row: dict[str, Any], of: tuple[str, str], decides: str) -> dict[str, Any]:
    """Return a row of TRL's table as `thoughts` reads it."""
    line = {"completion": think.as_one(row["completion"]), "prompt_index": str(of), "prompt": row.get("prompt")}
    line |= {"tokens": row["tokens"]} if isinstance(row.get("tokens"), int) else {}
    return line | {"rewards": {decides: row.get(decides)}}


def _some(prompts: dict[tuple[str, str], list[Any]]) -> list[tuple[str, str]]:
    """Choose as many prompts of a period as may be looked at, evenly, one at least."""
    lengths = [len(think.as_one(row["completion"])) for rows in prompts.values() for row in rows]
    share = min(MOST / PERIODS / max(1, len(lengths)), LETTERS / PERIODS / max(1, sum(lengths)))
    return evenly([*prompts], max(1, int(len(prompts) * share)))
