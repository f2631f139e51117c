"""The room where rows become a scalar: sums in a fixed order, PyTorch's old arguments, what may be a denominator."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import _reduction

from steelyard.functional import _reduce, binary_cross_entropy_with_logits, cross_entropy
from steelyard.functional._reduce import check_reduction, legacy_reduction, ordered_sum, reduce

# Around one block, around what one thread sums, and a size of no symmetry.
SIZES = [0, 1, 2, 1023, 1024, 1025, 32767, 32768, 32769, 65536, 1_000_003]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ordered_sum_is_exact_to_a_few_roundings(size: int, dtype: torch.dtype) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=dtype)
    plain = values.double().numpy()
    total = ordered_sum(values)
    assert total.shape == ()
    assert total.dtype == dtype
    assert abs(float(total) - math.fsum(plain)) <= 4 * torch.finfo(dtype).eps * float(np.abs(plain).sum())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 257])
def test_ordered_sum_goes_on_in_rounds_until_one_thread_is_left(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks of 2 and one number per thread it is a binary tree, to the bit."""
    monkeypatch.setattr(_reduce, "_ONE_THREAD", 1)
    monkeypatch.setattr(_reduce, "_BLOCK", 2)
    values = torch.randn(size)
    tree = list(values)
    while len(tree) > 1:
        tree += [torch.tensor(0.0)] * (len(tree) % 2)
        tree = [tree[i] + tree[i + 1] for i in range(0, len(tree), 2)]
    assert torch.equal(ordered_sum(values), tree[0])


def test_ordered_sum_takes_any_layout_and_differentiates() -> None:
    values = torch.randn(300, 7, 50, dtype=torch.float64).transpose(0, 2).requires_grad_()
    total = ordered_sum(values)
    torch.testing.assert_close(total, values.sum())
    (gradient,) = torch.autograd.grad(3 * total, values)
    assert torch.equal(gradient, torch.full_like(values, 3.0))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("size", [size for size in SIZES if size >= 1024])
def test_ordered_sum_has_the_same_bits_on_any_number_of_threads(size: int) -> None:
    values = torch.randn(size)
    sums = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        sums.append(ordered_sum(values))
    assert all(torch.equal(sums[0], other) for other in sums[1:])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [(70001, 3), (4, 21, 67, 63), (3000, 33)], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "soft"])
def test_softmax_losses_have_the_same_bits_on_any_number_of_threads(shape: tuple[int, ...], soft: bool) -> None:
    g = torch.Generator().manual_seed(0)
    input = torch.randn(shape, generator=g).requires_grad_()
    target = (
        torch.randn(shape, generator=g).softmax(1)
        if soft
        else torch.randint(shape[1], shape[:1] + shape[2:], generator=g)
    )
    weight = torch.rand(shape[1], generator=g)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        loss = cross_entropy(input, target, weight, label_smoothing=0.1, denominator="weights")
        results.append((loss.detach(), *torch.autograd.grad(loss, input)))
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        assert torch.equal(results[0][1], other[1])


@pytest.mark.usefixtures("threads")
def test_sigmoid_losses_have_the_same_bits_on_any_number_of_threads() -> None:
    input, target, weight = torch.randn(70001, 3), torch.rand(70001, 3), torch.rand(3)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(
            binary_cross_entropy_with_logits(input, target, pos_weight=weight, gamma_neg=2.0, denominator="weights")
        )
    assert all(torch.equal(results[0], other) for other in results[1:])


# ---------------------------------------------------------------------------------------- size_average and reduce


@pytest.mark.parametrize(("size_average", "reduce"), list(itertools.product([None, True, False], repeat=2)))
def test_legacy_arguments_mean_what_pytorch_says(size_average: bool | None, reduce: bool | None) -> None:
    if size_average is None and reduce is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for reduction in ("none", "mean", "sum"):
                assert legacy_reduction(size_average, reduce, reduction) == reduction
        return
    with pytest.warns(UserWarning, match="will be deprecated") as theirs:
        expected = _reduction.legacy_get_string(size_average, reduce)
    for reduction in ("none", "mean", "sum"):  # the old arguments go before the new one
        with pytest.warns(UserWarning, match="will be deprecated") as ours:
            assert legacy_reduction(size_average, reduce, reduction) == expected
        assert str(ours[0].message) == str(theirs[0].message)


def test_legacy_warning_points_at_the_users_line() -> None:
    with pytest.warns(UserWarning, match="size_average and reduce") as seen:
        cross_entropy(torch.zeros(1, 2), torch.tensor([0]), size_average=False)
    assert seen[0].filename == __file__


# ------------------------------------------------------------------------------------------------- check_reduction

NUMBER = r"^f: 'denominator' must be a number ≥ 0, a 0-d tensor, or one of 'torch', 'weights', 'samples'; got "


@pytest.mark.parametrize("denominator", [*_reduce.DENOMINATORS, 1, 2.5, 0, torch.tensor(3), torch.tensor(2.5)])
def test_denominators_that_a_mean_takes(denominator: Any) -> None:
    for empty in _reduce.EMPTY:
        check_reduction("f", "mean", denominator, empty)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_only_a_mean_has_a_denominator(reduction: str) -> None:
    check_reduction("f", reduction, "torch", "nan")
    for denominator in ("weights", "samples", 3, torch.tensor(3.0)):
        with pytest.raises(
            ValueError, match=rf"^f: 'denominator' must be left alone with reduction='{reduction}'; got"
        ):
            check_reduction("f", reduction, denominator, "nan")


@pytest.mark.parametrize(
    ("denominator", "error"),
    [
        ("Torch", ValueError),
        ("", ValueError),
        (-1, ValueError),
        (-1e-300, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (torch.tensor(-1.0), ValueError),
        (torch.tensor(math.nan), ValueError),
        (torch.tensor(math.inf), ValueError),
        (torch.ones(1), ValueError),
        (torch.ones(2, 2), ValueError),
        (torch.tensor(1j), TypeError),
        (torch.tensor(True), TypeError),
        (True, TypeError),
        (None, TypeError),
        ([1.0], TypeError),
        (1j, TypeError),
    ],
    ids=repr,
)
def test_denominators_that_nothing_takes(denominator: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=NUMBER):
        check_reduction("f", "mean", denominator, "nan")


@pytest.mark.parametrize(("argument", "allowed"), [("reduction", _reduce.REDUCTIONS), ("empty", _reduce.EMPTY)])
def test_words_outside_the_list(argument: str, allowed: tuple[str, ...]) -> None:
    good = {"reduction": "mean", "denominator": "torch", "empty": "nan"}
    words = ", ".join(repr(word) for word in allowed)
    for bad, error in (("Mean", ValueError), ("", ValueError), (None, TypeError), (1, TypeError), (True, TypeError)):
        with pytest.raises(error, match=rf"^f: '{argument}' must be one of {words}; got "):
            check_reduction("f", **{**good, argument: bad})


# ---------------------------------------------------------------------------------------------------------- reduce


def test_reduce_divides_the_sum_by_the_number() -> None:
    loss = torch.tensor([1.0, 2.0, 4.0])
    for denominator in (2, 2.0, torch.tensor(2), torch.tensor(2.0, dtype=torch.float64)):
        for empty in _reduce.EMPTY:
            mean = reduce("f", loss, "mean", denominator, empty, torch.float32)
            assert mean == 3.5
            assert mean.dtype == torch.float32
    assert reduce("f", loss, "sum", 2.0, "nan", torch.float64).dtype == torch.float64
    assert torch.equal(reduce("f", loss, "none", 2.0, "nan", torch.bfloat16), loss.bfloat16())


def test_reduce_rounds_once() -> None:
    """In bf16, 256 + 1 is 256: a sum or a quotient rounded on the way would show."""
    loss = torch.tensor([256.0, 1.0, 1.0, 1.0, 1.0])
    assert reduce("f", loss, "sum", 1.0, "nan", torch.bfloat16) == 260
    assert reduce("f", loss, "mean", 5.0, "nan", torch.bfloat16) == torch.tensor(52.0).bfloat16()


@pytest.mark.parametrize("denominator", [0, 0.0, torch.tensor(0), torch.tensor(0.0)], ids=repr)
def test_reduce_over_nothing(denominator: Any) -> None:
    loss = torch.zeros(3, requires_grad=True)
    assert reduce("f", loss, "mean", denominator, "nan", torch.float32).isnan()
    zero = reduce("f", loss, "mean", denominator, "zero", torch.float32)
    assert zero == 0
    (gradient,) = torch.autograd.grad(zero, loss)
    assert torch.equal(gradient, torch.zeros(3))
    with pytest.raises(ValueError, match=r"^f: the mean must have something to divide by; got a denominator of 0"):
        reduce("f", loss, "mean", denominator, "raise", torch.float32)
