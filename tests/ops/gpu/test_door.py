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
