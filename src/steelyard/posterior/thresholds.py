"""A cut-off tuned on held-out rows, with an interval that says how far to trust it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from steelyard._errors import refuse
from steelyard.posterior._score import Metric, Score, score_of
from steelyard.posterior._search import best_cut, best_multipliers, decide, starts
from steelyard.posterior._values import (
    as_given,
    binary_labels,
    class_labels,
    count,
    level_of,
    probabilities,
    real,
)

__all__ = ["TunedThreshold", "tune_threshold"]

FEWEST = 30
"""Positives, or rows of a class, below which a tuned cut-off is mostly chance."""


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class TunedThreshold:
    """A cut-off, or one for each class, and what it reached where it was tuned."""

    kind: Literal["binary", "multilabel", "multiclass"]
    metric: str
    threshold: float | np.ndarray
    """Decide yes for scores at or above it. For several labels one each, ``(C,)``. For classes that exclude one
    another, ``(C,)``, adding up to one: the class whose probability is the largest multiple of its cut-off is decided;
    of two classes, class 1 is decided where its probability is above its cut-off."""
    value: float | np.ndarray
    """The metric, or the mean cost, on these rows; for several labels one each. It is the best of many, so it flatters
    a little: judge on other rows."""
    rows: np.ndarray
    """Positives, or rows of each class."""
    low: float | np.ndarray | None = None
    """Interval of the cut-off, tuned again on each bootstrap sample; None without."""
    high: float | np.ndarray | None = None
    value_low: float | np.ndarray | None = None
    """Interval of ``value`` at this cut-off, on the same samples."""
    value_high: float | np.ndarray | None = None

    @property
    def multipliers(self) -> np.ndarray:
        """What to multiply the probabilities of each class by before the largest decides: geometric mean 1."""
        if self.kind != "multiclass":
            refuse("TunedThreshold.multipliers", "kind", "'multiclass'", self.kind)
        inverse = 1.0 / np.asarray(self.threshold)
        return np.asarray(inverse / np.exp(np.log(inverse).mean()))

    def predict(self, scores: Any) -> Any:
        """Decisions, int64: 0 and 1 in the shape of ``scores``, or class numbers ``(N,)``."""
        name = "TunedThreshold.predict"
        if self.kind == "multiclass":
            p = probabilities(name, "scores", scores, elements=False)
            if p.shape[1] != len(self.rows):
                refuse(name, "scores", f"of {len(self.rows)} classes", f"{p.shape[1]}")
            return as_given(scores, decide(np.maximum(p, 1e-100), 1.0 / np.asarray(self.threshold)))
        s = real(name, "scores", scores, "scores")
        if self.kind == "multilabel" and (s.ndim != 2 or s.shape[1] != len(self.rows)):
            refuse(name, "scores", f"of shape (N, {len(self.rows)})", f"shape {s.shape}")
        return as_given(scores, (s >= self.threshold).astype(np.int64))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; infinite cut-offs (all rows, or none) as they are."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def tune_threshold(
    scores: Any,
    labels: Any,
    metric: str | Metric | None = None,
    *,
    cost: Any = None,
    bootstrap: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> TunedThreshold:
    r"""The cut-off that scores best on held-out rows, of all there are.

    The most dependable remedy for imbalance, and the cheapest: the network stays as it is. Where costs are known and
    probabilities honest, :func:`bayes_decision` needs no tuning at all.

    Every cut between two rows is tried, by sorting once: O(n log n), no grid. For classes that exclude one another it
    climbs, one class at a time, from equal cut-offs and from the class shares, to a point that no change of one class
    improves; for two classes that is the best of all, for more it need not be.

    Args:
        scores: Held-out rows. Binary: any scores, ``(N,)``. Several labels at once: any scores, ``(N, C)``. Classes
            that exclude one another: probabilities ``(N, C)``, rows adding up to one.
        labels: 0 and 1 in the shape of the scores, or class numbers ``(N,)``. Each class must occur.
        metric: ``"balanced_accuracy"`` (the default), ``"macro_f1"``, ``"f1"`` (of the positives), ``"mcc"``,
            ``"accuracy"``; or a function of counts ``(hits, predicted, actual)`` with the classes on the last axis (0:
            no, 1: yes), which gives a number for each cut, more being better, NaN where it has none.
        cost: In place of a metric: ``cost[c, d]``, what decision d costs where class c is true, ``(C, C)``; ``(2, 2)``
            for yes/no.
        bootstrap: Samples for the intervals, drawn with replacement from the rows of each class; 0 for none. On each
            the cut-off is tuned again (for several classes, climbing from the one found), so that it shows how much of
            the cut-off is chance.
        level: Coverage of the intervals, in (0, 1).
        seed: Of the bootstrap; no global generator is touched.

    Returns: :class:`TunedThreshold`.

    Raises: TypeError, ValueError: dtypes, shapes, options, a class without rows. IndexError: a label out of range.

    Warns: UserWarning: fewer than 30 positives (or negatives, or rows of some class).

    Example:
        >>> scores = np.linspace(0.0, 0.5, 1000)
        >>> labels = (scores > 0.3).astype(int)
        >>> found = tune_threshold(scores, labels)
        >>> round(found.threshold, 3), found.value, found.predict([0.2, 0.4]).tolist()
        (0.3, 1.0, [0, 1])

    Source: all cut-offs by one sort: Fawcett, Pattern Recognition Letters 27, 2006, algorithm 1; percentile intervals:
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, §13.3.
    """
    name = "tune_threshold"
    samples, coverage = count(name, "bootstrap", bootstrap, 0), level_of(name, level)
    rng = np.random.default_rng(count(name, "seed", seed, 0))
    s = real(name, "scores", scores, "scores of shape (N,) or (N, C)")
    if s.ndim not in (1, 2) or s.size == 0:
        refuse(name, "scores", "of shape (N,) or (N, C), at least one row", f"shape {s.shape}")
    shape = tuple(getattr(labels, "shape", None) or np.shape(labels))
    if s.ndim == 1 or shape == s.shape:
        y = binary_labels(name, labels, s.shape)
        score = score_of(name, metric, cost, 2)
        columns = [(s, y)] if s.ndim == 1 else [(s[:, c], y[:, c]) for c in range(s.shape[1])]
        positives = np.array([int(hits.sum()) for _, hits in columns])
        _check_both(name, positives, len(s))
        found = [_binary(said, hits, score, samples, coverage, rng) for said, hits in columns]
        table = np.array(found)
        if s.ndim == 1:
            threshold, value, *ends = (float(v) for v in table[0])
            given: list[Any] = ends if samples else [None] * 4
            return TunedThreshold("binary", score.name, threshold, value, positives, *given)
        columnwise: list[Any] = list(table[:, 2:].T) if samples else [None] * 4
        return TunedThreshold("multilabel", score.name, table[:, 0], table[:, 1], positives, *columnwise)
    p = probabilities(name, "scores", scores, elements=False)
    y = class_labels(name, labels, *p.shape)
    rows = np.bincount(y, minlength=p.shape[1])
    if (rows == 0).any():
        refuse(name, "labels", "of every class", f"none of class {int((rows == 0).argmax())}")
    _warn_of_few(name, rows, "class {c} has {n}")
    score = score_of(name, metric, cost, p.shape[1])
    return _multiclass(p, y, rows, score, samples, coverage, rng)


def _binary(
    scores: np.ndarray, labels: np.ndarray, score: Score, samples: int, level: float, rng: np.random.Generator
) -> list[float]:
    """Cut-off, value, and the ends of their intervals (NaN without a bootstrap)."""
    order = np.argsort(-scores, kind="stable")  # once: sorting what is in order costs next to nothing
    scores, labels = scores[order], labels[order]
    ones = np.ones(len(scores))
    threshold, value = best_cut(scores, labels, score, ones)
    if samples == 0:
        return [threshold, score.sign * value] + [np.nan] * 4
    decisions = (scores >= threshold).astype(np.int64)
    again, values = [], []
    for _ in range(samples):
        weight = _drawn(labels, 2, rng)
        drawn = weight > 0
        again.append(best_cut(scores[drawn], labels[drawn], score, weight[drawn])[0])
        values.append(score.sign * score.of(decisions, labels, weight, 2))
    return [threshold, score.sign * value, *_ends(np.array(again), level), *_ends(np.array(values), level)]


def _multiclass(
    p: np.ndarray, y: np.ndarray, rows: np.ndarray, score: Score, samples: int, level: float, rng: np.random.Generator
) -> TunedThreshold:
    classes = p.shape[1]
    multipliers, value = best_multipliers(p, y, score, np.ones(len(p)), starts(y, classes))
    threshold = _as_threshold(multipliers)
    found = TunedThreshold("multiclass", score.name, threshold, score.sign * value, rows)
    if samples == 0:
        return found
    decisions = decide(np.maximum(p, 1e-100), multipliers)
    again, values = [], []
    for _ in range(samples):
        weight = _drawn(y, classes, rng)
        drawn = weight > 0
        tuned = best_multipliers(p[drawn], y[drawn], score, weight[drawn], [multipliers])[0]
        again.append(_as_threshold(tuned))
        values.append(score.sign * score.of(decisions, y, weight, classes))
    (low, high), (value_low, value_high) = _ends(np.array(again), level), _ends(np.array(values), level)
    return TunedThreshold(
        "multiclass", score.name, threshold, found.value, rows, low, high, float(value_low), float(value_high)
    )


def _as_threshold(multipliers: np.ndarray) -> np.ndarray:
    """``p·m`` is largest where ``p/t`` is; adding up to one, t is the cut-off itself where there are two classes."""
    inverse = 1.0 / multipliers
    return np.asarray(inverse / inverse.sum())


def _drawn(labels: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """How often each row is drawn where every class draws as many rows as it has, with replacement."""
    weight = np.zeros(len(labels))
    for c in range(classes):
        members = np.flatnonzero(labels == c)
        weight[members] = np.bincount(rng.integers(len(members), size=len(members)), minlength=len(members))
    return weight


def _ends(values: np.ndarray, level: float) -> tuple[Any, Any]:
    # By order and not by interpolation: an infinite cut-off may be among them.
    ordered = np.sort(values, axis=0)
    low, high = (max(math.ceil(q * len(values)) - 1, 0) for q in ((1.0 - level) / 2, (1.0 + level) / 2))
    return ordered[low], ordered[high]


def _check_both(name: str, positives: np.ndarray, rows: int) -> None:
    one_sided = (positives == 0) | (positives == rows)
    if one_sided.any():
        column = int(one_sided.argmax())
        where = f" in column {column}" if len(positives) > 1 else ""
        refuse(name, "labels", "of both kinds", f"only {int(positives[column] > 0)}{where}")
    _warn_of_few(name, positives, "column {c} has {n}" if len(positives) > 1 else "there are {n}", "positives")
    _warn_of_few(name, rows - positives, "column {c} has {n}" if len(positives) > 1 else "there are {n}", "negatives")


def _warn_of_few(name: str, rows: np.ndarray, words: str, what: str = "rows of each class") -> None:
    fewest = int(rows.min())
    if fewest < FEWEST:
        found = words.format(c=int(rows.argmin()), n=fewest)
        hint = "Its cut-off is mostly chance: look at the interval, or choose it by costs (bayes_decision)"
        warnings.warn(f"{name}: tuning wants {FEWEST} {what}; {found}. {hint}.", UserWarning, stacklevel=4)
