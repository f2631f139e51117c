"""How often each class comes up: where a network was trained, and where its probabilities are to hold.

Between the two, by Bayes' rule, odds change by the ratio of the shares: that is the whole of a change of prior.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import numbers, readable
from steelyard.counts import ClassCounts
from steelyard.functional._check import refuse_unless_finite
from steelyard.ops import accumulation_dtype, class_dim

__all__ = ["beside", "class_shares", "class_shift", "share_shift"]


def _both(name: str, prior: Any, train_prior: Any) -> bool:
    """Whether there is a shift of priors, which takes two of them."""
    if prior is not None and train_prior is None:
        hint = "It is how often each class came up in training: the counts of the data, or what a sampler made of them."
        refuse(name, "train_prior", "given where 'prior' is", None, hint, error=TypeError)
    if train_prior is not None and prior is None:
        hint = "It is how often each class comes up where the model will be used: the natural counts, say."
        refuse(name, "prior", "given where 'train_prior' is", None, hint, error=TypeError)
    return prior is not None


def class_shift(name: str, prior: Any, train_prior: Any, logits: Tensor) -> Tensor | None:
    """``log(prior/train_prior)`` up to a constant, ``(C,)``."""
    if not _both(name, prior, train_prior):
        return None
    classes = logits.shape[class_dim(logits)]
    shares = []
    for argument, values, zero in (("prior", prior, True), ("train_prior", train_prior, False)):
        given = class_shares(name, argument, values, classes, zero=zero)
        shares.append(given.to(logits.device, accumulation_dtype(logits.dtype)).log())
    return shares[0] - shares[1]


def class_shares(name: str, argument: str, values: Any, classes: int, *, zero: bool = False) -> Tensor:
    """Shares of ``classes`` classes, or counts, in float64 where the device has it; they need not add up to one."""
    if isinstance(values, ClassCounts):
        if values.is_multilabel:
            refuse(name, argument, "single-label counts", "multi-label counts", "A softmax answers with one class.")
        values = values.counts
    rule = "shares or counts, one for each class"
    tensor = numbers(name, argument, values, rule).detach()
    if tensor.shape != (classes,):
        refuse(name, argument, f"of shape ({classes},), {rule}", f"shape {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.float64 if tensor.device.type == "cpu" else torch.float32)
    refuse_unless_finite(name, argument, tensor)
    if readable(tensor):
        bad = tensor < 0 if zero else ~(tensor > 0)
        if bool(bad.any()):
            position = int(bad.nonzero()[0])
            hint = "" if zero else "What a class that never came up looks like, training could not show."
            refuse(name, argument, "≥ 0" if zero else "> 0", f"{float(tensor[position]):g} for class {position}", hint)
        if not bool((tensor > 0).any()):
            refuse(name, argument, "above 0 for some class", "zeros")
    return tensor


def share_shift(name: str, prior: Any, train_prior: Any, logits: Tensor, *, argument: str = "logits") -> Tensor | None:
    """``logit(prior) − logit(train_prior)`` of each element's positives."""
    if not _both(name, prior, train_prior):
        return None
    odds = []
    for word, values in (("prior", prior), ("train_prior", train_prior)):
        share = beside(name, word, _positive_share(name, word, values), logits, argument)
        if readable(share) and not bool(((share > 0) & (share < 1)).all()):
            position = tuple((~((share > 0) & (share < 1))).nonzero()[0].tolist())
            refuse(name, word, "a share of positives between 0 and 1",
                   f"{float(share[position]):g} at position {position}",
                   "For counts, pass a ClassCounts, or positives / (positives + negatives).")  # fmt: skip
        odds.append(share.log() - (-share).log1p())
    return odds[0] - odds[1]


def _positive_share(name: str, argument: str, values: Any) -> Any:
    if not isinstance(values, ClassCounts):
        return values
    if values.is_multilabel:
        return values.prior
    if values.num_classes != 2:
        refuse(name, argument, "multi-label counts, or of two classes", f"counts of {values.num_classes} classes",
               "A sigmoid answers yes or no.")  # fmt: skip
    return values.prior[1]


def beside(name: str, argument: str, values: Any, logits: Tensor, whose: str = "logits") -> Tensor:
    """Finite numbers that broadcast to the shape of the logits, never the other way round."""
    tensor = numbers(name, argument, values, "numbers").to(logits.device, accumulation_dtype(logits.dtype))
    try:
        fits = torch.broadcast_shapes(tensor.shape, logits.shape) == logits.shape
    except RuntimeError:
        fits = False
    if not fits:
        refuse(name, argument, f"broadcastable to the shape of '{whose}', {tuple(logits.shape)}",
               f"shape {tuple(tensor.shape)}")  # fmt: skip
    refuse_unless_finite(name, argument, tensor)
    return tensor
