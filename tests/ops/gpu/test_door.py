"""Triton comes with the first tensor of a GPU, and never without; where it is missing the reference serves."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from gpu_cases import DEVICE, at, dispatched, operator
from kernel_cases import OPS, random_elements, random_rows, same_bits

import steelyard
from steelyard.ops import gpu, library
from steelyard.ops.gpu import functions

NAMES = ("softmax_loss", "softmax_loss_backward", "sigmoid_loss", "sigmoid_loss_backward")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True)


def test_a_loss_on_the_cpu_imports_no_triton() -> None:
    done = _python("""
        import sys, torch, steelyard
        from steelyard.ops import gpu
        steelyard.show_config("dicts")
        logits = torch.randn(4, 5, requires_grad=True)
        steelyard.functional.cross_entropy(logits, torch.arange(4)).backward()
        features, layer = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
        steelyard.functional.linear_cross_entropy(features, layer, torch.arange(4)).backward()
        assert gpu.installed() and not any(name.split(".")[0] == "triton" for name in sys.modules)
    """)
    assert done.returncode == 0, done.stderr


def test_without_triton_the_reference_serves_and_show_config_says_so() -> None:
    done = _python("""
        import sys
        sys.modules["triton"] = None
        import torch, steelyard
        from steelyard.ops import gpu, cpu
        gpu.DEVICES.add("cpu")
        with cpu.using("reference"):
            logits = torch.randn(4, 5, requires_grad=True)
            assert not gpu.installed() and not gpu.ready(logits)
            steelyard.functional.cross_entropy(logits, torch.arange(4)).backward()
            assert gpu.softmax_sums(logits, torch.arange(4), torch.ones(()), *[None] * 4, 0., 0., False, -100) is None
        assert logits.grad.isfinite().all()
        told = steelyard.show_config("dicts")
        assert (told["cuda"], told["triton"]) == ("reference", None), told
        steelyard.show_config()
    """)
    assert done.returncode == 0, done.stderr
    assert "there is no Triton" in done.stdout


def test_show_config_names_the_kernels() -> None:
    told = steelyard.show_config("dicts")
    assert told["cuda"] == "triton"
    assert told["triton"] == gpu.version()
    assert gpu.version()[0].isdigit()


@pytest.mark.parametrize("name", NAMES)
def test_the_dispatcher_leads_gpu_tensors_to_the_kernels(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"steelyard::{name}", "CUDA")


def test_the_operators_are_the_kernels() -> None:
    rows, elements = at(random_rows((5, 7), given=("weight",))), at(random_elements((5, 7)))
    with dispatched():
        same_bits(rows.operator(), operator(rows))
        same_bits(elements.operator(), operator(elements))


def _softmax(case: Any, **other: Any) -> Any:
    values = {**vars(case), **other}
    return {key: values[key] for key in ("input", "target", "weight", "row_weight", "offset", "margin")}


def test_what_the_kernels_do_not_read_meets_the_reference() -> None:
    """Weights in another dtype or of another shape, tensors elsewhere: its answer, or its error."""
    case = at(random_rows((5, 7), given=("weight", "row_weight")))
    assert gpu._softmax_serves(case.input, case.target, case.settings)
    refused = [
        {"weight": case.weight.double()},
        {"weight": case.weight[:3]},
        {"row_weight": case.row_weight[:1]},
        {"target": case.target[:2]},
        {"target": case.target.to("meta")},
        {"target": torch.rand(5, 6, device=DEVICE)},
        {"input": case.input.double()},
        {"input": case.input[:0]},
        {"input": torch._neg_view(case.input)},
    ]
    for change in refused:
        given = list(_softmax(case, **change).values())
        assert not gpu._softmax_serves(given[0], given[1], (*given[2:], 0.0, 0.0, False, -100)), change
    other = at(random_elements((5, 7), pos_weight="last"))
    assert gpu._sigmoid_serves(other.input, other.target, other.settings)
    assert not gpu._sigmoid_serves(other.input, other.target, (None, torch.ones(8, 5, 7, device=DEVICE)))
    assert not gpu._sigmoid_serves(other.input, other.target, (None, torch.ones(3, device=DEVICE)))
    assert not gpu._sigmoid_serves(other.input, other.target, (None, torch.ones(7, device=DEVICE).double()))
    assert not gpu._sigmoid_serves(other.input, other.target[:1], (None, None))


def test_numbers_that_kernels_cannot_hold_are_left_to_the_reference() -> None:
    rows = random_rows((2, 3))
    many = torch.zeros(1, 1, device=DEVICE).expand(2, 2**31 - 2**16)
    assert not gpu._softmax_serves(many, rows.target.to(DEVICE), rows.settings)
    case = at(random_elements((2, 3)))
    wide, whole = case.target.double(), case.target.long()
    for target, ignored, served in ((wide, 2**24 + 1, False), (wide, 255, True), (wide, None, True),
                                    (whole, 2**24 + 1, True)):  # fmt: skip
        settings = (*case.settings[:-1], ignored)
        assert gpu._sigmoid_serves(case.input, target, settings) == served


def test_a_triton_that_cannot_compile_is_told_once_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without a C compiler, say."""

    def fail(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one.")

    monkeypatch.setattr(functions, "try_out", fail)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(gpu, "_capable", {})
    assert gpu._is_capable(0)  # while a graph is captured, nothing is tried
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with pytest.warns(UserWarning, match="kernels on NVIDIA H200: Failed to find C compiler. The formulas in plain"):
        assert not gpu._is_capable(0)
    assert not gpu._is_capable(0)  # a warning would be an error
    monkeypatch.setattr(functions, "try_out", lambda device: None)
    assert gpu._is_capable(1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 1))
    assert not gpu._is_capable(2) or torch.version.hip is not None
    assert gpu._capable == {0: False, 1: True, 2: torch.version.hip is not None}


def test_memory_that_runs_out_says_nothing_about_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(functions, "try_out", fail)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(gpu, "_capable", {})
    with pytest.raises(torch.OutOfMemoryError):
        gpu._is_capable(0)
    assert gpu._capable == {}


def test_a_compiler_finds_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would trace into what they ask of the device; and under it, and watchers, nothing is tried."""
    monkeypatch.setattr(gpu, "_is_capable", lambda index: pytest.fail("asked"))
    monkeypatch.setattr(gpu, "installed", lambda: pytest.fail("asked"))
    labels = torch.tensor([0, 1])
    compiled = torch.compile(lambda z: steelyard.functional.cross_entropy(z, labels), fullgraph=True, backend="eager")
    compiled(torch.zeros(2, 3, requires_grad=True)).backward()


def test_the_smallest_kernel_runs() -> None:
    functions.try_out(DEVICE)


def test_opcheck() -> None:
    rows, elements = at(random_rows((5, 7), given=("weight",))), at(random_elements((5, 7)))
    checks = ("test_schema", "test_faketensor")
    with dispatched():
        torch.library.opcheck(OPS.softmax_loss, (rows.input, rows.target, *rows.settings), test_utils=checks)
        torch.library.opcheck(
            OPS.sigmoid_loss, (elements.input, elements.target, *elements.settings), test_utils=checks
        )
        _, maximum, total = OPS.softmax_loss(rows.input, rows.target, *rows.settings)
        backward = (rows.upstream, rows.input, rows.target, maximum, total, *rows.settings)
        torch.library.opcheck(OPS.softmax_loss_backward, backward, test_utils=checks)
    assert library.softmax_loss_by_reference is gpu.softmax_loss_by_reference
