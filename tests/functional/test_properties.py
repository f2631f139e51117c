"""What must hold whatever the numbers: over shapes, dtypes, ignored rows, zero weights, soft targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steelyard.registry import LOSSES, LossEntry

F64 = torch.float64

# The same examples on every run, and as long as a loaded machine needs.
examples = settings(derandomize=True, deadline=None, max_examples=40, database=None)

SOFTMAX = [entry for entry in LOSSES.values() if entry.formula == "softmax" and entry.input == "logits"]
SOFT = [entry for entry in SOFTMAX if "distribution" in entry.targets]
BY_ROW = [*SOFTMAX, LOSSES["nll_loss"]]
ELEMENTS = [entry for entry in LOSSES.values() if entry.targets == ("elements",)]


def by_name(entries: list[LossEntry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


@dataclass(frozen=True)
class Batch:
    """Rows for one loss. ``weight`` and ``sample_weight`` may hold zeros; ``kept`` are the rows not ignored."""

    entry: LossEntry
    input: Tensor
    target: Tensor
    options: dict[str, Any]

    def loss(self, **options: Any) -> Tensor:
        return self.entry.function(self.input, self.target, **{**self.options, **options})

    @property
    def kept(self) -> Tensor:
        return self.target != -100

    def rows(self, which: Tensor) -> Batch:
        """Only the rows of the first axis that ``which`` names."""
        options = dict(self.options)
        if options.get("sample_weight") is not None:
            options["sample_weight"] = options["sample_weight"][which]
        return replace(self, input=self.input[which], target=self.target[which], options=options)

    def with_options(self, **options: Any) -> Batch:
        return replace(self, options={**self.options, **options})


@st.composite
def batches(
    draw: st.DrawFn,
    entry: LossEntry,
    *,
    soft: bool = False,
    ignored: bool = True,
    dtypes: tuple[torch.dtype, ...] = (F64,),
    smoothing: bool = True,
    ranks: tuple[int, ...] = (0, 0, 1, 2),
) -> Batch:
    g = torch.manual_seed(draw(st.integers(0, 2**32 - 1)))  # the global one: what a test draws beside it repeats too
    classes = draw(st.integers(1, 9))
    count = draw(st.integers(1, 6))
    rest = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.sampled_from(ranks))))
    dtype = draw(st.sampled_from(dtypes))
    spread = draw(st.sampled_from([0.1, 1.0, 10.0]))
    shape, rows = (count, classes, *rest), (count, *rest)
    input = (torch.randn(shape, generator=g, dtype=F64) * spread).to(dtype)
    if entry.input == "log-probabilities":
        input = input.log_softmax(1)
    if soft:
        target = torch.randn(shape, generator=g, dtype=F64).softmax(1).to(dtype)
        if draw(st.booleans()):
            target = torch.nn.functional.one_hot(target.argmax(1), classes).movedim(-1, 1).to(dtype)
    else:
        target = torch.randint(classes, rows, generator=g)
        if ignored and draw(st.booleans()):
            target = target.masked_fill(torch.rand(rows, generator=g) < 0.4, -100)

    def weights(*size: int) -> Tensor | None:
        kind = draw(st.sampled_from(["none", "positive", "with zeros"]))
        if kind == "none":
            return None
        values = torch.rand(size, generator=g, dtype=F64) + 0.1
        return values if kind == "positive" else values.masked_fill(torch.rand(size, generator=g) < 0.3, 0.0)

    options: dict[str, Any] = {"weight": weights(classes), "sample_weight": weights(*rows)}
    if entry.formula == "softmax" and smoothing:
        options["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 1.0]))
        options["smooth_weight"] = draw(st.sampled_from(["class", "target"]))
    if entry.formula == "softmax":
        options["gamma"] = draw(st.sampled_from([0.0, 0.5, 2.0]))
    if entry.counts:
        options["counts"] = torch.randint(1, 100, (classes,), generator=g)
    if entry.name == "cross_entropy" and draw(st.booleans()):
        options["logit_offset"] = torch.randn(classes, generator=g, dtype=F64)
        if not soft:
            options["margin"] = torch.rand(classes, generator=g, dtype=F64)
    return Batch(entry, input, target, options)


def equal(ours: Tensor, expected: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(ours, expected, equal_nan=True, **(tolerance or {"rtol": 1e-11, "atol": 1e-12}))


def one_hot(batch: Batch) -> Batch:
    classes = batch.input.shape[1]
    target = torch.nn.functional.one_hot(batch.target, classes).movedim(-1, 1).to(batch.input.dtype)
    return replace(batch, target=target)


MEANS: list[dict[str, Any]] = [
    {"reduction": "sum"},
    {"reduction": "mean"},
    {"reduction": "mean", "denominator": "weights"},
    {"reduction": "mean", "denominator": "samples"},
    {"reduction": "mean", "denominator": 2.5},
]


@by_name(SOFTMAX)
@examples
@given(data=st.data())
def test_a_constant_added_to_a_row_changes_nothing(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, soft=data.draw(st.booleans()) and entry in SOFT))
    constant = torch.randn(batch.input.shape[0], *[1] * (batch.input.dim() - 1), dtype=F64) * 10
    shifted = replace(batch, input=batch.input + constant)
    equal(shifted.loss(reduction="none"), batch.loss(reduction="none"), rtol=1e-9, atol=1e-9)


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_the_names_of_classes_do_not_matter(entry: LossEntry, data: st.DataObject) -> None:
    soft = data.draw(st.booleans()) and entry in SOFT
    batch = data.draw(batches(entry, soft=soft))
    order = torch.randperm(batch.input.shape[1])
    target = batch.target[:, order] if soft else order.argsort()[batch.target.clamp(min=0)]
    if not soft:
        target = target.masked_fill(~batch.kept, -100)
    options = {
        name: value[order]
        for name, value in batch.options.items()
        if name in ("weight", "counts", "logit_offset", "margin") and value is not None
    }
    renamed = replace(batch, input=batch.input[:, order], target=target).with_options(**options)
    for how in ({"reduction": "none"}, *MEANS):
        equal(renamed.loss(**how), batch.loss(**how))


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_a_row_of_weight_two_is_the_row_twice(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, soft=data.draw(st.booleans()) and entry in SOFT))
    count = batch.input.shape[0]
    times = torch.randint(1, 4, (count,))
    twice = batch.rows(torch.arange(count).repeat_interleave(times))
    own = batch.options["sample_weight"]
    v = times.to(F64).reshape(-1, *[1] * (batch.input.dim() - 2)).expand(batch.input[:, 0].shape)
    weighted = batch.with_options(sample_weight=v if own is None else own * v)
    for how in MEANS:
        if how.get("denominator") != "samples":  # which counts rows, whatever they weigh
            equal(weighted.loss(**how), twice.loss(**how))


@by_name(SOFT)
@examples
@given(data=st.data())
def test_an_index_is_its_one_hot_row(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, ignored=False))
    batch = replace(batch, options={name: value for name, value in batch.options.items() if name != "margin"})
    for how in ({"reduction": "none"}, *MEANS):
        if how != {"reduction": "mean"}:  # PyTorch divides the two by different numbers
            equal(one_hot(batch).loss(**how), batch.loss(**how))
    unweighted = batch.with_options(weight=None)
    equal(one_hot(unweighted).loss(), unweighted.loss())


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_a_mean_is_the_sum_over_its_denominator(entry: LossEntry, data: st.DataObject) -> None:
    soft = data.draw(st.booleans()) and entry in SOFT
    batch = data.draw(batches(entry, soft=soft))
    classes = batch.input.shape[1]
    w = batch.options["weight"] if batch.options["weight"] is not None else torch.ones(classes, dtype=F64)
    rows = batch.input[:, 0].shape
    v = batch.options["sample_weight"] if batch.options["sample_weight"] is not None else torch.ones(rows, dtype=F64)
    kept = torch.ones(rows, dtype=F64) if soft else batch.kept.to(F64)
    q = batch.target if soft else one_hot(replace(batch, target=batch.target.clamp(min=0))).target
    of_target = torch.einsum("nc...,c->n...", q, w)
    e = batch.options.get("label_smoothing", 0.0)
    by_class = torch.einsum("nc...,c->n...", (1 - e) * q + e / classes, w)
    of_row = of_target if batch.options.get("smooth_weight") == "target" else by_class
    divisors = {
        "torch": v.sum() if soft else (kept * v * of_target).sum(),
        "weights": (kept * v * of_row).sum(),
        "samples": kept.sum(),
    }
    total = batch.loss(reduction="sum")
    equal(total, batch.loss(reduction="none").sum())
    for rule, divisor in divisors.items():
        equal(batch.loss(denominator=rule), total / divisor, rtol=1e-9, atol=1e-9)
        if divisor == 0:
            assert batch.loss(denominator=rule, empty="zero") == 0
    equal(batch.loss(denominator=2.5), total / 2.5)
    equal(batch.loss(denominator=torch.tensor(2.5)), total / 2.5)


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_ignoring_a_row_is_deleting_it(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, ranks=(0,)))
    deleted = batch.rows(batch.kept)
    for how in MEANS:
        equal(batch.loss(**how), deleted.loss(**how))
    all_rows = batch.loss(reduction="none")
    equal(all_rows[batch.kept], deleted.loss(reduction="none"))
    assert (all_rows[~batch.kept] == 0).all()
    renamed = replace(batch, target=batch.target.masked_fill(~batch.kept, 255))
    equal(renamed.loss(ignore_index=255), batch.loss())


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_shards_with_a_common_denominator_add_up(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, soft=data.draw(st.booleans()) and entry in SOFT))
    cut = data.draw(st.integers(0, batch.input.shape[0]))
    rows = torch.arange(batch.input.shape[0])
    leaf = batch.input.clone().requires_grad_()
    whole = replace(batch, input=leaf).loss(denominator=3.5)
    (expected,) = torch.autograd.grad(whole, leaf)
    parts = [replace(batch, input=leaf).rows(part).loss(denominator=3.5) for part in (rows[:cut], rows[cut:])]
    equal(sum(parts), whole)
    (gradient,) = torch.autograd.grad(sum(parts), leaf)
    equal(gradient, expected)


@by_name(SOFTMAX)
@examples
@given(data=st.data())
def test_the_loss_is_linear_in_each_weight(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, soft=data.draw(st.booleans()) and entry in SOFT))
    classes, rows = batch.input.shape[1], batch.input[:, 0].shape
    for name, size in (("weight", (classes,)), ("sample_weight", rows)):
        one, two = torch.randn(size, dtype=F64), torch.randn(size, dtype=F64)
        sum_of_both = batch.with_options(**{name: 2 * one - 3 * two}).loss(reduction="none")
        first = batch.with_options(**{name: one}).loss(reduction="none")
        second = batch.with_options(**{name: two}).loss(reduction="none")
        equal(sum_of_both, 2 * first - 3 * second, rtol=1e-9, atol=1e-9)


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_the_scale_of_weights_cancels_in_pytorchs_index_mean(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry))
    w = torch.ones(batch.input.shape[1], dtype=F64) if batch.options["weight"] is None else batch.options["weight"]
    for rule in ("torch", "weights"):
        plain = batch.with_options(weight=w).loss(denominator=rule)
        equal(batch.with_options(weight=8 * w).loss(denominator=rule), plain)


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_losses_are_not_negative_and_fade_with_focusing(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, soft=data.draw(st.booleans()) and entry in SOFT))
    plain = batch.with_options(**{"gamma": 0.0} if "gamma" in batch.options else {}).loss(reduction="none")
    assert (plain >= 0).all()
    if "gamma" in batch.options:
        for gamma in (0.5, 1.0, 4.0):
            focused = batch.with_options(gamma=gamma).loss(reduction="none")
            assert (focused >= 0).all()
            assert (focused <= plain * (1 + 1e-12)).all()


@by_name(BY_ROW)
@examples
@given(data=st.data())
def test_every_layout_of_memory_is_the_same_batch(entry: LossEntry, data: st.DataObject) -> None:
    """The class axis is read through strides; an image is its pixels."""
    batch = data.draw(batches(entry, soft=data.draw(st.booleans()) and entry in SOFT, ranks=(1, 2)))
    strided = replace(batch, input=batch.input.movedim(1, -1).contiguous().movedim(-1, 1))
    assert strided.loss(reduction="none").shape == batch.input[:, 0].shape
    equal(strided.loss(reduction="none"), batch.loss(reduction="none"))

    def as_rows(values: Tensor, with_classes: bool) -> Tensor:
        return values.movedim(1, -1).reshape(-1, values.shape[1]) if with_classes else values.reshape(-1)

    v = batch.options["sample_weight"]
    flat = replace(
        batch,
        input=as_rows(batch.input, True),
        target=as_rows(batch.target, batch.target.shape == batch.input.shape),
    ).with_options(sample_weight=None if v is None else v.reshape(-1))
    equal(flat.loss(reduction="none"), batch.loss(reduction="none").reshape(-1))
    for how in MEANS:
        equal(flat.loss(**how), batch.loss(**how))


@by_name(SOFTMAX)
@examples
@given(data=st.data())
def test_narrow_dtypes_are_the_wide_answer_rounded(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(batches(entry, dtypes=(torch.float32, torch.bfloat16, torch.float16)))
    dtype = batch.input.dtype
    wide = replace(batch, input=batch.input.double())
    for how in ({"reduction": "none"}, *MEANS):
        ours, exact = batch.loss(**how), wide.loss(**how)
        assert ours.dtype == dtype
        # Half a unit of the dtype, and what float32 accumulates over shifts and scales of up to some hundreds.
        equal(ours.double(), exact.to(dtype).double(), rtol=1.01 * torch.finfo(dtype).eps, atol=3e-4)


# ------------------------------------------------------------------------------------------------------------- elements


@st.composite
def element_batches(draw: st.DrawFn, entry: LossEntry) -> Batch:
    g = torch.manual_seed(draw(st.integers(0, 2**32 - 1)))  # the global one: what a test draws beside it repeats too
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=3)))
    input = torch.randn(shape, generator=g, dtype=F64) * draw(st.sampled_from([0.1, 1.0, 10.0]))
    if entry.input == "probabilities":
        input = input.sigmoid()
    target = torch.rand(shape, generator=g, dtype=F64)
    if draw(st.booleans()):
        target = target.round()
    options: dict[str, Any] = {}
    for name in ("weight", "pos_weight"):
        if (name == "weight" or entry.formula == "sigmoid") and draw(st.booleans()):
            size = shape[draw(st.integers(0, len(shape))) :]
            options[name] = torch.rand(size, generator=g, dtype=F64).masked_fill(torch.rand(size, generator=g) < 0.2, 0)
    if entry.formula == "sigmoid" and draw(st.booleans()):
        target = target.masked_fill(torch.rand(shape, generator=g) < 0.3, -1.0)
        options["ignore_index"] = -1
    return Batch(entry, input, target, options)


@by_name(ELEMENTS)
@examples
@given(data=st.data())
def test_elements_know_nothing_of_one_another(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(element_batches(entry))
    none = batch.loss(reduction="none")
    assert none.shape == batch.input.shape
    assert (none >= 0).all()
    spread = {
        name: torch.broadcast_to(value, batch.input.shape).reshape(-1) if isinstance(value, Tensor) else value
        for name, value in batch.options.items()
    }
    flat = replace(batch, input=batch.input.reshape(-1), target=batch.target.reshape(-1), options=spread)
    equal(flat.loss(reduction="none"), none.reshape(-1))
    for i in range(flat.input.numel()):
        own = {name: value[i] if isinstance(value, Tensor) else value for name, value in spread.items()}
        alone = replace(flat, input=flat.input[i], target=flat.target[i], options=own)
        equal(alone.loss(reduction="none"), none.reshape(-1)[i])


@by_name(ELEMENTS)
@examples
@given(data=st.data())
def test_a_mean_of_elements_is_the_sum_over_its_denominator(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(element_batches(entry))
    kept = (batch.target != -1).to(F64)
    one = torch.ones((), dtype=F64)
    v, p = batch.options.get("weight", one), batch.options.get("pos_weight", one)
    positive, negative = (0.25, 0.75) if entry.name == "sigmoid_focal_loss" else (1.0, 1.0)
    mass = v * kept
    if entry.formula == "sigmoid":
        mass = mass * (p * positive * batch.target + negative * (1 - batch.target))
    total = batch.loss(reduction="sum")
    equal(total, batch.loss(reduction="none").sum())
    mass = torch.broadcast_to(mass, batch.input.shape)
    divisors = {"torch": kept.sum(), "samples": kept.sum(), "weights": mass.sum(), 2.5: 2.5}
    for rule, divisor in divisors.items():
        equal(batch.loss(reduction="mean", denominator=rule), total / divisor, rtol=1e-9, atol=1e-9)


@by_name([entry for entry in ELEMENTS if entry.formula == "sigmoid"])
@examples
@given(data=st.data())
def test_ignoring_an_element_is_deleting_it(entry: LossEntry, data: st.DataObject) -> None:
    batch = data.draw(element_batches(entry)).with_options(ignore_index=-1)
    kept = batch.target != -1
    options = {
        name: torch.broadcast_to(value, batch.input.shape)[kept] if isinstance(value, Tensor) else value
        for name, value in batch.options.items()
        if name != "ignore_index"
    }
    deleted = replace(batch, input=batch.input[kept], target=batch.target[kept], options=options)
    for how in MEANS:
        equal(batch.loss(**how), deleted.loss(**how))


@examples
@given(data=st.data())
def test_swapping_the_answers_swaps_the_focusing(data: st.DataObject) -> None:
    """Without a clip, the negative term at z is the positive one at −z."""
    batch = data.draw(element_batches(LOSSES["binary_cross_entropy_with_logits"]))
    batch = replace(batch, target=batch.target.clamp(min=0.0), options={})
    one, two = data.draw(st.sampled_from([(0.0, 2.0), (0.5, 1.0), (3.0, 0.0)]))
    alpha = data.draw(st.sampled_from([None, 0.0, 0.25, 1.0]))
    loss = batch.loss(gamma_pos=one, gamma_neg=two, alpha=alpha, reduction="none")
    other = replace(batch, input=-batch.input, target=1 - batch.target)
    swapped = other.loss(gamma_pos=two, gamma_neg=one, alpha=None if alpha is None else 1 - alpha, reduction="none")
    equal(swapped, loss)
