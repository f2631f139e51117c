"""The rules on samplers, on the library's own: what they know of labels, shares and ranks is seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from steelyard import check, class_weights, count_classes, nn, sample_weights
from steelyard.samplers import (
    BalancedBatchSampler,
    ClassBalancedSampler,
    RepeatFactorSampler,
    WeightedRandomSampler,
)

LABELS = torch.tensor([0] * 90 + [1] * 10)
WEIGHT = class_weights(count_classes(LABELS))
BALANCING = {
    "by class": lambda **options: ClassBalancedSampler(LABELS, **options),
    "by weight": lambda **options: WeightedRandomSampler(
        sample_weights(LABELS, WEIGHT), 100, labels=LABELS, **options
    ),
    "in batches": lambda **options: BalancedBatchSampler(LABELS, 2, 4, **options),
}  # fmt: skip


def codes(**given: Any) -> list[str]:
    return [finding.code for finding in check(**given)]


@pytest.mark.parametrize("make", BALANCING.values(), ids=BALANCING)
def test_a_sampler_beside_class_weights_is_found_without_being_told_the_labels(make: Any) -> None:
    found = check(loss=nn.CrossEntropyLoss(weight=[1.0, 9.0]), sampler=make())
    assert [finding.code for finding in found] == ["SY101"]
    assert "9 times" in found[0].message
    assert codes(loss=nn.CrossEntropyLoss(), sampler=make()) == []


def test_a_loader_of_balanced_batches_is_seen_through() -> None:
    loader = DataLoader(TensorDataset(LABELS), batch_sampler=BalancedBatchSampler(LABELS, 2, 4))
    assert "SY101" in codes(loss=nn.CrossEntropyLoss(weight=[1.0, 9.0]), sampler=loader)


def test_half_of_the_correction_in_each_is_no_mistake() -> None:
    loss = nn.CrossEntropyLoss(weight=[1.0, 3.0])
    assert codes(loss=loss, sampler=ClassBalancedSampler(LABELS, power=0.5)) == []


def test_repeats_of_rare_items_count_as_a_correction() -> None:
    sampler = RepeatFactorSampler([[int(label)] for label in LABELS], 0.5)
    loss = nn.CrossEntropyLoss(weight=[1.0, 9.0])
    assert codes(loss=loss, sampler=sampler, labels=LABELS) == ["SY101"]


def test_weights_of_classes_given_to_a_sampler_of_rows() -> None:
    assert "SY102" in codes(sampler=WeightedRandomSampler(WEIGHT, 100), labels=LABELS)


@pytest.mark.parametrize("make", BALANCING.values(), ids=BALANCING)
def test_samplers_that_share_their_draw_over_ranks_are_no_mistake(make: Any) -> None:
    sampler = make(seed=0, num_replicas=2, rank=1)
    assert codes(loss=nn.CrossEntropyLoss(), sampler=sampler, world_size=2) == []


@pytest.mark.parametrize("make", BALANCING.values(), ids=BALANCING)
def test_a_sampler_that_does_not_know_of_the_ranks_is_found(make: Any) -> None:
    assert "SY120" in codes(loss=nn.CrossEntropyLoss(), sampler=make(), world_size=2)
