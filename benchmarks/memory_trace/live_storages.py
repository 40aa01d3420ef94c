"""What a computation holds in memory: a dispatch mode that counts the storages that are alive, op by op.

It sees what an allocator would be asked for: every storage once, however many tensors look at it, rounded up to the
512 bytes of PyTorch's CUDA allocator. It works on real tensors and, above a FakeTensorMode, on tensors without data.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

ROUNDING = 512
OTHER = "activations"


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and keeps the most there ever were, by phase.

    Args:
        values: answers `tensor.item()` for tensors without data, from the tensor; None where tensors have data.
        rows: how many rows a boolean mask picks out of a tensor without data.

    Attributes:
        now: bytes alive.
        phase: the name under which the peak is kept from here on.
        peaks: `{phase: bytes}`.
        at_peak: `{phase: {category: bytes}}`, what was alive then; `OTHER` is what `name` was never told about.
        op_at_peak: `{phase: operation}`.
    """

    def __init__(self, values: Callable[[torch.Tensor], Any] | None = None, rows: int = 0):
        super().__init__()
        self.values, self.rows = values, rows
        self.now, self.phase = 0, ""
        self.peaks: dict[str, int] = {}
        self.at_peak: dict[str, dict[str, int]] = {}
        self.op_at_peak: dict[str, str] = {}
        self.by_category: dict[str, int] = {}
        self._alive: dict[int, tuple[weakref.ref, int, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation and count what it returned."""
        kwargs = kwargs or {}
        if self.values is not None:
            if func is torch.ops.aten._local_scalar_dense.default:
                return self.values(args[0])
            if func is torch.ops.aten.index.Tensor and args[1][0].dtype == torch.bool:
                rows = min(self.rows, args[1][0].numel())
                return self._new(func, args[0].new_empty((rows, *args[0].shape[args[1][0].dim() :])))
            if func is torch.ops.aten.nonzero.default:
                return self._new(func, args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64))
        result = func(*args, **kwargs)
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf, func)
        return result

    def _new(self, func: Any, tensor: torch.Tensor) -> torch.Tensor:
        self.see(tensor, func)
        return tensor

    def see(self, tensor: torch.Tensor, func: Any = None, category: str = OTHER) -> None:
        """Count a tensor's storage, if it is not counted yet."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive and self._alive[key][0]() is storage:
            return
        size = -(-storage.nbytes() // ROUNDING) * ROUNDING
        self._alive[key] = (weakref.ref(storage, lambda _: self._drop(key)), size, category)
        self.now += size
        self.by_category[category] = self.by_category.get(category, 0) + size
        if self.now > self.peaks.get(self.phase, 0):
            self.peaks[self.phase] = self.now
            self.at_peak[self.phase] = dict(self.by_category)
            self.op_at_peak[self.phase] = str(func)

    def name(self, tensors: Iterable[torch.Tensor], category: str) -> int:
        """Put the storages of tensors into a category; returns their bytes, without those that were named before."""
        total = 0
        for tensor in tensors:
            self.see(tensor)
            key = tensor.untyped_storage()._cdata
            reference, size, before = self._alive[key]
            if before == OTHER:
                self._alive[key] = (reference, size, category)
                self.by_category[before] -= size
                self.by_category[category] = self.by_category.get(category, 0) + size
                total += size
        return total

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count the storages of tensors as nothing from here on."""
        for tensor in tensors:
            self.see(tensor)
            key = tensor.untyped_storage()._cdata
            reference, size, category = self._alive[key]
            self._alive[key] = (reference, 0, category)
            self.now -= size
            self.by_category[category] -= size

    def forget(self) -> None:
        """Drop the peaks, and begin again at what is alive now."""
        self.peaks, self.at_peak, self.op_at_peak = {}, {}, {}

    def enter(self, phase: str) -> None:
        """Begin a phase, whose peak is at least what is alive at its beginning."""
        self.phase = phase
        if self.now > self.peaks.get(phase, 0):
            self.peaks[phase], self.at_peak[phase] = self.now, dict(self.by_category)
            self.op_at_peak[phase] = "the beginning"

    def _drop(self, key: int) -> None:
        _, size, category = self._alive.pop(key)
        self.now -= size
        self.by_category[category] -= size
