"""What a step computes with and throws away, in bytes: activations, logits, dequantised weights, attention masks.

The activations of a layer are linear in the tokens and in its widths, but for which operation is the highest: the
largest of a few planes. They are fitted to traces of TRL's own step (`benchmarks/fit_activations.py`) and stand in
`activation_coefficients.json`; those of Unsloth, whose kernels no trace sees, and those in float32, as on a CPU, are
counted from the source by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.check.memory.parts import BYTES, Bytes, cache_bytes
from reasoning_ext.check.memory.setup import Setup

FAMILIES = {"mistral": "llama", "qwen2": "llama", "gemma3_text": "gemma3"}
HEAD_TOKENS, HEAD_VOCAB = 4096, 32768  # the tile of TRL's fused head, trl/kernels/chunked_logprob.py
HEAD_HIDDEN = 16  # bytes a token for each unit of the hidden state around the head: the last norm, its gradient
UNFUSED = ("adamw_torch", "adagrad", "rmsprop")
# Unsloth's tile of logits, unsloth_zoo/fused_losses/chunked_logprob.py: an eighth of the rows, 8 bytes a logit
UNSLOTH_LOGITS, UNSLOTH_ROWS = 2 * 2**30, 512
# Unsloth's layer, counted from the tensors that its kernels keep and make: input, norms and residuals, queries, keys and
# values, gate and up, and in the backward pass of the feed-forward part the gradients of its output, input and gate.
UNSLOTH_LAYER = (16.0, 4.0, 4.0, 6.0)
FORWARD = (8.0, 0.0, 0.0, 6.0)  # a layer without gradients: residual, norm in float32, gate, up and their product
FORWARD_32 = (16.0, 1.0, 0.0, 6.0)  # the same with float32 weights under autocast
# A layer in float32 without autocast, with LoRA, with its dropout, and where all weights are trained: what its backward
# pass is given by the norms, attention over repeated keys and values, the products, and PEFT's modules.
IN_FLOAT32 = {
    "llama": ((16.0, 16.0, 0.0, 16.0), (48.0, 24.0, 0.0, 20.0), (24.0, 16.0, 0.0, 16.0)),
    "qwen3": ((16.0, 20.0, 4.0, 16.0), (48.0, 28.0, 4.0, 20.0), (24.0, 24.0, 8.0, 16.0)),
    "phi3": ((16.0, 16.0, 0.0, 16.0), (24.0, 24.0, 0.0, 20.0), (24.0, 16.0, 0.0, 16.0)),
    "gemma3": ((24.0, 20.0, 4.0, 16.0), (56.0, 28.0, 4.0, 20.0), (40.0, 24.0, 8.0, 16.0)),
}
# What the norms of queries and keys keep beside that in every layer, where none is computed again; fitted to traces.
HEAD_NORMS = (0.0, 8.0, 8.0, 0.0), (0.0, 8.0, 4.0, 0.0), (0.0, 12.0, 4.0, 0.0)
BACKWARD_FLOAT32 = (4.0, 0.0, 0.0, 8.0)  # the gradients beside it
FORWARD_FLOAT32 = (8.0, 0.0, 0.0, 16.0)
# Bytes a logit beside the tile itself, backward and forward, where TRL folds a tile with operations of torch in the
# place of its Triton kernel (`_backward_tile`, `_forward_tile`); every position of a row has logits there.
TORCH_TILE = 29, 13


@cache
def _coefficients() -> dict[str, Any]:
    text = (Path(__file__).parent / "activation_coefficients.json").read_text(encoding="utf-8")
    return json.loads(text)["coefficients"]


def training_bytes(setup: Setup, gradients: int) -> Bytes:
    """Return what is alive at the highest point of a step, beside weights and optimizer; `gradients`: their bytes."""
    layers, table = setup.shape.layers, setup.shape.vocab * setup.shape.hidden * BYTES[setup.trained]
    held = gradients if setup.accumulation > 1 else 0  # those of earlier batches
    head = 0 if setup.rank else table
    waiting = head if setup.shape.tied else 0  # the head's gradient waits for that of the embeddings, to be added to it
    kept, layer = _layers(setup)
    inside = Bytes(mask=_mask(setup), layer=layer, dequantised=_dequantised(setup))
    at_head = Bytes(mask=_mask(setup), gradients=held, checkpoints=kept * layers)
    copies = 0 if setup.rank else (2 if setup.shape.tied else 0) + (setup.accumulation > 1)
    last = table * copies  # of the embeddings' gradient, beside the sum that it is added to
    unfused = gradients if setup.optimizer in UNFUSED else 0  # roots of all second moments at once
    points = [
        # backward through the last layer
        inside + Bytes(gradients=held + waiting if held else gradients // layers + head, checkpoints=kept * layers),
        # backward and forward at the head
        at_head + Bytes(logits=_head(setup)),
        at_head + Bytes(logits=_head(setup, backward=False), cast=_cast(setup)),
        # backward through the first layer, and into the embeddings
        inside + Bytes(gradients=gradients + (waiting if held else 0), checkpoints=kept),
        Bytes(gradients=gradients, embeddings_gradient=last),
        # the optimizer's step
        Bytes(gradients=gradients, optimizer_temporaries=unfused),
    ]
    if setup.scored:  # the reference's forward pass, before the backward pass
        scored = Bytes(gradients=held, checkpoints=kept * layers, cast=_cast(setup))
        points.append(scored + scoring_bytes(setup))
    return max(points, key=lambda point: point.total)


def scoring_bytes(setup: Setup) -> Bytes:
    """Return what is alive at the highest point of scoring without gradients, beside what was before."""
    layer = _plane(_forward(setup), setup) * setup.rows * setup.tokens
    head = _head(setup, backward=False)
    made = Bytes(layer=layer) if layer > head else Bytes(logits=head)
    return made + Bytes(mask=_mask(setup), dequantised=_dequantised(setup), cast=_cast(setup))


def generation_bytes(setup: Setup) -> Bytes:
    """Return what is alive at the highest point of generating with transformers, beside the weights.

    At the last token a layer's keys and values are written anew, and repeated for every head by transformers that
    cannot attend otherwise to padded prompts; at the first one all prompts go through a layer at once.
    """
    from transformers.integrations import sdpa_attention

    shape, rows, width = setup.shape, setup.generated, BYTES[setup.dtype]
    keys = cache_bytes(shape, rows, setup.tokens, width)
    last = keys // shape.layers + rows * shape.vocab * 4 * 3  # logits in float32, filtered, and their probabilities
    if setup.backend == "unsloth" or not hasattr(sdpa_attention, "pack_gqa"):  # transformers before 5.20 or so
        last += 2 * rows * setup.tokens * shape.heads * shape.head_dim * width
    first = _plane(_forward(setup) if setup.host else FORWARD, setup) * rows * setup.prompt
    first += cache_bytes(shape, rows, setup.prompt, width) - keys  # the cache is no longer than the prompts then
    return Bytes(kv_cache=keys, layer=max(first, last), dequantised=_dequantised(setup))


def _layers(setup: Setup) -> tuple[int, int]:
    """Return what is kept of each layer, and what one layer takes where it is computed again."""
    tokens, family = setup.rows * setup.tokens, FAMILIES.get(setup.shape.model_type, setup.shape.model_type)
    if setup.backend == "unsloth":
        layer = _plane(UNSLOTH_LAYER, setup) * tokens
        return 0 if setup.checkpointing else layer, layer
    ranks = 28 * (setup.rank or 0) * tokens  # what seven modules make between their two matrices
    if setup.computed == "float32":
        case = 2 if setup.rank is None else 1 if setup.dropout else 0
        plane = IN_FLOAT32[family][case]
        norms = _plane(HEAD_NORMS[case], setup) if family in ("qwen3", "gemma3") else 0
        kept = 4 * setup.shape.hidden if setup.checkpointing else _plane(plane, setup) + norms
        layer = _plane(BACKWARD_FLOAT32, setup) + (_plane(plane, setup) if setup.checkpointing else 0)
        return kept * tokens + (0 if setup.checkpointing else ranks), layer * tokens + ranks
    if setup.rank is None:
        way = "full float32" if setup.dtype == "float32" else "full bfloat16"
    else:
        way = ("nf4" if setup.bits in (4, 8) else "lora") + (" dropout" if setup.dropout else "")
    found = _coefficients()[f"{family}/{way}"]["checkpointed" if setup.checkpointing else "whole"]
    layer = max(0, *(_plane(plane, setup) for plane in found["planes"])) * tokens
    if setup.checkpointing:
        return found["kept"] * setup.shape.hidden * tokens, layer + ranks
    return _plane(found["kept"], setup) * tokens + ranks, layer


def _forward(setup: Setup) -> Sequence[float]:
    """Return what a layer takes without gradients."""
    if setup.computed == "float32":
        return FORWARD_FLOAT32
    return FORWARD_32 if setup.trained == setup.dtype == "float32" else FORWARD


def _plane(plane: Sequence[float], setup: Setup) -> int:
    shape = setup.shape
    widths = (shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate)
    return round(sum(factor * width for factor, width in zip(plane, widths, strict=True)))


def _head(setup: Setup, backward: bool = True) -> int:
    """Return what is made at the head: a tile of logits, or all of them where the installed TRL has no fused head."""
    shape, width = setup.shape, BYTES[setup.computed]
    tokens = setup.rows * (setup.tokens if setup.host else setup.completion or setup.tokens)
    if setup.backend == "unsloth":
        rows = min(tokens, max(UNSLOTH_ROWS, -(-tokens // 8)))
        logits = min(UNSLOTH_LOGITS, 8 * shape.vocab * rows)  # or half of what is free, where that is less
    elif setup.fused:
        width += TORCH_TILE[not backward] if setup.host else 0
        logits = min(tokens, HEAD_TOKENS) * min(shape.vocab, HEAD_VOCAB) * width
    else:
        kept = 10 if setup.stage == "dpo" else 8  # DPO's metrics hold on to the 16-bit ones too
        logits = tokens * shape.vocab * (kept if backward else width + 4)  # accelerate makes them float32
    if backward and (setup.rank is None or "lm_head" in setup.saved):  # the head's own gradient is summed in float32
        copies = 1 if setup.rank is None else 2
        logits += shape.vocab * shape.hidden * (4 + (0 if setup.host else copies * BYTES[setup.dtype]))
    return logits + (HEAD_HIDDEN if backward else 6) * shape.hidden * setup.rows * setup.tokens


def _cast(setup: Setup) -> int:
    """Return the 16-bit copies of float32 weights that autocast keeps for the length of a forward pass."""
    cast = setup.rank is None and setup.dtype == "float32" != setup.computed
    return 2 * setup.shape.linear_weights if cast else 0


def _dequantised(setup: Setup) -> int:
    """Return the bytes of the largest quantised weight, which is made whole where it is used."""
    return 2 * max(linear.weights for linear in setup.shape.linears) if setup.bits in (4, 8) else 0


def _mask(setup: Setup) -> int:
    """Return the bytes of the mask that keeps padding out of attention: one of bits, one of numbers, for all layers."""
    windowed = any(window and window < setup.tokens for window in setup.shape.windows)
    if setup.flash or setup.backend == "unsloth" or not (windowed or (setup.padded and setup.rows > 1)):
        return 0
    return (setup.rows if setup.padded else 1) * setup.tokens**2 * (1 + BYTES[setup.computed])
