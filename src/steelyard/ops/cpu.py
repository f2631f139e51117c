"""The C++ kernels on the CPU: the door to the extension, and the operators that it implements.

Where the extension is missing (a platform that it was not built for) or refuses (a tensor of a kind that it does not
read), the reference serves. ``STEELYARD_CPU`` forces an implementation when the library is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from steelyard._errors import choice
from steelyard.ops import library
from steelyard.ops.reference import accumulation_dtype, class_dim

kernels: Any = None
try:
    kernels = import_module("steelyard._kernels")
except ModuleNotFoundError as error:
    # Built without a compiler that it knows, or a checkout that was never installed. One that fails to load says so.
    if error.name != "steelyard._kernels":
        raise

__all__ = ["available", "details", "kernels", "ready", "selected", "threads", "using"]

VARIABLE = "STEELYARD_CPU"

_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
_selected = "reference"


def available() -> tuple[str, ...]:
    """The implementations that this machine can run, slowest first."""
    return ("reference", *(kernels.names() if kernels is not None else ()))


def selected() -> str:
    """The implementation that CPU tensors meet."""
    return _selected


def ready() -> bool:
    """Whether that is a kernel."""
    return _selected != "reference"


def select(name: str) -> None:
    """Use another implementation from here on, in the whole process."""
    global _selected
    choice(VARIABLE, "value", name, available(), "Better instructions need a processor that has them.")
    if name != "reference":
        kernels.use(name)
    _selected = name


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use another implementation for a while, in the whole process; for tests and measurements."""
    before = _selected
    select(name)
    try:
        yield
    finally:
        select(before)


def details() -> dict[str, str]:
    """Where threads and large pages come from."""
    if kernels is None:
        return {}
    return {"threads": kernels.thread_source(), "huge pages": kernels.huge_pages()}


def threads() -> int:
    """How many threads a kernel may use: as many as PyTorch."""
    return torch.get_num_threads()


# ---------------------------------------------------------------------------------------------------------- operators


def _softmax_loss(input: Tensor, target: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    if ready():
        rows = list(input.shape)
        if rows:
            del rows[class_dim(input)]
        results = tuple(input.new_empty(rows, dtype=accumulation_dtype(input.dtype)) for _ in range(3))
        if kernels.softmax_forward(input, target, *settings, *results, threads()):
            return results  # type: ignore[return-value]
    return library.softmax_loss_by_reference(input, target, *settings)


def _softmax_loss_backward(
    grad: Tensor, input: Tensor, target: Tensor, maximum: Tensor, total: Tensor, *settings: Any
) -> Tensor:
    if ready():
        result = torch.empty_like(input)
        if kernels.softmax_backward(input, target, *settings, grad, 1.0, maximum, total, result, threads()):
            return result
    return library.softmax_loss_backward_by_reference(grad, input, target, maximum, total, *settings)


def _sigmoid_loss(input: Tensor, target: Tensor, *settings: Any) -> Tensor:
    if ready():
        result = torch.empty_like(input, dtype=accumulation_dtype(input.dtype))
        if kernels.sigmoid(input, target, *settings, None, 1.0, 1.0, None, result, None, threads()):
            return result
    return library.sigmoid_loss_by_reference(input, target, *settings)


def _sigmoid_loss_backward(grad: Tensor, input: Tensor, target: Tensor, *settings: Any) -> Tensor:
    if ready():
        result = torch.empty_like(input)
        if kernels.sigmoid(input, target, *settings, grad, 1.0, 1.0, None, None, result, threads()):
            return result
    return library.sigmoid_loss_backward_by_reference(grad, input, target, *settings)


if kernels is not None:
    kernels.know((Tensor, torch.nn.Parameter, torch.nn.Buffer), _DTYPES)
    library.implement("softmax_loss", _softmax_loss, "CPU")
    library.implement("softmax_loss_backward", _softmax_loss_backward, "CPU")
    library.implement("sigmoid_loss", _sigmoid_loss, "CPU")
    library.implement("sigmoid_loss_backward", _sigmoid_loss_backward, "CPU")
select(os.environ.get(VARIABLE) or available()[-1])
