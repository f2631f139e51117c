"""Shifts of prior: the identities of Elkan, Dal Pozzolo, King & Zeng and Saerens, and what is refused and warned of."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short
from hypothesis import given, settings
from hypothesis import strategies as st

import steelyard
from steelyard.posterior import bayes_decision, estimate_prior, posterior, shift_prior, sigmoid_posterior

shares = st.floats(0.01, 0.99)


@settings(deadline=None)
@given(p=shares, b=shares, b_new=shares)
def test_elkan_theorem_2_the_shift_of_a_base_rate(p: float, b: float, b_new: float) -> None:
    """P' = b'(p − p·b) / (b − p·b + b'·p − b·b')."""
    expected = b_new * (p - p * b) / (b - p * b + b_new * p - b * b_new)
    assert shift_prior([p], b, b_new)[0] == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(p_star=shares, p_zero=shares)
def test_elkan_theorem_1_negatives_resampled_move_a_cut_off(p_star: float, p_zero: float) -> None:
    """To decide at p0 what p* decides, multiply the negatives by p*/(1 − p*) · (1 − p0)/p0."""
    ratio = p_star / (1 - p_star) * (1 - p_zero) / p_zero
    prior = 0.2
    train = prior / (prior + (1 - prior) * ratio)
    assert shift_prior([p_star], prior, train)[0] == pytest.approx(p_zero, rel=1e-9)


@settings(deadline=None)
@given(t=shares)
def test_elkan_equation_2_the_cut_off_of_a_cost_matrix(t: float) -> None:
    """p* = (c10 − c00) / (c10 − c00 + c01 − c11), with his c(predicted, actual)."""
    cost = np.array([[0.5, 1.5], [4.0, 1.0]])  # ours: [actual, predicted]
    p_star = (cost[0, 1] - cost[0, 0]) / (cost[0, 1] - cost[0, 0] + cost[1, 0] - cost[1, 1])
    if abs(t - p_star) > 1e-9:
        assert bayes_decision([t], cost)[0] == (t > p_star)


@settings(deadline=None)
@given(p_s=shares, beta=st.floats(0.001, 1.0))
def test_dal_pozzolo_undersampling(p_s: float, beta: float) -> None:
    """Negatives kept with chance β: p = β·p_s / (β·p_s − p_s + 1)."""
    positives, negatives = 30.0, 970.0
    expected = beta * p_s / (beta * p_s - p_s + 1)
    kept = positives / (positives + beta * negatives)
    assert shift_prior([p_s], kept, 0.03)[0] == pytest.approx(expected, rel=1e-9)
    z = torch.tensor([math.log(p_s / (1 - p_s))], dtype=torch.float64)
    assert float(sigmoid_posterior(z, 0.03, train_prior=kept)) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(z=st.floats(-5, 5), tau=shares, mean=shares)
def test_king_and_zeng_correct_the_intercept(z: float, tau: float, mean: float) -> None:
    """β0 − log[(1 − τ)/τ · ȳ/(1 − ȳ)], τ the population's share and ȳ the sample's."""
    corrected = z - math.log((1 - tau) / tau * mean / (1 - mean))
    logits = torch.tensor([z], dtype=torch.float64)
    assert float(sigmoid_posterior(logits, tau, train_prior=mean)) == pytest.approx(1 / (1 + math.exp(-corrected)))


def test_saerens_equation_2_4_and_the_way_back() -> None:
    rng = np.random.default_rng(0)
    p, train, new = rng.dirichlet(np.ones(4), 50), np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    shifted = shift_prior(p, train, new)
    by_hand = p * new / train
    np.testing.assert_allclose(shifted, by_hand / by_hand.sum(axis=1, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(shift_prior(shifted, new, train), p, rtol=1e-12)
    np.testing.assert_allclose(shift_prior(p, train, train), p, rtol=1e-13)
    np.testing.assert_allclose(shift_prior(p, train * 1000, new * 7), shifted, rtol=1e-13)  # counts will do


def test_two_columns_and_one_agree_and_so_do_posterior_and_shift() -> None:
    p = np.array([0.01, 0.3, 0.9])
    pair = shift_prior(np.stack([1 - p, p], axis=1), [0.5, 0.5], [0.98, 0.02])
    np.testing.assert_allclose(shift_prior(p, 0.5, 0.02), pair[:, 1], rtol=1e-12)
    z = torch.from_numpy(np.log(np.stack([1 - p, p], axis=1)))
    undone = posterior(z, torch.nn.CrossEntropyLoss(), [0.98, 0.02], train_prior=[0.5, 0.5])
    np.testing.assert_allclose(undone.numpy(), pair, rtol=1e-12)


def test_a_tensor_gives_a_tensor_and_a_list_an_array() -> None:
    assert isinstance(shift_prior([[0.5, 0.5]], [1, 1], [1, 3]), np.ndarray)
    out = shift_prior(torch.tensor([[0.5, 0.5]]), [1, 1], [1, 3])
    assert isinstance(out, torch.Tensor)
    assert out.dtype == torch.float32
    assert shift_prior(torch.tensor([[0.5, 0.5]], dtype=torch.float16), [1, 1], [1, 3]).dtype == torch.float32
    counts = steelyard.ClassCounts(["a", "b"], [1, 3])
    assert shift_prior([[0.5, 0.5]], [1, 1], counts).tolist() == [[0.25, 0.75]]


def test_a_class_that_will_not_come_gets_nothing() -> None:
    assert shift_prior([[0.5, 0.4, 0.1]], [1, 1, 1], [1, 0, 1])[0].tolist() == pytest.approx([5 / 6, 0.0, 1 / 6])
    assert shift_prior([0.3], 0.5, 0.0).tolist() == [0.0]
    with pytest.raises(ValueError, match="'deploy_prior' must be above 0 for some class that 'probs' gives a chance"):
        shift_prior([[1.0, 0.0]], [1, 1], [0, 1])


# ----------------------------------------------------------------------------------------------- the shares of new rows


def drawn(rows: int, prior: np.ndarray, train: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels from ``prior``, and calibrated probabilities under ``train``, of a mixture of three Gaussians."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, rows, p=prior)
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 2.0]])
    x = rng.normal(size=(rows, 2)) + centres[y]
    likelihood = np.exp(-0.5 * ((x[:, None] - centres) ** 2).sum(axis=2))
    joint = likelihood * train
    return y, joint / joint.sum(axis=1, keepdims=True)


TRAIN, NEW = np.array([0.8, 0.15, 0.05]), np.array([0.3, 0.3, 0.4])


def test_em_finds_the_shares_where_averages_do_not() -> None:
    _, p = drawn(20_000, NEW, TRAIN, 0)
    found = estimate_prior(p, TRAIN)
    assert np.abs(found - NEW).max() < 0.015
    assert np.abs(p.mean(axis=0) - NEW).max() > 0.1
    np.testing.assert_allclose(shift_prior(p, TRAIN, found).mean(axis=0), found, atol=1e-8)  # Saerens's fixed point
    assert found.sum() == pytest.approx(1.0)


def test_em_is_the_maximum_of_the_likelihood() -> None:
    """Against a grid: Saerens's EM climbs Σ log Σ_k π_k·p_ik/π_train,k."""
    _, p = drawn(400, np.array([0.5, 0.5, 0.0]), TRAIN, 1)
    pair = p[:, :2] / p[:, :2].sum(axis=1, keepdims=True)
    train = TRAIN[:2] / TRAIN[:2].sum()
    found = estimate_prior(pair[:, 1], float(train[1]))
    grid = np.linspace(0.001, 0.999, 999)
    ratio = pair / train
    likelihood = np.log(ratio[:, :1] * (1 - grid) + ratio[:, 1:] * grid).sum(axis=0)
    assert isinstance(found, float)
    assert abs(found - grid[likelihood.argmax()]) <= 0.001


def test_calibrated_input_is_not_warned_of() -> None:
    for seed in range(10):
        y, held = drawn(3_000, TRAIN, TRAIN, seed)
        _, p = drawn(2_000, NEW if seed % 2 else np.array([0.6, 0.4, 0.0]), TRAIN, 100 + seed)
        estimate_prior(p, TRAIN, held_out=(held, y))  # warnings are errors here


def test_uncalibrated_input_is_warned_of() -> None:
    y, held = drawn(3_000, TRAIN, TRAIN, 0)
    _, p = drawn(3_000, TRAIN, TRAIN, 1)
    weighted = shift_prior(held, TRAIN, [1, 1, 1])  # what balanced class weights teach
    with pytest.warns(UserWarning, match=r"on the held-out rows they say 0\.\d+ of class 0 on average, and 0\.79"):
        estimate_prior(p, TRAIN, held_out=(weighted, y))
    sure = held**3 / (held**3).sum(axis=1, keepdims=True)
    with pytest.warns(UserWarning, match="'probs' look uncalibrated: on the held-out rows they"):
        estimate_prior(p, TRAIN, held_out=(sure, y))
    rng = np.random.default_rng(0)
    q = rng.beta(2, 2, 3_000)  # as often above ½ as below: too sure of itself, and right on average
    with pytest.warns(UserWarning, match="have a Brier score of .* for class 0, and expect"):
        estimate_prior(q, 0.5, held_out=(q**3 / (q**3 + (1 - q) ** 3), rng.random(3_000) < q))
    hits = y == 1
    with pytest.warns(UserWarning, match="look uncalibrated"):
        estimate_prior(p[:, 1], 0.15, held_out=(np.sqrt(held[:, 1]), hits))


def test_a_share_that_vanishes_against_the_odds_is_warned_of() -> None:
    """Probabilities that never name class 2 leave it no share, but calibrated ones would have a mean ratio of 1."""
    _, p = drawn(3_000, NEW, TRAIN, 2)
    p = p * [1.0, 1.0, 0.01]
    with pytest.warns(UserWarning, match="class 2 is left no share"):
        estimate_prior(p / p.sum(axis=1, keepdims=True), TRAIN)


def test_too_few_steps_are_said() -> None:
    _, p = drawn(500, NEW, TRAIN, 3)
    with pytest.warns(UserWarning, match="after 2 steps the shares still move"):
        estimate_prior(p, TRAIN, steps=2)


P = [[0.5, 0.5], [0.1, 0.9]]
BAD: list[tuple[Any, tuple[Any, ...], type[Exception], str]] = [
    (
        shift_prior,
        ([[0.5, 0.6]], [1, 1], [1, 1]),
        ValueError,
        "'probs' must be rows that add up to 1; got 1.1 in row 0",
    ),
    (shift_prior, ([[-1.0, 2.0]], [1, 1], [1, 1]), ValueError, r"'probs' must be probabilities in \[0, 1\]; got -1"),
    (shift_prior, ([[math.nan, 1.0]], [1, 1], [1, 1]), ValueError, "'probs' must be finite; got nan"),
    (shift_prior, ("abc", [1, 1], [1, 1]), TypeError, "'probs' must be probabilities"),
    (shift_prior, ([[[0.5]]], [1, 1], [1, 1]), ValueError, "'probs' must be probabilities of shape"),
    (shift_prior, (P, [1, 1, 1], [1, 1]), ValueError, r"'train_prior' must be of shape \(2,\)"),
    (shift_prior, (P, [0, 1], [1, 1]), ValueError, "'train_prior' must be > 0"),
    (shift_prior, (P, [1, 1], 0.5), ValueError, r"'deploy_prior' must be of shape \(2,\)"),
    (shift_prior, ([0.5], [0.5, 0.5], 0.5), TypeError, "'train_prior' must be a number, the share of positives"),
    (shift_prior, ([0.5], 1.0, 0.5), ValueError, "'train_prior' must be strictly between 0 and 1"),
    (shift_prior, ([0.5], 0.5, 1.5), ValueError, r"'deploy_prior' must be a number in \[0, 1\]"),
    (estimate_prior, ([[0.5, 0.6]], [1, 1]), ValueError, "'probs' must be rows that add up to 1"),
    (estimate_prior, (P, [1, 0]), ValueError, "'train_prior' must be > 0"),
]


@pytest.mark.parametrize(("function", "arguments", "error", "words"), BAD, ids=short)
def test_bad_values_are_refused(function: Any, arguments: tuple[Any, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{function.__name__}: {words}"):
        function(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"steps": 0}, ValueError, "'steps' must be a whole number of at least 1"),
        ({"held_out": 3}, TypeError, "'held_out' must be a pair"),
        ({"held_out": ([[0.2, 0.3, 0.5]], [0])}, ValueError, "'held_out' must be of 2 classes"),
        ({"held_out": (P, [0, 2])}, IndexError, r"'labels' must be 0 or 1; got 2 at position \(1,\)"),
        ({"held_out": (P, [0, 1, 1])}, ValueError, r"'labels' must be class numbers of shape \(2,\)"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^estimate_prior: {words}"):
        estimate_prior(P, [1, 1], **options)


def test_certain_rows_are_no_trouble() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimate_prior([[1.0, 0.0]] * 3 + [[0.0, 1.0]], [1, 1]).tolist() == pytest.approx([0.75, 0.25])
