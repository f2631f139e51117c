"""Weights of classes to weights of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard.counts import ClassCounts
from steelyard.counts._index import index_labels
from steelyard.weights._unread import is_unread, widest

__all__ = ["sample_weights"]

_RULE = "one weight per class, finite and not negative"


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

    Returns: float64 tensor ``(N,)`` (float32 on Apple's devices), on the CPU; or on the GPU where both ``labels`` and
    ``weight`` are tensors, of which nothing is looked at then: a row whose label has no weight, or none that is finite
    and not negative, has NaN there, which a sampler refuses. Its scale does not matter to a sampler.

    Raises: IndexError: a label without a weight. TypeError, ValueError: other arguments than these.

    Example:
        >>> sample_weights([0, 0, 1, 0], [1.0, 3.0])
        tensor([1., 1., 3., 1.], dtype=torch.float64)
        >>> sample_weights(["cat", "dog", "cat", "cat"], {"cat": 1, "dog": 3})
        tensor([1., 3., 1., 1.], dtype=torch.float64)
    """
    if is_unread(labels) and is_unread(weight):
        return _unread(labels, weight)
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


def _unread(labels: Tensor, weight: Tensor) -> Tensor:
    """Of labels in ``[0, C)`` and weights that are not looked at."""
    function = "sample_weights"
    if labels.dim() != 1:
        refuse(function, "labels", "one label per row, (N,)", f"shape {tuple(labels.shape)}")
    if weight.dim() != 1 or not len(weight):
        refuse(function, "weight", _RULE + ", (C,)", weight)
    for name, tensor in (("labels", labels), ("weight", weight)):
        if tensor.is_complex():
            refuse(function, name, "real", tensor, error=TypeError)
    if labels.device != weight.device:
        refuse(function, "weight", f"on the device of 'labels', {labels.device}", f"one on {weight.device}")
    index = labels.long()
    known = (index >= 0) & (index < len(weight))
    if labels.is_floating_point():
        known = known & (index == labels.to(widest(labels.device)))
    of_row = weight.detach().to(widest(weight.device)).index_select(0, torch.where(known, index, 0))
    return torch.where(known & (of_row >= 0) & (of_row < math.inf), of_row, math.nan)


def _weight_of_label(weight: Any, strings: bool) -> Mapping[Any, float]:
    function, rule = "sample_weights", _RULE
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
