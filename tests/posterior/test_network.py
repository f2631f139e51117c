"""A small network under each loss, on simulated data whose p(y | x) is known: its posterior is as good as plain ones.

Raw, a bent network's log loss is far off; through ``posterior`` it is within 2 % of the plainly trained one's. Log loss
is exact here: the mean over rows of Σ_y p(y | x)·(−log q_y), with no labels drawn for the test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard import nn
from steelyard.posterior import posterior
from steelyard.weights import class_weights

PRIOR = torch.tensor([0.90, 0.08, 0.02])
CENTRES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 2.0]])


def known_posterior(x: Tensor) -> Tensor:
    """p(y | x) of a mixture of Gaussians of unit variance."""
    distance = ((x[:, None] - CENTRES) ** 2).sum(2)
    return (PRIOR.log() - 0.5 * distance).softmax(1)


def draw(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.multinomial(PRIOR, rows, replacement=True, generator=g)
    return CENTRES[y] + torch.randn(rows, 2, generator=g), y


X, Y = draw(20_000, 0)
TEST = draw(20_000, 1)[0]
TRUE = known_posterior(TEST).double()
COUNTS = torch.bincount(Y)
WEIGHT = class_weights(COUNTS, "balanced", normalize="prior")


def trained(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor = X, target: Tensor = Y) -> Tensor:
    """Logits on the test rows of a network with 16 hidden units, trained on all rows at once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=120, history_size=20, line_search_fn="strong_wolfe")
    inputs = x.double()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model(inputs), target)
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        return model(TEST.double())


def log_loss(q: Tensor, p: Tensor = TRUE) -> float:
    return float(-(p * q.log()).sum(1).mean())


@pytest.fixture(scope="module")
def plain() -> float:
    reached = log_loss(trained(nn.CrossEntropyLoss()).softmax(1))
    assert reached == pytest.approx(log_loss(TRUE), rel=0.01)  # the network can fit the truth
    return reached


LOSSES: dict[str, Any] = {
    "weights": lambda: nn.CrossEntropyLoss(weight=WEIGHT),
    "weights and smoothing": lambda: nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.05, smooth_weight="target"),
    "smoothing": lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
    "focal": lambda: nn.FocalLoss(gamma=2.0),
    "focal and weights": lambda: nn.FocalLoss(gamma=1.0, weight=WEIGHT),
    "balanced softmax": lambda: nn.BalancedSoftmaxLoss(COUNTS),
    "logit adjustment": lambda: nn.LogitAdjustedLoss(COUNTS, tau=0.7),
    "LDAM": lambda: nn.LDAMLoss(COUNTS, max_margin=0.5, scale=4.0),
    "PyTorch's weights": lambda: torch.nn.CrossEntropyLoss(weight=WEIGHT.double()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_trained_network_is_undone(name: str, plain: float) -> None:
    loss = LOSSES[name]().double()
    logits = trained(loss)
    raw, undone = log_loss(logits.softmax(1)), log_loss(posterior(logits, loss))
    assert raw > 1.1 * plain
    assert undone == pytest.approx(plain, rel=0.02)


def test_a_network_that_saw_classes_equally_often_is_undone(plain: float) -> None:
    g = torch.Generator().manual_seed(2)
    drawn = torch.multinomial((1.0 / COUNTS)[Y], len(Y), replacement=True, generator=g)
    loss = nn.CrossEntropyLoss()
    logits = trained(loss, X[drawn], Y[drawn])
    assert log_loss(logits.softmax(1)) > 1.5 * plain
    assert log_loss(loss.posterior(logits, COUNTS, train_prior=[1, 1, 1])) == pytest.approx(plain, rel=0.02)


ELEMENTS: dict[str, Any] = {
    "pos_weight": lambda: nn.BCEWithLogitsLoss(pos_weight=[1.0, 11.5, 49.0]),
    "focal": lambda: nn.SigmoidFocalLoss(alpha=0.25, gamma=2.0),
    "asymmetric": lambda: nn.AsymmetricLoss(gamma_neg=2.0, gamma_pos=0.5, clip=0.0),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_a_trained_network_for_elements_is_undone(name: str) -> None:
    yes = torch.nn.functional.one_hot(Y, 3).double()
    pair = torch.stack([TRUE, 1 - TRUE], dim=2).reshape(-1, 2)

    def binary(q: Tensor) -> float:
        return log_loss(torch.stack([q, 1 - q], dim=2).reshape(-1, 2), pair)

    base = binary(trained(nn.BCEWithLogitsLoss(), target=yes).sigmoid())
    loss = ELEMENTS[name]().double()
    logits = trained(loss, target=yes)
    assert binary(logits.sigmoid()) > 1.1 * base
    assert binary(loss.posterior(logits)) == pytest.approx(base, rel=0.02)
