"""Stage `eval`: how good are these models, with how much certainty, on problems that they were not trained on.

    eval.json       one entry a model: pass@1, pass@k, maj@k, greedy, think share, length, truncated, with 95 % intervals
    answers.jsonl   every completion, for the report's before and after
    strategies.jsonl  of each model, strategy and problem, whether it is right and how many tokens it took

With `num_generations: 0` there are the greedy completions alone, and no figure that asks for sampled ones.
`thinking_curve` adds what each model answers where its thought is cut short.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reasoning_ext.data.columns import check_columns
from reasoning_ext.data.filters import ends_in_loop
from reasoning_ext.data.lineage import Overlap, overlap_lines, overlaps
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.opening import open_engine, sampling_settings
from reasoning_ext.evaluate.answers import Answers, Line, Request
from reasoning_ext.evaluate.curve import print_curves, thinking_curve, thinking_cuts
from reasoning_ext.evaluate.guard import general
from reasoning_ext.evaluate.published import print_published
from reasoning_ext.evaluate.scaling import print_strategies, strategy_results
from reasoning_ext.evaluate.strategies import Strategy, need_logprobs, parse_strategies
from reasoning_ext.evaluate.table import log_model, print_table
from reasoning_ext.evaluate.thoughts import print_thoughts, thoughts
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.entries import asks_server, eval_models
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.records import ThinkingCurve
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.folder import ANSWERS, RESULTS, RunDir
from reasoning_ext.runs.outcomes import STRATEGIES, best_checkpoints, outcomes
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.tracking import tracked
from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.metrics import metrics
from reasoning_ext.scoring.spec import RewardSpec, needed_columns
from reasoning_ext.shown import print


def run_eval(recipe: Recipe, run: RunDir, specs: list[RewardSpec]) -> int:
    """Evaluate every model of a recipe on the test split and print the tables; the first reward decides what is right.

    Raises:
        DataError, ModelError: rows or a model cannot be had.
        EngineError: nothing answers any more, or some completions failed.
        RewardError: a reward failed.
    """
    if lm_eval_task(recipe):
        from reasoning_ext.evaluate.lm_eval import run_lm_eval

        return run_lm_eval(recipe, run)
    prepared = prepare(row_options(recipe), TEST)
    rows = prepared.rows
    for line in prepared.lines() if prepared.removed else ():
        print(f"data  {line}")
    check_columns(rows.column_names, {"prompt": "stage eval"} | needed_columns(specs))
    table = [{name: value for name, value in row.items() if name != "completion"} for row in rows]
    rewards = build_rewards(specs, tolerated=0)  # what is written without a reward would never get one
    trained = overlaps(recipe, (row["prompt"] for row in table))
    said, unknown = overlap_lines(trained, len(table))
    for line in [said, *unknown] if said else unknown:
        print(f"eval  {line}", flush=True)
    wanted, results, found = _wanted(recipe, specs), {}, Found()
    with tracked(recipe, run.path) as tracking:
        for label, name in eval_models(recipe).items():
            scratch = recipe.get("from_scratch") and not is_adapter(recipe.local(name))
            opens = partial(open_engine, recipe, name, table, from_scratch=scratch)
            with closing(Answers(run.path / ANSWERS, label, table, rewards, opens)) as answers:
                results[label] = _evaluated(answers, wanted, trained[label], found)
                if recipe.get("guard"):
                    results[label]["general"] = general(run.path, recipe, answers, found.guard)
            log_model(tracking, label, results[label], found.plain)
        for line in found.warnings:
            tracking.alarm("cut off", line)
    write_whole(run.path / RESULTS, json.dumps(results, indent=1))
    if wanted.strategies:
        write_whole(run.path / STRATEGIES, "".join(json.dumps(line) + "\n" for line in found.outcomes))
    for prints in (print_table, print_strategies, print_curves, print_thoughts):
        prints(results)
    print_published(recipe)
    checkpoints = {label: [of] for label, of in outcomes("greedy", found.plain).items()}
    for line in [*best_checkpoints(checkpoints, "greedy"), *found.warnings]:
        print(f"eval  {line}", flush=True)
    return 0


@dataclass(frozen=True)
class Wanted:
    """What a recipe asks of each model.

    Attributes:
        settings: how the sampled completions are drawn.
        num_generations: of these a problem.
        decides: the reward that says what is right.
        cuts: where thoughts are cut short, None for nowhere.
    """

    settings: SamplingSettings
    num_generations: int
    decides: str
    strategies: list[Strategy]
    cuts: ThinkingCurve | None


@dataclass
class Found:
    """What is kept of all models: lines of `answers.jsonl`, those of `strategies.jsonl`, and what is said at the end."""

    plain: list[Line] = field(default_factory=list)
    outcomes: list[Line] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    guard: list[Line] = field(default_factory=list)  # the first model's answers to the general tasks


def _wanted(recipe: Recipe, specs: list[RewardSpec]) -> Wanted:
    strategies = parse_strategies(recipe, specs)
    # a server may have no log-probabilities, and is asked for them where they are needed
    settings = sampling_settings(recipe, logprobs=not asks_server(recipe) or need_logprobs(strategies))
    return Wanted(settings, recipe.get("num_generations"), specs[0].name, strategies, thinking_cuts(recipe))


def _evaluated(answers: Answers, wanted: Wanted, trained: Overlap, found: Found) -> dict[str, Any]:
    """Draw what is missing of a model's completions, and return its figures and groups of figures."""
    plain = [line for lines in answers.draw(*plain_requests(wanted, len(answers.table))) for line in lines]
    found.plain += plain
    figures = metrics(plain, wanted.decides, trained.figure)
    if wanted.strategies:
        figures["strategies"], lines = strategy_results(wanted.strategies, answers, wanted.settings, wanted.decides)
        found.outcomes += lines
    if wanted.cuts:
        unbounded = replace(wanted.settings, temperature=0.0, thinking_budget=None, min_thinking=None)
        if curve := thinking_curve(answers, plain, wanted.cuts, unbounded, wanted.decides):
            figures["curve"] = curve
        else:
            found.warnings.append(f"warning: {answers.label}: no cut thought could be judged by {wanted.decides}")
    if group := thoughts(plain, wanted.decides):
        figures["thoughts"] = group
    if line := cut_off_line(plain, wanted.settings.max_completion_length):
        found.warnings.append(f"warning: {answers.label}: {line}")
    return figures


def plain_requests(wanted: Wanted, problems: int) -> list[Request]:
    """Return what is drawn for the figures of every evaluation: the greedy completions, and those that are sampled."""
    greedy = [(p, GREEDY) for p in range(problems)]
    sampled = [(p, g) for p in range(problems) for g in range(wanted.num_generations)]
    requests = [Request(greedy, replace(wanted.settings, temperature=0.0)), Request(sampled, wanted.settings)]
    return [request for request in requests if request.keys]


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
