"""Weights switched on late."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from steelyard._errors import refuse
from steelyard._values import integer
from steelyard.functional._reduce import Denominator
from steelyard.nn._base import Loss

__all__ = ["DeferredReweighting"]


class DeferredReweighting(nn.Module):
    """A loss without its weights until an epoch, and with them from there on (DRW).

    Early on, weights disturb what the network learns about its inputs; late, they only move the decision. Margins,
    offsets and focusing of the loss act from the start.

    Args:
        loss: A loss of :mod:`steelyard.nn` with ``weight`` or ``pos_weight``. It is held, not copied, and its
            weights are switched off and on: use it through this module only.
        start_epoch: The first epoch, counted from 0, with weights. The paper takes the 160th of 200.

    Raises:
        TypeError: ``loss`` is none of ours. ValueError: it has no weight; ``start_epoch`` < 0.

    Example:
        >>> loss = DeferredReweighting(CrossEntropyLoss(weight=[1.0, 9.0], denominator="samples"), start_epoch=2)
        >>> for epoch in range(3):
        ...     loss.set_epoch(epoch)
        ...     print(loss(torch.zeros(1, 2), torch.tensor([1])))
        tensor(0.6931)
        tensor(0.6931)
        tensor(6.2383)

    Source: Cao et al., NeurIPS 2019, arXiv:1906.07413, Algorithm 1.
    """

    def __init__(self, loss: Loss, start_epoch: int) -> None:
        super().__init__()
        if not isinstance(loss, Loss):
            refuse("DeferredReweighting", "loss", "a loss of steelyard.nn", loss, error=TypeError)
        if all(getattr(loss, name, None) is None for name in ("weight", "pos_weight")):
            refuse("DeferredReweighting", "loss", "one with a weight", f"{type(loss).__name__} without",
                   "Build it by from_counts, say.")  # fmt: skip
        self.start_epoch = integer("DeferredReweighting", "start_epoch", start_epoch)
        if self.start_epoch < 0:
            refuse("DeferredReweighting", "start_epoch", "≥ 0", repr(start_epoch))
        self.loss = loss
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, counted from 0."""
        if integer("DeferredReweighting.set_epoch", "epoch", epoch) < 0:
            refuse("DeferredReweighting.set_epoch", "epoch", "≥ 0", repr(epoch))
        self.epoch = int(epoch)
        self.loss.weights_on = self.epoch >= self.start_epoch

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss of this epoch; arguments as for the loss itself."""
        result: Tensor = self.loss(input, target, sample_weight=sample_weight, denominator=denominator)
        return result

    def posterior(self, logits: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """The probabilities behind the logits: as the loss says, with its weights if they act in this epoch."""
        return self.loss.posterior(logits, prior, train_prior=train_prior)

    def get_extra_state(self) -> int:
        """The epoch, so that a resumed run goes on where it was."""
        return self.epoch

    def set_extra_state(self, state: int) -> None:
        """The epoch of a checkpoint."""
        self.set_epoch(state)

    def extra_repr(self) -> str:
        """When the weights begin, and where training is."""
        return f"start_epoch={self.start_epoch}, epoch={self.epoch}"
