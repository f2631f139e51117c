"""Weights on an accelerator: the same rows as on the host, from tensors; here on any device that there is."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from device_reads import Reads
from hypothesis import given
from hypothesis import strategies as st
from sampler_kinds import WEIGHTS
from torch import Tensor

from steelyard.samplers import WeightedRandomSampler, _device, weighted
from steelyard.samplers import _random as rng
from steelyard.samplers._device import DeviceTable
from steelyard.samplers._random import Stream
from steelyard.samplers._table import Table

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
devices = pytest.mark.parametrize("device", DEVICES)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.sampled_from(Stream), st.integers(0, 2**62))
def test_numbers_are_those_of_the_host(seed: int, epoch: int, stream: Stream, position: int) -> None:
    positions = np.array([position, position + 1])
    ours = _device.numbers(seed, epoch, stream, torch.from_numpy(positions))
    wanted = rng.numbers(seed, epoch, stream, positions)
    assert np.array_equal(ours.numpy().view(np.uint64), wanted)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 2**63 - 1))
def test_mixing_and_products_are_those_of_the_host(words: list[int], by: int) -> None:
    x = np.array(words, np.uint64)
    tensor = torch.from_numpy(x.view(np.int64))
    assert np.array_equal(_device.mix(tensor).numpy().view(np.uint64), rng.mix(x))
    assert np.array_equal(_device.high_product(tensor, by).numpy().view(np.uint64), rng.high_product(x, by))
    assert np.array_equal(_device.exponential(tensor).numpy(), rng.exponential(x))


@devices
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 100, 4095, 4096, 4097, 70001])
def test_permutations_are_those_of_the_host(n: int, device: str) -> None:
    for key in (0, 1, 2**64 - 1, 0x123456789ABCDEF0):
        found = _device.permute(torch.arange(n, device=device), n, key)
        assert np.array_equal(found.cpu().numpy(), rng.permute(np.arange(n), n, key))


def weights_of(kind: str, n: int, dtype: torch.dtype) -> Tensor:
    random = torch.Generator().manual_seed(n)
    w = torch.rand(n, generator=random, dtype=torch.float64)
    if kind == "skewed":
        w = w**30
    elif kind == "zeros":
        w *= torch.rand(n, generator=random) < 0.3
    elif kind == "denormal":
        w *= 1e-318 if dtype == torch.float64 else 1e-42
    elif kind == "huge":
        w *= 1.7e308 if dtype == torch.float64 else 3e38
    w = w.to(dtype)
    if not w.any():
        w[n // 2] = 1
    return w


@devices
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["even", "skewed", "zeros", "denormal", "huge"])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000, 70001])
def test_rows_are_those_of_the_host(kind: str, n: int, dtype: torch.dtype, device: str) -> None:
    w = weights_of(kind, n, dtype)
    theirs, ours = Table("f", w.numpy()), DeviceTable("f", w.to(device))
    assert (ours.total, ours.positive, ours.n) == (theirs.total, theirs.positive, theirs.n)
    assert ours.fingerprint() == theirs.fingerprint()
    pairs = [(ours.independent(5, 2, first, step, 500), theirs.independent(5, 2, first, step, 500))
             for first, step in ((0, 1), (7, 3))]  # fmt: skip
    for total in (1, 7, n, 3 * n + 1):
        a, b = ours.systematic(9, 1, total), theirs.systematic(9, 1, total)
        pairs += [(a.draw(0, 1, total), b.draw(0, 1, total)), (a.draw(total - 1, 2, 1), b.draw(total - 1, 2, 1))]
    for wanted in {1, max(ours.positive // 2, 1), ours.positive}:
        pairs.append((ours.race(3, 4, wanted), theirs.race(3, 4, wanted)))
    for a, b in pairs:
        assert a.device.type == device
        assert a.dtype == torch.int64
        assert np.array_equal(a.cpu().numpy(), b)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samplers take every tensor for one of an accelerator."""
    monkeypatch.setattr(weighted, "_draws_itself", lambda weights: True)


HOW = [{}, {"systematic": True}, {"replacement": False}]


@devices
@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_a_sampler_draws_where_its_weights_are(how: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    w = (torch.tensor(WEIGHTS) * 4).to(dtype)
    ours = WeightedRandomSampler(w.to(device), 23, seed=3, **how)
    theirs = WeightedRandomSampler(w.numpy(), 23, seed=3, **how)
    assert isinstance(ours._table, DeviceTable)
    assert ours.weights.device.type == device
    found = ours.indices()
    assert found.device.type == device
    assert found.tolist() == theirs.indices().tolist()
    assert list(ours) == list(theirs)
    assert {type(row) for row in ours} == {int}
    assert ours.expected() == theirs.expected()
    assert ours.nbytes == 16 * len(w) + 8


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_and_resuming_are_as_on_the_host(how: dict[str, Any], ranks: int) -> None:
    w = torch.tensor(WEIGHTS)
    for rank in range(ranks):
        options = {**how, "num_replicas": ranks, "rank": rank, "seed": 3}
        wanted = list(WeightedRandomSampler(w.numpy(), 23, **options))
        sampler = WeightedRandomSampler(w, 23, **options)
        rows = iter(sampler)
        first = list(itertools.islice(rows, 2))
        assert first + list(rows) == wanted
        host = WeightedRandomSampler(w.numpy(), 23, **options)
        next(iter(host))
        fresh = WeightedRandomSampler(w, 23, **options)
        fresh.load_state_dict(host.state_dict())
        assert list(fresh) == wanted[1:]


@pytest.mark.usefixtures("on_device")
def test_weights_that_are_written_to_count_from_the_next_epoch_on() -> None:
    w = torch.ones(10)
    sampler = WeightedRandomSampler(w, 20_000, seed=0)
    rows = iter(sampler)
    first = [next(rows) for _ in range(10)]
    w[1:] = 0
    assert len(set(first + list(rows))) == 10
    assert set(sampler) == {0}
    assert list(copy.deepcopy(sampler)) == [0] * 20_000


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(("bad", "message"), [
    ([1.0, -2.0], "got -2 at position 1"), ([float("nan"), 1.0], "got nan at position 0"),
    ([1.0, float("inf")], "got inf at position 1"), ([0.0, 0.0], "must be above zero for one row at least"),
    ([[1.0]], r"got shape \(1, 1\)"), ([], "at least one; got none"),
])  # fmt: skip
def test_weights_that_are_none_are_refused(bad: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^WeightedRandomSampler: 'weights' .*{message}"):
        WeightedRandomSampler(torch.tensor(bad), 1)


def test_independent_draws_wait_for_nothing() -> None:
    table = DeviceTable("f", torch.rand(1000))
    with Reads() as reads:
        table.independent(1, 2, 0, 1, 500)
        table.race(1, 2, 300)
    assert reads.found == []
    with Reads() as reads:
        DeviceTable("f", torch.rand(1000))
    assert 1 <= len(reads.found) <= 8, "once, when a table is made: single numbers"


@pytest.mark.parametrize("read", [
    lambda t: t[t > 1], lambda t: t.unique(), lambda t: t.long().bincount(), lambda t: float(t[0]), lambda t: t.cpu(),
    lambda t: t.tolist(), lambda t: t.numpy(), lambda t: np.asarray(t), lambda t: bool(t.any()), lambda t: t.nonzero(),
    lambda t: t.repeat_interleave(t.long()), lambda t: t.index_put_((t > 1,), torch.zeros(())),
])  # fmt: skip
def test_the_watch_sees_whoever_reads(read: Any) -> None:
    with Reads() as reads:
        read(torch.arange(3.0))
    assert reads.found
