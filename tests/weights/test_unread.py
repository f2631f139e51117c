"""Counts and labels on a device: the host's numbers, computed there, and nothing of them is looked at.

Without a GPU, tensors of the CPU stand in for its own, while a mode watches who looks at them; and those of the meta
device, which have no values to read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from device_reads import Reads, waiting_is_an_error
from gpu_cases import DEVICE, HAS_GPU, NEEDS_GPU
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from steelyard import _values, functional, nn
from steelyard.functional import _check, softmax
from steelyard.nn import _base
from steelyard.samplers import WeightedRandomSampler
from steelyard.weights import SCHEMES, _unread, class_weights, pos_weight, sample_weights
from steelyard.weights._unread import is_unread, widest

COUNTS = [100_000, 0, 100, 10, 10]
OPTIONS: list[dict[str, Any]] = [
    {}, {"power": 0.5}, {"cap": 50.0}, {"missing": "max"}, {"normalize": "mean"}, {"normalize": "sum"},
    {"normalize": "max"}, {"normalize": "prior"}, {"power": 0.25, "cap": 3.0, "missing": "max", "normalize": "prior"},
]  # fmt: skip


@contextmanager
def unseen() -> Iterator[None]:
    """Where tensors are not looked at; and nobody does."""
    if HAS_GPU:
        with waiting_is_an_error():
            yield
    else:
        with pytest.MonkeyPatch.context() as patch, Reads() as reads:
            patch.setattr(_unread, "readable", lambda tensor: False)
            yield
        assert reads.found == []


def on_host(function: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("scheme", [*SCHEMES, lambda n: 1 / (n + 1)])
def test_weights_are_those_of_the_host(scheme: Any, options: dict[str, Any], dtype: torch.dtype) -> None:
    options = {"missing": "zero", **options}
    counts = torch.tensor(COUNTS, dtype=dtype, device=DEVICE)
    with unseen():
        found = class_weights(counts, scheme, **options)
    assert (found.device, found.dtype) == (counts.device, torch.float32)
    torch.testing.assert_close(found.cpu(), on_host(class_weights, COUNTS, scheme, **options), rtol=3e-7, atol=0)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3) | st.integers(0, 10**6), min_size=1, max_size=10),
    st.sampled_from(sorted(SCHEMES)),
    st.sampled_from(["raise", "zero", "max"]),
    st.sampled_from([None, "mean", "prior"]),
    st.sampled_from([0.0, 0.5, 1.0, 8.0]),
)
def test_what_the_host_refuses_is_nan(counts, scheme, missing, normalize, power) -> None:
    options = {"missing": missing, "normalize": normalize, "power": power}
    try:
        wanted = on_host(class_weights, counts, scheme, **options)
    except ValueError:
        wanted = torch.full((len(counts),), math.nan)
    tensor = torch.tensor(counts, device=DEVICE)
    with unseen():
        found = class_weights(tensor, scheme, **options)
    torch.testing.assert_close(found.cpu(), wanted, rtol=3e-7, atol=0, equal_nan=True)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_class_without_samples(scheme: str) -> None:
    counts = torch.tensor([9, 0, 1], device=DEVICE)
    with unseen():
        found = class_weights(counts, scheme)
    assert found.isnan().all()


def test_weights_that_vanish_on_the_way() -> None:
    options: dict[str, Any] = {"scheme": "inverse", "power": 60.0, "normalize": "max"}
    with pytest.raises(ValueError, match="fit into float64"):
        class_weights([10**6, 3], **options)
    counts = torch.tensor([10**6, 3], device=DEVICE)
    with unseen():
        found = class_weights(counts, **options)
    assert found.isnan().all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_samples_at_all(scheme: str) -> None:
    counts = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    with unseen():
        found = class_weights(counts, scheme, missing="zero")
    assert found.isnan().all()


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-12])
def test_beta(beta: float) -> None:
    counts = torch.tensor([10, 1000, 7], device=DEVICE)
    with unseen():
        found = class_weights(counts, "effective_number", beta=beta)
    wanted = on_host(class_weights, [10, 1000, 7], "effective_number", beta=beta)
    torch.testing.assert_close(found.cpu(), wanted, rtol=3e-7, atol=0)


@pytest.mark.parametrize("bad", [[3.0, -1.0], [0.5, 1.0], [math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0], [2.0**62, 1.0]])
@pytest.mark.parametrize("function", [class_weights, pos_weight])
def test_numbers_that_count_nothing_make_nan(function: Callable[..., Tensor], bad: list[float]) -> None:
    with pytest.raises(ValueError, match="'counts' must be"):
        function(bad, missing="zero")
    counts = torch.tensor(bad, dtype=torch.float64, device=DEVICE)
    with unseen():
        found = function(counts, missing="zero")
    assert found.isnan().all()


@pytest.mark.parametrize("scheme", [lambda n: n - 2, lambda n: n * math.nan, lambda n: n * 0, lambda n: n * math.inf])
def test_a_function_that_gives_no_weights_makes_nan(scheme: Any) -> None:
    counts = torch.tensor([3, 1], device=DEVICE)
    with unseen():
        found = class_weights(counts, scheme)
    assert found.isnan().all()


def test_shape_and_dtype_are_refused_all_the_same() -> None:
    for bad, error, message in [
        (torch.ones(2, 2), ValueError, "one count per class, of shape"),
        (torch.ones(0), ValueError, "at least one count; got none"),
        (torch.ones(2, dtype=torch.bool), TypeError, "whole numbers of zero or more"),
        (torch.ones(2, dtype=torch.complex64), TypeError, "whole numbers of zero or more"),
    ]:
        for function in (class_weights, pos_weight):
            with pytest.raises(error, match=f"^{function.__name__}: 'counts' must be {message}"):
                function(bad.to("meta"))
    with pytest.raises(ValueError, match="'scheme' must be one of"):
        class_weights(torch.ones(2, device="meta"), "invers")
    with pytest.raises(ValueError, match=r"'scheme' must be .* gives shape \(1,\)"):
        class_weights(torch.ones(2, device="meta"), lambda n: n[:1])
    with pytest.raises(ValueError, match="those of two classes; got 3 classes"):
        pos_weight(torch.ones(3, device="meta"))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_where_there_is_nothing_to_read(scheme: str, options: dict[str, Any]) -> None:
    counts = torch.ones(5, dtype=torch.int64, device="meta")
    found = class_weights(counts, scheme, **options)
    assert (found.shape, found.dtype, found.device.type) == ((5,), torch.float32, "meta")
    loss = nn.CrossEntropyLoss.from_counts(counts, scheme, **options)
    assert loss.weight.is_meta
    assert pos_weight(counts[:2]).is_meta
    assert sample_weights(counts, found).is_meta


@pytest.mark.parametrize("missing", ["raise", "zero", "max"])
@pytest.mark.parametrize("positive", [None, 0, 1])
@pytest.mark.parametrize("counts", [[300, 100], [0, 5], [5, 0], [0, 0], [10**9, 1]])
def test_pos_weight(counts: list[int], positive: int | None, missing: str) -> None:
    try:
        wanted = pos_weight(counts, positive=positive, missing=missing)
    except ValueError:
        wanted = torch.tensor([math.nan])
    tensor = torch.tensor(counts, device=DEVICE)
    with unseen():
        found = pos_weight(tensor, positive=positive, missing=missing)
    assert found.device == tensor.device
    torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.uint16, torch.float32, torch.bfloat16], ids=str)
def test_weights_of_rows(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 2, 1, 2], device=DEVICE).to(dtype)
    weight = torch.tensor([0.5, 2.0, 8.0], device=DEVICE)
    with unseen():
        found = sample_weights(labels, weight)
    assert (found.dtype, found.device) == (torch.float64, labels.device)
    assert found.tolist() == [0.5, 8.0, 2.0, 8.0]


def test_rows_without_a_weight_are_nan() -> None:
    labels = torch.tensor([0.0, 3.0, -1.0, 0.5, math.nan, 1.0, 2.0], device=DEVICE)
    weight = torch.tensor([1.0, -1.0, math.inf], device=DEVICE)
    with unseen():
        found = sample_weights(labels, weight)
    assert found.isnan().tolist() == [False, True, True, True, True, True, True]
    with pytest.raises(ValueError, match="got nan at position 1"):
        WeightedRandomSampler(found, 3)


def test_rows_of_other_forms_are_refused() -> None:
    rows, weight = torch.zeros(3, dtype=torch.int64, device="meta"), torch.ones(2, device="meta")
    for labels, values, error, message in [
        (rows[None], weight, ValueError, r"'labels' must be one label per row"),
        (rows, weight[None], ValueError, r"'weight' must be one weight per class"),
        (rows, weight[:0], ValueError, r"'weight' must be one weight per class"),
        (rows.cfloat(), weight, TypeError, "'labels' must be real"),
        (rows, weight.cfloat(), TypeError, "'weight' must be real"),
    ]:
        with pytest.raises(error, match=f"^sample_weights: {message}"):
            sample_weights(labels, values)


def test_compiled_and_transformed() -> None:
    counts = torch.tensor([[90, 10], [3, 1]])
    with torch.no_grad():
        compiled = torch.compile(lambda n: class_weights(n, "balanced"), fullgraph=True, backend="eager")
        assert torch.equal(compiled(counts[0]), class_weights(counts[0], "balanced"))
    batched = torch.vmap(class_weights)(counts)
    assert torch.equal(batched, torch.stack([class_weights(n) for n in counts]))


def test_on_the_cpu_they_are_looked_at() -> None:
    assert not is_unread(torch.ones(2))
    assert not is_unread([1, 2])
    assert is_unread(torch.ones(2, device="meta"))
    assert widest(torch.device("cuda")) == torch.float64
    assert widest(torch.device("mps")) == torch.float32


class Own(Tensor):
    """A subclass that dispatches nothing, as those of other libraries."""


def test_tensors_of_other_classes_and_under_a_watch_are_looked_at() -> None:
    counts, labels = torch.tensor([90, 0, 1]), torch.tensor([0, 5])
    for mode in (nullcontext(), FlopCounterMode(display=False)):
        for kind in (Tensor, Own):
            with mode, pytest.raises(ValueError, match="got none for class 1"):
                class_weights(counts.as_subclass(kind))
            with mode, pytest.raises(IndexError, match="got 5 at position 1"):
                sample_weights(labels.as_subclass(kind), torch.ones(2).as_subclass(kind))
            with mode, pytest.raises(ValueError, match="got none for class 1"):
                nn.CrossEntropyLoss.from_counts(counts.as_subclass(kind))


def test_numbers_that_do_not_exist_yet_are_not_looked_at() -> None:
    real = torch.tensor([90, 10])
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(real)
        assert is_unread(fake)
        assert is_unread(real)  # a trace would take its numbers for constants
        assert class_weights(fake).shape == (2,)
    assert is_unread(fake)
    assert not is_unread(real)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Tensors of the CPU as those of a device: they may be read by who may wait, and by nobody else."""
    real = _values.readable

    def readable(tensor: Tensor, *, wait: bool = False) -> bool:
        return (wait or hasattr(tensor, "came")) and real(tensor)

    def cpu(tensor: Tensor) -> Tensor:
        found = tensor.clone()
        found.came = True  # type: ignore[attr-defined]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "cpu", cpu)
        for module in (_unread, _check, _base, softmax):
            patch.setattr(module, "readable", readable)
        yield


def test_modules_look_at_what_they_are_made_of_and_loaded_with() -> None:
    with elsewhere():
        assert class_weights(torch.tensor([90, 0])).isnan().all()
        for loss, words in ((nn.CrossEntropyLoss, "none for class 1"), (nn.BCEWithLogitsLoss, "positives; got none"),
                            (nn.BalancedSoftmaxLoss, "got 0 for class 1")):  # fmt: skip
            with pytest.raises(ValueError, match=words):
                loss.from_counts(torch.tensor([90, 0]))
        with pytest.raises(ValueError, match="finite; got nan at position"):
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, math.nan]))
        loss = nn.BalancedSoftmaxLoss(torch.tensor([90, 10]))
        with pytest.raises(RuntimeError, match="got 0 for class 1"):
            loss.load_state_dict({"counts": torch.tensor([90, 0])})
        assert loss.counts.tolist() == [90, 10]


@pytest.mark.parametrize("counts", [[-5, -4, -1], [9, 0, 1], [3, -1, 2]])
@pytest.mark.parametrize("loss", ["balanced_softmax_loss", "logit_adjusted_loss", "ldam_loss"])
def test_losses_of_counts_that_count_nothing_are_nan(loss: str, counts: list[int]) -> None:
    call = getattr(functional, loss)
    with pytest.raises(ValueError, match=f"^{loss}: 'counts' must be"):
        call(torch.zeros(1, 3), torch.tensor([2]), torch.tensor(counts))
    with elsewhere():
        assert call(torch.zeros(1, 3), torch.tensor([2]), torch.tensor(counts)).isnan()
        sound = call(torch.zeros(1, 3), torch.tensor([2]), torch.tensor([3, 2, 1]))
    assert torch.equal(sound, call(torch.zeros(1, 3), torch.tensor([2]), torch.tensor([3, 2, 1])))


def test_modules_go_where_tensors_are_made() -> None:
    with torch.device("meta"):
        for loss in (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.BalancedSoftmaxLoss):
            assert all(buffer.is_meta for buffer in loss.from_counts([9, 1]).buffers())
    narrow = nn.BalancedSoftmaxLoss(torch.tensor([1, 1], dtype=torch.uint8, device="meta")).to_empty(device="cpu")
    narrow.load_state_dict({"counts": torch.tensor([100_000, 10])})
    assert narrow.counts.tolist() == [100_000, 10]


@NEEDS_GPU
def test_modules_look_once() -> None:
    counts = torch.tensor([90, 10], device=DEVICE)
    for loss in (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.BalancedSoftmaxLoss):
        module = loss.from_counts(counts)
        assert all(buffer.device == counts.device for buffer in module.buffers())
        with pytest.raises(ValueError, match="for class"):
            loss.from_counts(torch.tensor([90, 0], device=DEVICE))
    with pytest.raises(ValueError, match="finite; got nan"):
        nn.CrossEntropyLoss(weight=class_weights(torch.tensor([90, 0], device=DEVICE)))
