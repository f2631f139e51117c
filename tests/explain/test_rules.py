"""Every rule: a set-up that makes the mistake, with the number that was measured, and near misses that do not."""

from __future__ import annotations

import functools
import random
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from loss_examples import example, examples
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, TensorDataset
from torch.utils.data import WeightedRandomSampler as Weighted

from steelyard import ClassCounts, check, class_weights, functional, nn
from steelyard import pos_weight as pos_weight_of
from steelyard.compare import STRATEGIES
from steelyard.explain import RULES
from steelyard.registry import LossEntry

CE, BCE, NLL = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.NLLLoss
TCE, TBCE = torch.nn.CrossEntropyLoss, torch.nn.BCEWithLogitsLoss


def t(*values: Any) -> torch.Tensor:
    return torch.tensor(values)


def labels(*counts: int) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def rows(weights: list[float], of: torch.Tensor) -> Weighted:
    return Weighted([weights[int(y)] for y in of], len(of))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Focal(torch.nn.Module):
    """Focal loss as people write it; ``wrong`` takes p from the weighted loss."""

    def __init__(self, weight: torch.Tensor, wrong: bool, reduction: str = "mean", gamma: float = 2.0) -> None:
        super().__init__()
        self.weight, self.wrong, self.reduction, self.gamma = weight, wrong, reduction, gamma

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        plain = torch.nn.functional.cross_entropy(input, target, reduction="none")
        weighted = self.weight[target] * plain
        p = (-(weighted if self.wrong else plain)).exp()
        loss = (1 - p) ** self.gamma * weighted
        return {"mean": loss.mean(), "sum": loss.sum(), "none": loss}[self.reduction]


def alpha_focal(alpha: Any) -> Any:
    def loss(input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return alpha * (1 - torch.nn.functional.cross_entropy(input, target))

    loss.alpha, loss.gamma = alpha, 2.0  # type: ignore[attr-defined]
    return loss


class Ours:
    """A sampler of the library's shape: PyTorch's arguments, and what PyTorch lacks."""

    def __init__(self, weights: Any, num_samples: int, num_replicas: int | None = None, rank: int | None = None,
                 labels: Any = None) -> None:  # fmt: skip
        self.weights, self.num_samples, self.replacement = torch.as_tensor(weights), num_samples, True
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0
        if labels is not None:
            self.labels = torch.as_tensor(labels)

    def __iter__(self) -> Any:
        return iter(range(self.num_samples))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Balanced:
    """A class-balanced sampler: 1 draws the classes equally often, 0 as they are."""

    def __init__(self, labels: Any, num_samples: int | None = None, power: float = 1.0) -> None:
        self.labels, self.num_samples, self.power = torch.as_tensor(labels), num_samples, power

    def __iter__(self) -> Any:
        return iter(range(len(self.labels)))


class Unlabelled(Balanced):
    """One that keeps to itself which class a row has."""

    def __init__(self, labels: Any) -> None:
        super().__init__(labels)
        self.labels = [str(label) for label in labels]


class Split(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A data set that says which part it is, as torchvision's do."""

    def __init__(self, size: int, **says: Any) -> None:
        self.size = size
        for name, value in says.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class Replacing(DistributedSampler):  # type: ignore[type-arg]
    """What a trainer puts around a sampler of the user's."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(TensorDataset(torch.zeros(100)), num_replicas=2, rank=0)
        self.inner = SimpleNamespace(_sampler=sampler)


Y = labels(90, 10)
LOADER = DataLoader(TensorDataset(torch.zeros(100)), batch_size=10, sampler=rows([1.0, 9.0], Y))
VALIDATION = DataLoader(Split(100, split="val"), sampler=rows([1.0, 9.0], Y))
TESTING = DataLoader(torch.utils.data.Subset(Split(200, train=False), range(100)), sampler=rows([1.0, 9.0], Y))
TRAINING = DataLoader(Split(100, train=True, split="train"), sampler=rows([1.0, 9.0], Y))
DEALT = DistributedSampler(TensorDataset(torch.zeros(100)), num_replicas=4, rank=0)
MINE = rows([1.0, 9.0], Y)
P10 = torch.full((100,), 0.1)
ONE_HOT = torch.eye(2)
MIXED = t([0.7, 0.3], [0.2, 0.8])
MULTI = ClassCounts(["a", "b"], [20, 5], negatives=[80, 95])
GOOD = torch.where(Y == 1, 0.9, 0.02)

# code: (set-ups that make the mistake, what must be said), (near misses)
CASES: dict[str, tuple[list[tuple[dict[str, Any], list[str]]], list[dict[str, Any]]]] = {
    "SY101": (
        [
            ({"loss": CE([1.0, 9.0]), "sampler": rows([1.0, 9.0], Y), "labels": Y},
             ["raises class 1 by a factor of 9 against class 0", "by a factor of 9 again", "counts 9 times"]),
            ({"loss": BCE(pos_weight=[9.0]), "sampler": LOADER, "labels": Y}, ["by a factor of 9 again"]),
            ({"loss": nn.BalancedSoftmaxLoss([90, 10]), "sampler": MINE, "labels": Y}, ["counts 9 times"]),
            ({"loss": CE([1.0, 9.0]), "sampler": Balanced(Y)}, ["counts 9 times"]),
            ({"loss": CE([1.0, 9.0]), "sampler": Unlabelled(Y)}, ["draws rows by class", "corrected twice"]),
            ({"loss": CE([1.0, 9.0]), "sampler": Balanced(Y), "labels": Y}, ["counts 9 times"]),
            ({"loss": CE([1.0, 9.0]), "sampler": rows([1.0, 9.0], Y)}, ["the largest weight is 9 times"]),
            ({"loss": CE([1.0, 9.0]), "sampler": Ours([1.0, 9.0], 100, labels=Y), "labels": Y}, ["counts 9 times"]),
        ],
        [
            {"loss": CE([1.0, 3.0]), "sampler": rows([1.0, 3.0], Y), "labels": Y},  # half in each: balance
            {"loss": CE(), "sampler": rows([1.0, 9.0], Y), "labels": Y},
            {"loss": nn.LogitAdjustedLoss([90, 10], tau=0.0), "sampler": MINE, "labels": Y},
            {"loss": CE([1.0, 9.0]), "sampler": RandomSampler(Y), "labels": Y},
            {"loss": CE([1.0, 9.0]), "sampler": Balanced(Y, power=0.0), "labels": Y},
            {"loss": CE([1.0, 9.0]), "sampler": rows([1.0, 1.0], Y)},
            {"loss": CE([1.0, 9.0]), "sampler": Weighted(torch.rand(100).tolist(), 100)},  # rows by importance
            {"loss": CE([1.0, 1.2]), "sampler": rows([1.0, 9.0], Y), "labels": Y},
        ],
    ),
    "SY102": (
        [
            ({"sampler": Weighted([1.0, 9.0], 1000), "labels": labels(900, 100)},
             ["2 weights for 1,000 rows", "only rows 0 to 1", "one for each class"]),
            ({"sampler": DataLoader(TensorDataset(torch.zeros(50)), sampler=Weighted([1.0, 9.0, 3.0], 50))},
             ["3 weights for 50 rows"]),
            ({"sampler": Weighted([1.0] * 120, 100), "labels": Y}, ["draws rows from 100 on, which are not there"]),
            ({"sampler": Weighted([1.0, 9.0], 1000), "counts": [900, 100]}, ["as many as there are classes"]),
            ({"sampler": Weighted([1.0, 9.0], 1000), "loss": CE([1.0, 9.0])}, ["as many as there are classes"]),
        ],
        [
            {"sampler": rows([1.0, 9.0], Y), "labels": Y},
            {"sampler": Ours([1.0, 9.0], 100, labels=Y), "labels": Y},  # knows the class of every row
            {"sampler": LOADER},
            {"sampler": RandomSampler(Y), "labels": Y},
            {"sampler": Weighted([1.0, 9.0, 3.0], 5), "counts": [900, 100]},
        ],
    ),
    "SY103": (
        [
            ({"loss": CE(), "input": noise(6, 3).softmax(1)}, ["add up to 1", "CrossEntropyLoss takes", "0.55144"]),
            ({"loss": TCE(), "input": noise(6, 3).softmax(1).half()}, ["add up to 1"]),
            ({"loss": functional.focal_loss, "input": noise(2, 3, 4, 4).softmax(1)}, ["focal_loss takes logits"]),
            ({"loss": BCE(), "input": noise(64).sigmoid()}, ["All 64 inputs lie in (0, 1]", "probabilities"]),
            ({"loss": NLL(), "input": noise(6, 3)}, ["takes log-probabilities", "are above 0"]),
            ({"loss": NLL(), "input": -noise(6, 3).abs()}, ["do not add up to 1"]),
        ],
        [
            {"loss": CE(), "input": noise(6, 3).log_softmax(1)},  # harmless: its own log_softmax
            {"loss": CE(), "input": noise(6, 3)},
            {"loss": CE(), "input": t([0.1, 0.9], [0.0, 0.1])},
            {"loss": CE(), "input": t([0.1, 0.9])},  # one row that happens to add up to 1
            {"loss": NLL(), "input": noise(6, 3).log_softmax(1)},
            {"loss": nn.BCELoss(), "input": noise(64).sigmoid()},
            {"loss": CE(), "input": t([0.5, 1.0, -0.5], [0.9, -0.4, 0.5])},  # adds up to 1, below 0 too
            {"loss": BCE(), "input": noise(64)},
            {"loss": BCE(), "input": torch.zeros(64)},  # before any training
            {"loss": BCE(), "input": noise(64, 3).softmax(1)[:8, 0]},  # too few to tell
        ],
    ),
    "SY104": (
        [
            ({"loss": CE([1.0, 9.0]), "target": t(0, 0, 0, 1), "accumulation_steps": 2},
             ["2 micro-batches", "sum of weights", "from 2 to 10"]),
            ({"loss": CE([1.0, 9.0]), "world_size": 8}, ["8 ranks", "its own sum of weights"]),
            ({"loss": TCE(t(1.0, 9.0)), "input": noise(4, 2), "target": t(0, 0, 0, 1), "accumulation_steps": 2},
             ["the mean of the whole"]),
            ({"loss": CE(), "target": t(0, -100, 1, 1), "world_size": 2}, ["number of rows kept", "from 1 to 2"]),
            ({"loss": CE([1.0, 9.0], denominator="weights"), "target": MIXED, "world_size": 2}, ["2 ranks"]),
            ({"loss": BCE(pos_weight=[9.0], denominator="weights"), "target": t(0.0, 0.0, 1.0, 1.0), "world_size": 2},
             ["from 2 to 18"]),
            ({"loss": CE([1.0, 9.0]), "accumulation_steps": 2, "world_size": 3}, ["2 micro-batches × 3 ranks"]),
            ({"loss": CE([1.0, 9.0]), "target": t([0, 1, 1], [1, 0, 0]), "world_size": 4}, ["its own sum of weights."]),
        ],
        [
            {"loss": CE([1.0, 9.0]), "target": t(0, 0, 0, 1)},
            {"loss": CE(), "target": t(0, 0, 0, 1), "world_size": 4},
            {"loss": CE([2.0, 2.0]), "world_size": 4},
            {"loss": CE([1.0, 9.0], denominator=64.0), "world_size": 4},
            {"loss": CE([1.0, 9.0], denominator="samples"), "target": t(0, 0, 0, 1), "world_size": 4},
            {"loss": CE([1.0, 9.0]), "target": MIXED, "world_size": 2},  # divides by N
            {"loss": CE([1.0, 9.0]), "target": t(0, 1, 0, 1), "world_size": 2},  # pieces alike
            {"loss": TBCE(pos_weight=t(9.0)), "world_size": 4},
            {"loss": CE([1.0, 9.0], reduction="none"), "world_size": 4},
        ],
    ),
    "SY105": (
        [
            ({"loss": CE([0.1, 1.0]), "target": ONE_HOT}, ["divides by the 2 rows", "add up to 1.1", "scaled by 0.55"]),
            ({"loss": TCE(t(0.1, 1.0)), "target": MIXED}, ["scaled by"]),
            ({"loss": TCE(t(0.1, 1.0)), "target": torch.full((2, 2, 3, 3), 0.5)}, ["the 18 rows", "scaled by 0.55"]),
        ],
        [
            {"loss": CE([0.1, 1.0], denominator="weights"), "target": MIXED},
            {"loss": CE([0.1, 1.0]), "target": t(0, 1)},
            {"loss": CE([0.5, 1.5]), "target": ONE_HOT},  # 1 on average
            {"loss": CE(), "target": MIXED},
            {"loss": CE([0.1, 1.0], reduction="sum"), "target": MIXED},
        ],
    ),
    "SY106": (
        [
            ({"loss": CE([1 / 9000, 1 / 1000], denominator="samples"), "counts": [9000, 1000]}, ["average 0.0002"]),
            ({"loss": CE([10.0, 90.0], reduction="sum"), "target": t(0, 0, 1, 1)}, ["average 50", "A sum does not"]),
            ({"loss": TBCE(pos_weight=t(300.0)), "target": torch.tensor([1.0] + [0.0] * 9)}, ["average 30.9"]),
            ({"loss": TBCE(pos_weight=t(40.0, 95.0)), "counts": MULTI}, ["average 7.2"]),
        ],
        [
            {"loss": CE([1 / 9000, 1 / 1000]), "counts": [9000, 1000]},  # cancels
            {"loss": CE(class_weights([9000, 1000], "balanced"), denominator="samples"), "counts": [9000, 1000]},
            {"loss": CE(class_weights([9000, 1000], normalize="prior"), reduction="sum"), "counts": [9000, 1000]},
            {"loss": TBCE(pos_weight=t(32.0)), "counts": [3200, 100]},
            {"loss": CE([10.0, 90.0], denominator=4.0), "counts": [9000, 1000]},
            {"loss": CE([10.0, 90.0], reduction="none"), "counts": [9000, 1000]},
            {"loss": nn.SigmoidFocalLoss(), "counts": [9000, 1000]},
        ],
    ),
    "SY107": (
        [
            ({"loss": CE.from_counts([100000, 100, 10]), "counts": [100000, 100, 10]},
             ["10,000 times", "60 of 100,110 rows carry half", "81.8 (0.082 %)"]),
            ({"loss": TBCE(pos_weight=t(999.0)), "counts": [9990, 10]}, ["10 of 10,000 rows", "(0.4 %)"]),
            ({"loss": CE([1.0, 1000.0]), "target": labels(999, 1)}, ["1 of 1,000 rows"]),
        ],
        [
            {"loss": CE.from_counts([100000, 100, 10], power=0.3), "counts": [100000, 100, 10]},
            {"loss": CE.from_counts([900, 90, 25], "balanced"), "counts": [900, 90, 25]},
            {"loss": CE([1.0, -0.8]), "counts": [900, 1000]},  # which SY125 tells
            {"loss": CE([1.0, 1000.0]), "target": t(0, 0, 1)},  # too few rows to speak of
            {"loss": CE([1.0, 1000.0])},
        ],
    ),
    "SY108": (
        [
            ({"counts": [900, 0, 100]}, ["Class 1 of 3 has no samples among 1,000 rows"]),
            ({"counts": ClassCounts(["cat", "dog", "eel"], [0, 5, 0])}, ["Classes 'cat', 'eel' of 3 have no samples"]),
            ({"counts": ClassCounts(["a", "b"], [5, 10], negatives=[5, 0])}, ["'b'", "no negatives"]),
            ({"counts": [50, 50], "labels": t(0, 1, 2, 2)}, ["2 of 4 labels", "counts do not have"]),
            ({"counts": ClassCounts(["cat", "dog"], [3, 1]), "labels": ["cat", "eel"]}, ["1 of 2 labels"]),
        ],
        [{"counts": [900, 1, 100]}, {"counts": [50, 50], "labels": [0, 1, 1]}, {"counts": MULTI},
         {"counts": ClassCounts(["cat", "dog"], [3, 1]), "labels": ["dog", "cat", "cat", "cat"]}],
    ),
    "SY109": (
        [
            ({"loss": CE([1e-4, 1e-4]), "counts": [5_000_000, 500_000]}, ["a factor of 10", "by 0 %"]),
            ({"loss": CE(class_weights([900, 60], lambda n: (1 - 0.9) / (1 - 0.9**n))), "counts": [900, 60]},
             ["a factor of 15", "by 0.2 %"]),
            ({"loss": CE([1.0, 1.0]), "labels": Y}, ["a factor of 9"]),
        ],
        [
            {"loss": CE([1.0, 1.0]), "counts": [500, 400]},
            {"loss": CE(class_weights([900, 60], "effective_number")), "counts": [900, 60]},
            {"loss": CE(), "counts": [900, 60]},
            {"loss": CE([1.0, 1.0])},
        ],
    ),
    "SY110": (
        [
            ({"loss": Focal(t(1.0, 10.0), True), "input": noise(9, 2), "target": labels(5, 4)},
             ["weight 10", "one of probability 0.34868"]),
            ({"loss": Focal(t(1.0, 10.0), True, "sum"), "input": noise(9, 2), "target": labels(5, 4)}, ["0.34868"]),
            ({"loss": Focal(t(1.0, 4.0), True, "none"), "input": noise(9, 2), "target": labels(5, 4)}, ["0.6561"]),
        ],
        [
            {"loss": Focal(t(1.0, 10.0), False), "input": noise(9, 2), "target": labels(5, 4)},
            {"loss": Focal(t(1.0, 10.0), False, "none"), "input": noise(9, 2), "target": labels(5, 4)},
            {"loss": Focal(t(1.0, 1.0), True), "input": noise(9, 2), "target": labels(5, 4)},  # p^1
            {"loss": Focal(t(1.0, 10.0), True, gamma=0.0), "input": noise(9, 2), "target": labels(5, 4)},
            {"loss": nn.FocalLoss([1.0, 10.0]), "input": noise(9, 2), "target": labels(5, 4)},
            {"loss": Focal(t(1.0, 10.0), True)},
            {"loss": Focal(t(1.0, 10.0), False), "input": noise(9, 2), "target": labels(9)},  # weight 1: all the same
        ],
    ),
    "SY111": (
        [
            ({"loss": nn.FocalLoss([0.25, 0.25, 0.25])}, ["All 3 weights are 0.25"]),
            ({"loss": alpha_focal(0.25), "input": noise(9, 3), "target": labels(3, 3, 3)},
             ["α = 0.25 is one number for 3 classes", "the learning rate, by 0.25"]),
            ({"loss": alpha_focal(t(0.25)), "input": noise(9, 5)}, ["for 5 classes"]),
        ],
        [
            {"loss": alpha_focal(t(0.25, 0.5, 0.25)), "input": noise(9, 3), "target": labels(3, 3, 3)},
            {"loss": alpha_focal(0.25), "input": noise(9, 1), "target": torch.zeros(9, 1)},
            {"loss": alpha_focal(0.25), "input": noise(9, 3), "target": torch.zeros(9, 3)},  # several labels: sigmoid
            {"loss": nn.SigmoidFocalLoss(alpha=0.25), "input": noise(9, 3)},
            {"loss": CE([1.0, 1.0, 1.0])},
            {"loss": CE([0.25, 0.5, 0.25])},
        ],
    ),
    "SY112": (
        [
            ({"loss": TBCE(pos_weight=t(1 / 3)), "counts": [300, 100]}, ["100 positives and 300", "inverted"]),
            ({"loss": BCE(pos_weight=[0.25, 5 / 95]), "counts": MULTI}, ["inverted", "first class"]),
            ({"loss": TBCE(pos_weight=t(300.0)), "counts": [300, 100]}, ["the number of negatives itself"]),
            ({"loss": TBCE(pos_weight=t(100.0)), "counts": [300, 100]}, ["the number of positives itself"]),
            ({"loss": TBCE(pos_weight=t(1.0, 3.0)), "input": noise(5, 1)}, ["2 numbers, 1 and 3, for one logit"]),
            ({"loss": TBCE(pos_weight=t(1.0, 3.0)), "counts": [300, 100]}, ["2 numbers"]),
            ({"loss": TBCE(pos_weight=t(1 / 9)), "labels": Y}, ["10 positives and 90 negatives"]),
            ({"loss": TBCE(pos_weight=t(1 / 9)), "target": Y.float()}, ["inverted"]),
        ],
        [
            {"loss": TBCE(pos_weight=t(3.0)), "counts": [300, 100]},
            {"loss": TBCE(pos_weight=pos_weight_of([300, 100]).sqrt()), "counts": [300, 100]},
            {"loss": TBCE(pos_weight=t(1.0)), "counts": [100, 100]},
            {"loss": BCE(pos_weight=pos_weight_of(MULTI)), "counts": MULTI},
            {"loss": TBCE(pos_weight=t(1.0, 3.0)), "input": noise(5, 2)},
            {"loss": TBCE(pos_weight=t(1.0, 3.0)), "counts": MULTI},
            {"loss": TBCE(pos_weight=t(100.0)), "counts": [10000, 100]},  # a count and the ratio alike
            {"loss": TBCE(pos_weight=t(3.0)), "counts": [300, 100, 7]},
        ],
    ),
    "SY113": (
        [
            ({"loss": BCE(pos_weight=[1.0, 2.0, 3.0]), "input": noise(2, 3, 4, 3)},
             ["(3,)", "as long, so nothing fails", "axis 1"]),
            ({"loss": TBCE(pos_weight=t(1.0, 2.0, 3.0)), "input": noise(2, 3, 4, 5)}, ["which has 5"]),
        ],
        [
            {"loss": BCE(pos_weight=torch.ones(3, 1, 1) * 2), "input": noise(2, 3, 4, 3)},
            {"loss": BCE(pos_weight=[1.0, 2.0, 3.0]), "input": noise(2, 7, 3)},  # classes last
            {"loss": BCE(pos_weight=[1.0, 2.0, 3.0]), "input": noise(2, 3)},
            {"loss": BCE(pos_weight=[2.0]), "input": noise(2, 1, 4, 3)},
        ],
    ),
    "SY114": (
        [
            ({"loss": CE(), "input": noise(3, 3), "target": t(1, 2, 3)},
             ["1 of 3 labels", "outside 0 to 2", "3 at position 2", "counted from 1"]),
            ({"loss": TCE(), "input": noise(2, 3, 2), "target": t([0, 255], [255, 1])},
             ["2 of 4 labels", "position (0, 1)", "All of them are 255"]),
            ({"loss": TCE(), "input": noise(2, 3), "target": t(0, -1)}, ["All of them are -1"]),
            ({"loss": CE([1.0, 2.0]), "target": t(0, 7)}, ["7 at position 1"]),
            ({"loss": TBCE(), "target": t(0.0, 2.0)}, ["1 of 2 targets", "outside [0, 1]", "2 at position 1"]),
            ({"counts": ClassCounts([0, 1, 255], [50, 40, 10])}, ["Label 255 is counted as a class of 10", "0 to 1"]),
            ({"counts": ClassCounts([-1, 0, 1], [9, 50, 40])}, ["Label -1", "ignore_index=-1"]),
        ],
        [
            {"loss": CE(ignore_index=255), "input": noise(2, 3, 2), "target": t([0, 255], [255, 1])},
            {"loss": CE(), "input": noise(2, 3), "target": t(-100, 2)},
            {"loss": CE(), "input": noise(3, 4), "target": t(1, 2, 3)},
            {"loss": TBCE(), "target": t(0.0, 1.0, 0.5)},
            {"loss": BCE(ignore_index=-1), "target": t(0.0, -1.0)},
            {"loss": CE(), "input": noise(2, 3), "target": torch.rand(2, 3)},
            {"target": t(0, 7)},
            {"counts": ClassCounts(range(256), [5] * 256)},  # in which 255 is one of them
            {"counts": ClassCounts([-1, 1], [50, 40])},  # a way to write no and yes
            {"counts": ClassCounts([0, 1, 3], [50, 40, 10])},
            {"counts": ClassCounts(["-1", "0", "1"], [9, 50, 40])},
        ],
    ),
    "SY115": (
        [
            ({"loss": CE(ignore_index=0), "input": torch.zeros(2, 4)}, ["Class 0 (ignore_index)", "25 % of the"]),
            ({"loss": CE([0.0, 1.0, 1.0])}, ["Class 0 (weight 0)"]),
            ({"loss": TCE(t(0.0, 0.0, 1.0)), "counts": [5, 5, 5]}, ["Classes 0 (weight 0), 1 (weight 0)"]),
        ],
        [
            {"loss": CE(ignore_index=255), "input": noise(2, 3)},
            {"loss": CE(), "input": noise(2, 3)},
            {"loss": CE([0.0, 1.0, 1.0], logit_offset=[-torch.inf, 0.0, 0.0])},  # taken out
            {"loss": CE([0.0, 1.0, 1.0]), "counts": [0, 5, 5]},  # never occurs
            {"loss": NLL(ignore_index=0), "input": noise(2, 3).log_softmax(1)},  # no softmax of its own
            {"loss": CE([0.0, 0.0])},
        ],
    ),
    "SY116": (
        [
            ({"loss": nn.BalancedSoftmaxLoss([40, 60]), "labels": labels(900, 100)}, ["share of 40 %", "90 %"]),
            ({"loss": nn.BalancedSoftmaxLoss([500, 500]), "labels": labels(900, 100)}, ["as after resampling"]),
            ({"counts": [7, 1], "labels": labels(900, 100)}, ["cover 8 rows", "1,000"]),
            ({"counts": [500, 500], "labels": labels(900, 100)}, ["The counts give class 0 a share of 50 %"]),
            ({"loss": nn.LogitAdjustedLoss([50, 50]), "counts": [900, 100]}, ["the counts given"]),
            ({"loss": CE([9.0, 1.0]), "counts": [900, 100]}, ["Class 1 has 100 rows and weight 1", "another order"]),
        ],
        [
            {"loss": nn.BalancedSoftmaxLoss([720, 80]), "labels": labels(900, 100)},  # the training part of it
            {"loss": nn.BalancedSoftmaxLoss([715, 85]), "labels": labels(900, 100)},  # by chance
            {"loss": nn.BalancedSoftmaxLoss([28, 2]), "labels": labels(97, 3)},  # twice the share, of two rows
            {"loss": CE([1.0, 9.0]), "counts": [900, 100]},
            {"loss": CE([1.0, 1.0, 0.99]), "counts": [900, 100, 50]},
            *({"loss": CE(class_weights([9000, 700, 40], scheme)), "counts": [9000, 700, 40]} for scheme in (
                "inverse", "balanced", "sqrt_inverse", "effective_number", "median_frequency", "log")),
        ],
    ),
    "SY117": (
        [
            ({"sampler": rows([1.0, 9.0], Y), "labels": Y, "probabilities": P10},
             ["the 100 rows that the probabilities are of", "50 % of the draws and 10 % of the rows"]),
            ({"sampler": Balanced(Y), "labels": Y, "probabilities": P10}, ["50 % of the draws"]),
            ({"sampler": VALIDATION}, ["a data set with split='val'"]),
            ({"sampler": TESTING}, ["train=False"]),
        ],
        [
            {"sampler": TRAINING, "labels": Y},
            {"sampler": rows([1.0, 9.0], Y), "labels": Y},
            {"sampler": rows([1.0, 9.0], Y), "labels": labels(5, 5), "probabilities": torch.full((10,), 0.5)},
            {"sampler": rows([1.0, 1.0], Y), "labels": Y, "probabilities": P10},
            {"sampler": MINE, "labels": labels(5, 5), "probabilities": P10},  # as many by coincidence
            {"sampler": DataLoader(Split(100, split="val"), shuffle=True)},
        ],
    ),
    "SY118": (
        [
            ({"loss": BCE(pos_weight=[49.0]), "counts": [9800, 200], "threshold": 0.5},
             ["true probability of 0.02", "cut at 0.98", "p / (p + 49·(1 − p))"]),
            ({"loss": CE([1.0, 9.0]), "labels": Y, "probabilities": torch.full((100,), 0.5)},
             ["class 1 average 50 %", "of these rows is 10 %", "class weights"]),
            ({"loss": CE(), "sampler": MINE, "labels": Y, "threshold": 0.5}, ["true probability of 0.1"]),
            ({"loss": nn.BalancedSoftmaxLoss([90, 10]), "counts": [90, 10], "probabilities": torch.full((500, 2), 0.5)},
             ["of the training rows is 10 %", "log counts"]),
            ({"loss": CE([1.0, 1.0, 8.0]), "probabilities": torch.full((9, 3), 1 / 3)}, ["bends the odds by up to 8"]),
        ],
        [
            {"loss": CE(), "labels": Y, "probabilities": torch.full((100,), 0.5)},
            {"loss": CE([1.0, 9.0]), "labels": Y, "probabilities": P10, "threshold": 0.5},  # already taken back
            {"loss": CE([1.0, 9.0]), "labels": labels(9, 1), "probabilities": torch.full((10,), 0.2)},  # or chance
            {"loss": CE([1.0, 9.0]), "labels": Y, "threshold": 0.9},
            {"loss": CE([1.0, 9.0]), "labels": Y},
            {"loss": CE([2.0, 2.0]), "labels": Y, "threshold": 0.5},
            {"loss": CE([1.0, 1.2]), "labels": Y, "threshold": 0.5},
        ],
    ),
    "SY119": (
        [
            ({"loss": TCE(torch.ones(2, dtype=torch.float64)), "input": noise(4, 2)}, ["float64, the input float32"]),
            ({"loss": CE([1.0, 2.0]), "input": torch.zeros(4, 2, device="meta")}, ["on cpu, the input on meta"]),
            ({"loss": functools.partial(torch.nn.functional.nll_loss, weight=torch.ones(2, dtype=torch.float64)),
              "input": noise(4, 2)}, ["nll_loss does not convert"]),
        ],
        [
            {"loss": CE(torch.ones(2, dtype=torch.float64)), "input": noise(4, 2)},  # cast once
            {"loss": TCE(torch.ones(2)), "input": noise(4, 2)},
            {"loss": TCE(torch.ones(2)), "input": noise(4, 2).bfloat16()},  # under autocast all is well
            {"loss": TBCE(pos_weight=torch.ones(2, dtype=torch.float64)), "input": noise(4, 2)},
            {"loss": TCE(torch.ones(2, dtype=torch.float64))},
        ],
    ),
    "SY120": (
        [
            ({"sampler": MINE, "world_size": 4}, ["each of the 4 ranks", "with one seed the same ones"]),
            ({"sampler": Ours([1.0] * 100, 100), "world_size": 2}, ["knows nothing of ranks"]),
            ({"sampler": DataLoader(TensorDataset(torch.zeros(9))), "world_size": 2}, ["ones in the same order"]),
            ({"sampler": DEALT, "world_size": 8}, ["to 4 ranks, and there are 8"]),
            ({"sampler": (MINE, DataLoader(TensorDataset(torch.zeros(100)), sampler=DEALT))},
             ["WeightedRandomSampler was meant to run, and DistributedSampler does"]),
            ({"sampler": SimpleNamespace(__iter__=None, num_replicas=2, shuffle=True), "world_size": 2},
             ["has no set_epoch"]),
            ({"sampler": Weighted([1.0] * 9, 9, generator=torch.Generator()), "world_size": 2}, ["its generator"]),
        ],
        [
            {"sampler": DEALT, "world_size": 4},
            {"sampler": MINE},
            {"sampler": Ours([1.0] * 100, 100, num_replicas=4, rank=1), "world_size": 4},
            {"sampler": (MINE, DataLoader(TensorDataset(torch.zeros(100)), sampler=MINE))},
            {"sampler": (MINE, Replacing(MINE))},
            {"sampler": (LOADER, LOADER)},
        ],
    ),
    "SY121": (
        [
            ({"probabilities": torch.full((100,), 0.01), "labels": labels(99, 1)},
             ["Accuracy is 99 %", "class 0 is right for 99 %", "finds 0 % (0 of 1 rows)", "balanced accuracy is 50 %"]),
            ({"probabilities": torch.tensor([[0.9, 0.1, 0.0]]).expand(200, 3), "labels": labels(190, 5, 5)}, ["95 %"]),
        ],
        [
            {"probabilities": torch.where(labels(99, 1) == 1, 0.9, 0.01), "labels": labels(99, 1)},
            {"probabilities": torch.full((100,), 0.2), "labels": labels(80, 20)},
            {"probabilities": torch.full((10,), 0.01), "labels": labels(10)},
            {"probabilities": torch.full((100,), 0.01), "labels": labels(99, 1), "threshold": 0.005},
            {"labels": labels(99, 1)},
            {"counts": [99, 1]},
        ],
    ),
    "SY122": (
        [
            ({"loss": TCE(reduction="sum"), "target": torch.zeros(256, dtype=torch.long)}, ["256 rows", "256 times"]),
            ({"loss": BCE(reduction="sum"), "target": torch.zeros(4, 5)}, ["20 elements"]),
            ({"loss": functools.partial(functional.cross_entropy, reduction="sum")}, ["grow with the batch"]),
        ],
        [{"loss": TCE()}, {"loss": CE(denominator=256.0)}, {"loss": TCE(reduction="none")}],
    ),
    "SY123": (
        [
            ({"loss": BCE(), "input": noise(8, 1), "target": torch.zeros(8)}, ["64 pairs of 8", "input.squeeze(1)"]),
            ({"loss": BCE(), "input": noise(8), "target": torch.zeros(8, 1)}, ["target.squeeze(1)"]),
            ({"input": noise(8, 1), "target": torch.zeros(8)}, ["64 pairs"]),
            ({"loss": CE(), "input": noise(8, 3), "target": torch.zeros(8, 1).long()}, ["target.squeeze(1)"]),
        ],
        [
            {"loss": BCE(), "input": noise(8, 1), "target": torch.zeros(8, 1)},
            {"loss": CE(), "input": noise(8, 3), "target": torch.zeros(8).long()},
            {"loss": CE(), "input": noise(1, 3), "target": torch.zeros(1, 3)},
            {"loss": BCE(), "input": noise(8, 2), "target": torch.zeros(8)},
        ],
    ),
    "SY124": (
        [
            ({"loss": CE(), "input": noise(2, 3), "target": t(0.0, 2.0)}, ["shape of labels, (2,)", ".long()"]),
            ({"loss": TCE(), "input": noise(2, 3), "target": t([1, 0, 0], [0, 1, 0])}, ["one-hot rows", "argmax(1)"]),
            ({"loss": CE(), "input": noise(2, 3), "target": t([1.0, 1.0, 0.0], [0.0, 1.0, 0.0])},
             ["1 of 2 rows", "1 to 2", "several classes at once", "BCEWithLogitsLoss"]),
            ({"loss": CE(), "input": noise(2, 3), "target": t([0.5, 0.2, 0.0], [0.0, 1.0, 0.0])}, ["no distribution"]),
            ({"loss": TBCE(), "target": t(0, 1)}, ["int64", "target.float()"]),
        ],
        [
            {"loss": BCE(), "target": t(0, 1)},  # ours converts
            {"loss": TBCE(), "target": t(0.0, 1.0)},
            {"loss": CE(), "input": noise(2, 3), "target": noise(2, 3).softmax(1)},
            {"loss": CE(), "input": noise(2, 3), "target": t(0, 2).to(torch.uint8)},
            {"loss": CE(), "target": t(0.0, 2.0)},
        ],
    ),
    "SY125": (
        [
            ({"loss": TCE(t(1.0, -1.0))}, ["−1 at position 1"]),
            ({"loss": TBCE(pos_weight=t(-2.0))}, ["'pos_weight' holds −2"]),
        ],
        [{"loss": TCE(t(1.0, 0.0))}, {"loss": TBCE(pos_weight=t(0.0))}],
    ),
    "SY126": (
        [
            ({"sampler": rows([9.0, 1.0], Y), "labels": Y}, ["makes up 1.2 % of the draws and 10 % of the rows"]),
            ({"sampler": rows([1.0, 0.0], Y), "labels": Y}, ["makes up none of the draws"]),
            ({"sampler": rows([2.0, 1.0, 9.0], labels(60, 10, 30)), "labels": labels(60, 10, 30)}, ["Class 1,"]),
            ({"sampler": Ours([9.0] * 90 + [1.0] * 10, 100, labels=Y)}, ["Ours favours"]),
        ],
        [
            {"sampler": rows([1.0, 9.0], Y), "labels": Y},
            {"sampler": rows([1.2, 1.0], Y), "labels": Y},
            {"sampler": rows([9.0, 1.0], labels(50, 50)), "labels": labels(50, 50)},
            {"sampler": Weighted([9.0, 1.0], 1000), "labels": labels(900, 100)},  # which SY102 tells
            {"sampler": RandomSampler(Y), "labels": Y},
        ],
    ),
}  # fmt: skip

MADE = [pytest.param(code, *case, id=f"{code}-{i}") for code, (bad, _) in CASES.items() for i, case in enumerate(bad)]
NEAR = [pytest.param(code, case, id=f"{code}-{i}") for code, (_, near) in CASES.items() for i, case in enumerate(near)]


def test_every_rule_has_cases_on_both_sides() -> None:
    assert sorted(RULES) == sorted(CASES) == [f"SY{number}" for number in range(101, 127)]
    assert all(bad and near for bad, near in CASES.values())


@pytest.mark.parametrize(("code", "setup", "words"), MADE)
def test_a_mistake_is_found_and_measured(code: str, setup: dict[str, Any], words: list[str]) -> None:
    found = {finding.code: finding for finding in check(**setup)}
    assert code in found, found
    text = f"{found[code].message} {found[code].fix}"
    assert all(word in text for word in words), text
    assert found[code].severity == RULES[code].severity


@pytest.mark.parametrize(("code", "setup"), NEAR)
def test_a_near_miss_is_none(code: str, setup: dict[str, Any]) -> None:
    found = {finding.code: finding for finding in check(**setup)}
    assert code not in found, found[code]


@pytest.mark.parametrize("setup", [case for bad, _ in CASES.values() for case, _ in bad])
def test_messages_are_sentences(setup: dict[str, Any]) -> None:
    for finding in check(**setup):
        for text in (finding.message, finding.fix):
            assert (
                text[0].isupper()
                or text[0] in "'1234567890α"
                or text.startswith(("pos_weight", "nll_loss", "reduction="))
            )
            assert text.endswith("."), text
            assert "  " not in text
            assert "tensor(" not in text
            assert not re.search(r"(?<!=)\bNone\b", text)


# --------------------------------------------------------------------------------------------------- no false alarms


@pytest.mark.parametrize(("entry", "targets", "full"), examples(rich=(False,)))
@pytest.mark.parametrize("trailing", [(), (2,)])
def test_every_loss_at_its_defaults_is_fine(entry: LossEntry, targets: str, full: bool, trailing: Any) -> None:
    if trailing and entry.input == "features":
        return
    case = example(entry, targets, rows=64, trailing=trailing)
    module = case.module() if not trailing else entry.module(*case.rest[1:])
    counts = [70, 20, 9, 1] if targets != "elements" else None
    assert check(loss=module, input=case.input, target=case.target, counts=counts) == []
    assert check(loss=entry.function) == []


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("counts", [[900, 100], [11019, 7309, 1560, 302], [41, 859, 2783, 1834, 740, 109]])
def test_every_remedy_of_the_comparison_is_fine(name: str, counts: list[int]) -> None:
    training = STRATEGIES[name].training(torch.tensor(counts))
    y = labels(*counts)
    sampler = None
    if training.class_sampling is not None:
        sampler = Weighted(training.class_sampling[y].tolist(), len(y))
    batch = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:256]
    for loss in filter(None, (training.loss, training.validation_loss)):
        used = sampler if loss is training.loss else None
        found = check(loss=loss, input=noise(256, len(counts)), target=y[batch], counts=counts, labels=y, sampler=used)
        assert found == [], f"{name}: {found}"


def test_nothing_given_nothing_found() -> None:
    assert check() == []
    assert check(accumulation_steps=4, world_size=2) == []


def test_any_mixture_of_set_ups_is_answered() -> None:
    every = [setup for bad, near in CASES.values() for setup in [made for made, _ in bad] + near]
    chance = random.Random(0)
    for _ in range(300):
        mixture: dict[str, Any] = {}
        for setup in chance.sample(every, 3):
            mixture |= setup
        assert all(finding.code in RULES for finding in check(**mixture))
    narrow = {"loss": CE([0.0, 1.0, 0.0]), "input": torch.zeros(1, 1, 2)}
    assert "SY115" in [finding.code for finding in check(**narrow)]


def test_batch_samplers_and_loaders_are_opened() -> None:
    inner = Weighted([1.0, 9.0], 1000)
    batches, data = BatchSampler(inner, 10, False), TensorDataset(torch.zeros(1000))
    for sampler in (batches, DataLoader(data, batch_sampler=batches), DataLoader(data, batch_size=10, sampler=inner)):
        assert [finding.code for finding in check(sampler=sampler, labels=labels(900, 100))] == ["SY102"]
