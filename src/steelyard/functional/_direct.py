"""The short way: plain tensors on the CPU, straight to the kernels.

A dispatcher, an operator for each step and checks in Python would cost a small batch more than its arithmetic. So the
common case goes from here to C++ in one call, where metadata and values are checked as they are read. Whatever is not
the common case comes back as ``None`` and takes the long way, on which errors are worded: this room refuses nothing
itself.

A loss that is one number has its gradient computed in the same pass, while a row of logits is in the cache, for the
upstream gradient that such a loss met the last time; it is taken again where that guess fails. The guess cannot be
seen: the numbers are those of a backward pass that knew.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from steelyard.functional._calls import Call, SigmoidCall, SoftmaxCall, guess, room_for_a_number
from steelyard.functional._check import result_dtype
from steelyard.functional._denominator import label_terms, sigmoid_denominator
from steelyard.functional._watchers import PLAIN, again, saving_elsewhere, undisturbed
from steelyard.ops import accumulation_dtype, class_dim, cpu

__all__ = ["sigmoid", "softmax"]

_EMPTY = ("nan", "zero", "raise")

_recording = torch.is_grad_enabled  # by a name of its own: a small batch feels each look into a module


def _open(input: Any, target: Any, *others: Any) -> bool:
    """Whether a kernel may answer: nobody records, transforms or differentiates what it would not show."""
    if (
        not undisturbed()
        or not cpu.ready()
        or type(input) not in PLAIN
        or type(target) not in PLAIN
        or not (input.is_cpu and target.is_cpu)
    ):
        return False
    recording = _recording()
    if recording and target.requires_grad:
        return False
    for other in others:
        if other is not None and (type(other) not in PLAIN or (recording and other.requires_grad)):
            return False
    return True


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (float, int) and low <= value <= high and value < math.inf


def _is_label(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _divisor(denominator: Any) -> float | None:
    """A denominator that was given as a number, if it is one that nobody would refuse."""
    if type(denominator) in (float, int):
        value = float(denominator)
    elif type(denominator) is Tensor and denominator.dim() == 0 and denominator.device.type == "cpu":
        if denominator.requires_grad or denominator.is_complex() or denominator.dtype == torch.bool:
            return None
        value = float(denominator)
    else:
        return None
    return value if 0.0 <= value < math.inf else None


# ---------------------------------------------------------------------------------------------------------- derivatives


class _Derivative(torch.autograd.Function):
    """The loss that was computed before it came here, and its gradient when that is asked for.

    The logits are saved for autograd to watch; where the gradient is ready, a look at their version is all it takes.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, call: Call) -> Tensor:
        ctx.save_for_backward(input, *call.statistics)
        ctx.call = call
        result, call.loss = call.loss, None
        return result  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        call = ctx.call
        differentiable = again(grad)
        if not call.used:
            call.refuse_changes()
        if not differentiable and call.gradient is not None:
            # Handed over: from here on somebody else writes to it, and nobody needs the logits.
            ready, call.gradient = call.gradient, None
            logits, call.logits = call.logits, None
            if float(grad) == call.upstream and logits._version == call.version:
                return ready, None
        if call.used:
            raise RuntimeError(
                f"{call.name}: a loss with inplace_gradient=True can be differentiated once; its gradient has taken "
                "the place of the logits. Use inplace_gradient=False to go backward twice."
            )
        input, *statistics = ctx.saved_tensors
        if differentiable:
            return call.formula(call.spread(grad, input), input), None
        return call.gradient_of(input, grad, statistics), None


# The step of Function.apply that does the work; the others are for functorch, which never comes here.
_derive: Any = super(torch.autograd.Function, _Derivative).apply


def _answer(call: Call, input: Tensor, reduction: str, inplace: bool) -> Tensor | None:
    recording = input.requires_grad and _recording()
    if inplace and recording:
        mine = input.untyped_storage().data_ptr()
        # What the gradient would overwrite while it is still read: the long way leaves the logits alone.
        if any(t is not None and t.untyped_storage().data_ptr() == mine for t in call.tensors):
            inplace = False
    if reduction == "none":
        loss = input.new_empty(call.shape(input), dtype=result_dtype(input))
        call.divisor, call.statistics = None, call.room(input)
        if not call.each(input, loss):
            return None
    else:
        dtype = input.dtype
        loss = room_for_a_number(accumulation_dtype(dtype))
        if recording and inplace:
            call.statistics = call.room(input)
        elif recording and not saving_elsewhere():
            call.gradient = torch.empty_like(input)
            call.upstream = guess(input)
        if not call.scalar(input, loss, call.upstream, call.gradient):
            return None
        if loss.dtype != dtype:
            loss = loss.to(result_dtype(input))
    if not recording:
        return loss
    call.loss, call.inplace = loss, inplace
    if call.gradient is not None:
        call.logits, call.version = input, input._version
    try:
        call.versions = [t._version for t in call.tensors if t is not None]
    except RuntimeError:  # one from inference mode, which has none; the long way says what to do
        return None
    return _derive(input, call)  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------------------------- ways in


def softmax(
    name: str,
    input: Any,
    target: Any,
    weight: Any,
    ignore_index: Any,
    reduction: Any,
    smoothing: Any,
    sample_weight: Any,
    offset: Any,
    margin: Any,
    gamma: Any,
    smooth_weight: Any,
    denominator: Any,
    empty: Any,
    inplace: Any,
) -> Tensor | None:
    """The loss, or None where the long way is due."""
    if not _open(input, target, weight, sample_weight, offset, margin):
        return None
    soft = target.is_floating_point()
    if (
        input.dim() == 0
        or not _is_label(ignore_index)
        or (soft and ignore_index >= 0)
        or not _is_number(smoothing, 0.0, 1.0)
        or not _is_number(gamma, 0.0, math.inf)
        or smooth_weight not in ("class", "target")
        or empty not in _EMPTY
        or type(inplace) is not bool
    ):
        return None
    by_target = smooth_weight == "target"
    call = SoftmaxCall()
    call.name, call.tensors = name, (target, weight, sample_weight, offset, margin)
    call.numbers = (float(gamma), float(smoothing), by_target, ignore_index)
    call.zero_if_empty = empty == "zero"
    if reduction == "mean":
        if type(denominator) is not str:
            call.given = _divisor(denominator)
            if call.given is None:
                return None
        elif denominator not in ("torch", "weights", "samples"):
            return None
        elif not soft:
            table = weight
            if denominator == "weights" and weight is not None:
                table = weight.to(accumulation_dtype(input.dtype))
            call.table, rows = label_terms(denominator, table, sample_weight, float(smoothing), by_target)
            call.by_rows, call.given = rows is not None, None
        elif denominator != "weights" and (sample_weight is None or denominator == "samples"):
            classes = input.shape[class_dim(input)] if input.dim() else 0
            call.given = input.numel() / classes if classes else math.nan
        else:
            return None
    elif reduction not in ("none", "sum") or denominator != "torch" or type(denominator) is not str:
        return None
    loss = _answer(call, input, reduction, inplace)
    if empty == "raise" and loss is not None and call.divisor == 0.0:
        return None
    return loss


def sigmoid(
    name: str,
    input: Any,
    target: Any,
    weight: Any,
    pos_weight: Any,
    reduction: Any,
    ignore_index: Any,
    gamma_pos: Any,
    gamma_neg: Any,
    clip: Any,
    alpha: Any,
    denominator: Any,
    empty: Any,
    inplace: Any,
) -> Tensor | None:
    """The loss, or None where the long way is due."""
    if not _open(input, target, weight, pos_weight):
        return None
    if (
        not (ignore_index is None or (_is_label(ignore_index) and ignore_index not in (0, 1)))
        or not _is_number(gamma_pos, 0.0, math.inf)
        or not _is_number(gamma_neg, 0.0, math.inf)
        or not _is_number(clip, 0.0, 1.0)
        or clip == 1
        or not (alpha is None or _is_number(alpha, 0.0, 1.0))
        or empty not in _EMPTY
        or type(inplace) is not bool
        or input.shape != target.shape
        or not input.is_floating_point()
    ):
        return None
    negative = 1.0
    if alpha is not None:
        negative = 1.0 - alpha
        if pos_weight is None:
            pos_weight = torch.full((), float(alpha), dtype=accumulation_dtype(input.dtype))
        elif not pos_weight.is_floating_point():
            return None
        else:
            pos_weight = pos_weight.to(accumulation_dtype(input.dtype)) * alpha
    call = SigmoidCall()
    call.name, call.tensors = name, (target, weight, pos_weight)
    call.numbers = (negative, float(gamma_pos), float(gamma_neg), float(clip), ignore_index)
    call.zero_if_empty, call.divisor = empty == "zero", 1.0
    if reduction == "mean":
        if type(denominator) is not str:
            given = _divisor(denominator)
        elif denominator in ("torch", "samples") and ignore_index is None:
            given = float(input.numel())
        elif denominator in ("torch", "samples"):
            labels = target if target.is_floating_point() else target.long()  # compared in uint8, 255 is −1
            given = float(sigmoid_denominator(denominator, input, labels, None, None, 1.0, ignore_index))
        else:
            return None
        if given is None or (empty == "raise" and given == 0.0):
            return None
        call.divisor = given
    elif reduction not in ("none", "sum") or denominator != "torch" or type(denominator) is not str:
        return None
    return _answer(call, input, reduction, inplace)
