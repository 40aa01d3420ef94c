"""Some completions of each logged step, looked at in ways that are not trained on.

    audit: [exact_answer, ./mine.py]

Each audit is a reward as in `reward_funcs`, with the same options, copies, time-outs and isolation. Its mean is the
metric `audit/NAME/mean`, and the reward that is trained on (the weighted sum) minus it, over the same completions,
`audit/NAME/gap`. What it fails at is `audit/NAME/errors`, said once, and never the end of a training. Without any audit
`completions/thinks`, the share with one thought and an answer, and `completions/repetition` are measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from reasoning_ext.data.filters import repetition
from reasoning_ext.errors import one_line
from reasoning_ext.scoring.call import Reward, RewardError, build_rewards, call_reward, decode_with
from reasoning_ext.scoring.inputs import Once
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.shown import print, without_secrets
from reasoning_ext.think import as_one, well_formed
from reasoning_ext.think.template import Decoder
from reasoning_ext.train.observe import observe

MOST = 32  # completions a process and log
OWN_COLUMNS = ("prompt", "completion", "completion_ids")


class Audit(TrainerCallback):
    """Audits of a trainer: at the first generation behind each log a sample is measured."""

    def __init__(self, trainer: Any, specs: list[RewardSpec], decoder: Decoder):
        self.trainer, self.due, self.told = trainer, True, set[str]()
        self.audits, self.whole = build_rewards(specs, tolerated=0), Once(decoder)
        decode_with(self.audits, decoder)
        observe(trainer, self.see)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look again."""
        self.due = True

    def see(self, inputs: list[dict[str, Any]], prompts: list, completions: list, ids: list, rewards: Any) -> None:
        """Measure the completions of a generation, see `observe`."""
        if not (self.due and self.trainer.model.training):
            return
        self.due = False
        rows = [i * len(prompts) // MOST for i in range(MOST)] if len(prompts) > MOST else range(len(prompts))
        picked, its_ids = [completions[i] for i in rows], [ids[i] for i in rows]
        texts = [as_one(completion) for completion in self.whole(picked, its_ids)]
        self._log("completions/thinks", map(well_formed, texts))
        self._log("completions/repetition", map(repetition, texts))
        columns = {name: [inputs[i][name] for i in rows] for name in inputs[0] if name not in OWN_COLUMNS}
        weighted = rewards[list(rows)] * self.trainer.reward_weights.to(rewards.device)
        totals = weighted.nansum(dim=1).masked_fill(weighted.isnan().all(dim=1), float("nan")).tolist()
        given = columns | {"prompts": [prompts[i] for i in rows], "completions": picked, "completion_ids": its_ids}
        if (objects := getattr(self.trainer, "environments", None)) is not None:
            given["environments"] = [objects[i] for i in rows]
        for audit in self.audits:
            self._score(audit, given, totals)

    def _score(self, audit: Reward, given: dict[str, Any], totals: list[float]) -> None:
        name = audit.__name__
        try:
            values = call_reward(audit, trainer_state=self.trainer.state, **given)
        except RewardError as error:
            self.trainer._log_metric(f"audit/{name}/errors", float(len(totals)))
            if name not in self.told:
                said = without_secrets(one_line(error.__cause__ or error))
                print(f"audit {name}: fails, which is counted, and the training goes on: {said}", file=sys.stderr)
            self.told.add(name)
            return
        found = [(value, total) for value, total in zip(values, totals, strict=True) if value is not None]
        self._log(f"audit/{name}/mean", (value for value, _ in found))
        self._log(f"audit/{name}/gap", (total - value for value, total in found if total == total))

    def _log(self, name: str, values: Iterable[float]) -> None:
        if numbers := list(values):
            self.trainer._log_metric(name, fmean(numbers))
