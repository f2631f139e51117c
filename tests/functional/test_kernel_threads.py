"""The same bits for any number of threads and on every run, and calls from several threads at once."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from kernel_cases import bits, each_kernel, random_elements, random_rows
from torch import Tensor

from steelyard.registry import LOSSES, LossEntry

THREADS = (1, 2, 3, 5, 8)
LARGE = [entry for entry in LOSSES.values() if entry.formula != "likelihood" and entry.input == "logits"]

# Few classes in many rows; maps of a length off any tile; long rows, more and fewer of them than threads; one row.
ROWS = [(70001, 3), (3, 5, 251, 67), (37, 6001), (2, 70001), (1, 262147)]
ELEMENTS = [(2**18 + 3,), (501, 523), (3, 5, 251, 67)]

pytestmark = pytest.mark.usefixtures("threads")


@functools.lru_cache(maxsize=2)
def _arguments(
    entry: LossEntry, targets: str, shape: tuple[int, ...]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    g = torch.Generator().manual_seed(0)
    input = torch.randn(shape, generator=g) * 2
    if targets == "elements":
        weight = torch.rand(shape[-1], generator=g) + 0.1
        return input, (torch.rand(shape, generator=g),), {"pos_weight": weight}
    classes, rows = shape[1], shape[:1] + shape[2:]
    if targets == "indices":
        target = torch.randint(classes, rows, generator=g)
        options: dict[str, Any] = {"ignore_index": 1}
    else:
        target, options = torch.randn(shape, generator=g).softmax(1), {"label_smoothing": 0.1}
    if entry.name != "ldam_loss":
        options["weight"] = torch.rand(classes, generator=g) + 0.1
    counts = (torch.randint(1, 1000, (classes,), generator=g),) * entry.counts
    return input, (target, *counts), options


CASES = [
    pytest.param(entry, targets, shape, id=f"{entry.name}-{targets}-{'x'.join(map(str, shape))}")
    for entry in LARGE
    for targets in entry.targets
    for shape in (ELEMENTS if targets == "elements" else ROWS if entry.name == "cross_entropy" else ROWS[1::2])
]


@each_kernel
@pytest.mark.parametrize(("entry", "targets", "shape"), CASES)
def test_the_same_bits_for_any_number_of_threads(entry: LossEntry, targets: str, shape: tuple[int, ...]) -> None:
    input, rest, options = _arguments(entry, targets, shape)
    seen: list[Tensor] = []
    for threads in (*THREADS, 2):
        torch.set_num_threads(threads)
        found = []
        for settings in ({"reduction": "mean"}, {"reduction": "mean", "denominator": "weights"}, {"reduction": "none"}):
            leaf = input.detach().requires_grad_()
            out = entry.function(leaf, *rest, **options, **settings)
            upstream = torch.tensor(1.37) if out.dim() == 0 else torch.linspace(-1, 1, out.numel()).reshape(out.shape)
            out.backward(upstream)
            found += [bits(out), bits(leaf.grad)]
        seen = seen or found
        for number, (ours, first) in enumerate(zip(found, seen, strict=True)):
            assert torch.equal(ours, first), f"result {number} for {threads} threads"


@each_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_the_largest_of_each_kind_have_the_same_bits(dtype: torch.dtype) -> None:
    """A row of a million classes, a million rows, a map, a million elements: by the operators, in other dtypes."""
    million = 1_000_003
    cases: list[Any] = [
        random_rows((1, million), dtype, given=("weight",), smoothing=0.1),
        random_rows((million // 4, 4), dtype, given=("weight", "row_weight"), gamma=2.0),
        random_rows((1, 21, 217, 219), dtype, target="soft", given=("offset",)),
        random_elements((million,), dtype, pos_weight="scalar", gamma_neg=2.5),
    ]
    for case in cases:
        seen: list[Tensor] = []
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            found = [bits(value) for value in case.operator()]
            seen = seen or found
            assert all(torch.equal(ours, first) for ours, first in zip(found, seen, strict=True)), f"{threads} threads"


@each_kernel
@pytest.mark.parametrize("threads", [1, 3])
def test_calls_from_several_threads_at_once_do_not_meet(threads: int) -> None:
    torch.set_num_threads(threads)
    entries = [LOSSES["cross_entropy"], LOSSES["binary_cross_entropy_with_logits"], LOSSES["focal_loss"]]

    def run(number: int) -> list[Tensor]:
        entry = entries[number % 3]
        input, rest, options = _arguments(entry, entry.targets[0], [(501, 523), (37, 6001)][entry.formula == "softmax"])
        leaf = input.detach().requires_grad_()
        out = entry.function(leaf, *rest, **options, reduction="mean")
        out.backward(torch.tensor(1.0 + number))
        return [bits(out), bits(leaf.grad)]

    alone = [run(number) for number in range(9)]
    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone * 3, pool.map(run, [*range(9)] * 3, timeout=60), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
