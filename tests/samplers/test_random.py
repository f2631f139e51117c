"""Numbers by position: Philox as published, permutations that are fair, the same with and without the extension."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.ops import cpu
from steelyard.samplers import _random as rng
from steelyard.samplers._random import Stream

WORD = 2**32 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's own integers."""
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & WORD,
            (first >> 32) ^ counter[3] ^ key[1],
            first & WORD,
        ]
        key = [(key[0] + 0x9E3779B9) & WORD, (key[1] + 0xBB67AE85) & WORD]
    return counter


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_the_model_is_philox(counter: str, key: str, expected: str) -> None:
    """The known answers of its authors' library, Random123."""
    words = [[int(word, 16) for word in text.split()] for text in (counter, key, expected)]
    assert philox(words[0], words[1]) == words[2]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.sampled_from(Stream), st.integers(0, 2**62))
def test_numbers_are_philox(seed: int, epoch: int, stream: Stream, position: int) -> None:
    pair = position // 2
    words = philox([pair & WORD, pair >> 32, epoch, int(stream)], [seed & WORD, seed >> 32])
    even, odd = words[1] << 32 | words[0], words[3] << 32 | words[2]
    assert rng.number(seed, epoch, stream, position) == (odd if position % 2 else even)


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**63))
def test_high_product_is_the_upper_half(x: int, by: int) -> None:
    assert int(rng.high_product(np.array([x], np.uint64), by)[0]) == x * by >> 64


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 100, 255, 256, 257, 4099])
def test_permutations_are_permutations(n: int, name: str) -> None:
    with cpu.using(name):
        found = [rng.permute(np.arange(n), n, key).tolist() for key in (0, 1, 2**64 - 1)]
    assert all(sorted(order) == list(range(n)) for order in found)
    assert n < 100 or len({tuple(order) for order in found}) == 3


@pytest.mark.skipif(not cpu.ready(), reason="the extension was not built")
@given(
    st.lists(
        st.tuples(st.integers(1, 2**40), st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1, max_size=50
    )
)
def test_numpy_and_the_extension_permute_alike(cases: list[tuple[int, int, int]]) -> None:
    n, key = (np.array([case[i] for case in cases], t) for i, t in ((0, np.int64), (1, np.uint64)))
    x = np.array([case[2] % case[0] for case in cases])
    ours = rng.permute(x, n, key)
    with cpu.using("reference"):
        theirs = rng.permute(x, n, key)
    assert ours.tolist() == theirs.tolist()
    assert [int(rng.permute(x[i : i + 1], int(n[i]), int(key[i]))[0]) for i in range(len(x))] == ours.tolist()


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_every_permutation_is_as_likely_as_any_other(n: int) -> None:
    trials = 48000
    keys = rng.numbers(7, 0, Stream.PERMUTATION, np.arange(trials))
    lines = rng.permute(np.tile(np.arange(n), trials), np.full(n * trials, n), np.repeat(keys, n)).reshape(trials, n)
    found = Counter(map(tuple, lines.tolist()))
    assert set(found) == set(permutations(range(n)))
    classes = math.factorial(n)
    mean = trials / classes
    statistic = sum((count - mean) ** 2 / mean for count in found.values())
    degrees = classes - 1
    assert statistic < degrees + 5 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("n", [37, 1000])
def test_pairs_of_a_permutation_are_fair(n: int) -> None:
    """Where neighbours go: each image as often as any other, and the second independent of the first."""
    trials = 40000
    keys = rng.numbers(11, 0, Stream.PERMUTATION, np.arange(trials))
    first, second = (rng.permute(np.full(trials, x), np.full(trials, n), keys) for x in (0, 1))
    bins = 10
    grid = np.histogram2d(first * bins // n, second * bins // n, bins=bins, range=((0, bins), (0, bins)))[0]
    sizes = np.bincount(np.arange(n) * bins // n, minlength=bins)
    chance = np.outer(sizes, sizes) - np.diag(sizes)
    mean = trials * chance / chance.sum()
    statistic = ((grid - mean) ** 2 / mean).sum()
    assert statistic < bins**2 - 1 + 5 * math.sqrt(2 * (bins**2 - 1))


def test_exponentials_are_exponential() -> None:
    bits = rng.numbers(3, 0, Stream.RACE, np.arange(200_000))
    uniform = ((bits >> np.uint64(11)) + np.uint64(1)).astype(float) * 2.0**-53
    found = rng.exponential(bits)
    assert np.allclose(found, -np.log(uniform), rtol=1e-15, atol=2e-17)
    assert rng.exponential(np.array([2**64 - 1, 0], np.uint64)).tolist() == [0.0, pytest.approx(53 * math.log(2))]
    assert abs(found.mean() - 1) < 5 / math.sqrt(len(found))


def test_the_earliest_arrival_is_zero_and_not_minus_zero() -> None:
    """The C++ race puts arrivals into bins by their bits, and those of −0 are the largest there are."""
    first = rng.exponential(np.array([2**64 - 1], np.uint64))
    assert first[0] == 0.0
    assert not np.signbit(first[0])
