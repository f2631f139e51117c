r"""The sigmoid formula on a GPU, in Triton.

Letters as in :mod:`steelyard.ops`::

    loss = v · [ P·t·(1 − σ)^γ₊·(−log σ) + Q·(1 − t)·σ₋^γ₋·(−log(1 − σ₋)) ]      σ₋ = max(σ − κ, 0)

One kernel, one pass: logit and target are read once, and where the gradient is asked for it is written in the same
pass. Everything is float32 between the load and the store. Each sum has an order that depends on shapes only: there
are no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from steelyard.ops.gpu.functions import exp_for, log1p, over
from steelyard.ops.gpu.softmax_parts import aligned

__all__ = ["FLAT", "ONE", "STRIDED", "elements"]


# How a tensor lies: by strides; one element behind the other, in the order of the walk; or as one number for all.
STRIDED, FLAT, ONE = 0, 1, 2


@triton.jit
def _place(i, i0, i1, i2, i3, s0, s1, s2, s3, LIES: tl.constexpr):
    """Where elements are."""
    if LIES == 1:
        found = i
    else:
        found = i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3
    return found


@triton.jit
def _read(pointer, i, i0, i1, i2, i3, s0, s1, s2, s3, live, LIES: tl.constexpr, MASKED: tl.constexpr):
    """What is there; 0 where nothing is."""
    if LIES == 2:
        found = tl.load(pointer)
    else:
        place = _place(i, i0, i1, i2, i3, s0, s1, s2, s3, LIES)
        if MASKED:
            found = tl.load(pointer + place, mask=live, other=0)
        else:
            found = tl.load(pointer + place)
    return found


@triton.jit
def _write(
    pointer, values, i, i0, i1, i2, i3, s0, s1, s2, s3, live, LIES: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    place = _place(i, i0, i1, i2, i3, s0, s1, s2, s3, LIES)
    if MASKED:
        tl.store(pointer + place, values, mask=live)
    else:
        tl.store(pointer + place, values)


@triton.jit
def _stretch(
    block, z, t, v, pos, up, loss, grad, count, n1, n2, n3,
    z0, z1, z2, z3, t0, t1, t2, t3, v0, v1, v2, v3, p0, p1, p2, p3, u0, u1, u2, u3, l0, l1, l2, l3, g0, g1, g2, g3,
    negative, gamma_pos, gamma_neg, clip, ignore,
    WEIGHT: tl.constexpr, POS_WEIGHT: tl.constexpr, FOCUS_POS: tl.constexpr, FOCUS_NEG: tl.constexpr,
    CLIP: tl.constexpr, IGNORE: tl.constexpr, WHOLE_TARGET: tl.constexpr, LOSS: tl.constexpr, GRAD: tl.constexpr,
    Z: tl.constexpr, T: tl.constexpr, V: tl.constexpr, P: tl.constexpr, U: tl.constexpr,
    L: tl.constexpr, G: tl.constexpr, FULL: tl.constexpr, AXES: tl.constexpr,
    ALIGN: tl.constexpr, MASKED: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """A stretch of elements; MASKED if it may go beyond the last one."""
    i = block * SIZE + tl.arange(0, SIZE)
    live = i >= 0
    if MASKED:
        live = i < count
    # Only what lies by strides asks for these, and divisions take longer than what they are for.
    i0, i1, i2, i3 = i * 0, i * 0, i * 0, i
    if AXES > 1:
        n3 = aligned(n3, ALIGN)
        outer, i3 = i // n3, i % n3
        if AXES == 2:
            i2 = outer
        else:
            i0, i1, i2 = outer // n2 // n1, outer // n2 % n1, outer % n2

    logit = _read(z, i, i0, i1, i2, i3, z0, z1, z2, z3, live, Z, MASKED).to(tl.float32)
    given = _read(t, i, i0, i1, i2, i3, t0, t1, t2, t3, live, T, MASKED)
    kept = live
    if IGNORE:
        if WHOLE_TARGET:
            kept = live & (given.to(tl.int64) != ignore)
        else:
            kept = live & (given != ignore)
    target = given.to(tl.float32)
    logit = tl.where(kept, logit, 0.0)
    target = tl.where(kept, target, 0.0)

    odds = exp_for(-tl.abs(logit), FULL)
    shared = log1p(odds, FULL)
    less_log_p = tl.where(logit < 0.0, -logit, 0.0) + shared
    less_log_n = tl.where(logit < 0.0, 0.0, logit) + shared
    rest = over(tl.zeros([SIZE], tl.float32) + 1.0, 1.0 + odds, FULL)
    p = tl.where(logit < 0.0, odds * rest, rest)
    n = tl.where(logit < 0.0, rest, odds * rest)

    positive = less_log_p
    positive_slope = -n
    if FOCUS_POS:
        focus = tl.exp(-gamma_pos * less_log_n)
        positive = focus * less_log_p
        positive_slope = -focus * (n + gamma_pos * p * less_log_p)
    if CLIP:
        u = p - clip
        easy = u <= 0.0
        u = tl.where(easy, 0.5, u)
        other = tl.where(easy, 0.5, n + clip)
        log_other = tl.log(other)
        focus = tl.exp(gamma_neg * tl.log(u))
        opposed = tl.where(easy, 0.0, -log_other * focus)
        opposed_slope = tl.where(easy, 0.0, p * n * focus * (1.0 / other - gamma_neg * log_other / u))
    else:
        opposed = less_log_n
        opposed_slope = p
        if FOCUS_NEG:
            focus = tl.exp(-gamma_neg * less_log_p)
            opposed = focus * less_log_n
            opposed_slope = focus * (p + gamma_neg * n * less_log_n)

    of_positive = target
    if POS_WEIGHT:
        of_positive = target * _read(pos, i, i0, i1, i2, i3, p0, p1, p2, p3, live, P, MASKED)
    of_negative = (1.0 - target) * negative
    factor = 1.0
    if WEIGHT:
        factor = _read(v, i, i0, i1, i2, i3, v0, v1, v2, v3, live, V, MASKED)
    if LOSS:
        found = (of_positive * positive + of_negative * opposed) * factor
        found = tl.where(kept, found, 0.0)
        if LOSS == 1:
            _write(loss, found, i, i0, i1, i2, i3, l0, l1, l2, l3, live, L, MASKED)
        else:
            tl.store(loss + block, tl.sum(found, 0))
    if GRAD:
        upstream = _read(up, i, i0, i1, i2, i3, u0, u1, u2, u3, live, U, MASKED)
        result = upstream * ((of_positive * positive_slope + of_negative * opposed_slope) * factor)
        result = tl.where(kept, result, 0.0)
        _write(grad, result.to(grad.dtype.element_ty), i, i0, i1, i2, i3, g0, g1, g2, g3, live, G, MASKED)


@triton.jit
def _either(
    block, z, t, v, pos, up, loss, grad, count, n1, n2, n3,
    z0, z1, z2, z3, t0, t1, t2, t3, v0, v1, v2, v3, p0, p1, p2, p3, u0, u1, u2, u3, l0, l1, l2, l3, g0, g1, g2, g3,
    negative, gamma_pos, gamma_neg, clip, ignore,
    WEIGHT: tl.constexpr, POS_WEIGHT: tl.constexpr, FOCUS_POS: tl.constexpr, FOCUS_NEG: tl.constexpr,
    CLIP: tl.constexpr, IGNORE: tl.constexpr, WHOLE_TARGET: tl.constexpr, LOSS: tl.constexpr, GRAD: tl.constexpr,
    Z: tl.constexpr, T: tl.constexpr, V: tl.constexpr, P: tl.constexpr, U: tl.constexpr,
    L: tl.constexpr, G: tl.constexpr, FULL: tl.constexpr, AXES: tl.constexpr,
    ALIGN: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """All stretches but the last are whole, and wide words of memory need no mask there, however many elements."""
    if WIDE:
        block = block.to(tl.int64)
    if (block + 1) * SIZE <= count:
        _stretch(
            block, z, t, v, pos, up, loss, grad, count, n1, n2, n3, z0, z1, z2, z3, t0, t1, t2, t3,
            v0, v1, v2, v3, p0, p1, p2, p3, u0, u1, u2, u3, l0, l1, l2, l3, g0, g1, g2, g3,
            negative, gamma_pos, gamma_neg, clip, ignore, WEIGHT, POS_WEIGHT, FOCUS_POS, FOCUS_NEG, CLIP, IGNORE,
            WHOLE_TARGET, LOSS, GRAD, Z, T, V, P, U, L, G, FULL, AXES, ALIGN, False, SIZE,
        )  # fmt: skip
    else:
        _stretch(
            block, z, t, v, pos, up, loss, grad, count, n1, n2, n3, z0, z1, z2, z3, t0, t1, t2, t3,
            v0, v1, v2, v3, p0, p1, p2, p3, u0, u1, u2, u3, l0, l1, l2, l3, g0, g1, g2, g3,
            negative, gamma_pos, gamma_neg, clip, ignore, WEIGHT, POS_WEIGHT, FOCUS_POS, FOCUS_NEG, CLIP, IGNORE,
            WHOLE_TARGET, LOSS, GRAD, Z, T, V, P, U, L, G, FULL, AXES, ALIGN, True, SIZE,
        )  # fmt: skip


@triton.jit(do_not_specialize=["count", "blocks", "n1", "n2", "n3"])
def elements(
    z, t, v, pos, up, used, loss, grad,
    count, n1, n2, n3,
    z0, z1, z2, z3, t0, t1, t2, t3, v0, v1, v2, v3, p0, p1, p2, p3, u0, u1, u2, u3, l0, l1, l2, l3, g0, g1, g2, g3,
    negative, gamma_pos, gamma_neg, clip, ignore, blocks,
    WEIGHT: tl.constexpr, POS_WEIGHT: tl.constexpr, FOCUS_POS: tl.constexpr, FOCUS_NEG: tl.constexpr,
    CLIP: tl.constexpr, IGNORE: tl.constexpr, WHOLE_TARGET: tl.constexpr, LOSS: tl.constexpr, GRAD: tl.constexpr,
    CHECKED: tl.constexpr, Z: tl.constexpr, T: tl.constexpr, V: tl.constexpr, P: tl.constexpr,
    U: tl.constexpr, L: tl.constexpr, G: tl.constexpr, FULL: tl.constexpr, AXES: tl.constexpr,
    ALIGN: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """A stretch of elements; or CHECKED, as in the softmax kernels, many of them, or none."""
    if CHECKED:
        if tl.load(used) != tl.load(up):
            for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
                _either(
                    block, z, t, v, pos, up, loss, grad, count, n1, n2, n3, z0, z1, z2, z3, t0, t1, t2, t3,
                    v0, v1, v2, v3, p0, p1, p2, p3, u0, u1, u2, u3, l0, l1, l2, l3, g0, g1, g2, g3,
                    negative, gamma_pos, gamma_neg, clip, ignore, WEIGHT, POS_WEIGHT, FOCUS_POS, FOCUS_NEG, CLIP,
                    IGNORE, WHOLE_TARGET, LOSS, GRAD, Z, T, V, P, U, L, G,
                    FULL, AXES, ALIGN, WIDE, SIZE,
                )  # fmt: skip
    else:
        _either(
            tl.program_id(0), z, t, v, pos, up, loss, grad, count, n1, n2, n3, z0, z1, z2, z3, t0, t1, t2, t3,
            v0, v1, v2, v3, p0, p1, p2, p3, u0, u1, u2, u3, l0, l1, l2, l3, g0, g1, g2, g3,
            negative, gamma_pos, gamma_neg, clip, ignore, WEIGHT, POS_WEIGHT, FOCUS_POS, FOCUS_NEG, CLIP,
            IGNORE, WHOLE_TARGET, LOSS, GRAD, Z, T, V, P, U, L, G,
            FULL, AXES, ALIGN, WIDE, SIZE,
        )  # fmt: skip
