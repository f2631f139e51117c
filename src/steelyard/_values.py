"""When a check may look at the numbers inside a tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = ["readable"]


def readable(tensor: Tensor) -> bool:
    """Whether reading values is possible and costs no synchronisation.

    Not so on a GPU, where it waits for the device, nor where the numbers do not exist yet: under ``torch.compile``,
    ``torch.func`` transforms, and tracing modes.
    """
    return (
        not torch.compiler.is_compiling()
        and tensor.device.type == "cpu"
        and type(tensor) in (Tensor, torch.nn.Parameter, torch.nn.Buffer)
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None
    )
