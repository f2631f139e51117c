"""Steelyard: classification on imbalanced data in PyTorch."""

from steelyard._version import __version__

__all__ = ["__version__"]
