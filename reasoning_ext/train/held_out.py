"""A model that is trained answers held-out problems as it goes: `eval_problems`, `keep: best` and `on_fall`.

The model itself answers, with the engine `transformers`, also where TRL generates with vLLM: that would have to be
given other settings than its training's, and a measurement must leave no trace. Dropout is off meanwhile; the modes of
all modules, the random numbers, TRL's metrics and its tables of completions are as before, so that losses are the same
to the digit without it. In several processes each answers a share of the problems.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState

from reasoning_ext.data.columns import DataError, check_columns, columns_of
from reasoning_ext.data.lineage import overlaps
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.engines.base import Engine, SamplingSettings, render_row
from reasoning_ext.engines.opening import sampling_settings, with_tools
from reasoning_ext.engines.scored import scored_rows
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.errors import KeyProblem, one_line
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.recipe.held_out import batch_of, eval_problems, keeps_best, measurements, own_length
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.checkpoints import COMPLETE, checkpoints, step_of
from reasoning_ext.runs.files import append_lines, rows_until
from reasoning_ext.runs.folder import HELD_OUT, RunDir, say
from reasoning_ext.runs.held_out import FIGURES, Line, best, choose, fall, read_held_out
from reasoning_ext.runs.interrupt import Interrupt
from reasoning_ext.runs.outcomes import PLAIN, outcomes
from reasoning_ext.runs.paired import p_text
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.values import cell
from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.metrics import metrics
from reasoning_ext.scoring.spec import RewardSpec, judge, needed_columns
from reasoning_ext.think.render import count_tokens
from reasoning_ext.tools.spec import template_kwargs
from reasoning_ext.train.callbacks import AlreadyTrained
from reasoning_ext.train.health import HealthWatch, log_beside


@dataclass(frozen=True)
class Problems:
    """What is answered as a training goes."""

    rows: list[dict[str, Any]]  # the problems, as the data set has them
    spec: RewardSpec  # says what is right
    samples: int  # completions of each beside the greedy one
    settings: SamplingSettings  # how these are drawn
    room: int | None  # tokens of the longest prompt and a completion together, which bound it; None: `settings` do
    batch_size: int  # completions at once
    keeps: bool  # the best checkpoint is saved in the end
    stops: bool  # a fall ends the run
    acting: Callable[[Engine], Engine]  # lets an engine call the recipe's tools, where it has some


def held_out_problems(recipe: Recipe, trained: Any, specs: list[RewardSpec] | None = None) -> Problems | None:
    """Read the problems that a recipe wants answered as it trains; None where it wants none.

    Args:
        trained: the rows that it trains on; a problem that stands there, or in those of an earlier run of the model's
            lineage, is left out, which is said.
        specs: the recipe's rewards.

    Raises:
        DataError: there are no such rows, they lack a column, or none of them is held out.
    """
    if (asked := eval_problems(recipe)) is None:
        return None
    spec = judge(recipe, specs or [])
    held = prepare(row_options(recipe), TEST, specs=[spec], look=asked.n).rows
    check_columns(columns_of(held), {"prompt": "eval_problems"} | needed_columns([spec]))
    rows = [{k: row[k] for k in row if k not in ("completion", "chosen", "rejected")} for row in islice(held, asked.n)]
    if len(rows) < asked.n:
        say(f"held out  {len(rows)} problems in the place of {asked.n}: no more rows are held out")
    known = overlaps(recipe, (row["prompt"] for row in rows), rows=trained)["this run"].numbers
    if len(known) == len(rows):
        found = f"all of the first {len(rows)} held-out problems are trained on, by this run or an earlier one"
        raise DataError("eval_problems", found, hint="hold rows out with test_size in each recipe")
    if known:
        say(f"held out  {len(known)} of {len(rows)} problems are left out, since they are trained on")
    rows = [row for i, row in enumerate(rows) if i not in known]
    return Problems(
        rows=rows,
        spec=spec,
        samples=asked.samples,
        settings=_settings(recipe, asked.max_completion_length),
        room=None if asked.max_completion_length else own_length(recipe),
        batch_size=batch_of(recipe),
        keeps=keeps_best(recipe),
        stops=recipe.get("on_fall") == "stop",
        acting=partial(with_tools, recipe=recipe, rows=rows),
    )


def _settings(recipe: Recipe, length: int | None) -> SamplingSettings:
    """Return how samples are drawn: as the recipe draws its own, where it does; vLLM's own arguments are for vLLM."""
    if recipe.stage != "grpo":
        return SamplingSettings(length or 512, seed=recipe.get("seed"), chat_template_kwargs=template_kwargs(recipe))
    found = sampling_settings(recipe)
    own = {} if recipe.get("use_vllm") else found.generation_kwargs
    return replace(found, max_completion_length=length or found.max_completion_length, generation_kwargs=own)


class HeldOut(TrainerCallback):
    """Measure at the start, every `eval_steps` steps and at the end; write, log and print it, and act on a fall."""

    def __init__(
        self, problems: Problems, trainer: Any, contract: Any, run: RunDir, interrupt: Interrupt, watch: HealthWatch
    ):
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            found = "found with FSDP or DeepSpeed, under which no process has the whole model"
            raise KeyProblem("eval_problems", found, hint="leave it out, and evaluate checkpoints with stage eval")
        self.trainer, self.run, self.interrupt, self.watch, self.asked = trainer, run, interrupt, watch, problems
        loaded = Loaded(trainer.model, trainer.processing_class, contract=contract)
        self.engine = problems.acting(TransformersEngine(loaded, problems.batch_size))
        self.rewards = build_rewards([problems.spec], tolerated=0)
        self.prompts, self.settings = [row["prompt"] for row in problems.rows], problems.settings
        if problems.room:
            tokenizer, numbers = trainer.processing_class, range(len(self.prompts))
            texts = (render_row(tokenizer, contract, self.prompts, p, self.settings) for p in numbers)
            longest = max(count_tokens(tokenizer, text) for text in texts)
            self.settings = replace(self.settings, max_completion_length=max(1, problems.room - longest))
        self.lines: list[Line] = []
        self.spent, self.began, self.cut_off = 0.0, time.monotonic(), False  # by a signal

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Go on with the series up to this step, and begin it; a run that a fall has ended is not gone on with."""
        if state.is_world_process_zero:
            rows_until(self.run.path / HELD_OUT, state.global_step, drop=True)
        PartialState().wait_for_everyone()
        self.lines = read_held_out(self.run.path)
        every = f"every {state.eval_steps} steps" if args.eval_steps else "nothing between"
        each = f"greedy and {self.asked.samples} sampled" if self.asked.samples else "greedy"
        by = "the model itself, not vLLM" if getattr(args, "use_vllm", False) else "the model itself"
        told = f"{len(self.prompts)} problems, {each}, up to {self.settings.max_completion_length} tokens, by {by}"
        say(f"held out  {told}; {self.asked.spec.name} says what is right; at the start, {every}, at the end")
        self._measure_if_due(args, state, control)
        if control.should_training_stop:
            raise AlreadyTrained

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure where this step is one of those; before it is saved, so that a checkpoint's measurement is there."""
        self._measure_if_due(args, state, control)

    def settle(self) -> None:
        """Let the model be what a finished training is to save: see `choose`; say which. Nothing is answered any more."""
        self.engine.close()
        if not self.asked.keeps:
            return
        saved = [step_of(one) for one in checkpoints(self.run.path) if (one / COMPLETE).is_file()]
        step, said = choose(self.lines, self.trainer.state.global_step, saved)
        say(f"held out  {said}")
        if step != self.trainer.state.global_step:
            self.trainer.state.best_model_checkpoint = str(self.run.path / f"checkpoint-{step}")
            self.trainer._load_best_model()

    def _measure_if_due(self, args: Any, state: TrainerState, control: TrainerControl) -> None:
        step, every = state.global_step, int(state.eval_steps) if args.eval_steps else 0
        due = step in (0, state.max_steps) or (every and step % every == 0)
        if due and not self.watch.broken and all(line["step"] != step for line in self.lines):
            self._measure(state)
        self._judge(state, control, measurements(state.max_steps, every))

    def _measure(self, state: TrainerState) -> None:
        """Measure once: a line in `held_out.jsonl`, the figures to metrics and trackers, and a line that is printed."""
        began, step, figures = time.monotonic(), state.global_step, dict[str, Any]()
        answers, problem = self._all_answers()
        try:
            figures = metrics(answers, self.asked.spec.name) if answers else {}
            of_problem = {name: outcomes(name, answers)["None"] for name in PLAIN if name in figures}
            right = {name: [of.get(p) for p in range(len(self.prompts))] for name, of in of_problem.items()}
            shares = {name: figures[name] for name in FIGURES if name in figures}
            line = {"step": step, "seconds": round(time.monotonic() - began, 2), "figures": shares, "right": right}
            if figures and state.is_world_process_zero:
                append_lines(self.run.path / HELD_OUT, [line])
        except Exception as error:  # whatever fails here, the training goes on
            problem = one_line(error)
        if problem:
            say(f"held out  not measured at step {step}: {problem}; the training goes on")
        self.cut_off = not problem and not figures
        if figures and not problem:
            self.lines.append(line)
            self.spent += line["seconds"]
            self._tell(state, line, figures)

    def _tell(self, state: TrainerState, line: Line, figures: dict[str, Any]) -> None:
        """Log and print a measurement."""
        values = {name: share[0] for name, share in line["figures"].items()} | {"seconds": line["seconds"]}
        values |= {"tokens": figures["mean tokens"], "cut_off": figures["truncated"]}
        log_beside(self.trainer, {f"held_out/{name}": value for name, value in values.items()})
        shown = [f"{name} {cell(share)}" for name, share in line["figures"].items()]
        shown += [f"tokens {figures['mean tokens']:.4g}", f"cut off {100 * figures['truncated']:.1f}"]
        share = f" ({self.spent / (time.monotonic() - self.began):.0%} of the time so far)" if line["step"] else ""
        say(f"held out  step {line['step']}/{state.max_steps}  {'  '.join(shown)}  {line['seconds']:.1f} s{share}")

    def _judge(self, state: TrainerState, control: TrainerControl, planned: int) -> None:
        """Note the best checkpoint, which is not removed, and act on a fall."""
        saved = best(line for line in self.lines if line["step"])
        if saved and self.asked.keeps:
            state.best_model_checkpoint = str(self.run.path / f"checkpoint-{saved['step']}")
        if not self.lines or self.lines[-1]["step"] != state.global_step:
            return
        if found := fall(self.lines, planned):
            told = f"{100 * found.after:.1f} after {100 * found.before:.1f} at step {found.earlier:g}"
            ends = "; the run ends here" if self.asked.stops else ""
            say(f"held out  fallen for certain: {told}, {p_text(found.p)}{ends}")
            if self.asked.stops:
                control.should_training_stop = control.should_save = True

    def _all_answers(self) -> tuple[list[Line], str]:
        """Return what all processes answered, scored, or why one of them could not; neither where a signal came."""
        state, problem, answers = PartialState(), "", None
        try:
            with _at_rest(self.trainer):
                answers = self._answers(state.process_index, state.num_processes)
        except Exception as error:
            problem = one_line(error)
            torch.cuda.empty_cache()  # does nothing without a card
        parts = gather_object([(answers, problem)])
        whole = all(part is not None for part, _ in parts)
        problem = next((said for _, said in parts if said), "")
        return [row for part, _ in parts for row in part] if whole else [], problem

    def _answers(self, process: int, processes: int) -> list[Line] | None:
        """Answer a process's share of the problems; None where a signal asks the run to stop."""
        numbers, found = range(process, len(self.prompts), processes), list[Line]()
        for indices, temperature in (((GREEDY,), 0.0), (range(self.asked.samples), self.settings.temperature)):
            keys, settings = [(p, g) for p in numbers for g in indices], replace(self.settings, temperature=temperature)
            for batch in self.engine.generate(self.prompts, keys, settings) if keys else ():
                found += scored_rows(batch, self.asked.rows, self.rewards)
                if self.interrupt.requested:
                    return None
        return found


@contextlib.contextmanager
def _at_rest(trainer: Any) -> Iterator[None]:
    """Have a trainer's model answer and not train, and leave it, and all random numbers, as they were."""
    model, unsloth = trainer.model, "unsloth" in sys.modules
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        model.eval()
        if unsloth:
            from unsloth import FastLanguageModel

            FastLanguageModel.for_inference(model)
        try:
            yield
        finally:
            if unsloth:
                FastLanguageModel.for_training(model, use_gradient_checkpointing=trainer.args.gradient_checkpointing)
            for module, mode in modes:
                module.training = mode
            random.setstate(states[0])
            numpy.random.set_state(states[1])
