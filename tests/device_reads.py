"""What would make the host wait for a device, seen without one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Reads", "waiting_is_an_error"]

_WAITS = {
    "_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim", "bincount",
    "repeat_interleave", "lift_fresh", "lift_fresh_copy",
}  # fmt: skip
_METHODS = ("cpu", "tolist", "numpy", "__array__")
"""On the CPU these pass the dispatcher by."""


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """On a GPU, where CUDA itself knows."""

    def switch(mode: str) -> None:
        with warnings.catch_warnings():  # that this is a prototype
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode(mode)

    switch("error")
    try:
        yield
    finally:
        switch("default")


class Reads(TorchDispatchMode):
    """Records what would make the host wait for a device, and copies to and from there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        for name in _METHODS:
            self._patch.setattr(Tensor, name, self._recorded(name, getattr(Tensor, name)))
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._patch.undo()
        super().__exit__(*raised)

    def _recorded(self, name: str, method: Any) -> Any:
        def call(tensor: Tensor, *args: Any, **options: Any) -> Any:
            self.found.append(name)
            return method(tensor, *args, **options)

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kept = func._schema.name.removeprefix("aten::"), {**(kwargs or {})}
        masked = name.startswith("index") and any(
            isinstance(place, Tensor) and place.dtype in (torch.bool, torch.uint8)
            for group in args if isinstance(group, list | tuple) for place in group
        )  # fmt: skip
        if name in _WAITS or masked:
            self.found.append(name)
        if name == "_to_copy" and kept.get("device") is not None:
            self.found.append("copy")
        return func(*args, **kept)
