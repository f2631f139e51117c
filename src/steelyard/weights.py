"""Class counts to class weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steelyard._errors import choice, describe, refuse
from steelyard._values import number
from steelyard.counts import ClassCounts, as_class_counts
from steelyard.counts._index import index_labels

__all__ = ["SCHEMES", "class_weights", "pos_weight", "sample_weights"]

_ABSENT = ("raise", "zero", "max")
_SATURATED = 1.01
"""Weights that differ by less than 1 % do nothing worth the name."""


def _balanced(n: Tensor) -> Tensor:
    return n.sum() / (len(n) * n)


def _median_frequency(f: Tensor) -> Tensor:
    """From frequencies, or from counts: there the common denominator cancels."""
    middle = f.sort().values
    return (middle[(len(f) - 1) // 2] + middle[len(f) // 2]) / 2 / f


SCHEMES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "inverse": lambda n: 1 / n,
    "max_ratio": lambda n: n.max() / n,
    "balanced": _balanced,
    "sqrt_inverse": lambda n: n.rsqrt(),
    "effective_number": lambda n: _effective_number(n, None),
    "median_frequency": _median_frequency,
    "log": lambda n: 1 / torch.log(1.02 + n / n.sum()),
}
"""The schemes of :func:`class_weights` by name: from positive float64 counts of the classes that have samples."""


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

    Then, in this order: ``power``, ``cap``, ``missing``, ``normalize``; all in float64, rounded to float32 once.

    Args:
        counts: Single-label :class:`ClassCounts`, or samples per class, whole, zero or more, ``(C,)``. Multi-label
            counts are refused: there each class is a question of its own, positives against negatives, which a weight
            per class does not balance (``pos_weight`` does). To weigh the questions against each other, pass
            ``counts.positives``.
        scheme: A name from the table, or a function from the counts, a float64 tensor ``(C,)``, to weights ``(C,)``.
        power: The weights are raised to it, at least 0; ½ corrects half of the imbalance (on a log scale), 0 nothing.
        beta: β of ``effective_number``, in [0, 1). ``None`` takes (N−1)/N. It does nothing (and warns) where βⁿ is
            about 0 for all classes: β = 0.9 from n = 50, β = 0.9999 from n = 50,000.
        normalize: Scales the weights so that their ``"mean"``, ``"sum"`` or ``"max"`` is 1, or (``"prior"``) that
            Σ π_c w_c = 1 with π = n/N: the loss keeps its scale, averaged over the samples. ``None`` leaves them.
        cap: The largest weight may be this many times the smallest one that is not zero, at least 1; larger ones are
            lowered to that, and a warning says which.
        missing: For classes without samples: ``"raise"``, or a weight of ``"zero"``, or the ``"max"`` of the others.

    Returns: float32 tensor ``(C,)``, finite and not negative.

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
    value = as_class_counts(counts, function=function)
    if value.is_multilabel:
        hint = (
            "Use pos_weight(counts) for positives against negatives, or pass counts.positives for class against class."
        )
        refuse(function, "counts", "single-label counts", "multi-label counts", hint)
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
    choice(function, "missing", missing, _ABSENT)

    n = value.counts.double()
    present = n > 0
    _check_absent(function, "counts", value, ~present, missing, "samples")
    raw = _scheme_weights(value, scheme, beta, present)
    weights = torch.zeros_like(n)
    weights[present] = raw[present] ** power
    _check_representable(weights[present], raw[present], torch.float64)
    if cap is not None:
        _cap(weights, cap, value)
    if missing == "max":
        weights[~present] = weights.max()
    if normalize is not None:
        share = (value.prior * weights).sum()
        weights = (
            weights / {"mean": weights.mean(), "sum": weights.sum(), "max": weights.max(), "prior": share}[normalize]
        )
    result = weights.float()
    _check_representable(result, weights, torch.float32)
    return result


def _scheme_weights(
    counts: ClassCounts, scheme: str | Callable[[Tensor], Any], beta: float | None, present: Tensor
) -> Tensor:
    """Weights of all classes before any option; zero for those without samples."""
    n = counts.counts.double()
    weights = torch.zeros_like(n)
    if not callable(scheme):
        if scheme == "effective_number":
            weights[present] = _effective_number(n[present], beta)
            _warn_saturated(n[present], weights[present], beta)
        elif scheme == "median_frequency" and counts.image_pixels is not None:
            weights[present] = _median_frequency(n[present] / counts.image_pixels[present])
        else:
            weights[present] = SCHEMES[scheme](n[present])
        return weights
    rule = f"a function that gives {len(n)} weights, finite and not negative, one of them positive"
    given = scheme(n.clone())
    try:
        found = torch.as_tensor(given).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        refuse("class_weights", "scheme", rule, f"one that gives {type(given).__name__}", error=TypeError)
    if found.shape != n.shape:
        refuse("class_weights", "scheme", rule, f"one that gives shape {tuple(found.shape)}")
    bad = present & ~(found.isfinite() & (found >= 0))
    if bad.any():
        at = int(bad.nonzero()[0])
        refuse("class_weights", "scheme", rule, f"one that gives {found[at].item()} for class {counts.classes[at]!r}")
    if not (found[present] > 0).any():
        refuse("class_weights", "scheme", rule, "one that gives only zeros")
    weights[present] = found[present]
    return weights


def _effective_number(n: Tensor, beta: float | None) -> Tensor:
    """(1−β)/(1−βⁿ), through expm1 and log1p: with β = (N−1)/N, 1 − β keeps no digits for large N."""
    gap = 1 / n.sum() if beta is None else n.new_tensor(1 - beta)
    return gap / -torch.expm1(n * torch.log1p(-gap))


def _warn_saturated(n: Tensor, weights: Tensor, beta: float | None) -> None:
    if beta is not None and n.max() >= 2 * n.min() and weights.max() < _SATURATED * weights.min():
        spread = 100 * float(weights.max() / weights.min() - 1)
        warnings.warn(
            f"class_weights: 'effective_number' with beta={beta} is saturated: the counts differ by a factor of "
            f"{float(n.max() / n.min()):,.4g}, the weights by {spread:.2g} %. Choose beta nearer to 1, or None.",
            UserWarning,
            stacklevel=4,
        )


def _cap(weights: Tensor, cap: float, counts: ClassCounts) -> None:
    limit = cap * weights[weights > 0].min()
    over = weights > limit * (1 + 1e-12)  # a ratio that equals the cap but for rounding is not over it
    if over.any():
        names = _names(counts, over)
        ratio = float(weights.max() / weights[weights > 0].min())
        weights[over] = limit
        warnings.warn(
            f"class_weights: cap={cap:g} lowered the weight of {names}: the largest was {ratio:,.4g} times the "
            "smallest.",
            UserWarning,
            stacklevel=3,
        )


def pos_weight(counts: Any, *, positive: Any = None, missing: str = "raise") -> Tensor:
    r"""Negatives per positive: the ``pos_weight`` that makes both answers of a binary question weigh the same.

    For ``BCEWithLogitsLoss``. The inverse, positives / negatives, is a common mistake. Probabilities trained with it
    are too high by these odds: p becomes p / (p + W(1 − p)) to be right again.

    Equals ``counts.negatives / counts.positives``.

    Args:
        counts: Multi-label :class:`ClassCounts`; or counts of two classes: :class:`ClassCounts`, or whole numbers
            ``(2,)``, negatives first.
        positive: Which of two labels is the positive one. ``None`` takes the larger: 1 of 0 and 1, True. Strings
            have no larger one, and need this.
        missing: For classes without positives: ``"raise"``, or a weight of ``"zero"``, or the ``"max"`` of the others.
            A class without negatives would have a weight of 0 and never a loss: it is refused under ``"raise"`` too.

    Returns: float32 tensor: ``(C,)`` for multi-label counts, ``(1,)`` for two classes.

    Raises: TypeError, ValueError: neither multi-label nor two classes, a class without positives or negatives.

    Example:
        >>> pos_weight([300, 100])
        tensor([3.])
        >>> pos_weight(ClassCounts(["cat", "dog"], [20, 5], negatives=[80, 95]))
        tensor([ 4., 19.])
    """
    function = "pos_weight"
    choice(function, "missing", missing, _ABSENT)
    value = as_class_counts(counts, function=function)
    if value.is_multilabel:
        if positive is not None:
            refuse(
                function, "positive", "None for multi-label counts", positive, "Each class is a question of its own."
            )
        positives, negatives = value.positives.double(), value.negatives.double()
    else:
        if value.num_classes != 2:
            hint = "For softmax over several classes use class_weights(counts)."
            rule = "multi-label counts or those of two classes"
            refuse(function, "counts", rule, f"{value.num_classes} class" + "es" * (value.num_classes > 1), hint)
        order = _negative_first(value, positive)
        negatives, positives = value.counts.double()[order].split(1)
        value = ClassCounts([value.classes[order[1]]], positives, negatives=negatives)
    _check_absent(function, "counts", value, positives == 0, missing, "positives")
    _check_absent(function, "counts", value, negatives == 0, missing, "negatives")
    weights = torch.where(positives > 0, negatives / positives, torch.zeros_like(positives))
    if missing == "max":
        weights[positives == 0] = weights.max()
    return weights.float()


def _negative_first(counts: ClassCounts, positive: Any) -> list[int]:
    """Where the negative and the positive one of two classes stand."""
    classes = list(counts.classes)
    if positive is None and not isinstance(classes[0], str):
        return sorted(range(2), key=classes.__getitem__)
    if positive not in classes or type(positive) is not type(classes[0]):
        rule = f"one of the labels {classes[0]!r} and {classes[1]!r}"
        refuse("pos_weight", "positive", rule, None if positive is None else repr(positive),
               "The alphabet does not know which one is meant." if positive is None else "")  # fmt: skip
    at = classes.index(positive)
    return [1 - at, at]


def sample_weights(labels: Any, weight: Any) -> Tensor:
    r"""One sampling weight per row, from one per class.

    A sampler takes a weight for every row. Given one per class instead, PyTorch's draws only the first C rows and does
    not say so. Use such weights for the sampler or in the loss, never both: the imbalance would be corrected twice.

    Equals ``weight[labels]``.

    Args:
        labels: One label per row, ``(N,)``: a tensor, array, sequence or Series of int, str, bool or whole float.
        weight: One weight per class, finite, zero or more: a 1-d tensor, array or sequence ``(C,)`` for integer labels
            in ``[0, C)``; a mapping from label to weight, for any labels; or single-label :class:`ClassCounts`, which
            stands for 1 / share and so gives every class the same share of the draws.

    Returns: float64 tensor ``(N,)`` on the CPU. Its scale does not matter to a sampler.

    Raises: IndexError: a label without a weight. TypeError, ValueError: other arguments than these.

    Example:
        >>> sample_weights([0, 0, 1, 0], [1.0, 3.0])
        tensor([1., 1., 3., 1.], dtype=torch.float64)
        >>> sample_weights(["cat", "dog", "cat", "cat"], {"cat": 1, "dog": 3})
        tensor([1., 3., 1., 1.], dtype=torch.float64)
    """
    distinct, index = index_labels(labels, function="sample_weights")
    of_label = _weight_of_label(weight, strings=any(isinstance(label, str) for label in distinct))
    table = np.zeros(len(distinct))
    for entry in np.flatnonzero(np.bincount(index, minlength=len(distinct))):
        label = distinct[entry]
        if label not in of_label:
            row, some = int((index == entry).argmax()), ", ".join(repr(known) for known in list(of_label)[:10])
            hint = f"There are weights for {some or 'no label'}" + (", ..." if len(of_label) > 10 else "") + "."
            rule = "labels that have a weight"
            refuse("sample_weights", "labels", rule, f"{label!r} at position {row}", hint, error=IndexError)
        table[entry] = of_label[label]
    return torch.from_numpy(table[index])


def _weight_of_label(weight: Any, strings: bool) -> Mapping[Any, float]:
    function, rule = "sample_weights", "one weight per class, finite and not negative"
    if isinstance(weight, ClassCounts):
        if weight.is_multilabel:
            refuse(function, "weight", "weights, or single-label counts", "multi-label counts")
        pairs = zip(weight.classes, weight.counts.tolist(), strict=True)
        return {label: weight.total / count for label, count in pairs if count}
    labels: list[Any] = []
    values: Any = weight
    if isinstance(weight, Mapping):
        labels, values = list(weight), list(weight.values())
    else:
        if isinstance(weight, str) or not (isinstance(weight, Sequence | Tensor) or hasattr(weight, "__array__")):
            wanted = f"{rule}, a mapping from label to weight, or ClassCounts"
            refuse(function, "weight", wanted, describe(weight), error=TypeError)
        if strings:
            hint = "For example dict(zip(counts.classes, class_weights(counts).tolist()))."
            wanted = "a mapping or ClassCounts where labels are strings"
            refuse(function, "weight", wanted, weight, hint, error=TypeError)
        if isinstance(weight, Tensor):
            values = weight.detach().cpu().double()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        refuse(function, "weight", rule, weight, error=TypeError)
    if array.ndim != 1:
        refuse(function, "weight", "one weight per class, (C,)", weight)
    labels = labels or list(range(len(array)))
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        refuse(function, "weight", rule, f"{array[bad[0]]} for class {labels[bad[0]]!r}")
    return dict(zip(labels, array.tolist(), strict=True))


def _check_absent(function: str, argument: str, counts: ClassCounts, absent: Tensor, missing: str, what: str) -> None:
    if not absent.any():
        return
    if absent.all() and what != "negatives":
        refuse(function, argument, f"counts with {what}", "none in any class")
    if missing == "raise":
        hint = "Choose missing='zero' or missing='max', or leave such classes out."
        if counts.num_classes > 10 and counts.counts.max() < counts.num_classes:
            hint = "These look like labels, not counts: count them by count_classes(labels)."
        refuse(function, argument, f"counts with {what} in every class", f"none for {_names(counts, absent)}", hint)


def _check_representable(found: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    if not bool(found.isfinite().all()) or bool(((found == 0) & (exact > 0)).any()):
        name = str(dtype).removeprefix("torch.")
        hint = "Lower power, set a cap, or normalize."
        refuse("class_weights", "power", f"such that all weights fit into {name}", "weights that do not", hint)


def _names(counts: ClassCounts, chosen: Tensor) -> str:
    labels = [repr(counts.classes[index]) for index in chosen.nonzero().flatten().tolist()]
    text = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if labels[10:] else "")
    return f"class {text}" if len(labels) == 1 else f"classes {text}"
