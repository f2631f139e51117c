"""What the tests of the GPU's kernels share: where they run, and calls of the two operators there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import Elements, Rows
from torch import Tensor

from steelyard.ops import cpu, gpu, library

__all__ = [
    "DEVICE", "DTYPES", "GRIDS", "HAS_GPU", "NEEDS_GPU", "at", "both", "dispatched", "interpreted", "operator", "sums",
]  # fmt: skip

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
NEEDS_GPU = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

GRIDS: dict[str, dict[str, int]] = {
    "one row a program": {"tile": 1},
    "several rows a program": {"tile": 32},
    "tiles of long rows": {"on_chip": 1, "stream": 8, "processors": 2},
}
"""Sizes that force each shape of the grid on small tensors."""


def _rounded(convert: Any) -> Any:
    """The interpreter's conversion of floats, where bfloat16 is rounded as hardware does; NumPy has none, and its own
    cuts bits off."""  # noqa: D209
    import triton.language as tl

    def to(data: Any, source: Any, result: Any, mode: Any) -> Any:
        if source == tl.bfloat16 and result == tl.float32:  # the same, and fast
            return (np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << 16).reshape(data.shape)
        if source == tl.float32 and result == tl.bfloat16:
            wide = torch.from_numpy(np.ascontiguousarray(data).view(np.float32))
            return wide.bfloat16().view(torch.int16).numpy().view(np.uint16).reshape(data.shape)
        return convert(data, source, result, mode)

    return to


class _Patched:
    """The interpreter's patches of Triton's language, made once for each function and not anew for each call of it."""

    def __init__(self, patch: Any) -> None:
        self.patch, self.scopes = patch, {}

    def __call__(self, function: Any) -> Any:
        if function not in self.scopes:
            self.scopes[function] = self.patch(function)
        return self

    def restore(self) -> None:
        """Later."""

    def restore_all(self) -> None:
        for scope in reversed(self.scopes.values()):
            scope.restore()


@contextmanager
def interpreted() -> Iterator[None]:
    """Tensors on the CPU meet the GPU's kernels, unless there is a GPU."""
    if HAS_GPU:
        yield
        return
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"), cpu.using("reference"):
        patch.setattr(gpu, "DEVICES", {"cpu"})
        patch.setattr(interpreter, "_convert_float", _rounded(interpreter._convert_float))
        patched = _Patched(interpreter._patch_lang)
        patch.setattr(interpreter, "_patch_lang", patched)
        try:
            yield
        finally:
            patched.restore_all()


@contextmanager
def dispatched() -> Iterator[None]:
    """The operators of PyTorch lead to the kernels, on the CPU too: those under the reference's names."""
    if HAS_GPU:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in ("softmax_loss", "softmax_loss_backward", "sigmoid_loss", "sigmoid_loss_backward"):
            patch.setattr(library, f"{name}_by_reference", getattr(gpu, name))
        yield


def at(case: Any, device: torch.device = DEVICE) -> Any:
    """The case with its tensors on a device."""
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(case).items()}
    return replace(case, **moved)


def operator(case: Rows | Elements) -> tuple[Tensor, Tensor]:
    """Loss and gradient by the kernels, of a case wherever it lies."""
    if isinstance(case, Rows):
        loss, maximum, total = gpu.softmax_loss(case.input, case.target, *case.settings)
        grad = gpu.softmax_loss_backward(case.upstream, case.input, case.target, maximum, total, *case.settings)
        return loss, grad
    return (
        gpu.sigmoid_loss(case.input, case.target, *case.settings),
        gpu.sigmoid_loss_backward(case.upstream, case.input, case.target, *case.settings),
    )


def sums(case: Rows | Elements, upstream: float) -> tuple[Tensor, Tensor]:
    """The sum of the losses, and the gradient for one upstream gradient of all, from one kernel."""
    function = gpu.softmax_sums if isinstance(case, Rows) else gpu.sigmoid_sums
    found = function(case.input, case.target, torch.tensor(upstream, device=case.input.device), *case.settings)
    assert found is not None
    return found[0].double().sum(), found[1]


def both(case: Rows | Elements) -> list[tuple[Tensor, Tensor]]:
    """What the kernels say and what the reference says, side by side, on the host."""
    return [(a.cpu(), b.cpu()) for a, b in zip(operator(case), case.reference(), strict=True)]
