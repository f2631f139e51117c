"""Process groups: who is in one, where its tensors live, and every collective that the library starts."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import readable

__all__ = [
    "Members",
    "device_of",
    "gathered",
    "maximum",
    "rank_in",
    "reading_waits",
    "resolve",
    "shared_sum",
    "summed",
    "uncompiled",
    "world_size",
]

F = TypeVar("F", bound=Callable[..., Any])


def resolve(name: str, group: Any) -> Any:
    """The group that is meant: the default one for None, or None where this process is alone."""
    started = dist.is_available() and dist.is_initialized()
    if group is None:
        return dist.group.WORLD if started else None
    if not started or not isinstance(group, dist.ProcessGroup):
        refuse(name, "group", "a process group that this rank is in, or None for the default one", group,
               error=TypeError)  # fmt: skip
    return group


def uncompiled(function: F) -> F:
    """The function, left out of ``torch.compile``'s graphs: it reads what ranks tell each other.

    As ``torch.compiler.disable``, which would import the compiler on the spot: only where it has been imported anyway.
    """

    disabled = functools.cache(lambda: torch.compiler.disable(function))

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return (disabled() if "torch._dynamo" in sys.modules else function)(*args, **kwargs)

    called._torchdynamo_disable = True  # type: ignore[attr-defined]  # what the compiler looks for
    return cast(F, called)


class Members:
    """A group as a module keeps it: copies of the module share it, and a pickle cannot hold it."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def __deepcopy__(self, memo: Any) -> Members:
        return self

    def __reduce__(self) -> Any:
        if self.group is None:
            return Members, (None,)
        raise TypeError(
            "a module whose classes are spread over a process group cannot be pickled: the group belongs to its "
            "processes. Save its state_dict() with torch.distributed.checkpoint."
        )


def world_size(group: Any) -> int:
    """How many ranks share the group; 1 without one."""
    return 1 if group is None else int(dist.get_world_size(group))


def rank_in(group: Any) -> int:
    """Number of this rank in the group; 0 without one."""
    return 0 if group is None else int(dist.get_rank(group))


def device_of(group: Any) -> torch.device:
    """Where a collective of this group takes its tensors, whatever device a rank has its own on.

    Asked of the backends by their devices: the name of the backend is no answer where the group has chosen it itself.
    """
    if group is None or not torch.cuda.is_available():
        return torch.device("cpu")
    backends = dict(pair.split(":", 1) for pair in dist.get_backend_config(group).split(",") if ":" in pair)
    if backends.get("cuda", "gloo") == "gloo":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def reading_waits(device: torch.device) -> bool:
    """Whether the host would have to wait for the device to read a number from it."""
    return device.type != "cpu"


def shared_sum(name: str, group: Any, own: Tensor | None, failure: Exception | None) -> Tensor:
    """The sum over the ranks of a 0-d tensor, by one all-reduce.

    A rank that has failed takes part with NaN before it raises: the others learn of it instead of waiting for it. Where
    reading the sum would stop the host, they learn by a loss of NaN.
    """
    if group is not None:
        packed = torch.zeros(2, dtype=torch.float64, device=device_of(group))
        if failure is None and own is not None:
            packed[0] = own
        elif failure is not None:
            packed.fill_(float("nan"))
        dist.all_reduce(packed, group=group)
        if failure is None and readable(packed) and bool(packed[1].isnan()):
            raise RuntimeError(f"{name}: another rank of the group failed; its own message says why.")
        total = packed[0] + packed[1]
        own = total if own is None else total.to(own.device)
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
