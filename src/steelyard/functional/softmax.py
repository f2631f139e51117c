r"""Losses over classes that exclude one another: settings of the softmax formula of :mod:`steelyard.ops`."""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import number, readable
from steelyard.functional._check import check_index_or_distribution, check_input, positive_counts, result_dtype
from steelyard.functional._family import leave, softmax_family
from steelyard.functional._reduce import Denominator, legacy_reduction
from steelyard.ops import accumulation_dtype, class_dim

__all__ = [
    "ShiftedOptions",
    "SoftmaxOptions",
    "balanced_softmax_loss",
    "cross_entropy",
    "focal_loss",
    "ldam_loss",
    "ldam_margins",
    "log_prior",
    "logit_adjusted_loss",
]


class SoftmaxOptions(TypedDict, total=False):
    """Keywords that every softmax loss takes, as :func:`cross_entropy` describes them."""

    ignore_index: int
    reduction: str
    label_smoothing: float
    sample_weight: Any
    smooth_weight: Literal["class", "target"]
    denominator: Denominator
    empty: Literal["nan", "zero", "raise"]
    inplace_gradient: bool


class ShiftedOptions(SoftmaxOptions, total=False):
    """The same for losses that shift logits by class statistics, and so combine with weights and focusing."""

    weight: Any
    gamma: float


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    sample_weight: Any = None,
    logit_offset: Any = None,
    margin: Any = None,
    gamma: float = 0.0,
    smooth_weight: Literal["class", "target"] = "class",
    denominator: Denominator = "torch",
    empty: Literal["nan", "zero", "raise"] = "nan",
    inplace_gradient: bool = False,
) -> Tensor:
    r"""Cross entropy between logits and class indices or class probabilities.

    The loss of nearly every classifier, and with ``weight`` the first remedy that people reach for on imbalanced data.
    The keywords add what PyTorch lacks: row weights, a mean that divides by what you say, and the shifts, margins and
    focusing that other losses are made of.

    Equals ``torch.nn.functional.cross_entropy`` for the arguments that it has; in general, for a row,

    .. math::
        v \sum_c w_c\, q_c\, (1 - s_c)^\gamma\, (-\log s_c), \qquad s = \mathrm{softmax}(z + \delta - m_y [c = y])

    Args:
        input: Logits z, float, ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``. fp16 and bf16 accumulate in fp32.
        target: Class indices in ``[0, C)`` or ``ignore_index``, any integer dtype, shape of ``input`` without the class
            axis; or class probabilities q, float, shape of ``input``.
        weight: Class weights w, finite, ``(C,)``; tensor, array or list of any real dtype.
        size_average, reduce: Deprecated, as in PyTorch; use ``reduction``.
        ignore_index: Index targets with this value add nothing, to the loss, its mean's denominator or the gradient.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: ε in [0, 1]: q becomes ``(1 − ε)·q + ε/C``.
        sample_weight: Row weights v, finite, shape of the rows, or ``(N,)`` for all positions of a sample. A row of
            weight 2 counts as the same row twice, in PyTorch's mean too.
        logit_offset: δ, added to every row's logits, ``(C,)``. −inf takes a class out.
        margin: m, taken off the logit of the row's own class, finite, ``(C,)``; index targets only.
        gamma: γ ≥ 0, focusing. It acts on the unweighted probability.
        smooth_weight: ``"class"``, as PyTorch: mass smoothed onto class c is weighted ``w_c``. ``"target"``: the whole
            row is weighted as its own class. With balanced weights at 1 : 9999 the first turns an intended ½ into
            0.998.
        denominator: What ``"mean"`` divides by. ``"torch"``: Σ v·w[target] over rows kept for indices, Σ v (that is N)
            for probabilities. ``"weights"``: Σ v·Σ_c w_c·q_c for either. ``"samples"``: the number of rows kept. Or a
            number, or a 0-d tensor.
        empty: What ``"mean"`` gives when that is 0: ``"nan"`` as PyTorch, ``"zero"`` with a gradient of zero,
            ``"raise"`` (looks at the value, so it synchronises and cannot be compiled).
        inplace_gradient: True lets the backward pass write the gradient over the memory of ``input``, so that there is
            no second tensor of that size. ``input`` holds the gradient from then on: any other use of it in a later
            backward pass is PyTorch's error. It must be the result of an operation, neither a leaf nor a view of one,
            nor expanded. Acts where a kernel serves (the CPU), changes nothing elsewhere; with ``create_graph=True``
            ``input`` is left alone.

    Returns:
        Loss in nats, in the dtype of ``input`` (fp32 at least under autocast); a scalar, or the shape of the rows.

    Raises:
        IndexError: a label outside ``[0, C)`` (on a GPU and under ``torch.func``: NaN).
        TypeError, ValueError: dtypes, shapes, options; ``inplace_gradient`` for a leaf.
        RuntimeError: in a second backward pass through a loss with ``inplace_gradient``.

    Example:
        >>> logits, target = torch.tensor([[0.1, 0.9], [0.0, 0.1]]), torch.tensor([0, 1])
        >>> cross_entropy(logits, target, weight=[0.1, 1.0])
        tensor(0.6923)
        >>> cross_entropy(logits, target, weight=[0.1, 1.0], denominator="samples")
        tensor(0.3808)

    Source: Szegedy et al., CVPR 2016, arXiv:1512.00567, §7 (smoothing); the other terms at the losses that use them.
    """
    return softmax_family(
        "cross_entropy",
        input,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=legacy_reduction(size_average, reduce, reduction),
        label_smoothing=label_smoothing,
        sample_weight=sample_weight,
        logit_offset=logit_offset,
        margin=margin,
        gamma=gamma,
        smooth_weight=smooth_weight,
        denominator=denominator,
        empty=empty,
        inplace_gradient=inplace_gradient,
    )


def focal_loss(
    input: Tensor, target: Tensor, weight: Any = None, *, gamma: float = 2.0, **options: Unpack[SoftmaxOptions]
) -> Tensor:
    r"""Cross entropy that fades for rows already classified well, by ``(1 − s_y)^γ``.

    Made for detectors, where easy background swamps the rest. It is not a remedy for rare classes as such.

    Equals ``((1 − s_y)**gamma * F.cross_entropy(input, target, weight, reduction="none"))``, s the softmax; its mean
    divides as that of ``cross_entropy`` does. γ acts on the unweighted probability; a ``weight`` stays outside.

    Args:
        input, target, weight: As for :func:`cross_entropy`.
        gamma: γ ≥ 0; 0 is cross entropy.
        **options: Keywords of :func:`cross_entropy`.

    Returns:
        Loss in nats, as :func:`cross_entropy`.

    Raises:
        IndexError, TypeError, ValueError: as :func:`cross_entropy`.

    Example:
        >>> focal_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.0018)

    Source: Lin et al., ICCV 2017, arXiv:1708.02002, eq. 5, over classes instead of for one.
    """
    return softmax_family("focal_loss", input, target, weight=weight, gamma=gamma, **options)


def balanced_softmax_loss(input: Tensor, target: Tensor, counts: Any, **options: Unpack[ShiftedOptions]) -> Tensor:
    r"""Cross entropy on logits shifted by the log of the class counts.

    Frequent classes get a head start in training, so that at test time the raw logits rank classes as if each were
    equally likely.

    Equals ``F.cross_entropy(input + counts.log(), target)``.

    Args:
        input, target: As for :func:`cross_entropy`.
        counts: Samples of each class, > 0, ``(C,)`` or a :class:`~steelyard.ClassCounts`. Not differentiated.
        **options: Keywords of :func:`cross_entropy`.

    Returns:
        Loss in nats, as :func:`cross_entropy`.

    Raises:
        ValueError: a count of zero, or not C of them. Else as :func:`cross_entropy`.

    Example:
        >>> balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([9, 1]))
        tensor(2.3026)

    Source: Ren et al., NeurIPS 2020, arXiv:2007.10740, eq. 4.
    """
    name = "balanced_softmax_loss"
    leave(name, options, "logit_offset")
    return softmax_family(name, input, target, logit_offset=log_prior(name, counts, input), **options)


def logit_adjusted_loss(
    input: Tensor, target: Tensor, counts: Any, tau: float = 1.0, **options: Unpack[ShiftedOptions]
) -> Tensor:
    r"""Cross entropy on logits shifted by τ times the log of the class prior.

    The loss that is consistent for balanced error; τ sets how far towards it to go.

    Equals ``F.cross_entropy(input + tau * (counts / counts.sum()).log(), target)``. τ = 1 is balanced softmax, τ = 0
    plain cross entropy.

    Args:
        input, target: As for :func:`cross_entropy`.
        counts: Samples of each class, > 0, ``(C,)`` or a :class:`~steelyard.ClassCounts`. Not differentiated.
        tau: τ ≥ 0, finite.
        **options: Keywords of :func:`cross_entropy`.

    Returns:
        Loss in nats, as :func:`cross_entropy`.

    Raises:
        ValueError: a count of zero, or not C of them; a negative tau. Else as :func:`cross_entropy`.

    Example:
        >>> logit_adjusted_loss(torch.zeros(1, 2), torch.tensor([1]), [9, 1], tau=0.0)
        tensor(0.6931)

    Source: Menon et al., ICLR 2021, arXiv:2007.07314, eq. 10.
    """
    name = "logit_adjusted_loss"
    leave(name, options, "logit_offset")
    offset = log_prior(name, counts, input) * number(name, "tau", tau, 0.0, float("inf"))
    return softmax_family(name, input, target, logit_offset=offset, **options)


def ldam_loss(
    input: Tensor,
    target: Tensor,
    counts: Any,
    max_margin: float = 0.5,
    scale: float = 30.0,
    **options: Unpack[ShiftedOptions],
) -> Tensor:
    r"""Cross entropy with a margin that is wider the rarer the class: label-distribution-aware margins.

    A rare class must win by more, which trades a little of the frequent classes' margin for generalisation where there
    are few samples. Meant for logits that are cosines in [−1, 1], and for weights switched on late
    (:class:`steelyard.nn.DeferredReweighting`).

    Equals ``F.cross_entropy(scale * (input - margins * F.one_hot(target, C)), target)``, with ``margins`` proportional
    to ``counts ** -0.25`` and ``max_margin`` the largest.

    Args:
        input, target: As for :func:`cross_entropy`; index targets only.
        counts: Samples of each class, > 0, ``(C,)`` or a :class:`~steelyard.ClassCounts`. Not differentiated.
        max_margin: Margin of the rarest class, in units of ``input``, ≥ 0.
        scale: Factor on the logits, > 0.
        **options: Keywords of :func:`cross_entropy`. What ``inplace_gradient`` overwrites are the scaled logits;
            ``input`` stays as it is, and may be a leaf.

    Returns:
        Loss in nats, as :func:`cross_entropy`.

    Raises:
        ValueError: a count of zero, or not C of them. Else as :func:`cross_entropy`.

    Example:
        >>> ldam_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([1]), [16, 1], scale=1.0)
        tensor(0.9741)

    Source: Cao et al., NeurIPS 2019, arXiv:1906.07413, eq. 13; the scale from the authors' code.
    """
    name = "ldam_loss"
    leave(name, options, "margin")
    check_input(name, input)
    check_index_or_distribution(name, input, target, distribution=False)
    factor = number(name, "scale", scale, 0.0, float("inf"))
    if factor == 0.0:
        refuse(name, "scale", "> 0", repr(scale))
    margins = ldam_margins(name, counts, number(name, "max_margin", max_margin, 0.0, float("inf")), input)
    # In the accumulation dtype: half precision would round the scaled logits, and fp16 overflow at 65504.
    scaled = input.to(accumulation_dtype(input.dtype)) * factor
    return softmax_family(name, scaled, target, margin=margins * factor, **options).to(result_dtype(input))


# ------------------------------------------------------------------------------------------ class statistics → settings


def _counts_beside(name: str, counts: Any, input: Tensor) -> Tensor:
    """The counts, checked against ``input``; in float64 on the CPU, as not every device has that.

    Where they cannot be looked at, those that count nothing make NaN, and not a plausible number.
    """
    check_input(name, input)
    n = positive_counts(name, counts)
    wanted = (input.shape[class_dim(input)],)
    if n.shape != wanted:
        refuse(name, "counts", f"of shape {wanted}, one for each class", f"shape {tuple(n.shape)}")
    unread = not readable(n)
    n = n.to(torch.float64 if n.device.type == "cpu" else accumulation_dtype(input.dtype))
    return n.masked_fill(n <= 0, math.nan) if unread else n


def log_prior(name: str, counts: Any, input: Tensor) -> Tensor:
    """``log(n_c / Σ n)`` beside ``input``. Any constant may be added to an offset, and this one keeps it small."""
    n = _counts_beside(name, counts, input)
    return (n / n.sum()).log().to(input.device, accumulation_dtype(input.dtype))


def ldam_margins(name: str, counts: Any, max_margin: float, input: Tensor) -> Tensor:
    """Margins ∝ n_c^(−¼) whose largest is ``max_margin``, ``(C,)`` beside ``input``."""
    shape = _counts_beside(name, counts, input).pow(-0.25)
    return (shape * (max_margin / shape.max())).to(input.device, accumulation_dtype(input.dtype))
