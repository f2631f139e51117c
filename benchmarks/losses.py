"""The losses that are timed: the line of PyTorch that people write, ours beside it, and the data both are given.

Each line takes the logits and then the tensors that ``data`` made. The same line in float64 is what all contenders are
held against before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from steelyard import functional as ours

__all__ = ["LOSSES", "Loss"]

Shape = tuple[int, ...]
Data = Callable[[Shape, torch.dtype, Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Loss:
    """One loss, as its users write it in PyTorch and as they write it with Steelyard."""

    says: str
    """What is computed, in words."""
    line: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    """The same with Steelyard; takes further keywords."""
    function: Callable[..., Tensor]
    """The function behind ``ours``, whose signature says which keywords there are."""
    data: Data
    dense_target: bool = False
    """Whether there is one target for each logit, which any implementation has to read."""


# ----------------------------------------------------------------------------------------------------------- the data


def _classes(shape: Shape) -> int:
    return shape[1]


def _prior(shape: Shape) -> Tensor:
    """A long tail: the k-th class is k times rarer than the first."""
    share = 1.0 / torch.arange(1, _classes(shape) + 1, dtype=torch.float64)
    return share / share.sum()


def _labels(shape: Shape, generator: Generator) -> Tensor:
    rows = (shape[0], *shape[2:])
    drawn = torch.multinomial(_prior(shape), torch.Size(rows).numel(), replacement=True, generator=generator)
    return drawn.reshape(rows)


def _class_weight(shape: Shape, dtype: torch.dtype) -> Tensor:
    """Square roots of inverse class shares, of mean 1."""
    weight = _prior(shape).rsqrt()
    return (weight / weight.mean()).to(dtype)


def _labels_only(shape: Shape, dtype: torch.dtype, generator: Generator) -> tuple[Tensor, ...]:
    return (_labels(shape, generator),)


def _labels_and_weight(shape: Shape, dtype: torch.dtype, generator: Generator) -> tuple[Tensor, ...]:
    return _labels(shape, generator), _class_weight(shape, dtype)


def _masks_and_weight(shape: Shape, dtype: torch.dtype, generator: Generator) -> tuple[Tensor, ...]:
    """Label masks with the upper tenth of each image unlabelled: whole runs are ignored, as in real masks."""
    mask = _labels(shape, generator)
    mask[:, : max(1, mask.shape[1] // 10)] = 255
    return mask, _class_weight(shape, dtype)


def _labels_and_counts(shape: Shape, dtype: torch.dtype, generator: Generator) -> tuple[Tensor, ...]:
    return _labels(shape, generator), (_prior(shape) * 1e6).ceil().long()


def _probabilities(shape: Shape, dtype: torch.dtype, generator: Generator) -> tuple[Tensor, ...]:
    return (torch.randn(shape, generator=generator).softmax(1).to(dtype),)


def _rare_positives(shape: Shape, dtype: torch.dtype, generator: Generator) -> tuple[Tensor, ...]:
    """Three in a hundred are positive."""
    return ((torch.rand(shape, generator=generator) < 0.03).to(dtype),)


def _rare_positives_and_weight(shape: Shape, dtype: torch.dtype, generator: Generator) -> tuple[Tensor, ...]:
    (target,) = _rare_positives(shape, dtype, generator)
    pos_weight = torch.full((shape[-1],), 0.97 / 0.03) * (1 + torch.rand(shape[-1], generator=generator))
    return target, pos_weight.to(dtype)


# ---------------------------------------------------------------------------------------------- PyTorch, as it is used


def cross_entropy(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Weighted cross entropy."""
    return F.cross_entropy(z, y, w)


def ignore_index(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Weighted cross entropy of a segmentation, unlabelled pixels left out."""
    return F.cross_entropy(z, y, w, ignore_index=255)


def label_smoothing(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Weighted cross entropy with ε = 0.1."""
    return F.cross_entropy(z, y, w, label_smoothing=0.1)


def soft_targets(z: Tensor, q: Tensor) -> Tensor:
    """Cross entropy with class probabilities, as mixup and distillation give them."""
    return F.cross_entropy(z, q)


def focal(z: Tensor, y: Tensor) -> Tensor:
    """The composition found in most repositories."""
    ce = F.cross_entropy(z, y, reduction="none")
    pt = torch.exp(-ce)
    return ((1 - pt) ** 2 * ce).mean()


def balanced_softmax(z: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """As in the paper's code: the logarithm of the counts is added to the logits."""
    return F.cross_entropy(z + counts.to(z.dtype).log(), y)


def bce(z: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """Binary cross entropy with positives weighted."""
    return F.binary_cross_entropy_with_logits(z, t, pos_weight=p)


def sigmoid_focal(z: Tensor, t: Tensor) -> Tensor:
    """The lines of ``torchvision.ops.sigmoid_focal_loss``."""
    p = torch.sigmoid(z)
    ce = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    loss = ce * ((1 - p_t) ** 2)
    alpha_t = 0.25 * t + (1 - 0.25) * (1 - t)
    return (alpha_t * loss).mean()


# ---------------------------------------------------------------------------------------------------- ours, the same


def _ours(function: Callable[..., Tensor], **settings: Any) -> Callable[..., Tensor]:
    def line(z: Tensor, *rest: Tensor, **options: Any) -> Tensor:
        return function(z, *rest, **settings, **options)

    return line


def _our_bce(z: Tensor, t: Tensor, p: Tensor, **options: Any) -> Tensor:
    return ours.binary_cross_entropy_with_logits(z, t, pos_weight=p, **options)


_ce, _bce = ours.cross_entropy, ours.binary_cross_entropy_with_logits

LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss("cross entropy, class weights", cross_entropy, _ours(_ce), _ce, _labels_and_weight),
    "ignore_index": Loss(
        "cross entropy, class weights, a tenth ignored",
        ignore_index, _ours(_ce, ignore_index=255), _ce, _masks_and_weight,
    ),
    "label_smoothing": Loss(
        "cross entropy, class weights, ε = 0.1",
        label_smoothing, _ours(_ce, label_smoothing=0.1), _ce, _labels_and_weight,
    ),
    "soft_targets": Loss(
        "cross entropy, class probabilities", soft_targets, _ours(_ce), _ce, _probabilities, dense_target=True
    ),
    "focal": Loss("focal, γ = 2", focal, _ours(ours.focal_loss), ours.focal_loss, _labels_only),
    "balanced_softmax": Loss(
        "balanced softmax",
        balanced_softmax, _ours(ours.balanced_softmax_loss), ours.balanced_softmax_loss, _labels_and_counts,
    ),
    "bce": Loss("BCE with logits, positive weight", bce, _our_bce, _bce, _rare_positives_and_weight, dense_target=True),
    "sigmoid_focal": Loss(
        "sigmoid focal, γ = 2, α = ¼",
        sigmoid_focal, _ours(ours.sigmoid_focal_loss, reduction="mean"), ours.sigmoid_focal_loss, _rare_positives,
        dense_target=True,
    ),
}  # fmt: skip
