"""The process that a benchmark measures: it runs the recipe of a folder and writes peak memory and seconds by phase.

    python benchmarks/gpu_child.py FOLDER        # started by gpu_runs.measure

The recipe runs as `reasoning-ext run` runs it; the trainer's own methods are wrapped, so that each phase has its own peak. A
phase that another one interrupts goes on after it, and its peak leaves out the other's. `allocated` is what tensors took,
`reserved` what torch's allocator held for them, `outside torch` what the card had in use beside that (CUDA itself, vLLM).
Without CUDA the memory figures are null.
"""

import contextlib
import functools
import json
import sys
import time
import traceback
from pathlib import Path

from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.process import versions

OUT_OF_MEMORY = 3  # the exit code
LOADING, PREPARING = "loading", "trainer"
GENERATION, SCORING = "generation", "log-probabilities"
TRAINING, OPTIMIZER = "forward and backward", "optimizer step"
MEMORY_ERRORS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "No available memory for the cache blocks")


class Phases:
    """Peak memory and seconds by phase; `wrap` makes a function a phase.

    Attributes:
        peaks: `{phase: {"allocated": bytes, "reserved": bytes}}`, None without CUDA.
        seconds: of the phases since it was emptied.
        outside: most bytes in use on the card that torch's allocator did not hold, None without CUDA.
        broke: the innermost phase that an error came out of, or None.
    """

    def __init__(self):
        import torch

        self.cuda = torch.cuda if torch.cuda.is_available() else None
        self.peaks, self.seconds, self.outside, self.broke = {}, {}, None, None
        self._stack, self._since = [], time.monotonic()

    @property
    def current(self):
        """The phase that is on, or None."""
        return self._stack[-1] if self._stack else None

    def enter(self, phase):
        """Begin a phase inside the one that is on."""
        self.book()
        self._stack.append(phase)

    def leave(self):
        """End the phase, and go on with the one around it."""
        self.book()
        self._stack.pop()

    def wrap(self, phase, function):
        """Return a function that does the same as a phase."""

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            self.enter(phase)
            try:
                return function(*args, **kwargs)
            except Exception:
                self.broke = self.broke or phase
                raise
            finally:
                self.leave()

        return wrapped

    def book(self):
        """Give what was since the last change to the phase that is on."""
        if self.cuda:
            # after an error that leaves CUDA unusable, the error itself must be seen and not this one
            with contextlib.suppress(RuntimeError):
                self.cuda.synchronize()
        now = time.monotonic()
        if self._stack:
            phase = self._stack[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
            self.peaks.setdefault(phase, None)
            if self.cuda:
                self._book_memory(phase)
        if self.cuda:
            self.cuda.reset_peak_memory_stats()
        self._since = time.monotonic()

    def _book_memory(self, phase):
        before = self.peaks[phase] or {"allocated": 0, "reserved": 0}
        found = {"allocated": self.cuda.max_memory_allocated(), "reserved": self.cuda.max_memory_reserved()}
        self.peaks[phase] = {name: max(before[name], found[name]) for name in before}
        free, total = self.cuda.mem_get_info()
        self.outside = max(self.outside or 0, total - free - self.cuda.memory_reserved())


def watch(trainer, phases, steps):
    """Make a trainer's own methods phases, and have `steps` get one mapping a step: seconds by phase, all, and tokens."""
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        """The optimizer's phase, and the end of each step."""

        def on_train_begin(self, args, state, control, **kwargs):
            phases.book()
            phases.seconds.clear()
            self.since = time.monotonic()

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            phases.enter(OPTIMIZER)

        def on_optimizer_step(self, args, state, control, **kwargs):
            phases.leave()

        def on_step_end(self, args, state, control, **kwargs):
            phases.book()
            now = time.monotonic()
            steps.append({"seconds": now - self.since, **phases.seconds, "tokens": tokens.pop() if tokens else None})
            self.since = now
            phases.seconds.clear()

    tokens = []
    step = phases.wrap(TRAINING, trainer.training_step)

    @functools.wraps(trainer.training_step)
    def training_step(model, inputs, *args, **kwargs):
        if "input_ids" in inputs:
            tokens[:] = [inputs["input_ids"].numel() + (tokens.pop() if tokens else 0)]
        return step(model, inputs, *args, **kwargs)

    trainer.training_step = training_step
    if hasattr(trainer, "_generate_single_turn"):
        trainer._prepare_inputs = phases.wrap(SCORING, trainer._prepare_inputs)
        trainer._generate_single_turn = phases.wrap(GENERATION, trainer._generate_single_turn)
    trainer.add_callback(Steps())


def set_limit(limit):
    """Leave the process `limit` bytes of the card, what CUDA itself takes counted in.

    Raises:
        RuntimeError: another process uses the card, so that nothing measured here would be right.
    """
    import torch

    torch.cuda.init()
    free, total = torch.cuda.mem_get_info()
    outside = total - free - torch.cuda.memory_reserved()
    if outside > 3 * 2**30:
        raise RuntimeError(f"found {outside / 2**30:.1f} GiB of the card in use by others; end them first")
    if limit is not None:
        torch.cuda.set_per_process_memory_fraction(min(1.0, (limit - outside) / total))


def out_of_memory(error):
    """Tell whether an error, or what it came from, is that the card has no memory left."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in MEMORY_ERRORS):
            return True
        error = error.__cause__ or error.__context__
    return False


def run_child(folder):
    """Run the job of a folder, write `result.json` into it, and return the exit code."""
    from reasoning_ext.models.load import prepare_backend

    job = json.loads(Path(folder, "job.json").read_text())
    recipe = load_recipe(Path(folder, "recipe.yaml"))
    prepare_backend(job["backend"])
    import torch

    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.train import grpo, sft

    if torch.cuda.is_available():
        set_limit(job["limit"])
    phases, steps, code = Phases(), [], 1
    module = {"sft": sft, "grpo": grpo}[job["stage"]]
    module.load_to_train = phases.wrap(LOADING, module.load_to_train)
    train = module.train

    def watched(trainer, *rest):
        watch(trainer, phases, steps)
        return train(trainer, *rest)

    module.train = watched
    phases.enter(PREPARING)
    try:
        code = run_recipes([recipe])
    except (RuntimeError, ValueError) as error:
        if not out_of_memory(error):
            raise
        traceback.print_exc()
        code = OUT_OF_MEMORY
    finally:
        broke = None if code == 0 else phases.broke or phases.current
        phases.leave()
        found = {
            "phases": phases.peaks, "outside torch": phases.outside, "done": steps, "phase of the error": broke,
            "child versions": versions(),
        }  # fmt: skip
        Path(folder, "result.json").write_text(json.dumps(found))
    return code


if __name__ == "__main__":
    sys.exit(run_child(sys.argv[1]))
