"""WeightedRandomSampler: PyTorch's arguments, its shares, and no row that nobody weighed."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short

from steelyard import class_weights, count_classes, sample_weights
from steelyard.samplers import WeightedRandomSampler


def test_arguments_are_pytorchs_and_then_ours() -> None:
    theirs = list(inspect.signature(torch.utils.data.WeightedRandomSampler).parameters.values())
    ours = list(inspect.signature(WeightedRandomSampler).parameters.values())
    assert [(p.name, p.default, p.kind) for p in ours[: len(theirs)]] == [(p.name, p.default, p.kind) for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])


def test_shares_are_pytorchs() -> None:
    """Two samples of the same distribution: a two-sample chi-square."""
    weights = torch.tensor([5.0, 3.0, 0.0, 1.0, 0.7, 0.3])
    torch.manual_seed(0)
    theirs = np.bincount(list(torch.utils.data.WeightedRandomSampler(weights, 50_000)), minlength=6)
    ours = np.bincount(list(WeightedRandomSampler(weights, 50_000, seed=0)), minlength=6)
    assert ours[2] == theirs[2] == 0
    both = (ours + theirs)[[0, 1, 3, 4, 5]]
    gap = (ours - theirs)[[0, 1, 3, 4, 5]]
    assert (gap**2 / both).sum() < 4 + 5 * np.sqrt(8)


@pytest.mark.parametrize("how", [{}, {"systematic": True}, {"replacement": False}], ids=str)
def test_rows_of_weight_zero_are_never_drawn(how: dict[str, Any]) -> None:
    weights = [0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 4.0, 0.0, 1.0, 0.0]
    sampler = WeightedRandomSampler(weights, 4, seed=0, **how)
    for _ in range(200):
        assert set(sampler) <= {1, 3, 6, 8}


def test_without_replacement_no_row_comes_twice() -> None:
    sampler = WeightedRandomSampler(torch.rand(1000), 600, False, seed=0)
    for _ in range(3):
        rows = list(sampler)
        assert len(set(rows)) == 600
    everything = WeightedRandomSampler([1.0, 0.0, 2.0], 2, False, seed=0)
    assert {tuple(sorted(everything)) for _ in range(20)} == {(0, 2)}


def test_without_replacement_the_order_is_one_of_chance() -> None:
    """PyTorch's epoch begins with the heavy rows; here any stretch is a fair sample of what is in."""
    weights = torch.ones(100)
    weights[:50] = 20
    sampler = WeightedRandomSampler(weights, 60, False, seed=0)
    halves = np.array([[sum(row < 50 for row in rows[:30]), sum(row < 50 for row in rows[30:])]
                       for rows in (list(sampler) for _ in range(400))])  # fmt: skip
    gap = halves[:, 0] - halves[:, 1]
    assert abs(gap.mean()) < 5 * gap.std() / 20


def test_more_draws_than_rows_are_refused_without_replacement() -> None:
    with pytest.raises(
        ValueError, match=r"^WeightedRandomSampler: 'num_samples' must be at most 2 without replacement, as 2 rows"
    ):
        WeightedRandomSampler([1, 0, 2], 3, False)
    with pytest.raises(ValueError, match=r"at most 0 without.* got int 1\. 4 ranks get equally many"):
        WeightedRandomSampler([1, 0, 2], 1, False, num_replicas=4, rank=0)
    with pytest.raises(
        ValueError, match=r"at most 2 without .* got int 3\. 2 ranks get equally many draws, 4 together"
    ):
        WeightedRandomSampler([1, 1, 2], 3, False, num_replicas=2, rank=0)


def test_a_rest_that_ranks_cannot_share_is_refused_by_all_of_them() -> None:
    before = WeightedRandomSampler(torch.ones(12), 12, False, seed=0)
    rows = iter(before)
    next(rows)
    for rank in range(4):
        after = WeightedRandomSampler(torch.ones(12), 12, False, seed=0, num_replicas=4, rank=rank)
        after.load_state_dict(before.state_dict())
        with pytest.raises(
            ValueError, match=r"'num_samples' must be such that an epoch takes at most 12, .*; got 13 in all"
        ):
            list(after)


def test_weights_of_classes_for_rows_are_recognised() -> None:
    labels = [0] * 90 + [1] * 10
    weight = class_weights(count_classes(labels))
    with pytest.raises(
        ValueError,
        match=r"'weights' must be one per row, 100 of them; got 2\. These look like weights of classes",
    ):
        WeightedRandomSampler(weight, 100, labels=labels)
    with pytest.raises(ValueError, match=r"one per row, 100 of them; got 99\.$"):
        WeightedRandomSampler([1.0] * 99, 100, labels=labels)
    sampler = WeightedRandomSampler(sample_weights(labels, weight), 1000, labels=labels, seed=0)
    assert abs(sum(row >= 90 for row in sampler) - 500) < 5 * 16


BAD = [
    ({"num_samples": 0}, ValueError, "'num_samples' must be 1 or more; got int 0"),
    ({"num_samples": -3}, ValueError, "'num_samples' must be 1 or more; got int -3"),
    ({"num_samples": 2.0}, TypeError, "'num_samples' must be an integer; got float 2.0"),
    ({"num_samples": True}, TypeError, "'num_samples' must be an integer; got bool True"),
    ({"replacement": 1}, TypeError, "'replacement' must be True or False; got int 1"),
    ({"systematic": None}, TypeError, "'systematic' must be True or False; got None"),
    ({"systematic": True, "replacement": False}, ValueError, "'systematic' must be False without replacement"),
    ({"weights": []}, ValueError, "'weights' must be one number per row, at least one; got none"),
    ({"weights": [[1.0]]}, ValueError, r"'weights' must be one finite .*; got shape \(1, 1\)"),
    ({"weights": torch.ones(2, 2)}, ValueError, r"'weights' must be one finite .*; got shape \(2, 2\)"),
    ({"weights": 3.0}, TypeError, "'weights' must be one finite number of zero or more per row"),
    ({"weights": "abc"}, TypeError, "'weights' must be one finite number of zero or more per row"),
    ({"weights": ["a"]}, TypeError, "'weights' must be one finite number of zero or more per row"),
    ({"weights": torch.tensor([True])}, TypeError, "'weights' must be one finite number"),
    ({"weights": torch.tensor([1j])}, TypeError, "'weights' must be one finite number"),
    ({"weights": np.array([True])}, TypeError, "'weights' must be one finite number"),
    ({"weights": [1.0, -0.5]}, ValueError, "'weights' must be .*; got -0.5 at position 1"),
    ({"weights": [1.0, float("nan")]}, ValueError, "'weights' must be .*; got nan at position 1"),
    ({"weights": [float("inf"), 1.0]}, ValueError, "'weights' must be .*; got inf at position 0"),
    ({"weights": [0, 0]}, ValueError, "'weights' must be above zero for one row at least; got 2 zeros"),
    ({"labels": [0, None]}, ValueError, "'labels' must be labels without gaps"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=short)
def test_bad_arguments_are_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"weights": [1.0, 2.0], "num_samples": 2, **change}
    with pytest.raises(error, match=rf"^WeightedRandomSampler: {message}"):
        WeightedRandomSampler(**arguments)


def test_every_argument_has_a_row_of_bad_values() -> None:
    here = {name for change, *_ in BAD for name in change}
    elsewhere = {"generator", "num_replicas", "rank", "seed"}  # of all samplers: test_epochs
    assert here | elsewhere == set(inspect.signature(WeightedRandomSampler).parameters)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.int64, torch.uint8, np.float32, np.int32, ">f8"])
def test_any_kind_of_numbers_will_do(kind: Any) -> None:
    values = [1, 0, 3, 4]
    given: Any = torch.tensor(values, dtype=kind) if isinstance(kind, torch.dtype) else np.array(values, dtype=kind)
    wanted = list(WeightedRandomSampler(values, 50, seed=0))
    assert list(WeightedRandomSampler(given, 50, seed=0)) == wanted
    assert list(WeightedRandomSampler(tuple(values), 50, seed=0)) == wanted
    assert (
        list(WeightedRandomSampler(torch.tensor(values, dtype=torch.float64).repeat_interleave(2)[::2], 50, seed=0))
        == wanted
    )


def test_the_scale_of_the_weights_does_not_matter() -> None:
    weights = torch.rand(500, dtype=torch.float64)
    wanted = list(WeightedRandomSampler(weights, 300, seed=0))
    for power in (-1000, -40, 3, 900):
        assert list(WeightedRandomSampler(weights * 2.0**power, 300, seed=0)) == wanted


def test_a_tensor_that_is_written_to_is_read_again() -> None:
    weights = torch.ones(10)
    sampler = WeightedRandomSampler(weights, 100, seed=0)
    assert sampler.weights is weights
    assert len(set(sampler)) == 10
    weights[1:] = 0
    assert set(sampler) == {0}
    sampler.weights[0] = 0
    sampler.weights[4] = 1
    assert set(sampler) == {4}
    weights[4] = -1
    with pytest.raises(ValueError, match=r"'weights' must be .* got -1 at position 4"):
        list(sampler)


def test_new_weights_may_be_assigned() -> None:
    sampler = WeightedRandomSampler([1.0, 1.0], 20, seed=0)
    sampler.weights = [0.0, 0.0, 2.0]
    assert set(sampler) == {2}
    with pytest.raises(ValueError, match="'weights' must be above zero"):
        sampler.weights = [0.0]
    assert set(sampler) == {2}


def write(weights: Any) -> None:
    weights[1:] = 0


def write_past_autograd(weights: torch.Tensor) -> None:
    weights.data[1:] = 0


def write_through_numpy(weights: torch.Tensor) -> None:
    weights.numpy()[1:] = 0


WRITTEN = {
    "tensor": (torch.ones(10), write),
    "tensor.data": (torch.ones(10), write_past_autograd),
    "tensor that NumPy shares": (torch.ones(10), write_through_numpy),
    "integers": (torch.ones(10, dtype=torch.int64), write),
    "half": (torch.ones(10, dtype=torch.float16), write),
    "stride": (torch.ones(20)[::2], write),
    "array": (np.ones(10), write),
    "integer array": (np.ones(10, np.int32), write),
}


@pytest.mark.parametrize(("weights", "change"), WRITTEN.values(), ids=WRITTEN)
def test_what_is_written_to_the_weights_counts_from_the_next_epoch_on(weights: Any, change: Any) -> None:
    sampler = WeightedRandomSampler(weights, 20_000, seed=0)
    rows = iter(sampler)
    first = [next(rows) for _ in range(100)]
    change(weights)
    assert len(set(first + list(rows))) == 10, "an epoch that has begun goes on as it began, beyond its first block too"
    assert set(sampler) == {0}
    assert sampler.weights is weights


def test_weights_of_inference_mode_and_arrays_that_are_read_only() -> None:
    with torch.inference_mode():
        weights = torch.tensor([0.0, 1.0, 2.0])
    wanted = list(WeightedRandomSampler([0.0, 1.0, 2.0], 9, seed=0))
    assert list(WeightedRandomSampler(weights, 9, seed=0)) == wanted
    array = np.array([0.0, 1.0, 2.0])
    array.flags.writeable = False
    assert list(WeightedRandomSampler(array, 9, seed=0)) == wanted
    parameter = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    assert list(WeightedRandomSampler(parameter, 9, seed=0)) == wanted


def test_a_pickle_holds_no_table_and_draws_the_same() -> None:
    weights = torch.rand(100_000)
    sampler = WeightedRandomSampler(weights, 50, labels=[0, "a"] * 50_000, seed=0)
    rows = iter(sampler)
    next(rows)
    stored = pickle.dumps(sampler)
    assert len(stored) < 4 * 100_000 + 100_000 + 20_000
    copy = pickle.loads(stored)
    assert list(copy) == list(rows)
    assert copy.labels.tolist()[:2] == [0, "a"]


def test_a_state_amid_an_epoch_wants_the_weights_that_the_epoch_began_with() -> None:
    weights = torch.rand(50)
    sampler = WeightedRandomSampler(weights, 40, seed=0)
    start = sampler.state_dict()
    rows = iter(sampler)
    next(rows)
    amid = sampler.state_dict()
    other = WeightedRandomSampler(weights.flip(0), 40, seed=0)
    other.load_state_dict(start)  # new weights for a new epoch are no mistake
    with pytest.raises(
        ValueError, match=r"with the same weights; got one with other weights\. With other weights, a run"
    ):
        other.load_state_dict(amid)
    again = WeightedRandomSampler(weights.clone(), 40, seed=0)
    again.load_state_dict(amid)
    assert list(again) == list(rows)


@pytest.mark.parametrize(
    ("made", "differs"),
    [({"replacement": False}, "replacement = False"), ({"systematic": True}, "systematic = True"), ({}, "rows = 12")],
    ids=str,
)
def test_a_state_of_other_options_is_refused(made: dict[str, Any], differs: str) -> None:
    state = WeightedRandomSampler(torch.ones(9), 5, seed=0).state_dict()
    with pytest.raises(ValueError, match=rf"'state_dict' must be of a sampler with {differs}; got "):
        WeightedRandomSampler(torch.ones(12), 5, seed=0, **made).load_state_dict(state)


def test_weights_from_a_file(tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "weights", np.float64, "w+", shape=(1000,))
    stored[:] = np.arange(1000)
    stored.flush()
    read = np.memmap(tmp_path / "weights", np.float64, "r")
    sampler = WeightedRandomSampler(read, 500, seed=0)
    assert sampler.weights is read or np.shares_memory(sampler.weights, read)
    assert list(sampler) == list(WeightedRandomSampler(np.arange(1000), 500, seed=0))
    assert sampler.nbytes <= 8 * 1000 + 64


@pytest.mark.parametrize(
    ("how", "num_samples"),
    [({}, 40), ({}, 1), ({"systematic": True}, 40), ({"replacement": False}, 25), ({"replacement": False}, 29)],
    ids=str,
)
def test_expected_is_what_epochs_show(how: dict[str, Any], num_samples: int) -> None:
    labels = np.array([0] * 18 + [1] * 9 + [2] * 3)
    weights = np.where(labels == 0, 1.0, np.where(labels == 1, 2.5, 6.0)) * np.linspace(0.5, 1.5, 30)
    weights[3] = 0
    sampler = WeightedRandomSampler(weights, num_samples, labels=labels, seed=0, **how)
    told = sampler.expected()
    epochs = 1500
    draws, seen = np.zeros((epochs, 3)), np.zeros((epochs, 3))
    for epoch in range(epochs):
        rows = sampler.indices().numpy()
        draws[epoch] = np.bincount(labels[rows], minlength=3)
        seen[epoch] = np.bincount(labels[np.unique(rows)], minlength=3)
    slack = 0.02 if how.get("replacement") is False else 0.0  # there it is an approximation
    assert told.classes == (0, 1, 2)
    assert told.rows == (18, 9, 3)
    for c in range(3):
        drawn, share = draws[:, c], seen[:, c] / told.rows[c]
        error = 5 / epochs**0.5
        assert abs(told.draws[c] - drawn.mean()) <= error * drawn.std() + slack * num_samples + 1e-9
        assert abs(told.coverage[c] - share.mean()) <= error * share.std() + slack + 1e-9
        assert told.repeats[c] == pytest.approx(told.draws[c] / told.rows[c])
    assert sum(told.draws) == pytest.approx(num_samples)


def test_expected_at_99_to_1() -> None:
    """The figures of the literature: inverse frequency, as many draws as rows."""
    labels = [0] * 9900 + [1] * 100
    sampler = WeightedRandomSampler(sample_weights(labels, [1 / 9900, 1 / 100]), 10_000, labels=labels)
    told = sampler.expected()
    assert told.coverage[0] == pytest.approx(0.39, abs=0.01)
    assert told.repeats[1] == pytest.approx(50)
    assert told.to_dict()["classes"] == [0, 1]
    assert str(told).splitlines()[0].split() == [
        "class",
        "rows",
        "share",
        "of",
        "rows",
        "share",
        "of",
        "draws",
        "rows",
        "seen",
        "times",
        "a",
        "row",
    ]
    without = WeightedRandomSampler([1.0, 3.0], 4).expected()
    assert without.classes == (None,)
    assert "all" in str(without)


def test_expected_takes_weights_of_any_size() -> None:
    told = WeightedRandomSampler([1.7e308, 1.7e308, 0.0], 10).expected()
    assert told.draws == pytest.approx((10.0,))
    certain = WeightedRandomSampler([1.0, 0.0], 5).expected()
    assert certain.coverage == (0.5,)
    everything = WeightedRandomSampler([1.0, 0.0, 2.0], 2, False).expected()
    assert everything.draws == pytest.approx((2.0,))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e300])
@pytest.mark.parametrize("how", [{}, {"systematic": True}, {"replacement": False}], ids=str)
def test_expected_does_not_depend_on_the_scale(how: dict[str, Any], scale: float) -> None:
    weights = np.random.default_rng(0).random(300) ** 8
    told = WeightedRandomSampler(weights * scale, 100, **how).expected()
    wanted = WeightedRandomSampler(weights, 100, **how).expected()
    assert told.draws == pytest.approx(wanted.draws)
    assert told.coverage == pytest.approx(wanted.coverage)
    assert sum(told.draws) == pytest.approx(100)


def test_expected_without_replacement_of_weights_far_apart() -> None:
    """One row of weight 1 and a hundred of 10^-12: both draws of two are not both of the heavy one."""
    weights = np.full(101, 1e-12)
    weights[0] = 1.0
    told = WeightedRandomSampler(weights, 2, False, labels=[0] + [1] * 100).expected()
    assert told.draws == pytest.approx((1.0, 1.0))
    single = WeightedRandomSampler(weights.astype(np.float32), 2, False, labels=[0] + [1] * 100).expected()
    assert single.draws == pytest.approx((1.0, 1.0), rel=1e-5)


def test_a_long_table_of_expectations_is_cut_in_the_middle() -> None:
    told = WeightedRandomSampler(torch.ones(100), 10, labels=list(range(100))).expected()
    lines = str(told).splitlines()
    assert len(lines) == 33
    assert "... 70 more ..." in lines[16]
