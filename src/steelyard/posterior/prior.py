"""A change of prior: probabilities from one mix of classes to another, and the new mix from unlabelled rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from steelyard._errors import describe, refuse
from steelyard._values import number
from steelyard.functional._prior import class_shares
from steelyard.posterior._values import as_given, binary_labels, class_labels, count, probabilities

__all__ = ["estimate_prior", "shift_prior"]


def shift_prior(probs: Any, train_prior: Any, deploy_prior: Any) -> Any:
    r"""Probabilities as they would be if the classes came in other shares.

    A model trained where 1 in 2 is ill, used where 1 in 50 is: its ranking stands, its probabilities do not.

    Equals ``p = probs * deploy_prior / train_prior; p / p.sum(1, keepdim=True)``.

    Args:
        probs: Probabilities that hold under ``train_prior``: of classes ``(N, C)``, rows adding up to one, or of a yes
            ``(N,)``.
        train_prior: Class shares, or counts, > 0, ``(C,)`` or a :class:`~steelyard.ClassCounts`; for ``(N,)`` the share
            of positives, a number in (0, 1).
        deploy_prior: The same where the probabilities are to hold; a class may have a share of 0.

    Returns: Probabilities, shape of ``probs``; a tensor where that was one, else an array.

    Raises: TypeError, ValueError: dtypes, shapes; values outside [0, 1]; a share ≤ 0.

    Example:
        >>> shift_prior(torch.tensor([[0.5, 0.5], [0.1, 0.9]]), [0.5, 0.5], [0.98, 0.02])
        tensor([[0.9800, 0.0200],
                [0.8448, 0.1552]])
        >>> shift_prior([0.5, 0.9], 0.5, 0.02).round(4).tolist()
        [0.02, 0.1552]

    Source: Elkan, IJCAI 2001, theorem 2; Saerens et al., Neural Computation 14, 2002, eq. 2.4.
    """
    name = "shift_prior"
    p = probabilities(name, "probs", probs)
    columns, train = _columns(name, p, "train_prior", train_prior)
    deploy = _columns(name, p, "deploy_prior", deploy_prior, zero=True)[1]
    shifted = columns * (deploy / train)
    total = shifted.sum(axis=1, keepdims=True)
    if (total == 0).any():
        row = int((total[:, 0] == 0).argmax())
        refuse(name, "deploy_prior", "above 0 for some class that 'probs' gives a chance", f"none in row {row}")
    shifted /= total
    return as_given(probs, shifted[:, 1] if p.ndim == 1 else shifted)


def estimate_prior(probs: Any, train_prior: Any, *, held_out: Any = None, steps: int = 10_000) -> Any:
    r"""Class shares of new, unlabelled rows, from a model that was trained where other shares held.

    Counting decisions, or averaging probabilities, is drawn towards the training shares; the maximum of the likelihood
    is not. It assumes that each class looks as it did in training and that only the shares have changed, and it takes
    the probabilities at their word: calibrated ones. A weighted model's raw output is not that; take its
    :func:`posterior` first.

    Equals the limit of ``π ← mean_i(shift_prior(probs, train_prior, π))``.

    Args:
        probs: Probabilities of the new rows under ``train_prior``, ``(N, C)``, or of a yes, ``(N,)``.
        train_prior: Class shares, or counts, in training, > 0, ``(C,)``; for ``(N,)`` the share of positives.
        held_out: ``(probs, labels)`` of labelled rows *of the training mix* that the model has not learnt from, on
            which its calibration is tested. Without it, only the contradiction described below can be seen.
        steps: The most steps.

    Returns: Shares, float64, ``(C,)``, or for ``(N,)`` the share of positives, a float.

    Raises: TypeError, ValueError: as :func:`shift_prior`.

    Warns:
        UserWarning: ``held_out`` says that the probabilities are not calibrated; or the estimate gives a class no share
            although calibrated probabilities would leave it one (their ratio to the share has mean 1 over the new rows
            whatever the shares are, and it is lower by more than chance); or ``steps`` were not enough.

    Example:
        >>> new = torch.tensor([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 70)
        >>> estimate_prior(new, [0.5, 0.5])
        tensor([0.2500, 0.7500])

    Source: Saerens, Latinne and Decaestecker, Neural Computation 14, 2002, eq. 2.9; that calibration matters, and
    which: Alexandari, Kundaje and Shrikumar, ICML 2020, arXiv:1901.06852.
    """
    name = "estimate_prior"
    p = probabilities(name, "probs", probs)
    columns, train = _columns(name, p, "train_prior", train_prior)
    most = count(name, "steps", steps, 1)
    if held_out is not None:
        _check_calibration(name, held_out, columns.shape[1])
    ratio = columns / train
    shares = train.copy()
    for _ in range(most):
        joint = ratio * shares
        new = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        moved, shares = float(np.abs(new - shares).max()), new / new.sum()
        if moved < 1e-10:
            break
    else:
        warnings.warn(f"{name}: after {most} steps the shares still move by {moved:.1e}.", UserWarning, stacklevel=2)
    _check_vanished(name, ratio, shares)
    return float(shares[1]) if p.ndim == 1 else as_given(probs, shares)


def _columns(
    name: str, p: np.ndarray, argument: str, prior: Any, *, zero: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as ``(N, C)`` and shares that add up to one."""
    if p.ndim == 2:
        shares = class_shares(name, argument, prior, p.shape[1], zero=zero).cpu().double().numpy()
        return p, np.asarray(shares / shares.sum())
    value = prior.item() if isinstance(prior, torch.Tensor) and prior.dim() == 0 else prior
    if np.ndim(value) != 0:
        hint = "Probabilities (N,) are those of a yes; pass (N, C) for class shares."
        refuse(name, argument, "a number, the share of positives", describe(prior), hint, error=TypeError)
    share = number(name, argument, value, 0.0, 1.0)
    if share in (0.0, 1.0) and not zero:
        refuse(name, argument, "strictly between 0 and 1", repr(value))
    return np.stack([1.0 - p, p], axis=1), np.array([1.0 - share, share])


UNLIKELY = 4.0
"""Standard errors that chance alone does not explain: once in 16,000 times."""


def _check_vanished(name: str, ratio: np.ndarray, shares: np.ndarray) -> None:
    """At a share of 0 the ratio may have a mean below 1, but not by more than chance if p is calibrated."""
    relative = ratio / (ratio @ shares)[:, None]
    mean = relative.mean(axis=0)
    error = relative.std(axis=0) / np.sqrt(len(ratio))
    gone = np.flatnonzero((shares * len(ratio) < 0.5) & (mean < 1.0 - UNLIKELY * error - 1e-6))
    if gone.size:
        _warn(name, f"class {int(gone[0])} is left no share, and calibrated probabilities would leave it one")


def _check_calibration(name: str, held_out: Any, classes: int) -> None:
    """Mean against share, and squared error against what p itself expects, one class against the rest."""
    if not isinstance(held_out, tuple | list) or len(held_out) != 2:
        refuse(name, "held_out", "a pair (probs, labels)", held_out, error=TypeError)
    p = probabilities(name, "held_out", held_out[0])
    if p.ndim == 1:
        p, y = np.stack([1.0 - p, p], axis=1), binary_labels(name, held_out[1], p.shape)
    else:
        y = class_labels(name, held_out[1], len(p), p.shape[1])
    if p.shape[1] != classes:
        refuse(name, "held_out", f"of {classes} classes, as 'probs'", f"{p.shape[1]} classes")
    for c in range(classes):
        q, hit = p[:, c], y == c
        spread = q * (1.0 - q)
        for excess, variance, what in (
            ((q - hit).sum(), spread.sum(), f"say {q.mean():.3g} of class {c} on average, and {hit.mean():.3g} are"),
            (
                ((hit - q) * (1.0 - 2.0 * q)).sum(),
                (spread * (1.0 - 2.0 * q) ** 2).sum(),
                f"have a Brier score of {((hit - q) ** 2).mean():.3g} for class {c}, and expect {spread.mean():.3g}",
            ),
        ):
            if abs(excess) > UNLIKELY * np.sqrt(variance) + 1e-9 * len(p):
                _warn(name, f"on the held-out rows they {what}")
                return


def _warn(name: str, found: str) -> None:
    hint = "The estimate takes them at their word: take the posterior of the loss, or calibrate, first"
    warnings.warn(f"{name}: 'probs' look uncalibrated: {found}. {hint}.", UserWarning, stacklevel=4)
