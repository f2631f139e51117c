"""The same loss over many steps and many ranks: exact denominators, and a softmax whose classes are shared out."""

from steelyard.distributed.denominator import loss_denominator

__all__ = ["loss_denominator"]
