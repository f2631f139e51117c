"""ClassBalancedSampler: exact shares, and cycles through the rows of a class."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short
from torch.utils.data import TensorDataset

from steelyard.samplers import (
    BalancedBatchSampler,
    ClassBalancedSampler,
    WeightedRandomSampler,
)

LABELS = np.array([0] * 60 + [1] * 25 + [2] * 10 + [3] * 5)


def per_class(rows: Any) -> list[int]:
    return np.bincount(LABELS[np.asarray(rows)], minlength=4).tolist()


def test_each_class_gets_its_exact_share() -> None:
    sampler = ClassBalancedSampler(LABELS, 80, seed=0)
    for _ in range(5):
        assert per_class(list(sampler)) == [20, 20, 20, 20]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.3])
def test_power_goes_from_the_natural_shares_to_equal_ones(power: float) -> None:
    counts = np.array([60, 25, 10, 5])
    share = counts ** (1 - power) / (counts ** (1 - power)).sum()
    sampler = ClassBalancedSampler(LABELS, 77, power, seed=0)
    assert np.allclose(sampler.shares(0), share)
    found = np.array([per_class(list(sampler)) for _ in range(200)])
    assert (abs(found - 77 * share) < 1).all(), "to within one, in every epoch"
    assert (found.sum(axis=1) == 77).all()
    assert np.allclose(found.mean(axis=0), 77 * share, atol=5 * 0.5 / math.sqrt(200)), "and exact on average"


def test_many_rare_classes_take_turns_in_being_drawn() -> None:
    """With half a draw for each class: all of them in the long run, and no two tied to each other."""
    labels = np.arange(40)
    sampler = ClassBalancedSampler(labels, 20, seed=0)
    held = np.zeros((600, 40), bool)
    for epoch in range(600):
        held[epoch, list(sampler)] = True
    assert abs(held.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(600)
    together = (held.T.astype(float) @ held / 600)[np.triu_indices(40, 1)]
    assert together.min() > 0.05
    assert together.max() < 0.45


def test_a_class_gives_all_its_rows_before_any_comes_twice() -> None:
    sampler = ClassBalancedSampler(LABELS, 80, seed=0)
    drawn: Counter[int] = Counter()
    for _ in range(9):
        drawn.update(sampler)
        for c in range(4):
            times = [drawn[row] for row in np.flatnonzero(c == LABELS).tolist()]
            assert max(times) - min(times) <= 1, "across epochs too"


def test_cycles_come_in_other_orders() -> None:
    sampler = ClassBalancedSampler([0] * 8, 8, seed=0)
    orders = {tuple(sampler) for _ in range(10)}
    assert len(orders) == 10
    assert all(sorted(order) == list(range(8)) for order in orders)


def test_classes_have_orders_of_their_own() -> None:
    rows = list(ClassBalancedSampler([0] * 12 + [1] * 12, seed=0))
    first, second = ([row % 12 for row in rows if row // 12 == c] for c in (0, 1))
    assert sorted(first) == sorted(second)
    members = ClassBalancedSampler([0] * 12 + [1] * 12, seed=0)._members
    cycles = [members.cycling(0, np.full(12, c), np.arange(12), np.full(12, 12)) % 12 for c in (0, 1)]
    assert cycles[0].tolist() != cycles[1].tolist()


@pytest.mark.parametrize("labels", [[0, 2, 0, 1], ["b", "a", "b", "b"]])
def test_samplers_know_the_labels(labels: list[Any]) -> None:
    assert ClassBalancedSampler(labels).labels.tolist() == labels
    assert BalancedBatchSampler(labels, 1, 1).labels.tolist() == labels
    assert WeightedRandomSampler([1.0] * 4, 2, labels=labels).labels.tolist() == labels
    assert WeightedRandomSampler([1.0] * 4, 2).labels is None


def test_a_schedule_grows_from_natural_to_balanced() -> None:
    sampler = ClassBalancedSampler(LABELS, 100, schedule=4, seed=0)
    natural = np.array([0.6, 0.25, 0.1, 0.05])
    for epoch in range(7):
        part = min(epoch / 4, 1)
        wanted = (1 - part) * natural + part * 0.25
        assert np.allclose(sampler.shares(epoch), wanted)
        assert (abs(np.array(per_class(list(sampler))) - 100 * wanted) < 1 + 1e-9).all()
    assert sampler.expected(0).draws == (60, 25, 10, 5)
    assert sampler.expected(4).draws == pytest.approx((25,) * 4)


def cosine(epoch: int) -> float:
    return (1 - math.cos(math.pi * min(epoch / 10, 1))) / 2


def test_a_schedule_may_be_a_function() -> None:
    sampler = ClassBalancedSampler(LABELS, 100, schedule=cosine, seed=0)
    assert np.allclose(sampler.shares(5), (np.array([0.6, 0.25, 0.1, 0.05]) + 0.25) / 2)
    bad = ClassBalancedSampler(LABELS, 100, schedule=lambda epoch: 2.0, seed=0)
    with pytest.raises(ValueError, match=r"^ClassBalancedSampler: 'schedule' must be a number in \[0, 1\]; got 2\.0"):
        list(bad)


@pytest.mark.parametrize("num_samples", [100, 37])
def test_expected_by_class_is_what_epochs_show(num_samples: int) -> None:
    sampler = ClassBalancedSampler(LABELS, num_samples, 0.5, seed=0)
    told, seen = [], []
    for epoch in range(400):
        told.append(sampler.expected().coverage)
        rows = list(sampler)
        seen.append(np.array(per_class(np.unique(rows))) / [60, 25, 10, 5])
        assert sampler.expected(epoch).draws == tuple(map(float, per_class(rows)))
    gap = np.array(seen) - told
    assert (abs(gap.mean(axis=0)) <= 5 * gap.std(axis=0) / 20 + 1e-12).all()
    assert gap.std() < 0.1


def test_expected_is_exact_where_the_cycles_end_with_the_epoch() -> None:
    told = ClassBalancedSampler(LABELS, power=0.0, seed=0).expected(7)
    assert told.draws == (60.0, 25.0, 10.0, 5.0)
    assert told.coverage == (1.0,) * 4


def test_labels_may_be_words_and_need_not_be_in_order() -> None:
    words = np.array(["dog", "cat", "owl"])[np.random.default_rng(0).integers(0, 3, 90)]
    sampler = ClassBalancedSampler(words.tolist(), 60, seed=0)
    assert sorted(sampler.classes) == ["cat", "dog", "owl"]
    assert Counter(words[list(sampler)].tolist()) == {"cat": 20, "dog": 20, "owl": 20}
    gaps = ClassBalancedSampler([5, 1000, 5, 5], seed=0)
    assert gaps.classes == [5, 1000]
    assert sorted(gaps)[2:] == [1, 1] or sorted(gaps).count(1) == 2


@pytest.mark.parametrize("power", [40.0, 400.0])
def test_a_power_may_be_extreme(power: float) -> None:
    """1/n to such a power is no number any more; its ratios are."""
    sampler = ClassBalancedSampler(LABELS, 50, power, seed=0)
    assert sampler.shares(0).tolist() == pytest.approx([0, 0, 0, 1], abs=1e-9)
    assert set(LABELS[list(sampler)].tolist()) == {3}


def test_settings_that_are_changed_later_count_from_the_first_epoch_on() -> None:
    sampler, other = ClassBalancedSampler(LABELS, 30, seed=0), ClassBalancedSampler(LABELS, 30, 0.5, seed=0)
    for _ in range(5):
        list(sampler)
    sampler.power = 0.5
    other.set_epoch(5)
    assert list(sampler) == list(other)


@pytest.mark.parametrize(
    "kind",
    [lambda y: ClassBalancedSampler(y, 9, seed=0), lambda y: BalancedBatchSampler(y, 2, 2, num_batches=9, seed=0)],
)
def test_a_state_of_other_labels_is_refused(kind: Any) -> None:
    labels = LABELS.copy()
    state = kind(labels).state_dict()
    kind(labels.tolist()).load_state_dict(state)
    labels[[0, -1]] = labels[[-1, 0]]
    with pytest.raises(ValueError, match=r"with the same labels; got one with other labels\. With other labels, a run"):
        kind(labels).load_state_dict(state)


def test_a_late_epoch_needs_no_replay_of_draws() -> None:
    sampler, other = (ClassBalancedSampler(LABELS, 81, seed=0) for _ in range(2))
    for _ in range(30):
        last = list(sampler)
    other.set_epoch(29)
    assert list(other) == last


@pytest.mark.parametrize("make", [ClassBalancedSampler, lambda labels: BalancedBatchSampler(labels, 2, 1)])
def test_rows_that_losses_ignore_are_pointed_out(make: Any) -> None:
    with pytest.warns(
        UserWarning, match="BalancedSampler|BalancedBatch.*: the label -100, first at position 2, is drawn"
    ):
        make([0, 1, -100, 1, -100])
    make([-100] * 3 if make is ClassBalancedSampler else [0, 1])  # a warning would be an error


BAD = [
    ({"labels": []}, ValueError, "'labels'|'num_samples'"),
    ({"labels": [1, None]}, ValueError, "'labels' must be labels without gaps"),
    ({"labels": torch.zeros(3, 2)}, ValueError, r"'labels' must be one label per row, \(N,\)"),
    (
        {"labels": [0.0, 0.5, 1.0]},
        ValueError,
        r"'labels' must be whole numbers .*; got 0\.5 at position 1\. A number that",
    ),
    ({"labels": TensorDataset(torch.arange(2))}, TypeError, r"'labels' must be a tensor, .* Give the label of each of"),
    ({"num_samples": 0}, ValueError, "'num_samples' must be 1 or more"),
    ({"num_samples": 1.5}, TypeError, "'num_samples' must be an integer"),
    ({"power": -0.5}, ValueError, "'power' must be a number in"),
    ({"power": "1"}, TypeError, "'power' must be a number in"),
    ({"schedule": 0}, ValueError, "'schedule' must be 1 or more"),
    ({"schedule": 2.5}, TypeError, "'schedule' must be a number of epochs, a function of the epoch, or None"),
    ({"schedule": True}, TypeError, "'schedule' must be a number of epochs"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=short)
def test_bad_arguments_of_class_balanced(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^ClassBalancedSampler: ({message})"):
        ClassBalancedSampler(**{"labels": [0, 1], **change})


def test_every_argument_has_a_row_of_bad_values() -> None:
    here = {name for change, *_ in BAD for name in change}
    elsewhere = {"generator", "num_replicas", "rank", "seed"}  # of all samplers: test_epochs
    assert here | elsewhere == set(inspect.signature(ClassBalancedSampler).parameters)
