"""Compile the kernels for a Hopper GPU, which takes none: run by test_compile.py in a process that does not interpret.

Prints for each case the widest loads and stores of global memory, in bits, and the bytes of stack (spilled registers).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from steelyard.ops.gpu import _launch, sigmoid, softmax

OFF = {
    "SOFT": False, "GENERAL": False, "BY_TARGET": False, "WEIGHT": False, "ROW_WEIGHT": False, "OFFSET": False,
    "MARGIN": False, "TWICE": 0, "LOSS": 2, "GRAD": True, "STATISTICS": False, "SAVED": False, "CHECKED": False,
    "WIDE": False, "FULL": False,
}  # fmt: skip
SMOOTH = {"GENERAL": True, "WEIGHT": True}
EVERYTHING = {
    **SMOOTH,
    "ROW_WEIGHT": True,
    "OFFSET": True,
    "BY_TARGET": True,
    "TWICE": -1,
    "STATISTICS": True,
    "LOSS": 1,
}
CASES: dict[str, tuple[Any, str, int, int, dict[str, Any]]] = {
    "bf16, 4096 classes": (softmax.whole_rows, "bf16", 1, 4096, {}),
    "bf16, as many as on chip": (softmax.whole_rows, "bf16", 1, _launch.Limits().on_chip, {}),
    "fp32, as many as on chip": (softmax.whole_rows, "fp32", 1, _launch.Limits().on_chip // 2, {"FULL": True}),
    "bf16 smoothed, as many": (softmax.whole_rows, "bf16", 1, _launch.Limits().on_chip // 2, SMOOTH),
    "fp32 smoothed, as many": (softmax.whole_rows, "fp32", 1, _launch.Limits().on_chip // 2, {**SMOOTH, "FULL": True}),
    "bf16, 10 classes": (softmax.whole_rows, "bf16", 256, 16, {"WEIGHT": True}),
    "bf16, mended": (softmax.whole_rows, "bf16", 1, 4096, {"CHECKED": True, "LOSS": 0}),
    "fp16, everything": (softmax.whole_rows, "fp16", 4, 1024, {**EVERYTHING, "SOFT": True}),
    "bf16, long": (softmax.long_rows, "bf16", 1, _launch.Limits().stream, {}),
    "fp32, long": (softmax.long_rows, "fp32", 1, _launch.Limits().stream, {"FULL": True}),
    "bf16, long, saved": (softmax.long_rows, "bf16", 1, _launch.Limits().stream, {"SAVED": True, "LOSS": 0}),
    "fp16, long, everything": (
        softmax.long_rows, "fp16", 1, 4096, {**EVERYTHING, "MARGIN": True, "TWICE": 5, "WIDE": True},
    ),
}  # fmt: skip


def compiled(
    function: Any, constants: dict[str, Any], types: dict[str, str], aligned: set[str], warps: int
) -> dict[str, int]:
    """What the compiler makes of a kernel."""
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in function.arg_names}
    places = {name: (place,) for place, name in enumerate(function.arg_names)}
    hints = {places[name]: [["tt.divisibility", 16]] for name in places if signature[name][0] == "*" or name in aligned}
    source = ASTSource(function, signature, {places[name]: value for name, value in constants.items()}, hints)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    found = {}
    for what in ("ld", "st"):
        widths = re.findall(rf"{what}\.global\S*?(?:\.v(\d))?\.b(\d+)", made.asm["ptx"])
        found[what] = max((int(count or 1) * int(width) for count, width in widths), default=0)
    return {**found, "stack": _stack(made.asm["cubin"])}


def _stack(binary: bytes) -> int:
    """Bytes of stack of the kernel, by the tool that Triton brings."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(int(size) for size in re.findall(r"STACK:(\d+)", text))


def rows(function: Any, dtype: str, tile: int, classes: int, flags: dict[str, Any]) -> dict[str, int]:
    """A softmax kernel, classes side by side and a multiple of 16 of them."""
    constants = {**OFF, **flags, "ROWS": tile, "CLASSES": classes, "zc": 1, "gc": 1, "qc": 1}
    types = dict.fromkeys(["w", "v", "d", "m", "up", "used", "maximum", "total", "loss"], "*fp32") | dict.fromkeys(
        ["z", "grad"], f"*{dtype}"
    )
    types["y"] = f"*{dtype}" if constants["SOFT"] else "*i64"
    types |= dict.fromkeys(["gamma", "keep", "spread"], "fp32")
    aligned = {"classes", *(letter + axis for letter in "zgq" for axis in "0123")}
    return compiled(function, constants, types, aligned, _launch._warps(tile * classes))


def elements(dtype: str, **flags: Any) -> dict[str, int]:
    """The sigmoid kernel on memory that is walked from end to end."""
    constants = {name: False for name in sigmoid.elements.arg_names if name.isupper()}
    constants |= {f"{letter}_FLAT": True for letter in "ZTVULG"} | {"LOSS": 2, "GRAD": True, "SIZE": 2048, **flags}
    types = dict.fromkeys(["v", "pos", "up", "used", "loss"], "*fp32") | dict.fromkeys(["z", "t", "grad"], f"*{dtype}")
    types |= dict.fromkeys(["negative", "gamma_pos", "gamma_neg", "clip", "ignore"], "fp32")
    return compiled(sigmoid.elements, constants, types, {"count"}, 8)


if __name__ == "__main__":
    found = {name: rows(*case) for name, case in CASES.items()}
    found["elements bf16"] = elements("bf16", POS_WEIGHT=True)
    found["elements fp32, everything"] = elements(
        "fp32", POS_WEIGHT=True, WEIGHT=True, FOCUS_POS=True, FOCUS_NEG=True, CLIP=True, IGNORE=True, CHECKED=True
    )
    json.dump(found, sys.stdout)
