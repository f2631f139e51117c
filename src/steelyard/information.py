"""Information in nats: how surprising an outcome is, how uncertain a distribution, how far one is from another.

Cross entropy, the loss, is the last of the four: ``cross_entropy(p, q) = entropy(p) + kl_divergence(p, q)``. Training
moves ``q`` and so lowers the divergence; the entropy of the labels is a floor that no model gets below.

Conventions of all functions here: ``0 · log 0 = 0``; distributions lie along ``dim`` and are taken as they are, without
a check that they sum to one; fp16/bf16 are computed in fp32 and rounded once. Values outside [0, 1] are refused where
that can be seen: on the CPU, and not while ``torch.compile`` or ``torch.func`` trace.

Derivatives of any order are exact for probabilities above zero. At zero, ``−p log p`` has an infinite slope, which
would turn the gradient of ``entropy(softmax(z))`` into NaN as soon as one probability underflows; there the slope of
``p log p`` is given as 0, which is its part in the true derivative by ``z``. Other terms keep the slope they have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import readable

__all__ = ["cross_entropy", "entropy", "kl_divergence", "self_information"]


def self_information(p: Tensor) -> Tensor:
    r"""How surprising outcomes of these probabilities are.

    The loss of a single prediction: ``−log`` of the probability that the model gave to what then happened.

    Equals ``-p.log()``.

    Args:
        p: Probabilities, float, in [0, 1], any shape.

    Returns: Nats, at least 0, infinite where ``p`` is 0; shape and dtype of ``p``.

    Raises: TypeError: not a float tensor. ValueError: a value outside [0, 1].

    Example:
        >>> self_information(torch.tensor([1.0, 0.5, 0.0]))
        tensor([0.0000, 0.6931,    inf])

    Source: Shannon, "A Mathematical Theory of Communication", 1948, §6.
    """
    _check_probabilities("self_information", "p", p)
    return (0.0 - _wide(p).log()).to(p.dtype)  # 0 − log 1 is 0; −log 1 would be −0


def entropy(p: Tensor, dim: int = -1) -> Tensor:
    r"""How uncertain a distribution is: the mean surprise of its own outcomes.

    It is 0 for a certain outcome and ``log C`` for ``C`` equally likely ones.

    Equals ``-(p * p.log()).sum(dim)``, with 0 where ``p`` is 0: H(P) = −Σ p log p.

    Args:
        p: Probabilities, float, in [0, 1], at least one dimension.
        dim: The dimension that the distribution lies along.

    Returns: Nats, in the dtype of ``p``, without the dimension ``dim``.

    Raises: TypeError: not a float tensor, ``dim`` not an int. ValueError: a value outside [0, 1], no dimension.
        IndexError: no such ``dim``.

    Example:
        >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])

    Source: Shannon 1948, §6.
    """
    _check_probabilities("entropy", "p", p)
    _check_dim("entropy", p, dim)
    wide = _wide(p)
    return (-wide * _log_where_used(wide, wide)).sum(dim).to(p.dtype)


def kl_divergence(p: Tensor, q: Tensor, dim: int = -1) -> Tensor:
    r"""How many nats are lost by believing ``q`` where ``p`` is true: the relative entropy D_KL(P, Q).

    It is 0 only if the two agree, and is not symmetric.

    Equals ``(p * (p / q).log()).sum(dim)``, with 0 where ``p`` is 0: D_KL(P, Q) = Σ p log(p / q).

    Args:
        p: The true probabilities, float, in [0, 1], at least one dimension.
        q: The believed probabilities, float, in [0, 1], of the same shape; nothing is broadcast.
        dim: The dimension that the distributions lie along.

    Returns: Nats, infinite where ``q`` is 0 and ``p`` is not; in the wider dtype of the two, without ``dim``.

    Raises: TypeError: not float tensors, ``dim`` not an int. ValueError: a value outside [0, 1], different shapes or
        devices, no dimension. IndexError: no such ``dim``.

    Example:
        >>> kl_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))
        tensor(0.6931)

    Source: Kullback and Leibler, "On Information and Sufficiency", 1951, eq. 2.4.
    """
    _check_pair("kl_divergence", p, q, dim)
    dtype = torch.promote_types(p.dtype, q.dtype)
    p, q = _wide(p.to(dtype)), _wide(q.to(dtype))
    return (p * (_log_where_used(p, p) - _log_where_used(q, p))).sum(dim).to(dtype)


def cross_entropy(p: Tensor, q: Tensor, dim: int = -1) -> Tensor:
    r"""The mean surprise of somebody who believes ``q`` where ``p`` is true.

    The loss of a classifier, for probabilities; from logits, take :func:`steelyard.functional.cross_entropy`.

    Equals ``-(p * q.log()).sum(dim)``, with 0 where ``p`` is 0: H(P, Q) = −Σ p log q = H(P) + D_KL(P, Q).

    Args:
        p: The true probabilities, float, in [0, 1], at least one dimension.
        q: The believed probabilities, float, in [0, 1], of the same shape; nothing is broadcast.
        dim: The dimension that the distributions lie along.

    Returns: Nats, infinite where ``q`` is 0 and ``p`` is not; in the wider dtype of the two, without ``dim``.

    Raises: TypeError: not float tensors, ``dim`` not an int. ValueError: a value outside [0, 1], different shapes or
        devices, no dimension. IndexError: no such ``dim``.

    Example:
        >>> cross_entropy(torch.tensor([1.0, 0.0]), torch.tensor([0.8, 0.2]))
        tensor(0.2231)

    Source: Good, "Some Terminology and Notation in Information Theory", 1956.
    """
    _check_pair("cross_entropy", p, q, dim)
    dtype = torch.promote_types(p.dtype, q.dtype)
    p, q = _wide(p.to(dtype)), _wide(q.to(dtype))
    return (-p * _log_where_used(q, p)).sum(dim).to(dtype)


def _wide(p: Tensor) -> Tensor:
    return p.float() if p.dtype in (torch.float16, torch.bfloat16) else p


def _log_where_used(q: Tensor, p: Tensor) -> Tensor:
    """``log q``, and 0 where both are 0, so that ``p · log q`` and its derivatives are 0 there and not 0 · ∞."""
    return torch.where((p == 0) & (q == 0), torch.ones_like(q), q).log()


def _check_probabilities(function: str, argument: str, p: Tensor) -> None:
    rule = "a float tensor of probabilities"
    if not isinstance(p, Tensor) or not p.is_floating_point():
        refuse(function, argument, rule, p, error=TypeError)
    if readable(p):
        outside = ~((p >= 0) & (p <= 1))  # NaN is outside
        if outside.any():
            where = tuple(outside.nonzero()[0].tolist())
            hint = "These look like logits: take their softmax first." if bool((p.detach() < 0).any()) else ""
            refuse(function, argument, "probabilities in [0, 1]", f"{p[where].item()} at position {where}", hint)


def _check_dim(function: str, p: Tensor, dim: int) -> None:
    if p.ndim == 0:
        refuse(function, "p", "a distribution, of at least one dimension", p)
    if isinstance(dim, bool) or not isinstance(dim, int):
        refuse(function, "dim", "an int", dim, error=TypeError)
    if not -p.ndim <= dim < p.ndim:
        refuse(function, "dim", f"in [{-p.ndim}, {p.ndim - 1}]", dim, error=IndexError)


def _check_pair(function: str, p: Tensor, q: Tensor, dim: int) -> None:
    _check_probabilities(function, "p", p)
    _check_probabilities(function, "q", q)
    if p.shape != q.shape:
        hint = "Expand one of them; nothing is broadcast here."
        refuse(function, "q", f"of the shape of 'p', {tuple(p.shape)}", q, hint)
    if p.device != q.device:
        refuse(function, "q", f"on the device of 'p', {p.device}", f"a tensor on {q.device}")
    _check_dim(function, p, dim)
