"""Rows by their weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steelyard._errors import describe, refuse
from steelyard.counts._index import index_labels
from steelyard.samplers._base import ReproducibleSampler, positive_integer
from steelyard.samplers._device import DeviceTable
from steelyard.samplers._draws import Plan
from steelyard.samplers._expected import F64, Expected, by_class, held_by, time_of
from steelyard.samplers._members import label_array, narrow
from steelyard.samplers._plans import Independent, Quotas, Race
from steelyard.samplers._table import Table, as_tensor, as_weights, snapshot

__all__ = ["WeightedRandomSampler"]


class WeightedRandomSampler(ReproducibleSampler[int]):
    r"""Rows with probabilities given by their weights, as ``torch.utils.data.WeightedRandomSampler``, without its
    limits.

    PyTorch's stops at 2^24 weights, draws whole epochs ahead, repeats on every rank and cannot resume. This one draws
    any position of an epoch for itself: row i with probability w_i / Σ w, from a number that depends on seed, epoch and
    position alone. Ranks share *one* draw, each computing its own part; a state is a few numbers.

    - **With replacement** draws are independent; with ``systematic=True`` row i comes ⌊n·p_i⌋ or ⌈n·p_i⌉ times in an
      epoch, n·p_i on average: exact quotas in place of chance.
    - **Without replacement** rows come at most once: as if drawn one after another from those that are left, and then
      shuffled. A row's chance of being in is then *not* in proportion to its weight; :meth:`expected` tells.

    What the weights are at the start of an epoch counts for all of it; they may be changed meanwhile, and the next
    epoch sees that. Memory: a copy of the weights (float32 as such, anything else as float64), and 2 bytes a weight at
    most. A NumPy memmap on disk is not copied, and must stay as it is while an epoch is drawn. ``labels`` take 1 byte a
    row up to 256 classes, 2 up to 65,536. Without replacement, 8 bytes more for each draw while an epoch lasts.

    Weights on a CUDA device stay there, with 16 bytes each beside them, and :meth:`indices` gives a tensor of that
    device: the same rows. They are looked at once when an epoch begins; independent draws then wait for nothing.

    Args:
        weights: One number per row, finite, zero or more, ``(N,)``: a tensor, array, memmap or sequence. They need not
            add up to one. A row of weight zero is never drawn.
        num_samples: Draws of an epoch, over all ranks together.
        replacement: Whether a row may come twice in an epoch.
        generator: Where each epoch takes its seed, as in PyTorch; None is PyTorch's global one. Ranks need generators
            in the same state.
        num_replicas: Ranks that share the draws. None takes the process group's, if there is one.
        rank: Which of them this is. Ranks get equally many draws: up to num_replicas − 1 are drawn on top.
        seed: Makes every epoch reproducible by its number, whatever was drawn before. With several ranks and no
            generator, None is 0.
        systematic: See above.
        labels: The class of each row, ``(N,)``, if it is known: for :meth:`expected`, and to tell weights of rows
            from weights of classes.

    Raises: TypeError, ValueError: an argument that is not as said; without replacement, more draws than rows that
        have a weight.

    Example:
        >>> sampler = WeightedRandomSampler([0.1, 0.0, 0.9], 5, seed=0)
        >>> list(sampler)
        [2, 2, 2, 0, 2]
        >>> sampler.set_epoch(3)
        >>> sampler.indices()
        tensor([0, 2, 2, 2, 0])

    Source: inversion by an index table: Chen and Asau 1974; random numbers by position: Salmon et al., SC 2011; without
        replacement: Efraimidis and Spirakis 2006.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        generator: torch.Generator | None = None,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int | None = None,
        systematic: bool = False,
        labels: Any = None,
    ) -> None:
        name = type(self).__name__
        super().__init__(positive_integer(name, "num_samples", num_samples), generator, num_replicas, rank, seed)
        for argument, value in (("replacement", replacement), ("systematic", systematic)):
            if not isinstance(value, bool):
                refuse(name, argument, "True or False", describe(value), error=TypeError)
        if systematic and not replacement:
            refuse(name, "systematic", "False without replacement", True, "A row comes at most once there anyway.")
        self.replacement, self.systematic = replacement, systematic
        self._labels = None
        if labels is not None:
            distinct, index = index_labels(labels, function=name)
            self._labels = distinct, narrow(index, len(distinct))
        self._take(weights)

    def _take(self, weights: Any) -> None:
        name = type(self).__name__
        given = _held(weights)
        array = self._read(given)
        if not isinstance(given, np.memmap):
            array = array.clone() if isinstance(array, torch.Tensor) else snapshot(array)
        if self._labels is not None and len(array) != len(self._labels[1]):
            index = self._labels[1]
            hint = ""
            if len(array) == len(np.unique(index)):
                hint = "These look like weights of classes: pass sample_weights(labels, weight) instead."
            refuse(name, "weights", f"one per row, {len(index)} of them", f"{len(array)}", hint)
        table = DeviceTable(name, array) if isinstance(array, torch.Tensor) else Table(name, array)
        drawn = len(self) * self.num_replicas
        if not self.replacement and drawn > table.positive:
            most = table.positive // self.num_replicas * self.num_replicas
            hint = "Use replacement=True to draw rows again."
            if self.num_samples <= table.positive:
                hint = f"{self.num_replicas} ranks get equally many draws, {drawn} together."
            rule = f"at most {most} without replacement, as {table.positive} rows have a weight above zero"
            refuse(name, "num_samples", rule, self.num_samples, hint)
        self._given, self._snapshot, self._table = given, array, table

    @property
    def weights(self) -> Any:
        """The weights: the tensor, array or memmap that was given, a float64 tensor of anything else.

        What is written to them counts from the next epoch on. New ones may be assigned, too.
        """
        return self._given

    @weights.setter
    def weights(self, weights: Any) -> None:
        self._take(weights)

    @property
    def labels(self) -> Any:
        """The class of each row as an array, or None where the sampler was not told."""
        return None if self._labels is None else label_array(self._labels[0])[self._labels[1]]

    @property
    def nbytes(self) -> int:
        """Memory beside the weights, in bytes."""
        return self._table.nbytes

    def _unchanged(self) -> bool:
        """Whether the weights are what they were: there are ways to write to them of which nothing tells."""
        if isinstance(self._given, np.memmap):
            assert isinstance(self._table, Table)
            return self._table.same_weights()
        held, now = self._snapshot, self._read(self._given)
        if now.dtype != held.dtype or now.shape != held.shape:
            return False
        if isinstance(now, torch.Tensor) and isinstance(held, torch.Tensor):
            return torch.equal(now, held)
        return bool(np.array_equal(now, held))

    def _read(self, weights: Any) -> NDArray | torch.Tensor:
        """The weights as they are now; those of an accelerator stay there."""
        name = type(self).__name__
        if isinstance(weights, torch.Tensor) and _draws_itself(weights) and len(weights):
            return as_tensor(name, weights)
        return as_weights(name, weights)

    _data_may_change = True

    def _options(self) -> dict[str, Any]:
        return {"replacement": self.replacement, "systematic": self.systematic, "rows": self._table.n}

    def _data(self) -> int:
        return self._table.fingerprint()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_table"], state["_snapshot"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._take(self._given)

    def _plan(self, seed: int, epoch: int, end: int) -> Plan:
        if not self._unchanged():
            self._take(self._given)
        if not self.replacement:
            drawn = max(end, self.num_samples)
            if drawn > self._table.positive:  # fewer rows have a weight now, or what was left when a run was resumed
                left = f"{self._table.positive}, the rows with a weight above zero, for {self.num_replicas} ranks"
                refuse(
                    type(self).__name__, "num_samples", f"such that an epoch takes at most {left}", f"{drawn} in all"
                )
            return Race(self._table, seed, epoch, self.num_samples, drawn)
        if self.systematic:
            return Quotas(self._table, seed, epoch, self.num_samples)
        return Independent(self._table, seed, epoch)

    def expected(self) -> Expected:
        """Coverage and repeats of an epoch by class, or over all rows where ``labels`` were not given.

        Exact with replacement; without, from the usual approximation 1 − e^(−w·t) of a row's chance to be in, with the
        t at which these add up to ``num_samples``.

        Example:
            >>> labels = [0] * 99 + [1]
            >>> weights = [1 / 99] * 99 + [1.0]
            >>> print(WeightedRandomSampler(weights, 100, labels=labels).expected())
            class  rows  share of rows  share of draws  rows seen  times a row
            0        99         99.00%          50.00%     39.73%       0.5051
            1         1          1.00%          50.00%    100.00%           50
            100 draws an epoch
        """
        table, draws = self._table, float(self.num_samples)
        largest = float(table.weights.max())  # so that no sum overflows

        def relative(part: slice) -> F64:
            found: F64 = table.part(part) / largest
            return found

        parts = [slice(start, start + 2**20) for start in range(0, table.n, 2**20)]
        if not self.replacement:
            everything = self.num_samples >= self._table.positive
            time = math.inf if everything else time_of(relative, parts, self.num_samples)
            return by_class(self._labels, table.n, lambda part: held_by(relative(part), time), lambda p: p)
        total = sum(float(relative(part).sum()) for part in parts)

        def mean(part: slice) -> F64:
            result: F64 = draws * (relative(part) / total)
            return result

        if self.systematic:
            return by_class(self._labels, table.n, mean, lambda m: np.minimum(m, 1.0))
        with np.errstate(divide="ignore"):  # a row that is drawn every time
            return by_class(
                self._labels, table.n, mean, lambda m: -np.expm1(draws * np.log1p(-np.minimum(m / draws, 1.0)))
            )


def _draws_itself(weights: torch.Tensor) -> bool:
    """Whether the device of the weights has what it takes to draw from them: 64-bit numbers, and speed."""
    return weights.is_cuda


def _held(weights: Any) -> Any:
    """What the sampler shows as its weights."""
    if isinstance(weights, torch.Tensor | np.ndarray):
        return weights
    return torch.from_numpy(as_weights("WeightedRandomSampler", weights))
