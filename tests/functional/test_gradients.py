"""Derivatives of every loss: first and second, backward and forward, batched, with respect to all that has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from steelyard.ops import reference
from steelyard.registry import LOSSES

F64 = torch.float64

# PyTorch loads its forward-mode rules through torch.jit.script, which it has itself deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@dataclass(frozen=True)
class Case:
    """A loss with a setting. ``leaves`` are the arguments to differentiate by, drawn afresh in float64."""

    loss: str
    leaves: tuple[str, ...]
    target: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    shape: tuple[int, ...] = (4, 3)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.loss} by {' '.join(self.leaves)}, {self.target}, {self.shape}" + (f", {options}" * bool(options))


def _cases() -> Iterator[Case]:
    for name, entry in LOSSES.items():
        if entry.formula == "softmax" and entry.input == "logits":
            offset = ("logit_offset",) if name in ("cross_entropy",) else ()
            yield Case(name, ("input", "weight", "sample_weight"), "ignored", {"reduction": "none"})
            yield Case(name, ("input", "weight"), "indices", {"reduction": "none"}, (2, 3, 2))
            yield Case(name, ("input", "weight", "sample_weight"), "ignored", {"reduction": "mean"})
            yield Case(name, ("input",), "indices", {"reduction": "sum"}, (3,))
            yield Case(
                name,
                ("input", "weight", "sample_weight", *offset),
                "ignored",
                {"reduction": "mean", "label_smoothing": 0.2, "denominator": "weights"},
            )
            yield Case(
                name,
                ("input", "weight"),
                "ignored",
                {"reduction": "mean", "label_smoothing": 0.2, "smooth_weight": "target", "denominator": "samples"},
            )
            if name != "focal_loss":
                for gamma in (0.5, 1.0, 1.5, 2.0, 3.0):
                    yield Case(name, ("input", "weight"), "ignored", {"reduction": "sum", "gamma": gamma})
            if "distribution" in entry.targets:
                yield Case(name, ("input", "target", "weight"), "soft", {"reduction": "none"})
                yield Case(
                    name,
                    ("input", "target", "weight", "sample_weight", *offset),
                    "soft",
                    {"reduction": "mean", "denominator": "weights", "label_smoothing": 0.1},
                )
                yield Case(
                    name,
                    ("input", "target", "weight"),
                    "soft",
                    {"reduction": "mean", "smooth_weight": "target", "label_smoothing": 0.1},
                    (2, 3, 2),
                )
        elif entry.input == "features":
            leaves = ("input", "linear_weight", "linear_bias", "weight", "sample_weight")
            yield Case(name, leaves, "ignored", {"reduction": "none"})
            yield Case(name, (*leaves, "target"), "soft", {"reduction": "mean", "denominator": "weights"})
            yield Case(name, (*leaves, "logit_offset"), "ignored", {"reduction": "mean", "label_smoothing": 0.1})
        elif entry.formula == "sigmoid":
            yield Case(name, ("input", "target", "weight", "pos_weight"), "elements", {"reduction": "none"})
            yield Case(name, ("input", "weight", "pos_weight"), "binary", {"reduction": "mean"})
            yield Case(
                name,
                ("input", "target", "weight", "pos_weight"),
                "elements",
                {"reduction": "mean", "denominator": "weights"},
            )
            yield Case(name, ("input", "pos_weight"), "ignored elements", {"reduction": "mean", "ignore_index": -1})
        elif name == "nll_loss":
            yield Case(name, ("input", "weight", "sample_weight"), "ignored", {"reduction": "none"})
            yield Case(name, ("input", "weight", "sample_weight"), "ignored", {"reduction": "mean"}, (2, 3, 2))
        else:
            yield Case(name, ("input", "target", "weight"), "elements", {"reduction": "none"})
            yield Case(name, ("input", "target", "weight"), "elements", {"reduction": "mean", "denominator": "weights"})
    for gamma in (0.0, 0.5, 1.0, 2.0, 3.0):
        yield Case("focal_loss", ("input", "weight"), "ignored", {"gamma": gamma})
        yield Case("focal_loss", ("input", "target"), "soft", {"gamma": gamma, "label_smoothing": 0.1})
        yield Case("sigmoid_focal_loss", ("input", "target"), "elements", {"gamma": gamma, "alpha": None})
    every = ("input", "weight", "sample_weight", "logit_offset", "margin")
    yield Case("cross_entropy", every, "ignored", {"reduction": "none", "gamma": 1.5})
    yield Case("cross_entropy", every, "ignored", {"label_smoothing": 0.1, "gamma": 2.0, "smooth_weight": "target"})
    yield Case("cross_entropy", ("input", "logit_offset"), "soft", {"gamma": 0.7})
    yield Case("logit_adjusted_loss", ("input",), "indices", {"tau": 0.3})
    yield Case("ldam_loss", ("input",), "indices", {"max_margin": 1.5, "scale": 2.0})
    for setting in (
        {"gamma_pos": 0.5, "gamma_neg": 1.5},
        {"gamma_pos": 2.0, "gamma_neg": 0.0, "alpha": 0.7},
        {"gamma_neg": 0.0, "clip": 0.1},
        {"gamma_neg": 1.0, "clip": 0.1},
        {"gamma_neg": 2.5, "clip": 0.2, "gamma_pos": 1.0},
    ):
        yield Case("binary_cross_entropy_with_logits", ("input", "target", "weight", "pos_weight"), "elements", setting)
        yield Case("asymmetric_loss", ("input",), "binary", {key: setting[key] for key in setting if key != "alpha"})


CASES = list(_cases())


def function_and_leaves(case: Case, dtype: torch.dtype = F64) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The loss as a function of its leaves, and the leaves."""
    g = torch.Generator().manual_seed(len(str(case)))
    entry = LOSSES[case.loss]
    shape = case.shape
    axis = 0 if len(shape) == 1 else 1
    classes, rows = shape[axis], shape[:axis] + shape[axis + 1 :]

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=g, dtype=F64) + 0.25

    # Spread over what matters, and away from where a clip begins: sigmoid(−1.3) is 0.21, beyond every clip below.
    logits = torch.randn(shape, generator=g, dtype=F64)
    if entry.formula == "sigmoid":
        logits = torch.where(torch.rand(shape, generator=g) < 0.3, -4.0 + 0.5 * logits, logits.abs())
    values: dict[str, Any] = {"input": logits * (0.1 if case.loss == "ldam_loss" else 1.0)}
    if entry.input == "features":
        values["input"] = torch.randn(*rows, 4, generator=g, dtype=F64)
        values["linear_weight"] = torch.randn(classes, 4, generator=g, dtype=F64)
        values["linear_bias"] = torch.randn(classes, generator=g, dtype=F64)
    elif entry.input == "probabilities":
        values["input"] = torch.rand(shape, generator=g, dtype=F64) * 0.8 + 0.1
    values["target"] = {
        "indices": lambda: torch.randint(classes, rows, generator=g),
        "ignored": lambda: torch.randint(classes, rows, generator=g).index_fill(0, torch.tensor([1]), -100),
        "soft": lambda: torch.randn(shape, generator=g, dtype=F64).softmax(axis),
        "elements": lambda: torch.rand(shape, generator=g, dtype=F64) * 0.8 + 0.1,
        "binary": lambda: torch.randint(2, shape, generator=g).to(F64),
        "ignored elements": lambda: torch.randint(-1, 2, shape, generator=g).to(F64),
    }[case.target]()
    if "weight" in case.leaves:
        values["weight"] = uniform(*shape) if entry.targets == ("elements",) else uniform(classes)
    if "pos_weight" in case.leaves:
        values["pos_weight"] = uniform(shape[-1])
    if "sample_weight" in case.leaves:
        values["sample_weight"] = uniform(*rows)
    for name in ("logit_offset", "margin"):
        if name in case.leaves:
            values[name] = uniform(classes)
    if entry.counts:
        values["counts"] = torch.randint(1, 50, (classes,), generator=g)
    leaves = tuple(values[name].to(dtype).requires_grad_() for name in case.leaves)

    def loss(*given: Tensor) -> Tensor:
        return entry.function(**{**values, **dict(zip(case.leaves, given, strict=True)), **case.options})

    return loss, leaves


@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_derivative(case: Case) -> None:
    function, leaves = function_and_leaves(case)
    assert gradcheck(function, leaves, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_derivative_by_the_logits_alone(case: Case) -> None:
    """The way of a kernel: where nothing but the input is differentiated, the closed form answers."""
    function, leaves = function_and_leaves(case)
    rest = [leaf.detach() for leaf in leaves[1:]]
    assert gradcheck(lambda input: function(input, *rest), leaves[:1])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_second_derivative(case: Case) -> None:
    function, leaves = function_and_leaves(case)
    rest = [leaf.detach() for leaf in leaves[1:]]
    assert gradgradcheck(lambda input: function(input, *rest), leaves[:1])
    assert gradgradcheck(function, leaves)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_closed_form_is_the_derivative_of_the_formula(case: Case) -> None:
    """One gradient comes from the closed form, the other, asked for beside another leaf, from autograd."""
    function, leaves = function_and_leaves(case)
    rest = [leaf.detach() for leaf in leaves[1:]]
    loss = function(leaves[0], *rest)
    upstream = torch.randn(loss.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    (closed,) = torch.autograd.grad(loss, leaves[0], upstream)
    (through,) = torch.autograd.grad(function(*leaves), leaves[0], upstream)
    by_func = torch.func.vjp(lambda input: function(input, *rest), leaves[0].detach())[1](upstream)[0]
    torch.testing.assert_close(closed, through, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(closed, by_func, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_single_precision_follows_double(case: Case) -> None:
    """The same leaves in float32: no derivative is further from float64's than a few roundings of the largest."""
    function, leaves = function_and_leaves(case)
    leaves = tuple(leaf.detach().float().double().requires_grad_() for leaf in leaves)
    single = tuple(leaf.detach().float().requires_grad_() for leaf in leaves)
    exact, ours = function(*leaves), function(*single)
    upstream = torch.randn(exact.shape, generator=torch.Generator().manual_seed(2))
    expected = torch.autograd.grad(exact, leaves, upstream.to(exact.dtype))
    found = torch.autograd.grad(ours, single, upstream.to(ours.dtype))
    # A derivative is a sum of terms as large as the loss; where they cancel, their rounding is left.
    terms = exact.detach().abs().max()
    terms = terms * (
        30.0 if case.loss == "ldam_loss" and "scale" not in case.options else 1.0
    )  # dz of its scaled logits
    for ours_by, exact_by in zip(found, expected, strict=True):
        error = (ours_by.double() - exact_by).abs().max()
        assert error <= 16 * torch.finfo(torch.float32).eps * torch.maximum(exact_by.abs().max(), terms)


# --------------------------------------------------------------------------------- no worse than PyTorch in float32

CLASSIC = {
    "cross_entropy": torch.nn.functional.cross_entropy,
    "nll_loss": torch.nn.functional.nll_loss,
    "binary_cross_entropy": torch.nn.functional.binary_cross_entropy,
    "binary_cross_entropy_with_logits": torch.nn.functional.binary_cross_entropy_with_logits,
}


def test_every_loss_of_pytorchs_is_measured_against_it() -> None:
    with_logits_of_its_own = {"linear_cross_entropy"}
    assert set(CLASSIC) | with_logits_of_its_own == {name for name, entry in LOSSES.items() if entry.torch}


@pytest.mark.parametrize("shape", [(3, 2), (7, 13), (5, 257), (2, 8142), (4, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", CLASSIC)
def test_gradient_is_no_worse_than_eagers(
    name: str, reduction: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """Against float64, with random upstream gradients; both may round the last bit of a gradient either way."""
    g = torch.Generator().manual_seed(sum(shape))
    input = torch.randn(shape, generator=g) * 4
    if name == "binary_cross_entropy":
        input = input.sigmoid()
    elif name == "nll_loss":
        input = input.log_softmax(1)
    input = input.to(dtype)
    if LOSSES[name].targets == ("elements",):
        target, weight = torch.rand(shape, generator=g).to(dtype), torch.rand(shape[-1], generator=g).to(dtype)
    else:
        target = torch.randint(shape[1], shape[:1] + shape[2:], generator=g)
        target.view(-1)[0] = -100
        weight = torch.rand(shape[1], generator=g).to(dtype)

    def gradient(function: Callable[..., Tensor], dtype: torch.dtype) -> Tensor:
        leaf = input.to(dtype).requires_grad_()
        t = target.to(dtype) if target.is_floating_point() else target
        loss = function(leaf, t, weight.to(dtype), reduction=reduction)
        upstream = torch.randn(loss.shape, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
        return torch.autograd.grad(loss, leaf, upstream.to(dtype))[0].double()

    exact = gradient(CLASSIC[name], F64)
    ours = (gradient(LOSSES[name].function, dtype) - exact).abs().max()
    eager = (gradient(CLASSIC[name], dtype) - exact).abs().max()
    assert ours <= eager + torch.finfo(dtype).eps * exact.abs().max()


# ------------------------------------------------------------------------------------------------- where formulas end


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "soft"])
def test_focusing_has_finite_derivatives_where_the_softmax_is_sure(gamma: float, soft: bool) -> None:
    """(1 − s)^(γ−1) has no value at s = 1 for γ < 1, and its derivative none below 2."""
    input = torch.tensor(
        [[500.0, -500.0, 0.0], [-500.0, 500.0, 0.0], [40.0, 0.0, -40.0]], dtype=F64, requires_grad=True
    )
    target = torch.tensor([[1.0, 0.0, 0.0]] * 3, dtype=F64) if soft else torch.tensor([0, 0, 0])
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=F64, requires_grad=True)
    for function in (
        lambda: LOSSES["focal_loss"].function(input, target, gamma=gamma, reduction="sum"),
        lambda: LOSSES["focal_loss"].function(input, target, weight, gamma=gamma, reduction="sum"),
    ):
        (first,) = torch.autograd.grad(function(), input, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), input)
        assert first.isfinite().all()
        assert second.isfinite().all()
        torch.testing.assert_close(first.sum(1), torch.zeros(3, dtype=F64))


def test_clipped_negatives_have_no_gradient_and_those_beside_them_do() -> None:
    loss = LOSSES["asymmetric_loss"].function
    edge = torch.tensor(0.05, dtype=F64).logit()
    input = torch.tensor([-30.0, edge - 1e-9, edge + 1e-3, 3.0, 700.0], dtype=F64, requires_grad=True)
    for gamma in (0.0, 0.5, 1.0, 4.0):
        value = loss(input, torch.zeros(5, dtype=F64), gamma_neg=gamma, clip=0.05, reduction="none")
        (gradient,) = torch.autograd.grad(value.sum(), input)
        assert (value[:2] == 0).all()
        assert (value[2:] > 0).all()
        assert (gradient[:2] == 0).all()
        assert (gradient[2:4] > 0).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
def test_a_negative_exactly_at_the_clip_is_clipped(gamma: float) -> None:
    """0^γ has no derivative there, and 0/0 no value."""
    input = torch.zeros(1, dtype=F64, requires_grad=True)
    loss = LOSSES["asymmetric_loss"].function(input, torch.zeros(1, dtype=F64), gamma_neg=gamma, clip=0.5)
    (first,) = torch.autograd.grad(loss, input, create_graph=True)
    (second,) = torch.autograd.grad(first, input)
    assert (loss, first, second) == (0, 0, 0)


def test_an_ignored_row_may_hold_anything() -> None:
    """Inf and NaN in it reach neither its gradient nor that of the weights, in any order of derivative."""
    for name, entry in LOSSES.items():
        if entry.targets == ("elements",) or entry.input == "features":
            continue
        counts = {"counts": [3, 2, 1]} if entry.counts else {}
        rest = {} if name == "ldam_loss" else {"label_smoothing": 0.1} if entry.formula == "softmax" else {}
        input = torch.randn(4, 3, dtype=F64)
        input[1], input[2] = torch.tensor([torch.inf, torch.nan, -torch.inf]), torch.inf
        input.requires_grad_()
        weight = torch.rand(3, dtype=F64, requires_grad=True)
        target = torch.tensor([0, -100, -100, 2])
        for leaves in ((input,), (input, weight)):
            w = weight if len(leaves) == 2 else weight.detach()
            loss = entry.function(input, target, weight=w, reduction="mean", **counts, **rest)
            gradients = torch.autograd.grad(loss, leaves, create_graph=True)
            assert loss.isfinite(), name
            assert all(gradient.isfinite().all() for gradient in gradients), name
            assert (gradients[0][1:3] == 0).all(), name
            if gradients[0].requires_grad:
                for second in torch.autograd.grad(gradients[0].square().sum(), leaves, allow_unused=True):
                    assert second is None or second.isfinite().all(), name


def test_an_ignored_element_may_hold_anything() -> None:
    for name in ("binary_cross_entropy_with_logits", "sigmoid_focal_loss", "asymmetric_loss"):
        input = torch.tensor([1.0, torch.inf, torch.nan, -2.0], dtype=F64, requires_grad=True)
        target = torch.tensor([1.0, -1.0, -1.0, 0.0], dtype=F64)
        loss = LOSSES[name].function(input, target, ignore_index=-1, reduction="mean")
        (gradient,) = torch.autograd.grad(loss, input, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), input)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert (gradient[1:3] == 0).all()
        assert second.isfinite().all()


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "soft"])
def test_what_the_forward_saves_gives_the_softmax_back(soft: bool) -> None:
    """It is a − maximum − log(total), a class that −inf takes out included: a kernel begins its backward pass there."""
    input = torch.randn(5, 4, dtype=F64)
    input[0] += 1e6
    offset = torch.tensor([0.5, -torch.inf, 0.0, 1.0], dtype=F64)
    target = torch.tensor([0, 2, 3, 0, 2])
    if soft:
        target = torch.nn.functional.one_hot(target, 4).double()
    loss, maximum, total = reference.softmax_loss(input, target, offset=offset)
    a = input + offset
    torch.testing.assert_close(a - maximum[:, None] - total.log()[:, None], a.log_softmax(1))
    assert loss.isfinite().all()


def test_the_callers_tensors_stay_as_they_are() -> None:
    for case in CASES:
        function, leaves = function_and_leaves(case)
        before = [leaf.detach().clone() for leaf in leaves]
        function(*leaves).sum().backward()
        for leaf, old in zip(leaves, before, strict=True):
            assert torch.equal(leaf, old)
