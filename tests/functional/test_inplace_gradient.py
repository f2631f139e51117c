"""``inplace_gradient=True``: the gradient in the logits' own memory, and an error wherever that would show."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from kernel_cases import LAYOUTS, any_kernel, bits, each_kernel, laid_out, upstream_of
from loss_examples import Example, example, examples
from torch import Tensor

from steelyard import functional
from steelyard.registry import LossEntry

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
CASES = [case for case in examples() if case.values[0].formula != "likelihood" and case.values[0].input == "logits"]
# LDAM's logits are scaled first: the gradient goes into the memory of those, which are its own.
OWN_MEMORY = [case for case in CASES if case.values[0].name != "ldam_loss"]
REDUCTIONS = ["none", "mean", "sum"]

each_case = pytest.mark.parametrize(("entry", "targets", "rich"), CASES)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def _through_logits(
    case: Example, upstream: Tensor | None = None, *, how: str = "contiguous", **options: Any
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Loss, gradient of what the logits are made of, the logits, and where their gradient was."""
    leaf = case.input.detach().clone().requires_grad_()
    logits = laid_out(leaf * 1.5, how)
    places: list[int] = []
    logits.register_hook(lambda grad: places.append(grad.data_ptr()))
    out = case(logits, **options)
    out.backward(upstream_of(out) if upstream is None else upstream)
    return out.detach(), leaf.grad, logits.detach(), places


@each_kernel
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@each_reduction
@each_case
def test_the_numbers_are_those_without_it(
    entry: LossEntry, targets: str, rich: bool, reduction: str, dtype: torch.dtype
) -> None:
    case = example(entry, targets, rich=rich, dtype=dtype, rows=40)
    for number in (None, 1.0, 0.3, -2.0, 0.0):
        upstream = None if number is None or reduction == "none" else torch.tensor(number, dtype=dtype)
        out, grad, *_ = _through_logits(case, upstream, reduction=reduction)
        found, found_grad, *_ = _through_logits(case, upstream, reduction=reduction, inplace_gradient=True)
        assert torch.equal(bits(found), bits(out))
        assert torch.equal(bits(found_grad), bits(grad))


@each_kernel
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@each_reduction
@pytest.mark.parametrize(("entry", "targets", "rich"), OWN_MEMORY)
def test_the_gradient_is_where_the_logits_were(
    entry: LossEntry, targets: str, rich: bool, reduction: str, dtype: torch.dtype
) -> None:
    case = example(entry, targets, rich=rich, dtype=dtype, rows=40)
    leaf = case.input.detach().clone().requires_grad_()
    logits = leaf * 1.5
    held, version = logits.detach().clone(), logits._version
    places: list[int] = []
    logits.register_hook(lambda grad: places.append(grad.data_ptr()))
    out = case(logits, reduction=reduction, inplace_gradient=True)
    assert torch.equal(logits, held), "before the backward pass the logits are the caller's"
    assert logits._version == version
    out.backward(upstream_of(out))
    assert places == [logits.data_ptr()]
    assert logits._version > version
    torch.testing.assert_close(logits.detach() * 1.5, leaf.grad)


@any_kernel
@each_reduction
@each_case
def test_a_second_backward_is_refused(entry: LossEntry, targets: str, rich: bool, reduction: str) -> None:
    case = example(entry, targets, rich=rich)
    leaf = case.input.detach().clone().requires_grad_()
    out = case(leaf * 1.5, reduction=reduction, inplace_gradient=True)
    out.backward(upstream_of(out), retain_graph=True)
    first = leaf.grad.clone()
    with pytest.raises(RuntimeError):
        out.backward(upstream_of(out), retain_graph=True)
    assert torch.equal(leaf.grad, first)


@any_kernel
@each_reduction
@pytest.mark.parametrize(("entry", "targets", "rich"), OWN_MEMORY)
def test_any_other_use_of_the_logits_is_pytorchs_error(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    case = example(entry, targets, rich=rich)
    leaf = case.input.detach().clone().requires_grad_()
    logits = leaf * 1.5
    other = logits.square().sum()
    out = case(logits, reduction=reduction, inplace_gradient=True)
    out.backward(upstream_of(out), retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()
    again = case(logits.detach(), reduction=reduction)  # a use that needs no gradient is the caller's affair
    assert again.shape == out.shape


@any_kernel
@each_reduction
@pytest.mark.parametrize(("entry", "targets", "rich"), OWN_MEMORY)
def test_logits_changed_before_backward_are_pytorchs_error(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    case = example(entry, targets, rich=rich)
    logits = case.input.detach().clone().requires_grad_() * 1.5
    out = case(logits, reduction=reduction, inplace_gradient=True)
    with torch.no_grad():
        logits.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward(upstream_of(out))


@any_kernel
@pytest.mark.parametrize(("entry", "targets", "rich"), OWN_MEMORY)
def test_a_leaf_is_refused(entry: LossEntry, targets: str, rich: bool) -> None:
    """Its memory is the caller's parameter."""
    case = example(entry, targets, rich=rich)
    leaf = case.input.detach().clone().requires_grad_()
    with pytest.raises(ValueError, match=rf"^{entry.name}: '(input|inplace_gradient)' must be .*; got .*\."):
        case(leaf, inplace_gradient=True)
    assert torch.equal(leaf, case.input)
    with torch.no_grad():  # nothing will be written
        torch.testing.assert_close(case(leaf, inplace_gradient=True), case(leaf), rtol=0, atol=0)
    plain = case.input.clone()
    torch.testing.assert_close(case(plain, inplace_gradient=True), case(plain), rtol=0, atol=0)
    assert torch.equal(plain, case.input)


@pytest.mark.parametrize("given", [1, "yes", None])
@each_case
def test_it_is_true_or_false(entry: LossEntry, targets: str, rich: bool, given: Any) -> None:
    case = example(entry, targets, rich=rich)
    with pytest.raises(TypeError, match="'inplace_gradient' must be True or False; got"):
        case(inplace_gradient=given)
    with pytest.raises(TypeError, match="'inplace_gradient' must be True or False; got"):
        case.module(inplace_gradient=given)


@any_kernel
@pytest.mark.parametrize("how", LAYOUTS[1:])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(("entry", "targets", "rich"), [case for case in CASES if not case.values[2]])
def test_logits_anywhere_in_memory(entry: LossEntry, targets: str, rich: bool, reduction: str, how: str) -> None:
    """Views of something larger, and expanded ones, of which no element has a place of its own."""
    case = example(entry, targets, rich=rich, trailing=(3, 5))
    out, grad, *_ = _through_logits(case, how=how, reduction=reduction)
    with contextlib.suppress(ValueError) if how.startswith("expanded") else contextlib.nullcontext():
        found, found_grad, *_ = _through_logits(case, how=how, reduction=reduction, inplace_gradient=True)
        torch.testing.assert_close((found, found_grad), (out, grad), rtol=1e-6, atol=1e-7)


@any_kernel
@each_reduction
def test_a_view_of_logits_takes_its_base_along(reduction: str) -> None:
    leaf = torch.randn(6, 9, requires_grad=True)
    target = torch.randint(5, (6,))

    def gradient(**options: bool) -> Tensor:
        base = leaf * 1.5
        out = functional.cross_entropy(base[:, 2:7], target, reduction=reduction, **options)
        other = base[:, :2].exp().sum() if not options else None
        out.backward(upstream_of(out))
        del other
        found, leaf.grad = leaf.grad, None
        return found

    torch.testing.assert_close(gradient(inplace_gradient=True), gradient())
    base = leaf * 1.5
    other = base.square().sum()
    out = functional.cross_entropy(base[:, 2:7], target, reduction=reduction, inplace_gradient=True)
    out.backward(upstream_of(out), retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


@any_kernel
def test_a_label_out_of_range_leaves_the_logits_as_they_are() -> None:
    logits = torch.randn(6, 4, requires_grad=True) * 1.5
    held, version = logits.detach().clone(), logits._version
    with pytest.raises(IndexError):
        functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 4, 0]), inplace_gradient=True)
    assert torch.equal(logits, held)
    assert logits._version == version


@any_kernel
@each_case
def test_where_operators_take_over_nothing_is_overwritten(entry: LossEntry, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich, dtype=F64)

    def loss(input: Tensor, **options: bool) -> Tensor:
        return case(input * 1.5, reduction="sum", **options)

    expected = torch.func.grad(loss)(case.input)
    torch.testing.assert_close(torch.func.grad(lambda input: loss(input, inplace_gradient=True))(case.input), expected)
    weights = case.input.detach().clone().requires_grad_()
    out = loss(weights, inplace_gradient=True)
    try:  # a second derivative is right, or refused
        (first,) = torch.autograd.grad(out, weights, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weights)
    except RuntimeError:
        pass
    else:
        leaf = case.input.detach().clone().requires_grad_()
        (again,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        torch.testing.assert_close(second, torch.autograd.grad(again.square().sum(), leaf)[0])


@any_kernel
@pytest.mark.parametrize("rich", [False, True])
def test_a_model_trains_alike(rich: bool) -> None:
    """The use it is for: the logits of a last layer, step after step."""
    entry = next(case.values[0] for case in CASES)
    losses = []
    for given in (False, True):
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 4)
        module = example(entry, "indices", rich=rich).module(inplace_gradient=given)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        data, target = torch.randn(50, 8), torch.randint(4, (50,))
        steps = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = module(layer(data), target)
            loss.backward()
            optimizer.step()
            steps.append(loss.detach())
        losses.append(torch.stack(steps))
    assert torch.equal(*losses)
    assert losses[0][-1] < losses[0][0]
