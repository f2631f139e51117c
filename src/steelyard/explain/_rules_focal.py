"""Rules on focal losses of one's own, and on weights that are one number for all classes."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from steelyard.explain._rule import Said, rule
from steelyard.explain._rules_weights import UNEVEN
from steelyard.explain._setup import Setup, spread
from steelyard.explain._words import number


def _own(setup: Setup) -> tuple[float, Tensor] | None:
    """γ and α or weights of a focal loss that is neither ours nor PyTorch's, by the names that everybody gives them."""
    if setup.loss is None or setup.settings is not None:
        return None
    gamma = getattr(setup.loss, "gamma", None)
    found = (getattr(setup.loss, name, None) for name in ("alpha", "weight"))
    given: Any = next((value for value in found if value is not None), None)
    if isinstance(gamma, bool) or not isinstance(gamma, Real) or given is None or isinstance(given, bool | str):
        return None
    try:
        weights = torch.as_tensor(given).detach().cpu().double().reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        return None
    return float(gamma), weights


@rule(
    "SY110",
    "error",
    "Focal loss on the weighted loss",
    symptom="A focal loss with class weights learns the rare class worse than one without.",
    reason="Focusing needs the probability of the class, exp(−loss) of the *unweighted* loss. Taken from the weighted "
    "one it is p^w: rows of a heavy class look badly classified however good they are, of a light one easy.",
    fine="A weight outside the focusing: w·(1 − p)^γ·(−log p), as FocalLoss has it.",
    example="""
class Focal(torch.nn.Module):
    gamma, weight = 2.0, torch.tensor([1.0, 10.0])
    def forward(self, input, target):
        ce = torch.nn.functional.cross_entropy(input, target, self.weight, reduction="none")
        return ((1 - torch.exp(-ce)) ** self.gamma * ce).mean()

print(check(loss=Focal(), input=torch.tensor([[0.0, 2.0], [1.0, 0.0]]), target=torch.tensor([1, 0])))
""",
)
def focal_on_weighted(setup: Setup) -> Said:
    """A loss that behaves as (1 − p^w)^γ and not as (1 − p)^γ."""
    own, input, target = _own(setup), setup.input_values, setup.target_values
    if own is None or input is None or target is None or input.dim() != 2 or target.shape != input.shape[:1]:
        return None
    gamma, weights = own
    if target.is_floating_point() or spread(weights) <= UNEVEN or len(weights) != input.shape[1]:
        return None
    y = target.cpu().long()
    if not len(y) or bool(((y < 0) | (y >= len(weights))).any()):
        return None
    plain = cross_entropy(input.cpu().double(), y, reduction="none")
    w = weights[y]
    try:
        with torch.no_grad():
            found = torch.as_tensor(setup.loss(input, target)).detach().cpu().double()
    except (TypeError, ValueError, IndexError, RuntimeError):
        return None
    right, wrong = w * (1 - (-plain).exp()) ** gamma * plain, w * (1 - (-w * plain).exp()) ** gamma * plain
    if _matches(found, right, w) or not _matches(found, wrong, w):
        return None
    heavy = float(weights.max())
    return (
        f"The focusing looks at the weighted loss: a row of probability 0.9 and weight {number(heavy)} counts as one "
        f"of probability {number(0.9**heavy)}. Rows of this batch cost {number(float(wrong.mean()))} on average where "
        f"the formula gives {number(float(right.mean()))}.",
        "Take p from the unweighted loss and multiply by the weight afterwards; FocalLoss(weight, gamma) does.",
    )


def _matches(found: Tensor, rows: Tensor, weights: Tensor) -> bool:
    """Whether a loss is made of these rows, however reduced."""
    made = rows if found.shape == rows.shape and found.dim() else None
    if made is not None:
        return torch.allclose(found, made, rtol=1e-4, atol=1e-7)
    if found.dim():
        return False
    return any(
        torch.isclose(found, value, rtol=1e-4, atol=1e-7)
        for value in (rows.mean(), rows.sum(), rows.sum() / weights.sum())
    )


@rule(
    "SY111",
    "warning",
    "One weight for all classes",
    symptom="α of a focal loss, or a weight, changes nothing but the size of the loss.",
    reason="Of two classes α and 1 − α weigh one against the other. Over several classes a single α multiplies every "
    "row alike: the learning rate by another name.",
    fine="One weight for each class; α of a binary or sigmoid focal loss.",
    example="""
print(check(loss=nn.FocalLoss(weight=[0.25, 0.25, 0.25])))
""",
)
def scalar_alpha(setup: Setup) -> Said:
    """A weight without a difference."""
    own = _own(setup)
    if own is not None:
        classes = 0 if setup.input is None or setup.input.dim() < 2 else setup.input.shape[1]
        indices = setup.target is None or setup.target.dim() == (0 if setup.input is None else setup.input.dim() - 1)
        if len(own[1]) != 1 or classes < 3 or not indices:
            return None
        value, what = float(own[1][0]), f"α = {number(float(own[1][0]))} is one number for {classes} classes"
        return (
            f"{what}: it multiplies the loss of every row, and so the learning rate, by {number(value)}, and no class "
            "gains on another.",
            "Give one weight for each class: FocalLoss(weight=class_weights(counts, power=0.5)).",
        )
    w, n = setup.weight, setup.natural
    if not setup.exclusive or w is None or len(w) < 2 or bool((w <= 0).any()) or spread(w) >= UNEVEN:
        return None
    if abs(float(w[0]) - 1) < 1e-6 or (n is not None and bool((n > 0).all()) and spread(n) >= 2):
        return None  # all ones say nothing, and where the counts are known SY109 says more
    return (
        f"All {len(w)} weights are {number(float(w[0]))}: no class gains on another, and where the mean does not "
        f"divide by weights the learning rate is multiplied by {number(float(w[0]))}.",
        "Give rare classes more: class_weights(counts, power=0.5).",
    )
