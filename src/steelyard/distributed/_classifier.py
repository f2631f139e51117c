"""The weight of a linear classifier, some classes on each rank, as one tensor to checkpoints and optimizers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from steelyard.distributed import _group
from steelyard.distributed._shards import even_shards, is_dtensor

__all__ = ["ShardedClassifier"]

_BLOCK = 512
"""Classes whose first weights come from one generator: whoever holds one of them draws for all."""


class ShardedClassifier(nn.Module):
    """``nn.Linear(in_features, num_classes)`` with rows of its weight on the ranks of a group.

    In a group its parameters are ``DTensor``s with ``Shard(0)``: ``state_dict`` describes the whole, and
    ``torch.distributed.checkpoint`` loads it into any number of ranks. Alone they are plain.
    """

    def __init__(self, in_features: int, num_classes: int, bias: bool, group: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        self.in_features, self.num_classes, self._members = in_features, num_classes, _group.Members(group)
        self.shards = even_shards(num_classes, _group.world_size(group))
        rank = _group.rank_in(group)
        start = sum(self.shards[:rank])
        self.shard = range(start, start + self.shards[rank])
        options = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(self._spread(torch.empty(len(self.shard), in_features, **options)))
        self.bias = nn.Parameter(self._spread(torch.empty(len(self.shard), **options))) if bias else None
        self.reset_parameters()

    @property
    def group(self) -> Any:
        """The ranks that share the classes; None where this process is alone."""
        return self._members.group

    def _spread(self, local: Tensor) -> Tensor:
        """A rank's rows as a part of the whole."""
        if self.group is None:
            return local
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.tensor import DTensor, Shard

        mesh = DeviceMesh.from_group(self.group, local.device.type)
        shape = torch.Size((self.num_classes, *local.shape[1:]))
        return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=local.stride())

    def local(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the classes that are here; gradients go back to the parameters."""
        return _local(self.weight), None if self.bias is None else _local(self.bias)

    @torch.no_grad()
    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw the parameters as ``nn.Linear`` does, from U(−1/√in, 1/√in).

        The same numbers for any number of ranks: each block of classes has a generator of its own, seeded by ``seed``,
        or by a draw of the first rank's generator, which the others are told. On the ``meta`` device nothing is drawn:
        call this once the parameters are somewhere.
        """
        weight, bias = self.local()
        if weight.is_meta:
            return
        if seed is None:
            drawn = int(torch.randint(1 << 32, (), device="cpu"))
            seed = _group.gathered(self.group, [drawn], weight.device)[0][0]
        bound = 1.0 / math.sqrt(self.in_features)
        first, last = self.shard.start, self.shard.stop
        for start in range(first - first % _BLOCK, last, _BLOCK):
            # Seeds one apart: of a hash of theirs, two in 10^8 classes might be alike.
            generator = torch.Generator(weight.device).manual_seed((seed + start // _BLOCK) % (1 << 32))
            stop = min(start + _BLOCK, self.num_classes)
            rows = slice(max(start, first) - start, min(stop, last) - start)
            here = slice(max(start, first) - first, min(stop, last) - first)
            block = weight.new_empty(stop - start, self.in_features).uniform_(-bound, bound, generator=generator)
            weight[here] = block[rows]
            if bias is not None:
                bias[here] = bias.new_empty(stop - start).uniform_(-bound, bound, generator=generator)[rows]

    def extra_repr(self) -> str:
        """As ``nn.Linear``, and the classes that are here."""
        here = f"{self.shard.start}..{self.shard.stop}"
        return (
            f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.bias is not None}, here={here}"
        )


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if is_dtensor(parameter) else parameter  # type: ignore[attr-defined]
