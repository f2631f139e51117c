"""Weights that live on an accelerator, drawn from there: the same rows as :mod:`._table` finds, and no copy of them.

PyTorch has no arithmetic on unsigned 64-bit integers, but signed ones wrap around to the same bits. What differs is a
shift to the right, which takes a mask here, and comparisons, for which all numbers stay below 2^63.

What comes to the host: whether all weights are numbers and how large, once when a table is made; and how far a
permutation has got, a few bytes for each of its steps.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelyard._errors import refuse
from steelyard.samplers import _random as rng
from steelyard.samplers._random import Stream
from steelyard.samplers._table import BITS, BLOCK, RULE

__all__ = ["DeviceTable"]

_LOW = 0xFFFFFFFF


def _signed(x: int) -> int:
    """The signed integer of the same 64 bits."""
    return x - 2**64 if x >= 2**63 else x


def _shifted(x: Tensor, by: int) -> Tensor:
    """``x >> by`` of the unsigned integer."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def numbers(seed: int, epoch: int, stream: Stream, positions: Tensor) -> Tensor:
    """As :func:`._random.numbers`."""
    pair = positions >> 1
    a, b = pair & _LOW, pair >> 32
    c, d = torch.full_like(a, epoch & _LOW), torch.full_like(a, int(stream))
    key0, key1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = _shifted(q, 32) ^ b ^ key0, q & _LOW, _shifted(p, 32) ^ d ^ key1, p & _LOW
        key0, key1 = (key0 + 0x9E3779B9) & _LOW, (key1 + 0xBB67AE85) & _LOW
    return torch.where((positions & 1).bool(), d << 32 | c, b << 32 | a)


def mix(x: Tensor) -> Tensor:
    """As :func:`._random.mix`."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def high_product(x: Tensor, by: int) -> Tensor:
    """As :func:`._random.high_product`, for ``by`` below 2^63."""
    high, low = _shifted(x, 32), x & _LOW
    by_high, by_low = by >> 32, by & _LOW
    middle = high * by_low + _shifted(low * by_low, 32)
    rest = low * by_high + (middle & _LOW)
    return high * by_high + _shifted(middle, 32) + _shifted(rest, 32)


def permute(x: Tensor, n: int, key: int) -> Tensor:
    """As :func:`._random.permute`, with one ``n`` and ``key`` for all."""
    bits = max(n - 1, 0).bit_length()
    low_bits = bits - bits // 2
    rounds = rng.FEW if bits >= rng.SMALL else rng.MANY
    keys = [_signed((key + number * rng.STEP) & rng.MASK) for number in range(rounds)]
    result, walking = x.clone(), torch.arange(len(x), device=x.device)
    while len(walking):
        some = result[walking]
        low, high = some & ((1 << low_bits) - 1), some >> low_bits
        for number in range(0, rounds, 2):
            high = high ^ (mix(low + keys[number]) & ((1 << bits // 2) - 1))
            low = low ^ (mix(high + keys[number + 1]) & ((1 << low_bits) - 1))
        result[walking] = high << low_bits | low
        walking = walking[result[walking] >= n]
    return result


def exponential(bits: Tensor) -> Tensor:
    """As :func:`._random.exponential`: each step rounds by itself, so that no device's logarithm can tell."""
    uniform = (_shifted(bits, 11) + 1).double() * 2.0**-53
    raw = uniform.view(torch.int64)
    e = (raw - 0x3FE6A09E667F3BCD) >> 52
    m = (raw - (e << 52)).view(torch.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = torch.full_like(z, 1.0 / 23.0)
    for term in range(21, 0, -2):
        series = series * z + 1.0 / term
    return 0.0 - (e.double() * 0.6931471805599453 + 2.0 * s * series)


class DeviceTable:
    """As :class:`._table.Table`, with tensors; 16 bytes a weight beside the weights."""

    def __init__(self, function: str, weights: Tensor) -> None:
        self.weights, self.n = weights, len(weights)
        wide = weights.double()
        bad, self.positive, largest = self._survey(wide)
        if bad >= 0:
            refuse(function, "weights", RULE, f"{float(weights[bad]):g} at position {bad}")
        if self.positive == 0:
            refuse(function, "weights", "above zero for one row at least", f"{self.n} zeros")
        if not 2.0**-900 < largest < 2.0**900:
            wide = wide * 2.0 ** (960 if largest < 1 else -960)
            wide[(wide == 0) & (weights > 0)] = 5e-324
            largest = float(wide.max())
        exponent = BITS - max(self.n - 1, 0).bit_length() - math.frexp(largest)[1]
        whole = (wide * math.ldexp(1.0, exponent)).long()
        exponent += BITS - (int(whole.sum()) + self.n).bit_length()
        self.units = (wide * math.ldexp(1.0, exponent)).long() | (weights > 0)
        self.starts = torch.cat([self.units.new_zeros(1), self.units.cumsum(0)])
        self.total = int(self.starts[-1])
        self._fingerprint: int | None = None

    @staticmethod
    def _survey(wide: Tensor) -> tuple[int, int, float]:
        """The first weight that is none, or −1; how many are above zero; the largest. In one copy to the host."""
        bad = ~((wide >= 0) & (wide < math.inf))
        found = torch.stack([bad.any().double(), bad.int().argmax().double(), (wide > 0).sum().double(), wide.max()])
        any_bad, first, positive, largest = found.tolist()
        return int(first) if any_bad else -1, int(positive), largest

    @property
    def nbytes(self) -> int:
        """Memory beside the weights, in bytes."""
        return self.units.nbytes + self.starts.nbytes

    def fingerprint(self) -> int:
        """As that of a table on the host; the one thing for which sums of blocks are copied there."""
        if self._fingerprint is None:
            starts = torch.cat([self.starts[:-1:BLOCK], self.starts[-1:]]).cpu().numpy()
            self._fingerprint = zlib.crc32(np.ascontiguousarray(starts).data)
        return self._fingerprint

    def _positions(self, first: int, step: int, count: int) -> Tensor:
        return first + step * torch.arange(count, device=self.weights.device)

    def independent(self, seed: int, epoch: int, first: int, step: int, count: int) -> Tensor:
        """Rows of the positions first, first + step, ...: each on its own, row i with probability q_i / Σ q."""
        bits = numbers(seed, epoch, Stream.DRAW, self._positions(first, step, count))
        return torch.searchsorted(self.starts, high_product(bits, self.total), right=True) - 1

    def systematic(self, seed: int, epoch: int, total: int) -> DeviceSystematic:
        """An epoch of ``total`` draws in which row i comes ⌊total·p_i⌋ or ⌈total·p_i⌉ times."""
        return DeviceSystematic(self, seed, epoch, total)

    def race(self, seed: int, epoch: int, wanted: int) -> Tensor:
        """``wanted`` different rows, ascending: those with the smallest E_i / q_i, E_i exponential."""
        times = exponential(numbers(seed, epoch, Stream.RACE, self._positions(0, 1, self.n))) / self.units
        times = torch.where(self.units > 0, times, math.inf)
        return times.sort(stable=True).indices[:wanted].sort().values

    def permuted(self, first: int, step: int, count: int, n: int, key: int) -> Tensor:
        """Where a permutation of ``[0, n)`` takes the positions first, first + step, ..."""
        return permute(self._positions(first, step, count), n, key)

    @staticmethod
    def without(rows: Tensor, others: Tensor) -> Tensor:
        """Different rows but for some of them."""
        return rows[~torch.isin(rows, others)]

    def part(self, rows: slice) -> NDArray[np.float64]:
        """Some of the weights, on the host."""
        found: NDArray[np.float64] = self.weights[rows].double().cpu().numpy()
        return found


class DeviceSystematic:
    """As :class:`._table.Systematic`."""

    def __init__(self, table: DeviceTable, seed: int, epoch: int, total: int) -> None:
        if total >= 2**31:
            refuse("WeightedRandomSampler", "num_samples", "below 2**31 for exact quotas on this device", total)
        self.table, self.total = table, total
        order, self.key, offset = (rng.number(seed, epoch, Stream.OFFSET, position) for position in range(3))
        self.offset = int(rng.high_product(np.array([offset], np.uint64), table.total)[0])
        self.rows = permute(table._positions(0, 1, table.n), table.n, order)
        self.starts = torch.cat([table.starts[:1], table.units[self.rows].cumsum(0)])

    def draw(self, first: int, step: int, count: int) -> Tensor:
        """Rows of the positions first, first + step, ..., all below the total."""
        each, rest = divmod(self.table.total, self.total)
        j = self.table.permuted(first, step, count, self.total, self.key)
        # As in a table on the host; the sum stays below 2^63, as j and rest are below 2^31 and the offset below 2^62.
        units = j * each + (j * rest + self.offset) // self.total
        return self.rows[torch.searchsorted(self.starts, units, right=True) - 1]
