"""The only place where the losses of rows become a scalar: reductions, denominators, the empty mean."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from steelyard._errors import choice, refuse
from steelyard._values import readable

__all__ = [
    "DENOMINATORS",
    "EMPTY",
    "REDUCTIONS",
    "Denominator",
    "check_reduction",
    "legacy_reduction",
    "ordered_row_sum",
    "ordered_sum",
    "reduce",
]

Denominator = Literal["torch", "weights", "samples"] | float | Tensor

REDUCTIONS = ("none", "mean", "sum")
DENOMINATORS = ("torch", "weights", "samples")
EMPTY = ("nan", "zero", "raise")

# PyTorch sums at most this many numbers on one thread, so that their order cannot depend on how many threads there are.
_ONE_THREAD = 32768
_BLOCK = 1024


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """What PyTorch's deprecated ``size_average`` and ``reduce`` mean today, with its warning."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is not None and not reduce:
        reduction = "none"
    else:
        reduction = "sum" if size_average is not None and not size_average else "mean"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.",
        UserWarning,
        stacklevel=3,
    )
    return reduction


def check_reduction(name: str, reduction: Any, denominator: Any, empty: Any) -> None:
    """Refuse what none of the three can be; a denominator that no mean would use is a misunderstanding."""
    choice(name, "reduction", reduction, REDUCTIONS)
    choice(name, "empty", empty, EMPTY)
    given = "a number ≥ 0, a 0-d tensor, or one of " + ", ".join(repr(word) for word in DENOMINATORS)
    if isinstance(denominator, str):
        if denominator not in DENOMINATORS:
            refuse(name, "denominator", given, repr(denominator))
    elif isinstance(denominator, Tensor):
        if denominator.is_complex() or denominator.dtype == torch.bool:
            refuse(name, "denominator", given, denominator, error=TypeError)
        if denominator.dim() != 0:
            refuse(name, "denominator", given, denominator, "Sum it up first: it is one number for the whole batch.")
        if readable(denominator):
            _check_number(name, given, float(denominator.detach()))
    elif isinstance(denominator, bool) or not isinstance(
        denominator, int | float | np.number | torch.SymInt | torch.SymFloat
    ):
        refuse(name, "denominator", given, denominator, error=TypeError)
    elif not isinstance(denominator, torch.SymInt | torch.SymFloat):
        _check_number(name, given, denominator)
    if reduction != "mean" and not (isinstance(denominator, str) and denominator == "torch"):
        refuse(
            name,
            "denominator",
            f"left alone with reduction={reduction!r}",
            denominator,
            "Only a mean divides: use reduction='mean', or divide the result yourself.",
        )


def _check_number(name: str, rule: str, value: Any) -> None:
    if not 0 <= value < math.inf:
        refuse(name, "denominator", rule, repr(value))


def reduce(
    name: str,
    loss: Tensor,
    reduction: str,
    denominator: Denominator,
    empty: str,
    dtype: torch.dtype,
) -> Tensor:
    """Per-row losses, in the accumulation dtype, to the result in ``dtype``: one rounding, at the end."""
    if reduction == "none":
        return loss.to(dtype)
    total = ordered_sum(loss)
    if reduction == "sum":
        return total.to(dtype)
    assert not isinstance(denominator, str)
    # As a tensor, since torch.func.jvp gives a 0-d float32 tensor over a Python number a float64 tangent; and as a
    # product, since torch.compile makes a new program for each number that a tensor is constructed from.
    divisor = denominator if isinstance(denominator, Tensor) else torch.ones_like(total) * denominator
    if empty == "nan":
        return (total / divisor).to(dtype)
    divisor = divisor.to(total.device, total.dtype)
    nothing = divisor == 0
    if empty == "raise":
        if bool(nothing):
            raise ValueError(
                f"{name}: the mean must have something to divide by; got a denominator of 0 (every row ignored, of "
                "weight zero, or none at all). Use empty='zero' to count such a batch as 0."
            )
        return (total / divisor).to(dtype)
    # Still a function of the logits, with a gradient of zero: every rank of a DDP job takes part in its all-reduce.
    return (total / divisor.masked_fill(nothing, 1.0)).masked_fill(nothing, 0.0).to(dtype)


def ordered_row_sum(values: Tensor, dim: int) -> Tensor:
    """The sums along one axis, in an order that depends on its size only."""
    if torch.compiler.is_compiling():
        return values.sum(dim)
    values = values.movedim(dim, -1)
    while values.shape[-1] > _BLOCK:
        values = pad(values, (0, -values.shape[-1] % _BLOCK)).unflatten(-1, (-1, _BLOCK)).sum(-1)
    return values.sum(-1)


def ordered_sum(values: Tensor) -> Tensor:
    """The sum, in an order that depends on the number of values only: the same bits for any number of threads."""
    values = values.reshape(-1)
    if torch.compiler.is_compiling():
        return values.sum()  # the compiler lays out its own sums, and a loop would fix the size of the batch
    if values.is_cuda:
        return values.sum()  # in one order there, and in fewer steps
    while values.numel() > _ONE_THREAD:
        missing = -values.numel() % _BLOCK
        values = (pad(values, (0, missing)) if missing else values).reshape(-1, _BLOCK).sum(1)
    return values.sum()
