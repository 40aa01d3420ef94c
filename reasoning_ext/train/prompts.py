"""How often each prompt of a GRPO training was solved, as it goes on, and which prompts come next by that.

    pass_rates.jsonl   a line a draw: {"step", "prompts": digests of problems, "pass_rates", "samples", "position"}

A problem is known by a digest of its text, as in `problems.txt`. What comes next is a function of rows, seed and that
file alone, asked for when completions are drawn and not when a data loader fetches ahead: a run that goes on draws what
it would have drawn.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Collection
from statistics import fmean
from typing import Any

from accelerate.utils import gather_object

from reasoning_ext.data.held_out import digests_of
from reasoning_ext.data.rows import PASS_RATE
from reasoning_ext.recipe.records import SkipKnown
from reasoning_ext.runs.checkpoints import step_of
from reasoning_ext.runs.files import append_lines, rows_until, whole_file
from reasoning_ext.runs.folder import RunDir, is_main
from reasoning_ext.train.observe import observe

PASS_RATES, RATED = "pass_rates.jsonl", "prompts.jsonl"


class PassRates:
    """The share of right completions that each problem had when it was drawn last, by one of a GRPO trainer's rewards.

    `decides` is that reward's place. A run that goes on has the lines up to its checkpoint.
    """

    def __init__(self, trainer: Any, run: RunDir, decides: int):
        self.trainer, self.decides, self.file = trainer, decides, run.path / PASS_RATES
        self.last: dict[str, tuple[float, int, int]] = {}  # problem: pass rate, of how many, drawn for which step
        self.position = 0  # of `Prompts` in its rows
        for row in rows_until(self.file, step_of(run.checkpoint) if run.checkpoint else 0, drop=is_main()):
            self._take_in(row)
        observe(trainer, self._scored)

    @property
    def step(self) -> int:
        """The step that completions are drawn for now, as logs will count it."""
        return self.trainer.state.global_step + 1

    def _scored(self, inputs: list[dict], prompts: list, completions: list, completion_ids: list, rewards: Any) -> None:
        """Note how many of each problem's completions are right, in all processes."""
        if not self.trainer.model.training:
            return
        judged = zip(digests_of(row["prompt"] for row in inputs), rewards[:, self.decides].tolist(), strict=True)
        rights: dict[str, list[bool]] = {}
        for problem, value in gather_object(list(judged)):
            rights.setdefault(problem, []).extend([] if math.isnan(value) else [value > 0.5])
        rates = [fmean(of) if of else None for of in rights.values()]
        counts = [len(of) for of in rights.values()]
        row = {"step": self.step, "prompts": [*rights], "pass_rates": rates, "samples": counts}
        self._take_in(row | {"position": self.position})
        if is_main():
            append_lines(self.file, [row | {"position": self.position}])

    def _take_in(self, row: dict[str, Any]) -> None:
        self.position = row["position"]
        for problem, rate, count in zip(row["prompts"], row["pass_rates"], row["samples"], strict=True):
            if rate is not None:
                self.last[problem] = rate, count, row["step"]

    def write_prompts(self) -> None:
        """Write the rows that were drawn with their last pass rates, as a sample stage does, for `difficulty`."""
        if not is_main() or not hasattr(self.trainer.train_dataset, "num_rows"):
            return
        rows = self.trainer.train_dataset
        with whole_file(self.file.with_name(RATED)) as file:
            for written, row in zip(rows, rows.with_format(None), strict=True):
                if known := self.last.get(digests_of([written["prompt"]])[0]):
                    rated = row | {PASS_RATE: known[0], f"{PASS_RATE}_samples": known[1]}
                    file.write(json.dumps(rated, ensure_ascii=False, default=str) + "\n")


class Prompts:
    """The rows of a GRPO trainer, in the order in which TRL's sampler goes through them, without those at rest.

    It is one stream for the whole training, the same in all processes: behind the rows of an epoch come the next one's.
    """

    def __init__(self, trainer: Any, rates: PassRates, skip: SkipKnown | None):
        from trl.trainer.utils import RepeatSampler

        self.rows, self.rates, self.skip = trainer.train_dataset, rates, skip
        self.sampler = RepeatSampler(self.rows, 1, shuffle=trainer.shuffle_dataset, seed=trainer.args.seed)
        self.passes: dict[int, list[int]] = {}  # of the sampler: the last two that were asked for
        self.problems: dict[int, str] = {}

    def take(self, count: int, without: Collection[int] = (), awake: bool = False) -> list[int]:
        """Return the numbers of so many different rows, none of them in `without`; fewer where there are no more.

        Where too few are awake, those that have rested longest come first, or with `awake` none of them.
        """
        start, size, taken, without = self.rates.position, len(self.rows), dict[int, None](), {*without}
        for position in range(start, (start // size + 2) * size):  # the rest of a pass and the next one: all rows
            if len(taken) == count:
                break
            row = self._row(position)
            if row not in without and row not in taken and not self.rests(self._problem(row)):
                taken[row] = None
                self.rates.position = position + 1
        resting = (row for row in range(size) if row not in without and row not in taken)
        missing = 0 if awake else count - len(taken)
        return [*taken, *(heapq.nsmallest(missing, resting, key=self._since) if missing else ())]

    def rests(self, problem: str) -> bool:
        """Tell whether a problem was solved or hopeless when it was drawn last, not long ago."""
        if self.skip is None or problem not in self.rates.last:
            return False
        (rate, _, step), above, below = self.rates.last[problem], self.skip.above, self.skip.below
        known = (above is not None and rate >= above) or (below is not None and rate <= below)
        return known and self.rates.step - step < self.skip.retry_after

    @property
    def resting(self) -> float:
        """The share of the rows that rest."""
        return min(1.0, sum(map(self.rests, self.rates.last)) / len(self.rows))

    def _row(self, position: int) -> int:
        number, place = divmod(position, len(self.rows))
        while (last := max(self.passes, default=-1)) < number:  # the sampler's generator goes on from pass to pass
            self.passes = {last: self.passes.get(last, []), last + 1: list(self.sampler)}
        return self.passes[number][place]

    def _problem(self, row: int) -> str:
        if row not in self.problems:
            [self.problems[row]] = digests_of([self.rows[row]["prompt"]])
        return self.problems[row]

    def _since(self, row: int) -> int:
        known = self.rates.last.get(self._problem(row))
        return known[2] if known else 0
