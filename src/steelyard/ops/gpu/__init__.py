"""The Triton kernels on a GPU: the door to them, and the operators that they implement.

Importing this imports no Triton: that happens when the first tensor on a GPU comes. Where Triton is missing, for
float64, and for tensors that lie in memory in a way that the kernels do not walk, the reference serves.

The dispatcher chooses by device (its key is ``CUDA`` for NVIDIA's and AMD's). The functions here take tensors of any
device: without a GPU, Triton's interpreter runs the same kernels on the CPU, which is how the tests do it.
"""

from __future__ import annotations

import functools
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from steelyard._errors import warn
from steelyard.ops.gpu._launch import EACH, SUMS
from steelyard.ops.library import (
    implement,
    sigmoid_loss_backward_by_reference,
    sigmoid_loss_by_reference,
    softmax_loss_backward_by_reference,
    softmax_loss_by_reference,
)
from steelyard.ops.reference import class_dim

__all__ = [
    "DEVICES",
    "installed",
    "label_sums",
    "ready",
    "sigmoid_mend",
    "sigmoid_sums",
    "softmax_mend",
    "softmax_sums",
    "version",
]

DEVICES = {"cuda"}
"""Types of device that meet the kernels; the tests add the CPU to them."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_MOST_CLASSES = 2**31 - 2**16  # so that the number of a class, beyond the last one in its tile too, has 32 bits


@functools.cache
def installed() -> bool:
    """Whether there is a Triton to import."""
    return find_spec("triton") is not None


def version() -> str | None:
    """Triton's, without importing it."""
    if not installed():
        return None
    for package in ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "of an unknown version"


_capable: dict[int, bool] = {}
"""Whether Triton compiles for a device, once that was tried."""


def _is_capable(index: int) -> bool:
    """Whether it does: for NVIDIA's from Volta on, and AMD's, on a system with a C compiler."""
    if index not in _capable:
        if torch.cuda.is_current_stream_capturing():  # no time to find out
            return True
        _capable[index] = _try_out(index)
    return _capable[index]


def _try_out(index: int) -> bool:
    if torch.version.hip is None and torch.cuda.get_device_capability(index) < (7, 0):
        return False
    try:
        import_module("steelyard.ops.gpu.functions").try_out(torch.device("cuda", index))
    except torch.OutOfMemoryError:  # which says nothing about Triton
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        warn(
            f"steelyard: Triton cannot run kernels on {torch.cuda.get_device_name(index)}: {reason} The formulas in "
            "plain PyTorch serve, which take more time and memory."
        )
        return False
    return True


def ready(input: Tensor) -> bool:
    """Whether kernels serve such logits, in memory and now."""
    if torch.compiler.is_compiling():
        return False
    if input.device.type not in DEVICES or input.dtype not in _DTYPES or not installed():
        return False
    return not input.is_cuda or _is_capable(input.device.index)


def _plain(input: Tensor, *others: Tensor | None) -> bool:
    """Whether kernels may follow the pointers: numbers as they stand, in one device's memory."""
    return (
        ready(input)
        and input.numel() > 0
        and all(
            t is None or (t.device == input.device and t.layout == torch.strided and not t.is_neg())
            for t in (input, *others)
        )
    )


def _softmax_serves(input: Tensor, target: Tensor, settings: tuple[Any, ...]) -> bool:
    weight, row_weight, offset, margin = settings[:4]
    if not _plain(input, target, weight, row_weight, offset, margin) or input.dim() == 0:
        return False
    dim = class_dim(input)
    if input.shape[dim] >= _MOST_CLASSES:
        return False
    rows = input.shape[:dim] + input.shape[dim + 1 :]
    wide = all(t is None or t.dtype == torch.float32 for t in (weight, row_weight, offset, margin))
    fit = all(t is None or t.shape == (input.shape[dim],) for t in (weight, offset, margin))
    fit = fit and (row_weight is None or row_weight.shape == rows)
    return wide and fit and target.shape == (input.shape if target.is_floating_point() else rows)


def label_sums(
    input: Tensor, target: Tensor, weight: Tensor | None, row_weight: Tensor | None, ignore_index: int
) -> Tensor | None:
    """Numbers that add up to ``Σ v·w[y]`` over rows that are not ignored; None where PyTorch is to add."""
    if not _softmax_serves(input, target, (weight, row_weight, None, None)):
        return None
    from steelyard.ops.gpu import labels

    return labels.launch(target, weight, row_weight, input.shape[class_dim(input)], ignore_index)


def _sigmoid_serves(input: Tensor, target: Tensor, settings: tuple[Any, ...]) -> bool:
    weight, pos_weight = settings[:2]
    if not _plain(input, target, weight, pos_weight) or target.shape != input.shape:
        return False
    if target.dtype == torch.float64 and abs(settings[6] or 0) > 2**24:  # kernels take numbers in float32
        return False
    return all(t is None or (t.dtype == torch.float32 and _broadcasts(t, input)) for t in (weight, pos_weight))


def _broadcasts(values: Tensor, input: Tensor) -> bool:
    pairs = zip(reversed(values.shape), reversed(input.shape), strict=False)
    return values.dim() <= input.dim() and all(have in (1, want) for have, want in pairs)


# ---------------------------------------------------------------------------------------------------------- operators


def softmax_loss(input: Tensor, target: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """``steelyard::softmax_loss``: one read of the logits."""
    if _softmax_serves(input, target, settings):
        from steelyard.ops.gpu import softmax_launch

        found = softmax_launch.launch(input, target, *settings, loss=EACH, statistics=True)
        if found is not None:
            assert found.loss is not None
            assert found.statistics is not None
            return found.loss, *found.statistics
    return softmax_loss_by_reference(input, target, *settings)


def softmax_loss_backward(
    grad: Tensor,
    input: Tensor,
    target: Tensor,
    maximum: Tensor,
    total: Tensor,
    *settings: Any,
    out: Tensor | None = None,
) -> Tensor:
    """``steelyard::softmax_loss_backward``: one read, one write; ``out`` may be ``input`` itself."""
    if _softmax_serves(input, target, settings) and _plain(input, grad, maximum, total):
        from steelyard.ops.gpu import softmax_launch

        saved = (maximum.contiguous(), total.contiguous())
        found = softmax_launch.launch(input, target, *settings, saved=saved, upstream=grad.float(), gradient=out)
        if found is not None:
            assert found.gradient is not None
            return found.gradient
    return softmax_loss_backward_by_reference(grad, input, target, maximum, total, *settings)


def sigmoid_loss(input: Tensor, target: Tensor, *settings: Any) -> Tensor:
    """``steelyard::sigmoid_loss``: one read of logits and targets."""
    if _sigmoid_serves(input, target, settings):
        from steelyard.ops.gpu import sigmoid_launch

        found = sigmoid_launch.launch(input, target, *settings, loss=EACH)
        if found is not None:
            assert found.loss is not None
            return found.loss
    return sigmoid_loss_by_reference(input, target, *settings)


def sigmoid_loss_backward(
    grad: Tensor, input: Tensor, target: Tensor, *settings: Any, out: Tensor | None = None
) -> Tensor:
    """``steelyard::sigmoid_loss_backward``: one read, one write; ``out`` may be ``input`` itself."""
    if _sigmoid_serves(input, target, settings) and _plain(input, grad):
        from steelyard.ops.gpu import sigmoid_launch

        found = sigmoid_launch.launch(input, target, *settings, upstream=grad.float(), gradient=out)
        if found is not None:
            assert found.gradient is not None
            return found.gradient
    return sigmoid_loss_backward_by_reference(grad, input, target, *settings)


implement("softmax_loss", softmax_loss, "CUDA")
implement("softmax_loss_backward", softmax_loss_backward, "CUDA")
implement("sigmoid_loss", sigmoid_loss, "CUDA")
implement("sigmoid_loss_backward", sigmoid_loss_backward, "CUDA")


# --------------------------------------------------------------------------------- the gradient in the forward pass


def _kernels(formula: str) -> Any:
    """The module that launches the kernels of a formula; with it comes Triton."""
    return import_module(f"steelyard.ops.gpu.{formula}")


def _sums(
    formula: str, input: Tensor, target: Tensor, upstream: Tensor, *settings: Any, out: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Numbers that add up to the sum of the losses, and the gradient for one upstream gradient, 0-d, of all of them.

    One read and one write; ``out`` may be ``input`` itself. None where the reference is due.
    """
    serves = _softmax_serves if formula == "softmax_launch" else _sigmoid_serves
    if not serves(input, target, settings):
        return None
    found = _kernels(formula).launch(input, target, *settings, loss=SUMS, upstream=upstream, gradient=out)
    return None if found is None else (found.loss, found.gradient)


def _mend(
    formula: str, input: Tensor, target: Tensor, upstream: Tensor, used: Tensor, gradient: Tensor, *settings: Any
) -> None:
    """Compute the gradient again if ``upstream`` is another than was ``used``: the device looks, and nobody waits."""
    _kernels(formula).launch(input, target, *settings, upstream=upstream, used=used, gradient=gradient)


softmax_sums, sigmoid_sums = (functools.partial(_sums, formula) for formula in ("softmax_launch", "sigmoid_launch"))
softmax_mend, sigmoid_mend = (functools.partial(_mend, formula) for formula in ("softmax_launch", "sigmoid_launch"))
