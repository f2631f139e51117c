"""The numbers of an explanation: those of the loss, taken apart, for every loss and every way to call one."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from loss_examples import Example, example, examples
from torch import Tensor

from steelyard import explain, functional, nn
from steelyard.explain import Explanation, _rows
from steelyard.registry import LOSSES, LossEntry


def whole(found: Explanation, value: Tensor, tolerance: float = 1e-6) -> None:
    """The parts make the whole."""
    value = value.detach()
    assert found.value == float(value)
    assert found.numerator / found.denominator == pytest.approx(float(value), rel=tolerance)
    for share in (found.share, found.gradient_share):
        assert float(share.sum()) == pytest.approx(1.0)
    assert sum(part.contribution for part in found.classes) == pytest.approx(found.numerator)
    assert sum(part.rows for part in found.classes) == found.kept
    assert sum(part.gradient_share for part in found.classes) == pytest.approx(1.0)


def without_weights(case: Example) -> Tensor:
    """The rows' own losses, by calling the loss with no weight at all."""
    bare = {name: value for name, value in case.options.items() if name not in ("weight", "pos_weight")}
    if "alpha" in {*_parameters(case.entry)}:
        bare["alpha"] = None
    return case.entry.function(case.input, *case.rest, **{**bare, "reduction": "none"})


def _parameters(entry: LossEntry) -> set[str]:
    import inspect

    return set(inspect.signature(entry.function).parameters)


@pytest.mark.parametrize(("entry", "targets", "full"), examples())
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_function_is_taken_apart(entry: LossEntry, targets: str, full: bool, reduction: str) -> None:
    case = example(entry, targets, rich=full, dtype=torch.float64)
    found = explain(entry.function, case.input, *case.rest, **case.options, reduction=reduction)
    whole(found, case(reduction=reduction))
    torch.testing.assert_close(found.rows.contribution, case(reduction="none").reshape(-1))
    torch.testing.assert_close(found.rows.loss, without_weights(case).reshape(-1))
    torch.testing.assert_close(found.rows.loss * found.rows.weight, found.rows.contribution)
    assert found.name == entry.name


@pytest.mark.parametrize(("entry", "targets", "full"), examples())
def test_a_module_is_taken_apart_like_its_function(entry: LossEntry, targets: str, full: bool) -> None:
    case = example(entry, targets, rich=full, dtype=torch.float64)
    module = case.module()
    target = case.target
    found, same = explain(module, case.input, target), explain(entry.function, case.input, *case.rest, **{
        "reduction": "mean", **case.options})  # fmt: skip
    whole(found, module(case.input, target))
    assert found.name == entry.module.__name__
    assert found.value == pytest.approx(same.value)
    for name in ("loss", "weight", "contribution", "pull", "group"):
        torch.testing.assert_close(getattr(found.rows, name), getattr(same.rows, name))
    assert found.rows.denominators == pytest.approx(same.rows.denominators)
    assert found.pytorch == pytest.approx(same.pytorch, nan_ok=True)


@pytest.mark.parametrize(("entry", "targets", "full"), examples(rich=(True,)))
def test_row_weights_and_denominators_of_the_call_count(entry: LossEntry, targets: str, full: bool) -> None:
    case = example(entry, targets, rich=full, dtype=torch.float64)
    module, rows = case.module(), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)
    found = explain(module, case.input, case.target, sample_weight=rows, denominator=7.0)
    whole(found, module(case.input, case.target, sample_weight=rows, denominator=7.0))
    assert (found.rule, found.denominator) == ("given", 7.0)
    plain = explain(module, case.input, case.target).rows
    factor = rows if targets != "elements" else rows.repeat_interleave(4)
    torch.testing.assert_close(found.rows.contribution, plain.contribution * factor)
    torch.testing.assert_close(found.rows.weight, plain.weight * factor)


@pytest.mark.parametrize(("entry", "targets", "full"), examples(rich=(True,)))
@pytest.mark.parametrize("rule", ["torch", "weights", "samples"])
def test_every_rule_divides_as_the_loss_does(entry: LossEntry, targets: str, full: bool, rule: str) -> None:
    case = example(entry, targets, rich=full, dtype=torch.float64)
    found = explain(entry.function, case.input, *case.rest, **{**case.options, "reduction": "mean"}, denominator=rule)
    whole(found, case(reduction="mean", denominator=rule))
    assert found.rule == rule
    for other in ("torch", "weights", "samples"):
        value = case(reduction="mean", denominator=other)
        assert found.alternatives[other] == pytest.approx(float(value))


@pytest.mark.parametrize(("entry", "targets", "full"), examples(rich=(True,)))
def test_the_pull_of_a_row_is_the_size_of_its_gradient(entry: LossEntry, targets: str, full: bool) -> None:
    if entry.input == "features":
        return  # of its logits, which the test of the layer below asks for
    case = example(entry, targets, rich=full, dtype=torch.float64)
    found = explain(entry.function, case.input, *case.rest, **{**case.options, "reduction": "sum"})
    leaf = case.input.clone().requires_grad_()
    case(leaf, reduction="sum").backward()
    size = leaf.grad.abs()
    torch.testing.assert_close(found.rows.pull, (size if targets == "elements" else size.sum(1)).reshape(-1))


def test_a_layer_inside_is_explained_by_its_logits() -> None:
    loss = nn.LinearCrossEntropyLoss(3, 4, bias=True, weight=[1.0, 2.0, 3.0, 4.0])
    input, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 3])
    found = explain(loss, input, target)
    logits = loss.linear(input).detach()
    same = explain(torch.nn.CrossEntropyLoss(loss.weight), logits, target)
    torch.testing.assert_close(found.rows.pull, same.rows.pull)
    assert found.value == pytest.approx(same.value)
    theirs = getattr(torch.nn, "LinearCrossEntropyLoss", None)
    if theirs is not None:  # since PyTorch 2.13
        layer = theirs(3, 4, bias=True)
        made = explain(layer, input, target)
        assert made.value == pytest.approx(explain(nn.CrossEntropyLoss(), layer.linear(input).detach(), target).value)


PYTORCH = [
    pytest.param(torch.nn.CrossEntropyLoss, "cross_entropy", {"label_smoothing": 0.1, "ignore_index": 1}, id="ce"),
    pytest.param(torch.nn.NLLLoss, "nll_loss", {"ignore_index": 1}, id="nll"),
    pytest.param(torch.nn.BCELoss, "binary_cross_entropy", {}, id="bce"),
    pytest.param(
        torch.nn.BCEWithLogitsLoss,
        "binary_cross_entropy_with_logits",
        {"pos_weight": torch.tensor([1.0, 2.0, 3.0, 4.0])},
        id="bce-logits",
    ),
]


@pytest.mark.parametrize(("module", "name", "options"), PYTORCH)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_pytorchs_own_modules_and_functions(module: Any, name: str, options: dict[str, Any], reduction: str) -> None:
    entry = LOSSES[name]
    case = example(entry, entry.targets[0])
    given = {**options, "weight": torch.tensor([0.3, 1.0, 2.0, 4.0]), "reduction": reduction}
    function = getattr(torch.nn.functional, name)
    as_module = explain(module(**given), case.input, case.target)
    as_function = explain(function, case.input, case.target, **given)
    partly = explain(functools.partial(function, **given), case.input, case.target)
    expected = function(case.input, case.target, **given)
    assert as_module.name == module.__name__
    assert as_function.name == partly.name == name
    for found in (as_module, as_function, partly):
        each = function(case.input, case.target, **{**given, "reduction": "none"}).double()
        torch.testing.assert_close(found.rows.contribution, each.reshape(-1), rtol=1e-5, atol=1e-6)
        assert found.reduction == reduction
        if reduction != "none":
            whole(found, expected, 1e-5)
        mean = function(case.input, case.target, **{**given, "reduction": "mean"})
        assert found.pytorch == pytest.approx(float(mean), rel=1e-5)
        assert found.pytorch_name == name


def test_arguments_by_position_and_in_partials() -> None:
    input, target, weight = torch.randn(3, 2), torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0])
    loss = torch.nn.functional.cross_entropy
    found = [
        explain(loss, input, target, weight),
        explain(functools.partial(loss, weight=weight), input, target),
        explain(functools.partial(functools.partial(loss, weight=None), weight=weight), input, target=target),
        explain(torch.nn.CrossEntropyLoss(weight), input, target=target),
    ]
    assert len({part.value for part in found}) == len({part.numerator for part in found}) == 1
    marked = functools.partial(loss, weight=torch.tensor([9.0, 1.0]))
    marked.note = "kept apart"  # type: ignore[attr-defined]  # so that Python does not merge the two
    assert explain(functools.partial(marked, weight=weight), input, target).numerator == found[0].numerator
    with pytest.warns(UserWarning, match="reduction='sum'"):
        assert explain(loss, input, target, weight, False).reduction == "sum"


def test_deferred_weights_are_those_of_the_epoch() -> None:
    loss = nn.DeferredReweighting(nn.CrossEntropyLoss(weight=[1.0, 9.0], denominator="samples"), start_epoch=1)
    input, target = torch.zeros(2, 2), torch.tensor([0, 1])
    early = explain(loss, input, target)
    assert not early.weighted
    loss.set_epoch(1)
    late = explain(loss, input, target)
    assert late.rows.weight.tolist() == [1.0, 9.0]
    assert late.name == "DeferredReweighting(CrossEntropyLoss)"


@pytest.mark.parametrize(("entry", "targets", "full"), examples(rich=(True,)))
def test_pieces_give_the_same_numbers(
    entry: LossEntry, targets: str, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = example(entry, targets, rows=11, rich=full, dtype=torch.float64)
    given = {**case.options, "reduction": "mean"}
    options = {} if targets == "elements" else {"sample_weight": torch.rand(11, dtype=torch.float64)}
    if targets == "elements":
        given["weight"] = torch.rand(11, 4, dtype=torch.float64)
    at_once = explain(entry.function, case.input, *case.rest, **given, **options)
    monkeypatch.setattr(_rows, "PIECE", 8)
    calls = []
    measure = _rows._measure
    monkeypatch.setattr(_rows, "_measure", lambda *args: (calls.append(1), measure(*args))[1])
    in_pieces = explain(entry.function, case.input, *case.rest, **given, **options)
    assert len(calls) == 6
    for name in ("loss", "weight", "contribution", "pull", "group"):
        torch.testing.assert_close(getattr(at_once.rows, name), getattr(in_pieces.rows, name))
    assert at_once.rows.denominators == pytest.approx(in_pieces.rows.denominators)


def test_images_and_single_rows() -> None:
    input, target = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    loss = nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])
    found = explain(loss, input, target, sample_weight=torch.tensor([1.0, 2.0]))
    assert found.rows.shape == (2, 4, 5)
    whole(found, loss(input, target, sample_weight=torch.tensor([1.0, 2.0])), 1e-5)
    assert [part["row"] for part in found.to_dict(3)["listed_rows"]] == [
        [int(i) for i in torch.unravel_index(torch.tensor(at), (2, 4, 5))] for at in found.top(3)
    ]
    one = explain(torch.nn.CrossEntropyLoss(), torch.randn(3), torch.tensor(2))
    assert (one.rows.shape, len(one.rows.loss)) == ((), 1)
    scalar = explain(torch.nn.BCEWithLogitsLoss(), torch.tensor(0.5), torch.tensor(1.0))
    assert scalar.value == pytest.approx(0.4741, abs=1e-4)
    maps = explain(nn.BCEWithLogitsLoss(), torch.randn(2, 3, 4), torch.ones(2, 3, 4))
    assert [part.label for part in maps.classes] == ["yes"]


def test_columns_of_several_labels_are_groups() -> None:
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = explain(nn.BCEWithLogitsLoss(pos_weight=[2.0, 3.0]), torch.zeros(3, 2), target)
    assert {part.label: (part.rows, part.weight) for part in found.classes} == {
        "0: no": (1, 1.0), "0: yes": (2, 4.0), "1: no": (2, 2.0), "1: yes": (1, 3.0)
    }  # fmt: skip


def test_ignored_rows_have_no_weight_and_no_class() -> None:
    input = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [0.0, 2.0]])
    found = explain(nn.CrossEntropyLoss(weight=[1.0, 3.0]), input, torch.tensor([0, -100, 1]))
    assert found.rows.weight.tolist() == [1.0, 0.0, 3.0]
    assert float(found.rows.contribution[1]) == float(found.rows.pull[1]) == 0.0
    assert (found.kept, found.denominator) == (2, 4.0)
    sigmoid = explain(nn.BCEWithLogitsLoss(ignore_index=-1), torch.zeros(3), torch.tensor([1.0, -1.0, 0.0]))
    assert (sigmoid.kept, sigmoid.rows.weight.tolist()) == (2, [1.0, 0.0, 1.0])


def test_kish_and_the_rows_that_carry_half() -> None:
    target = torch.tensor([0] * 6 + [1] * 2)
    found = explain(nn.CrossEntropyLoss(weight=[1.0, 5.0]), torch.zeros(8, 2), target)
    assert found.effective_sample_size == pytest.approx((6 + 10) ** 2 / (6 + 50))
    assert (
        found.half_of_gradient == 2
    )  # 1 each of 6 rows, 5 each of 2: the first of them reaches 5 of 16, the second 10
    even = explain(nn.CrossEntropyLoss(), torch.zeros(8, 2), target)
    assert (even.effective_sample_size, even.half_of_gradient) == (8.0, 4)


def test_spread_targets_weigh_as_their_loss_was_multiplied() -> None:
    input, q, w = (
        torch.randn(4, 3, dtype=torch.float64),
        torch.rand(4, 3, dtype=torch.float64).softmax(1),
        [1.0, 2.0, 5.0],
    )
    found = explain(nn.CrossEntropyLoss(weight=w), input, q)
    cost = -input.log_softmax(1)
    weighted = (torch.tensor(w, dtype=torch.float64) * q * cost).sum(1)
    torch.testing.assert_close(found.rows.weight, weighted / (q * cost).sum(1))
    torch.testing.assert_close(found.rows.contribution, weighted)


def test_nothing_of_the_callers_changes() -> None:
    input = torch.randn(3, 2, requires_grad=True)
    loss = nn.CrossEntropyLoss(weight=[1.0, 2.0])
    before = input.detach().clone(), {name: value.clone() for name, value in loss.state_dict().items()}
    explain(loss, input, torch.tensor([0, 1, 1]))
    assert torch.equal(input.detach(), before[0])
    assert input.grad is None
    assert all(torch.equal(value, before[1][name]) for name, value in loss.state_dict().items())


def test_in_inference_mode_and_without_gradients() -> None:
    loss = nn.CrossEntropyLoss([1.0, 2.0])
    expected = explain(loss, torch.ones(3, 2), torch.tensor([0, 1, 1])).rows
    with torch.inference_mode():
        input, target = torch.ones(3, 2), torch.tensor([0, 1, 1])
        inside = explain(loss, input, target).rows
        made_inside = explain(nn.CrossEntropyLoss([1.0, 2.0]), input.double(), target).rows
    with torch.no_grad():
        without = explain(loss, input, target).rows
    for rows in (inside, made_inside, without):
        torch.testing.assert_close(rows.pull, expected.pull)
        torch.testing.assert_close(rows.contribution, expected.contribution)


def test_half_precision_is_measured_against_float64() -> None:
    input = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0)).bfloat16() * 8
    target = torch.arange(64)
    found = explain(torch.nn.CrossEntropyLoss(), input, target)
    exact = torch.nn.functional.cross_entropy(input.double(), target)
    assert found.numerator / found.denominator == pytest.approx(float(exact), rel=1e-12)
    assert found.value != found.numerator / found.denominator


class Halved(torch.nn.CrossEntropyLoss):
    """A subclass with arithmetic of its own."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target) / 2


class Named(nn.CrossEntropyLoss):
    """A subclass that computes what its parent does."""


def test_a_subclass_is_explained_where_it_computes_what_its_parent_does() -> None:
    assert explain(Named([1.0, 2.0]), torch.zeros(2, 2), torch.tensor([0, 1])).name == "Named"


@pytest.mark.parametrize(
    "bad", [Halved(), None, 3, torch.nn.MSELoss(), torch.nn.functional.mse_loss, lambda a, b: a, "mean"]
)
def test_another_loss_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^explain: 'loss' must be a loss of steelyard or of PyTorch"):
        explain(bad, torch.zeros(2, 2), torch.tensor([0, 1]))


def test_what_is_wrong_with_the_call_is_said_by_the_loss() -> None:
    with pytest.raises(IndexError, match="cross_entropy"):
        explain(functional.cross_entropy, torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(TypeError, match="unexpected keyword"):
        explain(functional.cross_entropy, torch.zeros(2, 2), torch.tensor([0, 1]), wight=[1.0, 2.0])
    with pytest.raises(TypeError):
        explain(torch.nn.CrossEntropyLoss(), torch.zeros(2, 2))
