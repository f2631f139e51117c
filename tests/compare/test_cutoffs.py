"""Tuned multipliers: never worse than argmax where they were tuned; with two classes the best cut-off there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from steelyard.compare import tune_multipliers
from steelyard.compare.cutoffs import TUNABLE, decide

SKLEARN = {
    "balanced_accuracy": balanced_accuracy_score,
    "macro_f1": lambda target, decisions: f1_score(target, decisions, average="macro"),
    "accuracy": accuracy_score,
}


def sample(classes: int, rows: int, seed: int, grid: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Targets with a rare tail, and probabilities that know something about them; on a grid many of them tie."""
    rng = np.random.default_rng(seed)
    share = 0.3 ** np.arange(classes)
    target = np.r_[np.arange(classes), rng.choice(classes, rows - classes, p=share / share.sum())]
    scores = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[target] + np.log(share)
    odds = np.exp(scores)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    if grid:
        positive = (np.floor(probabilities[:, 1] * grid) + 0.5) / grid
        probabilities = np.stack([1 - positive, positive], axis=1)
    return probabilities, target


@pytest.mark.parametrize("metric", TUNABLE)
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_better_than_or_equal_to_argmax(classes: int, metric: str) -> None:
    for seed in range(5):
        probabilities, target = sample(classes, 300, seed)
        tuned = decide(probabilities, tune_multipliers(probabilities, target, metric))
        plain = probabilities.argmax(axis=1)
        assert SKLEARN[metric](target, tuned) >= SKLEARN[metric](target, plain)
        if metric == "balanced_accuracy":
            assert SKLEARN[metric](target, tuned) > SKLEARN[metric](target, plain) + 0.02


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(3, 60),
    grid=st.sampled_from([None, 3, 8]),
    metric=st.sampled_from(TUNABLE),
)
def test_two_classes_find_the_best_of_all_cutoffs(seed: int, rows: int, grid: int | None, metric: str) -> None:
    probabilities, target = sample(2, rows, seed, grid)
    multipliers = tune_multipliers(probabilities, target, metric)
    reached = SKLEARN[metric](target, decide(probabilities, multipliers))
    cuts = [-1.0, *np.unique(probabilities[:, 1]), 2.0]
    best = max(SKLEARN[metric](target, (probabilities[:, 1] > cut).astype(int)) for cut in cuts)
    assert reached == pytest.approx(best, abs=1e-12)


def test_multipliers_are_positive_with_geometric_mean_one() -> None:
    probabilities, target = sample(4, 200, 0)
    multipliers = tune_multipliers(probabilities, target)
    assert (multipliers > 0).all()
    assert np.log(multipliers).mean() == pytest.approx(0, abs=1e-12)
    assert multipliers[3] > multipliers[0]  # the rarest class is lifted over the most frequent one


def test_a_cut_lies_between_rows_and_not_on_one() -> None:
    """A separable pair: the cut-off lands strictly between the two groups, with room on both sides."""
    positive = np.array([0.01, 0.02, 0.10, 0.12])
    probabilities = np.stack([1 - positive, positive], axis=1)
    multipliers = tune_multipliers(probabilities, np.array([0, 0, 1, 1]))
    cut = multipliers[0] / multipliers.sum()
    assert 0.03 < cut < 0.09


def test_zero_probabilities_are_no_trouble() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert decide(probabilities, tune_multipliers(probabilities, np.array([0, 0, 1]))).tolist() == [0, 0, 1]
