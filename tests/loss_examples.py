"""Small calls of every loss of the registry, for tests that ask the same question of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steelyard.registry import LOSSES, LossEntry

__all__ = ["Example", "example", "examples"]

CLASSES = 4
FEATURES = 3


@dataclass(frozen=True)
class Example:
    """A loss, an input to differentiate, the arguments after it, and options."""

    entry: LossEntry
    targets: str
    input: Tensor
    rest: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, input: Tensor | None = None, **options: Any) -> Tensor:
        """The function's answer."""
        given = self.input if input is None else input
        return self.entry.function(given, *self.rest, **{**self.options, **options})

    @property
    def target(self) -> Tensor:
        return self.rest[1] if self.entry.input == "features" else self.rest[0]

    def with_target(self, target: Tensor) -> Example:
        rest = list(self.rest)
        rest[1 if self.entry.input == "features" else 0] = target
        return replace(self, rest=tuple(rest))

    def module(self, **options: Any) -> nn.Module:
        """The module of the same settings."""
        kind, given = self.entry.module, {**self.options, **options}
        if self.entry.counts:
            return kind(self.rest[1], **given)
        if self.entry.input == "features":
            made = kind(FEATURES, CLASSES, dtype=self.input.dtype, **given)
            with torch.no_grad():
                made.linear.weight.copy_(self.rest[0])
            return made
        return kind(**given)

    def gradient(self, input: Tensor | None = None, **options: Any) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient for a random upstream one."""
        leaf = (self.input if input is None else input).detach().clone().requires_grad_()
        out = self(leaf, **options)
        return out.detach(), torch.autograd.grad(out, leaf, upstream(out))[0]


def upstream(out: Tensor) -> Tensor:
    """A random gradient for ``out``, the same each time."""
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(out.dtype)


def example(
    entry: LossEntry,
    targets: str,
    *,
    rows: int = 6,
    trailing: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    rich: bool = False,
) -> Example:
    """One call; ``rich`` with weights of every kind that the loss has."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shape = (rows, CLASSES, *trailing)
    logits = normal(*shape)
    if targets == "indices":
        target = torch.randint(CLASSES, (rows, *trailing), generator=generator)
    elif targets == "distribution":
        target = normal(*shape).softmax(1).to(dtype)
    else:
        target = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    input = {
        "logits": logits,
        "log-probabilities": logits.log_softmax(1),
        "probabilities": logits.sigmoid(),
        "features": normal(rows, FEATURES),
    }[entry.input].to(dtype)
    rest: tuple[Any, ...] = (target,)
    if entry.counts:
        rest = (target, torch.tensor([70, 20, 9, 1]))
    if entry.input == "features":
        rest = (normal(CLASSES, FEATURES).to(dtype), target)
    options: dict[str, Any] = {}
    if rich:
        weight = torch.tensor([0.3, 1.0, 2.0, 4.0], dtype=dtype)
        options["weight"] = weight if targets != "elements" else weight.reshape(-1, *[1] * len(trailing))
        if entry.formula == "softmax":
            options["label_smoothing"] = 0.1
        if entry.formula == "sigmoid":
            options["pos_weight"] = options["weight"].flip(0)
        if targets == "indices":
            options["ignore_index"] = 1
    return Example(entry, targets, input, rest, options)


def examples(*, rich: tuple[bool, ...] = (False, True)) -> list[Any]:
    """Parameters: each loss with each form of target, plain and with weights."""
    return [
        pytest.param(entry, targets, full, id="-".join([entry.name, targets] + ["weighted"] * full))
        for entry in LOSSES.values()
        for targets in entry.targets
        for full in rich
    ]
