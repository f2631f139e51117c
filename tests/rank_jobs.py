"""The jobs that tests of denominators give to ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import steelyard
from steelyard.distributed import loss_denominator

ROWS, FEATURES, CLASSES = 17, 3, 4
CUTS = {2: (5, 12), 3: (6, 0, 11)}
"""Rows of each rank; one of three has none."""


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, (ROWS,), generator=generator)
    target[:6:2] = -100
    target[:5] = -100  # all rows of the first of two ranks are ignored
    return features, target


def model() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(FEATURES, CLASSES, dtype=torch.float64)


def loss() -> Any:
    return steelyard.nn.CrossEntropyLoss([0.3, 1.0, 2.0, 4.0], label_smoothing=0.1, empty="zero")


def gradient(network: nn.Module) -> list[Tensor]:
    return [p.full_tensor() if hasattr(p, "full_tensor") else p for p in (q.grad for q in network.parameters())]


def whole() -> list[Tensor]:
    network, (features, target) = model(), batch()
    loss()(network(features), target).backward()
    return gradient(network)


def engine(rank: int, size: int, kind: str, exact: bool) -> list[Tensor]:
    """The gradient of uneven ranks, in two micro-batches each: the first without communication."""
    features, target = (part.split(CUTS[size])[rank] for part in batch())
    network, criterion = model(), loss()
    if kind == "ddp":
        network = DistributedDataParallel(network)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(network, mesh=init_device_mesh("cpu", (size,)))
    # As many on each rank: an engine communicates in every forward pass, and waits for all.
    parts = list(zip(features.tensor_split(2), target.tensor_split(2), strict=True))
    divisor = loss_denominator(criterion, [t for _, t in parts]) if exact else None
    steps = list(enumerate(parts))
    for step, (x, y) in steps:
        last = step == len(steps) - 1
        if kind == "ddp":
            network.require_backward_grad_sync = last
        else:
            network.set_requires_gradient_sync(last)
        scale = 1.0 if exact else 1.0 / len(steps)
        (scale * criterion(network(x), y, denominator=divisor)).backward()
    return gradient(network)


def engines(rank: int, size: int) -> dict[Any, Any]:
    return {(kind, exact): engine(rank, size, kind, exact) for kind in ("ddp", "fsdp") for exact in (True, False)}


def one_fails(rank: int, size: int) -> str:
    target = torch.tensor([0, 9 if rank == 1 else 1])
    try:
        loss_denominator(loss(), target)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing raised"


def both(rank: int, size: int) -> Any:
    return engines(rank, size), one_fails(rank, size)
