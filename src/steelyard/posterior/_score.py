"""What a cut-off is tuned for: a metric of counts, or costs, at every cut of a sorted list of rows at once.

Each step of such a list moves one row from the class that held it to class c, so that cumulative sums give the counts
at every step. Rows carry weights, whole numbers in a bootstrap: how often each was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from steelyard._errors import choice, refuse
from steelyard.posterior.decide import cost_matrix

__all__ = ["METRICS", "Costs", "Counts", "Score", "score_of"]

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
"""(hits, predicted, actual) → score. Counts per class on the last axis: rows decided rightly, decided so, that are so;
``actual`` is ``(C,)``, the others ``(cuts, C)``, and the score ``(cuts,)``. More is better."""


def balanced_accuracy(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Mean recall over the classes."""
    return np.asarray((hits / np.maximum(actual, 1)).mean(axis=-1))


def accuracy(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Share of rows decided rightly."""
    return np.asarray(hits.sum(axis=-1) / actual.sum())


def macro_f1(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes; 0 for a class that neither is nor is said."""
    return np.asarray((2 * hits / np.maximum(predicted + actual, 1)).mean(axis=-1))


def f1(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """F1 of class 1 of two."""
    return np.asarray(2 * hits[..., 1] / np.maximum(predicted[..., 1] + actual[..., 1], 1))


def mcc(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Correlation of decisions and classes, for any number of classes; 0 where every decision is the same."""
    rows = actual.sum()
    joint = hits.sum(axis=-1) * rows - (predicted * actual).sum(axis=-1)
    spread = (rows**2 - (predicted**2).sum(axis=-1)) * (rows**2 - (actual**2).sum())
    return np.asarray(joint / np.sqrt(np.where(spread > 0, spread, 1.0)))


METRICS: dict[str, Metric] = {metric.__name__: metric for metric in (balanced_accuracy, macro_f1, accuracy, f1, mcc)}


class Score:
    """How good decisions are; more is better."""

    name: str
    sign = 1.0
    """What to multiply by for the number that people read."""

    def at_cuts(self, before: np.ndarray, truth: np.ndarray, c: int, weight: np.ndarray, classes: int) -> np.ndarray:
        """The score with the first 0, 1, ..., N rows moved from the class ``before`` to c, ``(N + 1,)``."""
        raise NotImplementedError

    def of(self, decisions: np.ndarray, truth: np.ndarray, weight: np.ndarray, classes: int) -> float:
        """The score of these decisions: that of moving no row."""
        return float(self.at_cuts(decisions, truth, 0, weight, classes)[0])


class Counts(Score):
    """A metric of counts per class."""

    def __init__(self, function: str, name: str, metric: Metric) -> None:
        self.function, self.name, self.metric = function, name, metric

    def __call__(self, hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """The metric; −inf where it is not defined, so that such a cut is never the best."""
        with np.errstate(divide="ignore", invalid="ignore"):
            result = np.asarray(self.metric(hits, predicted, actual), dtype=np.float64)
        if result.shape != hits.shape[:-1]:
            refuse(self.function, "metric", f"a function that gives one number for each cut, {hits.shape[:-1]}",
                   f"shape {result.shape}", "Its arguments have the classes on their last axis.")  # fmt: skip
        return np.where(np.isnan(result), -np.inf, result)

    def at_cuts(self, before: np.ndarray, truth: np.ndarray, c: int, weight: np.ndarray, classes: int) -> np.ndarray:
        rows = np.arange(len(truth))
        predicted = np.zeros((len(truth) + 1, classes))
        hits = np.zeros_like(predicted)
        predicted[0] = np.bincount(before, weight, minlength=classes)
        hits[0] = np.bincount(truth, weight * (before == truth), minlength=classes)
        predicted[rows + 1, before] -= weight
        predicted[1:, c] += weight
        hits[rows + 1, before] -= weight * (before == truth)
        hits[1:, c] += weight * (truth == c)
        actual = np.bincount(truth, weight, minlength=classes)
        return self(hits.cumsum(axis=0), predicted.cumsum(axis=0), actual)

    def of(self, decisions: np.ndarray, truth: np.ndarray, weight: np.ndarray, classes: int) -> float:
        hits = np.bincount(truth, weight * (decisions == truth), minlength=classes)
        predicted, actual = (np.bincount(v, weight, minlength=classes) for v in (decisions, truth))
        return float(self(hits[None], predicted[None], actual)[0])


class Costs(Score):
    """The mean cost of decisions, negated."""

    name = "mean cost"
    sign = -1.0

    def __init__(self, cost: np.ndarray) -> None:
        self.cost = cost

    def at_cuts(self, before: np.ndarray, truth: np.ndarray, c: int, weight: np.ndarray, classes: int) -> np.ndarray:
        change = weight * (self.cost[truth, c] - self.cost[truth, before])
        start = weight @ self.cost[truth, before]
        return np.asarray(-(start + np.concatenate([[0.0], change.cumsum()])) / weight.sum())


def score_of(name: str, metric: Any, cost: Any, classes: int) -> Score:
    """The score that a caller means; ``classes`` is 2 for yes/no."""
    if cost is not None:
        if metric is not None:
            refuse(name, "metric", "left out where there is a 'cost'", metric)
        return Costs(cost_matrix(name, cost, classes, square=True))
    metric = "balanced_accuracy" if metric is None else metric
    if callable(metric):
        return Counts(name, getattr(metric, "__name__", "metric"), metric)
    choice(name, "metric", metric, tuple(METRICS), "Or a function of (hits, predicted, actual), or a 'cost'.")
    if metric == "f1" and classes != 2:
        refuse(name, "metric", "for several classes one that sees them all", "'f1'", "Take 'macro_f1'.")
    return Counts(name, metric, METRICS[metric])
