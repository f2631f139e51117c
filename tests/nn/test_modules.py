"""What every loss module owes: the function's numbers, copies of its own, checkpoints of either kind, from_counts."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from loss_examples import CLASSES, FEATURES, example, examples
from torch import Tensor, nn

import steelyard.nn
from steelyard.counts import ClassCounts
from steelyard.nn import (
    BalancedSoftmaxLoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    DeferredReweighting,
    FocalLoss,
    LDAMLoss,
    LinearCrossEntropyLoss,
)
from steelyard.ops import cpu
from steelyard.registry import LOSSES
from steelyard.weights import class_weights

WEIGHTED = [entry for entry in LOSSES.values() if "weight" in entry.module.statistics]
IDS = {"ids": lambda entry: entry.name}
COUNTS = torch.tensor([70, 20, 9, 1])


def _same(module: nn.Module, other: nn.Module, case: Any) -> None:
    torch.testing.assert_close(_answer(module, case), _answer(other, case), rtol=0, atol=0)


def _answer(module: nn.Module, case: Any, **options: Any) -> Tensor:
    return module(case.input, case.target, **options)


def _weight(entry: Any) -> Tensor:
    return torch.tensor([0.3, 1.0, 2.0, 4.0])


def test_every_loss_module_is_in_the_registry() -> None:
    assert {entry.module.__name__ for entry in LOSSES.values()} | {"DeferredReweighting"} == set(steelyard.nn.__all__)


@pytest.mark.parametrize(("entry", "targets", "rich"), examples())
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_module_equals_function(entry: Any, targets: str, rich: bool, reduction: str) -> None:
    case = example(entry, targets, rich=rich)
    expected, expected_gradient = case.gradient(reduction=reduction)
    module = case.module(reduction=reduction)
    leaf = case.input.clone().requires_grad_()
    out = module(leaf, case.target)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(7)))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    torch.testing.assert_close(leaf.grad, expected_gradient, rtol=0, atol=0)


@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_the_modules_mean_is_the_default(entry: Any) -> None:
    case = example(entry, entry.targets[0])
    torch.testing.assert_close(_answer(case.module(), case), case(reduction="mean"), rtol=0, atol=0)


SETTINGS: dict[str, dict[str, Any]] = {
    "cross_entropy": {
        "ignore_index": 2, "label_smoothing": 0.2, "gamma": 1.5, "logit_offset": [0.5, -1.0, 0.0, 2.0],
        "margin": [0.1, 0.2, 0.3, 0.4], "smooth_weight": "target", "denominator": "samples", "empty": "zero",
    },
    "linear_cross_entropy": {
        "ignore_index": 2, "label_smoothing": 0.2, "logit_offset": [0.5, -1.0, 0.0, 2.0], "denominator": "weights",
    },
    "focal_loss": {
        "ignore_index": 2, "label_smoothing": 0.2, "gamma": 0.7, "smooth_weight": "target", "denominator": "samples",
    },
    "balanced_softmax_loss": {
        "ignore_index": 2, "label_smoothing": 0.2, "smooth_weight": "target", "denominator": "samples",
    },
    "logit_adjusted_loss": {
        "tau": 0.4, "ignore_index": 2, "label_smoothing": 0.2, "smooth_weight": "target", "denominator": "samples",
    },
    "ldam_loss": {
        "max_margin": 0.2, "scale": 3.0, "ignore_index": 2, "label_smoothing": 0.2, "smooth_weight": "target",
        "denominator": "samples",
    },
    "binary_cross_entropy_with_logits": {
        "pos_weight": [1.0, 2.0, 3.0, 4.0], "gamma_pos": 0.5, "gamma_neg": 3.0, "clip": 0.1, "alpha": 0.3,
        "denominator": "weights", "ignore_index": -1,
    },
    "sigmoid_focal_loss": {"alpha": 0.6, "gamma": 1.5, "pos_weight": [1.0, 2.0, 3.0, 4.0], "ignore_index": -1},
    "asymmetric_loss": {
        "gamma_neg": 3.0, "gamma_pos": 0.5, "clip": 0.2, "pos_weight": [1.0, 2.0, 3.0, 4.0], "denominator": "weights",
        "ignore_index": -1,
    },
    "nll_loss": {"ignore_index": 2, "denominator": "samples"},
    "binary_cross_entropy": {"denominator": "weights"},
}  # fmt: skip


@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_every_setting_reaches_the_function(entry: Any) -> None:
    case = example(entry, entry.targets[0], rows=9)
    if entry.formula == "sigmoid":
        case.target[0, 0] = -1.0
    settings = {"weight": [0.3, 1.0, 2.0, 4.0], "reduction": "mean", **SETTINGS[entry.name]}
    expected = case(**settings)
    torch.testing.assert_close(_answer(case.module(**settings), case), expected, rtol=0, atol=0)
    for name in settings:  # and each of them matters, but for those that this batch does not need
        if name not in {"empty", "reduction"}:
            without = {key: value for key, value in settings.items() if key != name}
            assert not torch.allclose(case(**without), expected), f"{name} changes nothing here: a test of nothing"


@pytest.mark.parametrize(("entry", "targets", "rich"), examples(rich=(True,)))
@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda module: pickle.loads(pickle.dumps(module)), id="pickle"),
        pytest.param(lambda module: _saved_and_loaded(module, weights_only=False), id="torch.save"),
    ],
)
def test_copies_are_equal_and_independent(entry: Any, targets: str, rich: bool, copied: Any) -> None:
    case = example(entry, targets, rich=rich)
    module = case.module()
    other = copied(module)
    _same(module, other, case)
    before = _answer(other, case)
    module.weight.mul_(3.0)
    torch.testing.assert_close(_answer(other, case), before, rtol=0, atol=0)


def _saved_and_loaded(what: Any, *, weights_only: bool) -> Any:
    file = io.BytesIO()
    torch.save(what, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


@pytest.mark.parametrize(("entry", "targets", "rich"), examples(rich=(True,)))
def test_state_dict_round_trip(entry: Any, targets: str, rich: bool) -> None:
    case = example(entry, targets, rich=rich)
    module = case.module()
    state = _saved_and_loaded(module.state_dict(), weights_only=True)
    other = case.module(weight=torch.ones(CLASSES))
    other.load_state_dict(state, strict=True)
    _same(module, other, case)


@pytest.mark.parametrize("entry", WEIGHTED, **IDS)
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "inside a model"])
def test_checkpoints_load_with_and_without_weights(entry: Any, nested: bool) -> None:
    case = example(entry, entry.targets[0])
    weighted, plain = case.module(weight=_weight(entry)), case.module()
    assert "weight" in weighted.state_dict()
    assert "weight" not in plain.state_dict()

    def model(loss: nn.Module) -> nn.Module:
        return nn.ModuleDict({"net": nn.Linear(2, 2), "losses": nn.ModuleList([loss])}) if nested else loss

    into_plain, into_weighted = case.module(), case.module(weight=_weight(entry) + 1.0)
    expected = _answer(into_weighted, case)
    assert model(into_plain).load_state_dict(model(weighted).state_dict(), strict=True) == ([], [])
    _same(into_plain, weighted, case)
    # The other way round a checkpoint says nothing of weights, and those of the module stay.
    assert model(into_weighted).load_state_dict(model(plain).state_dict(), strict=True) == ([], [])
    torch.testing.assert_close(_answer(into_weighted, case), expected, rtol=0, atol=0)
    # A module that took weights over owns them.
    weighted.weight.zero_()
    assert bool((into_plain.weight > 0).all())


def test_a_strict_load_still_finds_what_is_wrong() -> None:
    with pytest.raises(RuntimeError, match="Unexpected key"):
        CrossEntropyLoss().load_state_dict({"wieght": torch.ones(3)})
    with pytest.raises(RuntimeError, match=r"size mismatch|must be of shape \(3,\)"):
        CrossEntropyLoss(weight=torch.ones(3)).load_state_dict({"weight": torch.ones(4)})
    with pytest.raises(RuntimeError, match="Missing key"):
        LinearCrossEntropyLoss(3, 2).load_state_dict({})
    model = nn.Sequential(nn.Linear(2, 2), CrossEntropyLoss(weight=torch.ones(3)))
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({})


def test_pytorchs_checkpoints_load() -> None:
    theirs = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))
    ours = CrossEntropyLoss()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight, theirs.weight)
    again = nn.CrossEntropyLoss(weight=torch.ones(2))
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.weight, theirs.weight)


@pytest.mark.parametrize("entry", WEIGHTED, **IDS)
def test_statistics_are_copied_never_aliased(entry: Any) -> None:
    given = {"weight": _weight(entry).requires_grad_()}
    if "pos_weight" in entry.module.statistics:
        given["pos_weight"] = torch.tensor([2.0, 2.0, 3.0, 4.0])
    if "logit_offset" in entry.module.statistics:
        given["logit_offset"] = torch.tensor([0.5, 0.0, 0.0, 1.0])
    case = example(entry, entry.targets[0])
    counts = case.rest[1] if entry.counts else None
    module = case.module(**given)
    before = _answer(module, case)
    with torch.no_grad():
        for tensor in given.values():
            tensor.fill_(9.0)
        if counts is not None:
            counts.fill_(1)
    torch.testing.assert_close(_answer(module, case), before, rtol=0, atol=0)
    buffers = dict(module.named_buffers())
    assert all(name in buffers and not buffers[name].requires_grad for name in given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_statistics_follow_the_model(entry: Any, dtype: torch.dtype) -> None:
    case = example(entry, entry.targets[0], rich=True, dtype=dtype)
    module = example(entry, entry.targets[0], rich=True).module().to(dtype)
    assert module.weight.dtype == dtype
    out = _answer(module, case)
    assert out.dtype == dtype
    single = example(entry, entry.targets[0], rich=True)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5  # bfloat16 has rounded the input too
    torch.testing.assert_close(out.double(), _answer(single.module(), single).double(), rtol=tolerance, atol=tolerance)
    if entry.counts:
        assert module.counts.dtype == torch.int64
    assert all(buffer.device.type == "meta" for buffer in module.to("meta").buffers())


@pytest.mark.parametrize("entry", WEIGHTED, **IDS)
@pytest.mark.parametrize(
    "weight",
    [
        pytest.param([1, 2, 3, 4], id="list of integers"),
        pytest.param((0.5, 2.0, 3.0, 4.0), id="tuple"),
        pytest.param(torch.tensor([0.5, 2.0, 3.0, 4.0]).numpy(), id="array"),
        pytest.param(torch.tensor([0.5, 2.0, 3.0, 4.0], dtype=torch.float64), id="float64"),
        pytest.param(torch.tensor([1, 2, 3, 4]), id="int64"),
    ],
)
def test_weights_of_any_kind(entry: Any, weight: Any) -> None:
    case = example(entry, entry.targets[0])
    plain = torch.as_tensor(weight).float()
    torch.testing.assert_close(
        _answer(case.module(weight=weight), case), _answer(case.module(weight=plain), case), rtol=0, atol=0
    )


# ------------------------------------------------------------------------------------------------------- from_counts


@pytest.mark.parametrize(
    "counts", [COUNTS, [70, 20, 9, 1], ClassCounts("abcd", [70, 20, 9, 1])], ids=lambda c: type(c).__name__
)
@pytest.mark.parametrize("entry", [entry for entry in LOSSES.values() if "elements" not in entry.targets], **IDS)
def test_from_counts_builds_class_weights(entry: Any, counts: Any) -> None:
    extra = {"in_features": FEATURES} if entry.input == "features" else {}
    for scheme, options in [
        ("balanced", {}),
        ("effective_number", {"beta": 0.9}),
        ("inverse", {"power": 0.5, "normalize": "mean"}),
    ]:
        made = entry.module.from_counts(counts, scheme, reduction="sum", **options, **extra)
        torch.testing.assert_close(made.weight, class_weights(COUNTS, scheme, **options), rtol=0, atol=0)
        assert made.reduction == "sum"
    default = entry.module.from_counts(counts, **extra)
    if entry.counts:
        assert default.weight is None
        assert torch.equal(default.counts, COUNTS)
        with pytest.raises(ValueError, match="scheme"):
            entry.module.from_counts(counts, power=0.5)
    else:
        torch.testing.assert_close(default.weight, class_weights(COUNTS, "max_ratio"), rtol=0, atol=0)


@pytest.mark.parametrize("entry", [entry for entry in LOSSES.values() if entry.formula == "sigmoid"], **IDS)
def test_from_counts_builds_pos_weight(entry: Any) -> None:
    assert torch.equal(entry.module.from_counts([300, 100]).pos_weight, torch.tensor([3.0]))
    several = ClassCounts(["cat", "dog"], [20, 5], negatives=[80, 95])
    made = entry.module.from_counts(several, reduction="sum", weight=[1.0, 2.0])
    assert torch.equal(made.pos_weight, torch.tensor([4.0, 19.0]))
    assert (made.reduction, made.weight.tolist()) == ("sum", [1.0, 2.0])


# ---------------------------------------------------------------------------------------------------------- each call


@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_a_denominator_of_the_call_goes_before_the_constructors(entry: Any) -> None:
    case = example(entry, entry.targets[0], rich=True)
    total = _answer(case.module(reduction="sum"), case)
    module = case.module(denominator=5.0)
    torch.testing.assert_close(_answer(module, case), total / 5.0)
    for given in (7, 7.0, torch.tensor(7.0)):
        torch.testing.assert_close(_answer(module, case, denominator=given), total / 7.0)
    torch.testing.assert_close(
        _answer(module, case, denominator="samples"), case(reduction="mean", denominator="samples")
    )
    torch.testing.assert_close(_answer(module, case), total / 5.0)


@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_sample_weight_counts_rows(entry: Any) -> None:
    case = example(entry, entry.targets[0], rich=True)
    rows = torch.tensor([0.0, 1.0, 2.0, 3.0, 0.5, 1.5])
    each = _answer(case.module(reduction="none"), case)
    expected = each * rows.reshape(-1, *[1] * (each.dim() - 1))
    for given in (rows, rows.tolist(), rows.double(), rows.reshape(-1, *[1] * (each.dim() - 1)).expand_as(each)):
        torch.testing.assert_close(_answer(case.module(reduction="none"), case, sample_weight=given), expected)
    with pytest.raises(ValueError, match="sample_weight"):
        _answer(case.module(), case, sample_weight=torch.ones(5))


@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_repr_says_the_settings(entry: Any) -> None:
    case = example(entry, entry.targets[0], rich=True)
    text = repr(case.module(reduction="sum"))
    assert text.startswith(entry.module.__name__)
    assert "reduction='sum'" in text
    assert "weight=<" in text
    for name in entry.module.settings:
        assert f"{name}=" in text


# --------------------------------------------------------------------------------------------------- inplace_gradient

INPLACE = [entry for entry in LOSSES.values() if entry.formula != "likelihood" and entry.input == "logits"]


def _step(module: nn.Module, case: Any) -> tuple[Tensor, Tensor, bool]:
    """Loss, gradient of what the logits are made of, and whether a backward pass wrote to the logits."""
    leaf = case.input.clone().requires_grad_()
    logits = leaf * 1.5
    version = logits._version
    out = module(logits, case.target)
    out.sum().backward()
    return out.detach(), leaf.grad, logits._version != version


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("entry", INPLACE, **IDS)
def test_inplace_gradient_reaches_the_function(entry: Any, reduction: str) -> None:
    case = example(entry, entry.targets[0], rich=True)
    plain, inplace = (_step(case.module(reduction=reduction, inplace_gradient=on), case) for on in (False, True))
    torch.testing.assert_close(inplace[:2], plain[:2], rtol=0, atol=0)
    assert not plain[2]
    assert inplace[2] == (cpu.ready() and entry.name != "ldam_loss")  # whose kernel meets logits scaled before


@pytest.mark.parametrize("entry", INPLACE, **IDS)
def test_inplace_gradient_is_said_where_it_is_on(entry: Any) -> None:
    case = example(entry, entry.targets[0])
    assert "inplace" not in repr(case.module())
    assert "inplace" not in repr(case.module(inplace_gradient=False))
    assert repr(case.module(inplace_gradient=True)).endswith(", inplace_gradient=True)")


@pytest.mark.parametrize("entry", INPLACE, **IDS)
def test_inplace_gradient_is_no_part_of_a_checkpoint(entry: Any) -> None:
    case = example(entry, entry.targets[0], rich=True)
    on, off = case.module(inplace_gradient=True), case.module()
    assert list(on.state_dict()) == list(off.state_dict())
    off.load_state_dict(on.state_dict())
    assert (on.inplace_gradient, off.inplace_gradient) == (True, False)
    assert pickle.loads(pickle.dumps(on)).inplace_gradient is True
    assert _step(DeferredReweighting(on, start_epoch=1), case)[2] == _step(on, case)[2]


@pytest.mark.parametrize("entry", LOSSES.values(), **IDS)
def test_modules_pickled_before_inplace_gradient_still_work(entry: Any) -> None:
    case = example(entry, entry.targets[0], rich=True)
    module = case.module()
    old = pickle.loads(pickle.dumps(module))
    del old.__dict__["inplace_gradient"]
    _same(old, module, case)
    assert repr(old) == repr(module)


LEGACY = [(None, False), (None, True), (False, None), (True, None), (False, True), (True, False)]


@pytest.mark.parametrize(("size_average", "reduce"), LEGACY)
@pytest.mark.parametrize(
    "entry", [entry for entry in LOSSES.values() if entry.torch and entry.input != "features"], **IDS
)
def test_the_deprecated_arguments_are_pytorchs(entry: Any, size_average: bool | None, reduce: bool | None) -> None:
    case = example(entry, entry.targets[0])
    old = {"size_average": size_average, "reduce": reduce}
    with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated") as theirs:
        expected = getattr(nn, entry.module.__name__)(**old)
    with pytest.warns(UserWarning, match=f"reduction='{expected.reduction}'") as ours:
        module = entry.module(**old)
    assert str(ours[0].message) == str(theirs[0].message)
    assert ours[0].filename == __file__
    assert module.reduction == expected.reduction
    torch.testing.assert_close(_answer(module, case), expected(case.input, case.target))
    with pytest.warns(UserWarning, match=f"reduction='{expected.reduction}'") as ours:
        out = case(**old)
    assert ours[0].filename.endswith("loss_examples.py")
    torch.testing.assert_close(out, expected(case.input, case.target))


# ------------------------------------------------------------------------------------------------ DeferredReweighting


@pytest.mark.parametrize("entry", WEIGHTED, **IDS)
def test_deferred_weights_switch_on(entry: Any) -> None:
    case = example(entry, entry.targets[0])
    plain, weighted = case.module(denominator="samples"), case.module(weight=_weight(entry), denominator="samples")
    deferred = DeferredReweighting(weighted, start_epoch=3)
    _same(deferred, plain, case)
    for epoch in range(5):
        deferred.set_epoch(epoch)
        _same(deferred, plain if epoch < 3 else weighted, case)
    assert not torch.allclose(_answer(plain, case), _answer(weighted, case))
    deferred.set_epoch(0)
    _same(deferred, plain, case)
    torch.testing.assert_close(
        _answer(deferred, case, denominator=2.0, sample_weight=torch.ones(6)),
        _answer(plain, case, denominator=2.0),
        rtol=0, atol=0,
    )  # fmt: skip


def test_deferred_weights_cover_pos_weight_and_keep_margins() -> None:
    loss = DeferredReweighting(BCEWithLogitsLoss(pos_weight=[9.0], weight=[2.0]), start_epoch=1)
    x, y = torch.tensor([0.5]), torch.tensor([1.0])
    torch.testing.assert_close(loss(x, y), BCEWithLogitsLoss()(x, y))
    ldam = DeferredReweighting(LDAMLoss.from_counts([90, 10], "balanced"), start_epoch=1)
    z, t = torch.tensor([[0.5, 0.4]]), torch.tensor([1])
    torch.testing.assert_close(ldam(z, t), LDAMLoss([90, 10])(z, t))


def test_deferred_weights_resume() -> None:
    def build() -> DeferredReweighting:
        return DeferredReweighting(CrossEntropyLoss(weight=[1.0, 9.0], denominator="samples"), start_epoch=2)

    case = (torch.zeros(1, 2), torch.tensor([1]))
    late = build()
    late.set_epoch(2)
    resumed = build()
    state = _saved_and_loaded(late.state_dict(), weights_only=True)
    resumed.load_state_dict(state)
    assert resumed.epoch == 2
    assert torch.equal(resumed(*case), late(*case))
    for copied in (copy.deepcopy(late), pickle.loads(pickle.dumps(late))):
        assert torch.equal(copied(*case), late(*case))
        copied.set_epoch(0)
        assert late.epoch == 2


def test_deferred_weights_say_when() -> None:
    deferred = DeferredReweighting(CrossEntropyLoss(weight=[1.0, 9.0]), start_epoch=3)
    deferred.set_epoch(2)
    assert "start_epoch=3, epoch=2" in repr(deferred)
    assert "CrossEntropyLoss" in repr(deferred)


def test_deferred_weights_train_one_layer() -> None:
    # A loss with a layer of its own has one layer, whichever epoch it is.
    loss = DeferredReweighting(LinearCrossEntropyLoss(3, 2, weight=[1.0, 9.0]), start_epoch=1)
    assert len(list(loss.parameters())) == 1
    x, t = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    step = torch.optim.SGD(loss.parameters(), lr=1.0)
    loss(x, t).backward()
    step.step()
    early = loss(x, t, denominator=1.0)
    loss.set_epoch(1)
    linear = next(iter(loss.parameters()))
    torch.testing.assert_close(loss(x, t), nn.functional.cross_entropy(x @ linear.T, t, torch.tensor([1.0, 9.0])))
    torch.testing.assert_close(early, nn.functional.cross_entropy(x @ linear.T, t, reduction="sum"))


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: DeferredReweighting(nn.CrossEntropyLoss(torch.ones(2)), 1), TypeError),
        (lambda: DeferredReweighting(CrossEntropyLoss(), 1), ValueError),
        (lambda: DeferredReweighting(FocalLoss(weight=[1.0, 2.0]), -1), ValueError),
        (lambda: DeferredReweighting(FocalLoss(weight=[1.0, 2.0]), 1.5), TypeError),
        (lambda: DeferredReweighting(FocalLoss(weight=[1.0, 2.0]), 1).set_epoch(-1), ValueError),
        (lambda: DeferredReweighting(FocalLoss(weight=[1.0, 2.0]), 1).set_epoch(True), TypeError),
    ],
)
def test_deferred_weights_refuse(build: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"DeferredReweighting.*must be"):
        build()


# --------------------------------------------------------------------------- what a checkpoint and counts may not bring


def test_a_checkpoint_brings_nothing_that_the_constructor_refuses() -> None:
    loss = BalancedSoftmaxLoss([3, 2])
    for state, rule in (
        ({"weight": torch.ones(3)}, r"'weight' must be of shape \(2,\)"),
        ({"weight": torch.tensor([1.0, torch.nan])}, "'weight' must be finite"),
        ({"counts": torch.tensor([1.5, 0.2])}, "'counts' must be"),
        ({"counts": torch.tensor([5, 0])}, "'counts' must be > 0 for every class"),
        ({"counts": torch.tensor([5, 1, 1])}, r"'counts' must be of shape \(2,\)"),
    ):
        with pytest.raises(RuntimeError, match=rule):
            loss.load_state_dict(state)
    assert loss.weight is None
    assert loss.counts.tolist() == [3, 2]
    plain = CrossEntropyLoss()
    with pytest.raises(RuntimeError, match="'margin' must be finite"):
        plain.load_state_dict({"weight": torch.ones(2), "margin": torch.tensor([0.0, torch.inf])})
    assert plain.weight is None  # nothing of a refused checkpoint stays


def test_a_statistic_from_a_checkpoint_goes_where_the_module_is() -> None:
    loss = BalancedSoftmaxLoss([3, 2]).to("meta")
    with pytest.warns(UserWarning, match="which is a no-op"):
        loss.load_state_dict({"weight": torch.ones(2)})
    assert loss.weight.is_meta


def test_from_counts_takes_the_options_of_pos_weight_and_no_scheme() -> None:
    counts = ClassCounts(["a", "b"], [0, 5], negatives=[10, 5])
    assert BCEWithLogitsLoss.from_counts(counts, missing="max").pos_weight.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"BCEWithLogitsLoss\.from_counts: 'scheme' must be None"):
        BCEWithLogitsLoss.from_counts([3, 1], "balanced")
    with pytest.raises(ValueError, match=r"CrossEntropyLoss\.from_counts: 'weight' must be left alone"):
        CrossEntropyLoss.from_counts([3, 1], weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"BCEWithLogitsLoss\.from_counts: 'pos_weight' must be left alone"):
        BCEWithLogitsLoss.from_counts([3, 1], pos_weight=2.0)


def test_deferred_weights_train_the_layer_that_the_optimiser_knows() -> None:
    inner = LinearCrossEntropyLoss(4, 3, weight=[1.0, 2.0, 3.0])
    deferred = DeferredReweighting(inner, start_epoch=1)
    assert deferred.loss.linear is inner.linear
