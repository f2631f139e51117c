"""The loss over sharded classes from differentiable pieces, for derivatives that the closed form does not have.

Two operations that are each other's derivative carry it to any order. ``to_shards``: a number that all ranks hold alike
goes into the work of each; its gradient is the sum of theirs. ``from_shards``: the sum of what ranks hold becomes a
number that all hold alike; the gradient of each part is that of the sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steelyard import ops
from steelyard.distributed import _group
from steelyard.distributed._sharded import Rows, Terms, shifted

__all__ = ["composed_rows", "from_shards", "to_shards"]


class _ToShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return from_shards(grad, ctx.group), None


class _FromShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _group.summed(group, value.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return to_shards(grad, ctx.group), None


def to_shards(value: Tensor, group: Any) -> Tensor:
    """What all ranks hold alike, to be used by each for its own classes."""
    result: Tensor = _ToShards.apply(value, group)  # type: ignore[no-untyped-call]
    return result


def from_shards(value: Tensor, group: Any) -> Tensor:
    """The sum over the ranks, which all hold alike."""
    result: Tensor = _FromShards.apply(value, group)  # type: ignore[no-untyped-call]
    return result


def composed_rows(logits: Tensor, terms: Terms, group: Any, marks: Tensor | None = None) -> Rows:
    """As :func:`~steelyard.distributed._sharded.combine` of the local sums, differentiable to any order in everything.

    Written from the formula, class by class, with targets as distributions; nothing is saved on memory.
    """
    width = logits.shape[1]
    a = shifted(logits, terms)
    weight = None if terms.weight is None else ops.per_class(terms.weight, logits)
    if terms.soft:
        q = terms.target.to(a.dtype)
    else:
        here, y = terms.here(width)
        ids = ops.per_class(torch.arange(width, device=a.device), logits)
        q = ((ids == y.unsqueeze(1)) & here.unsqueeze(1)).to(a.dtype)
        a = a.masked_fill((terms.target == terms.ignore_index).unsqueeze(1), 0.0)
    q_smooth = q if terms.smoothing == 0.0 else q * (1.0 - terms.smoothing) + terms.smoothing / terms.classes
    share = q_smooth if weight is None or terms.by_target else q_smooth * weight
    shape = (len(a), *a.shape[2:])
    own_maximum = a.detach().amax(1) if width else a.detach().new_full(shape, -torch.inf)
    own_maximum = own_maximum.masked_fill(own_maximum.isnan(), -torch.inf).reshape(-1)
    differ: Tensor | None = None
    if marks is not None:
        packed = _group.maximum(group, torch.cat([own_maximum, marks.to(a.dtype), -marks.to(a.dtype)]))
        highest, lowest = packed[-2 * len(marks) :].chunk(2)
        differ, own_maximum = (highest != -lowest).any(), packed[: -2 * len(marks)]
    else:
        own_maximum = _group.maximum(group, own_maximum.clone())
    maximum = own_maximum.reshape(shape)
    log_total = from_shards((a - maximum.unsqueeze(1)).exp().sum(1), group).log()
    if differ is not None:
        log_total = log_total.masked_fill(differ, torch.nan)
    nats = to_shards(log_total, group).unsqueeze(1) - (a - maximum.unsqueeze(1))
    nats = nats.masked_fill((share == 0) & (nats == torch.inf), 0.0)
    cost = (share * nats).sum(1)
    carried = [cost, share.sum(1)] + ([] if weight is None else [(q * weight).sum(1)])
    found = from_shards(torch.stack(carried), group).unbind(0)
    # As ``losses`` puts them together, with the cost of log T in the pull already.
    return Rows(maximum, torch.zeros_like(log_total), found[0], found[1], found[2] if weight is not None else None)
