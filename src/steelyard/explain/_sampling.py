"""What can be known of a sampler without drawing from it: PyTorch's, ours and other people's look alike in this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler

__all__ = ["Sampling", "sampling_of"]

HELD_OUT = ("val", "valid", "validation", "dev", "test", "eval")


@dataclass(frozen=True)
class Sampling:
    """One sampler.

    Attributes:
        sampler: Itself, taken out of its loader.
        intended: Another one that was meant to run, where both were given.
        weights: Its weights, float64, if it has any.
        classes: The class of each row, if it was told.
        power: Of a class-balanced sampler: 1 draws the classes equally often, 0 as they are.
        rows: Rows of the data set behind a loader.
        held_out: What the data set calls itself, if that is validation or test.
    """

    sampler: Any
    intended: Any
    weights: Tensor | None
    classes: Tensor | None
    power: float | None
    rows: int | None
    held_out: str | None

    @property
    def name(self) -> str:
        """Its class."""
        return type(self.sampler).__name__

    @property
    def replicas(self) -> int | None:
        """How many ranks it divides its draws among; None where it knows nothing of ranks."""
        found = getattr(self.sampler, "num_replicas", None)
        return found if isinstance(found, int) else None

    @property
    def random(self) -> bool:
        """Whether it draws or shuffles, so that an epoch has an order of its own."""
        if isinstance(self.sampler, RandomSampler | WeightedRandomSampler):
            return True
        return self.weights is not None or self.power is not None or bool(getattr(self.sampler, "shuffle", False))

    @property
    def seeded(self) -> bool:
        """Whether a generator of the caller's decides, which with one seed decides alike on every rank."""
        return getattr(self.sampler, "generator", None) is not None

    @property
    def by_class(self) -> bool:
        """Whether the weights are of classes, as the sampler itself knows the class of every row."""
        known = self.classes
        return self.weights is not None and known is not None and len(self.weights) != len(known)

    def shares(self, labels: Tensor | None, classes: int) -> Tensor | None:
        """The share of draws that each class is to get, ``(classes,)``; None where that cannot be known."""
        labels = self.classes if labels is None else labels
        if labels is None or not len(labels):
            return None
        counts = torch.bincount(labels, minlength=classes).double()
        if self.power is not None:
            drawn = torch.where(counts > 0, counts.pow(1.0 - self.power), 0.0)
        elif self.weights is None:
            return None
        elif self.by_class and len(self.weights) >= len(counts):
            drawn = counts * self.weights[: len(counts)]
        elif len(self.weights) == len(labels):
            drawn = torch.zeros_like(counts).index_add_(0, labels, self.weights)
        else:
            return None
        total = float(drawn.sum())
        return drawn / total if total > 0 else None


def sampling_of(given: Any) -> Sampling | None:
    """A sampler, a batch sampler, a loader, or a pair of what was meant and what runs; None for anything else."""
    intended = None
    if isinstance(given, tuple | list) and len(given) == 2:
        intended, given = given
    rows, held_out = None, None
    if isinstance(given, DataLoader):
        rows, held_out = _length(given.dataset), _held_out(given.dataset)
        given = given.sampler if given.batch_sampler is None else given.batch_sampler
    while isinstance(given, BatchSampler) and hasattr(given, "sampler"):
        given = given.sampler
    if intended is not None:
        inner = sampling_of(intended)
        intended = inner.sampler if inner is not None else intended
    if not hasattr(given, "__iter__"):
        return None
    if rows is None:
        source = getattr(given, "data_source", None)
        rows = _length(source if source is not None else getattr(given, "dataset", None))
    power = getattr(given, "power", None)
    return Sampling(
        given,
        intended,
        _numbers(getattr(given, "weights", None), torch.float64),
        _numbers(getattr(given, "labels", None), torch.int64),
        float(power) if isinstance(power, int | float) and not isinstance(power, bool) else None,
        rows,
        held_out,
    )


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _held_out(dataset: Any) -> str | None:
    """``train=False`` or ``split="val"``, as data sets call it, through subsets."""
    while hasattr(dataset, "dataset") and not hasattr(dataset, "split"):
        dataset = dataset.dataset
    if getattr(dataset, "train", None) is False:
        return "train=False"
    split = getattr(dataset, "split", None)
    return f"split={split!r}" if isinstance(split, str) and split.lower() in HELD_OUT else None


def _numbers(values: Any, dtype: torch.dtype) -> Tensor | None:
    """A vector of numbers, or None where it is none."""
    if values is None:
        return None
    try:
        found = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return None
    whole = dtype == torch.int64 and found.is_floating_point()
    return None if found.dim() != 1 or found.is_complex() or whole else found.to(dtype)
