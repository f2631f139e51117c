"""The loss of the whole step inside trainers that cut it up: a module for each, which loads its framework.

``steelyard.trainers.hugging_face`` and ``steelyard.trainers.lightning`` are imported by name: ``import steelyard``
loads neither.
"""
