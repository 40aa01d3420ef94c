"""The memory plan: what a recipe will need on its device, part by part and phase by phase, from formulas.

Four phases: `generation` (GRPO, sample, eval), `log-probabilities` (GRPO, where TRL scores completions first),
`training` (forward, backward and the optimizer's step, in DPO with the reference's forward pass), and `held-out
problems` (`eval_problems`). A phase's parts are what is alive at its own peak, so that they add up to PyTorch's
`max_memory_allocated`. What the driver takes, and what the allocator cannot use between its blocks, comes on top where
a plan is held against a card; on a CPU what Python and its libraries take.

Not in a plan: several GPUs, images, kernels' workspaces (some 10 MB), and what Unsloth does beyond `activations`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reasoning_ext.check.memory import parts
from reasoning_ext.check.memory.activations import generation_bytes, scoring_bytes, training_bytes
from reasoning_ext.check.memory.parts import BYTES, Bytes
from reasoning_ext.check.memory.setup import Setup

GIB = 2**30
CONTEXT = int(0.9 * GIB)  # CUDA context and libraries; 0.6 to 1.4 were seen
FRAGMENTED = 0.05  # of the allocated bytes; 3 to 10 % were seen
USABLE = 0.98  # of a card's nominal memory
PROCESS = int(0.65 * GIB)  # on a CPU: Python with torch, transformers, TRL and the rows, as its resident memory says
# of the tensors' bytes, what glibc's heap keeps between them: fitted to eight runs of a model of 135M, five of which
# `benchmarks/cpu_memory.py` makes again
HEAP = {"generation": 0.1, "training": 0.2, "checkpointed": 0.75}


@dataclass(frozen=True)
class Plan:
    """What a run needs on its device."""

    setup: Setup
    phases: dict[str, Bytes]  # what each one allocates at its own peak
    engine_lacks: int = 0  # bytes that vLLM's share lacks to hold its weights and one sequence of full length

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: self.phases[phase].total)

    @property
    def peak(self) -> int:
        """The bytes that the largest phase allocates."""
        return self.phases[self.peak_phase].total

    @property
    def needed(self) -> int:
        """The bytes that a device must have: the peak, and what `parts` do not tell."""
        if self.setup.host:
            trained = "checkpointed" if self.setup.checkpointing else "training"
            return round(self.peak * (1 + HEAP[trained if self.setup.trains else "generation"])) + PROCESS
        pool = self.phases[self.peak_phase].vllm  # which vLLM divides itself
        return round((self.peak - pool) * (1 + FRAGMENTED)) + pool + CONTEXT

    def fits(self, memory: int) -> bool:
        """Tell whether it fits a card of so many bytes, or so many free ones of the machine."""
        return self.needed <= memory * (1 if self.setup.host else USABLE) and not self.engine_lacks

    def shown(self) -> dict[str, dict[str, int]]:
        """Return `{phase: {part: bytes}}` for people and for `check --json`."""
        return {phase: held.shown(self.setup.bits) for phase, held in self.phases.items()}


def plan(setup: Setup, card: int | None = None) -> Plan:
    """Plan a run, on a card of so many bytes, which vLLM takes its share of; None: 48 GiB."""
    base, phases = weight_parts(setup), {}
    engine = round((setup.vllm or 0.0) * (card or 48 * GIB))
    lacks = max(0, engine_bytes(setup) - engine) if engine else 0
    if engine and setup.backend == "unsloth":  # its vLLM computes with the trainer's own weights
        engine = max(0, engine - (base.total - base.lora))
    kept, resident = base, Bytes(vllm=0 if setup.sleeps else engine)
    if setup.trains:
        whole = parts.saved_tensors(setup.shape, setup.saved)
        tensors = adapter_tensors(setup) if setup.rank else parts.model_tensors(setup.shape)
        trained = ((tensors, setup.trained), (whole, setup.dtype))
        kept += Bytes(optimizer_states=sum(parts.state_bytes(each, setup.optimizer, of) for each, of in trained))
        gradients = sum(sum(each) * BYTES[of] for each, of in trained)
        phases["training"] = kept + resident + training_bytes(setup, gradients)
        if setup.measured[0]:  # by the model itself, between two steps
            answering = replace(setup, generated=setup.measured[0], completion=setup.measured[1])
            phases["held-out problems"] = kept + resident + generation_bytes(answering)
        if setup.rows and setup.accumulation > setup.generated // setup.rows > 0:  # generated in the middle of a step
            kept += Bytes(gradients=gradients)
        if setup.old_logps:
            phases["log-probabilities"] = kept + resident + scoring_bytes(setup)
    if setup.generated:
        phases["generation"] = kept + (Bytes(vllm=engine) if engine else generation_bytes(setup))
    return Plan(setup, phases, lacks)


def engine_bytes(setup: Setup) -> int:
    """Return the least that vLLM must have: its weights, in TRL's 16 bits, and one sequence of full length."""
    bits = setup.bits if setup.backend == "unsloth" and setup.bits in (4, 8) else 16
    weights = parts.linear_bytes(setup.shape, bits, setup.nested) + parts.rest_bytes(setup.shape, "bfloat16")
    return weights + parts.cache_bytes(setup.shape, 1, setup.tokens)


def weight_parts(setup: Setup) -> Bytes:
    """Return what is loaded and stays: the weights, the adapter, the reference."""
    shape, adapter = setup.shape, sum(adapter_tensors(setup)) * BYTES[setup.trained]
    return Bytes(
        weights=parts.linear_bytes(shape, setup.bits, setup.nested),
        rest=parts.rest_bytes(shape, setup.dtype),
        lora=adapter,
        reference_adapter=adapter if setup.reference == "adapter" else 0,
        modules_to_save=sum(parts.saved_tensors(shape, setup.saved)) * BYTES[setup.dtype],
        reference_model=shape.parameters * BYTES[setup.dtype] if setup.reference == "model" else 0,
        reward_models=setup.reward_models,
    )


def adapter_tensors(setup: Setup) -> list[int]:
    """Return the elements of each tensor of the adapter, if there is one."""
    return parts.adapter_tensors(setup.shape, setup.rank, setup.targets, setup.dora) if setup.rank else []
