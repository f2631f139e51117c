"""Cross entropy of a linear layer's output, without asking the caller to hold the logits."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from steelyard import ops
from steelyard._errors import describe, refuse
from steelyard._values import integer
from steelyard.functional._check import as_tensor, autocasting, check_input, per_row, result_dtype
from steelyard.functional._chunks import Layer, chunked, rows_within, shape_only
from steelyard.functional._family import softmax_family, softmax_terms
from steelyard.functional._reduce import Denominator, reduce
from steelyard.functional._watchers import PLAIN, undisturbed

__all__ = ["check_budget", "check_options", "linear_cross_entropy", "linear_logits"]


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
    memory_budget: int | None = None,
) -> Tensor:
    r"""Cross entropy on the logits of a linear layer, without all of them in memory.

    For classifiers with many classes, where the logits are the largest tensor of all and their gradient the next. Rows
    are taken in chunks: logits, loss, gradient over the same memory, and from that the gradients of features and
    weight.

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
        memory_budget: Bytes of logits at a time, ≥ 1; one row at least is. ``None`` takes 128 MiB, or 1024 rows where
            those are more. All rows at once are taken where they fit, and wherever that cannot be avoided: under
            ``torch.compile``, ``torch.func`` and autocast, for a second derivative, and where weights or soft targets
            require a gradient.

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
    layer = checked_layer(name, input, linear_weight, linear_bias)
    if ignore_index is not None and isinstance(target, Tensor) and target.is_floating_point():
        refuse(
            name,
            "ignore_index",
            "None with class probabilities",
            repr(ignore_index),
            "To leave out a row of finite logits, give it sample_weight 0.",
        )
    size = rows_within(layer, check_budget(name, memory_budget))
    settings: dict[str, Any] = {
        "weight": as_tensor(weight), "reduction": reduction,
        "ignore_index": -100 if ignore_index is None else ignore_index, "label_smoothing": label_smoothing,
        "sample_weight": as_tensor(sample_weight), "logit_offset": as_tensor(logit_offset),
        "denominator": denominator, "empty": empty,
    }  # fmt: skip
    others = (target, *(value for value in settings.values() if isinstance(value, Tensor)))
    if input.dim() != 2 or len(input) <= size or not _may_be_cut(layer, others):
        return softmax_family(name, layer.logits(), target, **settings)
    logits = shape_only(layer)
    terms = softmax_terms(name, logits, target, **settings, margin=None, gamma=0.0, smooth_weight="class")

    def whole(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return per_row(name, ops.softmax_loss, Layer(input, weight, bias).logits(), *terms)

    rule = None if reduction == "none" else denominator if reduction == "mean" and isinstance(denominator, str) else ""
    given = 1.0 if rule or reduction != "mean" or isinstance(denominator, str) else denominator
    losses, divisor = chunked(name, layer, terms, size, rule, given, whole)
    return reduce(name, losses, reduction, denominator if divisor is None else divisor, empty, result_dtype(logits))


def _may_be_cut(layer: Layer, others: tuple[Tensor, ...]) -> bool:
    """Whether rows may come one chunk after another: nobody watches, and nothing else is differentiated."""
    if not undisturbed() or autocasting(layer.input):
        return False
    plain = all(type(t) in PLAIN for t in (*layer, *others) if t is not None)
    return plain and not (torch.is_grad_enabled() and any(t.requires_grad for t in others))


def checked_layer(name: str, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Layer:
    """Features, weight and bias, once they fit one another."""
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
    return Layer(input, linear_weight, linear_bias)


def linear_logits(name: str, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """The layer's output ``(N, C, d1, ...)`` or ``(C,)``, once features, weight and bias fit one another."""
    return checked_layer(name, input, linear_weight, linear_bias).logits()


def check_options(name: str, options: Any) -> None:
    """PyTorch's options, by the name of their class: older releases have none to compare with."""
    if options is not None and type(options).__name__ != "LinearCrossEntropyOptions":
        refuse(name, "options", "None or PyTorch's LinearCrossEntropyOptions", describe(options), error=TypeError)


def check_budget(name: str, memory_budget: Any) -> int | None:
    """Bytes, or None."""
    if memory_budget is None:
        return None
    budget = integer(name, "memory_budget", memory_budget)
    if budget < 1:
        refuse(name, "memory_budget", "a number of bytes, 1 or more, or None", memory_budget)
    return budget
