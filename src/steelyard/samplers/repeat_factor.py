"""Items with several labels, repeated for the sake of their rarest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steelyard._errors import describe, refuse
from steelyard._values import number
from steelyard.samplers._expected import Expected
from steelyard.samplers.weighted import WeightedRandomSampler

__all__ = ["RepeatFactorSampler"]

_RULE = "the labels of each item: a sequence of collections, or (N, C) of zeros and ones"


class RepeatFactorSampler(WeightedRandomSampler):
    r"""Repeats items that hold a rare class: for multi-label data and detection, where an image cannot be given to
    one class.

    With f_c the share of items that hold class c and t the threshold, r_c = max(1, √(t/f_c)) and r_i = max over the
    classes of item i. An item comes ⌊r_i⌋ or ⌈r_i⌉ times in an epoch, r_i on average; every item comes once at least.

    An epoch has Σ r_i draws to the nearest whole number, always as many: which items are rounded up is a systematic
    draw, not a coin for each.

    Args:
        labels_per_item: For each of N items the classes that it holds, any number of them: a sequence of collections,
            or a tensor or array ``(N, C)`` of zeros and ones.
        threshold: t in (0, 1]: classes that fewer items hold are repeated.
        generator, num_replicas, rank, seed: As for :class:`WeightedRandomSampler`.

    Raises: TypeError, ValueError: an argument that is not as said.

    Example:
        >>> sampler = RepeatFactorSampler([["cat"]] * 98 + [["cat", "owl"], ["owl"]], threshold=0.5)
        >>> sampler.repeat_factors[-3:]
        tensor([1., 5., 5.], dtype=torch.float64)
        >>> len(sampler)
        108

    Source: Gupta et al., "LVIS", CVPR 2019, arXiv:1908.03195, appendix B.
    """

    def __init__(
        self,
        labels_per_item: Any,
        threshold: float = 0.001,
        *,
        generator: torch.Generator | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int | None = None,
    ) -> None:
        name = type(self).__name__
        self.threshold = number(name, "threshold", threshold, 0.0, 1.0)
        if self.threshold == 0.0:
            refuse(name, "threshold", "above zero", threshold)
        self.classes, self._items_of = _pairs(name, labels_per_item)
        item, held = self._items_of
        n = len(labels_per_item)
        if n == 0:
            refuse(name, "labels_per_item", "the labels of at least one item", "none")
        shares = np.bincount(held, minlength=len(self.classes)) / n
        of_class = np.sqrt(np.maximum(1.0, self.threshold / np.maximum(shares, 1.0 / n)))
        factors = np.ones(n)
        np.maximum.at(factors, item, of_class[held])
        self.repeat_factors = torch.from_numpy(factors)
        draws = round(math.fsum(factors))
        super().__init__(
            self.repeat_factors, draws, generator=generator, num_replicas=num_replicas, rank=rank, seed=seed,
            systematic=True,
        )  # fmt: skip

    def expected(self) -> Expected:
        """Coverage and repeats by class; an item counts for each class that it holds."""
        item, held = self._items_of
        weight = self.repeat_factors.numpy()
        mean = self.num_samples * weight / weight.sum()
        rows = np.bincount(held, minlength=len(self.classes))
        draws = np.bincount(held, weights=mean[item], minlength=len(self.classes))
        seen = np.bincount(held, weights=np.minimum(mean[item], 1.0), minlength=len(self.classes))
        coverage = seen / np.maximum(rows, 1)
        return Expected(tuple(self.classes), tuple(rows.tolist()), tuple(draws.tolist()), tuple(coverage.tolist()))


def _pairs(name: str, given: Any) -> tuple[list[Any], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The classes, and pairs of an item and a class that it holds, each pair once."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ndarray):
        if given.ndim != 2 or given.dtype.kind not in "biuf":
            refuse(name, "labels_per_item", _RULE, describe(given), error=TypeError)
        odd = np.argwhere((given != 0) & (given != 1))
        if odd.size:
            at = tuple(odd[0].tolist())
            refuse(name, "labels_per_item", "zeros and ones where it is an array", f"{given[at]} at position {at}")
        item, held = np.nonzero(given)
        return list(range(given.shape[1])), (item.astype(np.int64), held.astype(np.int64))
    if not isinstance(given, Sequence) or isinstance(given, str):
        refuse(name, "labels_per_item", _RULE, describe(given), error=TypeError)
    places: dict[Any, int] = {}
    items, classes = [], []
    for number_, labels in enumerate(given):
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            hint = "An item with one label is written as a collection of one."
            refuse(name, "labels_per_item", _RULE, f"{describe(labels)} for item {number_}", hint, error=TypeError)
        values = labels.tolist() if hasattr(labels, "tolist") else labels
        for label in set(values):
            items.append(number_)
            classes.append(places.setdefault(label, len(places)))
    return list(places), (np.array(items, np.int64), np.array(classes, np.int64))
