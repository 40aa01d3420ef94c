"""Stage `eval`: how good are these models, with how much certainty, on problems that they were not trained on.

    eval.json       one entry a model: pass@1, pass@k, maj@k, greedy, think share, length, truncated, with 95 % intervals
    answers.jsonl   every completion, for the report's before and after

With `num_generations: 0` there are the greedy completions alone, and no figure that asks for sampled ones.
Where a server failed to give a completion, there are no figures until it has been drawn after all: hard problems take longest,
so that what failed is no random part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from reasoning_ext.data.columns import check_columns
from reasoning_ext.data.filters import ends_in_loop
from reasoning_ext.data.lineage import overlap_lines, overlaps
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.engines.base import Completion, Engine, EngineError, Key, SamplingSettings, is_fault
from reasoning_ext.engines.opening import open_engine, sampling_settings
from reasoning_ext.evaluate.metrics import metrics
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import append_lines, mend, write_whole
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.runs.read import GREEDY, cell, columns, in_training, problems_of
from reasoning_ext.sample.progress import Progress
from reasoning_ext.sample.scored import scored_rows
from reasoning_ext.scoring.call import Reward, build_rewards
from reasoning_ext.scoring.spec import RewardSpec, needed_columns
from reasoning_ext.shown import print, visible

ANSWERS, RESULTS = "answers.jsonl", "eval.json"


def run_eval(recipe: Recipe, run: RunDir, specs: list[RewardSpec]) -> int:
    """Evaluate every model of a recipe on the test split and print the table; the first reward decides what is right.

    Raises:
        DataError, ModelError: rows or a model cannot be had.
        EngineError: nothing answers any more, or some completions failed.
        RewardError: a reward failed.
    """
    prepared = prepare(row_options(recipe), TEST)
    rows = prepared.rows
    for line in prepared.lines() if prepared.removed else ():
        print(f"data  {line}")
    check_columns(rows.column_names, {"prompt": "stage eval"} | needed_columns(specs))
    table = [{name: value for name, value in row.items() if name != "completion"} for row in rows]
    models, path = eval_models(recipe), run.path / ANSWERS
    mend(path)  # what is drawn is appended
    have = {(r["model"], r["prompt_index"], r["sample_index"]) for r in (read_jsonl(path) if path.is_file() else [])}
    rewards = build_rewards(specs, tolerated=0)  # what is written without a reward would never get one
    trained = overlaps(recipe, (row["prompt"] for row in table))
    said, unknown = overlap_lines(trained, len(table))
    for line in [said, *unknown] if said else unknown:
        print(f"eval  {line}", flush=True)
    keys = [(p, g) for p in range(len(table)) for g in (GREEDY, *range(recipe.get("num_generations")))]
    settings = {True: sampling_settings(recipe, temperature=0.0), False: sampling_settings(recipe)}
    for label, name in models.items():
        missing = [key for key in keys if (label, *key) not in have]
        if missing:
            scratch = recipe.get("from_scratch") and not is_adapter(recipe.local(name))
            progress = Progress(f"eval {label}", len(keys), len(keys) - len(missing))
            with closing(open_engine(recipe, name, from_scratch=scratch)) as engine, closing(progress):
                for batch in _draw(engine, table, missing, settings):
                    append_lines(path, _scored(batch, label, table, rewards))
                    progress.add(batch)
            _refuse_failures(progress, label)
    answers = read_jsonl(path)
    results = {m: metrics([row for row in answers if row["model"] == m], specs[0].name, trained[m]) for m in models}
    write_whole(run.path / RESULTS, json.dumps(results, indent=1))
    print_table(results)
    for label in models:
        if line := cut_off_line([row for row in answers if row["model"] == label], recipe.get("max_completion_length")):
            print(f"eval  warning: {label}: {line}", flush=True)
    return 0


def _draw(
    engine: Engine, table: list[dict[str, Any]], missing: list[Key], settings: dict[bool, SamplingSettings]
) -> Iterator[list[Completion]]:
    """Yield batches of the missing completions, first those that are greedy, for which `settings` has the key True."""
    for greedy, how in settings.items():
        if keys := [key for key in missing if (key[1] == GREEDY) == greedy]:
            yield from engine.generate([row["prompt"] for row in table], keys, how)


def _scored(batch: list[Completion], label: str, table: list[dict[str, Any]], rewards: list[Reward]) -> list[dict]:
    """Return the lines of a batch, without what a server failed to give."""
    there = [completion for completion in batch if not is_fault(completion.error)]
    lines = [{"model": label, **line} for line in (scored_rows(there, table, rewards) if there else [])]
    for line in lines:
        if line.get("error"):  # the model's own doing: no answer is a wrong one
            line["rewards"] = dict.fromkeys(line["rewards"], 0.0)
    return lines


def _refuse_failures(progress: Progress, label: str) -> None:
    if failed := Counter({kind: count for kind, count in progress.errors.items() if is_fault(kind)}):
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(failed.items()))
        problem = f"{failed.total()} of {progress.total} completions of {label} failed ({kinds})"
        todo = "those that came are kept: run the same command again to draw the others"
        raise EngineError("engine_kwargs", f"{problem}; {todo}")


def cut_off_line(answers: list[dict[str, Any]], limit: int) -> str:
    """Say that most of a model's completions were cut off at so many tokens, and what to change; else ""."""
    cut_off = [row["completion"] for row in answers if not row["finished"] and not row.get("error")]
    if len(cut_off) * 2 <= len(answers):
        return ""
    said = f"{len(cut_off)} of {len(answers)} completions were cut off at max_completion_length: {limit}"
    if (loops := sum(map(ends_in_loop, cut_off))) * 2 > len(cut_off):
        todo = "train it on answers that end, or write repetition_penalty: 1.1"
        return f"{said}, {loops} of them in a loop, which more tokens do not end; {todo}"
    return f"{said}, and what is cut off is rarely right; raise it"


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Print the models as rows and the figures as columns; shares in per cent with their 95 % interval."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = columns(results)
    said = in_training(results)
    title = f"{problems_of(results)}, 95 % intervals" + (f"; {said}" if said else "")
    table = Table(title=Text(visible(title), style="table.title"))
    for name in ("model", *names):
        table.add_column(Text(visible(name)), justify="left" if name == "model" else "right")
    for label, figures in results.items():
        table.add_row(Text(visible(str(label))), *[cell(figures.get(name)) for name in names])
    Console(width=None if Console().is_terminal else 200).print(table)
