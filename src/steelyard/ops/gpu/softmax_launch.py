"""The softmax kernels laid over their tensors: which of the two, its grid, and where its results go."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard.ops.gpu._launch import EACH, UNASKED, axes_of, dense_labels, device_of, few, of_rows, row_plan
from steelyard.ops.gpu.softmax import long_rows, whole_rows
from steelyard.ops.reference import class_dim

__all__ = ["Results", "launch"]


class Results(NamedTuple):
    """What was asked for, in the accumulation dtype but for the gradient."""

    loss: Tensor | None
    statistics: tuple[Tensor, Tensor] | None
    gradient: Tensor | None


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
    dim, soft = class_dim(input), target.is_floating_point()
    classes, rows = input.shape[dim], list(input.shape)
    del rows[dim]
    if upstream is not None and gradient is None:
        gradient = torch.empty_like(input)
    walked = [input, input if gradient is None else gradient, target if soft else input]
    strides = [list(tensor.stride()) for tensor in walked]
    steps = [stride.pop(dim) for stride in strides]
    axes = axes_of(rows, *strides)
    if axes is None:
        return None
    sizes, strides = axes
    count, inner = math.prod(rows), sizes[3]
    side = 0 < strides[0][3] < steps[0] and inner > 1
    # What the axis along which memory is read, and every step from one stretch of it to another, is a multiple of.
    others = [*(step for stride in strides for step in stride[:3]),
              *((inner, *steps) if side else (classes, *(stride[3] for stride in strides)))]  # fmt: skip
    align = math.gcd(16, *others)
    plan = row_plan(
        classes, count // inner, inner, of=input, rows_side_by_side=side,
        burdens=(soft or smoothing != 0.0, (soft or smoothing != 0.0) and gamma != 0.0, input.dtype == torch.float32,
                 offset is not None or margin is not None, align * input.element_size() < 16, side),
    )  # fmt: skip
    if side and plan.span:
        side, align = False, 1

    made = Results(
        None if loss == UNASKED else
        input.new_empty(rows if loss == EACH else [plan.blocks], dtype=torch.float32),
        None if not statistics else
        (input.new_empty(rows, dtype=torch.float32), input.new_empty(rows, dtype=torch.float32)),
        gradient,
    )  # fmt: skip
    maximum, total = saved or made.statistics or (input, input)
    gamma = float(gamma)
    reach = max(abs(step) for step in steps) * classes
    twice = int(2 * gamma) if gamma <= 4 and (2 * gamma).is_integer() else -1
    v, v_step = of_rows(row_weight, input)
    up, up_step = of_rows(upstream, input)
    arguments = (
        input, target if soft else dense_labels(target), _or(_packed(weight), input), v, _or(_packed(offset), input),
        _or(_packed(margin), input), up, _or(used, input), maximum, total, _or(made.loss, input), _or(gradient, input),
        classes, inner, -(-inner // plan.rows), count, sizes[1], sizes[2], v_step, up_step,
        *(step for stride, of_class in zip(strides, steps, strict=True) for step in (*stride, of_class)),
        gamma, 1.0 - smoothing, smoothing / classes, ignore_index, plan.blocks,
    )  # fmt: skip
    flags: dict[str, Any] = {
        "SOFT": soft, "GENERAL": soft or smoothing != 0.0, "BY_TARGET": smooth_by_target,
        "WEIGHT": weight is not None, "ROW_WEIGHT": row_weight is not None, "OFFSET": offset is not None,
        "MARGIN": margin is not None and not soft, "TWICE": twice, "LOSS": loss, "GRAD": upstream is not None,
        "STATISTICS": statistics, "SAVED": saved is not None, "CHECKED": used is not None,
        "OVER": gradient is not None and gradient.data_ptr() == input.data_ptr(), "WIDE": reach >= 2**31,
        "FULL": input.dtype == torch.float32, "SPAN": plan.span, "SIDE": side, "ALIGN": align, "ROWS": plan.rows,
        "CLASSES": plan.classes, "num_warps": plan.warps, "enable_fp_fusion": True,
    }  # fmt: skip
    with device_of(input):
        if plan.whole:
            programs = few(plan.programs, input) if used is not None else plan.programs
            whole_rows[(programs,)](*arguments, **flags)
        else:
            # Tiles are fetched ahead into shared memory; AMD's has no room for three of them.
            stages = 1 if torch.version.hip is not None else 3
            long_rows[(plan.programs,)](*arguments, STAGES=stages, **flags)
    return made


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer for the kernel to take; one that stands in is never followed."""
    return other if tensor is None else tensor


def _packed(tensor: Tensor | None) -> Tensor | None:
    """Numbers of classes one behind the other."""
    return None if tensor is None else tensor.contiguous()
