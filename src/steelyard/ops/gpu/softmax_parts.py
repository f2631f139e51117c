"""What the two softmax kernels are made of: the formula's terms, and where a row is; letters as in :mod:`.softmax`."""

from __future__ import annotations

import triton
import triton.language as tl

from steelyard.ops.gpu.functions import exp, expm1

__all__ = ["aligned", "focused", "labels_of", "mass_of", "own_of", "rows_of", "shifted", "slope_of", "step_of"]


@triton.jit
def _lower_power(x, gamma, TWICE: tl.constexpr):
    """``x^(γ − 1)``: by products and a root where 2γ is a small whole number, TWICE; else that is −1."""
    if TWICE == 1:
        found = 1.0 / tl.sqrt(x)
    elif TWICE > 1:
        found = tl.where(x == x, 1.0, x)
        if TWICE % 2 == 1:
            found = tl.sqrt(x)
        for _ in tl.static_range(TWICE // 2 - 1):
            found = found * x
    else:
        found = tl.exp((gamma - 1.0) * tl.log(x))
    return found


@triton.jit
def focused(log_s, gamma, TWICE: tl.constexpr):
    """``f(log_s)``, and 0 where s has rounded to 1; TWICE as above, 0 for γ = 0."""
    if TWICE == 0:
        found = -log_s
    else:
        rest = -expm1(log_s)
        sure = rest == 0.0
        rest = tl.where(sure, 1.0, rest)
        found = tl.where(sure, 0.0, -log_s * (_lower_power(rest, gamma, TWICE) * rest))
    return found


@triton.jit
def slope_of(log_s, gamma, TWICE: tl.constexpr):
    """``f'(log_s) = −(1 − s)^γ + γ·log_s·s·(1 − s)^(γ−1)``, and 0 where s has rounded to 1."""
    if TWICE == 0:
        found = tl.where(log_s == log_s, -1.0, log_s)
    else:
        rest = -expm1(log_s)
        sure = rest == 0.0
        rest = tl.where(sure, 1.0, rest)
        lower = _lower_power(rest, gamma, TWICE)
        l_times_s = tl.where(log_s == float("-inf"), 0.0, log_s * exp(log_s))
        found = tl.where(sure, 0.0, gamma * l_times_s * lower - lower * rest)
    return found


@triton.jit
def step_of(i, stride, WIDE: tl.constexpr):
    """``i·stride``, in 64 bits where 32 may not do."""
    if WIDE:
        i = i.to(tl.int64)
    return i * stride


@triton.jit
def labels_of(y, row, live, classes, ignore):
    """The labels of rows; which are kept, and which of those are no class."""
    label = tl.load(y + row, mask=live, other=0).to(tl.int64)
    kept = live & (label != ignore)
    bad = kept & ((label < 0) | (label >= classes))
    # −1 is no class: nothing matches it.
    return tl.where(kept & (bad == 0), label, -1).to(tl.int32), kept, bad


@triton.jit
def shifted(
    z, d, m, place, c, known, hot, mask, MARGIN: tl.constexpr, OFFSET: tl.constexpr, KEEP: tl.constexpr
):  # fmt: skip
    """The shifted logits ``a`` of a tile, −inf beyond the last class and row; KEEP if they will be read again soon."""
    if KEEP:
        a = tl.load(z + place, mask=mask, other=float("-inf"), eviction_policy="evict_last").to(tl.float32)
    else:
        a = tl.load(z + place, mask=mask, other=float("-inf"), eviction_policy="evict_first").to(tl.float32)
    if OFFSET:
        a = a + tl.load(d + c, mask=known, other=0.0)[None, :]
    if MARGIN:
        a = a - tl.where(hot, tl.load(m + c, mask=known, other=0.0)[None, :], 0.0)
    return a


@triton.jit
def own_of(z, d, m, w, base, label, zc, WIDE: tl.constexpr, OFFSET: tl.constexpr, MARGIN: tl.constexpr,
         WEIGHT: tl.constexpr):  # fmt: skip
    """The shifted logit of each row's own class, fetched from memory by itself, and its weight; of a label −1, any."""
    a = tl.load(z + base + step_of(label, zc, WIDE), mask=label >= 0, other=0.0).to(tl.float32)
    if OFFSET:
        a = a + tl.load(d + label, mask=label >= 0, other=0.0)
    if MARGIN:
        a = a - tl.load(m + label, mask=label >= 0, other=0.0)
    weight = tl.where(label == label, 1.0, 0.0)
    if WEIGHT:
        weight = tl.load(w + label, mask=label >= 0, other=0.0)
    return a, weight


@triton.jit
def aligned(x, ALIGN: tl.constexpr):
    """A number that is known to be a multiple of ALIGN, in words that the compiler understands."""
    return (x // ALIGN) * ALIGN


@triton.jit
def rows_of(
    block, blocks, inner, count, n1, n2, ROWS: tl.constexpr, SPAN: tl.constexpr, AXES: tl.constexpr
):  # fmt: skip
    """Where the rows of a block are on each of the four axes, their numbers, and which of them there are.

    A block is a stretch of the last axis, or (SPAN, where that one is short) of all rows, fewer than 2^31 of them.
    AXES are how many there are, the last ones of the four: divisions take longer than what they are for.
    """
    nothing = block * 0
    if AXES == 1:
        i = block * ROWS + tl.arange(0, ROWS)
        live = i < inner
        row, i0, i1, i2 = i, nothing, nothing, nothing
    else:
        if SPAN:
            short = (block * ROWS).to(tl.int32) + tl.arange(0, ROWS)
            live = short < count
            outer = short // inner
            i = (short % inner).to(tl.int64)
            row = short.to(tl.int64)
        else:
            outer = block // blocks
            i = (block % blocks) * ROWS + tl.arange(0, ROWS)
            live = i < inner
            row = outer * inner + i
        if AXES == 2:
            i0, i1, i2 = nothing, nothing, outer.to(tl.int64)
        else:
            i0, i1 = (outer // n2 // n1).to(tl.int64), (outer // n2 % n1).to(tl.int64)
            i2 = (outer % n2).to(tl.int64)
    return i0, i1, i2, i, row, live


@triton.jit
def mass_of(
    q, w, place, c, known, hot, mask, keep, spread,
    SOFT: tl.constexpr, WEIGHT: tl.constexpr, BY_TARGET: tl.constexpr,
):  # fmt: skip
    """``A`` of a tile, without the factor that BY_TARGET weights whole rows by; and the terms of that factor."""
    if SOFT:
        share = tl.load(q + place, mask=mask, other=0.0).to(tl.float32)
    else:
        share = tl.where(hot, 1.0, 0.0)
    mass = tl.where(mask, share * keep + spread, 0.0)
    own = share
    if WEIGHT:
        weight = tl.load(w + c, mask=known, other=0.0)[None, :]
        own = share * weight
        if not BY_TARGET:
            mass = mass * weight
    return mass, own
