"""The public way in: call the loss, take it apart, and say why the number is what it is."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from steelyard.explain._explanation import Explanation
from steelyard.explain._rows import PIECE, measure, prepared
from steelyard.explain._settings import Call, call_of, known

__all__ = ["explain"]


def explain(loss: Any, *inputs: Any, **keywords: Any) -> Explanation:
    r"""Call a loss and say what it did: who cost what, what the sum was divided by, and why the number is what it is.

    For the questions that a scalar cannot answer: why a weight changed nothing, why two batches give one number, which
    rows carry the gradient.

    Equals ``loss(*inputs, **keywords)`` in its ``value``; every other number is computed again in float64.

    Args:
        loss: A loss of :mod:`steelyard.nn` or :mod:`steelyard.functional`, one of PyTorch's ``CrossEntropyLoss``,
            ``NLLLoss``, ``BCELoss``, ``BCEWithLogitsLoss`` or their functions, or a ``functools.partial`` of a
            function.
        *inputs: What the loss is called with: input and target first; any dtype, shape and device that it takes.
        **keywords: The rest of the call, such as ``weight`` or ``sample_weight``.

    Returns:
        An :class:`Explanation`: prints as text, shows in a notebook, ``to_dict()`` for programs; losses in nats. Of
        more than 10 rows it lists those that contribute most. ``compare(other)`` sets two beside each other.

    Raises:
        TypeError: ``loss`` is none of these. Whatever the loss itself raises for its arguments.

    Example:
        >>> loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0]))
        >>> found = explain(loss, torch.tensor([[0.1, 0.9]]), torch.tensor([0]))
        >>> print(found.headline)
        CrossEntropyLoss = 1.1711 = 0.11711 / 0.1, the weights of the targets added up
        >>> print(found.reasons[0])
        One row: its weight 0.1 cancels, as it multiplies the loss and is also what the mean divides by; any weight but
        0 gives 1.1711. denominator='samples' keeps it: 0.11711.
    """
    known("explain", loss)
    with torch.inference_mode(False), torch.no_grad():  # gradients are asked for below, and inference mode has none
        result = loss(*inputs, **keywords)  # first, so that what is wrong with the call is said by the loss itself
        call = call_of("explain", loss, inputs, keywords)
        value = math.nan if call.options["reduction"] == "none" else float(result)
        name, usual = _pytorch(call)
        return Explanation(call, measure(call), value, usual, name)


def _pytorch(call: Call) -> tuple[str, float]:
    """PyTorch's nearest loss, by name, and its default mean for this batch and these weights."""
    entry = call.settings.entry
    name = entry.torch or ("cross_entropy" if call.settings.exclusive else "binary_cross_entropy_with_logits")
    name = "cross_entropy" if name == "linear_cross_entropy" else name
    input, target, options = prepared(call)
    dtype = torch.float64 if input.numel() <= PIECE or input.dtype == torch.float64 else torch.float32
    taken = {"cross_entropy": ("weight", "ignore_index", "label_smoothing"), "nll_loss": ("weight", "ignore_index")}
    names = taken.get(name, ("weight", "pos_weight") if name.endswith("logits") else ("weight",))
    given = {word: options[word] for word in names if options.get(word) is not None}
    given = {word: v.to(dtype) if isinstance(v, Tensor) else v for word, v in given.items()}
    if name.startswith("binary") or target.is_floating_point():
        target = target.to(dtype)
    with torch.no_grad():
        return name, float(getattr(torch.nn.functional, name)(input.to(dtype), target, **given))
