"""Calibration error, reliability and Brier: hand values, scikit-learn, identities, and the last bin."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from steelyard.posterior import brier_score, calibration_error, reliability, reliability_plot
from steelyard.posterior import plot as plot_module


def rows(n: int = 300, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes) * 0.5, n)
    return p, np.array([rng.choice(classes, p=row) for row in p])


def test_hand_values_of_both_binnings() -> None:
    p, y = [0.1, 0.2, 0.3, 0.9], [0, 1, 0, 1]
    wide = reliability(p, y, kind="equal_width", bins=2)
    assert wide.rows.tolist() == [3, 1]
    assert wide.predicted.tolist() == pytest.approx([0.2, 0.9])
    assert wide.observed.tolist() == pytest.approx([1 / 3, 1.0])
    assert calibration_error(p, y, "equal_width", bins=2) == pytest.approx((3 * (1 / 3 - 0.2) + 0.1) / 4)
    mass = reliability(p, y, kind="equal_mass", bins=2)
    assert mass.rows.tolist() == [2, 2]
    assert mass.predicted.tolist() == pytest.approx([0.15, 0.6])
    assert calibration_error(p, y, bins=2) == pytest.approx((2 * 0.35 + 2 * 0.1) / 4)


def test_certainty_is_in_the_last_bin() -> None:
    """Torchmetrics gives p = 1 a bin of its own (#3510)."""
    found = reliability([0.95, 1.0], [1, 0], kind="equal_width", bins=10)
    assert found.rows.tolist() == [2]
    assert calibration_error([0.95, 1.0], [1, 0], "equal_width", bins=10) == pytest.approx(abs(0.975 - 0.5))
    assert reliability([0.0, 1.0, 1.0], [1, 0, 1], kind="equal_mass", bins=2).rows.tolist() == [1, 2]


def test_equal_width_is_scikit_learns_curve() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(500)
    y = rng.random(500) < p**2
    observed, predicted = calibration_curve(y, p, n_bins=10)
    found = reliability(p, y, kind="equal_width", bins=10)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)


@settings(deadline=None)
@given(
    p=st.lists(st.sampled_from([0.0, 0.1, 0.1 + 1e-12, 0.5, 0.9, 1.0]), min_size=1, max_size=40),
    bins=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_equal_rows_share_a_bin_in_any_order(p: list[float], bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, order = rng.integers(0, 2, len(p)), rng.permutation(len(p))
    one = reliability(p, y, bins=bins)
    other = reliability(np.array(p)[order], y[order], bins=bins)
    assert one.rows.sum() == len(p)
    assert len(one.rows) <= bins
    np.testing.assert_allclose(one.predicted, other.predicted)
    np.testing.assert_allclose(one.observed, other.observed)
    if len(set(p)) == len(p):  # without equals the bins are as even as they can be
        assert one.rows.max() - one.rows.min() <= 1


def test_top_label_and_classwise_look_at_different_columns() -> None:
    p, y = rows()
    hits = p.argmax(axis=1) == y
    top = p.max(axis=1)
    assert calibration_error(p, y) == pytest.approx(calibration_error(top, hits))
    assert calibration_error(p, y, "equal_width") == pytest.approx(calibration_error(top, hits, "equal_width"))
    each = [calibration_error(p[:, c], y == c) for c in range(4)]
    assert calibration_error(p, y, "classwise") == pytest.approx(np.mean(each))
    assert max(each) > min(each)


def test_a_rare_class_said_twenty_times_too_often_shows_classwise() -> None:
    """Top-label hides it: the rare class is never the most probable one."""
    y = np.array([0] * 980 + [1] * 20)
    said = np.tile([0.6, 0.4], (1000, 1))
    assert calibration_error(said, y, "classwise") == pytest.approx(0.38)
    honest = np.tile([0.98, 0.02], (1000, 1))
    assert calibration_error(honest, y, "classwise") == pytest.approx(0.0, abs=1e-12)


def test_calibrated_rows_have_a_small_error_and_tensors_will_do() -> None:
    p, y = rows(20_000)
    assert calibration_error(p, y, "classwise") < 0.01
    assert calibration_error(torch.from_numpy(p).float(), torch.from_numpy(y)) == pytest.approx(
        calibration_error(p, y), abs=1e-6
    )
    assert isinstance(calibration_error(p, y), float)


@pytest.mark.parametrize("bins", [1, 5, 15, 1000])
def test_brier_is_scikit_learns_and_its_parts_add_up(bins: int) -> None:
    p, y = rows()
    found = brier_score(p, y, bins=bins)
    assert found.score == pytest.approx(sk.brier_score_loss(y, p, scale_by_half=False))
    assert found.score == pytest.approx(found.reliability - found.resolution + found.uncertainty + found.within)
    share = np.bincount(y, minlength=4) / len(y)
    assert found.uncertainty == pytest.approx(1 - (share**2).sum())
    single = brier_score(p[:, 0], y == 0, bins=bins)
    assert single.score == pytest.approx(sk.brier_score_loss(y == 0, p[:, 0]))
    if bins == 1:
        assert found.resolution == pytest.approx(0.0, abs=1e-15)


def test_murphys_decomposition_by_hand() -> None:
    """Constant within bins: nothing is left over. o = 1/4 and 3/4 at p = 0.1 and 0.9, half of the rows each."""
    p, y = [0.1] * 4 + [0.9] * 4, [0, 0, 0, 1, 1, 1, 1, 0]
    found = brier_score(p, y, bins=2)
    assert found.reliability == pytest.approx(0.15**2)
    assert found.resolution == pytest.approx(0.25**2)
    assert found.uncertainty == pytest.approx(0.25)
    assert found.within == pytest.approx(0.0, abs=1e-15)
    assert found.score == pytest.approx((3 * 0.01 + 0.81) / 4)


def test_within_is_the_variance_and_covariance_in_the_bins() -> None:
    p, y = rows(200, classes=2, seed=3)
    said, hits = p[:, 1], y
    found = brier_score(said, hits, bins=4)
    place = said.argsort().argsort() * 4 // len(said)
    left = 0.0
    for b in range(4):
        f, o = said[place == b], hits[place == b]
        left += ((f - f.mean()) ** 2 - 2 * (f - f.mean()) * (o - o.mean())).sum()
    assert found.within == pytest.approx(left / len(said))


def test_reliability_goes_into_json() -> None:
    found = reliability([0.1, 0.9], [0, 1]).to_dict()
    assert json.loads(json.dumps(found)) == {"predicted": [0.1, 0.9], "observed": [0.0, 1.0], "rows": [1, 1]}


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (reliability, {"probs": [[0.5, 0.5]], "labels": [0]}, ValueError, r"'probs' must be of one event, \(N,\)"),
    (reliability, {"labels": [0, 2]}, IndexError, "'labels' must be 0 or 1; got 2"),
    (reliability, {"labels": [0]}, ValueError, r"'labels' must be 0 and 1, of shape \(2,\)"),
    (reliability, {"probs": [0.5, 1.5]}, ValueError, r"'probs' must be probabilities in \[0, 1\]; got 1.5 .*logits"),
    (reliability, {"probs": []}, ValueError, "'probs' must be probabilities of shape"),
    (reliability, {"kind": "classwise"}, ValueError, "'kind' must be one of 'equal_mass', 'equal_width'"),
    (reliability, {"bins": 0}, ValueError, "'bins' must be a whole number of at least 1"),
    (
        calibration_error,
        {"kind": "uniform"},
        ValueError,
        "'kind' must be one of 'equal_mass', 'equal_width', 'classwise'",
    ),
    (calibration_error, {"probs": [[0.5, 0.4]], "labels": [0]}, ValueError, "'probs' must be rows that add up to 1"),
    (calibration_error, {"probs": [[0.5, math.nan]], "labels": [0]}, ValueError, "'probs' must be finite"),
    (calibration_error, {"bins": 2.5}, ValueError, "'bins' must be a whole number"),
    (brier_score, {"labels": [0.5, 1]}, TypeError, "'labels' must be whole numbers"),
    (brier_score, {"probs": "ab"}, TypeError, "'probs' must be probabilities"),
]


@pytest.mark.parametrize(("function", "given", "error", "words"), BAD, ids=short)
def test_bad_values_are_refused(function: Any, given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{function.__name__}: {words}"):
        function(**{"probs": [0.2, 0.8], "labels": [0, 1], **given})


def test_the_plot_draws_every_point_and_its_rows() -> None:
    p = np.r_[np.full(30, 0.15), np.full(5, 0.85)]
    y = np.r_[np.zeros(24), np.ones(6), np.ones(5)]
    figure = reliability_plot({"raw": p, "posterior": p / 2}, y, bins=10)
    top, bottom = figure.axes
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["as often as it says", "raw", "posterior"]
    drawn = [point for line in top.lines[1:] for point in line.get_xydata()]
    points = {(round(float(x), 3), round(float(share), 3)) for x, share in drawn}
    assert points == {(0.15, 0.2), (0.85, 1.0), (0.075, 0.2), (0.425, 1.0)}
    hollow = [line for line in top.lines[1:] if line.get_markerfacecolor() == "white" and len(line.get_xydata())]
    assert [line.get_xydata().tolist() for line in hollow] == [[[0.85, 1.0]], [[0.425, 1.0]]]
    assert sorted({int(v) for line in bottom.lines for v in line.get_ydata()}) == [5, 30]
    assert bottom.get_yscale() == "log"


def test_the_plot_takes_one_curve_and_a_figure_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    mine = Figure()
    assert reliability_plot([0.1, 0.9], [0, 1], figure=mine) is mine
    with pytest.raises(ValueError, match="'probs' must be probabilities, or a mapping"):
        reliability_plot({}, [0, 1])
    monkeypatch.setattr(plot_module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"Matplotlib.*pip install 'steelyard\[report\]'"):
        reliability_plot([0.1, 0.9], [0, 1])
