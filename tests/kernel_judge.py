"""An oracle for the kernels in wider numbers than theirs, and a judge of what is no worse than eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from kernel_cases import Elements, Rows
from torch import Tensor

from steelyard.ops import reference

__all__ = ["BIT", "FACTOR", "Exact", "Judge", "exact_elements", "exact_rows"]

F64 = torch.float64


@dataclass(frozen=True)
class Exact:
    """A result, and the size of the terms that it is summed from: what its error is to be measured by."""

    value: Any
    size: Any


def exact_rows(rows: Rows) -> tuple[Exact, Exact]:
    """Loss and gradient of 2-d logits with index or soft targets; of float64 in extended precision.

    Written from the formula, apart from the library. ``size`` leaves out that terms cancel: in a sum the absolute
    values of the terms are added, and a logarithm, a difference of two numbers of order 1, has that order at least.
    """
    wide: Any = np.longdouble if rows.input.dtype == F64 else np.float64

    def array(tensor: Tensor) -> Any:
        return tensor.detach().double().numpy().astype(wide)

    z, upstream = array(rows.input), array(rows.upstream)[:, None]
    count, classes = z.shape
    soft = rows.target.is_floating_point()
    kept = np.ones((count, 1), bool) if soft else (rows.target != rows.ignore_index).numpy()[:, None]
    if soft:
        q = array(rows.target)
    else:
        q = np.zeros_like(z)
        q[np.arange(count), np.where(kept[:, 0], rows.target.numpy(), 0)] = 1
    w = np.ones(classes, wide) if rows.weight is None else array(rows.weight)
    v = np.ones((count, 1), wide) if rows.row_weight is None else array(rows.row_weight)[:, None]
    v = np.where(kept, v, wide(0))
    a = z
    if rows.offset is not None:
        a = a + array(rows.offset)
    if rows.margin is not None:
        a = a - array(rows.margin) * q
    a = a - a.max(1, keepdims=True)
    e = np.exp(a)
    total = e.sum(1, keepdims=True)
    l, s = a - np.log(total), e / total  # noqa: E741  # the formula's own letter
    smoothed = (1 - wide(rows.smoothing)) * q + wide(rows.smoothing) / classes
    mass = smoothed * (w * q).sum(1, keepdims=True) if rows.smooth_by_target else smoothed * w
    rest, g = -np.expm1(l), wide(rows.gamma)
    with np.errstate(divide="ignore", invalid="ignore"):
        focus = rest**g
        slope = -focus + (np.where(rest == 0, 0, g * l * s * rest ** (g - 1)) if g else 0)
        loss = v * np.where(mass == 0, 0, mass * -l * focus)
        size = np.abs(v) * np.where(mass == 0, 0, np.abs(mass) * (1 + g) * (1 - l))
    push = v * upstream * mass * slope
    pushed = s * push.sum(1, keepdims=True)
    pushed_size = (1 - a) * s * np.abs(push).sum(1, keepdims=True)  # exp turns an error of a into one of s
    return (
        Exact(loss.sum(1), size.sum(1)),
        Exact(push - pushed, np.abs(push) * (1 + g) + pushed_size),
    )


def exact_elements(elements: Elements) -> tuple[Exact, Exact]:
    """Loss and gradient of elements; of float64 in extended precision."""
    wide: Any = np.longdouble if elements.input.dtype == F64 else np.float64

    def array(tensor: Tensor | float) -> Any:
        return torch.as_tensor(tensor, dtype=F64).numpy().astype(wide)

    z, t, upstream = array(elements.input), array(elements.target), array(elements.upstream)
    kept = np.ones(z.shape, bool) if elements.ignore_index is None else t != elements.ignore_index
    t = np.where(kept, t, wide(0))
    v = np.where(kept, wide(1) if elements.weight is None else array(elements.weight), wide(0))
    big_p = wide(1) if elements.pos_weight is None else array(elements.pos_weight)
    odds = np.exp(-np.abs(z))
    p, n = np.where(z < 0, odds, 1) / (1 + odds), np.where(z < 0, 1, odds) / (1 + odds)
    log_p, log_n = np.minimum(z, 0) - np.log1p(odds), np.minimum(-z, 0) - np.log1p(odds)
    gp, gn = wide(elements.gamma_pos), wide(elements.gamma_neg)
    positive, by_z = n**gp * -log_p, -(n**gp) * (n - gp * p * log_p)
    focus_size = 1 - gp * log_n
    if elements.clip == 0:
        negative, negative_by_z = p**gn * -log_n, p**gn * (p - gn * n * log_n)
        negative_size, slope_size = negative * (1 - gn * log_p), negative_by_z * (1 - gn * log_p)
    else:
        u = np.maximum(p - wide(elements.clip), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            negative = np.where(u == 0, 0, u**gn * -np.log1p(-u))
            inner = 1 / (1 - u) - np.where(u == 0, 0, gn * np.log1p(-u) / u)
            negative_by_z = np.where(u == 0, 0, p * n * u**gn * inner)
            # σ − κ is rounded in proportion to σ and κ, which u^γ passes on; σ just above κ may round to κ
            shaky = (p + elements.clip) / np.maximum(u, 1e-3)
        negative_size, slope_size = negative * (1 + gn) * (1 + shaky), (p * n + negative_by_z) * (1 + gn) * (1 + shaky)
    big_q = wide(elements.neg_weight)
    loss = v * (big_p * t * positive + big_q * (1 - t) * negative)
    size = np.abs(v) * (big_p * t * positive * focus_size + big_q * (1 - t) * negative_size)
    grad = upstream * v * (big_p * t * by_z + big_q * (1 - t) * negative_by_z)
    grad_size = np.abs(upstream * v) * (big_p * t * -by_z * focus_size + big_q * (1 - t) * slope_size)
    return Exact(loss, size), Exact(grad, grad_size)


def _numbers(tensor: Tensor, like: Any) -> Any:
    return tensor.detach().double().numpy().astype(like.dtype)


# --------------------------------------------------------------------------------------------------------------- judge

# How many times the largest error of eager is no worse. Which of two roundings of the same sum is the larger is chance;
# over many elements the largest errors of two sums of the same kind differ by less than this.
FACTOR = 1.5

# An element is no sum but a handful of functions in a row, each with a last bit of its own: one bit is no worse.
BIT = 2.0


class Judge:
    """Whether results in ``dtype`` are no worse than eager ones in the accumulation dtype, over all that is added.

    Errors count in units of the terms that a result is summed from. Beside :data:`FACTOR` times the largest of eager,
    a result may have one rounding to its dtype, of its own value: eager's own roundings to a narrow dtype would hide
    whatever happened before.
    """

    def __init__(self, dtype: torch.dtype, factor: float = FACTOR) -> None:
        info, accumulation = torch.finfo(dtype), torch.finfo(reference.accumulation_dtype(dtype))
        self.factor, self.rounding = factor, info.eps / 2
        # Below the smallest normal number there are no units to count in.
        self.least = info.smallest_normal * info.eps + 16 * accumulation.smallest_normal
        self.eager = accumulation.eps / 2  # one that happens to be exact has rounded, too
        self.ours, self.worst = 0.0, ""

    def add(self, what: str, ours: Tensor, exact: Exact, *eager: Tensor) -> None:
        """One more result, the exact one, and eager ones; those in the first call of several judge the others, too."""
        size = np.maximum(exact.size, np.finfo(exact.size.dtype).tiny)
        for other in eager:
            error = np.abs(_numbers(other, exact.value) - exact.value)
            self.eager = max(self.eager, float(np.max((error - self.least) / size, initial=0.0)))
        error = np.abs(_numbers(ours, exact.value) - exact.value)
        excess = (error - self.rounding * np.abs(exact.value) - self.least) / size
        largest = float(np.max(np.where(np.isnan(excess), np.inf, excess), initial=0.0))
        if largest > self.ours:
            self.ours, self.worst = largest, what

    @property
    def accepts(self) -> bool:
        return self.ours <= self.factor * self.eager

    def verdict(self) -> None:
        assert self.accepts, f"{self.worst}: an error of {self.ours:.3g} where eager's largest is {self.eager:.3g}"
