"""Items with several labels, repeated for the sake of their rarest."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steelyard._errors import describe, refuse
from steelyard._values import number
from steelyard.samplers import _random as rng
from steelyard.samplers._base import ReproducibleSampler
from steelyard.samplers._draws import Plan
from steelyard.samplers._expected import F64, Expected
from steelyard.samplers._random import I64, Stream
from steelyard.samplers._table import Table

__all__ = ["RepeatFactorSampler"]

_RULE = "the labels of each item: a sequence of collections, or (N, C) of zeros and ones"
_WHOLE = 1e-9  # fractions of a draw below this are none: they are what rounding leaves


class RepeatFactorSampler(ReproducibleSampler[int]):
    r"""Repeats items that hold a rare class: for multi-label data and detection, where an image cannot be given to
    one class.

    With f_c the share of items that hold class c and t the threshold, r_c = max(1, √(t/f_c)) and r_i = max over the
    classes of item i. An item comes ⌊r_i⌋ or ⌈r_i⌉ times in an epoch, so every item comes at least once.

    An epoch has always as many draws: ⌈Σ r_i⌉. Which items are rounded up is a systematic draw, not a coin for each.
    Σ r_i falls short of a whole number by part of a draw, and by that chance an epoch has one draw of any item on top,
    in proportion to r_i. So the mean is r_i, times ⌈Σ r_i⌉ / Σ r_i.

    Memory: 24 bytes an item, and 8 for each draw that rounds up while an epoch lasts.

    Args:
        labels_per_item: For each of N items the classes that it holds, any number of them: a sequence of collections,
            or a tensor or array ``(N, C)`` of zeros and ones.
        threshold: t in (0, 1]: classes that fewer items hold are repeated.
        generator, num_replicas, rank, seed: As for :class:`WeightedRandomSampler`.

    Raises: TypeError, ValueError: an argument that is not as said.

    Example:
        >>> sampler = RepeatFactorSampler([["cat"]] * 98 + [["cat", "owl"], ["owl"]], threshold=0.5)
        >>> sampler.repeat_factors[-3:]
        tensor([1., 5., 5.], dtype=torch.float64)
        >>> len(sampler)
        108

    Source: Gupta et al., "LVIS", CVPR 2019, arXiv:1908.03195, appendix B.
    """

    def __init__(
        self,
        labels_per_item: Any,
        threshold: float = 0.001,
        *,
        generator: torch.Generator | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int | None = None,
    ) -> None:
        name = type(self).__name__
        self.threshold = number(name, "threshold", threshold, 0.0, 1.0)
        if self.threshold == 0.0:
            refuse(name, "threshold", "above zero", threshold)
        self.classes, self._items_of = _pairs(name, labels_per_item)
        item, held = self._items_of
        n = len(labels_per_item)
        if n == 0:
            refuse(name, "labels_per_item", "the labels of at least one item", "none")
        shares = np.bincount(held, minlength=len(self.classes)) / n
        of_class = np.sqrt(np.maximum(1.0, self.threshold / np.maximum(shares, 1.0 / n)))
        self._factors = np.ones(n)
        np.maximum.at(self._factors, item, of_class[held])
        copies, rest = np.divmod(self._factors, 1.0)
        up = rest > 1.0 - _WHOLE
        copies[up], rest[up | (rest < _WHOLE)] = copies[up] + 1.0, 0.0
        left = math.fsum(rest)
        self._rounded_up = math.ceil(left - _WHOLE * max(left, 1.0))  # draws of an epoch beside the copies
        self._copies = copies.astype(np.int64)
        self._table: Table | None = None
        if self._rounded_up > 0:
            # One entry more takes what is missing to a whole number of draws: so each comes with its own probability.
            self._table = Table(name, np.append(rest, max(self._rounded_up - left, 0.0)))
        super().__init__(int(self._copies.sum()) + self._rounded_up, generator, num_replicas, rank, seed)

    @property
    def repeat_factors(self) -> torch.Tensor:
        """How often each item comes in an epoch, on average over epochs: float64, ``(N,)``."""
        return torch.from_numpy(self._factors.copy())

    weights = repeat_factors  # what a sampler of rows shows to whoever looks for its weights

    def _options(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "items": len(self._factors)}

    def _data(self) -> int:
        return zlib.crc32(self._factors.data)

    def _plan(self, seed: int, epoch: int, end: int) -> Plan:
        return _Repeats(self, seed, epoch)

    def expected(self) -> Expected:
        """Coverage and repeats by class; an item counts for each class that it holds."""
        item, held = self._items_of
        mean = self._factors * (self.num_samples / math.fsum(self._factors))
        rows = np.bincount(held, minlength=len(self.classes))
        draws = np.bincount(held, weights=mean[item], minlength=len(self.classes))
        coverage = (rows > 0).astype(np.float64)
        return Expected(tuple(self.classes), tuple(rows.tolist()), tuple(draws.tolist()), tuple(coverage.tolist()))


class _Repeats:
    """A position is a slot, by permutation: first those of the copies that are sure, then those of the rounding up."""

    def __init__(self, sampler: RepeatFactorSampler, seed: int, epoch: int) -> None:
        self.seed, self.epoch, self.total = seed, epoch, sampler.num_samples
        self.ends: I64 = np.cumsum(sampler._copies)
        self.reach: F64 = np.cumsum(sampler._factors)
        self.key = rng.number(seed, epoch, Stream.PERMUTATION, 0)
        self.rounded_up = np.empty(0, np.int64)
        if sampler._table is not None:
            many, table = sampler._rounded_up, sampler._table
            rows = table.systematic(seed, epoch, many).draw(0, 1, many)
            filled = rows == len(sampler._factors)
            if filled.any():
                rows[filled] = self._any(rng.numbers(seed, epoch, Stream.ROWS, np.flatnonzero(filled)))
            self.rounded_up = rows

    def _any(self, bits: NDArray[np.uint64]) -> I64:
        """Items by their factors, independently."""
        found = np.searchsorted(self.reach, bits / 2.0**64 * self.reach[-1], side="right")
        items: I64 = np.minimum(found, len(self.reach) - 1)
        return items

    def draw(self, first: int, step: int, count: int) -> I64:
        slots = rng.permute(first + step * np.arange(count), self.total, self.key)
        sure = self.total - len(self.rounded_up)
        rows: I64 = np.searchsorted(self.ends, slots, side="right")
        late = slots >= sure
        rows[late] = self.rounded_up[slots[late] - sure]
        return rows

    def extra(self, first: int, step: int, count: int) -> I64:
        return self._any(rng.numbers(self.seed, self.epoch, Stream.EXTRA, first + step * np.arange(count)))


def _pairs(name: str, given: Any) -> tuple[list[Any], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The classes, and pairs of an item and a class that it holds, each pair once."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ndarray):
        if given.ndim != 2 or given.dtype.kind not in "biuf":
            refuse(name, "labels_per_item", _RULE, describe(given), error=TypeError)
        odd = np.argwhere((given != 0) & (given != 1))
        if odd.size:
            at = tuple(odd[0].tolist())
            refuse(name, "labels_per_item", "zeros and ones where it is an array", f"{given[at]} at position {at}")
        item, held = np.nonzero(given)
        return list(range(given.shape[1])), (item.astype(np.int64), held.astype(np.int64))
    if not isinstance(given, Sequence) or isinstance(given, str):
        refuse(name, "labels_per_item", _RULE, describe(given), error=TypeError)
    places: dict[Any, int] = {}
    items, classes = [], []
    for number_, labels in enumerate(given):
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            hint = "An item with one label is written as a collection of one."
            refuse(name, "labels_per_item", _RULE, f"{describe(labels)} for item {number_}", hint, error=TypeError)
        values = labels.tolist() if hasattr(labels, "tolist") else labels
        try:
            found = dict.fromkeys(values)  # in their order, which a set of words does not keep from run to run
            for label in found:
                items.append(number_)
                classes.append(places.setdefault(label, len(places)))
        except TypeError:
            got = f"{describe(values)} for item {number_}"
            refuse(name, "labels_per_item", "labels that can be counted: numbers, words, tuples", got, error=TypeError)
    return list(places), (np.array(items, np.int64), np.array(classes, np.int64))
