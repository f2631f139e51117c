"""Calls of the sharded loss in which ranks do not do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from steelyard.distributed import class_parallel_cross_entropy

__all__ = ["disagreements"]


class Disagreement:
    """Calls in which the rank that speaks last gives something else than the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.odd = rank == size - 1
        self.logits, self.target = torch.zeros(4, 2), torch.tensor([0, 1, 2, 3])
        self.classes = 2 * size

    def table(self) -> dict[str, Callable[[], Any]]:
        x, y, odd, loss = self.logits, self.target, self.odd, class_parallel_cross_entropy
        ones = torch.ones(self.classes)
        return {
            "rows": lambda: loss(x[:3] if odd else x, y[:3] if odd else y),
            "as many rows": lambda: loss(torch.zeros(2, 2, 2) if odd else x, y.reshape(2, 2) if odd else y),
            "axes": lambda: loss(torch.zeros(4, 2, 1) if odd else x, y.reshape(4, 1) if odd else y),
            "dtype": lambda: loss(x.double() if odd else x, y),
            "form": lambda: loss(x, torch.ones(4, 2) / 2 if odd else y),
            "labels": lambda: loss(x, y.roll(1) if odd else y),
            "out of range": lambda: loss(x, torch.tensor([0, 1, 2, 99]) if odd else y),
            "out of range everywhere": lambda: loss(x, torch.tensor([0, 1, 2, 99])),
            "weight": lambda: loss(x, y, ones if odd else None),
            "length of weight": lambda: loss(x, y, ones[:3] if odd else ones),
            "weight of all classes": lambda: loss(x, y, ones[:2] if odd else ones),
            "NaN in weight": lambda: loss(x, y, ones * (torch.nan if odd else 1.0)),
            "offset": lambda: loss(x, y, logit_offset=ones if odd else None),
            "sample_weight": lambda: loss(x, y, sample_weight=ones[:4] if odd else None),
            "values of sample_weight": lambda: loss(x, y, sample_weight=torch.ones(4) * (2.0 if odd else 1.0)),
            "smoothing": lambda: loss(x, y, label_smoothing=0.1 if odd else 0.2),
            "no smoothing": lambda: loss(x, y, label_smoothing=2.0 if odd else 0.2),
            "smooth_weight": lambda: loss(x, y, ones, label_smoothing=0.1, smooth_weight="target" if odd else "class"),
            "ignore_index": lambda: loss(x, y, ignore_index=0 if odd else -100),
            "reduction": lambda: loss(x, y, reduction="sum" if odd else "mean"),
            "denominator": lambda: loss(x, y, denominator="samples" if odd else "torch"),
            "number": lambda: loss(x, y, denominator=2.0 if odd else torch.tensor(3.0)),
            "empty": lambda: loss(x, y, empty="zero" if odd else "nan"),
            "gradients": lambda: loss(x, y, ones.clone().requires_grad_(odd)),
            "gradients of others": lambda: loss(
                x, y, ones.clone().requires_grad_(not odd), logit_offset=ones.clone().requires_grad_(odd)
            ),
            "gradients of logits": lambda: loss(x.clone().requires_grad_(not odd), y, ones.clone().requires_grad_()),
            "shape of rows": lambda: loss(
                torch.zeros(2, 2, 3, 2) if odd else torch.zeros(2, 2, 2, 3),
                torch.zeros(2, 3, 2).long() if odd else torch.zeros(2, 2, 3).long(),
            ),
            "values of weight": lambda: loss(x, y, ones * (2.0 if odd else 1.0)),
            "no tensor": lambda: loss(None if odd else x, y),
            "no classes": lambda: loss(torch.zeros(4, 0), y),
            "shards": lambda: loss(x, y, shards=[2] * (self.classes // 2 - 1) + [3]),
            "shards of some": lambda: loss(x, y, shards=[2] * (self.classes // 2) if odd else None),
            "shards of others": lambda: loss(torch.zeros(4, 2 + odd), y, shards=[3 if odd else 2, 2, 3 if odd else 2]),
            "broken": lambda: loss(x, _Broken() if odd else y),
        }


class _Broken(Tensor):
    """A target whose shape cannot be read."""

    @property
    def shape(self) -> Any:  # type: ignore[override]
        raise KeyError("broken on purpose")


def disagreements(rank: int, size: int) -> dict[str, str]:
    """What each rank raises; the group is as good as before after each."""
    told = {}
    for label, call in Disagreement(rank, size).table().items():
        try:
            told[label] = f"{call().item()}"
        except Exception as error:
            told[label] = f"{type(error).__name__}: {error}"
        check = torch.ones(1)
        dist.all_reduce(check)
        assert check.item() == size, label
    return told
