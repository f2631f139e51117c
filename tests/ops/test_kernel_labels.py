"""Labels are read where they lie, at any width; one that is no class is named before anything is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_cases import each_kernel, laid_out, random_rows

from steelyard import functional
from steelyard.ops import LabelError

INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]


@each_kernel
@pytest.mark.parametrize("kind", INTEGERS, ids=str)
@pytest.mark.parametrize("shape", [(300, 5), (3, 5, 100), (2, 200), (5,)], ids=str)
def test_labels_of_every_width_are_read_as_numbers(shape: tuple[int, ...], kind: torch.dtype) -> None:
    case = random_rows(shape, target="ignored", ignore_index=3, given=("weight",))
    if shape == (2, 200):
        case = replace(case, target=case.target.clamp(max=127))
    expected = case.operator()
    narrow = case.target.to(kind)
    for target in (narrow, laid_out(narrow, "every other"), laid_out(narrow, "transposed")):
        for ours, theirs in zip(replace(case, target=target).operator(), expected, strict=True):
            assert torch.equal(ours, theirs)


@each_kernel
@pytest.mark.parametrize("kind", INTEGERS, ids=str)
@pytest.mark.parametrize("shape", [(8, 5), (40, 5, 30), (2000, 5)], ids=str)
@pytest.mark.parametrize("soft_settings", [{}, {"smoothing": 0.1}, {"gamma": 2.0}])
@pytest.mark.usefixtures("threads")
def test_the_first_label_out_of_range_is_named(
    soft_settings: dict[str, Any], shape: tuple[int, ...], kind: torch.dtype
) -> None:
    torch.set_num_threads(3)
    case = random_rows(shape, **soft_settings)
    for label in {5, 127, torch.iinfo(kind).max, torch.iinfo(kind).min, -1} - {0}:
        if label < torch.iinfo(kind).min:
            continue
        target = case.target.to(kind)
        position = tuple(size * 2 // 3 for size in target.shape)
        target[position] = label
        target.view(-1)[-1] = label  # in another thread's share, where there are several
        where = ", ".join(map(str, position)) + "," * (len(position) == 1)
        for labels in (target, laid_out(target, "every other")):
            with pytest.raises(LabelError, match=rf"'target' must be in \[0, 5\).*got {label} at position \({where}\)"):
                replace(case, target=labels).operator()
        assert torch.isfinite(replace(case, target=target, ignore_index=label).operator()[0]).all()


@each_kernel
@pytest.mark.parametrize(
    ("kind", "label", "ignore_index"),
    [(torch.int8, -1, 255), (torch.uint8, 255, -1), (torch.uint8, 156, -100), (torch.int32, 7, 2**32 + 7),
     (torch.int16, 7, 2**16 + 7), (torch.int32, -1, 2**32 - 1)],
)  # fmt: skip
def test_a_label_is_not_taken_for_an_ignore_index_of_the_same_low_bits(
    kind: torch.dtype, label: int, ignore_index: int
) -> None:
    case = random_rows((4, 5), ignore_index=ignore_index)
    with pytest.raises(LabelError, match=f"got {label} at position \\(2,\\)"):
        replace(case, target=torch.tensor([0, 1, label, 2], dtype=kind)).operator()


@each_kernel
@pytest.mark.parametrize(
    ("kind", "label", "ignore_index"),
    [(torch.int8, -1, 255), (torch.uint8, 255, -1), (torch.uint8, 156, -100), (torch.int32, -1, 2**32 - 1)],
)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_nor_by_a_loss(reduction: str, kind: torch.dtype, label: int, ignore_index: int) -> None:
    input, target = torch.randn(3, 300)[:, :100], torch.tensor([0, label, 2], dtype=kind)
    with pytest.raises(IndexError, match=f"got {label} at position \\(1,\\)"):
        functional.cross_entropy(input, target, ignore_index=ignore_index, reduction=reduction)
    # With so many classes that the label is one of them.
    wide = torch.randn(3, 300)
    if label > 0:
        found = functional.cross_entropy(wide, target, ignore_index=ignore_index, reduction=reduction)
        expected = torch.nn.functional.cross_entropy(wide, target.long(), reduction=reduction)
        torch.testing.assert_close(found, expected)


@each_kernel
@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_unsigned_labels_that_pytorch_can_do_little_with(kind: torch.dtype) -> None:
    input, target = torch.randn(3, 300, requires_grad=True), torch.tensor([0, 299, 7])
    for reduction in ("none", "mean"):
        expected = functional.cross_entropy(input, target, reduction=reduction)
        torch.testing.assert_close(functional.cross_entropy(input, target.to(kind), reduction=reduction), expected)
