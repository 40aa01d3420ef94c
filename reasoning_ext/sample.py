"""Stage `sample`: completions drawn, scored as they come in, and turned into sets that are worth training on.

    samples.jsonl   every completion with its rewards, one fsync a batch; what a run that is cut off goes on from
    sft.jsonl       the kept ones, for `stage: sft`          pairs.jsonl     preference pairs, for `stage: dpo`
    prompts.jsonl   prompts with pass rates, for `stage: grpo`
    summary.json    the counts                               README.md       the data sets' card

The next stage names this run's folder as its `dataset_name` and gets the file of its kind.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from reasoning_ext.data import DataError, check_columns
from reasoning_ext.engines.opening import engine_name, open_engine, sampling_settings
from reasoning_ext.generation import Engine, EngineError
from reasoning_ext.interrupt import Interrupt
from reasoning_ext.preparation import has_gold, prepare, stage_columns
from reasoning_ext.recipe import Recipe
from reasoning_ext.reward_calls import Reward, build_rewards
from reasoning_ext.reward_loading import RewardSpec
from reasoning_ext.run_dir import RunDir
from reasoning_ext.sampling.card import write_dataset_card
from reasoning_ext.sampling.outputs import write_outputs, write_summary
from reasoning_ext.sampling.progress import Progress
from reasoning_ext.sampling.rounds import Budget, rounds
from reasoning_ext.sampling.scoring import scored_rows
from reasoning_ext.sampling.selection import Rules
from reasoning_ext.sampling.store import FAILED, MISSING, RIGHT, Samples, number_of
from reasoning_ext.shown import print, without_secrets
from reasoning_ext.sources import SAMPLES
from reasoning_ext.training import recipe_prompts

PAIRS = {"right_wrong": 1}  # where the recipe does not say
MOST_FAILED = 0.01  # of the completions that a server may fail to give in a run that counts as done


def run_sample(recipe: Recipe, run: RunDir, specs: list[RewardSpec], engine: Engine | None = None) -> int:
    """Sample, score and select; see the module's text for what is written.

    Args:
        recipe: of stage sample.
        run: its folder.
        specs: its rewards.
        engine: answers in the place of the one that the recipe names; it is not closed.

    Returns:
        0, or the exit code for the signal that stopped it, 130 for Ctrl-C; the samples so far are kept and not drawn again.

    Raises:
        DataError, ModelError, EngineError: rows or model cannot be had, or nothing answers any more.
        DiskError: the disk is full.
    """
    prepared = prepare(recipe, specs=specs)
    table = prepared.rows
    if recipe.get("min_agreement") is not None and "answer" not in table.column_names:
        table = prepared.rows = table.add_column("answer", [None] * table.num_rows)
    check_columns(table.column_names, stage_columns(recipe, specs))
    if engine is None and engine_name(recipe) != "server":
        table, _ = recipe_prompts(recipe, prepared)
    prepared.write(run.path)
    for line in prepared.lines():
        print(f"data  {line}")
    rules, budget = selection_rules(recipe, {spec.name: spec.weight for spec in specs}), sampling_budget(recipe)
    samples = open_samples(run, table, rules, budget)
    rewards = build_rewards(specs, tolerated=0)  # a batch that could not be scored is not written
    code = _draw(recipe, table, samples, rules, budget, rewards, engine)
    if code == 0:
        _refuse_failures(samples)
        _hand_over(recipe, run, table, samples, rules, budget, prepared.steps)
    return code


def selection_rules(recipe: Recipe, weights: dict[str, float]) -> Rules:
    """Return what a recipe accepts and keeps; `weights` are those of its rewards, in its order."""
    return Rules(
        weights,
        recipe.get("min_reward"),
        recipe.get("diverse") or recipe.get("keep"),
        recipe.get("select"),
        recipe.get("diverse") is not None,
        recipe.get("min_agreement"),
    )


def sampling_budget(recipe: Recipe) -> Budget:
    """Return how many completions a recipe may draw."""
    each = recipe.get("num_generations")
    return Budget(
        each,
        recipe.get("adaptive"),
        recipe.get("diverse") or recipe.get("keep"),
        recipe.get("min_generations"),
        recipe.get("max_generations") or 4 * each,
    )


def open_samples(run: RunDir, table: Any, rules: Rules, budget: Budget) -> Samples:
    """Open a run's completions, and refuse those of other prompts than there are: they would be scored as these prompts' own.

    Raises:
        DataError: the data set has changed, or the file is damaged.
    """
    path = run.path / SAMPLES
    known: list[int] = []

    def judge(row: dict[str, Any]) -> tuple[int, float, int]:
        number = row["prompt_index"]
        if known and (number >= len(known) or known[number] != number_of(json.dumps(row["prompt"]))):
            problem = (
                f"the data set has changed since the first samples were drawn (prompt {number} is another one now)"
            )
            raise DataError("dataset_name", f"{problem}; choose another output_dir")
        return rules.judge(row)

    if path.is_file():
        known += [number_of(json.dumps(prompt)) for prompt in table["prompt"]]
    samples = Samples(path, len(table), budget.cap, judge)
    known.clear()
    return samples


def _draw(
    recipe: Recipe, table: Any, samples: Samples, rules: Rules, budget: Budget, rewards: list[Reward],
    engine: Engine | None,
) -> int:  # fmt: skip
    """Draw round after round what is missing, score it and write it."""
    states_PS = samples.states_PS
    whole_P = np.zeros(len(table), dtype=bool)
    if rules.min_agreement is not None:
        whole_P = np.array([not has_gold(answer) for answer in table["answer"]])
    drawn, accepted = len(samples), int((states_PS == RIGHT).sum())
    progress = Progress("sample", budget.each * len(table), drawn, accepted)
    opened = engine
    try:
        with Interrupt("stopping after this batch; what was drawn is kept") as interrupt:
            for keys in rounds(budget, states_PS, _count_accepted(samples), whole_P):
                opened = opened or open_engine(recipe)
                for batch in opened.generate(table["prompt"], keys, sampling_settings(recipe)):
                    states = samples.append(scored_rows(batch, table, rewards))
                    errors = Counter(c.error or "cut off" for c in batch if not c.finished)
                    progress.add(len(batch), sum(c.tokens for c in batch), states.count(RIGHT), errors)
                    if interrupt.requested and (states_PS == MISSING).any():
                        return interrupt.code
    finally:
        progress.end()
        if opened is not None and engine is None:
            opened.close()
    return 0


def _count_accepted(samples: Samples) -> Callable[[np.ndarray], np.ndarray]:
    """Return what counts each prompt's accepted completions among its first so many; equal ones, or equal ways, once."""

    def count(planned_P: np.ndarray) -> np.ndarray:
        prompts, indices = samples.column("prompt"), samples.column("sample")
        chosen = (samples.states_PS[prompts, indices] == RIGHT) & (indices < planned_P[prompts])
        different = np.unique(np.stack([prompts[chosen], samples.column("way")[chosen]]), axis=1)
        return np.bincount(different[0], minlength=len(planned_P))

    return count


def _refuse_failures(samples: Samples) -> None:
    """Refuse to be done where more than a few completions failed.

    Raises:
        EngineError: more than `MOST_FAILED` did; they are drawn again when the recipe is run again.
    """
    failed = int((samples.states_PS == FAILED).sum())
    if failed > MOST_FAILED * len(samples):
        problem = f"{failed} of {len(samples)} completions failed; the others are kept"
        raise EngineError("engine_kwargs", f"{problem}: see to the server and run the same command again to draw them")


def _hand_over(
    recipe: Recipe, run: RunDir, table: Any, samples: Samples, rules: Rules, budget: Budget, steps: list[dict[str, Any]]
) -> None:
    """Write what the next stages train on, the counts and the card, and print the counts."""
    pairs = PAIRS if recipe.get("pairs") is None else recipe.get("pairs")
    counts = write_outputs(run.path, samples, table, rules, pairs)
    fixed = budget.each * len(table)
    summary = counts.summary(len(table), fixed, rules.min_agreement is not None)
    write_dataset_card(run.path, without_secrets(recipe.values), summary, steps, budget.adaptive)
    write_summary(run.path, summary)
    shown = (
        "sampled",
        "finished",
        "cut off",
        "other ends",
        "failed",
        "unjudged",
        "accepted",
        "kept",
        "prompts",
        "prompts without one",
    )
    print("sample  " + "  ".join(f"{name} {summary[name]}" for name in shown if summary[name] or name == "kept"))
    print("pairs   " + ("  ".join(f"{kind} {count}" for kind, count in summary["pairs"].items()) or "none"))
    print("prompts " + "  ".join(f"{name} {count}" for name, count in summary["difficulty"].items()))
    if budget.adaptive:
        share = summary["saved"] / fixed
        print(f"adaptive: {summary['sampled']} of {fixed} completions drawn, {summary['saved']} ({share:.0%}) saved")
    if not summary["kept"]:
        cut_off = summary["cut off"] * 2 > summary["sampled"]
        ends = "  ".join(f"{name} {count}" for name, count in summary.get("errors", {}).items())
        todo = f"see samples.jsonl and the rewards{f' ({ends})' if ends else ''}"
        todo = "raise max_completion_length" if cut_off else todo
        print(f"warning: nothing was accepted, so there is nothing to train on; {todo}")
