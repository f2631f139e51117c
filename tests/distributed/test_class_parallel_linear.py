"""A classifier in parts is the classifier in one: its loss, gradients, predictions, first weights and checkpoints."""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from typing import Any

import class_parallel_linear_jobs as jobs
import pytest
import ranks
import torch

from steelyard import nn
from steelyard.distributed import ClassParallelLinearCrossEntropy, class_parallel_cross_entropy, loss_denominator

NAME = "ClassParallelLinearCrossEntropy"
SIZES = [2, 3, 4]


@cache
def found() -> dict[int, list[dict[str, Any]]]:
    """What every job found on each rank of two, three and four; three write the checkpoint that the others load."""
    with tempfile.TemporaryDirectory() as folder:
        return {size: ranks.run(jobs.everything, size, folder) for size in (3, 2, 4)}


@pytest.mark.parametrize("size", SIZES)
def test_losses_and_gradients_to_second_order_are_those_of_the_whole(size):
    """Of eleven classes, three and one: some ranks have none."""
    assert [rank["beside_the_whole"] for rank in found()[size]] == [[]] * size


@pytest.mark.parametrize("size", SIZES)
def test_predictions_are_the_best_of_all_classes(size):
    assert [rank["predictions"] for rank in found()[size]] == [[]] * size


def test_any_number_of_ranks_starts_with_the_same_weights():
    alone = jobs.first_weights(0, 1)
    for everyone in found().values():
        for rank in everyone:
            for mine, theirs in zip(rank["first_weights"], alone, strict=True):
                assert torch.equal(mine, theirs)


def test_first_weights_are_spread_as_those_of_a_linear_layer():
    torch.manual_seed(0)
    layer = ClassParallelLinearCrossEntropy(16, 5000, bias=True).linear
    for values in (layer.weight, layer.bias):
        shares = (values.detach().flatten() * 2.0 + 0.5).sort().values  # in [0, 1], as 1/√16 is a quarter
        steps = torch.linspace(0.0, 1.0, len(shares))
        assert (shares - steps).abs().max() < 2.0 / len(shares) ** 0.5  # Kolmogorov: of 1000 samples, 1 is off by more
    blocks = layer.weight.detach()[: 9 * 512].reshape(9, -1)  # each from a seed next to the one before
    assert (blocks.corrcoef() - torch.eye(9)).abs().max() < 4.0 / blocks.shape[1] ** 0.5
    assert len(layer.weight.flatten().unique()) > 75_000  # of 80,000 numbers out of 2^24: no block comes twice


def test_a_checkpoint_of_three_ranks_goes_on_with_two_or_four():
    """With Adam's state; and it is that of the whole, by the names of LinearCrossEntropyLoss."""
    written = found()[3][0]["checkpoint"]
    whole = nn.LinearCrossEntropyLoss(jobs.SIZE, 11, bias=True, dtype=torch.float64, weight=[1.0] * 10 + [3.0])
    for mine, theirs in zip(whole.linear.parameters(), jobs.made().linear.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    losses, _ = jobs.trained(whole, 6)
    assert written["before"] + written["after"] == pytest.approx(losses, rel=1e-12)
    for size in SIZES:
        for rank in found()[size]:
            assert rank["checkpoint"]["after"] == pytest.approx(losses[3:], rel=1e-12)
    assert written["shapes"] == {
        name: (tuple(value.shape), "linear" in name) for name, value in whole.state_dict().items()
    }


@pytest.mark.parametrize("what", ["input", "weight", "bias", "loss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_dtypes_are_no_worse_than_eager(dtype, what):
    for rank in found()[2]:
        ours, eager = (rank["narrow"][f"{dtype} {what} {who}"] for who in ("ours", "eager"))
        assert ours <= 1.5 * eager


@pytest.mark.parametrize("size", SIZES)
def test_ranks_exchange_numbers_of_rows_and_the_gradient_of_features(size):
    rows, number = 10, 4
    for rank in found()[size]:
        assert len(rank["communicated"]) == 4
        for training, predicting in rank["communicated"].values():  # whatever the classes, in however many chunks
            assert training == [
                ("all_gather", 216), ("all_reduce", rows * number), ("all_reduce", 2 * rows * number),
                ("all_reduce", rows * jobs.SIZE * number),
            ]  # fmt: skip
            assert predicting == [
                ("all_gather", 32), ("all_reduce", rows * number), ("all_reduce", rows * number),
                ("all_gather", 3 * rows * number), ("all_gather", 3 * rows * 8),
            ]  # fmt: skip


def test_ranks_that_disagree_all_raise():
    same = "must be the same on every rank of the group; got"
    words = {
        "rows": f"ValueError: {NAME}: 'input' {same} 4 rows on rank 0, 3 rows on rank 1.",
        "target": f"ValueError: {NAME}: 'target' {same} values of checksum",
        "gradient": f"ValueError: {NAME}: 'requires_grad' {same} of linear.weight on rank 0, of input, "
        "linear.weight on rank 1.",
        "predicted rows": f"ValueError: {NAME}.predict: 'input' {same} 4 rows on rank 0, 3 rows on rank 1.",
        "k": f"ValueError: {NAME}.predict: 'k' {same} 3 on rank 0, 2 on rank 1.",
    }
    alone = {
        "dtype": f"TypeError: {NAME}: 'input' must be of the dtype of the layer, torch.float32",
        "size": f"ValueError: {NAME}: 'input' must be of shape (5,) or (N, 5)",
        "k out of range": f"ValueError: {NAME}.predict: 'k' must be from 1 to 11; got 12",
    }
    first, second = (rank["disagreements"] for rank in found()[2])
    assert set(first) == words.keys() | alone.keys()
    for label, text in words.items():
        assert first[label].startswith(text), first[label]
        assert second[label].startswith(text), second[label]
    for label, text in alone.items():
        assert second[label].startswith(text), second[label]
        assert "rank 1 of the group failed" in first[label]


# ------------------------------------------------------------------------------------------------------- one process


def test_logits_are_never_whole_nor_saved(monkeypatch):
    made = []
    real = torch.nn.functional.linear

    def watched(*args):
        logits = real(*args)
        made.append(logits.shape)
        return logits

    monkeypatch.setattr("steelyard.distributed._linear_rows.linear", watched)
    module = ClassParallelLinearCrossEntropy(4, 1000, memory_budget=3 * 1000 * 4, label_smoothing=0.1)
    x, saved = torch.randn(10, 4, requires_grad=True), []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module(x, torch.arange(10))
    loss.backward()
    assert made == 2 * [(3, 1000), (3, 1000), (3, 1000), (1, 1000)]
    parameters = {module.linear.weight.data_ptr(), x.data_ptr()}
    assert all(tensor.numel() <= 10 for tensor in saved if tensor.data_ptr() not in parameters)


def test_learned_offsets_get_their_gradient():
    module = ClassParallelLinearCrossEntropy(4, 7, dtype=torch.float64, logit_offset=torch.zeros(7).double())
    module.logit_offset.requires_grad_()
    x, target = torch.randn(5, 4, dtype=torch.float64), torch.arange(5)
    module(x, target).backward()
    offset = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(x @ module.linear.weight.detach().t() + offset, target).backward()
    torch.testing.assert_close(module.logit_offset.grad, offset.grad)


def test_autocast_computes_in_the_dtype_of_the_layer():
    module, target = ClassParallelLinearCrossEntropy(4, 7, memory_budget=1), torch.tensor([1, 2])
    x = torch.randn(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x.bfloat16(), target)
    torch.testing.assert_close(found, module(x.bfloat16().float(), target), rtol=0.0, atol=0.0)


def test_it_goes_with_denominators_counts_and_late_weights():
    torch.manual_seed(1)
    loss = ClassParallelLinearCrossEntropy.from_counts([90, 9, 1], in_features=4, smooth_weight="target")
    assert loss.weight.tolist() == [1.0, 10.0, 90.0]
    x, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 0, 1])
    divisor = loss_denominator(loss, target.split(3))
    parts = sum(loss(a, b, denominator=divisor) for a, b in zip(x.split(3), target.split(3), strict=True))
    torch.testing.assert_close(parts, loss(x, target))
    late = nn.DeferredReweighting(loss, start_epoch=1)
    plain = class_parallel_cross_entropy(x @ loss.linear.weight.t(), target)
    torch.testing.assert_close(late(x, target), plain)


def test_a_copy_and_a_checkpoint_alone():
    module = ClassParallelLinearCrossEntropy(4, 7, bias=True, weight=torch.rand(7))
    other = ClassParallelLinearCrossEntropy(4, 7, bias=True)
    other.load_state_dict(module.state_dict())
    x, target = torch.randn(3, 4), torch.tensor([0, 1, 2])
    assert other(x, target) == module(x, target) == copy.deepcopy(module)(x, target)
    assert "here=0..7" in repr(module)


def test_no_rows():
    module = ClassParallelLinearCrossEntropy(4, 7, empty="zero")
    module(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).backward()
    assert torch.equal(module.linear.weight.grad, torch.zeros(7, 4))
    assert module.predict(torch.zeros(0, 4), 2).classes.shape == (0, 2)


def test_a_class_that_is_ruled_out_is_still_one():
    module = ClassParallelLinearCrossEntropy(1, 3)
    found = module.predict(torch.ones(1, 1), 3, logit_offset=[-torch.inf, 0.0, -torch.inf])
    assert sorted(found.classes[0].tolist()) == [0, 1, 2]
    assert found.probabilities[0].tolist() == [1.0, 0.0, 0.0]


def make(**options):
    return ClassParallelLinearCrossEntropy(**({"in_features": 4, "num_classes": 3} | options))


X, Y = torch.zeros(2, 4), torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: make(in_features=0), ValueError, "'in_features' must be ≥ 1"),
        (lambda: make(num_classes=2.0), TypeError, "'num_classes' must be an integer"),
        (lambda: make(bias=1), TypeError, "'bias' must be True or False"),
        (lambda: make(group="world"), TypeError, "'group' must be a process group"),
        (lambda: make(memory_budget=0), ValueError, "'memory_budget' must be a number of bytes"),
        (lambda: make(weight=[1.0]), ValueError, "'weight' must be of shape (3,)"),
        (lambda: make(logit_offset=[1.0]), ValueError, "'logit_offset' must be of shape (3,)"),
        (lambda: make(reduction="average"), ValueError, "'reduction' must be one of"),
        (lambda: make(ignore_index=None), TypeError, "'ignore_index' must be an integer"),
        (lambda: make(label_smoothing=2.0), ValueError, "'label_smoothing' must be a number in [0, 1]"),
        (lambda: make(smooth_weight="row"), ValueError, "'smooth_weight' must be one of"),
        (lambda: make(denominator="rows"), ValueError, "'denominator' must be"),
        (lambda: make(empty="none"), ValueError, "'empty' must be one of"),
        (lambda: make()(None, Y), TypeError, "'input' must be a tensor of features"),
        (lambda: make()(X[:, :2], Y), ValueError, "'input' must be of shape (4,) or (N, 4)"),
        (lambda: make()(X.double(), Y), TypeError, "'input' must be of the dtype of the layer"),
        (lambda: make()(X.to("meta"), Y), ValueError, "'input' must be on the device of the layer, cpu"),
        (lambda: make()(X, Y + 1), IndexError, "'target' must be in [0, 3)"),
        (lambda: make()(X, Y[:1]), ValueError, "'target' must be indices of shape (2,)"),
        (lambda: make()(X, Y, sample_weight=[1.0]), ValueError, "'sample_weight' must be of shape (2,)"),
        (lambda: make()(X, Y, denominator=-1.0), ValueError, "'denominator' must be"),
        (lambda: make().predict(X, 0), ValueError, "'k' must be from 1 to 3"),
        (lambda: make().predict(X, 4), ValueError, "'k' must be from 1 to 3"),
        (lambda: make().predict(X, logit_offset=[1.0]), ValueError, "'logit_offset' must be of shape (3,)"),
        (lambda: make().posterior(X), ValueError, "Use predict(input, k, logit_offset=...)"),
    ],
)  # fmt: skip
def test_what_it_refuses(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
    assert str(caught.value).startswith(NAME)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_module_in_a_group_goes_through_what_training_scripts_do(size: int) -> None:
    assert [rank["kept"] for rank in found()[size]] == [[]] * size


def test_the_meta_device_draws_nothing() -> None:
    with torch.device("meta"):
        module = ClassParallelLinearCrossEntropy(4, 7, bias=True)
    assert module.linear.weight.is_meta
    module.to_empty(device="cpu").linear.reset_parameters(seed=3)
    again = ClassParallelLinearCrossEntropy(4, 7, bias=True)
    again.linear.reset_parameters(seed=3)
    assert torch.equal(module.linear.weight, again.linear.weight)


def test_weights_of_sharded_probabilities_have_no_sum_on_one_rank() -> None:
    module = ClassParallelLinearCrossEntropy(4, 3, weight=[1.0, 2.0, 3.0], denominator="weights")
    with pytest.raises(ValueError, match="'loss' must be one with another rule where probabilities are sharded; got"):
        loss_denominator(module, torch.full((2, 3), 1 / 3))
    assert loss_denominator(module, torch.tensor([0, 2])).item() == 4.0
