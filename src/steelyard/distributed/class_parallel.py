"""Cross entropy where the classes are spread over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard.distributed import _group
from steelyard.distributed._call import Call, checked, placed, reduced
from steelyard.distributed._composed import composed_rows
from steelyard.distributed._sharded import Rows, Terms, blocks, combine, gradient, local_sums, losses
from steelyard.distributed._shards import check_shards, plain, unwrapped
from steelyard.functional._check import as_tensor
from steelyard.functional._reduce import Denominator

__all__ = ["class_parallel_cross_entropy"]


@_group.uncompiled
def class_parallel_cross_entropy(
    local_logits: Tensor,
    target: Tensor,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    logit_offset: Any = None,
    smooth_weight: Literal["class", "target"] = "class",
    denominator: Denominator = "torch",
    empty: Literal["nan", "zero", "raise"] = "nan",
    group: Any = None,
    shards: Sequence[int] | None = None,
) -> Tensor:
    r"""Cross entropy on logits whose classes are spread over the ranks of a group.

    For classifiers with more classes than one device holds. Class weights, label smoothing, soft targets and every
    denominator give the numbers that they give on one device. What ranks send each other grows with the rows and not
    with the classes: two all-reduces in the forward pass, none in the backward pass.

    Equals ``cross_entropy(torch.cat(all_local_logits, 1), target, ...)`` of :mod:`steelyard.functional`, on every rank,
    and its gradient for the logits that this rank holds.

    Args:
        local_logits: Logits of this rank's classes, float, ``(C_local,)``, ``(N, C_local)`` or
            ``(N, C_local, d1, ...)``. The ranks hold the same rows, and consecutive classes in the order of their
            numbers in the group; as many as they like, or none. Or a ``DTensor`` with ``Shard(1)`` on one axis of its
            mesh (``Shard(-1)`` of two axes) and ``Replicate()`` on the others. Accumulates as ``cross_entropy``.
        target: Class indices in ``[0, C)``, of *all* classes, or ``ignore_index``, integer, shape of the rows, the same
            on every rank; or the probabilities of this rank's classes, float, shape of ``local_logits``.
        weight: Class weights, finite, of all classes ``(C,)`` or of this rank's ``(C_local,)``.
        ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty: As for
            :func:`steelyard.functional.cross_entropy`.
        sample_weight: Row weights, finite, shape of the rows or ``(N,)``; the same on every rank.
        logit_offset: Added to the logits, finite or −inf, ``(C,)`` or ``(C_local,)``; or in the shape of
            ``local_logits``.
        group: The ranks that share the classes. None is the group of a ``DTensor``'s mesh; else the default process
            group, or this process alone, with all classes, if none has been started. Every rank of it must call.
        shards: Number of classes on each rank. On a CPU the ranks compare their arguments first, 216 bytes from each,
            with or without it. Elsewhere that would make the host wait for the device, and ``shards`` spares it:
            nothing is exchanged. Numbers, options or index targets that differ then make the loss NaN; a rank that
            refuses its arguments, or gives an argument that others do not, or one of another shape or kind, leaves
            the group to its time-out. A ``DTensor`` knows its shards.

    Returns:
        Loss in nats, the same plain tensor on every rank; dtype as ``cross_entropy``, a scalar or the shape of the
        rows. Differentiable to any order, if all ranks go backward alike; a derivative beyond the first gradient of the
        logits holds some dense tensors and starts collectives.

    Raises:
        IndexError: a label outside ``[0, C)`` (on a GPU: NaN).
        TypeError, ValueError: dtypes, shapes, options; ranks that differ in rows, dtype, targets or options.
        RuntimeError: another rank raised one of these for its own arguments.

    Example:
        >>> logits, target = torch.tensor([[0.1, 0.9], [0.0, 0.1]]), torch.tensor([0, 1])
        >>> class_parallel_cross_entropy(logits, target, weight=[0.1, 1.0])  # one process: all classes are here
        tensor(0.6923)

    Source: Shoeybi et al. 2019, arXiv:1909.08053, §3, for plain index targets; weights, smoothing and soft targets are
    linear in sums over classes, which the second collective carries along.
    """
    name = "class_parallel_cross_entropy"
    logits, members, mesh_axis, widths = unwrapped(name, local_logits, group)
    dense = 0 if mesh_axis is not None and local_logits.dim() == 1 else 1
    call: Call | None = None
    failure: Exception | None = None
    try:
        soft = isinstance(target, Tensor) and target.is_floating_point()
        target = plain(name, "target", target, local_logits, mesh_axis, dense if soft else None)
        weight = plain(name, "weight", as_tensor(weight), local_logits, mesh_axis, 0)
        if isinstance(logit_offset, Tensor) and logit_offset.dim() > 1:
            logit_offset = plain(name, "logit_offset", logit_offset, local_logits, mesh_axis, dense)
        logit_offset = plain(name, "logit_offset", as_tensor(logit_offset), local_logits, mesh_axis, 0)
        sample_weight = plain(name, "sample_weight", as_tensor(sample_weight), local_logits, mesh_axis, None)
        call = checked(
            name, logits, target, weight=weight, ignore_index=ignore_index, reduction=reduction,
            label_smoothing=label_smoothing, sample_weight=sample_weight, logit_offset=logit_offset,
            smooth_weight=smooth_weight, denominator=denominator, empty=empty,
        )  # fmt: skip
        if shards is not None and widths is not None:
            refuse(name, "shards", "None for a DTensor, which knows its shards", "one")
        if shards is not None:
            widths = check_shards(name, shards, members, call.width)
    except (TypeError, ValueError, IndexError) as error:
        # The checks are those of losses whose first argument is called 'input'.
        failure = type(error)(str(error).replace("'input'", "'local_logits'"))
    except Exception as error:  # the other ranks are waiting
        failure = error
    device = logits.device if isinstance(logits, Tensor) else _group.device_of(members)
    call, terms, marks = placed(name, call, failure, members, widths, device)
    return reduced(name, call, terms, *_rows(call, terms, members, marks))


def _rows(call: Call, terms: Terms, group: Any, marks: Tensor | None) -> tuple[Tensor, Rows]:
    if call.differentiated:
        rows = composed_rows(call.logits, terms, group, marks)
        return losses(rows, terms), rows
    run = _Run(terms, group, marks)
    loss: Tensor = _Sharded.apply(call.logits, run)  # type: ignore[no-untyped-call]
    assert run.rows is not None
    return loss, run.rows


class _Run:
    """One call: what the Function is given, and what it found out beside the loss."""

    def __init__(self, terms: Terms, group: Any, marks: Tensor | None) -> None:
        self.terms, self.group, self.marks = terms, group, marks
        self.rows: Rows | None = None


class _Sharded(torch.autograd.Function):
    """Losses of rows, and the gradient of this rank's logits from those and a few numbers for each row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, run: _Run) -> Tensor:
        terms = run.terms
        rows = run.rows = combine(local_sums(logits, terms), terms, run.group, run.marks)
        kept = rows.maximum, rows.log_total, rows.mass, rows.own if terms.by_target else None
        ctx.save_for_backward(logits, terms.target, terms.weight, terms.row_weight, terms.offset, *kept)
        ctx.settings, ctx.group = terms[4:], run.group
        return losses(rows, terms)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, target, weight, row_weight, offset, *numbers = ctx.saved_tensors
        terms, (maximum, log_total, mass, own) = Terms(target, weight, row_weight, offset, *ctx.settings), numbers
        rows = Rows(maximum, log_total, None, mass, own)
        if torch.is_grad_enabled():
            return _differentiable(logits, terms, ctx.group, grad), None
        result = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for some in blocks(logits):
            gradient(grad[some], logits[some], terms.rows(some), rows.some(some), result[some])
        return result, None


def _differentiable(logits: Tensor, terms: Terms, group: Any, grad: Tensor) -> Tensor:
    """The gradient by pieces that can be differentiated again."""
    with torch.enable_grad():
        loss = losses(composed_rows(logits, terms, group), terms)
        return torch.autograd.grad(loss, logits, grad, create_graph=True)[0]
