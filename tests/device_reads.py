"""What would make the host wait for a device, seen without one."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Reads"]

_WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "lift_fresh", "lift_fresh_copy"}


class Reads(TorchDispatchMode):
    """Records what would make the host wait for a device, and copies to and from there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kept = func._schema.name.removeprefix("aten::"), {**(kwargs or {})}
        if name in _WAITS:
            self.found.append(name)
        if name == "_to_copy" and kept.get("device") is not None:
            self.found.append("copy")
        return func(*args, **kept)
