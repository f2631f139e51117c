"""A loss whose classes are spread over ranks is the loss of all classes in one place."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import class_parallel_jobs as jobs
import oracle
import pytest
import ranks
import torch
from kernel_cases import Rows
from kernel_judge import Judge, exact_rows
from torch.nn import functional as F

import steelyard
from steelyard.distributed import _sharded, class_parallel_cross_entropy
from steelyard.distributed._shards import even_shards

NAME = "class_parallel_cross_entropy: "
SIZES = [2, 3, 4]


@cache
def found(size: int) -> list[dict[str, Any]]:
    """What every job found on each of ``size`` ranks: spawned once."""
    return ranks.run(jobs.everything, size)


# ------------------------------------------------------------------------------------------------ on ranks: the numbers


@pytest.mark.parametrize("size", SIZES)
def test_every_setting_gives_the_loss_and_gradient_of_the_whole(size):
    cases = sum(1 for _ in jobs.cases(jobs.EVERY[size]))
    for rank in found(size):
        assert rank["product"]["wrong"] == []
        assert rank["product"]["count"] == 2 * cases
        assert rank["product"]["worst"] < 1e-10


def test_the_cases_hold_every_combination_of_settings():
    seen = {case[1:8] for case in jobs.cases(jobs.EVERY[3])}
    every = {case[1:8] for case in jobs.cases(1)}
    assert seen == every
    for size in SIZES:
        assert {case[8] for case in jobs.cases(jobs.EVERY[size])} == set(range(len(jobs.REDUCTIONS)))
        assert {case[9] for case in jobs.cases(jobs.EVERY[size])} == set(jobs.SHAPES)


@pytest.mark.parametrize("size", SIZES)
def test_infinite_masked_ignored_and_narrow_rows(size):
    assert [rank["same_as_whole"] for rank in found(size)] == [[]] * size


@pytest.mark.parametrize("size", [2, 3])
def test_derivatives_of_everything_to_second_order(size):
    assert [rank["derivatives"] for rank in found(size)] == [[]] * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_dtypes_are_no_worse_than_eager(dtype):
    loss_judge, gradient_judge = Judge(dtype), Judge(dtype)
    for number, settings in enumerate(jobs.narrow_rows(dtype)):
        rows = Rows(**settings)
        parts = [rank["half"][f"{dtype} {number}"] for rank in found(2)]
        assert all(torch.equal(parts[0][0], loss) for loss, _ in parts)
        gradient = torch.cat([gradient for _, gradient in parts], 1)
        assert gradient.dtype == parts[0][0].dtype == dtype
        loss, exact_gradient = exact_rows(rows)
        eager_loss, eager_gradient = replace(rows, input=rows.input.to(torch.float32)).reference()
        loss_judge.add(f"loss {number}", parts[0][0], loss, eager_loss)
        gradient_judge.add(f"gradient {number}", gradient, exact_gradient, eager_gradient)
    loss_judge.verdict()
    gradient_judge.verdict()


# ------------------------------------------------------------------------------------------- on ranks: what it costs


@pytest.mark.parametrize("size", SIZES)
def test_ranks_exchange_numbers_of_rows_and_none_for_the_gradient(size):
    rows, number = 10, 4
    sums = {
        ("plain", False): 2, ("plain", True): 3,
        ("weight", False): 3, ("weight", True): 3,
        ("weight by target", False): 3, ("weight by target", True): 4,
        ("smoothed weight", False): 4, ("smoothed weight", True): 3,
    }  # fmt: skip
    for rank in found(size):
        assert len(rank["communicated"]) == 2 * len(sums)
        for (_, label, soft), calls in rank["communicated"].items():  # whatever the number of classes
            assert calls == [
                ("all_gather", 216),
                ("all_reduce", rows * number),
                ("all_reduce", sums[label, soft] * rows * number),
            ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_only_the_logits_and_numbers_of_rows_are_saved(dtype, soft):
    rows, classes = 50, 400
    logits = torch.randn(rows, classes, dtype=dtype, requires_grad=True)
    target = torch.rand(rows, classes) if soft else torch.randint(classes, (rows,))
    saved = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = class_parallel_cross_entropy(
            logits, target, torch.rand(classes), label_smoothing=0.1, logit_offset=torch.rand(classes),
            sample_weight=torch.rand(rows), smooth_weight="target",
        )  # fmt: skip
    given = {logits.data_ptr(), target.data_ptr()}
    own = [tensor for tensor in saved if tensor.data_ptr() not in given]
    assert sum(tensor.data_ptr() == logits.data_ptr() for tensor in saved) == 1
    assert all(tensor.shape in {(rows,), (classes,), ()} for tensor in own)
    assert sum(tensor.numel() for tensor in own) <= 6 * rows + 2 * classes
    loss.backward()


# ----------------------------------------------------------------------------------- on ranks: those that do not agree

WORDS = {
    "rows": "'local_logits' must be the same on every rank of the group; got 4 rows on rank 0, 3 rows on rank 2. "
    "All ranks take the same rows, and each its own classes.",
    "as many rows": "'local_logits' must be the same on every rank of the group; got 2 axes on rank 0, 3 axes on",
    "axes": "'local_logits' must be the same on every rank of the group; got 2 axes",
    "dtype": "'local_logits' must be the same on every rank of the group; got torch.float32 on rank 0, torch.float64",
    "form": "'target' must be the same on every rank of the group; got indices on rank 0, probabilities on rank 2",
    "labels": "'target' must be the same on every rank of the group; got values of checksum",
    "out of range": "'target' must be the same on every rank of the group; got values of checksum",
    "out of range everywhere": "'target' must be in [0, 6) or ignore_index=-100; got 99 at position (3,)",
    "weight": "'weight' must be the same on every rank of the group; got none on rank 0, one on rank 2",
    "length of weight": "'weight' must be of shape (6,) for all classes or (2,) for those of the rank; got shape (3,) "
    "on rank 2",
    "weight of all classes": "'weight' must be of all classes on every rank, or of its own on every rank; got both",
    "offset": "'logit_offset' must be the same on every rank of the group; got none on rank 0, one on rank 2",
    "sample_weight": "'sample_weight' must be the same on every rank of the group; got none on rank 0, one on rank 2",
    "values of sample_weight": "'sample_weight' must be the same on every rank of the group; got values of checksum",
    "smoothing": "'label_smoothing' must be the same on every rank of the group; got 0.2 on rank 0, 0.1 on rank 2",
    "smooth_weight": "'smooth_weight' must be the same on every rank of the group; got class on rank 0, target on",
    "ignore_index": "'ignore_index' must be the same on every rank of the group; got -100 on rank 0, 0 on rank 2",
    "reduction": "'reduction' must be the same on every rank of the group; got mean on rank 0, sum on rank 2",
    "denominator": "'denominator' must be the same on every rank of the group; got torch on rank 0, samples on rank 2",
    "number": "'denominator' must be the same on every rank of the group; got 3.0 on rank 0, 2.0 on rank 2",
    "empty": "'empty' must be the same on every rank of the group; got nan on rank 0, zero on rank 2",
    "gradients": "'requires_grad' must be the same on every rank of the group; got of nothing on rank 0, of weight on "
    "rank 2",
    "gradients of others": "'requires_grad' must be the same on every rank of the group; got of weight on rank 0, of "
    "logit_offset on rank 2",
    "gradients of logits": "'requires_grad' must be the same of the logits of every rank; got True on some, False on",
    "shape of rows": "'local_logits' must be the same on every rank of the group; got rows in a shape of checksum",
    "values of weight": "'weight' must be the same on every rank of the group where it is of all classes; got values",
    "no classes": "'local_logits' must be of at least one class on one of the ranks",
    "shards of some": "'shards' must be the same on every rank of the group; got none on rank 0, a list of checksum",
    "shards of others": "'shards' must be the same on every rank of the group; got a list of checksum",
}
FAILS_ALONE = {
    "NaN in weight": "ValueError: class_parallel_cross_entropy: 'weight' must be finite; got nan",
    "no smoothing": "ValueError: class_parallel_cross_entropy: 'label_smoothing' must be a number in [0, 1]",
    "no tensor": "TypeError: class_parallel_cross_entropy: 'local_logits' must be a tensor of logits; got None",
    "broken": "KeyError: 'broken on purpose'",
    "shards": "ValueError: class_parallel_cross_entropy: 'shards' must be numbers ≥ 0, 2 at position 2; got [2, 2, 3]",
}


@pytest.mark.parametrize("size", [2, 3])
def test_a_rank_without_classes_goes_along(size):
    assert [rank["without_classes"] for rank in found(size)] == [[]] * size


def test_ranks_that_disagree_all_raise():
    told = [rank["disagreements"] for rank in found(3)]
    assert set(told[0]) == WORDS.keys() | FAILS_ALONE.keys()
    for label, words in WORDS.items():
        for rank in told:
            error = rank[label].split(": ")[0]
            assert error in {"ValueError", "LabelError"}, rank[label]
            assert f"{NAME}{words}" in rank[label]


def test_a_rank_that_fails_alone_takes_the_others_with_it():
    told = [rank["disagreements"] for rank in found(3)]
    for label, words in FAILS_ALONE.items():
        assert told[2][label].startswith(words), told[2][label]
        for rank in told[:2]:
            assert rank[label] == f"RuntimeError: {NAME}rank 2 of the group failed; the message there says why."


def test_without_an_exchange_ranks_that_disagree_get_nan():
    for rank in found(3):
        told = rank["unexchanged"]
        for label in ("same", "composed"):
            assert told[label] == pytest.approx(told["expected"], rel=1e-12)
        assert {name for name, _ in told["calls"]} == {"all_reduce"}
        differing = {(label, learned) for label in ("labels", "smoothing") for learned in (False, True)}
        assert all(math.isnan(told[case]) for case in differing)


# ---------------------------------------------------------------------------------------------------- on ranks: DTensor


def test_dtensors_of_tensor_parallelism():
    """Beside the whole, and beside PyTorch's loss_parallel where that can do it."""
    for rank in found(4):
        assert rank["dtensors"]["wrong"] == []
        sharded, replicated, partial, group, soft, rows, mesh, plain, shards = rank["dtensors"]["told"]
        for text in (sharded, replicated, partial):
            assert text.startswith(f"ValueError: {NAME}'local_logits' must be a DTensor with Shard(1) on one axis")
        assert group.startswith(f"ValueError: {NAME}'group' must be None for a DTensor")
        assert "'target' must be indices of shape (6,)" in soft
        assert "'target' must be a DTensor with Replicate()" in rows
        assert "'weight' must be a plain tensor, or a DTensor on the mesh of 'local_logits'" in mesh
        assert "'target' must be a plain tensor, or a DTensor on the mesh of 'local_logits'" in plain
        assert "'shards' must be None for a DTensor" in shards


def test_even_shards_are_those_of_torch_chunk():
    for classes in range(1, 12):
        for size in range(1, 6):
            wanted = [len(part) for part in torch.arange(classes).chunk(size)]
            assert even_shards(classes, size) == wanted + [0] * (size - len(wanted))


# ------------------------------------------------------------------------------------------------------- one process


@pytest.mark.parametrize("rule", ["torch", "weights", "samples"])
@pytest.mark.parametrize("smooth_weight", ["class", "target"])
@pytest.mark.parametrize("soft", [False, True])
def test_one_process_holds_all_classes(soft, smooth_weight, rule):
    """Beside the formula in 50 digits."""
    torch.manual_seed(3)
    x = torch.randn(5, 7, dtype=torch.float64)
    target = torch.rand(5, 7, dtype=torch.float64) if soft else torch.tensor([0, 6, -100, 2, 2])
    weight, rows = torch.rand(7, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    options = {"label_smoothing": 0.2, "smooth_weight": smooth_weight}
    exact = oracle.reduced(
        oracle.softmax_rows(
            x.tolist(), target.tolist(), weight=weight.tolist(), sample_weight=rows.tolist(),
            logit_offset=weight.tolist(), **options,
        ), "mean", rule, "nan",
    )  # fmt: skip
    found = class_parallel_cross_entropy(
        x, target, weight, sample_weight=rows, logit_offset=weight, denominator=rule, **options
    )
    assert found.item() == pytest.approx(float(exact.value), rel=1e-13)


def test_large_inputs_go_in_blocks(monkeypatch):
    torch.manual_seed(4)
    x = torch.randn(37, 11, 3, dtype=torch.bfloat16, requires_grad=True)
    target, offset = torch.randint(11, (37, 3)), torch.randn(37, 11, 3)
    rows, upstream = torch.rand(37, 3), torch.randn(37, 3, dtype=torch.bfloat16)

    def run():
        loss = class_parallel_cross_entropy(
            x, target, torch.arange(11.0), sample_weight=rows, logit_offset=offset, label_smoothing=0.1,
            reduction="none",
        )  # fmt: skip
        return loss, torch.autograd.grad(loss, x, upstream)[0]

    whole = run()
    monkeypatch.setitem(_sharded._ELEMENTS, "cpu", 100)
    assert sum(1 for _ in _sharded.blocks(x)) == 13
    for a, b in zip(run(), whole, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_of_any_layout(channels_last):
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    x = (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    target = torch.randint(5, (2, 3, 4))
    found, wanted = class_parallel_cross_entropy(x, target), F.cross_entropy(x, target)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(wanted, x))


def test_the_logits_are_left_alone():
    x = torch.randn(3, 4, requires_grad=True)
    before = x.detach().clone()
    class_parallel_cross_entropy(x, torch.tensor([0, 1, 2]), label_smoothing=0.1).backward()
    assert torch.equal(x, before)


def test_autocast_gives_float32():
    x, target = torch.randn(3, 4, dtype=torch.bfloat16), torch.tensor([0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        assert class_parallel_cross_entropy(x, target).dtype == torch.float32
    assert class_parallel_cross_entropy(x, target).dtype == torch.bfloat16


def test_a_mean_over_nothing():
    x, target = torch.randn(2, 3, requires_grad=True), torch.tensor([-100, -100])
    assert class_parallel_cross_entropy(x, target).isnan()
    zero = class_parallel_cross_entropy(x, target, empty="zero")
    zero.backward()
    assert zero == 0.0
    assert torch.equal(x.grad, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=f"{NAME}the mean must have something to divide by"):
        class_parallel_cross_entropy(x, target, empty="raise")


X, Y = torch.zeros(2, 3), torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((None, Y), {}, TypeError, "'local_logits' must be a tensor of logits"),
        ((X.long(), Y), {}, TypeError, "'local_logits' must be a floating-point tensor"),
        ((X[0, 0], Y), {}, ValueError, "'local_logits' must be of shape (C_local,), (N, C_local)"),
        ((X[:, :0], Y), {}, ValueError, "'local_logits' must be of at least one class on one of the ranks"),
        (
            (X, Y[:1]),
            {},
            ValueError,
            "'target' must be indices of shape (2,), integer, or probabilities of shape (2, 3)",
        ),
        ((X, Y.float()), {}, TypeError, "for 'local_logits' of shape (2, 3)"),
        ((X, Y + 1), {}, IndexError, "'target' must be in [0, 3)"),
        ((X, Y, [1.0]), {}, ValueError, "'weight' must be of shape (3,) for all classes or (3,) for those of the rank"),
        ((X, Y, X), {}, ValueError, "'weight' must be of shape (C,) or (C_local,), one number for each class; got"),
        ((X, Y, [math.inf, 1.0, 1.0]), {}, ValueError, "'weight' must be finite"),
        ((X, Y, [1.0, 1.0, math.nan]), {}, ValueError, "'weight' must be finite"),
        ((X, Y, "abc"), {}, TypeError, "'weight' must be numbers, one for each class"),
        ((X, Y), {"logit_offset": [0.0, math.nan, 0.0]}, ValueError, "'logit_offset' must be finite or -inf"),
        ((X, Y), {"logit_offset": torch.zeros(2, 2)}, ValueError, "one number for each class, or (2, 3); got"),
        ((X, Y), {"logit_offset": torch.zeros(2)}, ValueError, "'logit_offset' must be of shape (3,) for all classes"),
        ((X, Y), {"sample_weight": [1.0]}, ValueError, "'sample_weight' must be of shape (2,)"),
        ((X, Y), {"ignore_index": 1.5}, TypeError, "'ignore_index' must be an integer"),
        ((X, X.softmax(1)), {"ignore_index": 0}, ValueError, "'ignore_index' must be left alone"),
        ((X, Y), {"reduction": "average"}, ValueError, "'reduction' must be one of"),
        ((X, Y), {"label_smoothing": 1.5}, ValueError, "'label_smoothing' must be a number in [0, 1]"),
        ((X, Y), {"smooth_weight": "row"}, ValueError, "'smooth_weight' must be one of"),
        ((X, Y), {"denominator": "rows"}, ValueError, "'denominator' must be"),
        ((X, Y), {"empty": "none"}, ValueError, "'empty' must be one of"),
        ((X, Y), {"group": "world"}, TypeError, "'group' must be a process group"),
        ((X, Y), {"shards": [2]}, ValueError, "'shards' must be numbers ≥ 0, 3 at position 0; got [2]"),
        ((X, Y), {"shards": [3, 3]}, ValueError, "'shards' must be the number of classes on each of the 1 ranks"),
        ((X, Y), {"shards": 3}, ValueError, "'shards' must be the number of classes on each of the 1 ranks"),
        ((X, Y), {"shards": [3.0]}, TypeError, "'shards' must be an integer"),
    ],
)
def test_what_it_refuses(arguments, options, error, words):
    with pytest.raises(error) as caught:
        class_parallel_cross_entropy(*arguments, **options)
    assert words in str(caught.value)
    assert str(caught.value).startswith(NAME)


def test_it_takes_what_cross_entropy_takes_but_margins_and_focusing():
    import inspect

    theirs = inspect.signature(steelyard.functional.cross_entropy).parameters
    ours = inspect.signature(class_parallel_cross_entropy).parameters
    left = {"input", "size_average", "reduce", "margin", "gamma", "inplace_gradient"}
    assert set(ours) == set(theirs) - left | {"local_logits", "group", "shards"}
    for name in set(ours) & set(theirs):
        assert ours[name].default == theirs[name].default


def test_a_denominator_may_be_learned():
    x, divisor = torch.randn(4, 3, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    loss = class_parallel_cross_entropy(x, torch.arange(4) % 3, denominator=divisor)
    (gradient,) = torch.autograd.grad(loss, divisor)
    assert gradient.item() == pytest.approx(-loss.item() / 2.0)


NO_NUMBERS = [
    [0, math.nan, 2],
    [-math.inf, 1, 2],
    [0, -math.inf, 1],
    [math.inf, 1, 2],
    [-math.inf] * 3,
    [0, math.inf, 1],
]


@pytest.mark.parametrize("smooth_weight", ["class", "target"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target", [[0], [[1.0, 0.0, 0.0]], [[0.5, 0.0, 0.5]]], ids=str)
@pytest.mark.parametrize("weight", [None, [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], ids=str)
def test_what_is_no_number_counts_as_in_cross_entropy(weight, target, smoothing, smooth_weight):
    """A weight of zero beside infinity or NaN: 0 where it is 0 there, and NaN where it is NaN."""
    options = {"label_smoothing": smoothing, "smooth_weight": smooth_weight, "reduction": "none"}
    for row in NO_NUMBERS:
        x = torch.tensor([row], dtype=torch.float64)
        goal = torch.tensor(target, dtype=torch.int64 if target == [0] else torch.float64)
        ours = class_parallel_cross_entropy(x, goal, weight, **options)
        theirs = steelyard.functional.cross_entropy(x, goal, weight, **options)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0, equal_nan=True)
