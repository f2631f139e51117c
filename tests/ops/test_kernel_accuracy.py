"""The CPU kernels against wider numbers: no worse than eager PyTorch, in value and gradient."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import DTYPES, SPREADS, Elements, Rows, each_kernel, random_elements, random_rows
from kernel_judge import BIT, FACTOR, Judge, exact_elements, exact_rows
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16

# An extended format is what float64 can be judged by; where there is none, float64 is judged by its tests elsewhere.
WIDE = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant
JUDGED = [dtype for dtype in DTYPES if WIDE or dtype != F64]

# What is judged together: small shapes, of which each alone is too few numbers to say how large eager's errors can be,
# each way of the others by itself. (1, 1) has one class, (3, 2) two; 13 is off any vector width, 257 past a power of
# two; 8142 and 50000 are long tails; one row of a million has more than a tile for each thread.
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "small": [(1, 1), (3, 2), (7, 13), (5, 257), (41, 10)],
    "classes": [(6, c) for c in (*range(1, 41), *range(63, 67), *range(127, 131), *range(255, 261))],
    "rows": [(n, c) for c in (3, 10) for n in (*range(1, 71), *range(127, 131), *range(255, 261), 511, 512, 513, 600)],
    "8142": [(2, 8142)],
    "50000": [(3, 50000)],
}
PLAIN: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"given": ("weight",)},
    "smoothing": {"given": ("weight",), "smoothing": 0.1},
    "soft": {"given": ("weight",), "target": "soft"},
    "ignored": {"target": "ignored"},
}
MORE: dict[str, dict[str, Any]] = {
    "row weight and shift": {"given": ("row_weight", "offset", "margin")},
    "gamma 1": {"gamma": 1.0},
    "gamma 2": {"gamma": 2.0, "given": ("weight",)},
    "gamma 2½ smoothed": {"gamma": 2.5, "smoothing": 0.1, "smooth_by_target": True, "given": ("weight",)},
    "gamma 2 soft": {"gamma": 2.0, "target": "soft", "given": ("offset",)},
    "all mass smoothed": {"smoothing": 1.0},
}
ELEMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "binary": {"target": "binary"},
    "pos_weight": {"weight": "full", "pos_weight": "last"},
    "integers": {"target": "uint8", "pos_weight": "scalar"},
    "ignored": {"target": "binary", "ignore_index": -1},
    "focal": {"gamma_pos": 2.0, "gamma_neg": 2.0, "neg_weight": 0.75, "target": "binary"},
    "asymmetric": {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05, "target": "binary"},
    "asymmetric soft": {"gamma_pos": 0.5, "gamma_neg": 2.5, "clip": 0.05},
}


def _wider(case: Any) -> Any:
    """The case with its logits in the accumulation dtype: eager that has not rounded to a narrow one."""
    return case if case.input.dtype == F64 else replace(case, input=case.input.float())


def _torch(rows: Rows) -> tuple[Tensor, Tensor]:
    """PyTorch's own cross entropy, loss and gradient."""
    leaf = rows.input.detach().requires_grad_()
    target = rows.target.to(leaf.dtype) if rows.target.is_floating_point() else rows.target
    loss = cross_entropy(leaf, target, rows.weight, reduction="none", label_smoothing=rows.smoothing)
    return loss.detach(), torch.autograd.grad(loss, leaf, rows.upstream)[0]


@functools.lru_cache(maxsize=8)  # the cases of one test after the other, for each kernel
def _rows(pool: str, dtype: torch.dtype, spread: str, name: str) -> list[tuple[str, Rows, Any, list[Any]]]:
    settings = {**PLAIN, **MORE}[name]
    found = []
    for shape in SHAPES[pool]:
        for seed in range(4 if pool == "small" else 1):
            case = random_rows(shape, dtype, seed=seed, spread=spread, **settings)
            eager = [_wider(case).reference()] + [_torch(_wider(case))] * (name in PLAIN)
            found.append((f"{shape}, seed {seed}", case, exact_rows(case), eager))
    return found


def _judge(cases: list[tuple[str, Any, Any, list[Any]]], dtype: torch.dtype, factor: float = FACTOR) -> None:
    accumulation = F64 if dtype == F64 else F32
    loss_judge, grad_judge = Judge(accumulation, factor), Judge(dtype, factor)
    for what, case, (loss, grad), eager in cases:
        found = case.operator()
        assert (found[0].dtype, found[1].dtype) == (accumulation, dtype)
        loss_judge.add(f"loss of {what}", found[0], loss, *(values for values, _ in eager))
        grad_judge.add(f"gradient of {what}", found[1], grad, *(values for _, values in eager))
    loss_judge.verdict()
    grad_judge.verdict()


@each_kernel
@pytest.mark.parametrize("dtype", JUDGED, ids=str)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", [*PLAIN, *MORE])
@pytest.mark.parametrize("pool", ["small", "8142"])
def test_rows_are_no_worse_than_eager(pool: str, name: str, spread: str, dtype: torch.dtype) -> None:
    _judge(_rows(pool, dtype, spread, name), dtype)


@each_kernel
@pytest.mark.parametrize("dtype", JUDGED, ids=str)
@pytest.mark.parametrize("name", ["smoothing", "gamma 2"])
@pytest.mark.parametrize("pool", ["classes", "rows"])
def test_rows_beside_the_widths_of_vectors_and_tiles(pool: str, name: str, dtype: torch.dtype) -> None:
    _judge(_rows(pool, dtype, "normal", name), dtype)


@each_kernel
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("name", ["plain", "soft", "gamma 2"])
def test_fifty_thousand_classes_are_no_worse_than_eager(name: str, dtype: torch.dtype) -> None:
    _judge(_rows("50000", dtype, "normal", name), dtype)


@functools.cache
def _million() -> list[tuple[str, Rows, Any, list[Any]]]:
    case = random_rows((2, 1_000_000), given=("weight",))
    return [("a million classes", case, exact_rows(case), [case.reference(), _torch(case)])]


@each_kernel
def test_a_million_classes_are_no_worse_than_eager() -> None:
    _judge(_million(), F32)


@functools.lru_cache(maxsize=4)
def _dense(dtype: torch.dtype, classes: int) -> list[tuple[str, Rows, Any, list[Any]]]:
    """Logits with axes behind the classes, beside the same as rows."""
    found = []
    for rest in (
        (9, 7),
        (5,),
        *((d,) for d in (1, 2, *range(7, 10), *range(15, 18), *range(31, 34), *range(61, 71), 257)),
    ):
        case = random_rows((2, classes, *rest), dtype, given=("weight", "row_weight", "offset"), smoothing=0.1)
        flat = replace(
            case,
            input=case.input.movedim(1, -1).reshape(-1, classes),
            target=case.target.reshape(-1),
            upstream=case.upstream.reshape(-1),
            row_weight=case.row_weight.reshape(-1),
        )
        found.append((str(rest), case, exact_rows(flat), [_wider(flat).reference()]))
    return found


@each_kernel
@pytest.mark.parametrize("dtype", JUDGED, ids=str)
@pytest.mark.parametrize("classes", [3, 21])
def test_dense_logits_are_no_worse_than_eager(classes: int, dtype: torch.dtype) -> None:
    accumulation = F64 if dtype == F64 else F32
    loss_judge, grad_judge = Judge(accumulation), Judge(dtype)
    for what, case, (loss, grad), ((eager_loss, eager_grad),) in _dense(dtype, classes):
        ours, ours_grad = case.operator()
        loss_judge.add(f"loss of {what}", ours.reshape(-1), loss, eager_loss)
        grad_judge.add(f"gradient of {what}", ours_grad.movedim(1, -1).reshape(-1, classes), grad, eager_grad)
    loss_judge.verdict()
    grad_judge.verdict()


# ------------------------------------------------------------------------------------------------------------ elements


@functools.lru_cache(maxsize=8)
def _elements(dtype: torch.dtype, spread: str, name: str) -> list[tuple[str, Elements, Any, list[Any]]]:
    found = []
    sizes = [(n,) for n in (*range(1, 41), *range(63, 71), *range(127, 130), *range(255, 261), 600, 4099)]
    for shape in [*sizes, (7, 13), (5, 257), (2, 21, 9, 7)]:
        case = random_elements(shape, dtype, spread=spread, **ELEMENTS[name])
        found.append((str(shape), case, exact_elements(case), [_wider(case).reference()]))
    return found


@each_kernel
@pytest.mark.parametrize("dtype", JUDGED, ids=str)
@pytest.mark.parametrize("spread", SPREADS[:2])
@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_are_no_worse_than_eager(name: str, spread: str, dtype: torch.dtype) -> None:
    _judge(_elements(dtype, spread, name), dtype, BIT)


@each_kernel
@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
def test_elements_are_no_worse_than_pytorchs(dtype: torch.dtype) -> None:
    """Of terms that cancel PyTorch adds up both, so that it is judged by their size, and a loss near 0 by 1."""
    case = random_elements((300, 40), dtype, weight="rows", pos_weight="last")
    leaf = case.input.clone().requires_grad_()
    theirs = binary_cross_entropy_with_logits(leaf, case.target, case.weight, None, None, "none", case.pos_weight)
    (theirs_grad,) = torch.autograd.grad(theirs, leaf, case.upstream)
    ours, ours_grad = case.operator()
    for mine, eager, exact in zip((ours, ours_grad), (theirs, theirs_grad), exact_elements(case), strict=True):
        error, eagers = ((found.detach().numpy() - exact.value) / (1 + abs(exact.value)) for found in (mine, eager))
        assert abs(error).max() <= FACTOR * abs(eagers).max()


# ----------------------------------------------------------------------------------------- what the judge must refuse


def _verdicts(loss: Tensor, grad: Tensor, case: Rows) -> tuple[bool, bool]:
    exact, eager = exact_rows(case), [_wider(case).reference(), _torch(_wider(case))]
    loss_judge, grad_judge = Judge(F32), Judge(case.input.dtype)
    loss_judge.add("loss", loss, exact[0], *(values for values, _ in eager))
    grad_judge.add("gradient", grad, exact[1], *(values for _, values in eager))
    return loss_judge.accepts, grad_judge.accepts


def _emulated(case: Rows, lanes: int) -> tuple[Tensor, Tensor]:
    """Cross entropy that sums its exponentials in so many running float32 sums, and is right otherwise."""
    z = case.input.float().numpy()
    top = z.max(1, keepdims=True)
    e = np.exp((z - top).astype(np.float64)).astype(np.float32)
    e = np.pad(e, ((0, 0), (0, -e.shape[1] % lanes))).reshape(len(e), -1, lanes)
    total = np.cumsum(e, axis=1, dtype=np.float32)[:, -1].astype(np.float64).sum(1)
    l = (z.astype(np.float64) - top) - np.log(total)[:, None]  # noqa: E741  # the formula's own letter
    y = case.target.numpy()[:, None]
    loss = -np.take_along_axis(l, y, 1)[:, 0]
    hot = np.arange(z.shape[1]) == y
    grad = (np.exp(l) - hot) * case.upstream.numpy().astype(np.float64)[:, None]
    return torch.from_numpy(loss).float(), torch.from_numpy(grad).to(case.input.dtype)


@pytest.mark.parametrize("classes", [8142, 50000])
def test_one_running_sum_is_refused_and_many_are_not(classes: int) -> None:
    case = random_rows((3, classes))
    _, gradient = verdicts = _verdicts(*_emulated(case, 1), case)
    assert not any(verdicts) if classes == 50000 else not gradient  # the gradient shows it first
    assert _verdicts(*_emulated(case, 64), case) == (True, True)


def test_a_running_sum_in_a_gradient_of_bfloat16_is_left_to_the_loss() -> None:
    # Rounded to 8 bits it cannot be seen; the loss, in float32, shows it.
    case = random_rows((3, 50000), BF16)
    assert _verdicts(*_emulated(case, 1), case) == (False, True)


def test_a_logsumexp_in_one_number_is_refused_beside_large_logits() -> None:
    case = random_rows((7, 257), spread="shifted")
    lse = case.input.logsumexp(1, keepdim=True)
    s = (case.input - lse).exp()
    hot = torch.nn.functional.one_hot(case.target, 257)
    loss = (lse - case.input.gather(1, case.target[:, None]))[:, 0]
    assert _verdicts(loss, (s - hot) * case.upstream[:, None], case) == (False, False)


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_a_softmax_rounded_before_the_true_class_is_folded_in_is_refused(dtype: torch.dtype) -> None:
    case = random_rows((41, 10), dtype)
    loss, _ = _wider(case).reference()
    s = case.input.float().softmax(1).to(dtype)
    hot = torch.nn.functional.one_hot(case.target, 10)
    grad = ((s - hot).float() * case.upstream[:, None]).to(dtype)
    assert _verdicts(loss, grad, case) == (True, False)


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_a_gradient_scaled_after_it_was_rounded_is_refused(dtype: torch.dtype) -> None:
    case = random_rows((41, 10), dtype)
    loss, grad = replace(case, upstream=torch.ones(41)).reference()
    assert _verdicts(loss.float(), (grad.float() * case.upstream[:, None]).to(dtype), case) == (True, False)


def test_an_element_whose_logarithm_loses_its_last_bits_is_refused() -> None:
    """log(1 + e^−z) and 1 − σ in place of log1p and σ(−z)."""
    case = random_elements((300, 40), target="binary")
    p = case.input.sigmoid()
    loss = -torch.where(case.target == 1, p.log(), (1 - p).log())
    judge = Judge(F32, BIT)
    judge.add("loss", loss, exact_elements(case)[0], case.reference()[0])
    assert not judge.accepts
