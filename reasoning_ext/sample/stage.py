"""Stage `sample`: completions drawn, scored as they come in, and turned into sets that are worth training on.

    samples.jsonl   every completion with its rewards, one fsync a batch; what a run that is cut off goes on from
    sft.jsonl       the kept ones, for `stage: sft`          pairs.jsonl     preference pairs, for `stage: dpo`
    prompts.jsonl   prompts with pass rates, for `stage: grpo`
    summary.json    the counts                               README.md       the data sets' card

The next stage names this run's folder as its `dataset_name` and gets the file of its kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from typing import Any

import numpy as np

from reasoning_ext.data.columns import check_columns
from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import has_gold, prepare, stage_columns
from reasoning_ext.data.sources import SAMPLES, SUMMARY, nothing_accepted
from reasoning_ext.data.token_sets import prompt_rows
from reasoning_ext.engines.base import Engine, EngineError, SamplingSettings
from reasoning_ext.engines.opening import engine_name, open_engine, recipe_source, sampling_settings
from reasoning_ext.engines.scored import scored_rows
from reasoning_ext.engines.tools import tool_lines
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.runs.tracking import numbers, tracked
from reasoning_ext.sample.card import write_dataset_card
from reasoning_ext.sample.outputs import Summary, write_outputs
from reasoning_ext.sample.progress import Progress
from reasoning_ext.sample.rounds import Budget, rounds
from reasoning_ext.sample.selection import FAILED, MISSING, RIGHT, Rules
from reasoning_ext.sample.store import Samples
from reasoning_ext.scoring.call import Reward, build_rewards
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.shown import print, without_secrets

PAIRS = {"right_wrong": 1}  # where the recipe does not say
MOST_FAILED = 0.01  # of the completions that a server may fail to give in a run that counts as done


def run_sample(recipe: Recipe, run: RunDir, specs: list[RewardSpec], engine: Engine | None = None) -> int:
    """Sample, score and select; an engine that is given answers in the place of the one that the recipe names.

    Returns:
        0, or the exit code for the signal that stopped it, 130 for Ctrl-C; the samples so far are kept and not drawn again.

    Raises:
        DataError, ModelError, EngineError: rows or model cannot be had, or nothing answers any more.
        DiskError: the disk is full.
    """
    rules, budget, data = _rules(recipe, specs), _budget(recipe), row_options(recipe)
    prepared = prepare(data, specs=specs)
    table = prepared.rows
    if rules.min_agreement is not None and "answer" not in table.column_names:
        table = prepared.rows = table.add_column("answer", [None] * table.num_rows)
    check_columns(table.column_names, stage_columns(data, specs))
    if engine is None and engine_name(recipe) != "server":
        source, limit = recipe_source(recipe), recipe.get("max_prompt_length")
        table = prompt_rows(prepared, *source.load_tokenizer(), limit, source.options.chat_template_kwargs)
    prepared.write(run.path)
    for line in prepared.lines():
        print(f"data  {line}")
    samples = Samples(run.path / SAMPLES, table["prompt"], budget.cap, rules)
    rewards = build_rewards(specs, tolerated=0)  # a batch that could not be scored is not written

    def opens() -> AbstractContextManager[Engine]:
        return nullcontext(engine) if engine else closing(open_engine(recipe, rows=table))

    if code := _draw(opens, table, samples, budget, sampling_settings(recipe), rewards):
        return code
    if (failed := int((samples.states_PS == FAILED).sum())) > MOST_FAILED * len(samples):
        problem = f"{failed} of {len(samples)} completions failed; the others are kept"
        raise EngineError("engine_kwargs", f"{problem}: see to the server and run the same command again to draw them")
    pairs = PAIRS if recipe.get("pairs") is None else recipe.get("pairs")
    found = write_outputs(run.path, samples, table, rules, pairs)
    fixed = budget.each * len(table)
    found.saved = max(0, fixed - found.sampled)  # a run whose rules have changed may have drawn more
    write_dataset_card(run.path, without_secrets(recipe.values), found, prepared.steps, budget.adaptive)
    write_whole(run.path / SUMMARY, json.dumps(found.as_written(), indent=1))
    with tracked(recipe, run.path) as tracking, (run.path / SAMPLES).open() as lines:
        tracking.log(numbers("sample", found.as_written()))
        tracking.table("completions", map(json.loads, lines))
    _print(found, fixed if budget.adaptive else 0)
    return 0


def _rules(recipe: Recipe, specs: list[RewardSpec]) -> Rules:
    return Rules(
        weights={spec.name: spec.weight for spec in specs},
        min_reward=recipe.get("min_reward"),
        keep=recipe.get("diverse") or recipe.get("keep"),
        select=recipe.get("select"),
        diverse=recipe.get("diverse") is not None,
        min_agreement=recipe.get("min_agreement"),
        keep_forced=recipe.get("keep_forced"),
    )


def _budget(recipe: Recipe) -> Budget:
    each, enough = recipe.get("num_generations"), recipe.get("diverse") or recipe.get("keep")
    most = recipe.get("max_generations") or 4 * each
    return Budget(each, recipe.get("adaptive"), enough, recipe.get("min_generations"), most)


def _draw(
    opens: Callable[[], AbstractContextManager[Engine]],
    table: Any,
    samples: Samples,
    budget: Budget,
    settings: SamplingSettings,
    rewards: list[Reward],
) -> int:
    """Draw round after round what is missing, score it and write it; the engine is opened when there is something to draw."""
    states_PS, whole_P = samples.states_PS, np.zeros(len(table), dtype=bool)
    if samples.rules.min_agreement is not None:
        whole_P = np.array([not has_gold(answer) for answer in table["answer"]])
    progress = Progress("sample", budget.each * len(table), len(samples), int((states_PS == RIGHT).sum()))
    engine: Engine | None = None
    with ExitStack() as stack:
        stack.enter_context(closing(progress))
        interrupt = stack.enter_context(Interrupt("stopping after this batch; what was drawn is kept"))
        for keys in rounds(budget, states_PS, samples.accepted, whole_P):
            engine = engine or stack.enter_context(opens())
            for batch in engine.generate(table["prompt"], keys, settings):
                states = samples.append(scored_rows(batch, table, rewards))
                progress.add(batch, states.count(RIGHT))
                if interrupt.requested and (states_PS == MISSING).any():
                    return interrupt.code
        for line in tool_lines(engine):
            print(line)
    return 0


def _print(found: Summary, fixed: int) -> None:
    """Print the counts; `fixed` is what a fixed number a prompt would have drawn, 0 where that was drawn."""
    counts = {name: count for name, count in found.as_written().items() if type(count) is int and name != "saved"}
    print("sample  " + "  ".join(f"{name} {count}" for name, count in counts.items() if count or name == "kept"))
    print("pairs   " + ("  ".join(f"{kind} {count}" for kind, count in found.pairs.items()) or "none"))
    print("prompts " + "  ".join(f"{name} {count}" for name, count in found.difficulty.items()))
    if fixed:
        share = found.saved / fixed
        print(f"adaptive: {found.sampled} of {fixed} completions drawn, {found.saved} ({share:.0%}) saved")
    if found.kept and found.cut_off * 2 > found.sampled:
        said = f"{found.cut_off} of {found.sampled} completions were cut off, and what is cut off is not accepted"
        print(f"warning: {said}; raise max_completion_length")
    if not found.kept:
        print(f"warning: {nothing_accepted(found.as_written())}")
