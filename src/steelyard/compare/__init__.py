"""Which remedy for imbalance does this data want? Train each, compare them fairly, and say so.

:func:`compare` is the whole; :func:`inspect` looks at the data without training. The other names are its parts, for the
program that a comparison prints.
"""

from steelyard.compare import _needs as _needs
from steelyard.compare.comparison import Comparison, compare
from steelyard.compare.counted import CountInspection, inspect_counts, is_counted
from steelyard.compare.evaluate import METRICS, corrected_interval
from steelyard.compare.inspection import Inspection, inspect
from steelyard.compare.read import InputError
from steelyard.compare.recommend import Recommendation
from steelyard.compare.splits import Split, make_splits
from steelyard.compare.strategies import STRATEGIES, Strategy
from steelyard.compare.table import Table, load
from steelyard.compare.train import network, preprocessor

__all__ = [
    "METRICS",
    "STRATEGIES",
    "Comparison",
    "CountInspection",
    "InputError",
    "Inspection",
    "Recommendation",
    "Split",
    "Strategy",
    "Table",
    "compare",
    "corrected_interval",
    "inspect",
    "inspect_counts",
    "is_counted",
    "load",
    "make_splits",
    "network",
    "preprocessor",
]
