"""The losses once more, in plain Python with 50 digits: what the library is judged by.

Written from the formulas on paper, one row and one class at a time, for nested lists of numbers. It shares no code with
the library or with PyTorch, and it is slow.

Every loss comes as an :class:`Exact`: its value, and ``size``, the sum of the absolute terms that a floating-point
implementation has to add up. An answer in a format of unit roundoff u is right if it is within a few ``u·size`` of the
value: cancellation between large terms cannot be undone, but it may not be made worse.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mpmath import exp, log, log1p, mp, mpf

mp.dps = 50

__all__ = ["LOSSES", "Exact", "Rows", "bce_element", "nll_row", "reduced", "sigmoid_element", "softmax_row"]


@dataclass(frozen=True)
class Exact:
    """A value, and the sum of the absolute values of the terms that make it."""

    value: mpf
    size: mpf


ZERO = Exact(mpf(0), mpf(0))


@dataclass(frozen=True)
class Rows:
    """Losses of all rows in C order, and what each adds to each denominator."""

    losses: list[Exact]
    torch: list[mpf]
    weights: list[mpf]
    samples: list[mpf]


# ------------------------------------------------------------------------------------------------- one row, one element


def softmax_row(
    z: Sequence[float],
    target: int | Sequence[float],
    *,
    weight: Sequence[float] | None = None,
    row_weight: float = 1.0,
    offset: Sequence[Any] | None = None,
    margin: Sequence[Any] | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
    smooth_weight: str = "class",
    noise: Any = 0.0,
) -> Exact:
    """The softmax formula: v · Σ_c w_c · q_c · (1 − s_c)^γ · (logsumexp(a) − a_c), a_c = z_c + δ_c − m_c·[c = y].

    ``noise`` is what the logits themselves were summed up from, if they were.
    """
    classes = len(z)
    a = [mpf(number) for number in z]
    shift = mpf(noise)
    if offset is not None:
        shift += max((abs(mpf(d)) for d in offset if mp.isfinite(mpf(d))), default=mpf(0))
        a = [number + mpf(d) for number, d in zip(a, offset, strict=True)]
    if margin is not None:
        assert isinstance(target, int)
        shift += abs(mpf(margin[target]))
        a[target] -= mpf(margin[target])
    if shift:  # the sum z + δ − m is itself rounded, in proportion to its largest term
        shift += max((abs(number) for number in a if mp.isfinite(number)), default=mpf(0))
    top = max(a)
    lse = top + log(sum(exp(number - top) for number in a))
    w = [mpf(1)] * classes if weight is None else [mpf(number) for number in weight]
    value, size = mpf(0), mpf(0)
    for c, mass in enumerate(softmax_mass(target, classes, w, smoothing, smooth_weight)):
        if mass == 0:
            continue
        nats = lse - a[c]
        focus = (1 - exp(-nats)) ** mpf(gamma) if gamma else mpf(1)
        value += mass * focus * nats
        # d/dl of l·(1 − e^−l)^γ is below 1 + γ, so an error in l or in the logsumexp (of order 1) grows by no more.
        size += abs(mass) * (1 + mpf(gamma)) * (1 + nats + shift)
    return Exact(mpf(row_weight) * value, abs(mpf(row_weight)) * size)


def softmax_mass(
    target: int | Sequence[float], classes: int, w: Sequence[mpf], smoothing: float, smooth_weight: str
) -> list[mpf]:
    """The factor of each class in a row's loss: w_c · q_c with q smoothed, or w_y · q_c where a row has one weight."""
    e = mpf(smoothing)
    plain = (
        [mpf(int(c == target)) for c in range(classes)] if isinstance(target, int) else [mpf(share) for share in target]
    )
    q = [(1 - e) * share + e / classes for share in plain]
    if smooth_weight == "target":
        own = sum(wc * share for wc, share in zip(w, plain, strict=True))
        return [own * share for share in q]
    return [wc * share for wc, share in zip(w, q, strict=True)]


def sigmoid_element(
    z: float,
    t: float,
    *,
    weight: float = 1.0,
    pos_weight: float = 1.0,
    neg_weight: float = 1.0,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
) -> Exact:
    """The sigmoid formula: v · [P·t·(1 − σ)^γ₊·(−log σ) + Q·(1 − t)·σ₋^γ₋·(−log(1 − σ₋))], with σ₋ = max(σ − κ, 0)."""
    z, t, kappa = mpf(z), mpf(t), mpf(clip)
    odds = exp(-abs(z))
    p, n = (1 / (1 + odds), odds / (1 + odds)) if z >= 0 else (odds / (1 + odds), 1 / (1 + odds))
    minus_log_p, minus_log_n = max(-z, mpf(0)) + log1p(odds), max(z, mpf(0)) + log1p(odds)
    positive = mpf(pos_weight) * t * n ** mpf(gamma_pos) * minus_log_p
    size = abs(positive) * (1 + mpf(gamma_pos) * minus_log_n)
    negative = mpf(neg_weight) * (1 - t)
    if clip == 0.0:
        negative *= p ** mpf(gamma_neg) * minus_log_n
        size += abs(negative) * (1 + mpf(gamma_neg) * minus_log_p)
    elif p <= kappa:
        negative = mpf(0)
    else:
        u = p - kappa
        # σ − κ is rounded in proportion to σ and κ, not to what is left; here is what that does to u^γ·(−log(1 − u)).
        slope = u ** mpf(gamma_neg) / (1 - u)
        if gamma_neg:
            slope += mpf(gamma_neg) * u ** (mpf(gamma_neg) - 1) * -log1p(-u)
        size += abs(negative) * slope
        negative *= u ** mpf(gamma_neg) * -log1p(-u)
        size += abs(negative) * (1 + mpf(gamma_neg))
    return Exact(mpf(weight) * (positive + negative), abs(mpf(weight)) * size)


def nll_row(log_p: Sequence[float], y: int, *, weight: Sequence[float] | None = None, row_weight: float = 1.0) -> Exact:
    """−v · w_y · log p_y."""
    value = -mpf(row_weight) * (mpf(1) if weight is None else mpf(weight[y])) * mpf(log_p[y])
    return Exact(value, abs(value))


def bce_element(p: float, t: float, *, weight: float = 1.0) -> Exact:
    """−v · [t·log p + (1 − t)·log(1 − p)], where no logarithm falls below −100."""
    p, t = mpf(p), mpf(t)
    terms = [t * _log_from_minus_100(p), (1 - t) * _log_from_minus_100(1 - p)]
    return Exact(-mpf(weight) * sum(terms), abs(mpf(weight)) * sum(abs(term) for term in terms))


def _log_from_minus_100(p: mpf) -> mpf:
    return mpf(-100) if p == 0 else max(log(p), mpf(-100))


# ------------------------------------------------------------------------------------------------- batches of any shape


def at(nested: Any, index: Iterable[int]) -> Any:
    """The number of a nested list at ``index``."""
    for i in index:
        nested = nested[i]
    return nested


def shape_of(nested: Any) -> tuple[int, ...]:
    """The shape of a nested list."""
    shape: list[int] = []
    while isinstance(nested, list):
        shape.append(len(nested))
        nested = nested[0]
    return tuple(shape)


def softmax_rows(
    input: Any,
    target: Any,
    *,
    weight: Sequence[float] | None = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    logit_offset: Sequence[Any] | None = None,
    margin: Sequence[Any] | None = None,
    gamma: float = 0.0,
    label_smoothing: float = 0.0,
    smooth_weight: str = "class",
    noise: Any = 0.0,
) -> Rows:
    """All rows of logits (C), (N, C) or (N, C, d1, ...); classes on axis 1, or axis 0 of a single row."""
    shape = shape_of(input)
    axis = 0 if len(shape) == 1 else 1
    classes = shape[axis]
    rows = Rows([], [], [], [])
    w = [mpf(1)] * classes if weight is None else [mpf(number) for number in weight]
    soft = shape_of(target) == shape
    for row in itertools.product(*(range(size) for size in shape[:axis] + shape[axis + 1 :])):
        places = [(*row[:axis], c, *row[axis:]) for c in range(classes)]
        z = [at(input, place) for place in places]
        t = [at(target, place) for place in places] if soft else at(target, row)
        v = _row_weight(sample_weight, row)
        if not soft and t == ignore_index:
            _append(rows, ZERO, 0, 0, 0)
            continue
        loss = softmax_row(
            z,
            t,
            weight=weight,
            row_weight=v,
            offset=logit_offset,
            margin=margin,
            gamma=gamma,
            smoothing=label_smoothing,
            smooth_weight=smooth_weight,
            noise=noise,
        )
        mass = softmax_mass(t, classes, w, label_smoothing, smooth_weight)
        _append(rows, loss, v if soft else v * w[t], v * sum(mass), 1)
    return rows


def nll_rows(
    input: Any,
    target: Any,
    *,
    weight: Sequence[float] | None = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
) -> Rows:
    """All rows of log-probabilities, shaped as for ``softmax_rows``."""
    shape = shape_of(input)
    axis = 0 if len(shape) == 1 else 1
    rows = Rows([], [], [], [])
    for row in itertools.product(*(range(size) for size in shape[:axis] + shape[axis + 1 :])):
        y = at(target, row)
        v = _row_weight(sample_weight, row)
        if y == ignore_index:
            _append(rows, ZERO, 0, 0, 0)
            continue
        log_p = [at(input, (*row[:axis], c, *row[axis:])) for c in range(shape[axis])]
        mass = v * (mpf(1) if weight is None else mpf(weight[y]))
        _append(rows, nll_row(log_p, y, weight=weight, row_weight=v), mass, mass, 1)
    return rows


def sigmoid_rows(
    input: Any,
    target: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    ignore_index: int | None = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    alpha: float | None = None,
) -> Rows:
    """All elements; ``weight`` and ``pos_weight`` broadcast from the right."""
    shape = shape_of(input)
    rows = Rows([], [], [], [])
    for place in itertools.product(*(range(size) for size in shape)):
        t = at(target, place)
        if ignore_index is not None and t == ignore_index:
            _append(rows, ZERO, 0, 0, 0)
            continue
        v, big_p, big_q = _broadcast(weight, place), _broadcast(pos_weight, place), mpf(1)
        if alpha is not None:
            big_p, big_q = big_p * mpf(alpha), 1 - mpf(alpha)
        loss = sigmoid_element(
            at(input, place),
            t,
            weight=v,
            pos_weight=big_p,
            neg_weight=big_q,
            gamma_pos=gamma_pos,
            gamma_neg=gamma_neg,
            clip=clip,
        )
        _append(rows, loss, 1, v * (big_p * mpf(t) + big_q * (1 - mpf(t))), 1)
    return rows


def bce_rows(input: Any, target: Any, *, weight: Any = None) -> Rows:
    """All elements of probabilities; ``weight`` broadcasts from the right."""
    rows = Rows([], [], [], [])
    for place in itertools.product(*(range(size) for size in shape_of(input))):
        v = _broadcast(weight, place)
        _append(rows, bce_element(at(input, place), at(target, place), weight=v), 1, v, 1)
    return rows


def _append(rows: Rows, loss: Exact, torch: Any, weights: Any, samples: Any) -> None:
    rows.losses.append(loss)
    rows.torch.append(mpf(torch))
    rows.weights.append(mpf(weights))
    rows.samples.append(mpf(samples))


def _row_weight(values: Any, row: tuple[int, ...]) -> mpf:
    """A weight of the row's own, or where there is one for each sample, that of the sample."""
    if values is None:
        return mpf(1)
    return mpf(at(values, row[: len(shape_of(values))]))


def _broadcast(values: Any, place: tuple[int, ...]) -> mpf:
    if values is None:
        return mpf(1)
    shape = shape_of(values)
    own = place[len(place) - len(shape) :]
    return mpf(at(values, [0 if size == 1 else i for i, size in zip(own, shape, strict=True)]))


def reduced(rows: Rows, reduction: str, denominator: str | float = "torch", empty: str = "nan") -> Exact:
    """``sum``, or ``mean`` by a rule or a number; a mean over nothing is NaN, 0, or a ZeroDivisionError."""
    total = sum((loss.value for loss in rows.losses), mpf(0))
    size = sum((loss.size for loss in rows.losses), mpf(0))
    if reduction == "sum":
        return Exact(total, size)
    assert reduction == "mean"
    terms = getattr(rows, denominator) if isinstance(denominator, str) else [mpf(denominator)]
    divisor = sum(terms, mpf(0))
    if divisor == 0:
        if empty == "raise":
            raise ZeroDivisionError
        return ZERO if empty == "zero" else Exact(mpf("nan"), mpf("nan"))
    mean = total / divisor
    return Exact(mean, size / abs(divisor) + abs(mean) * sum(abs(term) for term in terms) / abs(divisor))


# --------------------------------------------------------------------------------- the losses, as the papers write them


def linear_rows(input: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, **options: Any) -> Rows:
    """Cross entropy of z_c = W_c·x + b_c."""
    single = not isinstance(input[0], list)
    features = [input] if single else input
    bias = [0.0] * len(linear_weight) if linear_bias is None else linear_bias
    units = list(zip(linear_weight, bias, strict=True))
    logits = [[_dot(unit, row) + mpf(b) for unit, b in units] for row in features]
    noise = max(_dot(map(abs, unit), map(abs, row)) + abs(mpf(b)) for row in features for unit, b in units)
    return softmax_rows(logits[0] if single else logits, target, noise=noise, **options)


def _dot(left: Iterable[float], right: Iterable[float]) -> mpf:
    return sum((mpf(a) * mpf(b) for a, b in zip(left, right, strict=True)), mpf(0))


def focal_rows(input: Any, target: Any, *, gamma: float = 2.0, **options: Any) -> Rows:
    """Lin et al. 2017, eq. 4, over classes."""
    return softmax_rows(input, target, gamma=gamma, **options)


def balanced_softmax_rows(input: Any, target: Any, counts: Sequence[int], **options: Any) -> Rows:
    """Ren et al. 2020, eq. 4: the softmax is n_c·e^z_c / Σ n·e^z. Shares of the total stand for n: the same softmax."""
    return logit_adjusted_rows(input, target, counts, 1.0, **options)


def logit_adjusted_rows(input: Any, target: Any, counts: Sequence[int], tau: float = 1.0, **options: Any) -> Rows:
    """Menon et al. 2021, eq. 10: logits z + τ·log π."""
    total = mpf(sum(counts))
    return softmax_rows(input, target, logit_offset=[mpf(tau) * log(mpf(n) / total) for n in counts], **options)


def ldam_rows(
    input: Any, target: Any, counts: Sequence[int], max_margin: float = 0.5, scale: float = 30.0, **options: Any
) -> Rows:
    """Cao et al. 2019, eq. 13: Δ_c = C·n_c^(−¼), off the logit of the row's own class, all times the scale."""
    delta = [1 / mpf(n) ** mpf("0.25") for n in counts]
    widest = max(delta)
    margin = [mpf(scale) * mpf(max_margin) * d / widest for d in delta]
    return softmax_rows(_times(input, mpf(scale)), target, margin=margin, **options)


def _times(nested: Any, factor: mpf) -> Any:
    return [_times(part, factor) for part in nested] if isinstance(nested, list) else mpf(nested) * factor


def sigmoid_focal_rows(input: Any, target: Any, alpha: float | None = 0.25, gamma: float = 2.0, **options: Any) -> Rows:
    """Lin et al. 2017, eq. 5."""
    return sigmoid_rows(input, target, alpha=alpha, gamma_pos=gamma, gamma_neg=gamma, **options)


def asymmetric_rows(
    input: Any, target: Any, gamma_neg: float = 4.0, gamma_pos: float = 1.0, clip: float = 0.05, **options: Any
) -> Rows:
    """Ridnik et al. 2021, eq. 7."""
    return sigmoid_rows(input, target, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip, **options)


LOSSES = {
    "cross_entropy": softmax_rows,
    "linear_cross_entropy": linear_rows,
    "focal_loss": focal_rows,
    "balanced_softmax_loss": balanced_softmax_rows,
    "logit_adjusted_loss": logit_adjusted_rows,
    "ldam_loss": ldam_rows,
    "binary_cross_entropy_with_logits": sigmoid_rows,
    "sigmoid_focal_loss": sigmoid_focal_rows,
    "asymmetric_loss": asymmetric_rows,
    "nll_loss": nll_rows,
    "binary_cross_entropy": bce_rows,
}
