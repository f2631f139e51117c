"""Rules on samplers."""

from __future__ import annotations

from typing import Any

import torch

from steelyard.explain._rule import Said, rule
from steelyard.explain._sampling import Sampling
from steelyard.explain._setup import Setup, spread
from steelyard.explain._words import number, percent, plural

CORRECTS = 1.5
"""A ratio between two classes that moves by less is no correction to speak of."""


@rule(
    "SY101",
    "warning",
    "A sampler and class weights together",
    symptom="The model predicts the rare class nearly everywhere.",
    reason="The sampler has already made the classes equally frequent. Weights counted on the data correct the same "
    "imbalance again: at 99 : 1 the rare class then counts 99 times too much.",
    fine="Half of the correction in each: power 0.5 for the sampler and for the weights.",
    example="""
labels = torch.tensor([0] * 90 + [1] * 10)
sampler = torch.utils.data.WeightedRandomSampler([1.0] * 90 + [9.0] * 10, 100)
print(check(loss=nn.CrossEntropyLoss(weight=[1.0, 9.0]), sampler=sampler, labels=labels))
""",
)
def sampler_and_weights(setup: Setup) -> Said:
    """Two corrections that together go beyond balance."""
    sampling, lean = setup.sampling, setup.leaning
    if sampling is None or lean is None or bool((lean <= 0).any()) or spread(lean) < CORRECTS:
        return None
    fix = "Keep one of the two; or take the square root of both (power=0.5), which together balance the classes."
    n, drawn = setup.natural, setup.drawn
    if n is None or drawn is None or len(n) != len(lean) or len(drawn) != len(lean):
        weights = sampling.weights
        if sampling.power is None and (weights is None or not len(weights)):
            return None
        few = weights is not None and len(weights.unique()) <= len(lean) and spread(weights) >= CORRECTS
        if not few and not (sampling.power is not None and sampling.power > 0.5):
            return None
        return (
            f"{sampling.name} draws rows by class and the loss weighs classes too (the largest weight is "
            f"{number(spread(lean))} times the smallest): the imbalance is corrected twice. With labels=, check says "
            "how far.",
            fix,
        )
    present = torch.where(n > 0, n, torch.inf)
    rare, often = int(present.argmin()), int(n.argmax())
    if not float(drawn[often]) > 0 or not float(drawn[rare]) > 0:
        return None
    by_sampler = float(drawn[rare] / drawn[often] / (n[rare] / n[often]))
    by_loss = float(lean[rare] / lean[often])
    beyond = float(drawn[rare] * lean[rare] / (drawn[often] * lean[often]))
    if by_sampler < CORRECTS or by_loss < CORRECTS or beyond < CORRECTS:
        return None
    return (
        f"The sampler raises class {setup.named(rare)} by a factor of {number(by_sampler)} against class "
        f"{setup.named(often)}, and the loss by a factor of {number(by_loss)} again: together it counts "
        f"{number(beyond)} times as much as that class, where 1 is balance.",
        fix,
    )


@rule(
    "SY102",
    "error",
    "Class weights given to a sampler of rows",
    symptom="The sampler draws the same handful of rows again and again.",
    reason="A sampler's weights are of rows: weight i is that of row i. Given one for each of C classes it draws rows "
    "0 to C − 1 and no others, without a word.",
    fine="One weight for each row: sample_weights(labels, class_weights). Class weights beside `labels=` of a sampler "
    "that takes both.",
    example="""
sampler = torch.utils.data.WeightedRandomSampler([1.0, 9.0], 1000)
print(check(sampler=sampler, labels=[0] * 900 + [1] * 100))
""",
)
def class_weights_for_rows(setup: Setup) -> Said:
    """As many weights as classes, or another number than rows."""
    sampling = setup.sampling
    if sampling is None or sampling.weights is None or sampling.by_class:
        return None
    have, classes = len(sampling.weights), setup.classes or (0 if setup.natural is None else len(setup.natural))
    rows = sampling.rows
    if setup.labels is not None and len(setup.labels):
        rows = len(setup.labels)
    fix = "Give every row the weight of its class: sample_weights(labels, weight)."
    if rows is not None and have != rows:
        much = f"The sampler has {plural(have, 'weight')} for {plural(rows, 'row')}: "
        if have > rows:
            return much + f"it draws rows from {rows} on, which are not there.", fix
        kind = ", one for each class, as it seems" if have == classes else ""
        return much + f"it draws only rows 0 to {have - 1}{kind}.", fix
    draws = getattr(sampling.sampler, "num_samples", None)
    total = None if setup.counts is None else setup.counts.total
    if (
        rows is None
        and have == classes
        and ((total is not None and total > have) or (isinstance(draws, int) and draws >= 10 * have))
    ):
        return (
            f"The sampler has {plural(have, 'weight')}, as many as there are classes: it draws only rows 0 to "
            f"{have - 1}.",
            fix,
        )
    return None


def resamples(sampling: Sampling) -> bool:
    """Whether some rows are drawn more often than others."""
    if sampling.power is not None:
        return sampling.power != 0
    return sampling.weights is not None and len(sampling.weights) > 0 and spread(sampling.weights) > 1.01


@rule(
    "SY117",
    "error",
    "Resampling where the model is judged",
    symptom="Validation looks much better than the same model in use, precision above all.",
    reason="Drawn by class, validation rows have another class frequency than reality: precision, average precision, "
    "accuracy and calibration all follow it.",
    fine="The same sampler on training rows.",
    example="""
labels = torch.tensor([0] * 90 + [1] * 10)
sampler = torch.utils.data.WeightedRandomSampler([1.0] * 90 + [9.0] * 10, 100)
print(check(sampler=sampler, labels=labels, probabilities=torch.full((100,), 0.1)))
""",
)
def resampled_validation(setup: Setup) -> Said:
    """A sampler by class on rows that are predicted, or on a data set that calls itself held out."""
    sampling, p = setup.sampling, setup.probabilities
    if sampling is None or not resamples(sampling):
        return None
    where = None
    if sampling.held_out is not None:
        where = f"a data set with {sampling.held_out}"
    elif p is not None and setup.labels is not None and len(p) == len(setup.labels):
        rows = len(sampling.classes) if sampling.classes is not None else (
            0 if sampling.weights is None else len(sampling.weights))  # fmt: skip
        where = f"the {len(p):,} rows that the probabilities are of" if rows == len(p) else None
    if where is None:
        return None
    measured = ""
    if setup.drawn is not None and setup.natural is not None:
        rare = int(torch.where(setup.natural > 0, setup.natural, torch.inf).argmin())
        share = float(setup.natural[rare] / setup.natural.sum())
        drawn = percent(float(setup.drawn[rare]))
        measured = f": class {setup.named(rare)} makes up {drawn} of the draws and {percent(share)} of the rows"
    return (
        f"{sampling.name} draws {where} by weight{measured}.",
        "Judge on the rows as they are: no sampler, shuffle=False. Resample training rows only.",
    )


@rule(
    "SY120",
    "error",
    "Ranks that draw the same rows",
    symptom="More GPUs train no faster, or a weighted sampler has no effect under a trainer.",
    reason="A sampler that knows nothing of ranks gives every rank all rows, with one seed in the same order. One that "
    "cannot be told the epoch repeats the first. And some trainers put a sampler of their own in place of yours.",
    fine="DistributedSampler, or a sampler with num_replicas, of as many ranks as there are. That set_epoch is called "
    "each epoch, a sampler does not tell.",
    example="""
sampler = torch.utils.data.WeightedRandomSampler([1.0, 1.0, 9.0], 3)
print(check(sampler=sampler, world_size=4))
""",
)
def ranks_alike(setup: Setup) -> Said:
    """A sampler without ranks, for other ranks, without epochs, or another one than was meant."""
    sampling = setup.sampling
    if sampling is None:
        return None
    if sampling.intended is not None and not _within(sampling.intended, sampling.sampler):
        return (
            f"{type(sampling.intended).__name__} was meant to run, and {sampling.name} does: the trainer has put its "
            "own in place.",
            "Tell the trainer to leave samplers alone (Lightning: use_distributed_sampler=False) and give yours the "
            "ranks: WeightedRandomSampler(..., num_replicas=, rank=).",
        )
    if setup.world_size == 1:
        return None
    fix = f"Use a sampler that deals rows out: num_replicas={setup.world_size} and the rank, and set_epoch each epoch."
    if sampling.replicas is None:
        draws = "draws for itself from all rows" if sampling.random else "goes through all rows"
        alike = "with one seed the same ones" if sampling.random else "the same ones in the same order"
        return (
            f"{sampling.name} knows nothing of ranks: each of the {setup.world_size} ranks {draws}, {alike}"
            f"{', and its generator gives that one seed' if sampling.seeded else ''}.",
            fix,
        )
    if sampling.replicas != setup.world_size:
        return (
            f"{sampling.name} deals rows out to {plural(sampling.replicas, 'rank')}, and there are {setup.world_size}.",
            fix,
        )
    if sampling.random and not callable(getattr(sampling.sampler, "set_epoch", None)):
        return f"{sampling.name} has no set_epoch: every epoch draws what the first drew.", fix
    return None


@rule(
    "SY126",
    "warning",
    "A sampler that favours frequent classes",
    symptom="A weighted sampler was to help the rare class, and its recall falls.",
    reason="A row is drawn in proportion to its weight. Counts or shares taken as weights, where one over them was "
    "meant, make frequent classes more frequent.",
    fine="Weights that grow as a class gets rarer: sample_weights(labels, class_weights(counts)).",
    example="""
labels = torch.tensor([0] * 90 + [1] * 10)
counts = torch.tensor([90.0, 10.0])
sampler = torch.utils.data.WeightedRandomSampler(counts[labels].tolist(), 100)
print(check(sampler=sampler, labels=labels))
""",
)
def favours_frequent(setup: Setup) -> Said:
    """Draws in which the rarest class is rarer than in the data."""
    sampling, n, drawn = setup.sampling, setup.natural, setup.drawn
    if sampling is None or n is None or drawn is None or len(n) != len(drawn) or class_weights_for_rows(setup):
        return None
    rare, often = int(torch.where(n > 0, n, torch.inf).argmin()), int(n.argmax())
    if n[often] < CORRECTS * n[rare] or drawn[rare] * n[often] * CORRECTS > drawn[often] * n[rare]:
        return None
    of_draws = percent(float(drawn[rare])) if drawn[rare] > 0 else "none"
    return (
        f"Class {setup.named(rare)}, the rarest, makes up {of_draws} of the draws and "
        f"{percent(float(n[rare] / n.sum()))} of the rows: {sampling.name} favours the frequent classes.",
        "Give rare classes the larger weights: sample_weights(labels, class_weights(counts)).",
    )


def _within(wanted: Any, sampler: Any, depth: int = 3) -> bool:
    """Whether a sampler is the wanted one, or wraps it, as trainers do."""
    if sampler is wanted:
        return True
    if depth == 0 or not hasattr(sampler, "__dict__"):
        return False
    return any(_within(wanted, value, depth - 1) for value in vars(sampler).values() if hasattr(value, "__dict__"))
