"""Weights made ready: the same rows with and without the extension, no row of weight zero, and the shares that were
asked for.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from itertools import combinations, permutations
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steelyard.ops import cpu
from steelyard.samplers import _random as rng
from steelyard.samplers._random import Stream
from steelyard.samplers._table import Table, as_weights, snapshot

needs_kernels = pytest.mark.skipif(not cpu.ready(), reason="the extension was not built")

# One row, less than a block of eight, exactly one and two, off any block, several threads' worth.
LENGTHS = (1, 2, 7, 8, 9, 16, 33, 1000, 70001)


def table(weights: np.ndarray | list[float]) -> Table:
    return Table("f", as_weights("f", weights))


def make(kind: str, n: int, dtype: str) -> np.ndarray:
    random = np.random.default_rng(n)
    w = random.random(n)
    if kind == "skewed":
        w = w**30
    elif kind == "zeros":
        w *= random.random(n) < 0.3
    elif kind == "denormal":
        w *= 1e-318 if dtype == "float64" else 1e-42
    elif kind == "huge":
        w *= 1.7e308 if dtype == "float64" else 3e38
    w = w.astype(dtype)
    if not w.any():
        w[n // 2] = 1
    return w


CASES = [
    (kind, n, dtype)
    for kind in ("even", "skewed", "zeros", "denormal", "huge")
    for n in LENGTHS
    for dtype in ("float64", "float32")
]


@needs_kernels
@pytest.mark.parametrize(("kind", "n", "dtype"), CASES)
def test_numpy_and_the_extension_draw_the_same_rows(kind: str, n: int, dtype: str) -> None:
    w = make(kind, n, dtype)
    native = table(w)
    with cpu.using("reference"):
        plain = table(w)
    assert native.native
    assert not plain.native
    assert (native.total, native.positive) == (plain.total, plain.positive)
    assert native.total == sum(map(int, native.units()))

    def drawn(one: Table) -> list[np.ndarray]:
        rows = [one.independent(5, 2, first, step, 2000) for first, step in ((0, 1), (7, 3))]
        rows += [one.systematic(9, 1, total).draw(0, 1, total) for total in (1, 7, n, 3 * n + 1)]
        return rows + [one.race(3, 4, wanted) for wanted in {1, max(one.positive // 2, 1), one.positive}]

    ours = drawn(native)
    with cpu.using("reference"):
        theirs = drawn(plain)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == np.int64
        assert np.array_equal(a, b)
        assert (w[a] > 0).all()


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize(("kind", "n"), [("even", 1000), ("skewed", 1000), ("zeros", 33), ("even", 9)])
def test_quotas_are_exact(kind: str, n: int, name: str) -> None:
    with cpu.using(name):
        one = table(make(kind, n, "float64"))
        q = [int(v) for v in one.units()]
        for total in (1, n // 2, n, 5 * n + 3):
            for epoch in range(3):
                counts = np.bincount(one.systematic(1, epoch, total).draw(0, 1, total), minlength=n)
                assert counts.sum() == total
                below = [total * v // one.total for v in q]
                above = [-(-total * v // one.total) for v in q]
                assert all(a <= c <= b for a, c, b in zip(below, counts.tolist(), above, strict=True))


def test_a_unit_belongs_to_the_row_that_begins_at_it() -> None:
    with cpu.using("reference"):
        one = table([1.0, 0.0, 3.0])
    starts = one.starts.tolist()
    units = np.array([0, starts[1] - 1, starts[1], one.total - 1], np.uint64)
    assert one._row_of(units).tolist() == [0, 0, 2, 2]


def test_whole_quotas_leave_nothing_to_chance() -> None:
    rows = table(np.ones(64)).systematic(0, 0, 192).draw(0, 1, 192)
    assert (np.bincount(rows) == 3).all()
    rows = table([1.0, 2.0, 1.0]).systematic(0, 5, 40).draw(0, 1, 40)
    assert np.bincount(rows).tolist() == [10, 20, 10]


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize("share", [2, 16])
def test_neighbours_are_not_kept_apart_by_quotas(share: int, name: str) -> None:
    """Equal spacing in the order of the data would keep rows apart that are closer than a space; with 1/16 of a draw
    for each row those of one block of eight, whatever the order of the blocks.
    """
    n, epochs = 64, 4000
    wanted = n // share
    with cpu.using(name):
        one = table(np.ones(n))
        held = np.zeros((epochs, n), bool)
        for epoch in range(epochs):
            held[epoch, one.systematic(3, epoch, wanted).draw(0, 1, wanted)] = True
    mean = held.mean(axis=0)
    assert abs(mean - 1 / share).max() < 5 * (1 / share / epochs) ** 0.5
    together = (held.T.astype(float) @ held / epochs)[np.triu_indices(n, 1)]
    chance = wanted * (wanted - 1) / (n * (n - 1))  # of any pair in a draw of chance without replacement
    spread = (chance / epochs) ** 0.5
    assert abs(together - chance).max() < 6 * spread
    blocks = np.repeat(np.arange(n // 8), 8)
    same = (blocks[:, None] == blocks)[np.triu_indices(n, 1)]
    assert abs(together[same].mean() - chance) < 6 * spread / same.sum() ** 0.5


def test_a_stretch_of_an_epoch_with_quotas_is_a_fair_sample_of_it() -> None:
    n, epochs = 16, 3000
    one = table(np.arange(1.0, n + 1))
    counts = np.zeros(n)
    for epoch in range(epochs):
        counts += np.bincount(one.systematic(8, epoch, 400).draw(0, 1, 20), minlength=n)
    share = np.arange(1, n + 1) / (n * (n + 1) / 2)
    spread = np.sqrt(20 * epochs * share * (1 - share))
    assert (abs(counts - 20 * epochs * share) < 5 * spread).all()


def chi_square(counts: np.ndarray, share: np.ndarray) -> float:
    mean = counts.sum() * share
    return float(((counts - mean) ** 2 / mean).sum())


@pytest.mark.parametrize("step", [1, 3])
def test_draws_follow_the_weights(step: int) -> None:
    """Chi-square over many seeds: the statistic itself must be distributed as it should, neither too large nor too
    small.
    """
    share = np.array([0.4, 0.3, 0.15, 0.1, 0.03, 0.015, 0.004, 0.001])
    one = table(share * 7.3)
    found = np.array([
        chi_square(np.bincount(one.independent(seed, seed % 3, 0, step, 20000), minlength=8), share)
        for seed in range(300)
    ])  # fmt: skip
    mean, spread = 7.0, np.sqrt(2 * 7.0)  # of chi-square with 7 degrees of freedom
    assert abs(found.mean() - mean) < 5 * spread / np.sqrt(len(found))
    assert (found > 24.32).sum() <= 4  # its 99.9th percentile: 0.3 of 300 expected
    assert (found < 0.598).sum() <= 4  # its 0.1th


def test_tiny_weights_beside_a_large_one_are_drawn() -> None:
    """Half of the mass in one row, half in a million: the search within a cell has much to pass."""
    w = np.ones(2**20)
    w[12345] = 2**20 - 1
    rows = table(w).independent(1, 0, 0, 1, 2**17)
    assert abs((rows == 12345).mean() - 0.5) < 0.01
    others = rows[rows != 12345]
    assert abs(others.mean() / 2**20 - 0.5) < 0.01
    assert len(np.unique(others)) > 0.93 * len(others)


def exact_race(w: list[int], wanted: int) -> dict[tuple[int, ...], Fraction]:
    """The chance of each set, from one draw after another among those that are left."""
    chances: dict[tuple[int, ...], Fraction] = {s: Fraction(0) for s in combinations(range(len(w)), wanted)}
    for order in permutations(range(len(w)), wanted):
        left, chance = sum(w), Fraction(1)
        for row in order:
            chance *= Fraction(w[row], left)
            left -= w[row]
        chances[tuple(sorted(order))] += chance
    assert sum(chances.values()) == 1
    return chances


@pytest.mark.parametrize(
    ("w", "wanted"), [([1, 2, 3, 4, 5], 2), ([10, 1, 1, 1], 3), ([7, 1, 2], 1), ([1, 1, 1, 1, 1], 4)]
)
def test_the_race_takes_sets_as_successive_draws_would(w: list[int], wanted: int) -> None:
    one, trials = table(np.array(w, float)), 20000
    found: dict[tuple[int, ...], int] = {}
    for seed in range(trials):
        rows = tuple(one.race(seed, 0, wanted).tolist())
        found[rows] = found.get(rows, 0) + 1
    for rows, chance in exact_race(w, wanted).items():
        spread = float(chance * (1 - chance) / trials) ** 0.5
        assert abs(found.get(rows, 0) / trials - float(chance)) < 5 * spread + 1e-9, rows


@pytest.mark.parametrize("name", cpu.available())
def test_a_weight_above_zero_counts_however_small(name: str) -> None:
    with cpu.using(name):
        for small, large in ((1e-300, 1e300), (5e-324, 1.0), (1e-40, 1.7e308), (5e-324, 1e-320)):
            one = table([0.0, small, large, 0.0])
            assert one.positive == 2
            assert sorted(one.race(0, 0, 2).tolist()) == [1, 2]
            assert one.units().tolist()[::3] == [0, 0]
            assert one.units()[1] >= 1


def test_weights_are_read_where_they_are() -> None:
    for dtype in (torch.float32, torch.float64):
        tensor = torch.rand(100, dtype=dtype)
        assert as_weights("f", tensor).ctypes.data == tensor.data_ptr()
    array = np.random.default_rng(0).random(100)
    assert as_weights("f", array) is array
    assert as_weights("f", torch.arange(3)).dtype == np.float64
    assert as_weights("f", [1, 2.5]).tolist() == [1, 2.5]
    assert as_weights("f", torch.rand(6)[::2]).flags.c_contiguous
    array.flags.writeable = False
    copy = snapshot(array)
    assert not np.shares_memory(copy, array)
    assert np.array_equal(copy, array)


@pytest.mark.parametrize("n", [1, 8, 9, 100, 70001])
@pytest.mark.parametrize("name", cpu.available())
def test_a_fingerprint_tells_weights_apart_and_knows_no_backend(n: int, name: str) -> None:
    w = np.random.default_rng(n).random(n)
    ours = table(w).fingerprint()
    with cpu.using(name):
        assert table(w.copy()).fingerprint() == ours
        if n > 1:
            w[n // 2] *= 1.001
            assert table(w).fingerprint() != ours


@needs_kernels
def test_a_race_over_weights_that_change_meanwhile_writes_nowhere_else() -> None:
    """A thread writes to the weights while the race reads them, three times: rows that fit, or a plain error."""
    n, wanted = 400_000, 150_000
    w = np.random.default_rng(0).random(n)
    one, stop, refused = Table("f", w), threading.Event(), []

    def scribble() -> None:
        random = np.random.default_rng(1)
        while not stop.is_set():
            w[:] = random.random(n) ** random.integers(0, 30)

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for seed in range(1000):
            try:
                rows = one.race(seed, 0, wanted)
            except RuntimeError as error:
                refused.append(str(error))
            else:
                assert (np.diff(rows) > 0).all()
                assert 0 <= rows[0] <= rows[-1] < n
            assert one.independent(seed, 0, 0, 1, 1000).max() < n
            try:
                rows = one.systematic(seed, 0, 1000).draw(0, 1, 1000)
            except RuntimeError as error:
                refused.append(str(error))
            else:
                assert 0 <= rows.min() <= rows.max() < n
            if seed >= 20 and refused:
                break
    finally:
        stop.set()
        writer.join()
    assert refused[0].startswith("WeightedRandomSampler: 'weights' must stay as they are while an epoch is drawn")


def test_weights_from_disk_stay_there(tmp_path: Path) -> None:
    n = 100_003
    stored = np.memmap(tmp_path / "weights", np.float32, "w+", shape=(n,))
    stored[:] = np.random.default_rng(0).random(n)
    stored.flush()
    given = np.memmap(tmp_path / "weights", np.float32, "r")
    found = as_weights("f", given)
    assert np.shares_memory(found, given)
    one = Table("f", found)
    assert one.nbytes <= (2 if one.native else 8) * n + 64
    assert np.array_equal(one.independent(0, 0, 0, 1, 5000), table(np.array(stored)).independent(0, 0, 0, 1, 5000))


@needs_kernels
@given(st.integers(1, 3000), st.floats(0, 3), st.integers(0, 10**6))
def test_two_bytes_a_weight_at_most(n: int, power: float, seed: int) -> None:
    one = table(np.random.default_rng(seed).random(n) ** power + 1e-300)
    assert one.nbytes <= 2 * n + 64


@needs_kernels
def test_threads_change_nothing() -> None:
    w = np.random.default_rng(1).random(300_001)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            one = table(w)
            rows = one.independent(1, 2, 0, 1, 200_000), one.systematic(1, 2, 99_999).draw(0, 1, 99_999)
            found.append((one.total, *(r.tobytes() for r in rows), one.race(1, 2, 150_000).tobytes()))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, -float("inf")])
@pytest.mark.parametrize("position", [0, 5, 70_000])
def test_a_weight_that_is_none_is_named(bad: float, position: int, name: str) -> None:
    w = np.ones(70_001)
    w[position] = bad
    with (
        cpu.using(name),
        pytest.raises(ValueError, match=rf"^f: 'weights' must be .*; got {bad:g} at position {position}\."),
    ):
        table(w)


@pytest.mark.parametrize("name", cpu.available())
def test_all_zeros_are_refused(name: str) -> None:
    with cpu.using(name), pytest.raises(ValueError, match=r"^f: 'weights' must be above zero .*; got 3 zeros\."):
        table([0.0, 0.0, 0.0])


def test_streams_do_not_share_numbers() -> None:
    places = np.arange(1000)
    numbers = [rng.numbers(1, 0, stream, places) for stream in Stream]
    assert len(np.unique(np.concatenate(numbers))) == 1000 * len(Stream)
    assert prod(np.bincount(np.concatenate(numbers).astype(np.uint64) >> np.uint64(62), minlength=4)) > 0
