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
    "AXES", "EACH", "LIMITS", "SUMS", "UNASKED", "Limits", "Plan", "axes_of", "dense_labels",
    "device_of", "element_plan", "few", "limits", "merged", "of_rows", "row_plan", "stages",
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
    on_chip: int = 32768  # elements of a row, or of rows side by side, that are kept in registers, if they are light
    stream: int = 8192  # elements at a time of a row that is too long for that
    elements: int = 2048  # of a program of the sigmoid kernel
    processors: int = 0  # multiprocessors to keep busy; 0: as many as the device has


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
    """A tile of rows by classes, and how it lies over all of them.

    ``span``: whether rows are numbered through, where the last axis is too short to fill a tile. ``whole``: whether the
    tile holds whole rows. ``blocks`` of rows there are, and ``programs`` that share them out.
    """

    rows: int
    classes: int
    span: bool
    whole: bool
    blocks: int
    programs: int
    warps: int


_devices: dict[int, tuple[int, int]] = {}


def _machine(device: torch.device) -> tuple[int, int]:
    """Multiprocessors, and warps that a program may have: 1024 threads are the most."""
    found = LIMITS[-1]
    if device.type != "cuda":  # the interpreter, which runs one program after the other
        return found.processors or 1, 32
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _devices:
        properties = torch.cuda.get_device_properties(index)
        _devices[index] = properties.multi_processor_count, 1024 // getattr(properties, "warp_size", 32)
    processors, warps = _devices[index]
    return found.processors or processors, warps


def few(programs: int, warps: int, device: torch.device) -> int:
    """No more programs than the device runs at once, for a kernel that will mostly find nothing to do."""
    return min(programs, max(1, 32 // warps) * _machine(device)[0])


_AHEAD = 88 << 10
"""Bytes of shared memory for tiles that are fetched ahead: a program has 99 KiB on the smallest of NVIDIA's that do."""


def stages(tile_bytes: int) -> int:
    """How many tiles are on their way at once, the one that is computed included; AMD's fetch none ahead."""
    if torch.version.hip is not None:
        return 1
    return 3 if 2 * tile_bytes <= _AHEAD else 2 if tile_bytes <= _AHEAD else 1


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


def _warps(elements: int, most: int = 32) -> int:
    return min(most, max(4, elements // 512))


def row_plan(
    classes: int, outer: int, inner: int, *, rows_side_by_side: bool, burdens: Sequence[bool], device: torch.device
) -> Plan:
    """Tile and grid for ``outer`` times ``inner`` rows; with ``rows_side_by_side`` neighbours in memory are rows.

    ``burdens``: what takes registers beside half-precision logits. Each that holds halves the elements that are kept on
    chip, down to a quarter, as the compiler for a Hopper GPU needs them.
    """
    now = LIMITS[-1]
    processors, most_warps = _machine(device)
    width, most = _power_of_two(classes), _power_of_two(inner)
    # A warp reads whole lines of memory only where enough neighbours belong to the tile.
    least = min(32, most) if rows_side_by_side else 1
    room = (now.on_chip >> min(sum(burdens), 2)) * most_warps // 32
    if width * least <= room:
        wanted = max(now.tile // width, 1)
        short = inner * width < now.tile // 8 if rows_side_by_side else inner < wanted
        span = short and outer > 1 and outer * inner < 2**31 - now.tile
        if span:
            least = 1
            most, inner, outer = _power_of_two(outer * inner), outer * inner, 1
        rows = min(max(least, wanted), most)
        while rows > least and outer * -(-inner // rows) < processors:
            rows = max(rows // 4, least)
        blocks = outer * -(-inner // rows)
        return Plan(rows, width, span, True, blocks, blocks, _warps(rows * width, most_warps))
    width = max((now.stream >> (sum(burdens) > 1)) // least, 1)
    blocks = outer * -(-inner // least)
    # One program a multiprocessor: that is all that registers leave room for, and so few rows are read for the second
    # time while the cache holds what it can of them.
    return Plan(least, width, False, False, blocks, min(blocks, processors), _warps(now.stream, most_warps))


def element_plan(count: int) -> tuple[int, int]:
    """Elements of a program, and warps."""
    size = min(LIMITS[-1].elements, max(_power_of_two(count), 16))
    return size, min(8, max(1, size // 256))


# ------------------------------------------------------------------------------------------------------- numbers by row


def of_rows(values: Tensor | None, other: Tensor) -> tuple[Tensor, int]:
    """Numbers of rows one behind the other, and the step from one to the next: 0 where all are the same one."""
    if values is None:
        return other, 0
    if all(step == 0 or size == 1 for step, size in zip(values.stride(), values.shape, strict=True)):
        return values, 0
    return values.contiguous(), 1


def dense_labels(target: Tensor) -> Tensor:
    """Labels one behind the other, in a dtype that kernels read."""
    known = target.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return (target if known else target.long()).contiguous()
