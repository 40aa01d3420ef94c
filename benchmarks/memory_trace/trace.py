"""The memory of a recipe's training step, traced on tensors without data; no GPU, no weights.

TRL's own trainer trains one step: its loss, its chunks of the vocabulary, accelerate's autocast, PEFT's layers, the
checkpointing and the optimizer are the real ones. The model is built under a FakeTensorMode, and `LiveStorages` counts
what every operation allocates and frees. `gpu_stand_ins` says what a CUDA card does differently, and what is not counted.

What is not the recipe's own:
    - The optimizer's state is made before the step, from gradients of zeros. With gradient accumulation these gradients
      stay, as they do from the second micro-batch on. One step has the peak of all later ones then.
    - GRPO's completions come from nowhere and are all of full length; generation and its KV cache are not traced.
    - Reading a value (`tensor.item()`) gives True, 1.0 or the number of scored tokens; no memory hangs on another.
    - DPO's reference scores the pairs in the middle of the step, and counts as a part of it.
    - Unsloth's patched trainers are not traced.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memory_trace.traced_trainer import MemoryTraceError, Workload, build_trainer

if TYPE_CHECKING:
    from memory_trace.live_storages import LiveStorages

FORWARD_BACKWARD, OPTIMIZER_STEP, LOG_PROBABILITIES = "forward and backward", "optimizer step", "log-probabilities"
OPTIMIZERS = (
    "adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor",
    "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit",
    "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit",
    "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
)  # fmt: skip
PAGED_FROM = 100_000  # elements; bitsandbytes pages the states of larger tensors alone
UNTRACED = (
    "deepspeed",
    "fsdp",
    "torch_compile",
    "use_liger_kernel",
    "activation_offloading",
    "packing",
    "padding_free",
    "precompute_ref_log_probs",
)


@dataclass(frozen=True)
class Trace:
    """What a training step holds, in bytes, each tensor rounded up to 512.

    Attributes:
        parts: weights, adapter, gradients, optimizer, and reference where there is a second model. Paged optimizer states
            live outside of PyTorch's allocator and are left out.
        peak: the most that is alive at any time.
        peak_phase: when that is.
        phases: `{phase: peak}`.
        seconds: how long the trace took.
        at_peak: `{phase: {part: bytes}}`, what is alive at each phase's peak; "activations" is everything that is no part.
        op_at_peak: `{phase: operation}` whose result made the peak.
    """

    parts: dict[str, int]
    peak: int
    peak_phase: str
    phases: dict[str, int]
    seconds: float
    at_peak: dict[str, dict[str, int]]
    op_at_peak: dict[str, str]


def trace_training(
    stage: str,
    model_config: dict[str, Any],
    load: dict[str, Any],
    training: dict[str, Any],
    workload: Workload,
    kernels: str = "cuda",
) -> Trace:
    """Trace one training step of TRL's trainer.

    Args:
        stage: "sft", "dpo" or "grpo".
        model_config: what the model's config.json holds; `model_type` among it.
        load: the values of TRL's ModelConfig that the recipe sets: dtype, quantisation, LoRA, attention.
        training: the values of TRL's config of that stage that the recipe sets.
        workload: the shape of a micro-batch, which goes before per_device_train_batch_size and the lengths in `training`.
        kernels: "cuda", or "cpu" for a training on the CPU.

    Raises:
        MemoryTraceError: the architecture, the optimizer, or a feature cannot be traced; TRL refuses the values.
    """
    _check(load, training)
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_undisturbed())
        from torch._subclasses.fake_tensor import FakeTensorMode

        from memory_trace.live_storages import LiveStorages

        folder = stack.enter_context(tempfile.TemporaryDirectory())
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        stack.enter_context(
            _without_data(workload.padded and "flash" not in (load.get("attn_implementation") or ""), kernels)
        )
        with fake:
            trainer = build_trainer(stage, model_config, load, training, workload, folder)
        scored = workload.rows * (workload.completion_tokens - (stage != "grpo" and not workload.prompt_tokens))
        live = LiveStorages(lambda tensor: _value(tensor, scored), scored)
        with fake, live:
            parts = _train(trainer, live, kernels, (training.get("gradient_accumulation_steps") or 1) > 1)
    phase = max(live.peaks, key=lambda name: live.peaks[name])
    seconds = time.perf_counter() - begin
    return Trace(parts, live.peaks[phase], phase, dict(live.peaks), seconds, live.at_peak, live.op_at_peak)


def _check(load: dict[str, Any], training: dict[str, Any]) -> None:
    """Refuse by name what the trace would get wrong."""
    for key in UNTRACED:
        if training.get(key):
            raise MemoryTraceError(key, f"found {training[key]!r}, which the trace cannot follow; plan by the formulas")
    optimizer = training.get("optim", OPTIMIZERS[0])
    if optimizer not in OPTIMIZERS:
        raise MemoryTraceError("optim", f"found {optimizer!r}, which is not traced; allowed: {', '.join(OPTIMIZERS)}")
    if load.get("use_dora"):
        raise MemoryTraceError("use_dora", "found true, which the trace cannot follow; plan by the formulas")
    attention = load.get("attn_implementation") or "sdpa"
    if attention not in ("eager", "sdpa") and "flash" not in attention:
        problem = f"found {attention!r}, which is not traced; allowed: eager, sdpa, and the flash attentions"
        raise MemoryTraceError("attn_implementation", problem)
    for key in ("load_in_4bit", "load_in_8bit"):
        if load.get(key) and not load.get("use_peft"):
            raise MemoryTraceError("use_peft", f"found false with {key}; quantised weights are trained with LoRA alone")


def _train(trainer: Any, live: LiveStorages, kernels: str, accumulates: bool) -> dict[str, int]:
    """Train the step; returns the bytes of what is alive in every step."""
    import torch
    from peft import PeftModel

    model, parts = trainer.model, {}
    trained = [p for p in model.parameters() if p.requires_grad]
    if isinstance(model, PeftModel):
        frozen = [p for p in model.parameters() if not p.requires_grad]
        parts["weights"] = live.name([*frozen, *model.buffers()], "weights")
        parts["adapter"] = live.name(trained, "adapter")
    else:
        parts["weights"] = live.name([*model.parameters(), *model.buffers()], "weights")
    if getattr(trainer, "ref_model", None) is not None:
        parts["reference"] = live.name([*trainer.ref_model.parameters(), *trainer.ref_model.buffers()], "reference")
    step, prepare = trainer.training_step, trainer._prepare_inputs

    def training_step(*args: Any, **kwargs: Any) -> Any:
        if "optimizer" not in parts:
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
            parts["gradients"] = live.name([p.grad for p in trained], "gradients")
            parts["optimizer"] = _optimizer_state(trainer.optimizer, live, kernels)
            if not accumulates:
                trainer.optimizer.zero_grad(set_to_none=True)
            live.forget()
        result = step(*args, **kwargs)
        live.name([p.grad for p in trained], "gradients")
        live.enter(OPTIMIZER_STEP)
        return result

    def prepare_inputs(*args: Any, **kwargs: Any) -> Any:
        live.enter(FORWARD_BACKWARD)
        return prepare(*args, **kwargs)

    trainer.training_step, trainer._prepare_inputs = training_step, prepare_inputs
    if hasattr(trainer, "_get_per_token_logps_and_entropies"):
        score = trainer._get_per_token_logps_and_entropies

        def log_probabilities(*args: Any, **kwargs: Any) -> Any:
            live.enter(FORWARD_BACKWARD if torch.is_grad_enabled() else LOG_PROBABILITIES)
            result = score(*args, **kwargs)
            live.enter(FORWARD_BACKWARD)
            return result

        trainer._get_per_token_logps_and_entropies = log_probabilities
    trainer.train()
    return parts


def _optimizer_state(optimizer: Any, live: LiveStorages, kernels: str) -> int:
    """Let the optimizer make its state; returns its bytes without what it pages."""
    import torch

    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    for group in inner.param_groups:
        if kernels == "cuda" and "foreach" in group and not group.get("fused"):
            group["foreach"] = True  # PyTorch's default on CUDA
    inner.step()
    state = [x for states in inner.state.values() for x in states.values() if isinstance(x, torch.Tensor)]
    if kernels == "cuda" and getattr(inner, "is_paged", False):
        paged = [states.get(key) for states in inner.state.values() for key in ("state1", "state2")]
        live.ignore([x for x in paged if x is not None and x.numel() >= PAGED_FROM])
    return live.name(state, "optimizer")


def _value(tensor: Any, scored: int) -> Any:
    import torch

    return True if tensor.dtype == torch.bool else 1.0 if tensor.dtype.is_floating_point else scored


@contextlib.contextmanager
def _without_data(masked: bool, kernels: str) -> Iterator[None]:
    """Let transformers, PyTorch and bitsandbytes run on tensors without data."""
    import bitsandbytes.functional
    import torch
    from transformers import masking_utils

    from memory_trace.gpu_stand_ins import kernels_of_a_gpu, replaced

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(torch.nn.Module, "_apply", _apply))
        stack.enter_context(replaced(masking_utils, "is_tracing", lambda *args: False))
        if masked:
            stack.enter_context(replaced(masking_utils, "fast_all", lambda mask: False))
        for name in ("optimizer_update_32bit", "optimizer_update_8bit_blockwise"):
            stack.enter_context(replaced(bitsandbytes.functional, name, nothing))
        if kernels == "cuda":
            stack.enter_context(kernels_of_a_gpu())
        yield


def _apply(module: Any, function: Any, recurse: bool = True) -> Any:
    """`Module._apply`; PyTorch's swaps tensors without data in place, and refuses to where anything else holds them."""
    import torch

    for child in module.children() if recurse else ():
        child._apply(function)
    for key, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                applied = function(parameter)
            if applied is not parameter:
                module._parameters[key] = torch.nn.Parameter(applied, parameter.requires_grad)
    for key, buffer in module._buffers.items():
        module._buffers[key] = buffer if buffer is None else function(buffer)
    return module


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave accelerate's state, the environment and the random numbers of this process as they were; print nothing."""
    import random

    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states = (PartialState._shared_state, AcceleratorState._shared_state, GradientState._shared_state)
    before = [copy.copy(state) for state in states]
    environment, level, rng, drawn = (
        dict(os.environ),
        logging.root.manager.disable,
        torch.get_rng_state(),
        random.getstate(),
    )
    for state in states:
        state.clear()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.set_rng_state(rng)
        random.setstate(drawn)
        os.environ.clear()
        os.environ.update(environment)
        for state, values in zip(states, before, strict=True):
            state.clear()
            state.update(values)
