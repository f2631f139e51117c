"""Calibration by scaling: the best there is, against scikit-learn and against a search; and by isotonic regression."""

from __future__ import annotations

import io
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short
from torch import Tensor

from steelyard.posterior import IsotonicCalibration, TemperatureScaling, VectorScaling, calibration_error
from steelyard.posterior import isotonic as isotonic_module


def sample(rows: int = 4000, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Honest logits, and labels drawn from them."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, classes, generator=g, dtype=torch.float64) * 1.5 + torch.arange(classes, 0, -1)
    return z, torch.multinomial(z.softmax(1), 1, generator=g)[:, 0], z.softmax(1)


def log_loss(p: Any, y: Tensor) -> float:
    return float(-torch.as_tensor(p)[torch.arange(len(y)), y].log().mean())


def test_a_temperature_is_found_again() -> None:
    z, y, p = sample(20_000)
    found = TemperatureScaling().fit(3.0 * z, y)
    assert found.temperature == pytest.approx(3.0, rel=0.03)
    assert float((found.predict_proba(3.0 * z) - p).abs().max()) < 0.02
    torch.testing.assert_close(found.transform(3.0 * z), 3.0 * z / found.temperature)
    assert calibration_error(found.predict_proba(3.0 * z), y) < 0.02 < calibration_error((3.0 * z).softmax(1), y)


def test_no_other_temperature_is_better() -> None:
    z, y, _ = sample(500)
    z = z.float() * 2.0
    found = TemperatureScaling().fit(z, y).temperature
    best = log_loss((z.double() / found).softmax(1), y)
    for t in (found * (1 + 1e-4), found * (1 - 1e-4), 1.0):
        assert log_loss((z.double() / t).softmax(1), y) > best


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_scikit_learn_finds_the_same_temperature(factor: float) -> None:
    sklearn = pytest.importorskip("sklearn", minversion="1.8")  # the first with temperature scaling
    assert sklearn
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        """Its features are the logits."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> Given:
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x: np.ndarray) -> np.ndarray:
            return x

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(axis=1)

    z, y, _ = sample(1500)
    x = (factor * z).numpy()
    theirs = CalibratedClassifierCV(FrozenEstimator(Given().fit(x, y.numpy())), method="temperature").fit(x, y.numpy())
    ours = TemperatureScaling().fit(x, y.numpy())
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=2e-5)


def test_a_bias_corrects_how_often_each_class_is_said() -> None:
    z, y, p = sample(20_000)
    moved = 2.0 * z + torch.tensor([0.0, 1.0, -2.0])
    plain, corrected = TemperatureScaling().fit(moved, y), TemperatureScaling(bias=True).fit(moved, y)
    shares = torch.bincount(y, minlength=3) / len(y)
    torch.testing.assert_close(corrected.predict_proba(moved).mean(0), shares.double(), atol=1e-7, rtol=0)
    assert float((plain.predict_proba(moved).mean(0) - shares).abs().max()) > 0.05
    assert float((corrected.predict_proba(moved) - p).abs().max()) < 0.03
    assert corrected.bias is not None
    assert float(corrected.bias.sum()) == pytest.approx(0.0, abs=1e-12)


def test_vector_scaling_is_the_logistic_regression_of_each_logit() -> None:
    """At the minimum the gradient is zero: Σ (p − y)·z and Σ (p − y), class by class."""
    z, y, p = sample(20_000)
    bent = z * torch.tensor([3.0, 0.5, 2.0]) + torch.tensor([1.0, 0.0, -1.0])
    found = VectorScaling().fit(bent, y)
    said, hits = found.predict_proba(bent), torch.nn.functional.one_hot(y, 3)
    assert float(((said - hits) * bent).mean(0).abs().max()) < 1e-7
    assert float((said - hits).mean(0).abs().max()) < 1e-7
    assert float((said - p).abs().max()) < 0.05
    assert log_loss(said, y) <= log_loss(TemperatureScaling(bias=True).fit(bent, y).predict_proba(bent), y)


def test_yes_and_no_and_several_labels() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, 2, generator=g, dtype=torch.float64) - torch.tensor([0.0, 2.0])
    y = (torch.rand(z.shape, generator=g) < z.sigmoid()).long()
    one = TemperatureScaling(bias=True).fit(2.5 * z[:, 1] + 1.0, y[:, 1].bool())
    p = one.predict_proba(2.5 * z[:, 1] + 1.0)
    assert p.shape == (20_000,)
    assert float((p - z[:, 1].sigmoid()).abs().max()) < 0.02
    both = VectorScaling().fit(2.5 * z + 1.0, y)
    torch.testing.assert_close(both.predict_proba(2.5 * z + 1.0)[:, 1], p, atol=1e-6, rtol=0)
    assert TemperatureScaling().fit(2.5 * z, y).temperature == pytest.approx(2.5, rel=0.05)


def test_two_logits_and_their_difference_are_one() -> None:
    z, y, _ = sample(2000, classes=2)
    pair, single = TemperatureScaling().fit(z * 2, y), TemperatureScaling().fit((z[:, 1] - z[:, 0]) * 2, y)
    assert pair.temperature == pytest.approx(single.temperature, rel=1e-6)


def test_positions_of_an_image_are_rows() -> None:
    z, y, _ = sample(600)
    image, map_ = z.reshape(10, 60, 3).movedim(2, 1).reshape(10, 3, 6, 10), y.reshape(10, 6, 10)
    flat, shaped = VectorScaling().fit(z, y), VectorScaling().fit(image, map_)
    torch.testing.assert_close(shaped.scale, flat.scale)
    torch.testing.assert_close(shaped.predict_proba(image)[3, :, 2, 5], flat.predict_proba(z)[3 * 60 + 25])


def test_arrays_give_arrays_and_float32_stays() -> None:
    z, y, _ = sample(300)
    found = TemperatureScaling().fit(z.numpy(), y.numpy())
    assert isinstance(found.predict_proba(z.numpy()), np.ndarray)
    assert found.predict_proba(z.float()).dtype == torch.float32
    assert found.predict_proba(z.half()).dtype == torch.float32
    assert found.predict_proba(z[0]).shape == (3,)
    with torch.no_grad():
        assert TemperatureScaling().fit(z, y).temperature == found.temperature


def test_what_was_fitted_can_be_kept() -> None:
    z, y, _ = sample(300)
    for found, fresh in (
        (TemperatureScaling(bias=True).fit(z, y), TemperatureScaling()),
        (VectorScaling().fit(z, y), VectorScaling()),
    ):
        file = io.BytesIO()
        torch.save(found.state_dict(), file)
        file.seek(0)
        again = fresh.load_state_dict(torch.load(file))
        assert torch.equal(again.predict_proba(z), found.predict_proba(z))
        assert torch.equal(pickle.loads(pickle.dumps(found)).predict_proba(z), found.predict_proba(z))
        assert repr(found) == repr(again)
        assert "scale=" in repr(found)
    state = VectorScaling().fit(z, y).state_dict()
    kept = TemperatureScaling()
    with pytest.raises(ValueError, match=r"'state' must be that of a TemperatureScaling; got a scale of shape \(3,\)"):
        kept.load_state_dict(state)
    with pytest.raises(ValueError, match="'state' must be what state_dict gives"):
        kept.load_state_dict({"scale": state["scale"]})
    assert repr(kept) == "TemperatureScaling(not fitted)"  # nothing was taken over


def test_separated_and_ignorant_logits_are_warned_of() -> None:
    y = torch.arange(2).repeat(100)
    separated = torch.nn.functional.one_hot(y, 2).double()
    for kind in (TemperatureScaling, VectorScaling):
        with pytest.warns(UserWarning, match=rf"{kind.__name__}\.fit: the logits separate the labels"):
            kind().fit(separated, y)
    with pytest.warns(UserWarning, match="the best temperature is infinite: the logits know nothing"):
        TemperatureScaling().fit(-separated, y)


def test_a_minimum_that_was_not_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.optim.LBFGS
    monkeypatch.setattr(torch.optim, "LBFGS", lambda free, **options: real(free, **options | {"max_iter": 1}))
    z, y, _ = sample(500)
    with pytest.warns(UserWarning, match=r"VectorScaling\.fit: the log loss still falls"):
        VectorScaling().fit(z * 5, y)


def test_few_rows_of_a_class_are_warned_of() -> None:
    z, _, _ = sample(200)
    y = torch.tensor([0] * 100 + [1] * 95 + [2] * 5)
    with pytest.warns(UserWarning, match=r"TemperatureScaling\.fit: calibration wants 30 rows of every class; class 2"):
        TemperatureScaling().fit(z, y)


Z, Y = [[0.0, 1.0], [1.0, 0.0]], [0, 1]
BAD: list[tuple[Any, Any, type[Exception], str]] = [
    ("abc", Y, TypeError, "'logits' must be logits"),
    ([[0.0, math.nan]] * 2, Y, ValueError, r"'logits' must be finite; got nan at position \(0, 1\)"),
    ([[0.0, math.inf]] * 2, Y, ValueError, "'logits' must be finite"),
    (Z, [0, 2], IndexError, r"'labels' must be 0 or 1; got 2 at position \(1,\)"),
    (Z, [0, -1], IndexError, "'labels' must be 0 or 1; got -1"),
    (Z, [0, 1, 1], ValueError, r"'labels' must be class numbers of shape \(2,\); got shape \(3,\)"),
    (Z, [0.5, 1.0], TypeError, "'labels' must be whole numbers"),
    (Z, ["a", "b"], TypeError, "'labels' must be whole numbers"),
    ([[0.0], [1.0]], Y, ValueError, "'logits' must be of two classes at least"),
    ([0.0, 1.0], [[0], [1]], ValueError, r"'labels' must be 0 and 1, of shape \(2,\)"),
]


@pytest.mark.parametrize("kind", [TemperatureScaling, VectorScaling])
@pytest.mark.parametrize(("logits", "labels", "error", "words"), BAD, ids=short)
def test_bad_values_are_refused(kind: Any, logits: Any, labels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=rf"^{kind.__name__}\.fit: {words}"):
        kind().fit(logits, labels)


def test_unfitted_and_unfitting_are_refused() -> None:
    for kind in (TemperatureScaling, VectorScaling):
        with pytest.raises(RuntimeError, match=r"'self' must be fitted; got one that is not\. Call fit"):
            kind().predict_proba(Z)
    z, y, _ = sample(300)
    found = VectorScaling().fit(z, y)
    for other in (z[:, :2], torch.tensor(1.0), torch.zeros(3, 4)):
        with pytest.raises(ValueError, match=r"^VectorScaling\.transform: 'logits' must be of 3 classes, as in fit"):
            found.predict_proba(other)
    with pytest.raises(TypeError, match="'bias' must be True or False"):
        TemperatureScaling(bias=1)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- isotonic


def test_isotonic_is_scikit_learns_class_by_class() -> None:
    from sklearn.isotonic import IsotonicRegression

    z, y, _ = sample(2000)
    said = (z * 3).softmax(1)
    found = IsotonicCalibration().fit(said, y)
    p = found.predict_proba(said)
    raw = np.stack(
        [
            IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit_transform(
                said[:, c].numpy(), (y == c).numpy()
            )
            for c in range(3)
        ],
        axis=1,
    )
    np.testing.assert_allclose(p.numpy(), raw / raw.sum(axis=1, keepdims=True), atol=1e-12)
    assert isinstance(p, Tensor)
    assert calibration_error(p, y) < calibration_error(said, y) / 2
    single = IsotonicCalibration().fit(said[:, 0], y == 0)
    np.testing.assert_allclose(single.predict_proba(said[:, 0]).numpy(), raw[:, 0], atol=1e-12)


def test_a_row_that_no_class_wants_is_shared_out() -> None:
    """Up to 0.06 none of 20 classes ever came true, and here each has 0.05."""
    said = 0.94 * np.eye(20) + 0.06 * np.roll(np.eye(20), 1, axis=1)
    found = IsotonicCalibration().fit(said, np.arange(20))
    np.testing.assert_allclose(found.predict_proba(np.full((1, 20), 0.05)), 0.05)
    np.testing.assert_allclose(found.predict_proba(said), np.eye(20), atol=1e-12)


def test_isotonic_refuses_and_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="must be fitted"):
        IsotonicCalibration().predict_proba([0.5])
    found = IsotonicCalibration().fit([0.1, 0.9], [0, 1])
    with pytest.raises(ValueError, match="'probs' must be of the classes that fit saw"):
        found.predict_proba([[0.5, 0.5]])
    with pytest.raises(ValueError, match=r"'probs' must be probabilities in \[0, 1\]; got 3 .*look like logits"):
        IsotonicCalibration().fit([3.0, 0.1], [0, 1])
    monkeypatch.setattr(isotonic_module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"scikit-learn.*pip install 'steelyard\[cli\]'"):
        IsotonicCalibration().fit([0.1, 0.9], [0, 1])


def test_no_warning_on_ordinary_rows() -> None:
    z, y, _ = sample(1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TemperatureScaling(bias=True).fit(z, y)
        VectorScaling().fit(z, y)
