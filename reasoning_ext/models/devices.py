"""What a recipe leaves out and the device decides: dtype, autocast, attention implementation, gradient checkpointing.

TRL's own defaults are those of one device (float32 weights, checkpointing on); a recipe that moves from a laptop to a
card keeps its text, so the choice is made here. What a recipe says is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Device:
    """`cpu`, `cuda`, `xpu` or `mps`; whether it computes in bfloat16 by itself; whether flash-attn is there."""

    kind: str
    bf16: bool = False
    flash: bool = False


@dataclass(frozen=True)
class Choice:
    """What a model is loaded with; an attention of None is transformers' own: sdpa or eager.

    `autocast` is what a training step computes in, bfloat16 or float16; None: in the type of the weights.
    """

    dtype: str | None
    attn_implementation: str | None
    gradient_checkpointing: bool
    autocast: str | None


def choose(device: Device, values: Mapping[str, Any], frozen: bool) -> Choice:
    """Fill in what a recipe's `values` leave out for a device; `frozen`: the model's own weights are not trained.

    Weights that are trained are in float32, as in TRL, under its autocast, and all are on the CPU and MPS; frozen
    ones take 16 bits, bfloat16 where the device has it. Flash-attn is for 16-bit weights on CUDA, and needs the cards
    that have bfloat16. Gradients are checkpointed, as in TRL, but on the CPU, where it saves nothing that is scarce.
    bf16, which TRL sets, is left off on a machine without an accelerator, where it is slow and refused, and is fp16 on
    a card that has no bfloat16.
    """
    sixteen = "bfloat16" if device.bf16 else "float16"
    dtype = values.get("dtype", sixteen if frozen and device.kind in ("cuda", "xpu") else "float32")
    flash = device.kind == "cuda" and device.bf16 and device.flash and dtype in ("bfloat16", "float16")
    attention = "flash_attention_2" if flash and values.get("backend", "trl") == "trl" else None
    checkpointing = values.get("gradient_checkpointing", device.kind != "cpu")
    old = device.kind == "cuda" and not device.bf16
    fp16 = values.get("fp16", old and not values.get("bf16"))
    bf16 = values.get("bf16", device.kind != "cpu" and not old and not fp16)
    autocast = "bfloat16" if bf16 else "float16" if fp16 else None
    return Choice(dtype, values.get("attn_implementation", attention), checkpointing, autocast)


def found_device(use_cpu: bool = False) -> Device:
    """Return the device that TRL will train on, as the recipe's key `use_cpu` lets it; torch is imported."""
    from accelerate.utils import is_cuda_available, is_mps_available, is_xpu_available
    from transformers.utils import is_flash_attn_2_available

    if use_cpu:
        return Device("cpu")
    if is_cuda_available():
        import torch

        return Device("cuda", torch.cuda.is_bf16_supported(including_emulation=False), is_flash_attn_2_available())
    return Device("xpu", bf16=True) if is_xpu_available() else Device("mps" if is_mps_available() else "cpu")
