"""BalancedBatchSampler: batches of a few classes, which take turns, as their rows do."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from case_names import short

from steelyard.samplers import BalancedBatchSampler

LABELS = np.array([0] * 60 + [1] * 25 + [2] * 10 + [3] * 5)


def per_class(rows: Any) -> list[int]:
    return np.bincount(LABELS[np.asarray(rows)], minlength=4).tolist()


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


def test_every_argument_has_a_row_of_bad_values() -> None:
    here = {name for change, *_ in BAD_BATCHES for name in change}
    elsewhere = {"generator", "num_replicas", "rank", "seed"}  # of all samplers: test_epochs
    assert here | elsewhere == set(inspect.signature(BalancedBatchSampler).parameters)
