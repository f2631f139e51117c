"""Every loss under what PyTorch does to functions: compile, func, autocast; and whatever inputs look like in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from loss_examples import example, examples
from torch import Tensor

from steelyard import functional
from steelyard.ops import cpu
from steelyard.registry import LOSSES

ALL = examples()
INDEXED = [case for case in ALL if case.values[1] == "indices"]
EXACT = {"rtol": 0, "atol": 0}
IDS = {"ids": lambda entry: entry.name}

pytestmark = [
    # PyTorch's forward mode compiles its own decompositions with what it deprecates, and so does its compiler.
    pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning"),
]


def _upstream(out: Tensor) -> Tensor:
    return torch.linspace(0.5, 1.5, max(out.numel(), 1), dtype=out.dtype)[: out.numel()].reshape(out.shape)


def _run(function: Any, input: Tensor) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = function(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, _upstream(out))[0]


# ------------------------------------------------------------------------------------------------------ torch.compile


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(("entry", "targets", "rich"), ALL)
def test_compiles_to_one_graph_and_equals_eager(entry: Any, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich)
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda input, *rest: case_of(input, rest), backend=graphs, fullgraph=True)

    def case_of(input: Tensor, rest: tuple[Any, ...]) -> Tensor:
        return case.entry.function(input, *rest, **case.options)

    for seed in (0, 1):  # other numbers of the same shapes: no second graph
        again = example(entry, targets, rich=rich, seed=seed)
        expected = _run(lambda input, again=again: case_of(input, again.rest), again.input)
        actual = _run(lambda input, again=again: compiled(input, *again.rest), again.input)
        torch.testing.assert_close(actual, expected)
    assert graphs.frame_count == 1


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_modules_compile_to_one_graph_and_equal_eager(entry: Any) -> None:
    case = example(entry, entry.targets[0], rich=True)
    module = case.module()
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, backend=graphs, fullgraph=True)
    torch.testing.assert_close(
        _run(lambda input: compiled(input, case.target), case.input),
        _run(lambda input: module(input, case.target), case.input),
    )
    assert graphs.frame_count == 1


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_one_graph_for_all_batch_sizes(entry: Any) -> None:
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(entry.function, backend=graphs, fullgraph=True, dynamic=True)
    counts = []
    for rows in (6, 9, 14):
        case = example(entry, entry.targets[0], rows=rows)
        actual = _run(lambda input, case=case: compiled(input, *case.rest), case.input)
        torch.testing.assert_close(actual, _run(case, case.input))
        counts.append(graphs.frame_count)
    assert counts == counts[:1] * 3


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("name", ["cross_entropy", "asymmetric_loss"])
def test_inductor_equals_eager(name: str) -> None:
    entry = LOSSES[name]
    case = example(entry, entry.targets[0], rich=True)
    compiled = torch.compile(lambda input: case(input) * 2.0, fullgraph=True)
    torch.testing.assert_close(_run(compiled, case.input), _run(lambda input: case(input) * 2.0, case.input))


# --------------------------------------------------------------------------------------------------------- torch.func


@pytest.mark.parametrize(("entry", "targets", "rich"), ALL)
def test_func_grad_and_jvp_equal_autograd(entry: Any, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(case, case.input)
    torch.testing.assert_close(torch.func.jacrev(case)(case.input), expected)
    torch.testing.assert_close(torch.func.jacfwd(case)(case.input), expected)

    def total(input: Tensor) -> Tensor:
        return case(input).sum()

    torch.testing.assert_close(
        torch.func.grad(total)(case.input), torch.autograd.functional.jacobian(total, case.input)
    )


@pytest.mark.parametrize(("entry", "targets", "rich"), ALL)
def test_func_hessian_equals_autograd(entry: Any, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich, dtype=torch.float64, rows=2)
    expected = torch.autograd.functional.hessian(lambda input: case(input).sum(), case.input)
    torch.testing.assert_close(torch.func.hessian(lambda input: case(input).sum())(case.input), expected)


@pytest.mark.parametrize(("entry", "targets", "rich"), ALL)
def test_gradients_of_each_sample(entry: Any, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich, dtype=torch.float64)
    options = {**case.options, "reduction": "sum"}

    def one(input: Tensor, target: Tensor) -> Tensor:
        return case.with_target(target).entry.function(input, *case.with_target(target).rest, **options)

    together = torch.autograd.grad(case(case.input.requires_grad_(), reduction="sum"), case.input)[0]
    each = torch.func.vmap(torch.func.grad(one))(case.input.detach(), case.target)
    torch.testing.assert_close(each, together)


@pytest.mark.parametrize("shape", [(), (2,)], ids=str)
@pytest.mark.parametrize("entry", [entry for entry in LOSSES.values() if entry.targets == ("elements",)], **IDS)
def test_tangents_keep_the_dtype(entry: Any, shape: tuple[int, ...]) -> None:
    # PyTorch's own torch.func.jvp makes the float32 tangent of a 0-d tensor times a Python number float64.
    input, target = torch.rand(shape), torch.rand(shape)
    for reduction in ("none", "mean", "sum"):
        out, tangent = torch.func.jvp(
            lambda input, reduction=reduction: entry.function(input, target, reduction=reduction), (input,), (input,)
        )
        assert (out.dtype, tangent.dtype) == (torch.float32, torch.float32)


def test_func_transforms_find_labels_out_of_range() -> None:
    # They cannot look at values: NaN, never a plausible number.
    input, target = torch.randn(3, 4), torch.tensor([0, 4, 1])
    out = torch.func.vmap(functional.cross_entropy)(input, target)
    assert out.isnan().tolist() == [False, True, False]


# ----------------------------------------------------------------------------------------------------------- autocast


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_autocast_gives_float32(entry: Any, rich: bool) -> None:
    case = example(entry, entry.targets[0], rich=rich, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = _run(case, case.input)
        if entry.torch and entry.torch != "binary_cross_entropy":  # PyTorch refuses that one under autocast
            theirs = getattr(torch.nn.functional, entry.torch)
            assert theirs(case.input, *case.rest).dtype == value.dtype
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    wide = example(entry, entry.targets[0], rich=rich, dtype=torch.bfloat16)
    if entry.input != "features":  # whose logits are bfloat16 under autocast
        torch.testing.assert_close(value, wide(wide.input.float()), rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------- dtypes, memory, no rows


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8], ids=str)
@pytest.mark.parametrize(("entry", "targets", "rich"), INDEXED)
def test_labels_of_any_integer_dtype(entry: Any, targets: str, rich: bool, dtype: torch.dtype) -> None:
    case = example(entry, targets, rich=rich)
    expected = case.gradient()
    if dtype == torch.uint8 and not rich:  # −100, the default, is no uint8: nothing is ignored, nothing wraps
        case.target[0] = 3
        case.input[0] = 0.0
        expected = case.gradient()
    torch.testing.assert_close(case.with_target(case.target.to(dtype)).gradient(), expected, **EXACT)


def test_a_uint8_label_is_not_taken_for_a_negative_ignore_index() -> None:
    # −100 as a byte is 156: a label of class 156 must count.
    input, target = torch.randn(2, 200), torch.tensor([156, 3])
    expected = torch.nn.functional.cross_entropy(input, target)
    torch.testing.assert_close(functional.cross_entropy(input, target.to(torch.uint8)), expected)
    torch.testing.assert_close(functional.nll_loss(input.log_softmax(1), target.to(torch.uint8)), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64], ids=str)
@pytest.mark.parametrize("entry", [entry for entry in LOSSES.values() if entry.targets == ("elements",)], **IDS)
def test_element_targets_of_any_dtype(entry: Any, dtype: torch.dtype) -> None:
    case = example(entry, "elements", rich=True)
    case = case.with_target((case.target > 0.5).float())
    torch.testing.assert_close(case.with_target(case.target.to(dtype)).gradient(), case.gradient(), **EXACT)


@pytest.mark.parametrize("kind", ["float64", "integers", "list"])
@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_weights_of_any_kind(entry: Any, kind: str) -> None:
    case = example(entry, entry.targets[0])
    plain = torch.tensor([1.0, 2.0, 3.0, 5.0])
    given = {"float64": plain.double(), "integers": plain.long(), "list": plain.tolist()}[kind]
    names = ["weight"] + ["pos_weight"] * (entry.formula == "sigmoid")
    expected = case.gradient(**dict.fromkeys(names, plain))
    torch.testing.assert_close(case.gradient(**dict.fromkeys(names, given)), expected, **EXACT)


def _strided(tensor: Tensor, how: str) -> Tensor:
    if how == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "channels last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if how == "every other":
        return torch.stack([tensor, torch.zeros_like(tensor)], -1).flatten(-2)[..., ::2] if tensor.dim() else tensor
    if how == "expanded":
        return tensor[:1].expand(tensor.shape)
    return tensor


@pytest.mark.parametrize("how", ["transposed", "channels last", "every other", "expanded"])
@pytest.mark.parametrize(("entry", "targets", "rich"), ALL)
def test_strides_change_no_number(entry: Any, targets: str, rich: bool, how: str) -> None:
    trailing = () if entry.input == "features" else (3, 5)
    case = example(entry, targets, rich=rich, trailing=trailing)
    input, target = _strided(case.input, how), _strided(case.target, how)
    if how == "every other":
        assert not input.is_contiguous()
    flat = case.with_target(target.contiguous())
    expected = _run(flat, input.contiguous())
    strided = case.with_target(target)
    leaf = input.detach().requires_grad_()
    out = strided(leaf)
    grad = torch.autograd.grad(out, leaf, _upstream(out))[0]
    torch.testing.assert_close((out.detach(), grad), expected)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("entry", "targets", "rich"), ALL)
def test_no_rows(entry: Any, targets: str, rich: bool, reduction: str) -> None:
    case = example(entry, targets, rich=rich, rows=0)
    value, gradient = _run(lambda input: case(input, reduction=reduction), case.input)
    assert gradient.shape == case.input.shape
    if reduction == "none":
        assert value.numel() == 0
    elif reduction == "sum":
        assert value.item() == 0.0
    else:
        assert value.isnan()
        zero = case(case.input.requires_grad_(), reduction="mean", empty="zero")
        assert zero.item() == 0.0
        assert torch.autograd.grad(zero, case.input)[0].shape == case.input.shape
        with pytest.raises(ValueError, match="empty='zero'"):
            case(reduction="mean", empty="raise")


@pytest.mark.parametrize(("entry", "targets", "rich"), ALL)
def test_nothing_of_the_callers_is_written_to(entry: Any, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich)
    rows = torch.rand(6)
    extra = {"sample_weight": rows} if entry.formula == "softmax" else {}
    held = [case.input, *case.rest, *case.options.values(), rows]
    tensors = [value for value in held if isinstance(value, Tensor)]
    before = [(tensor.clone(), tensor._version) for tensor in tensors]
    leaf = case.input.requires_grad_()
    out = case(leaf, reduction="none", **extra)
    grad = _upstream(out)
    kept = grad.clone()
    out.backward(grad, retain_graph=True)
    first = leaf.grad.clone()
    leaf.grad = None
    out.backward(grad)
    torch.testing.assert_close(leaf.grad, first, **EXACT)
    assert torch.equal(grad, kept)
    for tensor, (copy, version) in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor._version == version


# -------------------------------------------------------------------------------------------- bits and threads

# A segmentation map; many rows of few classes, past the size that PyTorch sums on one thread; a long vector; and one
# row that is too long for one thread by itself.
SHAPES = [(4, 21, 64, 64), (70000, 10), (65536,), (2, 50000)]


def _large(shape: tuple[int, ...]) -> Iterator[tuple[str, Any, tuple[Any, ...], dict[str, Any]]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    elements = torch.rand(shape, generator=generator)
    dim = 0 if len(shape) == 1 else 1
    target = torch.randint(shape[dim], shape[:dim] + shape[dim + 1 :], generator=generator)
    weight = torch.rand(shape[dim], generator=generator) + 0.1
    soft = torch.randn(shape, generator=generator).softmax(dim)
    yield "indices", functional.cross_entropy, (logits, target, weight), {}
    yield "smoothed", functional.cross_entropy, (logits, target, weight), {"label_smoothing": 0.1}
    yield "soft", functional.cross_entropy, (logits, soft, weight), {}
    yield "focal", functional.focal_loss, (logits, target, weight), {}
    yield "nll", functional.nll_loss, (logits.log_softmax(dim), target, weight), {}
    yield "bce", functional.binary_cross_entropy_with_logits, (logits, elements), {"pos_weight": 3.0}
    yield "sigmoid focal", functional.sigmoid_focal_loss, (logits, elements), {}
    yield "probabilities", functional.binary_cross_entropy, (logits.sigmoid(), elements), {}


LARGE = [
    pytest.param(shape, number, id=f"{'x'.join(map(str, shape))}-{name}")
    for shape in SHAPES
    for number, (name, *_) in enumerate(_large((2, 3)))
]


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _bits(function: Any, args: tuple[Any, ...], options: dict[str, Any], threads: int) -> list[Tensor]:
    torch.set_num_threads(threads)
    bits = []
    for settings in ({"reduction": "sum"}, {"reduction": "mean"}, {"reduction": "mean", "denominator": "weights"}):
        leaf = args[0].clone().requires_grad_()
        out = function(leaf, *args[1:], **options, **settings)
        out.backward(torch.tensor(1.37))
        bits += [out.detach(), leaf.grad]
    return bits


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(("shape", "number"), LARGE)
def test_the_same_bits_for_any_number_of_threads(shape: tuple[int, ...], number: int) -> None:
    name, function, args, options = list(_large(shape))[number]
    if not cpu.ready() and name not in ("nll", "probabilities"):
        pytest.skip("the reference has sums and powers of PyTorch, which rounds some of them by its threads")
    one = _bits(function, args, options, 1)
    for threads in (2, 2, 3, 1):
        assert all(torch.equal(a, b) for a, b in zip(one, _bits(function, args, options, threads), strict=True))
