"""What `check` finds about a recipe's rewards and golds: who is paid for what, and which golds cannot be read.

An error is what is certain. Where the gold is told from a wrong answer, it must earn the most among completions that are
wrong beyond dispute. Whether one of two boxes counts, or the prompt copied, is for a reward to say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reasoning_ext.check import trial
from reasoning_ext.check.trial import COPIED, GOLD, NOTHING, RIGHT_FIRST, RIGHT_LAST, WRONG, Table, means
from reasoning_ext.data.rows import has_gold
from reasoning_ext.errors import Level, Problem, UserError
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.spec import RewardSpec, reward_weights

JUDGE = "math_answer"
# 3,5, 1.234,5 m; not 1,234
COMMA = re.compile(r"[-+]?(?![1-9]\d{0,2}(?:,\d{3})+\b)(?:\d+|\d{1,3}(?:\.\d{3})+),\d+(?: ?[^\d,;]{1,12})?")
POINT = re.compile(r"[-+]?\d+\.(?!\d{3}$)\d+")


def try_recipe_rewards(recipe: Recipe, specs: list[RewardSpec], rows: Any) -> tuple[Table, list[Problem]]:
    """Try a recipe's rewards on made-up completions of some rows, a `Dataset` or a list with a column `answer`.

    Returns the means over these rows, and what was found; an error where the right answer does not earn the most.
    """
    left_out = [(spec.name, why) for spec in specs if (why := trial.untried(spec))]
    untried = [_found("note", f"{name} {why} and was not tried", code="not_tried") for name, why in left_out]
    if not (drawn := trial.draw(specs, rows)):
        return {}, [*untried, _found("note", "no row has a gold, so that no reward was tried", code="not_tried")]
    try:
        tables = trial.try_rewards(specs, drawn)
    except UserError as error:
        return {}, [_found("error", str(error), code="reward_failed"), *untried]
    own = reward_weights(recipe.values.get("reward_weights"), specs)
    weights = dict(zip([spec.name for spec in specs], own, strict=True))
    tried = [spec for spec in specs if not trial.untried(spec)]
    found = [*untried, *_untold(tried, drawn, tables), *_overpaid(tried, drawn, tables, weights, partly=bool(untried))]
    most = max(trial.total(table[GOLD], weights) for table in tables)
    if not untried and (least := recipe.values.get("min_reward")) is not None and most < least:
        text = f"the gold itself earns {most:g}, so that min_reward {least:g} may accept nothing"
        found.append(Problem(code="min_reward_too_high", level="warning", key="min_reward", found=text))
    return means(tables), found


def _found(level: Level, found: str, hint: str = "", *, code: str) -> Problem:
    return Problem(code=code, level=level, key="reward_funcs", found=found, hint=hint)


def _applies(spec: RewardSpec, row: dict[str, Any]) -> bool:
    return all(row.get(column) in allowed for column, allowed in spec.when.items())


def _telling(specs: list[RewardSpec], table: Table) -> set[str]:
    """Name the rewards that tell a row's gold, as it was tried, from a wrong answer.

    Of those that take the column `answer` it is enough that they pay it more than nothing at all, or less than a wrong one.
    """
    gold, wrong, nothing = ({n: v or 0.0 for n, v in table[what].items()} for what in (GOLD, WRONG, NOTHING))
    return {
        spec.name
        for spec in specs
        if (spec.columns and gold[spec.name] > wrong[spec.name])
        or ("answer" in spec.columns and (gold[spec.name] > nothing[spec.name] or wrong[spec.name] > gold[spec.name]))
    }


def _untold(specs: list[RewardSpec], rows: list[dict[str, Any]], tables: list[Table]) -> list[Problem]:
    """Name the rewards that were tried on nothing, and golds that one does not tell from a wrong answer."""
    found, mean = [], means(tables)
    for spec in specs:
        tried = [i for i, row in enumerate(rows) if _applies(spec, row)]
        bad = [i for i in tried if spec.name not in _telling(specs, tables[i])]
        judges = "answer" in spec.columns
        if all(paid[spec.name] is None for paid in mean.values()):
            why = f"it gave None for all of {len(tried)} rows" + (f" (gate: {spec.gate})" if spec.gate else "")
            why = why if tried else f"no row with a gold has one of the values of its when, {spec.when}"
            text = f"{spec.name} was tried on nothing: {why}"
            found.append(_found("warning" if judges else "note", text, code="not_tried"))
        elif judges and bad:
            text = rf"{spec.name} does not tell the gold, tried as a thought and \boxed{{gold}}, from a wrong answer or from "
            text += f"nothing on {len(bad)} of {len(tried)} rows, such as {rows[bad[0]]['answer']!r:.60}"
            found.append(_found("warning", text, "see whether yours takes that form", code="gold_not_told"))
    if not any("answer" in spec.columns for spec in specs) and mean[GOLD] == mean[WRONG]:
        text = "no reward compares completions with the gold, so that it is not known whether wrong ones are paid"
        found.append(_found("note", text, code="not_tried"))
    return found


def _overpaid(
    specs: list[RewardSpec], rows: list[dict[str, Any]], tables: list[Table], weights: dict[str, float], partly: bool
) -> list[Problem]:
    """Say what earns as much as the gold, on the rows whose gold is told; `partly`: other rewards were not tried."""
    refused, doubtful = dict[str, None](), dict[str, None]()
    groups: dict[tuple, list[Table]] = {}  # of rows to which the same rewards apply
    for row, table in zip(rows, tables, strict=True):
        if any(weights[spec.name] for spec in specs) and (names := _telling(specs, table)):
            answers = any("answer" in spec.columns for spec in specs if spec.name in names)
            groups.setdefault((answers, *(_applies(spec, row) for spec in specs)), []).append(table)
    for (answers, *_), own in groups.items():
        where = "" if len(own) == len(rows) else f", on {len(own)} of {len(rows)} rows"
        paid = trial.overpaid(means(own), weights)
        refused |= {paid[what] + where: None for what in trial.CERTAIN if what in paid}
        doubtful |= {paid[what] + where: None for what in (RIGHT_LAST, RIGHT_FIRST) if what in paid and answers}
        copied = [text for table in own if answers and (text := trial.overpaid(table, weights).get(COPIED))]
        if copied:
            hint = f"see whether prompts hold their answers; {JUDGE}: {{evaluated: true}} pays for values alone"
            doubtful[f"{copied[0]}, on {len(copied)} of {len(rows)} rows; {hint}"] = None
    level: Level = "warning" if partly else "error"
    hint = "the right answer must earn the most"
    certain = [_found(level, "; ".join(refused), hint, code="wrong_answer_paid")] if refused else []
    return certain + [_found("warning", text, code="doubtful_pay") for text in doubtful]


def decimal_commas(golds: Sequence[Any]) -> list[str]:
    """Return the golds that look like `3,5`, which the verifier reads as a list, where none has a decimal point."""
    texts = [gold.strip() for gold in golds if isinstance(gold, str)]
    return [] if any(map(POINT.fullmatch, texts)) else [text for text in texts if COMMA.fullmatch(text)]


def read_golds(recipe: Recipe, specs: list[RewardSpec], rows: Any, whole: bool) -> tuple[str, list[Problem]]:
    """Read all golds that a recipe's answers are judged by; nothing is read of a list or a stream of rows.

    With `whole` rows without a gold count too, which a run drops or judges by agreement. Returns how many were read, of which
    kinds, and the first that cannot be, "" where no reward judges answers; and an error where more than
    `max_unreadable_golds` cannot be read, or a reward's `when` has no row, a warning where most are words.
    """
    from reasoning_ext.verifier import kind, unreadable

    said, problems = "", list[Problem]()
    whole = whole and not (recipe.stage == "sample" and recipe.get("min_agreement") is not None)
    also = "exact_answer is the reward for words"
    for spec in [spec for spec in specs if spec.plugin.name == JUDGE and hasattr(rows, "num_rows")]:
        marks = [[value in allowed for value in rows[column]] for column, allowed in spec.when.items()]
        golds = {i: gold for i, gold in enumerate(rows["answer"]) if all(mark[i] for mark in marks)}
        if not whole and recipe.stage != "eval":
            golds = {i: gold for i, gold in golds.items() if has_gold(gold)}
        if spec.when and not golds:
            text = f"{spec.name}: no row has a value of when: {spec.when}"
            problems.append(_found("error", text, code="when_without_rows"))
            continue
        numbers, read = [*golds], [*golds.values()]
        kinds, bad = Counter[str](map(kind, read)), unreadable(read)
        share = len(bad) / max(1, len(read))
        first = "; ".join(f"row {numbers[i]}: {str(read[i] or '')[:60]!r}, {reason}" for i, reason in bad[:3])
        named = {"number": "numbers", "formula": "formulas", "words": "words"}
        counts = ", ".join(f"{word} {kinds[name]}" for name, word in named.items() if kinds[name])
        said = f"{len(read)} read, {len(bad)} of them unreadable ({share:.2%}){f': {first}' if bad else ''}; {counts}"
        if kinds["words"] > len(read) / 2:
            text = f"{kinds['words']} of the {len(read)} golds that {spec.name} judges are words"
            problems.append(_found("warning", text, also, code="golds_are_words"))
        if commas := decimal_commas(read):
            text = (
                f"{len(commas)} of {len(read)} golds, such as {commas[0]}, are read as lists, and the number is wrong"
            )
            hint = "where they are decimals, write points in the data, and ask for a point in system_prompt"
            problems.append(_found("warning", text, hint, code="decimal_commas"))
        if share > recipe.get("max_unreadable_golds"):
            key = "max_unreadable_golds" if "max_unreadable_golds" in recipe.values else "dataset_name"
            text, hint = f"{len(bad)} of {len(read)} golds cannot be read ({first})", "mend them, or allow it with"
            hint = f"{hint} max_unreadable_golds; {also}"
            problems.append(Problem(code="unreadable_golds", key=key, found=text, hint=hint))
    return said, problems
