"""Losses that compute their gradient ahead, in what PyTorch builds around them, and where operators take over."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from kernel_cases import any_kernel, gradient_of, same_bits, upstream_of
from loss_examples import example, examples
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from steelyard import functional
from steelyard.registry import LOSSES, LossEntry

F64 = torch.float64
CASES = [case for case in examples() if case.values[0].formula != "likelihood"]
PLAIN = [case for case in CASES if not case.values[2]]
REDUCTIONS = ["none", "mean", "sum"]

each_case = pytest.mark.parametrize(("entry", "targets", "rich"), CASES)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)

pytestmark = [
    # PyTorch's forward mode compiles its own decompositions with what it deprecates, and so does its compiler.
    pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning"),
]


# ------------------------------------------------------------------------------------- what PyTorch does around a loss


@any_kernel
@each_reduction
@each_case
def test_checkpointed_and_offloaded_losses_give_the_same_bits(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    case = example(entry, targets, rich=rich)

    def loss(input: Tensor) -> Tensor:
        return case(input * 1.5, reduction=reduction)

    expected = gradient_of(loss, case.input)
    same_bits(gradient_of(lambda input: checkpoint(loss, input, use_reentrant=False), case.input), expected)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.numpy().copy(), torch.from_numpy):
        same_bits(gradient_of(loss, case.input), expected)
    with torch.autograd.graph.save_on_cpu():
        same_bits(gradient_of(loss, case.input), expected)


@any_kernel
@each_reduction
@each_case
def test_without_gradients_the_value_is_the_same_bits(
    entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    case = example(entry, targets, rich=rich, rows=70)
    expected = gradient_of(lambda input: case(input, reduction=reduction), case.input)[:1]
    plain = case(reduction=reduction)
    assert not plain.requires_grad
    same_bits([plain], expected)
    leaf = case.input.detach().clone().requires_grad_()
    with torch.no_grad():
        quiet = case(leaf, reduction=reduction)
    assert not quiet.requires_grad
    same_bits([quiet], expected)
    with torch.inference_mode():
        same_bits([case(case.input.clone(), reduction=reduction)], expected)
    assert leaf.grad is None


@any_kernel
@each_case
def test_modules_are_copied_and_pickled(entry: LossEntry, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich)
    module = case.module(**({"inplace_gradient": True} if entry.input == "logits" else {}))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for again in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert getattr(again, "inplace_gradient", None) == getattr(module, "inplace_gradient", None)
        same_bits(
            gradient_of(lambda input, again=again: again(input * 1, case.target), case.input),
            gradient_of(lambda input: module(input * 1, case.target), case.input),
        )
    if entry.input == "logits":
        assert module.inplace_gradient is True
        assert case.module().inplace_gradient is False
        assert "inplace_gradient" not in "".join(module.state_dict())


# ------------------------------------------------------------------------------------------- where operators take over


@any_kernel
@pytest.mark.filterwarnings("ignore:`torch.jit.trace(_method)?` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@each_reduction
@pytest.mark.parametrize(("entry", "targets", "rich"), PLAIN)
def test_a_trace_holds_for_other_numbers(entry: LossEntry, targets: str, rich: bool, reduction: str) -> None:
    if entry.input == "features":
        pytest.skip("another signature")
    one, two = (example(entry, targets, rich=rich, seed=seed) for seed in (0, 1))
    for leaf in (False, True):

        def loss(input: Tensor, target: Tensor) -> Tensor:
            return one.with_target(target)(input, reduction=reduction)

        given = one.input.clone().requires_grad_(leaf), one.target
        traced = torch.jit.trace(loss, given, check_trace=False)
        found = gradient_of(lambda input, traced=traced: traced(input, two.target), two.input)
        torch.testing.assert_close(found, gradient_of(lambda input: loss(input, two.target), two.input))


@any_kernel
@pytest.mark.parametrize(("entry", "targets", "rich"), CASES)
def test_func_equals_autograd(entry: LossEntry, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich, dtype=F64)

    def loss(input: Tensor) -> Tensor:
        return case(input, reduction="mean")

    value, grad = gradient_of(loss, case.input, torch.tensor(1.0, dtype=F64))
    found = torch.func.grad_and_value(loss)(case.input)
    torch.testing.assert_close(found, (grad, value))
    tangent = upstream_of(case.input)
    torch.testing.assert_close(torch.func.jvp(loss, (case.input,), (tangent,)), (value, (grad * tangent).sum()))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(case.input, tangent)
        pushed = torch.autograd.forward_ad.unpack_dual(loss(dual)).tangent
    torch.testing.assert_close(pushed, (grad * tangent).sum())
    several = torch.stack([case.input, case.input * 2])
    torch.testing.assert_close(torch.func.vmap(loss)(several), torch.stack([loss(case.input), loss(case.input * 2)]))


@any_kernel
@pytest.mark.parametrize("name", ["cross_entropy", "focal_loss", "binary_cross_entropy_with_logits"])
def test_compiled_equals_eager(name: str) -> None:
    torch._dynamo.reset()
    case = example(LOSSES[name], LOSSES[name].targets[0], rich=True)
    for reduction in REDUCTIONS:

        def loss(input: Tensor, reduction: str = reduction) -> Tensor:
            return case(input * 2.0, reduction=reduction)

        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(gradient_of(compiled, case.input), gradient_of(loss, case.input))
    torch._dynamo.reset()


@any_kernel
def test_subclasses_and_modes_reach_the_operator() -> None:
    seen: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "steelyard":
                seen.append(func._opname)
            return func(*args, **(kwargs or {}))

    class Logged(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    calls: list[Any] = []
    input, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = functional.cross_entropy(input, target)
    with Watch():
        found = functional.cross_entropy(input.clone().requires_grad_(), target)
        found.backward()
    assert seen == ["softmax_loss", "softmax_loss_backward"]
    torch.testing.assert_close(found.detach(), expected)
    logged = functional.cross_entropy(input.as_subclass(Logged), target)
    assert type(logged) is Logged
    assert calls
    torch.testing.assert_close(logged.as_subclass(Tensor), expected)


# -------------------------------------------------------------------------------------------------------------- labels


@any_kernel
@each_reduction
@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8], ids=str)
@pytest.mark.parametrize(("entry", "targets", "rich"), [case for case in PLAIN if case.values[1] == "indices"])
def test_a_label_out_of_range_is_refused_before_anything_is_written(
    entry: LossEntry, targets: str, rich: bool, kind: torch.dtype, reduction: str
) -> None:
    case = example(entry, targets, rich=rich)
    target = case.target.to(kind)
    target[4] = 4
    case = case.with_target(target)
    for held in (None, torch.ones_like(case.input)):
        leaf = case.input.detach().clone().requires_grad_()
        leaf.grad = held
        with pytest.raises(IndexError, match=rf"^{entry.name}: 'target' must be .*; got 4 at position \(4,\)"):
            case(leaf, reduction=reduction)
        assert leaf.grad is held
        assert held is None or bool((held == 1).all())
        assert torch.equal(leaf, case.input)


# ---------------------------------------------------------------------------------- tensors that are not what they seem


@any_kernel
@each_reduction
@each_case
@pytest.mark.parametrize("kind", ["expanded", "strided", "negated", "zero"])
def test_upstream_gradients_of_every_kind(
    kind: str, entry: LossEntry, targets: str, rich: bool, reduction: str
) -> None:
    """A sum hands back one number for all; PyTorch negates lazily, and keeps zeros without memory."""
    case = example(entry, targets, rich=rich, dtype=F64)

    def loss(input: Tensor) -> Tensor:
        return case(input, reduction=reduction)

    shape = loss(case.input).shape
    seed = torch.Generator().manual_seed(0)
    upstream = {
        "expanded": lambda: torch.tensor(0.7, dtype=F64).expand(shape),
        "strided": lambda: torch.randn(*shape, 2, dtype=F64, generator=seed)[..., 0],
        "negated": lambda: torch.randn(shape, dtype=torch.complex128, generator=seed).conj().imag,
        "zero": lambda: torch._efficientzerotensor(shape, dtype=F64),
    }[kind]()
    plain = torch.zeros(shape, dtype=F64) if kind == "zero" else upstream.resolve_neg().clone().contiguous()
    found, expected = (gradient_of(loss, case.input, given)[1] for given in (upstream, plain))
    # Not by the same implementation, perhaps; and e^a carries the rounding of a, which is 30 times a logit in LDAM's.
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-16)


@any_kernel
@each_reduction
@each_case
def test_gradients_of_many_upstream_ones_at_once(entry: LossEntry, targets: str, rich: bool, reduction: str) -> None:
    case = example(entry, targets, rich=rich, dtype=F64)
    leaf = case.input.detach().clone().requires_grad_()
    out = case(leaf, reduction=reduction)
    several = torch.randn(3, *out.shape, dtype=F64)
    (found,) = torch.autograd.grad(out, leaf, several, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(out, leaf, one, retain_graph=True)[0] for one in several]
    torch.testing.assert_close(found, torch.stack(each))

    def loss(input: Tensor) -> Tensor:
        return case(input, reduction=reduction)

    expected = torch.autograd.functional.jacobian(loss, case.input)
    torch.testing.assert_close(torch.autograd.functional.jacobian(loss, case.input, vectorize=True), expected)


@any_kernel
@each_reduction
@pytest.mark.parametrize(("entry", "targets", "rich"), PLAIN)
def test_logits_of_every_kind(entry: LossEntry, targets: str, rich: bool, reduction: str) -> None:
    """Lazily negated ones, zeros without memory, and values that share theirs."""
    case = example(entry, targets, rich=rich, dtype=F64)
    shape = case.input.shape
    for input in (
        torch.randn(shape, dtype=torch.complex128).conj().imag,
        torch._efficientzerotensor(shape, dtype=F64),
        torch.randn(20, dtype=F64).as_strided(shape, (1, 2)),
    ):
        plain = input.resolve_neg() + torch.zeros(shape, dtype=F64)
        torch.testing.assert_close(case(input, reduction=reduction), case(plain, reduction=reduction))


@any_kernel
@each_reduction
@each_case
def test_a_default_device_moves_nothing(entry: LossEntry, targets: str, rich: bool, reduction: str) -> None:
    case = example(entry, targets, rich=rich)
    expected = gradient_of(lambda input: case(input, reduction=reduction), case.input)
    upstream = upstream_of(expected[0])
    for forward, backward in (("meta", "cpu"), ("cpu", "meta"), ("meta", "meta")):
        leaf = case.input.detach().clone().requires_grad_()
        with torch.device(forward):
            out = case(leaf, reduction=reduction)
        with torch.device(backward):
            for _ in range(2):
                (grad,) = torch.autograd.grad(out, leaf, upstream, retain_graph=True)
                torch.testing.assert_close((out.detach(), grad), expected)
