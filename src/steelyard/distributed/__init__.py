"""The same loss over many steps and many ranks: the one number that all parts of a batch divide by."""

from steelyard.distributed.denominator import loss_denominator

__all__ = ["loss_denominator"]
