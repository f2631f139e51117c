"""Do the probabilities mean what they say? Reliability, calibration error, and the Brier score taken apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from steelyard._errors import choice, refuse
from steelyard.posterior._values import binary_labels, class_labels, count, probabilities

__all__ = ["Brier", "Reliability", "brier_score", "calibration_error", "reliability"]

Binning = Literal["equal_mass", "equal_width"]


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Reliability:
    """What was said beside what happened, bin by bin; empty bins are left out."""

    predicted: np.ndarray
    """Mean probability of the rows of a bin."""
    observed: np.ndarray
    """Share of them where it came true."""
    rows: np.ndarray
    """How many they are, int64."""

    @property
    def error(self) -> float:
        """Mean distance of the two, weighted by rows: the expected calibration error."""
        return float(np.abs(self.predicted - self.observed) @ self.rows / self.rows.sum())

    def to_dict(self) -> dict[str, list[float]]:
        """Plain values, ready for JSON."""
        return {name: values.tolist() for name, values in asdict(self).items()}


def reliability(probs: Any, labels: Any, *, kind: Binning = "equal_mass", bins: int = 15) -> Reliability:
    r"""Probabilities of one event beside how often it happened, in bins.

    Args:
        probs: Probabilities of the event, in [0, 1], ``(N,)``: one column of a classifier's.
        labels: Whether it happened, 0 and 1 or bools, ``(N,)``.
        kind: ``"equal_mass"``: bins of nearly equally many rows, equal probabilities together; right for rare events,
            whose probabilities crowd near 0. ``"equal_width"``: bins of the scale, closed below, the last one closed
            above as well.
        bins: How many at most.

    Returns: :class:`Reliability`.

    Raises: TypeError, ValueError: dtypes, shapes, values outside [0, 1], options. IndexError: a label that is no 0 or
    1.

    Example:
        >>> found = reliability([0.1, 0.1, 0.9, 1.0], [0, 1, 1, 1], kind="equal_width", bins=2)
        >>> found.predicted.tolist(), found.observed.tolist(), found.rows.tolist()
        ([0.1, 0.95], [0.5, 1.0], [2, 2])
    """
    p = _column("reliability", probs)
    return _binned("reliability", p, binary_labels("reliability", labels, p.shape), kind, bins)


def calibration_error(
    probs: Any, labels: Any, kind: Literal["equal_mass", "equal_width", "classwise"] = "equal_mass", *, bins: int = 15
) -> float:
    r"""How far probabilities are from what happens, on average.

    Equals ``Σ_b n_b/N · |mean p in b − share of hits in b|`` over bins b. With many classes it looks at the most
    probable one of each row; ``"classwise"`` at every class, each against the rest, and takes the mean: that is the one
    to read where classes are rare, since a most probable class seldom is. Few rows make it larger than it is: a perfect
    model has about ``0.8·Σ_b sqrt(p(1 − p)·n_b)/N``.

    Args:
        probs: Probabilities of classes ``(N, C)``, rows adding up to one, or of a yes ``(N,)``.
        labels: Class numbers, ``(N,)``; 0 and 1 for a yes.
        kind: ``"equal_mass"`` and ``"equal_width"`` as for :func:`reliability`; ``"classwise"`` has bins of equal mass.
        bins: How many at most.

    Returns: An error in [0, 1], a probability.

    Raises: TypeError, ValueError, IndexError: as :func:`reliability`.

    Example:
        >>> round(calibration_error([0.4] * 50, [1] + [0] * 49), 6)  # 40 % said, 2 % true
        0.38

    Source: Naeini et al., AAAI 2015 (equal width); Nixon et al., CVPR workshops 2019, arXiv:1904.01685 (equal mass);
    Kull et al., NeurIPS 2019, arXiv:1910.12656 (classwise, there with equal widths).
    """
    name = "calibration_error"
    choice(name, "kind", kind, ("equal_mass", "equal_width", "classwise"))
    p = probabilities(name, "probs", probs)
    if p.ndim == 1:
        columns = [(p, binary_labels(name, labels, p.shape))]
    else:
        y = class_labels(name, labels, *p.shape)
        if kind == "classwise":
            columns = [(p[:, c], y == c) for c in range(p.shape[1])]
        else:
            columns = [(p.max(axis=1), p.argmax(axis=1) == y)]
    binning: Binning = "equal_width" if kind == "equal_width" else "equal_mass"
    return float(np.mean([_binned(name, said, hits, binning, bins).error for said, hits in columns]))


@dataclass(frozen=True)
class Brier:
    """The Brier score and what it is made of: ``score = reliability − resolution + uncertainty + within``."""

    score: float
    reliability: float
    """Squared distance of what is said from what happens, bin by bin: 0 is calibrated."""
    resolution: float
    """How far the bins tell rows apart: more is better."""
    uncertainty: float
    """What the class shares alone would score."""
    within: float
    """What binning leaves out: how probabilities vary within a bin, and whether rightly so."""


def brier_score(probs: Any, labels: Any, *, bins: int = 15) -> Brier:
    r"""Mean squared error of the probabilities, taken apart into calibration, resolution and uncertainty.

    Equals ``((probs - one_hot) ** 2).sum(1).mean()`` for classes, in [0, 2]; ``((probs - labels) ** 2).mean()`` for a
    yes, in [0, 1].

    Args:
        probs: Probabilities of classes ``(N, C)``, rows adding up to one, or of a yes ``(N,)``.
        labels: Class numbers, ``(N,)``; 0 and 1 for a yes.
        bins: Bins of equal mass for the parts; the score itself has none.

    Returns: :class:`Brier`; its parts add up to the score.

    Raises: TypeError, ValueError, IndexError: as :func:`reliability`.

    Example:
        >>> found = brier_score([0.4] * 50, [1] + [0] * 49)
        >>> round(found.score, 4), round(found.reliability, 4), round(found.uncertainty, 4), found.resolution
        (0.164, 0.1444, 0.0196, 0.0)

    Source: Murphy, Journal of Applied Meteorology 12, 1973; the part within bins: Stephenson et al., Weather and
    Forecasting 23, 2008.
    """
    name = "brier_score"
    p = probabilities(name, "probs", probs)
    if p.ndim == 1:
        columns = [(p, binary_labels(name, labels, p.shape))]
    else:
        y = class_labels(name, labels, *p.shape)
        columns = [(p[:, c], y == c) for c in range(p.shape[1])]
    parts = np.zeros(5)
    for said, hits in columns:
        found, share = _binned(name, said, hits, "equal_mass", bins), float(hits.mean())
        weight = found.rows / len(said)
        bent = float(weight @ (found.predicted - found.observed) ** 2)
        told = float(weight @ (found.observed - share) ** 2)
        score, spread = float(((said - hits) ** 2).mean()), share * (1.0 - share)
        parts += (score, bent, told, spread, score - (bent - told + spread))
    return Brier(*(float(part) for part in parts))


def _column(name: str, probs: Any) -> np.ndarray:
    p = probabilities(name, "probs", probs)
    if p.ndim == 2:
        refuse(name, "probs", "of one event, (N,)", f"shape {p.shape}", "Pass the column of a class, probs[:, c].")
    return p


def _binned(name: str, p: np.ndarray, hits: np.ndarray, kind: Binning, bins: int) -> Reliability:
    choice(name, "kind", kind, ("equal_mass", "equal_width"))
    most = count(name, "bins", bins, 1)
    if kind == "equal_width":
        place = np.minimum((p * most).astype(np.int64), most - 1)  # p = 1 has no bin of its own
    else:
        # By the middle rank of equals, so that rows that cannot be told apart share a bin, in whatever order.
        ordered = np.sort(p)
        first, after = np.searchsorted(ordered, p, side="left"), np.searchsorted(ordered, p, side="right")
        place = (first + after - 1) * most // (2 * len(p))
    rows = np.bincount(place, minlength=most)
    held = rows > 0
    predicted, observed = (np.bincount(place, v, minlength=most)[held] / rows[held] for v in (p, hits))
    return Reliability(predicted, observed, rows[held])
