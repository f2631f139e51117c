"""Losses over classes that may occur together, or the one that may: settings of the sigmoid formula."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal, TypedDict, Unpack

from torch import Tensor

from steelyard._values import number
from steelyard.functional._family import leave, sigmoid_family
from steelyard.functional._reduce import Denominator, legacy_reduction

__all__ = [
    "SigmoidOptions",
    "asymmetric_loss",
    "binary_cross_entropy_with_logits",
    "focal_alpha",
    "sigmoid_focal_loss",
]


class SigmoidOptions(TypedDict, total=False):
    """Keywords that every sigmoid loss takes, as :func:`binary_cross_entropy_with_logits` describes them."""

    weight: Any
    pos_weight: Any
    ignore_index: int | None
    denominator: Denominator
    empty: Literal["nan", "zero", "raise"]
    inplace_gradient: bool


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
    *,
    ignore_index: int | None = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    alpha: float | None = None,
    denominator: Denominator = "torch",
    empty: Literal["nan", "zero", "raise"] = "nan",
    inplace_gradient: bool = False,
) -> Tensor:
    r"""Binary cross entropy between logits and targets, each element on its own.

    The loss of binary and multi-label classifiers; ``pos_weight`` is its remedy for rare positives.

    Equals ``torch.nn.functional.binary_cross_entropy_with_logits`` for the arguments that it has; in general, for an
    element,

    .. math::
        v\,[\,P\,t\,(1-\sigma)^{\gamma_+}(-\log\sigma) + (1-t)\,\sigma_-^{\gamma_-}(-\log(1-\sigma_-))\,],
        \qquad \sigma = \mathrm{sigmoid}(z),\ \sigma_- = \max(\sigma - \kappa, 0)

    Args:
        input: Logits z, float, any shape. fp16 and bf16 accumulate in fp32.
        target: Probabilities t in [0, 1], float, or 0 and 1 as bool or any integer dtype; shape of ``input``.
        weight: Element weights v, finite, broadcast to the shape of ``input`` from the right.
        size_average, reduce: Deprecated, as in PyTorch; use ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        pos_weight: P, negatives/positives where they are to balance, finite, broadcast to the shape of ``input`` from
            the right: for ``(N, C)`` one number for each class; for ``(N, C, H, W)`` one shaped ``(C, 1, 1)``.
        ignore_index: Elements whose target equals it add nothing, to the loss, its mean's denominator or the gradient.
        gamma_pos, gamma_neg: γ₊ and γ₋ ≥ 0, focusing on the positive and on the negative term.
        clip: κ in [0, 1): negatives whose probability is below it cost nothing.
        alpha: α in [0, 1]: the positive term times α, the negative one times 1 − α.
        denominator: What ``"mean"`` divides by. ``"torch"`` and ``"samples"``: the number of elements kept.
            ``"weights"``: the sum of v·(P·t + (1 − t)), with α and 1 − α at their terms. Or a number, or a 0-d tensor.
        empty: What ``"mean"`` gives when that is 0, as for :func:`~steelyard.functional.cross_entropy`.
        inplace_gradient: Whether the gradient may take the memory of ``input``, as for
            :func:`~steelyard.functional.cross_entropy`.

    Returns:
        Loss in nats, in the dtype of ``input`` (fp32 at least under autocast); a scalar, or the shape of ``input``.

    Raises:
        TypeError, ValueError: dtypes, shapes, options; ``inplace_gradient`` for a leaf. Targets are not range-checked,
            as in PyTorch.
        RuntimeError: in a second backward pass through a loss with ``inplace_gradient``.

    Example:
        >>> logits, target = torch.tensor([0.5, 1.5]), torch.tensor([1, 0])
        >>> binary_cross_entropy_with_logits(logits, target, pos_weight=5.0, reduction="none")
        tensor([2.3704, 1.7014])

    Source: Ridnik et al., ICCV 2021, arXiv:2009.14119, eq. 7 (γ₊, γ₋, κ); Lin et al., arXiv:1708.02002, eq. 5 (α).
    """
    return sigmoid_family(
        "binary_cross_entropy_with_logits",
        input,
        target,
        weight=weight,
        reduction=legacy_reduction(size_average, reduce, reduction),
        pos_weight=pos_weight,
        ignore_index=ignore_index,
        gamma_pos=gamma_pos,
        gamma_neg=gamma_neg,
        clip=clip,
        alpha=alpha,
        denominator=denominator,
        empty=empty,
        inplace_gradient=inplace_gradient,
    )


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    **options: Unpack[SigmoidOptions],
) -> Tensor:
    r"""Binary cross entropy that fades for elements already classified well.

    The loss of one-stage detectors, where nearly every anchor is easy background.

    Equals ``torchvision.ops.sigmoid_focal_loss`` with its arguments in its order and its defaults, ``reduction="none"``
    among them. For targets strictly between 0 and 1 each term has its own focusing, as in the formula of
    :func:`binary_cross_entropy_with_logits`, where torchvision focuses on the mixture of both.

    Args:
        input, target: As for :func:`binary_cross_entropy_with_logits`.
        alpha: α in [0, 1], the share of positives in the weights. ``None``, or as in torchvision a negative number: no
            α.
        gamma: γ ≥ 0 for both terms; 0 is α-weighted binary cross entropy.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        **options: Keywords of :func:`binary_cross_entropy_with_logits`.

    Returns:
        Loss in nats, as :func:`binary_cross_entropy_with_logits`.

    Raises:
        TypeError, ValueError: as :func:`binary_cross_entropy_with_logits`.

    Example:
        >>> sigmoid_focal_loss(torch.tensor([2.0, -2.0]), torch.tensor([1.0, 1.0]))
        tensor([0.0005, 0.4125])

    Source: Lin et al., ICCV 2017, arXiv:1708.02002, eq. 5.
    """
    name = "sigmoid_focal_loss"
    leave(name, options, "gamma_pos", "gamma_neg")
    focusing = number(name, "gamma", gamma, 0.0, float("inf"))
    share = focal_alpha(name, alpha)
    return sigmoid_family(
        name, input, target, reduction=reduction, alpha=share, gamma_pos=focusing, gamma_neg=focusing, **options
    )


def asymmetric_loss(
    input: Tensor,
    target: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float = 0.05,
    reduction: str = "mean",
    **options: Unpack[SigmoidOptions],
) -> Tensor:
    r"""Binary cross entropy that fades faster for easy negatives than for easy positives, and drops the easiest.

    For multi-label data with many classes, where each sample is a negative for nearly all of them.

    Equals the authors' ``AsymmetricLoss`` summed, up to its clamp of the logarithm at 1e-8 and with the gradient taken
    through the focusing too; its arguments come in the authors' order.

    Args:
        input, target: As for :func:`binary_cross_entropy_with_logits`.
        gamma_neg, gamma_pos: γ₋ and γ₊ ≥ 0.
        clip: κ in [0, 1): negatives whose probability is below it cost nothing.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        **options: Keywords of :func:`binary_cross_entropy_with_logits`.

    Returns:
        Loss in nats, as :func:`binary_cross_entropy_with_logits`.

    Raises:
        TypeError, ValueError: as :func:`binary_cross_entropy_with_logits`.

    Example:
        >>> asymmetric_loss(torch.tensor([2.0, 2.0, -4.0]), torch.tensor([1, 0, 0]), reduction="none")
        tensor([0.0151, 0.8464, 0.0000])

    Source: Ridnik et al., ICCV 2021, arXiv:2009.14119, eq. 7.
    """
    return sigmoid_family(
        "asymmetric_loss",
        input,
        target,
        gamma_neg=gamma_neg,
        gamma_pos=gamma_pos,
        clip=clip,
        reduction=reduction,
        **options,
    )


def focal_alpha(name: str, alpha: Any) -> float | None:
    """α in [0, 1], or None where it is None or, as torchvision has it, negative."""
    if alpha is None:
        return None
    if not isinstance(alpha, bool) and isinstance(alpha, Real) and -math.inf < float(alpha) < 0:
        return None
    return number(name, "alpha", alpha, 0.0, 1.0)
