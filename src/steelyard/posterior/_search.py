"""The search for the best cut-off, over every cut that separates two rows, in O(n log n)."""

from __future__ import annotations

import numpy as np

from steelyard.posterior._score import Score

__all__ = ["best_cut", "best_multipliers", "decide", "starts"]

SWEEPS = 10


def decide(probabilities: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """``argmax_c multipliers_c · probabilities_c``; with two classes a cut-off at ``m_0 / (m_0 + m_1)`` for class 1."""
    return np.asarray((probabilities * multipliers).argmax(axis=1))


def best_cut(scores: np.ndarray, truth: np.ndarray, score: Score, weight: np.ndarray) -> tuple[float, float]:
    """The cut-off t at which deciding yes for ``scores ≥ t`` scores best, and that score.

    t lies midway between two neighbours; at the ends, where every row or none is a yes, it is ∓inf. Of equals the
    highest cut-off is taken: the one with the fewest yeses.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    reached = score.at_cuts(np.zeros(len(scores), dtype=np.int64), truth[order], 1, weight[order], 2)
    separates = np.concatenate([[True], falling[1:] < falling[:-1], [True]])  # no cut tells equal scores apart
    step = int(np.where(separates, reached, -np.inf).argmax())
    if step in (0, len(scores)):
        return (np.inf if step == 0 else -np.inf), float(reached[step])
    above, below = float(falling[step - 1]), float(falling[step])
    middle = below + (above - below) / 2
    return (middle if below < middle <= above else above), float(reached[step])


def starts(target: np.ndarray, classes: int) -> list[np.ndarray]:
    """Where the climb begins: equal multipliers, and one over the class shares."""
    counts = np.bincount(target, minlength=classes)
    return [np.ones(classes), len(target) / (classes * np.maximum(counts, 1))]


def best_multipliers(
    probabilities: np.ndarray, target: np.ndarray, score: Score, weight: np.ndarray, begin: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Multipliers that no change of a single class improves, and their score, never worse than where it begins.

    One class at a time, every cut that separates two rows is tried, until nothing improves; with two classes that is
    the best of all cut-offs. Geometric mean 1.
    """
    probabilities = np.maximum(probabilities, 1e-100)
    best, best_score = begin[0], -np.inf
    for start in begin:
        found, reached = _climb(probabilities, target, start, score, weight)
        if reached > best_score:
            best, best_score = found, reached
    scaled: np.ndarray = best / np.exp(np.log(best).mean())
    return scaled, best_score


def _climb(
    probabilities: np.ndarray, target: np.ndarray, start: np.ndarray, score: Score, weight: np.ndarray
) -> tuple[np.ndarray, float]:
    classes = len(start)

    def reached_by(multipliers: np.ndarray) -> float:
        return score.of(decide(probabilities, multipliers), target, weight, classes)

    multipliers, reached = start.astype(np.float64).copy(), reached_by(start)
    for _ in range(SWEEPS):
        before = reached
        for c in range(classes):
            candidate, at_cut = _cut_of_class(probabilities, target, multipliers, c, score, weight)
            if at_cut > reached + 1e-12:
                trial = multipliers.copy()
                trial[c] = candidate
                really = reached_by(trial)
                if really > reached:  # rounding at a tie may undo what the count promised
                    multipliers, reached = trial, really
        if reached <= before:
            break
    return multipliers, reached


def _cut_of_class(
    probabilities: np.ndarray,
    target: np.ndarray,
    multipliers: np.ndarray,
    c: int,
    score: Score,
    weight: np.ndarray,
) -> tuple[float, float]:
    """The best multiplier for class ``c`` with the others held, and its score.

    Row i goes to c as soon as the multiplier passes ``max_{j≠c} m_j p_ij / p_ic``.
    """
    rows, classes = probabilities.shape
    others = probabilities * multipliers
    others[:, c] = -np.inf
    runner_up = others.argmax(axis=1)
    needed = others[np.arange(rows), runner_up] / probabilities[:, c]
    order = np.argsort(needed, kind="stable")
    needed = needed[order]
    scores = score.at_cuts(runner_up[order], target[order], c, weight[order], classes)
    edges = np.concatenate([[needed[0] / 4], needed, [needed[-1] * 4]])
    # Rows that tie, or differ by rounding alone, move together: no multiplier would tell them apart again.
    open_cut = np.concatenate([[True], needed[1:] > needed[:-1] * (1 + 1e-9), [True]])
    scores = np.where(open_cut, scores, -np.inf)
    step = int(scores.argmax())
    return float(np.sqrt(edges[step]) * np.sqrt(edges[step + 1])), float(scores[step])
