"""The schemes, and what is done to their weights: arithmetic alone, on any device, and no value is looked at.

Counts come whole, classes without samples among them; what a scheme makes of those is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SCHEMES", "Steps", "capped", "effective_number", "median_frequency", "options", "unfit"]


def _balanced(n: Tensor) -> Tensor:
    return n.sum() / ((n > 0).sum() * n)


def median_frequency(f: Tensor) -> Tensor:
    """From frequencies, or from counts: there the common denominator cancels. Those that are not above 0 are absent."""
    there = f > 0
    ordered = torch.where(there, f, math.inf).sort().values
    known = there.sum()
    middle = torch.stack([(known - 1) // 2, known // 2]).clamp(min=0)
    return ordered.index_select(0, middle).mean() / f


def effective_number(n: Tensor, beta: float | None = None) -> Tensor:
    """(1−β)/(1−βⁿ), through expm1 and log1p: with β = (N−1)/N, 1 − β keeps no digits for large N."""
    gap = 1 / n.sum() if beta is None else torch.full_like(n, 1 - beta)
    return gap / -torch.expm1(n * torch.log1p(-gap))


SCHEMES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "inverse": lambda n: 1 / n,
    "max_ratio": lambda n: n.max() / n,
    "balanced": _balanced,
    "sqrt_inverse": lambda n: n.rsqrt(),
    "effective_number": effective_number,
    "median_frequency": median_frequency,
    "log": lambda n: 1 / torch.log1p(0.02 + n / n.sum()),
}
"""The schemes of :func:`steelyard.class_weights` by name: from floating-point counts ``(C,)`` to weights ``(C,)``."""


class Steps(NamedTuple):
    """Weights on their way, ``(C,)`` each; zero for classes without samples until ``missing`` has its say."""

    raw: Tensor
    powered: Tensor
    capped: Tensor
    last: Tensor


def options(n: Tensor, raw: Tensor, *, power: float, cap: float | None, missing: str, normalize: str | None) -> Steps:
    """From the weights of a scheme to those that are asked for."""
    present = n > 0
    raw = torch.where(present, raw, 0.0)
    powered = torch.where(present, raw**power, 0.0)
    weights = limited = powered if cap is None else capped(powered, cap)
    if missing == "max":
        weights = torch.where(present, weights, weights.max())
    if normalize is not None:
        scales = {"mean": weights.mean(), "sum": weights.sum(), "max": weights.max(),
                  "prior": (n / n.sum() * weights).sum()}  # fmt: skip
        weights = weights / scales[normalize]
    return Steps(raw, powered, limited, weights)


def capped(weights: Tensor, cap: float) -> Tensor:
    """None of them more than ``cap`` times the smallest one that is not zero."""
    limit = cap * torch.where(weights > 0, weights, math.inf).min()
    # A ratio that equals the cap but for rounding is not over it.
    return torch.where(weights > limit * (1 + 1e-12), limit, weights)


def unfit(found: Tensor, exact: Tensor) -> Tensor:
    """Whether numbers left the range of their dtype: a bool, 0-d."""
    return ~found.isfinite().all() | ((found == 0) & (exact > 0)).any()
