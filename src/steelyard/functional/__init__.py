"""The losses as functions: PyTorch's names, arguments, order and defaults; what is new is keyword-only.

Each function is a setting of one of the two formulas in :mod:`steelyard.ops`, and says which.
"""

from steelyard.functional.likelihood import binary_cross_entropy, nll_loss
from steelyard.functional.linear import linear_cross_entropy
from steelyard.functional.sigmoid import asymmetric_loss, binary_cross_entropy_with_logits, sigmoid_focal_loss
from steelyard.functional.softmax import (
    balanced_softmax_loss,
    cross_entropy,
    focal_loss,
    ldam_loss,
    logit_adjusted_loss,
)

__all__ = [
    "asymmetric_loss",
    "balanced_softmax_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "focal_loss",
    "ldam_loss",
    "linear_cross_entropy",
    "logit_adjusted_loss",
    "nll_loss",
    "sigmoid_focal_loss",
]
