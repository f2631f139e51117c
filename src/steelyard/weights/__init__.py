"""Class counts to class weights, of a loss and of a sampler."""

from steelyard.weights._class_weights import class_weights
from steelyard.weights._pos_weight import pos_weight
from steelyard.weights._sample_weights import sample_weights
from steelyard.weights._schemes import SCHEMES

__all__ = ["SCHEMES", "class_weights", "pos_weight", "sample_weights"]
