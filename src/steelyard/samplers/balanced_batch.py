"""Batches of a few classes, each with the same number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from steelyard._errors import refuse
from steelyard.samplers import _random as rng
from steelyard.samplers._base import Plan, ReproducibleSampler, positive_integer
from steelyard.samplers._expected import Expected
from steelyard.samplers._members import Members
from steelyard.samplers._random import I64, Stream

__all__ = ["BalancedBatchSampler"]


class BalancedBatchSampler(ReproducibleSampler[list[int]]):
    r"""Batches of ``classes_per_batch`` classes with ``samples_per_class`` rows of each.

    For losses that compare rows within a batch, and for batches in which no class is missing. Classes take turns:
    each comes once before any comes again (but for C mod classes_per_batch of them, others each time), and a class
    gives each of its rows once before any comes twice. A class with fewer than ``samples_per_class`` rows repeats
    them within a batch.

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

    def _plan(self, seed: int, epoch: int, end: int) -> Plan:
        return _Batches(self, seed, epoch)

    def expected(self) -> Expected:
        """Coverage and repeats by class in an epoch: the mean over epochs."""
        counts = self._members.counts
        draws = np.full(len(counts), self.num_samples * self.batch_size / len(counts))
        coverage = np.minimum(draws / counts, 1.0)
        classes = tuple(self._members.classes)
        return Expected(classes, tuple(counts.tolist()), tuple(draws.tolist()), tuple(coverage.tolist()))


class _Batches:
    """A batch by its number since the first epoch: which turn of the classes it belongs to, and which part of that."""

    def __init__(self, sampler: BalancedBatchSampler, seed: int, epoch: int) -> None:
        self.sampler, self.members, self.seed, self.epoch = sampler, sampler._members, seed, epoch

    def draw(self, first: int, step: int, count: int) -> I64:
        return self._batches(self.epoch * self.sampler.num_samples + first + step * np.arange(count))

    def extra(self, first: int, step: int, count: int) -> I64:
        """Turns that no epoch comes to."""
        beyond = first - self.sampler.num_samples + step * np.arange(count)
        return self._batches(2**40 + self.epoch * self.sampler.num_replicas + beyond)

    def _batches(self, batches: I64) -> I64:
        together, each = self.sampler.classes_per_batch, self.sampler.samples_per_class
        known = len(self.members.classes)
        turns, parts = np.divmod(batches, known // together)
        turns = np.repeat(turns, together)
        places = (parts[:, None] * together + np.arange(together)).ravel()
        keys = rng.numbers(self.seed, 0, Stream.CLASSES, turns)
        classes = rng.permute(places, np.full(len(places), known), keys)
        counts = self.members.counts[classes]
        # A class begins again before a batch would take the last of its rows and the first of the next order of them;
        # one with fewer rows than a batch takes of it begins again with every batch.
        enough = counts >= each
        lengths = np.where(enough, counts // each * each, counts)
        ahead = np.where(enough, each, -(-each // counts) * counts)
        times = (turns * ahead)[:, None] + np.arange(each)
        rows = self.members.cycling(self.seed, np.repeat(classes, each), times.ravel(), np.repeat(lengths, each))
        return rows.reshape(len(batches), together * each)
