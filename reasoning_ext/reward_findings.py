"""What `check` finds about a recipe's rewards and golds: who is paid for what, and which golds cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasoning_ext import dry_run
from reasoning_ext.errors import UserError
from reasoning_ext.findings import Finding
from reasoning_ext.preflight import reward_weights
from reasoning_ext.preparation import has_gold
from reasoning_ext.recipe import Recipe, RecipeError
from reasoning_ext.reward_loading import RewardSpec

JUDGE = "math_answer"
Table = dict[str, dict[str, float | None]]


def try_recipe_rewards(
    recipe: Recipe, specs: list[RewardSpec], rows: Sequence[dict[str, Any]]
) -> tuple[Table, list[Finding]]:
    """Try a recipe's rewards on made-up completions.

    Args:
        recipe: the recipe.
        specs: its rewards.
        rows: formatted rows with a column `answer`, of which the first few with a gold are taken.

    Returns:
        `(the table of dry_run.try_rewards, findings)`; an error where the right answer does not earn the most.
    """
    tried = [row for row in rows if has_gold(row["answer"])][: dry_run.ROWS]
    try:
        table = dry_run.try_rewards(specs, tried) if tried else {}
    except UserError as error:
        return {}, [_finding("error", str(error)), *_not_tried(specs)]
    return table, [*_not_tried(specs), *_judge_table(recipe, specs, table)]


def _finding(level: Any, text: str) -> Finding:
    return Finding(level, "reward_funcs", text)


def _not_tried(specs: list[RewardSpec]) -> list[Finding]:
    text = "{} waits for a server and was not tried"
    return [_finding("note", text.format(spec.name)) for spec in specs if spec.is_async]


def _judge_table(recipe: Recipe, specs: list[RewardSpec], table: Table) -> list[Finding]:
    weights = dict(zip([spec.name for spec in specs], reward_weights(recipe, specs), strict=True))
    judges = [spec.name for spec in specs if "answer" in spec.columns]
    gold, wrong = table.get(dry_run.GOLD, {}), table.get(dry_run.WRONG, {})
    if any(gold[name] != wrong[name] for name in gold if name not in judges):
        return []  # judged by something else than the column answer, whose forms are not known here
    if not any(gold.get(name) is not None for name in judges):
        text = "no reward compares completions with the gold, so that it is not known whether wrong ones are paid"
        return [_finding("note", text)]
    findings = []
    if found := dry_run.complaints(table, weights):
        if dry_run.tells_nothing_apart(table, weights):
            text = r"no reward tells the gold, tried as a thought and \boxed{gold}, from a wrong answer or from nothing"
            return [_finding("warning", f"{text}; see whether yours takes that form")]
        findings.append(_finding("error", f"{'; '.join(found)}; the right answer must earn the most"))
    total = sum(weights[name] * value for name, value in gold.items() if value is not None)
    least = recipe.values.get("min_reward") if recipe.stage == "sample" else None
    if least is not None and total < least and not any(spec.is_async for spec in specs):
        text = f"the gold itself earns {total:g}, so that min_reward {least:g} may accept nothing"
        findings.append(Finding("warning", "min_reward", f"{text}; lower it"))
    return findings


def read_golds(recipe: Recipe, specs: list[RewardSpec], rows: Any, whole: bool) -> tuple[str, list[RecipeError]]:
    """Read all golds that a recipe's answers are judged by.

    Args:
        recipe: the recipe.
        specs: its rewards.
        rows: the prepared rows, a `Dataset` with a column `answer`; nothing is read of a list or a stream.
        whole: rows without a gold count too, which a run drops or judges by agreement.

    Returns:
        `(text, errors)`: how many were read and the first that cannot be, "" where no reward judges answers; an error where
        more than `max_unreadable_golds` cannot be read, or a reward's `when` has no row.
    """
    said, errors = "", []
    for spec in specs:
        if spec.plugin.function == JUDGE and hasattr(rows, "num_rows"):
            said, error = _read_golds_of(spec, recipe, rows, whole)
            errors += [error] if error else []
    return said, errors


def _read_golds_of(spec: RewardSpec, recipe: Recipe, rows: Any, whole: bool) -> tuple[str, RecipeError | None]:
    from reasoning_ext.verifier import unreadable

    marks = [[value in allowed for value in rows[column]] for column, allowed in spec.when.items()]
    golds = rows["answer"]
    chosen = [i for i in range(rows.num_rows) if all(mark[i] for mark in marks)]
    agrees = recipe.stage == "sample" and recipe.get("min_agreement") is not None
    if not whole or agrees:
        chosen = [i for i in chosen if has_gold(golds[i]) or recipe.stage == "eval"]
    if spec.when and not chosen:
        return "", recipe.error("reward_funcs", f"{spec.name}: no row has one of the values of when: {spec.when}")
    read = ["" if golds[i] is None else str(golds[i]) for i in chosen]
    bad = unreadable(read)
    share, allowed = len(bad) / max(1, len(read)), recipe.get("max_unreadable_golds")
    first = "; ".join(f"row {chosen[i]}: {read[i][:60]!r}, {reason}" for i, reason in bad[:3])
    said = f"{len(read)} read, {len(bad)} of them unreadable ({share:.2%})" + (f": {first}" if bad else "")
    if share <= allowed:
        return said, None
    key = "max_unreadable_golds" if "max_unreadable_golds" in recipe.values else "dataset_name"
    problem = f"{len(bad)} of {len(read)} golds cannot be read ({first}); mend them, or allow it"
    return said, recipe.error(key, f"{problem} with max_unreadable_golds")
