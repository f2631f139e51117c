"""What somebody gives to :func:`steelyard.check`, read once, so that the rules can be short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard._values import integer, number, numbers
from steelyard.counts import ClassCounts, as_class_counts
from steelyard.counts._index import index_labels
from steelyard.explain._sampling import Sampling, sampling_of
from steelyard.explain._settings import Settings, settings_of
from steelyard.ops import class_dim

__all__ = ["Setup", "read_setup"]


@dataclass(frozen=True)
class Setup:
    """Everything that is known; what was not given is None.

    Attributes:
        loss: As given. settings: What it is set to, where it is ours or PyTorch's.
        input, target: A batch.
        counts: Of the training data.
        sampling: The sampler.
        labels: Class of each row, int64, positions in ``counts.classes``; or ``(N, C)`` of 0 and 1, float64.
        probabilities: float64, ``(N,)``, ``(N, 1)`` or ``(N, C)``.
        threshold: Cut-off on them.
        accumulation_steps, world_size: Micro-batches per step, and ranks.
    """

    loss: Any
    settings: Settings | None
    input: Tensor | None
    target: Tensor | None
    counts: ClassCounts | None
    sampling: Sampling | None
    labels: Tensor | None
    probabilities: Tensor | None
    threshold: float | None
    accumulation_steps: int
    world_size: int

    @property
    def input_values(self) -> Tensor | None:
        """The input, where it holds numbers: on the meta device there is nothing but a shape."""
        return None if self.input is None or self.input.is_meta else self.input

    @property
    def target_values(self) -> Tensor | None:
        """The target, where it holds numbers."""
        return None if self.target is None or self.target.is_meta else self.target

    @property
    def shards(self) -> int:
        """Pieces whose means are averaged for one step."""
        return self.accumulation_steps * self.world_size

    @property
    def exclusive(self) -> bool:
        """Whether the loss is known, and is one of classes that exclude one another."""
        return self.settings is not None and self.settings.exclusive

    @property
    def elementwise(self) -> bool:
        """Whether the loss is known, and is one of single elements."""
        return self.settings is not None and not self.settings.exclusive

    def option(self, name: str) -> Any:
        """An argument of the loss, None where it is not known."""
        return None if self.settings is None else self.settings.option(name)

    @cached_property
    def weight(self) -> Tensor | None:
        """The weight of each class in the loss, float64; of a loss over elements ``(1, pos_weight)``, a number."""
        if self.settings is None:
            return None
        if self.settings.exclusive:
            return _vector(self.option("weight"))
        if self.option("weight") is not None:
            return None
        positive, alpha = _flat(self.option("pos_weight")), self.option("alpha")
        if positive is None and alpha is None:
            return None
        if positive is not None and len(positive) != 1:
            return None
        p = 1.0 if positive is None else float(positive[0])
        return torch.tensor([1.0, p] if alpha is None else [1.0 - alpha, alpha * p], dtype=torch.float64)

    @cached_property
    def pos_weight(self) -> Tensor | None:
        """pos_weight as it was given, float64."""
        given = self.option("pos_weight") if self.elementwise else None
        return None if given is None else torch.as_tensor(given).detach().cpu().double()

    @cached_property
    def classes(self) -> int | None:
        """How many classes the softmax has: of the input, the loss, or the counts."""
        if self.exclusive and self.input is not None and self.option_input != "features":
            return self.input.shape[class_dim(self.input)]
        if self.exclusive and self.weight is not None:
            return len(self.weight)
        if self.exclusive and self.option("counts") is not None:
            return len(self.option("counts"))
        return self.counts.num_classes if self.counts is not None and not self.counts.is_multilabel else None

    @property
    def option_input(self) -> str:
        """What the loss takes: logits, features, ..."""
        return "" if self.settings is None else self.settings.entry.input

    def named(self, position: int) -> str:
        """A class as the counts call it, else by its number."""
        counts = self.counts
        if counts is None or counts.is_multilabel or not 0 <= position < counts.num_classes:
            return str(position)
        return repr(counts.classes[position])

    @cached_property
    def natural(self) -> Tensor | None:
        """Rows of each class as the data has them, float64, at least two classes.

        Of the labels, else of the counts, else of the labels that the sampler knows.
        """
        labels = self.labels
        if labels is None and self.counts is None and self.sampling is not None:
            labels = self.sampling.classes
        if labels is not None and labels.dim() == 1 and len(labels) and int(labels.min()) >= 0:
            least = max(2, self.classes or 0, 0 if self.counts is None else self.counts.num_classes)
            return torch.bincount(labels, minlength=least).double()
        if self.counts is not None and not self.counts.is_multilabel and self.counts.num_classes > 1:
            return self.counts.counts.double()
        if self.counts is not None and self.counts.num_classes == 1:
            return torch.stack([self.counts.negatives[0], self.counts.positives[0]]).double()
        return None

    @cached_property
    def drawn(self) -> Tensor | None:
        """The share of each class among the rows that the sampler draws."""
        if self.sampling is None:
            return None
        labels = self.labels if self.labels is not None and self.labels.dim() == 1 else None
        return self.sampling.shares(labels, 0 if self.natural is None else len(self.natural))

    @cached_property
    def leaning(self) -> Tensor | None:
        """How much more than its natural share the loss makes of each class, ``(C,)``: weights, and counts taken in."""
        found = self.weight
        if self.exclusive and self.option("counts") is not None and self.option("max_margin") is None:
            n = torch.as_tensor(self.option("counts")).detach().cpu().double()
            tau = self.option("tau")
            lean = (n / n.sum()).pow(-(1.0 if tau is None else float(tau)))
            found = lean if found is None else lean * found
        return found

    @cached_property
    def bend(self) -> Tensor | None:
        """By what factor training bends the odds of each class, loss and sampler together; None where not at all."""
        found = self.leaning
        if self.drawn is not None and self.natural is not None and bool((self.natural > 0).all()):
            factor = self.drawn / (self.natural / self.natural.sum())
            found = factor if found is None else (factor * found if len(found) == len(factor) else found)
        if found is None or not bool((found > 0).all()) or spread(found) < 1.01:
            return None
        return found / found[0]


def spread(values: Tensor) -> float:
    """The largest over the smallest."""
    low = float(values.min())
    return float(values.max()) / low if low > 0 else float("inf")


def read_setup(
    loss: Any, input: Any, target: Any, counts: Any, sampler: Any, labels: Any, probabilities: Any, threshold: Any,
    accumulation_steps: Any, world_size: Any,
) -> Setup:  # fmt: skip
    """Check the kinds of what was given; what is in them is for the rules to find."""
    function = "check"
    if loss is not None and not isinstance(loss, Callable):  # type: ignore[arg-type]
        refuse(function, "loss", "a loss: a module or a function", describe(loss), error=TypeError)
    if isinstance(loss, type) and issubclass(loss, torch.nn.Module):
        refuse(function, "loss", "a loss: a module or a function", f"the class {loss.__name__}",
               f"Make one: {loss.__name__}(...).", error=TypeError)  # fmt: skip
    for argument, value in (("input", input), ("target", target)):
        if value is not None and not isinstance(value, Tensor):
            refuse(function, argument, "a tensor", describe(value), error=TypeError)
    value = None if counts is None else as_class_counts(counts, function=function)
    sampling = None if sampler is None else sampling_of(sampler)
    if sampler is not None and sampling is None:
        rule = "a sampler, a DataLoader, or a pair of the sampler meant and the loader that runs"
        refuse(function, "sampler", rule, describe(sampler), error=TypeError)
    for argument, count in (("accumulation_steps", accumulation_steps), ("world_size", world_size)):
        if integer(function, argument, count) < 1:
            refuse(function, argument, "≥ 1", repr(count))
    return Setup(
        loss,
        None if loss is None else settings_of(loss),
        None if input is None else input.detach(),
        None if target is None else target.detach(),
        value,
        sampling,
        None if labels is None else _labels(labels, value),
        None if probabilities is None else _probabilities(probabilities),
        None if threshold is None else number(function, "threshold", threshold, 0.0, 1.0),
        int(accumulation_steps),
        int(world_size),
    )


def _labels(labels: Any, counts: ClassCounts | None) -> Tensor:
    """Positions of the classes, those of ``counts`` first; rows of several labels as they are."""
    shape = getattr(labels, "shape", None)
    if shape is not None and len(shape) == 2:
        return numbers("check", "labels", labels, "one label per row (N,), or 0 and 1 for each class (N, C)").double()
    distinct, index = index_labels(labels, function="check")
    if counts is not None and not counts.is_multilabel:
        known = list(counts.classes)
        extra = sorted({label for label in distinct if label not in known}, key=str)
        used = {int(i) for i in np.unique(index)}
        extra = [label for label in extra if distinct.index(label) in used]
        place = {label: i for i, label in enumerate([*known, *extra])}
    elif distinct and all(isinstance(label, int) and label >= 0 for label in distinct):
        place = {label: int(label) for label in distinct}
    else:
        place = {label: i for i, label in enumerate(sorted(distinct, key=str))}
    table = torch.tensor([place.get(label, 0) for label in distinct], dtype=torch.int64)
    return table[torch.from_numpy(np.array(index, dtype=np.int64))]  # a copy: the caller's may be read-only


def _probabilities(values: Any) -> Tensor:
    rule = "probabilities in [0, 1], of shape (N,) or (N, C)"
    found = numbers("check", "probabilities", values, rule).detach().cpu().double()
    if found.dim() not in (1, 2) or not found.numel():
        refuse("check", "probabilities", rule, f"shape {tuple(found.shape)}")
    outside = ~((found >= 0) & (found <= 1))
    if bool(outside.any()):
        at = tuple(outside.nonzero()[0].tolist())
        refuse("check", "probabilities", rule, f"{float(found[at]):g} at position {at if len(at) > 1 else at[0]}",
               "Of logits take the softmax or the sigmoid first.")  # fmt: skip
    return found


def _vector(values: Any) -> Tensor | None:
    if values is None:
        return None
    found = torch.as_tensor(values).detach().cpu().double()
    return found if found.dim() == 1 and len(found) else None


def _flat(values: Any) -> Tensor | None:
    return None if values is None else torch.as_tensor(values).detach().cpu().double().reshape(-1)
