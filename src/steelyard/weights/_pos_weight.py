"""Counts of yes and no to the weight of a yes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard._errors import choice, refuse
from steelyard.counts import ClassCounts, Label, as_class_counts
from steelyard.weights._absent import ABSENT, check_absent
from steelyard.weights._unread import counts_of, is_unread

__all__ = ["pos_weight"]


def pos_weight(counts: Any, *, positive: Any = None, missing: str = "raise") -> Tensor:
    r"""Negatives per positive: the ``pos_weight`` that makes both answers of a binary question weigh the same.

    For ``BCEWithLogitsLoss``. The inverse, positives / negatives, is a common mistake. Probabilities trained with it
    are too high by these odds: p becomes p / (p + W(1 − p)) to be right again.

    Equals ``counts.negatives / counts.positives``.

    Args:
        counts: Multi-label :class:`ClassCounts`; or counts of two classes: :class:`ClassCounts`, or whole numbers
            ``(2,)``, negatives first.
        positive: Which of two labels is the positive one. ``None`` takes the larger: 1 of 0 and 1, True. Strings
            have no larger one, and need this.
        missing: For classes without positives: ``"raise"``, or a weight of ``"zero"``, or the ``"max"`` of the others.
            A class without negatives would have a weight of 0 and never a loss: it is refused under ``"raise"`` too.

    Returns: float32 tensor: ``(C,)`` for multi-label counts, ``(1,)`` for two classes; on the CPU, or where a tensor of
    counts is. On a GPU that is not looked at: as in :func:`class_weights`, what would raise here is NaN there.

    Raises: TypeError, ValueError: neither multi-label nor two classes, a class without positives or negatives.

    Example:
        >>> pos_weight([300, 100])
        tensor([3.])
        >>> pos_weight(ClassCounts(["cat", "dog"], [20, 5], negatives=[80, 95]))
        tensor([ 4., 19.])
    """
    function = "pos_weight"
    choice(function, "missing", missing, ABSENT)
    if is_unread(counts):
        return _unread(counts, positive, missing)
    value = as_class_counts(counts, function=function)
    if value.is_multilabel:
        if positive is not None:
            refuse(
                function, "positive", "None for multi-label counts", positive, "Each class is a question of its own."
            )
        positives, negatives = value.positives.double(), value.negatives.double()
    else:
        _check_two(value.num_classes)
        order = _negative_first(value.classes, positive)
        negatives, positives = value.counts.double()[order].split(1)
        value = ClassCounts([value.classes[order[1]]], positives, negatives=negatives)
    check_absent(function, "counts", value, positives == 0, missing, "positives")
    check_absent(function, "counts", value, negatives == 0, missing, "negatives")
    weights = torch.where(positives > 0, negatives / positives, torch.zeros_like(positives))
    if missing == "max":
        weights[positives == 0] = weights.max()
    return weights.float()


def _unread(counts: Tensor, positive: Any, missing: str) -> Tensor:
    """Of the counts of two classes, 0 and 1, that are not looked at."""
    n, sound = counts_of("pos_weight", counts)
    _check_two(len(n))
    negatives, positives = (n[at : at + 1] for at in _negative_first((0, 1), positive))
    sound = sound & (positives > 0) & ((negatives > 0) if missing == "raise" else True)
    return torch.where(sound, negatives / positives, math.nan).float()


def _check_two(classes: int) -> None:
    if classes != 2:
        hint = "For softmax over several classes use class_weights(counts), for labels count_classes(labels)."
        rule = "multi-label counts or those of two classes"
        refuse("pos_weight", "counts", rule, f"{classes} class" + "es" * (classes > 1), hint)


def _negative_first(classes: Sequence[Label], positive: Any) -> list[int]:
    """Where the negative and the positive one of two classes stand."""
    if positive is None and not isinstance(classes[0], str):
        return sorted(range(2), key=classes.__getitem__)
    if positive not in classes or type(positive) is not type(classes[0]):
        rule = f"one of the labels {classes[0]!r} and {classes[1]!r}"
        refuse("pos_weight", "positive", rule, None if positive is None else repr(positive),
               "The alphabet does not know which one is meant." if positive is None else "")  # fmt: skip
    at = classes.index(positive)
    return [1 - at, at]
