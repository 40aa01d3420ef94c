"""What a GRPO trainer generates for: prompts that are awake, further ones in the place of groups without a difference.

A group whose completions all earn the same teaches nothing. DAPO (arXiv:2503.14476, dynamic sampling) draws further
prompts until the batch is full of others; so does this, for some rounds. It stands around the trainer's
`_generate_and_score_completions`, which is given rows and returns tensors, before TRL shuffles and splits them for its
steps: TRL's `rollout_func` cannot do it, since what is scored and logged stays the prompts that it was given. What TRL
logs of a step is of its first draw, the prompts as they come; the table of completions holds all draws.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from reasoning_ext.recipe.records import SkipKnown, refill_rounds
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.scoring.spec import RewardSpec, deciding
from reasoning_ext.train.observe import observe
from reasoning_ext.train.prompts import PassRates, Prompts

ROUND = "refill_round"  # a column of the table of completions
LEFT = ("prompt_ids", "prompt_mask")  # what is padded there; all else is at its right
FILLS = {"tool_mask": 1, "importance_sampling_ratio": 1}  # what TRL pads with, where that is not 0
Batch = dict[str, Any]


def draw_with(
    trainer: Any, run: RunDir, specs: list[RewardSpec], skip: dict[str, Any] | None, refill: bool | dict[str, Any]
) -> PassRates:
    """Let a GRPO trainer draw as `skip_known` and `refill` say, without them as TRL does; return live pass rates."""
    rates = PassRates(trainer, run, deciding(specs))
    rounds = refill_rounds(refill)
    if rounds or skip is not None:
        Rollouts(trainer, Prompts(trainer, rates, None if skip is None else SkipKnown(**skip)), rounds)
    return rates


class Rollouts:
    """Draws in a GRPO trainer's place; groups without a difference are drawn anew `rounds` times at most."""

    def __init__(self, trainer: Any, prompts: Prompts, rounds: int):
        self.trainer, self.prompts, self.rounds = trainer, prompts, rounds
        self.each, self.processes = trainer.num_generations, trainer.accelerator.num_processes
        self.generate = trainer._generate_and_score_completions
        self.rewards: torch.Tensor | None = None  # of this process's completions that were drawn last
        observe(trainer, self._scored)
        trainer._generate_and_score_completions = self

    def __call__(self, inputs: list[dict[str, Any]]) -> Batch:
        """Return a batch as TRL does, of prompts that are awake, whatever rows a data loader has fetched."""
        if not self.trainer.model.training:
            return self._drawn(inputs, 0)
        self._empty_tables()
        rows = self.prompts.take(len(inputs) * self.processes // self.each)
        batch, differs = self._draw(rows, 0)
        metrics = self.trainer._metrics["train"]
        logged = {name: len(values) for name, values in metrics.items()}
        rounds = 0
        while rounds < self.rounds and (more := self._further(differs, rows)):
            rounds, rows = rounds + 1, rows + more
            batch = self._filled(batch, differs, *self._draw(more, rounds))
        for name in [*metrics]:  # what is logged is of the first draw
            del metrics[name][logged.get(name, 0) :]
            if not metrics[name]:
                del metrics[name]
        if rounds:
            batch["num_items_in_batch"] = self._items(batch)
        self._log(len(rows) * self.each, rounds, differs.float().mean().item())
        return batch

    def _scored(self, inputs: list, prompts: list, completions: list, completion_ids: list, rewards: Any) -> None:
        self.rewards = rewards

    def _draw(self, rows: list[int], number: int) -> tuple[Batch, torch.Tensor]:
        """Generate for rows, this process for its part; return the batch, and which of all groups have a difference."""
        accelerator, size = self.trainer.accelerator, len(rows) * self.each // self.processes
        first = accelerator.process_index * size
        mine = [row for row in rows for _ in range(self.each)][first : first + size]
        batch = self._drawn([self.prompts.rows[row] for row in mine], number)
        return batch, differing(accelerator.gather(self.rewards), self.trainer.reward_weights, self.each)

    def _drawn(self, inputs: list[dict[str, Any]], number: int) -> Batch:
        if self.rounds:
            self.trainer._log_completion_extra(ROUND, [number] * len(inputs))
        return self.generate(inputs)

    def _further(self, differs: torch.Tensor, rows: list[int]) -> list[int]:
        """Return awake rows that were not drawn yet, as many for each process as that with most free places takes."""
        free = int((~differs).view(self.processes, -1).sum(1).max())
        more = self.prompts.take(free * self.processes, rows, awake=True) if free else []
        return more[: len(more) // self.processes * self.processes]

    def _filled(self, batch: Batch, differs: torch.Tensor, more: Batch, found: torch.Tensor) -> Batch:
        """Put this process's new groups with a difference in the places of those without one; mark those of all."""
        rows = dict[int, int]()
        for process, (mine, new) in enumerate(
            zip(*(of.view(self.processes, -1) for of in (differs, found)), strict=True)
        ):
            places, groups = (~mine).nonzero().flatten().tolist(), new.nonzero().flatten().tolist()
            for place, group in zip(places, groups, strict=False):
                mine[place] = True
                if process == self.trainer.accelerator.process_index:
                    rows |= {place * self.each + i: group * self.each + i for i in range(self.each)}
        return merged(batch, more, rows, self.trainer._tokenizer.pad_token_id)

    def _items(self, batch: Batch) -> torch.Tensor:
        """Count the tokens of a batch that are trained on, in all processes, as TRL does."""
        mask = batch["completion_mask"] * batch.get("tool_mask", 1)
        return self.trainer.accelerator.gather(mask.sum()).sum()

    def _empty_tables(self) -> None:
        """Make room for all draws of a step in TRL's tables, which hold the completions of one draw."""
        new: Callable[[], deque] = partial(deque, maxlen=(1 + self.rounds) * self.trainer.args.generation_batch_size)
        logs = self.trainer._logs
        self.trainer._logs = {name: defaultdict(new) if isinstance(of, dict) else new() for name, of in logs.items()}

    def _log(self, drawn: int, rounds: int, with_signal: float) -> None:
        figures = {"drawn": drawn, "rounds": rounds, "with_signal": with_signal}
        figures |= {} if self.prompts.skip is None else {"resting": self.prompts.resting}
        for name, value in figures.items():
            self.trainer._metrics["train"][f"rollouts/{name}"].append(float(value))


def differing(rewards: Any, weights: torch.Tensor, each: int) -> torch.Tensor:
    """Tell of which groups of `each` completions the weighted rewards (N, rewards) differ; NaN is no reward."""
    totals = (rewards * weights.to(rewards.device)).nansum(1).view(-1, each)
    unscored = rewards.isnan().all(1).view(-1, each)
    highest, lowest = (totals.masked_fill(unscored, end).T for end in (-torch.inf, torch.inf))
    return highest.amax(0) > lowest.amin(0)


def merged(batch: Batch, more: Batch, rows: dict[int, int], pad_id: int) -> Batch:
    """Return a batch of TRL's with some of its rows replaced, `{row: its row in more}`, padded to the longest.

    What is one number for all rows stays as it is in `batch`.
    """
    from trl.trainer.utils import pad

    fills = {"prompt_ids": pad_id, "completion_ids": pad_id, **FILLS}
    made = dict(batch)
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim:
            kept = [more[name][rows[i]] if i in rows else row for i, row in enumerate(value)]
            side = "left" if name in LEFT else "right"
            made[name] = pad(kept, fills.get(name, 0), side) if value.ndim > 1 else torch.stack(kept)
    return made
