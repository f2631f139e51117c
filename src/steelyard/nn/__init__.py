"""The losses as modules: PyTorch's names and constructors; class statistics are buffers, copied, never aliased.

Each calls the function of the same name in :mod:`steelyard.functional`.
"""

from steelyard.nn.deferred import DeferredReweighting
from steelyard.nn.likelihood import BCELoss, NLLLoss
from steelyard.nn.linear import LinearCrossEntropyLoss
from steelyard.nn.sigmoid import AsymmetricLoss, BCEWithLogitsLoss, SigmoidFocalLoss
from steelyard.nn.softmax import (
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
)

__all__ = [
    "AsymmetricLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BalancedSoftmaxLoss",
    "CrossEntropyLoss",
    "DeferredReweighting",
    "FocalLoss",
    "LDAMLoss",
    "LinearCrossEntropyLoss",
    "LogitAdjustedLoss",
    "NLLLoss",
    "SigmoidFocalLoss",
]
