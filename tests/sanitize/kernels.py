"""Every kernel over the shapes and memory that tests care about, in a process that watches each access.

Run by ``run.py``, which builds the module whose path is the first argument; the second is a file that says what is
being done, so that a crash can be told from where it happened.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MODULE, DIARY = Path(sys.argv[1]), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)


def load(path: Path) -> Any:
    """The module at ``path`` as ``steelyard._kernels``, before anybody imports the one that is installed."""
    spec = importlib.util.spec_from_file_location("steelyard._kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["steelyard._kernels"] = module
    return module


kernels = load(MODULE)
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from draws import draw_everything  # noqa: E402
from guarded import Rooms  # noqa: E402
from kernel_cases import LAYOUTS, Elements, Rows, laid_out, random_elements, random_rows  # noqa: E402

from steelyard.ops import cpu  # noqa: E402

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
DTYPES = (F32, F64, BF16, F16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# Far from garbage; how near is for tests/ops/test_kernel_accuracy.py.
NEAR = {F64: (1e-9, 1e-10), F32: (3e-4, 3e-5), BF16: (2**-7, 3e-5), F16: (2**-9, 1e-4)}

small, large = Rooms(2 << 20), Rooms(96 << 20)
count = 0


def near(what: str, found: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    rtol, atol = NEAR[dtype]
    if not torch.isclose(found.double(), exact, rtol=rtol, atol=atol, equal_nan=True).all():
        raise AssertionError(f"{what}: got {found}, must be {exact}")


def places(case: Any, rooms: Rooms, rng: random.Random) -> Any:
    """The same case in guarded memory that cannot be written to."""
    return replace(
        case,
        **{
            name: rooms[name].place(value, at_end=rng.random() < 0.7, frozen=True)
            for name, value in vars(case).items()
            if isinstance(value, Tensor)
        },
    )


def result(rooms: Rooms, name: str, like: Tensor, rng: random.Random, dtype: torch.dtype | None = None) -> Tensor:
    """Room for a result, with the strides that PyTorch gives one."""
    empty = torch.empty_like(like, dtype=dtype or like.dtype)
    return rooms[name].place(empty, at_end=rng.random() < 0.7, frozen=False)


def said(call: Any) -> None:
    assert call is not None
    assert call is not False, "the kernel refused"


def note(text: str) -> None:
    global count
    count += 1
    os.pwrite(DIARY, text.encode().ljust(600), 0)


# ---------------------------------------------------------------------------------------------------------------- rows


def check_rows(case: Rows, rng: random.Random, rooms: Rooms = small) -> None:
    """Forward, backward, both at once and in place, with each instruction set."""
    loss, grad = case.wide().reference()
    dim = class_dim = 0 if case.input.dim() == 1 else 1
    plain = grad / case.upstream.double().unsqueeze(class_dim)  # the gradient of the sum of the losses
    case = places(case, rooms, rng)
    dtype, accumulation = case.input.dtype, case.upstream.dtype
    about = ", ".join(f"{k}={_say(v)}" for k, v in vars(case).items() if v is not None)
    rows = [n for d, n in enumerate(case.input.shape) if d != dim]
    wanted = (1, 3) if case.input.numel() >= 32768 else (rng.choice((1, 3)),)
    for name, threads in itertools.product(kernels.names(), wanted):
        kernels.use(name)
        settings = (case.input, case.target, *case.settings)
        plain_rows = torch.empty(rows, dtype=accumulation)
        out = [result(rooms, which, plain_rows, rng) for which in ("loss", "maximum", "total")]
        note(f"rows forward, {name}, {threads} threads: {about}")
        said(kernels.softmax_forward(*settings, *out, threads))
        near("loss", out[0], loss, accumulation)

        note(f"rows backward, {name}, {threads} threads: {about}")
        found = result(rooms, "grad", case.input, rng)
        said(kernels.softmax_backward(*settings, case.upstream, 1.0, out[1], out[2], found, threads))
        near("gradient", found, grad, dtype)

        note(f"rows in place, {name}, {threads} threads: {about}")
        if case.input._is_view() and 0 in case.input.stride():
            own = rooms["own"].place(case.input.clone(), at_end=True, frozen=False)
        else:
            own = rooms["own"].place(case.input, at_end=rng.random() < 0.7, frozen=False)
        said(kernels.softmax_backward(own, *settings[1:], case.upstream, 1.0, out[1], out[2], own, threads))
        near("gradient in place", own, grad, dtype)
        assert rooms["own"].intact(), "something between the elements was written"

        note(f"rows at once, {name}, {threads} threads: {about}")
        found = result(rooms, "grad", case.input, rng)
        number = result(rooms, "number", torch.empty((), dtype=accumulation), rng)
        keeps = [result(rooms, which, plain_rows, rng) for which in ("maximum", "total")]
        said(
            kernels.softmax_scalar(
                *settings, case.weight, case.row_weight is not None, 1.0, False, 1.0, number,
                *(keeps if rng.random() < 0.5 else (None, None)), found, threads,
            )
        )  # fmt: skip
        near("sum", number, loss.sum(), F16 if accumulation == F32 else F32)
        near("gradient at once", found, plain, dtype)
        assert all(rooms[which].intact() for which in ("grad", "loss", "maximum", "total"))


def _say(value: Any) -> str:
    if isinstance(value, Tensor):
        aligned = (value.data_ptr() & -value.data_ptr()) if value.numel() else 0
        return f"{value.dtype}{tuple(value.shape)} strides {value.stride()} aligned to {aligned}"
    return repr(value)


def rows_of(shape: tuple[int, ...], dtype: torch.dtype, rng: random.Random, **fixed: Any) -> Rows:
    """Rows with terms, targets, label width and memory at random."""
    classes = shape[0] if len(shape) == 1 else shape[1]
    target = fixed.pop("target", None) or rng.choice(
        ("indices", "indices", "ignored", "soft", "soft", "soft64", "soft32", "soft16")
    )
    names = ["weight", "row_weight", rng.choice(("offset", "masked"))] + ["margin"] * (not target.startswith("soft"))
    given = fixed.pop("given", None)
    if given is None:
        given = tuple(name for name in names if rng.random() < 0.4)
    options: dict[str, Any] = {
        "gamma": rng.choice((0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 3.7)),
        "smoothing": rng.choice((0.0, 0.0, 0.1, 1.0)),
        "smooth_by_target": rng.random() < 0.5,
    }
    options.update(fixed)
    kinds = [kind for kind in INTEGERS if classes - 1 <= torch.iinfo(kind).max]
    if target == "ignored":
        options["ignore_index"] = rng.choice((-100, 0, classes - 1))
        if options["ignore_index"] < 0:
            kinds = [kind for kind in kinds if kind != torch.uint8]
    case = random_rows(shape, dtype, seed=rng.randrange(10**6), target=target, given=given, **options)
    if not target.startswith("soft"):
        case = replace(case, target=case.target.to(rng.choice(kinds)))
    return spread_out(case, rng)


def spread_out(case: Any, rng: random.Random) -> Any:
    """Each tensor somewhere else in memory; half of the cases as they are."""
    if rng.random() < 0.4:
        return case
    tensors = {name: value for name, value in vars(case).items() if isinstance(value, Tensor)}
    return replace(case, **{name: laid_out(value, rng.choice(LAYOUTS)) for name, value in tensors.items()})


def all_rows(rng: random.Random) -> Iterator[Rows]:
    for classes, rows in itertools.product(range(1, 41), range(71)):
        yield rows_of((rows, classes), DTYPES[(classes + rows) % 4], rng)
    for classes, rows in itertools.product(range(1, 41), range(255, 261)):
        yield rows_of((rows, classes), DTYPES[(classes + rows) % 4], rng)
    for classes, rows in itertools.product(range(255, 261), (*range(20), 63, 64, 65)):
        for dtype in DTYPES:
            yield rows_of((rows, classes), dtype, rng)
    for rows in range(255, 261):
        yield rows_of((rows, 515 - rows), DTYPES[rows % 4], rng)
    kinds: tuple[dict[str, Any], ...] = (
        {"target": "ignored", "gamma": 0.0, "smoothing": 0.0}, {"target": "ignored", "gamma": 0.0, "smoothing": 0.1},
        {"target": "soft", "gamma": 0.0}, {"target": "soft", "gamma": 2.0}, {"target": "indices", "gamma": 1.5},
    )  # fmt: skip
    for dtype, kind in itertools.product(DTYPES, kinds):
        for shape in ((1, 8142), (3, 8142), (5, 8142), (1, 50000), (2, 21, 9, 7), (2, 257, 40, 5)):
            yield rows_of(shape, dtype, rng, **kind)
        for shape in ((2, 21, 9, 7), (2, 5, 2, 3, 4), (1, 300, 33), (2, 3, 129), (2, 40, 1, 70), (37,), (3000,)):
            for _ in range(4):
                yield rows_of(shape, dtype, rng, **kind)


def all_terms(rng: random.Random) -> Iterator[Rows]:
    """Every term of the formula with every other."""
    for number, (target, gamma, smoothing, by_target, weight, row_weight, offset, margin) in enumerate(
        itertools.product(
            ("indices", "ignored", "soft", "soft64", "soft32", "soft16"), (0.0, 0.5, 1.0, 2.0), (0.0, 0.1),
            (False, True), ((), ("weight",)), ((), ("row_weight",)), ((), ("offset",), ("masked",)), ((), ("margin",)),
        )
    ):  # fmt: skip
        if margin and target.startswith("soft"):
            continue
        shape = ((5, 7), (3, 37), (2, 5, 17), (19, 33))[number % 4]
        yield rows_of(
            shape, rng.choice(DTYPES), rng, target=target, given=weight + row_weight + offset + margin, gamma=gamma,
            smoothing=smoothing, smooth_by_target=by_target,
        )  # fmt: skip


def refuse_labels(rng: random.Random) -> None:
    """A label that is no class stops everything before a byte is written: results are frozen."""
    for classes, kind, label in itertools.product((3, 40, 100), INTEGERS, ("C", "−1", "most", "least")):
        info = torch.iinfo(kind)
        bad = {"C": classes, "−1": -1, "most": info.max, "least": info.min}[label]
        if 0 <= bad < classes or bad < info.min:
            continue
        case = random_rows((67, classes), seed=1)
        target = case.target.to(kind)
        target[rng.randrange(67)] = bad
        case = places(replace(case, target=target), small, rng)
        out = [small[which].place(torch.empty(67), at_end=True, frozen=True) for which in ("loss", "maximum", "total")]
        grad = small["grad"].place(torch.empty(67, classes), at_end=True, frozen=True)
        settings = (case.input, case.target, *case.settings)
        for name in kernels.names():
            kernels.use(name)
            note(f"bad label {bad}, {name}, {kind}, {classes} classes")
            assert kernels.softmax_forward(*settings, *out, 3) is False
            assert kernels.softmax_backward(*settings, case.upstream, 1.0, *out[1:], grad, 3) is False
            number = torch.empty(())
            assert kernels.softmax_scalar(*settings, None, False, 1.0, False, 1.0, number, None, None, grad, 1) is None


# ------------------------------------------------------------------------------------------------------------ elements


def check_elements(case: Elements, rng: random.Random, rooms: Rooms = small) -> None:
    """Forward, backward, both at once and in place, with each instruction set."""
    loss, grad = case.wide().reference()
    plain = grad / case.upstream.double()
    case = places(case, rooms, rng)
    dtype, accumulation = case.input.dtype, case.upstream.dtype
    about = ", ".join(f"{k}={_say(v)}" for k, v in vars(case).items() if v is not None)
    wanted = (1, 3) if case.input.numel() >= 32768 else (rng.choice((1, 3)),)
    for name, threads in itertools.product(kernels.names(), wanted):
        kernels.use(name)
        settings = (case.input, case.target, *case.settings)
        note(f"elements forward, {name}, {threads} threads: {about}")
        each = result(rooms, "loss", case.input, rng, accumulation)
        said(kernels.sigmoid(*settings, None, 1.0, 1.0, None, each, None, threads))
        near("loss", each, loss, accumulation)

        note(f"elements backward, {name}, {threads} threads: {about}")
        found = result(rooms, "grad", case.input, rng)
        said(kernels.sigmoid(*settings, case.upstream, 1.0, 1.0, None, None, found, threads))
        near("gradient", found, grad, dtype)

        note(f"elements in place, {name}, {threads} threads: {about}")
        given = case.input.clone() if 0 in case.input.stride() else case.input
        own = rooms["own"].place(given, at_end=rng.random() < 0.7, frozen=False)
        said(kernels.sigmoid(own, *settings[1:], case.upstream, 1.0, 1.0, None, None, own, threads))
        near("gradient in place", own, grad, dtype)
        assert rooms["own"].intact(), "something between the elements was written"

        note(f"elements at once, {name}, {threads} threads: {about}")
        found = result(rooms, "grad", case.input, rng)
        number = result(rooms, "number", torch.empty((), dtype=accumulation), rng)
        said(kernels.sigmoid(*settings, None, 1.0, 1.0, number, None, found, threads))
        near("sum", number, loss.sum(), F16 if accumulation == F32 else F32)
        near("gradient at once", found, plain, dtype)
        assert all(rooms[which].intact() for which in ("grad", "loss"))


HOW = (None, None, "scalar", "one", "last", "rows", "full", "axis 1", "expanded", "every other")
TARGETS = ("soft", "soft64", "soft32", "binary", "int64", "int32", "int16", "int8", "uint8", "bool")


def elements_of(shape: tuple[int, ...], dtype: torch.dtype, rng: random.Random) -> Elements:
    """Elements with terms, targets and memory at random."""
    target = rng.choice(TARGETS)
    ignored = rng.choice((None, -1)) if target not in ("bool", "uint8") else None
    ways = HOW if len(shape) > 1 else tuple(how for how in HOW if how not in ("rows", "axis 1"))
    if not shape:
        ways = (None, "scalar")
    case = random_elements(
        shape, dtype, seed=rng.randrange(10**6), target=target, weight=rng.choice(ways), pos_weight=rng.choice(ways),
        gamma_pos=rng.choice((0.0, 0.0, 0.5, 1.0, 2.0)), gamma_neg=rng.choice((0.0, 0.0, 0.5, 1.0, 4.0)),
        neg_weight=rng.choice((1.0, 0.3)), clip=rng.choice((0.0, 0.05)), ignore_index=ignored,
    )  # fmt: skip
    return spread_out(case, rng)


def all_elements(rng: random.Random) -> Iterator[Elements]:
    lengths = (*range(71), *range(255, 261), *range(510, 515), 600, 4099, *range(16383, 16387), 40000)
    for length, dtype in itertools.product(lengths, DTYPES):
        for _ in range(2 if length < 1000 else 1):
            yield elements_of((length,), dtype, rng)
    for classes, rows in itertools.product((*range(1, 41), *range(255, 261)), (1, 2, 3, 16, 17, 33, 64)):
        yield elements_of((rows, classes), rng.choice(DTYPES), rng)
    for shape in ((), (2, 8142), (2, 50000), (2, 21, 9, 7), (3, 4, 5, 6, 2)):
        for dtype, _ in itertools.product(DTYPES, range(2 if len(shape) == 2 else 10)):
            yield elements_of(shape, dtype, rng)


# --------------------------------------------------------------------------------------------------------------- large


def past_the_caches(rng: random.Random) -> None:
    """Results of more than 32 MiB, which are written by other instructions."""
    for shape, dtype in (((260, 16391), F64), ((1200, 8142), F32), ((430, 20001), F32), ((2, 5, 900001), F32)):
        case = random_rows(shape, dtype, seed=3, given=("weight",), smoothing=0.1)
        if shape[1] == 8142:
            case = random_rows(shape, dtype, seed=3)
        check_rows(case, rng, large)
    for shape, dtype in (((4300001,), F64), ((2, 4300003), F32)):
        check_elements(random_elements(shape, dtype, seed=3), rng, large)


def draws(rng: random.Random) -> None:
    """On several threads, as many as the kernels are told."""
    global count
    torch.set_num_threads(3)
    count += draw_everything(rng, note)
    torch.set_num_threads(1)


def main() -> None:
    assert cpu.kernels is kernels
    assert Path(kernels.__file__) == MODULE
    print(f"{', '.join(kernels.names())} from {MODULE}", flush=True)
    torch.set_num_threads(1)  # the kernels are told a number of their own
    rng = random.Random(0)
    began = time.monotonic()
    for title, work in (
        ("labels refused", lambda: refuse_labels(rng)),
        ("terms", lambda: [check_rows(case, rng) for case in all_terms(rng)]),
        ("rows", lambda: [check_rows(case, rng) for case in all_rows(rng)]),
        ("elements", lambda: [check_elements(case, rng) for case in all_elements(rng)]),
        ("past the caches", lambda: past_the_caches(rng)),
        ("draws", lambda: draws(rng)),
    ):
        before = count
        work()
        print(f"{title}: {count - before} calls, {time.monotonic() - began:.0f} s", flush=True)
    note("after the last call")
    print(f"done: {count} calls")


main()
