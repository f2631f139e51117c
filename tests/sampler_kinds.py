"""Every sampler, small, for the tests that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from steelyard.samplers import (
    BalancedBatchSampler,
    ClassBalancedSampler,
    RepeatFactorSampler,
    WeightedRandomSampler,
)
from steelyard.samplers._base import ReproducibleSampler

WEIGHTS = [0.0, 3.0, 1.0, 0.5, *([0.25] * 30), 0.0]
LABELS = [0] * 20 + [1] * 7 + [2] * 2 + [3]
Make = Callable[..., ReproducibleSampler[Any]]


def weighted(**options: Any) -> WeightedRandomSampler:
    return WeightedRandomSampler(WEIGHTS, 23, **options)


def without_replacement(**options: Any) -> WeightedRandomSampler:
    return WeightedRandomSampler(torch.tensor(WEIGHTS), 23, False, **options)


def systematic(**options: Any) -> WeightedRandomSampler:
    return WeightedRandomSampler(WEIGHTS, 23, systematic=True, **options)


def class_balanced(**options: Any) -> ClassBalancedSampler:
    return ClassBalancedSampler(LABELS, 23, **options)


def scheduled(**options: Any) -> ClassBalancedSampler:
    return ClassBalancedSampler(LABELS, 23, 0.5, schedule=3, **options)


def batches(**options: Any) -> BalancedBatchSampler:
    return BalancedBatchSampler(LABELS, 3, 2, num_batches=23, **options)


def repeat_factor(**options: Any) -> RepeatFactorSampler:
    items = [["a"]] * 15 + [["a", "b"], ["b", "c"], []]
    return RepeatFactorSampler(items, 0.5, **options)


KINDS: dict[str, Make] = {
    make.__name__: make
    for make in (weighted, without_replacement, systematic, class_balanced, scheduled, batches, repeat_factor)
}
