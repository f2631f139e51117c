"""The two operators: what PyTorch asks of an operator, closed form against autograd, labels, extremes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from steelyard.ops import LabelError, reference, sigmoid_loss, softmax_loss

OPS = torch.ops.steelyard
CLASSES = 5
IGNORED = 3

# One change at a time from the plain formula, then all that combine.
SOFTMAX: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": "class"},
    "row weight": {"row_weight": "row"},
    "offset": {"offset": "class"},
    "margin": {"margin": "class"},
    "gamma ½": {"gamma": 0.5},
    "gamma 1": {"gamma": 1.0},
    "gamma 2": {"gamma": 2.0},
    "smoothing": {"smoothing": 0.1},
    "smoothing by target": {"smoothing": 0.1, "smooth_by_target": True, "weight": "class"},
    "ignored": {"ignore_index": IGNORED},
    "everything": {
        "weight": "class", "row_weight": "row", "offset": "class", "margin": "class", "gamma": 1.5, "smoothing": 0.2,
        "ignore_index": IGNORED,
    },
    "everything by target": {
        "weight": "class", "row_weight": "row", "offset": "class", "margin": "class", "gamma": 2.0, "smoothing": 0.3,
        "smooth_by_target": True, "ignore_index": IGNORED,
    },
}  # fmt: skip
SIGMOID: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": "element"},
    "pos_weight": {"pos_weight": "last"},
    "neg_weight": {"neg_weight": 0.3},
    "gamma_pos": {"gamma_pos": 0.5},
    "gamma_neg": {"gamma_neg": 2.0},
    "clip": {"clip": 0.05},
    "clip and gammas": {"clip": 0.1, "gamma_pos": 1.0, "gamma_neg": 4.0},
    "ignored": {"ignore_index": -1},
    "everything": {
        "weight": "element", "pos_weight": "last", "neg_weight": 0.75, "gamma_pos": 1.5, "gamma_neg": 2.5, "clip": 0.05,
        "ignore_index": -1,
    },
}  # fmt: skip
SHAPES = [(4, CLASSES), (3, CLASSES, 2), (CLASSES,), (0, CLASSES)]


def _softmax_args(settings: dict[str, Any], shape: tuple[int, ...], soft: bool, dtype: torch.dtype) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    accumulation = reference.accumulation_dtype(dtype)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64).add(0.2).to(accumulation)

    dim = 0 if len(shape) == 1 else 1
    rows = shape[:dim] + shape[dim + 1 :]
    input = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).to(dtype)
    target = torch.randint(CLASSES, rows, generator=generator)
    if soft:
        target = torch.randn(shape, generator=generator, dtype=torch.float64).softmax(dim).to(dtype)
    given = {"class": lambda: uniform(CLASSES), "row": lambda: uniform(*rows)}
    defaults = {
        "weight": None, "row_weight": None, "offset": None, "margin": None,
        "gamma": 0.0, "smoothing": 0.0, "smooth_by_target": False, "ignore_index": -100,
    }  # fmt: skip
    chosen = {name: given[value]() if isinstance(value, str) else value for name, value in settings.items()}
    return [input, target, *{**defaults, **chosen}.values()]


def _sigmoid_args(settings: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    accumulation = reference.accumulation_dtype(dtype)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64).to(accumulation)

    input = torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).to(dtype)
    target = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    if "ignore_index" in settings and target.numel():
        target.view(-1)[::3] = settings["ignore_index"]
    given = {"element": lambda: uniform(*shape), "last": lambda: uniform(*shape[-1:])}
    defaults = {
        "weight": None, "pos_weight": None, "neg_weight": 1.0,
        "gamma_pos": 0.0, "gamma_neg": 0.0, "clip": 0.0, "ignore_index": None,
    }  # fmt: skip
    chosen = {name: given[value]() if isinstance(value, str) else value for name, value in settings.items()}
    return [input, target, *{**defaults, **chosen}.values()]


def _softmax_grid(shapes: list[tuple[int, ...]]) -> list[Any]:
    return [
        pytest.param(settings, shape, soft, id=f"{name}-{'x'.join(map(str, shape))}-{'soft' if soft else 'indices'}")
        for (name, settings), shape, soft in itertools.product(SOFTMAX.items(), shapes, (False, True))
        # A margin is of the one class of the row, and only labels are ignored.
        if not (soft and {"margin", "ignore_index"} & settings.keys())
    ]


def _sigmoid_grid(shapes: list[tuple[int, ...]]) -> list[Any]:
    return [
        pytest.param(settings, shape, id=f"{name}-{'x'.join(map(str, shape))}")
        for (name, settings), shape in itertools.product(SIGMOID.items(), shapes)
    ]


def _leaves(args: list[Any]) -> list[Any]:
    """The input, and every other tensor of numbers, to be differentiated."""
    return [
        value.clone().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in args
    ]


def _only_input(args: list[Any]) -> list[Any]:
    return [args[0].clone().requires_grad_(), *args[1:]]


# ---------------------------------------------------------------------------------------------------------- opcheck

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("settings", "shape", "soft"), _softmax_grid([(4, CLASSES)]))
def test_opcheck_softmax(settings: dict[str, Any], shape: tuple[int, ...], soft: bool, dtype: torch.dtype) -> None:
    args = _softmax_args(settings, shape, soft, dtype)
    torch.library.opcheck(OPS.softmax_loss.default, _only_input(args), test_utils=CHECKS)
    loss, maximum, total = OPS.softmax_loss(*args)
    torch.library.opcheck(
        OPS.softmax_loss_backward.default,
        [torch.randn_like(loss).requires_grad_(), args[0], args[1], maximum, total, *args[2:]],
        test_utils=CHECKS,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("settings", "shape"), _sigmoid_grid([(4, CLASSES)]))
def test_opcheck_sigmoid(settings: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = _sigmoid_args(settings, shape, dtype)
    torch.library.opcheck(OPS.sigmoid_loss.default, _only_input(args), test_utils=CHECKS)
    grad = torch.randn_like(OPS.sigmoid_loss(*args)).requires_grad_()
    torch.library.opcheck(OPS.sigmoid_loss_backward.default, [grad, *args], test_utils=CHECKS)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES[1:], (2, CLASSES, 3, 2)], ids=str)
def test_opcheck_shapes_and_strides(shape: tuple[int, ...], turned: bool) -> None:
    rows = _softmax_args(SOFTMAX["everything"], shape, False, torch.float32)
    elements = _sigmoid_args(SIGMOID["everything"], shape, torch.float32)
    if turned:
        for args in (rows, elements):
            args[0] = args[0].transpose(0, -1).contiguous().transpose(0, -1)
    torch.library.opcheck(OPS.softmax_loss.default, _only_input(rows), test_utils=CHECKS[:3])
    torch.library.opcheck(OPS.sigmoid_loss.default, _only_input(elements), test_utils=CHECKS[:3])
    # The gradient has the strides of the input, as the fake says: a compiled graph counts on it.
    loss, *saved = OPS.softmax_loss(*rows)
    backward = [torch.randn_like(loss), *rows[:2], *saved, *rows[2:]]
    torch.library.opcheck(OPS.softmax_loss_backward.default, backward, test_utils=CHECKS[:3])
    backward = [torch.randn_like(OPS.sigmoid_loss(*elements)), *elements]
    torch.library.opcheck(OPS.sigmoid_loss_backward.default, backward, test_utils=CHECKS[:3])


# ------------------------------------------------------------------------- the closed form, against autograd


@pytest.mark.parametrize(("settings", "shape", "soft"), _softmax_grid(SHAPES))
def test_softmax_backward_is_the_derivative(settings: dict[str, Any], shape: tuple[int, ...], soft: bool) -> None:
    args = _softmax_args(settings, shape, soft, torch.float64)
    through, kernel = _only_input(args), _only_input(args)
    expected = reference.softmax_loss(*through)[0]
    loss = softmax_loss(*kernel)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=1e-13)
    upstream = torch.randn_like(loss)
    torch.testing.assert_close(
        torch.autograd.grad(loss, kernel[0], upstream)[0],
        torch.autograd.grad(expected, through[0], upstream)[0],
        rtol=1e-11, atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize(("settings", "shape"), _sigmoid_grid([*SHAPES, ()]))
def test_sigmoid_backward_is_the_derivative(settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    args = _sigmoid_args(settings, shape, torch.float64)
    through, kernel = _only_input(args), _only_input(args)
    expected, loss = reference.sigmoid_loss(*through), sigmoid_loss(*kernel)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=1e-13)
    upstream = torch.randn_like(loss)
    torch.testing.assert_close(
        torch.autograd.grad(loss, kernel[0], upstream)[0],
        torch.autograd.grad(expected, through[0], upstream)[0],
        rtol=1e-11, atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize(("settings", "shape", "soft"), _softmax_grid([(3, CLASSES)]))
def test_softmax_gradcheck(settings: dict[str, Any], shape: tuple[int, ...], soft: bool) -> None:
    args = _softmax_args(settings, shape, soft, torch.float64)
    assert torch.autograd.gradcheck(softmax_loss, _only_input(args))
    assert torch.autograd.gradgradcheck(softmax_loss, _only_input(args))
    assert torch.autograd.gradcheck(softmax_loss, _leaves(args))


@pytest.mark.parametrize(("settings", "shape"), _sigmoid_grid([(2, CLASSES)]))
def test_sigmoid_gradcheck(settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    args = _sigmoid_args({k: v for k, v in settings.items() if k != "ignore_index"}, shape, torch.float64)
    assert torch.autograd.gradcheck(sigmoid_loss, _only_input(args))
    assert torch.autograd.gradgradcheck(sigmoid_loss, _only_input(args))
    assert torch.autograd.gradcheck(sigmoid_loss, _leaves(args))


@pytest.mark.parametrize(("settings", "shape", "soft"), _softmax_grid(SHAPES))
def test_saved_statistics_give_log_softmax(settings: dict[str, Any], shape: tuple[int, ...], soft: bool) -> None:
    # What a kernel finds the softmax again from: log s = a − maximum − log(total).
    args = _softmax_args(settings, shape, soft, torch.float64)
    input, target, offset, margin, ignored = args[0], args[1], args[4], args[5], args[9]
    _, maximum, total = OPS.softmax_loss(*args)
    dim = 0 if input.dim() == 1 else 1
    a = input.clone()
    if offset is not None:
        a = a + reference.per_class(offset, input)
    if margin is not None:
        hot = torch.nn.functional.one_hot(target, CLASSES).movedim(-1, dim)
        a = a - reference.per_class(margin, input) * hot
    kept = torch.ones_like(maximum, dtype=torch.bool) if soft else target != ignored
    found = a - maximum.unsqueeze(dim) - total.log().unsqueeze(dim)
    rows = kept.unsqueeze(dim).expand_as(a)
    torch.testing.assert_close(found[rows], a.log_softmax(dim)[rows], rtol=1e-12, atol=1e-12)
    assert torch.equal(maximum[kept], a.amax(dim)[kept])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    args = _only_input(_softmax_args(SOFTMAX["everything"], (4, CLASSES), False, dtype))
    elements = _only_input(_sigmoid_args(SIGMOID["everything"], (4, CLASSES), dtype))
    for loss, leaf in ((softmax_loss(*args), args[0]), (sigmoid_loss(*elements), elements[0])):
        assert loss.dtype == accumulation
        assert torch.autograd.grad(loss.sum(), leaf)[0].dtype == dtype


# ------------------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("label", [CLASSES, CLASSES + 7, -1, 255, -(2**40)])
def test_a_label_out_of_range_is_refused_by_value_and_position(label: int) -> None:
    target = torch.tensor([[0, 1, 2], [3, label, 2]])
    input = torch.randn(2, CLASSES, 3)
    with pytest.raises(LabelError, match=rf"got {label} at position \(1, 1\)") as caught:
        softmax_loss(input, target)
    assert isinstance(caught.value, IndexError)
    # The same label as ignore_index is no mistake.
    assert softmax_loss(input, target, ignore_index=label)[1, 1] == 0.0
    with pytest.raises(LabelError, match=rf"got {label} at position \(\)"):
        softmax_loss(input[0, :, 0], torch.tensor(label))


@pytest.mark.parametrize(("label", "hint"), [(CLASSES, "1-based"), (255, "ignore_index=255")])
def test_the_usual_mistakes_are_named(label: int, hint: str) -> None:
    with pytest.raises(LabelError, match=hint):
        softmax_loss(torch.randn(1, CLASSES), torch.tensor([label]))


@pytest.mark.parametrize("settings", SOFTMAX.values(), ids=SOFTMAX)
@pytest.mark.parametrize("label", [CLASSES, -1, 2**40])
def test_where_values_are_not_read_such_a_row_is_nan(settings: dict[str, Any], label: int) -> None:
    args = _softmax_args({**settings, "ignore_index": -100}, (4, CLASSES), False, torch.float64)
    args[1] = torch.tensor([0, label, 2, 3])
    bad = torch.tensor([False, True, False, False])
    loss, maximum, total = reference.softmax_loss(*args)
    assert torch.equal(loss.isnan(), bad)
    result = reference.softmax_loss_backward(torch.ones(4).double(), *args[:2], maximum, total, *args[2:])
    assert torch.equal(result.isnan(), bad.unsqueeze(1).expand_as(result))
    args[1] = torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(loss[~bad], reference.softmax_loss(*args)[0][~bad])


# ----------------------------------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("settings", SOFTMAX.values(), ids=SOFTMAX)
@pytest.mark.parametrize("poison", [torch.inf, -torch.inf, torch.nan])
def test_an_ignored_row_adds_nothing_whatever_it_holds(settings: dict[str, Any], poison: float) -> None:
    args = _softmax_args({**settings, "ignore_index": IGNORED}, (4, CLASSES), False, torch.float64)
    args[1] = torch.tensor([0, IGNORED, 1, IGNORED])
    for index, value in enumerate(args[2:6], 2):
        if value is not None:
            args[index] = value.requires_grad_()
    input = args[0].clone()
    input[1], input[3, 0] = poison, poison
    leaf = input.requires_grad_()
    leaves = [leaf, *[value for value in args[2:6] if value is not None]]
    for leaves_wanted in ([leaf], leaves):
        loss = softmax_loss(leaf, *args[1:])
        assert loss[1] == loss[3] == 0.0
        grads = torch.autograd.grad(loss, leaves_wanted, torch.randn_like(loss), allow_unused=True)
        assert bool((grads[0][[1, 3]] == 0.0).all())
        assert all(grad is None or bool(grad.isfinite().all()) for grad in grads)
    plain = [leaf, args[1], *[v.detach() if isinstance(v, Tensor) else v for v in args[2:]]]
    (kernel,) = torch.autograd.grad(softmax_loss(*plain).sum(), leaf)
    assert bool((kernel[[1, 3]] == 0.0).all())
    assert bool(kernel.isfinite().all())


@pytest.mark.parametrize("settings", SIGMOID.values(), ids=SIGMOID)
@pytest.mark.parametrize("poison", [torch.inf, -torch.inf, torch.nan])
def test_an_ignored_element_adds_nothing_whatever_it_holds(settings: dict[str, Any], poison: float) -> None:
    args = _sigmoid_args({**settings, "ignore_index": -1}, (4, CLASSES), torch.float64)
    ignored = args[1] == -1.0
    args[0][ignored] = poison
    for leaves in (_only_input(args), _leaves(args)):
        loss = sigmoid_loss(*leaves)
        assert bool((loss[ignored] == 0.0).all())
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        grads = torch.autograd.grad(loss, wanted, torch.randn_like(loss), allow_unused=True)
        assert bool((grads[0][ignored] == 0.0).all())
        assert all(grad is None or bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("soft", [False, True])
def test_a_masked_class_costs_nothing_where_no_mass_is(gamma: float, soft: bool) -> None:
    input = torch.randn(3, CLASSES, dtype=torch.float64)
    input[:, 2] = -torch.inf
    kept = [0, 1, 3, 4]
    target = torch.tensor([0, 1, 4])
    without = torch.tensor([0, 1, 3])
    if soft:
        without = torch.rand(3, 4, dtype=torch.float64).softmax(1)
        target = torch.zeros(3, CLASSES, dtype=torch.float64)
        target[:, kept] = without
    upstream = torch.rand(3, dtype=torch.float64)
    leaf, small = input.clone().requires_grad_(), input[:, kept].clone().requires_grad_()
    loss, expected = softmax_loss(leaf, target, gamma=gamma), softmax_loss(small, without, gamma=gamma)
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, leaf, upstream)
    torch.testing.assert_close(grad[:, kept], torch.autograd.grad(expected, small, upstream)[0])
    assert bool((grad[:, 2] == 0.0).all())
    # The same class taken out by an offset of −inf.
    offset = torch.zeros(CLASSES, dtype=torch.float64)
    offset[2] = -torch.inf
    unmasked = input.nan_to_num(neginf=7.0)
    torch.testing.assert_close(softmax_loss(unmasked, target, offset=offset, gamma=gamma), expected)


@pytest.mark.parametrize("settings", SOFTMAX.values(), ids=SOFTMAX)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1e4, 1e2, 30.0, 17.0])
def test_extreme_logits_give_finite_losses_and_gradients(
    settings: dict[str, Any], dtype: torch.dtype, size: float
) -> None:
    args = _softmax_args(settings, (4, CLASSES), False, dtype)
    args[1] = torch.tensor([0, 1, 2, 4])
    # Sure and right, sure and wrong, all alike, and one in a crowd.
    args[0] = torch.full((4, CLASSES), -size).to(dtype)
    args[0][0, 0], args[0][1, 2], args[0][3] = size, size, size
    for leaves in (_only_input(args), _leaves(args)):
        loss = softmax_loss(*leaves)
        assert bool(loss.isfinite().all())
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        grads = torch.autograd.grad(loss, wanted, torch.rand_like(loss), create_graph=True, materialize_grads=True)
        assert all(bool(grad.isfinite().all()) for grad in grads)
        if grads[0].requires_grad:
            (second,) = torch.autograd.grad(grads[0].sum(), leaves[0], materialize_grads=True)
            assert bool(second.isfinite().all())


@pytest.mark.parametrize("settings", SIGMOID.values(), ids=SIGMOID)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_extreme_elements_give_finite_losses_and_gradients(settings: dict[str, Any], dtype: torch.dtype) -> None:
    logits = torch.tensor([-1e4, -100.0, -30.0, -3.0, 0.0, 3.0, 17.0, 30.0, 100.0, 1e4]).to(dtype)
    args = _sigmoid_args(settings, (2, 10), dtype)
    args[0] = logits.expand(2, 10).clone()
    args[1] = torch.tensor([[0.0], [1.0]]).expand(2, 10).to(dtype)
    for leaves in (_only_input(args), _leaves(args)):
        loss = sigmoid_loss(*leaves)
        assert bool(loss.isfinite().all())
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        grads = torch.autograd.grad(loss, wanted, torch.rand_like(loss), create_graph=True, materialize_grads=True)
        assert all(bool(grad.isfinite().all()) for grad in grads)
        (second,) = torch.autograd.grad(grads[0].sum(), leaves[0], materialize_grads=True)
        assert bool(second.isfinite().all())


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_focusing_on_saturated_rows_gives_finite_gradients(gamma: float, dtype: torch.dtype) -> None:
    # s of 1 to the last bit, and of one bit less: (1 − s)^(γ−1) is infinite or next to it.
    input = torch.tensor([[0.0, -1e4], [0.0, -40.0], [0.0, -16.5], [0.0, -15.0], [-1e4, 0.0]], dtype=dtype)
    target = torch.zeros(5, dtype=torch.long)
    leaf = input.requires_grad_()
    loss = softmax_loss(leaf, target, gamma=gamma)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    assert bool(loss.isfinite().all())
    assert bool(grad.isfinite().all())
    assert loss[0] == 0.0
    torch.testing.assert_close(loss[4], torch.tensor(1e4, dtype=dtype))
    through = reference.softmax_loss(leaf, target, gamma=gamma)[0]
    torch.testing.assert_close(grad, torch.autograd.grad(through.sum(), leaf)[0])
    soft = torch.nn.functional.one_hot(target, 2).to(dtype)
    spread = softmax_loss(leaf, soft, gamma=gamma)
    torch.testing.assert_close(spread, loss)
    torch.testing.assert_close(torch.autograd.grad(spread.sum(), leaf)[0], grad)


@pytest.mark.parametrize("soft", [False, True])
def test_smoothing_by_target_weighs_a_row_as_its_own_class(soft: bool) -> None:
    args = _softmax_args(SOFTMAX["smoothing by target"], (4, CLASSES), soft, torch.float64)
    input, target, weight = args[:3]
    plain = torch.nn.functional.cross_entropy(input, target, reduction="none", label_smoothing=0.1)
    own = target @ weight if soft else weight[target]  # before smoothing
    torch.testing.assert_close(softmax_loss(*args), own * plain)


# --------------------------------------------------------------------------------------------------------- dispatch


def test_what_kernels_know_goes_to_the_operator_and_the_rest_to_the_reference() -> None:
    calls: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "steelyard":
                calls.append(func._opname)
            return func(*args, **(kwargs or {}))

    args = _softmax_args(SOFTMAX["weight"], (4, CLASSES), False, torch.float32)
    with Watch():
        leaf, *rest = _only_input(args)
        softmax_loss(leaf, *rest).sum().backward()
    assert calls == ["softmax_loss", "softmax_loss_backward"]
    calls.clear()
    with Watch():
        softmax_loss(*args)
    assert calls == ["softmax_loss"]
    calls.clear()
    with Watch():
        leaves = _leaves(args)
        softmax_loss(*leaves).sum().backward()
    assert calls == []
    assert leaves[2].grad is not None


def test_backward_of_an_input_that_is_narrow_rounds_once() -> None:
    args = _softmax_args(SOFTMAX["everything"], (64, CLASSES), False, torch.bfloat16)
    leaf, *rest = _only_input(args)
    upstream = torch.randn(64, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(softmax_loss(leaf, *rest), leaf, upstream)
    wide = args[0].float().requires_grad_()
    (exact,) = torch.autograd.grad(softmax_loss(wide, *rest), wide, upstream)
    assert torch.equal(grad, exact.bfloat16())


# --------------------------------------------------------------------------------------------------------- importing


@pytest.mark.parametrize("module", ["steelyard", "steelyard.ops", "steelyard.functional", "steelyard.nn"])
def test_importing_loads_torch_and_numpy_only(module: str) -> None:
    code = f"import torch, numpy, sys, json; before = set(sys.modules); import {module}; " \
        "print(json.dumps([sorted(set(sys.modules) - before), sorted(sys.modules)]))"  # fmt: skip
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    new, everything = json.loads(result.stdout)
    unwanted = {"polars", "pandas", "sklearn", "rich", "typer", "matplotlib", "jinja2", "pyarrow", "narwhals", "scipy"}
    assert not unwanted & set(everything)
    ours = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names)
    assert ours <= {"steelyard", "torch", "numpy"}
    assert not any(name.startswith(("torch._inductor", "triton", "torch._dynamo")) for name in new), "no compiler"
