r"""The softmax formula on a GPU, in Triton.

Letters as in :mod:`steelyard.ops`::

    a_c = z_c + δ_c − m_c·[c = y]      M = max a      T = Σ e^(a_c − M)      l_c = (a_c − M) − log T      s_c = e^(l_c)
    loss = v · Σ_c A_c·f(l_c)          f(l) = −l·(1 − e^l)^γ           A_c = w_c·q_c          l is log_s in the code
    gradient_k = g·v · (A_k·f'(l_k) − s_k·Σ_c A_c·f'(l_c))

Two kernels compute it. ``whole_rows`` has a tile of whole rows on chip, one long row or many short ones: logits are
read once and, where the gradient is asked for, it is written in the same pass. ``long_rows`` walks over rows that are
too long for that, two or three times, so few of them at once that the L2 cache holds them; the last walk goes
backwards, so that it begins with what was read last.

Everything is float32 between the load and the store; half precision is rounded once, after the term of the row's own
class is in. Each sum has an order that depends on shapes and the device only: there are no atomics. A label outside
``[0, C)`` makes the loss and the gradient of its row NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl

from steelyard.ops.gpu.functions import exp, exp_for, expm1, log

__all__ = ["long_rows", "whole_rows"]


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
def _focused(log_s, gamma, TWICE: tl.constexpr):
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
def _slope(log_s, gamma, TWICE: tl.constexpr):
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
def _step(i, stride, WIDE: tl.constexpr):
    """``i·stride``, in 64 bits where 32 may not do."""
    if WIDE:
        i = i.to(tl.int64)
    return i * stride


@triton.jit
def _labels(y, row, live, classes, ignore):
    """The labels of rows; which are kept, and which of those are no class."""
    label = tl.load(y + row, mask=live, other=0).to(tl.int64)
    kept = live & (label != ignore)
    bad = kept & ((label < 0) | (label >= classes))
    # −1 is no class: nothing matches it.
    return tl.where(kept & (bad == 0), label, -1).to(tl.int32), kept, bad


@triton.jit
def _shifted(
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
def _own(z, d, m, w, base, label, zc, WIDE: tl.constexpr, OFFSET: tl.constexpr, MARGIN: tl.constexpr,
         WEIGHT: tl.constexpr):  # fmt: skip
    """The shifted logit of each row's own class, fetched from memory by itself, and its weight; of a label −1, any."""
    a = tl.load(z + base + _step(label, zc, WIDE), mask=label >= 0, other=0.0).to(tl.float32)
    if OFFSET:
        a = a + tl.load(d + label, mask=label >= 0, other=0.0)
    if MARGIN:
        a = a - tl.load(m + label, mask=label >= 0, other=0.0)
    weight = tl.where(label == label, 1.0, 0.0)
    if WEIGHT:
        weight = tl.load(w + label, mask=label >= 0, other=0.0)
    return a, weight


@triton.jit
def _aligned(x, ALIGN: tl.constexpr):
    """A number that is known to be a multiple of ALIGN, in words that the compiler understands."""
    return (x // ALIGN) * ALIGN


@triton.jit
def _rows(block, blocks, inner, count, n1, n2, ROWS: tl.constexpr, SPAN: tl.constexpr):
    """Where the rows of a block are on each of the four axes, their numbers, and which of them there are.

    A block is a stretch of the last axis, or (SPAN, where that one is short) of all rows, fewer than 2^31 of them.
    """
    if SPAN:
        short = (block * ROWS).to(tl.int32) + tl.arange(0, ROWS)
        live = short < count
        outer = short // inner
        i = (short % inner).to(tl.int64)
        i0, i1 = (outer // n2 // n1).to(tl.int64), (outer // n2 % n1).to(tl.int64)
        i2, row = (outer % n2).to(tl.int64), short.to(tl.int64)
    else:
        outer = block // blocks
        i = (block % blocks) * ROWS + tl.arange(0, ROWS)
        live = i < inner
        i0, i1, i2 = outer // n2 // n1, outer // n2 % n1, outer % n2
        row = outer * inner + i
    return i0, i1, i2, i, row, live


@triton.jit
def _mass(
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


@triton.jit
def _whole(
    block, z, y, w, v, d, m, up, maximum, total, loss, grad,
    classes, inner, blocks, count, n1, n2, v_step, up_step,
    z0, z1, z2, z3, zc, g0, g1, g2, g3, gc, q0, q1, q2, q3, qc,
    gamma, keep, spread, ignore,
    SOFT: tl.constexpr, GENERAL: tl.constexpr, BY_TARGET: tl.constexpr, WEIGHT: tl.constexpr, ROW_WEIGHT: tl.constexpr,
    OFFSET: tl.constexpr, MARGIN: tl.constexpr, TWICE: tl.constexpr, LOSS: tl.constexpr, GRAD: tl.constexpr,
    STATISTICS: tl.constexpr, OVER: tl.constexpr, WIDE: tl.constexpr, FULL: tl.constexpr, SPAN: tl.constexpr,
    ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """One tile of ``whole_rows``."""
    i0, i1, i2, i, row, live = _rows(block, blocks, inner, count, n1, n2, ROWS, SPAN)
    c = tl.arange(0, CLASSES)
    known = c < classes
    mask = live[:, None] & known[None, :]
    base = i0 * z0 + i1 * z1 + i2 * z2 + i * z3
    place = base[:, None] + _step(c, zc, WIDE)[None, :]

    label, kept, bad = tl.zeros([ROWS], tl.int32) - 1, live, row < 0
    if not SOFT:
        label, kept, bad = _labels(y, row, live, classes, ignore)
    hot = c[None, :] == label[:, None]
    a = _shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, False)
    if not GENERAL:
        own_a, own_w = _own(z, d, m, w, base, label, zc, WIDE, OFFSET, MARGIN, WEIGHT)
    if OVER:  # the gradient goes where others of these threads may not have read yet
        tl.debug_barrier()
    top = tl.max(a, 1)
    a = a - top[:, None]
    e = exp_for(a, FULL)
    sum_e = tl.sum(e, 1)
    log_sum = log(sum_e)
    row_weight = tl.zeros([ROWS], tl.float32) + 1.0
    if ROW_WEIGHT:
        row_weight = tl.load(v + row * v_step, mask=live, other=0.0)
    upstream = row_weight
    if GRAD:
        upstream = upstream * tl.load(up + row * up_step, mask=live, other=0.0)
        upstream = tl.where(bad, float("nan"), upstream)

    if not GENERAL:  # all mass is on the row's own class
        own_l = (own_a - top) - log_sum
        if LOSS:
            found = _focused(own_l, gamma, TWICE) * own_w
        if GRAD:
            pushed = upstream * own_w * _slope(own_l, gamma, TWICE)
            slope = tl.where(hot, pushed[:, None], 0.0)
    else:
        log_s = a - log_sum[:, None]
        q_place = place
        if SOFT:
            q_place = (i0 * q0 + i1 * q1 + i2 * q2 + i * q3)[:, None] + _step(c, qc, WIDE)[None, :]
        mass, own = _mass(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
        if BY_TARGET and WEIGHT:
            mass = mass * tl.sum(own, 1)[:, None]
        if LOSS:
            terms = mass * _focused(log_s, gamma, TWICE)
            found = tl.sum(tl.where((mass == 0.0) & (log_s == float("-inf")), 0.0, terms), 1)
        if GRAD:
            slope = upstream[:, None] * mass * _slope(log_s, gamma, TWICE)
            slope = tl.where(mask, slope, 0.0)
            pushed = tl.sum(slope, 1)

    if LOSS:
        found = found * row_weight
        found = tl.where(bad, float("nan"), tl.where(kept, found, 0.0))
        if LOSS == 1:
            tl.store(loss + row, found, mask=live)
        else:
            tl.store(loss + block, tl.sum(found, 0))
    if STATISTICS:
        tl.store(maximum + row, top, mask=live)
        tl.store(total + row, sum_e, mask=live)
    if GRAD:
        result = slope - (e * (1.0 / sum_e)[:, None]) * pushed[:, None]
        result = tl.where(kept[:, None], result, 0.0)
        g_place = (i0 * g0 + i1 * g1 + i2 * g2 + i * g3)[:, None] + _step(c, gc, WIDE)[None, :]
        tl.store(grad + g_place, result.to(grad.dtype.element_ty), mask=mask, eviction_policy="evict_first")


# Sizes that change with the batch are no reason to compile anew; what the compiler has to know of them, ALIGN says.
_OF_THE_BATCH = ["inner", "blocks", "count", "n1", "n2", "all_blocks"]


@triton.jit(do_not_specialize=_OF_THE_BATCH)
def whole_rows(
    z, y, w, v, d, m, up, used, maximum, total, loss, grad,
    classes, inner, blocks, count, n1, n2, v_step, up_step,
    z0, z1, z2, z3, zc, g0, g1, g2, g3, gc, q0, q1, q2, q3, qc,
    gamma, keep, spread, ignore, all_blocks,
    SOFT: tl.constexpr, GENERAL: tl.constexpr, BY_TARGET: tl.constexpr, WEIGHT: tl.constexpr, ROW_WEIGHT: tl.constexpr,
    OFFSET: tl.constexpr, MARGIN: tl.constexpr, TWICE: tl.constexpr, LOSS: tl.constexpr, GRAD: tl.constexpr,
    STATISTICS: tl.constexpr, SAVED: tl.constexpr, CHECKED: tl.constexpr, OVER: tl.constexpr, WIDE: tl.constexpr,
    FULL: tl.constexpr, SPAN: tl.constexpr, SIDE: tl.constexpr, ALIGN: tl.constexpr, ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
):  # fmt: skip
    """A tile of whole rows, on chip from its one read to its one write."""
    if SIDE:
        inner, zc, gc, qc = _aligned(inner, ALIGN), _aligned(zc, ALIGN), _aligned(gc, ALIGN), _aligned(qc, ALIGN)
    else:
        classes, z3, g3, q3 = _aligned(classes, ALIGN), _aligned(z3, ALIGN), _aligned(g3, ALIGN), _aligned(q3, ALIGN)
    z0, z1, z2 = _aligned(z0, ALIGN), _aligned(z1, ALIGN), _aligned(z2, ALIGN)
    g0, g1, g2 = _aligned(g0, ALIGN), _aligned(g1, ALIGN), _aligned(g2, ALIGN)
    q0, q1, q2 = _aligned(q0, ALIGN), _aligned(q1, ALIGN), _aligned(q2, ALIGN)
    if CHECKED:
        # The gradient is there, and right unless it was made for another upstream one. Where it is, as nearly always,
        # many programs would take time to find that out: there are few, and each has many tiles.
        if tl.load(used) != tl.load(up):
            for number in range(tl.program_id(0), all_blocks, tl.num_programs(0)):
                _whole(
                    tl.zeros([1], tl.int64) + number, z, y, w, v, d, m, up, maximum, total, loss, grad,
                    classes, inner, blocks, count, n1, n2, v_step, up_step,
                    z0, z1, z2, z3, zc, g0, g1, g2, g3, gc, q0, q1, q2, q3, qc, gamma, keep, spread, ignore,
                    SOFT, GENERAL, BY_TARGET, WEIGHT, ROW_WEIGHT, OFFSET, MARGIN, TWICE, LOSS, GRAD,
                    STATISTICS, OVER, WIDE, FULL, SPAN, ROWS, CLASSES,
                )  # fmt: skip
    else:
        _whole(
            tl.program_id(0).to(tl.int64), z, y, w, v, d, m, up, maximum, total, loss, grad,
            classes, inner, blocks, count, n1, n2, v_step, up_step,
            z0, z1, z2, z3, zc, g0, g1, g2, g3, gc, q0, q1, q2, q3, qc, gamma, keep, spread, ignore,
            SOFT, GENERAL, BY_TARGET, WEIGHT, ROW_WEIGHT, OFFSET, MARGIN, TWICE, LOSS, GRAD,
            STATISTICS, OVER, WIDE, FULL, SPAN, ROWS, CLASSES,
        )  # fmt: skip


@triton.jit(do_not_specialize=_OF_THE_BATCH)
def long_rows(
    z, y, w, v, d, m, up, used, maximum, total, loss, grad,
    classes, inner, blocks, count, n1, n2, v_step, up_step,
    z0, z1, z2, z3, zc, g0, g1, g2, g3, gc, q0, q1, q2, q3, qc,
    gamma, keep, spread, ignore, all_blocks,
    SOFT: tl.constexpr, GENERAL: tl.constexpr, BY_TARGET: tl.constexpr, WEIGHT: tl.constexpr, ROW_WEIGHT: tl.constexpr,
    OFFSET: tl.constexpr, MARGIN: tl.constexpr, TWICE: tl.constexpr, LOSS: tl.constexpr, GRAD: tl.constexpr,
    STATISTICS: tl.constexpr, SAVED: tl.constexpr, CHECKED: tl.constexpr, OVER: tl.constexpr, WIDE: tl.constexpr,
    FULL: tl.constexpr, SPAN: tl.constexpr, SIDE: tl.constexpr, ALIGN: tl.constexpr, ROWS: tl.constexpr,
    CLASSES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Rows too long to be kept on chip, walked over tile by tile: ``M`` and ``T`` first, then what needs them."""
    if SIDE:
        inner, zc, gc, qc = _aligned(inner, ALIGN), _aligned(zc, ALIGN), _aligned(gc, ALIGN), _aligned(qc, ALIGN)
    else:
        classes, z3, g3, q3 = _aligned(classes, ALIGN), _aligned(z3, ALIGN), _aligned(g3, ALIGN), _aligned(q3, ALIGN)
    z0, z1, z2 = _aligned(z0, ALIGN), _aligned(z1, ALIGN), _aligned(z2, ALIGN)
    g0, g1, g2 = _aligned(g0, ALIGN), _aligned(g1, ALIGN), _aligned(g2, ALIGN)
    q0, q1, q2 = _aligned(q0, ALIGN), _aligned(q1, ALIGN), _aligned(q2, ALIGN)
    if CHECKED:  # noqa: SIM102  # as above
        if tl.load(used) == tl.load(up):
            return
    for number in range(tl.program_id(0), all_blocks, tl.num_programs(0)):
        block = tl.zeros([1], tl.int64) + number
        i0, i1, i2, i, row, live = _rows(block, blocks, inner, count, n1, n2, ROWS, SPAN)
        z_base = i0 * z0 + i1 * z1 + i2 * z2 + i * z3
        q_base = i0 * q0 + i1 * q1 + i2 * q2 + i * q3
        g_base = i0 * g0 + i1 * g1 + i2 * g2 + i * g3
        tiles = (classes + CLASSES - 1) // CLASSES

        label, kept, bad = tl.zeros([ROWS], tl.int32) - 1, live, row < 0
        if not SOFT:
            label, kept, bad = _labels(y, row, live, classes, ignore)
        row_weight = tl.zeros([ROWS], tl.float32) + 1.0
        if ROW_WEIGHT:
            row_weight = tl.load(v + row * v_step, mask=live, other=0.0)
        upstream = row_weight
        if GRAD:
            upstream = upstream * tl.load(up + row * up_step, mask=live, other=0.0)
            upstream = tl.where(bad, float("nan"), upstream)

        # The first walk: each lane keeps a maximum and a sum of its own. It is skipped where they were saved, unless
        # the mass of the row has to be summed.
        lane_top = tl.zeros([ROWS, CLASSES], tl.float32) + float("-inf")
        lane_sum = tl.zeros([ROWS, CLASSES], tl.float32)
        lane_mass = tl.zeros([ROWS, CLASSES], tl.float32)
        lane_own = tl.zeros([ROWS, CLASSES], tl.float32)
        if GENERAL or not SAVED:
            for tile in tl.range(0, tiles, num_stages=STAGES):
                c = tile * CLASSES + tl.arange(0, CLASSES)
                known = c < classes
                mask = live[:, None] & known[None, :]
                hot = c[None, :] == label[:, None]
                if not SAVED:
                    place = z_base[:, None] + _step(c, zc, WIDE)[None, :]
                    a = _shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, True)
                    # Whichever of the two is smaller is brought to the other's scale: one exponential serves both.
                    e = tl.where(a == float("-inf"), 0.0, exp_for(-tl.abs(lane_top - a), FULL))
                    lane_sum = tl.where(a > lane_top, lane_sum * e + 1.0, lane_sum + e)
                    lane_top = tl.where(a > lane_top, a, lane_top)
                if GENERAL:
                    q_place = q_base[:, None] + _step(c, qc, WIDE)[None, :]
                    mass, own = _mass(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
                    lane_mass += mass
                    lane_own += own
        if SAVED:
            top = tl.load(maximum + row, mask=live, other=0.0)
            sum_e = tl.load(total + row, mask=live, other=1.0)
        else:
            top = tl.max(lane_top, 1)
            shift = tl.where(lane_top == float("-inf"), top[:, None], lane_top)
            sum_e = tl.sum(lane_sum * exp_for(shift - top[:, None], FULL), 1)
        log_sum = log(sum_e)
        factor = tl.zeros([ROWS], tl.float32) + 1.0
        if BY_TARGET and WEIGHT:
            factor = tl.sum(lane_own, 1)

        # What the gradient subtracts from every class, s_k times this, and the loss if it is at hand.
        found = tl.zeros([ROWS], tl.float32)
        pushed = tl.zeros([ROWS], tl.float32)
        if not GENERAL:
            own_a, own_w = _own(z, d, m, w, z_base, label, zc, WIDE, OFFSET, MARGIN, WEIGHT)
            if OVER:  # as above
                tl.debug_barrier()
            own_l = (own_a - top) - log_sum
            found = _focused(own_l, gamma, TWICE) * own_w
            if GRAD:
                pushed = upstream * own_w * _slope(own_l, gamma, TWICE)
        elif TWICE == 0:
            pushed = -upstream * (factor * tl.sum(lane_mass, 1))
        else:
            lane_loss = tl.zeros([ROWS, CLASSES], tl.float32)
            lane_push = tl.zeros([ROWS, CLASSES], tl.float32)
            for tile in range(0, tiles):
                c = tile * CLASSES + tl.arange(0, CLASSES)
                known = c < classes
                mask = live[:, None] & known[None, :]
                hot = c[None, :] == label[:, None]
                place = z_base[:, None] + _step(c, zc, WIDE)[None, :]
                a = _shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, True)
                log_s = (a - top[:, None]) - log_sum[:, None]
                q_place = q_base[:, None] + _step(c, qc, WIDE)[None, :]
                mass, own = _mass(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
                mass = mass * factor[:, None]
                if LOSS:
                    terms = mass * _focused(log_s, gamma, TWICE)
                    lane_loss += tl.where((mass == 0.0) & ((log_s == float("-inf")) | (mask == 0)), 0.0, terms)
                if GRAD:
                    push = upstream[:, None] * mass * _slope(log_s, gamma, TWICE)
                    lane_push += tl.where(mask, push, 0.0)
            found = tl.sum(lane_loss, 1)
            pushed = tl.sum(lane_push, 1)

        # The last walk, backwards.
        if GRAD or ((LOSS and GENERAL) and (TWICE == 0)):
            lane_loss = tl.zeros([ROWS, CLASSES], tl.float32)
            for step in tl.range(0, tiles, num_stages=STAGES):
                c = (tiles - 1 - step) * CLASSES + tl.arange(0, CLASSES)
                known = c < classes
                mask = live[:, None] & known[None, :]
                hot = c[None, :] == label[:, None]
                place = z_base[:, None] + _step(c, zc, WIDE)[None, :]
                a = _shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, False)
                log_s = (a - top[:, None]) - log_sum[:, None]
                if GENERAL:
                    q_place = q_base[:, None] + _step(c, qc, WIDE)[None, :]
                    mass, own = _mass(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
                    mass = mass * factor[:, None]
                    if LOSS and TWICE == 0:
                        terms = mass * -log_s
                        lane_loss += tl.where((mass == 0.0) & ((log_s == float("-inf")) | (mask == 0)), 0.0, terms)
                    if GRAD:
                        slope = upstream[:, None] * mass * _slope(log_s, gamma, TWICE)
                elif GRAD:
                    slope = tl.where(hot, pushed[:, None], 0.0)
                if GRAD:
                    result = slope - exp_for(log_s, FULL) * pushed[:, None]
                    result = tl.where(kept[:, None], result, 0.0)
                    g_place = g_base[:, None] + _step(c, gc, WIDE)[None, :]
                    tl.store(
                        grad + g_place, result.to(grad.dtype.element_ty), mask=mask, eviction_policy="evict_first"
                    )  # fmt: skip
            if GENERAL and TWICE == 0:
                found = tl.sum(lane_loss, 1)

        if LOSS:
            found = found * row_weight
            found = tl.where(bad, float("nan"), tl.where(kept, found, 0.0))
            if LOSS == 1:
                tl.store(loss + row, found, mask=live)
            else:
                tl.store(loss + number, tl.sum(found, 0))
        if STATISTICS:
            tl.store(maximum + row, top, mask=live)
            tl.store(total + row, sum_e, mask=live)
