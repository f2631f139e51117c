"""Numbers that callers give: when they may be looked at, and how they become floats, ints and tensors."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode, _get_current_dispatch_mode_stack

from steelyard._errors import describe, refuse

__all__ = ["integer", "number", "numbers", "readable"]


def readable(tensor: Tensor, *, wait: bool = False) -> bool:
    """Whether reading values is possible and costs no synchronisation.

    Not so on a GPU, where it waits for the device, unless it may ``wait``; nor where the numbers do not exist yet:
    under ``torch.compile``, ``torch.func`` transforms, and tracing modes.
    """
    return (
        not torch.compiler.is_compiling()
        and (tensor.device.type == "cpu" or (wait and _may_wait(tensor)))
        and type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__  # not a tensor that stands for others
        and not torch._C._are_functorch_transforms_active()
        and (_get_current_dispatch_mode() is None or not any(map(_traces, _get_current_dispatch_mode_stack())))
    )


def _may_wait(tensor: Tensor) -> bool:
    """Whether the values of a tensor on a device exist, and a CUDA graph that is captured does not forbid to ask."""
    return not tensor.is_meta and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _traces(mode: object) -> bool:
    """Whether a mode stands for numbers that do not exist yet; others watch or count what is computed."""
    return getattr(mode, "_mode_key", None) is not None


def number(name: str, argument: str, value: Any, low: float, high: float, *, open_end: bool = False) -> float:
    """A finite number in ``[low, high]``, or ``[low, high)``."""
    rule = f"a number in [{low:g}, {high:g}" + (")" if open_end or high == math.inf else "]")
    if isinstance(value, bool) or not isinstance(value, Real):
        refuse(name, argument, rule, describe(value), error=TypeError)
    result = float(value)
    # Comparisons only: under torch.compile the number may be symbolic, and math.isinf takes none of those.
    if not low <= result <= high or result in (math.inf, -math.inf) or (open_end and result == high):
        refuse(name, argument, rule, repr(value))
    return result


def integer(name: str, argument: str, value: Any) -> int:
    """An integer of at most 64 bits, and no bool."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        refuse(name, argument, "an integer", describe(value), error=TypeError)
    result = int(value)
    if not -(2**63) <= result < 2**63:
        refuse(name, argument, "an integer of 64 bits", repr(value))
    return result


def numbers(name: str, argument: str, values: Any, rule: str) -> Tensor:
    """Real numbers as a tensor: one that was given as it is, a list or an array on the CPU at its full precision."""
    if isinstance(values, Tensor):
        tensor = values
    else:
        try:
            if isinstance(values, np.ndarray):
                values = np.ascontiguousarray(values).reshape(values.shape)  # PyTorch takes no negative strides
            tensor = torch.as_tensor(values, device="cpu")
            if tensor.is_floating_point() and not isinstance(values, np.ndarray):
                # Python floats are float64; the default dtype, which PyTorch gives a list, would round them.
                tensor = torch.as_tensor(values, dtype=torch.float64, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            refuse(name, argument, rule, describe(values), error=TypeError)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        refuse(name, argument, rule, tensor, error=TypeError)
    if tensor.layout != torch.strided:
        refuse(name, argument, rule, f"a tensor of layout {tensor.layout}", "Use to_dense().", error=TypeError)
    return tensor
