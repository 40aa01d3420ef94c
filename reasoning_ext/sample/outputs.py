"""What a sampling run hands on: rows for `stage: sft`, pairs for `stage: dpo`, rated prompts for `stage: grpo`, and the counts.

    sft.jsonl       the kept completions: the row's columns, `prompt` and `completion` as messages, those of tools too
    pairs.jsonl     `prompt`, `chosen` and `rejected` as messages, `kind` of pair, tokens and rewards of both sides
    prompts.jsonl   the row's columns, `pass_rate` (null where nothing could be judged; what was cut off counts as wrong), of
                    how many completions, `pass_rate_samples`, and in a word, `difficulty_band`
    summary.json    the counts

Three kinds of pairs, whose sides have both ended by themselves:

    right_wrong   a right completion against a wrong one of nearly the same length (iterative RPO, arXiv:2404.19733)
    short_long    a short right one against a long right one (long-to-short DPO, Kimi k1.5, arXiv:2501.12599)
    steps         right by steps that all hold against right by steps that do not: the paths are ranked, not the answers
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_ext.data.sources import KEPT_ROWS
from reasoning_ext.engines.base import with_observed
from reasoning_ext.engines.tools import counted_calls
from reasoning_ext.recipe.keys import STEP_CHECK
from reasoning_ext.runs.files import whole_file
from reasoning_ext.sample.selection import CUT_OFF, FAILED, FORCED, RIGHT, UNJUDGED, WRONG, Drawn, Rules
from reasoning_ext.sample.store import Samples

SOMETIMES = ("errors", "agreement", "forced", "tools")  # counts that are not written where they are 0
BINS = 10  # of the histogram of pass rates
QUANTILES = {"shortest": 0.0, "5%": 0.05, "50%": 0.5, "95%": 0.95, "longest": 1.0}
LONGER = 1.5  # a long right answer has so many times the tokens of the short one


@dataclass
class Summary:
    """The counts of a sampling run, in the order in which they are written."""

    sampled: int = 0  # completions, of which
    saved: int = 0  # fewer than a fixed number a prompt
    finished: int = 0
    cut_off: int = 0
    other_ends: int = 0  # by the model's own doing
    failed: int = 0  # by a server's
    unjudged: int = 0  # finished ones of which no reward could say whether they are right
    forced: int = 0  # right, but not accepted, because tokens were put there
    accepted: int = 0
    kept: int = 0
    pairs: Counter[str] = field(default_factory=Counter)  # by kind
    prompts: int = 0
    prompts_without_one: int = 0  # without an accepted completion
    difficulty: Counter[str] = field(default_factory=Counter)  # prompts by band
    pass_rates: list[int] = field(default_factory=lambda: [0] * BINS)  # judged prompts, in bins of equal width
    tokens_of_the_kept: dict[str, int] = field(default_factory=dict)  # by quantile
    errors: Counter[str] = field(default_factory=Counter)  # completions that are none, by kind
    agreement: bool = False  # prompts without a gold are judged by it
    tools: Counter[str] = field(default_factory=Counter)  # NAME/calls, NAME/errors, NAME/timeouts; of all completions

    def as_written(self) -> dict[str, Any]:
        """Return the counts by their names in `summary.json`; some stand there if there is something to say."""
        values = {one.name.replace("_", " "): getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value or name not in SOMETIMES}

    def add(self, drawn: list[Drawn], kept: list[Drawn], rate: float | None) -> None:
        """Count a prompt's completions."""
        states = Counter(one.state for one in drawn)
        other_ends = sum(one.state == CUT_OFF and bool(one.error) for one in drawn)
        self.sampled += len(drawn)
        self.finished += len(drawn) - states[CUT_OFF] - states[FAILED]
        self.cut_off += states[CUT_OFF] - other_ends
        self.other_ends += other_ends
        self.failed += states[FAILED]
        self.unjudged += states[UNJUDGED]
        self.forced += states[FORCED]
        self.accepted += states[RIGHT]
        self.kept += len(kept)
        self.prompts += 1
        self.prompts_without_one += not states[RIGHT]
        self.difficulty[band(rate)] += 1
        for one in drawn:
            self.tools.update(counted_calls(one.turns))
        self.errors.update(one.error for one in drawn if one.error)
        if rate is not None:
            self.pass_rates[min(BINS - 1, int(rate * BINS))] += 1


def write_outputs(
    folder: Path, samples: Samples, table: Sequence[dict[str, Any]], rules: Rules, pairs: dict[str, int]
) -> Summary:
    """Choose among all completions, prompt by prompt, and write the files; `pairs` says how many a prompt gives of each kind."""
    found = Summary(pairs=Counter(dict.fromkeys(pairs, 0)), agreement=rules.min_agreement is not None)
    lengths = array("q")
    with ExitStack() as stack:
        files = [stack.enter_context(whole_file(folder / KEPT_ROWS[stage])) for stage in ("sft", "dpo", "grpo")]
        for number, drawn in enumerate(samples.of_prompts()):
            row = table[number]
            rules.judge_together(drawn)
            right, wrong = ([one for one in drawn if one.state == state] for state in (RIGHT, WRONG))
            kept = rules.kept(right)
            solved = len(right) + sum(one.state == FORCED for one in drawn)
            tried = solved + len(wrong) + sum(one.state == CUT_OFF for one in drawn)
            rate = solved / tried if solved or wrong else None
            if not rules.keep_forced:
                wrong = [one for one in wrong if not one.forced]
            made = [pair for pair in make_pairs(kept, right, wrong, pairs) if pair[1].observed == pair[2].observed]
            found.add(drawn, kept, rate)
            found.pairs.update(kind for kind, _, _ in made)
            lengths.extend(one.tokens for one in kept)
            rated = {"pass_rate": rate, "pass_rate_samples": tried, "difficulty_band": band(rate)}
            files[0].writelines(_line({**row, "prompt": _prompt(row, one), "completion": one.messages}) for one in kept)
            files[1].writelines(_line(_pair(row, *pair)) for pair in made)
            files[2].write(_line({**row, **rated}))
    if lengths:
        shown = np.quantile(lengths, list(QUANTILES.values()), method="inverted_cdf").tolist()
        found.tokens_of_the_kept = dict(zip(QUANTILES, map(int, shown), strict=True))
    return found


def band(pass_rate: float | None) -> str:
    """Say in a word how hard a prompt is for the model that was sampled."""
    if pass_rate is None:
        return "not judged"
    if pass_rate in (0.0, 1.0):
        return "always solved" if pass_rate else "unsolved"
    return "hard" if pass_rate < 0.3 else "medium" if pass_rate < 0.7 else "easy"


def make_pairs(
    kept: list[Drawn], right: list[Drawn], wrong: list[Drawn], most: dict[str, int]
) -> Iterator[tuple[str, Drawn, Drawn]]:
    """Yield `(kind, chosen, rejected)` of one prompt's completions, at most so many of each kind, none twice within a kind.

    Kept are the accepted ones that selection has chosen, the best first; right all accepted ones.
    """
    right, wrong = _once(right), _once(wrong)
    made = {"right_wrong": _right_wrong(kept, right, wrong), "short_long": _short_long(right), "steps": _steps(right)}
    for kind, count in most.items():
        for _, (chosen, rejected) in zip(range(count), made[kind], strict=False):
            yield kind, chosen, rejected


def _once(drawn: list[Drawn]) -> list[Drawn]:
    return list({one.trace: one for one in reversed(drawn)}.values())[::-1]


def _right_wrong(kept: list[Drawn], right: list[Drawn], wrong: list[Drawn]) -> Iterator[tuple[Drawn, Drawn]]:
    texts = {one.trace for one in kept}
    for chosen in [*kept, *(one for one in right if one.trace not in texts)][: len(wrong)]:
        rejected = min(wrong, key=lambda one: (abs(one.tokens - chosen.tokens), one.sample))
        wrong.remove(rejected)
        yield chosen, rejected


def _short_long(right: list[Drawn]) -> Iterator[tuple[Drawn, Drawn]]:
    right = sorted(right, key=lambda one: (one.tokens, one.sample))
    for short, long in zip(right[: len(right) // 2], reversed(right), strict=False):
        if long.tokens < LONGER * short.tokens:
            return
        yield short, long


def _steps(right: list[Drawn]) -> Iterator[tuple[Drawn, Drawn]]:
    shares = {one.sample: share for one in right if (share := one.rewards.get(STEP_CHECK)) is not None}
    holding = [one for one in right if shares.get(one.sample) == 1.0]
    failing = [one for one in right if shares.get(one.sample, 1.0) < 1.0]
    yield from zip(holding, sorted(failing, key=lambda one: (shares[one.sample], one.sample)), strict=False)


def _pair(row: dict[str, Any], kind: str, chosen: Drawn, rejected: Drawn) -> dict[str, Any]:
    return {
        "prompt": _prompt(row, chosen),
        "chosen": chosen.messages,
        "rejected": rejected.messages,
        "answer": row.get("answer"),
        "kind": kind,
        "chosen_tokens": chosen.tokens,
        "rejected_tokens": rejected.tokens,
        "chosen_reward": chosen.total,
        "rejected_reward": rejected.total,
    }


def _prompt(row: dict[str, Any], one: Drawn) -> list[dict[str, Any]]:
    return with_observed(row["prompt"], one.observed) if one.observed else row["prompt"]


def _line(row: dict[str, Any]) -> str:
    """Write a row as a line; what JSON does not know, such as a date, becomes text, and what is no number becomes null."""
    known = json.loads(json.dumps(row, default=str), parse_constant=lambda name: None)
    return json.dumps(known, ensure_ascii=False) + "\n"
