"""Reasons in what the losses are multiplied with, and in what divides their sum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from steelyard.explain._words import number, plural, summed

if TYPE_CHECKING:
    from steelyard.explain._explanation import Explanation

LISTED = 20
"""Batches of at most so many elements can be looked through by eye."""

FEW = 4
"""Sums of at most so many weights are written out."""


def close(a: float, b: float, tolerance: float = 1e-9) -> bool:
    """Equal but for rounding in float64."""
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)


def nothing_left(found: Explanation) -> str | None:
    """0 / 0."""
    if found.reduction != "mean" or found.denominator != 0.0:
        return None
    noun = found.noun
    if not len(found.rows.loss):
        why = f"The batch has no {noun}s"
    elif not found.kept:
        why = f"Every {noun} is ignored (target {found.call.options['ignore_index']})"
    elif found.rule == "given":
        why = "The denominator given is 0"
    elif found.kept == 1:
        why = "The only row's weight is 0"
    else:
        why = f"The weights of all {plural(found.kept, noun)} are 0, or add up to 0"
    if found.call.options["empty"] == "zero":
        return f"{why}: the mean would be 0 / 0, which empty='zero' makes 0, with a gradient of zero."
    who = "" if not found.call.settings.torch else " of steelyard's loss"
    return f"{why}, so the mean is divided by 0: PyTorch's answer to that is NaN. empty='zero'{who} gives 0 instead."


def one_row(found: Explanation) -> str | None:
    """A batch of one cancels its weight."""
    if not (_divides_by_weights(found) and found.kept == 1 and found.denominator):
        return None
    at = int(found.rows.kept.nonzero()[0])
    weight, loss = float(found.rows.weight[at]), float(found.rows.loss[at])
    if not close(found.numerator / found.denominator, loss):
        return None
    kept = number(found.alternatives["samples"])
    return (
        f"One row: its weight {number(weight)} cancels, as it multiplies the loss and is also what the mean divides "
        f"by; any weight but 0 gives {number(loss)}. denominator='samples' keeps it: {kept}."
    )


def equal_weights(found: Explanation) -> str | None:
    """Weights that are all the same."""
    weight = found.rows.weight[found.rows.kept]
    if not found.weighted or len(weight) < 2 or not bool(weight.isfinite().all()):
        return None
    low, high = float(weight.min()), float(weight.max())
    if not close(low, high) or high == 0.0:
        return None
    if close(high, 1.0):
        return f"All {plural(found.kept, found.noun)} have weight 1: the weights change nothing."
    groups = found.rows.group[found.rows.kept].unique()
    same = f", being all of class {int(groups[0])}" if len(groups) == 1 and found.call.indices else ""
    said = f"All {plural(found.kept, found.noun)} have the same weight {number(high)}{same}"
    if _divides_by_weights(found) and found.denominator:
        return f"{said}: it stands above and below the line and cancels, as if there were none."
    return f"{said}: it multiplies the unweighted {number(found.unweighted)}, as a learning rate would."


def alike(found: Explanation) -> str | None:
    """Every row costs the same."""
    cost = found.rows.contribution[found.rows.kept]
    if found.reduction != "mean" or len(cost) < 2 or not close(float(cost.min()), float(cost.max())):
        return None
    if not close(found.denominator, found.kept):
        return None
    return (
        f"All {plural(found.kept, found.noun)} cost the same, {number(float(cost[0]))}, and so does their mean: how "
        "many there are does not matter."
    )


def divides_by_weights(found: Explanation) -> str | None:
    """The mean of index targets divides by Σ w[y]."""
    if not (_divides_by_weights(found) and found.kept > 1) or close(found.denominator, found.kept):
        return None
    weights = found.rows.weight[found.rows.kept].tolist()
    if found.call.indices and float(found.call.options.get("label_smoothing", 0.0)) != 0.0:
        terms = ""
    else:
        terms = f" ({summed(weights)})" if len(weights) <= FEW else ""
    samples = number(found.alternatives["samples"])
    return (
        f"The mean divides by {number(found.denominator)}, {found.denominator_name}{terms}, and not by the "
        f"{plural(found.kept, 'row')}, which would give {samples} (denominator='samples')."
    )


def divides_by_rows(found: Explanation) -> str | None:
    """The mean of probability targets divides by N, weights or not."""
    if found.rule != "torch" or not found.call.settings.exclusive or found.call.indices:
        return None
    if found.call.options.get("weight") is None or close(found.rows.denominators["weights"], found.denominator):
        return None
    weights = found.rows.denominators["weights"]
    one_hot = bool(((found.call.target == 0) | (found.call.target == 1)).all())
    form, instead = ("One-hot targets", "The same classes as indices") if one_hot else (
        "Class probabilities as targets", "denominator='weights'")  # fmt: skip
    rest = " (so does denominator='weights')" if one_hot else ""
    return (
        f"{form} divide by {number(found.denominator)}, the number of rows, although their weights add up to "
        f"{number(weights)}. {instead} would divide by the weights and give "
        f"{number(found.alternatives['weights'])}{rest}."
    )


def pos_weight(found: Explanation) -> str | None:
    """pos_weight acts on positives only, and an element mean does not divide by it."""
    given = found.call.options.get("pos_weight")
    if given is None or found.call.settings.exclusive or not found.kept:
        return None
    positive = found.rows.kept & (found.rows.group % 2 == 1)
    if not bool(positive.any()):
        return f"None of the {plural(found.kept, 'element')} is positive: pos_weight multiplies nothing here."
    if bool((torch.as_tensor(given) == 1).all()):
        return None
    at = int(torch.where(positive, found.rows.contribution, -torch.inf).argmax())
    loss, weight, cost = (
        float(v[at]) for v in (found.rows.loss, found.rows.weight, found.rows.contribution)
    )  # fmt: skip
    said = (
        f"pos_weight multiplies the loss of positives only (element {found.place(at)}: {number(weight)} × "
        f"{number(loss)} = {number(cost)}); negatives keep theirs"
    )
    if found.reduction == "mean" and found.rule == "torch":
        said += f", and the mean divides by the {plural(found.kept, 'element')}, not by their weights"
    return said + "."


def order(found: Explanation) -> str | None:
    """A mean of the same elements in another order."""
    if found.call.options.get("pos_weight") is None or not 1 < found.kept <= LISTED or found.reduction == "none":
        return None
    if close(float(found.rows.contribution.min()), float(found.rows.contribution.max())):
        return None
    return (
        f"A {found.reduction} does not look at order: a batch that holds the same elements in another order gives "
        f"{number(found.value)} too (reduction='none' shows them one by one)."
    )


def given(found: Explanation) -> str | None:
    """A denominator of the caller's."""
    if found.rule != "given" or not found.denominator:
        return None
    usual = found.rows.denominators["torch"]
    return (
        f"It divides by {number(found.denominator)}, as told; left alone it would divide by {number(usual)} and give "
        f"{number(found.alternatives['torch'])}."
    )


def not_a_mean(found: Explanation) -> str | None:
    """Sums, and nothing reduced."""
    if found.reduction == "mean":
        return None
    mean = number(found.alternatives["torch"])
    if found.reduction == "none":
        return f"reduction='none' leaves every {found.noun} as it is; reduction='mean' would give {mean}."
    return f"A sum grows with the batch, and the step with it; reduction='mean' would give {mean}."


def plain_mean(found: Explanation) -> str | None:
    """Nothing weighs."""
    if found.reduction != "mean" or found.weighted or found.rule == "given" or not found.denominator or found.kept < 2:
        return None
    return f"Every {found.noun} counts alike: this is the plain mean of {plural(found.kept, 'loss')}."


def ignored(found: Explanation) -> str | None:
    """Rows left out."""
    out = len(found.rows.loss) - found.kept
    if not out or not found.kept:
        return None
    return (
        f"{out:,} of {plural(len(found.rows.loss), found.noun)} {'is' if out == 1 else 'are'} ignored (target "
        f"{found.call.options['ignore_index']}): they count neither in the sum nor in what divides it."
    )


def without_weights(found: Explanation) -> str | None:
    """What the weights did to the number."""
    if found.reduction != "mean" or not found.weighted or close(found.unweighted, found.value, 1e-6):
        return None
    return f"Without weights it would be {number(found.unweighted)}."


def beside_pytorch(found: Explanation) -> str | None:
    """PyTorch's default for the same batch, and what makes the difference."""
    if found.reduction != "mean" or not math.isfinite(found.pytorch):
        return None
    name, value = found.pytorch_name, number(found.pytorch)
    if close(found.value, found.pytorch, 1e-5):
        return None if found.call.settings.torch else f"PyTorch's {name} gives the same."
    if close(found.alternatives["torch"], found.pytorch, 1e-6):
        usual = number(found.rows.denominators["torch"])
        return f"PyTorch's {name} gives {value}: it divides the same sum by {usual}."
    settings = [
        f"{word}={found.call.options[word]!r}"
        for word in ("gamma", "gamma_pos", "gamma_neg", "clip", "alpha", "tau", "scale", "max_margin", "smooth_weight")
        if is_set(found.call.options.get(word)) and found.call.options[word] != "class"
    ]
    own = ("counts", "logit_offset", "margin", "sample_weight", *["ignore_index"] * (found.noun == "element"))
    settings += [word for word in own
                 if found.call.options.get(word) is not None]  # fmt: skip
    entry = found.call.settings.entry
    idea = f" ({entry.idea})" if settings and entry.torch is None else ""
    lacks = f": it has no {', '.join(settings)}{idea}" if settings else ""
    return f"PyTorch's {name} of the same input gives {value}{lacks}."


def _divides_by_weights(found: Explanation) -> bool:
    """Whether the mean divides by the weights that it multiplies with."""
    if found.reduction != "mean" or not found.weighted:
        return False
    return found.rule == "weights" or (found.rule == "torch" and found.call.indices)


def is_set(value: object) -> bool:
    """Whether an option is more than nothing."""
    if value is None:
        return False
    return not (isinstance(value, int | float) and value == 0)
