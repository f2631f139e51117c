"""Process groups: who is in one, where its tensors live, and every collective that the library starts."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import readable

__all__ = [
    "device_of",
    "gathered",
    "maximum",
    "rank_in",
    "reading_waits",
    "resolve",
    "shared_sum",
    "summed",
    "world_size",
]


def resolve(name: str, group: Any) -> Any:
    """The group that is meant: the default one for None, or None where this process is alone."""
    started = dist.is_available() and dist.is_initialized()
    if group is None:
        return dist.group.WORLD if started else None
    if not started or not isinstance(group, dist.ProcessGroup):
        refuse(name, "group", "a process group that this rank is in, or None for the default one", group,
               error=TypeError)  # fmt: skip
    return group


def world_size(group: Any) -> int:
    """How many ranks share the group; 1 without one."""
    return 1 if group is None else int(dist.get_world_size(group))


def rank_in(group: Any) -> int:
    """Number of this rank in the group; 0 without one."""
    return 0 if group is None else int(dist.get_rank(group))


def device_of(group: Any) -> torch.device:
    """Where a collective of this group takes its tensors, for a rank that has none of its own to go by."""
    if group is not None and "nccl" in dist.get_backend(group):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def reading_waits(device: torch.device) -> bool:
    """Whether the host would have to wait for the device to read a number from it."""
    return device.type != "cpu"


def shared_sum(name: str, group: Any, own: Tensor | None, failure: Exception | None) -> Tensor:
    """The sum over the ranks of a 0-d tensor, by one all-reduce.

    A rank that has failed takes part with NaN before it raises: the others learn of it instead of waiting for it. Where
    reading the sum would stop the host, they learn by a loss of NaN.
    """
    if group is not None:
        device = device_of(group) if own is None else own.device
        packed = torch.zeros(2, dtype=torch.float64, device=device)
        if failure is None and own is not None:
            packed[0] = own
        elif failure is not None:
            packed.fill_(float("nan"))
        dist.all_reduce(packed, group=group)
        if failure is None and readable(packed) and bool(packed[1].isnan()):
            raise RuntimeError(f"{name}: another rank of the group failed; its own message says why.")
        own = packed[0] + packed[1]
    if failure is not None:
        raise failure
    assert own is not None
    return own


def gathered(group: Any, own: list[int], device: torch.device) -> list[list[int]]:
    """The integers of every rank, in rank order, by one all-gather; a list of the same length from each."""
    if group is None:
        return [own]
    mine = torch.tensor(own, dtype=torch.int64, device=device)
    return [row.tolist() for row in parts(group, mine)]


def maximum(group: Any, own: Tensor) -> Tensor:
    """The elementwise maximum over the ranks, over the memory of ``own``."""
    if group is not None:
        dist.all_reduce(own, dist.ReduceOp.MAX, group=group)
    return own


def summed(group: Any, own: Tensor) -> Tensor:
    """The elementwise sum over the ranks, over the memory of ``own``."""
    if group is not None:
        dist.all_reduce(own, group=group)
    return own


def parts(group: Any, own: Tensor) -> list[Tensor]:
    """The tensor of every rank, in rank order; all of one shape."""
    if group is None:
        return [own]
    everyone = [torch.empty_like(own) for _ in range(world_size(group))]
    dist.all_gather(everyone, own.contiguous(), group=group)
    return everyone
