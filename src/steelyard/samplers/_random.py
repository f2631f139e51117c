"""Random numbers by position: what a position of an epoch draws depends on nothing but seed, epoch and position.

So each rank computes its own part alone, and a run resumes anywhere without a replay, with another number of ranks too.
``csrc/random.h`` is the same arithmetic in C++; the two agree to the bit.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from steelyard.ops import cpu

__all__ = ["Stream", "exponential", "high_product", "mix", "number", "numbers", "permute"]

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: keys of successive rounds have nothing in common
FEW, MANY, SMALL = 8, 24, 12  # rounds of a permutation; below 12 bits it takes more of them to reach all orders evenly
_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Stream(IntEnum):
    """What a random number is for, so that no two uses share one."""

    DRAW = 0
    PERMUTATION = 1
    RACE = 2
    OFFSET = 3
    CLASSES = 4
    ROWS = 5
    EXTRA = 6


def numbers(seed: int, epoch: int, stream: Stream, positions: NDArray) -> U64:
    """64 random bits for each position: Philox4x32-10, one call of which serves two neighbouring positions.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    places = positions.astype(np.uint64)
    pair = places >> np.uint64(1)
    a, b = pair & _LOW, pair >> _SHIFT
    c, d = np.full_like(a, epoch & 0xFFFFFFFF), np.full_like(a, int(stream))
    key0, key1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> _SHIFT) ^ b ^ np.uint64(key0), q & _LOW, (p >> _SHIFT) ^ d ^ np.uint64(key1), p & _LOW
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    odd = (places & np.uint64(1)).astype(bool)
    return np.where(odd, d << _SHIFT | c, b << _SHIFT | a)


def number(seed: int, epoch: int, stream: Stream, position: int) -> int:
    """64 random bits for one position."""
    return int(numbers(seed, epoch, stream, np.array([position]))[0])


def mix(x: U64) -> U64:
    """SplitMix64's finaliser: every bit of the result depends on every bit of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: U64 = x ^ (x >> np.uint64(31))
    return result


def high_product(x: U64, by: int) -> U64:
    """The upper 64 bits of ``x * by``: a random number of 64 bits as one in ``[0, by)``."""
    high, low = x >> _SHIFT, x & _LOW
    by_high, by_low = np.uint64(by >> 32), np.uint64(by & 0xFFFFFFFF)
    middle = high * by_low + (low * by_low >> _SHIFT)
    rest = low * by_high + (middle & _LOW)
    result: U64 = high * by_high + (middle >> _SHIFT) + (rest >> _SHIFT)
    return result


def permute(x: NDArray, n: int | I64, key: int | U64) -> I64:
    """A permutation of ``[0, n)`` at the places ``x``; ``n`` and ``key`` are one for all, or one for each place.

    A Feistel network over the next power of two, walked until it comes back below n: no memory, any n.
    """
    places = np.ascontiguousarray(x, dtype=np.int64)
    each = isinstance(n, np.ndarray)
    sizes = np.ascontiguousarray(n, dtype=np.int64).reshape(-1)
    keys = np.ascontiguousarray(np.asarray(key, dtype=np.uint64)).reshape(-1)
    if cpu.ready():
        result = np.empty_like(places)
        addresses = (places.ctypes.data, sizes.ctypes.data, keys.ctypes.data)
        cpu.kernels.permute(*addresses, each, len(places), result.ctypes.data, cpu.threads())
        return result
    return _permute(places.astype(np.uint64), sizes.astype(np.uint64), keys).astype(np.int64)


def _permute(x: U64, n: U64, key: U64) -> U64:
    sizes, which = np.unique(n, return_inverse=True)
    bits = np.array([max(int(size) - 1, 0).bit_length() for size in sizes], dtype=np.uint64)[which]
    bits, key, n = (np.broadcast_to(term, x.shape) for term in (bits, key, n))
    result = np.empty_like(x)
    for rounds, chosen in ((FEW, bits >= SMALL), (MANY, bits < SMALL)):
        if chosen.any():
            result[chosen] = _walk(x[chosen], n[chosen], key[chosen], bits[chosen], rounds)
    return result


def _walk(x: U64, n: U64, key: U64, bits: U64, rounds: int) -> U64:
    high_bits = bits >> np.uint64(1)
    low_bits = bits - high_bits
    low_mask, high_mask = ((np.uint64(1) << half) - np.uint64(1) for half in (low_bits, high_bits))
    low, high = x & low_mask, x >> low_bits
    for number in range(0, rounds, 2):
        high = high ^ (mix(low + key + np.uint64(number * STEP & MASK)) & high_mask)
        low = low ^ (mix(high + key + np.uint64((number + 1) * STEP & MASK)) & low_mask)
    result: U64 = high << low_bits | low
    outside = result >= n
    if outside.any():
        result[outside] = _walk(result[outside], n[outside], key[outside], bits[outside], rounds)
    return result


def exponential(bits: U64) -> NDArray[np.float64]:
    """Exponentially distributed numbers from random bits.

    The logarithm is written out, in steps that every processor rounds alike; libraries' own differ in their last bits.
    """
    uniform = ((bits >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53  # in (0, 1]
    raw = uniform.view(np.int64)
    e = (raw - 0x3FE6A09E667F3BCD) >> 52
    m = (raw - (e << 52)).view(np.float64)  # in [√½, √2)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = np.full_like(z, 1.0 / 23.0)
    for term in range(21, 0, -2):
        series = series * z + 1.0 / term
    return 0.0 - (e * 0.6931471805599453 + 2.0 * s * series)  # and not −0 at 1
