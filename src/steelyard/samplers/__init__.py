"""Which rows a training sees, and how often: weights or labels to indices.

``_random`` numbers by position and permutations that need no memory; ``_table`` weights made ready; ``_draws`` one pass
through an epoch; ``_base`` epochs, ranks and state. On them stand the samplers, each a plan for an epoch:
``draw(first, step, count)`` rows by position. ``_device`` is the table of weights that live on an accelerator.
"""

from __future__ import annotations

from steelyard.samplers._expected import Expected
from steelyard.samplers.balanced_batch import BalancedBatchSampler
from steelyard.samplers.class_balanced import ClassBalancedSampler
from steelyard.samplers.repeat_factor import RepeatFactorSampler
from steelyard.samplers.stream import RebalancedStream
from steelyard.samplers.weighted import WeightedRandomSampler

__all__ = [
    "BalancedBatchSampler",
    "ClassBalancedSampler",
    "Expected",
    "RebalancedStream",
    "RepeatFactorSampler",
    "WeightedRandomSampler",
]
