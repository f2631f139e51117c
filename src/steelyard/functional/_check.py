"""Checks that every loss shares: metadata always, values where looking costs no synchronisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard._values import numbers, readable
from steelyard.counts import ClassCounts, as_class_counts
from steelyard.ops import LabelError, accumulation_dtype, class_dim

__all__ = [
    "as_tensor",
    "as_values",
    "autocasting",
    "check_index_or_distribution",
    "check_inplace",
    "check_input",
    "class_values",
    "element_values",
    "per_row",
    "positive_counts",
    "refuse_unless_finite",
    "refuse_unless_probabilities",
    "result_dtype",
    "row_values",
    "same_shape",
]


def check_input(
    name: str, input: Any, meaning: str = "logits", *, classes: bool = True, argument: str = "input"
) -> None:
    """A floating-point tensor, with a class axis where ``classes`` are due."""
    if not isinstance(input, Tensor):
        refuse(name, argument, f"a tensor of {meaning}", describe(input), error=TypeError)
    if input.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        refuse(name, argument, f"a floating-point tensor of {meaning}, of 16 bits or more", input, error=TypeError)
    if classes and input.dim() == 0:
        refuse(name, argument, "of shape (C,), (N, C) or (N, C, d1, ...)", input)
    if classes and input.shape[class_dim(input)] == 0:
        refuse(name, argument, "of at least one class", input)


def check_inplace(name: str, input: Any, inplace: Any) -> None:
    """Logits whose memory a gradient may take: the result of an operation, each of its own."""
    argument = "inplace_gradient"
    if not isinstance(inplace, bool):
        refuse(name, argument, "True or False", inplace, error=TypeError)
    if not inplace or not isinstance(input, Tensor) or not (torch.is_grad_enabled() and input.requires_grad):
        return
    if torch.compiler.is_compiling():  # where nothing is overwritten
        return
    if input.is_leaf or (input._base is not None and input._base.is_leaf):
        rule = "False where 'input' is a leaf or a view of one"
        refuse(name, argument, rule, "True", "Its values are yours, not an intermediate's.")
    if _may_overlap(input):
        refuse(name, argument, "False where elements of 'input' share their memory", "True", "Use input.contiguous().")


def _may_overlap(tensor: Tensor) -> bool:
    """Whether two elements may lie in one place, as those of an expanded or unfolded tensor do."""
    reach = 0
    for step, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if step <= reach:
                return tensor.numel() > 0
            reach += step * (size - 1)
    return False


def check_index_or_distribution(name: str, input: Tensor, target: Any, *, distribution: bool = True) -> bool:
    """Whether ``target`` is a distribution over the classes; if not, it is class indices of the right shape."""
    forms = "class indices (integers)" + (" or class probabilities (floats)" if distribution else "")
    if not isinstance(target, Tensor):
        refuse(name, "target", f"a tensor of {forms}", describe(target), error=TypeError)
    if target.device != input.device:
        refuse(name, "target", f"on the device of 'input', {input.device}", f"one on {target.device}")
    dim = class_dim(input)
    rows = input.shape[:dim] + input.shape[dim + 1 :]
    integral = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    if target.shape == rows and integral:
        return False
    if target.shape == input.shape and target.is_floating_point() and distribution:
        return True
    rule = f"indices of shape {tuple(rows)}, integer"
    if distribution:
        rule += f", or probabilities of shape {tuple(input.shape)}, float"
    rule += f", for 'input' of shape {tuple(input.shape)}"
    if target.shape == input.shape:
        hint = f"One-hot rows become indices by target.argmax({dim})"
        hint += ", or probabilities by target.float()." if distribution else "."
        refuse(name, "target", rule, target, hint, error=TypeError)
    if target.shape == rows:
        refuse(name, "target", rule, target, "These look like indices: use target.long().", error=TypeError)
    hint = ""
    if target.dim() == len(rows) + 1 and target.numel() == math.prod(rows):
        axis = next((i for i in range(target.dim()) if target.shape[i] == 1), None)
        hint = f"Use target.squeeze({axis})." if axis is not None else ""
    return refuse(name, "target", rule, target, hint)


def as_tensor(values: Any) -> Any:
    """A list or an array of numbers as a tensor, so that it takes the same way as one; anything else as it is."""
    if values is None or isinstance(values, Tensor):
        return values
    try:
        return numbers("", "", values, "")
    except TypeError:
        return values  # to be refused in so many words


def as_values(name: str, argument: str, values: Any, input: Tensor, what: str) -> Tensor:
    """Numbers of any dtype, a list or an array, as a tensor in the accumulation dtype beside ``input``, cast once."""
    tensor = numbers(name, argument, values, what)
    if isinstance(values, Tensor) and values.device != input.device:
        refuse(
            name,
            argument,
            f"on the device of 'input', {input.device}",
            f"one on {values.device}",
            f"Use {argument}.to(input.device), or .to(device) of the module that holds it.",
        )
    return tensor.to(input.device, accumulation_dtype(input.dtype))


def refuse_unless_finite(
    name: str, argument: str, values: Tensor, *, minus_infinity: bool = False, wait: bool = False
) -> None:
    """Finite numbers, where reading them costs nothing, or may ``wait`` for a device."""
    if not readable(values, wait=wait):
        return
    bad = values.isnan() | values.isposinf() if minus_infinity else ~values.isfinite()
    if bool(bad.any()):
        position = tuple(bad.nonzero()[0].tolist())
        rule = "finite or -inf" if minus_infinity else "finite"
        unread = "Made from counts on a device, NaN is what counts.cpu() would raise for."
        hint = unread if values.device.type != "cpu" else ""
        refuse(name, argument, rule, f"{float(values[position])} at position {position}", hint)


def refuse_unless_probabilities(name: str, argument: str, values: Tensor, hint: str = "") -> None:
    """Numbers in [0, 1], where reading them costs nothing."""
    if not readable(values):
        return
    outside = ~((values >= 0) & (values <= 1))
    if bool(outside.any()):
        position = tuple(outside.nonzero()[0].tolist())
        got = f"{float(values[position].detach()):g} at position {position}"
        refuse(name, argument, "probabilities in [0, 1]", got, hint)


def class_values(
    name: str, argument: str, values: Any, input: Tensor, *, minus_infinity: bool = False
) -> Tensor | None:
    """One number for each class, ``(C,)``."""
    if values is None:
        return None
    classes = input.shape[class_dim(input)]
    tensor = as_values(name, argument, values, input, f"numbers, one for each of the {classes} classes")
    if tensor.shape != (classes,):
        refuse(name, argument, f"of shape ({classes},), one number for each class", f"shape {tuple(tensor.shape)}")
    refuse_unless_finite(name, argument, tensor, minus_infinity=minus_infinity)
    return tensor


def positive_counts(name: str, counts: Any, *, wait: bool = False) -> Tensor:
    """Counts of classes that exclude one another, ``(C,)``, none of them 0, whose logarithm is infinite.

    A tensor on a device stays there; its values are looked at if that may ``wait``.
    """
    if isinstance(counts, ClassCounts) and counts.is_multilabel:
        hint = "Several classes may hold at once there: use a sigmoid loss with pos_weight(counts)."
        refuse(name, "counts", "single-label counts", "multi-label counts", hint)
    if torch.compiler.is_compiling() and not isinstance(counts, Tensor):
        return counts.counts if isinstance(counts, ClassCounts) else torch.as_tensor(counts)
    if isinstance(counts, Tensor) and not readable(counts, wait=wait):
        if counts.dim() != 1 or counts.is_complex() or counts.dtype == torch.bool:
            refuse(name, "counts", "numbers of shape (C,)", counts)
        return counts.detach()
    values = as_class_counts(counts, function=name).counts
    if bool((values == 0).any()):
        classes = (values == 0).nonzero().flatten().tolist()
        hint = "Leave these classes out of the model, or give them a count of 1."
        if int(values.max()) < len(values):
            hint += " If these are labels, count them by count_classes(labels)."
        some = ", ".join(map(str, classes[:10])) + (f" and {len(classes) - 10} more" if classes[10:] else "")
        refuse(
            name, "counts", "> 0 for every class", f"0 for {'class' if len(classes) == 1 else 'classes'} {some}", hint
        )
    return values.to(counts.device) if isinstance(counts, Tensor) else values


def row_values(name: str, argument: str, values: Any, input: Tensor) -> Tensor | None:
    """One number for each row, in the shape of the rows; ``(N,)`` counts for all positions of a sample."""
    if values is None:
        return None
    dim = class_dim(input)
    rows = input.shape[:dim] + input.shape[dim + 1 :]
    tensor = as_values(name, argument, values, input, "numbers, one for each row")
    if tensor.shape != rows:
        if tensor.dim() != 1 or tensor.shape != rows[:1]:
            refuse(
                name,
                argument,
                f"of shape {tuple(rows)}" + (f" or {tuple(rows[:1])}" if len(rows) > 1 else ""),
                f"shape {tuple(tensor.shape)}",
            )
        tensor = tensor.reshape([-1] + [1] * (len(rows) - 1)).expand(rows)
    refuse_unless_finite(name, argument, tensor)
    return tensor


def element_values(name: str, argument: str, values: Any, input: Tensor) -> Tensor | None:
    """Numbers that broadcast to the shape of ``input``, from the right, as PyTorch does."""
    if values is None:
        return None
    tensor = as_values(name, argument, values, input, "numbers")
    fits = tensor.dim() <= input.dim() and all(
        have in (1, want) for have, want in zip(reversed(tensor.shape), reversed(input.shape), strict=False)
    )
    if not fits:
        refuse(
            name,
            argument,
            f"broadcastable to the shape of 'input', {tuple(input.shape)}",
            f"shape {tuple(tensor.shape)}",
        )
    refuse_unless_finite(name, argument, tensor)
    return tensor


def same_shape(name: str, input: Tensor, target: Any) -> None:
    """Targets of elements: the shape of ``input``, never broadcast."""
    if not isinstance(target, Tensor):
        refuse(name, "target", "a tensor", describe(target), error=TypeError)
    if target.is_complex():
        refuse(name, "target", "real", target, error=TypeError)
    if target.device != input.device:
        refuse(name, "target", f"on the device of 'input', {input.device}", f"one on {target.device}")
    if target.shape == input.shape:
        return
    hint = ""
    if target.numel() == input.numel():
        longer, word = (input, "input") if input.dim() > target.dim() else (target, "target")
        axis = next((i for i in reversed(range(longer.dim())) if longer.shape[i] == 1), None)
        hint = (
            f"Use {word}.squeeze({axis}): broadcast, every row would meet every other."
            if abs(input.dim() - target.dim()) == 1 and axis is not None
            else "Use target.view_as(input) if the elements are in the same order."
        )
    refuse(name, "target", f"of the shape of 'input', {tuple(input.shape)}", f"shape {tuple(target.shape)}", hint)


def per_row(name: str, formula: Callable[..., Tensor], *args: Any) -> Tensor:
    """``formula(*args)``, where an error about a label names the loss that the user called."""
    if torch.compiler.is_compiling():
        return formula(*args)
    try:
        return formula(*args)
    except LabelError as error:
        raise LabelError(f"{name}: {error}") from None


def result_dtype(input: Tensor) -> torch.dtype:
    """The dtype of a loss: that of ``input``; under autocast, which runs losses in float32, not below that."""
    half = input.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half and autocasting(input) else input.dtype


def autocasting(input: Tensor) -> bool:
    """Whether autocast is on for the device of ``input``; some, ``meta`` among them, have none."""
    device = input.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
