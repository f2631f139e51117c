"""Steelyard: classification on imbalanced data in PyTorch.

A steelyard is the balance on which a small sliding weight holds a load many times heavier. The library does that for
classes: it trains classifiers on imbalanced data.

``steelyard.nn`` and ``steelyard.functional`` stand in for PyTorch's modules and functions of the same names.
"""

from steelyard import distributed, functional, information, nn, posterior, samplers
from steelyard._errors import NotInvertibleError
from steelyard._version import __version__
from steelyard.config import show_config
from steelyard.counts import ClassCounts, count_classes, imbalance_ratio
from steelyard.explain import check, explain
from steelyard.weights import class_weights, pos_weight, sample_weights

__all__ = [
    "ClassCounts",
    "NotInvertibleError",
    "__version__",
    "check",
    "class_weights",
    "count_classes",
    "distributed",
    "explain",
    "functional",
    "imbalance_ratio",
    "information",
    "nn",
    "pos_weight",
    "posterior",
    "sample_weights",
    "samplers",
    "show_config",
]
