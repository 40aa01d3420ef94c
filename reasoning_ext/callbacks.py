"""What a trainer of TRL's is watched with: metrics on disk, checkpoints marked complete, readable progress."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from reasoning_ext.files import append_lines, write_whole
from reasoning_ext.interrupt import Interrupt
from reasoning_ext.reward_loading import RewardSpec
from reasoning_ext.run_dir import COMPLETE, METRICS
from reasoning_ext.shown import print

SHOWN = {
    "loss": "loss", "mean_token_accuracy": "token accuracy", "reward": "reward", "rewards/accuracies": "accuracy",
    "rewards/margins": "margin", "completions/mean_length": "length",
    "completions/clipped_ratio": "clipped", "frac_reward_zero_std": "no variance", "kl": "kl", "eval_loss": "eval loss",
    "learning_rate": "rate",
}  # fmt: skip


class RunRecorder(TrainerCallback):
    """Write each log to `metrics.jsonl`, mark complete checkpoints, and print one line a log where there is no terminal.

    Args:
        path: the run's folder.
        stage: named in the printed lines.
        resumed_step: the step of the checkpoint that training goes on from; later lines of an earlier try are dropped.
        interrupt: asked after every step whether to save and stop.
    """

    def __init__(self, path: Path, stage: str, resumed_step: int, interrupt: Interrupt):
        self.path, self.stage, self.resumed_step, self.interrupt = path, stage, resumed_step, interrupt
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop the lines of steps that will be done again."""
        metrics = self.path / METRICS
        if state.is_world_process_zero and metrics.is_file():
            lines = [line for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line)["step"] <= self.resumed_step]
            write_whole(metrics, "".join(kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Append a log, and print it where no progress bar does."""
        if not state.is_world_process_zero or not logs:
            return
        row = {"step": state.global_step, "seconds": round(time.monotonic() - self.started, 2), **logs}
        append_lines(self.path / METRICS, [row])
        shown = [f"{name} {float(logs[key]):.4g}" for key, name in SHOWN.items() if logs.get(key) is not None]
        if shown and not sys.stdout.isatty():
            print(f"{self.stage}  step {state.global_step}/{state.max_steps}  {'  '.join(shown)}", flush=True)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that has just been written as complete."""
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            if checkpoint.is_dir():
                os.sync()
                write_whole(checkpoint / COMPLETE, "")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save and stop when the user has asked for it."""
        if self.interrupt.requested:
            control.should_save = control.should_training_stop = True
        return control


class WeightSchedule(TrainerCallback):
    """Set the weights of a GRPO trainer's rewards before each step, where the recipe gives them a schedule.

    The values that are logged stay what the rewards returned.

    Args:
        trainer: TRL's GRPOTrainer; its `reward_weights` is a tensor with one weight a reward.
        specs: the recipe's rewards, in the trainer's order.
    """

    def __init__(self, trainer: Any, specs: list[RewardSpec]):
        self.trainer, self.specs = trainer, specs

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look the weights up at this step, so that a run that goes on has the right ones."""
        for i, spec in enumerate(self.specs):
            if spec.schedule:
                self.trainer.reward_weights[i] = spec.weight_at(state.global_step)
