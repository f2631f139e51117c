"""Labels, from anywhere, to :class:`ClassCounts`.

``_value`` holds the frozen value, ``_check`` what may name and count a class, ``_table`` the printed form.
"""

from __future__ import annotations

from steelyard.counts._check import Label
from steelyard.counts._value import ClassCounts, as_class_counts, imbalance_ratio

__all__ = ["ClassCounts", "Label", "as_class_counts", "imbalance_ratio"]
