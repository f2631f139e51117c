"""The CPU kernels compute what the reference defines: every term with every other, any memory, inf and NaN."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    DTYPES,
    LAYOUTS,
    OPS,
    Elements,
    Rows,
    bits,
    each_kernel,
    laid_out,
    random_elements,
    random_rows,
)
from torch import Tensor

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16

# A result is far from wrong within these; how near it must be is for test_kernel_accuracy.
NEAR = {F64: (1e-11, 1e-12), F32: (3e-5, 3e-6), BF16: (2**-8, 3e-6), F16: (2**-11, 3e-6)}


def _assert_near(case: Rows | Elements, exact: tuple[Tensor, Tensor], what: str = "") -> None:
    dtype = case.input.dtype
    accumulation = F64 if dtype == F64 else F32
    for title, found, value, kind in zip(
        ("loss", "gradient"), case.operator(), exact, (accumulation, dtype), strict=True
    ):
        assert found.dtype == kind
        rtol, atol = NEAR[kind]
        if kind != accumulation:  # the reference's float64 has values that float16 cannot hold
            rtol, atol = rtol * 1.01, atol + torch.finfo(kind).smallest_normal
        torch.testing.assert_close(
            found.double(), value, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text, t=title: f"{t} {what}: {text}"
        )


# ----------------------------------------------------------------------------------- every term with every other

ROW_TARGETS = ["indices", "ignored", "soft", "soft64", "soft32", "soft16"]


@functools.cache
def _all_rows(target: str, gamma: float, dtype: torch.dtype) -> list[tuple[str, Rows, tuple[Tensor, Tensor]]]:
    found = []
    for number, (weight, row_weight, offset, margin, smoothing, by_target) in enumerate(
        itertools.product(
            ((), ("weight",)), ((), ("row_weight",)), ((), ("offset",), ("masked",)), ((), ("margin",)),
            (0.0, 0.1, 1.0), (False, True),
        )
    ):  # fmt: skip
        drawn = weight + row_weight + offset + margin
        if target.startswith("soft") and margin:
            continue
        case = random_rows(
            (4, 5), dtype, seed=number, target=target, given=drawn, gamma=gamma, smoothing=smoothing,
            smooth_by_target=by_target,
        )  # fmt: skip
        found.append((f"with {drawn}, smoothing {smoothing}, by target {by_target}", case, case.wide().reference()))
    return found


@each_kernel
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("target", ROW_TARGETS)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_rows_with_every_term_in_every_combination(dtype: torch.dtype, target: str, gamma: float) -> None:
    for what, case, exact in _all_rows(target, gamma, dtype):
        _assert_near(case, exact, what)


HOW = [None, "scalar", "one", "last", "rows", "full", "axis 1", "expanded", "every other"]
ELEMENT_TARGETS = ["soft", "soft64", "soft32", "binary", "bool", "uint8", "int8", "int16", "int32", "int64"]


@functools.cache
def _all_elements(target: str, dtype: torch.dtype) -> list[tuple[str, Elements, tuple[Tensor, Tensor]]]:
    found = []
    for number, ((weight, pos_weight), gammas, neg_weight, clip, ignored) in enumerate(
        itertools.product(
            [*zip(HOW, HOW[3:] + HOW[:3], strict=True), (None, None)],
            ((0.0, 0.0), (0.5, 0.0), (0.0, 2.5), (1.0, 4.0), (2.0, 2.0)), (1.0, 0.3), (0.0, 0.05), (None, -1),
        )
    ):  # fmt: skip
        if ignored is not None and target in ("bool", "uint8"):
            continue
        case = random_elements(
            [(4, 5), (2, 3, 4, 5)][number % 2], dtype, seed=number, target=target, weight=weight, pos_weight=pos_weight,
            gamma_pos=gammas[0], gamma_neg=gammas[1], neg_weight=neg_weight, clip=clip, ignore_index=ignored,
        )  # fmt: skip
        what = f"with weight {weight}, pos_weight {pos_weight}, gammas {gammas}, {neg_weight}, clip {clip}, {ignored}"
        found.append((what, case, case.wide().reference()))
    return found


@each_kernel
@pytest.mark.parametrize("target", ELEMENT_TARGETS)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_elements_with_every_term_in_every_combination(dtype: torch.dtype, target: str) -> None:
    for what, case, exact in _all_elements(target, dtype):
        _assert_near(case, exact, what)


# ---------------------------------------------------------------------------------- any shape, dtype, place in memory

example_settings = settings(
    derandomize=True, deadline=None, max_examples=150, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the kernel stays the same for all examples
)  # fmt: skip


@st.composite
def any_rows(draw: st.DrawFn) -> Rows:
    rest = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    shape = (draw(st.sampled_from([0, 1, 2, 3, 17])), draw(st.integers(1, 20)), *rest)
    if draw(st.booleans()) and not rest:
        shape = shape[1:]
    target = draw(st.sampled_from(ROW_TARGETS))
    names = ["weight", "row_weight", draw(st.sampled_from(["offset", "masked"]))]
    names += ["margin"] * (not target.startswith("soft"))
    case = random_rows(
        shape,
        draw(st.sampled_from(DTYPES)),
        seed=draw(st.integers(0, 1000)),
        target=target,
        given=tuple(draw(st.sets(st.sampled_from(names)))),
        gamma=draw(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 3.7])),
        smoothing=draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])),
        smooth_by_target=draw(st.booleans()),
    )
    return _spread_out(draw, case)


@st.composite
def any_elements(draw: st.DrawFn) -> Elements:
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    ways = [None, "scalar", "full", "expanded"] + ["one", "last", "rows", "every other"] * bool(shape)
    ignored = draw(st.sampled_from([None, -1]))
    case = random_elements(
        shape,
        draw(st.sampled_from(DTYPES)),
        seed=draw(st.integers(0, 1000)),
        target=draw(st.sampled_from([t for t in ELEMENT_TARGETS if ignored is None or t not in ("bool", "uint8")])),
        weight=draw(st.sampled_from(ways)),
        pos_weight=draw(st.sampled_from(ways)),
        gamma_pos=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        gamma_neg=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0])),
        neg_weight=draw(st.sampled_from([1.0, 0.3])),
        clip=draw(st.sampled_from([0.0, 0.05])),
        ignore_index=ignored,
    )
    return _spread_out(draw, case)


def _spread_out(draw: st.DrawFn, case: Any) -> Any:
    """Each tensor somewhere else in memory. What is expanded is another tensor, of the same values everywhere."""
    tensors = {name: value for name, value in vars(case).items() if isinstance(value, Tensor)}
    return replace(case, **{name: laid_out(value, draw(st.sampled_from(LAYOUTS))) for name, value in tensors.items()})


@each_kernel
@example_settings
@given(case=any_rows())
def test_rows_of_any_shape_dtype_and_memory(case: Rows) -> None:
    _assert_near(case, case.wide().reference())
    assert case.operator()[1].stride() == torch.empty_like(case.input).stride()


@each_kernel
@example_settings
@given(case=any_elements())
def test_elements_of_any_shape_dtype_and_memory(case: Elements) -> None:
    _assert_near(case, case.wide().reference())
    for found in case.operator():
        assert found.stride() == torch.empty_like(case.input).stride()


SHAPES = [(70, 10), (3, 1000), (3, 21, 9, 7), (2, 6, 300), (5000, 4), (33,)]


@each_kernel
@pytest.mark.parametrize("how", LAYOUTS[1:])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_memory_changes_no_number_and_nothing_of_the_callers_changes(
    dtype: torch.dtype, shape: tuple[int, ...], how: str
) -> None:
    given = ("weight", "row_weight", "offset")
    for case in (
        random_rows(shape, dtype, target="ignored", given=given, smoothing=0.1),
        random_rows(shape, dtype, target="soft", given=given, gamma=2.0),
        random_elements(shape, dtype, weight="full", pos_weight="last", ignore_index=-1, gamma_neg=1.0),
    ):
        tensors = {name: laid_out(value, how) for name, value in vars(case).items() if isinstance(value, Tensor)}
        before = [bits(value).clone() for value in tensors.values()]
        versions = [value._version for value in tensors.values()]
        found = replace(case, **tensors).operator()
        flat = replace(case, **{name: value.contiguous() for name, value in tensors.items()}).operator()
        # Another order of a sum may round otherwise, once.
        for ours, theirs, kind in zip(found, flat, (F32, dtype), strict=True):
            rounding = torch.finfo(kind).eps
            torch.testing.assert_close(ours, theirs, rtol=4 * rounding, atol=4e-7 if kind == F32 else 1e-6)
        assert all(torch.equal(bits(value), old) for value, old in zip(tensors.values(), before, strict=True))
        assert [value._version for value in tensors.values()] == versions


@each_kernel
def test_a_kernel_is_in_use() -> None:
    """Not the reference under its name: the two round differently somewhere among so many numbers."""
    for case in (random_rows((300, 100)), random_elements((300, 100), gamma_pos=0.5)):
        assert any(not torch.equal(a, b) for a, b in zip(case.operator(), case.reference(), strict=True))


# ------------------------------------------------------------------------------------------------- what forward saves


@each_kernel
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6), (9,), (2, 1000)], ids=str)
@pytest.mark.parametrize("target", ["indices", "soft"])
def test_maximum_and_total_give_log_softmax(target: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    case = random_rows(shape, dtype, target=target, given=("offset",), spread="shifted")
    dim = 0 if len(shape) == 1 else 1
    loss, maximum, total = OPS.softmax_loss(case.input, case.target, *case.settings)
    accumulation = F64 if dtype == F64 else F32
    assert loss.dtype == maximum.dtype == total.dtype == accumulation
    a = case.input.to(accumulation) + case.offset.reshape([-1] + [1] * (len(shape) - 1 - dim))
    found = a - maximum.unsqueeze(dim) - total.log().unsqueeze(dim)
    torch.testing.assert_close(found, a.log_softmax(dim), rtol=2e-6, atol=2e-6)
    assert torch.equal(maximum, a.amax(dim))


# ------------------------------------------------------------------------------------------------------------ extremes

POISON = [torch.inf, -torch.inf, torch.nan]


@each_kernel
@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("shape", [(40, 7), (6, 300), (4, 5, 40), (40, 1)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"smoothing": 0.1}, {"gamma": 2.0}, {"gamma": 0.5, "given": ("weight", "offset")}]
)
@pytest.mark.parametrize("dtype", [F32, BF16, F64], ids=str)
def test_inf_and_nan_in_rows_do_what_they_do_to_the_reference(
    dtype: torch.dtype, options: dict[str, Any], shape: tuple[int, ...], poison: float
) -> None:
    for target in ("ignored", "soft"):
        case = random_rows(shape, dtype, target=target, **options)
        places = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 1 / shape[1]
        case.input[places] = poison
        case.input[0] = poison  # a whole row of it, too
        for only_finite in (False, True):
            if only_finite and target == "ignored":
                case = replace(
                    case, target=case.target.masked_fill(places.any(1), -100).index_fill(0, torch.tensor(0), -100)
                )
            _assert_near(case, case.wide().reference())
        if target == "ignored":
            loss, grad = case.operator()
            out = case.target == -100
            assert bool((loss[out] == 0).all())
            assert bool((grad.movedim(1, -1)[out] == 0).all())
            assert bool(grad.isfinite().all())


@each_kernel
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gamma_pos": 2.0, "gamma_neg": 2.0},
        {"gamma_pos": 0.5, "gamma_neg": 0.5},
        {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05},
        {"weight": "last", "pos_weight": "last"},
    ],
)
@pytest.mark.parametrize("dtype", [F32, BF16, F64], ids=str)
def test_inf_and_nan_in_elements_do_what_they_do_to_the_reference(dtype: torch.dtype, options: dict[str, Any]) -> None:
    for target in ("soft", "binary"):
        case = random_elements((40, 30), dtype, target=target, ignore_index=-1, **options)
        places = torch.rand(40, 30, generator=torch.Generator().manual_seed(1))
        for number, poison in enumerate(POISON):
            case.input[(places * 10).int() == number] = poison
        _assert_near(case, case.wide().reference())
        loss, grad = case.operator()
        out = case.target == -1
        assert bool((loss[out] == 0).all())
        assert bool((grad[out] == 0).all())


@each_kernel
@pytest.mark.parametrize("size", [1e4, 104.0, 88.0, 30.0, 17.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sure_rows_and_elements_give_what_the_reference_gives(dtype: torch.dtype, gamma: float, size: float) -> None:
    """Where exp is 0 or subnormal, where 1 − s has rounded to 0, and next to both."""
    z = torch.full((4, 9), -size, dtype=F64)
    z[0, 0], z[1, 2], z[2] = size, size, torch.linspace(-size, size, 9)
    z = z.to(dtype)
    accumulation = F64 if dtype == F64 else F32
    rows = random_rows((4, 9), dtype, gamma=gamma)
    for target in (torch.zeros(4, dtype=torch.long), torch.eye(9)[:4].to(dtype), torch.full((4, 9), 1 / 9).to(dtype)):
        case = replace(rows, input=z, target=target)
        wider = replace(case, input=z.to(accumulation))
        # In the kernel's own precision: sureness that float32 cannot hold has no loss there.
        _assert_near(case, tuple(value.double() for value in wider.reference()))
    elements = random_elements((4, 9), dtype, target="binary", gamma_pos=gamma, gamma_neg=gamma)
    wider = replace(elements, input=z.to(accumulation))
    _assert_near(replace(elements, input=z), tuple(value.double() for value in wider.reference()))


# ------------------------------------------------------------------------------------------------ PyTorch's own checks

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@each_kernel
@pytest.mark.parametrize("how", LAYOUTS)
@pytest.mark.parametrize("kind", [torch.uint8, torch.int32], ids=str)
@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3)], ids=str)
def test_opcheck_with_strides_and_narrow_targets(shape: tuple[int, ...], kind: torch.dtype, how: str) -> None:
    rows = random_rows(shape, given=("weight", "row_weight"), smoothing=0.1)
    elements = random_elements(shape, target="binary", weight="full", pos_weight="last")
    checks = CHECKS if how == "transposed" else CHECKS[:3]
    for case, name in ((rows, "softmax"), (elements, "sigmoid")):
        tensors = {field: laid_out(value, how) for field, value in vars(case).items() if isinstance(value, Tensor)}
        case = replace(case, **{**tensors, "target": laid_out(case.target.to(kind), how)})
        forward, backward = getattr(OPS, f"{name}_loss").default, getattr(OPS, f"{name}_loss_backward").default
        leaf = case.input.detach().requires_grad_()
        torch.library.opcheck(forward, [leaf, case.target, *case.settings], test_utils=checks)
        saved = forward(case.input, case.target, *case.settings)[1:] if name == "softmax" else ()
        given = [case.upstream, case.input, case.target, *saved, *case.settings]
        torch.library.opcheck(backward, given, test_utils=CHECKS[:3])
