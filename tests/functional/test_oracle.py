"""Every loss of the registry against the oracle: values, for each reduction, denominator, shape, dtype."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import oracle
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from steelyard.registry import LOSSES

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
DTYPES = [F64, F32, BF16, F16]

# One class; two; off any vector width; past a power of two; then the ranks that the class axis has to be found in.
SHAPES = [(1, 1), (3, 2), (7, 13), (5, 257), (13,), (4, 5, 3), (2, 3, 2, 3)]

# Roundings of the accumulation dtype that a result may be away, in units of the terms it is summed from.
ROUNDINGS = 4


@dataclass(frozen=True)
class Case:
    """A loss with a setting: how the target looks, and options, where ``"@..."`` stands for numbers to be drawn."""

    loss: str
    title: str
    target: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.loss}: {self.title}"


def _cases() -> Iterator[Case]:
    common_softmax = {
        "plain": ("indices", {}),
        "weights, ignored rows": ("ignored", {"weight": "@class"}),
        "weights of classes and samples, smoothing": (
            "255",
            {"weight": "@class", "sample_weight": "@samples", "label_smoothing": 0.1, "ignore_index": 255},
        ),
        "weights of rows, a zero weight, smoothing by target": (
            "ignored",
            {"weight": "@class0", "sample_weight": "@rows", "label_smoothing": 0.3, "smooth_weight": "target"},
        ),
        "one-hot, weights": ("one-hot", {"weight": "@class"}),
        "soft, weights of classes and rows, smoothing": (
            "soft",
            {"weight": "@class", "sample_weight": "@rows", "label_smoothing": 0.1},
        ),
        "soft, smoothing by target": (
            "soft",
            {"weight": "@class", "label_smoothing": 0.2, "smooth_weight": "target"},
        ),
    }
    own_softmax = {
        "cross_entropy": {
            "focusing": ("ignored", {"weight": "@class", "gamma": 2.0}),
            "fractional focusing, smoothing": ("indices", {"gamma": 0.5, "label_smoothing": 0.1}),
            "offset and margin": ("ignored", {"logit_offset": "@class", "margin": "@class", "weight": "@class"}),
            "everything on soft targets": (
                "soft",
                {"logit_offset": "@class", "gamma": 1.5, "label_smoothing": 0.1, "sample_weight": "@samples"},
            ),
            "negative weights": ("indices", {"weight": "@signed"}),
        },
        "linear_cross_entropy": {"offset": ("ignored", {"logit_offset": "@class", "weight": "@class"})},
        "focal_loss": {
            "gamma 0": ("indices", {"gamma": 0.0, "weight": "@class"}),
            "gamma ½": ("soft", {"gamma": 0.5}),
        },
        "balanced_softmax_loss": {"focusing": ("ignored", {"gamma": 1.0, "weight": "@class"})},
        "logit_adjusted_loss": {
            "tau 0": ("indices", {"tau": 0.0}),
            "tau ½, focusing": ("ignored", {"tau": 0.5, "gamma": 2.0}),
        },
        "ldam_loss": {"narrow, no scale": ("ignored", {"max_margin": 0.2, "scale": 1.0, "gamma": 1.0})},
    }
    common_sigmoid = {
        "plain": ("binary", {}),
        "soft": ("soft elements", {}),
        "weights of elements and positives": ("soft elements", {"weight": "@elements", "pos_weight": "@last"}),
        "a weight for all, one row of positives, ignored": (
            "ignored elements",
            {"weight": "@scalar", "pos_weight": "@first", "ignore_index": -1},
        ),
        "bytes": ("bytes", {"ignore_index": 255, "pos_weight": "@scalar"}),
    }
    own_sigmoid = {
        "binary_cross_entropy_with_logits": {
            "focusing, clip, alpha": (
                "soft elements",
                {"gamma_pos": 0.5, "gamma_neg": 3.0, "clip": 0.1, "alpha": 0.7, "pos_weight": "@last"},
            ),
            "clip alone": ("binary", {"clip": 0.2}),
            "alpha alone": ("binary", {"alpha": 0.25}),
        },
        "sigmoid_focal_loss": {
            "no alpha": ("binary", {"alpha": None, "gamma": 0.5}),
            "alpha 0, gamma 0": ("soft elements", {"alpha": 0.0, "gamma": 0.0}),
        },
        "asymmetric_loss": {
            "no clip": ("soft elements", {"clip": 0.0, "gamma_neg": 2.5, "gamma_pos": 0.0}),
            "fractional focusing": ("binary", {"clip": 0.05, "gamma_neg": 0.5, "gamma_pos": 0.5}),
        },
    }
    likelihood = {
        "nll_loss": {title: common_softmax[title] for title in ("plain", "weights, ignored rows")}
        | {"weights of rows": ("255", {"sample_weight": "@rows", "weight": "@class", "ignore_index": 255})}
        | {"weights of samples": ("ignored", {"sample_weight": "@samples"})},
        "binary_cross_entropy": {title: common_sigmoid[title] for title in ("plain", "soft")}
        | {"weights": ("soft elements", {"weight": "@elements"})}
        | {"weights of the last axis": ("binary", {"weight": "@last"})},
    }
    for entry in LOSSES.values():
        table = {
            "softmax": common_softmax | own_softmax.get(entry.name, {}),
            "sigmoid": common_sigmoid | own_sigmoid.get(entry.name, {}),
            "likelihood": likelihood.get(entry.name, {}),
        }[entry.formula]
        assert table, entry.name
        for title, (target, options) in table.items():
            if target in ("soft", "one-hot") and "distribution" not in entry.targets:
                continue
            if entry.name == "linear_cross_entropy" and "smooth_weight" in options:
                continue  # the design gives it PyTorch's smoothing only
            yield Case(entry.name, title, target, options)


CASES = list(_cases())


@dataclass(frozen=True)
class Problem:
    """One call: positional tensors, keywords, and the same in plain numbers."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def plain(self) -> tuple[list[Any], dict[str, Any]]:
        return [_plain(value) for value in self.args], {name: _plain(value) for name, value in self.kwargs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (value.double() if value.is_floating_point() else value).tolist()
    return value


def problem(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> Problem:
    """Random numbers for a case in ``dtype``."""
    drawn = _drawn(case, shape, dtype in (BF16, F16))
    place = _target_place(case)
    parts = [value.to(dtype) if value.is_floating_point() else value for value in drawn.args]
    if case.target == "bytes":
        parts[place] = parts[place].to(torch.uint8)
    options = {name: value.to(dtype) if name == "linear_bias" else value for name, value in drawn.kwargs.items()}
    return Problem(tuple(parts), options)


def _target_place(case: Case) -> int:
    return 2 if case.loss == "linear_cross_entropy" else 1


@functools.cache
def _drawn(case: Case, shape: tuple[int, ...], half: bool) -> Problem:
    """Random numbers for a case, seeded by its name, weights among them in float32, which all dtypes take whole.

    Float64 and float32 get the same numbers, and so do the two half precisions: the oracle answers once for both.
    """
    entry = LOSSES[case.loss]
    g = torch.Generator().manual_seed(zlib.crc32(f"{case} {shape} {half}".encode()))
    axis = 0 if len(shape) == 1 else 1
    classes = shape[axis] if shape else 1
    rows = shape[:axis] + shape[axis + 1 :]

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=g)

    def stored(values: Tensor, step: float = 1 / 16) -> Tensor:
        # Multiples of 1/16 below 16 (and of 1/128 up to 1) have at most eight bits.
        return ((values / step).round() * step).clamp(-15.9375, 15.9375) if half else values

    def positive(*size: int) -> Tensor:
        return (normal(*size)).exp().float()

    draw = {
        "@class": lambda: positive(classes),
        "@class0": lambda: positive(classes).index_fill(0, torch.tensor([0]), 0.0),
        "@signed": lambda: normal(classes).float(),
        "@rows": lambda: positive(*rows),
        "@samples": lambda: positive(*rows[:1]),
        "@elements": lambda: positive(*shape),
        "@last": lambda: positive(*shape[-1:]),
        "@first": lambda: positive(*shape[:1], *[1] * (len(shape) - 1)),
        "@scalar": lambda: positive(),
    }
    # A class weight for all but the only class: with "@class0" and C = 1 nothing would be left.
    if classes == 1:
        draw["@class0"] = draw["@class"]
    options = {
        name: draw[value]() if isinstance(value, str) and value.startswith("@") else value
        for name, value in case.options.items()
    }
    logits = normal(*shape) * 3.0
    inputs: tuple[Tensor, ...] = (stored(logits),)
    if entry.input == "features":
        inputs = (stored(normal(*rows, 6)), stored(normal(classes, 6)))
        options["linear_bias"] = stored(normal(classes))
    elif entry.input == "log-probabilities":
        inputs = (stored(logits.log_softmax(axis)),)
    elif entry.input == "probabilities":
        inputs = (stored(logits.sigmoid(), 1 / 128),)
    target = _target(case, shape, rows, axis, g)
    if target.is_floating_point() and case.target != "bytes":
        target = stored(target, 1 / 128)
    counts = ((torch.rand(classes, generator=g) * 1000).long() + 1,) if entry.counts else ()
    return Problem((*inputs, target, *counts), options)


def _target(case: Case, shape: tuple[int, ...], rows: tuple[int, ...], axis: int, g: torch.Generator) -> Tensor:
    kind = case.target
    if kind in ("indices", "ignored", "255", "one-hot"):
        classes = shape[axis]
        indices = torch.randint(classes, rows, generator=g)
        if kind == "one-hot":
            return torch.nn.functional.one_hot(indices, classes).movedim(-1, axis).float()
        if kind != "indices" and indices.numel() > 1:  # at least the first row stays
            ignored = torch.rand(rows, generator=g) < 0.4
            ignored.view(-1)[0] = False
            indices = indices.masked_fill(ignored, 255 if kind == "255" else -100)
        return indices
    if kind == "soft":
        return torch.randn(shape, generator=g).softmax(axis)
    chance = torch.rand(shape, generator=g)
    if kind == "soft elements":
        return chance
    hard = (chance < 0.5).float()
    if kind in ("ignored elements", "bytes") and hard.numel() > 1:
        ignored = torch.rand(shape, generator=g) < 0.3
        ignored.view(-1)[0] = False
        hard = hard.masked_fill(ignored, 255 if kind == "bytes" else -1)
    return hard


@functools.cache
def exact_rows(case: Case, shape: tuple[int, ...], half: bool) -> oracle.Rows:
    args, kwargs = _drawn(case, shape, half).plain()
    return oracle.LOSSES[case.loss](*args, **kwargs)


def assert_close(ours: Tensor, exact: list[oracle.Exact], dtype: torch.dtype, *, roundings: float = ROUNDINGS) -> None:
    """Each of ours is the exact value, give or take a few roundings of the accumulation dtype, rounded to ``dtype``."""
    assert ours.dtype == dtype
    unit = torch.finfo(F64 if dtype == F64 else F32).eps
    got = ours.detach().reshape(-1)
    assert len(got) == len(exact)
    low = torch.tensor([float(e.value - roundings * unit * e.size) for e in exact], dtype=F64)
    high = torch.tensor([float(e.value + roundings * unit * e.size) for e in exact], dtype=F64)
    # Rounding keeps order: what lies between low and high lies, rounded once, between the two rounded.
    wrong = ~((low.to(dtype) <= got) & (got <= high.to(dtype))) & ~(low.isnan() & got.isnan())
    if wrong.any():
        i = int(wrong.nonzero()[0])
        away = abs(mpf(float(got[i])) - exact[i].value) / (unit * exact[i].size) if exact[i].size else mpf("inf")
        pytest.fail(
            f"row {i}: {float(got[i])!r} instead of {float(exact[i].value)!r}, {float(away):.3g} roundings away"
        )


def roundings_of(case: Case, dtype: torch.dtype) -> float:
    """Half-precision logits of a linear layer are rounded once themselves, as PyTorch's own layer rounds them."""
    if case.loss == "linear_cross_entropy" and dtype in (BF16, F16):
        return torch.finfo(dtype).eps / torch.finfo(F32).eps
    return ROUNDINGS


GRID = [
    pytest.param(case, shape, id=f"{case}-{'x'.join(map(str, shape))}")
    for case in CASES
    for shape in SHAPES
    # A linear layer gives (C,) and (N, C); its logits of higher rank are in test_facts.
    if not (case.loss == "linear_cross_entropy" and len(shape) > 2)
    # No sample to weight, where there is no batch.
    and not (len(shape) == 1 and "@samples" in case.options.values())
    # Elements do not know of one another: one setting is enough for how many there are.
    and not (shape == (5, 257) and LOSSES[case.loss].targets == ("elements",) and case.title != "soft")
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize(("case", "shape"), GRID)
def test_value_is_the_oracles(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    given = problem(case, shape, dtype)
    rows = exact_rows(case, shape, dtype in (BF16, F16))
    loss = LOSSES[case.loss].function
    close = functools.partial(assert_close, dtype=dtype, roundings=roundings_of(case, dtype))

    none = loss(*given.args, reduction="none", **given.kwargs)
    target = given.args[_target_place(case)]
    axis = 0 if len(shape) == 1 else 1
    soft = case.target in ("soft", "one-hot")
    assert none.shape == (target.shape[:axis] + target.shape[axis + 1 :] if soft else target.shape)
    close(none, rows.losses)
    close(loss(*given.args, reduction="sum", **given.kwargs), [oracle.reduced(rows, "sum")])
    for denominator in ("torch", "weights", "samples", 3.5, torch.tensor(7), torch.tensor(0.25, dtype=F64)):
        exact = oracle.reduced(rows, "mean", float(denominator) if isinstance(denominator, Tensor) else denominator)
        mean = loss(*given.args, reduction="mean", denominator=denominator, **given.kwargs)
        assert mean.shape == ()
        close(mean, [exact])


@pytest.mark.parametrize("dtype", [F32, BF16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("title", ["weights, ignored rows", "soft, weights of classes and rows, smoothing"])
def test_long_tail_of_classes(title: str, dtype: torch.dtype) -> None:
    """8142 classes: a running fp32 sum would be off by several times what is allowed here."""
    (case,) = (case for case in CASES if case.loss == "cross_entropy" and case.title == title)
    given, rows = problem(case, (2, 8142), dtype), exact_rows(case, (2, 8142), dtype == BF16)
    loss = LOSSES["cross_entropy"].function
    assert_close(loss(*given.args, reduction="none", **given.kwargs), rows.losses, dtype)
    assert_close(loss(*given.args, **given.kwargs), [oracle.reduced(rows, "mean")], dtype)


# ----------------------------------------------------------------------------------------------------- confident logits

CONFIDENT = [
    [1e4, -1e4, 0.0],
    [-1e4, 1e4, 0.0],
    [1e4, 1e4, -1e4],
    [1e4, 9984.0, -1e4],
    [-1e4, -1e4, -1e4],
    [60.0, 0.0, -60.0],
    [1e-4, 0.0, -1e-4],
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", [case for case in CASES if LOSSES[case.loss].input == "logits"], ids=str)
def test_confident_logits(case: Case, dtype: torch.dtype) -> None:
    """Sure and wrong costs 20,000 nats, sure and right 0; neither the loss nor its gradient is anything but finite."""
    given = problem(case, (len(CONFIDENT), 3), dtype)
    input = torch.tensor(CONFIDENT, dtype=dtype, requires_grad=True)
    given = Problem((input, *given.args[1:]), given.kwargs)
    args, kwargs = given.plain()
    rows = oracle.LOSSES[case.loss](*args, **kwargs)
    loss = LOSSES[case.loss].function(input, *given.args[1:], reduction="none", **given.kwargs)
    assert_close(loss, rows.losses, dtype)
    upstream = torch.randn(loss.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    (gradient,) = torch.autograd.grad(loss, input, upstream)
    # What the value needs more than fp16 has room for is infinite; its gradient is not.
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_probabilities_of_zero_and_one(dtype: torch.dtype) -> None:
    p = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.5], dtype=dtype)
    t = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 0.25, 0.5], dtype=dtype)
    rows = oracle.LOSSES["binary_cross_entropy"](p.tolist(), t.tolist())
    assert_close(LOSSES["binary_cross_entropy"].function(p, t, reduction="none"), rows.losses, dtype)


# ------------------------------------------------------------------------------------------------------ nothing to mean


@pytest.mark.parametrize("rule", ["torch", "weights", "samples", 0, 0.0, torch.tensor(0.0)], ids=str)
@pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if entry.formula != "sigmoid"])
def test_empty_mean_by_the_oracles_rule(name: str, rule: Any) -> None:
    """All rows ignored (or, for elements of probabilities, no element at all): the denominator is 0 by any rule."""
    case = next(case for case in CASES if case.loss == name and case.title == "plain")
    shape = (0,) if name == "binary_cross_entropy" else (3, 2)
    given = problem(case, shape, F64)
    inputs = given.args
    if name != "binary_cross_entropy":
        place = _target_place(case)
        inputs = (*inputs[:place], torch.full((3,), -100), *inputs[place + 1 :])
    _check_empty(name, inputs, given.kwargs, rule)


@pytest.mark.parametrize("rule", ["torch", "weights", "samples", 0, torch.tensor(0.0)], ids=str)
@pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if entry.formula == "sigmoid"])
def test_empty_mean_of_elements_by_the_oracles_rule(name: str, rule: Any) -> None:
    _check_empty(name, (torch.randn(3, 2, dtype=F64), torch.full((3, 2), -1.0, dtype=F64)), {"ignore_index": -1}, rule)


def _check_empty(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rule: Any) -> None:
    loss = functools.partial(LOSSES[name].function, reduction="mean", denominator=rule, **kwargs)
    input = args[0].clone().requires_grad_()
    assert loss(input, *args[1:]).isnan()
    zero = loss(input, *args[1:], empty="zero")
    assert zero == 0
    (gradient,) = torch.autograd.grad(zero, input)
    assert torch.equal(gradient, torch.zeros_like(input))
    with pytest.raises(ValueError, match=rf"^{name}: the mean must have something to divide by; got .+ Use "):
        loss(input, *args[1:], empty="raise")
