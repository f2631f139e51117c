"""Repeated stratified splits into train, validation and test, in which the rows of one group stay on one side."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from steelyard.compare.read import bad

__all__ = ["Split", "make_splits"]

TRIES = 50


@dataclass(frozen=True)
class Split:
    """Row numbers of one division of the data."""

    repeat: int
    fold: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def test_ratio(self) -> float:
        """Rows tested per row learnt from, validation rows included: stopping and cut-offs are chosen on them."""
        return len(self.test) / (len(self.train) + len(self.validation))


def make_splits(
    target: np.ndarray, groups: np.ndarray, classes: Sequence[str], *, folds: int = 5, repeats: int = 2, seed: int = 0
) -> list[Split]:
    """``folds × repeats`` splits: one fold tests, the next one validates, the others train.

    Within a repeat each row is tested once and validates once. Every part of every split holds every class.

    Args:
        target: Class numbers in ``[0, len(classes))``, ``(N,)``.
        groups: Rows with equal numbers stay on one side, ``(N,)``.
        folds: Parts per repeat, at least 3.
        seed: The same seed gives the same splits.
    Raises: InputError: a class with fewer groups than folds, or groups too coarse to give every part every class.
    """
    _check_sizes(target, groups, classes, folds)
    splits = []
    for repeat in range(repeats):
        parts = _parts(target, groups, classes, folds, [seed, repeat])
        for fold in range(folds):
            after = (fold + 1) % folds
            train = np.flatnonzero((parts != fold) & (parts != after))
            splits.append(Split(repeat, fold, train, np.flatnonzero(parts == after), np.flatnonzero(parts == fold)))
    return splits


def _check_sizes(target: np.ndarray, groups: np.ndarray, classes: Sequence[str], folds: int) -> None:
    pairs = np.unique(np.stack([target, groups]), axis=1)
    distinct = np.bincount(pairs[0], minlength=len(classes))
    rare = int(distinct.argmin())
    if distinct[rare] < folds:
        rows = int((target == rare).sum())
        got = f"{distinct[rare]} for class '{classes[rare]}' ({rows} row{'s' if rows != 1 else ''} in all)"
        rule = (
            f"a column whose every class has at least {folds} groups of rows that can be kept apart, one for each fold"
        )
        bad(
            "compare", "target", rule, got,
            "Merge the class with another, leave its rows out, collect more, or lower --folds (3 at least).",
        )  # fmt: skip


def _parts(target: np.ndarray, groups: np.ndarray, classes: Sequence[str], folds: int, seed: list[int]) -> np.ndarray:
    """The fold of each row; tries other shuffles where a part is left without a class."""
    short, parts = "", np.empty(len(target), dtype=np.int64)
    for attempt in range(TRIES):
        state = int(np.random.SeedSequence([*seed, attempt]).generate_state(1)[0])
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it counts rows per class; groups per class are checked above
            for fold, (_, test) in enumerate(splitter.split(target, target, groups)):
                parts[test] = fold
        table = np.zeros((folds, len(classes)), dtype=np.int64)
        np.add.at(table, (parts, target), 1)
        if table.all():
            break
        short = classes[int(np.argwhere(table == 0)[0][1])]
    else:
        bad(
            "compare", "target", f"a column whose classes spread over {folds} folds when equal rows stay together",
            f"no such division for class '{short}' in {TRIES} tries",
            "Merge the class with another, lower --folds, or allow equal rows on both sides (--split-duplicates).",
        )  # fmt: skip
    return parts
