r"""Losses on what a network has already turned into log-probabilities or probabilities.

They apply no softmax and no sigmoid, so they are none of the two formulas: one picks a number, the other takes a
logarithm. Where there is a choice, prefer the losses on logits: their numbers are better and there is one pass less.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from steelyard import ops
from steelyard._values import integer
from steelyard.functional._check import (
    check_index_or_distribution,
    check_input,
    class_values,
    element_values,
    per_row,
    refuse_unless_probabilities,
    result_dtype,
    row_values,
    same_shape,
)
from steelyard.functional._denominator import sigmoid_denominator, softmax_denominator
from steelyard.functional._reduce import Denominator, check_reduction, legacy_reduction
from steelyard.functional._reduce import reduce as to_scalar

__all__ = ["binary_cross_entropy", "nll_loss"]


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    *,
    sample_weight: Any = None,
    denominator: Denominator = "torch",
    empty: Literal["nan", "zero", "raise"] = "nan",
) -> Tensor:
    r"""Negative log-likelihood of class indices under log-probabilities.

    For networks that end in ``log_softmax``; on logits, :func:`~steelyard.functional.cross_entropy` does both.

    Equals ``torch.nn.functional.nll_loss``: for a row, ``−v·w_y·input_y``.

    Args:
        input: Log-probabilities, float, ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``.
        target: Class indices in ``[0, C)`` or ``ignore_index``, any integer dtype, shape of ``input`` without the class
            axis.
        weight, size_average, ignore_index, reduce, reduction, sample_weight, denominator, empty: As for
            :func:`~steelyard.functional.cross_entropy`.

    Returns:
        Loss in nats, in the dtype of ``input`` (fp32 at least under autocast); a scalar, or the shape of the rows.

    Raises:
        IndexError: a label outside ``[0, C)`` (on a GPU, under ``torch.func`` and ``torch.compile``: NaN).
        TypeError, ValueError: dtypes, shapes, options.

    Example:
        >>> nll_loss(torch.tensor([[-0.1, -2.4]]), torch.tensor([1]))
        tensor(2.4000)
    """
    name = "nll_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_input(name, input, "log-probabilities")
    check_index_or_distribution(name, input, target, distribution=False)
    target = target.long()  # compared in uint8, 156 is −100
    check_reduction(name, reduction, denominator, empty)
    ignored = integer(name, "ignore_index", ignore_index)
    w = class_values(name, "weight", weight, input)
    v = row_values(name, "sample_weight", sample_weight, input)
    loss = per_row(name, _picked, input, target, w, v, ignored)
    divisor = denominator
    if reduction == "mean" and isinstance(divisor, str):
        divisor = softmax_denominator(divisor, input, target, w, v, 0.0, False, ignored)
    return to_scalar(name, loss, reduction, divisor, empty, result_dtype(input))


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    *,
    denominator: Denominator = "torch",
    empty: Literal["nan", "zero", "raise"] = "nan",
) -> Tensor:
    r"""Binary cross entropy between probabilities and targets, each element on its own.

    For networks that end in ``sigmoid``; on logits, :func:`~steelyard.functional.binary_cross_entropy_with_logits` does
    both, to full accuracy.

    Equals ``torch.nn.functional.binary_cross_entropy``: for an element ``−v·[t·log p + (1 − t)·log(1 − p)]``, where no
    logarithm falls below −100, and the gradient ``v·(p − t)/max(p(1 − p), 1e-12)``.

    Args:
        input: Probabilities p in [0, 1], float, any shape.
        target: Probabilities t in [0, 1], float, or 0 and 1 as bool or any integer dtype; shape of ``input``.
        weight: Element weights v, finite, broadcast to the shape of ``input`` from the right.
        size_average, reduce, reduction, denominator, empty: As for
            :func:`~steelyard.functional.binary_cross_entropy_with_logits`.

    Returns:
        Loss in nats, in the dtype of ``input`` (fp32 at least under autocast); a scalar, or the shape of ``input``.

    Raises:
        ValueError: a probability outside [0, 1]. TypeError, ValueError: dtypes, shapes, options.

    Example:
        >>> binary_cross_entropy(torch.tensor([0.8, 0.2, 0.4]), torch.tensor([1, 0, 0]))
        tensor(0.3190)
    """
    name = "binary_cross_entropy"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_input(name, input, "probabilities", classes=False)
    same_shape(name, input, target)
    check_reduction(name, reduction, denominator, empty)
    refuse_unless_probabilities(name, "input", input, "Logits belong in binary_cross_entropy_with_logits.")
    v = element_values(name, "weight", weight, input)
    dtype = ops.accumulation_dtype(input.dtype)
    # Of at least one axis: torch.func.jvp makes the float32 tangent of a 0-d tensor over a Python number float64.
    loss = _clamped_loss(torch.atleast_1d(input.to(dtype)), torch.atleast_1d(target.to(dtype))).reshape(input.shape)
    if v is not None:
        loss = loss * v
    divisor = denominator
    if reduction == "mean" and isinstance(divisor, str):
        divisor = sigmoid_denominator(divisor, input, target, v, None, 1.0, None)
    return to_scalar(name, loss, reduction, divisor, empty, result_dtype(input))


def _picked(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, ignore_index: int
) -> Tensor:
    ops.check_labels(input, target, ignore_index)
    dim = ops.class_dim(input)
    kept = target != ignore_index
    outside = (target < 0) | (target >= input.shape[dim])
    y = target.masked_fill(~kept | outside, 0).long()
    loss = -input.gather(dim, y.unsqueeze(dim)).squeeze(dim).to(ops.accumulation_dtype(input.dtype))
    loss = loss.masked_fill(~kept, 0.0)  # before the weights, whose gradient an inf here would make NaN
    if weight is not None:
        loss = loss * ops.of_class(weight, y)
    if sample_weight is not None:
        loss = loss * sample_weight
    return ops.reference.poisoned(loss.masked_fill(~kept, 0.0), kept & outside)


def _clamped_loss(p: Tensor, t: Tensor) -> Tensor:
    """``−t·log p − (1 − t)·log(1 − p)`` with logarithms from −100 up, and PyTorch's finite slope at the ends.

    Within 1e-12 of 0 and 1 the logarithm's own slope runs away, and the clamp's is 0: neither would teach a network
    that is sure and wrong. There the loss is its value plus PyTorch's slope times a difference that is zero.
    """
    floor = 1e-12
    end = p * (1.0 - p) < floor
    inside = p.masked_fill(end, 0.5)
    loss = -(t * inside.log() + (1.0 - t) * torch.log1p(-inside))
    fixed = p.detach()
    value = -(t * fixed.log().clamp(min=-100.0) + (1.0 - t) * torch.log1p(-fixed).clamp(min=-100.0))
    return torch.where(end, value + (p - fixed) * ((fixed - t) / floor), loss)
