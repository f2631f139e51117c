"""The same loss at any scale: what all parts of a batch divide by, and classes that are spread over ranks."""

from steelyard.distributed.class_parallel import class_parallel_cross_entropy
from steelyard.distributed.denominator import loss_denominator
from steelyard.distributed.linear import ClassParallelLinearCrossEntropy, TopClasses

__all__ = ["ClassParallelLinearCrossEntropy", "TopClasses", "class_parallel_cross_entropy", "loss_denominator"]
