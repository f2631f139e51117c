"""The sigmoid kernel laid over its tensors: its grid, and where its results go."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard.ops.gpu._launch import EACH, SUMS, UNASKED, axes_of, device_of, element_plan, few
from steelyard.ops.gpu.sigmoid import FLAT, ONE, STRIDED, elements

__all__ = ["Results", "launch"]


class Results(NamedTuple):
    """What was asked for: the loss in the accumulation dtype, the gradient in that of the logits."""

    loss: Tensor | None
    gradient: Tensor | None


class _Layout(NamedTuple):
    """How the kernel walks over tensors that lie like this; all of it numbers, found once for each way to lie."""

    sizes: tuple[int, ...]  # of the last three of four axes
    steps: tuple[int, ...]  # along the four axes, of each tensor
    lies: dict[str, int]  # how each tensor does, by its letter in the kernel
    axes: int  # that there are more than one of
    align: int  # what the last one is a multiple of
    reach: int  # the farthest element from a tensor's first


@functools.lru_cache(4096)
def _layout(shape: tuple[int, ...], *tensors: tuple[tuple[int, ...], tuple[int, ...]] | None) -> _Layout | None:
    """Of logits, target, weight, pos_weight, upstream gradient, loss and gradient, by shape and stride."""
    strides = [_expanded(shape, *lie) if lie is not None else [0] * len(shape) for lie in tensors]
    # From the axis whose neighbours are farthest apart to the one where they are nearest: as memory is read.
    order = sorted(range(len(shape)), key=lambda axis: -strides[0][axis])
    axes = axes_of([shape[axis] for axis in order], *([stride[axis] for axis in order] for stride in strides))
    if axes is None:
        return None
    sizes, strides = axes
    behind = [sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1]
    lies = {
        name: ONE if name in "VPU" and not any(stride) else
        FLAT if all(n == 1 or step == b for n, step, b in zip(sizes, stride, behind, strict=True)) else STRIDED
        for name, stride in zip("ZTVPULG", strides, strict=True)
    }  # fmt: skip
    many = max(1, sum(size != 1 for size in sizes))
    reach = max(sum((n - 1) * abs(step) for n, step in zip(sizes, stride, strict=True)) for stride in strides)
    steps = tuple(step for stride in strides for step in stride)
    return _Layout(tuple(sizes[1:]), steps, lies, many, math.gcd(16, sizes[3]), reach)


def _expanded(shape: tuple[int, ...], own: tuple[int, ...], stride: tuple[int, ...]) -> list[int]:
    """The strides of a tensor broadcast to a shape."""
    missing = len(shape) - len(own)
    return [0] * missing + [0 if n == 1 else step for n, step in zip(own, stride, strict=True)]


@functools.lru_cache(64)
def _rounded(number: int, dtype: torch.dtype) -> float:
    """As a target of this dtype holds it."""
    return float(torch.tensor(number, dtype=dtype, device="cpu"))


def launch(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    neg_weight: float,
    gamma_pos: float,
    gamma_neg: float,
    clip: float,
    ignore_index: int | None,
    *,
    loss: int = UNASKED,
    upstream: Tensor | None = None,
    used: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Results | None:
    """Run the formula; None where its tensors lie in memory in a way that the kernel does not walk.

    Args:
        loss: UNASKED; EACH, one for each element; SUMS, one for each program, which add up to the sum over elements.
        upstream: Of the loss of each element, broadcast to their shape; given, the gradient is computed.
        used: 0-d. Given, nothing is done if it equals ``upstream``, 0-d too.
        gradient: Where the gradient goes, ``input`` itself, too; None: into a new tensor.
    """
    if upstream is not None and gradient is None:
        gradient = torch.empty_like(input)
    if target.dtype == torch.bool:
        target = target.view(torch.uint8)
    size, warps = element_plan(input.numel())
    programs = -(-input.numel() // size)
    made: Tensor | None = None
    if loss == EACH:
        made = torch.empty_like(input, dtype=torch.float32)
    elif loss == SUMS:
        made = input.new_empty(programs, dtype=torch.float32)

    each = made if loss == EACH else None
    tensors = (input, target, weight, pos_weight, upstream, each, gradient)
    lie = _layout(input.shape, *(None if t is None else (t.shape, t.stride()) for t in tensors))
    if lie is None:
        return None
    whole_target = not target.is_floating_point()
    ignore: float | int = 0 if ignore_index is None else ignore_index
    if not whole_target and ignore_index is not None:
        ignore = _rounded(ignore_index, target.dtype)
    arguments = (
        input, target,
        *(input if tensor is None else tensor for tensor in (weight, pos_weight, upstream, used, made, gradient)),
        input.numel(), *lie.sizes, *lie.steps,
        float(neg_weight), float(gamma_pos), float(gamma_neg), float(clip), ignore,
        programs,
    )  # fmt: skip
    flags: dict[str, Any] = {
        "WEIGHT": weight is not None, "POS_WEIGHT": pos_weight is not None, "FOCUS_POS": gamma_pos != 0.0,
        "FOCUS_NEG": gamma_neg != 0.0, "CLIP": clip != 0.0, "IGNORE": ignore_index is not None,
        "WHOLE_TARGET": whole_target, "LOSS": loss, "GRAD": upstream is not None, "CHECKED": used is not None,
        **lie.lies, "AXES": lie.axes, "ALIGN": lie.align,
        "FULL": input.dtype == torch.float32, "WIDE": max(lie.reach, (programs + 1) * size) >= 2**31, "SIZE": size,
        "num_warps": warps, "enable_fp_fusion": True,
    }  # fmt: skip
    with device_of(input):
        elements[(few(programs, warps, input.device) if used is not None else programs,)](*arguments, **flags)
    return Results(made, gradient)
