"""The rows of each class, and orders of them that need no memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard._errors import refuse, warn
from steelyard.counts._index import index_labels
from steelyard.samplers import _random as rng
from steelyard.samplers._random import I64

__all__ = ["Members", "label_array", "narrow"]

IGNORED = -100
"""What PyTorch's losses ignore unless they are told otherwise."""


def narrow(index: NDArray, size: int) -> NDArray:
    """Positions below ``size`` in as few bytes as hold them."""
    return index.astype(np.min_scalar_type(max(size - 1, 0)))


def label_array(labels: list[Any]) -> NDArray:
    """Labels as an array that gives back what was put in."""
    if len({type(label) for label in labels}) <= 1:
        return np.asarray(labels)
    mixed = np.empty(len(labels), dtype=object)
    mixed[:] = labels
    return mixed


def _check_classes(function: str, classes: list[Any], first: Callable[[int], int]) -> None:
    """Refuse what names no class, and speak up where a label says that its row has none."""
    for c, label in enumerate(classes):
        if isinstance(label, float) and not label.is_integer():
            hint = "A number that varies continuously has to be cut into bins before it has classes."
            refuse(function, "labels", "whole numbers where they are floats", f"{label!r} at position {first(c)}", hint)
    if IGNORED in classes and len(classes) > 1:
        warn(
            f"{function}: the label {IGNORED}, first at position {first(classes.index(IGNORED))}, is drawn as a class "
            "of its own; losses ignore rows with it. Leave these rows out of 'labels', and of the data set."
        )


class Members:
    """Rows by class: 4 bytes a row (8 from 2^31 rows on), and some for each class."""

    def __init__(self, function: str, labels: Any) -> None:
        distinct, index = index_labels(labels, function=function)
        counts = np.bincount(index, minlength=len(distinct))
        held = np.flatnonzero(counts)
        _check_classes(function, [distinct[c] for c in held], lambda c: int((index == held[c]).argmax()))
        small = np.min_scalar_type(max(len(held) - 1, 0))  # narrow integers are sorted by counting
        place = np.zeros(len(distinct), small)
        place[held] = np.arange(len(held))
        self.classes = [distinct[c] for c in held]
        self.counts: I64 = counts[held].astype(np.int64)
        self.starts: I64 = np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)
        self.n = len(index)
        self.rows: NDArray = np.argsort(place[index], kind="stable").astype(np.int32 if self.n < 2**31 else np.int64)
        self._fingerprint: int | None = None

    def fingerprint(self) -> int:
        """A number that other labels hardly have."""
        if self._fingerprint is None:
            self._fingerprint = zlib.crc32(self.rows.data, zlib.crc32(self.counts.data))
        return self._fingerprint

    def labels(self) -> NDArray:
        """The class of each row again."""
        labels = label_array(self.classes)
        result = np.empty(self.n, labels.dtype)
        result[self.rows] = np.repeat(labels, self.counts)
        return result

    def cycling(self, seed: int, classes: I64, times: I64, periods: I64) -> I64:
        """The row that a class gives when it is asked for the ``times``-th time.

        A class goes round through its rows in an order of chance, and takes another order after ``periods`` of them,
        whole rounds: so each row comes once before any comes again, and no row twice among as many as the class has.
        """
        orders, places = np.divmod(times, periods)
        step = np.uint64(rng.STEP)
        keys = rng.mix(rng.mix(np.uint64(seed) + classes.astype(np.uint64) * step) + orders.astype(np.uint64) * step)
        counts = self.counts[classes]
        within = rng.permute(places % counts, counts, keys)
        rows: I64 = self.rows[self.starts[classes] + within].astype(np.int64)
        return rows

    def distinct(self, first: I64, many: I64, periods: I64) -> NDArray[np.float64]:
        """Different rows among ``many`` of each class from the ``first``-th on: the mean over all orders.

        In one order as many as there are; of two orders, which know nothing of each other, a·b/n come in both.
        """
        to_next = (first // periods + 1) * periods - first
        a = np.minimum(np.minimum(many, to_next), self.counts)
        b = np.minimum(np.maximum(many - to_next, 0), self.counts)
        found: NDArray[np.float64] = a + b - a * b / self.counts
        return found
