"""Rules on how a loss is called: in pieces, with what weights beside what input, and how it is reduced."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from steelyard.explain._rule import Said, rule
from steelyard.explain._rules_weights import UNEVEN
from steelyard.explain._setup import Setup, spread
from steelyard.explain._words import number, plural


@rule(
    "SY104",
    "warning",
    "A weighted mean with gradient accumulation or several ranks",
    symptom="Training changes when the same batch is cut into micro-batches or dealt out to GPUs.",
    reason="Each piece divides by its own sum of weights (or its own number of rows kept), so the mean of the means is "
    "not the mean of the whole: a piece with few rare rows counts for as much as one with many.",
    fine="Without weights and ignored rows, pieces of equal size have equal denominators. A number as `denominator` is "
    "one for all.",
    example="""
loss = nn.CrossEntropyLoss(weight=[1.0, 9.0])
target = torch.tensor([0, 0, 0, 1])
print(check(loss=loss, target=target, accumulation_steps=2))
""",
)
def mean_of_means(setup: Setup) -> Said:
    """Pieces with denominators of their own."""
    rule_name, target = setup.option("denominator"), setup.target_values
    if setup.shards == 1 or setup.option("reduction") != "mean" or not isinstance(rule_name, str):
        return None
    soft = setup.exclusive and target is not None and target.is_floating_point()
    weights = setup.weight if setup.exclusive or rule_name == "weights" else None
    uneven = weights is not None and spread(weights) > UNEVEN and (
        rule_name == "weights" or (rule_name == "torch" and not soft))  # fmt: skip
    ignored = setup.option("ignore_index")
    some_out = target is not None and not soft and ignored is not None and bool((target == ignored).any())
    if not (uneven or some_out):
        return None
    what = "sum of weights" if uneven else "number of rows kept"
    measured = ""
    if target is not None and not soft and target.dim() and target.shape[0] >= setup.shards:
        pieces_of = target.cpu().tensor_split(setup.shards)
        masses = [_mass(piece, weights if uneven else None, ignored) for piece in pieces_of]
        if max(masses) <= min(masses) * UNEVEN and min(masses) > 0:
            return None
        measured = f" In the {setup.shards} pieces of this batch that runs from {number(min(masses))} to "
        measured += f"{number(max(masses))}." + _values(setup)
    pieces = " × ".join(f"{count} {word}" for count, word in (
        (setup.accumulation_steps, "micro-batches"), (setup.world_size, "ranks")) if count > 1)  # fmt: skip
    return (
        f"The mean of {pieces} is not the mean of the whole: each piece divides by its own {what}.{measured}",
        "Give every piece the denominator of all: D = steelyard.distributed.loss_denominator(loss, targets), then "
        "loss(input, target, denominator=D), and add the gradients up instead of averaging them. "
        "steelyard.trainers does so inside Lightning and the Hugging Face Trainer.",
    )


def _mass(target: Tensor, weights: Tensor | None, ignored: Any) -> float:
    y = target.reshape(-1)
    kept = torch.ones_like(y, dtype=torch.bool) if ignored is None else y != ignored
    if weights is None:
        return float(kept.sum())
    if y.is_floating_point():
        return float((y * weights[1] + (1 - y) * weights[0])[kept].sum())
    y = y.long()
    kept &= (y >= 0) & (y < len(weights))
    return float(weights[y[kept]].sum())


def _values(setup: Setup) -> str:
    """The mean of the means and the mean, where the batch is there to compute them."""
    input, target = setup.input_values, setup.target_values
    if input is None or target is None or input.shape[:1] != target.shape[:1]:
        return ""
    try:
        with torch.no_grad():
            whole = float(setup.loss(input, target))
            parts = zip(input.tensor_split(setup.shards), target.tensor_split(setup.shards), strict=True)
            mean = math.fsum(float(setup.loss(*part)) for part in parts) / setup.shards
    except (TypeError, ValueError, IndexError, RuntimeError):  # what is wrong with the batch is for other rules to say
        return ""
    return f" The mean of their means is {number(mean)}, the mean of the whole {number(whole)}."


@rule(
    "SY119",
    "error",
    "Weights of another device or dtype",
    symptom="RuntimeError: expected scalar type Float but found Double; or: expected all tensors to be on the same "
    "device.",
    reason="numpy gives float64, and a tensor passed to a function does not move with the model. PyTorch's "
    "cross_entropy and nll_loss convert neither.",
    fine="steelyard's losses cast weights once; a module moves its buffers with `.to(device)`. Under autocast PyTorch "
    "takes float32 weights beside half-precision logits.",
    example="""
weight = torch.tensor([1.0, 9.0], dtype=torch.float64)
print(check(loss=torch.nn.CrossEntropyLoss(weight=weight), input=torch.zeros(4, 2)))
""",
)
def device_and_dtype(setup: Setup) -> Said:
    """Weights that PyTorch would not accept beside this input."""
    if setup.settings is None or setup.input is None:
        return None
    for name in ("weight", "pos_weight", "logit_offset", "margin"):
        value = setup.option(name)
        if not isinstance(value, Tensor):
            continue
        if value.device != setup.input.device:
            return (
                f"'{name}' is on {value.device}, the input on {setup.input.device}.",
                f"Move the loss with the model: loss.to(device); in a function call, {name}.to(input.device).",
            )
        narrow = setup.input.dtype in (torch.float16, torch.bfloat16) and value.dtype == torch.float32
        if setup.settings.torch and setup.exclusive and value.dtype != setup.input.dtype and not narrow:
            given, wanted = (str(d).removeprefix("torch.") for d in (value.dtype, setup.input.dtype))
            return (
                f"'{name}' is {given}, the input {wanted}: PyTorch's {setup.settings.name} does not convert weights.",
                f"Pass {name}.to(input.dtype), or use steelyard.nn, which casts weights itself.",
            )
    return None


@rule(
    "SY122",
    "warning",
    "A sum where a mean is meant",
    symptom="The best learning rate changes with the batch size, and the last, smaller batch of an epoch counts less.",
    reason="A sum grows with the batch, and every gradient with it.",
    fine="A mean, or a denominator of your own: `loss(input, target, denominator=D)`.",
    example="""
print(check(loss=torch.nn.CrossEntropyLoss(reduction="sum"), target=torch.zeros(256, dtype=torch.long)))
""",
)
def sum_reduction(setup: Setup) -> Said:
    """reduction='sum'."""
    if setup.settings is None or setup.option("reduction") != "sum":
        return None
    measured = ""
    if setup.target is not None and setup.target.numel():
        rows = setup.target.numel()
        if setup.exclusive and setup.target.is_floating_point():
            rows //= setup.target.shape[0 if setup.target.dim() == 1 else 1]
        noun = "row" if setup.exclusive else "element"
        measured = (
            f": with this batch the step is about {number(rows)} times that of the mean over its {plural(rows, noun)}"
        )
    return (
        f"reduction='sum' makes the loss and the step grow with the batch{measured}.",
        "Use reduction='mean', or a mean with a denominator of your own where pieces of a batch must add up.",
    )


@rule(
    "SY125",
    "warning",
    "Negative weights",
    symptom="The loss falls without end, or below 0.",
    reason="The losses are linear in their weights, so a negative one rewards being wrong. PyTorch takes it without a "
    "word.",
    fine="Weights of 0.",
    example="""
print(check(loss=torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, -1.0]))))
""",
)
def negative_weights(setup: Setup) -> Said:
    """A weight below 0."""
    for name in ("weight", "pos_weight"):
        value = setup.option(name)
        if value is None:
            continue
        flat = torch.as_tensor(value).detach().cpu().double().reshape(-1)
        if bool((flat < 0).any()):
            at = int((flat < 0).nonzero()[0])
            return (
                f"'{name}' holds {number(float(flat[at]))} at position {at}: such rows are rewarded for being wrong, "
                "without limit.",
                "Weights are 0 or more.",
            )
    return None
