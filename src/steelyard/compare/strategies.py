"""The remedies as a table: what each one is, what it trains with, and what is done to the scores afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard import nn
from steelyard.nn._base import Loss
from steelyard.weights import class_weights

__all__ = ["ALWAYS", "STRATEGIES", "Strategy", "Training"]

ALWAYS = ("none", "threshold")
"""Shown in every comparison: without them no remedy can be judged."""


@dataclass(frozen=True)
class Training:
    """What one remedy trains with, once the class counts of the training part are known."""

    loss: Loss
    validation_loss: Loss | None = None
    """What early stopping watches, where ``loss`` alone does not say it."""
    class_sampling: Tensor | None = None
    """Sampling weight of a row of each class, ``(C,)``."""

    def posterior(self, logits: Tensor, counts: Tensor) -> Tensor:
        """How often each class really occurs, ``(N, C)``: the bend of the loss and of the sampler taken back out."""
        if self.class_sampling is None:
            return self.loss.posterior(logits)
        return self.loss.posterior(logits, counts, train_prior=self.class_sampling * counts)


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


Reading = Callable[[Tensor, Tensor, Training], Tensor]
"""(logits, class shares in training, what it trained with) → probabilities."""


def softmax(logits: Tensor, prior: Tensor, training: Training) -> Tensor:
    """The probabilities as the network gives them."""
    return logits.softmax(1)


def alike(logits: Tensor, prior: Tensor, training: Training) -> Tensor:
    """As if each class were equally frequent: softmax(z − log π)."""
    return training.loss.posterior(logits, torch.ones_like(prior), train_prior=prior)


@dataclass(frozen=True)
class Strategy:
    """One remedy. Code fields hold the Python that the report prints; they use ``counts``, ``prior`` and ``logits``."""

    name: str
    label: str
    idea: str
    training: Callable[[Tensor], Training]
    probabilities: Reading = softmax
    """What the remedy says, which decides and is scored."""
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
    posterior_code: str = "loss.posterior(logits)"
    """How often each class really occurs: the remedy's bend taken back out."""


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
            "the same network; one cut-off per class is tuned on validation rows",
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
            alike,
            advice="Train as usual and take the log class shares off the logits.",
            same_network_as="none",
            bends=True,
            probability_code="loss.posterior(logits, torch.ones_like(counts), train_prior=counts)",
        ),
        Strategy(
            "weights",
            "class weights",
            "cross entropy, each class weighted by one over its share",
            _weighted,
            advice="Use class weights.",
            bends=True,
            loss_code='steelyard.nn.CrossEntropyLoss(weight=class_weights(counts, "balanced", normalize="prior"))',
        ),
        Strategy(
            "weights_half",
            "class weights, power ½",
            "the same weights under a square root",
            _half_weighted,
            advice="Use class weights to the power ½.",
            bends=True,
            loss_code="steelyard.nn.CrossEntropyLoss(\n"
            '    weight=class_weights(counts, "balanced", power=0.5, normalize="prior")\n)',
        ),
        Strategy(
            "sampling",
            "weighted sampling",
            "each batch draws the classes equally often, with replacement",
            _sampled,
            advice="Use weighted sampling.",
            bends=True,
            sampler_code="WeightedRandomSampler(weights[y_train].tolist(), len(y_train), generator=generator)",
            posterior_code="loss.posterior(logits, counts, train_prior=weights * counts)",
        ),
        Strategy(
            "balanced_softmax",
            "balanced softmax",
            "log class counts are added to the logits in training only (Ren et al., NeurIPS 2020)",
            _balanced_softmax,
            advice="Use balanced softmax.",
            bends=True,
            loss_code="steelyard.nn.BalancedSoftmaxLoss(counts)",
        ),
        Strategy(
            "focal",
            "focal loss, γ = 2",
            "rows that are already right count less (Lin et al., ICCV 2017); not made for imbalance",
            _focal,
            advice="Use focal loss.",
            bends=True,
            loss_code="steelyard.nn.FocalLoss(gamma=2.0)",
        ),
    )
}
