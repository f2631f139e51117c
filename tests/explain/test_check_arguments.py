"""What check takes, and what it refuses in the house's one sentence."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from steelyard import ClassCounts, check, nn

BAD: dict[str, list[Any]] = {
    "loss": [3, "mean", [nn.CrossEntropyLoss()]],
    "input": [[1.0, 2.0], np.zeros(3), "x"],
    "target": [[0, 1], 1],
    "counts": ["cat", [1.5], [[1, 2]], [-1, 2]],
    "sampler": [3, object(), (3, 4)],
    "labels": [3, [0.5, None], [0, None]],
    "probabilities": ["x", [1.5], [-0.1], [], torch.zeros(2, 2, 2), [float("nan")]],
    "threshold": ["half", 1.5, -0.1, True, float("nan")],
    "accumulation_steps": [0, -1, 1.5, "2", True],
    "world_size": [0, 2.0, None],
}


def test_every_argument_has_bad_values() -> None:
    assert set(BAD) == set(inspect.signature(check).parameters)
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(check).parameters.values())


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_the_wrong_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^check: '{name}' must be .+; got "):
        check(**{name: value})


def test_a_probability_outside_says_where() -> None:
    with pytest.raises(ValueError, match=r"got 1\.5 at position \(1, 0\)\. Of logits take the softmax or the sigmoid"):
        check(probabilities=[[0.5, 0.5], [1.5, 0.0]])


@pytest.mark.parametrize(
    "labels",
    [
        ["legit"] * 90 + ["fraud"] * 10,
        np.array(["legit"] * 90 + ["fraud"] * 10),
        pl.Series(["legit"] * 90 + ["fraud"] * 10),
    ],
    ids=["list", "array", "series"],
)
def test_labels_are_found_by_the_names_of_the_counts(labels: Any) -> None:
    counts = ClassCounts(["legit", "fraud"], [90, 10])
    found = check(counts=counts, labels=labels, probabilities=torch.full((100,), 0.1))
    assert found == []
    loss = nn.CrossEntropyLoss([1.0, 9.0])
    (finding,) = check(loss=loss, counts=counts, labels=labels, probabilities=torch.full((100,), 0.5))
    assert finding.message.startswith(
        "The probabilities of class 'fraud' average 50 %, its share of these rows is 10 %"
    )


def test_labels_of_any_integer_kind() -> None:
    sampler = torch.utils.data.WeightedRandomSampler([1.0, 9.0], 100)
    for labels in ([0] * 90 + [1] * 10, np.repeat([0, 1], [90, 10]).astype(np.uint8), torch.arange(100) // 90):
        assert [finding.code for finding in check(sampler=sampler, labels=labels)] == ["SY102"]


def test_rows_of_several_labels_pass() -> None:
    assert check(labels=torch.zeros(5, 3), probabilities=torch.zeros(5, 3)) == []


def test_what_is_given_stays_as_it_is() -> None:
    input = torch.randn(4, 2, requires_grad=True)
    target, p = torch.tensor([0, 1, 1, 0]), np.array([0.5, 0.1, 0.2, 0.3])
    before = input.detach().clone(), target.clone(), p.copy()
    loss = nn.CrossEntropyLoss([1.0, 2.0])
    check(loss=loss, input=input, target=target, probabilities=p, accumulation_steps=2)
    assert torch.equal(input.detach(), before[0])
    assert torch.equal(target, before[1])
    assert (p == before[2]).all()
    assert input.grad is None


def test_shapes_alone_are_enough_for_the_rules_on_shapes() -> None:
    meta = torch.zeros(8, 1, device="meta"), torch.zeros(8, device="meta")
    assert [finding.code for finding in check(loss=nn.BCEWithLogitsLoss(), input=meta[0], target=meta[1])] == ["SY123"]
    labels = torch.zeros(8, dtype=torch.long, device="meta")
    loss = torch.nn.CrossEntropyLoss(torch.ones(3, device="meta") * 2)
    assert check(loss=torch.nn.CrossEntropyLoss(), input=torch.zeros(8, 3, device="meta"), target=labels) == []
    assert loss.weight is not None
