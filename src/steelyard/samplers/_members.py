"""The rows of each class, and orders of them that need no memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.counts._index import index_labels
from steelyard.samplers import _random as rng
from steelyard.samplers._random import I64

__all__ = ["Members"]


class Members:
    """Rows by class: 4 bytes a row (8 from 2^31 rows on), and some for each class."""

    def __init__(self, function: str, labels: Any) -> None:
        distinct, index = index_labels(labels, function=function)
        counts = np.bincount(index, minlength=len(distinct))
        held = np.flatnonzero(counts)
        small = np.min_scalar_type(max(len(held) - 1, 0))  # narrow integers are sorted by counting
        place = np.zeros(len(distinct), small)
        place[held] = np.arange(len(held))
        self.classes = [distinct[c] for c in held]
        self.counts: I64 = counts[held].astype(np.int64)
        self.starts: I64 = np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)
        self.n = len(index)
        self.rows: NDArray = np.argsort(place[index], kind="stable").astype(np.int32 if self.n < 2**31 else np.int64)

    def labels(self) -> NDArray:
        """The class of each row again."""
        labels = np.asarray(self.classes)
        result = np.empty(self.n, labels.dtype)
        result[self.rows] = np.repeat(labels, self.counts)
        return result

    def cycling(self, seed: int, classes: I64, times: I64, lengths: I64) -> I64:
        """The row that a class gives when it is asked for the ``times``-th time.

        A class goes through its rows in an order of chance, and begins again in another after ``lengths`` of them.
        """
        cycles, places = np.divmod(times, lengths)
        step = np.uint64(rng.STEP)
        keys = rng.mix(rng.mix(np.uint64(seed) + classes.astype(np.uint64) * step) + cycles.astype(np.uint64) * step)
        within = rng.permute(places, self.counts[classes], keys)
        rows: I64 = self.rows[self.starts[classes] + within].astype(np.int64)
        return rows
