"""One way in to each formula: checks, then the op, then the reduction, with the denominators that each formula has.

``name`` is the loss that the user called; errors speak as it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard import ops
from steelyard._errors import choice, refuse
from steelyard._values import integer, number
from steelyard.functional import _device, _direct
from steelyard.functional._check import (
    as_tensor,
    check_index_or_distribution,
    check_inplace,
    check_input,
    class_values,
    element_values,
    per_row,
    result_dtype,
    row_values,
    same_shape,
)
from steelyard.functional._denominator import sigmoid_denominator, softmax_denominator
from steelyard.functional._reduce import Denominator, check_reduction, reduce

__all__ = ["SMOOTH_WEIGHT", "SoftmaxTerms", "leave", "sigmoid_family", "softmax_family", "softmax_terms", "targets"]

SMOOTH_WEIGHT = ("class", "target")


def softmax_family(
    name: str,
    input: Tensor,
    target: Tensor,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    logit_offset: Any = None,
    margin: Any = None,
    gamma: float = 0.0,
    smooth_weight: str = "class",
    denominator: Denominator = "torch",
    empty: str = "nan",
    inplace_gradient: bool = False,
    **unknown: Any,
) -> Tensor:
    """The softmax formula as a loss; keywords as :func:`steelyard.functional.cross_entropy` describes them."""
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument {next(iter(unknown))!r}")
    if inplace_gradient is not False:
        check_inplace(name, input, inplace_gradient)
    if not (weight is None or type(weight) is Tensor):
        weight = as_tensor(weight)
    if sample_weight is not None or logit_offset is not None or margin is not None:
        sample_weight, logit_offset, margin = as_tensor(sample_weight), as_tensor(logit_offset), as_tensor(margin)
    direct = _direct.softmax(
        name, input, target, weight, ignore_index, reduction, label_smoothing, sample_weight, logit_offset, margin,
        gamma, smooth_weight, denominator, empty, inplace_gradient,
    )  # fmt: skip
    if direct is not None:
        return direct
    terms = softmax_terms(
        name, input, target, weight=weight, ignore_index=ignore_index, reduction=reduction,
        label_smoothing=label_smoothing, sample_weight=sample_weight, logit_offset=logit_offset, margin=margin,
        gamma=gamma, smooth_weight=smooth_weight, denominator=denominator, empty=empty,
    )  # fmt: skip

    def divisor() -> Denominator:
        return terms.denominator(denominator, input) if isinstance(denominator, str) else denominator

    fused = _device.one_number(name, _device.SOFTMAX, input, terms, reduction, divisor, empty)
    if fused is not None:
        return fused
    loss = per_row(name, ops.softmax_loss, input, *terms)
    return reduce(name, loss, reduction, divisor() if reduction == "mean" else 1.0, empty, result_dtype(input))


class SoftmaxTerms(NamedTuple):
    """What the softmax formula takes after the logits, checked and cast; in the order of the operator."""

    target: Tensor
    weight: Tensor | None
    row_weight: Tensor | None
    offset: Tensor | None
    margin: Tensor | None
    gamma: float
    smoothing: float
    by_target: bool
    ignore_index: int

    def denominator(self, rule: str, input: Tensor) -> Tensor | float:
        """What a mean divides by."""
        return softmax_denominator(
            rule, input, self.target, self.weight, self.row_weight, self.smoothing, self.by_target, self.ignore_index
        )

    def rows(self, chosen: slice) -> SoftmaxTerms:
        """The terms of some rows."""
        row_weight = None if self.row_weight is None else self.row_weight[chosen]
        return self._replace(target=self.target[chosen], row_weight=row_weight)


def targets(
    name: str, input: Tensor, target: Tensor, ignore_index: int, label_smoothing: float, smooth_weight: str
) -> tuple[Tensor, int, float]:
    """Targets of the softmax formula, and what is said of them, checked but for the values of labels."""
    soft = check_index_or_distribution(name, input, target)
    if not soft:
        target = target.long()  # compared in uint8, 156 is −100; in int8, no label is below 200 classes
    ignored = integer(name, "ignore_index", ignore_index)
    if soft and ignored >= 0:
        hint = "To leave out a row of finite logits, give it sample_weight 0."
        refuse(name, "ignore_index", "left alone with class probabilities", repr(ignored), hint)
    choice(name, "smooth_weight", smooth_weight, SMOOTH_WEIGHT)
    return target, ignored, number(name, "label_smoothing", label_smoothing, 0.0, 1.0)


def softmax_terms(
    name: str,
    input: Tensor,
    target: Tensor,
    *,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    sample_weight: Any,
    logit_offset: Any,
    margin: Any,
    gamma: float,
    smooth_weight: str,
    denominator: Denominator,
    empty: str,
) -> SoftmaxTerms:
    """All checks of the softmax formula but those of label values; of ``input`` they look at shape and dtype only."""
    check_input(name, input)
    check_reduction(name, reduction, denominator, empty)
    target, ignored, smoothing = targets(name, input, target, ignore_index, label_smoothing, smooth_weight)
    if margin is not None and target.is_floating_point():
        refuse(name, "margin", "None with class probabilities", margin, "A margin needs the one class of the row.")
    focusing = number(name, "gamma", gamma, 0.0, float("inf"))
    return SoftmaxTerms(
        target,
        class_values(name, "weight", weight, input),
        row_values(name, "sample_weight", sample_weight, input),
        class_values(name, "logit_offset", logit_offset, input, minus_infinity=True),
        class_values(name, "margin", margin, input),
        focusing,
        smoothing,
        smooth_weight == "target",
        ignored,
    )


def leave(name: str, options: Mapping[str, Any], *own: str) -> None:
    """Refuse the keywords that make the loss what it is; Python would name a function that the user never called."""
    for keyword in own:
        if keyword in options:
            raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")


def sigmoid_family(
    name: str,
    input: Tensor,
    target: Tensor,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    alpha: float | None = None,
    denominator: Denominator = "torch",
    empty: str = "nan",
    inplace_gradient: bool = False,
    **unknown: Any,
) -> Tensor:
    """The sigmoid formula as a loss; keywords as for ``binary_cross_entropy_with_logits``."""
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument {next(iter(unknown))!r}")
    if inplace_gradient is not False:
        check_inplace(name, input, inplace_gradient)
    weight, pos_weight = as_tensor(weight), as_tensor(pos_weight)
    direct = _direct.sigmoid(
        name, input, target, weight, pos_weight, reduction, ignore_index, gamma_pos, gamma_neg, clip, alpha,
        denominator, empty, inplace_gradient,
    )  # fmt: skip
    if direct is not None:
        return direct
    check_input(name, input, classes=False)
    same_shape(name, input, target)
    check_reduction(name, reduction, denominator, empty)
    ignored = None if ignore_index is None else integer(name, "ignore_index", ignore_index)
    if ignored is not None and not target.is_floating_point():
        target = target.long()  # compared in uint8, 255 is −1
    if ignored in (0, 1):
        refuse(name, "ignore_index", "other than the targets 0 and 1", repr(ignored))
    v = element_values(name, "weight", weight, input)
    p = element_values(name, "pos_weight", pos_weight, input)
    q = 1.0
    if alpha is not None:
        share = number(name, "alpha", alpha, 0.0, 1.0)
        if p is None:  # a fill on the device, where a copy from the host would wait for it
            p = torch.full((), share, dtype=ops.accumulation_dtype(input.dtype), device=input.device)
        else:
            p = p * share
        q = 1.0 - share
    terms = (
        target,
        v,
        p,
        q,
        number(name, "gamma_pos", gamma_pos, 0.0, float("inf")),
        number(name, "gamma_neg", gamma_neg, 0.0, float("inf")),
        number(name, "clip", clip, 0.0, 1.0, open_end=True),
        ignored,
    )

    def divisor() -> Denominator:
        if isinstance(denominator, str):
            return sigmoid_denominator(denominator, input, target, v, p, q, ignored)
        return denominator

    fused = _device.one_number(name, _device.SIGMOID, input, terms, reduction, divisor, empty)
    if fused is not None:
        return fused
    loss = per_row(name, ops.sigmoid_loss, input, *terms)
    return reduce(name, loss, reduction, divisor() if reduction == "mean" else 1.0, empty, result_dtype(input))
