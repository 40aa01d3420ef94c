"""What a CUDA card would allocate, for a trace on tensors without data, which live on the CPU device.

Autograd refuses CUDA tensors where PyTorch was built without CUDA, so a trace runs on the CPU device everywhere. Where the
CPU takes other kernels than the card would, what stands here allocates, keeps and frees what the card's kernels do:

    attention     FlashAttention-2 without a mask, the memory-efficient kernel with one; no S x S matrix of scores. The
                  backward's fp32 sum of dQ, and dK and dV for every query head (PyTorch's mha_bwd) are counted.
    dropout       one byte a value for the mask (`native_dropout`); the CPU keeps the mask in the input's dtype.
    TRL's loss    the Triton kernels work in place on their tile; only completion tokens are scored.
    bitsandbytes  4-bit and 8-bit linear layers dequantise the whole weight for one product, forwards and backwards.

Not counted, here or in the trace: the CUDA context, workspaces of cuBLAS (some 10 MB), fragmentation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from bitsandbytes import MatmulLtState
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch.nn import functional

NF4_BLOCK, NESTED_BLOCK = 64, 256  # bitsandbytes: values a scale, and scales a second scale


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for the length of a `with` block; does nothing where the owner has none of that name."""
    if not hasattr(owner, name):
        yield
        return
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def kernels_of_a_gpu() -> Iterator[None]:
    """Let PyTorch, PEFT and TRL (1.14 to 1.16) take the paths of a CUDA card on the CPU device."""
    import trl.trainer.utils as trl_utils

    autocast = torch.is_autocast_enabled
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(functional, "scaled_dot_product_attention", attention))
        stack.enter_context(replaced(functional, "dropout", _dropout))
        stack.enter_context(replaced(torch, "is_autocast_enabled", lambda device="cpu": autocast("cpu")))  # PEFT asks
        stack.enter_context(replaced(trl_utils, "_fused_logprob_entropy", _LogProbEntropy.call))  # TRL 1.14
        stack.enter_context(replaced(trl_utils, "_supports_trl_loss_kernel", lambda *_: True))
        stack.enter_context(replaced(trl_utils, "_use_triton", lambda device: True))
        try:
            from trl.kernels import chunked_logprob
        except ImportError:  # TRL 1.14 has none
            yield
            return
        if not hasattr(chunked_logprob, "triton"):
            chunked_logprob.triton = None
            stack.callback(delattr, chunked_logprob, "triton")
        cdiv = SimpleNamespace(cdiv=lambda a, b: -(-a // b))
        for name, value in {
            "triton": cdiv,
            "_use_triton": lambda device: True,
            "_forward_kernel": _NoKernel(),
            "_backward_kernel": _NoKernel(),
            "_addmm_fp32": lambda total, a, b: None,  # `out_dtype`: a product in fp32 without copies in fp32
        }.items():
            stack.enter_context(replaced(chunked_logprob, name, value))
        yield


class _NoKernel:
    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **kwargs: None


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Stand in for `scaled_dot_product_attention`: (rows, heads, tokens, head size) in and out, as on a CUDA card.

    In float32 no fused kernel shares key heads between query heads (`enable_gqa`), and the scores are written out.
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    if enable_gqa and query.dtype == torch.float32:
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
        )[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(query.dtype)  # PyTorch adds the mask, so it writes it out in the dtype of the queries
    return _Attention.apply(query, key, value, attn_mask)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        rows, heads, tokens, _ = q.shape
        out = q.new_empty((rows, tokens, heads, v.shape[3])).transpose(1, 2)
        log_sum = q.new_empty((rows, heads, tokens), dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, log_sum, mask)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        q, k, v = ctx.saved_tensors[:3]
        rows, heads, tokens, size = q.shape
        padded = -(-tokens // 128) * 128
        delta = q.new_empty((rows, heads, padded), dtype=torch.float32)
        dq_sum = q.new_empty((rows, heads, padded, -(-size // 32) * 32), dtype=torch.float32)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        if heads != k.shape[1]:
            wide = [x.new_empty((rows, k.shape[2], heads, x.shape[3])) for x in (k, v)]
            del wide
        del delta, dq_sum
        return dq, dk, dv, None


class _LogProbEntropy(torch.autograd.Function):
    """`trl.kernels.logprob_entropy` of TRL 1.14: the logits are kept, and their gradient is as large again."""

    @staticmethod
    def call(logits: Any, index: Any, temperature: float = 1.0, row_mask: Any = None) -> tuple:
        return _LogProbEntropy.apply(logits, index, row_mask)

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, index: torch.Tensor, row_mask: torch.Tensor | None) -> tuple:
        one_a_row = [logits.new_empty(logits.shape[:-1], dtype=torch.float32) for _ in range(4)]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, index, *one_a_row[2:], row_mask)
        return tuple(one_a_row[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple:
        return torch.empty_like(ctx.saved_tensors[0], memory_format=torch.contiguous_format), None, None


class Packed4bit(Linear4bit):
    """A linear layer of bitsandbytes with 4-bit weights and their constants, without data.

    Args:
        linear: the layer whose place it takes.
        dtype: what the weights are dequantised to and multiplied in.
        nested: the constants are quantised too (double quantisation).
    """

    def __init__(self, linear: torch.nn.Linear, dtype: torch.dtype, nested: bool):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        size = linear.weight.numel()
        self.weight = torch.nn.Parameter(torch.empty(((size + 1) // 2, 1), dtype=torch.uint8), requires_grad=False)
        self.weight.compress_statistics, self.weight.quant_type = nested, "nf4"
        self.weight.quant_state = None
        scales = -(-size // NF4_BLOCK)
        self.register_buffer("absmax", torch.empty(scales, dtype=torch.uint8 if nested else torch.float32))
        self.register_buffer("code", torch.empty(16, dtype=torch.float32))
        if nested:
            self.register_buffer("nested_absmax", torch.empty(-(-scales // NESTED_BLOCK), dtype=torch.float32))
            self.register_buffer("nested_code", torch.empty(256, dtype=torch.float32))
            self.register_buffer("offset", torch.empty((), dtype=torch.float32))
        self.compute_dtype, self.nested = dtype, nested

    def dequantised(self, dtype: torch.dtype) -> torch.Tensor:
        """Allocate the whole weight, and on the way the constants in float32."""
        absmax = self.absmax.float() + self.offset if self.nested else self.absmax
        weight = absmax.new_empty((self.out_features, self.in_features), dtype=self.compute_dtype)
        del absmax
        return weight.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `bitsandbytes.autograd.MatMul4Bit`: the weight is dequantised for the product and again in the backward."""
        return _Dequantised.apply(x.to(self.compute_dtype), self).to(x.dtype)


class _Dequantised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Packed4bit) -> torch.Tensor:
        ctx.layer = layer
        with torch.autocast("cpu", enabled=False):
            return functional.linear(x, layer.dequantised(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        return torch.matmul(grad, ctx.layer.dequantised(grad.dtype)), None


class Packed8bit(Linear8bitLt):
    """A linear layer of bitsandbytes with 8-bit weights (LLM.int8()), without data and without outliers.

    Args:
        linear: the layer whose place it takes.
    """

    def __init__(self, linear: torch.nn.Linear):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self.weight = torch.nn.Parameter(torch.empty(linear.weight.shape, dtype=torch.int8), requires_grad=False)
        self.register_buffer("scales", torch.empty(linear.out_features, dtype=torch.float32))
        self.state, self.index = MatmulLtState(), None
        self.state.has_fp16_weights, self.state.threshold = False, 6.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `bitsandbytes.autograd.MatMul8bitLt`: the input is kept, and quantised for a product in int32."""
        return _Int8.apply(x, self)


class _Int8(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Packed8bit) -> torch.Tensor:
        ctx.layer, ctx.kept = layer, x
        quantised = torch.empty_like(x.to(torch.float16), dtype=torch.int8)
        product = quantised.new_empty((*x.shape[:-1], layer.out_features), dtype=torch.int32)
        del quantised
        return product.to(torch.float16).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        weight = ctx.layer.weight.to(grad.dtype, copy=True) * ctx.layer.scales.unsqueeze(1).to(grad.dtype)
        return torch.matmul(grad, weight), None
