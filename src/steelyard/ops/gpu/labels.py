"""What labels weigh, summed up in one pass over them: what a mean of short rows divides by, and so waits for."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from steelyard.ops.gpu._launch import dense_labels, device_of, of_rows

__all__ = ["launch"]

_SIZE = 2048


@triton.jit(do_not_specialize=["count", "classes"])
def mass(
    y, w, v, sums, count, classes, v_step, ignore, WEIGHT: tl.constexpr, ROW_WEIGHT: tl.constexpr, SIZE: tl.constexpr
):
    """``Σ v·w[y]`` over a stretch of rows, ignored ones left out."""
    i = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    live = i < count
    label = tl.load(y + i, mask=live, other=0).to(tl.int64)
    kept = live & (label != ignore)
    found = tl.where(kept, 1.0, 0.0)
    if WEIGHT:
        # A label out of range makes the loss NaN; here it must only stay inside.
        label = tl.where(label < 0, 0, tl.where(label < classes, label, classes - 1))
        found = tl.load(w + label, mask=kept, other=0.0)
    if ROW_WEIGHT:
        found = found * tl.load(v + i * v_step, mask=live, other=0.0)
    tl.store(sums + tl.program_id(0), tl.sum(found, 0))


def launch(target: Tensor, weight: Tensor | None, row_weight: Tensor | None, classes: int, ignore_index: int) -> Tensor:
    """Numbers that add up to it, in float32."""
    programs = -(-target.numel() // _SIZE)
    sums = torch.empty(programs, dtype=torch.float32, device=target.device)
    v, v_step = of_rows(row_weight, sums)
    with device_of(target):
        mass[(programs,)](
            dense_labels(target), sums if weight is None else weight.contiguous(), v, sums, target.numel(), classes,
            v_step, ignore_index, WEIGHT=weight is not None, ROW_WEIGHT=row_weight is not None, SIZE=_SIZE,
            num_warps=8, enable_fp_fusion=True,
        )  # fmt: skip
    return sums
