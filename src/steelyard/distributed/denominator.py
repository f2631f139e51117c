"""What one mean over all micro-batches and ranks divides by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from steelyard import nn, ops
from steelyard._errors import describe, refuse
from steelyard.distributed import _group
from steelyard.functional._check import element_values, row_values
from steelyard.functional._denominator import sigmoid_denominator, softmax_denominator
from steelyard.nn._base import Loss
from steelyard.nn.sigmoid import row_by_row

__all__ = ["loss_denominator"]

_NAME = "loss_denominator"
_F64 = torch.float64


def loss_denominator(
    loss: Loss | nn.DeferredReweighting,
    targets: Tensor | Iterable[Tensor],
    group: Any = None,
    gradients_averaged: bool = True,
    *,
    sample_weight: Any = None,
) -> Tensor:
    r"""What the mean over *all* micro-batches and ranks divides by: one number for every call of the loss in a step.

    The mean of the means of parts is another loss than the mean of the whole, unless all parts weigh the same. With
    ``loss(input, target, denominator=D)`` for each micro-batch, and the gradients added up, a step is that of the one
    full batch, however it is cut.

    Equals, for ``CrossEntropyLoss(weight=w)``, ``sum(w[t].sum() for t in targets)`` over all ranks; divided by the
    number of ranks where the engine takes the mean of their gradients, so that this mean becomes the sum.

    Args:
        loss: A loss of :mod:`steelyard.nn` with ``reduction="mean"``, or one in a ``DeferredReweighting``. Its
            ``denominator`` is the rule: ``"torch"``, ``"weights"`` or ``"samples"``.
        targets: What the loss will be given: one tensor, or an iterable of one for each micro-batch, none for a rank
            that has no rows.
        group: The ranks that share the batch. None is the default process group, or this process alone if none has been
            started. Every rank of it must call.
        gradients_averaged: Whether the engine averages gradients over the group, as DDP and FSDP do.
        sample_weight: Of rows, as the loss will be given them: one tensor, or an iterable in step with ``targets``.

    Returns:
        0-d float64 tensor, without a gradient, on the device of the targets; nothing waits for that device.

    Raises:
        TypeError, ValueError, IndexError: an argument that is not as said, a target that the loss would refuse.
        RuntimeError: another rank failed (on a GPU: NaN instead).

    Example:
        >>> loss = nn.CrossEntropyLoss(weight=[1.0, 10.0])
        >>> parts = torch.tensor([0, 1]), torch.tensor([0, 0])
        >>> loss_denominator(loss, parts)
        tensor(13., dtype=torch.float64)

    Source: PyTorch issue 72047 describes the fault.
    """
    members = _group.resolve(_NAME, group)
    own: Tensor | None = None
    failure: Exception | None = None
    try:
        own = own_denominator(loss, targets, sample_weight, _group.device_of(members))
        if not isinstance(gradients_averaged, bool):
            refuse(_NAME, "gradients_averaged", "True or False", gradients_averaged, error=TypeError)
    except Exception as error:  # whatever an iterable of the caller's may raise, too: the other ranks are waiting
        failure = error
    total = _group.shared_sum(_NAME, members, own, failure)
    return total / _group.world_size(members) if gradients_averaged else total


def own_denominator(loss: Any, targets: Any, sample_weight: Any = None, device: torch.device | None = None) -> Tensor:
    """The sum over the micro-batches of this rank; without any, on ``device`` unless the loss has one."""
    if isinstance(loss, nn.DeferredReweighting):
        loss = loss.loss
    if not isinstance(loss, Loss):
        refuse(_NAME, "loss", "a loss of steelyard.nn", describe(loss), error=TypeError)
    if loss.reduction != "mean":
        refuse(_NAME, "loss", "one with reduction='mean'", f"reduction={loss.reduction!r}", "Nothing else divides.")
    if not isinstance(loss.denominator, str):
        hint = "A number is the denominator already: pass it on."
        refuse(_NAME, "loss", "one whose denominator is a rule", f"denominator={loss.denominator!r}", hint)
    parts = [targets] if isinstance(targets, Tensor) else _listed("targets", targets)
    rows = [None] * len(parts)
    if sample_weight is not None:
        rows = [sample_weight] if isinstance(targets, Tensor) else _listed("sample_weight", sample_weight)
    if len(rows) != len(parts):
        refuse(_NAME, "sample_weight", f"one for each of the {len(parts)} micro-batches", f"{len(rows)}")
    total: Tensor | None = None
    for target, weight in zip(parts, rows, strict=True):
        if not isinstance(target, Tensor):
            refuse(_NAME, "targets", "a tensor or an iterable of tensors", describe(target), error=TypeError)
        part = torch.zeros((), dtype=_F64, device=target.device) + _part(loss, target, weight)
        total = part if total is None else total + part
    if total is None:
        total = torch.zeros((), dtype=_F64, device=next(loss.buffers(), torch.empty(0, device=device)).device)
    return total.detach()


def _listed(argument: str, values: Any) -> list[Any]:
    if isinstance(values, Tensor | str | dict) or not isinstance(values, Iterable):
        refuse(_NAME, argument, "one for each micro-batch, in an iterable", describe(values), error=TypeError)
    return list(values)


def _part(loss: Any, target: Tensor, sample_weight: Any) -> Tensor | float:
    """What the loss itself would divide a mean over ``target`` by.

    The rules read no logit, only their shape and dtype: an expanded number stands in for them.
    """
    weight = None if loss.weight is None else loss._acting(loss.weight)
    if "elements" in _forms(loss):
        if target.is_complex():
            refuse(_NAME, "targets", "real", target, error=TypeError)
        input = target.new_zeros((), dtype=_F64).expand(target.shape)
        v = element_values(_NAME, "weight", row_by_row(_NAME, weight, sample_weight, input), input)
        p = element_values(_NAME, "pos_weight", loss._acting(getattr(loss, "pos_weight", None)), input)
        share, ignored = getattr(loss, "alpha", None), getattr(loss, "ignore_index", None)
        if share is not None:
            p = target.new_full((), share, dtype=_F64) if p is None else p * share
        labels = target.long() if ignored is not None and not target.is_floating_point() else target
        q = 1.0 if share is None else 1.0 - share
        return sigmoid_denominator(loss.denominator, input, labels, v, p, q, ignored)
    soft = target.is_floating_point()
    if target.is_complex() or target.dtype == torch.bool or (soft and "distribution" not in _forms(loss)):
        forms = "class indices (integers)" + " or class probabilities (floats)" * ("distribution" in _forms(loss))
        refuse(_NAME, "targets", forms, target, error=TypeError)
    held = weight if weight is not None else getattr(loss, "counts", None)
    classes = getattr(loss, "num_classes", None) if held is None else len(held)
    here = getattr(loss, "shard", None)  # of a loss whose classes are spread over ranks, as its soft targets are
    if soft and here is not None:
        classes, weight = len(here), None
    if soft and (target.dim() == 0 or classes not in (None, target.shape[min(1, target.dim() - 1)])):
        refuse(_NAME, "targets", f"probabilities of {classes or 'all'} classes", target)
    shape = (classes or 1,) if target.dim() == 0 else (target.shape[0], classes or 1, *target.shape[1:])
    if soft and here is not None and loss.denominator == "weights":
        hint = "Each rank would know the weights of a part: take denominator='samples', or index targets."
        refuse(_NAME, "loss", "one with another rule where probabilities are sharded", "denominator='weights'", hint)
    input = target.new_zeros((), dtype=_F64).expand(target.shape if soft else shape)
    ignored = getattr(loss, "ignore_index", None)
    ignored = -100 if ignored is None else ignored
    if not soft:
        target = target.long()  # compared in uint8, 156 is −100
        if classes is not None:
            _check_labels(input, target, ignored)
    wide = None if weight is None else weight.to(_F64)
    v = row_values(_NAME, "sample_weight", sample_weight, input)
    smoothing, by_target = getattr(loss, "label_smoothing", 0.0), getattr(loss, "smooth_weight", "class") == "target"
    return softmax_denominator(loss.denominator, input, target, wide, v, smoothing, by_target, ignored)


def _check_labels(input: Tensor, target: Tensor, ignored: int) -> None:
    try:
        ops.check_labels(input, target, ignored)
    except ops.LabelError as error:
        raise ops.LabelError(f"{_NAME}: {error}") from None


def _forms(loss: Loss) -> tuple[str, ...]:
    """The forms that the target of this loss may have."""
    from steelyard.registry import LOSSES

    return next((e.targets for e in LOSSES.values() if isinstance(loss, e.module)), ("indices", "distribution"))
