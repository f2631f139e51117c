"""What is timed: a loss at a shape, and why that shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor

from benchmarks.losses import LOSSES, Loss

__all__ = ["CASES", "Case", "find"]


@dataclass(frozen=True)
class Case:
    """One loss at one shape; ``reason`` is why the shape is here."""

    loss: str
    shape: tuple[int, ...]
    reason: str
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        """For the command line and the results: ``cross_entropy-4096x1000``."""
        sizes = "x".join(map(str, self.shape))
        return f"{self.loss}-{sizes}" + ("" if self.dtype == torch.float32 else f"-{self.dtype_name}")

    @property
    def dtype_name(self) -> str:
        """``float32``, ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def definition(self) -> Loss:
        """What is computed."""
        return LOSSES[self.loss]

    @property
    def logit_bytes(self) -> int:
        """Bytes of the logits, and of their gradient."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def floor_bytes(self) -> int:
        """Bytes that a forward and backward pass has to move: logits in, gradient out, a dense target in."""
        return self.logit_bytes * (3 if self.definition.dense_target else 2)

    def tensors(self, seed: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits and what the loss takes after them, the same for every contender."""
        generator = torch.Generator().manual_seed(seed)
        # A standard deviation of 3: a network half-way through training is sure of some rows and not of others.
        logits = (torch.randn(self.shape, generator=generator) * 3).to(self.dtype)
        return logits, self.definition.data(self.shape, self.dtype, generator)


CASES = (
    Case("cross_entropy", (128, 10), "a small batch: what a call costs before any work"),
    Case("cross_entropy", (65536, 10), "few classes: rows shorter than a vector register"),
    Case("cross_entropy", (4096, 1000), "ImageNet's classes: fits the last cache, just"),
    Case("cross_entropy", (2048, 32000), "a vocabulary: memory decides"),
    Case("cross_entropy", (4, 21, 512, 512), "segmentation: classes a megabyte apart"),
    Case("cross_entropy", (2048, 32000), "half the bytes", torch.bfloat16),
    Case("ignore_index", (4, 21, 512, 512), "segmentation with unlabelled pixels"),
    Case("label_smoothing", (4096, 1000), "every class is part of every row's loss"),
    Case("label_smoothing", (2048, 32000), "the same, where memory decides"),
    Case("soft_targets", (4096, 1000), "mixup: the target is as large as the logits"),
    Case("focal", (65536, 10), "few classes"),
    Case("focal", (4096, 1000), "ImageNet's classes"),
    Case("balanced_softmax", (65536, 10), "few classes"),
    Case("balanced_softmax", (4096, 1000), "ImageNet-LT's classes"),
    Case("bce", (128, 1), "a small batch: what a call costs before any work"),
    Case("bce", (65536, 80), "multi-label with COCO's classes"),
    Case("bce", (2**24, 1), "one logit a row, as many as an epoch of click data"),
    Case("sigmoid_focal", (65536, 80), "a detector's anchors"),
)


def find(pattern: str) -> tuple[Case, ...]:
    """Cases whose name holds ``pattern``, which may have wildcards.

    Raises: ValueError: there is none.
    """
    found = tuple(case for case in CASES if fnmatch(case.name, f"*{pattern}*"))
    if not found:
        known = ", ".join(case.name for case in CASES)
        raise ValueError(f"benchmarks: '--cases' must be part of a case's name; got {pattern!r}. There are: {known}.")
    return found
