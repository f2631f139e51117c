"""Two explanations beside each other: why their numbers agree or do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steelyard import explain, nn
from steelyard.explain import Difference

Z = torch.tensor([[0.1, 0.9], [0.0, 0.1], [2.0, 1.0]])
Y = torch.tensor([0, 1, 1])
CE, BCE = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss


def between(one: Any, two: Any) -> Difference:
    return explain(*one).compare(explain(*two))


def said(found: Difference, *words: str) -> None:
    text = " ".join(found.reasons)
    assert all(word in text for word in words), text


def test_another_order_names_a_row_that_moved() -> None:
    order = torch.tensor([0, 2, 1])
    found = between((CE([0.1, 1.0]), Z, Y), (CE([0.1, 1.0]), Z[order], Y[order]))
    assert found.same_value
    said(found, "the same 3 rows in another order", "row 1 here is row 2 there", "a mean does not look at order")
    summed = between((CE(reduction="sum"), Z, Y), (CE(reduction="sum"), Z[order], Y[order]))
    said(summed, "a sum does not look at order")
    each = between((CE(reduction="none"), Z, Y), (CE(reduction="none"), Z[order], Y[order]))
    assert each.reasons == ["Both batches hold the same 3 rows in another order (row 1 here is row 2 there)."]


def test_almost_the_same_rows_are_not_another_order() -> None:
    other = Z[torch.tensor([0, 2, 1])].clone()
    other[1, 0] += 0.01
    found = between((CE(), Z, Y), (CE(), other, Y[torch.tensor([0, 2, 1])]))
    assert not found.same_value
    assert not any("another order" in reason for reason in found.reasons)
    said(found, "cost differently", "on average, before any weight")


def test_another_order_with_other_weights_is_not_the_same() -> None:
    order = torch.tensor([0, 2, 1])
    found = between((CE([1.0, 2.0]), Z, Y), (CE([1.0, 5.0]), Z[order], Y[order]))
    assert not any("another order" in reason for reason in found.reasons)
    said(found, "divides the sums by 5", "the second by 11")


def test_rows_that_only_cost_the_same_are_not_called_the_same() -> None:
    z = torch.zeros(2, 2)
    found = between((CE([1.0, 2.0]), z, torch.tensor([0, 1])), (CE([2.0, 1.0]), z, torch.tensor([0, 1])))
    assert found.same_value
    said(found, "The 2 rows of both batches cost the same", "in another order")  # a row of class 0 is none of class 1
    found = between((CE(), z, torch.tensor([0, 0])), (CE(), z, torch.tensor([1, 1])))
    assert found.reasons == ["One by one the 2 rows of both batches cost the same, with and without weights."]


def test_the_same_batch_twice() -> None:
    found = between((CE(), Z, Y), (CE(), Z.clone(), Y.clone()))
    assert found.reasons == ["Both batches hold the same 3 rows with the same weights."]


def test_weights_that_cancel_and_weights_that_do_not() -> None:
    cancelled = between((CE([0.1, 1.0]), Z[:1], Y[:1]), (CE([3.0, 1.0]), Z[:1], Y[:1]))
    assert cancelled.same_value
    said(cancelled, "these differ (0.1 and 3)", "divides them out again: 0.1 and 3")
    kept = between((CE([0.1, 1.0]), Z, Y), (CE(), Z, Y))
    assert not kept.same_value
    said(kept, "these differ (0.1 to 1 and 1).", "divides the sums by 2.1", "the second by 3 (the number of rows)")


def test_one_sum_and_two_denominators() -> None:
    found = between((CE([0.1, 1.0]), Z, Y), (CE([0.1, 1.0], denominator="samples"), Z, Y))
    said(found, "the same 3 rows with the same weights", "divides the same sum by 2.1", "the second by 3")


def test_batches_of_other_sizes() -> None:
    found = between((CE(), Z, Y), (CE(), Z[:2], Y[:2]))
    said(found, "The first has 3 rows, the second 2 rows.", "by 3", "by 2")


def test_a_coincidence_is_called_one() -> None:
    half = torch.tensor([[0.0, 0.0]])
    found = between((CE(denominator=1.0), half, Y[:1]), (CE(reduction="sum"), half.expand(1, 2), Y[:1]))
    assert found.same_value
    assert found.reasons == ["Both batches hold the same 1 row with the same weights."]
    value = float(torch.nn.functional.cross_entropy(Z, Y))
    far = torch.tensor([[0.0, torch.tensor(value).expm1().log()]])  # one row that costs what the three do on average
    found = between((CE(), Z, Y), (CE(), far, torch.tensor([0])))
    assert found.same_value
    said(found, "The first has 3 rows, the second 1 row.")
    spread = torch.stack([far[0]] * 3)
    found = between((CE(), Z, Y), (CE(), spread, torch.zeros(3, dtype=torch.long)))
    assert found.same_value
    said(found, "cost differently" if found.before.unweighted != found.after.unweighted else "happen to come out")


def test_logits_beside_their_sigmoid_and_beside_something_else() -> None:
    z, t = torch.tensor([0.8, -0.7]), torch.tensor([0.0, 1.0])
    said(between((BCE(), z, t), (nn.BCELoss(), z.sigmoid(), t)), "BCELoss is the sigmoid of the other's")
    other = between((BCE(), z, t), (nn.BCELoss(), torch.tensor([0.5, 0.5]), t))
    assert not any("sigmoid" in reason for reason in other.reasons)
    assert not any("sigmoid" in r for r in between((CE(), Z, Y), (nn.NLLLoss(), Z.log_softmax(1), Y)).reasons)


def test_cross_entropy_beside_nll_of_the_log_softmax() -> None:
    found = between((CE(), Z, Y), (nn.NLLLoss(), Z.log_softmax(1), Y))
    value = f"{found.before.value:.5g}"
    assert str(found).splitlines()[0] == f"{value} and {value} (CrossEntropyLoss and NLLLoss): the same"
    assert found.reasons == ["Both losses cost each of the 3 rows the same."]


def test_two_nans_are_the_same() -> None:
    found = between((CE([0.0, 1.0]), Z[:1], Y[:1]), (CE([0.0, 2.0]), Z[:1], Y[:1]))
    assert found.same_value
    assert str(found).startswith("NaN and NaN: the same")


def test_the_table_has_both_sides() -> None:
    found = between((CE([0.1, 1.0]), Z, Y), (CE(), Z, Y))
    lines = str(found).splitlines()
    assert lines[-7].split() == ["first", "second"]
    assert lines[-4].split() == ["denominator", "2.1", "3"]
    assert lines[-2].split()[-2:] == ["3", "3"]


@pytest.mark.parametrize("other", [None, 1.0, "text"])
def test_only_explanations_compare(other: Any) -> None:
    with pytest.raises(TypeError, match=r"^Explanation.compare: 'other' must be an Explanation; got"):
        explain(CE(), Z, Y).compare(other)


def test_the_same_elements_in_another_order_are_not_said_to_be_divided_out() -> None:
    """A plain mean of weighted elements divides by their number, whatever they weigh."""
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(5.0))
    one = explain(loss, torch.tensor([-1.5, 1.5]), torch.tensor([1.0, 0.0]))
    two = explain(loss, torch.tensor([1.5, -1.5]), torch.tensor([0.0, 1.0]))
    found = one.compare(two)
    assert "same 2 elements in another order" in found.reasons[0]
    assert not any("divides them out" in reason for reason in found.reasons)


def test_weights_that_the_mean_divides_out_are_said_to_be() -> None:
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    one = explain(torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0])), logits, labels)
    two = explain(torch.nn.CrossEntropyLoss(weight=torch.tensor([3.0, 3.0])), logits, labels)
    assert any("divides them out again: 4 and 12" in reason for reason in one.compare(two).reasons)
