"""What `check` finds about a recipe's rewards and golds: who is paid for what, and which golds cannot be read.

An error is what is certain. Where the gold is told from a wrong answer, it must earn the most among completions that are
wrong beyond dispute. Whether the last of two boxes counts is for a reward to say, unless it is one of ours.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from reasoning_ext import think
from reasoning_ext.check import trial
from reasoning_ext.check.trial import Table
from reasoning_ext.data.rows import has_gold
from reasoning_ext.errors import Level, Problem, UserError
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.spec import RewardSpec, reward_weights

JUDGE = "math_answer"
OURS = tuple(f"reasoning_ext.rewards.{name}" for name in (JUDGE, "exact_answer", "choice_answer"))
_LAST = {
    (True, False): "the last box counts, also where it contradicts one before it",
    (False, True): "the first box counts, also where it contradicts one behind it",
    (True, True): "one box that is right is enough, whatever the others say",
}


def try_recipe_rewards(recipe: Recipe, specs: list[RewardSpec], rows: Any) -> tuple[Table, list[Problem]]:
    """Try a recipe's rewards on made-up completions.

    Args:
        recipe: the recipe.
        specs: its rewards.
        rows: formatted rows with a column `answer`, a `Dataset` or a list, from all over which some with a gold are drawn.

    Returns:
        `(means over the rows, findings)`; an error where the right answer does not earn the most.
    """
    drawn = trial.draw(specs, rows)
    try:
        tables = trial.try_rewards(specs, drawn) if drawn else []
    except UserError as error:
        return {}, [_found("error", str(error), code="reward_failed"), *_not_tried(specs)]
    if not drawn:
        return {}, [
            *_not_tried(specs),
            _found("note", "no row has a gold, so that no reward was tried", code="not_tried"),
        ]
    found = _Trial(recipe, specs, drawn, tables)
    return trial.means(tables), [*_not_tried(specs), *found.idle(), *found.judge()]


def _found(level: Level, found: str, hint: str = "", *, code: str) -> Problem:
    return Problem(code=code, level=level, key="reward_funcs", found=found, hint=hint)


def _not_tried(specs: list[RewardSpec]) -> list[Problem]:
    text = "{} waits for a server and was not tried"
    return [_found("note", text.format(spec.name), code="not_tried") for spec in specs if spec.is_async]


class _Trial:
    """What rewards paid for the made-up completions of some rows."""

    def __init__(self, recipe: Recipe, specs: list[RewardSpec], rows: list[dict[str, Any]], tables: list[Table]):
        self.recipe, self.rows, self.tables = recipe, rows, tables
        own = reward_weights(recipe.values.get("reward_weights"), specs)
        self.weights = dict(zip([spec.name for spec in specs], own, strict=True))
        self.specs = [spec for spec in specs if not spec.is_async]
        self.judges = [spec for spec in self.specs if "answer" in spec.columns]
        self.partly = any(self.weights[spec.name] for spec in specs if spec.is_async)  # something untried counts
        self.counts = any(self.weights[spec.name] for spec in self.specs)

    def _idle_specs(self) -> list[RewardSpec]:
        mean = trial.means(self.tables)
        return [spec for spec in self.specs if all(values[spec.name] is None for values in mean.values())]

    def idle(self) -> list[Problem]:
        """Name the rewards that were tried on nothing."""
        found = []
        for spec in self._idle_specs():
            left = [row for row in self.rows if trial.applies(spec, row)]
            why = f"it gave None for every completion of {len(left)} rows"
            why = f"no row with a gold has one of the values of its when, {spec.when}" if not left else why
            gate = f" (gate: {spec.gate})" if left and spec.gate else ""
            level: Level = "warning" if spec in self.judges else "note"
            found.append(_found(level, f"{spec.name}{gate} was tried on nothing: {why}", code="not_tried"))
        return found

    def judge(self) -> list[Problem]:
        """Hold what is paid against what should be."""
        told = {i: self._telling(i) for i in range(len(self.rows))}
        mean = trial.means(self.tables)
        gold, wrong = mean[trial.GOLD], mean[trial.WRONG]
        if not any(told.values()) and all(spec in self._idle_specs() for spec in self.judges):
            if self.judges or any(gold[spec.name] != wrong[spec.name] for spec in self.specs):
                return []  # said to be idle; or judged by something else than the answer, whose forms are not known here
            text = "no reward compares completions with the gold, so that it is not known whether wrong ones are paid"
            return [_found("note", text, code="not_tried")]
        refused: list[str] = []
        warned: list[str] = []
        for rows in self._groups([i for i, names in told.items() if names and self.counts]):
            by_answer = [i for i in rows if any(spec.name in told[i] for spec in self.judges)]
            for what, text in self._overpaid(rows).items():
                if what in trial.CERTAIN:
                    refused.append(text)
            if by_answer:
                self._judge_boxes(by_answer, refused, warned)
                self._judge_copies(by_answer, warned)
        findings = [_found("warning", text, code="gold_not_told") for text in self._untold()]
        findings += [_found("warning", text, code="doubtful_pay") for text in dict.fromkeys(warned)]
        if refused:
            text = "; ".join(dict.fromkeys(refused))
            level: Level = "warning" if self.partly else "error"
            findings.insert(0, _found(level, text, "the right answer must earn the most", code="wrong_answer_paid"))
        return findings + ([] if self.partly else self._judge_least())

    def _telling(self, i: int) -> set[str]:
        """Name the rewards that tell a row's gold, as it was tried, from a wrong answer.

        Of those that take the column `answer` it is enough that they pay it more than nothing at all, or less than a wrong one.
        """
        gold, wrong, nothing = (self.tables[i][what] for what in (trial.GOLD, trial.WRONG, trial.NOTHING))
        names = {spec.name for spec in self.specs if spec.columns and _more(gold[spec.name], wrong[spec.name])}
        return names | {
            spec.name
            for spec in self.judges
            if _more(gold[spec.name], nothing[spec.name]) or _more(wrong[spec.name], gold[spec.name])
        }

    def _groups(self, chosen: list[int]) -> list[list[int]]:
        """Put rows together to which the same rewards apply."""
        groups: dict[tuple, list[int]] = {}
        for i in chosen:
            groups.setdefault(tuple(trial.applies(spec, self.rows[i]) for spec in self.specs), []).append(i)
        return list(groups.values())

    def _overpaid(self, rows: list[int]) -> dict[str, str]:
        found = trial.overpaid(trial.means([self.tables[i] for i in rows]), self.weights)
        where = "" if len(rows) == len(self.rows) else f", on {len(rows)} of {len(self.rows)} rows"
        return {what: text + where for what, text in found.items()}

    def _judge_boxes(self, rows: list[int], refused: list[str], warned: list[str]) -> None:
        """Two boxes that contradict each other: refused where ours pay for them, a warning where others do."""
        found = self._overpaid(rows)
        mean = trial.means([self.tables[i] for i in rows])
        paid = {what: found[what] for what in (trial.RIGHT_LAST, trial.RIGHT_FIRST) if what in found}
        gold = mean[trial.GOLD]
        payers = [
            s for s in self.judges if any(mean[w][s.name] and not _more(gold[s.name], mean[w][s.name]) for w in paid)
        ]
        if not payers or any(spec.plugin.module in OURS for spec in payers):
            refused += paid.values()
            return
        counts = _LAST[trial.RIGHT_LAST in paid, trial.RIGHT_FIRST in paid]
        warned.append(f"{', '.join(spec.name for spec in payers)}: {counts}: {'; '.join(paid.values())}")

    def _judge_copies(self, rows: list[int], warned: list[str]) -> None:
        """The prompt copied: what `evaluated` would refuse is named row by row, anything else where it is the rule."""
        judge = next((spec for spec in self.judges if spec.plugin.module == OURS[0]), None)
        copied = self._unevaluated(judge, rows) if judge and not judge.options.get("evaluated") else []
        if judge and copied:
            prompt, gold = (self.rows[copied[0]][name] for name in ("prompt", "answer"))
            text = f"{judge.name} pays for the prompt copied on {len(copied)} of {len(rows)} rows, as for {gold!r} "
            text += f"{think.content(prompt)[-60:]!r}; write {judge.name}: {{evaluated: true}} to pay for values alone"
            warned.append(text)
        elif paid := self._overpaid(rows).get(trial.COPIED):
            warned.append(f"{paid}; see whether the prompts hold their answers")

    def _unevaluated(self, judge: RewardSpec, rows: list[int]) -> list[int]:
        """List the rows whose prompt is an expression that is equal to the gold but still has to be worked out."""
        from reasoning_ext.verifier import Rules, judge_all

        paid = [i for i in rows if self.tables[i][trial.COPIED][judge.name]]
        asked = [think.content(self.rows[i]["prompt"]) for i in paid]
        rules = Rules(True, bool(judge.options.get("base_may_be_omitted")))
        verdicts = judge_all([self.rows[i]["answer"] for i in paid], asked, questions=asked, rules=rules)
        return [i for i, verdict in zip(paid, verdicts, strict=True) if verdict.right is False]

    def _untold(self) -> list[str]:
        """Name the golds that a reward does not tell, as they stand, from a wrong answer or from nothing."""
        found = []
        for spec in self.judges:
            tried = [i for i, row in enumerate(self.rows) if trial.applies(spec, row)]
            bad = [i for i in tried if spec.name not in self._telling(i)]
            if not bad or spec in self._idle_specs():
                continue
            gold = "/".join(trial.golds_of(self.rows[bad[0]]["answer"]))[:60]
            text = rf"{spec.name} does not tell the gold, tried as a thought and \boxed{{gold}}, from a wrong answer or from "
            text += f"nothing on {len(bad)} of {len(tried)} rows, such as {gold!r}; see whether yours takes that form"
            found.append(text)
        return found

    def _judge_least(self) -> list[Problem]:
        least = self.recipe.values.get("min_reward") if self.recipe.stage == "sample" else None
        groups = self._groups([*range(len(self.rows))])
        means = [trial.means([self.tables[i] for i in rows])[trial.GOLD] for rows in groups]
        total = min(trial.total(gold, self.weights) for gold in means)
        if least is None or total >= least:
            return []
        found = f"the gold itself earns {total:g}, so that min_reward {least:g} may accept nothing"
        return [Problem(code="min_reward_too_high", level="warning", key="min_reward", found=found, hint="lower it")]


def _more(value: float | None, other: float | None) -> bool:
    """Tell whether a reward pays more; where it does not apply it pays nothing."""
    return value is not None and value > (other or 0.0)


def read_golds(recipe: Recipe, specs: list[RewardSpec], rows: Any, whole: bool) -> tuple[str, list[Problem]]:
    """Read all golds that a recipe's answers are judged by.

    Args:
        recipe: the recipe.
        specs: its rewards.
        rows: the prepared rows, a `Dataset` with a column `answer`; nothing is read of a list or a stream.
        whole: rows without a gold count too, which a run drops or judges by agreement.

    Returns:
        `(text, problems)`: how many were read, of which kinds, and the first that cannot be, "" where no reward judges
        answers; an error where more than `max_unreadable_golds` cannot be read, or a reward's `when` has no row; a warning
        where most are words.
    """
    said, problems = "", list[Problem]()
    for spec in specs:
        if spec.plugin.function == JUDGE and hasattr(rows, "num_rows"):
            said, found = _read_golds_of(spec, recipe, rows, whole)
            problems += found
    return said, problems


def _read_golds_of(spec: RewardSpec, recipe: Recipe, rows: Any, whole: bool) -> tuple[str, list[Problem]]:
    from reasoning_ext.verifier import kind, unreadable

    marks = [[value in allowed for value in rows[column]] for column, allowed in spec.when.items()]
    golds = list(rows["answer"])
    chosen = [i for i in range(rows.num_rows) if all(mark[i] for mark in marks)]
    agrees = recipe.stage == "sample" and recipe.get("min_agreement") is not None
    if not whole or agrees:
        chosen = [i for i in chosen if has_gold(golds[i]) or recipe.stage == "eval"]
    if spec.when and not chosen:
        text = f"{spec.name}: no row has one of the values of when: {spec.when}"
        return "", [_found("error", text, code="when_without_rows")]
    read = [golds[i] for i in chosen]
    kinds: Counter[str] = Counter(map(kind, read))
    bad = unreadable(read)
    share, allowed = len(bad) / max(1, len(read)), recipe.get("max_unreadable_golds")
    first = "; ".join(f"row {chosen[i]}: {_shown(read[i])}, {reason}" for i, reason in bad[:3])
    said = f"{len(read)} read, {len(bad)} of them unreadable ({share:.2%})" + (f": {first}" if bad else "")
    named = {"number": "numbers", "formula": "formulas", "words": "words"}
    counts = ", ".join(f"{word} {kinds[name]}" for name, word in named.items() if kinds[name])
    said += f"; {counts}" if counts else ""
    problems = []
    if kinds["words"] > len(read) / 2:
        text = f"{kinds['words']} of the {len(read)} golds that {spec.name} judges are words, such as "
        text += _shown(next(gold for gold in read if kind(gold) == "words"))
        problems.append(_found("warning", text, "exact_answer is the reward for those", code="golds_are_words"))
    if share > allowed:
        key = "max_unreadable_golds" if "max_unreadable_golds" in recipe.values else "dataset_name"
        words = any(str(read[i]).strip().lower() in ("none", "null", "nan") for i, _ in bad)  # what a lost value leaves
        hint = "mend them, or allow it with max_unreadable_golds"
        hint += "; where that is the answer, exact_answer compares texts" if words else ""
        text = f"{len(bad)} of {len(read)} golds cannot be read ({first})"
        problems.append(Problem(code="unreadable_golds", key=key, found=text, hint=hint))
    return said, problems


def _shown(gold: Any) -> str:
    return repr("" if gold is None else str(gold)[:60])
