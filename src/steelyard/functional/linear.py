"""Cross entropy of a linear layer's output, without asking the caller to hold the logits."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard.functional._check import autocasting, check_input
from steelyard.functional._family import softmax_family
from steelyard.functional._reduce import Denominator

__all__ = ["check_options", "linear_cross_entropy", "linear_logits"]


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    sample_weight: Any = None,
    logit_offset: Any = None,
    denominator: Denominator = "torch",
    empty: Literal["nan", "zero", "raise"] = "nan",
) -> Tensor:
    r"""Cross entropy on the logits of a linear layer.

    For classifiers with many classes, where the logits are the largest tensor of all. This release still makes them, as
    PyTorch's own reference does; the signature is the one that will not.

    Equals ``F.cross_entropy(F.linear(input, linear_weight, linear_bias), target, ...)``, and
    ``torch.nn.functional.linear_cross_entropy`` where PyTorch has it.

    Args:
        input: Features, float, ``(in,)`` or ``(N, in)``.
        linear_weight: ``(C, in)``, or ``(C, d1, ..., in)`` for logits ``(N, C, d1, ...)``; dtype of ``input``.
        target: As for :func:`~steelyard.functional.cross_entropy`, for these logits.
        linear_bias: ``(C,)`` or ``(C, d1, ...)``; dtype of ``input``.
        weight, reduction, label_smoothing, sample_weight, logit_offset, denominator, empty: As for
            :func:`~steelyard.functional.cross_entropy`.
        ignore_index: As there; ``None`` stands for −100, and for no such value with class probabilities.
        options: PyTorch's choice of chunks. Taken so that its calls run here; no number depends on it.

    Returns:
        Loss in nats, as :func:`~steelyard.functional.cross_entropy`.

    Raises:
        IndexError: a label outside ``[0, C)`` (on a GPU and under ``torch.func``: NaN).
        TypeError, ValueError: dtypes, shapes, options.

    Example:
        >>> features, layer = torch.ones(1, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> linear_cross_entropy(features, layer, torch.tensor([0]))
        tensor(1.3133)
    """
    name = "linear_cross_entropy"
    check_options(name, options)
    logits = linear_logits(name, input, linear_weight, linear_bias)
    if ignore_index is not None and isinstance(target, Tensor) and target.is_floating_point():
        refuse(
            name,
            "ignore_index",
            "None with class probabilities",
            repr(ignore_index),
            "To leave out a row of finite logits, give it sample_weight 0.",
        )
    return softmax_family(
        name,
        logits,
        target,
        weight=weight,
        reduction=reduction,
        ignore_index=-100 if ignore_index is None else ignore_index,
        label_smoothing=label_smoothing,
        sample_weight=sample_weight,
        logit_offset=logit_offset,
        denominator=denominator,
        empty=empty,
    )


def linear_logits(name: str, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """The layer's output ``(N, C, d1, ...)`` or ``(C,)``, once features, weight and bias fit one another."""
    check_input(name, input, "features", classes=False)
    for argument, value in (("linear_weight", linear_weight), ("linear_bias", linear_bias)):
        if value is None and argument == "linear_bias":
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            refuse(name, argument, "a floating-point tensor", describe(value), error=TypeError)
        if value.device != input.device:
            refuse(name, argument, f"on the device of 'input', {input.device}", f"one on {value.device}")
        if value.dtype != input.dtype and not autocasting(input):
            refuse(name, argument, f"of the dtype of 'input', {input.dtype}", value, error=TypeError)
    if input.dim() not in (1, 2):
        refuse(name, "input", "of shape (in,) or (N, in)", input)
    if linear_weight.dim() < 2 or linear_weight.shape[-1] != input.shape[-1]:
        refuse(
            name, "linear_weight", f"of shape (C, {input.shape[-1]}) or (C, d1, ..., {input.shape[-1]})", linear_weight
        )
    outputs = linear_weight.shape[:-1]
    if len(outputs) > 1 and input.dim() == 1:
        refuse(name, "input", f"batched, (N, {input.shape[0]}), where 'linear_weight' has d1, ...", input)
    if linear_bias is not None and linear_bias.shape != outputs:
        refuse(name, "linear_bias", f"of shape {tuple(outputs)}", linear_bias)
    return torch.nn.functional.linear(
        input,
        linear_weight.reshape(math.prod(outputs), linear_weight.shape[-1]),
        None if linear_bias is None else linear_bias.reshape(-1),
    ).reshape(input.shape[:-1] + outputs)


def check_options(name: str, options: Any) -> None:
    """PyTorch's options, by the name of their class: older releases have none to compare with."""
    if options is not None and type(options).__name__ != "LinearCrossEntropyOptions":
        refuse(name, "options", "None or PyTorch's LinearCrossEntropyOptions", describe(options), error=TypeError)
