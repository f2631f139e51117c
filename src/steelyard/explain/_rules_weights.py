"""Rules on class weights: what they do to the step, to the noise, and to classes that should not be there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steelyard.explain._rule import Said, rule
from steelyard.explain._setup import Setup, spread
from steelyard.explain._words import number, percent, plural

UNEVEN = 1.01
"""Weights that differ by less do nothing worth the name."""


def spread_of_weights(setup: Setup) -> tuple[Tensor, Tensor] | None:
    """The different weights, and how many rows have each: of the data where its counts are known, else of the batch."""
    w, n = setup.weight, setup.natural
    if w is not None and n is not None and len(w) == len(n):
        return w, n
    counts, p = setup.counts, setup.pos_weight
    if counts is not None and counts.is_multilabel and p is not None and p.numel() in (1, counts.num_classes):
        positives, negatives = counts.positives.double(), counts.negatives.double()
        return torch.cat([p.reshape(-1).expand_as(positives), torch.ones_like(negatives)]), torch.cat(
            [positives, negatives]
        )
    target = setup.target_values
    if target is None or w is None:
        return None
    if setup.exclusive and not target.is_floating_point():
        y = target.cpu().reshape(-1).long()
        y = y[(y >= 0) & (y < len(w)) & (y != setup.option("ignore_index"))]
        return w, torch.bincount(y, minlength=len(w)).double()
    if setup.elementwise:
        t = target.cpu().double()
        return w, torch.stack([(1 - t).sum(), t.sum()])
    return None


def divides_by_weights(setup: Setup) -> bool:
    """Whether the mean divides by what it multiplies with."""
    if setup.option("reduction") != "mean":
        return False
    if setup.option("denominator") == "weights":
        return True
    soft = setup.target is not None and setup.target.is_floating_point()
    return setup.exclusive and setup.option("denominator") == "torch" and not soft


@rule(
    "SY105",
    "warning",
    "Class weights with probability targets",
    symptom="Switching from labels to one-hot rows, mixup or soft labels changes the scale of a weighted loss.",
    reason="With probabilities as targets PyTorch's mean divides by the number of rows, with labels by the sum of "
    "their weights. So the weights also scale the loss, and with it the step.",
    fine="`denominator='weights'` is one rule for both forms; so are weights that average to 1 over the targets.",
    example="""
loss = nn.CrossEntropyLoss(weight=[0.1, 1.0])
mixed = torch.tensor([[1.0, 0.0], [0.7, 0.3]])
print(check(loss=loss, target=mixed))
""",
)
def weights_with_probabilities(setup: Setup) -> Said:
    """A mean over N that is weighted all the same."""
    target, w = setup.target_values, setup.weight
    if not setup.exclusive or target is None or w is None or not target.is_floating_point() or target.dim() < 1:
        return None
    if setup.option("reduction") != "mean" or setup.option("denominator") != "torch":
        return None
    dim = 0 if target.dim() == 1 else 1
    if target.shape[dim] != len(w) or not target.numel():
        return None
    q = target.cpu().double().movedim(dim, -1).reshape(-1, len(w))
    rows, mass = len(q), float((q * w).sum())
    if abs(mass / rows - 1) <= 0.05:
        return None
    return (
        f"Class probabilities as targets: the mean divides by the {plural(rows, 'row')}, although their weights add up "
        f"to {number(mass)}, so the loss and the step are scaled by {number(mass / rows)}.",
        "Use denominator='weights', which treats indices and probabilities alike, or weights with Σ π·w = 1 "
        "(class_weights(..., normalize='prior')).",
    )


@rule(
    "SY106",
    "warning",
    "Weights that change the learning rate",
    symptom="Training diverges, or hardly moves, since the weights are in.",
    reason="Where the mean does not divide by the weights, their average multiplies the loss and every gradient.",
    fine="PyTorch's weighted mean over class indices divides by the weights: there their scale cancels.",
    example="""
loss = nn.CrossEntropyLoss(weight=[1 / 9000, 1 / 1000], denominator="samples")
print(check(loss=loss, counts=[9000, 1000]))
""",
)
def learning_rate(setup: Setup) -> Said:
    """A mean weight far from 1."""
    reduction, found = setup.option("reduction"), spread_of_weights(setup)
    if reduction not in ("mean", "sum") or divides_by_weights(setup) or found is None:
        return None
    if reduction == "mean" and setup.option("denominator") not in ("torch", "samples"):
        return None
    if setup.exclusive and setup.target is not None and setup.target.is_floating_point():
        return None  # which SY105 tells
    (w, n), limit = found, 3.0
    if not float(n.sum()) or not bool((w >= 0).all()):
        return None
    mean = float((w * n).sum() / n.sum())
    if mean <= 0 or 1 / limit <= mean <= limit * 1.0001:
        return None
    said = "A sum" if reduction == "sum" else "This mean"
    return (
        f"The weights average {number(mean)} over the rows. {said} does not divide by them, so they multiply the "
        f"learning rate by {number(mean)}.",
        "Scale them to an average of 1: class_weights(counts, ..., normalize='prior'); or divide by them: "
        "denominator='weights'.",
    )


@rule(
    "SY107",
    "warning",
    "Extreme weights",
    symptom="The loss jumps from batch to batch, and rare classes are learnt by heart.",
    reason="A weighted mean over few heavy rows is as noisy as a plain mean over as few: Kish's effective sample size "
    "(Σ w)² / Σ w² says how few.",
    fine="Full weights at 10 : 1, which leave a third of the rows; their square root at 1000 : 1, which leaves half.",
    example="""
counts = [100000, 100, 10]
print(check(loss=nn.CrossEntropyLoss.from_counts(counts), counts=counts))
""",
)
def extreme_weights(setup: Setup) -> Said:
    """An effective sample size below a twentieth."""
    found = spread_of_weights(setup)
    if found is None:
        return None
    w, n = found
    rows, mass, square = float(n.sum()), float((w * n).sum()), float((w * w * n).sum())
    if rows < 20 or mass <= 0 or square <= 0 or not bool((w >= 0).all()):
        return None
    effective = mass * mass / square
    if effective >= 0.05 * rows:
        return None
    order = w.argsort(descending=True)
    carried, half = (w * n)[order].cumsum(0), mass / 2
    last = int((carried < half).sum())
    before = float(carried[last - 1]) if last else 0.0
    heavy = float(n[order][:last].sum()) + math.ceil((half - before) / float(w[order][last]))
    ratio = float(w.max()) / float(w[w > 0].min())
    return (
        f"The largest weight is {number(ratio)} times the smallest: {number(heavy)} of {number(rows)} rows carry half "
        f"of the weight, and the effective sample size is {number(round(effective, 1))} ({percent(effective / rows)}).",
        "Take milder weights: power=0.5, a cap, or switch them on late (DeferredReweighting); or leave the loss alone "
        "and move the cut-off.",
    )


@rule(
    "SY109",
    "warning",
    "Weights that do nothing",
    symptom="Class-balanced weights change nothing.",
    reason="(1 − β)/(1 − βⁿ) is flat where βⁿ is about 0: β = 0.9 from 50 samples per class on, β = 0.9999 from 50,000 "
    "on. All classes then have the same weight.",
    fine="Weights that differ little where the counts differ little.",
    example="""
weights = torch.full((2,), 1e-4)      # what effective_number with β = 0.9999 gives here
print(check(loss=nn.CrossEntropyLoss(weight=weights), counts=[5_000_000, 500_000]))
""",
)
def saturated(setup: Setup) -> Said:
    """Equal weights on unequal counts."""
    w, n = setup.weight, setup.natural
    if not setup.exclusive or w is None or n is None or len(w) != len(n) or bool((w <= 0).any()):
        return None
    present = n > 0
    if int(present.sum()) < 2 or spread(n[present]) < 2 or spread(w[present]) >= UNEVEN:
        return None
    gap = spread(w[present]) - 1
    return (
        f"The counts differ by a factor of {number(spread(n[present]))}, the weights by {percent(gap)}: they correct "
        "nothing.",
        "If they come from effective_number, take β nearer to 1 or leave beta=None; else count the training labels "
        "and take class_weights(counts, 'balanced', power=0.5).",
    )


@rule(
    "SY115",
    "note",
    "A class that never teaches is still in the softmax",
    symptom="A class of weight 0, or the ignored one, still takes probability from the others, or is predicted.",
    reason="Weight 0 and ignore_index leave out rows, not logits: the class stays in the sum under every other row, so "
    "the network learns that it is never right, and on rows like its own it says something arbitrary.",
    fine="ignore_index outside the classes (−100, 255), and classes that do not occur at all.",
    example="""
print(check(loss=nn.CrossEntropyLoss(ignore_index=0), input=torch.zeros(2, 3)))
""",
)
def still_in_the_softmax(setup: Setup) -> Said:
    """Weight 0 or ignore_index on a class that has a logit."""
    if not setup.exclusive or setup.settings is None or setup.settings.entry.formula != "softmax":
        return None
    out: dict[int, str] = {}
    w, n, offset = setup.weight, setup.natural, setup.option("logit_offset")
    if w is not None and bool((w > 0).any()):
        out |= {int(c): "weight 0" for c in (w == 0).nonzero().flatten()}
    ignored, classes = setup.option("ignore_index"), setup.classes
    if classes is not None and ignored is not None and 0 <= ignored < classes:
        out[int(ignored)] = "ignore_index"
    if offset is not None:
        out = {c: why for c, why in out.items() if float(offset[c]) != -math.inf}
    if n is not None:
        out = {c: why for c, why in out.items() if why != "weight 0" or (c < len(n) and n[c] > 0)}
    if not out:
        return None
    named = ", ".join(f"{setup.named(c)} ({why})" for c, why in out.items())
    measured = ""
    input = setup.input_values
    if input is not None and input.dim() > 1 and setup.option_input == "logits" and input.numel():
        wide = input.cpu().double().softmax(1).movedim(1, -1)
        share = float(wide[..., [c for c in out if c < wide.shape[-1]]].sum(-1).mean())
        measured = f"; in this batch it gets {percent(share)} of the probability"
    word = "Classes" if len(out) > 1 else "Class"
    return (
        f"{word} {named} never teach{'es' * (len(out) == 1)}, but {'keep' if len(out) > 1 else 'keeps'} a place in the "
        f"softmax of every other row{measured}.",
        "If the model should not know the class, take it out: logit_offset=-inf there, or one output less. If it only "
        "must not be learnt from some rows, this is what you want.",
    )
