"""Triton's compiler takes the kernels, for a GPU that need not be here, and makes of them what they are meant to be."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.ops import gpu

SCRIPT = Path(__file__).parent / "compile_kernels.py"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    version = tuple(int(part) for part in (gpu.version() or "0.0").split("+")[0].split(".")[:2])
    if version < (3, 6):
        pytest.skip("Triton's own interface to its compiler has changed since")
    folder = Path(importlib.util.find_spec("triton").origin).parent
    if not (folder / "backends/nvidia/bin/cuobjdump").exists():
        pytest.skip("a Triton without the tools for NVIDIA's GPUs")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NARROW = {
    "bf16, 100 classes": 64, "bf16, 10 classes": 32, "bf16, 30522 classes": 32, "bf16, short axes": 32,
    "bf16, an odd number of classes": 32, "bf16, a large odd number": 32, "bf16, long, odd": 32,
}  # fmt: skip
"""Where rows are not far enough apart for words of 128 bits, the widest store, that of a float32 loss among them."""


def test_memory_is_read_and_written_in_the_widest_words(compiled: dict[str, dict[str, int]]) -> None:
    assert {name: found["ld"] for name, found in compiled.items() if found["ld"] < 128 and name not in NARROW} == {}
    assert {name: found["st"] for name, found in compiled.items() if found["st"] != NARROW.get(name, 128)} == {}


def test_registers_suffice(compiled: dict[str, dict[str, int]]) -> None:
    """A row that is kept on chip is not spilled to memory; a few words beside it would do no harm."""
    assert {name: found["stack"] for name, found in compiled.items() if found["stack"] > 64} == {}


def test_shared_memory_suffices(compiled: dict[str, dict[str, int]]) -> None:
    """99 KiB is what the smallest of NVIDIA's have that fetch ahead."""
    assert {name: found["shared"] for name, found in compiled.items() if found["shared"] > 99 << 10} == {}
    assert compiled["bf16, long"]["shared"] >= 2 * 8192 * 2, "tiles are fetched ahead"


def test_little_time_goes_into_where_things_are(compiled: dict[str, dict[str, int]]) -> None:
    """Divisions of whole numbers take tens of instructions each; short axes cannot do without."""
    assert {name: found["divisions"] for name, found in compiled.items()
            if found["divisions"] > 16 and name != "bf16, short axes"} == {}  # fmt: skip


def test_rows_are_kept_on_chip_as_far_as_that_goes(compiled: dict[str, dict[str, int]]) -> None:
    walked = {name for name, found in compiled.items() if found.get("whole") == 0}
    assert walked == {name for name in compiled if "long" in name} | {
        "bf16, 30522 classes", "bf16, a large odd number", "bf16 soft and focal", "bf16, many classes apart",
    }  # fmt: skip


def test_grids_are_as_wide_as_the_device(compiled: dict[str, dict[str, int]]) -> None:
    assert {name: found["programs"] for name, found in compiled.items() if found["programs"] < 132} == {}
    assert compiled["bf16, mended"]["programs"] == compiled["elements bf16, mended"]["programs"] == 4 * 132
