"""A step cut into micro-batches and over ranks is the step of the one full batch."""

from __future__ import annotations

import pytest
import rank_jobs as jobs
import ranks
import torch
from loss_examples import example, examples

from steelyard import nn
from steelyard.distributed import _group, loss_denominator

EXACT = {"rtol": 0.0, "atol": 1e-10}


@pytest.mark.parametrize("rule", ["torch", "weights", "samples"])
@pytest.mark.parametrize("weighted_rows", [False, True])
@pytest.mark.parametrize(("entry", "targets", "rich"), examples())
def test_micro_batches_add_up_to_the_full_batch(entry, targets, rich, weighted_rows, rule):
    call = example(entry, targets, rows=7, dtype=torch.float64, rich=rich)
    loss = call.module(denominator=rule)
    rows = torch.linspace(0.5, 2.0, 7, dtype=torch.float64) if weighted_rows else None
    x = call.input.requires_grad_()
    full = loss(x, call.target, sample_weight=rows)
    (wanted,) = torch.autograd.grad(full, x)
    cut = [slice(0, 3), slice(3, 6), slice(6, 7)]
    given = None if rows is None else [rows[part] for part in cut]
    divisor = loss_denominator(loss, (call.target[part] for part in cut), sample_weight=given)
    total = sum(
        loss(x[part], call.target[part], sample_weight=None if rows is None else rows[part], denominator=divisor)
        for part in cut
    )
    torch.testing.assert_close(total, full, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(total, x)[0], wanted, **EXACT)


@pytest.mark.parametrize("rule", ["torch", "weights"])
@pytest.mark.parametrize("smooth_weight", ["class", "target"])
@pytest.mark.parametrize("soft", [False, True])
def test_smoothed_and_soft_targets_count_as_the_loss_counts_them(rule, smooth_weight, soft):
    torch.manual_seed(0)
    logits = torch.randn(5, 4, 3, dtype=torch.float64)
    target = torch.rand(5, 4, 3, dtype=torch.float64) if soft else torch.randint(4, (5, 3), dtype=torch.uint8)
    loss = nn.CrossEntropyLoss([1.0, 2.0, 3.0, 9.0], label_smoothing=0.3, smooth_weight=smooth_weight, denominator=rule)
    whole = loss(logits, target)
    torch.testing.assert_close(loss(logits, target, denominator=loss_denominator(loss, target)), whole, **EXACT)


def test_deferred_weights_do_not_count_before_they_act():
    loss = nn.DeferredReweighting(nn.CrossEntropyLoss([1.0, 5.0]), start_epoch=1)
    assert loss_denominator(loss, torch.tensor([1, 1])).item() == 2.0
    loss.set_epoch(1)
    assert loss_denominator(loss, torch.tensor([1, 1])).item() == 10.0


def test_it_is_a_float64_number_on_the_device_of_the_targets():
    loss = nn.CrossEntropyLoss([1.0, 5.0]).to("meta")
    answer = loss_denominator(loss, torch.zeros(3, dtype=torch.long, device="meta"))
    assert (answer.device.type, answer.dtype, answer.shape) == ("meta", torch.float64, ())


def test_a_label_of_8_bits_is_not_the_ignored_one():
    target = torch.tensor([156], dtype=torch.uint8)  # −100 as 8 bits
    assert loss_denominator(nn.CrossEntropyLoss(torch.arange(200.0)), target).item() == 156.0


def test_no_rows_at_all_are_zero():
    assert loss_denominator(nn.CrossEntropyLoss(), []).item() == 0.0
    assert loss_denominator(nn.CrossEntropyLoss([1.0, 2.0]), torch.empty(0, dtype=torch.long)).item() == 0.0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.nn.CrossEntropyLoss(), torch.tensor([0])), TypeError, "'loss' must be a loss of steelyard.nn"),
        ((nn.CrossEntropyLoss(reduction="sum"), torch.tensor([0])), ValueError, "reduction='mean'"),
        ((nn.CrossEntropyLoss(denominator=3.0), torch.tensor([0])), ValueError, "whose denominator is a rule"),
        ((nn.CrossEntropyLoss(), 3), TypeError, "'targets' must be one for each micro-batch"),
        ((nn.CrossEntropyLoss(), [3]), TypeError, "'targets' must be a tensor or an iterable"),
        ((nn.CrossEntropyLoss(), torch.tensor([True])), TypeError, "'targets' must be class indices"),
        ((nn.NLLLoss(), torch.tensor([0.5])), TypeError, "'targets' must be class indices"),
        ((nn.CrossEntropyLoss([1.0, 2.0]), torch.tensor([2])), IndexError, "must be in [0, 2)"),
        ((nn.CrossEntropyLoss([1.0, 2.0]), torch.ones(1, 3)), ValueError, "probabilities of 2 classes"),
        ((nn.CrossEntropyLoss(), torch.tensor([0]), "world"), TypeError, "'group' must be a process group"),
        ((nn.CrossEntropyLoss(), torch.tensor([0]), None, 1), TypeError, "'gradients_averaged' must be True or False"),
    ],
)
def test_what_it_refuses(arguments, error, words):
    with pytest.raises(error) as caught:
        loss_denominator(*arguments)
    assert words in str(caught.value)
    assert str(caught.value).startswith("loss_denominator: ")


def test_row_weights_must_be_in_step():
    with pytest.raises(ValueError, match="'sample_weight' must be one for each of the 1 micro-batches; got 2"):
        loss_denominator(nn.CrossEntropyLoss(), [torch.tensor([0])], sample_weight=[[1.0], [1.0]])


@pytest.mark.parametrize("size", [2, 3])
def test_uneven_ranks_take_the_step_of_the_full_batch(size):
    """Of two ranks, one has only rows that are ignored; of three, one has no rows."""
    whole = jobs.whole()
    for rank, (gradients, failed) in enumerate(ranks.run(jobs.both, size)):
        for (_, exact), found in gradients.items():
            if exact:
                torch.testing.assert_close(found, whole, **EXACT)
            else:  # PyTorch's plain way: the mean of the means
                assert max((a - b).abs().max().item() for a, b in zip(found, whole, strict=True)) > 1e-3
        told = "LabelError: loss_denominator: 'target'" if rank == 1 else "RuntimeError: loss_denominator: another"
        assert failed.startswith(told), failed


@pytest.mark.parametrize(
    ("backends", "device"),
    [("cpu:gloo,cuda:nccl", "cuda"), ("cuda:nccl", "cuda"), ("cpu:gloo,cuda:gloo", "cpu"), ("cpu:gloo", "cpu")],
)
def test_a_group_is_asked_for_the_device_of_its_backends(monkeypatch, backends, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(_group.dist, "get_backend_config", lambda group: backends)
    assert _group.device_of(object()).type == device
    assert _group.device_of(None).type == "cpu"
