"""Compile the kernels for a Hopper GPU, which takes none: run by test_compile.py in a process that does not interpret.

Losses go through the launchers themselves, with tensors of the CPU, of which nothing is followed; where a kernel would
start, it is compiled as it would be there. Prints for each case the width of the loads and stores of global memory, in
bits, the widest of each; the bytes of stack (spilled registers); and how many programs and warps there would be.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from steelyard.ops.gpu import _launch, sigmoid_launch, softmax_launch

TARGET = GPUTarget("cuda", 90, 32)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


class Nowhere:
    """A driver without a device."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def is_active(self) -> bool:
        return True


class Compiled:
    """A kernel that is compiled where it would be started."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.found: dict[str, int] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **flags: Any) -> None:
            made = self.kernel.run(*arguments, grid=grid, warmup=True, **flags)
            self.found = {
                **_of(made.asm), "shared": made.metadata.shared, "programs": grid[0], "warps": flags["num_warps"],
            }  # fmt: skip

        return launch


def _of(asm: dict[str, Any]) -> dict[str, int]:
    found = {}
    for what in ("ld", "st"):
        words = re.findall(rf"{what}\.global\S*?(?:\.v(\d))?\.b(\d+)", asm["ptx"])
        found[what] = max((int(count or 1) * int(width) for count, width in words), default=0)
    ahead = re.findall(
        r"cp\.async\.c[ag]\.shared\.global\S* [^;]*?, 0x([0-9a-f]+)", asm["ptx"]
    )  # bytes, read in advance
    found["ld"] = max([found["ld"], *(8 * int(size, 16) for size in ahead)])
    divided = len(re.findall(r"\b(?:div|rem)\.[su]\d+", asm["ptx"]))
    return {**found, "divisions": divided, "stack": _stack(asm["cubin"])}


def _stack(binary: bytes) -> int:
    """Bytes of stack of the kernel, by the tool that Triton brings."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(int(size) for size in re.findall(r"STACK:(\d+)", text))


def rows(
    dtype: torch.dtype, *shape: int, soft: bool = False, given: str = "", gamma: float = 0.0, smoothing: float = 0.0,
    by_target: bool = False, form: str = "sums", target_dtype: torch.dtype | None = None,
) -> dict[str, int]:  # fmt: skip
    """The softmax kernel that such logits would meet; ``given``: weight, row weight v, offset, margin, by letter."""
    input = torch.empty(shape, dtype=dtype)
    of_rows = (shape[0], *shape[2:])
    target = torch.empty(shape, dtype=target_dtype or dtype) if soft else torch.empty(of_rows, dtype=torch.int64)
    classes = {letter: torch.empty(shape[1]) for letter in "wom"} | {"v": torch.empty(of_rows)}
    settings = *(classes[letter] if letter in given else None for letter in "wvom"), gamma, smoothing, by_target, -100
    forms: dict[str, dict[str, Any]] = {
        "sums": {"loss": _launch.SUMS, "upstream": torch.ones(())},
        "loss": {"loss": _launch.EACH, "statistics": True},
        "saved": {"saved": (torch.empty(of_rows), torch.empty(of_rows)), "upstream": torch.empty(of_rows)},
        "over": {"loss": _launch.SUMS, "upstream": torch.ones(()), "gradient": input},
        "mend": {"upstream": torch.ones(()), "used": torch.ones(()), "gradient": torch.empty_like(input)},
    }
    whole, long = Compiled(softmax_launch.whole_rows), Compiled(softmax_launch.long_rows)
    softmax_launch.whole_rows, softmax_launch.long_rows = whole, long
    try:
        assert softmax_launch.launch(input, target, *settings, **forms[form]) is not None
    finally:
        softmax_launch.whole_rows, softmax_launch.long_rows = whole.kernel, long.kernel
    return {**(whole.found or long.found), "whole": int(bool(whole.found))}


def elements(dtype: torch.dtype, *shape: int, everything: bool = False, mend: bool = False) -> dict[str, int]:
    """The sigmoid kernel."""
    input = torch.empty(shape, dtype=dtype)
    settings = (torch.empty(shape), torch.empty(shape[-1]), 0.5, 2.0, 2.0, 0.05, -1) if everything else (
        None, torch.empty(shape[-1]), 1.0, 0.0, 0.0, 0.0, None)  # fmt: skip
    kernel = Compiled(sigmoid_launch.elements)
    sigmoid_launch.elements = kernel
    more = {"used": torch.ones(()), "gradient": torch.empty_like(input)} if mend else {"loss": _launch.SUMS}
    try:
        assert (
            sigmoid_launch.launch(input, torch.empty_like(input), *settings, upstream=torch.ones(()), **more)
            is not None
        )
    finally:
        sigmoid_launch.elements = kernel.kernel
    return kernel.found


CASES: dict[str, tuple[Any, ...]] = {
    "bf16, 4096 classes": (rows, {}, BF16, 8192, 4096),
    "bf16, as many as on chip": (rows, {}, BF16, 4096, 32768),
    "fp32, as many as on chip": (rows, {}, FP32, 4096, 16384),
    "bf16, 1000 classes": (rows, {"given": "w"}, BF16, 131072, 1000),
    "bf16, 100 classes": (rows, {"given": "w"}, BF16, 131072, 100),
    "bf16, 10 classes": (rows, {"given": "w"}, BF16, 131072, 10),
    "bf16, 30522 classes": (rows, {}, BF16, 4096, 30522),
    "bf16, an odd number of classes": (rows, {"given": "o"}, BF16, 4096, 8191),
    "bf16, a large odd number": (rows, {"given": "o"}, BF16, 4096, 30521),
    "bf16 adjusted, as many": (rows, {"given": "o"}, BF16, 4096, 16384),
    "bf16 with all": (rows, {"given": "wvom", "gamma": 2.0}, BF16, 4096, 16384),
    "bf16 smoothed, as many": (rows, {"given": "w", "smoothing": 0.1}, BF16, 4096, 16384),
    "fp32 smoothed, as many": (rows, {"given": "w", "smoothing": 0.1}, FP32, 4096, 8192),
    "bf16 soft and focal": (rows, {"soft": True, "given": "w", "gamma": 1.7, "by_target": True}, BF16, 4096, 16384),
    "fp16, everything": (rows, {"soft": True, "given": "wvo", "gamma": 1.7, "smoothing": 0.1, "by_target": True},
                         FP16, 4096, 1024),
    "bf16, mended": (rows, {"form": "mend"}, BF16, 8192, 4096),
    "bf16, over the logits": (rows, {"form": "over"}, BF16, 2048, 32000),
    "bf16, segmentation": (rows, {}, BF16, 8, 21, 512, 512),
    "bf16, many classes apart": (rows, {}, BF16, 2, 1000, 64, 64),
    "bf16, short axes": (rows, {}, BF16, 2**16, 10, 3),
    "bf16, long": (rows, {}, BF16, 2048, 131072),
    "bf16, long, odd": (rows, {}, BF16, 2048, 50257),
    "fp32, long": (rows, {}, FP32, 2048, 131072),
    "bf16, long, saved, over": (rows, {"form": "saved"}, BF16, 2048, 131072),
    "bf16, long, over the logits": (rows, {"form": "over"}, BF16, 2048, 131072),
    "fp16, long, everything": (rows, {"soft": True, "given": "wvo", "gamma": 2.5, "smoothing": 0.1, "by_target": True},
                               FP16, 2048, 65536),
    "bf16, long, all": (rows, {"given": "wvom"}, BF16, 2048, 131072),
    "fp32, long, all, smoothed": (rows, {"given": "wvom", "smoothing": 0.1, "gamma": 2.0}, FP32, 2048, 131072),
    "fp32, long, soft, everything": (rows, {"soft": True, "given": "wvo", "target_dtype": torch.float64, "gamma": 1.5},
                                     FP32, 2048, 131072),
    "bf16, long, mended": (rows, {"form": "mend"}, BF16, 2048, 131072),
    "bf16, long, over, smoothed": (rows, {"form": "over", "smoothing": 0.1, "given": "w"}, BF16, 2048, 131072),
    "bf16, over, classes apart": (rows, {"form": "over"}, BF16, 8, 21, 512, 512),
    "elements bf16": (elements, {}, BF16, 2**20, 80),
    "elements bf16, odd": (elements, {}, BF16, 2**20 - 1, 1),
    "elements bf16, mended": (elements, {"mend": True}, BF16, 2**20, 80),
    "elements fp32, everything": (elements, {"everything": True}, FP32, 2**20, 80),
}  # fmt: skip


if __name__ == "__main__":
    driver.set_active(Nowhere())
    with _launch.limits(processors=132):
        chosen = sys.argv[1:]
        json.dump({
            name: make(*shape, **options) for name, (make, options, *shape) in CASES.items()
            if not chosen or any(part in name for part in chosen)
        }, sys.stdout, indent=1)  # fmt: skip
