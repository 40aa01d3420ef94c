"""What a trainer of TRL's is watched with: metrics on disk, checkpoints marked complete, readable progress."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState

from reasoning_ext.runs.checkpoints import mark_complete, rotate
from reasoning_ext.runs.files import append_lines, write_whole
from reasoning_ext.runs.folder import METRICS
from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.shown import print

SHOWN = (
    "loss", "mean_token_accuracy", "reward", "rewards/accuracies", "rewards/margins", "completions/mean_length",
    "completions/clipped_ratio", "frac_reward_zero_std", "kl", "eval_loss", "learning_rate",
)  # fmt: skip
COUNT, TOKENS = "_total_train_tokens", "num_tokens.json"  # TRL's count in SFT and DPO, and where a checkpoint has it
FLAT = "frac_reward_zero_std"
EARLY = 10  # logs after which a run without a difference in any group is warned of


class AlreadyTrained(Exception):
    """Training begins at a checkpoint that is its end; the trainer would train one step too many."""


class RunRecorder(TrainerCallback):
    """Write each log to `metrics.jsonl`, mark complete checkpoints, and print one line a log where there is no terminal.

    Args:
        path: the run's folder.
        stage: named in the printed lines.
        resumed_step: the step of the checkpoint that training goes on from; later lines of an earlier try are dropped.
        interrupt: asked after every step whether to save and stop.
        limit: how many checkpoints are kept.
        trainer: its count of tokens goes into each checkpoint, since TRL's own begins anew in each process.
    """

    def __init__(
        self,
        path: Path,
        stage: str,
        resumed_step: int,
        interrupt: Interrupt,
        limit: int | None = None,
        trainer: Any = None,
    ):
        self.path, self.stage, self.resumed_step, self.interrupt = path, stage, resumed_step, interrupt
        self.limit, self.trainer = limit, trainer
        self.started = time.monotonic()
        self.counted = (self.started, 0.0)  # when, and how many tokens had been trained on by then

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Drop the lines of steps that will be done again."""
        metrics = self.path / METRICS
        if state.is_world_process_zero and metrics.is_file():
            lines = metrics.read_text(errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if _step(line) <= self.resumed_step]
            write_whole(metrics, "".join(kept))
            tokens = max((json.loads(line).get("num_tokens") or 0.0 for line in kept), default=0.0)
            self.counted = (time.monotonic(), tokens)
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Append a log, and print it where no progress bar does."""
        if not state.is_world_process_zero or not logs:
            return
        row = {"step": state.global_step, "seconds": round(time.monotonic() - self.started, 2), **logs}
        append_lines(self.path / METRICS, [row])
        shown = [f"{key} {float(logs[key]):.4g}" for key in SHOWN if logs.get(key) is not None]
        if shown and not sys.stdout.isatty():
            shown += self._pace(state, logs.get("num_tokens"))
            print(f"{self.stage}  step {state.global_step}/{state.max_steps}  {'  '.join(shown)}", flush=True)

    def _pace(self, state: TrainerState, tokens: float | None) -> list[str]:
        """Say how fast tokens went since the last log, and how long the rest takes at the mean pace of this process."""
        now, (then, before) = time.monotonic(), self.counted
        said = []
        if tokens is not None:
            self.counted = (now, tokens)
            said += [f"{(tokens - before) / (now - then):.0f} tokens/s"] if tokens > before and now > then else []
        done, left = state.global_step - self.resumed_step, state.max_steps - state.global_step
        if done > 0 and left > 0:
            seconds = (now - self.started) / done * left
            minutes = seconds / 60
            short = f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
            said.append(f"{minutes / 60:.1f} h left" if minutes >= 120 else f"{short} left")
        return said

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint that all processes have written as complete; only then older ones go."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = self.path / f"checkpoint-{state.global_step}"
            if checkpoint.is_dir():
                write_whole(checkpoint / TOKENS, json.dumps({"num_tokens": getattr(self.trainer, COUNT, 0)}))
                mark_complete(checkpoint)
                rotate(self.path, self.limit, state.best_model_checkpoint)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Save and stop when the user has asked for it."""
        asked = self.interrupt.requested
        if PartialState().num_processes > 1:  # all have to save at the same step
            asked = any(gather_object([asked]))
        if asked:
            self.interrupt.requested = True
            control.should_save = control.should_training_stop = True
        return control


def _step(line: str) -> float:
    """Return the step that a line is of; one that was torn or damaged is of none that ever comes."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf


class WeightSchedule(TrainerCallback):
    """Set the weights of a GRPO trainer's rewards before each step, where the recipe gives them a schedule.

    The values that are logged stay what the rewards returned.

    Args:
        trainer: TRL's GRPOTrainer; its `reward_weights` is a tensor with one weight a reward.
        specs: the recipe's rewards, in the trainer's order.
    """

    def __init__(self, trainer: Any, specs: list[RewardSpec]):
        self.trainer, self.specs = trainer, specs

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Look the weights up at this step, so that a run that goes on has the right ones."""
        for i, spec in enumerate(self.specs):
            if spec.schedule:
                self.trainer.reward_weights[i] = spec.weight_at(state.global_step)


class FlatGroups(TrainerCallback):
    """Warn of a GRPO run in which no group has had two different rewards: it learns nothing, and its loss does not say so.

    Once while it runs, after `EARLY` logs or a quarter of the run, and once at its end.
    """

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Look at all logs so far, those before a checkpoint too."""
        early = max(2, min(EARLY, state.max_steps // (4 * max(1, int(state.logging_steps)))))
        if FLAT in state.log_history[-1] and self._flat_logs(state) == early:
            self._warn(state, f"in none of the {state.global_step} steps so far")

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Say that nothing was learnt, where that is so."""
        if self._flat_logs(state):
            self._warn(state, f"in none of the {state.global_step} steps")

    def _flat_logs(self, state: TrainerState) -> int:
        """Return how many logs there are, if all of them are of groups without a difference, else 0."""
        logged = [row[FLAT] == 1.0 or not _scored(row) for row in state.log_history if FLAT in row]
        return len(logged) if all(logged) else 0

    def _warn(self, state: TrainerState, when: str) -> None:
        if not state.is_world_process_zero:
            return
        rewards = [row["reward"] for row in state.log_history if _scored(row)]
        mean = sum(rewards) / len(rewards) if rewards else 0.0
        hint = "easier problems, a model that sometimes gets them right, or a reward that pays in part"
        if rewards and min(rewards) == max(rewards) and mean > 0:
            hint = "harder problems, or a reward that not every completion earns"
        elif not rewards:
            hint = "a reward that applies to these completions"
        said = f"mean {mean:.4g}" if rewards else "none of them had any"
        print(
            f"grpo  warning: {when} had a group two different rewards ({said}), so nothing is learnt; use {hint}; "
            "a higher temperature or num_generations; completions/ has what was scored", flush=True,
        )  # fmt: skip


def _scored(row: dict[str, Any]) -> bool:
    """Tell whether a log has a mean reward: TRL calls groups without any reward different."""
    reward = row.get("reward")
    return isinstance(reward, int | float) and not math.isnan(reward)
