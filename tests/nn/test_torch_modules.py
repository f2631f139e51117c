"""PyTorch's own samples judge the modules: every ``module_db`` entry of a loss that we have, accepted and refused."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steelyard.registry import LOSSES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the module warns about its own optional dependencies
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

JUDGED = [
    (entry, info)
    for entry in LOSSES.values()
    for info in module_db
    if info.module_cls.__name__ == entry.module.__name__
]
CASES = [pytest.param(entry, info, id=info.name) for entry, info in JUDGED]
CLOSE = {torch.float64: {"rtol": 1e-10, "atol": 1e-11}, torch.float32: {"rtol": 1.3e-6, "atol": 1e-5}}
REFUSALS = (TypeError, ValueError, IndexError)

# PyTorch's chunked linear_cross_entropy says when it does not chunk; no number depends on that.
pytestmark = pytest.mark.filterwarnings("ignore:linear_cross_entropy. ``options`` ignored:UserWarning")


def _inputs(info: Any, dtype: torch.dtype) -> list[Any]:
    torch.manual_seed(0)
    return info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)


def _made(module: type[nn.Module], constructor: Any, like: nn.Module | None = None) -> nn.Module:
    made = module(*constructor.args, **constructor.kwargs)
    if like is not None:
        made.load_state_dict(like.state_dict())
    return made


def _run(loss: nn.Module, forward: Any) -> dict[str, Tensor]:
    leaves = [
        value.detach().clone().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in forward.args
    ]
    out = loss(*leaves, **forward.kwargs)
    differentiated = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    wanted = [*differentiated, *loss.parameters()]
    upstream = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad(out, wanted, upstream, materialize_grads=True)
    return {"value": out.detach(), **{f"gradient {i}": grad for i, grad in enumerate(grads)}}


def test_every_module_that_pytorch_has_is_judged() -> None:
    for entry in LOSSES.values():
        if entry.torch and hasattr(nn, entry.module.__name__):
            assert any(entry is judged for judged, _ in JUDGED), entry.module.__name__


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize(("entry", "info"), CASES)
def test_accepts_what_pytorch_accepts_and_equals_it(entry: Any, info: Any, dtype: torch.dtype) -> None:
    samples = _inputs(info, dtype)
    for number, sample in enumerate(samples):
        theirs = _made(info.module_cls, sample.constructor_input)
        # PyTorch's checkpoint goes into ours as it is, layers and weights.
        ours = _made(entry.module, sample.constructor_input, like=theirs)
        mine, eager = _run(ours, sample.forward_input), _run(theirs, sample.forward_input)
        text = f"sample {number} {sample.desc} {sample.constructor_input.kwargs}"
        assert mine.keys() == eager.keys()
        for what in mine:
            torch.testing.assert_close(
                mine[what],
                eager[what],
                equal_nan=True,
                msg=lambda m, what=what, text=text: f"{text}, {what}: {m}",
                **CLOSE[dtype],
            )
    assert len(samples) > 5


@pytest.mark.parametrize(("entry", "info"), CASES)
def test_equals_pytorchs_plain_python_reference(entry: Any, info: Any) -> None:
    compared = 0
    for sample in _inputs(info, torch.float64):
        if sample.reference_fn is None:
            continue
        ours = _made(entry.module, sample.constructor_input)
        args = [value.clone() if isinstance(value, Tensor) else value for value in sample.forward_input.args]
        expected = sample.reference_fn(ours, *args)
        torch.testing.assert_close(ours(*sample.forward_input.args), expected, rtol=1e-10, atol=1e-11, equal_nan=True)
        compared += 1
    assert compared > 5


# What PyTorch refuses and we take, and why.
WIDENED = {
    ("NLLLoss", r"expected scalar type \w+ but found \w+"): "a weight of another dtype is cast, once",
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("entry", "info"), [case for case in CASES if case.values[1].module_error_inputs_func])
def test_refuses_what_pytorch_refuses(entry: Any, info: Any, dtype: torch.dtype) -> None:
    refused = info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)
    for bad in refused:
        constructor, forward = bad.module_error_input.constructor_input, bad.module_error_input.forward_input
        if (info.name.removeprefix("nn."), bad.error_regex) in WIDENED:
            continue
        if bad.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(REFUSALS):
                _made(entry.module, constructor)
            continue
        with pytest.raises(bad.error_type):
            _made(info.module_cls, constructor)(*forward.args, **forward.kwargs)
        with pytest.raises(REFUSALS):  # the constructor may know already
            _made(entry.module, constructor)(*forward.args, **forward.kwargs)
    assert refused


def test_a_weight_of_another_dtype_is_cast() -> None:
    # The widening above on a sample that has rows: PyTorch refuses it as well.
    input, target, weight = torch.randn(4, 3).log_softmax(1), torch.tensor([0, 2, 1, 1]), torch.rand(3).double()
    with pytest.raises(RuntimeError, match="expected scalar type"):
        nn.NLLLoss(weight)(input, target)
    ours = LOSSES["nll_loss"].module(weight)(input, target)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, nn.NLLLoss(weight.float())(input, target))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(getattr(entry, kind), theirs, id=f"{theirs.__name__}")
        for entry in LOSSES.values()
        if entry.torch
        for kind, theirs in (
            ("function", getattr(torch.nn.functional, entry.torch, None)),
            ("module", getattr(nn, entry.module.__name__, None)),
        )
        if theirs is not None
    ],
)
def test_signature_is_pytorchs_and_the_rest_is_keyword_only(ours: Any, theirs: Any) -> None:
    mine, torchs = (list(inspect.signature(function).parameters.values()) for function in (ours, theirs))
    shared = [parameter for parameter in mine if parameter.name in {other.name for other in torchs}]
    assert [(p.name, p.kind, p.default) for p in shared] == [(p.name, p.kind, p.default) for p in torchs]
    new = [parameter for parameter in mine if parameter not in shared]
    assert new
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in new)
