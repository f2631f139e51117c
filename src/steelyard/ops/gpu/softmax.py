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

from steelyard.ops.gpu.functions import exp_for, log
from steelyard.ops.gpu.softmax_parts import (
    aligned,
    focused,
    labels_of,
    mass_of,
    own_of,
    rows_of,
    shifted,
    slope_of,
    step_of,
)

__all__ = ["long_rows", "whole_rows"]


@triton.jit
def _whole(
    block, z, y, w, v, d, m, up, maximum, total, loss, grad,
    classes, inner, blocks, count, n1, n2, v_step, up_step,
    z0, z1, z2, z3, zc, g0, g1, g2, g3, gc, q0, q1, q2, q3, qc,
    gamma, keep, spread, ignore,
    SOFT: tl.constexpr, GENERAL: tl.constexpr, BY_TARGET: tl.constexpr, WEIGHT: tl.constexpr, ROW_WEIGHT: tl.constexpr,
    OFFSET: tl.constexpr, MARGIN: tl.constexpr, TWICE: tl.constexpr, LOSS: tl.constexpr, GRAD: tl.constexpr,
    STATISTICS: tl.constexpr, OVER: tl.constexpr, WIDE: tl.constexpr, FULL: tl.constexpr, SPAN: tl.constexpr,
    AXES: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """One tile of ``whole_rows``."""
    i0, i1, i2, i, row, live = rows_of(block, blocks, inner, count, n1, n2, ROWS, SPAN, AXES)
    c = tl.arange(0, CLASSES)
    known = c < classes
    mask = live[:, None] & known[None, :]
    base = i0 * z0 + i1 * z1 + i2 * z2 + i * z3
    place = base[:, None] + step_of(c, zc, WIDE)[None, :]

    label, kept, bad = tl.zeros([ROWS], tl.int32) - 1, live, row < 0
    if not SOFT:
        label, kept, bad = labels_of(y, row, live, classes, ignore)
    hot = c[None, :] == label[:, None]
    a = shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, False)
    if not GENERAL:
        own_a, own_w = own_of(z, d, m, w, base, label, zc, WIDE, OFFSET, MARGIN, WEIGHT)
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
            found = focused(own_l, gamma, TWICE) * own_w
        if GRAD:
            pushed = upstream * own_w * slope_of(own_l, gamma, TWICE)
            slope = tl.where(hot, pushed[:, None], 0.0)
    else:
        log_s = a - log_sum[:, None]
        q_place = place
        if SOFT:
            q_place = (i0 * q0 + i1 * q1 + i2 * q2 + i * q3)[:, None] + step_of(c, qc, WIDE)[None, :]
        mass, own = mass_of(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
        if BY_TARGET and WEIGHT:
            mass = mass * tl.sum(own, 1)[:, None]
        if LOSS:
            terms = mass * focused(log_s, gamma, TWICE)
            found = tl.sum(tl.where((mass == 0.0) & (log_s == float("-inf")), 0.0, terms), 1)
        if GRAD:
            slope = upstream[:, None] * mass * slope_of(log_s, gamma, TWICE)
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
        g_place = (i0 * g0 + i1 * g1 + i2 * g2 + i * g3)[:, None] + step_of(c, gc, WIDE)[None, :]
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
    FULL: tl.constexpr, SPAN: tl.constexpr, AXES: tl.constexpr, SIDE: tl.constexpr, ALIGN: tl.constexpr,
    ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """A tile of whole rows, on chip from its one read to its one write."""
    if SIDE:
        inner, zc, gc, qc = aligned(inner, ALIGN), aligned(zc, ALIGN), aligned(gc, ALIGN), aligned(qc, ALIGN)
    else:
        classes, z3, g3, q3 = aligned(classes, ALIGN), aligned(z3, ALIGN), aligned(g3, ALIGN), aligned(q3, ALIGN)
    z0, z1, z2 = aligned(z0, ALIGN), aligned(z1, ALIGN), aligned(z2, ALIGN)
    g0, g1, g2 = aligned(g0, ALIGN), aligned(g1, ALIGN), aligned(g2, ALIGN)
    q0, q1, q2 = aligned(q0, ALIGN), aligned(q1, ALIGN), aligned(q2, ALIGN)
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
                    STATISTICS, OVER, WIDE, FULL, SPAN, AXES, ROWS, CLASSES,
                )  # fmt: skip
    else:
        _whole(
            tl.program_id(0).to(tl.int64), z, y, w, v, d, m, up, maximum, total, loss, grad,
            classes, inner, blocks, count, n1, n2, v_step, up_step,
            z0, z1, z2, z3, zc, g0, g1, g2, g3, gc, q0, q1, q2, q3, qc, gamma, keep, spread, ignore,
            SOFT, GENERAL, BY_TARGET, WEIGHT, ROW_WEIGHT, OFFSET, MARGIN, TWICE, LOSS, GRAD,
            STATISTICS, OVER, WIDE, FULL, SPAN, AXES, ROWS, CLASSES,
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
    FULL: tl.constexpr, SPAN: tl.constexpr, AXES: tl.constexpr, SIDE: tl.constexpr, ALIGN: tl.constexpr,
    ROWS: tl.constexpr, CLASSES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Rows too long to be kept on chip, walked over tile by tile: ``M`` and ``T`` first, then what needs them."""
    if SIDE:
        inner, zc, gc, qc = aligned(inner, ALIGN), aligned(zc, ALIGN), aligned(gc, ALIGN), aligned(qc, ALIGN)
    else:
        classes, z3, g3, q3 = aligned(classes, ALIGN), aligned(z3, ALIGN), aligned(g3, ALIGN), aligned(q3, ALIGN)
    z0, z1, z2 = aligned(z0, ALIGN), aligned(z1, ALIGN), aligned(z2, ALIGN)
    g0, g1, g2 = aligned(g0, ALIGN), aligned(g1, ALIGN), aligned(g2, ALIGN)
    q0, q1, q2 = aligned(q0, ALIGN), aligned(q1, ALIGN), aligned(q2, ALIGN)
    if CHECKED:  # noqa: SIM102  # as above
        if tl.load(used) == tl.load(up):
            return
    for number in range(tl.program_id(0), all_blocks, tl.num_programs(0)):
        block = tl.zeros([1], tl.int64) + number
        i0, i1, i2, i, row, live = rows_of(block, blocks, inner, count, n1, n2, ROWS, SPAN, AXES)
        z_base = i0 * z0 + i1 * z1 + i2 * z2 + i * z3
        q_base = i0 * q0 + i1 * q1 + i2 * q2 + i * q3
        g_base = i0 * g0 + i1 * g1 + i2 * g2 + i * g3
        tiles = (classes + CLASSES - 1) // CLASSES

        label, kept, bad = tl.zeros([ROWS], tl.int32) - 1, live, row < 0
        if not SOFT:
            label, kept, bad = labels_of(y, row, live, classes, ignore)
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
                    place = z_base[:, None] + step_of(c, zc, WIDE)[None, :]
                    a = shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, True)
                    # Whichever of the two is smaller is brought to the other's scale: one exponential serves both.
                    e = tl.where(a == float("-inf"), 0.0, exp_for(-tl.abs(lane_top - a), FULL))
                    lane_sum = tl.where(a > lane_top, lane_sum * e + 1.0, lane_sum + e)
                    lane_top = tl.where(a > lane_top, a, lane_top)
                if GENERAL:
                    q_place = q_base[:, None] + step_of(c, qc, WIDE)[None, :]
                    mass, own = mass_of(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
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
            own_a, own_w = own_of(z, d, m, w, z_base, label, zc, WIDE, OFFSET, MARGIN, WEIGHT)
            own_l = (own_a - top) - log_sum
            found = focused(own_l, gamma, TWICE) * own_w
            if GRAD:
                pushed = upstream * own_w * slope_of(own_l, gamma, TWICE)
        elif TWICE == 0:
            pushed = -upstream * (factor * tl.sum(lane_mass, 1))
        else:
            lane_loss = tl.zeros([ROWS, CLASSES], tl.float32)
            lane_push = tl.zeros([ROWS, CLASSES], tl.float32)
            for tile in tl.range(0, tiles, num_stages=STAGES):
                c = tile * CLASSES + tl.arange(0, CLASSES)
                known = c < classes
                mask = live[:, None] & known[None, :]
                hot = c[None, :] == label[:, None]
                place = z_base[:, None] + step_of(c, zc, WIDE)[None, :]
                a = shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, True)
                log_s = (a - top[:, None]) - log_sum[:, None]
                q_place = q_base[:, None] + step_of(c, qc, WIDE)[None, :]
                mass, own = mass_of(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
                mass = mass * factor[:, None]
                if LOSS:
                    terms = mass * focused(log_s, gamma, TWICE)
                    lane_loss += tl.where((mass == 0.0) & ((log_s == float("-inf")) | (mask == 0)), 0.0, terms)
                if GRAD:
                    push = upstream[:, None] * mass * slope_of(log_s, gamma, TWICE)
                    lane_push += tl.where(mask, push, 0.0)
            found = tl.sum(lane_loss, 1)
            pushed = tl.sum(lane_push, 1)

        # The last walk, backwards.
        if OVER:  # as above
            tl.debug_barrier()
        if GRAD or ((LOSS and GENERAL) and (TWICE == 0)):
            lane_loss = tl.zeros([ROWS, CLASSES], tl.float32)
            for step in tl.range(0, tiles, num_stages=STAGES):
                c = (tiles - 1 - step) * CLASSES + tl.arange(0, CLASSES)
                known = c < classes
                mask = live[:, None] & known[None, :]
                hot = c[None, :] == label[:, None]
                place = z_base[:, None] + step_of(c, zc, WIDE)[None, :]
                a = shifted(z, d, m, place, c, known, hot, mask, MARGIN, OFFSET, False)
                log_s = (a - top[:, None]) - log_sum[:, None]
                if GENERAL:
                    q_place = q_base[:, None] + step_of(c, qc, WIDE)[None, :]
                    mass, own = mass_of(y, w, q_place, c, known, hot, mask, keep, spread, SOFT, WEIGHT, BY_TARGET)
                    mass = mass * factor[:, None]
                    if LOSS and TWICE == 0:
                        terms = mass * -log_s
                        lane_loss += tl.where((mass == 0.0) & ((log_s == float("-inf")) | (mask == 0)), 0.0, terms)
                    if GRAD:
                        slope = upstream[:, None] * mass * slope_of(log_s, gamma, TWICE)
                elif GRAD:
                    slope = tl.where(hot, pushed[:, None], 0.0)
                if GRAD:
                    result = slope - exp_for(log_s, FULL) * pushed[:, None]
                    result = tl.where(kept[:, None], result, 0.0)
                    g_place = g_base[:, None] + step_of(c, gc, WIDE)[None, :]
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
