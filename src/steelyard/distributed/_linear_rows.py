"""The sharded loss of a linear layer's output, some rows of logits at a time.

Logits are made twice: in the forward pass for the sums of rows, and in the backward pass, chunk by chunk, for the
gradient over the same memory. So the ranks meet as often as for logits that are there: twice for all rows together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from steelyard import ops
from steelyard.distributed import _group
from steelyard.distributed._composed import composed_rows, to_shards
from steelyard.distributed._sharded import Rows, Terms, blocks, combine, gradient, joined, local_sums, losses

__all__ = ["chunked_rows", "chunks", "dense_rows"]

_CLASSES = 4096  # of a weight in half precision that are widened at a time


def chunks(features: Tensor, width: int, budget: int) -> Iterator[slice]:
    """Rows whose logits fit into so many bytes, one at least."""
    row = max(width, 1) * ops.accumulation_dtype(features.dtype).itemsize
    size = max(budget // row, 1)
    return (slice(start, start + size) for start in range(0, max(len(features), 1), size))


class _Run:
    """One call: what the Function is given, and what it found out beside the loss."""

    def __init__(self, terms: Terms, group: Any, marks: Tensor | None, budget: int) -> None:
        self.terms, self.group, self.marks, self.budget = terms, group, marks, budget
        self.rows: Rows | None = None


def chunked_rows(
    features: Tensor, weight: Tensor, bias: Tensor | None, terms: Terms, group: Any, marks: Tensor | None, budget: int
) -> tuple[Tensor, Rows]:
    """Losses of rows, and what is known of them, for this rank's part of a layer."""
    run = _Run(terms, group, marks, budget)
    loss: Tensor = _Chunked.apply(features, weight, bias, run)  # type: ignore[no-untyped-call]
    assert run.rows is not None
    return loss, run.rows


def dense_rows(
    features: Tensor, weight: Tensor, bias: Tensor | None, terms: Terms, group: Any, marks: Tensor | None
) -> tuple[Tensor, Rows]:
    """The same with all logits at once, differentiable to any order in everything."""
    rows = composed_rows(linear(to_shards(features, group), weight, bias), terms, group, marks)
    return losses(rows, terms), rows


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, run: _Run) -> Tensor:
        terms = run.terms
        parts = []
        for rows in chunks(features, len(weight), run.budget):
            logits = linear(features[rows], weight, bias)
            parts.append(local_sums(logits, terms.rows(rows)))
            del logits  # before the next ones are made, or there would be two chunks
        found = run.rows = combine(joined(parts), terms, run.group, run.marks)
        kept = (found.maximum, found.log_total, found.mass, found.own if terms.by_target else None)
        ctx.save_for_backward(features, weight, bias, terms.target, terms.weight, terms.row_weight, terms.offset, *kept)
        ctx.settings, ctx.group, ctx.budget = terms[4:], run.group, run.budget
        return losses(found, terms)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, target, class_weight, row_weight, offset, *numbers = ctx.saved_tensors
        terms = Terms(target, class_weight, row_weight, offset, *ctx.settings)
        maximum, log_total, mass, own = numbers
        found = Rows(maximum, log_total, None, mass, own)
        wanted = ctx.needs_input_grad[:3]
        # The same products as in the forward pass: under autocast they would be made in another dtype.
        with torch.autocast(features.device.type, enabled=False):
            if torch.is_grad_enabled():
                return *_differentiable(features, weight, bias, terms, ctx.group, grad, wanted), None
            gradients = _Gradients(features, weight, wanted)
            for rows in chunks(features, len(weight), ctx.budget):
                logits = linear(features[rows], weight, bias)
                # In the accumulation dtype: a share of one in a million, divided by the rows, is 0 in float16.
                same = logits.dtype == maximum.dtype
                result = logits if same else logits.new_empty(logits.shape, dtype=maximum.dtype)
                chunk = found.some(rows)
                for some in blocks(logits):
                    part = terms.rows(rows).rows(some)
                    gradient(grad[rows][some], logits[some], part, chunk.some(some), result[some])
                del logits
                gradients.add(rows, result)
                del result
            return *gradients.finished(ctx.group), None


class _Gradients:
    """Of features, weight and bias, as far as they are asked for, in the accumulation dtype."""

    def __init__(self, features: Tensor, weight: Tensor, wanted: tuple[bool, ...]) -> None:
        self.given, self.layer = features, weight
        wide = ops.accumulation_dtype(features.dtype)
        of_features, of_weight, of_bias = wanted
        self.features = features.new_zeros(features.shape, dtype=wide) if of_features else None
        self.weight = weight.new_zeros(weight.shape, dtype=wide) if of_weight else None
        self.bias = weight.new_zeros(len(weight), dtype=wide) if of_bias else None

    def add(self, rows: slice, grad: Tensor) -> None:
        """What the gradient of some rows of logits adds."""
        features = self.given[rows].to(grad.dtype)
        width = len(self.layer)
        step = max(width, 1) if self.layer.dtype == grad.dtype else _CLASSES
        if self.bias is not None:
            self.bias += grad.sum(0)
        for start in range(0, width, step):
            some = slice(start, start + step)
            if self.features is not None:
                self.features[rows].addmm_(grad[:, some], self.layer[some].to(grad.dtype))
            if self.weight is not None:
                self.weight[some].addmm_(grad[:, some].t(), features)

    def finished(self, group: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients; features, which all ranks hold alike, get that of all classes."""
        dtype = self.given.dtype
        of_features = None if self.features is None else _group.summed(group, self.features).to(dtype)
        of_weight = None if self.weight is None else self.weight.to(dtype)
        return of_features, of_weight, None if self.bias is None else self.bias.to(dtype)


def _differentiable(
    features: Tensor, weight: Tensor, bias: Tensor | None, terms: Terms, group: Any, grad: Tensor, wanted: Any
) -> tuple[Tensor | None, ...]:
    """The gradients by pieces that can be differentiated again."""
    given = (features, weight, bias)
    with torch.enable_grad():
        loss, _ = dense_rows(features, weight, bias, terms, group, None)
        asked = [tensor for tensor, want in zip(given, wanted, strict=True) if want and tensor is not None]
        found = iter(torch.autograd.grad(loss, asked, grad, create_graph=True))
    return tuple(
        next(found) if want and tensor is not None else None for tensor, want in zip(given, wanted, strict=True)
    )
