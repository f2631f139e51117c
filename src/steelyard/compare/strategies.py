"""The remedies as a table: what each one is, what it trains with, and what is done to the scores afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard import nn
from steelyard.weights import class_weights

__all__ = ["ALWAYS", "STRATEGIES", "Strategy", "Training", "undo_focal"]

ALWAYS = ("none", "threshold")
"""Shown in every comparison: without them no remedy can be judged."""


@dataclass(frozen=True)
class Training:
    """What one remedy trains with, once the class counts of the training part are known."""

    loss: torch.nn.Module
    validation_loss: torch.nn.Module | None = None
    """What early stopping watches, where ``loss`` alone does not say it."""
    class_sampling: Tensor | None = None
    """Sampling weight of a row of each class, ``(C,)``."""


def _plain(counts: Tensor) -> Training:
    return Training(nn.CrossEntropyLoss())


def _weighted(counts: Tensor) -> Training:
    return Training(nn.CrossEntropyLoss(weight=class_weights(counts, "balanced", normalize="prior")))


def _half_weighted(counts: Tensor) -> Training:
    return Training(nn.CrossEntropyLoss(weight=class_weights(counts, "balanced", power=0.5, normalize="prior")))


def _focal(counts: Tensor) -> Training:
    return Training(nn.FocalLoss(gamma=2.0))


def _balanced_softmax(counts: Tensor) -> Training:
    return Training(nn.BalancedSoftmaxLoss(counts))


def _sampled(counts: Tensor) -> Training:
    weights = class_weights(counts, "balanced", normalize="prior")
    return Training(nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=weights), weights)


Reading = Callable[[Tensor, Tensor, torch.nn.Module], Tensor]
"""(logits, class shares in training, loss) → probabilities."""


def softmax(logits: Tensor, prior: Tensor, loss: torch.nn.Module) -> Tensor:
    """The probabilities as the network gives them."""
    return logits.softmax(1)


def over_prior(logits: Tensor, prior: Tensor, loss: torch.nn.Module) -> Tensor:
    """softmax(z − log π): the classes as if each were equally frequent."""
    return (logits - prior.log()).softmax(1)


def times_prior(logits: Tensor, prior: Tensor, loss: torch.nn.Module) -> Tensor:
    """softmax(z + log π): from scores for equally frequent classes back to natural frequencies."""
    return (logits + prior.log()).softmax(1)


def over_weight(logits: Tensor, prior: Tensor, loss: torch.nn.Module) -> Tensor:
    """softmax(z − log w): weighted training aims at w·p, so dividing by w gives p back."""
    return (logits - loss.weight.log()).softmax(1)  # type: ignore[operator]  # a loss with weights


def undo_focal(logits: Tensor, gamma: float) -> Tensor:
    """The probabilities that focal training pulled together: ``s / [(1−s)^γ − γ(1−s)^(γ−1)·s·log s]``, renormalised.

    Args:
        logits: Scores of a network trained with softmax focal loss, ``(N, C)``.
        gamma: Its γ, at least 1.
    Returns: Probabilities, ``(N, C)``, in the dtype of ``logits``.

    Example:
        >>> undo_focal(torch.tensor([[1.0, 0.0]]), gamma=2.0)
        tensor([[0.9359, 0.0641]])

    Source: Charoenphakdee et al., "On focal loss for class-posterior probability estimation", CVPR 2021.
    """
    tiny = torch.finfo(logits.dtype).eps
    s = logits.softmax(1).clamp(tiny, 1 - tiny)
    back = s / ((1 - s) ** gamma - gamma * (1 - s) ** (gamma - 1) * s * s.log())
    return back / back.sum(1, keepdim=True)


def _unfocused(logits: Tensor, prior: Tensor, loss: torch.nn.Module) -> Tensor:
    return undo_focal(logits, gamma=2.0)


@dataclass(frozen=True)
class Strategy:
    """One remedy. Code fields hold the Python that the report prints; they use ``counts``, ``prior`` and ``logits``."""

    name: str
    label: str
    idea: str
    training: Callable[[Tensor], Training]
    probabilities: Reading = softmax
    """What the remedy says, which decides and is scored."""
    undo: Reading = softmax
    """How often each class really occurs: the same with the remedy's bend taken back out."""
    advice: str = ""
    """The recommendation in one sentence."""
    same_network_as: str = ""
    """The remedy whose trained network this one only reads differently."""
    tuned: bool = False
    """Whether cut-offs are tuned on the validation rows."""
    bends: bool = False
    """Whether its probabilities are meant for other class frequencies than those of the data."""
    loss_code: str = "steelyard.nn.CrossEntropyLoss()"
    sampler_code: str = ""
    probability_code: str = "logits.softmax(1)"
    undo_code: str = "logits.softmax(1)"


STRATEGIES: dict[str, Strategy] = {
    s.name: s
    for s in (
        Strategy(
            "none",
            "do nothing",
            "plain cross entropy, the most probable class decides",
            _plain,
            advice="Do nothing: train with plain cross entropy.",
        ),
        Strategy(
            "threshold",
            "do nothing + tuned cut-offs",
            "the same network; one multiplier per class is tuned on validation rows",
            _plain,
            advice="Train as usual and tune the cut-offs.",
            same_network_as="none",
            tuned=True,
        ),
        Strategy(
            "logit_adjustment",
            "do nothing + logit adjustment",
            "the same network; log class shares are subtracted from its logits (Menon et al., ICLR 2021)",
            _plain,
            over_prior,
            advice="Train as usual and take the log class shares off the logits.",
            same_network_as="none",
            bends=True,
            probability_code="(logits - prior.log()).softmax(1)",
        ),
        Strategy(
            "weights",
            "class weights",
            "cross entropy, each class weighted by one over its share",
            _weighted,
            advice="Use class weights.",
            undo=over_weight,
            bends=True,
            undo_code="(logits - loss.weight.log()).softmax(1)",
            loss_code='steelyard.nn.CrossEntropyLoss(weight=class_weights(counts, "balanced", normalize="prior"))',
        ),
        Strategy(
            "weights_half",
            "class weights, power ½",
            "the same weights under a square root",
            _half_weighted,
            advice="Use class weights to the power ½.",
            undo=over_weight,
            bends=True,
            undo_code="(logits - loss.weight.log()).softmax(1)",
            loss_code="steelyard.nn.CrossEntropyLoss(\n"
            '    weight=class_weights(counts, "balanced", power=0.5, normalize="prior")\n)',
        ),
        Strategy(
            "sampling",
            "weighted sampling",
            "each batch draws the classes equally often, with replacement",
            _sampled,
            advice="Use weighted sampling.",
            undo=times_prior,
            bends=True,
            sampler_code="WeightedRandomSampler(weights[y_train].tolist(), len(y_train), generator=generator)",
            undo_code="(logits + prior.log()).softmax(1)",
        ),
        Strategy(
            "balanced_softmax",
            "balanced softmax",
            "log class counts are added to the logits in training only (Ren et al., NeurIPS 2020)",
            _balanced_softmax,
            advice="Use balanced softmax.",
            undo=times_prior,
            bends=True,
            undo_code="(logits + prior.log()).softmax(1)",
            loss_code="steelyard.nn.BalancedSoftmaxLoss(counts)",
        ),
        Strategy(
            "focal",
            "focal loss, γ = 2",
            "rows that are already right count less (Lin et al., ICCV 2017); not made for imbalance",
            _focal,
            advice="Use focal loss.",
            undo=_unfocused,
            bends=True,
            undo_code="undo_focal(logits, gamma=2.0)",
            loss_code="steelyard.nn.FocalLoss(gamma=2.0)",
        ),
    )
}
