"""The class first, then a row of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from steelyard._errors import describe, refuse
from steelyard._values import integer, number
from steelyard.samplers import _random as rng
from steelyard.samplers._base import ReproducibleSampler, positive_integer
from steelyard.samplers._draws import Plan
from steelyard.samplers._expected import F64, Expected
from steelyard.samplers._members import Members
from steelyard.samplers._random import I64, Stream

__all__ = ["ClassBalancedSampler"]


class ClassBalancedSampler(ReproducibleSampler[int]):
    r"""Draws a class, then a row of it: from the natural shares of the classes to equal ones.

    What weights of 1/count per row do on average, this does exactly: the draws of an epoch are dealt out to the
    classes to within one, and a class gives each of its rows once before any comes twice, across epochs too. So the
    rows of a frequent class are all seen after as many epochs as it takes, instead of ever fewer new ones.

    With counts n and K classes, a class has the share p_c ∝ n_c^(1 − power) of the draws.

    Memory: 4 bytes a row (8 from 2^31 rows on). To begin at a late epoch (``set_epoch``, ``load_state_dict``), the
    shares of all epochs before it are added up, once.

    Args:
        labels: The class of each row, ``(N,)``: a tensor, array, sequence or Series.
        num_samples: Draws of an epoch over all ranks together; None is one for each row.
        power: How much of the imbalance to take away, at least 0: 1 gives all classes the same share, 0 leaves the
            natural ones, ½ is the square root in between. (1 − q of Kang et al.)
        schedule: How far towards those shares an epoch is, from 0 for the natural ones to 1: a function of the epoch,
            or a number of epochs over which it grows evenly. The shares are mixed: (1 − a)·natural + a·balanced.
        generator: Where the seed comes from if there is none; None is PyTorch's global one.
        num_replicas, rank: As for :class:`WeightedRandomSampler`.
        seed: Makes every epoch reproducible by its number.

    Raises: TypeError, ValueError: an argument that is not as said, a label that is missing.

    Example:
        >>> sampler = ClassBalancedSampler(["cat"] * 90 + ["dog"] * 10, seed=0)
        >>> print(sampler.expected())
        class  rows  share of rows  share of draws  rows seen  times a row
        cat      90         90.00%          50.00%     55.56%       0.5556
        dog      10         10.00%          50.00%    100.00%            5
        100 draws an epoch

    Source: Kang et al., "Decoupling Representation and Classifier", ICLR 2020, arXiv:1910.09217, §4 (eq. 1 and 3).
    """

    def __init__(
        self,
        labels: Any,
        num_samples: int | None = None,
        power: float = 1.0,
        *,
        schedule: int | Callable[[int], float] | None = None,
        generator: torch.Generator | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int | None = None,
    ) -> None:
        name = type(self).__name__
        self._members = Members(name, labels)
        if num_samples is None:
            num_samples = self._members.n
        total = positive_integer(name, "num_samples", num_samples)
        super().__init__(total, generator, num_replicas, rank, seed, one_seed=True)
        self.power = number(name, "power", power, 0.0, float("inf"))
        if schedule is not None and not callable(schedule):
            if isinstance(schedule, bool) or not isinstance(schedule, int):
                rule = "a number of epochs, a function of the epoch, or None"
                refuse(name, "schedule", rule, describe(schedule), error=TypeError)
            positive_integer(name, "schedule", schedule)
        self.schedule = schedule
        self._before: tuple[Any, int, I64] | None = None  # settings, epoch, and what classes have given until then

    def shares(self, epoch: int) -> torch.Tensor:
        """The share of the draws that each class has in an epoch: float64, ``(C,)``, in the order of ``classes``."""
        return torch.from_numpy(self._shares(integer(f"{type(self).__name__}.shares", "epoch", epoch)))

    @property
    def labels(self) -> Any:
        """The class of each row, as an array."""
        return self._members.labels()

    @property
    def classes(self) -> list[Any]:
        """The labels that occur."""
        return list(self._members.classes)

    def _shares(self, epoch: int) -> F64:
        counts = self._members.counts
        natural: F64 = counts / counts.sum()
        logs = (1.0 - self.power) * np.log(natural)
        goal = np.exp(logs - logs.max())
        goal /= goal.sum()
        mixed: F64 = goal + (natural - goal) * (1.0 - self._progress(epoch))
        return mixed

    def _progress(self, epoch: int) -> float:
        if self.schedule is None:
            return 1.0
        if callable(self.schedule):
            return number(type(self).__name__, "schedule", self.schedule(epoch), 0.0, 1.0)
        return min(epoch / self.schedule, 1.0)

    def _quotas(self, seed: int, epoch: int) -> I64:
        """Draws of each class: ⌊n·p⌋ or ⌈n·p⌉, and n together. Classes take turns in being rounded up."""
        shares = self._shares(epoch)
        key, bits = (rng.number(seed, epoch, Stream.CLASSES, position) for position in range(2))
        order = rng.permute(np.arange(len(shares)), len(shares), key)
        ends = np.floor(self.num_samples * np.cumsum(shares[order]) + bits / 2.0**64).astype(np.int64)
        ends[-1] = self.num_samples
        quotas = np.empty_like(ends)
        quotas[order] = np.diff(np.minimum(ends, self.num_samples), prepend=0)
        return quotas

    def _given_before(self, seed: int, epoch: int) -> I64:
        """How often each class was asked for a row in the epochs before: their quotas, added up."""
        at, given = 0, np.zeros(len(self._members.counts), np.int64)
        settings = seed, self.power, self.schedule
        if self._before is not None and self._before[0] == settings and self._before[1] <= epoch:
            _, at, given = self._before
        for past in range(at, epoch):
            given = given + self._quotas(seed, past)
        self._before = settings, epoch, given
        return given

    def _options(self) -> dict[str, Any]:
        return {"power": self.power, "schedule": "a function" if callable(self.schedule) else self.schedule}

    def _data(self) -> int:
        return self._members.fingerprint()

    def _plan(self, seed: int, epoch: int, end: int) -> Plan:
        return _ByClass(self, seed, epoch)

    def expected(self, epoch: int | None = None) -> Expected:
        """Coverage and repeats by class in an epoch; None is the next one.

        Draws are the very ones of that epoch. So is the coverage, where a class does not go from one order of its rows
        to the next within the epoch; where it does, a row may come at the end of one and at the start of the other, and
        coverage is the mean over all orders.
        """
        epoch = self.epoch if epoch is None else integer(f"{type(self).__name__}.expected", "epoch", epoch)
        seed, counts = self._seed_of_an_epoch(), self._members.counts
        draws = self._quotas(seed, epoch)
        coverage = self._members.distinct(self._given_before(seed, epoch), draws, counts) / counts
        numbers: tuple[Any, ...] = tuple(tuple(line.tolist()) for line in (counts, draws.astype(np.float64), coverage))
        return Expected(tuple(self.classes), *numbers)


class _ByClass:
    """A position is a slot of a class, by permutation; the slots of a class go on with its cycle of rows."""

    def __init__(self, sampler: ClassBalancedSampler, seed: int, epoch: int) -> None:
        self.members, self.seed, self.epoch = sampler._members, seed, epoch
        self.total = sampler.num_samples
        quotas = sampler._quotas(seed, epoch)
        self.ends = np.cumsum(quotas)
        self.ahead = sampler._given_before(seed, epoch) - (self.ends - quotas)
        self.key = rng.number(seed, epoch, Stream.PERMUTATION, 0)
        self.shares = np.cumsum(sampler._shares(epoch))

    def draw(self, first: int, step: int, count: int) -> I64:
        slots = rng.permute(first + step * np.arange(count), self.total, self.key)
        classes = np.searchsorted(self.ends, slots, side="right")
        return self.members.cycling(self.seed, classes, slots + self.ahead[classes], self.members.counts[classes])

    def extra(self, first: int, step: int, count: int) -> I64:
        """Beyond all quotas: any class by its share, any of its rows."""
        bits = rng.numbers(self.seed, self.epoch, Stream.EXTRA, 2 * (first + step * np.arange(count)))
        more = rng.numbers(self.seed, self.epoch, Stream.EXTRA, 2 * (first + step * np.arange(count)) + 1)
        classes = np.searchsorted(self.shares, bits / 2.0**64, side="right").clip(max=len(self.shares) - 1)
        counts = self.members.counts[classes]
        places = np.minimum((more / 2.0**64 * counts).astype(np.int64), counts - 1)
        rows: I64 = self.members.rows[self.members.starts[classes] + places].astype(np.int64)
        return rows
