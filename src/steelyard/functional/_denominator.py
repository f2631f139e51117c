"""What a mean divides by: the rules ``"torch"``, ``"weights"`` and ``"samples"`` for each of the two formulas."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard import ops
from steelyard.functional._reduce import ordered_row_sum, ordered_sum
from steelyard.functional._watchers import PLAIN, undisturbed
from steelyard.ops import gpu

__all__ = ["label_terms", "rows_denominator", "sigmoid_denominator", "softmax_denominator"]


def label_terms(
    rule: str, weight: Tensor | None, sample_weight: Tensor | None, smoothing: float, by_target: bool
) -> tuple[Tensor | None, Tensor | None]:
    """What each class and each row counts for, by ``rule``, where targets are labels."""
    if rule == "samples":
        return None, None
    if rule == "weights" and weight is not None and not by_target and smoothing != 0.0:
        # A smoothed row has (1 − ε) of its mass on its own class and the rest spread evenly.
        weight = (1.0 - smoothing) * weight + smoothing * weight.mean()
    return weight, sample_weight


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
            mass = ordered_row_sum(smoothed, dim)
        else:
            w = ops.per_class(weight, input)
            mass = ordered_row_sum(w * (q if by_target else smoothed), dim)
            if by_target:
                mass = mass * ordered_row_sum(smoothed, dim)
        return ordered_sum(mass if sample_weight is None else mass * sample_weight)
    table, row_weight = label_terms(rule, weight, sample_weight, smoothing, by_target)
    sums = None
    if undisturbed() and all(t is None or (type(t) in PLAIN and not t.requires_grad) for t in (table, row_weight)):
        sums = gpu.label_sums(input, target, table, row_weight, ignore_index)
    return ordered_sum(_label_mass(input, target, table, row_weight, ignore_index) if sums is None else sums)


def rows_denominator(
    rule: str,
    own: Tensor | None,
    mass: Tensor | None,
    row_weight: Tensor | None,
    kept: Tensor | None,
    rows: Tensor,
) -> Tensor | float:
    """The same where no rank holds all classes, from what each row is known by.

    ``own`` is its ``Σ_c w_c·q_c`` before smoothing and ``mass`` the sum of its coefficients ``A_c``, None where they
    are 1 for every row; ``kept`` is None for probabilities, and ``rows`` any tensor in the shape and dtype of these.
    """
    if kept is None and (rule == "samples" or (rule == "torch" and row_weight is None)):
        return rows.numel()
    if rule == "samples":
        terms = None
    elif rule == "torch":
        terms = None if kept is None else own
    else:
        terms = mass
    result = torch.ones_like(rows) if terms is None else terms
    if kept is not None:
        result = result.masked_fill(~kept, 0.0)
    return ordered_sum(result if row_weight is None or rule == "samples" else result * row_weight)


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
