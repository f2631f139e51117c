"""Labels, from anywhere, to :class:`ClassCounts`.

``_count`` picks the reader: ``_labels`` for what is in memory, ``_frames`` for columns of frames, ``_files`` for files.
Each gives a ``_tally`` of distinct labels, which is checked and becomes the frozen ``_value``; ``_check`` says what may
name and count a class, ``_table`` prints.
"""

from __future__ import annotations

from steelyard.counts._check import LARGEST_TOTAL, Label
from steelyard.counts._count import count_classes
from steelyard.counts._given import as_class_counts, imbalance_ratio
from steelyard.counts._value import ClassCounts

__all__ = ["LARGEST_TOTAL", "ClassCounts", "Label", "as_class_counts", "count_classes", "imbalance_ratio"]
