"""Weights, ready to be drawn from: checked once, summed up once, and left where they are.

Weights become whole numbers q of units: w·2^k cut off, and odd where w > 0, with k such that they add up to
2^62 or somewhat less. Sums of whole numbers are exact in any order, so a draw depends on no thread, and a weight of
zero is never drawn. A unit chosen at random belongs to a row; :meth:`Table.independent` and :meth:`Table.systematic`
differ in how units are chosen. ``csrc/sampling.cpp`` keeps the sums of blocks of 8 rows and reads the weights within
a block again: 1 byte a weight, and up to another for an index. Without the extension NumPy keeps every sum, 8 bytes a
weight, and draws the same rows.
"""

from __future__ import annotations

import math
import warnings
import zlib
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from steelyard._errors import describe, refuse
from steelyard.ops import cpu
from steelyard.samplers import _random as rng
from steelyard.samplers._random import I64, U64, Stream

__all__ = ["BITS", "BLOCK", "RULE", "Table", "as_tensor", "as_weights", "snapshot"]

BLOCK = 8
BITS = 62
RULE = "one finite number of zero or more per row, (N,)"


def as_tensor(function: str, weights: torch.Tensor) -> torch.Tensor:
    """Weights as a float32 or float64 tensor where they are, their own memory where it holds such numbers in a row."""
    if weights.is_complex() or weights.dtype == torch.bool:
        refuse(function, "weights", RULE, weights, error=TypeError)
    if weights.dim() != 1:
        refuse(function, "weights", RULE, f"shape {tuple(weights.shape)}")
    tensor = weights.detach()
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.double()
    return tensor.contiguous()


def as_weights(function: str, weights: Any) -> NDArray:
    """Weights as a float32 or float64 array, their own memory where it holds such numbers side by side."""
    if isinstance(weights, torch.Tensor):
        array: NDArray = as_tensor(function, weights).cpu().numpy()
    elif isinstance(weights, np.ndarray):
        if weights.dtype.kind not in "iuf":
            refuse(function, "weights", RULE, weights, error=TypeError)
        kept = weights.dtype in (np.float32, np.float64) and weights.dtype.isnative
        array = np.ascontiguousarray(weights if kept else weights.astype(np.float64))
    else:
        try:
            if isinstance(weights, str | bytes | dict | set):
                raise TypeError
            array = np.asarray(list(weights) if not hasattr(weights, "__array__") else weights)
            if array.dtype.kind not in "iuf" and array.size:
                raise TypeError
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            refuse(function, "weights", RULE, describe(weights), error=TypeError)
    if array.ndim != 1:
        refuse(function, "weights", RULE, f"shape {tuple(array.shape)}")
    if len(array) == 0:
        refuse(function, "weights", "one number per row, at least one", "none")
    return array


def snapshot(array: NDArray) -> NDArray:
    """A copy that nobody else writes to.

    In PyTorch's memory. NumPy asks for huge pages, and draws from those were the slower ones where it was tried.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that PyTorch could write to an array that is read-only; it is read
        copy: NDArray = torch.from_numpy(array).clone().numpy()
    return copy


class Table:
    """See the module. ``positive`` tells how many weights are above zero."""

    def __init__(self, function: str, weights: NDArray) -> None:
        self.weights = weights
        self.n = len(weights)
        self.native = cpu.ready()
        bad, self.positive, largest = self._survey()
        if bad >= 0:
            refuse(function, "weights", RULE, f"{float(weights[bad]):g} at position {bad}")
        if self.positive == 0:
            refuse(function, "weights", "above zero for one row at least", f"{self.n} zeros")
        self.rescaled = not 2.0**-900 < largest < 2.0**900
        if self.rescaled:  # so that a scale is a number; sizes do not matter, only ratios
            scaled = np.ldexp(weights.astype(np.float64), 960 if largest < 1 else -960)
            scaled[(scaled == 0) & (weights > 0)] = 5e-324  # the smallest number that there is
            self.weights, largest = scaled, float(scaled.max())
        # First a scale under which n times the largest weight fits; the exact sum under it then shows how many bits
        # are left over.
        self._scale(BITS - max(self.n - 1, 0).bit_length() - math.frexp(largest)[1])
        self._scale(self.exponent + BITS - (self._cut_off_sum() + self.n).bit_length())
        self.starts = self._starts()
        self.total = int(self.starts[-1])
        self._fingerprint: int | None = None
        if self.native:
            self.cells, self.shift = self._cells(self.starts)

    def fingerprint(self) -> int:
        """A number that other weights hardly have: of the sums of blocks, the same with and without the extension."""
        if self._fingerprint is None:
            starts = self.starts if self.native else np.append(self.starts[:-1:BLOCK], self.starts[-1])
            self._fingerprint = zlib.crc32(np.ascontiguousarray(starts).data)
        return self._fingerprint

    @property
    def nbytes(self) -> int:
        """Memory beside the weights, in bytes."""
        return self.starts.nbytes + (self.cells.nbytes if self.native else 0)

    # Building.

    def _scale(self, exponent: int) -> None:
        self.exponent, self.scale = exponent, math.ldexp(1.0, exponent)

    def _given(self) -> tuple[Any, ...]:
        """The weights as the extension takes them."""
        return self.weights.ctypes.data, self.weights.dtype == np.float64, self.n, self.scale

    def _survey(self) -> tuple[int, int, float]:
        """The first weight that is none, or −1; how many are above zero; the largest."""
        w = self.weights
        if self.native:
            found: tuple[int, int, float] = cpu.kernels.survey(
                w.ctypes.data, w.dtype == np.float64, self.n, cpu.threads()
            )
            return found
        bad = np.flatnonzero(~((w >= 0) & (w < np.inf)))
        return (int(bad[0]) if bad.size else -1), int((w > 0).sum()), float(w.max())

    def _cut_off(self) -> U64:
        q: U64 = (self.weights.astype(np.float64) * self.scale).astype(np.uint64)
        return q

    def _cut_off_sum(self) -> int:
        if self.native:
            return int(cpu.kernels.cut_off_sum(*self._given(), cpu.threads()))
        return int(self._cut_off().sum())

    def units(self) -> U64:
        """Q of every row; in NumPy, 8 bytes each."""
        q: U64 = self._cut_off() | (self.weights > 0).astype(np.uint64)
        return q

    def _starts(self) -> U64:
        """Σ q before each block, or before each row without the extension; the total at the end."""
        if not self.native:
            return np.concatenate([np.zeros(1, np.uint64), np.cumsum(self.units())])
        starts = np.empty(self._blocks + 1, np.uint64)
        cpu.kernels.block_starts(*self._given(), starts.ctypes.data, cpu.threads())
        return starts

    @property
    def _blocks(self) -> int:
        return -(-self.n // BLOCK)

    def _cells(self, starts: U64) -> tuple[NDArray[np.uint32], int]:
        """For each of about as many equal stretches of units as there are blocks, the block where it begins."""
        total = int(starts[-1])
        shift = max(total.bit_length() - max(self._blocks, 2).bit_length(), 0)
        count = (total - 1 >> shift) + 1
        cells = np.empty(count + 1, np.uint32)
        cpu.kernels.fill_cells(starts.ctypes.data, self._blocks, shift, cells.ctypes.data, count, cpu.threads())
        return cells, shift

    def part(self, rows: slice) -> NDArray[np.float64]:
        """Some of the weights."""
        found: NDArray[np.float64] = self.weights[rows].astype(np.float64)
        return found

    def same_weights(self) -> bool:
        """Whether the sums still are those of the weights, which may lie in a file that somebody writes to."""
        if self.rescaled:
            return False  # what was summed up is a copy, which shows nothing
        bad, positive, _ = self._survey()
        return bad < 0 and positive == self.positive and bool(np.array_equal(self._starts(), self.starts))

    # Drawing.

    def independent(self, seed: int, epoch: int, first: int, step: int, count: int) -> I64:
        """Rows of the positions first, first + step, ...: each on its own, row i with probability q_i / Σ q."""
        if self.native:
            rows = np.empty(count, np.int64)
            cpu.kernels.draw_independent(
                *self._given(), self.starts.ctypes.data, self.cells.ctypes.data, self.shift, seed, epoch & 0xFFFFFFFF,
                first, step, count, rows.ctypes.data, cpu.threads(),
            )  # fmt: skip
            return rows
        positions = first + step * np.arange(count)
        return self._row_of(rng.high_product(rng.numbers(seed, epoch, Stream.DRAW, positions), self.total))

    def _row_of(self, units: U64) -> I64:
        return np.searchsorted(self.starts, units, side="right") - 1

    def permuted(self, first: int, step: int, count: int, n: int, key: int) -> I64:
        """Where a permutation of ``[0, n)`` takes the positions first, first + step, ..."""
        return rng.permute(first + step * np.arange(count), n, key)

    @staticmethod
    def without(rows: I64, others: I64) -> I64:
        """Different rows but for some of them."""
        return np.setdiff1d(rows, others, assume_unique=True)

    def systematic(self, seed: int, epoch: int, total: int) -> Systematic:
        """An epoch of ``total`` draws in which row i comes ⌊total·p_i⌋ or ⌈total·p_i⌉ times."""
        return Systematic(self, seed, epoch, total)

    def race(self, seed: int, epoch: int, wanted: int) -> I64:
        """``wanted`` different rows, ascending: those with the smallest E_i / q_i, E_i exponential.

        The same as one draw after another from the rows that are left, each with its share of their weights.

        Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
        """
        if self.native:
            rows = np.empty(wanted, np.int64)
            addresses = *self._given(), seed, epoch & 0xFFFFFFFF, wanted, rows.ctypes.data
            if not cpu.kernels.race(*addresses, cpu.threads()):
                _refuse_other_weights()
            return rows
        q = self.units()
        times = rng.exponential(rng.numbers(seed, epoch, Stream.RACE, np.arange(self.n)))
        times = np.where(q > 0, times / np.maximum(q, np.uint64(1)), np.inf)
        bound = np.partition(times, wanted - 1)[wanted - 1]
        chosen = times < bound
        chosen[np.flatnonzero(times == bound)[: wanted - int(chosen.sum())]] = True
        return np.flatnonzero(chosen)


def _refuse_other_weights() -> NoReturn:
    raise RuntimeError(
        "WeightedRandomSampler: 'weights' must stay as they are while an epoch is drawn; got others in the memmap "
        "meanwhile. Write to it between epochs."
    )


class Systematic:
    """One epoch of equally spaced units over rows in an order of chance.

    In the order of the data, rows that are neighbours would exclude each other in every epoch. The draws are permuted
    again, so that any stretch of the epoch is a fair sample of it.
    """

    def __init__(self, table: Table, seed: int, epoch: int, total: int) -> None:
        self.table, self.total = table, total
        self.order, self.key, offset = (rng.number(seed, epoch, Stream.OFFSET, position) for position in range(3))
        self.offset = int(rng.high_product(np.array([offset], np.uint64), table.total)[0])
        if table.native:
            self.starts = np.empty_like(table.starts)
            cpu.kernels.permuted_starts(*table._given(), self.order, self.starts.ctypes.data, cpu.threads())
        else:
            if total >= 2**31:
                refuse("Table.systematic", "total", "below 2**31 where the C++ extension was not built", total)
            self.rows = rng.permute(np.arange(table.n), table.n, self.order)
            self.starts = np.concatenate([np.zeros(1, np.uint64), np.cumsum(table.units()[self.rows])])
        if int(self.starts[-1]) != table.total:
            _refuse_other_weights()
        if table.native:
            self.cells, self.shift = table._cells(self.starts)

    def draw(self, first: int, step: int, count: int) -> I64:
        """Rows of the positions first, first + step, ..., all below the total."""
        if self.table.native:
            rows = np.empty(count, np.int64)
            cpu.kernels.draw_systematic(
                *self.table._given(), self.starts.ctypes.data, self.cells.ctypes.data, self.shift, self.order,
                self.total, self.offset, self.key, first, step, count, rows.ctypes.data, cpu.threads(),
            )  # fmt: skip
            return rows
        each, rest = divmod(self.table.total, self.total)
        j = rng.permute(first + step * np.arange(count), self.total, self.key).astype(np.uint64)
        # (j·units + offset) / total in whole numbers, none of which reaches 2^64
        units = j * np.uint64(each) + (j * np.uint64(rest) + np.uint64(self.offset)) // np.uint64(self.total)
        return self.rows[np.searchsorted(self.starts, units, side="right") - 1]
