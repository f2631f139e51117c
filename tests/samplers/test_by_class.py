"""Samplers that go by class: exact shares, cycles through the rows of a class, batches, repeats."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short

from steelyard.ops import cpu
from steelyard.samplers import (
    BalancedBatchSampler,
    ClassBalancedSampler,
    RepeatFactorSampler,
    WeightedRandomSampler,
)

LABELS = np.array([0] * 60 + [1] * 25 + [2] * 10 + [3] * 5)


def per_class(rows: Any) -> list[int]:
    return np.bincount(LABELS[np.asarray(rows)], minlength=4).tolist()


# ------------------------------------------------------------------------------------------------ ClassBalancedSampler


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


BAD = [
    ({"labels": []}, ValueError, "'labels'|'num_samples'"),
    ({"labels": [1, None]}, ValueError, "'labels' must be labels without gaps"),
    ({"labels": torch.zeros(3, 2)}, ValueError, r"'labels' must be one label per row, \(N,\)"),
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


# ------------------------------------------------------------------------------------------------ BalancedBatchSampler


SHAPES = pytest.mark.parametrize(("together", "each"), [(4, 3), (2, 5), (3, 2), (1, 7), (3, 11), (4, 60)])


@SHAPES
def test_batches_hold_so_many_classes_with_so_many_rows(together: int, each: int) -> None:
    sampler = BalancedBatchSampler(LABELS, together, each, num_batches=50, seed=0)
    assert sampler.batch_size == together * each
    for _ in range(4):
        for rows in sampler:
            assert sorted(Counter(LABELS[rows].tolist()).values()) == [each] * together
            for c in set(LABELS[rows].tolist()):
                size = int((c == LABELS).sum())
                times = Counter(row for row in rows if LABELS[row] == c)
                assert len(times) == min(each, size), "no row twice in a batch, where the class has enough"
                assert max(times.values()) - min(times.values()) <= 1


@SHAPES
def test_classes_and_rows_take_turns_over_batches_and_epochs(together: int, each: int) -> None:
    """Each class once before any comes again, and each row of a class before any comes twice: whatever divides what."""
    sampler = BalancedBatchSampler(LABELS, together, each, num_batches=7, seed=0)
    appeared, drawn = Counter(dict.fromkeys(range(4), 0)), np.zeros(100, int)
    for _ in range(60):
        for rows in sampler:
            appeared.update(set(LABELS[rows].tolist()))
            np.add.at(drawn, rows, 1)
            assert max(appeared.values()) - min(appeared.values()) <= 1
            for c in range(4):
                times = drawn[c == LABELS]
                assert times.max() - times.min() <= 1


def test_batches_on_top_for_ranks_are_none_of_another_epoch() -> None:
    parts = [list(BalancedBatchSampler(LABELS, 2, 3, num_batches=5, num_replicas=4, rank=r, seed=0)) for r in range(4)]
    on_top = [parts[rank][1] for rank in (1, 2, 3)]
    alone = BalancedBatchSampler(LABELS, 2, 3, num_batches=5, seed=0)
    assert not any(rows in on_top for _ in range(3) for rows in alone)


def test_classes_come_together_in_all_ways() -> None:
    sampler = BalancedBatchSampler(np.arange(5), 2, 1, num_batches=4000, seed=0)
    pairs = Counter(tuple(sorted(rows)) for rows in sampler)
    assert len(pairs) == 10
    assert max(pairs.values()) < 1.3 * min(pairs.values())
    first = Counter(next(iter(BalancedBatchSampler(np.arange(5), 2, 1, seed=seed)))[0] for seed in range(500))
    assert max(first.values()) < 100 + 5 * math.sqrt(80)


@pytest.mark.parametrize(("together", "each", "number"), [(2, 5, 8), (3, 2, 13), (3, 4, 5), (4, 7, 3), (1, 60, 1)])
def test_expected_of_batches_is_what_epochs_show(together: int, each: int, number: int) -> None:
    sampler = BalancedBatchSampler(LABELS, together, each, num_batches=number, seed=0)
    told, seen = [], []
    for epoch in range(300):
        before = sampler.expected(epoch)
        rows = np.concatenate(list(sampler))
        assert before.draws == tuple(map(float, per_class(rows))), "these are exact"
        told.append(before.coverage)
        seen.append(np.array(per_class(np.unique(rows))) / [60, 25, 10, 5])
    gap = np.array(seen) - told
    assert (abs(gap.mean(axis=0)) <= 5 * gap.std(axis=0) / math.sqrt(300) + 1e-12).all()
    assert (np.array(seen) < 1).any(axis=0)[0], "not all is seen in an epoch, so that there is something to tell"


def test_batches_per_epoch_are_as_many_as_the_rows_make() -> None:
    assert len(BalancedBatchSampler(LABELS, 4, 5)) == 5
    assert len(BalancedBatchSampler([0, 1], 2, 8)) == 1
    told = BalancedBatchSampler(LABELS, 2, 5, num_batches=40).expected()
    assert told.draws == (100.0,) * 4
    assert told.coverage == (1.0,) * 4
    assert told.repeats[3] == 20


BAD_BATCHES = [
    ({"labels": [0, None]}, ValueError, "'labels' must be labels without gaps"),
    ({"classes_per_batch": 0}, ValueError, "'classes_per_batch' must be 1 or more"),
    (
        {"classes_per_batch": 3},
        ValueError,
        "'classes_per_batch' must be at most 2, .*; got int 3",
    ),
    ({"samples_per_class": 0}, ValueError, "'samples_per_class' must be 1 or more"),
    ({"samples_per_class": "2"}, TypeError, "'samples_per_class' must be an integer"),
    ({"num_batches": 0}, ValueError, "'num_batches' must be 1 or more"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_BATCHES, ids=short)
def test_bad_arguments_of_balanced_batches(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^BalancedBatchSampler: {message}"):
        BalancedBatchSampler(**{"labels": [0, 1], "classes_per_batch": 2, "samples_per_class": 1, **change})


# ------------------------------------------------------------------------------------------------- RepeatFactorSampler


def test_factors_are_those_of_the_paper() -> None:
    items = [["a"]] * 90 + [["a", "b"]] * 9 + [["b", "c"]]
    sampler = RepeatFactorSampler(items, 0.4, seed=0)
    b, c = math.sqrt(0.4 / 0.1), math.sqrt(0.4 / 0.01)
    assert sampler.repeat_factors.tolist() == pytest.approx([1.0] * 90 + [b] * 9 + [c])
    assert sampler.num_samples == math.ceil(90 + 9 * b + c)
    assert torch.equal(sampler.weights, sampler.repeat_factors)


FACTORS = {
    "mixed": ([["a"]] * 90 + [["a", "b"]] * 9 + [["b", "c"]] + [[]], 0.4),
    "a sum just above a whole number": ([["a"]] * 92 + [["b"]] * 8, 0.0833),
    "whole factors": ([["a"]] * 84 + [["b"]] * 16, 0.64),
    "a factor that rounding leaves below a whole number": ([["a"]] * 74 + [["b"]] * 1, 0.12),
    "nothing is rare": ([["a"]] * 5, 0.5),
    "one item": ([["a"]], 1.0),
    "all fractions": ([[i % 7] for i in range(100)], 0.35),
}


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize(("items", "threshold"), FACTORS.values(), ids=FACTORS)
def test_every_item_comes_and_rare_ones_more_often(items: list[Any], threshold: float, name: str) -> None:
    n, epochs = len(items), 600
    with cpu.using(name):
        sampler = RepeatFactorSampler(items, threshold, seed=0)
        found = np.array([np.bincount(list(sampler), minlength=n) for _ in range(epochs)])
    factors = sampler.repeat_factors.numpy()
    whole = np.round(factors) if np.allclose(factors, np.round(factors), rtol=0, atol=1e-9) else factors
    assert sampler.num_samples == math.ceil(math.fsum(whole) - 1e-9)
    assert (found.sum(axis=1) == sampler.num_samples).all()
    assert (found >= np.floor(whole)).all(), "every item at least so often, in every epoch"
    above = np.maximum(found - np.ceil(whole), 0)
    assert above.sum(axis=1).max() <= 1, "and at most one draw on top of what they may have"
    gap = sampler.num_samples - math.fsum(whole)  # the part of a draw that is on top
    assert above.sum() <= epochs * gap + 5 * math.sqrt(epochs * gap) + 1e-9
    mean = whole * sampler.num_samples / math.fsum(whole)
    spread = np.sqrt((whole % 1) * (1 - whole % 1) + 2 * gap * whole / whole.sum())
    assert (abs(found.mean(axis=0) - mean) <= 5.5 * spread / math.sqrt(epochs) + 1e-9).all()
    told = sampler.expected()
    for c, kind in enumerate(told.classes):
        holds = np.array([kind in item for item in items])
        assert told.rows[c] == holds.sum()
        assert told.draws[c] == pytest.approx(mean[holds].sum())
        assert told.coverage[c] == 1.0


def test_rounding_up_ties_no_two_items_to_each_other() -> None:
    sampler = RepeatFactorSampler([[i] for i in range(16)], 0.1, seed=0)  # r = √1.6 for all
    found = np.array([np.bincount(list(sampler), minlength=16) > 1 for _ in range(3000)], float)
    together = (found.T @ found / 3000)[np.triu_indices(16, 1)]
    share = (sampler.num_samples - 16) / 16
    assert abs(together - share * (share * 16 - 1) / 15).max() < 0.03


def test_the_order_of_classes_does_not_hang_on_hashes() -> None:
    code = """if True:
        from steelyard.samplers import RepeatFactorSampler
        print(RepeatFactorSampler([["dog", "cat", "owl"], ["ape", "cat"]]).classes)
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in "012"
    }
    assert said == {"['dog', 'cat', 'owl', 'ape']\n"}


def test_the_forms_of_labels_agree() -> None:
    array = np.random.default_rng(0).random((50, 4)) < [0.9, 0.3, 0.05, 0.02]
    lists = [np.flatnonzero(row).tolist() for row in array]
    wanted = RepeatFactorSampler(lists, 0.2).repeat_factors
    for form in (
        array,
        torch.from_numpy(array),
        array.astype(float),
        [set(row) for row in lists],
        [torch.tensor(r) for r in lists],
    ):
        assert torch.equal(RepeatFactorSampler(form, 0.2).repeat_factors, wanted)
    twice = [row + row for row in lists]
    assert torch.equal(RepeatFactorSampler(twice, 0.2).repeat_factors, wanted), "a label twice in an item is one"


BAD_FACTORS = [
    ({"labels_per_item": []}, ValueError, "'labels_per_item' must be the labels of at least one item; got none"),
    ({"labels_per_item": ["cat"]}, TypeError, "'labels_per_item' must be .* for item 0. An item with one label"),
    ({"labels_per_item": [0, 1]}, TypeError, "'labels_per_item' must be .* got int 0 for item 0"),
    ({"labels_per_item": [[["a"]]]}, TypeError, "'labels_per_item' must be labels that can be counted: .* for item 0"),
    ({"labels_per_item": "cat"}, TypeError, "'labels_per_item' must be the labels of each item"),
    ({"labels_per_item": torch.ones(3)}, TypeError, "'labels_per_item' must be the labels of each item"),
    ({"labels_per_item": [[0, 1]] * 2, "threshold": 0.0}, ValueError, "'threshold' must be above zero"),
    ({"labels_per_item": torch.tensor([[0, 2]])}, ValueError, r"'labels_per_item' must be zeros .* 2 at"),
    ({"threshold": 2.0}, ValueError, r"'threshold' must be a number in \[0, 1\]"),
    ({"threshold": None}, TypeError, r"'threshold' must be a number in \[0, 1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_FACTORS, ids=short)
def test_bad_arguments_of_repeat_factor(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^RepeatFactorSampler: {message}"):
        RepeatFactorSampler(**{"labels_per_item": [["a"]], **change})


@pytest.mark.parametrize(
    ("kind", "bad"),
    [(ClassBalancedSampler, BAD), (BalancedBatchSampler, BAD_BATCHES), (RepeatFactorSampler, BAD_FACTORS)],
)
def test_every_argument_has_a_row_of_bad_values(kind: type, bad: list[Any]) -> None:
    here = {name for change, *_ in bad for name in change}
    elsewhere = {"generator", "num_replicas", "rank", "seed"}  # of all samplers: test_epochs
    assert here | elsewhere == set(inspect.signature(kind).parameters)
