"""Corners where a loss once went wrong, or easily would: precision of what callers give, compilers, devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from steelyard import ClassCounts, functional, nn
from steelyard.ops import cpu
from steelyard.registry import LOSSES

LOGITS = torch.tensor([[0.3, -1.2, 0.4], [1.0, 0.5, -0.5], [0.0, 2.0, 0.1]])
LABELS = torch.tensor([0, 1, 2])
COUNTED = [functional.balanced_softmax_loss, functional.logit_adjusted_loss, functional.ldam_loss]


@pytest.mark.parametrize("function", [functional.cross_entropy, functional.nll_loss, functional.focal_loss])
def test_a_label_out_of_range_that_nobody_may_read_poisons_its_gradient_too(function: Any) -> None:
    bad = torch.tensor([0, 9, 2])
    gradient = torch.func.grad(lambda z: function(z, bad, reduction="sum"))(LOGITS)
    assert gradient[1].isnan().any()
    good = torch.func.grad(lambda z: function(z, LABELS, reduction="sum"))(LOGITS)
    assert torch.equal(gradient[[0, 2]], good[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", ["indices", "distribution"])
@pytest.mark.parametrize("name", cpu.available())
def test_a_row_of_no_weight_costs_nothing_where_smoothing_meets_a_mask(
    name: str, form: str, dtype: torch.dtype
) -> None:
    """A class of weight 0 that a mask rules out: the smoothed mass of the row weighs nothing, and NaN stays NaN."""
    infinite = torch.tensor([[-torch.inf, 1.0, 2.0], [0.0, -torch.inf, 1.0], [0.0, torch.nan, 1.0]] * 30, dtype=dtype)
    z, labels = infinite.requires_grad_(), torch.zeros(90, dtype=torch.int64)
    target = labels if form == "indices" else torch.nn.functional.one_hot(labels, 3).to(dtype)
    with cpu.using(name):
        losses = functional.cross_entropy(
            z, target, torch.tensor([0.0, 1.0, 1.0]), label_smoothing=0.1, smooth_weight="target", reduction="none"
        )
        gradient = torch.autograd.grad(losses.nan_to_num(0.0).sum(), z)[0]
    assert losses.view(30, 3)[:, :2].eq(0.0).all()
    assert losses.view(30, 3)[:, 2].isnan().all()
    assert gradient.view(30, 3, 3)[:, :2].eq(0.0).all()


def test_lists_keep_the_precision_of_python_floats() -> None:
    z, weight = LOGITS.double(), [0.1, 0.2, 0.3]
    exact = torch.tensor(weight, dtype=torch.float64)
    for name in ("weight", "logit_offset", "sample_weight"):
        listed = functional.cross_entropy(z, LABELS, reduction="sum", **{name: weight})
        assert torch.equal(listed, functional.cross_entropy(z, LABELS, reduction="sum", **{name: exact})), name


def test_a_default_dtype_of_half_precision_does_not_round_a_list() -> None:
    torch.set_default_dtype(torch.float16)
    try:
        module = nn.CrossEntropyLoss(weight=[2049.0, 70000.0, 1.0])
        loss = functional.cross_entropy(LOGITS, LABELS, weight=[2049.0, 70000.0, 1.0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert module.weight.tolist() == [2049.0, 70000.0, 1.0]
    assert torch.equal(loss, module(LOGITS, LABELS))


def test_arrays_with_negative_strides_are_numbers() -> None:
    weight = np.array([3.0, 2.0, 1.0])[::-1]
    assert torch.equal(
        functional.cross_entropy(LOGITS, LABELS, weight), functional.cross_entropy(LOGITS, LABELS, [1.0, 2.0, 3.0])
    )


@pytest.mark.parametrize("clip", [1e-8, 1e-6, 0.05])
def test_a_small_clip_stays_accurate_for_sure_negatives(clip: float) -> None:
    z = torch.tensor([2.0, 20.0, 40.0, 1e4])
    wanted_z, own_z = z.double().requires_grad_(), z.clone().requires_grad_()
    wanted = functional.asymmetric_loss(wanted_z, torch.zeros(4), clip=clip, reduction="sum")
    own = functional.asymmetric_loss(own_z, torch.zeros(4), clip=clip, reduction="sum")
    torch.testing.assert_close(own.double(), wanted, rtol=1e-6, atol=0)
    wanted.backward()
    own.backward()
    torch.testing.assert_close(own_z.grad.double(), wanted_z.grad, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("function", COUNTED, ids=lambda f: f.__name__)
def test_multi_label_counts_are_no_prior(function: Any) -> None:
    counts = ClassCounts(["a", "b", "c"], [3, 1, 2], negatives=[7, 9, 8])
    with pytest.raises(ValueError, match="'counts' must be single-label counts; got multi-label counts"):
        function(LOGITS, LABELS, counts)


@pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if entry.input != "features"])
def test_half_precision_on_a_device_without_autocast(name: str) -> None:
    entry = LOSSES[name]
    input = torch.empty(3, 3, dtype=torch.bfloat16, device="meta")
    target = torch.empty(3, 3, device="meta") if "elements" in entry.targets else LABELS.to("meta")
    rest = (torch.tensor([3, 2, 1]),) if entry.counts else ()
    assert entry.function(input, target, *rest, reduction="none").dtype == torch.bfloat16


# ------------------------------------------------------------------------------------------------------- compilers


def _programs(function: Any) -> tuple[Any, list[Any]]:
    """The function compiled whole, and a list that grows by one for each program made."""
    made: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend), made


def test_a_denominator_that_changes_with_every_batch_compiles_once_more_and_no_more() -> None:
    compiled, made = _programs(lambda z, t, d: functional.cross_entropy(z, t, denominator=d))
    for d in (1.0, 2.5, 3.25, 7.0, 11.5, 0.125):
        torch.testing.assert_close(compiled(LOGITS, LABELS, d), functional.cross_entropy(LOGITS, LABELS, denominator=d))
    assert len(made) <= 2


@pytest.mark.parametrize("function", COUNTED, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "counts", [[90, 9, 1], (90, 9, 1), ClassCounts(["a", "b", "c"], [90, 9, 1])], ids=["list", "tuple", "ClassCounts"]
)
def test_losses_with_counts_compile_whatever_holds_the_counts(function: Any, counts: Any) -> None:
    compiled, _ = _programs(lambda z, t: function(z, t, counts))
    torch.testing.assert_close(compiled(LOGITS, LABELS), function(LOGITS, LABELS, counts))


class _Called(torch.nn.Module):
    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self.loss(input, target)


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0]), LABELS),
        (nn.CrossEntropyLoss(), LOGITS.softmax(1)),
        (nn.FocalLoss(), LABELS),
        (nn.BCEWithLogitsLoss(), LOGITS.sigmoid()),
        (nn.NLLLoss(), LABELS),
    ],
    ids=["cross entropy", "soft targets", "focal", "bce", "nll"],
)
def test_export_leaves_the_batch_open(loss: torch.nn.Module, target: Tensor) -> None:
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        _Called(loss), (LOGITS, target), dynamic_shapes={"input": {0: batch}, "target": {0: batch}}
    ).module()
    more, labels = LOGITS.repeat(4, 1), target.repeat(4, *[1] * (target.dim() - 1))
    torch.testing.assert_close(program(more, labels), loss(more, labels))


def test_modules_are_made_where_numbers_cannot_be_read() -> None:
    with FakeTensorMode():
        nn.CrossEntropyLoss(weight=torch.ones(3))
        nn.BalancedSoftmaxLoss(torch.ones(3, dtype=torch.int64))
    with torch.device("meta"):
        assert nn.CrossEntropyLoss(weight=[1.0, 2.0]).weight.is_meta
