"""The model: features fitted on training rows only, early stopping, the caller's random state and threads untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import steelyard.nn
from steelyard.compare import STRATEGIES, network, preprocessor
from steelyard.compare import run as run_module
from steelyard.compare.splits import make_splits
from steelyard.compare.table import load
from steelyard.compare.train import Recipe, fit, logits, quiet_threads
from steelyard.posterior import TunedThreshold


def blobs(rows: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(rows, generator=generator) < 0.2).long()
    return torch.randn(rows, 3, generator=generator) + 2 * y[:, None], y


def test_preprocessing_fills_flags_scales_and_knows_unseen_categories() -> None:
    train = pl.DataFrame({"x": [1.0, None, 3.0, 8.0], "c": ["a", "a", "b", "b"]})
    prepare = preprocessor(train)
    prepare.set_params(categories__min_frequency=1).fit(train)
    test = pl.DataFrame({"x": [None, 100.0], "c": ["b", "never seen"]})
    out = prepare.transform(test)
    filled = np.array([1, 3, 3, 8])  # the median of 1, 3, 8 stands in
    assert out[:, 0] == pytest.approx((np.array([3, 100]) - filled.mean()) / filled.std())
    assert out[0, 1] > 0 > out[1, 1]  # missing or not, scaled
    assert out[:, 2:].tolist() == [[0, 1], [0, 0]]


def test_what_is_fitted_depends_on_the_training_part_only(monkeypatch: pytest.MonkeyPatch, frame: pl.DataFrame) -> None:
    """Each preprocessor that a comparison fits has seen the training rows of its split, and no others."""
    table = load(frame, "kind")
    splits = make_splits(table.target, table.groups, table.words, folds=3, repeats=1)
    seen: list[pl.DataFrame] = []

    class Watched:
        def __init__(self, features: pl.DataFrame) -> None:
            self.inner = preprocessor(features)

        def fit(self, rows: pl.DataFrame) -> Watched:
            seen.append(rows)
            self.inner.fit(rows)
            return self

        def transform(self, rows: pl.DataFrame) -> np.ndarray:
            return self.inner.transform(rows)

    monkeypatch.setattr(run_module, "preprocessor", Watched)
    recipe = Recipe(epochs=1)
    run_module.run_splits(table, splits, ["none", "threshold"], metric="macro_f1", recipe=recipe, seed=0)
    assert len(seen) == 3
    for split, rows in zip(splits, seen, strict=True):
        assert rows.equals(table.features[split.train])


def test_cutoffs_are_tuned_on_validation_rows(monkeypatch: pytest.MonkeyPatch, frame: pl.DataFrame) -> None:
    table = load(frame, "kind")
    splits = make_splits(table.target, table.groups, table.words, folds=3, repeats=1)
    seen = []

    fixed = TunedThreshold("multiclass", "macro_f1", np.array([0.9, 0.05, 0.05]), 0.5, np.array([9, 9, 9]))

    def watched(probabilities: np.ndarray, target: np.ndarray, metric: str, **_: Any) -> TunedThreshold:
        seen.append((len(probabilities), target, metric))
        return fixed

    monkeypatch.setattr(run_module, "tune_threshold", watched)
    strategies, recipe = ["none", "threshold"], Recipe(epochs=1)
    outcomes = run_module.run_splits(table, splits, strategies, metric="macro_f1", recipe=recipe, seed=0)
    for split, (rows, target, metric) in zip(splits, seen, strict=True):
        assert (rows, metric) == (len(split.validation), "macro_f1")
        assert target.tolist() == table.target[split.validation].tolist()
    assert outcomes[1].thresholds == [fixed] * 3
    assert outcomes[0].thresholds == []
    assert outcomes[1].scores[0]["recall"] != outcomes[0].scores[0]["recall"]  # the cut-offs decide


def test_training_learns_and_goes_back_to_its_best_epoch() -> None:
    x, y = blobs()
    loss = steelyard.nn.CrossEntropyLoss()
    found = fit((x[:200], y[:200]), (x[200:], y[200:]), 2, loss, recipe=Recipe(epochs=40, patience=3), seed=1)
    assert found.validation_loss < 0.35
    assert 1 <= found.best_epoch <= found.epochs <= 40
    assert float(loss(logits(found.model, x[200:]), y[200:])) == pytest.approx(found.validation_loss)


def test_early_stopping_waits_as_long_as_it_says() -> None:
    """A validation loss that only rises: the first epoch is kept, and ``patience`` more are tried."""
    x, y = blobs()
    rising = iter(range(100))
    found = fit(
        (x, y), (x, y), 2, steelyard.nn.CrossEntropyLoss(),
        validation_loss=lambda z, t: torch.tensor(float(next(rising))), recipe=Recipe(epochs=50, patience=4),
    )  # fmt: skip
    assert (found.best_epoch, found.epochs) == (1, 5)


def test_a_training_that_diverges_says_so() -> None:
    x, y = blobs()
    with pytest.raises(FloatingPointError, match="diverged in epoch 1"):
        fit((x * float("inf"), y), (x, y), 2, steelyard.nn.CrossEntropyLoss(), recipe=Recipe(epochs=2))


def test_the_same_seed_gives_the_same_network_and_the_global_generator_stays() -> None:
    x, y = blobs()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loss = steelyard.nn.CrossEntropyLoss()
    weights = torch.ones(len(x))
    for row_weights in (None, weights):
        one, two, other = (
            fit((x, y), (x, y), 2, loss, recipe=Recipe(epochs=2), seed=seed, row_weights=row_weights)
            for seed in (7, 7, 8)
        )
        assert torch.equal(logits(one.model, x), logits(two.model, x))
        assert not torch.equal(logits(one.model, x), logits(other.model, x))
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_draws_by_weight() -> None:
    """Rows of weight zero are never seen: a network trained on the other class alone always answers it."""
    x, y = blobs()
    loss = steelyard.nn.CrossEntropyLoss()
    found = fit((x, y), (x, y), 2, loss, validation_loss=lambda z, t: -z[:, 1].mean(), row_weights=(y == 1).float(),
                recipe=Recipe(epochs=5))  # fmt: skip
    assert (logits(found.model, x).argmax(1) == 1).all()


@pytest.mark.parametrize(("rows", "size"), [(10, 32), (1000, 84), (12_000, 1000), (10**6, 1024)])
def test_batch_size(rows: int, size: int) -> None:
    assert Recipe().batch_size(rows) == size


def test_threads_are_put_back_even_after_an_error() -> None:
    torch.set_num_threads(2)
    inside = []

    def fail() -> None:
        with quiet_threads(1):
            inside.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    after = torch.get_num_threads()
    torch.set_num_threads(1)
    assert (inside, after) == ([1], 2)


def test_a_sampler_is_watched_by_the_loss_that_it_aims_at() -> None:
    """Validation rows are not resampled: there, weights stand for how often a class is drawn."""
    training = STRATEGIES["sampling"].training(torch.tensor([90, 10]))
    assert training.validation_loss is not None
    assert training.class_sampling is not None
    assert training.validation_loss.weight.tolist() == training.class_sampling.tolist()
    assert float(training.class_sampling[1] / training.class_sampling[0]) == pytest.approx(9)
    assert training.loss.weight is None


# What each remedy's training aims at, and the way back: start from known probabilities, bend, undo.

TRUTH = torch.tensor([[0.90, 0.08, 0.02], [0.2, 0.5, 0.3]], dtype=torch.float64)
COUNTS = torch.tensor([800, 150, 50])
PRIOR = COUNTS.double() / COUNTS.sum()


def test_logit_adjustment_says_what_would_be_if_classes_were_alike() -> None:
    strategy = STRATEGIES["logit_adjustment"]
    training = strategy.training(COUNTS)
    said = strategy.probabilities(TRUTH.log(), PRIOR, training)
    torch.testing.assert_close(said, (TRUTH / PRIOR) / (TRUTH / PRIOR).sum(1, keepdim=True))
    torch.testing.assert_close(training.posterior(TRUTH.log(), COUNTS), TRUTH)


@pytest.mark.parametrize("name", STRATEGIES)
def test_undoing_gives_the_truth_back_from_what_training_ends_at(name: str) -> None:
    """Gradient descent on the expected loss of each remedy's own loss, until it stands; then undo."""
    strategy = STRATEGIES[name]
    training = strategy.training(COUNTS)
    loss = training.loss.double()
    truth = TRUTH
    if training.class_sampling is not None:  # what a sampler shows: p(c|x) times how much more often c is drawn
        seen = TRUTH * training.class_sampling.double()
        truth = seen / seen.sum(1, keepdim=True)
    z = torch.zeros_like(TRUTH, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16)

    def expected() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for c in range(3):
            for row in range(2):
                weight = getattr(loss, "weight", None)
                scale = 1.0 if weight is None else float(weight[c])  # the mean of one row cancels its weight
                total = total + truth[row, c] * scale * loss(z[row : row + 1], torch.tensor([c]))
        total.backward()
        return total

    optimizer.step(expected)
    assert torch.allclose(training.posterior(z.detach(), COUNTS), TRUTH, atol=1e-6)
    said = strategy.probabilities(z.detach(), PRIOR, training)
    assert torch.allclose(said, TRUTH, atol=1e-3) == (not strategy.bends)


def test_network_shape() -> None:
    assert network(5, 3, hidden=8)(torch.zeros(2, 5)).shape == (2, 3)
