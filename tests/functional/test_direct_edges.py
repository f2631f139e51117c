"""The short way at its edges: what it must leave to the long way, and what must not depend on which was taken."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from steelyard import functional as S


@pytest.mark.parametrize("around", ["torch.device('meta')", "FakeTensorMode()"])
def test_importing_under_another_device_or_mode_changes_nothing(around: str) -> None:
    code = f"""
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
with {around}:
    import steelyard.functional as S
x = torch.tensor([[0.0, 1.0], [2.0, 0.0]], requires_grad=True)
loss = S.cross_entropy(x, torch.tensor([0, 1]))
loss.backward()
assert abs(float(loss.detach()) - 1.7200948) < 1e-6, loss
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_a_trace_computes_the_loss_of_other_logits_too(pre_dispatch: bool) -> None:
    y = torch.tensor([0, 2, 1, 1])
    traced = make_fx(lambda a: S.cross_entropy(a, y), pre_dispatch=pre_dispatch)(torch.randn(4, 3))
    other = torch.randn(4, 3)
    torch.testing.assert_close(traced(other), F.cross_entropy(other, y))


def test_a_traced_backward_pass_computes_the_gradient() -> None:
    y = torch.tensor([0, 2, 1, 1])

    def step(a: torch.Tensor) -> torch.Tensor:
        (grad,) = torch.autograd.grad(S.cross_entropy(a, y), a)
        return grad

    traced = make_fx(step)(torch.randn(4, 3, requires_grad=True))
    other = torch.randn(4, 3, requires_grad=True)
    torch.testing.assert_close(traced(other), torch.autograd.grad(F.cross_entropy(other, y), other)[0])


def test_meta_logits_with_ignored_elements_have_a_meta_loss() -> None:
    x, t = torch.empty(4, 3, device="meta", requires_grad=True), torch.empty(4, 3, device="meta")
    assert S.binary_cross_entropy_with_logits(x, t, ignore_index=-1).device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("ignored", [256, -256, 257, -255, 512, -1, 255])
def test_narrow_targets_are_compared_with_ignore_index_as_numbers(dtype: torch.dtype, ignored: int) -> None:
    x, t = torch.randn(4, 3), torch.tensor([[0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=dtype)
    narrow = S.binary_cross_entropy_with_logits(x, t, ignore_index=ignored)
    assert torch.equal(narrow, S.binary_cross_entropy_with_logits(x, t.long(), ignore_index=ignored))


def test_a_target_changed_before_backward_is_an_error_whatever_came_before() -> None:
    for upstream in (1.0, 5.0, 5.0, 1.0):  # what the short way guesses, does not, has learnt to, no longer does
        x, y = torch.randn(6, 5, requires_grad=True), torch.randint(5, (6,))
        torch.autograd.grad(S.cross_entropy(x, y) * upstream, x)
        loss = S.cross_entropy(x, y) * upstream
        y.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_labels_changed_behind_autograds_back_give_nan_and_no_others_memory() -> None:
    x, y = torch.randn(300, 300, requires_grad=True), torch.zeros(300, dtype=torch.long)
    loss = S.cross_entropy(x, y) * 3.25  # not what was guessed
    y.numpy()[0] = 999
    (grad,) = torch.autograd.grad(loss, x)
    assert grad[0].isnan().all()
    assert not grad[1:].isnan().any()


@pytest.mark.parametrize("name", ["weight", "sample_weight", "logit_offset"])
def test_an_argument_in_the_memory_of_the_logits_is_read_as_it_was(name: str) -> None:
    def run(inplace: bool) -> torch.Tensor:
        torch.manual_seed(0)
        x = torch.rand(20000, 5, requires_grad=True)
        logits, y = x * 1.0, torch.randint(5, (20000,))
        held = logits.detach()
        given = held.flatten()[:20000] if name == "sample_weight" else held[0]
        S.cross_entropy(logits, y, **{name: given}, inplace_gradient=inplace).backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(run(True), run(False))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_logits_without_classes_are_refused_in_words(reduction: str) -> None:
    with pytest.raises(ValueError, match="'input' must be of shape"):
        S.cross_entropy(torch.tensor(1.0), torch.tensor(0), reduction=reduction)


def test_weights_beyond_the_range_of_the_sums_are_refused() -> None:
    big = torch.tensor([1e300, 1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="'sample_weight' must be finite"):
        S.cross_entropy(torch.randn(2, 3), torch.tensor([0, 1]), sample_weight=big)
    with pytest.raises(ValueError, match="'weight' must be finite"):
        S.binary_cross_entropy_with_logits(torch.randn(2), torch.ones(2), weight=big)


def test_smoothing_too_small_for_the_dtype_is_none() -> None:
    x = torch.tensor([[0.5, 1.0, -torch.inf]])
    y = torch.tensor([0])
    torch.testing.assert_close(S.cross_entropy(x, y, label_smoothing=1e-50), S.cross_entropy(x, y))


def test_targets_from_inference_mode_are_pytorchs_error() -> None:
    with torch.inference_mode():
        y = torch.tensor([0, 1])
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        S.cross_entropy(torch.randn(2, 3, requires_grad=True), y)
