"""Two explanations side by side: why the numbers are equal, or what makes them differ."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steelyard.explain._explanation import Explanation
from steelyard.explain._reasons_division import close
from steelyard.explain._settings import Call
from steelyard.explain._words import html_table, json_number, number, plural, text_table
from steelyard.ops import class_dim

__all__ = ["Difference", "difference"]

LARGEST = 2**22
"""Batches of more numbers are not sorted to be compared."""

ROUNDING = 1e-6
"""Relative difference below which two rows, or two results, count as equal."""


@dataclass(frozen=True)
class Difference:
    """What two calls have in common and where they part; prints as text.

    Attributes:
        before: The first explanation.
        after: The second.
        reasons: Why the numbers are equal or differ, the most telling first.
    """

    before: Explanation
    after: Explanation
    reasons: list[str]

    @property
    def same_value(self) -> bool:
        """Whether both calls gave the same number."""
        return _equal(self.before.value, self.after.value)

    @property
    def headline(self) -> str:
        """Both numbers."""
        one, two = self.before, self.after
        if math.isnan(one.value) and math.isnan(two.value) and one.reduction == "none":
            return f"{one.name} and {two.name}, not reduced"
        names = "" if one.name == two.name else f" ({one.name} and {two.name})"
        verdict = "the same" if self.same_value else "different"
        return f"{number(one.value)} and {number(two.value)}{names}: {verdict}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        lines = [
            ("value", [e.value for e in (self.before, self.after)]),
            ("sum of contributions", [e.numerator for e in (self.before, self.after)]),
            ("denominator", [e.denominator for e in (self.before, self.after)]),
            ("mean loss without weights", [e.unweighted for e in (self.before, self.after)]),
            ("rows or elements kept", [float(e.kept) for e in (self.before, self.after)]),
            ("effective sample size", [e.effective_sample_size for e in (self.before, self.after)]),
        ]
        return ["", "first", "second"], [[name, *(number(v) for v in values)] for name, values in lines]

    def __str__(self) -> str:
        return "\n".join([self.headline, *self.reasons, "", *text_table(*self._table())])

    def __repr__(self) -> str:
        return f"<Difference: {self.headline}>"

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.reasons)
        return f"<p><b>{html.escape(self.headline)}</b></p><ul>{said}</ul>" + html_table(*self._table())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        sides = {
            name: {
                "loss": side.name,
                "value": json_number(side.value),
                "numerator": json_number(side.numerator),
                "denominator": json_number(side.denominator),
                "rows_kept": side.kept,
            }
            for name, side in (("first", self.before), ("second", self.after))
        }
        return {"same_value": self.same_value, **sides, "reasons": self.reasons}


def _equal(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == b or close(a, b, ROUNDING)


def difference(before: Explanation, after: Explanation) -> Difference:
    """See :meth:`steelyard.explain.Explanation.compare`."""
    said = [text for text in (_same_rows(before, after), _by_sigmoid(before, after), *_parts(before, after)) if text]
    return Difference(before, after, said)


def _same_rows(before: Explanation, after: Explanation) -> str | None:
    """The same rows, in the same or in another order."""
    one, two = before.rows, after.rows
    if len(one.loss) != len(two.loss) or not len(one.loss):
        return None
    noun, count = before.noun, plural(len(one.loss), before.noun)
    alike = _same_elements(before, after)
    same_loss, same_cost = (_alike(a, b) for a, b in ((one.loss, two.loss), (one.contribution, two.contribution)))
    if same_loss and same_cost:
        if before.name != after.name:
            return f"Both losses cost each of the {count} the same."
        if alike:
            return f"Both batches hold the same {count} with the same weights."
        return f"One by one the {count} of both batches cost the same, with and without weights."
    first, second = _sorted(one.contribution), _sorted(two.contribution)
    if not _alike(first, second) or not _alike(_sorted(one.loss), _sorted(two.loss)):
        return None
    moved = int((~torch.isclose(one.contribution, two.contribution, rtol=ROUNDING, atol=0.0)).nonzero()[0])
    there = int((two.contribution - one.contribution[moved]).abs().argmin())
    end = f", and a {before.reduction} does not look at order." if before.reduction != "none" else "."
    places = f"({noun} {before.place(moved)} here is {noun} {after.place(there)} there)"
    if alike:
        return f"Both batches hold the same {count} in another order {places}{end}"
    return f"The {count} of both batches cost the same, in another order {places.replace(' is ', ' costs as ')}{end}"


def _same_elements(before: Explanation, after: Explanation) -> bool:
    """Whether both batches consist of the same inputs and targets, in whatever order, that cost the same.

    Of large batches that is taken on trust: they are not sorted.
    """
    one, two = _vectors(before.call), _vectors(after.call)
    if one.shape != two.shape:
        return False
    if one.size > LARGEST:
        return True
    first, second = np.lexsort(one.T), np.lexsort(two.T)
    if not np.array_equal(one[first], two[second], equal_nan=True):
        return False
    return _alike(before.rows.contribution[torch.from_numpy(first)], after.rows.contribution[torch.from_numpy(second)])


def _vectors(call: Call) -> np.ndarray:
    """Input and target of each row (each element), side by side."""
    input, target = call.input.double().cpu(), call.target.double().cpu()
    if not call.settings.exclusive:
        return torch.stack([input.reshape(-1), target.reshape(-1)], 1).numpy()
    dim = class_dim(input)
    parts = [input.movedim(dim, -1).reshape(-1, input.shape[dim])]
    parts.append(target.reshape(-1, 1) if call.indices else target.movedim(dim, -1).reshape(-1, input.shape[dim]))
    return torch.cat(parts, 1).numpy()


def _by_sigmoid(before: Explanation, after: Explanation) -> str | None:
    """Logits on one side, their sigmoid on the other."""
    kinds = {e.call.settings.entry.input: e for e in (before, after)}
    if set(kinds) != {"logits", "probabilities"}:
        return None
    logits, probabilities = kinds["logits"], kinds["probabilities"]
    if logits.call.settings.exclusive or logits.call.input.shape != probabilities.call.input.shape:
        return None
    made = logits.call.input.double().sigmoid().cpu()
    if not torch.allclose(made, probabilities.call.input.double().cpu(), rtol=0.0, atol=1e-3):
        return None
    return f"The input of {probabilities.name} is the sigmoid of the other's, which {logits.name} takes itself."


def _parts(before: Explanation, after: Explanation) -> list[str]:
    """Where the two calls part: losses of the rows, weights, denominator."""
    one, two, said = before.rows, after.rows, []
    equal = _equal(before.value, after.value)
    aligned = len(one.loss) == len(two.loss)
    if aligned and _alike(one.loss, two.loss) and not _alike(one.weight, two.weight):
        ranges = _range(one.weight), _range(two.weight)
        differ = f"differ ({ranges[0]} and {ranges[1]})" if ranges[0] != ranges[1] else "fall on other rows"
        weights = f"The rows cost the same before weights; these {differ}"
        if not equal:
            said.append(weights + ".")
        elif not _equal(before.denominator, after.denominator):
            said.append(
                f"{weights}, and the mean divides them out again: {number(before.denominator)} and "
                f"{number(after.denominator)}."
            )
        elif not _alike(_sorted(one.loss * one.weight), _sorted(two.loss * two.weight)):
            said.append(f"{weights}, and yet what they make of the rows adds up to the same.")
    elif aligned and not _alike(_sorted(one.loss), _sorted(two.loss)) and before.kept:
        said.append(
            f"The rows themselves cost differently: {number(before.unweighted)} and {number(after.unweighted)} on "
            "average, before any weight."
        )
    elif not aligned:
        nouns = (plural(len(one.loss), before.noun), plural(len(two.loss), after.noun))
        said.append(f"The first has {nouns[0]}, the second {nouns[1]}.")
    if not equal and not _equal(before.denominator, after.denominator):
        sums = "the same sum" if _equal(before.numerator, after.numerator) else "the sums"
        said.append(
            f"The first divides {sums} by {number(before.denominator)} ({before.denominator_name}), the second by "
            f"{number(after.denominator)} ({after.denominator_name})."
        )
    if equal and not said and not _alike(_sorted(one.contribution), _sorted(two.contribution)):
        said.append("Nothing but the result is the same: different rows happen to come out at one number.")
    return said


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=ROUNDING, atol=1e-12, equal_nan=True)


def _sorted(values: Tensor) -> Tensor:
    return values.sort().values


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return number(low) if low == high else f"{number(low)} to {number(high)}"
