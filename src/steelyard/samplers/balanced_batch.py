"""Batches of a few classes, each with the same number of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from steelyard._errors import refuse
from steelyard._values import integer
from steelyard.samplers import _random as rng
from steelyard.samplers._base import ReproducibleSampler, positive_integer
from steelyard.samplers._draws import Plan
from steelyard.samplers._expected import Expected
from steelyard.samplers._members import Members
from steelyard.samplers._random import I64, U64, Stream

__all__ = ["BalancedBatchSampler"]


class BalancedBatchSampler(ReproducibleSampler[list[int]]):
    r"""Batches of ``classes_per_batch`` classes with ``samples_per_class`` rows of each.

    For losses that compare rows within a batch, and for batches in which no class is missing. Classes take turns: each
    comes once before any comes again, over batches and epochs, and a class gives each of its rows once before any comes
    twice. A class with fewer than ``samples_per_class`` rows repeats them within a batch.

    Pass it as ``DataLoader(dataset, batch_sampler=...)``. Memory: 4 bytes a row.

    Args:
        labels: The class of each row, ``(N,)``: a tensor, array, sequence or Series.
        classes_per_batch: From 1 to the number of classes.
        samples_per_class: 1 or more.
        num_batches: Batches of an epoch over all ranks together; None is as many as N rows make, at least one.
        generator, num_replicas, rank, seed: As for :class:`ClassBalancedSampler`.

    Raises: TypeError, ValueError: an argument that is not as said, a label that is missing.

    Example:
        >>> sampler = BalancedBatchSampler([0, 0, 0, 0, 1, 1, 2], classes_per_batch=2, samples_per_class=2, seed=0)
        >>> len(next(iter(sampler)))
        4

    Source: the P·K batches of Hermans et al., "In Defense of the Triplet Loss", 2017, arXiv:1703.07737, §2.
    """

    power = 1.0  # in the sense of ClassBalancedSampler: all classes get the same share

    def __init__(
        self,
        labels: Any,
        classes_per_batch: int,
        samples_per_class: int,
        *,
        num_batches: int | None = None,
        generator: torch.Generator | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int | None = None,
    ) -> None:
        name = type(self).__name__
        self._members = Members(name, labels)
        known = len(self._members.classes)
        self.classes_per_batch = positive_integer(name, "classes_per_batch", classes_per_batch)
        self.samples_per_class = positive_integer(name, "samples_per_class", samples_per_class)
        if self.classes_per_batch > known:
            refuse(name, "classes_per_batch", f"at most {known}, the classes that there are", classes_per_batch)
        if num_batches is None:
            num_batches = max(self._members.n // self.batch_size, 1)
        total = positive_integer(name, "num_batches", num_batches)
        super().__init__(total, generator, num_replicas, rank, seed, one_seed=True)
        self._block_size = max(self._block_size // self.batch_size, 1)

    @property
    def labels(self) -> Any:
        """The class of each row, as an array."""
        return self._members.labels()

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.classes_per_batch * self.samples_per_class

    def _options(self) -> dict[str, Any]:
        return {"classes_per_batch": self.classes_per_batch, "samples_per_class": self.samples_per_class}

    def _data(self) -> int:
        return self._members.fingerprint()

    def _plan(self, seed: int, epoch: int, end: int) -> Plan:
        return _Batches(self, seed, epoch)

    def expected(self, epoch: int | None = None) -> Expected:
        """Coverage and repeats by class in an epoch; None is the next one.

        Draws are the very ones of that epoch. So is the coverage, where a class does not go from one order of its rows
        to the next within the epoch; where it does, it is the mean over all orders.
        """
        epoch = self.epoch if epoch is None else integer(f"{type(self).__name__}.expected", "epoch", epoch)
        turns = _Turns(self, self._seed_of_an_epoch())
        first, end = (turns.appearances(number * self.num_samples) for number in (epoch, epoch + 1))
        counts, each = self._members.counts, self.samples_per_class
        draws = (end - first) * each
        coverage = self._members.distinct(first * each, draws, turns.periods) / counts
        classes = tuple(self._members.classes)
        return Expected(classes, tuple(counts.tolist()), tuple(draws.astype(float).tolist()), tuple(coverage.tolist()))


class _Turns:
    """The classes of all batches, one after another in slots: batch b has those of b·P to b·P + P − 1.

    The slots are filled by one order of the C classes over and over, so that any C in a row hold each class once, and
    any P different ones. A new order begins where a batch ends together with a round: after lcm(P, C) slots.
    """

    def __init__(self, sampler: BalancedBatchSampler, seed: int) -> None:
        self.seed, self.together, self.each = seed, sampler.classes_per_batch, sampler.samples_per_class
        self.members = sampler._members
        self.known = len(self.members.classes)
        self.length = math.lcm(self.together, self.known)
        # Likewise rows: a class begins another order of its rows where a batch ends together with a round of them.
        self.periods = np.lcm(self.members.counts, self.each)

    def appearances(self, batch: int) -> I64:
        """How often each class has come before a batch."""
        order, slot = divmod(batch * self.together, self.length)
        rounds, rest = divmod(slot, self.known)
        key = int(self._keys(np.array([order]))[0])
        come = np.full(self.known, order * (self.length // self.known) + rounds, np.int64)
        come[rng.permute(np.arange(rest), self.known, key)] += 1
        return come

    def _keys(self, orders: I64) -> U64:
        return rng.numbers(self.seed, 0, Stream.CLASSES, orders)

    def batches(self, numbers: I64) -> I64:
        """Rows of batches by their number since the first epoch, ``(batches, P·K)``."""
        slots = (numbers[:, None] * self.together + np.arange(self.together)).ravel()
        orders, slots = np.divmod(slots, self.length)
        rounds, places = np.divmod(slots, self.known)
        classes = rng.permute(places, np.full(len(places), self.known), self._keys(orders))
        come = orders * (self.length // self.known) + rounds
        times = (come * self.each)[:, None] + np.arange(self.each)
        classes = np.repeat(classes, self.each)
        rows = self.members.cycling(self.seed, classes, times.ravel(), self.periods[classes])
        return rows.reshape(len(numbers), self.together * self.each)


class _Batches:
    """A batch of an epoch by its number since the first one."""

    def __init__(self, sampler: BalancedBatchSampler, seed: int, epoch: int) -> None:
        self.turns, self.epoch = _Turns(sampler, seed), epoch
        self.total, self.ranks = sampler.num_samples, sampler.num_replicas

    def draw(self, first: int, step: int, count: int) -> I64:
        return self.turns.batches(self.epoch * self.total + first + step * np.arange(count))

    def extra(self, first: int, step: int, count: int) -> I64:
        """Batches that no epoch comes to."""
        return self.turns.batches(2**40 + self.epoch * self.ranks + first - self.total + step * np.arange(count))
