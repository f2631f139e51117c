"""Rules on counts, and on weights that were made from them."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.explain._rule import Said, rule
from steelyard.explain._setup import Setup, spread
from steelyard.explain._words import number, percent


@rule(
    "SY108",
    "warning",
    "A class without samples",
    symptom="A weight is infinite or missing, or a class is never predicted.",
    reason="1/0 is no weight, log 0 no offset; and a class that training never shows is learnt as never right.",
    fine="Few samples are not none.",
    example="""
print(check(counts=[900, 0, 100]))
""",
)
def absent_class(setup: Setup) -> Said:
    """Counts of 0, or outputs and labels beyond the counts."""
    counts = setup.counts
    if counts is None:
        return None
    empty = counts.counts == 0
    what = "no samples"
    if counts.is_multilabel and not bool(empty.any()):
        empty, what = counts.negatives == 0, "no negatives"
    if bool(empty.any()):
        names = [repr(counts.classes[i]) for i in empty.nonzero().flatten().tolist()]
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if names[10:] else "")
        word = "Classes" if len(names) > 1 else "Class"
        have = "have" if len(names) > 1 else "has"
        return (
            f"{word} {shown} of {counts.num_classes} {have} {what} among {counts.total:,} rows.",
            "Leave such classes out of the model, or say what they should weigh: class_weights(..., missing='zero').",
        )
    if counts.is_multilabel or setup.labels is None or setup.labels.dim() != 1 or not len(setup.labels):
        return None
    beyond = int((setup.labels >= counts.num_classes).sum())
    if not beyond:
        return None
    return (
        f"{beyond:,} of {len(setup.labels):,} labels are of classes that the counts do not have "
        f"({', '.join(repr(c) for c in counts.classes[:10])}).",
        "Count the labels that the model is trained on: count_classes(labels).",
    )


def answers(setup: Setup) -> tuple[Tensor, Tensor] | None:
    """Positives and negatives of each yes/no question."""
    if setup.counts is not None and setup.counts.is_multilabel:
        return setup.counts.positives.double(), setup.counts.negatives.double()
    if setup.natural is not None:
        return (setup.natural[1:], setup.natural[:1]) if len(setup.natural) == 2 else None
    target = setup.target_values
    if not setup.elementwise or target is None or target.dim() not in (1, 2) or target.numel() < 20:
        return None
    t = target.cpu().double().reshape(len(target), -1)
    return (t >= 0.5).double().sum(0), (t < 0.5).double().sum(0)


@rule(
    "SY112",
    "error",
    "pos_weight that is none",
    symptom="With pos_weight the model finds even fewer positives, or the loss is enormous.",
    reason="pos_weight is negatives over positives: what one positive must count for, so that both answers weigh the "
    "same. Inverted it makes the rare answer rarer still; a bare count is hundreds of times too large; and of two "
    "numbers on one logit the first belongs to nothing.",
    fine="Any power between none (1) and full (negatives / positives).",
    example="""
loss = nn.BCEWithLogitsLoss(pos_weight=[1 / 3])
print(check(loss=loss, counts=[300, 100]))
""",
)
def not_a_pos_weight(setup: Setup) -> Said:
    """Inverted, a count, or two numbers for one logit."""
    given = setup.pos_weight
    if given is None:
        return None
    flat, found = given.reshape(-1), answers(setup)
    if len(flat) == 2 and (_one_logit(setup) or (setup.input is None and found is not None and len(found[0]) == 1)):
        return (
            f"pos_weight holds 2 numbers, {number(float(flat[0]))} and {number(float(flat[1]))}, for one logit: it is "
            "one factor on positives, and no weight for each class.",
            "Give one number, negatives / positives: pos_weight(counts).",
        )
    if found is None or len(flat) not in (1, len(found[0])):
        return None
    positives, negatives = found
    if bool((positives == 0).any()) or bool((negatives == 0).any()):
        return None
    right = (negatives / positives).expand_as(flat) if len(found[0]) == 1 or len(flat) == len(found[0]) else None
    if right is None or torch.allclose(flat, right, rtol=0.05):
        return None
    uneven = ((right > 1.2) | (right < 1 / 1.2)).all()
    measured = f"there are {number(float(positives[0]))} positives and {number(float(negatives[0]))} negatives" + (
        " of the first class" if len(positives) > 1 else ""
    )
    fix = f"Use negatives / positives, {number(float(right[0]))} here: pos_weight(counts)."
    if bool(uneven) and torch.allclose(flat, 1 / right, rtol=0.05):
        return f"pos_weight is {number(float(flat[0]))}, positives over negatives: {measured}. It is inverted.", fix
    for name, count in (("positives", positives), ("negatives", negatives)):
        if float(flat.min()) >= 10 and torch.allclose(flat, count.expand_as(flat), rtol=0.005):
            return f"pos_weight is {number(float(flat[0]))}, the number of {name} itself: {measured}.", fix
    return None


def _one_logit(setup: Setup) -> bool:
    if setup.input is None:
        return False
    shape = setup.input.shape
    return len(shape) == 0 or shape[-1] == 1 or (len(shape) == 1 and shape[0] != 2)


@rule(
    "SY116",
    "warning",
    "Weights counted in the wrong place",
    symptom="A rare class gets a small weight, or weights change from run to run.",
    reason="Weights belong to the rows that the loss sees in training. Counted on a batch they are noise; on "
    "validation rows, another distribution; after resampling, equal.",
    fine="Counts of the training part of a split, which differ from those of all rows by chance only.",
    example="""
labels = torch.tensor([0] * 900 + [1] * 100)
print(check(loss=nn.BalancedSoftmaxLoss([40, 60]), labels=labels))
""",
)
def counted_elsewhere(setup: Setup) -> Said:
    """Counts of the loss, the counts given, or the order of the weights, against the labels."""
    n = setup.natural
    if n is None or not float(n.sum()):
        return None
    labels = setup.labels is not None and setup.labels.dim() == 1 and len(setup.labels) > 0
    candidates = []
    if labels and setup.counts is not None and not setup.counts.is_multilabel:
        candidates.append(("The counts", setup.counts.counts.double()))
    if setup.exclusive and setup.option("counts") is not None:
        own = torch.as_tensor(setup.option("counts")).detach().cpu().double()
        candidates.append((f"{setup.settings.name}'s counts" if setup.settings else "The loss's counts", own))
    what = "the labels" if labels else "the counts given"
    fix = "Count the training labels, all of them and before any resampling: count_classes(labels)."
    for name, m in candidates:
        if len(m) != len(n) or not float(m.sum()):
            continue
        if float(m.sum()) < 0.1 * float(n.sum()):
            return f"{name} cover {number(float(m.sum()))} rows, {what} {number(float(n.sum()))}.", fix
        odd = _unlike(m, n)
        if odd is not None:
            shares = percent(float(m[odd] / m.sum())), percent(float(n[odd] / n.sum()))
            even = " They are even, as after resampling." if spread(m) < 1.2 <= spread(n[n > 0]) else ""
            return f"{name} give class {setup.named(odd)} a share of {shares[0]}, {what} {shares[1]}.{even}", fix
    return _upside_down(setup, n, what, fix)


def _unlike(m: Tensor, n: Tensor) -> int | None:
    """The class whose shares differ most, by more than half and by more than chance."""
    p, q = m / m.sum(), n / n.sum()
    pooled = (m + n) / (m.sum() + n.sum())
    noise = (pooled * (1 - pooled) * (1 / m.sum() + 1 / n.sum())).sqrt()
    ratio = torch.where((p > 0) & (q > 0), torch.maximum(p / q, q / p), torch.inf)
    ratio = torch.where((p == 0) & (q == 0), 1.0, ratio)
    odd = (ratio > 1.5) & ((p - q).abs() > 4 * noise)
    return int(torch.where(odd, (p - q).abs(), -1.0).argmax()) if bool(odd.any()) else None


def _upside_down(setup: Setup, n: Tensor, what: str, fix: str) -> Said:
    """A class that is much rarer than another and weighs clearly less."""
    w = setup.weight
    if not setup.exclusive or w is None or len(w) != len(n):
        return None
    for rare in n.argsort().tolist():
        if n[rare] == 0 or w[rare] <= 0:
            continue
        worse = (n > 2 * n[rare]) & (w > 1.1 * w[rare])
        if bool(worse.any()):
            often = int(torch.where(worse, w, -1.0).argmax())
            return (
                f"Class {setup.named(rare)} has {number(float(n[rare]))} rows and weight {number(float(w[rare]))}, "
                f"class {setup.named(often)} has {number(float(n[often]))} and weight {number(float(w[often]))}: the "
                f"weights are not those of {what}.",
                fix + " Or they are in another order: position i is the weight of counts.classes[i].",
            )
    return None
