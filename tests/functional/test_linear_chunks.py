"""linear_cross_entropy in chunks of rows is linear_cross_entropy: all options, derivatives, borders between chunks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.functional import _chunks, cross_entropy, linear_cross_entropy
from steelyard.nn import LinearCrossEntropyLoss
from steelyard.ops import cpu

ROWS, FEATURES, CLASSES = 13, 5, 7
# A row at a time, some, all but one, all rows exactly, more than there are.
BUDGETS = (1, 3, ROWS - 1, ROWS, ROWS + 1)


def made(dtype: torch.dtype = torch.float64, outputs: tuple[int, ...] = (CLASSES,), rows: int = ROWS) -> dict[str, Any]:
    torch.manual_seed(rows)
    return {
        "input": torch.randn(rows, FEATURES, dtype=dtype, requires_grad=True),
        "linear_weight": torch.randn(*outputs, FEATURES, dtype=dtype, requires_grad=True),
        "linear_bias": torch.randn(outputs, dtype=dtype, requires_grad=True),
        "target": torch.randint(0, CLASSES, (rows, *outputs[1:])),
    }


def budget(case: dict[str, Any], rows: int) -> int:
    return rows * case["linear_weight"][..., 0].numel() * case["input"].element_size()


def outcome(case: dict[str, Any], upstream: Tensor, **options: Any) -> list[Tensor]:
    """The loss, its gradients, and those of a second backward pass."""
    loss = linear_cross_entropy(**case, **options)
    leaves = [case[name] for name in ("input", "linear_weight", "linear_bias")]
    first = torch.autograd.grad(loss, leaves, upstream, retain_graph=True)
    return [loss, *first, *torch.autograd.grad(loss, leaves, 3 * upstream)]


def plain(case: dict[str, Any], upstream: Tensor, **options: Any) -> list[Tensor]:
    """The same by the line that it replaces."""
    weight = case["linear_weight"]
    flat = torch.nn.functional.linear(case["input"], weight.reshape(-1, FEATURES), case["linear_bias"].reshape(-1))
    loss = cross_entropy(flat.reshape(len(flat), *weight.shape[:-1]), case["target"], **options)
    leaves = [case[name] for name in ("input", "linear_weight", "linear_bias")]
    first = torch.autograd.grad(loss, leaves, upstream, retain_graph=True)
    return [loss, *first, *torch.autograd.grad(loss, leaves, 3 * upstream)]


def options_of(kind: str) -> dict[str, Any]:
    torch.manual_seed(1)
    return {
        "plain": {},
        "weights": {"weight": torch.rand(CLASSES, dtype=torch.float64)},
        "smoothing": {"weight": torch.rand(CLASSES, dtype=torch.float64), "label_smoothing": 0.2},
        "rows": {"sample_weight": torch.rand(ROWS, dtype=torch.float64), "label_smoothing": 0.1},
        "offset": {"logit_offset": torch.randn(CLASSES, dtype=torch.float64)},
        "list": {"weight": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]},
    }[kind]


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", ["labels", "ignored", "soft", "pixels"])
@pytest.mark.parametrize("kind", ["plain", "weights", "smoothing", "rows", "offset", "list"])
def test_chunks_change_no_number(kind: str, target: str, reduction: str, name: str) -> None:
    case, options = made(outputs=(CLASSES, 2, 3) if target == "pixels" else (CLASSES,)), options_of(kind)
    if target == "ignored":
        case["target"][[0, 3, 12]] = -100
    if target == "soft":
        case["target"] = torch.rand(ROWS, CLASSES, dtype=torch.float64).softmax(1)
    upstream = torch.randn(case["target"].shape[: None if target != "soft" else 1] if reduction == "none" else (),
                           dtype=torch.float64)  # fmt: skip
    with cpu.using(name):
        wanted = plain(case, upstream, reduction=reduction, **options)
        for rows in BUDGETS:
            found = outcome(case, upstream, reduction=reduction, memory_budget=budget(case, rows), **options)
            for a, b in zip(found, wanted, strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("denominator", ["torch", "weights", "samples", 5.5, torch.tensor(5.5)], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_chunks_divide_by_one_denominator(denominator: Any, soft: bool) -> None:
    case, options = made(), {**options_of("smoothing"), "sample_weight": torch.rand(ROWS)}
    if soft:
        case["target"] = torch.rand(ROWS, CLASSES, dtype=torch.float64).softmax(1)
    upstream = torch.randn((), dtype=torch.float64)
    wanted = plain(case, upstream, denominator=denominator, **options)
    found = outcome(case, upstream, denominator=denominator, memory_budget=budget(case, 4), **options)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("empty", "value"), [("nan", float("nan")), ("zero", 0.0)])
def test_all_rows_ignored(empty: Any, value: float) -> None:
    case = made()
    case["target"].fill_(-100)
    found = outcome(case, torch.tensor(1.0, dtype=torch.float64), empty=empty, memory_budget=1)
    for part in found:
        torch.testing.assert_close(part, torch.full_like(part, value), equal_nan=True)
    with pytest.raises(ValueError, match="the mean must have something to divide by"):
        linear_cross_entropy(**case, empty="raise", memory_budget=1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_an_empty_batch(reduction: str) -> None:
    case = made(rows=0)
    wanted = linear_cross_entropy(**case, reduction=reduction)
    torch.testing.assert_close(
        linear_cross_entropy(**case, reduction=reduction, memory_budget=1), wanted, equal_nan=True
    )


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning"
)  # PyTorch's own, where gradients are batched
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_derivatives_of_every_order(reduction: str) -> None:
    case = made(rows=5)
    leaves = [case.pop(name) for name in ("input", "linear_weight", "linear_bias")]

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return linear_cross_entropy(x, w, linear_bias=b, reduction=reduction, memory_budget=1, **case)

    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)
    assert torch.autograd.gradcheck(loss, leaves, check_forward_ad=True, check_batched_grad=True)


@pytest.mark.parametrize("wanted", [w for w in itertools.product([False, True], repeat=3) if any(w)], ids=str)
def test_only_the_gradients_asked_for(wanted: tuple[bool, bool, bool]) -> None:
    case = made()
    for name, asked in zip(("input", "linear_weight", "linear_bias"), wanted, strict=True):
        case[name].requires_grad_(asked)
    whole = linear_cross_entropy(**case)
    whole.backward()
    expected = [case[name].grad for name in ("input", "linear_weight", "linear_bias")]
    for name in ("input", "linear_weight", "linear_bias"):
        case[name].grad = None
    linear_cross_entropy(**case, memory_budget=1).backward()
    for name, gradient in zip(("input", "linear_weight", "linear_bias"), expected, strict=True):
        assert (gradient is None) == (case[name].grad is None)
        if gradient is not None:
            torch.testing.assert_close(case[name].grad, gradient, rtol=1e-10, atol=1e-12)


def test_nothing_is_computed_for_a_backward_pass_that_cannot_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chunks, "_Gradients", None)
    case = made()
    with torch.no_grad():
        whole = linear_cross_entropy(**case)
        torch.testing.assert_close(linear_cross_entropy(**case, memory_budget=1), whole)


def test_weights_that_are_learned_take_the_whole_way() -> None:
    case, weight = made(), torch.rand(CLASSES, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(linear_cross_entropy(**case, weight=weight), weight)
    (found,) = torch.autograd.grad(linear_cross_entropy(**case, weight=weight, memory_budget=1), weight)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("position", [0, 5, 12])
def test_a_label_that_is_no_class_is_found_in_any_chunk(position: int) -> None:
    case = made()
    case["target"][position] = CLASSES
    with pytest.raises(
        IndexError, match=rf"^linear_cross_entropy: 'target' must be .* got 7 at position \({position},\)"
    ):
        linear_cross_entropy(**case, memory_budget=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("outputs", [(300,), (50, 3)])
def test_half_precision_sums_over_chunks_in_float32(dtype: torch.dtype, outputs: tuple[int, ...]) -> None:
    """No worse than the whole at once against float64, though a hundred chunks are added up."""
    torch.manual_seed(0)
    rows = 100
    case = {
        "input": torch.randn(rows, 16, dtype=dtype, requires_grad=True),
        "linear_weight": torch.randn(*outputs, 16, dtype=dtype, requires_grad=True),
        "linear_bias": torch.randn(outputs, dtype=dtype, requires_grad=True),
        "target": torch.randint(0, outputs[0], (rows, *outputs[1:])),
    }
    exact = {name: t.detach().double().requires_grad_() if t.is_floating_point() else t for name, t in case.items()}
    names = ("input", "linear_weight", "linear_bias")

    def errors(case: dict[str, Any], **options: Any) -> list[Tensor]:
        loss = linear_cross_entropy(**case, **options)
        return [loss.detach(), *torch.autograd.grad(loss, [case[name] for name in names])]

    truth = errors(exact)
    whole = [(a.double() - b).norm() for a, b in zip(errors(case), truth, strict=True)]
    cut = [(a.double() - b).norm() for a, b in zip(errors(case, memory_budget=1), truth, strict=True)]
    for ours, theirs, right in zip(cut, whole, truth, strict=True):
        assert float(ours) <= 1.1 * float(theirs) + torch.finfo(dtype).eps * float(right.norm()) / 4


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
@pytest.mark.parametrize("given", [False, True])
def test_weights_of_any_size_leave_half_precision_its_digits(
    given: bool, scale: float, dtype: torch.dtype, name: str
) -> None:
    """Gradients of a sum, divided afterwards, would be out of the range of float16."""
    torch.manual_seed(0)
    rows, weight = 300, (torch.rand(CLASSES) + 0.5) * scale  # no power of two, which would divide exactly
    case = {
        "input": torch.randn(rows, FEATURES, dtype=dtype, requires_grad=True),
        "linear_weight": torch.randn(CLASSES, FEATURES, dtype=dtype, requires_grad=True),
        "target": torch.randint(0, CLASSES, (rows,)),
    }
    options = {"weight": weight, "denominator": rows * scale if given else "torch"}
    exact = {key: t.detach().double().requires_grad_() if t.is_floating_point() else t for key, t in case.items()}

    def gradients(case: dict[str, Any], **more: Any) -> list[Tensor]:
        leaves = [case["input"], case["linear_weight"]]
        return list(torch.autograd.grad(linear_cross_entropy(**case, **options, **more), leaves))

    with cpu.using(name):
        found = zip(gradients(case, memory_budget=budget(case, 7)), gradients(case), gradients(exact), strict=True)
        for cut, whole, truth in found:
            assert float((cut.double() - truth).norm()) <= 1.1 * float((whole.double() - truth).norm())


def test_half_precision_widens_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chunks, "_CLASSES", 3)
    case = made(torch.bfloat16)
    wanted = torch.autograd.grad(linear_cross_entropy(**case), case["linear_weight"])[0]
    found = torch.autograd.grad(linear_cross_entropy(**case, memory_budget=1), case["linear_weight"])[0]
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-3)


def test_tensors_that_change_before_the_backward_pass_are_autograds_error() -> None:
    case = made()
    loss = linear_cross_entropy(**case, memory_budget=1)
    with torch.no_grad():
        case["linear_weight"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_under_a_compiler_and_autocast_the_whole_way_serves() -> None:
    case = made(torch.float32)
    wanted = linear_cross_entropy(**case)
    compiled = torch.compile(linear_cross_entropy, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**case, memory_budget=1), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = linear_cross_entropy(**case)
        assert torch.equal(linear_cross_entropy(**case, memory_budget=1), mixed)


def test_the_module_has_a_budget_too() -> None:
    loss = LinearCrossEntropyLoss(FEATURES, CLASSES, memory_budget=64, dtype=torch.float64)
    x, y = torch.randn(ROWS, FEATURES, dtype=torch.float64), torch.randint(0, CLASSES, (ROWS,))
    wanted = linear_cross_entropy(x, loss.linear.weight, y)
    torch.testing.assert_close(loss(x, y), wanted)
    with pytest.raises(ValueError, match=r"^LinearCrossEntropyLoss: 'memory_budget' must be a number of bytes"):
        LinearCrossEntropyLoss(FEATURES, CLASSES, memory_budget=0)


def test_rows_are_as_many_as_the_budget_holds() -> None:
    layer = _chunks.Layer(torch.zeros(5000, 2), torch.zeros(1000, 2), None)
    assert _chunks.rows_within(layer, 4000 * 3 + 3999) == 3
    assert _chunks.rows_within(layer, 1) == 1
    assert _chunks.rows_within(layer, None) == _chunks.BUDGET // 4000
    wide = _chunks.Layer(torch.zeros(1, 2), torch.zeros(1_000_000, 2), None)
    assert _chunks.rows_within(wide, None) == _chunks.LEAST_ROWS
