"""What runs here: which implementation of the formulas tensors meet, and what it finds in this machine."""

from __future__ import annotations

import os
from typing import Any

import torch

from steelyard._errors import choice
from steelyard._version import __version__
from steelyard.ops import cpu, gpu

__all__ = ["show_config"]


def show_config(mode: str = "print") -> dict[str, Any] | None:
    """Say what the losses run on here: the first lines of a report about a slow or a wrong number.

    Args:
        mode: ``"print"`` for people; ``"dicts"``, numpy's word for it, for programs.

    Returns:
        None, or with ``"dicts"`` a dictionary that JSON can hold: ``"steelyard"`` and ``"torch"``, the versions;
        ``"cpu"``, the implementation that CPU tensors meet; ``"cpu available"``, those that this machine can run,
        slowest first; ``"cuda"``, the implementation that tensors on a GPU meet: ``"triton"``, the kernels (float64
        meets the reference there), or where Triton is missing ``"reference"``, the formulas in plain PyTorch;
        ``"triton"``, its version or None; ``"gpus"``, the names of those that PyTorch sees; ``"other devices"``,
        which is ``"reference"``; ``"threads"``, how many a kernel may use; ``"thread source"`` and ``"huge pages"``,
        None where there are no kernels; ``"STEELYARD_CPU"``, the environment variable that chooses the implementation
        when the library is imported, or None.

    Raises:
        ValueError, TypeError: another ``mode``.

    Example:
        >>> show_config("dicts")["other devices"]
        'reference'
    """
    choice("show_config", "mode", mode, ("print", "dicts"))
    details = cpu.details()
    found: dict[str, Any] = {
        "steelyard": __version__,
        "torch": str(torch.__version__),
        "cpu": cpu.selected(),
        "cpu available": list(cpu.available()),
        "cuda": "triton" if gpu.installed() else "reference",
        "triton": gpu.version(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "other devices": "reference",
        "threads": cpu.threads(),
        "thread source": details.get("threads"),
        "huge pages": details.get("huge pages"),
        cpu.VARIABLE: os.environ.get(cpu.VARIABLE),
    }
    if mode == "dicts":
        return found
    for name, value in _lines(found):
        print(f"{name:<14}{value}")
    return None


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    chosen, others = found["cpu"], [name for name in reversed(found["cpu available"]) if name != found["cpu"]]
    tensors = f"{chosen}, {_PLAIN}" if chosen == "reference" else f"{chosen}, a kernel in C++"
    if others:
        tensors += "; runs here too: " + ", ".join(others)
    lines = [("steelyard", found["steelyard"]), ("torch", found["torch"]), ("CPU tensors", tensors)]
    if found["thread source"] is None:
        lines.append(("kernels", "none were built: that takes GCC or Clang when the package is installed"))
    else:
        lines.append(("threads", f"{found['threads']} at most, {found['thread source']}"))
        lines.append(("huge pages", found["huge pages"]))
    return [
        *lines,
        ("CUDA tensors", _on_gpu(found)),
        ("other devices", f"reference, {_PLAIN}"),
        (cpu.VARIABLE, "not set" if found[cpu.VARIABLE] is None else repr(found[cpu.VARIABLE])),
    ]


def _on_gpu(found: dict[str, Any]) -> str:
    seen = f"; here: {', '.join(found['gpus'])}" if found["gpus"] else "; this PyTorch sees no GPU"
    if found["triton"] is None:
        return f"reference, {_PLAIN}; there is no Triton to compile kernels with{seen}"
    return f"triton, kernels by Triton {found['triton']}; float64 meets the reference{seen}"


_PLAIN = "the formulas in plain PyTorch"
