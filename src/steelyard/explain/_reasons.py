"""Why a loss is the number that it is: one small function for each reason, the most telling first.

Each looks at an :class:`~steelyard.explain.Explanation` and gives its sentence, or None where it does not apply. They
are written for somebody who knows the symptom only, so a sentence begins with what is the case, in numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from steelyard.explain import _reasons_division as division
from steelyard.explain import _reasons_input as given

if TYPE_CHECKING:
    from steelyard.explain._explanation import Explanation

__all__ = ["REASONS", "reasons"]

Reason = Callable[["Explanation"], str | None]

REASONS: tuple[Reason, ...] = (
    division.nothing_left,
    given.not_finite,
    given.takes_log_probabilities,
    given.takes_logits,
    division.one_row,
    division.equal_weights,
    division.divides_by_weights,
    division.divides_by_rows,
    given.pos_weight_on_the_last_axis,
    division.pos_weight,
    division.order,
    given.spread_targets,
    division.alike,
    division.given,
    division.not_a_mean,
    given.smoothed,
    given.sigmoid_inside,
    division.plain_mean,
    division.ignored,
    given.concentrated,
    given.rounded,
    division.beside_pytorch,
    division.without_weights,
)
"""In the order in which they are told."""


def reasons(found: Explanation) -> list[str]:
    """Every sentence that applies."""
    said = [reason(found) for reason in REASONS]
    return [text for text in said if text]
