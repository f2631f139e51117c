"""Whether a contender is right, before anybody asks how fast it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.contenders import IN_PLACE, OURS, Contender

__all__ = ["Errors", "Truth", "errors", "floor_is_right", "tolerance", "truth"]

# Relative. What torch.compile reaches, with room: in float32 it adds a million rows up in one running sum and is 3e-5
# off; in bfloat16 PyTorch's lines round in between and are up to 8e-3 off. Ours has to be closer.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
OUR_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3}


def tolerance(contender: str, dtype: torch.dtype) -> float:
    """How wrong a contender may be and still be timed."""
    return (OUR_TOLERANCE if contender in (OURS, IN_PLACE) else TOLERANCE)[dtype]


@dataclass(frozen=True)
class Truth:
    """Loss and gradient of a case, computed in float64 with PyTorch's line."""

    loss: float
    gradient: Tensor


@dataclass(frozen=True)
class Errors:
    """Distances from the truth, each relative; NaN where the contender gave NaN."""

    loss: float
    gradient_largest: float
    """Largest error of an element, over the largest element."""
    gradient_total: float
    """Σ|error| over Σ|gradient|: small elements, wrong together, show here."""

    def within(self, tolerance: float) -> bool:
        """Whether all are at most ``tolerance``; NaN is not."""
        return all(e <= tolerance for e in (self.loss, self.gradient_largest, self.gradient_total))


def truth(case: Case, logits: Tensor, rest: tuple[Tensor, ...]) -> Truth:
    """What the contenders of a case have to give."""
    exact = tuple(t.double() if t.is_floating_point() else t for t in rest)
    loss, gradient = _loss_and_gradient(case.definition.line, logits.double(), exact)
    return Truth(float(loss), gradient)


def errors(contender: Contender, logits: Tensor, rest: tuple[Tensor, ...], known: Truth) -> Errors:
    """How far a contender is from the truth. A gradient of another shape or dtype is infinitely far."""
    loss, gradient = _loss_and_gradient(contender.run, logits, rest)
    if gradient.shape != logits.shape or gradient.dtype != logits.dtype or loss.dim():
        return Errors(math.inf, math.inf, math.inf)
    difference = gradient.double().sub_(known.gradient).abs_()
    return Errors(
        abs(float(loss) - known.loss) / abs(known.loss),
        float(difference.max() / known.gradient.abs().max()),
        float(difference.sum() / known.gradient.abs().sum()),
    )


def floor_is_right(contender: Contender, case: Case, logits: Tensor, rest: tuple[Tensor, ...]) -> bool:
    """Whether a floor did move every byte that it is said to move."""
    expected = logits + rest[0] if case.definition.dense_target else logits
    return torch.equal(contender.run(logits, *rest), expected)


def _loss_and_gradient(line: Callable[..., Tensor], logits: Tensor, rest: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().requires_grad_()
    # Not a leaf, as in a network, and a copy: a contender may write into it.
    loss = line(leaf.clone(), *rest)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad
