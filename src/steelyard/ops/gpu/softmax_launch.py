"""The softmax kernels laid over their tensors: which of the two, its grid, and where its results go."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard.ops.gpu._launch import (
    EACH,
    LIMITS,
    UNASKED,
    Limits,
    Plan,
    axes_of,
    dense_labels,
    device_of,
    few,
    of_rows,
    row_plan,
    stages,
)
from steelyard.ops.gpu.softmax import long_rows, whole_rows

__all__ = ["Results", "launch"]


class Results(NamedTuple):
    """What was asked for, in the accumulation dtype but for the gradient."""

    loss: Tensor | None
    statistics: tuple[Tensor, Tensor] | None
    gradient: Tensor | None


class _Layout(NamedTuple):
    """How the kernels walk over tensors that lie like this; all of it numbers, found once for each way to lie."""

    plan: Plan
    rows: tuple[int, ...]
    classes: int
    sizes: tuple[int, ...]  # of the last axis of rows; blocks of it; all rows; the second and third axis of rows
    steps: tuple[int, ...]  # of logits, gradient and soft target, five each: along four axes of rows, and the classes
    axes: int  # of rows, that there are more than one of
    side: bool
    align: int
    wide: bool


@functools.lru_cache(4096)
def _layout(
    shape: tuple[int, ...],
    z_stride: tuple[int, ...],
    g_stride: tuple[int, ...],
    q_stride: tuple[int, ...],
    itemsize: int,
    burdens: tuple[bool, ...],
    device: torch.device,
    limits: Limits,
) -> _Layout | None:
    """None where more axes are left than kernels walk. ``limits`` are those in force, a part of the question."""
    dim = 0 if len(shape) == 1 else 1
    classes, rows = shape[dim], shape[:dim] + shape[dim + 1 :]
    strides = [list(stride) for stride in (z_stride, g_stride, q_stride)]
    of_class = [stride.pop(dim) for stride in strides]
    axes = axes_of(rows, *strides)
    if axes is None:
        return None
    sizes, strides = axes
    count, inner = math.prod(rows), sizes[3]
    side = 0 < strides[0][3] < of_class[0] and inner > 1
    # What the axis along which memory is read, and every step from one stretch of it to another, is a multiple of.
    others = [step for stride in strides for step in stride[:3]]
    others += (inner, *of_class) if side else (classes, *(stride[3] for stride in strides))
    align = math.gcd(16, *others)
    plan = row_plan(
        classes, count // inner, inner, rows_side_by_side=side, burdens=(*burdens, align * itemsize < 16, side),
        device=device,
    )  # fmt: skip
    if side and plan.span:
        side, align = False, 1
    return _Layout(
        plan, rows, classes, (inner, -(-inner // plan.rows), count, sizes[1], sizes[2]),
        tuple(step for stride, last in zip(strides, of_class, strict=True) for step in (*stride, last)),
        max(1, sum(size != 1 for size in sizes)), side, align, max(map(abs, of_class)) * classes >= 2**31,
    )  # fmt: skip


def launch(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    row_weight: Tensor | None,
    offset: Tensor | None,
    margin: Tensor | None,
    gamma: float,
    smoothing: float,
    smooth_by_target: bool,
    ignore_index: int,
    *,
    loss: int = UNASKED,
    statistics: bool = False,
    saved: tuple[Tensor, Tensor] | None = None,
    upstream: Tensor | None = None,
    used: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Results | None:
    """Run the formula; None where its tensors lie in memory in a way that the kernels do not walk.

    Args:
        loss: UNASKED; EACH, one for each row; SUMS, one for each program, which add up to the sum over rows.
        statistics: Whether the maximum and the total of each row are asked for. saved: the same, known already.
        upstream: Of the loss of each row, in its shape or 0-d; given, the gradient is computed.
        used: 0-d. Given, nothing is done if it equals ``upstream``, 0-d too.
        gradient: Where the gradient goes, ``input`` itself, too; None: into a new tensor.
    """
    soft, full = target.is_floating_point(), input.dtype == torch.float32
    general = soft or smoothing != 0.0
    if upstream is not None and gradient is None:
        gradient = torch.empty_like(input)
    own = input.stride()
    lie = _layout(
        input.shape, own, own if gradient is None else gradient.stride(), target.stride() if soft else own,
        input.element_size(), (general, general and gamma != 0.0, full, offset is not None or margin is not None),
        input.device, LIMITS[-1],
    )  # fmt: skip
    if lie is None:
        return None
    plan, rows, classes = lie.plan, lie.rows, lie.classes

    made = Results(
        None if loss == UNASKED else
        input.new_empty(rows if loss == EACH else [plan.blocks], dtype=torch.float32),
        None if not statistics else
        (input.new_empty(rows, dtype=torch.float32), input.new_empty(rows, dtype=torch.float32)),
        gradient,
    )  # fmt: skip
    maximum, total = saved or made.statistics or (input, input)
    gamma = float(gamma)
    twice = int(2 * gamma) if gamma <= 4 and (2 * gamma).is_integer() else -1
    v, v_step = of_rows(row_weight, input)
    up, up_step = of_rows(upstream, input)
    arguments = (
        input, target if soft else dense_labels(target), _or(_packed(weight), input), v, _or(_packed(offset), input),
        _or(_packed(margin), input), up, _or(used, input), maximum, total, _or(made.loss, input), _or(gradient, input),
        classes, *lie.sizes, v_step, up_step, *lie.steps, gamma,
        1.0 - smoothing, smoothing / classes, ignore_index, plan.blocks,
    )  # fmt: skip
    flags: dict[str, Any] = {
        "SOFT": soft, "GENERAL": general, "BY_TARGET": smooth_by_target,
        "WEIGHT": weight is not None, "ROW_WEIGHT": row_weight is not None, "OFFSET": offset is not None,
        "MARGIN": margin is not None and not soft, "TWICE": twice, "LOSS": loss, "GRAD": upstream is not None,
        "STATISTICS": statistics, "SAVED": saved is not None, "CHECKED": used is not None,
        "OVER": gradient is not None and gradient.data_ptr() == input.data_ptr(), "WIDE": lie.wide,
        "FULL": full, "SPAN": plan.span, "AXES": lie.axes, "SIDE": lie.side, "ALIGN": lie.align, "ROWS": plan.rows,
        "CLASSES": plan.classes, "num_warps": plan.warps, "enable_fp_fusion": True,
    }  # fmt: skip
    with device_of(input):
        if plan.whole:
            programs = few(plan.programs, plan.warps, input.device) if used is not None else plan.programs
            whole_rows[(programs,)](*arguments, **flags)
        else:
            of_rows_and_classes = input.element_size() + (target.element_size() if soft else 0)
            of_classes = 4 * sum(t is not None for t in (weight, offset, margin))
            ahead = stages(plan.classes * (plan.rows * of_rows_and_classes + of_classes))
            long_rows[(plan.programs,)](*arguments, STAGES=ahead, **flags)
    return made


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer for the kernel to take; one that stands in is never followed."""
    return other if tensor is None else tensor


def _packed(tensor: Tensor | None) -> Tensor | None:
    """Numbers of classes one behind the other."""
    return None if tensor is None else tensor.contiguous()
