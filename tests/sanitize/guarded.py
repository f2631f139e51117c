"""Memory in which one element too far is a crash, and one between the elements of a view is seen."""

from __future__ import annotations

import ctypes
import mmap

import torch
from torch import Tensor

__all__ = ["Room", "Rooms"]

PAGE = mmap.PAGESIZE
_FORBID, _READ, _WRITE = 0, 1, 3  # of mprotect
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _protect(address: int, length: int, how: int) -> None:
    if _libc.mprotect(address, length, how):
        raise OSError(ctypes.get_errno(), "mprotect")


class Room:
    """Pages for one tensor, between two that nobody may touch.

    AddressSanitizer sees what compiled C++ touches, but no masked or streamed store that is one instruction of the
    processor: those end here.
    """

    def __init__(self, capacity: int) -> None:
        self.length = -(-capacity // PAGE) * PAGE
        self._memory = mmap.mmap(-1, self.length + 2 * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + PAGE
        _protect(self.start - PAGE, PAGE, _FORBID)
        _protect(self.start + self.length, PAGE, _FORBID)

    def place(self, tensor: Tensor, *, at_end: bool, frozen: bool) -> Tensor:
        """The tensor with its own strides, flush with the last byte or the first; what lies between is poison."""
        assert all(stride >= 0 for stride in tensor.stride())
        if tensor.numel() == 0:
            self.view = tensor
            return tensor
        _protect(self.start, self.length, _WRITE)
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        size = tensor.element_size()
        assert span * size <= self.length
        offset = PAGE + (self.length - span * size if at_end else 0)
        self.raw = torch.frombuffer(self._memory, dtype=tensor.dtype, count=span, offset=offset)
        if tensor.is_floating_point():
            self.raw.fill_(torch.nan)
        elif tensor.dtype != torch.bool:
            self.raw.fill_(torch.iinfo(tensor.dtype).max)  # neither a class nor to be ignored
        self.view = self.raw.as_strided(tensor.shape, tensor.stride())
        if 0 in tensor.stride():  # an element twice: written once
            once = tuple(0 if step == 0 else slice(None) for step in tensor.stride())
            self.view[once] = tensor[once]
        else:
            self.view.copy_(tensor)
        if frozen:
            _protect(self.start, self.length, _READ)
        return self.view

    def intact(self) -> bool:
        """Whether the poison between the elements of the view is all there."""
        if self.view.numel() in (0, self.raw.numel()):
            return True
        kind = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[self.raw.element_size()]
        apart = torch.ones(self.raw.shape, dtype=torch.bool)
        apart.as_strided(self.view.shape, self.view.stride()).fill_(False)
        left = self.raw.view(kind)[apart]
        poison = torch.full((1,), torch.nan, dtype=self.raw.dtype).view(kind)
        return bool((left == poison).all())


class Rooms:
    """A room for each tensor of a call."""

    def __init__(self, capacity: int) -> None:
        self._rooms: dict[str, Room] = {}
        self._capacity = capacity

    def __getitem__(self, name: str) -> Room:
        if name not in self._rooms:
            self._rooms[name] = Room(self._capacity)
        return self._rooms[name]
