"""Class counts to class weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steelyard._errors import choice, refuse, warn
from steelyard._values import number
from steelyard.counts import ClassCounts, as_class_counts
from steelyard.weights import _schemes
from steelyard.weights._absent import ABSENT, check_absent, names_of
from steelyard.weights._schemes import SCHEMES, unfit
from steelyard.weights._unread import counts_of, is_unread

__all__ = ["class_weights"]

_SATURATED = 1.01
"""Weights that differ by less than 1 % do nothing worth the name."""


def class_weights(
    counts: Any,
    scheme: str | Callable[[Tensor], Any] = "max_ratio",
    *,
    power: float = 1.0,
    beta: float | None = None,
    normalize: str | None = None,
    cap: float | None = None,
    missing: str = "raise",
) -> Tensor:
    r"""Weights that make rare classes count for more, from how often each class occurs.

    For the ``weight`` of a loss, or as sampling weights of classes. In PyTorch's weighted mean over class indices the
    scale of the weights cancels; everywhere else it multiplies the step size, which is what ``normalize`` is for.

    With counts n, total N and K classes that have samples, the weight of a class is, by ``scheme``:

    ====================  ====================  ========================================================
    ``inverse``           1/n                   tiny, and so is the step where the scale does not cancel
    ``max_ratio``         max(n)/n              1 for the largest class
    ``balanced``          N/(K·n)               scikit-learn's; a mean of 1 over the samples
    ``sqrt_inverse``      1/√n                  a partial correction
    ``effective_number``  (1−β)/(1−βⁿ)          between none (β = 0) and ``inverse`` (β → 1)
    ``median_frequency``  median(f)/f           1 for the class in the middle; f = n/N, for masks as below
    ``log``               1/ln(1.02 + n/N)      ENet's; between 1.42 and 50.5 whatever the data
    ====================  ====================  ========================================================

    Counts of masks know the pixels of the images that contain a class: there f is n over those, as its authors have it.
    A class that fills the few images it occurs in is not rare then.

    Then, in this order: ``power``, ``cap``, ``missing``, ``normalize``; all in float64 (on Apple's devices, which
    have none, in float32), rounded to float32 once.

    Args:
        counts: Single-label :class:`ClassCounts`, or samples per class, whole, zero or more, ``(C,)``. Multi-label
            counts are refused: there each class is a question of its own, positives against negatives, which a weight
            per class does not balance (``pos_weight`` does). To weigh the questions against each other, pass
            ``counts.positives``. A tensor on a GPU stays there, as described below.
        scheme: A name from the table, or a function from the counts, a float64 tensor ``(C,)`` where they are, to
            weights ``(C,)``.
        power: The weights are raised to it, at least 0; ½ corrects half of the imbalance (on a log scale), 0 nothing.
        beta: β of ``effective_number``, in [0, 1). ``None`` takes (N−1)/N. It does nothing (and warns) where βⁿ is
            about 0 for all classes: β = 0.9 from n = 50, β = 0.9999 from n = 50,000.
        normalize: Scales the weights so that their ``"mean"``, ``"sum"`` or ``"max"`` is 1, or (``"prior"``) that
            Σ π_c w_c = 1 with π = n/N: the loss keeps its scale, averaged over the samples. ``None`` leaves them.
        cap: The largest weight may be this many times the smallest one that is not zero, at least 1; larger ones are
            lowered to that, and a warning says which.
        missing: For classes without samples: ``"raise"``, or a weight of ``"zero"``, or the ``"max"`` of the others.

    Returns: float32 tensor ``(C,)``, finite and not negative; on the CPU, or where a tensor of counts is.

    Counts in a tensor on a GPU are not looked at, so that nothing waits, nor are those under ``torch.compile`` and
    ``torch.func``. What would raise here makes all weights NaN there, which a loss module refuses at its construction;
    no warning is given.

    Raises: TypeError, ValueError: an argument outside its range, a class without samples, weights beyond float32.

    Warns: UserWarning: ``cap`` changed a weight, or ``effective_number`` is saturated.

    Example:
        >>> class_weights([100000, 100, 10])
        tensor([1.0000e+00, 1.0000e+03, 1.0000e+04])
        >>> class_weights([90, 10], "balanced", power=0.5, normalize="prior")
        tensor([0.8333, 2.5000])

    Source: ``balanced``: King and Zeng, "Logistic Regression in Rare Events Data", 2001, as in scikit-learn.
        ``effective_number``: Cui et al., CVPR 2019, arXiv:1901.05555, eq. 2 and 4 (there scaled to a sum of C).
        ``median_frequency``: Eigen and Fergus, ICCV 2015, arXiv:1411.4734, §6.3.2; with counts alone, all images are
        taken to have the class. ``log``: Paszke et al., arXiv:1606.02147, §5.2, c = 1.02.
    """
    function = "class_weights"
    if not callable(scheme):
        choice(function, "scheme", scheme, tuple(SCHEMES), "Or a function from counts to weights.")
    power = number(function, "power", power, 0.0, math.inf)
    if beta is not None:
        beta = number(function, "beta", beta, 0.0, 1.0, open_end=True)
        if scheme != "effective_number":
            refuse(function, "beta", "None unless the scheme is 'effective_number'", beta)
    if normalize is not None:
        choice(function, "normalize", normalize, ("mean", "sum", "max", "prior"), "Or None.")
    if cap is not None:
        cap = number(function, "cap", cap, 1.0, math.inf)
    choice(function, "missing", missing, ABSENT)

    options: dict[str, Any] = {"power": power, "cap": cap, "missing": missing, "normalize": normalize}
    if is_unread(counts):
        n, sound = counts_of(function, counts)
        steps = _schemes.options(n, _raw(n, scheme, beta), **options)
        sound = sound & ((steps.raw >= 0) & steps.raw.isfinite()).all() & (steps.raw > 0).any()
        sound = sound & ((n > 0).all() if missing == "raise" else True)
        result = steps.last.float()
        return torch.where(sound & ~unfit(steps.powered, steps.raw) & ~unfit(result, steps.last), result, math.nan)

    value = as_class_counts(counts, function=function)
    if value.is_multilabel:
        hint = (
            "Use pos_weight(counts) for positives against negatives, or pass counts.positives for class against class."
        )
        refuse(function, "counts", "single-label counts", "multi-label counts", hint)
    n = value.counts.double()
    check_absent(function, "counts", value, n == 0, missing, "samples")
    raw = _raw(n, scheme, beta, value.image_pixels)
    if callable(scheme):
        _check_given(raw, n > 0, value)
    elif beta is not None:
        _warn_saturated(n[n > 0], raw[n > 0], beta)
    steps = _schemes.options(n, raw, **options)
    _check_fit(steps.powered, steps.raw)
    if cap is not None:
        _warn_capped(steps, cap, value)
    result = steps.last.float()
    _check_fit(result, steps.last)
    return result


def _raw(
    n: Tensor, scheme: str | Callable[[Tensor], Any], beta: float | None, image_pixels: Tensor | None = None
) -> Tensor:
    """The weights of a scheme, before any option."""
    if callable(scheme):
        return _given(scheme, n)
    if scheme == "effective_number":
        return _schemes.effective_number(n, beta)
    if scheme == "median_frequency" and image_pixels is not None:
        return _schemes.median_frequency(n / image_pixels)
    return SCHEMES[scheme](n)


def _check_fit(found: Tensor, exact: Tensor) -> None:
    if bool(unfit(found, exact)):
        name = str(found.dtype).removeprefix("torch.")
        hint = "Lower power, set a cap, or normalize."
        refuse("class_weights", "power", f"such that all weights fit into {name}", "weights that do not", hint)


_RULE = "a function that gives {} weights, finite and not negative, one of them positive"


def _given(scheme: Callable[[Tensor], Any], n: Tensor) -> Tensor:
    """What a function makes of the counts, of the right shape."""
    given = scheme(n.clone())
    rule = _RULE.format(len(n))
    try:
        found = torch.as_tensor(given).detach().to(n.device, n.dtype)
    except (TypeError, ValueError, RuntimeError):
        refuse("class_weights", "scheme", rule, f"one that gives {type(given).__name__}", error=TypeError)
    if found.shape != n.shape:
        refuse("class_weights", "scheme", rule, f"one that gives shape {tuple(found.shape)}")
    return found


def _check_given(found: Tensor, present: Tensor, counts: ClassCounts) -> None:
    rule = _RULE.format(len(found))
    bad = present & ~(found.isfinite() & (found >= 0))
    if bad.any():
        at = int(bad.nonzero()[0])
        refuse("class_weights", "scheme", rule, f"one that gives {found[at].item()} for class {counts.classes[at]!r}")
    if not (found[present] > 0).any():
        refuse("class_weights", "scheme", rule, "one that gives only zeros")


def _warn_saturated(n: Tensor, weights: Tensor, beta: float) -> None:
    if n.max() >= 2 * n.min() and weights.max() < _SATURATED * weights.min():
        spread = 100 * float(weights.max() / weights.min() - 1)
        warn(
            f"class_weights: 'effective_number' with beta={beta} is saturated: the counts differ by a factor of "
            f"{float(n.max() / n.min()):,.4g}, the weights by {spread:.2g} %. Choose beta nearer to 1, or None."
        )


def _warn_capped(steps: _schemes.Steps, cap: float, counts: ClassCounts) -> None:
    over = steps.capped < steps.powered
    if over.any():
        ratio = float(steps.powered.max() / steps.powered[steps.powered > 0].min())
        warn(
            f"class_weights: cap={cap:g} lowered the weight of {names_of(counts, over)}: the largest was {ratio:,.4g} "
            "times the smallest."
        )
