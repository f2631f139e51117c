"""Losses that compute their gradient ahead: what autograd may ask of them, and that nothing of it shows in a number."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import any_kernel, bits, each_kernel, gradient_of, same_bits, upstream_of
from kernel_judge import Exact, Judge
from loss_examples import Example, example, examples
from torch import Tensor

from steelyard.ops import cpu
from steelyard.registry import LossEntry

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
CASES = [case for case in examples() if case.values[0].formula != "likelihood"]
LOGITS = [case for case in CASES if case.values[0].input == "logits"]
REDUCTIONS = ["none", "mean", "sum"]

each_case = pytest.mark.parametrize(("entry", "targets", "rich"), CASES)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


# ------------------------------------------------------------------------------------------------------------ accuracy


def _batch(
    entry: LossEntry, targets: str, rich: bool, shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> Example:
    """As ``example``, of any number of classes."""
    g = torch.Generator().manual_seed(seed)
    classes, rows = shape[1], shape[:1] + shape[2:]
    input = torch.randn(shape, generator=g, dtype=F64).mul(3 if entry.name != "ldam_loss" else 0.3).to(dtype)
    target = {
        "indices": lambda: torch.randint(classes, rows, generator=g),
        "distribution": lambda: torch.randn(shape, generator=g, dtype=F64).softmax(1).to(dtype),
        "elements": lambda: torch.rand(shape, generator=g, dtype=F64).to(dtype),
    }[targets]()
    rest = (target, torch.randint(1, 1000, (classes,), generator=g)) if entry.counts else (target,)
    options: dict[str, Any] = {}
    if rich:
        weight = torch.rand(classes, generator=g) + 0.1
        options["weight"] = weight if entry.formula == "softmax" else weight.reshape(-1, *[1] * (len(shape) - 2))
        if entry.formula == "softmax":
            options |= {"label_smoothing": 0.1, "sample_weight": torch.rand(rows, generator=g) + 0.1}
        else:
            options |= {"pos_weight": options["weight"].flip(0), "denominator": "weights"}
        if targets == "indices":
            options["ignore_index"] = 0
    return Example(entry, targets, input, rest, options)


# Rows enough for some to be wrong: focusing makes the losses of sure ones small beside what their logarithms round.
SHAPES = [(30, 2), (17, 13), (5, 257), (2, 8142), (2, 21, 9, 7), (300, 10)]


@functools.lru_cache(maxsize=1)  # for one kernel after the other
def _judged(
    entry: LossEntry, targets: str, rich: bool, reduction: str, dtype: torch.dtype
) -> list[tuple[Example, Tensor, list[Any]]]:
    """Cases with an upstream gradient, and what the reference says in float64 and in float32."""
    found = []
    for shape, seed in itertools.product(SHAPES, (0, 1)):
        case = _batch(entry, targets, rich and reduction == "mean", shape, dtype, seed)
        with cpu.using("reference"):
            upstream = upstream_of(case(reduction=reduction), seed)
            found.append((case, upstream, [
                gradient_of(lambda x, case=case: case(x, reduction=reduction), case.input.to(kind), upstream.to(kind))
                for kind in (F64, F32)
            ]))  # fmt: skip
    return found


@each_kernel
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize(
    ("reduction", "rich"), [("none", False), ("mean", False), ("mean", True), ("sum", False)],
    ids=["none", "mean", "mean-weighted", "sum"],
)  # fmt: skip
@pytest.mark.parametrize(("entry", "targets", "_"), [case for case in LOGITS if not case.values[2]])
def test_reduced_losses_are_no_worse_than_the_reference(
    entry: LossEntry, targets: str, _: bool, reduction: str, rich: bool, dtype: torch.dtype
) -> None:
    value_judge, grad_judge = Judge(dtype), Judge(dtype)
    for case, upstream, (exact, eager) in _judged(entry, targets, rich, reduction, dtype):
        found = gradient_of(lambda input, case=case: case(input, reduction=reduction), case.input, upstream)
        assert [value.dtype for value in found] == [dtype, dtype]
        for judge, ours, wide, theirs in zip((value_judge, grad_judge), found, exact, eager, strict=True):
            # Of the largest: what cancels in one place is as large as what stays in another.
            size = np.full(wide.shape, float(wide.abs().max()))
            judge.add(f"{tuple(case.input.shape)}", ours, Exact(wide.numpy(), size), theirs)
    value_judge.verdict()
    grad_judge.verdict()


@each_kernel
@each_reduction
@pytest.mark.parametrize(("entry", "targets", "rich"), LOGITS)
def test_in_float64_all_digits_are_those_of_the_reference(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    case = example(entry, targets, rich=rich, dtype=F64, rows=70)
    ours = case.gradient(reduction=reduction)
    with cpu.using("reference"):
        expected = case.gradient(reduction=reduction)
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() <= 1e-14 * b.abs().max()


@each_kernel
@pytest.mark.parametrize("scale", [2.0**16, 2.0**-10])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("entry", "targets", "rich"), LOGITS)
def test_a_scaled_loss_of_half_precision_rounds_its_gradient_once(
    entry: LossEntry, targets: str, rich: bool, reduction: str, scale: float
) -> None:
    """What a gradient scaler counts on: gradients that float16 alone would lose are there, times the scale."""
    case = example(entry, targets, rich=rich, dtype=F16, rows=64)
    input = case.input * (6 if entry.name != "ldam_loss" else 0.5)
    # As large as float16 lets the result be.
    upstream = torch.tensor(scale / (64 if reduction == "sum" else 1) / (32 if entry.name == "ldam_loss" else 1))
    with torch.autocast("cpu", F16):
        value, grad = gradient_of(lambda input: case(input, reduction=reduction), input, upstream)
    with cpu.using("reference"):
        exact, eager = (
            gradient_of(lambda input: case(input, reduction=reduction), input.to(kind), upstream.to(kind))[1]
            for kind in (F64, F32)
        )
    assert (value.dtype, grad.dtype) == (F32, F16)
    judge = Judge(F16)
    judge.add("gradient", grad, Exact(exact.numpy(), np.full(exact.shape, float(exact.abs().max()))), eager)
    judge.verdict()


# ---------------------------------------------------------------------------------------------- backward, and again


UPSTREAMS = [1.0, 2.0, 0.3, 0.0, -1.0, 0.7]


@each_kernel
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@each_case
def test_a_gradient_does_not_know_what_was_asked_before(
    entry: LossEntry, targets: str, rich: bool, reduction: str, dtype: torch.dtype
) -> None:
    case = example(entry, targets, rich=rich, dtype=dtype)

    def ask(upstream: float, graph: tuple[Tensor, Tensor] | None = None) -> Tensor:
        leaf, out = graph or made()
        return bits(torch.autograd.grad(out, leaf, torch.tensor(upstream, dtype=out.dtype), retain_graph=True)[0])

    def made() -> tuple[Tensor, Tensor]:
        leaf = case.input.detach().clone().requires_grad_()
        return leaf, case(leaf, reduction=reduction)

    seen = {upstream: ask(upstream) for upstream in UPSTREAMS}
    for order in (UPSTREAMS, UPSTREAMS[::-1], [0.3, 0.3, 0.3, 1.0, 1.0, 0.3]):
        graph = made()
        for upstream in order:
            assert torch.equal(ask(upstream), seen[upstream]), "in a graph of its own"
            assert torch.equal(ask(upstream, graph), seen[upstream]), "in one graph for all"
    assert not seen[0.0].view(dtype).any()
    assert torch.equal(seen[-1.0].view(dtype), -seen[1.0].view(dtype))
    assert torch.equal(seen[2.0].view(dtype), 2 * seen[1.0].view(dtype)) or dtype == F16  # whose least numbers round


@any_kernel
@each_reduction
@each_case
def test_a_gradient_belongs_to_the_caller(entry: LossEntry, targets: str, rich: bool, reduction: str) -> None:
    """Clipped in place, zeroed, added to: none of it reaches another backward pass."""
    case = example(entry, targets, rich=rich)
    leaf = case.input.detach().clone().requires_grad_()
    for unit in (True, False):
        out = case(leaf, reduction=reduction)
        upstream = torch.ones_like(out) if unit else upstream_of(out)
        out.backward(upstream, retain_graph=True)
        first, expected = leaf.grad, leaf.grad.clone()
        first.mul_(-7)
        leaf.grad = None
        out.backward(upstream, retain_graph=True)
        assert torch.equal(leaf.grad, expected)
        assert torch.equal(first, expected * -7)
        assert leaf.grad.data_ptr() != first.data_ptr()
        out.backward(upstream, retain_graph=True)  # on top of what is there
        torch.testing.assert_close(leaf.grad, 2 * expected, rtol=0, atol=0)
        leaf.grad = None
        # The engine copies what somebody else still holds before it becomes a .grad; here nobody does.
        handed = torch.autograd.grad(out, leaf, upstream, retain_graph=True)[0]
        handed.mul_(-7)
        assert torch.equal(torch.autograd.grad(out, leaf, upstream, retain_graph=True)[0], expected)
        assert torch.equal(handed, expected * -7)
        out.backward(upstream)
        leaf.grad = None
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            out.backward(upstream)


@any_kernel
@each_reduction
@each_case
def test_a_loss_used_twice_has_the_sum_of_both_gradients(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    case = example(entry, targets, rich=rich, dtype=F64)
    out, by_two = gradient_of(lambda input: case(input, reduction=reduction), case.input)
    weights = upstream_of(out)

    def both(input: Tensor) -> Tensor:
        loss = case(input, reduction=reduction)
        return (weights * (2 * loss + loss * 3)).sum()

    found = gradient_of(both, case.input, torch.tensor(1.0, dtype=F64))[1]
    assert (found - 5 * by_two).abs().max() <= 1e-14 * by_two.abs().max()


@any_kernel
@each_reduction
@each_case
def test_second_derivatives_are_those_of_the_reference(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    case = example(entry, targets, rich=rich, dtype=F64, rows=3)

    def derivatives() -> list[Tensor]:
        leaf = case.input.detach().clone().requires_grad_()
        out = case(leaf, reduction=reduction)
        (first,) = torch.autograd.grad(out, leaf, upstream_of(out), create_graph=True)
        return [first, *torch.autograd.grad(first.square().sum(), leaf)]

    ours = derivatives()
    plain = case.gradient(reduction=reduction)
    assert plain[1].grad_fn is None
    with cpu.using("reference"):
        expected = derivatives()
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)


@any_kernel
@each_case
def test_the_upstream_gradient_is_differentiated_too(entry: LossEntry, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich, dtype=F64, rows=3)
    for reduction in REDUCTIONS:
        leaf = case.input.detach().clone().requires_grad_()
        out = case(leaf, reduction=reduction)
        upstream = upstream_of(out).requires_grad_()
        (first,) = torch.autograd.grad(out, leaf, upstream, create_graph=True)
        direction = upstream_of(first, 9)
        (by_upstream,) = torch.autograd.grad(first, upstream, direction)
        rows = torch.autograd.functional.jvp(lambda x, r=reduction: case(x, reduction=r), case.input, direction)[1]
        torch.testing.assert_close(by_upstream, rows, rtol=1e-11, atol=1e-13)


@any_kernel
@each_reduction
@each_case
def test_logits_changed_before_backward_are_an_error(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    if entry.input == "features":
        pytest.skip("its logits are its own")
    case = example(entry, targets, rich=rich)
    leaf = case.input.detach().clone().requires_grad_()
    logits = leaf * 1
    out = case(logits, reduction=reduction)
    with torch.no_grad():
        logits.add_(1.0)
    if entry.name == "ldam_loss":
        out.backward(upstream_of(out))  # what it saved are the scaled logits
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward(upstream_of(out))
    assert leaf.grad is None


@any_kernel
@each_reduction
@each_case
def test_arguments_changed_before_backward_never_give_a_wrong_gradient(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    names = ["target", "weight", "sample_weight" if entry.formula == "softmax" else "pos_weight"]
    for name in names:
        case = example(entry, targets, rich=rich)
        options = {"reduction": reduction}
        if name != "target" and name not in case.options:
            options[name] = torch.rand(6 if name == "sample_weight" else 4)
        changed = case.target if name == "target" else {**case.options, **options}[name]
        _, expected = gradient_of(functools.partial(case, **options), case.input)
        leaf = case.input.detach().clone().requires_grad_()
        out = case(leaf, **options)
        changed.copy_(changed.flip(0))
        with contextlib.suppress(RuntimeError):  # "modified by an inplace operation"
            out.backward(upstream_of(out))
        if leaf.grad is not None:
            same_bits([leaf.grad], [expected])


@any_kernel
@each_reduction
@each_case
def test_what_else_asks_for_a_derivative_gets_it(entry: LossEntry, targets: str, rich: bool, reduction: str) -> None:
    """Weights, soft targets, a denominator, and the input beside them or not."""
    case = example(entry, targets, rich=rich, dtype=F64)
    given = {name: value for name, value in case.options.items() if isinstance(value, Tensor)}
    given |= {"target": case.target} if targets != "indices" else {}
    given |= {"sample_weight": torch.rand(6, dtype=F64)} if entry.formula == "softmax" else {}
    given |= {"denominator": torch.tensor(3.0, dtype=F64)} if reduction == "mean" else {}

    def derivatives(*names: str) -> list[Tensor]:
        leaves = {name: given[name].detach().clone().requires_grad_() for name in names if name != "input"}
        input = case.input.detach().clone().requires_grad_("input" in names)
        options = {name: leaves.get(name, value) for name, value in given.items() if name != "target"}
        out = case.with_target(leaves.get("target", case.target))(input, reduction=reduction, **options)
        wanted = [input if name == "input" else leaves[name] for name in names]
        return [out.detach(), *torch.autograd.grad(out, wanted, upstream_of(out))]

    for names in [[*given, "input"], *([name] for name in given), *([name, "input"] for name in given)]:
        found = derivatives(*names)
        with cpu.using("reference"):
            torch.testing.assert_close(found, derivatives(*names), rtol=1e-12, atol=1e-14)


@any_kernel
@each_reduction
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("entry", "targets", "rich"), LOGITS)
def test_memory_is_given_back_without_the_garbage_collector(
    entry: LossEntry, targets: str, rich: bool, backward: bool, reduction: str
) -> None:
    """Of logits whose loss is gone, and of those whose loss is kept, for a log say, when it has been differentiated."""
    case = example(entry, targets, rich=rich)
    logits = case.input.detach().clone().requires_grad_() * 1
    gone = weakref.ref(logits)
    gc.disable()
    try:
        out = case(logits, reduction=reduction)
        if backward:
            out.backward(upstream_of(out))
        else:
            del out
        del logits
        assert gone() is None
    finally:
        gc.enable()
