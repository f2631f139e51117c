"""One way in to each formula: checks, then the op, then the reduction, with the denominators that each formula has.

``name`` is the loss that the user called; errors speak as it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steelyard import ops
from steelyard._errors import choice, refuse
from steelyard._values import integer, number
from steelyard.functional._check import (
    check_index_or_distribution,
    check_input,
    class_values,
    element_values,
    per_row,
    result_dtype,
    row_values,
    same_shape,
)
from steelyard.functional._reduce import Denominator, check_reduction, ordered_sum, reduce

__all__ = [
    "SMOOTH_WEIGHT",
    "leave",
    "sigmoid_denominator",
    "sigmoid_family",
    "softmax_denominator",
    "softmax_family",
]

SMOOTH_WEIGHT = ("class", "target")


def softmax_family(
    name: str,
    input: Tensor,
    target: Tensor,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    logit_offset: Any = None,
    margin: Any = None,
    gamma: float = 0.0,
    smooth_weight: str = "class",
    denominator: Denominator = "torch",
    empty: str = "nan",
    **unknown: Any,
) -> Tensor:
    """The softmax formula as a loss; keywords as :func:`steelyard.functional.cross_entropy` describes them."""
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument {next(iter(unknown))!r}")
    check_input(name, input)
    soft = check_index_or_distribution(name, input, target)
    if not soft:
        target = target.long()  # compared in uint8, 156 is −100; in int8, no label is below 200 classes
    check_reduction(name, reduction, denominator, empty)
    ignored = integer(name, "ignore_index", ignore_index)
    if soft and ignored >= 0:
        refuse(
            name,
            "ignore_index",
            "left alone with class probabilities",
            repr(ignored),
            "To leave out a row of finite logits, give it sample_weight 0.",
        )
    if soft and margin is not None:
        refuse(name, "margin", "None with class probabilities", margin, "A margin needs the one class of the row.")
    smoothing = number(name, "label_smoothing", label_smoothing, 0.0, 1.0)
    focusing = number(name, "gamma", gamma, 0.0, float("inf"))
    choice(name, "smooth_weight", smooth_weight, SMOOTH_WEIGHT)
    w = class_values(name, "weight", weight, input)
    v = row_values(name, "sample_weight", sample_weight, input)
    by_target = smooth_weight == "target"
    loss = per_row(
        name,
        ops.softmax_loss,
        input,
        target,
        w,
        v,
        class_values(name, "logit_offset", logit_offset, input, minus_infinity=True),
        class_values(name, "margin", margin, input),
        focusing,
        smoothing,
        by_target,
        ignored,
    )
    divisor = denominator
    if reduction == "mean" and isinstance(divisor, str):
        divisor = softmax_denominator(divisor, input, target, w, v, smoothing, by_target, ignored)
    return reduce(name, loss, reduction, divisor, empty, result_dtype(input))


def leave(name: str, options: Mapping[str, Any], *own: str) -> None:
    """Refuse the keywords that make the loss what it is; Python would name a function that the user never called."""
    for keyword in own:
        if keyword in options:
            raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")


def _label_mass(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, ignore_index: int
) -> Tensor:
    """``v·w[y]`` of each row, 0 where ignored, in the accumulation dtype; PyTorch's mean divides by its sum."""
    classes = input.shape[ops.class_dim(input)]
    kept = target != ignore_index
    if weight is None:
        mass = kept.to(ops.accumulation_dtype(input.dtype))
    else:
        # A label out of range has made the loss raise or NaN by now; the clamp only keeps the look-up inside.
        y = target.masked_fill(~kept, 0).clamp(0, classes - 1).long()
        mass = ops.of_class(weight, y).masked_fill(~kept, 0.0)
    return mass if sample_weight is None else mass * sample_weight


def softmax_denominator(
    rule: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    smoothing: float,
    by_target: bool,
    ignore_index: int,
) -> Tensor | float:
    """What ``rule`` says that a mean of the softmax formula divides by."""
    dim = ops.class_dim(input)
    if target.is_floating_point():
        rows = input.numel() // input.shape[dim]
        if rule == "samples" or (rule == "torch" and sample_weight is None):
            return rows
        if rule == "torch":
            assert sample_weight is not None
            return ordered_sum(sample_weight)
        q = target.to(ops.accumulation_dtype(input.dtype))
        smoothed = q * (1.0 - smoothing) + smoothing / input.shape[dim]
        if weight is None:
            mass = smoothed.sum(dim)
        else:
            w = ops.per_class(weight, input)
            mass = (w * q).sum(dim) * smoothed.sum(dim) if by_target else (w * smoothed).sum(dim)
        return ordered_sum(mass if sample_weight is None else mass * sample_weight)
    if rule == "samples":
        return ordered_sum(_label_mass(input, target, None, None, ignore_index))
    if rule == "weights" and weight is not None and not by_target:
        # A smoothed row has (1 − ε) of its mass on its own class and the rest spread evenly.
        weight = (1.0 - smoothing) * weight + smoothing * weight.mean()
    return ordered_sum(_label_mass(input, target, weight, sample_weight, ignore_index))


def sigmoid_family(
    name: str,
    input: Tensor,
    target: Tensor,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    alpha: float | None = None,
    denominator: Denominator = "torch",
    empty: str = "nan",
    **unknown: Any,
) -> Tensor:
    """The sigmoid formula as a loss; keywords as for ``binary_cross_entropy_with_logits``."""
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument {next(iter(unknown))!r}")
    check_input(name, input, classes=False)
    same_shape(name, input, target)
    check_reduction(name, reduction, denominator, empty)
    ignored = None if ignore_index is None else integer(name, "ignore_index", ignore_index)
    if ignored is not None and not target.is_floating_point():
        target = target.long()  # compared in uint8, 255 is −1
    if ignored in (0, 1):
        refuse(name, "ignore_index", "other than the targets 0 and 1", repr(ignored))
    v = element_values(name, "weight", weight, input)
    p = element_values(name, "pos_weight", pos_weight, input)
    q = 1.0
    if alpha is not None:
        share = number(name, "alpha", alpha, 0.0, 1.0)
        if p is None:  # a fill on the device, where a copy from the host would wait for it
            p = torch.full((), share, dtype=ops.accumulation_dtype(input.dtype), device=input.device)
        else:
            p = p * share
        q = 1.0 - share
    loss = per_row(
        name,
        ops.sigmoid_loss,
        input,
        target,
        v,
        p,
        q,
        number(name, "gamma_pos", gamma_pos, 0.0, float("inf")),
        number(name, "gamma_neg", gamma_neg, 0.0, float("inf")),
        number(name, "clip", clip, 0.0, 1.0, open_end=True),
        ignored,
    )
    divisor = denominator
    if reduction == "mean" and isinstance(divisor, str):
        divisor = sigmoid_denominator(divisor, input, target, v, p, q, ignored)
    return reduce(name, loss, reduction, divisor, empty, result_dtype(input))


def sigmoid_denominator(
    rule: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    neg_weight: float,
    ignore_index: int | None,
) -> Tensor | float:
    """What ``rule`` says that a mean of the sigmoid formula divides by."""
    dtype = ops.accumulation_dtype(input.dtype)
    kept = None if ignore_index is None else target != ignore_index
    if rule in ("torch", "samples"):
        return input.numel() if kept is None else ordered_sum(kept.to(dtype))
    t = target.to(dtype)
    mass = t * (1.0 if pos_weight is None else pos_weight) + (1.0 - t) * neg_weight
    if weight is not None:
        mass = mass * weight
    return ordered_sum(mass if kept is None else mass.masked_fill(~kept, 0.0))
