"""What all ranks of a group must have in common before they meet in a collective whose size depends on it.

Ranks that disagree on a number of rows would break the collective itself, or wait for one another until the group's
time-out. So they first exchange a list of integers of fixed length, in which a rank that has refused its own arguments
says so; then every rank raises, and none waits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard._values import readable
from steelyard.distributed import _group

__all__ = [
    "Fact",
    "checksum",
    "claim",
    "exchange",
    "fingerprint",
    "flag",
    "integer_fact",
    "mark",
    "names",
    "real",
    "values",
    "word",
]


_ROWS = ("input", "local_logits", "target")
"""Arguments that come by row, which data-parallel ranks have others of."""


class Fact(NamedTuple):
    """Something that must be the same on every rank: the argument it is about, a code, and how to read that."""

    argument: str
    code: int
    show: Callable[[int], str]


def integer_fact(argument: str, value: int, what: str = "{}") -> Fact:
    return Fact(argument, value, what.format)


def flag(argument: str, given: bool, yes: str = "one", no: str = "none") -> Fact:
    return Fact(argument, int(given), lambda code: yes if code else no)


def word(argument: str, value: str, known: Sequence[str]) -> Fact:
    return Fact(argument, known.index(value), lambda code: known[code])


def names(argument: str, known: Sequence[str], held: Sequence[bool]) -> Fact:
    """Which of some names hold."""
    code = sum(1 << position for position, holds in enumerate(held) if holds)
    return Fact(argument, code, lambda code: _named([name for i, name in enumerate(known) if code >> i & 1]))


def _named(found: Sequence[str]) -> str:
    return "of " + (", ".join(found) or "nothing")


def real(argument: str, value: float) -> Fact:
    bits = struct.unpack("<q", struct.pack("<d", value))[0]
    return Fact(argument, bits, lambda code: repr(struct.unpack("<d", struct.pack("<q", code))[0]))


def values(argument: str, tensor: Tensor | None) -> Fact:
    """The values of a tensor, as far as reading them costs nothing."""
    code = int(fingerprint(tensor)) if tensor is not None and readable(tensor) else 0
    return Fact(argument, code, lambda code: f"values of checksum {code & 0xFFFFFFFF:08x}")


def claim(argument: str, sizes: Sequence[int] | None) -> Fact:
    """What a rank has been told of all of them."""
    code = 0 if sizes is None else 1 + zlib.crc32(repr(list(sizes)).encode())
    return Fact(argument, code, lambda code: f"a list of checksum {code - 1:08x}" if code else "none")


def fingerprint(tensor: Tensor) -> Tensor:
    """A 0-d integer that is all but sure to differ where values or their order do."""
    flat = tensor.detach().reshape(-1)
    bits = flat.double().view(torch.int64) if flat.is_floating_point() else flat.long()
    # The low bits of a float are mostly zeros, so the high ones are folded onto them. Sums wrap around at 64 bits.
    bits = bits ^ (bits >> 32)
    return ((bits + 1) * torch.arange(1, 2 * len(bits) + 1, 2, device=flat.device)).sum()


def checksum(tensor: Tensor) -> int:
    """Likewise of as many numbers as there are classes, without temporaries; 0 where reading them would wait."""
    return zlib.crc32(tensor.detach().contiguous().numpy().data) if readable(tensor) else 0


def mark(facts: Sequence[Fact], target: Tensor) -> Tensor:
    """All facts and the target in two numbers below 2^20, on the device, without a look at them: exact in float32."""
    host = zlib.crc32(repr([fact.code for fact in facts]).encode()) % (1 << 20)
    marks = torch.empty(2, dtype=torch.int64, device=target.device)
    marks[0] = host
    marks[1] = fingerprint(target) % (1 << 20) if not target.is_floating_point() else 0
    return marks


def exchange(
    name: str,
    group: Any,
    facts: Sequence[Fact],
    own: Sequence[int],
    failure: Exception | None,
    device: torch.device,
    *,
    count: int,
) -> list[list[int]]:
    """The ``own`` integers of every rank, once all ranks hold the same ``facts`` and none has failed.

    ``count`` is how many facts there are: a rank that failed has none, and must send a list of the same length.
    """
    packed = [0] * (1 + count + len(own))
    if failure is None:
        assert len(facts) == count
        packed = [0, *(fact.code for fact in facts), *own]
    else:
        packed[0] = 1
    everyone = _group.gathered(group, packed, device)
    if failure is not None:
        raise failure
    failed = [str(rank) for rank, row in enumerate(everyone) if row[0]]
    if failed:
        ranks = ("rank " if len(failed) == 1 else "ranks ") + ", ".join(failed)
        raise RuntimeError(f"{name}: {ranks} of the group failed; the message there says why.")
    for position, fact in enumerate(facts, start=1):
        codes = [row[position] for row in everyone]
        other = next((rank for rank, code in enumerate(codes) if code != codes[0]), None)
        if other is not None:
            got = f"{fact.show(codes[0])} on rank 0, {fact.show(codes[other])} on rank {other}"
            hint = "All ranks take the same rows, and each its own classes." if fact.argument in _ROWS else ""
            refuse(name, fact.argument, "the same on every rank of the group", got, hint)
    return [row[-len(own) :] for row in everyone]
