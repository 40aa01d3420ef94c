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
from reasoning_ext.runs.files import append_lines, read_object, write_whole
from reasoning_ext.runs.folder import METRICS, RunDir
from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.shown import print

FLAT, CUT_OFF = "frac_reward_zero_std", "completions/clipped_ratio"
SHOWN = (
    "loss", "mean_token_accuracy", "reward", "rewards/accuracies", "rewards/margins", "completions/mean_length",
    CUT_OFF, FLAT, "kl", "eval_loss", "learning_rate",
)  # fmt: skip
COUNT, TOKENS = "_total_train_tokens", "num_tokens.json"  # TRL's count in SFT and DPO, and where a checkpoint has it
EARLY = 10  # logs, or a quarter of the run, after which one without a difference in any group is warned of


class AlreadyTrained(Exception):
    """Training begins at a checkpoint that is its end; the trainer would train one step too many."""


class RunRecorder(TrainerCallback):
    """Write logs to `metrics.jsonl`, mark complete checkpoints, and print a line a log where there is no terminal.

    TRL's count of tokens goes into each checkpoint, since it would begin anew in each process.
    """

    def __init__(self, run: RunDir, stage: str, trainer: Any, interrupt: Interrupt):
        self.path, self.stage, self.trainer, self.interrupt = run.path, stage, trainer, interrupt
        self.resumed_step, self.started = step_of(run.checkpoint) if run.checkpoint else 0, time.monotonic()
        self.counted = (self.started, math.inf if run.checkpoint else 0.0)  # when, and how many tokens by then
        self.said, self.batches = self.started, 0  # when there was a line, and batches of the step that are done
        if run.checkpoint and hasattr(trainer, COUNT):
            setattr(trainer, COUNT, read_object(run.checkpoint / TOKENS).get("num_tokens", 0))

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Drop the lines of steps that will be done again, and take over the removing of checkpoints."""
        self.limit, args.save_total_limit = args.save_total_limit, None  # TRL would remove before the new one is whole
        metrics = self.path / METRICS
        if state.is_world_process_zero and metrics.is_file():
            lines = metrics.read_text(errors="replace").splitlines(keepends=True)
            write_whole(metrics, "".join(line for line in lines if _step(line) <= self.resumed_step))
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Append a log, and print it where no progress bar does, with the pace and the time left at this process's mean one."""
        if not state.is_world_process_zero or not logs:
            return
        now = time.monotonic()
        seconds = now - self.started
        append_lines(self.path / METRICS, [{"step": state.global_step, "seconds": round(seconds, 2), **logs}])
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
        """Print a line with the step and the time left at this process's mean pace."""
        self.said = now
        done, left = state.global_step - self.resumed_step, state.max_steps - state.global_step
        if done > 0 and left > 0:
            shown = [*shown, f"{timedelta(seconds=round((now - self.started) / done * left))} left"]
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
        return control


def _step(line: str) -> float:
    """Return the step that a line is of; one that was torn or damaged is of none that ever comes."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf


class WeightSchedule(TrainerCallback):
    """Set a GRPO trainer's `reward_weights` (one a reward) before each step, where the recipe gives them a schedule."""

    def __init__(self, trainer: Any, specs: list[RewardSpec]):
        self.trainer, self.specs = trainer, specs

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Look the weights up at this step, so that a run that goes on has the right ones."""
        for i, spec in enumerate(self.specs):
            if spec.schedule:
                self.trainer.reward_weights[i] = spec.weight_at(state.global_step)


def _logged_early(state: TrainerState, key: str) -> list[float]:
    """Return what was logged under a key so far, at the one log that is early enough to warn; at any other nothing."""
    early = max(2, min(EARLY, state.max_steps // (4 * max(1, int(state.logging_steps)))))
    found = [row[key] for row in state.log_history if key in row]
    return found if key in state.log_history[-1] and len(found) == early else []


class MostCutOff(TrainerCallback):
    """Warn of a GRPO run of which most completions are cut off: what has no answer earns nothing for it."""

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Look at the shares of the first logs."""
        shares = _logged_early(state, CUT_OFF)
        if shares and state.is_world_process_zero and (mean := sum(shares) / len(shares)) > 0.5:
            said = f"{mean:.0%} of completions were cut off at max_completion_length: {args.max_completion_length}"
            todo = "raise it, or begin with a model that ends its answers, as stage sft teaches it"
            print(f"grpo  warning: {said}, before they had an answer; {todo}", flush=True)


class NoneRight(TrainerCallback):
    """Warn of a GRPO run in which the reward that compares with the rows stays 0 while others differ: form is learnt.

    `name` is that reward's.
    """

    def __init__(self, name: str):
        self.name = name

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Look at the means of the first logs; where no group differs `FlatGroups` says so."""
        means = _logged_early(state, f"rewards/{self.name}/mean")
        differ = any(row.get(FLAT, 1.0) != 1.0 for row in state.log_history)
        if means and not any(means) and differ and state.is_world_process_zero:
            said = f"{self.name} was 0 for all completions of the first {len(means)} logs, and other rewards differ"
            todo = "see completions/; use easier problems, or a model that solves some of them"
            print(f"grpo  warning: {said}, so that form is learnt and no answers; {todo}", flush=True)


class FlatGroups(TrainerCallback):
    """Warn of a GRPO run in which no group has had two different rewards: it learns nothing."""

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Look at all logs so far, those before a checkpoint too."""
        if _logged_early(state, FLAT):
            self.on_train_end(args, state, control)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Say that nothing was learnt, where that is so; TRL calls groups without any reward different."""
        logged = [row for row in state.log_history if FLAT in row]
        scored = [row for row in logged if not math.isnan(math.nan if row.get("reward") is None else row["reward"])]
        if not logged or any(row[FLAT] != 1.0 for row in scored) or not state.is_world_process_zero:
            return
        said = f"mean {sum(row['reward'] for row in scored) / len(scored):.4g}" if scored else "none of them had any"
        found = f"warning: in none of the {state.global_step} steps had a group two different rewards ({said})"
        advice = "use easier or harder problems, a reward that pays in part, a higher temperature or num_generations"
        print(f"grpo  {found}, so nothing is learnt; {advice}; completions/ has what was scored", flush=True)
