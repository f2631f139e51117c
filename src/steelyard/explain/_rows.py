"""What each row of a batch costs, weighs and pulls, in float64 and piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steelyard.explain._settings import Call
from steelyard.functional._denominator import sigmoid_denominator, softmax_denominator
from steelyard.ops import class_dim, of_class, per_class

__all__ = ["IGNORED", "Rows", "measure", "prepared"]

PIECE = 2**22
"""Numbers of the input that are looked at together: 32 MB each for the copy, its gradient and what is in between."""

IGNORED = -1
"""The group of a row that is left out."""

CLASS_VALUES = ("weight", "logit_offset", "margin")


@dataclass(frozen=True)
class Rows:
    """Numbers of each row of a softmax loss, or of each element of a sigmoid loss, float64 on the CPU, flat.

    Attributes:
        shape: Of the rows before they were laid flat.
        loss: Without any weight.
        weight: What the loss is multiplied by; 0 where ignored.
        contribution: With the weight, before any division.
        pull: The size (L1 norm) of the contribution's gradient with respect to the input.
        group: The class of the row; of an element, twice its column and one more where the target is at least ½.
        denominators: What each rule would divide by.
    """

    shape: tuple[int, ...]
    loss: Tensor
    weight: Tensor
    contribution: Tensor
    pull: Tensor
    group: Tensor
    denominators: dict[str, float]

    @property
    def kept(self) -> Tensor:
        """Rows that are not ignored."""
        return self.group != IGNORED


def prepared(call: Call) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Input, target and options on the CPU, the input with a batch axis, what is laid over it with the same axes."""
    input, target, options = _here(call.input), _here(call.target), dict(call.options)
    for name, value in options.items():
        if isinstance(value, Tensor):
            options[name] = _here(value)
    if call.settings.exclusive:
        if input.dim() == 1:
            input, target = input.unsqueeze(0), target.unsqueeze(0)
        if options.get("sample_weight") is not None:
            rows = _numbers(options["sample_weight"])
            lined = rows.reshape([-1] + [1] * (input.dim() - 2)) if rows.dim() < 2 else rows
            options["sample_weight"] = lined.expand(input.shape[:1] + input.shape[2:])
        if not target.is_floating_point():
            target = target.long()
    else:
        if input.dim() == 0:
            input, target = input.reshape(1), target.reshape(1)
        if not target.is_floating_point():
            target = target.long()
    for name in ("weight", "pos_weight", "logit_offset", "margin"):
        if options.get(name) is not None:
            options[name] = _numbers(options[name])
    return input, target, options


def _here(tensor: Tensor) -> Tensor:
    """On the CPU, and such that autograd may keep it, which tensors made in inference mode forbid."""
    tensor = tensor.detach().cpu()
    return tensor.clone() if tensor.is_inference() else tensor


def _numbers(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()


def _pieces(call: Call) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Rows that fit together into ``PIECE`` numbers; options that follow the batch axis are cut alike."""
    input, target, options = prepared(call)
    size, rows = max(1, PIECE // max(1, input[:1].numel())), input.shape[0]
    along = ["sample_weight"] * call.settings.exclusive
    if not call.settings.exclusive:
        along = [name for name in ("weight", "pos_weight") if options.get(name) is not None
                 and options[name].dim() == input.dim() and options[name].shape[0] == rows > 1]  # fmt: skip
    for start in range(0, max(rows, 1), size):
        cut = slice(start, start + size)
        own = {name: options[name][cut] for name in along if options.get(name) is not None}
        yield input[cut].to(torch.float64), target[cut], {**options, **own}


def measure(call: Call) -> Rows:
    """Every number of every row."""
    parts = [_measure(call, *piece) for piece in _pieces(call)]
    names = ("loss", "weight", "contribution", "pull")
    columns = {name: torch.cat([part[0][name] for part in parts]) for name in names}
    group = torch.cat([part[0]["group"] for part in parts])
    rules = {rule: math.fsum(part[1][rule] for part in parts) for rule in ("torch", "weights", "samples")}
    dim = class_dim(call.input)
    shape = tuple(call.input.shape)
    if call.settings.exclusive:
        shape = shape[:dim] + shape[dim + 1 :]
    return Rows(shape, **columns, group=group, denominators=rules)


def _measure(
    call: Call, input: Tensor, target: Tensor, options: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    each = {**options, "reduction": "none", "denominator": "torch", "empty": "nan"}
    bare = {name: value for name, value in each.items() if name in call.bare}
    if "alpha" in each:
        bare["alpha"] = None
    leaf = input.clone().requires_grad_()
    with torch.enable_grad():
        contribution = call.function(leaf, target, **each)
        (gradient,) = torch.autograd.grad(contribution.sum(), leaf)
    with torch.no_grad():
        loss = call.function(input, target, **bare)
    contribution = contribution.detach()
    found = _exclusive if call.settings.exclusive else _elements
    mass, exact, group, denominators = found(call, input, target, options)
    # Where the targets spread over several weights, the row's weight is what its loss was in fact multiplied by.
    ratio = torch.where(loss.abs() > 0, contribution / loss, mass)
    weight = torch.where(exact, mass, ratio)
    pull = gradient.abs()
    if call.settings.exclusive:
        pull = pull.sum(class_dim(input))
    columns = {"loss": loss, "weight": weight, "contribution": contribution, "pull": pull, "group": group}
    return {name: values.reshape(-1) for name, values in columns.items()}, denominators


def _exclusive(
    call: Call, input: Tensor, target: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """Weight of each row, whether it is the loss's only factor, the row's class, and the denominators."""
    dim, w, v = class_dim(input), options.get("weight"), options.get("sample_weight")
    smoothing = float(options.get("label_smoothing", 0.0))
    by_target, ignored = options.get("smooth_weight") == "target", int(options["ignore_index"])
    if target.is_floating_point():
        q = target.to(input.dtype)
        mass = (q if w is None else q * per_class(w, input)).sum(dim)
        group = q.argmax(dim)
        exact = torch.zeros_like(group, dtype=torch.bool) if w is not None else torch.ones_like(group, dtype=torch.bool)
        mass = torch.ones_like(mass) if w is None else mass
    else:
        kept = target != ignored
        y = target.masked_fill(~kept, 0)
        mass = (torch.ones_like(y, dtype=input.dtype) if w is None else of_class(w, y)).masked_fill(~kept, 0.0)
        group = y.masked_fill(~kept, IGNORED)
        exact = torch.full_like(kept, w is None or smoothing == 0.0 or by_target)
    if v is not None:
        mass = mass * v
    divisors = {
        rule: float(softmax_denominator(rule, input, target, w, v, smoothing, by_target, ignored))
        for rule in ("torch", "weights", "samples")
    }
    return mass, exact, group, divisors


def _elements(
    call: Call, input: Tensor, target: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
    """The same for elements; two groups for each column of a table, and two for anything else."""
    v, p, alpha, ignored = (options.get(name) for name in ("weight", "pos_weight", "alpha", "ignore_index"))
    q = 1.0
    if alpha is not None:
        p, q = float(alpha) * (1.0 if p is None else p), 1.0 - float(alpha)
    t = target.to(input.dtype)
    mass = t * (1.0 if p is None else p) + (1.0 - t) * q
    mass = torch.ones_like(input) * mass * (1.0 if v is None else v)
    group = (t >= 0.5).long()
    if input.dim() == 2 and input.shape[1] > 1:
        group = group + 2 * torch.arange(input.shape[1])
    if ignored is not None:
        kept = target != ignored
        group, mass = group.masked_fill(~kept, IGNORED), mass.masked_fill(~kept, 0.0)
    positive = None if p is None else torch.as_tensor(p, dtype=input.dtype)
    divisors = {
        rule: float(sigmoid_denominator(rule, input, target, v, positive, q, ignored))
        for rule in ("torch", "weights", "samples")
    }
    hard = (t == 0) | (t == 1)
    return mass, hard | torch.full_like(hard, p is None and q == 1.0), group, divisors
