"""Counts and labels that stay where they are: on a GPU, looking at one would wait for the device.

What cannot be looked at cannot be refused. Where the host would raise, the answer here is NaN: never a plausible
number, and refused in turn by whatever holds it next (a loss module, a sampler).
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import readable
from steelyard.counts import LARGEST_TOTAL

__all__ = ["counts_of", "is_unread", "widest"]


def is_unread(values: Any) -> TypeGuard[Tensor]:
    """Whether these are a tensor on a device, or of numbers that do not exist yet."""
    return isinstance(values, Tensor) and not readable(values)


def counts_of(function: str, counts: Tensor) -> tuple[Tensor, Tensor]:
    """``n, sound``: the counts in floating point, and whether they are whole numbers that add up: a bool, 0-d."""
    if counts.dim() != 1:
        refuse(function, "counts", "one count per class, of shape (C,)", counts)
    if counts.numel() == 0:
        refuse(function, "counts", "at least one count", "none")
    if counts.is_complex() or counts.dtype == torch.bool:
        refuse(function, "counts", "whole numbers of zero or more, one per class", counts, error=TypeError)
    n = counts.detach().to(widest(counts.device))
    total = n.sum()
    return n, ((n >= 0) & (n == n.round())).all() & (total < LARGEST_TOTAL)


def widest(device: torch.device) -> torch.dtype:
    """The widest floating-point dtype that a device computes in."""
    return torch.float32 if device.type == "mps" else torch.float64
