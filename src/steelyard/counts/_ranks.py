"""Adds the counts of all ranks, whatever classes each of them has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from steelyard._errors import refuse

if TYPE_CHECKING:
    from steelyard.counts._value import ClassCounts

__all__ = ["gather"]


def gather(counts: ClassCounts, group: Any) -> list[ClassCounts]:
    """The counts of every rank of ``group``, in the order of the ranks and the same on all of them.

    They travel as Python objects, since no rank knows how many classes the others have: a few kilobytes, once.
    """
    function = "ClassCounts.all_reduce"
    if not (dist.is_available() and dist.is_initialized()):
        hint = "Call torch.distributed.init_process_group first; a single process needs no all_reduce."
        refuse(function, "group", "an initialised process group", "none", hint, error=RuntimeError)
    if dist.get_rank(group) < 0:
        refuse(function, "group", "a group that this rank is a member of", f"rank {dist.get_rank()} outside of it")
    size = dist.get_world_size(group)
    found: list[Any] = [None] * size
    dist.all_gather_object(found, counts, group=group)
    # Every rank compares all of them, so that all raise the same error and none waits for another.
    kinds = {rank: part.kind for rank, part in enumerate(found) if part.num_classes}
    odd = next((rank for rank, kind in kinds.items() if kind != next(iter(kinds.values()))), None)
    if odd is not None:
        first = next(iter(kinds))
        what = f"{kinds[first]} on rank {first} of the group and {kinds[odd]} on rank {odd}"
        refuse(function, "group", "ranks that count alike", what, "Count the same column on every rank.")
    return found
