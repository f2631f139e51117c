"""The two formulas as operators of PyTorch: schema, fake, autograd, vmap.

Every device starts with the reference (``CompositeExplicitAutograd``). A kernel for one device is one more
``implement(name, function, "CPU")``; nothing here changes for it.

A kernel knows the loss and its gradient with respect to the logits. Whatever else is asked for (a derivative with
respect to weights or soft targets, forward mode, ``torch.func``) is answered by the reference, which PyTorch
differentiates to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from steelyard._values import readable
from steelyard.ops import reference
from steelyard.ops.reference import accumulation_dtype, class_dim

__all__ = ["LabelError", "check_labels", "implement", "sigmoid_loss", "softmax_loss"]


class LabelError(IndexError):
    """A label that is neither a class nor ``ignore_index``; its text starts at ``'target' must be``."""


_SOFTMAX = (
    "Tensor? weight, Tensor? row_weight, Tensor? offset, Tensor? margin, "
    "float gamma, float smoothing, bool smooth_by_target, int ignore_index"
)
_SIGMOID = (
    "Tensor? weight, Tensor? pos_weight, float neg_weight, "
    "float gamma_pos, float gamma_neg, float clip, int? ignore_index"
)
_library = torch.library.Library("steelyard", "DEF")


def _define(schema: str) -> None:
    _library.define(schema, tags=torch.Tag.pt2_compliant_tag)


_define(f"softmax_loss(Tensor input, Tensor target, {_SOFTMAX}) -> (Tensor, Tensor, Tensor)")
_define(
    "softmax_loss_backward(Tensor grad, Tensor input, Tensor target, Tensor maximum, Tensor total, "
    f"{_SOFTMAX}) -> Tensor"
)
_define(f"sigmoid_loss(Tensor input, Tensor target, {_SIGMOID}) -> Tensor")
_define(f"sigmoid_loss_backward(Tensor grad, Tensor input, Tensor target, {_SIGMOID}) -> Tensor")


def implement(name: str, function: Callable[..., Any], key: str) -> None:
    """Make ``function`` the implementation of ``steelyard::name`` for a dispatch key (``"CPU"``, ``"CUDA"``, ...)."""
    _library.impl(name, function, key)


def softmax_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    row_weight: Tensor | None = None,
    offset: Tensor | None = None,
    margin: Tensor | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
    smooth_by_target: bool = False,
    ignore_index: int = -100,
) -> Tensor:
    """Loss of each row, differentiable; arguments as in :func:`steelyard.ops.reference.softmax_loss`.

    Raises:
        LabelError: a label outside ``[0, C)`` on the CPU. Elsewhere such a row is NaN, as looking would synchronise.
    """
    loss: Tensor = torch.ops.steelyard.softmax_loss(
        input, target, weight, row_weight, offset, margin, gamma, smoothing, smooth_by_target, ignore_index
    )[0]
    return loss


def sigmoid_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    neg_weight: float = 1.0,
    gamma_pos: float = 0.0,
    gamma_neg: float = 0.0,
    clip: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    """Loss of each element, differentiable; arguments as in :func:`steelyard.ops.reference.sigmoid_loss`."""
    loss: Tensor = torch.ops.steelyard.sigmoid_loss(
        input, target, weight, pos_weight, neg_weight, gamma_pos, gamma_neg, clip, ignore_index
    )
    return loss


# ---------------------------------------------------------------------------------------------- any device: reference


def check_labels(input: Tensor, target: Tensor, ignore_index: int) -> None:
    """Refuse a label that is neither a class nor ``ignore_index``, where its value can be read."""
    if target.is_floating_point() or not readable(target):
        return
    classes, target = input.shape[class_dim(input)], target.long()  # compared in uint8, 156 is −100
    bad = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if bool(bad.any()):
        position = tuple(bad.nonzero()[0].tolist())
        label = int(target[position])
        hint = (
            f"Classes are counted from 0: is the label one of {classes + 1}, or 1-based?"
            if label == classes
            else ("Pass ignore_index=255 to leave such labels out." if label == 255 else "")
        )
        raise LabelError(
            f"'target' must be in [0, {classes}) or ignore_index={ignore_index}; got {label} at position "
            f"{position}." + (f" {hint}" if hint else "")
        )


def softmax_loss_by_reference(input: Tensor, target: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    check_labels(input, target, settings[-1])
    return reference.softmax_loss(input, target, *settings)


def softmax_loss_backward_by_reference(grad: Tensor, input: Tensor, *rest: Any) -> Tensor:
    return _laid_out_like(input, reference.softmax_loss_backward(grad, input, *rest))


def sigmoid_loss_backward_by_reference(grad: Tensor, input: Tensor, *rest: Any) -> Tensor:
    return _laid_out_like(input, reference.sigmoid_loss_backward(grad, input, *rest))


def sigmoid_loss_by_reference(input: Tensor, *rest: Any) -> Tensor:
    return _laid_out_like(input, reference.sigmoid_loss(input, *rest))


def _laid_out_like(input: Tensor, result: Tensor) -> Tensor:
    """What the fakes promise: the strides of ``empty_like(input)``. A formula's result is never the input itself."""
    promised = torch.empty_like(input, dtype=result.dtype)
    return result if result.stride() == promised.stride() else promised.copy_(result)


implement("softmax_loss", softmax_loss_by_reference, "CompositeExplicitAutograd")
implement("softmax_loss_backward", softmax_loss_backward_by_reference, "CompositeExplicitAutograd")
implement("sigmoid_loss", sigmoid_loss_by_reference, "CompositeExplicitAutograd")
implement("sigmoid_loss_backward", sigmoid_loss_backward_by_reference, "CompositeExplicitAutograd")


# ---------------------------------------------------------------------------------------------- fake: shapes, no values


def _fake_softmax_loss(input: Tensor, target: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = list(input.shape)
    del rows[class_dim(input)]
    dtype = accumulation_dtype(input.dtype)
    return (
        input.new_empty(rows, dtype=dtype),
        input.new_empty(rows, dtype=dtype),
        input.new_empty(rows, dtype=dtype),
    )


def _fake_softmax_loss_backward(grad: Tensor, input: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(input)


def _fake_sigmoid_loss(input: Tensor, target: Tensor, *settings: Any) -> Tensor:
    return torch.empty_like(input, dtype=accumulation_dtype(input.dtype))


def _fake_sigmoid_loss_backward(grad: Tensor, input: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(input)


for _name, _fake in {
    "softmax_loss": _fake_softmax_loss,
    "softmax_loss_backward": _fake_softmax_loss_backward,
    "sigmoid_loss": _fake_sigmoid_loss,
    "sigmoid_loss_backward": _fake_sigmoid_loss_backward,
}.items():
    torch.library.register_fake(f"steelyard::{_name}", _fake, lib=_library)


# --------------------------------------------------------------------------------------------------- derivatives, vmap


def _differentiated(*values: Any) -> bool:
    """Whether a derivative with respect to any of the values may be asked for, backward or forward."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors if tensor.is_floating_point()
    )


def _beyond_kernels(input: Tensor, rest: tuple[Any, ...]) -> bool:
    """Whether more is asked for than the gradient with respect to ``input``."""
    return (
        torch._C._are_functorch_transforms_active()
        or _differentiated(*rest)
        or (forward_ad._current_level >= 0 and _differentiated(input))
    )


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            loss, maximum, total = torch.ops.steelyard.softmax_loss(input, target, *settings)
        ctx.mark_non_differentiable(maximum, total)
        ctx.save_for_backward(input, target, maximum, total, *settings[:4])
        ctx.numbers = settings[4:]
        return loss, maximum, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        result = torch.ops.steelyard.softmax_loss_backward(grad, *ctx.saved_tensors, *ctx.numbers)
        return result, *[None] * 9


class _SigmoidLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, *settings: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            loss: Tensor = torch.ops.steelyard.sigmoid_loss(input, target, *settings)
        ctx.save_for_backward(input, target, *settings[:2])
        ctx.numbers = settings[2:]
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        result = torch.ops.steelyard.sigmoid_loss_backward(grad, *ctx.saved_tensors, *ctx.numbers)
        return result, *[None] * 8


def _register_derivatives(name: str, formula: Callable[..., Any], function: type[torch.autograd.Function]) -> None:
    operator = getattr(torch.ops.steelyard, name)

    def loss(input: Tensor, *rest: Any) -> Any:
        if _beyond_kernels(input, rest):
            return formula(input, *rest)
        if _differentiated(input):
            return function.apply(input, *rest)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(input, *rest)

    implement(name, loss, "Autograd")
    implement(name, formula, "FuncTorchBatched")


def _register_second_derivatives(name: str, formula: Callable[..., Any]) -> None:
    operator = getattr(torch.ops.steelyard, name)

    def gradient(*args: Any) -> Any:
        if torch._C._are_functorch_transforms_active() or _differentiated(*args):
            return formula(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    implement(name, gradient, "Autograd")
    implement(name, formula, "FuncTorchBatched")


_register_derivatives("softmax_loss", softmax_loss_by_reference, _SoftmaxLoss)
_register_derivatives("sigmoid_loss", reference.sigmoid_loss, _SigmoidLoss)
_register_second_derivatives("softmax_loss_backward", reference.softmax_loss_backward)
_register_second_derivatives("sigmoid_loss_backward", reference.sigmoid_loss_backward)
