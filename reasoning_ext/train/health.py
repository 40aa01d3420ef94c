"""The health rules while a training goes on: a line that begins with `health`, once, when one starts to hold.

Most completions cut off (trl#5697) and NaN end a training where nothing says that it will mend itself. What has been
saved before is kept, and weights that are no numbers are never saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from reasoning_ext.errors import KeyProblem
from reasoning_ext.runs import health_signs as signs
from reasoning_ext.runs.checkpoints import last_checkpoint
from reasoning_ext.runs.folder import RunDir, say
from reasoning_ext.runs.health import Alarm, alarms, thresholds
from reasoning_ext.runs.past import Past, Row

# rules that end a training: the key to blame, and when they do
ENDING = {"cut_off": ("max_completion_length", signs.stays_cut_off), "nan": ("learning_rate", signs.stays_nan)}


class HealthError(KeyProblem):
    """A training was ended since it could not become better."""

    code = "unhealthy"


class HealthWatch(TrainerCallback):
    """Evaluate the rules of a recipe's stage at every log; `recipe` are its values.

    `alarms` are those of this process, in the order in which they were said.
    """

    def __init__(self, trainer: Any, run: RunDir, recipe: Mapping[str, Any]):
        self.trainer, self.run, self.recipe, self.rules = trainer, run, recipe, thresholds(recipe)
        self.watches_weights = any(rule.name == "nan" for rule in self.rules)
        self.alarms, self.own, self.ended = list[Alarm](), list[Row](), list[Alarm]()
        self.broken = False

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Take what holds at a checkpoint as said."""
        self.begun = state.global_step
        self.said = {alarm.rule.name for alarm in alarms(state.log_history, self.recipe)}

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say what starts to hold, and stop where that must be; what was so up to a checkpoint alone is no reason."""
        self.own.append(state.log_history[-1])
        now, own = Past(state.log_history, len(state.log_history)), Past(self.own, len(self.own), self.begun)
        for rule, threshold in self.rules.items():
            if rule.name not in self.said and (value := rule.holds(now, threshold)) is not None:
                self.said.add(rule.name)
                self.alarms.append(Alarm(rule, state.global_step, value, threshold))
                say(f"health  {self.alarms[-1].text}")
        goes_on = not now.over and (self.broken or state.global_step < state.max_steps)
        for rule, threshold in self.rules.items() if goes_on and not self.ended else ():
            if rule.name in ENDING and (value := ENDING[rule.name][1](own, threshold)) is not None:
                self.ended.append(Alarm(rule, state.global_step, value, threshold))
                control.should_training_stop = True

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look whether the weights are numbers still, since a model without them cannot even answer."""
        if self.watches_weights and not self.broken and not _all_finite(self.trainer.model):
            self.broken = True
            log_beside(self.trainer, {signs.BROKEN: 1.0})

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """End a training that was stopped, before anything is made of its model."""
        for alarm in self.ended:
            name, kept = alarm.rule.name, last_checkpoint(self.run.path)
            found = f"stopped at step {alarm.step:g} by the health rule {name}: {alarm.rule.meaning}"
            hint = f"{kept.name if kept else 'no checkpoint'} is kept; health: {{{name}: off}} goes on"
            raise HealthError(ENDING[name][0], found, hint=hint)


def log_beside(trainer: Any, values: dict[str, float]) -> None:
    """Log values beside a trainer's own logs, which stay due.

    TRL's own method would take along the metrics of its training, and write its completions.
    """
    wanted = trainer.control.should_log
    Trainer.log(trainer, values)
    trainer.control.should_log = wanted


def _all_finite(model: torch.nn.Module) -> bool:
    """Tell whether all that is trained is finite, in every process."""
    trained = [p.detach() for p in model.parameters() if p.requires_grad]
    local = [p.to_local() if hasattr(p, "to_local") else p for p in trained]
    finite = bool(torch.nn.utils.get_total_norm(local).isfinite()) or all(bool(p.isfinite().all()) for p in local)
    return finite if PartialState().num_processes == 1 else all(gather_object([finite]))
