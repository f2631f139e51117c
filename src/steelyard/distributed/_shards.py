"""Where a rank's classes lie among all of them, and what tensors sharded by PyTorch's DTensor say about that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard._values import integer
from steelyard.distributed import _group

__all__ = ["check_shards", "even_shards", "is_dtensor", "plain", "unwrapped"]


def even_shards(classes: int, ranks: int) -> list[int]:
    """Classes on each rank, as ``DTensor`` shares them out: the last ranks may have fewer, or none."""
    each = -(-classes // ranks)
    return [min(each, max(classes - rank * each, 0)) for rank in range(ranks)]


def check_shards(name: str, shards: Any, group: Any, width: int) -> list[int]:
    """Widths that the caller says the ranks have, once there is one for each, and this rank's is its own."""
    ranks = _group.world_size(group)
    if isinstance(shards, Tensor | str) or not isinstance(shards, Sequence) or len(shards) != ranks:
        refuse(name, "shards", f"the number of classes on each of the {ranks} ranks", shards)
    widths = [integer(name, "shards", count) for count in shards]
    if min(widths) < 0 or widths[_group.rank_in(group)] != width:
        rule = f"numbers ≥ 0, {width} at position {_group.rank_in(group)}"
        refuse(name, "shards", rule, str(widths), "This rank's logits have that many classes.")
    return widths


def is_dtensor(value: Any) -> bool:
    """Whether a tensor is PyTorch's ``DTensor``, without loading the module where nobody has."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def unwrapped(name: str, logits: Any, group: Any) -> tuple[Any, Any, int | None, list[int] | None]:
    """Local logits, the group, the mesh axis of the classes and the widths of its ranks, of logits as a ``DTensor``.

    Logits of any other kind come back as they are, without an axis.
    """
    if not is_dtensor(logits):
        return logits, _group.resolve(name, group), None, None
    from torch.distributed.tensor import Replicate, Shard

    if group is not None:
        refuse(name, "group", "None for a DTensor, whose mesh has the group", "one")
    axis = 0 if logits.dim() == 1 else 1
    sharded = [i for i, p in enumerate(logits.placements) if type(p) is Shard and p.dim in (axis, axis - logits.dim())]
    others = [p for i, p in enumerate(logits.placements) if i not in sharded]
    if len(sharded) != 1 or not all(isinstance(p, Replicate) for p in others):
        hint = "For rows sharded too: local_logits.to_local(), and the group of the mesh's class axis as group=."
        rule = f"a DTensor with Shard({axis}) on one axis of its mesh and Replicate() on the others"
        refuse(name, "local_logits", rule, f"placements {tuple(logits.placements)}", hint)
    mesh = logits.device_mesh
    members = mesh.get_group(sharded[0])
    coordinate = mesh.get_coordinate()
    if coordinate is None or dist.get_rank(members) != coordinate[sharded[0]]:
        refuse(name, "local_logits", "on a mesh that lists its ranks in rising order, this one among them", str(mesh))
    return (
        logits.to_local(),
        members,
        sharded[0],
        even_shards(logits.shape[axis], mesh.size(sharded[0])),
    )


def plain(name: str, argument: str, value: Any, logits: Any, mesh_axis: int | None, axis: int | None) -> Any:
    """The local part of an argument that is a ``DTensor`` beside logits that are one; ``axis`` is that of classes."""
    if not is_dtensor(value):
        return value
    from torch.distributed.tensor import Replicate, Shard

    if mesh_axis is None or value.device_mesh != logits.device_mesh:
        refuse(name, argument, "a plain tensor, or a DTensor on the mesh of 'local_logits'", describe(value))
    for i, placement in enumerate(value.placements):
        whole = isinstance(placement, Replicate)
        with_classes = i == mesh_axis and axis is not None and type(placement) is Shard and placement.dim == axis
        if not (whole or with_classes):
            rule = "a DTensor with Replicate()" + ("" if axis is None else f" or Shard({axis}), as the classes are,")
            refuse(name, argument, rule + " on its mesh", f"placements {tuple(value.placements)}")
    return value.to_local()
