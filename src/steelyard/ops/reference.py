r"""The two formulas in plain PyTorch: the definition of correct for every kernel, on any device, to any order.

Each formula comes with its first derivative in closed form, because that is what a kernel computes; the tests hold the
closed form against autograd through the formula itself.

Letters, as in :mod:`steelyard.ops`: ``a`` shifted logits, ``s`` softmax, ``q`` target distribution, ``w`` class
weights, ``v`` row weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    "accumulation_dtype",
    "class_dim",
    "of_class",
    "per_class",
    "sigmoid_loss",
    "sigmoid_loss_backward",
    "softmax_loss",
    "softmax_loss_backward",
]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are taken in: float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def class_dim(input: Tensor) -> int:
    """Where the classes are: axis 1, or axis 0 of a single unbatched row ``(C,)``."""
    return 0 if input.dim() == 1 else 1


def per_class(values: Tensor, input: Tensor) -> Tensor:
    """``(C,)`` values laid along the class axis of ``input``, to broadcast against it."""
    return values.reshape([-1] + [1] * (input.dim() - 1 - class_dim(input)))


def of_class(values: Tensor, y: Tensor) -> Tensor:
    """``values[y]``, which torch.func.vmap refuses for one label per member of its batch."""
    return values.index_select(0, y.reshape(-1)).reshape(y.shape)


# ------------------------------------------------------------------------------------------------------------ softmax


def softmax_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    row_weight: Tensor | None = None,
    offset: Tensor | None = None,
    margin: Tensor | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
    smooth_by_target: bool = False,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each row by the softmax formula, and what a backward pass needs to find ``s`` again.

    Args:
        input: Logits, float, ``(C,)`` or ``(N, C, d1, ...)``.
        target: Class indices, integer, shape of the rows; or a distribution, float, shape of ``input``.
        weight: ``(C,)``. row_weight: shape of the rows. offset, margin: ``(C,)``. All in the accumulation dtype.
        gamma: Focusing, ≥ 0. smoothing: ε in [0, 1]; ``smooth_by_target`` weights smoothed mass by the row's own class
            instead of by the class that the mass lands on.
        ignore_index: Index targets equal to it give a loss and a gradient of zero, whatever the logits hold.

    Returns:
        ``loss, maximum, total`` of each row in the accumulation dtype, with ``total = Σ_c e^(a_c − maximum)`` and so
        ``log s = a − maximum − log(total)``.
        The two are kept apart because their sum would round the low bits away when logits are large. A label outside
        ``[0, C)`` gives NaN, never a plausible number.
    """
    dim, target = class_dim(input), _labels(target)
    a, q, y, kept = _shifted(input, target, offset, margin, ignore_index)
    log_s = a.log_softmax(dim)
    maximum, total = a.detach().amax(dim), (-log_s.detach().amax(dim)).exp()
    if y is not None and smoothing == 0.0:
        # Only the target's own term is left. Picking it leaves the other classes out even where log s is −inf.
        loss = _focused(log_s.gather(dim, y.unsqueeze(dim)).squeeze(dim), gamma)
        if weight is not None:
            loss = loss * of_class(weight, y)
    else:
        mass = _weighted_mass(log_s, q, y, weight, smoothing, smooth_by_target)
        # Mass of zero on a class that a mask of −inf rules out costs nothing: 0·∞ is 0 here.
        log_s = log_s.masked_fill((mass == 0) & (log_s == -torch.inf), 0.0)
        loss = (mass * _focused(log_s, gamma)).sum(dim)
    if row_weight is not None:
        loss = loss * row_weight
    if kept is not None:
        loss = loss.masked_fill(~kept, 0.0)
        loss = poisoned(loss, kept & _outside(target, input.shape[dim]))
    return loss, maximum, total


def softmax_loss_backward(
    grad: Tensor,
    input: Tensor,
    target: Tensor,
    maximum: Tensor,
    total: Tensor,
    weight: Tensor | None = None,
    row_weight: Tensor | None = None,
    offset: Tensor | None = None,
    margin: Tensor | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
    smooth_by_target: bool = False,
    ignore_index: int = -100,
) -> Tensor:
    r"""Gradient with respect to ``input``, in its dtype and layout.

    With ``A_c = w_c·q_c`` and ``f(l) = −l·(1 − e^l)^γ``, the loss is ``v·Σ_c A_c·f(log s_c)``. As
    ``∂ log s_c/∂a_k = [c = k] − s_k``, the gradient is ``v·(A_k·f'(log s_k) − s_k·Σ_c A_c·f'(log s_c))``.

    ``maximum`` and ``total`` save a kernel its first pass over the row. Here ``log s`` is taken afresh, so that a
    second derivative flows through it.
    """
    dim, target = class_dim(input), _labels(target)
    a, q, y, kept = _shifted(input, target, offset, margin, ignore_index)
    log_s = a.log_softmax(dim)
    upstream = grad if row_weight is None else grad * row_weight
    mass = _weighted_mass(log_s, q, y, weight, smoothing, smooth_by_target)
    slope = upstream.unsqueeze(dim) * mass * _focused_slope(log_s, gamma)
    result = slope - log_s.exp() * slope.sum(dim, keepdim=True)
    if kept is not None:
        result = result.masked_fill(~kept.unsqueeze(dim), 0.0)
        result = result.masked_fill((kept & _outside(target, input.shape[dim])).unsqueeze(dim), torch.nan)
    return result.to(input.dtype)


def _labels(target: Tensor) -> Tensor:
    """Labels wide enough to be compared with any ``ignore_index``: in uint8, 156 is −100."""
    return target if target.is_floating_point() else target.long()


def _shifted(
    input: Tensor, target: Tensor, offset: Tensor | None, margin: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The shifted logits ``a``; the target as distribution ``q``, or as indices ``y`` in range and the rows kept."""
    dim = class_dim(input)
    a = input.to(accumulation_dtype(input.dtype))
    if offset is not None:
        a = a + per_class(offset, input)
    if target.is_floating_point():
        return a, target.to(a.dtype), None, None
    kept = target != ignore_index
    y = target.masked_fill(~kept | _outside(target, input.shape[dim]), 0)
    if margin is not None:
        a = a - per_class(margin, input) * _one_hot(y, a, dim)
    # Whatever an ignored row holds, inf and NaN too, must not reach its gradient.
    return a.masked_fill(~kept.unsqueeze(dim), 0.0), None, y, kept


def _weighted_mass(
    log_s: Tensor, q: Tensor | None, y: Tensor | None, weight: Tensor | None, smoothing: float, smooth_by_target: bool
) -> Tensor:
    """``A_c = w_c·q_c`` with q smoothed; ``smooth_by_target`` takes the one weight of the unsmoothed row for all c."""
    dim = class_dim(log_s)
    if q is None:
        assert y is not None
        q = _one_hot(y, log_s, dim)
    smoothed = q if smoothing == 0.0 else q * (1.0 - smoothing) + smoothing / log_s.shape[dim]
    if weight is None:
        return smoothed
    w = per_class(weight, log_s)
    return smoothed * (w * q).sum(dim, keepdim=True) if smooth_by_target else smoothed * w


def poisoned(loss: Tensor, bad: Tensor) -> Tensor:
    """The losses with NaN where ``bad``, in value and in every derivative; a constant NaN would have a slope of 0."""
    return loss * torch.ones_like(loss).masked_fill(bad, torch.nan)


def _one_hot(y: Tensor, like: Tensor, dim: int) -> Tensor:
    classes = torch.arange(like.shape[dim], device=like.device)
    return (y.unsqueeze(dim) == per_class(classes, like)).to(like.dtype)


def _outside(target: Tensor, classes: int) -> Tensor:
    return (target < 0) | (target >= classes)


def _focused(log_s: Tensor, gamma: float) -> Tensor:
    """``f(l) = −l·(1 − e^l)^γ``, and 0 where s has rounded to 1."""
    if gamma == 0.0:
        return -log_s
    rest, sure = _rest(log_s)
    return (-log_s * rest.pow(gamma)).masked_fill(sure, 0.0)


def _focused_slope(log_s: Tensor, gamma: float) -> Tensor:
    """``f'(l) = −(1 − s)^γ + γ·l·s·(1 − s)^(γ−1)``, and 0 where s has rounded to 1."""
    if gamma == 0.0:
        return torch.full_like(log_s, -1.0)
    rest, sure = _rest(log_s)
    # l·s is 0 at l = −inf; the clamp keeps 0·∞ out.
    l_times_s = log_s.clamp(min=torch.finfo(log_s.dtype).min) * log_s.exp()
    return (-rest.pow(gamma) + gamma * l_times_s * rest.pow(gamma - 1.0)).masked_fill(sure, 0.0)


def _rest(log_s: Tensor) -> tuple[Tensor, Tensor]:
    """``1 − s`` without cancellation, and where it is 0: there 1 stands in, as 0^(γ−1) would poison the gradient."""
    rest = -torch.expm1(log_s)
    sure = rest == 0
    return rest.masked_fill(sure, 1.0), sure


# ------------------------------------------------------------------------------------------------------------ sigmoid


def sigmoid_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    neg_weight: float = 1.0,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    """Loss of each element by the sigmoid formula, in the accumulation dtype.

    Args:
        input: Logits, float, any shape. target: same shape; float in [0, 1], or bool or integer 0 and 1.
        weight, pos_weight: v and P, in the accumulation dtype, broadcast against ``input`` as PyTorch does.
        neg_weight: Q. gamma_pos, gamma_neg: γ₊ γ₋, ≥ 0. clip: κ in [0, 1).
        ignore_index: Elements whose target equals it give a loss and a gradient of zero, whatever the logit.
    """
    z, t, kept = _elements(input, target, ignore_index)
    positive = -logsigmoid(z)
    if gamma_pos != 0.0:
        positive = positive * (gamma_pos * logsigmoid(-z)).exp()
    if clip == 0.0:
        negative = -logsigmoid(-z)
        if gamma_neg != 0.0:
            negative = negative * (gamma_neg * logsigmoid(z)).exp()
    else:
        clipped, rest, easy = _clipped(z, clip)
        negative = (-rest.log() * clipped.pow(gamma_neg)).masked_fill(easy, 0.0)
    loss = _balanced(t * positive, (1.0 - t) * negative, weight, pos_weight, neg_weight)
    return (loss if kept is None else loss.masked_fill(~kept, 0.0)).reshape(input.shape)


def sigmoid_loss_backward(
    grad: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    neg_weight: float = 1.0,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Gradient with respect to ``input``, in its dtype.

    With ``d log σ/dz = 1 − σ`` and ``d log(1 − σ)/dz = −σ``: the positive term gives
    ``−(1 − σ)^γ₊·(1 − σ − γ₊·σ·log σ)``, the negative one ``σ^γ₋·(σ − γ₋·(1 − σ)·log(1 − σ))``, and with a clip, for
    ``u = σ − κ > 0``, ``σ(1 − σ)·u^γ₋·(1/(1 − u) − γ₋·log(1 − u)/u)``.
    """
    z, t, kept = _elements(input, target, ignore_index)
    p, n = z.sigmoid(), (-z).sigmoid()
    log_p, log_n = logsigmoid(z), logsigmoid(-z)
    positive = -n
    if gamma_pos != 0.0:
        positive = -(gamma_pos * log_n).exp() * (n - gamma_pos * p * log_p)
    if clip == 0.0:
        negative = p
        if gamma_neg != 0.0:
            negative = (gamma_neg * log_p).exp() * (p - gamma_neg * n * log_n)
    else:
        u, rest, easy = _clipped(z, clip)
        negative = p * n * u.pow(gamma_neg) * (1.0 / rest - gamma_neg * rest.log() / u)
        negative = negative.masked_fill(easy, 0.0)
    result = grad * _balanced(t * positive, (1.0 - t) * negative, weight, pos_weight, neg_weight)
    if kept is not None:
        result = result.masked_fill(~kept, 0.0)
    return result.to(input.dtype).reshape(input.shape)


def _elements(input: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits and targets in the accumulation dtype, and the elements kept; zeros stand in for ignored ones.

    All of at least one axis: torch.func.jvp makes the float32 tangent of a 0-d tensor times a Python number float64.
    """
    z = torch.atleast_1d(input.to(accumulation_dtype(input.dtype)))
    t = torch.atleast_1d(target.to(z.dtype))
    if ignore_index is None:
        return z, t, None
    kept = torch.atleast_1d(target != ignore_index)
    return z.masked_fill(~kept, 0.0), t.masked_fill(~kept, 0.0), kept


def _clipped(z: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """``u = σ − κ``, ``1 − u`` without cancellation, and where u ≤ 0: there ½ stands in, as 0^γ has no slope."""
    u = z.sigmoid() - clip
    easy = u <= 0
    return u.masked_fill(easy, 0.5), ((-z).sigmoid() + clip).masked_fill(easy, 0.5), easy


def _balanced(
    positive: Tensor, negative: Tensor, weight: Tensor | None, pos_weight: Tensor | None, neg_weight: float
) -> Tensor:
    if pos_weight is not None:
        positive = positive * pos_weight
    if neg_weight != 1.0:
        negative = negative * neg_weight
    total = positive + negative
    return total if weight is None else total * weight
