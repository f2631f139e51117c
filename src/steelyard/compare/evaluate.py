"""Scores of predicted probabilities and decisions, and intervals for their means over splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from steelyard.posterior import brier_score, calibration_error

__all__ = ["METRICS", "Interval", "Metric", "corrected_interval", "prediction_scores"]


@dataclass(frozen=True)
class Metric:
    """One number of the report: what it is called, which way is better, and what it is measured in."""

    name: str
    label: str
    sign: int
    """+1 where more is better, −1 where less is."""
    unit: str
    meaning: str

    @property
    def title(self) -> str:
        """The label as the start of a sentence."""
        return self.label[0].upper() + self.label[1:]

    def better(self, difference: float) -> float:
        """The difference turned so that more is better."""
        return self.sign * difference


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("balanced_accuracy", "balanced accuracy", 1, "mean recall over classes", "each class counts alike"),
        Metric("macro_f1", "macro-F1", 1, "mean F1 over classes", "F1 of each class, counted alike"),
        Metric("average_precision", "average precision", 1, "mean over classes, one against the rest", "ranking only"),
        Metric("rarest_average_precision", "average precision, rarest", 1, "area under its precision–recall curve",
               "ranking of the rarest class only"),
        Metric("auroc", "AUROC", 1, "mean over classes, one against the rest",
               "chance that a row of the class is ranked above one of another; 0.5 knows nothing"),
        Metric("mcc", "Matthews correlation", 1, "−1 to 1", "of decisions and truth; 0 where either never varies"),
        Metric("accuracy", "accuracy", 1, "share of rows", "each row counts alike"),
        Metric("log_loss", "log loss", -1, "nats", "how good the probabilities are as they come out"),
        Metric("log_loss_posterior", "log loss, posterior", -1, "nats", "the same with the bend taken out"),
        Metric("brier", "Brier score", -1, "0 to 2, summed over classes", "squared error of the probabilities"),
        Metric("brier_posterior", "Brier score, posterior", -1, "0 to 2, summed over classes",
               "the same with the bend taken out"),
        Metric("calibration_error", "calibration error", -1, "a probability, mean over classes",
               "how far the probabilities are from what happens"),
        Metric("calibration_error_posterior", "calibration error, posterior", -1,
               "a probability, mean over classes", "the same with the bend taken out"),
    )
}  # fmt: skip


def prediction_scores(
    target: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray, posterior: np.ndarray, rarest: int
) -> dict[str, Any]:
    """Every metric of one set of rows, and ``recall``, one number per class.

    Args:
        target: Class numbers, ``(N,)``, each class present.
        probabilities: What the remedy says, float64, ``(N, C)``, rows add up to 1.
        decisions: Class numbers, ``(N,)``.
        posterior: The probabilities with the remedy's bend taken back out, ``(N, C)``.
        rarest: Number of the rarest class.
    """
    labels = np.arange(probabilities.shape[1])
    hits = np.eye(len(labels))[target]
    precision = [float(sk.average_precision_score(hits[:, c], probabilities[:, c])) for c in labels]
    return {
        "balanced_accuracy": float(sk.balanced_accuracy_score(target, decisions)),
        "macro_f1": float(sk.f1_score(target, decisions, labels=labels, average="macro", zero_division=0.0)),
        "average_precision": float(np.mean(precision)),
        "rarest_average_precision": precision[rarest],
        "auroc": float(np.mean([sk.roc_auc_score(hits[:, c], probabilities[:, c]) for c in labels])),
        "mcc": float(sk.matthews_corrcoef(target, decisions)),
        "accuracy": float(sk.accuracy_score(target, decisions)),
        **_honesty(target, probabilities, ""),
        **_honesty(target, posterior, "_posterior"),
        "recall": [
            float(r) for r in sk.recall_score(target, decisions, labels=labels, average=None, zero_division=0.0)
        ],
    }


def _honesty(target: np.ndarray, probabilities: np.ndarray, suffix: str) -> dict[str, float]:
    """What the probabilities themselves are worth, whatever is decided by them."""
    return {
        "log_loss" + suffix: float(sk.log_loss(target, probabilities, labels=np.arange(probabilities.shape[1]))),
        "brier" + suffix: brier_score(probabilities, target).score,
        "calibration_error" + suffix: calibration_error(probabilities, target, "classwise"),
    }


@dataclass(frozen=True)
class Interval:
    """A mean over splits with its interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is positive."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval is negative."""
        return self.high < 0

    def to_dict(self) -> dict[str, float]:
        """``mean``, ``low`` and ``high``."""
        return asdict(self)


def corrected_interval(values: Sequence[float], test_ratio: float, level: float = 0.95) -> Interval:
    r"""The mean of scores over resampled splits, with an interval that knows the splits share rows.

    Splits of one data set overlap, so their scores vary together and the plain t-interval is too narrow by a factor
    of two or more. The correction adds the ratio of test to training rows to the variance.

    Equals ``mean ± t(J − 1) · sqrt((1/J + test_ratio) · s²)`` with ``s²`` the sample variance of the ``J`` scores.

    Args:
        values: One score, or one paired difference, for each split; at least two.
        test_ratio: Rows tested per row learnt from; 0.25 for five folds.
        level: Coverage, in (0, 1).
    Returns: Mean and ends, in the unit of ``values``. The ends are not clipped to the range of the metric.

    Example:
        >>> found = corrected_interval([0.5, 0.6, 0.7], test_ratio=0.25)
        >>> round(found.low, 3), round(found.mean, 3), round(found.high, 3)
        (0.271, 0.6, 0.929)

    Source: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003, section 3; the
    same t-test as Bouckaert and Frank, PAKDD 2004, for repeated cross-validation. It is approximate: no unbiased
    variance exists.
    """
    scores = np.asarray(values, dtype=np.float64)
    mean = float(scores.mean())
    spread = float(scores.std(ddof=1)) * float(np.sqrt(1 / len(scores) + test_ratio))
    half = float(stats.t.ppf(0.5 + level / 2, len(scores) - 1)) * spread
    return Interval(mean, mean - half, mean + half)
