"""What callers give as counts: the value itself, or bare numbers."""

from __future__ import annotations

from typing import Any

from steelyard._errors import refuse
from steelyard.counts._check import whole_numbers
from steelyard.counts._value import ClassCounts

__all__ = ["as_class_counts", "imbalance_ratio"]


def as_class_counts(counts: Any, *, function: str) -> ClassCounts:
    """What a caller gave as ``counts``, as :class:`ClassCounts`; its errors speak as ``function``.

    A 1-d sequence, array or tensor of counts stands for the classes ``0 .. C−1``. Zero counts pass: the caller decides.
    """
    if isinstance(counts, ClassCounts):
        if not counts.classes:
            refuse(function, "counts", "counts of at least one class", "the count of nothing")
        return counts
    array = whole_numbers(function, "counts", counts)
    return ClassCounts(range(len(array)), array)


def imbalance_ratio(counts: Any) -> float:
    r"""How many samples the largest class has for each sample of the smallest.

    The one number to look at first: below about 10 : 1 most losses cope unaided.

    Equals ``max(n) / min(n)``; infinite if a class has no samples, NaN if none has. For multi-label counts, where every
    class is a yes/no question of its own, it is that of the worst question, between its positives and its negatives.

    Args:
        counts: :class:`ClassCounts`, or samples per class, whole, zero or more, ``(C,)``.

    Returns: A float of at least 1.

    Raises: TypeError, ValueError: ``counts`` is neither.

    Example:
        >>> imbalance_ratio([100000, 100, 10])
        10000.0
    """
    return as_class_counts(counts, function="imbalance_ratio").imbalance_ratio
