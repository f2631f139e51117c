"""posterior() for PyTorch's own losses, and the cut-off that a weight has moved."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from steelyard import NotInvertibleError, nn
from steelyard.posterior import equivalent_threshold, posterior

Z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
W = torch.tensor([1.0, 4.0, 30.0])
PAIRS: list[tuple[Any, Any, torch.Tensor]] = [
    (torch.nn.CrossEntropyLoss(), nn.CrossEntropyLoss(), Z),
    (torch.nn.CrossEntropyLoss(W, label_smoothing=0.1), nn.CrossEntropyLoss(W, label_smoothing=0.1), Z),
    (torch.nn.NLLLoss(W), nn.NLLLoss(W), Z.log_softmax(1)),
    (torch.nn.BCEWithLogitsLoss(W, pos_weight=W), nn.BCEWithLogitsLoss(W, pos_weight=W), Z),
    (torch.nn.BCELoss(W), nn.BCELoss(W), Z.sigmoid()),
]


@pytest.mark.parametrize(("theirs", "ours", "input"), PAIRS, ids=lambda value: type(value).__name__)
def test_pytorchs_losses_are_read_as_ours(theirs: Any, ours: Any, input: torch.Tensor) -> None:
    elements = "BCE" in type(ours).__name__
    prior, train = (0.1, 0.5) if elements else ([0.9, 0.09, 0.01], [1, 1, 1])
    for shares in ({}, {"prior": prior, "train_prior": train}):
        assert torch.equal(posterior(input, theirs, **shares), ours.posterior(input, **shares))
        assert torch.equal(posterior(input, ours, **shares), ours.posterior(input, **shares))
    assert not torch.equal(posterior(input, theirs), posterior(input, theirs, prior, train_prior=train))


def test_balanced_class_weights_at_three_percent() -> None:
    """The symptom: a rare class said far too often; the cure, to the digit."""
    p = torch.tensor([[0.97, 0.03]], dtype=torch.float64)
    w = torch.tensor([0.5 / 0.97, 0.5 / 0.03], dtype=torch.float64)
    raw = (p.log() + w.log()).softmax(1)
    assert float(raw[0, 1]) == pytest.approx(0.5)
    torch.testing.assert_close(posterior((p * w).log(), torch.nn.CrossEntropyLoss(w)), p)


def test_a_loss_without_an_inverse_is_named_with_what_to_do() -> None:
    with pytest.raises(
        NotInvertibleError, match=r"^posterior: 'loss' must be one of .*; got HingeEmbeddingLoss.*calibr"
    ):
        posterior(Z, torch.nn.HingeEmbeddingLoss())
    with pytest.raises(TypeError, match="'loss' must be the loss module of the training; got function"):
        posterior(Z, torch.nn.functional.cross_entropy)


THRESHOLDS = (1e-6, 0.02, 0.5, 0.9, 1 - 1e-6)


@pytest.mark.parametrize("t", THRESHOLDS)
def test_a_pos_weight_moves_a_cut_off_as_the_formula_says(t: float) -> None:
    for weight in (0.1, 1.0, 49.0):
        for loss in (torch.nn.BCEWithLogitsLoss, nn.BCEWithLogitsLoss):
            found = equivalent_threshold(t, loss(pos_weight=torch.tensor(weight, dtype=torch.float64)))
            assert isinstance(found, float)
            assert found == pytest.approx(weight * t / (weight * t + 1 - t), rel=1e-9)
        pair = nn.CrossEntropyLoss(weight=[1.0, weight]).double()
        assert equivalent_threshold(t, pair) == pytest.approx(weight * t / (weight * t + 1 - t), rel=1e-6)


LOSSES: list[Any] = [
    nn.SigmoidFocalLoss(),
    nn.AsymmetricLoss(),
    nn.BCEWithLogitsLoss(pos_weight=7.0, gamma_neg=2.0),
    nn.FocalLoss(weight=[1.0, 5.0]),
    nn.LDAMLoss([90, 10], scale=3.0),
    nn.BalancedSoftmaxLoss([90, 10]),
    nn.CrossEntropyLoss(weight=[1.0, 5.0], label_smoothing=0.1),
    nn.DeferredReweighting(nn.BCEWithLogitsLoss(pos_weight=9.0), 0),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_both_cut_offs_decide_alike(loss: Any) -> None:
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    inner = getattr(loss, "loss", loss)
    elements = hasattr(inner, "pos_weight")
    logits = z if elements else torch.stack([torch.zeros_like(z), z], dim=1)
    for t in (0.1, 0.5, 0.8):
        cut = equivalent_threshold(t, loss)
        p = posterior(logits, loss)
        decided = p >= t if elements else p[:, 1] >= t
        assert 0 < int(decided.sum()) < len(z)
        assert torch.equal(z.sigmoid() >= cut, decided)


def test_shares_move_a_cut_off_too() -> None:
    found = equivalent_threshold(0.5, torch.nn.BCEWithLogitsLoss(), prior=0.02, train_prior=0.5)
    assert found == pytest.approx(0.98, rel=1e-9)


def test_one_cut_off_for_each_label() -> None:
    found = equivalent_threshold(0.5, nn.BCEWithLogitsLoss(pos_weight=[1.0, 3.0, 49.0]))
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.75, 0.98], dtype=torch.float64))


def test_a_probability_that_the_loss_cannot_tell_is_refused() -> None:
    loss = nn.AsymmetricLoss(gamma_pos=0.0, gamma_neg=4.0, clip=0.05)
    with pytest.raises(ValueError, match=r"'threshold' must be at most 0\.963721, the highest probability"):
        equivalent_threshold(0.97, loss)
    assert 0 < equivalent_threshold(0.96, loss) < 1


@pytest.mark.parametrize("t", [0.0, 1.0, -0.1, math.nan, "0.5", None, True])
def test_bad_thresholds_are_refused(t: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^equivalent_threshold: 'threshold' must be"):
        equivalent_threshold(t, torch.nn.BCEWithLogitsLoss())
