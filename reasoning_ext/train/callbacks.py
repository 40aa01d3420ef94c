"""What a trainer of TRL's is watched with: metrics on disk, checkpoints marked complete, readable progress."""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import timedelta
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState

from reasoning_ext.models.watching import EVERY
from reasoning_ext.runs.checkpoints import mark_complete, rotate, step_of
from reasoning_ext.runs.files import append_lines, read_object, rows_until, write_whole
from reasoning_ext.runs.folder import METRICS, RunDir
from reasoning_ext.runs.health_signs import CUT_OFF, FLAT
from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.shown import print
from reasoning_ext.train.health import HealthWatch

SHOWN = (
    "loss", "mean_token_accuracy", "reward", "rewards/accuracies", "rewards/margins", "completions/mean_length",
    CUT_OFF, FLAT, "kl", "eval_loss", "learning_rate",
)  # fmt: skip
COUNT, TOKENS = "_total_train_tokens", "num_tokens.json"  # TRL's count in SFT and DPO, and where a checkpoint has it


class AlreadyTrained(Exception):
    """Training begins at a checkpoint that is its end; the trainer would train one step too many."""


class RunRecorder(TrainerCallback):
    """Write logs to `metrics.jsonl`, mark complete checkpoints, and print a line a log where there is no terminal.

    TRL's count of tokens goes into each checkpoint, since it would begin anew in each process. It is the last of the
    callbacks, so that nothing broken is saved, whoever asks for it.
    """

    def __init__(self, run: RunDir, stage: str, trainer: Any, interrupt: Interrupt, watch: HealthWatch):
        self.path, self.stage, self.trainer, self.interrupt, self.watch = run.path, stage, trainer, interrupt, watch
        self.resumed_step, self.started = step_of(run.checkpoint) if run.checkpoint else 0, time.monotonic()
        self.counted = (self.started, math.inf if run.checkpoint else 0.0)  # when, and how many tokens by then
        self.said, self.batches = self.started, 0  # when there was a line, and batches of the step that are done
        self.measured, self.every = (
            list[float](),
            1,
        )  # seconds of measurements, which are no training; steps between two
        if run.checkpoint and hasattr(trainer, COUNT):
            setattr(trainer, COUNT, read_object(run.checkpoint / TOKENS).get("num_tokens", 0))

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Drop the lines of steps that will be done again, and take over the removing of checkpoints."""
        self.limit, args.save_total_limit = args.save_total_limit, None  # TRL would remove before the new one is whole
        if state.is_world_process_zero:
            rows_until(self.path / METRICS, self.resumed_step, drop=True)
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Append a log, and print it where no progress bar does, with the pace and the time left at this process's mean one."""
        if not state.is_world_process_zero or not logs:
            return
        now = time.monotonic()
        seconds = now - self.started
        append_lines(self.path / METRICS, [{"step": state.global_step, "seconds": round(seconds, 2), **logs}])
        if spent := logs.get("held_out/seconds"):
            self.measured, self.every = (
                [*self.measured, spent],
                state.eval_steps if args.eval_steps else state.max_steps,
            )
            self.counted = (self.counted[0] + spent, self.counted[1])
        shown = [f"{key} {float(logs[key]):.4g}" for key in SHOWN if logs.get(key) is not None]
        if shown and not sys.stdout.isatty():
            if tokens := logs.get("num_tokens"):
                then, before = self.counted
                self.counted = (self.started + seconds, tokens)
                shown += (
                    [f"{(tokens - before) / (self.started + seconds - then):.0f} tokens/s"] if tokens > before else []
                )
            self._say(state, shown, now)

    def _say(self, state: TrainerState, shown: list[str], now: float) -> None:
        """Print a line with the step and the time left at this process's mean pace, measurements counted apart."""
        self.said = now
        done, left = state.global_step - self.resumed_step, state.max_steps - state.global_step
        if done > 0 and left > 0:
            spent = sum(self.measured)
            seconds = (now - self.started - spent) / done * left
            seconds += math.ceil(left / self.every) * spent / max(1, len(self.measured))
            shown = [*shown, f"{timedelta(seconds=round(seconds))} left"]
        print(f"{self.stage}  step {state.global_step}/{state.max_steps}  {'  '.join(shown)}", flush=True)

    def _say_now_and_then(self, state: TrainerState, shown: list[str]) -> None:
        """Print a line where steps are slow, and there was none for a while."""
        now = time.monotonic()
        if state.is_world_process_zero and not sys.stdout.isatty() and now - self.said >= EVERY:
            self._say(state, shown, now)

    def on_substep_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Count a batch of a step that takes several."""
        self.batches += 1
        self._say_now_and_then(state, [f"and batch {self.batches}/{args.gradient_accumulation_steps} of the next"])

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint that all processes have written as complete; only then older ones go."""
        PartialState().wait_for_everyone()
        checkpoint = self.path / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and checkpoint.is_dir():
            write_whole(checkpoint / TOKENS, json.dumps({"num_tokens": getattr(self.trainer, COUNT, 0)}))
            mark_complete(checkpoint)
            rotate(self.path, self.limit, state.best_model_checkpoint)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Save and stop when the user has asked for it, all processes at the same step."""
        self.batches = 0
        if not control.should_log:
            self._say_now_and_then(state, [])
        asked = self.interrupt.requested
        if PartialState().num_processes > 1:
            asked = any(gather_object([asked]))
        if asked:
            self.interrupt.requested = True
            control.should_save = control.should_training_stop = True
        return self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Save no broken weights."""
        control.should_save = control.should_save and not self.watch.broken
        return control


class WeightSchedule(TrainerCallback):
    """Set a GRPO trainer's `reward_weights` (one a reward) before each step, where the recipe gives them a schedule."""

    def __init__(self, trainer: Any, specs: list[RewardSpec]):
        self.trainer, self.specs = trainer, specs

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Look the weights up at this step, so that a run that goes on has the right ones."""
        for i, spec in enumerate(self.specs):
            if spec.schedule:
                self.trainer.reward_weights[i] = spec.weight_at(state.global_step)
