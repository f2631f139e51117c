"""RepeatFactorSampler: every item, and those of a rare class more often."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from case_names import short

from steelyard.ops import cpu
from steelyard.samplers import RepeatFactorSampler


def test_factors_are_those_of_the_paper() -> None:
    items = [["a"]] * 90 + [["a", "b"]] * 9 + [["b", "c"]]
    sampler = RepeatFactorSampler(items, 0.4, seed=0)
    b, c = math.sqrt(0.4 / 0.1), math.sqrt(0.4 / 0.01)
    assert sampler.repeat_factors.tolist() == pytest.approx([1.0] * 90 + [b] * 9 + [c])
    assert sampler.num_samples == math.ceil(90 + 9 * b + c)
    assert torch.equal(sampler.weights, sampler.repeat_factors)


FACTORS = {
    "mixed": ([["a"]] * 90 + [["a", "b"]] * 9 + [["b", "c"]] + [[]], 0.4),
    "a sum just above a whole number": ([["a"]] * 92 + [["b"]] * 8, 0.0833),
    "whole factors": ([["a"]] * 84 + [["b"]] * 16, 0.64),
    "a factor that rounding leaves below a whole number": ([["a"]] * 74 + [["b"]] * 1, 0.12),
    "nothing is rare": ([["a"]] * 5, 0.5),
    "one item": ([["a"]], 1.0),
    "all fractions": ([[i % 7] for i in range(100)], 0.35),
}


@pytest.mark.parametrize("name", cpu.available())
@pytest.mark.parametrize(("items", "threshold"), FACTORS.values(), ids=FACTORS)
def test_every_item_comes_and_rare_ones_more_often(items: list[Any], threshold: float, name: str) -> None:
    n, epochs = len(items), 600
    with cpu.using(name):
        sampler = RepeatFactorSampler(items, threshold, seed=0)
        found = np.array([np.bincount(list(sampler), minlength=n) for _ in range(epochs)])
    factors = sampler.repeat_factors.numpy()
    whole = np.round(factors) if np.allclose(factors, np.round(factors), rtol=0, atol=1e-9) else factors
    assert sampler.num_samples == math.ceil(math.fsum(whole) - 1e-9)
    assert (found.sum(axis=1) == sampler.num_samples).all()
    assert (found >= np.floor(whole)).all(), "every item at least so often, in every epoch"
    above = np.maximum(found - np.ceil(whole), 0)
    assert above.sum(axis=1).max() <= 1, "and at most one draw on top of what they may have"
    gap = sampler.num_samples - math.fsum(whole)  # the part of a draw that is on top
    assert above.sum() <= epochs * gap + 5 * math.sqrt(epochs * gap) + 1e-9
    mean = whole * sampler.num_samples / math.fsum(whole)
    spread = np.sqrt((whole % 1) * (1 - whole % 1) + 2 * gap * whole / whole.sum())
    assert (abs(found.mean(axis=0) - mean) <= 5.5 * spread / math.sqrt(epochs) + 1e-9).all()
    told = sampler.expected()
    for c, kind in enumerate(told.classes):
        holds = np.array([kind in item for item in items])
        assert told.rows[c] == holds.sum()
        assert told.draws[c] == pytest.approx(mean[holds].sum())
        assert told.coverage[c] == 1.0


def test_rounding_up_ties_no_two_items_to_each_other() -> None:
    sampler = RepeatFactorSampler([[i] for i in range(16)], 0.1, seed=0)  # r = √1.6 for all
    found = np.array([np.bincount(list(sampler), minlength=16) > 1 for _ in range(3000)], float)
    together = (found.T @ found / 3000)[np.triu_indices(16, 1)]
    share = (sampler.num_samples - 16) / 16
    assert abs(together - share * (share * 16 - 1) / 15).max() < 0.03


def test_the_order_of_classes_does_not_hang_on_hashes() -> None:
    code = """if True:
        from steelyard.samplers import RepeatFactorSampler
        print(RepeatFactorSampler([["dog", "cat", "owl"], ["ape", "cat"]]).classes)
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in "012"
    }
    assert said == {"['dog', 'cat', 'owl', 'ape']\n"}


def test_the_forms_of_labels_agree() -> None:
    array = np.random.default_rng(0).random((50, 4)) < [0.9, 0.3, 0.05, 0.02]
    lists = [np.flatnonzero(row).tolist() for row in array]
    wanted = RepeatFactorSampler(lists, 0.2).repeat_factors
    for form in (
        array,
        torch.from_numpy(array),
        array.astype(float),
        [set(row) for row in lists],
        [torch.tensor(r) for r in lists],
    ):
        assert torch.equal(RepeatFactorSampler(form, 0.2).repeat_factors, wanted)
    twice = [row + row for row in lists]
    assert torch.equal(RepeatFactorSampler(twice, 0.2).repeat_factors, wanted), "a label twice in an item is one"


BAD_FACTORS = [
    ({"labels_per_item": []}, ValueError, "'labels_per_item' must be the labels of at least one item; got none"),
    ({"labels_per_item": ["cat"]}, TypeError, "'labels_per_item' must be .* for item 0. An item with one label"),
    ({"labels_per_item": [0, 1]}, TypeError, "'labels_per_item' must be .* got int 0 for item 0"),
    ({"labels_per_item": [[["a"]]]}, TypeError, "'labels_per_item' must be labels that can be counted: .* for item 0"),
    ({"labels_per_item": "cat"}, TypeError, "'labels_per_item' must be the labels of each item"),
    ({"labels_per_item": torch.ones(3)}, TypeError, "'labels_per_item' must be the labels of each item"),
    ({"labels_per_item": [[0, 1]] * 2, "threshold": 0.0}, ValueError, "'threshold' must be above zero"),
    ({"labels_per_item": torch.tensor([[0, 2]])}, ValueError, r"'labels_per_item' must be zeros .* 2 at"),
    ({"threshold": 2.0}, ValueError, r"'threshold' must be a number in \[0, 1\]"),
    ({"threshold": None}, TypeError, r"'threshold' must be a number in \[0, 1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD_FACTORS, ids=short)
def test_bad_arguments_of_repeat_factor(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^RepeatFactorSampler: {message}"):
        RepeatFactorSampler(**{"labels_per_item": [["a"]], **change})


def test_every_argument_has_a_row_of_bad_values() -> None:
    here = {name for change, *_ in BAD_FACTORS for name in change}
    elsewhere = {"generator", "num_replicas", "rank", "seed"}  # of all samplers: test_epochs
    assert here | elsewhere == set(inspect.signature(RepeatFactorSampler).parameters)
