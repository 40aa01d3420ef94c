"""What a sampling run hands on: rows for `stage: sft`, pairs for `stage: dpo`, rated prompts for `stage: grpo`, and the counts.

Everything is made prompt by prompt from the file of completions, so that the memory does not grow with their number, and
written whole or not at all.

    sft.jsonl       the kept completions: the row's columns, `prompt` and `completion` as messages
    pairs.jsonl     `prompt`, `chosen` and `rejected` as messages, `kind` of pair, tokens and rewards of both sides
    prompts.jsonl   the row's columns, `pass_rate` (null where nothing could be judged; what was cut off counts as wrong), of
                    how many completions, `pass_rate_samples`, and in a word, `difficulty_band`
    summary.json    the counts
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from reasoning_ext.files import whole_file, write_whole
from reasoning_ext.rows import has_gold
from reasoning_ext.sampling.pairs import Solved, make_pairs
from reasoning_ext.sampling.selection import Rules, agreeing
from reasoning_ext.sampling.store import CUT_OFF, RIGHT, STATES, UNJUDGED, WRONG, Samples
from reasoning_ext.sources import KEPT_ROWS

SUMMARY = "summary.json"
BINS = 10  # of the histogram of pass rates
LENGTHS = (0.05, 0.5, 0.95)


@dataclass
class Counts:
    """What came of a sampling run.

    Attributes:
        states: completions by what they came to.
        errors: those without a completion by kind, the model's own doing (`empty`) among them.
        pairs: pairs by kind.
        bands: prompts by difficulty.
        histogram: judged prompts by pass rate, `BINS` bins of equal width, the last one with 1.0.
        accepted, kept, without: completions accepted and kept, prompts without an accepted one.
        lengths: tokens of the kept completions.
    """

    states: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    bands: Counter[str] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    accepted: int = 0
    kept: int = 0
    without: int = 0
    lengths: Counter[int] = field(default_factory=Counter)

    def summary(self, prompts: int, fixed: int, agreement: bool) -> dict[str, Any]:
        """Return the counts as they are printed and written.

        Args:
            prompts: P.
            fixed: completions that a fixed number a prompt would have drawn.
            agreement: whether prompts without a gold are judged by agreement.
        """
        sampled = sum(self.states.values())
        found = {
            "sampled": sampled,
            "saved": max(0, fixed - sampled),  # a run whose rules have changed may have drawn more
            "finished": sampled - sum(self.states[name] for name in ("cut off", "other ends", "failed")),
            **{name: self.states[name] for name in ("cut off", "other ends", "failed", "unjudged")},
            "accepted": self.accepted,
            "kept": self.kept,
            "pairs": dict(self.pairs),
            "prompts": prompts,
            "prompts without one": self.without,
            "difficulty": dict(self.bands),
            "pass rates": self.histogram,
            "tokens of the kept": _quantiles(self.lengths),
        }
        return (
            found | ({"errors": dict(self.errors)} if self.errors else {}) | ({"agreement": True} if agreement else {})
        )


def write_outputs(
    folder: Path, samples: Samples, table: Sequence[dict[str, Any]], rules: Rules, pairs: dict[str, int]
) -> Counts:
    """Choose among all completions and write `sft.jsonl`, `pairs.jsonl` and `prompts.jsonl`.

    Args:
        folder: the run's folder.
        samples: all completions.
        table: the data set's rows, P of them.
        rules: what is accepted and kept.
        pairs: how many pairs of each kind a prompt gives at most.

    Raises:
        DiskError: the disk is full.
    """
    counts = Counts(pairs=Counter(dict.fromkeys(pairs, 0)))  # a kind that gives none is said too
    with ExitStack() as stack:
        files = {stage: stack.enter_context(whole_file(folder / KEPT_ROWS[stage])) for stage in ("sft", "dpo", "grpo")}
        following = 0
        for prompt, rows in _judged_prompts(samples, rules):
            for number in range(following, prompt):
                _write_prompt(files, counts, table[number], [], rules, pairs)
            _write_prompt(files, counts, table[prompt], rows, rules, pairs)
            following = prompt + 1
        for number in range(following, len(table)):
            _write_prompt(files, counts, table[number], [], rules, pairs)
    return counts


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write the counts."""
    write_whole(folder / SUMMARY, json.dumps(summary, indent=1))


def _judged_prompts(samples: Samples, rules: Rules) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each prompt that has completions, and those, with their `state` and `total`."""
    totals = samples.column("total")
    for prompt, lines in samples.of_prompts():
        rows = samples.read(lines)
        for line, row in zip(lines, rows, strict=True):
            row["state"] = int(samples.states_PS[prompt, row["sample_index"]])
            row["total"] = float(totals[line])
        if rules.min_agreement is not None:
            judge_by_agreement(rows, rules.min_agreement)
        yield prompt, rows


def judge_by_agreement(rows: list[dict[str, Any]], min_agreement: float) -> None:
    """Judge the completions of a prompt without a gold by its commonest answer, in place."""
    finished = [row for row in rows if row["state"] == UNJUDGED]
    if not finished or has_gold(rows[0].get("answer")):
        return
    agree = agreeing([row["completion"] for row in finished], min_agreement)
    for row, one in zip(finished, agree, strict=True):
        row["state"] = RIGHT if one else WRONG if any(agree) else UNJUDGED


def _write_prompt(
    files: dict[str, IO[str]], counts: Counts, row: dict[str, Any], drawn: list[dict[str, Any]], rules: Rules,
    pairs: dict[str, int],
) -> None:  # fmt: skip
    right = [one for one in drawn if one["state"] == RIGHT]
    wrong = [one for one in drawn if one["state"] == WRONG]
    kept = [right[i] for i in rules.kept(right)]
    for one in drawn:
        other_end = one["state"] == CUT_OFF and one.get("error")  # empty, refused, stopped by a filter, a tool call
        counts.states["other ends" if other_end else STATES[one["state"]]] += 1
        if one.get("error"):
            counts.errors[one["error"]] += 1
    counts.accepted += len(right)
    counts.kept += len(kept)
    counts.without += not right
    counts.lengths.update(one["tokens"] for one in kept)
    for one in kept:
        _write(files["sft"], {**row, "completion": _message(one)})
    for kind, chosen, rejected in make_pairs(Solved(kept, right, wrong), pairs):
        counts.pairs[kind] += 1
        _write(files["dpo"], _pair(row, kind, chosen, rejected))
    tried = len(right) + len(wrong) + sum(one["state"] == CUT_OFF for one in drawn)
    judged = bool(right or wrong)
    rate = len(right) / tried if judged else None
    counts.bands[band(rate)] += 1
    if rate is not None:
        counts.histogram[min(BINS - 1, int(rate * BINS))] += 1
    rated = {"pass_rate": rate, "pass_rate_samples": tried, "difficulty_band": band(rate)}
    _write(files["grpo"], {**row, **rated})


def band(pass_rate: float | None) -> str:
    """Say in a word how hard a prompt is for the model that was sampled.

    >>> [band(rate) for rate in (None, 0.0, 0.2, 0.5, 0.9, 1.0)]
    ['not judged', 'unsolved', 'hard', 'medium', 'easy', 'always solved']
    """
    if pass_rate is None:
        return "not judged"
    if pass_rate in (0.0, 1.0):
        return "always solved" if pass_rate else "unsolved"
    return "hard" if pass_rate < 0.3 else "medium" if pass_rate < 0.7 else "easy"


def _pair(row: dict[str, Any], kind: str, chosen: dict[str, Any], rejected: dict[str, Any]) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    return {
        "prompt": row["prompt"],
        **{side: _message(one) for side, one in sides.items()},
        "answer": row.get("answer"),
        "kind": kind,
        **{f"{side}_tokens": one["tokens"] for side, one in sides.items()},
        **{f"{side}_reward": one["total"] for side, one in sides.items()},
    }


def _message(one: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": one["completion"]}]


def _write(file: IO[str], row: dict[str, Any]) -> None:
    """Write a row as a line; what JSON does not know, such as a date, becomes text, and what is no number becomes null."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(
            json.loads(json.dumps(row, default=str), parse_constant=lambda name: None), ensure_ascii=False
        )
    file.write(text + "\n")


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the shortest and the longest length, and some between."""
    if not lengths:
        return {}
    ordered, total = sorted(lengths), sum(lengths.values())
    found = {}
    for share in LENGTHS:
        seen = 0
        for length in ordered:
            seen += lengths[length]
            if seen >= share * total:
                found[f"{share:.0%}"] = length
                break
    return {"shortest": ordered[0], **found, "longest": ordered[-1]}
