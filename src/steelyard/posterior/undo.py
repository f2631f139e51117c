"""The functional form of ``loss.posterior``, for PyTorch's own losses too, and the same question put to a cut-off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steelyard._errors import NotInvertibleError, refuse
from steelyard._values import number
from steelyard.functional.inverse import CALIBRATE, bce_inverse, sigmoid_inverse, softmax_inverse

__all__ = ["equivalent_threshold", "posterior"]


def posterior(logits: Tensor, loss: Any, prior: Any = None, *, train_prior: Any = None) -> Tensor:
    r"""The probabilities behind the output of a network trained with ``loss``.

    "My model says 40 % for something that happens 2 % of the time": a weighted loss or a sampler taught it to. Such an
    output is bent in a known way, and this takes the bend back out, without another training and without more data.

    Equals ``loss.posterior(logits, prior, train_prior=train_prior)`` for a loss of :mod:`steelyard.nn`; PyTorch's
    ``CrossEntropyLoss``, ``NLLLoss``, ``BCEWithLogitsLoss`` and ``BCELoss`` are read the same way.

    Args:
        logits: What the loss takes as its input: logits, (log-)probabilities or, for a linear loss, features.
        loss: The loss of the training, with its weights.
        prior: Class shares, or counts, where the probabilities are to hold, ``(C,)``; for a sigmoid loss the share of
            positives. ``None``: where the network was trained.
        train_prior: The same for the rows as training drew them: for a sampler that draws classes equally, ``C`` equal
            numbers. Goes with ``prior``.

    Returns:
        Probabilities, shape of ``logits``, float32 or float64.

    Raises:
        NotInvertibleError: a loss, or settings, without an inverse; says how to calibrate instead.
        TypeError, ValueError: dtypes, shapes.

    Example:
        >>> trained_with = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 49.0]))
        >>> posterior(torch.tensor([[0.4, 0.0]]), trained_with)
        tensor([[0.9865, 0.0135]])
        >>> posterior(torch.tensor([[0.4, 0.0]]), torch.nn.CrossEntropyLoss(), [98, 2], train_prior=[1, 1])
        tensor([[0.9865, 0.0135]])

    Source: :mod:`steelyard.functional.inverse`, which derives the inverses.
    """
    if not isinstance(loss, torch.nn.Module):
        hint = "For the settings themselves there are softmax_posterior and sigmoid_posterior."
        refuse("posterior", "loss", "the loss module of the training", loss, hint, error=TypeError)
    own = getattr(loss, "posterior", None)
    if callable(own):
        result: Tensor = own(logits, prior, train_prior=train_prior)
        return result
    shares = {"prior": prior, "train_prior": train_prior}
    if isinstance(loss, torch.nn.CrossEntropyLoss):
        smoothing = loss.label_smoothing
        return softmax_inverse("posterior", logits, weight=loss.weight, label_smoothing=smoothing, **shares)
    if isinstance(loss, torch.nn.NLLLoss):
        return softmax_inverse("posterior", logits, meaning="log-probabilities", weight=loss.weight, **shares)
    if isinstance(loss, torch.nn.BCEWithLogitsLoss):
        return sigmoid_inverse("posterior", logits, weight=loss.weight, pos_weight=loss.pos_weight, **shares)
    if isinstance(loss, torch.nn.BCELoss):
        return bce_inverse("posterior", logits, prior, train_prior, loss.weight, argument="logits")
    rule = "one of steelyard.nn, or PyTorch's CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss, BCELoss"
    return refuse("posterior", "loss", rule, type(loss).__name__, CALIBRATE, error=NotInvertibleError)


FARTHEST = 700.0
"""Logits from minus to plus this have a sigmoid that float64 can tell from 0."""


def equivalent_threshold(threshold: float, loss: Any, *, prior: Any = None, train_prior: Any = None) -> float | Tensor:
    r"""The raw score at which the true probability reaches ``threshold``: where an unweighted cut-off has gone.

    After weighting, 0.5 is no longer "as likely as not". To keep the raw scores and move the cut-off instead, take this
    one; it decides exactly as ``threshold`` does on the posterior.

    Equals ``P·t / (P·t + 1 − t)`` for a ``pos_weight`` P, and in general solves ``posterior(z) = t`` by bisection.

    Args:
        threshold: t, a probability of class 1, in (0, 1).
        loss: The loss of the training: a sigmoid loss, or a softmax loss on two classes.
        prior, train_prior: As for :func:`posterior`.

    Returns:
        The raw score, ``sigmoid(z)`` or ``softmax(z)[1]``, a float in (0, 1); for a ``pos_weight`` of several classes
        float64 of its shape.

    Raises:
        ValueError: a threshold that no raw score reaches (asymmetric loss with a clip and no ``gamma_pos``).
        NotInvertibleError, TypeError: as :func:`posterior`.

    Example:
        >>> loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(49.0))
        >>> round(equivalent_threshold(0.5, loss), 4)
        0.98

    Source: Elkan, IJCAI 2001, theorem 1, for weights.
    """
    name = "equivalent_threshold"
    t = number(name, "threshold", threshold, 0.0, 1.0, open_end=True)
    if t == 0.0:
        refuse(name, "threshold", "above 0", repr(threshold))
    shape = _shape_of_elements(loss)
    sigmoid = shape is not None

    def says(z: Tensor) -> Tensor:
        if sigmoid:
            return posterior(z, loss, prior, train_prior=train_prior)
        pair = torch.stack([torch.zeros_like(z), z], dim=-1).reshape(1, 2)
        return posterior(pair, loss, prior, train_prior=train_prior)[..., 1].reshape(z.shape)

    high = torch.full(shape or (), FARTHEST, dtype=torch.float64)
    low = -high
    if bool((says(high) < t).any()):
        most = float(says(high).min())
        refuse(name, "threshold", f"at most {most:g}, the highest probability that this loss can tell", repr(t))
    for _ in range(64):  # to the last bit of a float64
        middle = (low + high) / 2
        above = says(middle) >= t
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    score = high.sigmoid()
    return float(score) if score.dim() == 0 else score


def _shape_of_elements(loss: Any) -> tuple[int, ...] | None:
    """The shape of the answer for a sigmoid loss, None for a softmax loss."""
    inner = getattr(loss, "loss", loss)  # what DeferredReweighting holds
    if not hasattr(inner, "pos_weight"):
        return None
    weight = inner.pos_weight
    return () if weight is None or weight.numel() == 1 else tuple(weight.shape)
