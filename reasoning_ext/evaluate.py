"""Stage `eval`: how good are these models, with how much certainty, on problems that they were not trained on.

    eval.json       one entry a model: pass@1, pass@k, maj@k, greedy, think share, length, truncated, with 95 % intervals
    answers.jsonl   every completion, for the report's before and after

Where a server failed to give a completion, nothing is written and there are no figures, until it has been drawn after all:
hard problems take longest, so that what failed is no random part.

pass@k is the unbiased estimator of Chen et al. 2021 (arXiv:2107.03374); maj@k is self-consistency (arXiv:2203.11171):
the answer that most of k completions give, however they write it. Intervals are Wilson's, with the number of problems that
the spread between problems is worth, so that several completions of one problem do not count as several problems, and so
that a share of 1.0 still has an interval.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from reasoning_ext import think
from reasoning_ext.data import DataError, check_columns
from reasoning_ext.engines.opening import open_engine, sampling_settings
from reasoning_ext.files import append_lines, mend, write_whole
from reasoning_ext.generation import EngineError, Key, is_fault
from reasoning_ext.hand_over import is_adapter
from reasoning_ext.lineage import Overlap, overlap_lines, overlaps
from reasoning_ext.named_inputs import eval_models
from reasoning_ext.recipe import Recipe
from reasoning_ext.reward_calls import Reward, build_rewards
from reasoning_ext.reward_loading import RewardSpec, needed_columns
from reasoning_ext.row_options import TEST, row_options
from reasoning_ext.rows import prepare
from reasoning_ext.run_dir import RunDir
from reasoning_ext.run_reading import cell, in_training, problems_of
from reasoning_ext.sampling.progress import Progress
from reasoning_ext.sampling.scoring import scored_rows
from reasoning_ext.shown import print, visible
from reasoning_ext.sources import read_jsonl
from reasoning_ext.votes import same_answers

ANSWERS, RESULTS = "answers.jsonl", "eval.json"
Z = 1.959964  # two-sided 95 %
GREEDY = -1  # sample index of the greedy completion


def run_eval(recipe: Recipe, run: RunDir, specs: list[RewardSpec]) -> int:
    """Evaluate every model of the recipe on the test split and print the table.

    The first reward decides what is right; a value above 0.5 counts as right.

    Args:
        recipe: of stage eval.
        run: its folder.
        specs: its rewards.

    Returns:
        0.

    Raises:
        DataError, ModelError: rows or a model cannot be had.
        EngineError: nothing answers any more, or some completions failed.
        RewardError: a reward failed.
    """
    rows = prepare(row_options(recipe), TEST).rows
    check_columns(rows.column_names, {"prompt": "stage eval"} | needed_columns(specs))
    table = [{name: value for name, value in row.items() if name != "completion"} for row in rows]
    path = run.path / ANSWERS
    mend(path)  # what is drawn is appended
    have = {(r["model"], r["prompt_index"], r["sample_index"]) for r in (read_jsonl(path) if path.is_file() else [])}
    rewards = build_rewards(specs, tolerated=0)  # what is written without a reward would never get one
    trained = overlaps(recipe, (row["prompt"] for row in table))
    said, unknown = overlap_lines(trained, len(table))
    for line in [said, *unknown] if said else unknown:
        print(f"eval  {line}", flush=True)
    for label, name in eval_models(recipe).items():
        wanted = [(p, g) for p in range(len(table)) for g in (GREEDY, *range(recipe.get("num_generations")))]
        missing = [key for key in wanted if (label, *key) not in have]
        if missing:
            progress = Progress(f"eval {label}", len(wanted), len(wanted) - len(missing))
            failed = _draw(recipe, label, name, table, missing, rewards, path, progress)
            if failed:
                kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(failed.items()))
                problem = f"{failed.total()} of {len(wanted)} completions of {label} failed ({kinds}); those that came are kept"
                raise EngineError("engine_kwargs", f"{problem}: run the same command again to draw the others")
    answers = read_jsonl(path)
    results = {
        label: metrics([row for row in answers if row["model"] == label], specs[0].name, trained[label])
        for label in eval_models(recipe)
    }
    write_whole(run.path / RESULTS, json.dumps(results, indent=1))
    print_table(results)
    return 0


def _draw(
    recipe: Recipe, label: str, name: str, table: list[dict[str, Any]], missing: list[Key], rewards: list[Reward],
    path: Path, progress: Progress,
) -> Counter[str]:  # fmt: skip
    """Draw a model's missing completions, score and write them, and return how many failed, by kind."""
    scratch = recipe.get("from_scratch") and not is_adapter(recipe.local(name))
    failed: Counter[str] = Counter()
    engine = open_engine(recipe, name, from_scratch=scratch)
    try:
        for greedy in (True, False):
            keys = [key for key in missing if (key[1] == GREEDY) == greedy]
            settings = sampling_settings(recipe, **({"temperature": 0.0} if greedy else {}))
            for batch in engine.generate([row["prompt"] for row in table], keys, settings) if keys else ():
                there = [completion for completion in batch if not is_fault(completion.error)]
                lines = [{"model": label, **row} for row in (scored_rows(there, table, rewards) if there else [])]
                for line in lines:
                    if line.get("error"):  # the model's own doing: no answer is a wrong one
                        line["rewards"] = dict.fromkeys(line["rewards"], 0.0)
                append_lines(path, lines)
                errors = Counter(completion.error for completion in batch if completion.error)
                failed += Counter({kind: count for kind, count in errors.items() if is_fault(kind)})
                progress.add(len(batch), sum(completion.tokens for completion in batch), errors=errors)
    finally:
        progress.end()
        engine.close()
    return failed


def metrics(answers: list[dict[str, Any]], decides: str, trained: Overlap | None = None) -> dict[str, Any]:
    """Compute a model's figures from its completions.

    Args:
        answers: rows as `scored_rows` makes them; the one with sample index -1 is greedy.
        decides: the reward that says what is right.
        trained: the problems that the model was trained on, which are counted where its whole lineage is known.

    Returns:
        `{figure: [value, low, high]}`, shares between 0 and 1, and plain numbers for lengths and counts. Completions whose
        gold does not parse are left out and counted.
    """
    problems: dict[int, list[dict]] = defaultdict(list)
    greedy: list[float] = []
    unjudged = 0
    for row in sorted(answers, key=lambda row: row["sample_index"]):  # not in the order in which they came
        reward = row["rewards"][decides]
        if reward is None:
            unjudged += 1
        elif row["sample_index"] == GREEDY:
            greedy.append(float(reward > 0.5))
        else:
            problems[row["prompt_index"]].append({**row, "right": reward > 0.5})
    sampled = [row for rows in problems.values() for row in rows]
    if not sampled or not greedy:
        raise DataError(
            "dataset_name", f"no completion could be judged by {decides}: {unjudged} of them have no gold that parses"
        )
    figures: dict[str, Any] = {
        "problems": len(problems),
        **(trained.figure(problems) if trained else {}),
        "greedy": interval(greedy),
        "pass@1": interval([_mean([row["right"] for row in rows]) for rows in problems.values()], len(sampled)),
    }
    n = min(len(rows) for rows in problems.values())
    for k in [2**i for i in range(1, 11) if 2**i <= n]:
        figures[f"pass@{k}"] = interval(
            [pass_at_k(len(rows), sum(r["right"] for r in rows), k) for rows in problems.values()]
        )
    if n > 2:
        figures[f"maj@{n}"] = interval([majority_right(rows[:n]) for rows in problems.values()])
    formats = [_mean([think.well_formed(row["completion"]) for row in rows]) for rows in problems.values()]
    figures["thinks"] = interval(formats, len(sampled))
    figures["mean tokens"] = round(_mean([row["tokens"] for row in sampled]), 2)
    figures["truncated"] = round(_mean([not row["finished"] for row in sampled]), 4)
    return figures | ({"not judged": unjudged} if unjudged else {})


def pass_at_k(n: int, right: int, k: int) -> float:
    """Estimate the chance that one of k completions is right, from `right` of n (Chen et al. 2021, equation 1)."""
    return 1.0 if n - right < k else 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority_right(rows: list[dict[str, Any]]) -> float:
    """Return the share of right completions among those that give the most common answer; ties share the vote.

    What gives no answer has no vote; where none gives one that the verifier can read, equal texts vote for the same.
    """
    completions = [row["completion"] for row in rows]
    votes = same_answers(completions) or _same_texts(completions)
    most = max(len(group) for group in votes)
    return _mean([_mean([rows[i]["right"] for i in group]) for group in votes if len(group) == most])


def _same_texts(completions: list[str]) -> list[list[int]]:
    """Group completions by all that stands after the thought but white space; without anything there, only if all are."""
    texts = ["".join((think.answer(text) or "").split()) for text in completions]
    groups: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        if text or not any(texts):
            groups[text].append(i)
    return list(groups.values())


def interval(values: list[float], trials: int | None = None) -> list[float]:
    """Return mean and 95 % interval of a share over problems: Wilson's, at the effective number of problems.

    Args:
        values: one share a problem.
        trials: completions in all, which the effective number cannot exceed; default: one a problem.
    """
    n, mean = len(values), _mean(values)
    variance = sum((v - mean) ** 2 for v in values) / (n - 1) / n if n > 1 else 0.0
    most = float(trials or n)
    effective = min(most, mean * (1 - mean) / variance) if variance > 1e-12 else most
    centre = (mean + Z * Z / (2 * effective)) / (1 + Z * Z / effective)
    half = Z / (1 + Z * Z / effective) * math.sqrt(mean * (1 - mean) / effective + Z * Z / (4 * effective**2))
    return [round(mean, 4), round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)]


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Print the models as rows and the figures as columns; shares in per cent with their 95 % interval."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = Counter(name for figures in results.values() for name in figures)
    said = in_training(results)
    title = f"{problems_of(results)}, 95 % intervals" + (f"; {said}" if said else "")
    table = Table(title=Text(visible(title), style="table.title"))
    for name in ("model", *columns):
        table.add_column(Text(visible(name)), justify="left" if name == "model" else "right")
    for label, figures in results.items():
        table.add_row(Text(visible(str(label))), *[cell(figures.get(name)) for name in columns])
    Console(width=None if Console().is_terminal else 200).print(table)


def _mean(values: list) -> float:
    return sum(values) / len(values)
