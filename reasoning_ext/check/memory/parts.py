"""What weights, adapters, optimizers and caches take on the card, in bytes, from a model's sizes alone.

Sources: bitsandbytes' `functional.quantize_4bit` (a byte holds two values; a constant per 64 of them, itself in 8 bits with a
constant per 256 where it is nested) and `optim/optimizer.py` (8-bit states of tensors from 4,096 elements on, a constant per
256); PEFT's `tuners/lora/layer.py`; transformers' `cache_utils.py`. `benchmarks/memory_plan.py` compares them with real models.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, astuple, dataclass

from reasoning_ext.check.memory.shapes import Linear, Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BLOCK, NESTED_BLOCK, STATE_BLOCK, MIN_8BIT = 64, 256, 256, 4096
MOMENTS = {"adamw": 2, "adam": 2, "ademamix": 3, "lion": 1, "rmsprop": 1, "adagrad": 1, "sgd": 0, "grokadamw": 3}
NAMES = {
    "lora": "LoRA weights", "modules_to_save": "modules_to_save", "optimizer_temporaries": "optimizer's temporaries",
    "vllm": "vLLM", "kv_cache": "KV cache", "embeddings_gradient": "embeddings' gradient", "layer": "one layer's activations",
    "dequantised": "dequantised weight", "mask": "attention mask", "cast": "weights cast to 16 bits",
}  # fmt: skip


@dataclass(frozen=True)
class Bytes:
    """What is alive at one moment, part by part, in bytes."""

    weights: int = 0
    rest: int = 0  # embeddings, head, norms, biases
    lora: int = 0
    modules_to_save: int = 0
    reference_adapter: int = 0
    reference_model: int = 0
    reward_models: int = 0
    optimizer_states: int = 0
    optimizer_temporaries: int = 0
    vllm: int = 0
    kv_cache: int = 0
    mask: int = 0
    gradients: int = 0
    embeddings_gradient: int = 0
    checkpoints: int = 0
    layer: int = 0
    dequantised: int = 0
    logits: int = 0
    cast: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @property
    def total(self) -> int:
        """All of it."""
        return sum(astuple(self))

    def shown(self, bits: int) -> dict[str, int]:
        """Return it for people and for `check --json`, without what is nothing; `bits` are those of the weights."""
        rest = "embeddings, head, norms" if bits in (4, 8) else "embeddings and norms"
        names = NAMES | {"weights": f"weights in {bits} bits", "rest": rest}
        return {names.get(name, name.replace("_", " ")): size for name, size in asdict(self).items() if size}


def four_bit_bytes(elements: int, nested: bool) -> int:
    """Return what one matrix takes in NF4 or FP4; `nested`: its constants are quantised themselves."""
    blocks = math.ceil(elements / NF4_BLOCK)
    constants = blocks + 4 * math.ceil(blocks / NESTED_BLOCK) + 4 * 256 + 4 if nested else 4 * blocks
    return math.ceil(elements / 2) + constants + 4 * 16


def linear_bytes(shape: Shape, bits: int, nested: bool = False) -> int:
    """Return what the linear weights beside the head take in 4, 8, 16 or 32 bits."""
    if bits == 4:
        return sum(four_bit_bytes(linear.weights, nested) * linear.count for linear in shape.linears)
    if bits == 8:  # int8 and a float32 scale per output
        return sum((linear.weights + 4 * linear.outputs) * linear.count for linear in shape.linears)
    return shape.linear_weights * bits // 8


def rest_bytes(shape: Shape, dtype: str) -> int:
    """Return what is never quantised: embeddings, head, norms, biases."""
    return (shape.embeddings + shape.other) * BYTES[dtype]


def targeted(shape: Shape, targets: str | list[str] | None) -> list[Linear]:
    """Return the modules that LoRA goes on, as PEFT chooses them by `lora_target_modules`; None: its own choice."""
    if isinstance(targets, list) and len(targets) == 1:
        targets = targets[0]  # as TRL's ModelConfig does
    if targets == "all-linear":
        return list(shape.linears)
    if targets is None:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as OF_MODEL

        targets = OF_MODEL.get(shape.model_type, [])  # PEFT refuses what it has no choice for
    if isinstance(targets, str):
        return [one for one in shape.linears if one.name == targets or re.fullmatch(targets, one.path)]
    return [one for one in shape.linears if one.name in targets]


def adapter_tensors(shape: Shape, rank: int, targets: str | list[str] | None, dora: bool = False) -> list[int]:
    """Return the elements of each of the adapter's tensors; `dora`: with a magnitude for each output."""
    tensors = []
    for linear in targeted(shape, targets):
        tensors += [rank * linear.inputs, rank * linear.outputs, *[linear.outputs] * dora] * linear.count
    return tensors


def saved_tensors(shape: Shape, names: tuple[str, ...]) -> list[int]:
    """Return the elements of each tensor of `lora_modules_to_save`; embeddings and head are copied both, even tied."""
    whole = [shape.vocab * shape.hidden for name in names if name in ("embed_tokens", "lm_head")]
    return whole + [linear.weights for linear in shape.linears if linear.name in names for _ in range(linear.count)]


def model_tensors(shape: Shape) -> list[int]:
    """Return the elements of each tensor of the whole model, norms and biases as one tensor a layer."""
    tensors = [linear.weights for linear in shape.linears for _ in range(linear.count)]
    tensors += [shape.vocab * shape.hidden] * (1 if shape.tied else 2)
    return tensors + [shape.other // shape.layers] * shape.layers


def state_bytes(tensors: list[int], optimizer: str, dtype: str) -> int:
    """Return what an optimizer keeps.

    Args:
        tensors: the elements of each trained tensor.
        optimizer: `optim`, as transformers names it; unknown ones count as AdamW.
        dtype: of the trained tensors.
    """
    if optimizer.startswith(("adafactor", "galore_adafactor")):  # a row and a column a matrix, nearly square here
        return sum(2 * math.isqrt(elements) * 4 for elements in tensors)
    moments = MOMENTS[next((name for name in MOMENTS if name in optimizer), "adamw")]
    if "8bit" in optimizer:
        return moments * sum(4 * n if n < MIN_8BIT else n + 4 * math.ceil(n / STATE_BLOCK) for n in tensors)
    return moments * (4 if "32bit" in optimizer else BYTES[dtype]) * sum(tensors)


def cache_bytes(shape: Shape, rows: int, tokens: int, width: int = 2) -> int:
    """Return what keys and values of so many sequences of so many tokens take, `width` bytes an element."""
    kept = sum(min(tokens, window) if window else tokens for window in shape.windows)
    return 2 * shape.kv_heads * shape.head_dim * width * rows * kept
