"""Every reason: a call to which it applies, and one that looks like it and is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from steelyard import explain, functional, nn
from steelyard.explain import Explanation
from steelyard.explain._reasons import REASONS

Z2 = torch.tensor([[0.1, 0.9], [0.0, 0.1]])
Z3 = torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 3.0]])
LOGITS = torch.randn(40, 3, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(40) % 3
CE, BCE = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss


def t(*values: Any) -> torch.Tensor:
    return torch.tensor(values)


def on(loss: Any, *inputs: Any, **keywords: Any) -> Callable[[], Explanation]:
    return lambda: explain(loss, *inputs, **keywords)


# reason: (a call that has it, what it must say, a call that has it not)
CASES: dict[str, list[tuple[Callable[[], Explanation], list[str], Callable[[], Explanation]]]] = {
    "nothing_left": [
        (on(CE(), Z2, t(-100, -100)), ["Every row is ignored (target -100)", "divided by 0", "gives 0 instead"],
         on(CE(), Z2, t(-100, 1))),
        (on(torch.nn.CrossEntropyLoss(t(0.0, 1.0)), Z2[:1], t(0)), ["only row's weight is 0", "of steelyard's loss"],
         on(CE([0.0, 1.0]), Z2, t(0, 1))),
        (on(CE([0.0, 1.0]), Z2, t(0, 0)), ["weights of all 2 rows are 0"],
         on(CE([0.0, 1.0], reduction="sum"), Z2, t(0, 0))),
        (on(CE(), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)), ["The batch has no rows"],
         on(CE(), Z2, t(0, 1))),
        (on(BCE(), torch.zeros(0), torch.zeros(0)), ["The batch has no elements"], on(BCE(), t(0.5), t(1.0))),
        (on(CE(denominator=0.0), Z2, t(0, 1)), ["The denominator given is 0"], on(CE(denominator=1.0), Z2, t(0, 1))),
        (on(CE(empty="zero"), Z2, t(-100, -100)), ["empty='zero' makes 0", "gradient of zero"], on(CE(), Z2, t(0, 0))),
    ],
    "not_finite": [
        (on(CE(), torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), t(0, 1)),
         ["1 row of 2 cost NaN or infinity", "row 1 (NaN)", "holds NaN at (1, 0)"],
         on(CE(), torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), t(0, -100))),
        (on(CE(logit_offset=[0.0, -torch.inf]), Z2, t(0, 1)), ["row 1 (inf)"],
         on(CE(logit_offset=[0.0, -torch.inf]), Z2, t(0, 0))),
    ],
    "one_row": [
        (on(CE([0.1, 1.0]), Z2[:1], t(0)), ["One row: "], on(CE([0.1, 1.0]), Z2[:1].expand(2, 2), t(0, 0))),
        (on(CE([0.1, 1.0]), Z2[:1], t(0)), ["weight 0.1 cancels", "but 0 gives 1.1711", "keeps it: 0.11711"],
         on(CE([0.1, 1.0], denominator="samples"), Z2[:1], t(0))),
        (on(CE([0.1, 1.0]), Z2, t(0, -100)), ["weight 0.1 cancels"], on(CE([0.1, 1.0]), Z2, t(0, 1))),
        (on(CE(), Z2[:1], t(0), sample_weight=[3.0]), ["weight 3 cancels"],
         on(CE([0.1, 1.0], label_smoothing=0.2), Z2[:1], t(0))),  # smoothed mass has other weights: no cancelling
    ],
    "equal_weights": [
        (on(CE([2.0, 2.0]), Z2, torch.eye(2)), ["the same weight 2: it multiplies"], on(CE([1.0, 2.0]), Z2, t(0, 1))),
        (on(CE([2.0, 2.0]), Z2, t(0, 1)), ["All 2 rows have the same weight 2:", "cancels, as if there were none"],
         on(CE([2.0, 2.1]), Z2, t(0, 1))),
        (on(CE([2.0, 3.0]), Z3, t(1, 1, 1)), ["same weight 3, being all of class 1", "cancels"],
         on(CE([2.0, 3.0]), Z3, t(0, 1, 1))),
        (on(CE([2.0, 2.0], reduction="sum"), Z2, t(0, 1)), ["multiplies the unweighted", "as a learning rate would"],
         on(CE(reduction="sum"), Z2, t(0, 1))),
        (on(CE([1.0, 1.0]), Z2, t(0, 1)), ["weight 1: the weights change nothing"], on(CE(), Z2, t(0, 1))),
        (on(CE([2.0, 2.0], denominator="samples"), Z2, t(0, 1)), ["multiplies the unweighted 0.90775"],
         on(CE([0.0, 0.0]), Z2, t(0, 1))),
    ],
    "divides_by_weights": [
        (on(CE([0.1, 1.0]), Z2, t(0, 1)), ["divides by 1.1", "(0.1 + 1)", "not by the 2 rows", "0.38075"],
         on(CE([0.5, 1.5]), Z2, t(0, 1))),  # which add up to 2
        (on(CE(), Z2, t(0, 1), sample_weight=[1.0, 4.0]), ["divides by 5", "(1 + 4)"],
         on(CE([0.1, 1.0], denominator="samples"), Z2, t(0, 1))),
        (on(CE([0.1, 1.0, 3.0]), LOGITS, LABELS), ["and not by the 40 rows"], on(CE(), LOGITS, LABELS)),
    ],
    "divides_by_rows": [
        (on(CE([0.1, 1.0]), Z2, torch.eye(2)), ["One-hot targets divide by 2", "add up to 1.1", "give 0.69228"],
         on(CE([0.1, 1.0], denominator="weights"), Z2, torch.eye(2))),
        (on(CE([0.1, 1.0]), Z2, torch.full((2, 2), 0.5)), ["Class probabilities as", "denominator='weights' would"],
         on(CE([0.5, 1.5]), Z2, torch.full((2, 2), 0.5))),  # whose weights add up to the rows
        (on(CE([0.1, 1.0]), Z2, torch.eye(2)), ["the number of rows"], on(CE([0.1, 1.0]), Z2, t(0, 1))),
    ],
    "pos_weight": [
        (on(BCE(pos_weight=[5.0]), t(0.5, 1.5), t(1.0, 0.0)), ["positives only", "element 0: 5 × 0.47408 = 2.3704"],
         on(BCE(), t(0.5, 1.5), t(1.0, 0.0))),
        (on(BCE(pos_weight=[5.0]), t(0.5, 1.5), t(0.0, 0.0)), ["None of the 2 elements is positive"],
         on(BCE(pos_weight=[1.0]), t(0.5, 1.5), t(0.0, 1.0))),
    ],
    "order": [
        (on(BCE(pos_weight=[5.0]), t(0.5, 1.5), t(1.0, 0.0)), ["A mean does not look at order", "2.0359"],
         on(BCE(pos_weight=[5.0]), t(0.5, 0.5), t(1.0, 1.0))),
    ],
    "pos_weight_on_the_last_axis": [
        (on(BCE(pos_weight=[1.0, 2.0, 3.0]), torch.zeros(2, 3, 3), torch.ones(2, 3, 3)), ["shape (3,)", "shape (3, 1)"],
         on(BCE(pos_weight=[1.0, 2.0, 3.0]), torch.zeros(2, 5, 3), torch.ones(2, 5, 3))),  # classes last
        (on(BCE(pos_weight=[1.0, 2.0]), torch.zeros(1, 2, 2), torch.ones(1, 2, 2)), ["along the last axis"],
         on(BCE(pos_weight=[[1.0], [2.0]]), torch.zeros(1, 2, 2), torch.ones(1, 2, 2))),
    ],
    "takes_log_probabilities": [
        (on(nn.NLLLoss(), Z3, t(0, 1, 1)), ["6 of 6 inputs are above 0", "only picks", "Apply log_softmax"],
         on(nn.NLLLoss(), Z3.log_softmax(1), t(0, 1, 1))),
        (on(nn.NLLLoss(), -Z3, t(0, 1, 1)), ["do not add up to 1"], on(CE(), -Z3, t(0, 1, 1))),
    ],
    "takes_logits": [
        (on(CE(), LOGITS.softmax(1), LABELS), ["look like probabilities", "would still cost 0.55144"],
         on(CE(), LOGITS, LABELS)),
        (on(CE(), LOGITS.log_softmax(1), LABELS), ["log-probabilities already", "harmless"],
         on(BCE(), LOGITS.softmax(1), torch.ones(40, 3))),
    ],
    "smoothed": [
        (on(CE([0.1, 1.0], label_smoothing=0.1), Z2, t(0, 1)), ["moves 10 %", "smooth_weight='target'"],
         on(CE([0.1, 1.0], label_smoothing=0.1, smooth_weight="target"), Z2, t(0, 1))),
        (on(CE([0.1, 1.0], label_smoothing=0.1), Z2, t(0, 1)), ["the class where it lands"],
         on(CE(label_smoothing=0.1), Z2, t(0, 1))),
    ],
    "spread_targets": [
        (on(CE(), Z2, torch.full((2, 2), 0.5)), ["own entropy 0.69315", "divergence"], on(CE(), Z2, torch.eye(2))),
        (on(CE(), Z2, torch.full((2, 2), 0.5)), ["least"], on(CE(gamma=1.0), Z2, torch.full((2, 2), 0.5))),
        (on(CE(), Z2, torch.full((2, 2), 0.5)), ["least"], on(CE([1.0, 2.0]), Z2, torch.full((2, 2), 0.5))),
        (on(CE(), Z2, torch.full((2, 2), 0.5)), ["least"], on(CE(), Z2, torch.full((2, 2), 0.6))),
    ],
    "alike": [
        (on(BCE(), torch.full((4,), 1.5), torch.ones(4)), ["All 4 elements cost the same, 0.20141"],
         on(BCE(), t(1.5, 1.5, 1.5), t(1.0, 1.0, 0.0))),
        (on(BCE(), torch.full((4,), 1.5), torch.ones(4)), ["how many"],
         on(BCE(denominator=2.0), torch.full((4,), 1.5), torch.ones(4))),
    ],
    "given": [
        (on(CE([0.1, 1.0]), Z2, t(0, 1), denominator=5.0), ["divides by 5, as told", "divide by 1.1", "0.69228"],
         on(CE([0.1, 1.0]), Z2, t(0, 1))),
    ],
    "not_a_mean": [
        (on(CE(reduction="sum"), Z2, t(0, 1)), ["grows with the batch", "would give 0.90775"], on(CE(), Z2, t(0, 1))),
        (on(CE(reduction="none"), Z2, t(0, 1)), ["leaves every row as it is", "0.90775"], on(CE(), Z2, t(0, 1))),
    ],
    "sigmoid_inside": [
        (on(BCE(), t(0.5, 1.0), t(1.0, 0.0)), ["binary_cross_entropy(input.sigmoid(), target)"],
         on(BCE(gamma_neg=1.0), t(0.5, 1.0), t(1.0, 0.0))),
        (on(BCE(), t(0.5, 1.0), t(1.0, 0.0)), ["takes the sigmoid itself"], on(nn.BCELoss(), t(0.5, 1.0), t(1.0, 0.0))),
    ],
    "plain_mean": [
        (on(CE(), Z2, t(0, 1)), ["plain mean of 2 losses"], on(CE([1.0, 2.0]), Z2, t(0, 1))),
        (on(CE(), Z2, t(0, 1)), ["counts alike"], on(CE(reduction="sum"), Z2, t(0, 1))),
    ],
    "ignored": [
        (on(CE(), Z3, t(0, -100, 1)), ["1 of 3 rows is ignored (target -100)"], on(CE(), Z3, t(0, 1, 1))),
    ],
    "concentrated": [
        (on(CE(), torch.tensor([[9.0, 0.0]] * 38 + [[0.0, 9.0]] * 2), torch.zeros(40, dtype=torch.long)),
         ["2 of 40 rows carry half of the gradient", "class 0"], on(CE(), torch.zeros(40, 3), LABELS)),
        (on(CE(), torch.tensor([[9.0, 0.0]] * 38 + [[0.0, 9.0]] * 2), torch.zeros(40, dtype=torch.long)),
         ["carry half"], on(CE(), torch.tensor([[9.0, 0.0]] * 10 + [[0.0, 9.0]]), torch.zeros(11, dtype=torch.long))),
    ],
    "rounded": [
        (on(torch.nn.CrossEntropyLoss(), torch.full((2, 300), 5.0).bfloat16(), t(0, 1)), ["In float64", "bfloat16"],
         on(torch.nn.CrossEntropyLoss(), torch.full((2, 300), 5.0), t(0, 1))),
    ],
    "beside_pytorch": [
        (on(CE([0.1, 1.0], denominator="samples"), Z2, t(0, 1)), ["cross_entropy gives 0.69228", "same sum by 1.1"],
         on(torch.nn.CrossEntropyLoss(), Z2, t(0, 1))),
        (on(nn.FocalLoss(), Z2, t(0, 1)), ["0.90775", "no gamma=2.0 (rows classified well fade)"],
         on(CE(reduction="sum"), Z2, t(0, 1))),
        (on(CE(), Z2, t(0, 1)), ["gives the same"], on(CE(), Z2, t(-100, -100))),
        (on(nn.BalancedSoftmaxLoss([9, 1]), Z2, t(0, 1)), ["it has no counts"], on(torch.nn.NLLLoss(), Z2, t(0, 1))),
        (on(nn.SigmoidFocalLoss(), t(0.5, 1.5), t(1, 0)), ["binary_cross_entropy_with_logits", "gamma=2.0, alpha=0.25"],
         on(torch.nn.BCELoss(), t(0.5, 0.25), t(1.0, 0.0))),
    ],
    "without_weights": [
        (on(CE([0.1, 1.0]), Z2, t(0, 1)), ["Without weights it would be 0.90775"], on(CE([2.0, 2.0]), Z2, t(0, 1))),
    ],
}  # fmt: skip

SEVERAL = ("equal_weights", "beside_pytorch", "nothing_left", "divides_by_rows")
"""Reasons with several sentences, where a near miss may have another one."""

PARAMETERS = [
    pytest.param(name, *case, id=f"{name}-{number}")
    for name, cases in CASES.items()
    for number, case in enumerate(cases)
]
FUNCTIONS = {reason.__name__: reason for reason in REASONS}


def test_every_reason_has_a_case_and_a_docstring() -> None:
    assert set(CASES) == set(FUNCTIONS)
    assert len(FUNCTIONS) == len(REASONS)
    assert all(reason.__doc__ for reason in REASONS)


@pytest.mark.parametrize(("name", "call", "words", "near"), PARAMETERS)
def test_a_reason_is_told_where_it_applies_and_not_where_it_nearly_does(
    name: str, call: Callable[[], Explanation], words: list[str], near: Callable[[], Explanation]
) -> None:
    said = FUNCTIONS[name](call())
    assert said is not None
    assert all(word in said for word in words), said
    assert said in call().reasons
    other = FUNCTIONS[name](near())
    assert other is None or (name in SEVERAL and not any(word in other for word in words)), other


@pytest.mark.parametrize("call", [call for cases in CASES.values() for call, _, _ in cases])
def test_sentences_are_sentences(call: Callable[[], Explanation]) -> None:
    found = call()
    for said in found.reasons:
        assert (
            said[0].isupper() or said[0].isdigit() or said.startswith(("pos_weight", "reduction=", "label_smoothing"))
        )
        assert said.endswith(".")
        assert "  " not in said
        assert "None" not in said.replace("None of the", "")
        assert "tensor(" not in said
    assert len(set(found.reasons)) == len(found.reasons)


def test_every_call_has_a_reason() -> None:
    assert explain(functional.cross_entropy, LOGITS, LABELS).reasons
    assert explain(torch.nn.CrossEntropyLoss(), Z2[:1], t(0)).reasons is not None
