"""The answer of :func:`steelyard.explain`: the numbers of one call of a loss, and why they are what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard.explain import _show
from steelyard.explain._rows import IGNORED, Rows
from steelyard.explain._settings import WEIGHTS, Call
from steelyard.explain._words import json_number, number, plural, summed

if TYPE_CHECKING:
    from steelyard.explain._difference import Difference

__all__ = ["ClassShare", "Explanation"]

SHOWN = 10
"""Rows and classes that a table shows; of more, those that contribute most."""

SPELT_OUT = 4
"""Sums of at most so many terms are written out."""


@dataclass(frozen=True)
class ClassShare:
    """What the rows of one class add to the loss: sums over them, and shares of the whole."""

    label: str
    rows: int
    loss: float
    weight: float
    contribution: float
    share: float
    gradient_share: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        numbers = {name: json_number(value) for name, value in vars(self).items() if isinstance(value, float)}
        return {"label": self.label, "rows": self.rows, **numbers}


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one call of a loss did: printed as text, in a notebook as a table, ``to_dict()`` for programs.

    Attributes:
        call: The loss, its batch and every argument.
        rows: Loss, weight, contribution and gradient of each row (each element, for a sigmoid loss), float64.
        value: What the loss itself gave: a number, NaN for ``reduction="none"``.
        pytorch: What PyTorch's own loss gives for the same logits, targets and weights with its default mean.
        pytorch_name: Which one that is.
    """

    call: Call
    rows: Rows
    value: float
    pytorch: float
    pytorch_name: str

    # ------------------------------------------------------------------------------------------------------ one number

    @property
    def name(self) -> str:
        """The loss as its user calls it."""
        return self.call.settings.name

    @property
    def noun(self) -> str:
        """What is counted: rows with one class each, or elements."""
        return "row" if self.call.settings.exclusive else "element"

    @property
    def reduction(self) -> str:
        """``"mean"``, ``"sum"`` or ``"none"``."""
        return str(self.call.options["reduction"])

    @cached_property
    def kept(self) -> int:
        """Rows that are not ignored."""
        return int(self.rows.kept.sum())

    @cached_property
    def numerator(self) -> float:
        """The contributions added up."""
        return math.fsum(self.rows.contribution.tolist()) if self._few else float(self.rows.contribution.sum())

    @property
    def rule(self) -> str:
        """The name of the denominator: ``"torch"``, ``"weights"``, ``"samples"``, ``"given"``; ``"none"`` without."""
        if self.reduction != "mean":
            return "none"
        divisor = self.call.options["denominator"]
        return divisor if isinstance(divisor, str) else "given"

    @cached_property
    def denominator(self) -> float:
        """What the sum is divided by; 1 where it is not."""
        if self.rule in self.rows.denominators:
            return self.rows.denominators[self.rule]
        return float(self.call.options["denominator"]) if self.rule == "given" else 1.0

    @property
    def weighted(self) -> bool:
        """Whether any weight was given."""
        return any(self.call.options.get(name) is not None for name in WEIGHTS)

    @property
    def alternatives(self) -> dict[str, float]:
        """The same sum divided by each rule, and not divided."""
        divided = {rule: _ratio(self.numerator, divisor) for rule, divisor in self.rows.denominators.items()}
        return {**divided, "sum": self.numerator}

    @property
    def unweighted(self) -> float:
        """The mean of the rows' own losses, without any weight."""
        return _ratio(float(self.rows.loss.sum()), float(self.kept))

    # --------------------------------------------------------------------------------------------------------- shares

    @cached_property
    def share(self) -> Tensor:
        """What each row adds to the total, as a share of it, ``(rows,)``."""
        return _shares(self.rows.contribution)

    @cached_property
    def gradient_share(self) -> Tensor:
        """The size of each row's gradient (L1 norm) as a share of all of them, ``(rows,)``."""
        return _shares(self.rows.pull)

    @cached_property
    def effective_sample_size(self) -> float:
        """Kish's ``(Σ w)² / Σ w²``: so many rows of equal weight would average as noisily."""
        square = float(self.rows.weight.square().sum())
        return float(self.rows.weight.sum()) ** 2 / square if square else 0.0

    @cached_property
    def half_of_gradient(self) -> int:
        """How many rows, the strongest first, carry half of the gradient."""
        pull = self.rows.pull.sort(descending=True).values.cumsum(0)
        if not len(pull) or not bool(pull[-1].isfinite()) or float(pull[-1]) == 0.0:
            return 0
        return int((pull < 0.5 * pull[-1]).sum()) + 1

    @cached_property
    def classes(self) -> list[ClassShare]:
        """By class, in the order of the classes; of sigmoid losses by answer, and by column where there are several."""
        rows, kept = self.rows, self.rows.kept
        group, found = rows.group[kept], []
        size = int(group.max()) + 1 if len(group) else 0
        counts = torch.bincount(group, minlength=size)

        def total(values: Tensor) -> Tensor:
            return torch.zeros(size, dtype=torch.float64).index_add_(0, group, values[kept])

        sums = [total(v) for v in (rows.loss, rows.weight, rows.contribution, self.share, self.gradient_share)]
        for label in counts.nonzero().flatten().tolist():
            found.append(ClassShare(self.label(label), int(counts[label]), *(float(s[label]) for s in sums)))
        return found

    def label(self, group: int) -> str:
        """The class or answer that a group of rows has."""
        if group == IGNORED:
            return "ignored"
        if self.call.settings.exclusive:
            return str(group)
        answer = ("no", "yes")[group % 2]
        columns = self.call.input.dim() == 2 and self.call.input.shape[1] > 1
        return f"{group // 2}: {answer}" if columns else answer

    # ----------------------------------------------------------------------------------------------------------- words

    @property
    def headline(self) -> str:
        """The number as a sum and its denominator."""
        if self.reduction == "none":
            return f"{self.name} = {plural(len(self.rows.loss), 'loss')}, not reduced; they add up to " + number(
                self.numerator
            )
        kept = self.rows.contribution[self.rows.kept].tolist() if self._few else []
        terms = summed(kept) if len(kept) > 1 else number(self.numerator)
        if self.reduction == "sum":
            return f"{self.name} = {number(self.value)}" + (f" = {terms}" if len(kept) > 1 else "")
        terms = f"({terms})" if len(kept) > 1 else terms
        return f"{self.name} = {number(self.value)} = {terms} / {number(self.denominator)}, {self.denominator_name}"

    @property
    def denominator_name(self) -> str:
        """The denominator in words."""
        weights = "the weights of the targets added up"
        count = f"the number of {self.noun}s" + (" kept" if self.kept < len(self.rows.loss) else "")
        if self.rule == "given":
            return "the denominator given"
        if self.rule == "weights":
            return weights if self.call.indices else "all weights added up"
        if self.rule == "torch" and self.weighted and self.call.indices:
            return weights
        if self.rule == "torch" and self.call.options.get("sample_weight") is not None:
            return "the row weights added up"
        return count if self.rule != "none" else "no denominator"

    @cached_property
    def reasons(self) -> list[str]:
        """Why the number is what it is, the most telling reason first."""
        from steelyard.explain._reasons import reasons

        return reasons(self)

    @property
    def effective(self) -> str:
        """Effective sample size and concentration in a sentence."""
        said = (
            f"Effective sample size {number(round(self.effective_sample_size, 1))} of {plural(self.kept, self.noun)} "
            "(Kish, from the weights)"
        )
        if self.half_of_gradient and self.kept > 1:
            said += f"; half of the gradient comes from {plural(self.half_of_gradient, self.noun)}"
        return said + "."

    @property
    def _few(self) -> bool:
        return len(self.rows.loss) <= SPELT_OUT

    def place(self, row: int) -> str:
        """A row's position as a tensor would be indexed: ``3``, or ``(0, 2, 5)``."""
        if len(self.rows.shape) < 2:
            return str(row)
        return "(" + ", ".join(str(int(i)) for i in np.unravel_index(row, self.rows.shape)) + ")"

    def top(self, count: int = SHOWN) -> list[int]:
        """Positions of the rows to show: all in their order, or those that contribute most."""
        if len(self.rows.loss) <= count:
            return list(range(len(self.rows.loss)))
        size = self.rows.contribution.abs().nan_to_num(nan=math.inf)
        return [int(i) for i in size.topk(count).indices.tolist()]

    def tables(self, count: int = SHOWN) -> list[_show.Captioned]:
        """Captions, heads and cells of the two tables, by class and by row."""
        return _show.tables(self, count)

    def __str__(self) -> str:
        return _show.text(self)

    def __repr__(self) -> str:
        return f"<Explanation: {self.headline}>"

    def __rich__(self) -> Any:
        """The same for Rich, which asks for it: tables with their heads in bold."""
        return _show.rich(self)

    def _repr_html_(self) -> str:
        return _show.html(self)

    def to_dict(self, rows: int = SHOWN) -> dict[str, Any]:
        """Plain values, ready for JSON; NaN and infinities as words.

        Args:
            rows: How many rows to list: all in their order if there are no more, else those that contribute most.
        """
        if isinstance(rows, bool) or not isinstance(rows, int):
            refuse("Explanation.to_dict", "rows", "a whole number ≥ 0", describe(rows), error=TypeError)
        if rows < 0:
            refuse("Explanation.to_dict", "rows", "a whole number ≥ 0", repr(rows))
        columns = {
            "loss": self.rows.loss, "weight": self.rows.weight, "contribution": self.rows.contribution,
            "share": self.share, "gradient_share": self.gradient_share,
        }  # fmt: skip
        listed = [
            {
                "row": [int(i) for i in np.unravel_index(at, self.rows.shape)] if self.rows.shape else [],
                "class": self.label(int(self.rows.group[at])),
                **{name: json_number(float(values[at])) for name, values in columns.items()},
            }
            for at in self.top(rows)
        ]
        return {
            "loss": self.name,
            "function": self.call.settings.entry.name,
            "reduction": self.reduction,
            "value": json_number(self.value),
            "numerator": json_number(self.numerator),
            "denominator": {
                "rule": self.rule, "name": self.denominator_name, "value": json_number(self.denominator)
            },
            "alternatives": {name: json_number(value) for name, value in self.alternatives.items()},
            "unweighted_mean": json_number(self.unweighted),
            "pytorch": {"name": self.pytorch_name, "mean": json_number(self.pytorch)},
            "rows": len(self.rows.loss),
            "rows_kept": self.kept,
            "effective_sample_size": json_number(self.effective_sample_size),
            "rows_with_half_of_the_gradient": self.half_of_gradient,
            "reasons": self.reasons,
            "classes": [share.to_dict() for share in self.classes],
            "listed_rows": listed,
        }  # fmt: skip

    def compare(self, other: Explanation) -> Difference:
        """Why this number and another one are equal, or differ.

        Args:
            other: Another explanation: of another batch, of other weights, or of another loss.

        Returns:
            A :class:`Difference`: prints as text; ``reasons``, ``to_dict()``.

        Raises:
            TypeError: ``other`` is no explanation.

        Example:
            >>> loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(5.0))
            >>> one = explain(loss, torch.tensor([0.5, 1.5]), torch.tensor([1.0, 0.0]))
            >>> two = explain(loss, torch.tensor([1.5, 0.5]), torch.tensor([0.0, 1.0]))
            >>> print(one.compare(two).reasons[0])
            Both batches hold the same 2 elements in another order (element 0 here is element 1 there), and a mean does
            not look at order.
        """
        from steelyard.explain._difference import difference

        if not isinstance(other, Explanation):
            refuse("Explanation.compare", "other", "an Explanation", describe(other), error=TypeError)
        return difference(self, other)


def _ratio(numerator: float, denominator: float) -> float:
    """A quotient as tensors have it."""
    return float(torch.tensor(numerator, dtype=torch.float64) / torch.tensor(denominator, dtype=torch.float64))


def _shares(values: Tensor) -> Tensor:
    total = values.sum()
    return values / total if float(total) != 0.0 else torch.zeros_like(values)
