"""Reasons in what the loss was given: inputs of another kind, spread targets, few rows that pull."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from steelyard.explain._reasons_division import close, is_set
from steelyard.explain._signs import are_log_probabilities, are_probabilities, perfect_row
from steelyard.explain._words import number, percent, plural
from steelyard.information import entropy
from steelyard.ops import class_dim

if TYPE_CHECKING:
    from steelyard.explain._explanation import Explanation

MANY_ROWS = 20
"""Below so many rows it says nothing that a few of them carry half of the gradient."""


def not_finite(found: Explanation) -> str | None:
    """NaN and infinity by the first row that has them."""
    bad = ~found.rows.contribution.isfinite()
    if not bool(bad.any()):
        return None
    row = int(bad.nonzero()[0])
    value = number(float(found.rows.contribution[row]))
    said = f"{plural(int(bad.sum()), found.noun)} of {len(bad):,} cost NaN or infinity, the first is {found.noun} "
    said += f"{found.place(row)} ({value})"
    held = found.call.input
    if not bool(held.isfinite().all()):
        first = tuple((~held.isfinite()).nonzero()[0].tolist())
        said += f"; the input holds {number(float(held[first]))} at {first if len(first) != 1 else first[0]}"
    return said + "."


def pos_weight_on_the_last_axis(found: Explanation) -> str | None:
    """(C,) on (N, C, H, W) lands on W."""
    given, shape = found.call.options.get("pos_weight"), tuple(found.call.input.shape)
    if given is None or len(shape) < 3:
        return None
    own = tuple(torch.as_tensor(given).shape)
    if len(own) != 1 or own[0] == 1 or own[0] != shape[1]:
        return None
    ones = ", 1" * (len(shape) - 2)
    return (
        f"pos_weight of shape {own} lies along the last axis of the input {shape}, not along its classes in axis 1: "
        f"for those it must be of shape ({own[0]}{ones})."
    )


def takes_log_probabilities(found: Explanation) -> str | None:
    """nll_loss only picks."""
    if found.call.settings.entry.input != "log-probabilities" or are_log_probabilities(found.call.input):
        return None
    above = int((found.call.input > 0).sum())
    what = f"{above:,} of {found.call.input.numel():,} inputs are above 0" if above else (
        "the exponentials of a row do not add up to 1")  # fmt: skip
    return (
        f"{found.name} takes log-probabilities and only picks −input[target]; these are none ({what}), so the loss "
        "means nothing and may fall below 0. Apply log_softmax first, or use cross_entropy."
    )


def takes_logits(found: Explanation) -> str | None:
    """Probabilities where logits are due."""
    entry = found.call.settings.entry
    if entry.input not in ("logits", "features") or not found.call.settings.exclusive:
        return None
    if are_probabilities(found.call.input):
        classes = found.call.input.shape[class_dim(found.call.input)]
        return (
            "The rows of the input add up to 1: these look like probabilities, and the loss takes logits and applies "
            f"softmax itself. A certain and right row would still cost {number(perfect_row(classes))}."
        )
    if are_log_probabilities(found.call.input):
        return "The input is log-probabilities already: their softmax is what they were, so this is harmless."
    return None


def smoothed(found: Explanation) -> str | None:
    """Smoothing with class weights."""
    smoothing = float(found.call.options.get("label_smoothing", 0.0))
    if not smoothing or found.call.options.get("weight") is None or found.call.options.get("smooth_weight") == "target":
        return None
    return (
        f"label_smoothing moves {percent(smoothing)} of each row onto all classes, and that part has the weight of "
        "the class where it lands, not of the row's own: smooth_weight='target' weighs the whole row as its own class."
    )


def sigmoid_inside(found: Explanation) -> str | None:
    """BCE with logits and BCE of the sigmoid."""
    entry, plain = found.call.settings.entry, ("gamma_pos", "gamma_neg", "clip")
    if entry.name != "binary_cross_entropy_with_logits" or any(found.call.options.get(name) for name in plain):
        return None
    if found.weighted:
        return None
    return "It takes the sigmoid itself: binary_cross_entropy(input.sigmoid(), target) is the same number."


def spread_targets(found: Explanation) -> str | None:
    """The entropy of soft targets is a floor."""
    options, name = found.call.options, found.call.settings.entry.name
    bent = ("gamma", "logit_offset", "margin", "label_smoothing")
    if name not in ("cross_entropy", "linear_cross_entropy") or found.call.indices or found.weighted:
        return None
    q = found.call.target.double()
    dim = class_dim(found.call.input)
    if found.reduction != "mean" or any(is_set(options.get(word)) for word in bent):
        return None
    if not bool((q >= 0).all()) or not bool(((q.sum(dim) - 1).abs() < 1e-4).all()):
        return None
    floor = float(entropy(q, dim).mean())
    if not floor > 1e-9:
        return None
    return (
        f"The targets are spread over classes: their own entropy {number(floor)} is the least that this loss can be; "
        f"the rest, {number(found.value - floor)}, is the divergence that training can remove."
    )


def rounded(found: Explanation) -> str | None:
    """What a narrow dtype costs."""
    if found.reduction == "none" or not found.denominator:
        return None
    exact = found.numerator / found.denominator
    if not math.isfinite(exact) or not math.isfinite(found.value) or close(found.value, exact, 1e-3):
        return None
    dtype = str(found.call.input.dtype).removeprefix("torch.")
    return f"In float64 the same batch gives {number(exact)}: the difference is rounding, as the input is {dtype}."


def concentrated(found: Explanation) -> str | None:
    """A few rows carry half of the gradient."""
    half = found.half_of_gradient
    if found.kept < MANY_ROWS or not half or half > found.kept / 10:
        return None
    strongest = found.rows.pull.topk(half).indices
    groups = found.rows.group[strongest]
    most = int(groups.mode().values)
    share = float((groups == most).double().mean())
    kind = f"class {most}" if found.call.settings.exclusive else f"answer '{found.label(most)}'"
    return (
        f"{half:,} of {plural(found.kept, found.noun)} {'carries' if half == 1 else 'carry'} half of the gradient, "
        f"{percent(share)} of them of {kind}."
    )
