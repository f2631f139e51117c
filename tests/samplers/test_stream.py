"""Streams: the shares that were asked for, classes nobody knew of, workers, and resuming."""

from __future__ import annotations

import inspect
import itertools
import math
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from steelyard.samplers import RebalancedStream

COUNTS = {"a": 8000, "b": 1600, "c": 400}
STREAM = [(kind, number) for kind, count in COUNTS.items() for number in range(count)]
random.Random(0).shuffle(STREAM)


def passed(**options: Any) -> Counter[str]:
    return Counter(kind for kind, _ in RebalancedStream(STREAM, 0, **options))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"a": 400, "b": 400, "c": 400}),
        ({"max_repeats": 2.5}, {"a": 1000, "b": 1000, "c": 1000}),
        ({"target": 0.0}, COUNTS),
        ({"target": 0.5}, {"a": 8000 * math.sqrt(400 / 8000), "b": 1600 * math.sqrt(400 / 1600), "c": 400}),
        ({"target": {"a": 1, "b": 2, "c": 1}}, {"a": 400, "b": 800, "c": 400}),
        ({"target": {"a": 3, None: 1}}, {"a": 1200, "b": 400, "c": 400}),
        ({"target": {"c": 1, None: 0}}, {"c": 400}),
        ({"buffer_size": 100}, {"a": 400, "b": 400, "c": 400}),
    ],
    ids=str,
)
def test_shares_are_those_asked_for(options: dict[str, Any], wanted: dict[str, float]) -> None:
    found = passed(**options)
    for kind, mean in wanted.items():  # estimates at the start are rough; what they cost is within the noise
        assert abs(found[kind] - mean) < 5 * math.sqrt(mean) + 0.05 * mean, kind
    assert set(found) == set(wanted)
    told = RebalancedStream(STREAM, 0, **options).expected(_counts())
    for kind, mean in wanted.items():
        assert told.draws[told.classes.index(kind)] == pytest.approx(mean)


def _counts() -> Any:
    from steelyard import ClassCounts

    return ClassCounts(list(COUNTS), list(COUNTS.values()))


def test_samples_pass_as_they_are_in_their_order() -> None:
    rows = list(RebalancedStream(STREAM, 0))
    assert all(any(row is given for given in STREAM) for row in rows[:5])
    places = {row: place for place, row in enumerate(STREAM)}
    order = [places[row] for row in rows]
    assert order == sorted(order)


def test_nothing_comes_twice_unless_asked_for() -> None:
    for seed in range(20):
        rows = list(RebalancedStream(STREAM[:500], 0, seed=seed))
        assert len(set(rows)) == len(rows)
        assert max(Counter(RebalancedStream(STREAM[:500], 0, seed=seed, max_repeats=2.5)).values()) <= 3


def test_without_a_target_power_everything_passes() -> None:
    assert list(RebalancedStream(STREAM, 0, target=0.0)) == STREAM


def test_one_odd_label_does_not_hold_back_all_the_rest() -> None:
    stream = [("a", i) for i in range(3000)] + [("b", i) for i in range(1000)]
    random.Random(1).shuffle(stream)
    stream[2500:2500] = [("odd", 0)]
    plain = Counter(kind for kind, _ in RebalancedStream(stream, 0, seed=0))
    assert plain["odd"] == 1
    assert abs(plain["b"] - 1000) < 200
    assert abs(plain["a"] - 1000) < 200
    strict = Counter(kind for kind, _ in RebalancedStream(stream, 0, seed=0, min_ratio=0.0))
    assert strict["a"] + strict["b"] < 1600, "where nothing is too rare, one sample of a class sets the scale"


def test_a_class_that_has_become_frequent_sets_the_scale() -> None:
    """Too rare when it came, then as frequent as the rule asks for: looked for now and then."""
    stream = [("a", i) for i in range(20_000)] + [(kind, i) for i in range(4000) for kind in ("a", "a", "z")]
    found = list(RebalancedStream(stream, 0, seed=1, min_ratio=0.1))
    tail = Counter(kind for kind, _ in found[-600:])
    stream_ = RebalancedStream(stream, 0, min_ratio=0.1)
    assert stream_._neediest({"a": 20_000, "z": 1999})[0] == "a"
    assert stream_._neediest({"a": 20_000, "z": 2000})[0] == "z"
    assert tail["a"] < tail["z"], "the shares are made up for what has come so far"


def test_the_scale_is_looked_for_where_the_class_that_set_it_stays_away() -> None:
    stream = [("a", 0)] * 5000 + [("b", 0)] * 3000 + [("z", 0)] * 1000
    rebalanced = RebalancedStream(stream, 0, min_ratio=0.1)
    list(rebalanced)
    assert rebalanced._at_work is not None
    assert rebalanced._at_work.neediest == "z"


def test_expected_knows_what_is_too_rare() -> None:
    from steelyard import ClassCounts

    counts = ClassCounts(["a", "b", "odd"], [30_000, 1000, 3])
    told = RebalancedStream(STREAM, 0).expected(counts)
    assert told.draws == pytest.approx((1000, 1000, 3))
    told = RebalancedStream(STREAM, 0, min_ratio=0.0).expected(counts)
    assert told.draws == pytest.approx((3, 3, 3))
    told = RebalancedStream(STREAM, 0, target={"odd": 1, None: 0}).expected(counts)
    assert told.draws == pytest.approx((0, 0, 3)), "where nothing frequent is wanted, the rare set the scale"


def test_a_class_that_turns_up_late_is_welcome() -> None:
    stream = [("a", i) for i in range(5000)] + [(kind, i) for i in range(1000) for kind in ("a", "z")]
    found = list(RebalancedStream(stream, 0, seed=1))
    assert sum(kind == "z" for kind, _ in found) > 900
    late = [kind for kind, number in found[-400:]]
    assert 0 < late.count("a") < late.count("z")


def test_a_class_that_the_target_does_not_cover_is_an_error() -> None:
    stream = RebalancedStream(STREAM, 0, target={"a": 1, "b": 1})
    with pytest.raises(
        ValueError,
        match=r"^RebalancedStream: 'target' must be such .* got class 'c'\. It names 'a', 'b'; a share for None",
    ):
        list(stream)


def test_repeats_come_apart_in_a_buffer() -> None:
    plain = list(RebalancedStream(STREAM, 0, max_repeats=4.0, seed=0))
    mixed = list(RebalancedStream(STREAM, 0, max_repeats=4.0, seed=0, buffer_size=500))
    assert Counter(kind for kind, _ in mixed) == Counter(kind for kind, _ in plain)

    def beside(rows: list[Any]) -> int:
        return sum(a == b for a, b in itertools.pairwise(rows))

    assert beside(plain) > 0.6 * 400 * 3
    assert beside(mixed) < 0.1 * beside(plain)


def test_epochs_differ_and_are_reproducible() -> None:
    stream = RebalancedStream(STREAM, 0, seed=1)
    first, second = list(stream), list(stream)
    assert first != second
    again = RebalancedStream(STREAM, 0, seed=1)
    again.set_epoch(1)
    assert list(again) == second
    assert list(RebalancedStream(STREAM, 0, seed=2)) != first


LABELS = [
    (lambda sample: sample["y"], [{"y": 0}, {"y": 1}]),
    ("y", [{"y": torch.tensor(0)}, {"y": torch.tensor([1])}]),
    (1, [(None, np.int64(0)), (None, np.array(1))]),
    (-1, [torch.tensor([5, 0]), torch.tensor([5, 1])]),
]


@pytest.mark.parametrize(("label", "samples"), LABELS, ids=["function", "key", "index", "tensor"])
def test_labels_are_found_by_function_key_or_index(label: Any, samples: list[Any]) -> None:
    stream = RebalancedStream(samples, label)
    assert [stream.class_of(sample) for sample in samples] == [0, 1]
    assert len(list(stream)) == 2


@pytest.mark.parametrize("position", [0, 1, 7, 300, 1100, 10**9])
@pytest.mark.parametrize(
    "options", [{}, {"max_repeats": 3.0}, {"min_ratio": 0.5}, {"buffer_size": 50, "max_repeats": 2.0}], ids=str
)
def test_resume(options: dict[str, Any], position: int) -> None:
    whole = list(RebalancedStream(STREAM, 0, seed=1, **options))
    before = RebalancedStream(STREAM, 0, seed=1, **options)
    given = list(itertools.islice(iter(before), position))
    after = RebalancedStream(STREAM, 0, seed=1, **options)
    after.load_state_dict(pickle.loads(pickle.dumps(before.state_dict())))
    assert given + list(after) == whole
    second = RebalancedStream(STREAM, 0, seed=1, **options)
    second.set_epoch(1)
    assert list(after) == list(second)


class Source(IterableDataset):
    """Shared out over workers, as iterable datasets must be, and able to say where it stands."""

    def __init__(self) -> None:
        self.start = self.read = 0

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        step, first = (1, 0) if info is None else (info.num_workers, info.id)
        start, self.start = self.start, 0
        self.read = start
        for kind, number in STREAM[first::step][start:]:
            self.read += 1
            yield "abc".index(kind), number

    def state_dict(self) -> dict[str, int]:
        return {"read": self.read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["read"]


def test_a_source_with_a_state_of_its_own_is_not_read_again() -> None:
    source = Source()
    before = RebalancedStream(source, 0, seed=1)
    whole = list(RebalancedStream(Source(), 0, seed=1))
    given = list(itertools.islice(iter(before), 200))
    state = before.state_dict()
    assert state["dataset"] == {"read": state["seen"]}
    fresh = Source()
    after = RebalancedStream(fresh, 0, seed=1)
    after.load_state_dict(state)
    items = iter(after)
    assert fresh.start == state["seen"]
    assert given + list(items) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_data_loader(workers: int) -> None:
    loader = DataLoader(RebalancedStream(Source(), 0, seed=1), batch_size=16, num_workers=workers)
    kinds = Counter(itertools.chain(*(batch[0].tolist() for batch in loader)))
    assert all(abs(kinds[c] - 400) < 5 * 20 + 20 for c in range(3))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_out_what_is_no_iterable_dataset(workers: int) -> None:
    rows = [("abc".index(kind), number) for kind, number in STREAM]
    loader = DataLoader(RebalancedStream(rows, 0, target=0.0), batch_size=None, num_workers=workers)
    assert sorted((int(kind), int(number)) for kind, number in loader) == sorted(rows)


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"target": 0.5}, {"max_repeats": 2.0}, {"min_ratio": 0.5}, {"buffer_size": 9}], ids=str
)
def test_a_state_of_another_stream_is_refused(change: dict[str, Any]) -> None:
    state = RebalancedStream(STREAM, 0, **{"seed": 1, **change}).state_dict()
    (name,) = change
    with pytest.raises(
        ValueError, match=rf"'state_dict' must be of a stream with {name} = .*; got {change[name]}\. Make"
    ):
        RebalancedStream(STREAM, 0, seed=1).load_state_dict(state)


BAD = [
    ({"dataset": 5}, TypeError, "'dataset' must be an iterable of samples"),
    ({"dataset": iter([1])}, TypeError, "'dataset' must be an iterable that can be iterated again; .*Wrap it"),
    ({"label": 0.5}, TypeError, "'label' must be a function of the sample, an index or a key"),
    ({"label": None}, TypeError, "'label' must be a function"),
    ({"target": -1.0}, ValueError, "'target' must be a number in"),
    ({"target": "balanced"}, TypeError, "'target' must be a number in"),
    ({"target": {"a": -1}}, ValueError, "'target' must be a number in"),
    ({"target": {"a": 0}}, ValueError, "'target' must be a mapping with a share above zero"),
    ({"target": {}}, ValueError, "'target' must be a mapping with a share above zero"),
    ({"max_repeats": 0.0}, ValueError, "'max_repeats' must be above zero"),
    ({"max_repeats": float("inf")}, ValueError, "'max_repeats' must be a number in"),
    ({"min_ratio": 1.5}, ValueError, r"'min_ratio' must be a number in \[0, 1\]"),
    ({"min_ratio": "a"}, TypeError, "'min_ratio' must be a number in"),
    ({"buffer_size": -1}, ValueError, "'buffer_size' must be zero or more"),
    ({"buffer_size": 1.0}, TypeError, "'buffer_size' must be an integer"),
    ({"seed": -1}, ValueError, "'seed' must be zero or more"),
    ({"seed": None}, TypeError, "'seed' must be an integer"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=short)
def test_bad_arguments_are_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^RebalancedStream: {message}"):
        RebalancedStream(**{"dataset": STREAM, **change})


def test_every_argument_has_a_row_of_bad_values() -> None:
    assert {name for change, *_ in BAD for name in change} == set(inspect.signature(RebalancedStream).parameters)


@pytest.mark.parametrize(
    ("label", "sample", "message"),
    [
        ("y", {"x": 1}, "'label' must be an index or key into every sample; got 'y', where KeyError"),
        (3, (1, 2), "'label' must be an index or key into every sample; got 3, where IndexError"),
        (0, (torch.zeros(2), 1), "'label' must be what finds one class of a sample"),
        (0, ([], 1), "'label' must be what finds an int, str or bool"),
        (0, (1.5, 1), "'label' must be what finds an int, str or bool; got float 1.5"),
        (0, (torch.tensor(float("nan")), 1), "'label' must be what finds an int, str or bool; got float nan"),
    ],
)
def test_a_sample_without_a_class_is_an_error(label: Any, sample: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^RebalancedStream: {message}"):
        list(RebalancedStream([sample], label))


@pytest.mark.parametrize("state", [None, {}, {"epoch": 1}])
def test_a_state_of_something_else_is_refused(state: Any) -> None:
    with pytest.raises(TypeError, match=r"^RebalancedStream\.load_state_dict: 'state_dict' must be what state_dict"):
        RebalancedStream(STREAM).load_state_dict(state)
