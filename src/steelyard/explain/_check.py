"""The public way in to the rules."""

from __future__ import annotations

from typing import Any

from steelyard.explain import (
    _rules_batch,
    _rules_call,
    _rules_counts,
    _rules_focal,
    _rules_probabilities,
    _rules_sampling,
    _rules_weights,
)
from steelyard.explain._findings import SEVERITIES, Finding, Findings
from steelyard.explain._rule import RULES
from steelyard.explain._setup import read_setup

__all__ = ["ROOMS", "check"]

ROOMS = (_rules_batch, _rules_call, _rules_counts, _rules_focal, _rules_probabilities, _rules_sampling, _rules_weights)
"""Where the rules are; importing them enters them into the registry."""


def check(
    *,
    loss: Any = None,
    input: Any = None,
    target: Any = None,
    counts: Any = None,
    sampler: Any = None,
    labels: Any = None,
    probabilities: Any = None,
    threshold: Any = None,
    accumulation_steps: int = 1,
    world_size: int = 1,
) -> Findings:
    r"""Look for the mistakes that people make again and again with losses, weights, samplers and probabilities.

    Give what there is, the more the better: a rule speaks when it has what it needs, and is silent otherwise. None of
    them trains or draws anything; what is given stays as it is.

    Equals the findings of every rule in :data:`steelyard.explain.RULES`, worst first.

    Args:
        loss: A loss, ours, PyTorch's or another callable.
        input, target: A batch as the loss takes it; any dtype, shape and device.
        counts: Samples per class of the training data: :class:`~steelyard.ClassCounts`, or numbers ``(C,)``.
        sampler: A sampler, a ``DataLoader``, or a pair: the sampler that was meant and the loader that runs.
        labels: Classes of the rows: training rows beside a sampler or counts, rows judged beside ``probabilities``;
            ``(N,)``.
        probabilities: What the model says, in [0, 1]; ``(N,)`` for one question, ``(N, C)`` for classes.
        threshold: The cut-off on them, in [0, 1].
        accumulation_steps: Micro-batches per step, ≥ 1.
        world_size: Ranks, ≥ 1.

    Returns:
        A list of :class:`~steelyard.explain.Finding` (code, severity, message, fix) that prints as text; empty when all
        is well.

    Raises:
        TypeError, ValueError: an argument of the wrong kind. What is in it is for the rules to find.

    Example:
        >>> print(check(loss=torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1 / 3])), counts=[300, 100]))
        SY112 error: pos_weight is 0.33333, positives over negatives: there are 100 positives and 300 negatives. It is
        inverted.
          Fix: Use negatives / positives, 3 here: pos_weight(counts).
        >>> check(loss=torch.nn.CrossEntropyLoss(), counts=[300, 100])
        []
    """
    setup = read_setup(
        loss, input, target, counts, sampler, labels, probabilities, threshold, accumulation_steps, world_size
    )
    found = []
    for rule in RULES.values():
        said = rule.find(setup)
        if said is not None:
            found.append(Finding(rule.code, rule.severity, *said))
    given = {
        "loss": loss, "input": input, "target": target, "counts": counts, "sampler": sampler, "labels": labels,
        "probabilities": probabilities,
    }  # fmt: skip
    order = sorted(found, key=lambda finding: (SEVERITIES.index(finding.severity), finding.code))
    unknown = [] if loss is None or setup.settings is not None else [getattr(loss, "__name__", type(loss).__name__)]
    return Findings(order, [name for name, value in given.items() if value is None], unknown)
