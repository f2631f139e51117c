"""PyTorch's own samples judge the functions: every ``op_db`` entry of a loss that we have, every sample of it.

Ours and PyTorch's get the same numbers. In float64 and float32 they must agree; in bfloat16 and float16, where both
round, ours may not be further from the float64 answer than PyTorch's is, up to one rounding of the result.
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from steelyard.functional import _chunks
from steelyard.registry import LOSSES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the module warns about its own optional dependencies
    from torch.testing._internal.common_methods_invocations import op_db

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
JUDGED = [
    (entry, op) for entry in LOSSES.values() if entry.torch for op in op_db if op.name == f"nn.functional.{entry.torch}"
]
GRID = [
    pytest.param(entry, op, dtype, id=f"{op.formatted_name}-{str(dtype).removeprefix('torch.')}")
    for entry, op in JUDGED
    for dtype in DTYPES
    if dtype in op.supported_dtypes("cpu")
]
WHOLE = [case for case in GRID if "chunked" not in case.id]
# The samples in chunks are many, and the whole ones over again but for options that change no number of ours.
CHUNKED = [case for case in GRID if "chunked-float64" in case.id or "chunked_none-float64" in case.id]

pytestmark = [
    # PyTorch's chunked linear_cross_entropy says when it does not chunk; no number depends on that.
    pytest.mark.filterwarnings("ignore:linear_cross_entropy. ``options`` ignored:UserWarning"),
    # PyTorch's forward mode compiles its own decompositions with what it deprecates.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]


@dataclass(frozen=True)
class Problem:
    """One sample: its floating-point tensors, which of them are differentiated, and how to call a loss with them."""

    number: int
    floats: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    leaves: tuple[int, ...]
    rounded_to: torch.dtype
    text: str
    arrange: Callable[..., tuple[list[Any], dict[str, Any]]]

    def __call__(self, function: Callable[..., Tensor], *leaves: Tensor) -> Tensor:
        held = [*self.floats, *self.labels]
        for place, leaf in zip(self.leaves, leaves, strict=True):
            held[place] = leaf
        return self.with_all(function, held)

    def with_all(self, function: Callable[..., Tensor], tensors: list[Tensor]) -> Tensor:
        args, kwargs = self.arrange(tensors)
        return function(*args, **kwargs)

    def values(self) -> list[Tensor]:
        return [self.floats[place] for place in self.leaves]

    def vector(self, like: Tensor, which: int) -> Tensor:
        """A random direction: the same numbers whatever the dtype that is computed in."""
        generator = torch.Generator().manual_seed(1000 * self.number + which)
        return torch.randn(like.shape, generator=generator).to(self.rounded_to).to(like.dtype)

    def vectors(self, like: list[Tensor] | tuple[Tensor, ...], start: int) -> tuple[Tensor, ...]:
        return tuple(self.vector(tensor, start + i) for i, tensor in enumerate(like))

    def in_float64(self) -> Problem:
        return replace(self, floats=tuple(tensor.double() for tensor in self.floats))


def _problem(number: int, sample: Any, leaves: str, dtype: torch.dtype) -> Problem:
    given = [sample.input, *sample.args, *sample.kwargs.values()]
    tensors = [i for i, value in enumerate(given) if isinstance(value, Tensor)]
    places = sorted(tensors, key=lambda i: not given[i].is_floating_point())
    floats = tuple(given[i].detach().clone() for i in places if given[i].is_floating_point())
    labels = tuple(given[i].clone() for i in places if not given[i].is_floating_point())

    def arrange(tensors: list[Tensor]) -> tuple[list[Any], dict[str, Any]]:
        values = list(given)
        for i, tensor in zip(places, tensors, strict=True):
            values[i] = tensor
        positional = len(sample.args) + 1
        return values[:positional], dict(zip(sample.kwargs, values[positional:], strict=True))

    words = {name: value for name, value in sample.kwargs.items() if not isinstance(value, Tensor)}
    held = [name for name, value in sample.kwargs.items() if isinstance(value, Tensor)]
    shapes = [tuple(value.shape) for value in given[: len(sample.args) + 1]]
    text = f"sample {number}, {leaves} differentiated: {shapes} {held} {words}"
    count = 1 if leaves == "input" else len(floats)
    return Problem(number, floats, labels, tuple(range(count)), dtype, text, arrange)


def _samples(op: Any, dtype: torch.dtype) -> list[Any]:
    torch.manual_seed(0)
    random.seed(0)
    return list(op.sample_inputs("cpu", dtype))


def _problems(op: Any, dtype: torch.dtype) -> list[Problem]:
    """Each sample twice: differentiated by its input alone, as a kernel is, and by every tensor that PyTorch can."""
    problems = []
    for number, sample in enumerate(_samples(op, dtype)):
        problems.append(_problem(number, sample, "input", dtype))
        whole = _problem(number, sample, "all", dtype)
        if len(whole.leaves) > 1:
            problems.append(_without_refused(whole, _reference(op)))
    return problems


def _without_refused(problem: Problem, function: Callable[..., Tensor]) -> Problem:
    """Less the weights that PyTorch has no derivative for, in nll_loss and binary_cross_entropy_with_logits."""
    try:
        gradient(function, problem)
    except RuntimeError as error:
        refused = re.search("not differentiable with respect to argument '(weight|pos_weight)'", str(error))
        if refused is None:
            raise
        kept = tuple(place for place in problem.leaves if not _is_keyword(problem, place, refused[1]))
        assert len(kept) == len(problem.leaves) - 1
        return _without_refused(replace(problem, leaves=kept), function)
    return problem


def _is_keyword(problem: Problem, place: int, name: str) -> bool:
    held = [*problem.floats, *problem.labels]
    return problem.arrange(held)[1].get(name) is held[place]


# ----------------------------------------------------------------------------------------------- what is compared


def gradient(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    leaves = [value.clone().requires_grad_() for value in problem.values()]
    out = problem(function, *leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, problem.vector(out, 0), materialize_grads=True)


def second_derivative(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    leaves = [value.clone().requires_grad_() for value in problem.values()]
    out = problem(function, *leaves)
    upstream = problem.vector(out, 0).requires_grad_()
    first = torch.autograd.grad(out, leaves, upstream, create_graph=True, materialize_grads=True)
    first_and_used = [(g, v) for g, v in zip(first, problem.vectors(first, 10), strict=True) if g.requires_grad]
    grads, vectors = zip(*first_and_used, strict=True)
    return torch.autograd.grad(grads, [*leaves, upstream], vectors, materialize_grads=True)


def forward_mode(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    values = problem.values()
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(v, t) for v, t in zip(values, problem.vectors(values, 20), strict=True)]
        out, tangent = forward_ad.unpack_dual(problem(function, *duals))
    assert tangent is not None
    return out, tangent


def func_jvp(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    values = tuple(problem.values())
    return torch.func.jvp(lambda *leaves: problem(function, *leaves), values, problem.vectors(values, 20))


def forward_over_reverse(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    values = problem.values()
    with forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(v.clone().requires_grad_(), t)
            for v, t in zip(values, problem.vectors(values, 20), strict=True)
        ]
        out = problem(function, *duals)
        grads = torch.autograd.grad(out, duals, problem.vector(out, 0), materialize_grads=True)
        parts = [forward_ad.unpack_dual(grad) for grad in grads]
        pairs = [(p.primal, torch.zeros_like(p.primal) if p.tangent is None else p.tangent) for p in parts]
    return tuple(part.detach() for pair in pairs for part in pair)


def func_jvp_of_grad(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    values = tuple(problem.values())

    def scalar(*leaves: Tensor) -> Tensor:
        out = problem(function, *leaves)
        return (out * problem.vector(out, 0)).sum()

    grad = torch.func.grad(scalar, argnums=tuple(range(len(values))))
    primals, tangents = torch.func.jvp(grad, values, problem.vectors(values, 20))
    return *primals, *tangents


def vmapped(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    """Every tensor gets a batch axis, the labels too; the value and the gradient of each member of the batch."""
    batch = _batch(problem)
    upstream = problem.vector(problem.with_all(function, [tensor[0] for tensor in batch]), 0)
    return torch.func.vmap(lambda *given: _member(function, problem, given, upstream))(*batch)


def looped(function: Callable[..., Tensor], problem: Problem) -> tuple[Tensor, ...]:
    """The same, one member after the other and by ``torch.autograd``."""
    members = []
    for given in zip(*_batch(problem), strict=True):
        leaves = [given[place].clone().requires_grad_() for place in problem.leaves]
        held = list(given)
        for place, leaf in zip(problem.leaves, leaves, strict=True):
            held[place] = leaf
        out = problem.with_all(function, held)
        members.append(
            (out.detach(), *torch.autograd.grad(out, leaves, problem.vector(out, 0), materialize_grads=True))
        )
    return tuple(torch.stack(parts) for parts in zip(*members, strict=True))


def _batch(problem: Problem) -> list[Tensor]:
    floats = [torch.stack([tensor, tensor * 0.75, tensor * 0.5]) for tensor in problem.floats]
    # Labels in another order are still labels, and as many of them ignored.
    labels = [torch.stack([tensor, tensor.flip(0), tensor.flip(-1)] if tensor.dim() else [tensor] * 3)
              for tensor in problem.labels]  # fmt: skip
    return floats + labels


def _member(
    function: Callable[..., Tensor], problem: Problem, given: tuple[Tensor, ...], upstream: Tensor
) -> tuple[Tensor, ...]:
    def scalar(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        held = list(given)
        for place, leaf in zip(problem.leaves, leaves, strict=True):
            held[place] = leaf
        out = problem.with_all(function, held)
        return (out * upstream).sum(), out

    places = tuple(range(len(problem.leaves)))
    grads, out = torch.func.grad(scalar, argnums=places, has_aux=True)(*[given[place] for place in problem.leaves])
    return out, *grads


# ------------------------------------------------------------------------------------------------------ the judges

CLOSE = {torch.float64: {"rtol": 1e-10, "atol": 1e-11}, torch.float32: {"rtol": 1.3e-6, "atol": 1e-5}}


class Judge:
    """Compares quantities of ours with PyTorch's, in float64 too where both round."""

    def __init__(self, op: Any, dtype: torch.dtype) -> None:
        self.op, self.dtype = op, dtype
        self.samples: set[int] = set()
        self.squares = {"ours": 0.0, "eager": 0.0}

    def __call__(
        self, problem: Problem, ours: tuple[Tensor, ...], eager: tuple[Tensor, ...], exact: Callable[[], Any]
    ) -> None:
        assert len(ours) == len(eager), problem.text
        for part, (a, b) in enumerate(zip(ours, eager, strict=True)):
            text = f"{problem.text}, part {part}"
            assert (a.dtype, a.shape) == (b.dtype, b.shape), text
            if self.dtype in CLOSE:
                near = CLOSE[self.dtype]
                torch.testing.assert_close(a, b, equal_nan=True, msg=lambda m, text=text: f"{text}: {m}", **near)
        if self.dtype not in CLOSE:
            for part, (a, b, c) in enumerate(zip(ours, eager, exact(), strict=True)):
                self._no_worse(a, b, c, f"{problem.text}, part {part}")
        self.samples.add(problem.number)

    def _no_worse(self, ours: Tensor, eager: Tensor, exact: Tensor, text: str) -> None:
        if exact.numel() == 0:
            return
        if not bool(exact.isfinite().all()):
            assert torch.equal(ours.isnan(), exact.isnan()), text
            return
        error, allowed = (ours.double() - exact).abs().max(), (eager.double() - exact).abs().max()
        ulp = torch.finfo(self.dtype).eps * exact.abs().max()
        if "linear" in self.op.name:
            # Both start from logits that the same torch.nn.functional.linear has rounded, and carry that error to the
            # result: which of the two then comes out nearer in one sample is luck. Over all samples it is not.
            if float(ulp) > 0.0:
                self.squares["ours"] += float(error / ulp) ** 2
                self.squares["eager"] += float(allowed / ulp) ** 2
            else:
                assert float(error) == 0.0, text
            return
        assert float(error) <= float(allowed + ulp), f"{text}: {error:g} > {allowed:g} + {ulp:g}"

    def close(self) -> None:
        """No sample was left out."""
        assert self.samples == set(range(len(_samples(self.op, self.dtype)))) != set()
        assert self.squares["ours"] <= self.squares["eager"]


def _reference(op: Any, quantity: Callable[..., Any] | None = None, dtype: torch.dtype | None = None) -> Any:
    """PyTorch's loss, in the form that has the derivative asked for."""
    if quantity in SECOND and op.name == "nn.functional.binary_cross_entropy" and dtype in CLOSE:
        return _binary_cross_entropy
    if op.supports_forward_ad and op.supports_fwgrad_bwgrad:
        return op.op
    # Of linear_cross_entropy in chunks, PyTorch has first derivatives only; whole, it has all.
    assert op.variant_test_name.startswith("chunked"), "a PyTorch loss without derivatives that we did not know of"
    return lambda *args, options=None, **kwargs: op.op(*args, **kwargs)


SECOND = (second_derivative, forward_over_reverse, func_jvp_of_grad)


def _binary_cross_entropy(p: Tensor, t: Tensor, weight: Tensor | None = None, *, reduction: str = "mean") -> Tensor:
    """By PyTorch's logarithms: its second derivative of the loss itself adds 1e-12 to p and 1 − p, 2e-6 off at 1e-6."""
    loss = -(t * p.log() + (1 - t) * torch.log1p(-p))
    loss = loss if weight is None else loss * weight
    return loss if reduction == "none" else getattr(loss, reduction)()


def test_every_loss_that_pytorch_has_is_judged() -> None:
    for entry in LOSSES.values():
        if entry.torch and hasattr(torch.nn.functional, entry.torch):
            assert any(entry is judged for judged, _ in JUDGED), entry.name


QUANTITIES = (gradient, second_derivative, forward_mode, func_jvp, forward_over_reverse, func_jvp_of_grad)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.__name__)
@pytest.mark.parametrize(("entry", "op", "dtype"), [*WHOLE, *CHUNKED])
def test_equals_pytorch(entry: Any, op: Any, dtype: torch.dtype, quantity: Callable[..., tuple[Tensor, ...]]) -> None:
    judge, reference = Judge(op, dtype), _reference(op, quantity, dtype)
    for problem in _problems(op, dtype):
        ours, eager = quantity(entry.function, problem), quantity(reference, problem)
        judge(problem, ours, eager, lambda problem=problem: quantity(reference, problem.in_float64()))
    judge.close()


@pytest.mark.parametrize("quantity", [gradient, second_derivative], ids=lambda quantity: quantity.__name__)
@pytest.mark.parametrize(
    ("entry", "op", "dtype"), [case for case in (*WHOLE, *CHUNKED) if "linear" in case.values[1].name]
)
def test_equals_pytorch_row_by_row(
    entry: Any, op: Any, dtype: torch.dtype, quantity: Callable[..., tuple[Tensor, ...]], monkeypatch: Any
) -> None:
    """With so little room for logits that each row is a chunk of its own."""
    monkeypatch.setattr(_chunks, "BUDGET", 1)
    monkeypatch.setattr(_chunks, "LEAST_ROWS", 1)
    test_equals_pytorch(entry, op, dtype, quantity)


@pytest.mark.parametrize(("entry", "op", "dtype"), [*WHOLE, *CHUNKED])
def test_vmap_equals_a_loop_over_pytorch(entry: Any, op: Any, dtype: torch.dtype) -> None:
    judge, reference = Judge(op, dtype), _reference(op)
    for problem in _problems(op, dtype):
        ours, eager = vmapped(entry.function, problem), looped(reference, problem)
        judge(problem, ours, eager, lambda problem=problem: looped(reference, problem.in_float64()))
    judge.close()


@pytest.mark.parametrize(("entry", "op", "dtype"), [case for case in GRID if "chunked" in case.id])
def test_equals_pytorch_in_chunks(entry: Any, op: Any, dtype: torch.dtype) -> None:
    """``options`` choose PyTorch's chunks. They have no further derivatives, and in narrow dtypes other sums."""
    judge = Judge(op, dtype)
    for problem in _problems(op, dtype):
        exact = partial(gradient, _reference(op), problem.in_float64())
        against = op.op if dtype in CLOSE else _reference(op)
        judge(problem, gradient(entry.function, problem), gradient(against, problem), exact)
    judge.close()


@pytest.mark.parametrize(
    ("entry", "op"), [pytest.param(entry, op, id=op.formatted_name) for entry, op in JUDGED if op.error_inputs_func]
)
def test_refuses_what_pytorch_refuses(entry: Any, op: Any) -> None:
    refused = list(op.error_inputs("cpu"))
    for bad in refused:
        sample = bad.sample_input
        with pytest.raises(bad.error_type):
            op.op(sample.input, *sample.args, **sample.kwargs)
        with pytest.raises((TypeError, ValueError, IndexError)):
            entry.function(sample.input, *sample.args, **sample.kwargs)
    assert refused


# --------------------------------------------------------------------------- where PyTorch's samples do not reach


def test_binary_cross_entropy_at_the_ends_is_pytorchs() -> None:
    ends = torch.tensor([0.0, 1e-30, 1e-13, 1e-12, 1e-9, 1e-6, 1e-3, 0.5], dtype=torch.float64)
    p = torch.cat([ends, 1.0 - ends]).repeat(3)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64).repeat_interleave(len(p) // 3)
    mine, theirs = p.clone().requires_grad_(), p.clone().requires_grad_()
    ours = LOSSES["binary_cross_entropy"].function(mine, t, reduction="none")
    expected = torch.nn.functional.binary_cross_entropy(theirs, t, reduction="none")
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)
    upstream = torch.randn(p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (grad,), (wanted,) = torch.autograd.grad(ours, mine, upstream), torch.autograd.grad(expected, theirs, upstream)
    torch.testing.assert_close(grad, wanted, rtol=5e-9, atol=0.0)  # PyTorch's 1e-12 is a float32, 4e-9 off


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_of_weight_2_is_that_row_twice(soft: bool, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    target = torch.tensor([0, 2, 1, 1, 0])
    if soft:
        target = torch.randn(5, 3, dtype=torch.float64, generator=generator).softmax(1)
    times, weight = torch.tensor([1, 2, 0, 3, 1]), torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    for reduction in ("mean", "sum"):
        options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
        repeated = input.repeat_interleave(times, 0), target.repeat_interleave(times, 0)
        torch.testing.assert_close(
            LOSSES["cross_entropy"].function(input, target, sample_weight=times, **options),
            torch.nn.functional.cross_entropy(*repeated, **options),
        )


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_lines_of_pytorch_that_the_docstrings_name(reduction: str) -> None:
    input = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target, counts, weight = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([90, 9, 1]), torch.rand(3).double()
    loss = {name: entry.function for name, entry in LOSSES.items()}
    plain = partial(torch.nn.functional.cross_entropy, target=target, weight=weight, reduction=reduction)
    options = {"weight": weight, "reduction": reduction}
    torch.testing.assert_close(loss["balanced_softmax_loss"](input, target, counts, **options),
                               plain(input + counts.log()))  # fmt: skip
    for tau in (0.0, 0.3, 1.0, 2.0):
        torch.testing.assert_close(loss["logit_adjusted_loss"](input, target, counts, tau, **options),
                                   plain(input + tau * (counts.double() / counts.sum()).log()))  # fmt: skip
    margins = counts.double() ** -0.25
    margins = margins * (0.4 / margins.max())
    hot = torch.nn.functional.one_hot(target, 3)
    torch.testing.assert_close(loss["ldam_loss"](input, target, counts, 0.4, 7.0, **options),
                               plain(7.0 * (input - margins * hot)))  # fmt: skip
    s = input.softmax(1)[torch.arange(6), target]
    focal = (1 - s) ** 1.5 * torch.nn.functional.cross_entropy(input, target, weight, reduction="none")
    mean = focal.sum() / weight[target].sum()
    expected = {"none": focal, "sum": focal.sum(), "mean": mean}[reduction]
    torch.testing.assert_close(loss["focal_loss"](input, target, gamma=1.5, **options), expected)
