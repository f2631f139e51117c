"""The decision of least expected cost: by hand, by brute force, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from steelyard.posterior import bayes_decision, shift_prior

ALARM = [[0.0, 1.0], [50.0, 0.0]]


def test_a_miss_that_costs_fifty_false_alarms_moves_the_cut_off_to_one_in_fifty_one() -> None:
    assert bayes_decision([1 / 51 - 1e-9, 1 / 51 + 1e-9], ALARM).tolist() == [0, 1]
    assert bayes_decision([[0.99, 0.01], [0.97, 0.03]], ALARM).tolist() == [0, 1]


def test_no_other_decision_costs_less() -> None:
    rng = np.random.default_rng(0)
    for classes, decisions in ((2, 2), (3, 5), (6, 2), (4, 1)):
        p, cost = rng.dirichlet(np.ones(classes), 50), rng.normal(size=(classes, decisions))
        found = bayes_decision(p, cost)
        for row, decided in zip(p, found, strict=True):
            expected = [sum(row[c] * cost[c, d] for c in range(classes)) for d in range(decisions)]
            assert expected[decided] == pytest.approx(min(expected))


def test_equal_costs_of_error_decide_for_the_most_probable_class_and_equals_for_the_first() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), 30)
    assert (bayes_decision(p, 1.0 - np.eye(4)) == p.argmax(axis=1)).all()
    assert bayes_decision([0.5], [[0.0, 1.0], [1.0, 0.0]]).tolist() == [0]


def test_costs_that_depend_on_the_class_alone_change_nothing_and_gains_are_negative_costs() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    cost = np.random.default_rng(1).normal(size=(3, 3))
    moved = cost + np.array([[5.0], [-7.0], [100.0]])
    assert (bayes_decision(p, moved) == bayes_decision(p, cost)).all()
    assert (bayes_decision(p, -np.eye(3)) == p.argmax(axis=1)).all()


def test_class_costs_and_shares_trade_against_each_other() -> None:
    """A miss that costs k times as much decides as a class that is k times as frequent."""
    p = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    cost = (1.0 - np.eye(3)) * np.array([[1.0], [5.0], [20.0]])
    assert (bayes_decision(p, cost) == shift_prior(p, [1, 1, 1], [1, 5, 20]).argmax(axis=1)).all()


def test_a_third_decision_is_taken_where_one_is_unsure() -> None:
    ask = [[0.0, 1.0, 0.2], [1.0, 0.0, 0.2]]
    assert bayes_decision([0.1, 0.5, 0.9], ask).tolist() == [0, 2, 1]


def test_a_tensor_gives_an_integer_tensor() -> None:
    found = bayes_decision(torch.tensor([0.01, 0.9]), torch.tensor(ALARM))
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("probs", "cost", "error", "words"),
    [
        ([[0.5, 0.5]], [[0.0, 1.0]], ValueError, r"'cost' must be of shape \(2, D\), cost\[true class, decision\]"),
        ([0.5], np.zeros((3, 3)), ValueError, r"'cost' must be of shape \(2, D\)"),
        ([0.5], [0.0, 1.0], ValueError, r"'cost' must be of shape \(2, D\)"),
        ([0.5], np.zeros((2, 0)), ValueError, r"'cost' must be of shape \(2, D\)"),
        ([0.5], [[0.0, math.inf], [1.0, 0.0]], ValueError, r"'cost' must be finite; got inf at position \(0, 1\)"),
        ([0.5], "cheap", TypeError, "'cost' must be numbers of shape"),
        ([[0.5, 0.6]], ALARM, ValueError, "'probs' must be rows that add up to 1"),
        ([1.5], ALARM, ValueError, r"'probs' must be probabilities in \[0, 1\]"),
        (None, ALARM, TypeError, "'probs' must be probabilities"),
    ],
)
def test_bad_values_are_refused(probs: Any, cost: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^bayes_decision: {words}"):
        bayes_decision(probs, cost)
