"""Rules on probabilities, cut-offs and scores."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.explain._rule import Said, rule
from steelyard.explain._setup import Setup, spread
from steelyard.explain._words import number, percent

BENT = 1.5
"""Odds or shares that are off by less are left to calibration."""


def by_class(setup: Setup) -> Tensor | None:
    """The probabilities as ``(N, C)``, those of one yes/no question as no and yes."""
    p = setup.probabilities
    if p is None:
        return None
    if p.dim() == 1 or p.shape[1] == 1:
        yes = p.reshape(-1, 1)
        return torch.cat([1 - yes, yes], 1)
    sums = p.sum(1)
    return p if bool(((sums - 1).abs() < 0.01).all()) else None


def _shares(setup: Setup, p: Tensor) -> tuple[Tensor, float, str] | None:
    """How often each class really occurs, how many rows say so, and where that is from."""
    labels = setup.labels
    if labels is not None and labels.dim() == 1 and len(labels) == len(p) and int(labels.max()) < p.shape[1]:
        counts, where = torch.bincount(labels, minlength=p.shape[1]).double(), "of these rows"
    elif setup.natural is not None and len(setup.natural) == p.shape[1]:
        counts, where = setup.natural, "of the training rows"
    else:
        return None
    total = float(counts.sum())
    return (counts / total, total, where) if total else None


def inflated(setup: Setup) -> tuple[int, float, float, str] | bool | None:
    """The class whose mean probability is furthest from its share; False if none is, None if that cannot be known."""
    p = by_class(setup)
    if p is None:
        return None
    found = _shares(setup, p)
    if found is None:
        return None
    share, total, where = found
    said = p.mean(0)
    noise = (share * (1 - share) * (1 / total + 1 / len(p))).sqrt()
    ratio = torch.where(share > 0, said / share, 1.0)
    off = ((ratio > BENT) | (ratio < 1 / BENT)) & ((said - share).abs() > 3 * noise)
    if not bool(off.any()):
        return False
    worst = int(torch.where(off, ratio.log().abs(), -1.0).argmax())
    return worst, float(said[worst]), float(share[worst]), where


@rule(
    "SY118",
    "warning",
    "Probabilities taken at their word after weighting",
    symptom="The model says 40 % for what happens 2 % of the time; far too many alarms at a cut-off of 0.5.",
    reason="Weights and samplers move the odds that the network learns by their ratio W. What it says is no frequency, "
    "and 0.5 of it is a true probability of 1 / (1 + W).",
    fine="Probabilities with the bend taken back out, or a cut-off tuned on what the model says.",
    example="""
loss = nn.BCEWithLogitsLoss(pos_weight=[49.0])
print(check(loss=loss, counts=[9800, 200], threshold=0.5))
""",
)
def taken_at_their_word(setup: Setup) -> Said:
    """Bent probabilities, or 0.5 on them."""
    bend, off = setup.bend, inflated(setup)
    if bend is None or off is False or (setup.probabilities is None and setup.threshold is None):
        return None
    two = len(bend) == 2
    ratio = float(bend[1]) if two else 0.0
    half = setup.threshold is not None and abs(setup.threshold - 0.5) < 1e-9
    said = []
    if isinstance(off, tuple):
        worst, mean, share, where = off
        said.append(
            f"The probabilities of class {setup.named(worst)} average {percent(mean)}, its share {where} is "
            f"{percent(share)}: training with {_causes(setup)} has bent them."
        )
    elif setup.probabilities is not None and spread(bend) >= BENT:
        said.append(f"Training with {_causes(setup)} bends the odds by up to {number(spread(bend))}.")
    if half and two and not 1 / BENT < ratio < BENT:
        said.append(
            f"A cut-off of 0.5 on what the model says is a true probability of {number(1 / (1 + ratio))}; for a true "
            f"0.5 cut at {number(ratio / (ratio + 1))}."
        )
    if not said:
        return None
    if two:
        undo = f"Take p / (p + {number(ratio)}·(1 − p)) for the probability p that the model says"
    else:
        undo = (
            "Divide the probabilities by what training multiplied them with (weights, and drawn over natural shares) "
        )
        undo += "and renormalise"
    exact = "" if setup.drawn is not None else "steelyard.posterior.posterior(logits, loss) does it for you. "
    return " ".join(said), f"{undo}. {exact}Or tune the cut-off on held-out rows."


def _causes(setup: Setup) -> str:
    found = []
    if setup.pos_weight is not None:
        found.append("pos_weight")
    elif setup.weight is not None and spread(setup.weight) > 1.01:
        found.append("class weights")
    if setup.option("counts") is not None:
        found.append("log counts on the logits")
    if setup.sampling is not None and setup.drawn is not None:
        found.append("a sampler by class")
    return " and ".join(found) or "weights"


@rule(
    "SY121",
    "warning",
    "Accuracy on imbalanced data",
    symptom="99 % accuracy, and no rare case is found.",
    reason="Always answering the most frequent class is right as often as that class occurs. Accuracy shows how a "
    "model does on that class and hides the others.",
    fine="High accuracy with high recall of every class.",
    example="""
labels = torch.tensor([0] * 99 + [1])
print(check(probabilities=torch.full((100,), 0.01), labels=labels))
""",
)
def accuracy_hides(setup: Setup) -> Said:
    """An accuracy near the majority's beside a low balanced accuracy."""
    p, labels = by_class(setup), setup.labels
    if p is None or labels is None or labels.dim() != 1 or len(labels) != len(p) or len(p) < 20:
        return None
    if int(labels.max()) >= p.shape[1]:
        return None
    counts = torch.bincount(labels, minlength=p.shape[1]).double()
    often = int(counts.argmax())
    majority = float(counts[often]) / len(p)
    if majority <= 0.9 or int((counts > 0).sum()) < 2:
        return None
    if setup.threshold is not None and p.shape[1] == 2:
        decided = (p[:, 1] >= setup.threshold).long()
    else:
        decided = p.argmax(1)
    hits = torch.zeros_like(counts).index_add_(0, labels, (decided == labels).double())
    recall = hits / counts.clamp(min=1)
    accuracy = float(hits.sum()) / len(p)
    balanced = float(recall[counts > 0].mean())
    if accuracy - balanced <= 0.1:
        return None
    worst = int(torch.where(counts > 0, recall, torch.inf).argmin())
    return (
        f"Accuracy is {percent(accuracy)}, and always answering class {setup.named(often)} is right for "
        f"{percent(majority)}; of class {setup.named(worst)} the model finds {percent(float(recall[worst]))} "
        f"({number(float(hits[worst]))} of {number(float(counts[worst]))} rows), and balanced accuracy is "
        f"{percent(balanced)}.",
        "Judge by balanced accuracy, macro-F1 or average precision, and choose the cut-off for what mistakes cost.",
    )
