"""What a tensor gives away about how it was made."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steelyard.ops import class_dim

__all__ = ["are_log_probabilities", "are_probabilities", "perfect_row"]

SAMPLE = 2**22
"""Numbers looked at; more would say the same."""


def _sums(input: Tensor, *, log: bool) -> Tensor:
    """What the numbers of each row add up to, or their exponentials."""
    dim = class_dim(input)
    wide = input.detach().double()
    return wide.logsumexp(dim).exp() if log else wide.sum(dim)


def _some(input: Tensor) -> Tensor:
    rows = max(1, SAMPLE // max(1, input[:1].numel()))
    return input if input.dim() == 1 else input[:rows]


def _tolerance(input: Tensor) -> float:
    """How far a row of softmaxed numbers may miss 1 through rounding alone."""
    steps = {torch.float16: 16.0, torch.bfloat16: 4.0}.get(input.dtype, 256.0)
    return min(0.05, steps * torch.finfo(input.dtype).eps)


def are_probabilities(input: Tensor) -> bool:
    """Whether two rows or more all lie in [0, 1] and add up to 1: logits hardly ever do."""
    input = _some(input)
    if not input.is_floating_point() or input.dim() < 2 or input.shape[1] < 2 or input.numel() < 2 * input.shape[1]:
        return False
    if not bool(((input >= 0) & (input <= 1)).all()):
        return False
    return bool(((_sums(input, log=False) - 1).abs() <= _tolerance(input)).all())


def are_log_probabilities(input: Tensor) -> bool:
    """Whether the exponentials of every row add up to 1."""
    input = _some(input)
    if not input.is_floating_point() or input.numel() == 0 or input.dim() == 0:
        return False
    if not bool((input <= 0).all()):
        return False
    return bool(((_sums(input, log=True) - 1).abs() <= _tolerance(input)).all())


def perfect_row(classes: int) -> float:
    """Cross entropy of a row that is certain and right, if its probabilities are taken for logits."""
    return math.log(math.e + classes - 1) - 1.0
