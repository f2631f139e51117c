"""The decision that costs least, from probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from steelyard._errors import refuse
from steelyard.posterior._values import as_given, probabilities, real

__all__ = ["bayes_decision", "cost_matrix"]


def bayes_decision(probs: Any, cost: Any) -> Any:
    r"""The decision of least expected cost for each row.

    With honest probabilities imbalance needs no remedy: a miss that costs 50 times a false alarm moves the cut-off to
    1 in 51, and nothing has to be trained again when the costs change.

    Equals ``(probs @ cost).argmin(1)``.

    Args:
        probs: Probabilities of classes ``(N, C)``, rows adding up to one, or of a yes ``(N,)``.
        cost: ``cost[c, d]``: what decision d costs where class c is true, finite, ``(C, D)``; ``(2, D)`` for ``(N,)``.
            There may be more decisions than classes: "ask somebody" is one. Negative costs are gains.

    Returns: Decisions in ``[0, D)``, int64, ``(N,)``; of equal costs the first.

    Raises: TypeError, ValueError: dtypes, shapes; values outside [0, 1].

    Example:
        >>> alarm = [[0.0, 1.0], [50.0, 0.0]]  # a false alarm costs 1, a miss 50
        >>> bayes_decision(torch.tensor([0.01, 0.03, 0.9]), alarm)
        tensor([0, 1, 1])
        >>> bayes_decision([[0.6, 0.4]], [[0.0, 1.0, 0.1], [50.0, 0.0, 0.1]]).tolist()  # the third: ask somebody
        [2]

    Source: Elkan, IJCAI 2001, eq. 1; the cut-off for two classes is his eq. 2.
    """
    p = probabilities("bayes_decision", "probs", probs)
    columns = np.stack([1.0 - p, p], axis=1) if p.ndim == 1 else p
    costs = cost_matrix("bayes_decision", cost, columns.shape[1])
    return as_given(probs, (columns @ costs).argmin(axis=1))


def cost_matrix(name: str, cost: Any, classes: int, *, square: bool = False) -> np.ndarray:
    """Costs, float64, ``(C, D)``."""
    shape = f"({classes}, {classes if square else 'D'})"
    costs = real(name, "cost", cost, f"numbers of shape {shape}: cost[true class, decision]")
    fits = costs.ndim == 2 and costs.shape[0] == classes and costs.shape[1] > 0
    if not fits or (square and costs.shape[1] != classes):
        refuse(name, "cost", f"of shape {shape}, cost[true class, decision]", f"shape {costs.shape}")
    return costs
