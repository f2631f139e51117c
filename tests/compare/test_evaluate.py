"""Scores against hand values and scikit-learn's own calls; the interval against a hand-computed one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from steelyard.compare import METRICS, corrected_interval
from steelyard.compare.evaluate import prediction_scores
from steelyard.posterior import calibration_error

TARGET = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4]]
)


def test_hand_values() -> None:
    scores = prediction_scores(TARGET, PROBABILITIES, PROBABILITIES.argmax(axis=1), PROBABILITIES, rarest=2)
    assert scores["recall"] == pytest.approx([2 / 3, 1 / 2, 1.0])
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["macro_f1"] == pytest.approx((4 / 6 + 2 / 4 + 1) / 3)
    assert scores["log_loss"] == pytest.approx(-np.log([0.7, 0.4, 0.6, 0.7, 0.3, 0.4]).mean())
    assert scores["log_loss_posterior"] == scores["log_loss"]
    by_hand = [0.14, 0.62, 0.26, 0.14, 0.78, 0.54]  # Σ_c (p_c − [c = y])², row by row
    assert scores["brier"] == pytest.approx(np.mean(by_hand))
    assert scores["rarest_average_precision"] == pytest.approx(1.0)
    assert scores["auroc"] == pytest.approx((8 / 9 + 6 / 8 + 5 / 5) / 3)
    # Decisions 0, 1, 0, 1, 0, 2: covariances Σ hits − Σ_c actual·decided / n, with itself for each of the two.
    assert scores["mcc"] == pytest.approx((4 - 14 / 6) / np.sqrt((6 - 14 / 6) * (6 - 14 / 6)))


def test_scikit_learn_agrees_on_random_predictions() -> None:
    rng = np.random.default_rng(0)
    target = np.r_[np.arange(4), rng.choice(4, 200, p=[0.7, 0.2, 0.07, 0.03])]
    probabilities, posterior = rng.dirichlet(np.ones(4), 204), rng.dirichlet(np.ones(4), 204)
    decisions = rng.choice(4, 204)
    scores = prediction_scores(target, probabilities, decisions, posterior, rarest=3)
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(target, decisions))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(target, decisions, average="macro"))
    hits = np.eye(4)[target]
    assert scores["average_precision"] == pytest.approx(
        sk.average_precision_score(hits, probabilities, average="macro")
    )
    assert scores["rarest_average_precision"] == pytest.approx(
        sk.average_precision_score(target == 3, probabilities[:, 3])
    )
    assert scores["auroc"] == pytest.approx(sk.roc_auc_score(target, probabilities, multi_class="ovr", average="macro"))
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(target, decisions))
    assert scores["log_loss"] == pytest.approx(sk.log_loss(target, probabilities))
    assert scores["log_loss_posterior"] == pytest.approx(sk.log_loss(target, posterior))
    assert scores["brier"] == pytest.approx(sk.brier_score_loss(target, probabilities, scale_by_half=False))
    assert scores["brier_posterior"] == pytest.approx(sk.brier_score_loss(target, posterior, scale_by_half=False))
    assert scores["calibration_error"] == calibration_error(probabilities, target, "classwise")
    assert scores["calibration_error_posterior"] == calibration_error(posterior, target, "classwise")
    assert set(scores) == {*METRICS, "recall"}


def test_the_interval_by_hand() -> None:
    """Scores 0.5, 0.6, 0.7, 0.8: s² = 1/60; t(0.975, 3 degrees) = 3.182446; J = 4, ratio 1/4."""
    found = corrected_interval([0.5, 0.6, 0.7, 0.8], test_ratio=0.25)
    half = 3.182446305 * math.sqrt((1 / 4 + 1 / 4) / 60)
    assert found.mean == pytest.approx(0.65)
    assert found.high - found.mean == pytest.approx(half, rel=1e-8)
    assert found.mean - found.low == pytest.approx(half, rel=1e-8)


def test_the_correction_only_widens() -> None:
    plain, corrected = (corrected_interval([0.1, 0.2, 0.4], ratio) for ratio in (0.0, 0.25))
    assert corrected.high - corrected.low == pytest.approx((plain.high - plain.low) * math.sqrt(1 + 3 * 0.25))


def test_equal_scores_have_no_width_and_touch_zero_from_neither_side() -> None:
    found = corrected_interval([0.0, 0.0, 0.0], 0.25)
    assert (found.low, found.mean, found.high) == (0, 0, 0)
    assert not found.above_zero
    assert not found.below_zero


def test_every_metric_knows_its_good_side() -> None:
    assert {name: m.sign for name, m in METRICS.items()} == {
        "balanced_accuracy": 1,
        "macro_f1": 1,
        "average_precision": 1,
        "rarest_average_precision": 1,
        "auroc": 1,
        "mcc": 1,
        "accuracy": 1,
        "log_loss": -1,
        "log_loss_posterior": -1,
        "brier": -1,
        "brier_posterior": -1,
        "calibration_error": -1,
        "calibration_error_posterior": -1,
    }
