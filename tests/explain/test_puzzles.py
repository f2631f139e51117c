"""The puzzles of the worked examples: each is answered in the first three lines of what is printed.

They are read by somebody who knows the symptom only, so a test asks for the number and for the words that explain it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard import check, class_weights, explain, functional, nn

SEED = json.loads((Path(__file__).parent.parent / "data" / "seed_values.json").read_text(encoding="utf-8"))


def first(printed: object, *words: str) -> None:
    """Every word stands in the first three lines."""
    lines = str(printed).splitlines()[:3]
    text = "\n".join(lines)
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64 if isinstance(values[0], int) else torch.float32)


def test_both_mistakes_give_the_same_loss() -> None:
    """My pos_weight gives the same loss for a missed positive and a false alarm."""
    seed = SEED["bce_with_logits_pos_weight"]
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=tensor([float(seed["pos_weight"][0])]))
    input, target = tensor(seed["input"]), tensor(seed["target"]).float()
    one, other = explain(loss, input, target), explain(loss, input.flip(0), target.flip(0))
    first(one, "2.0359 = (2.3704 + 1.7014) / 2", "positives only", "5 × 0.47408 = 2.3704", "another order gives 2.0359")
    assert [row["contribution"] for row in one.to_dict()["listed_rows"]] == pytest.approx(seed["none"], abs=1e-4)
    assert one.value == pytest.approx(seed["mean"], abs=1e-4)
    difference = one.compare(other)
    assert difference.same_value
    first(
        difference,
        "the same 2 elements in another order",
        "element 0 here is element 1 there",
        "does not look at order",
    )


def test_ten_rows_of_sixty_four_ones() -> None:
    """Ten rows of 64 classes, and the loss is that of a single number."""
    seed = SEED["bce_with_logits_all_ones"]
    input = torch.full(seed["shape"], float(seed["logit"]))
    weight = torch.full(seed["shape"][-1:], float(seed["pos_weight"]))
    found = explain(nn.BCEWithLogitsLoss(pos_weight=weight), input, torch.full_like(input, seed["target"]))
    assert found.value == pytest.approx(seed["mean"], abs=1e-4)
    first(found, "0.20141", "weight 1: the weights change nothing", "All 640 elements cost the same", "how many")


def test_the_sigmoid_is_inside() -> None:
    """BCEWithLogitsLoss and BCELoss: one number from two names."""
    seed = SEED["bce_with_logits_equals_sigmoid_then_bce"]
    input, target = tensor(seed["input"]), tensor(seed["target"]).float()
    logits = explain(torch.nn.BCEWithLogitsLoss(), input, target)
    first(logits, "0.65733", "takes the sigmoid itself")
    assert logits.value == pytest.approx(seed["mean"], abs=1e-4)
    probabilities = explain(torch.nn.BCELoss(), input.sigmoid(), target)
    assert probabilities.call.input.tolist() == pytest.approx(seed["sigmoid"], abs=1e-4)
    first(logits.compare(probabilities), "the same", "each of the 4 elements the same", "is the sigmoid of the other's")


def test_a_plain_mean() -> None:
    seed = SEED["bce"]
    found = explain(nn.BCELoss(), torch.tensor(seed["input"], dtype=torch.float64), tensor(seed["target"]))
    assert found.value == pytest.approx(seed["mean"], abs=1e-15)
    first(found, "0.31904 = (0.22314 + 0.22314 + 0.51083) / 3", "plain mean of 3 losses")


def test_pos_weight_upside_down() -> None:
    """With pos_weight the model finds even fewer positives."""
    seed = SEED["pos_weight_from_counts"]
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([seed["positives"] / seed["negatives"]]))
    found = check(loss=loss, counts=[seed["negatives"], seed["positives"]])
    assert [finding.code for finding in found] == ["SY112"]
    first(found, "inverted", "100 positives and 300 negatives", "3 here")
    right = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([seed["pos_weight"]]))
    assert check(loss=right, counts=[seed["negatives"], seed["positives"]]) == []


def test_pos_weight_lands_on_the_width() -> None:
    """On images pos_weight makes vertical stripes."""
    assert "(C,) one lands on W" in SEED["pos_weight_shapes"]
    input = torch.randn(2, 3, 4, 3)
    for shape, wrong in (((3,), True), ((3, 1, 1), False), ((3, 4, 3), False), ((2, 3, 4, 3), False)):
        loss = nn.BCEWithLogitsLoss(pos_weight=torch.rand(shape) + 0.5)
        found = check(loss=loss, input=input, target=torch.ones_like(input))
        assert [finding.code for finding in found] == ["SY113"] * wrong
        if wrong:
            first(found, "the last axis", "not along the classes in axis 1", "reshape(3, 1, 1)")
            first(explain(loss, input, torch.ones_like(input)), "along the last axis", "(3, 1, 1)")


def test_three_rows_and_a_denominator_of_five() -> None:
    """A sum divided by 3 is not the mean."""
    seed = SEED["cross_entropy"]
    input, target = (
        tensor(seed["input"][0] + seed["input"][1] + seed["input"][2]).float().view(3, 2),
        tensor(seed["target"]),
    )
    plain = explain(torch.nn.CrossEntropyLoss(), input, target)
    first(plain, "0.52237 = (1.3133 + 0.12693 + 0.12693) / 3", "plain mean of 3 losses")
    weighted = seed["weight_1_2"]
    found = explain(torch.nn.CrossEntropyLoss(tensor(weighted["weight"]).float()), input, target)
    assert found.denominator == weighted["denominator"]
    assert found.numerator == pytest.approx(weighted["sum"], abs=1e-4)
    assert found.value == pytest.approx(weighted["mean"], abs=1e-4)
    first(found, "0.36419 = (1.3133 + 0.25386 + 0.25386) / 5", "(1 + 2 + 2)", "not by the 3 rows")
    summed = explain(torch.nn.CrossEntropyLoss(tensor(weighted["weight"]).float(), reduction="sum"), input, target)
    assert summed.value == pytest.approx(weighted["sum"], abs=1e-4)


def test_a_negative_likelihood() -> None:
    """My loss is negative."""
    seed = SEED["nll_loss"]
    input = torch.tensor(seed["input"], dtype=torch.float32)
    found = explain(torch.nn.NLLLoss(tensor(seed["weight"]).float()), input, tensor(seed["target"]))
    assert found.value == pytest.approx(seed["mean"], abs=1e-4)
    first(found, "−2.3333 = (−1 − 3 − 3) / 3", "takes log-probabilities", "only picks −input[target]", "below 0")
    assert [finding.code for finding in check(loss=torch.nn.NLLLoss(), input=input)] == ["SY103"]


def test_a_weight_that_does_nothing() -> None:
    """I set weight=[0.1, 1] and the loss did not move."""
    seed = SEED["weight_cancels_at_batch_one"]
    input, target = torch.tensor(seed["input"]), tensor(seed["target"])
    found = explain(torch.nn.CrossEntropyLoss(torch.tensor([0.1, 1.0])), input, target)
    assert found.value == pytest.approx(seed["weight_0.1_1_mean"], abs=1e-4)
    first(found, "One row: its weight 0.1 cancels", "1.1711", "denominator='samples'", "0.11711")
    even = explain(torch.nn.CrossEntropyLoss(torch.tensor([1.0, 1.0])), input, target)
    first(found.compare(even), "the same", "the mean divides them out again: 0.1 and 1")
    kept = explain(nn.CrossEntropyLoss([0.1, 1.0], denominator="samples"), input, target)
    assert kept.value == pytest.approx(seed["weight_0.1_1_denominator_samples"], abs=1e-4)
    nothing = explain(torch.nn.CrossEntropyLoss(torch.tensor([0.0, 1.0])), input, target)
    first(nothing, "NaN = 0 / 0", "The only row's weight is 0", "empty='zero'")
    zero = explain(nn.CrossEntropyLoss([0.0, 1.0], empty="zero"), input, target)
    first(zero, "= 0 = 0 / 0", "empty='zero' makes 0")


def test_two_denominators() -> None:
    """The same labels as one-hot rows give another loss."""
    seed = SEED["two_denominators"]
    input, target, weight = torch.tensor(seed["input"]), tensor(seed["target"]), torch.tensor(seed["weight"]).float()
    loss = torch.nn.CrossEntropyLoss(weight)
    labels, one_hot = explain(loss, input, target), explain(loss, input, torch.eye(2)[target])
    assert labels.value == pytest.approx(seed["mean_over_weights"], abs=1e-4)
    assert one_hot.value == pytest.approx(seed["mean_over_samples"], abs=1e-4)
    first(labels, "divides by 1.1", "(0.1 + 1)", "not by the 2 rows", "0.38075")
    first(one_hot, "One-hot targets divide by 2, the number of rows", "add up to 1.1", "0.69228")
    first(labels.compare(one_hot), "different", "divides the same sum by 1.1", "the second by 2")


def test_extreme_weights_and_the_majority() -> None:
    """Training with class weights is unstable Or: 99.9 % accuracy and nothing is found."""
    seed = SEED["class_weights"]
    weight = class_weights(seed["counts"])
    assert weight.tolist() == seed["max_ratio"]
    first(
        check(loss=nn.CrossEntropyLoss(weight), counts=seed["counts"]),
        "10,000 times the smallest",
        "half of the weight",
    )
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(seed["counts"]))
    always = torch.tensor([[1.0, 0.0, 0.0]]).expand(len(labels), 3)
    found = check(probabilities=always, labels=labels)
    assert [finding.code for finding in found] == ["SY121"]
    first(found, "always answering class 0 is right for 99.9 %", "0 of")
    below = seed["balanced_enough_below_ratio"]
    even = torch.repeat_interleave(torch.arange(2), torch.tensor([below - 1, 1]) * 10)
    assert check(probabilities=torch.zeros(len(even)), labels=even) == []


def test_sampling_weights_of_classes() -> None:
    """My weighted sampler draws the same four images."""
    weights = SEED["sampling_weights"]["sampling_weight"]
    sampler = torch.utils.data.WeightedRandomSampler(weights, 1100)
    found = check(sampler=sampler, labels=[0] * 500 + [1] * 300 + [2] * 200 + [3] * 100)
    assert [finding.code for finding in found] == ["SY102"]
    first(found, "4 weights for 1,100 rows", "draws only rows 0 to 3", "one for each class", "sample_weights")


def test_cross_entropy_is_entropy_and_divergence() -> None:
    """With soft labels the loss does not go to 0."""
    assert "cross entropy H(P, Q) = H(P) + D_KL(P, Q)" in SEED["information"]
    q = torch.tensor([[0.7, 0.3], [0.5, 0.5]], dtype=torch.float64)
    input = torch.zeros(2, 2, dtype=torch.float64)
    found = explain(functional.cross_entropy, input, q)
    entropy = float(-(q * q.log()).sum(1).mean())
    first(found, "their own entropy", f"{entropy:.5g}", f"{found.value - entropy:.5g}", "least")
