"""One call of a loss over sharded classes: its arguments, checked alone, compared with the other ranks', and placed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard import ops
from steelyard._errors import refuse
from steelyard._values import readable
from steelyard.distributed import _agreement, _group
from steelyard.distributed._composed import to_shards
from steelyard.distributed._sharded import Rows, Terms
from steelyard.functional._check import (
    as_values,
    check_input,
    refuse_unless_finite,
    result_dtype,
    row_values,
)
from steelyard.functional._denominator import rows_denominator
from steelyard.functional._family import SMOOTH_WEIGHT, targets
from steelyard.functional._reduce import DENOMINATORS, EMPTY, REDUCTIONS, Denominator, check_reduction, reduce

__all__ = ["Call", "checked", "placed", "reduced"]

_FACTS = 20
"""What ranks compare: with six numbers of its own and a word on failure, 216 bytes from each."""

_DTYPES = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")


_LEARNED = ("weight", "sample_weight", "logit_offset", "target", "denominator")
_MADE_FROM = ("input", "linear.weight", "linear.bias")


class Call(NamedTuple):
    """Arguments, checked as far as one rank can, of logits ``(N, C_local, d1, ...)``."""

    logits: Tensor
    single: bool  # whether they came without N
    target: Tensor
    weight: Tensor | None
    row_weight: Tensor | None
    offset: Tensor | None
    smoothing: float
    by_target: bool
    ignore_index: int
    reduction: str
    denominator: Denominator
    empty: str
    facts: list[_agreement.Fact]
    differentiated: bool  # with respect to anything but the logits

    @property
    def width(self) -> int:
        return self.logits.shape[1]


def checked(
    name: str,
    logits: Tensor,
    target: Tensor,
    *,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    sample_weight: Any,
    logit_offset: Any,
    smooth_weight: str,
    denominator: Denominator,
    empty: str,
    argument: str = "local_logits",
    made_from: Sequence[Tensor | None] = (),
) -> Call:
    """All checks that need no other rank; ``argument`` is what the caller gave for the logits, ``made_from`` what they
    are made from, where a stand-in takes their place.
    """
    check_input(name, logits, classes=False, argument="local_logits")
    if logits.dim() == 0:
        refuse(name, "local_logits", "of shape (C_local,), (N, C_local) or (N, C_local, d1, ...)", logits)
    check_reduction(name, reduction, denominator, empty)
    target, ignored, smoothing = targets(name, logits, target, ignore_index, label_smoothing, smooth_weight)
    soft = target.is_floating_point()
    rows = row_values(name, "sample_weight", sample_weight, logits)
    w = _of_classes(name, "weight", weight, logits)
    offset = _of_classes(name, "logit_offset", logit_offset, logits)
    others = (w, rows, offset, target, denominator if isinstance(denominator, Tensor) else None)
    differentiated = any(_learned(t) for t in others)
    given = denominator if isinstance(denominator, str) else "a number"
    divisor = 0.0
    if not isinstance(denominator, str) and not (isinstance(denominator, Tensor) and not readable(denominator)):
        divisor = float(denominator.detach() if isinstance(denominator, Tensor) else denominator)
    sizes = logits.shape[:1] + logits.shape[2:] if logits.dim() > 1 else torch.Size()
    facts = [
        _agreement.integer_fact(argument, sizes.numel(), "{} rows"),
        _agreement.integer_fact(argument, logits.dim(), "{} axes"),
        _agreement.integer_fact(argument, sizes[0] if sizes else 0, "{} samples"),
        _agreement.integer_fact(argument, zlib.crc32(repr(list(sizes)).encode()), "rows in a shape of checksum {:08x}"),
        _agreement.word(argument, str(logits.dtype), _DTYPES),
        _agreement.flag("target", soft, "probabilities", "indices"),
        _agreement.flag("weight", w is not None),
        _agreement.flag("logit_offset", offset is not None),
        _agreement.flag("sample_weight", rows is not None),
        _agreement.real("label_smoothing", smoothing),
        _agreement.word("smooth_weight", smooth_weight, SMOOTH_WEIGHT),
        _agreement.integer_fact("ignore_index", ignored),
        _agreement.word("reduction", reduction, REDUCTIONS),
        _agreement.word("denominator", given, (*DENOMINATORS, "a number")),
        _agreement.real("denominator", divisor),
        _agreement.word("empty", empty, EMPTY),
        # Collectives of the backward pass depend on each of them.
        _agreement.names("requires_grad", (*_LEARNED, *_MADE_FROM), [_learned(t) for t in (*others, *made_from)]),
        _agreement.values("target", None if soft else target),
        _agreement.values("sample_weight", rows),
    ]
    single = logits.dim() == 1
    if single:
        logits, target = logits.unsqueeze(0), target.unsqueeze(0)
        rows = None if rows is None else rows.reshape(1)
    return Call(
        logits, single, target, w, rows, offset, smoothing, smooth_weight == "target", ignored, reduction, denominator,
        empty, facts, differentiated,
    )  # fmt: skip


def _learned(tensor: Tensor | None) -> bool:
    """Whether a gradient is asked for."""
    return tensor is not None and tensor.requires_grad and torch.is_grad_enabled()


def _of_classes(name: str, argument: str, values: Any, logits: Tensor) -> Tensor | None:
    """Numbers for classes, of all or of this rank's; an offset may also be one for each logit."""
    if values is None:
        return None
    tensor = as_values(name, argument, values, logits, "numbers, one for each class")
    offset = argument == "logit_offset"
    if tensor.dim() != 1 and not (offset and tensor.shape == logits.shape):
        rule = "of shape (C,) or (C_local,), one number for each class"
        rule += f", or {tuple(logits.shape)}" if offset else ""
        refuse(name, argument, rule, f"shape {tuple(tensor.shape)}")
    refuse_unless_finite(name, argument, tensor, minus_infinity=offset)
    return tensor


def placed(
    name: str, call: Call | None, failure: Exception | None, group: Any, widths: list[int] | None, device: torch.device
) -> tuple[Call, Terms, Tensor | None]:
    """The call and the terms of this rank once the place of its classes is known, and marks where ranks have not
    compared notes.
    """
    marks: Tensor | None = None
    if widths is not None and _group.reading_waits(device):
        if failure is not None:
            raise failure
        assert call is not None
        lengths = [(_length(call.weight), _length(call.offset))]
        marks = _agreement.mark(call.facts, call.target)
        learned = torch.is_grad_enabled()
    else:
        own = [] if call is None else _own(call)
        facts = [] if call is None else [*call.facts, _agreement.claim("shards", widths)]
        told = _agreement.exchange(name, group, facts, own or [0] * 6, failure, device, count=_FACTS)
        assert call is not None
        widths = [row[0] for row in told]
        lengths = [(row[1], row[2]) for row in told]
        learned = _logits_learned(name, told)
    classes, rank = sum(widths), _group.rank_in(group)
    if classes == 0:
        refuse(name, "local_logits", "of at least one class on one of the ranks", call.logits)
    ranks = [rank] if marks is not None else range(len(widths))
    whole = [
        _whole(name, argument, [pair[i] for pair in lengths], [widths[other] for other in ranks], classes)
        for i, argument in enumerate(("weight", "logit_offset"))
    ]
    if marks is None:
        for i, argument in enumerate(("weight", "logit_offset")):
            # A rank that has all classes itself sends no checksum, nor one that was given nothing.
            if whole[i] and len({row[4 + i] for row in told if row[1 + i] not in (-1, row[0])}) > 1:
                got = f"values that differ between ranks, of {classes} classes"
                refuse(name, argument, "the same on every rank of the group where it is of all classes", got)
    if call.width == 0 and learned and not call.logits.requires_grad:
        # A rank without classes has nothing to learn, but goes along with the others' backward passes.
        call = call._replace(logits=call.logits.detach().requires_grad_())
    start = sum(widths[:rank])
    # Only their shape and dtype are read: an expanded number stands in for logits of all classes.
    everyone = call.logits.new_zeros(()).expand(len(call.logits), classes, *call.logits.shape[2:])
    try:
        ops.check_labels(everyone, call.target, call.ignore_index)
    except ops.LabelError as error:
        raise ops.LabelError(f"{name}: {error}") from None
    weight, offset = (
        _share(values, start, call.width, group) if all_classes else values
        for values, all_classes in zip((call.weight, call.offset), whole, strict=True)
    )
    terms = Terms(
        call.target, weight, call.row_weight, offset, call.smoothing, call.by_target, call.ignore_index, start, classes
    )
    return call, terms, marks


def _own(call: Call) -> list[int]:
    """What a rank tells of itself: lengths, whether its logits are learned, and checksums of what may be the whole."""
    sums = [
        _agreement.checksum(values) if values is not None and _length(values) not in (-1, call.width) else 0
        for values in (call.weight, call.offset)
    ]
    return [call.width, _length(call.weight), _length(call.offset), int(_learned(call.logits)), *sums]


def _logits_learned(name: str, told: list[list[int]]) -> bool:
    """Whether the ranks that have classes want a gradient of their logits: all of them, or none."""
    learned = [bool(row[3]) for row in told if row[0] > 0]
    if len(set(learned)) > 1:
        refuse(name, "requires_grad", "the same of the logits of every rank", "True on some, False on others")
    return any(learned)


def _length(values: Tensor | None) -> int:
    return -1 if values is None or values.dim() != 1 else len(values)


def _whole(name: str, argument: str, lengths: list[int], widths: list[int], classes: int) -> bool:
    """Whether numbers for classes are those of all classes, the same on every rank; else each rank has its own."""
    for length, width in zip(lengths, widths, strict=True):
        if length not in (-1, width, classes):
            where = "" if len(lengths) == 1 else f" on rank {lengths.index(length)}"
            rule = f"of shape ({classes},) for all classes or ({width},) for those of the rank"
            refuse(name, argument, rule, f"shape ({length},){where}")
    # A rank that holds all classes itself has both; the others say which it is.
    pairs = [(length, width) for length, width in zip(lengths, widths, strict=True) if length >= 0 and width != classes]
    whole = [length == classes for length, _ in pairs]
    if len(set(whole)) > 1:
        hint = "Their gradients, and what is exchanged for them, differ."
        refuse(name, argument, "of all classes on every rank, or of its own on every rank", "both", hint)
    return any(whole)


def _share(values: Tensor | None, start: int, width: int, group: Any) -> Tensor | None:
    """The part of this rank of what was given for all classes; a gradient of the whole is the sum over the ranks."""
    if values is None:
        return None
    everyone = to_shards(values, group) if values.requires_grad and torch.is_grad_enabled() else values
    return everyone[start : start + width]


def reduced(name: str, call: Call, terms: Terms, loss: Tensor, rows: Rows) -> Tensor:
    """The losses of rows to the result, by the reductions and denominators of every loss."""
    divisor = call.denominator
    if call.reduction == "mean" and isinstance(divisor, str):
        mass = rows.mass
        if terms.by_target and rows.own is not None:
            mass = rows.own if mass is None else mass * rows.own
        divisor = rows_denominator(divisor, rows.own, mass, terms.row_weight, terms.kept(), rows.maximum)
    loss = loss.squeeze(0) if call.single else loss
    return reduce(name, loss, call.reduction, divisor, call.empty, result_dtype(call.logits))
