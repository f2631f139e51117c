"""Calibration by any rising curve, with scikit-learn's isotonic regression."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Self

import numpy as np

from steelyard._errors import refuse
from steelyard.posterior._values import as_given, binary_labels, class_labels, probabilities

__all__ = ["IsotonicCalibration"]


class IsotonicCalibration:
    r"""Each class's probability, bent by the rising step function that fits held-out labels best.

    For miscalibration of a shape that no temperature mends. It wants some hundred rows of every class, makes ties, and
    may say 0 and 1, whose log loss is infinite where they are wrong.

    Equals ``sklearn.isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")`` for each class against the
    rest, rows renormalised (a row of zeros: all classes alike).

    Example:
        >>> said, labels = np.repeat([0.2, 0.8], 100), np.r_[np.zeros(90), np.ones(10), np.zeros(60), np.ones(40)]
        >>> IsotonicCalibration().fit(said, labels).predict_proba([0.2, 0.8]).tolist()
        [0.1, 0.4]

    Source: Zadrozny and Elkan, KDD 2002.
    """

    def __init__(self) -> None:
        self.curves: list[Any] | None = None
        self._elements = False

    def fit(self, probs: Any, labels: Any) -> Self:
        """Fit to held-out rows: probabilities ``(N, C)`` and class numbers, or ``(N,)`` and 0 and 1.

        Raises: ImportError: scikit-learn is not installed. TypeError, ValueError, IndexError: as
            :meth:`TemperatureScaling.fit`.
        """
        if find_spec("sklearn") is None:
            raise ImportError(
                "IsotonicCalibration needs scikit-learn, which is not installed: pip install 'steelyard[cli]'"
            )
        from sklearn.isotonic import IsotonicRegression

        name = "IsotonicCalibration.fit"
        p = probabilities(name, "probs", probs)
        if p.ndim == 1:
            columns, hits = p[:, None], binary_labels(name, labels, p.shape)[:, None]
        else:
            columns, hits = p, np.eye(p.shape[1])[class_labels(name, labels, len(p), p.shape[1])]
        self._elements = p.ndim == 1
        self.curves = [
            IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(columns[:, c], hits[:, c])
            for c in range(columns.shape[1])
        ]
        return self

    def predict_proba(self, probs: Any) -> Any:
        """Calibrated probabilities, shape of ``probs``."""
        name = "IsotonicCalibration.predict_proba"
        if self.curves is None:
            raise RuntimeError(f"{name}: 'self' must be fitted; got one that is not. Call fit(probs, labels) first.")
        p = probabilities(name, "probs", probs)
        if (p.ndim == 1) != self._elements or (p.ndim == 2 and p.shape[1] != len(self.curves)):
            refuse(name, "probs", "of the classes that fit saw", f"shape {p.shape}")
        if self._elements:
            return as_given(probs, np.asarray(self.curves[0].predict(p)))
        bent = np.stack([curve.predict(p[:, c]) for c, curve in enumerate(self.curves)], axis=1)
        total = bent.sum(axis=1, keepdims=True)
        bent = np.where(total > 0, bent / np.where(total > 0, total, 1.0), 1.0 / len(self.curves))
        return as_given(probs, bent)

    transform = predict_proba
