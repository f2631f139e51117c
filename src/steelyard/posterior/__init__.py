"""Honest probabilities, and what to do with them: other priors, calibration, measures of both, decisions.

:func:`posterior` takes back what a loss or a sampler bent. Where that is not enough (an over-fitted network, a loss
without an inverse), calibrate on held-out rows; then measure, and decide by costs or by a tuned cut-off.

Arguments may be tensors, arrays or lists; results are tensors where a tensor was given, and arrays otherwise.
"""

from steelyard._errors import NotInvertibleError
from steelyard.functional.inverse import sigmoid_posterior, softmax_posterior
from steelyard.posterior.decide import bayes_decision
from steelyard.posterior.isotonic import IsotonicCalibration
from steelyard.posterior.measure import Brier, Reliability, brier_score, calibration_error, reliability
from steelyard.posterior.plot import reliability_plot
from steelyard.posterior.prior import estimate_prior, shift_prior
from steelyard.posterior.scaling import TemperatureScaling, VectorScaling
from steelyard.posterior.thresholds import TunedThreshold, tune_threshold
from steelyard.posterior.undo import equivalent_threshold, posterior

__all__ = [
    "Brier",
    "IsotonicCalibration",
    "NotInvertibleError",
    "Reliability",
    "TemperatureScaling",
    "TunedThreshold",
    "VectorScaling",
    "bayes_decision",
    "brier_score",
    "calibration_error",
    "equivalent_threshold",
    "estimate_prior",
    "posterior",
    "reliability",
    "reliability_plot",
    "shift_prior",
    "sigmoid_posterior",
    "softmax_posterior",
    "tune_threshold",
]
