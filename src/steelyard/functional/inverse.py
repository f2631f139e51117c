r"""From what a loss makes a network say back to the probability: the inverse of each formula, beside the formulas.

A loss with weights, offsets, margins, smoothing or focusing has its minimum somewhere else than at the true
probabilities p. Where it lies follows from the gradient of the expected loss being zero, an equation that can be solved
for p. Letters as in :mod:`steelyard.ops`: ``a`` shifted logits, ``s`` softmax, ``w`` class weights.

**Softmax formula.** With ``f(l) = −l·(1 − e^l)^γ``, a row of class y costs ``Σ_c A_c(y)·f(log s_c)``, where A is the
weighted, smoothed target. Every s sums to one, so the expected loss over y ~ p is stationary where

    Σ_y p_y·A_k(y)·(−f'(log s_k)) = s_k·Σ_c Σ_y p_y·A_c(y)·(−f'(log s_c))       for each k,

that is, ``E[A_k] ∝ s_k / −f'(log s_k)``, with ``−f' = (1 − s)^γ·(1 + γ·g)`` and ``g = −s·log s/(1 − s)``, which lies
between 0 and 1.

- No smoothing: ``E[A_k] = w_k·p_k``, so ``p ∝ s / (w·(1 − s)^γ·(1 + γg))``; γ = 0 leaves s/w.
- Smoothing ε over K classes, weighted by ``"class"``: ``E[A_k] = w_k·((1 − ε)·p_k + ε/K)``. By ``"target"``:
  ``E[A_k] = (1 − ε)·w_k·p_k + ε/K·Σ_y w_y·p_y``.
- A margin D on the own class makes s depend on y. With s the softmax *without* margin and
  ``N_k = 1 − s_k·(1 − e^(−D_k))``, the own class has ``s'_k = s_k·e^(−D_k)/N_k`` and any other ``s_k/N_y``, and the
  equation becomes ``w_k·p_k·(−f'(log s'_k)) ∝ s_k·N_k``.
- Margin and smoothing together, γ = 0: the equation stays linear in p, ``p_k·B_k = s_k·Λ − r_k·ε/K``, as
  :func:`_unsmoothed` writes out; Λ is what makes p sum to one.

**Sigmoid formula.** Each element has one equation, ``p·P·(−φ₊') = (1 − p)·Q·φ₋'`` with φ± the two terms of the loss as
functions of the logit. With ``u = σ − κ`` it reads

    logit p = log(Q/P) + log σ − log(1 − u) + log(u^γ₋·(1 + γ₋·g(1 − u))) − log((1 − σ)^γ₊·(1 + γ₊·g(σ))),

which grows with σ for all γ₊, γ₋ ≥ 0 and κ, so that there is exactly one p for each σ > κ.

All of it is exact for a network that can fit. One that has memorised its training rows still needs calibration on rows
that it has not seen (:mod:`steelyard.posterior`).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from steelyard._errors import NotInvertibleError, choice, refuse
from steelyard._values import number, numbers, readable
from steelyard.functional._check import check_input, class_values, refuse_unless_probabilities
from steelyard.functional._family import SMOOTH_WEIGHT
from steelyard.functional._prior import beside, class_shift, share_shift
from steelyard.ops import accumulation_dtype, class_dim
from steelyard.ops.reference import per_class

__all__ = [
    "CALIBRATE",
    "bce_inverse",
    "sigmoid_inverse",
    "sigmoid_posterior",
    "softmax_inverse",
    "softmax_posterior",
]

CALIBRATE = (
    "No probability can be read back from this loss: calibrate the network on held-out rows of natural frequency, "
    "steelyard.posterior.TemperatureScaling(bias=True).fit(logits, labels)."
)
"""What to do where there is no inverse."""

LEAST = 1e-6
"""What a class gets whose output lies below what smoothing alone would give it, so that its log loss stays finite.

Only a network that has not converged says so, but which has? Some of those classes come true all the same.
"""

SURE = -1e30
"""Stands for log 0 where a product with 0 would give NaN."""


# ------------------------------------------------------------------------------------------------------------ softmax


def softmax_posterior(
    logits: Tensor,
    prior: Any = None,
    *,
    weight: Any = None,
    label_smoothing: float = 0.0,
    logit_offset: Any = None,
    margin: Any = None,
    gamma: float = 0.0,
    smooth_weight: Literal["class", "target"] = "class",
    train_prior: Any = None,
) -> Tensor:
    r"""Class probabilities from the logits of a network that a softmax loss with these settings has trained.

    The answer to "my model says 40 % for something that happens 2 % of the time": weights, offsets, margins, smoothing
    and focusing all move the network's output away from the probability, each in a way that can be computed back.

    Equals ``(logits + logit_offset - weight.log()).softmax(1)`` without margin, smoothing and focusing; the module's
    docstring has the rest.

    Args:
        logits: The network's raw output, float, ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``.
        prior: Class shares, or counts, where the probabilities are to hold, ≥ 0, ``(C,)`` or a
            :class:`~steelyard.ClassCounts`; only their ratios matter. ``None``: where the network was trained.
        weight, label_smoothing, logit_offset, margin, gamma, smooth_weight: As the loss had them in training
            (:func:`~steelyard.functional.cross_entropy`), weights > 0.
        train_prior: Class shares, or counts, of the rows *as training drew them*, > 0, ``(C,)``: those of the data, or
            those that a sampler made of them. Goes with ``prior``.

    Returns:
        Probabilities along the class axis, shape of ``logits``, float32 or float64. Smoothing hides small ones: a
        class whose output lies below what smoothing alone would give it, as happens where a network is not exact, gets
        1e-6 (a hundredth of ε/K where that is less).

    Raises:
        NotInvertibleError: a weight ≤ 0, ``label_smoothing`` of 1, or a margin together with smoothing and focusing.
        TypeError, ValueError: dtypes, shapes, options; one of ``prior`` and ``train_prior`` without the other.

    Example:
        >>> softmax_posterior(torch.tensor([[0.0, 0.0]]), weight=[1.0, 9.0])
        tensor([[0.9000, 0.1000]])
        >>> softmax_posterior(torch.tensor([[0.0, 0.0]]), [0.98, 0.02], train_prior=[0.5, 0.5])
        tensor([[0.9800, 0.0200]])

    Source: Elkan, IJCAI 2001 (weights and shares); Charoenphakdee et al., CVPR 2021, arXiv:2011.09172 (focusing); Menon
    et al., arXiv:2007.07314, eq. 10 (offsets); margins and smoothing derived in the module's docstring.
    """
    return softmax_inverse(
        "softmax_posterior", logits, prior=prior, train_prior=train_prior, weight=weight,
        label_smoothing=label_smoothing, logit_offset=logit_offset, margin=margin, gamma=gamma,
        smooth_weight=smooth_weight,
    )  # fmt: skip


def softmax_inverse(
    name: str,
    logits: Tensor,
    *,
    argument: str = "logits",
    meaning: str = "logits",
    prior: Any = None,
    train_prior: Any = None,
    weight: Any = None,
    label_smoothing: float = 0.0,
    logit_offset: Any = None,
    margin: Any = None,
    gamma: float = 0.0,
    smooth_weight: str = "class",
    scale: float = 1.0,
) -> Tensor:
    """:func:`softmax_posterior` for whoever ``name`` is; ``scale`` times the logits is what the loss saw."""
    check_input(name, logits, meaning, argument=argument)
    smoothing = number(name, "label_smoothing", label_smoothing, 0.0, 1.0)
    focusing = number(name, "gamma", gamma, 0.0, math.inf)
    choice(name, "smooth_weight", smooth_weight, SMOOTH_WEIGHT)
    statistics = {"weight": weight, "logit_offset": logit_offset, "margin": margin}
    w, offset, m = (_of_classes(name, word, values, logits) for word, values in statistics.items())
    shift = class_shift(name, prior, train_prior, logits)
    if w is not None:
        _refuse_unless_positive(name, "weight", w)
    _refuse_unless_invertible(name, smoothing, focusing, m)

    dim = class_dim(logits)
    z = logits.to(accumulation_dtype(logits.dtype))
    a = (z - z.detach().amax(dim, keepdim=True)) * scale  # first, or large logits round the offset away
    if offset is not None:
        a = a + per_class(offset, logits)
    log_s, log_rest = _log_shares(a, dim)
    excess = None
    if m is None:
        log_p = log_s - _log_slope(log_s, log_rest, focusing)
    else:
        d = per_class(m, logits)
        log_n = torch.logaddexp(log_rest, log_s - d)
        log_p = log_s + log_n - _log_slope(log_s - d - log_n, log_rest - log_n, focusing)
        excess = -torch.expm1(-d) * (log_s - log_n).exp()
    log_w = None if w is None else per_class(w, logits).log()
    if smoothing != 0.0:
        u = log_s.exp() if m is not None else log_p.softmax(dim)
        log_p = _unsmoothed(u, w, excess, smoothing, smooth_weight == "target", dim).log()
        if smooth_weight == "class":
            log_w = None  # taken out already
    if log_w is not None:
        log_p = log_p - log_w
    if shift is not None:
        log_p = log_p + per_class(shift, logits)
    return log_p.softmax(dim)


def _log_shares(a: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """``log s`` and ``log(1 − s)``, the latter to full relative accuracy however sure the row is.

    Only one class can be above ½. Its ``1 − s`` is the sum of the others, and not a difference from 1.
    """
    log_s = a.log_softmax(dim)
    top = a.argmax(dim, keepdim=True)
    others = a.scatter(dim, top, -torch.inf).logsumexp(dim, keepdim=True) - a.logsumexp(dim, keepdim=True)
    rest = torch.log1p(-log_s.scatter(dim, top, -torch.inf).exp()).scatter(dim, top, others).clamp(min=SURE)
    return log_s, rest


def _log_slope(log_s: Tensor, log_rest: Tensor, gamma: float) -> Tensor:
    """``log(−f'(log s)) = γ·log(1 − s) + log(1 + γ·g)`` with ``g = −s·log s/(1 − s)``."""
    if gamma == 0.0:
        return torch.zeros_like(log_s)
    rest = log_rest.exp()
    # Near s = 1 the logarithm is taken of the rest, and g has its limit 1 where that is lost beside 1.
    exact = torch.where(rest < 0.5, torch.log1p(-rest.clamp(max=0.5)), log_s.clamp(min=SURE))
    sure = rest < torch.finfo(rest.dtype).eps
    g = torch.where(sure, 1.0, -exact * exact.exp() / rest.masked_fill(sure, 1.0))
    return gamma * log_rest + torch.log1p(gamma * g)


def _unsmoothed(
    u: Tensor, weight: Tensor | None, excess: Tensor | None, smoothing: float, by_target: bool, dim: int
) -> Tensor:
    """What smoothing was applied to: p itself, or ``w·p`` where the smoothed mass is weighted by target.

    With ``e_k = s_k·(1 − e^(−D_k))/N_k`` for a margin, else 0, the stationary point has

        p_k·B_k = u_k·Λ − r_k·ε/K,     B_k = r_k·(1 − ε) + T_k·e_k,

    by ``"class"`` with ``r = w``, ``T_k = (1 − ε)·w_k + ε·mean(w)``, and by ``"target"``, for ``w·p/Σ w·p`` in place of
    p, with ``r = T = 1``. Sums on both sides give Λ.
    """
    classes = u.shape[dim]
    r = torch.ones_like(u) if weight is None or by_target else per_class(weight, u).expand_as(u)
    b = r * (1.0 - smoothing)
    if excess is not None:
        b = b + ((1.0 - smoothing) * r + smoothing * r.mean(dim, keepdim=True)) * excess
    floor = r * (smoothing / classes)
    factor = (1.0 + (floor / b).sum(dim, keepdim=True)) / (u / b).sum(dim, keepdim=True)
    return ((u * factor - floor) / b).clamp(min=min(LEAST, 0.01 * smoothing / classes))


def _refuse_unless_invertible(name: str, smoothing: float, gamma: float, margin: Tensor | None) -> None:
    """The settings of the softmax formula that no probability can be read back from."""
    if smoothing == 1.0:
        refuse(
            name, "label_smoothing", "below 1, at which targets say nothing", "1", CALIBRATE, error=NotInvertibleError
        )
    if margin is None or smoothing == 0.0:
        return
    if gamma != 0.0:
        refuse(name, "gamma", "0 where there are a margin and smoothing", repr(gamma), CALIBRATE,
               error=NotInvertibleError)  # fmt: skip
    if readable(margin) and bool((margin < 0).any()):
        refuse(name, "margin", "≥ 0 where there is smoothing", f"{float(margin.min()):g}", CALIBRATE,
               error=NotInvertibleError)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ sigmoid


def sigmoid_posterior(
    logits: Tensor,
    prior: Any = None,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    alpha: float | None = None,
    train_prior: Any = None,
) -> Tensor:
    r"""Probabilities of each element from the logits of a network that a sigmoid loss with these settings has trained.

    A ``pos_weight`` of 49 teaches a network to say 50 % where 2 % is true; here is the 2 % again.

    Equals ``(logits - pos_weight.log()).sigmoid()`` without focusing and clip; the module's docstring has the rest.

    Args:
        logits: The network's raw output, float, any shape.
        prior: Share of positives where the probabilities are to hold, in (0, 1), a number or broadcast to the shape of
            ``logits`` from the right; or a :class:`~steelyard.ClassCounts`, multi-label or of two classes. ``None``:
            where the network was trained.
        weight, pos_weight, gamma_pos, gamma_neg, clip, alpha: As the loss had them in training
            (:func:`~steelyard.functional.binary_cross_entropy_with_logits`), weights > 0. ``weight`` weighs both
            answers alike and moves nothing.
        train_prior: Share of positives in the rows *as training drew them*. Goes with ``prior``.

    Returns:
        Probabilities that the answer is yes, shape of ``logits``, float32 or float64. Where σ ≤ ``clip``: 0, since for
        any larger probability the loss would have pushed the output above the clip. With a clip and ``gamma_pos`` 0,
        σ → 1 stands for every probability from some p < 1 up, and gives that p.

    Raises:
        NotInvertibleError: ``weight`` or ``pos_weight`` ≤ 0, ``alpha`` 0 or 1; with a clip but ``gamma_neg`` 0, an
            output at or below the clip, where every rare element ends (NaN where looking would synchronise).
        TypeError, ValueError: dtypes, shapes, options; one of ``prior`` and ``train_prior`` without the other.

    Example:
        >>> sigmoid_posterior(torch.tensor([0.0, 3.0]), pos_weight=49.0)
        tensor([0.0200, 0.2907])

    Source: Charoenphakdee et al., CVPR 2021, arXiv:2011.09172 (focusing); the rest derived in the module's docstring.
    """
    return sigmoid_inverse(
        "sigmoid_posterior", logits, prior=prior, train_prior=train_prior, weight=weight, pos_weight=pos_weight,
        gamma_pos=gamma_pos, gamma_neg=gamma_neg, clip=clip, alpha=alpha,
    )  # fmt: skip


def sigmoid_inverse(
    name: str,
    logits: Tensor,
    *,
    prior: Any = None,
    train_prior: Any = None,
    weight: Any = None,
    pos_weight: Any = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    alpha: float | None = None,
) -> Tensor:
    """:func:`sigmoid_posterior` for whoever ``name`` is."""
    check_input(name, logits, classes=False, argument="logits")
    focus_pos = number(name, "gamma_pos", gamma_pos, 0.0, math.inf)
    focus_neg = number(name, "gamma_neg", gamma_neg, 0.0, math.inf)
    least = number(name, "clip", clip, 0.0, 1.0, open_end=True)
    shift = share_shift(name, prior, train_prior, logits)
    if weight is not None:  # it need not fit these rows: it cancels
        _refuse_unless_positive(name, "weight", numbers(name, "weight", weight, "numbers"))
    z = logits.to(accumulation_dtype(logits.dtype))
    log_p, log_n = logsigmoid(z), logsigmoid(-z)
    easy = None
    log_u, log_left = log_p, log_n
    if least != 0.0:
        u = z.sigmoid() - least
        easy = u <= 0
        log_u = u.masked_fill(easy, 0.0).log()
        log_left = ((-z).sigmoid() + least).masked_fill(easy, 1.0).log()
    odds = log_p - log_left + _log_slope(log_left, log_u, focus_neg) - _log_slope(log_p, log_n, focus_pos)
    if easy is not None and focus_neg == 0.0:
        _refuse_below_clip(name, easy, least)
        odds = odds.masked_fill(easy, torch.nan)
    if pos_weight is not None:
        weights = beside(name, "pos_weight", pos_weight, logits)
        _refuse_unless_positive(name, "pos_weight", weights)
        odds = odds - weights.log()
    if alpha is not None:
        share = number(name, "alpha", alpha, 0.0, 1.0)
        if share in (0.0, 1.0):
            refuse(name, "alpha", "between 0 and 1, where both answers count", repr(alpha), CALIBRATE,
                   error=NotInvertibleError)  # fmt: skip
        odds = odds + (math.log1p(-share) - math.log(share))
    return (odds if shift is None else odds + shift).sigmoid()


def bce_inverse(
    name: str, input: Tensor, prior: Any, train_prior: Any, weight: Any, *, argument: str = "input"
) -> Tensor:
    """Binary cross entropy on probabilities is least at the probability, whatever its one weight for both answers."""
    check_input(name, input, "probabilities", classes=False, argument=argument)
    refuse_unless_probabilities(name, argument, input)
    if weight is not None:
        _refuse_unless_positive(name, "weight", weight)
    shift = share_shift(name, prior, train_prior, input, argument=argument)
    p = input.to(accumulation_dtype(input.dtype))
    return p if shift is None else (p.log() - (-p).log1p() + shift).sigmoid()


def _refuse_below_clip(name: str, easy: Tensor, clip: float) -> None:
    """Without focusing the negative term stops at the clip with a jump, and every p below some value ends there."""
    if readable(easy) and bool(easy.any()):
        position = tuple(easy.nonzero()[0].tolist())
        refuse(name, "gamma_neg", f"above 0 where an output may lie below the clip of {clip:g}",
               f"0, and an output below it at position {position}", CALIBRATE, error=NotInvertibleError)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ weights


def _of_classes(name: str, argument: str, values: Any, logits: Tensor) -> Tensor | None:
    """One number for each class, brought to where the logits are: loss and logits may be on two devices by now."""
    if isinstance(values, Tensor):
        values = values.to(logits.device)
    return class_values(name, argument, values, logits, minus_infinity=argument == "logit_offset")


def _refuse_unless_positive(name: str, argument: str, values: Tensor) -> None:
    """A class that costs nothing, or is paid for, leaves no trace of its probability in the output."""
    if readable(values) and not bool((values > 0).all()):
        position = tuple((~(values > 0)).nonzero()[0].tolist())
        refuse(name, argument, "> 0", f"{float(values[position]):g} at position {position}", CALIBRATE,
               error=NotInvertibleError)  # fmt: skip
