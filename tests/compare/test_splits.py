"""Splits: groups stay together, classes spread alike, every row is tested once, and hopeless data is refused."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.compare import InputError, make_splits


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 500, 1500)
    label_of_group = rng.choice(3, 500, p=[0.85, 0.1, 0.05])
    return label_of_group[groups], groups


NAMES = ("a", "b", "c")


def test_groups_stay_on_one_side(data: tuple[np.ndarray, np.ndarray]) -> None:
    target, groups = data
    for split in make_splits(target, groups, NAMES):
        parts = [set(groups[rows]) for rows in (split.train, split.validation, split.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]


def test_every_row_is_in_one_part_and_tested_once_per_repeat(data: tuple[np.ndarray, np.ndarray]) -> None:
    target, groups = data
    splits = make_splits(target, groups, NAMES, folds=4, repeats=3)
    assert [(s.repeat, s.fold) for s in splits] == [(r, f) for r in range(3) for f in range(4)]
    for split in splits:
        together = np.concatenate([split.train, split.validation, split.test])
        assert sorted(together) == list(range(len(target)))
    for repeat in range(3):
        for part in ("test", "validation"):
            rows = np.concatenate([getattr(s, part) for s in splits if s.repeat == repeat])
            assert sorted(rows) == list(range(len(target)))


def test_classes_have_about_the_same_share_in_every_part(data: tuple[np.ndarray, np.ndarray]) -> None:
    target, groups = data
    share = np.bincount(target) / len(target)
    for split in make_splits(target, groups, NAMES):
        for rows in (split.train, split.validation, split.test):
            assert np.abs(np.bincount(target[rows], minlength=3) / len(rows) - share).max() < 0.02


def test_repeats_differ_and_seeds_repeat(data: tuple[np.ndarray, np.ndarray]) -> None:
    target, groups = data
    first, again, other = (make_splits(target, groups, NAMES, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].test, other[0].test)
    assert not np.array_equal(first[0].test, first[5].test)


def test_test_ratio_counts_validation_as_learnt_from() -> None:
    splits = make_splits(np.arange(100) % 2, np.arange(100), ("a", "b"), folds=5, repeats=1)
    assert [s.test_ratio for s in splits] == [0.25] * 5


def test_every_part_has_every_class_even_with_as_few_groups_as_folds() -> None:
    target = np.r_[np.zeros(95, dtype=np.int64), np.ones(5, dtype=np.int64)]
    for split in make_splits(target, np.arange(100), ("a", "b"), folds=5, repeats=4):
        for rows in (split.train, split.validation, split.test):
            assert set(target[rows]) == {0, 1}


def test_a_class_with_fewer_groups_than_folds_is_named_with_its_rows() -> None:
    target = np.r_[np.zeros(50, dtype=np.int64), np.ones(12, dtype=np.int64)]
    groups = np.r_[np.arange(50), np.full(12, 99)]  # twelve copies of one row
    with pytest.raises(InputError, match=r"at least 5 groups .* got 1 for class 'b' \(12 rows in all\)"):
        make_splits(target, groups, ("a", "b"))


def test_groups_too_coarse_for_the_folds_are_refused() -> None:
    """Each class is in five groups, but one group holds four of them all: no five folds can each have all classes."""
    groups = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 5, 6, 7, 8, 9, 9])
    target = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    groups[10:] = [4, 4, 5, 5, 5]  # class 2 has two groups only
    with pytest.raises(InputError, match="class 'c'"):
        make_splits(target, groups, NAMES)


def test_one_row_is_not_called_rows() -> None:
    target = np.r_[np.zeros(50, dtype=np.int64), 1]
    with pytest.raises(InputError, match=r"class 'b' \(1 row in all\)"):
        make_splits(target, np.arange(51), ("a", "b"))
