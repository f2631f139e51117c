"""Every number of the worked examples, read from the file that they came in.

Printed digits are to be met within 1e-4; a number given in full, to its last digit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import steelyard
from steelyard import functional, information, nn

SEED = json.loads((Path(__file__).parent / "data" / "seed_values.json").read_text(encoding="utf-8"))

PRINTED = 1e-4
REMARKS = ("note",)  # prose beside numbers; what it says is checked where the numbers are


class Read:
    """A part of the file that remembers which of its leaves somebody has asked for."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data, self.unread = data, set(_leaves(data))

    def __getitem__(self, path: str) -> Any:
        """What stands at ``path`` (keys joined by ``/``); all leaves below count as read."""
        value: Any = self.data
        for key in path.split("/"):
            value = value[key]
        self.unread -= {leaf for leaf in self.unread if leaf == path or leaf.startswith(path + "/")}
        return value

    def tensor(self, path: str, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(self[path], dtype=dtype)


def _leaves(data: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}/")
        elif key not in REMARKS:
            yield prefix + key


def near(ours: Any, expected: Any, tolerance: float = PRINTED) -> None:
    torch.testing.assert_close(
        torch.as_tensor(ours, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=tolerance,
    )


def bce_with_logits_pos_weight(seed: Read) -> None:
    input, target, pos_weight = seed.tensor("input"), seed.tensor("target"), seed.tensor("pos_weight")
    loss = functional.binary_cross_entropy_with_logits
    near(loss(input, target, pos_weight=pos_weight, reduction="none"), seed["none"])
    near(loss(input, target, pos_weight=pos_weight), seed["mean"])
    near(nn.BCEWithLogitsLoss(pos_weight=pos_weight)(input, target), seed["mean"])
    near(loss(input.flip(0), target.flip(0), pos_weight=pos_weight), seed["mean"])


def bce_with_logits_all_ones(seed: Read) -> None:
    input = torch.full(seed["shape"], float(seed["logit"]))
    target = torch.full(seed["shape"], float(seed["target"]))
    pos_weight = torch.full(seed["shape"][-1:], float(seed["pos_weight"]))
    near(functional.binary_cross_entropy_with_logits(input, target, pos_weight=pos_weight), seed["mean"])


def bce_with_logits_equals_sigmoid_then_bce(seed: Read) -> None:
    input, target = seed.tensor("input"), seed.tensor("target")
    near(input.sigmoid(), seed["sigmoid"])
    near(functional.binary_cross_entropy_with_logits(input, target), seed["mean"])
    near(functional.binary_cross_entropy(input.sigmoid(), target), seed["mean"])
    near(functional.binary_cross_entropy(seed.tensor("sigmoid"), target), seed["mean"])


def bce(seed: Read) -> None:
    in_full = 1e-15
    near(functional.binary_cross_entropy(seed.tensor("input"), seed.tensor("target")), seed["mean"], in_full)
    near(nn.BCELoss()(seed.tensor("input"), seed.tensor("target")), seed["mean"], in_full)


def pos_weight_from_counts(seed: Read) -> None:
    positives, negatives = seed["positives"], seed["negatives"]
    near(steelyard.pos_weight([negatives, positives]), [seed["pos_weight"]], 0.0)
    counts = steelyard.ClassCounts(["spam"], [positives], negatives=[negatives])
    near(steelyard.pos_weight(counts), [seed["pos_weight"]], 0.0)
    assert negatives / positives == seed["pos_weight"]


def pos_weight_shapes(seed: Read) -> None:
    """(B, C, H, W), (C, H, W) and (C, 1, 1) broadcast as in PyTorch; (C,) lands on W."""
    b, c, h, w = 2, 3, 4, 3
    input, target = torch.randn(b, c, h, w), torch.rand(b, c, h, w)
    for shape in [(b, c, h, w), (c, h, w), (c, 1, 1), (c,)]:
        pos_weight = torch.rand(shape) + 0.5
        for reduction in ("none", "mean", "sum"):
            ours = functional.binary_cross_entropy_with_logits(
                input, target, pos_weight=pos_weight, reduction=reduction
            )
            theirs = torch.nn.functional.binary_cross_entropy_with_logits(
                input, target, pos_weight=pos_weight, reduction=reduction
            )
            torch.testing.assert_close(ours, theirs)
    per_class, on_w = torch.tensor([1.0, 10.0, 100.0]), torch.zeros(b, c, h, w)
    ones = torch.ones_like(on_w)
    loss = functional.binary_cross_entropy_with_logits(on_w, ones, pos_weight=per_class, reduction="none")
    near(loss, (per_class * torch.tensor(2.0).log()).expand_as(on_w))  # the last axis, and not the classes


def cross_entropy(seed: Read) -> None:
    input, target = seed.tensor("input"), seed.tensor("target", torch.int64)
    for part, weight in (("unweighted", None), ("weight_1_2", seed.tensor("weight_1_2/weight"))):
        for reduction in ("none", "sum", "mean"):
            expected = seed[f"{part}/{reduction}"]
            near(functional.cross_entropy(input, target, weight, reduction=reduction), expected)
            near(nn.CrossEntropyLoss(weight, reduction=reduction)(input, target), expected)
    divisor, weight = seed["weight_1_2/denominator"], seed.tensor("weight_1_2/weight")
    near(weight[target].sum(), divisor, 0.0)
    near(functional.cross_entropy(input, target, weight, denominator=divisor), seed["weight_1_2/mean"])


def nll_loss(seed: Read) -> None:
    input, target, weight = seed.tensor("input"), seed.tensor("target", torch.int64), seed.tensor("weight")
    for reduction in ("none", "sum", "mean"):
        near(functional.nll_loss(input, target, weight, reduction=reduction), seed[reduction])
        near(nn.NLLLoss(weight, reduction=reduction)(input, target), seed[reduction])


def weight_cancels_at_batch_one(seed: Read) -> None:
    input, target = seed.tensor("input"), seed.tensor("target", torch.int64)
    near(functional.cross_entropy(input, target, [1, 1]), seed["weight_1_1_mean"])
    near(functional.cross_entropy(input, target, [0.1, 1]), seed["weight_0.1_1_mean"])
    near(
        functional.cross_entropy(input, target, [0.1, 1], denominator="samples"),
        seed["weight_0.1_1_denominator_samples"],
    )
    said = seed["weight_0_1_mean"]
    assert "NaN with empty='nan'" in said
    assert "0.0 with empty='zero'" in said
    assert functional.cross_entropy(input, target, [0, 1]).isnan()
    assert functional.cross_entropy(input, target, [0, 1], empty="nan").isnan()
    assert functional.cross_entropy(input, target, [0, 1], empty="zero") == 0.0


def two_denominators(seed: Read) -> None:
    input, target, weight = seed.tensor("input"), seed.tensor("target", torch.int64), seed["weight"]
    over_weights, over_samples = seed["mean_over_weights"], seed["mean_over_samples"]
    near(functional.cross_entropy(input, target, weight), over_weights)
    near(functional.cross_entropy(input, target, weight, denominator="weights"), over_weights)
    near(functional.cross_entropy(input, target, weight, denominator="samples"), over_samples)
    one_hot = torch.nn.functional.one_hot(target, 2).double()
    near(functional.cross_entropy(input, one_hot, weight), over_samples)
    near(functional.cross_entropy(input, one_hot, weight, denominator="weights"), over_weights)


def class_weights(seed: Read) -> None:
    counts = seed["counts"]
    near(steelyard.class_weights(counts, "inverse"), seed["inverse"], 1e-8)
    near(steelyard.class_weights(counts, "max_ratio"), seed["max_ratio"], 0.0)
    near(steelyard.class_weights(counts), seed["max_ratio"], 0.0)
    near(steelyard.imbalance_ratio(counts), seed["imbalance_ratio"], 0.0)
    value = steelyard.ClassCounts(range(len(counts)), counts)
    near(value.majority_accuracy, seed["majority_accuracy"])
    below = seed["balanced_enough_below_ratio"]
    assert value.is_imbalanced()
    assert steelyard.ClassCounts([0, 1], [below, 1]).is_imbalanced()
    assert not steelyard.ClassCounts([0, 1], [below * 10 - 1, 10]).is_imbalanced()


def sampling_weights(seed: Read) -> None:
    # The shares of the example add up to 1.1, as those of several labels may, so no single-label ClassCounts has them:
    # the weights come from the classes' own counts in 1000 samples.
    shares, samples = seed["class_share"], 1000
    weight = samples * steelyard.class_weights([round(share * samples) for share in shares], "inverse")
    near(steelyard.sample_weights(list(range(len(shares))), weight), seed["sampling_weight"])
    near(steelyard.sample_weights([3, 0, 0], weight), [seed["sampling_weight"][i] for i in (3, 0, 0)])
    near([1 / share for share in shares], seed["sampling_weight"])


def information_in_nats(seed: Read) -> None:
    """Self-information −log p; H(P); D_KL(P, Q); H(P, Q) = H(P) + D_KL(P, Q)."""
    p = torch.rand(50, 7, dtype=torch.float64).softmax(-1)
    q = torch.rand(50, 7, dtype=torch.float64).softmax(-1)
    near(information.self_information(p), -p.log(), 1e-15)
    near(information.entropy(p), (p * -p.log()).sum(-1), 1e-14)
    near(information.kl_divergence(p, q), (p * (p / q).log()).sum(-1), 1e-14)
    near(information.cross_entropy(p, q), information.entropy(p) + information.kl_divergence(p, q), 1e-14)
    near(information.entropy(torch.tensor([0.5, 0.5])), torch.tensor(2.0).log(), 1e-7)  # nats, not bits


CHECKS: dict[str, Callable[[Read], None]] = {
    "bce_with_logits_pos_weight": bce_with_logits_pos_weight,
    "bce_with_logits_all_ones": bce_with_logits_all_ones,
    "bce_with_logits_equals_sigmoid_then_bce": bce_with_logits_equals_sigmoid_then_bce,
    "bce": bce,
    "pos_weight_from_counts": pos_weight_from_counts,
    "pos_weight_shapes": pos_weight_shapes,
    "cross_entropy": cross_entropy,
    "nll_loss": nll_loss,
    "weight_cancels_at_batch_one": weight_cancels_at_batch_one,
    "two_denominators": two_denominators,
    "class_weights": class_weights,
    "sampling_weights": sampling_weights,
    "information": information_in_nats,
}


@pytest.mark.parametrize("section", CHECKS)
def test_worked_example(section: str) -> None:
    data = SEED[section]
    seed = Read(data if isinstance(data, dict) else {})
    CHECKS[section](seed)
    assert not seed.unread, f"no check reads {sorted(seed.unread)}"


def test_every_section_has_a_check() -> None:
    assert set(CHECKS) == set(SEED) - {"about"}


def test_a_forgotten_number_is_noticed() -> None:
    """The check of the checks: a leaf that nobody reads stays in ``unread``."""
    seed = Read({"a": 1, "b": {"c": [2], "d": 3}, "note": "prose"})
    assert (seed["a"], seed["b/c"]) == (1, [2])
    assert seed.unread == {"b/d"}
