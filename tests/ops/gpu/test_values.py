"""Both formulas on a GPU equal the reference: settings, layouts, shapes of the grid, extremes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gpu_cases import DEVICE, DTYPES, GRIDS, NEEDS_GPU, at, both, operator, sums
from kernel_cases import LAYOUTS, Elements, Rows, laid_out, random_elements, random_rows
from torch import Tensor

from steelyard.ops import gpu, reference
from steelyard.ops.gpu import _launch, softmax_launch

# One class, two, off any vector width, past a power of two; dense prediction, whose rows lie side by side.
SHAPES = [(3, 2), (5, 257), (4, 21, 9, 7)]
CPU = torch.device("cpu")
# As small as each shape of the grid can be seen in: the interpreter takes a millisecond for a tile.
SMALL = [(1, 1), (3, 13), (2, 5, 3, 2), (6,), (1, 9, 33)]
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything for labels": {"given": ("weight", "row_weight", "offset", "margin"), "smoothing": 0.1, "gamma": 2.0},
    "weights and shifts": {"given": ("weight", "row_weight", "offset", "margin")},
    "smoothed by class": {"given": ("weight",), "smoothing": 0.1},
    "smoothed by target": {"given": ("weight",), "smoothing": 0.3, "smooth_by_target": True},
    "all mass smoothed": {"smoothing": 1.0},
    "soft": {"given": ("weight", "row_weight", "offset"), "target": "soft"},
    "soft by target, gamma": {"given": ("weight",), "target": "soft", "smoothing": 0.2, "smooth_by_target": True,
                              "gamma": 1.5},
    "gamma ½": {"gamma": 0.5},
    "gamma 1": {"gamma": 1.0, "given": ("weight",)},
    "gamma 3 smoothed": {"gamma": 3.0, "smoothing": 0.1},
    "ignored": {"target": "ignored", "given": ("weight",)},
    "masked": {"given": ("masked", "weight")},
}  # fmt: skip
ELEMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"weight": "full", "pos_weight": "last", "neg_weight": 0.7},
    "integers": {"target": "uint8", "pos_weight": "scalar"},
    "bools": {"target": "bool", "weight": "rows"},
    "ignored": {"target": "binary", "ignore_index": -1, "pos_weight": "last"},
    "ignored integers": {"target": "int64", "ignore_index": 255, "gamma_neg": 1.0},
    "focal": {"gamma_pos": 2.0, "gamma_neg": 2.0, "neg_weight": 0.75, "target": "binary"},
    "asymmetric": {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05, "target": "binary"},
    "clip alone": {"clip": 0.2},
}


def _close(pairs: list[tuple[Tensor, Tensor]], dtype: torch.dtype = torch.float32) -> None:
    """test_accuracy.py judges digits; this one that every element is the right one."""
    for ours, theirs in pairs:
        half = ours.dtype != torch.float32
        bound = {torch.bfloat16: 1e-2, torch.float16: 2e-3}[ours.dtype] if half else 1e-5
        torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound if half else 1e-5, equal_nan=True)


def _all_ways(case: Rows) -> None:
    """Loss and gradient in two kernels, and in one."""
    _close(both(case))
    loss, grad = sums(case, 0.7)
    every = replace(case, upstream=torch.full_like(case.upstream, 0.7)).reference()
    _close([(loss.float().cpu(), every[0].double().sum().float().cpu()), (grad.cpu(), every[1].cpu())])


@pytest.mark.parametrize("grid", list(GRIDS.values())[1:], ids=list(GRIDS)[1:], indirect=True)
@pytest.mark.parametrize("name", SETTINGS)
def test_rows_in_each_shape_of_the_grid(name: str, grid: None) -> None:
    for shape in SMALL:
        if len(shape) > 1 or name != "ignored":
            _all_ways(at(random_rows(shape, **SETTINGS[name])))


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_in_the_shape_of_the_grid_that_is_chosen(name: str) -> None:
    for shape in SHAPES:
        _all_ways(at(random_rows(shape, **SETTINGS[name])))


@pytest.mark.parametrize("grid", [GRIDS["one row a program"]], ids=["one row"], indirect=True)
@pytest.mark.parametrize("name", ["weights and shifts", "soft by target, gamma"])
def test_one_row_a_program(name: str, grid: None) -> None:
    _all_ways(at(random_rows((3, 13), **SETTINGS[name])))


@pytest.mark.parametrize("processors", [1, 3])
def test_a_program_that_walks_over_several_blocks(processors: int) -> None:
    with _launch.limits(**{**GRIDS["tiles of long rows"], "processors": processors}):
        _all_ways(at(random_rows((5, 37), given=("weight",), smoothing=0.1)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_rows_in_each_dtype(name: str, dtype: torch.dtype) -> None:
    case = at(random_rows((7, 13), dtype, **SETTINGS[name]))
    pairs = both(case)
    assert (pairs[0][0].dtype, pairs[1][0].dtype) == (torch.float32, dtype)
    _close(pairs)


def test_a_long_tail() -> None:
    _close(both(at(random_rows((2, 8142), given=("weight",), smoothing=0.1))))


def _relaid(case: Any, how: str) -> Any:
    """Logits, and targets of their shape, in other places of memory; labels and weights of rows too."""
    changed = {name: laid_out(value, how) for name, value in vars(case).items() if isinstance(value, Tensor)}
    return replace(case, **changed)


@pytest.mark.parametrize("grid", [{}, GRIDS["tiles of long rows"]], ids=["as chosen", "long"], indirect=True)
@pytest.mark.parametrize("how", LAYOUTS)
@pytest.mark.parametrize("target", ["indices", "soft"])
def test_rows_in_other_places_of_memory(target: str, how: str, grid: None) -> None:
    for shape in [(5, 7), (3, 6, 4, 2)]:
        _close(both(_relaid(at(random_rows(shape, target=target, given=("weight", "row_weight"))), how)))


@pytest.mark.parametrize("how", LAYOUTS)
def test_elements_in_other_places_of_memory(how: str) -> None:
    for shape in [(5, 7), (3, 6, 4, 2)]:
        _close(both(_relaid(at(random_elements(shape, weight="full", pos_weight="last")), how)))


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("size", [16, 2048])
def test_elements(name: str, size: int) -> None:
    with _launch.limits(elements=size):
        for shape in [(1,), (1, 1), (7, 13), (4, 5, 3, 2)]:
            case = at(random_elements(shape, **ELEMENTS[name]))
            _close(both(case))
            loss, grad = sums(case, 0.7)
            every = replace(case, upstream=torch.full_like(case.upstream, 0.7)).reference()
            _close([(loss.float().cpu(), every[0].double().sum().float().cpu()), (grad.cpu(), every[1].cpu())])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_elements_in_each_dtype(dtype: torch.dtype) -> None:
    for settings in ELEMENTS.values():
        _close(both(at(random_elements((6, 9), dtype, **settings))))


def test_strides_of_every_alignment() -> None:
    """What the compiler is told that strides are multiples of is so: rows wider apart, classes, neighbours."""
    for classes in (4, 6, 8, 16, 24, 48):
        for apart in (classes, classes + 1, classes + 4, 2 * classes):
            case = at(random_rows((5, classes), given=("weight",)))
            wide = torch.zeros(5, apart, device=DEVICE)
            wide[:, :classes] = case.input
            _all_ways(replace(case, input=wide[:, :classes]))
        beside = at(random_rows((1, classes, 8), given=("weight",)))
        for apart in (8, 9, 12):
            wide = torch.zeros(1, classes, apart, device=DEVICE)
            wide[..., :8] = beside.input
            _all_ways(replace(beside, input=wide[..., :8]))
    for inner in (4, 8, 15, 16, 40):
        _all_ways(at(random_rows((3, 5, inner), smoothing=0.1)))
        soft = at(random_rows((3, 5, inner), target="soft"))
        _all_ways(replace(soft, target=soft.target.movedim(1, 2).contiguous().movedim(2, 1)))


@pytest.mark.parametrize("tile", [4096, 64])
def test_short_axes_are_numbered_through(tile: int) -> None:
    """Rows that lie beside each other, and rows whose classes do, in stretches that do not make up one axis."""
    for processors in (1, 8):
        with _launch.limits(tile=tile, processors=processors):
            for name in ("weights and shifts", "soft by target, gamma"):
                case = at(random_rows((41, 2, 3), **SETTINGS[name]))
                _all_ways(case)
                last = torch.zeros(41, 5, 2, device=DEVICE)
                last[:, :3] = case.input.movedim(1, 2)
                _all_ways(replace(case, input=last[:, :3].movedim(2, 1)))
    with _launch.limits(tile=4096, processors=1):
        assert _launch.row_plan(2, 41, 3, rows_side_by_side=False, burdens=[], device=CPU).span
        assert not _launch.row_plan(2, 1, 123, rows_side_by_side=False, burdens=[], device=CPU).span


@pytest.mark.parametrize("grid", [GRIDS["tiles of long rows"]], ids=["long"], indirect=True)
def test_saved_statistics_may_lie_anywhere(grid: None) -> None:
    case = at(random_rows((4, 7), given=("weight",)))
    _, maximum, total = gpu.softmax_loss(case.input, case.target, *case.settings)
    apart = [torch.stack([t, t + 9], 1)[:, 0] for t in (maximum, total)]
    assert not apart[0].is_contiguous()
    found = gpu.softmax_loss_backward(case.upstream, case.input, case.target, *apart, *case.settings)
    _close([(found.cpu(), case.reference()[1])])


def test_what_is_ignored_is_what_the_dtype_of_the_target_makes_of_it() -> None:
    logits, target = torch.randn(3), torch.tensor([2048.0, 0.5, 1.0]).half()
    for ignored in (2049, 1):  # which is 2048 in half precision
        case = at(Elements(logits, target, torch.ones(3), ignore_index=ignored))
        _close(both(case))
        assert operator(case)[0][0 if ignored == 2049 else 2] == 0


def test_what_the_kernels_walk_is_not_copied() -> None:
    """The gradient of logits whose classes lie last lies as they do, and logits are read where they are."""
    case = _relaid(at(random_rows((3, 6, 4, 2))), "classes last")
    assert not case.input.is_contiguous()
    assert operator(case)[1].stride() == case.input.stride()
    sizes, (steps,) = _launch.merged([3, 4, 2], [48, 12, 6])
    assert (sizes, steps) == ([24], [6])
    assert _launch.merged([3, 1, 4], [4, 9, 1], [0, 7, 1]) == ([3, 4], [[4, 1], [0, 1]])


def test_too_many_axes_are_left_to_the_reference() -> None:
    shape = (2, 3, 2, 2, 2, 2, 2)
    input = torch.randn(shape, device=DEVICE).permute(0, 1, 6, 4, 2, 5, 3)[:, :, :, ::1]
    case = at(random_rows(shape))
    case = replace(case, input=input)
    assert softmax_launch.launch(input, case.target, *case.settings, loss=1) is None
    _close(both(case))
    elements = at(random_elements(shape))
    swapped = elements.target.permute(0, 1, 6, 4, 2, 5, 3).contiguous().permute(0, 1, 4, 6, 3, 5, 2)
    _close(both(replace(elements, target=swapped)))


@pytest.mark.parametrize("grid", [{}, GRIDS["tiles of long rows"]], ids=["as chosen", "long"], indirect=True)
def test_offsets_of_more_than_32_bits(grid: None) -> None:
    """Memory that is only promised: rows, classes, elements so far apart that a step or two of them pass 2^31."""
    far, half = 2**31 + 8, 2**30 + 8
    try:
        memory = torch.empty(far + 64, dtype=torch.bfloat16, device=DEVICE)
    except RuntimeError:
        pytest.skip("not that much memory here")
    values = torch.tensor([[1.0, 3.0, -0.5], [0.5, -2.0, 0.25], [2.0, 0.0, 1.0]], device=DEVICE)
    for rows, classes, strides in ((2, 3, (far, 1)), (3, 2, (1, far)), (3, 2, (half, 1)), (2, 3, (1, half))):
        input = memory.as_strided((rows, classes), strides)
        input.copy_(values[:rows, :classes])
        case = Rows(input, torch.tensor([0, 1, 1], device=DEVICE)[:rows], torch.linspace(-2, 1, rows, device=DEVICE))
        near = replace(case, input=input.contiguous())
        _close(list(zip(operator(case), near.reference(), strict=True)))
        _, maximum, total = gpu.softmax_loss(near.input, case.target, *case.settings)
        found = gpu.softmax_loss_backward(
            case.upstream, near.input, case.target, maximum, total, *case.settings, out=input
        )
        _close([(found, near.reference()[1])])
    for count, step in ((2, far), (3, half)):
        input = memory.as_strided((count,), (step,)).copy_(values[0, :count])
        elements = Elements(input, values[2, :count] / 2, torch.ones(count, device=DEVICE))
        near = replace(elements, input=input.contiguous())
        _close(list(zip(operator(elements), near.reference(), strict=True)))


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("burdens", [0, 1, 2, 4])
def test_plans_cover_all_rows_and_waste_no_tile(burdens: int, side_by_side: bool) -> None:
    for classes in (1, 2, 10, 1000, 4096, 8192, 16384, 16385, 32768, 50257, 262144):
        for outer, inner in ((1, 1), (1, 3), (1, 5000), (5000, 3), (100_000, 40), (8, 262144)):
            with _launch.limits(processors=132):
                plan = _launch.row_plan(
                    classes, outer, inner, rows_side_by_side=side_by_side, burdens=[True] * burdens, device=CPU
                )
            stretches = (1, outer * inner) if plan.span else (outer, inner)
            assert plan.blocks == stretches[0] * -(-stretches[1] // plan.rows)
            assert plan.rows < 2 * stretches[1]
            assert plan.programs <= plan.blocks
            if side_by_side and not plan.span:  # neighbours in memory make up whole lines of it
                assert plan.rows >= min(32, inner)
            assert 4 <= plan.warps <= 32
            if plan.whole:
                assert plan.programs == plan.blocks
                assert classes <= plan.classes < 2 * classes
                assert plan.rows * plan.classes <= 32768 >> min(burdens, 2)
                # No program has next to nothing to do where there is enough for all.
                assert plan.blocks <= 4 * 132 or plan.rows * plan.classes >= 512
            else:
                assert not plan.span
                assert plan.programs == min(plan.blocks, 132)  # one for each multiprocessor, and none idles


def test_programs_are_no_larger_than_a_device_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's warps have 64 threads, and a program of any device 1024."""
    monkeypatch.setattr(_launch, "_machine", lambda device: (304, 16))
    for classes in (10, 4096, 16384, 32768, 100_000):
        plan = _launch.row_plan(classes, 1, 5000, rows_side_by_side=False, burdens=[], device=CPU)
        assert plan.warps <= 16
        assert plan.whole == (classes <= 16384)


@pytest.mark.parametrize("how", ["contiguous", "every other", "expanded rows"])
@pytest.mark.parametrize("given", ["", "weight", "row_weight", "weight row_weight"])
@pytest.mark.parametrize("shape", [(1,), (5000,), (41, 3, 7)])
def test_what_labels_weigh(shape: tuple[int, ...], given: str, how: str) -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.randint(-1, 7, shape, generator=random).to(DEVICE)
    weight = torch.rand(7, generator=random).to(DEVICE) if "weight" in given.split() else None
    rows = laid_out(torch.rand(shape, generator=random).to(DEVICE), how) if "row_weight" in given else None
    input = torch.zeros(1, device=DEVICE).expand(shape[0], 7, *shape[1:])
    for labels, ignored in ((laid_out(target, how), -1), (target.clamp(min=0).to(torch.uint8), 3)):
        found = gpu.label_sums(input, labels, weight, rows, ignored)
        known = labels.long().clamp(min=0)
        terms = (torch.ones(7, device=DEVICE) if weight is None else weight)[known] * (labels.long() != ignored)
        terms = terms if rows is None else terms * rows
        torch.testing.assert_close(found.double().sum(), terms.double().sum(), rtol=1e-6, atol=1e-6)
        assert found.numel() == -(-labels.numel() // 2048)


@pytest.mark.parametrize("label", [-(2**62), -1, 7, 2**62])
def test_what_a_label_out_of_range_weighs_is_read_from_inside(label: int) -> None:
    target = torch.tensor([1, label, 2], device=DEVICE)
    weight = torch.cat([torch.full((9,), 99.0), torch.arange(7.0), torch.full((9,), 99.0)]).to(DEVICE)[9:16]
    found = gpu.label_sums(torch.zeros(3, 7, device=DEVICE), target, weight, None, -100)
    assert float(found.sum()) == 3 + (6 if label > 0 else 0)


# ------------------------------------------------------------------------------------------------------------ extremes


@pytest.mark.parametrize("grid", list(GRIDS.values())[1:], ids=list(GRIDS)[1:], indirect=True)
@pytest.mark.parametrize("name", ["weights and shifts", "everything for labels", "soft by target, gamma", "masked"])
@pytest.mark.parametrize("spread", ["confident", "shifted"])
def test_confident_and_shifted_logits(spread: str, name: str, grid: None) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        case = at(random_rows((5, 13), dtype, spread=spread, **SETTINGS[name]))
        (loss, exact), gradients = both(case)
        _close([(loss / 1e4, exact / 1e4), gradients])


@pytest.mark.parametrize("grid", list(GRIDS.values())[1:], ids=list(GRIDS)[1:], indirect=True)
@pytest.mark.parametrize(
    "settings", [{}, {"smoothing": 0.1}, {"gamma": 2.0}, {"gamma": 2.0, "smoothing": 0.1}], ids=str
)
def test_infinite_logits(settings: dict[str, Any], grid: None) -> None:
    inf = torch.inf
    z = torch.randn(8, 13, generator=torch.Generator().manual_seed(2))
    z[0, 3] = -inf  # not the target
    z[1, 2] = -inf  # the target
    z[2, 5] = -inf  # of weight 0
    z[3] = -inf
    z[4, 5] = inf
    z[5, 12] = torch.nan
    z[6, :8] = -inf  # a whole tile of them first
    z[7, 8:] = -inf
    target = torch.tensor([0, 2, 5, 1, 0, 0, 9, 3])
    weight = torch.ones(13)
    weight[5] = 0.0
    for w in (None, weight):
        case = at(Rows(z, target, torch.linspace(-1, 2, 8), w, **settings))
        pairs = both(case)
        for ours, theirs in pairs:
            assert torch.equal(ours.isnan(), theirs.isnan())
        _close(pairs)


@pytest.mark.parametrize("grid", list(GRIDS.values())[1:], ids=list(GRIDS)[1:], indirect=True)
def test_whatever_an_ignored_row_holds_stays_there(grid: None) -> None:
    z = torch.randn(4, 13)
    z[1], z[2, 3], z[3, 0] = torch.nan, torch.inf, -torch.inf
    target = torch.tensor([4, -100, -100, -100])
    for settings in ({}, {"smoothing": 0.1, "gamma": 2.0}):
        case = at(Rows(z, target, torch.tensor([1.0, torch.nan, torch.inf, 2.0]), **settings))
        loss, grad = operator(case)
        assert not loss[1:].any()
        assert not grad[1:].any()
        assert grad[0].any()
        _close(both(case))
        total, grad = sums(case, 0.5)
        assert bool(total.isfinite())
        assert not grad[1:].any()


@pytest.mark.parametrize("grid", list(GRIDS.values())[1:], ids=list(GRIDS)[1:], indirect=True)
@pytest.mark.parametrize("label", [-1, 13, -(2**62), 2**62, 2**32 + 1])
def test_a_label_out_of_range_is_nan(label: int, grid: None) -> None:
    for settings in ({}, {"smoothing": 0.1}, {"gamma": 2.0}):
        case = at(random_rows((3, 13), given=("weight", "margin"), **settings))
        case.target[1] = label
        loss, grad = operator(case)
        assert loss.isnan().tolist() == [False, True, False]
        assert grad.isnan().all(1).tolist() == [False, True, False]
        assert not grad[[0, 2]].isnan().any()
        assert bool(sums(case, 1.0)[0].isnan())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool])
def test_labels_of_every_dtype(dtype: torch.dtype) -> None:
    target = torch.tensor([1, 0, 1, 1]).to(dtype)
    _close(both(at(Rows(torch.randn(4, 5), target, torch.randn(4), ignore_index=0))))
    if dtype == torch.uint8:  # as a label 156 is no −100
        loss, _ = operator(at(Rows(torch.randn(2, 200), torch.tensor([156, 1], dtype=dtype), torch.ones(2))))
        assert bool((loss > 0).all())


@pytest.mark.parametrize("shape", [(0, 5), (0,), (2, 3, 0)])
def test_nothing_at_all(shape: tuple[int, ...]) -> None:
    input = torch.empty(shape, device=DEVICE)
    if len(shape) > 1:
        rows = shape[:1] + shape[2:]
        target = torch.empty(rows, dtype=torch.int64, device=DEVICE)
        loss, grad = operator(Rows(input, target, torch.empty(rows, device=DEVICE)))
        assert (loss.shape, grad.shape) == (rows, shape)
        assert (
            gpu.softmax_sums(input, target, torch.ones((), device=DEVICE), *Rows(input, target, loss).settings) is None
        )
    loss, grad = operator(Elements(input, input, input))
    assert loss.shape == grad.shape == shape


def test_infinite_elements_are_the_references() -> None:
    inf = torch.inf
    z = torch.tensor([inf, -inf, inf, -inf, torch.nan, inf, torch.nan, 1e4, -1e4, 1e4, -1e4])
    t = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 0.0, 0.0])
    for settings in ({}, {"gamma_pos": 2.0, "gamma_neg": 2.0}, {"clip": 0.05, "gamma_neg": 4.0}):
        _close(both(at(Elements(z, t, torch.linspace(-1, 2, 11), ignore_index=-1, **settings))))


def test_float64_is_the_references() -> None:
    case = at(random_rows((3, 5), torch.float64))
    assert not gpu.ready(case.input)
    for ours, theirs in both(case):
        assert torch.equal(ours, theirs)


def test_the_gradient_over_the_logits() -> None:
    for limits in ({}, GRIDS["tiles of long rows"]):
        with _launch.limits(**limits):
            for settings in ({}, {"smoothing": 0.1, "gamma": 2.0}):
                case = at(random_rows((5, 29), **settings))
                expected = operator(case)[1]
                logits = case.input.clone()
                _, maximum, total = gpu.softmax_loss(logits, case.target, *case.settings)
                found = gpu.softmax_loss_backward(
                    case.upstream, logits, case.target, maximum, total, *case.settings, out=logits
                )
                assert found is logits
                assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "settings", [{}, {"gamma": 2.0}, {"smoothing": 0.1}, {"target": "soft", "gamma": 1.0}], ids=str
)
@pytest.mark.parametrize("grid", [{}, GRIDS["tiles of long rows"]], ids=["as chosen", "long"], indirect=True)
def test_mending_computes_anew_only_where_the_guess_was_wrong(settings: dict[str, Any], grid: None) -> None:
    case = at(random_rows((5, 29), **settings))
    right = torch.tensor(0.25, device=DEVICE)
    for guess, done in ((0.25, False), (0.5, True), (torch.nan, True)):
        found = torch.full_like(case.input, 7.0)
        used = torch.tensor(guess, device=DEVICE)
        gpu.softmax_mend(case.input, case.target, right, used, found, *case.settings)
        expected = gpu.softmax_sums(case.input, case.target, right, *case.settings)[1]
        assert torch.equal(found, expected if done else torch.full_like(found, 7.0))
    elements = at(random_elements((5, 29)))
    for guess, done in ((0.25, False), (0.5, True)):
        found = torch.full_like(case.input, 7.0)
        used = torch.tensor(guess, device=DEVICE)
        gpu.sigmoid_mend(elements.input, elements.target, right, used, found, *elements.settings)
        expected = gpu.sigmoid_sums(elements.input, elements.target, right, *elements.settings)[1]
        assert torch.equal(found, expected if done else torch.full_like(found, 7.0))


def test_statistics_are_what_the_backward_pass_needs() -> None:
    for limits in ({}, GRIDS["tiles of long rows"]):
        with _launch.limits(**limits):
            case = at(random_rows((6, 29), given=("offset",)))
            _, maximum, total = gpu.softmax_loss(case.input, case.target, *case.settings)
            _, top, sum_e = reference.softmax_loss(case.input, case.target, *case.settings)
            torch.testing.assert_close(maximum, top, rtol=0, atol=0)
            torch.testing.assert_close(total, sum_e)


def test_the_same_bits_each_time() -> None:
    case = at(random_rows((64, 300), torch.bfloat16, given=("weight",), smoothing=0.1))
    first, again = sums(case, 0.3), sums(case, 0.3)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


@NEEDS_GPU
def test_rows_of_many_classes_on_a_gpu() -> None:
    for classes in (50257, 131072, 262144):
        _close(both(at(random_rows((3, classes), given=("weight",)))))
        _close(both(at(random_rows((3, classes), torch.bfloat16, smoothing=0.1))))
