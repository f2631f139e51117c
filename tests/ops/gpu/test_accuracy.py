"""The GPU's kernels against wider numbers: no worse than eager PyTorch, in value and gradient.

Under the interpreter exponentials are NumPy's; those of a GPU are judged where there is one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gpu_cases import DTYPES, GRIDS, at, operator, sums
from kernel_cases import SPREADS, Rows, laid_out, random_elements, random_rows
from kernel_judge import BIT, FACTOR, Exact, Judge, exact_elements, exact_rows
from torch import Tensor
from torch.nn.functional import cross_entropy

from steelyard.ops.gpu import _launch

F32, BF16, _ = DTYPES
ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothing": {"given": ("weight",), "smoothing": 0.1},
    "soft": {"given": ("weight",), "target": "soft"},
    "ignored": {"target": "ignored"},
    "row weight and shift": {"given": ("row_weight", "offset", "margin")},
    "gamma 1": {"gamma": 1.0},
    "gamma 2": {"gamma": 2.0, "given": ("weight",)},
    "gamma 2½ smoothed": {"gamma": 2.5, "smoothing": 0.1, "smooth_by_target": True, "given": ("weight",)},
    "gamma 1.7": {"gamma": 1.7},
    "gamma 2 soft": {"gamma": 2.0, "target": "soft", "given": ("offset",)},
}
PLAIN = ("plain", "smoothing", "soft", "ignored")  # those that PyTorch has, too
ELEMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "binary": {"target": "binary"},
    "pos_weight": {"weight": "full", "pos_weight": "last"},
    "focal": {"gamma_pos": 2.0, "gamma_neg": 2.0, "neg_weight": 0.75, "target": "binary"},
    "asymmetric": {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05, "target": "binary"},
    "asymmetric soft": {"gamma_pos": 0.5, "gamma_neg": 2.5, "clip": 0.05},
}


def _wider(case: Any) -> Any:
    """Logits in the accumulation dtype: eager that has not rounded to a narrow one."""
    return replace(case, input=case.input.float())


def _torch(rows: Rows) -> tuple[Tensor, Tensor]:
    """PyTorch's own cross entropy, loss and gradient."""
    leaf = rows.input.detach().requires_grad_()
    target = rows.target.to(leaf.dtype) if rows.target.is_floating_point() else rows.target
    loss = cross_entropy(leaf, target, rows.weight, reduction="none", label_smoothing=rows.smoothing)
    return loss.detach(), torch.autograd.grad(loss, leaf, rows.upstream)[0]


def _judge(cases: list[tuple[str, Any, tuple[Exact, Exact], Any]], dtype: torch.dtype, factor: float) -> None:
    """Gradients from both ways: after the loss, and along with it."""
    loss_judge, grad_judge = Judge(F32, factor), Judge(dtype, factor)
    for what, case, (loss, grad), eager in cases:
        found = operator(at(case))
        loss_judge.add(f"loss of {what}", found[0].cpu(), loss, *(values for values, _ in eager))
        grad_judge.add(f"gradient of {what}", found[1].cpu(), grad, *(values for _, values in eager))
    loss_judge.verdict()
    grad_judge.verdict()


def _rows(
    shapes: list[tuple[int, ...]], dtype: torch.dtype, spread: str, name: str, how: str = "contiguous"
) -> list[Any]:
    found = []
    for shape in shapes:
        case = random_rows(shape, dtype, spread=spread, **ROWS[name])
        eager = [_wider(case).reference(), *([_torch(_wider(case))] if name in PLAIN else [])]
        found.append((str(shape), replace(case, input=laid_out(case.input, how)), exact_rows(case), eager))
    return found


POOL = [(1, 1), (13, 2), (160, 10), (64, 13), (32, 257)]
"""Rows enough that the largest of eager's errors is no matter of luck, in the few programs that tests have time for."""


@pytest.mark.parametrize(
    ("dtype", "spread"),
    [(F32, "normal"), (F32, "confident"), (F32, "shifted"), (BF16, "normal"), (BF16, "confident")],
    ids=str,
)
@pytest.mark.parametrize("name", ROWS)
def test_rows_are_no_worse_than_eager(name: str, spread: str, dtype: torch.dtype) -> None:
    with _launch.limits(tile=1 << 14):
        _judge(_rows(POOL, dtype, spread, name), dtype, FACTOR)


@pytest.mark.parametrize("name", ROWS)
def test_a_long_tail_is_no_worse_than_eager(name: str) -> None:
    with _launch.limits(tile=1 << 16):
        _judge(_rows([(6, 8142)], F32, "normal", name), F32, FACTOR)


@pytest.mark.parametrize(("dtype", "spread"), [(F32, "shifted"), (BF16, "normal")], ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_rows_walked_over_tile_by_tile_are_no_worse_than_eager(name: str, spread: str, dtype: torch.dtype) -> None:
    """With rows side by side, of which a program takes 32 at a time."""
    with _launch.limits(on_chip=1, stream=32 * 64):
        _judge(_rows([(160, 10), (64, 13), (32, 257)], dtype, spread, name, "transposed"), dtype, FACTOR)


@pytest.mark.parametrize("name", ["plain", "gamma 2½ smoothed"])
def test_a_long_tail_walked_over_tile_by_tile_is_no_worse_than_eager(name: str) -> None:
    with _launch.limits(on_chip=1, stream=1024):
        _judge(_rows([(6, 8142)], F32, "normal", name), F32, FACTOR)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spread", SPREADS[:2])
@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_are_no_worse_than_eager(name: str, spread: str, dtype: torch.dtype) -> None:
    cases = []
    for shape in [(33,), (600,), (4099,), (7, 13), (5, 257)]:
        case = random_elements(shape, dtype, spread=spread, **ELEMENTS[name])
        cases.append((str(shape), case, exact_elements(case), [_wider(case).reference()]))
    _judge(cases, dtype, BIT)


@pytest.mark.parametrize("grid", [{}, GRIDS["tiles of long rows"]], ids=["as chosen", "long"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_confident_row_keeps_its_gradient(dtype: torch.dtype, grid: None) -> None:
    """1 − s of the row's own class is below the last bit of s; rounded before they meet it would be gone."""
    z = torch.full((1, 16), 0.0)
    z[0, 3] = 12.0
    leaf = z.to(dtype).double().requires_grad_()
    cross_entropy(leaf, torch.tensor([3])).backward()
    case = at(replace(random_rows((1, 16), dtype), input=z.to(dtype), target=torch.tensor([3]), upstream=torch.ones(1)))
    expected: Tensor = leaf.grad.float()
    for grad in (operator(case)[1], sums(case, 1.0)[1]):
        torch.testing.assert_close(grad.float().cpu(), expected, rtol=4e-3, atol=0)
