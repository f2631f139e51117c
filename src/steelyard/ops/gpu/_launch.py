"""How a kernel is laid over a tensor: its axes with their strides, tiles, and the grid.

Nothing here reads a value of a tensor, so that nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "AXES", "EACH", "LIMITS", "SUMS", "UNASKED", "Limits", "Plan", "axes_of", "device_of", "element_plan", "limits",
    "merged", "row_plan",
]  # fmt: skip

UNASKED, EACH, SUMS = 0, 1, 2  # what becomes of the loss

AXES = 4
"""Axes that a kernel walks besides that of the classes, once those that lie in memory as one are merged."""


@dataclass(frozen=True)
class Limits:
    """Sizes that decide between the shapes of a grid. Chosen on paper for a Hopper GPU; none has been measured yet.

    ``on_chip`` is as far as the compiler, asked for such a GPU, keeps everything in registers: 32 warps with 64 each.
    """

    tile: int = 4096  # elements of a program that takes many short rows
    on_chip: int = 32768  # elements of a row, or of rows side by side, that are kept in registers; or half as many
    stream: int = 8192  # elements at a time of a row that is too long for that
    elements: int = 2048  # of a program of the sigmoid kernel
    processors: int = 0  # multiprocessors to keep busy; 0: as many as the device has
    cache: int = 0  # bytes of L2; 0: as many as the device has


LIMITS = [Limits()]  # the last one is in force


@contextmanager
def limits(**sizes: int) -> Iterator[None]:
    """Other sizes for a while, in the whole process; for tests and measurements."""
    LIMITS.append(replace(LIMITS[-1], **sizes))
    try:
        yield
    finally:
        LIMITS.pop()


class Plan(NamedTuple):
    """A tile of rows by classes, whether it holds whole rows, and how many programs run."""

    rows: int
    classes: int
    whole: bool
    programs: int
    warps: int


_devices: dict[int, tuple[int, int]] = {}


def _machine(device: torch.device) -> tuple[int, int]:
    """Multiprocessors and bytes of L2."""
    found = LIMITS[-1]
    if device.type != "cuda":  # the interpreter, which runs one program after the other
        return found.processors or 1, found.cache or 50 << 20
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _devices:
        properties = torch.cuda.get_device_properties(index)
        _devices[index] = properties.multi_processor_count, getattr(properties, "L2_cache_size", 0) or 32 << 20
    processors, cache = _devices[index]
    return found.processors or processors, found.cache or cache


def device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """The device of the tensor made the current one, which is where Triton launches."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        guard: AbstractContextManager[None] = torch.cuda.device(tensor.device)
        return guard
    return nullcontext()


# --------------------------------------------------------------------------------------------------------------- axes


def merged(sizes: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """The axes, neighbours merged where every tensor has them one behind the other; those of size 1 left out."""
    kept: list[int] = []
    found: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(sizes):
        if size == 1:
            continue
        if kept and all(out[-1] == size * given[axis] for out, given in zip(found, strides, strict=True)):
            kept[-1] *= size
            for out, given in zip(found, strides, strict=True):
                out[-1] = given[axis]
            continue
        kept.append(size)
        for out, given in zip(found, strides, strict=True):
            out.append(given[axis])
    return kept, found


def axes_of(sizes: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]] | None:
    """Those axes as exactly ``AXES`` of them, or None where more are left."""
    kept, found = merged(sizes, *strides)
    missing = AXES - len(kept)
    if missing < 0:
        return None
    return [1] * missing + kept, [[0] * missing + steps for steps in found]


# --------------------------------------------------------------------------------------------------------------- tiles


def _power_of_two(number: int) -> int:
    """The next one that is no smaller."""
    return 1 << max(number - 1, 0).bit_length()


def _warps(elements: int) -> int:
    return min(32, max(4, elements // 512))


def row_plan(
    classes: int, outer: int, inner: int, *, rows_side_by_side: bool, light: bool, itemsize: int, of: Tensor
) -> Plan:
    """Tile and grid for ``outer`` times ``inner`` rows; with ``rows_side_by_side`` neighbours in memory are rows.

    ``light``: whether half-precision logits are all that is kept of a row. Those of float32 take twice the room, and
    where each class has a mass of its own, that does.
    """
    now = LIMITS[-1]
    processors, cache = _machine(of.device)
    width, most = _power_of_two(classes), _power_of_two(inner)
    # A warp reads whole lines of memory only where enough neighbours belong to the tile.
    least = min(32, most) if rows_side_by_side else 1
    if width * least <= (now.on_chip if light else now.on_chip // 2):
        rows = min(max(least, now.tile // width), most)
        while rows > least and outer * -(-inner // rows) < processors:
            rows //= 2
        return Plan(rows, width, True, outer * -(-inner // rows), _warps(rows * width))
    width = max(now.stream // least, 1)
    blocks = outer * -(-inner // least)
    # Rows that are read twice should be in the cache the second time: no more at once than it holds, as long as every
    # multiprocessor has one.
    resident = cache * 3 // 4 // max(least * classes * itemsize, 1)
    return Plan(least, width, False, min(blocks, max(processors, min(resident, 4 * processors))), _warps(now.stream))


def element_plan(count: int) -> tuple[int, int]:
    """Elements of a program, and warps."""
    size = min(LIMITS[-1].elements, max(_power_of_two(count), 16))
    return size, min(8, max(1, size // 256))
