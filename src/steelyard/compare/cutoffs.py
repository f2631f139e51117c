"""One multiplier per class, tuned on held-out rows: the largest multiplied probability decides."""

from __future__ import annotations

import numpy as np

__all__ = ["decide", "score_counts", "tune_multipliers"]

TUNABLE = ("balanced_accuracy", "macro_f1", "accuracy")
"""Metrics that look at decisions and not at probabilities."""

SWEEPS = 10


def decide(probabilities: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """``argmax_c multipliers_c · probabilities_c``; with two classes a cut-off at ``m_0 / (m_0 + m_1)`` for class 1."""
    return np.asarray((probabilities * multipliers).argmax(axis=1))


def score_counts(metric: str, hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """The metric from counts per class (last axis): rows decided rightly, rows decided so, rows that are so."""
    if metric == "macro_f1":
        return np.asarray((2 * hits / np.maximum(predicted + actual, 1)).mean(axis=-1))
    if metric == "accuracy":
        return np.asarray(hits.sum(axis=-1) / actual.sum())
    return np.asarray((hits / np.maximum(actual, 1)).mean(axis=-1))


def tune_multipliers(probabilities: np.ndarray, target: np.ndarray, metric: str = "balanced_accuracy") -> np.ndarray:
    """Multipliers that give the best ``metric`` on these rows, never worse than plain argmax.

    One class at a time, every cut that separates two rows is tried; with two classes that is the best of all
    cut-offs. With more, the search starts both from equal multipliers and from one over the class shares, and repeats
    until nothing improves.

    Args:
        probabilities: float64, ``(N, C)``.
        target: Class numbers, ``(N,)``.
        metric: ``"balanced_accuracy"``, ``"macro_f1"`` or ``"accuracy"``.
    Returns: float64, ``(C,)``, positive, with geometric mean 1.
    """
    classes = probabilities.shape[1]
    probabilities = np.maximum(probabilities, 1e-100)
    counts = np.bincount(target, minlength=classes)
    starts = [np.ones(classes), len(target) / (classes * np.maximum(counts, 1))]
    best, best_score = starts[0], -1.0
    for start in starts:
        found, score = _climb(probabilities, target, start, metric, counts)
        if score > best_score:
            best, best_score = found, score
    scaled: np.ndarray = best / np.exp(np.log(best).mean())
    return scaled


def _climb(
    probabilities: np.ndarray, target: np.ndarray, start: np.ndarray, metric: str, counts: np.ndarray
) -> tuple[np.ndarray, float]:
    multipliers, score = start.astype(np.float64).copy(), _score(probabilities, target, start, metric, counts)
    for _ in range(SWEEPS):
        before = score
        for c in range(len(multipliers)):
            candidate, at_cut = _best_cut(probabilities, target, multipliers, c, metric, counts)
            if at_cut > score + 1e-12:
                trial = multipliers.copy()
                trial[c] = candidate
                reached = _score(probabilities, target, trial, metric, counts)
                if reached > score:  # rounding at a tie may undo what the count promised
                    multipliers, score = trial, reached
        if score <= before:
            break
    return multipliers, score


def _score(
    probabilities: np.ndarray, target: np.ndarray, multipliers: np.ndarray, metric: str, counts: np.ndarray
) -> float:
    decisions = decide(probabilities, multipliers)
    hits = np.bincount(target[decisions == target], minlength=len(counts))
    return float(score_counts(metric, hits, np.bincount(decisions, minlength=len(counts)), counts))


def _best_cut(
    probabilities: np.ndarray, target: np.ndarray, multipliers: np.ndarray, c: int, metric: str, counts: np.ndarray
) -> tuple[float, float]:
    """The best multiplier for class ``c`` with the others held, and its score.

    Row i goes to c as soon as the multiplier passes ``max_{j≠c} m_j p_ij / p_ic``; sorted, each step moves one row
    from its runner-up to c, and cumulative sums give the counts at every step.
    """
    rows, classes = probabilities.shape
    others = probabilities * multipliers
    others[:, c] = -np.inf
    runner_up = others.argmax(axis=1)
    needed = others[np.arange(rows), runner_up] / probabilities[:, c]
    order = np.argsort(needed, kind="stable")
    needed, runner_up, truth = needed[order], runner_up[order], target[order]

    steps = np.arange(rows)
    moved = np.zeros((rows + 1, classes), dtype=np.int64)
    gained = np.zeros((rows + 1, classes), dtype=np.int64)
    moved[0] = np.bincount(runner_up, minlength=classes)
    gained[0] = np.bincount(truth[runner_up == truth], minlength=classes)
    moved[steps + 1, runner_up] -= 1
    moved[1:, c] += 1
    gained[steps + 1, runner_up] -= runner_up == truth
    gained[1:, c] += truth == c
    scores = score_counts(metric, gained.cumsum(axis=0), moved.cumsum(axis=0), counts)

    edges = np.concatenate([[needed[0] / 4], needed, [needed[-1] * 4]])
    # Rows that tie, or differ by rounding alone, move together: no multiplier would tell them apart again.
    open_cut = np.concatenate([[True], needed[1:] > needed[:-1] * (1 + 1e-9), [True]])
    scores = np.where(open_cut, scores, -1.0)
    step = int(scores.argmax())
    return float(np.sqrt(edges[step]) * np.sqrt(edges[step + 1])), float(scores[step])
